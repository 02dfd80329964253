//! Clients as people use them: curl, and a JavaScript runtime's fetch and WebSocket, over IPv6 and
//! IPv4, against the daemon in a process of its own.

use bytes::Bytes;
use gateway_tests::{Backend, GatewayProcess, lacks, within};
use http::{Response, header};
use http_body_util::{BodyExt as _, Full};
use std::net::SocketAddr;
use tokio::process::Command;

const DAEMON: &str = env!("CARGO_BIN_EXE_test-daemon");

/// A daemon in front of what most applications are: echo, server-sent events, WebSocket.
async fn daemon() -> (GatewayProcess, Vec<Backend>) {
    let http = Backend::http(|heard| match heard.uri.path() {
        "/events" => {
            let events = "data: one\n\ndata: two\n\n";
            let mut response = Response::new(Full::from(events));
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
            response
        }
        _ => {
            let seen =
                format!("{} {} from {}", heard.method, heard.uri.path(), heard.header("x-forwarded-for"));
            let body = if heard.body.is_empty() { Bytes::from(seen) } else { heard.body.clone() };
            Response::new(Full::new(body))
        }
    })
    .await;
    let websocket = Backend::websocket().await;
    let toml = format!(
        "[[listener]]\nname = \"web\"\naddress = \"[::]:0\"\n\
         [[route]]\nname = \"app\"\nto = \"{}\"\n[[route]]\nname = \"ws\"\npath = \"/ws\"\nto = \"{}\"\n",
        http.addr(),
        websocket.addr()
    );
    (GatewayProcess::start(DAEMON, &toml).await, vec![http, websocket])
}

fn both_families(address: SocketAddr) -> [String; 2] {
    [format!("[::1]:{}", address.port()), format!("127.0.0.1:{}", address.port())]
}

/// Runs a program and returns what it printed. Where continuous integration runs, the program must
/// be there; on somebody's own machine, a missing one is none of this project's business.
async fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let running = Command::new(program).args(arguments).kill_on_drop(true).output();
    match within(program, running).await {
        Ok(output) => {
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{program} {arguments:?}: {}\n{out}\n{err}", output.status);
            Some(out.into_owned())
        }
        Err(_) => {
            lacks("clients", program);
            None
        }
    }
}

#[tokio::test]
async fn curl_gets_posts_and_uploads() {
    let (gateway, _backends) = daemon().await;
    let [v6, v4] = both_families(gateway.addr_of("web").await);
    for (host, client) in [(v6, "::1"), (v4, "127.0.0.1")] {
        let url = format!("http://{host}/x");
        let Some(got) = run("curl", &["-sS", "-g", &url]).await else { return };
        assert_eq!(got, format!("GET /x from {client}"));
        let chunked =
            ["-sS", "-g", "-H", "transfer-encoding: chunked", "--data-binary", "a chunked body", &url];
        assert_eq!(run("curl", &chunked).await.as_deref(), Some("a chunked body"));
        let expecting =
            ["-sS", "-g", "-H", "expect: 100-continue", "--data-binary", "an expected body", &url];
        assert_eq!(run("curl", &expecting).await.as_deref(), Some("an expected body"));
        let head = run("curl", &["-sS", "-g", "--head", &url]).await.unwrap_or_default();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        // Two requests on one connection.
        let twice =
            run("curl", &["-sS", "-g", "-w", "%{num_connects} ", &url, &url]).await.unwrap_or_default();
        assert!(twice.trim_end().ends_with('0'), "the second request opened a connection: {twice}");
    }
}

#[tokio::test]
async fn a_javascript_runtime_fetches_streams_and_talks() {
    let (gateway, _backends) = daemon().await;
    for host in both_families(gateway.addr_of("web").await) {
        let script = format!(
            r#"
            const fail = what => {{ console.error(what); process.exit(1); }};
            const posted = await (await fetch("http://{host}/x", {{ method: "POST", body: "by fetch" }})).text();
            if (posted !== "by fetch") fail("fetch: " + posted);
            const events = await (await fetch("http://{host}/events")).text();
            if (events !== "data: one\n\ndata: two\n\n") fail("events: " + events);
            const socket = new WebSocket("ws://{host}/ws");
            const message = await new Promise((resolve, reject) => {{
                socket.onopen = () => socket.send("by WebSocket");
                socket.onmessage = event => resolve(event.data);
                socket.onerror = () => reject(new Error("the WebSocket failed"));
            }});
            if (message !== "by WebSocket") fail("WebSocket: " + message);
            socket.close();
            console.log("all of it");
            "#
        );
        let arguments =
            ["--experimental-websocket", "--no-warnings", "--input-type=module", "--eval", &script];
        let Some(printed) = run("node", &arguments).await else { return };
        assert_eq!(printed.trim(), "all of it");
    }
}

#[tokio::test]
async fn events_reach_the_client_as_they_happen() {
    // The backend sends the second event only when it is told that the first one arrived.
    let (arrived, told) = tokio::sync::watch::channel(false);
    let backend = Backend::streaming(move |_| {
        let mut told = told.clone();
        async move {
            let (mut sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(1);
            tokio::spawn(async move {
                // The client of this test reads to the end.
                let _ = sender.send_data(Bytes::from_static(b"data: one\n\n")).await;
                let _ = told.wait_for(|told| *told).await;
                let _ = sender.send_data(Bytes::from_static(b"data: two\n\n")).await;
            });
            Response::new(body.boxed())
        }
    })
    .await;
    let toml = format!(
        "[[listener]]\nname = \"web\"\naddress = \"[::]:0\"\n[[route]]\nto = \"{}\"\n",
        backend.addr()
    );
    let gateway = GatewayProcess::start(DAEMON, &toml).await;
    let mut client = gateway_tests::Raw::connect(gateway.addr_of("web").await).await;
    client.send("GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until("data: one\n\n").await;
    arrived.send_replace(true);
    client.until("data: two\n\n").await;
}
