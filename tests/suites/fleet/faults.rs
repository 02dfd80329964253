//! What is in the way between a client and a VM: who is told, what, and how soon. And what strangers may
//! do to the edge without anybody else's noticing.

use super::{application, curl, edge, edge_of, edge_toml, fleet, run};
use crate::DAEMON;
use gateway_tests::{
    Backend, Raw, eventually,
    fleet::{DOMAIN, DOWN, Fleet, UNKNOWN},
    pages, within,
};
use std::time::Instant;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};
use tokio_rustls::client::TlsStream;

/// Closes a connection as a machine does that is suddenly gone.
pub(super) fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("a socket's option");
    drop(stream);
}

/// The answer to a request for a VM: its status, its code, its body, and whether it came at once.
async fn answer(fleet: &Fleet, host: &str, port: u16, version: &str) -> (String, String, String) {
    let url = format!("https://{host}:{port}/");
    let words = ["-w", "\n%{http_code} %header{x-gateway-error}", version, &url];
    let out = run(&mut curl(fleet, &words)).await.well();
    let (body, words) = out.rsplit_once('\n').expect("two parts");
    let (status, code) = words.split_once(' ').expect("two words");
    (status.to_owned(), code.to_owned(), body.to_owned())
}

#[test]
fn owners_are_told_what_to_do() {
    fleet("fleet::faults::owners_are_told_what_to_do", &[], async |fleet| {
        let toml = pages::with(&edge_toml(), "connect = \"5s\"", "connect = \"1s\"");
        let _edge = edge_of(&fleet, &toml).await;
        // What comes to this VM is lost.
        fleet.b.namespace.must_run("nft add table inet test; nft 'add chain inet test in { type filter hook input priority 0; }'; nft add rule inet test in tcp dport 3000 drop");
        let name = |id: &str| format!("{id}.{DOMAIN}");
        for (host, status, code, words) in [
            (
                fleet.c.host(),
                "502",
                "vm-port-closed",
                "nothing listens on IPv6 port 3000 of this VM; bind `::` or run vers-gateway on the VM",
            ),
            (fleet.b.host(), "504", "vm-connect-timeout", ""),
            (name(DOWN), "502", "vm-unreachable", ""),
            (name(UNKNOWN), "404", "vm-unknown", ""),
        ] {
            for version in ["--http1.1", "--http2", "--no-alpn"] {
                let begin = Instant::now();
                let got = answer(&fleet, &host, 3000, version).await;
                assert_eq!((got.0.as_str(), got.1.as_str()), (status, code), "{host}: {}", got.2);
                assert!(got.2.contains(words), "{}", got.2);
                assert!(begin.elapsed().as_secs() < 5, "{code} after {:?}", begin.elapsed());
            }
        }
        // What cannot be told so is closed.
        let mut raw = fleet.client(&fleet.c).raw(fleet.c.at(3000)).await;
        raw.send([0; 4]).await;
        assert_eq!(raw.to_end().await, "");
        // A VM whose network is gone while it is known.
        fleet.edge.must_run(&format!("ip link set {} down", fleet.c.link));
        assert_eq!(answer(&fleet, &fleet.c.host(), 3000, "--http1.1").await.1, "vm-unreachable");
    });
}

#[test]
fn an_answer_that_a_vm_breaks_off_is_an_error_of_the_client() {
    let test = "fleet::faults::an_answer_that_a_vm_breaks_off_is_an_error_of_the_client";
    fleet(test, &[], async |fleet| {
        let edge = edge(&fleet).await;
        let listener = fleet.a.namespace.listen("[::]:3000").expect("a port");
        let _vm = Backend::on(listener, |mut stream| async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read_buf(&mut head).await, Ok(1..)) {}
            let of_chunks = head.starts_with(b"GET /chunks");
            let (framing, half) = if of_chunks {
                ("transfer-encoding: chunked", "4\r\nhalf\r\n")
            } else {
                ("content-length: 8", "half")
            };
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{half}").as_bytes()).await;
            if head.windows(5).any(|part| part == b"close") { drop(stream) } else { reset(stream) }
        });
        for version in ["--http1.1", "--http2"] {
            for path in ["/length", "/chunks", "/length/close", "/chunks/close"] {
                let ran = run(&mut curl(&fleet, &[version, &fleet.a.url(3000, path)])).await;
                // Partial file, failure in receiving, or a stream that was reset.
                assert!(matches!(ran.code, Some(18 | 56 | 92)), "{version} {path}: {ran:?}");
            }
        }
        let broke_off = async || {
            let lines = edge.log().into_iter().filter(|line| line["broke_off"] == true).count();
            (lines == 8).then_some(())
        };
        eventually("eight lines of the access log that say so", broke_off).await;
    });
}

#[test]
fn a_vm_that_falls_silent_in_the_middle_is_given_up() {
    fleet("fleet::faults::a_vm_that_falls_silent_in_the_middle_is_given_up", &[], async |fleet| {
        let toml = pages::with(&edge_toml(), "idle = \"1h\"", "idle = \"1s\"");
        let _edge = edge_of(&fleet, &toml).await;
        let listener = fleet.a.namespace.listen("[::]:3000").expect("a port");
        let (begun, mut told) = tokio::sync::mpsc::unbounded_channel();
        let _vm = Backend::on(listener, move |mut stream| {
            let begun = begun.clone();
            async move {
                let mut head = [0; 4];
                let _ = stream.read_exact(&mut head).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
                let _ = begun.send(());
                std::future::pending().await
            }
        });
        let url = fleet.a.url(3000, "/");
        let mut client = curl(&fleet, &["--http1.1", &url]);
        let (ran, ()) = tokio::join!(run(&mut client), async {
            within("a request", told.recv()).await.expect("the VM's word");
            fleet.edge.must_run(&format!("ip link set {} down", fleet.a.link));
        });
        assert_eq!(ran.code, Some(18), "half of it, and then the end: {ran:?}");
    });
}

#[test]
fn a_client_is_who_its_handshake_says() {
    fleet("fleet::faults::a_client_is_who_its_handshake_says", &["openssl"], async |fleet| {
        let edge = edge(&fleet).await;
        let application = application(&fleet.a.namespace, "[::]:3000");
        // A name that is none of the fleet's, and none at all: no certificate is for them.
        let wrong = run(&mut curl(&fleet, &["https://elsewhere.test:3000/"])).await;
        assert_eq!(wrong.code, Some(35), "{wrong:?}");
        let none = format!("openssl s_client -connect {}:3000 -noservername </dev/null", fleet.a.host());
        let none = run(Command::new("sh").args(["-c", &none])).await;
        assert!(none.err.contains("unrecognized name") && none.code != Some(0), "{none:?}");
        let unknown = ["outcome=\"unknown-name\""];
        assert_eq!(edge.admin().metric("vers_tls_handshakes_total", &unknown).await, 2.0);
        // The handshake is for one VM, the request for another.
        for version in ["--http1.1", "--http2"] {
            let host = format!("host: {}", fleet.b.host());
            let arguments = [version, "-H", &host, "-w", "%header{x-gateway-error}", "-o", "/dev/null"];
            let ran = run(&mut curl(&fleet, &[&arguments[..], &[&fleet.a.url(3000, "/")]].concat())).await;
            assert_eq!(ran.well(), "misdirected");
        }
        // What is no TLS is told so.
        let plain = format!("http://{}:3000/", fleet.a.host());
        let words = ["-w", "%{http_code} %header{x-gateway-error}", "-o", "/dev/null", &plain];
        let plain = run(&mut curl(&fleet, &words)).await.well();
        assert_eq!(plain, "400 not-tls");
        assert_eq!(application.heard().len(), 0);
    });
}

#[test]
fn an_expired_certificate_is_shown_and_complained_of() {
    fleet("fleet::faults::an_expired_certificate_is_shown_and_complained_of", &[], async |mut fleet| {
        let names = [format!("*.{DOMAIN}")];
        let names = names.each_ref().map(String::as_str);
        fleet.pair = fleet.pki.issue_with(&names, &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        });
        let edge = edge(&fleet).await;
        let _application = application(&fleet.a.namespace, "[::]:3000");
        let url = fleet.a.url(3000, "/");
        let ran = run(&mut curl(&fleet, &[&url])).await;
        assert!(ran.code == Some(60) && ran.err.contains("expired"), "{ran:?}");
        run(&mut curl(&fleet, &["-k", &url])).await.well();
        let warning =
            |line: &serde_json::Value| line["level"] == "WARN" && line.to_string().contains("has expired");
        assert!(edge.log().iter().any(warning), "{}", edge.log_text());
        let file = edge.folder().join("gateway.toml");
        let checked = run(Command::new(DAEMON).args(["check", "-c"]).arg(&file)).await;
        assert!(checked.code == Some(0) && checked.err.contains("expired"), "{checked:?}");
        // A new one is taken over without a start.
        fleet.pki.issue(&names).write(&edge.folder(), "new");
        for (new, name) in [("new-key.pem", "privkey.pem"), ("new.pem", "fullchain.pem")] {
            std::fs::rename(edge.folder().join(new), edge.folder().join(name)).expect("a file");
        }
        eventually("the new certificate", async || {
            (run(&mut curl(&fleet, &[&url])).await.code == Some(0)).then_some(())
        })
        .await;
    });
}

#[test]
fn a_thousand_clients_that_stall_in_the_handshake_hold_up_nobody() {
    const STALLED: usize = 1000;
    let test = "fleet::faults::a_thousand_clients_that_stall_in_the_handshake_hold_up_nobody";
    fleet(test, &[], async |fleet| {
        let shorter = "tls = true\ntimeouts = { handshake = \"4s\" }\n";
        let edge = edge_of(&fleet, &pages::with(&edge_toml(), "tls = true\n", shorter)).await;
        let _application = application(&fleet.a.namespace, "[::]:3000");
        let mut stalled = Vec::new();
        for number in 0..STALLED {
            let mut stream = TcpStream::connect(fleet.a.at(3000)).await.expect("a connection");
            if number % 2 == 0 {
                // The beginning of a ClientHello that says it has 512 bytes.
                stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.expect("a write");
            }
            stalled.push(stream);
        }
        let active = async || edge.admin().metric("vers_connections_active", &["listener=\"edge\""]).await;
        eventually("all of them", async || (active().await >= STALLED as f64).then_some(())).await;
        let url = fleet.a.url(3000, "/");
        for version in ["--http1.1", "--http2"].repeat(5) {
            run(&mut curl(&fleet, &[version, "--max-time", "3", &url])).await.well();
        }
        let late = ["outcome=\"late\""];
        eventually("the end of each of them", async || {
            let late = edge.admin().metric("vers_tls_handshakes_total", &late).await;
            (late == STALLED as f64).then_some(())
        })
        .await;
        eventually("nothing that is left", async || (active().await == 0.0).then_some(())).await;
        for mut stream in stalled {
            let end = within("the end", stream.read(&mut [0; 64])).await;
            assert!(!matches!(end, Ok(1..)), "nothing was said to it: {end:?}");
        }
    });
}

/// Sends a line to a server of the test that sends everything back.
async fn is_there(client: &mut Raw<TlsStream<TcpStream>>, line: &str) {
    client.send(line).await;
    client.until(line).await;
}

#[test]
fn a_reload_of_the_edge_cuts_nobody() {
    fleet("fleet::faults::a_reload_of_the_edge_cuts_nobody", &[], async |fleet| {
        let edge = edge(&fleet).await;
        let echo = |stream: TcpStream| async move {
            let (mut read, mut write) = stream.into_split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        };
        let ports = [4000, 22];
        let _servers = ports.map(|port| {
            Backend::on(fleet.a.namespace.listen(&format!("[::]:{port}")).expect("a port"), echo)
        });
        // Bytes on a port of their own, and what looks like SSH on 443.
        let mut opaque = fleet.client(&fleet.a).raw(fleet.a.at(4000)).await;
        let mut ssh = fleet.client(&fleet.a).raw(fleet.a.at(443)).await;
        is_there(&mut opaque, "hello\n").await;
        is_there(&mut ssh, "SSH-2.0-client\r\n").await;
        // Another certificate, one VM less, and nothing but HTTP from now on.
        fleet.pki.issue(&[&format!("*.{DOMAIN}")]).write(&edge.folder(), "new");
        for (new, name) in [("new-key.pem", "privkey.pem"), ("new.pem", "fullchain.pem")] {
            std::fs::rename(edge.folder().join(new), edge.folder().join(name)).expect("a file");
        }
        std::fs::write(edge.folder().join("vms.csv"), "").expect("a file is written");
        edge.write(
            &edge_toml()
                .replace("tls = true\n", "tls = true\nprotocol = \"http\"\n")
                .replace("protocol = \"ssh\"\n", "path = \"/ssh\"\n"),
        );
        let url = fleet.a.url(4000, "/");
        eventually("the new configuration", async || {
            let words = ["-o", "/dev/null", "-w", "%{http_code} %header{x-gateway-error}", &url];
            let ran = run(&mut curl(&fleet, &words)).await;
            (ran.out == "404 vm-unknown").then_some(())
        })
        .await;
        is_there(&mut opaque, "still there\n").await;
        is_there(&mut ssh, "still there\n").await;
    });
}
