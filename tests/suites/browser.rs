//! A browser, as people use it: HTTP/2, WebSocket and server-sent events over TLS that it trusts.

use data_encoding::BASE64;
use futures_util::{SinkExt as _, StreamExt as _};
use gateway_tests::{Backend, Pki, TestGateway, certificate_table, eventually, skipped};
use http_body_util::{StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use rcgen::{KeyPair, PublicKeyData as _};
use sha2::{Digest as _, Sha256};
use std::{path::PathBuf, process::Stdio};
use tokio::process::Command;
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::handshake::server::{Request, Response},
};

/// Says over `/report` what came of everything.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>a page of a VM</title><script>
const socket = () => new Promise((done, failed) => {
    const socket = new WebSocket(`wss://${location.host}/ws`);
    socket.onopen = () => socket.send("over the socket");
    socket.onmessage = message => { done(message.data); socket.close(); };
    socket.onerror = () => failed("no WebSocket");
});
const events = () => new Promise((done, failed) => {
    const seen = [];
    const source = new EventSource("/events");
    source.onmessage = event => { seen.push(event.data); if (event.data == "last") { source.close(); done(seen); } };
    source.onerror = () => failed("no events");
});
(async () => {
    let report;
    try {
        const fetched = await fetch("/text");
        const [{ nextHopProtocol }] = performance.getEntriesByType("navigation");
        report = { text: await fetched.text(), protocol: nextHopProtocol, socket: await socket(), events: await events() };
    } catch (error) { report = { error: String(error) }; }
    await fetch("/report?" + encodeURIComponent(JSON.stringify(report)), { method: "POST" });
})();
</script>"#;

/// The browser that this machine has.
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|file| file.exists())
}

async fn site() -> Backend {
    Backend::http(|heard| {
        let is_page = heard.uri.path() == "/";
        let body = if is_page { PAGE } else { "a text" };
        let kind = if is_page { "text/html" } else { "text/plain" };
        hyper::Response::builder().header("content-type", kind).body(body.into()).expect("an answer")
    })
    .await
}

/// Says by which version of HTTP the message came.
async fn sockets() -> Backend {
    Backend::tcp(|stream| async {
        let mut via = String::new();
        #[expect(clippy::result_large_err, reason = "the type of its errors is the library's")]
        let note = |request: &Request, response: Response| {
            via =
                request.headers().get("via").and_then(|via| via.to_str().ok()).unwrap_or_default().to_owned();
            Ok(response)
        };
        let Ok(mut socket) = accept_hdr_async(stream, note).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            let Ok(text) = message.to_text().map(|text| format!("{text} by {via}")) else { return };
            if message.is_text() && socket.send(text.into()).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn events() -> Backend {
    Backend::streaming(|_| async {
        let events =
            ["first", "second", "last"].map(|event| Ok(Frame::data(format!("data: {event}\n\n").into())));
        let body = BoxBody::new(StreamBody::new(futures_util::stream::iter(events)));
        hyper::Response::builder().header("content-type", "text/event-stream").body(body).expect("an answer")
    })
    .await
}

#[tokio::test]
async fn a_page_of_a_vm_fetches_and_opens_a_socket_and_hears_events() {
    let Some(browser) = browser() else {
        // Large, and so not among what is installed for tests.
        skipped(
            "browser::a_page_of_a_vm_fetches_and_opens_a_socket_and_hears_events",
            "there is no Chromium",
        );
        return;
    };
    let (site, sockets, events) = (site().await, sockets().await, events().await);
    let (pki, name) = (Pki::new(), "web-1.vm.test");
    let pair = pki.issue(&[name]);
    let toml = format!(
        "[[listener]]\nname = \"tls\"\naddress = \"[::]:0\"\ntls = true\n\
         [[route]]\nhost = \"{name}\"\nto = \"{}\"\n\
         [[route]]\nname = \"socket\"\nhost = \"{name}\"\npath = \"/ws\"\nto = \"{}\"\n\
         [[route]]\nhost = \"{name}\"\npath = \"/events\"\nto = \"{}\"\n{}",
        site.addr(),
        sockets.addr(),
        events.addr(),
        certificate_table("web")
    );
    let files = [("web.pem", pair.cert.as_str()), ("web-key.pem", pair.key.as_str())];
    let gateway = TestGateway::with_files(&toml, &files);
    let port = gateway.addr_of("tls").port();
    // It trusts this one key, and no other.
    let key = KeyPair::from_pem(&pair.key).expect("the key").subject_public_key_info();
    let pin = BASE64.encode(&Sha256::digest(key));
    let home = tempfile::tempdir().expect("a folder");
    let _child = Command::new(browser)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .args(["--disable-background-networking", "--disable-component-update", "--no-proxy-server"])
        .arg(format!("--user-data-dir={}", home.path().display()))
        .arg(format!("--host-resolver-rules=MAP {name} [::1]"))
        .arg(format!("--ignore-certificate-errors-spki-list={pin}"))
        .arg(format!("https://{name}:{port}/"))
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the browser starts");
    let report = eventually("the page's report", async || {
        let heard = site.heard().into_iter().find(|heard| heard.uri.path() == "/report")?;
        Some(heard.uri.query()?.to_owned())
    })
    .await;
    let expected = r#"{"text":"a text","protocol":"h2","socket":"over the socket by 2.0 vers-gateway","events":["first","second","last"]}"#;
    assert_eq!(decoded(&report), expected);
}

/// Text as a URL has it.
fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        let hex =
            |digit: Option<u8>| digit.and_then(|digit| char::from(digit).to_digit(16)).expect("a digit");
        plain.push(match byte {
            b'%' => (hex(bytes.next()) * 16 + hex(bytes.next())) as u8,
            byte => byte,
        });
    }
    String::from_utf8(plain).expect("text")
}
