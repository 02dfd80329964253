//! A stop: nothing new, what runs may finish until the deadline, and then it is cut.

use futures_util::{SinkExt as _, StreamExt as _};
use gateway_tests::{Backend, Client, Raw, TestGateway, eventually, one_route, within};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_tungstenite::{accept_async, client_async, tungstenite::Message};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

/// Begins a stop, and returns once the gateway says so itself.
async fn stopping(gateway: TestGateway, grace: Duration) -> JoinHandle<()> {
    let admin = gateway.admin();
    let stop = tokio::spawn(gateway.stop(grace));
    eventually("the news on /readyz", async || (admin.get("/readyz").await.status == 503).then_some(()))
        .await;
    stop
}

async fn stopped(stop: JoinHandle<()>) {
    within("the end of the stop", stop).await.expect("a stop");
}

#[tokio::test]
async fn a_download_that_runs_is_finished() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nfirst ").await;
    client.until("first ").await;
    let stop = stopping(gateway, LONG).await;
    assert!(!stop.is_finished(), "it waits for the download");
    server.send("second").await;
    assert_eq!(client.to_end().await, "second", "all of it, and then the end of the connection");
    stopped(stop).await;
}

#[tokio::test]
async fn a_request_that_waits_for_its_answer_gets_it() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nhalf").await;
    let mut server = visitors.next().await;
    server.until("half").await;
    let stop = stopping(gateway, LONG).await;
    client.send("half").await;
    server.until("half").await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "the client need not find out by itself: {answer}");
    stopped(stop).await;
}

#[tokio::test]
async fn connections_that_carry_nothing_are_closed_at_once() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let mut used = Raw::connect(gateway.addr()).await;
    used.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    used.until("hello").await;
    let mut fresh = Raw::connect(gateway.addr()).await;
    eventually("both connections", async || {
        (gateway.metric("vers_connections_active", &[]).await == 2.0).then_some(())
    })
    .await;
    let began = Instant::now();
    gateway.stop(LONG).await;
    assert!(began.elapsed() < LONG / 2, "it waited for nothing");
    assert_eq!(used.to_end().await, "");
    assert_eq!(fresh.to_end().await, "", "a connection that never carried a request is idle too");
}

#[tokio::test]
async fn nobody_new_comes_in() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let address = gateway.addr();
    let mut client = Raw::connect(address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    let stop = stopping(gateway, LONG).await;
    eventually("a closed door", async || TcpStream::connect(address).await.err()).await;
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.to_end().await.starts_with("HTTP/1.1 204 "));
    stopped(stop).await;
}

#[tokio::test]
async fn operators_can_still_look() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let _server = visitors.next().await;
    let admin = gateway.admin();
    assert_eq!(admin.get("/readyz").await.status, 200);
    let stop = stopping(gateway, Duration::from_secs(2)).await;
    let ready = admin.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), ready.text().as_str()), (503, "stopping\n"));
    assert_eq!(admin.get("/livez").await.status, 200, "it need not be killed for this");
    let status: serde_json::Value = serde_json::from_str(&admin.get("/status").await.text()).expect("JSON");
    assert_eq!(status["draining"], true);
    stopped(stop).await;
    assert!(admin.try_send(http::Method::GET, "/livez", bytes::Bytes::new()).await.is_err(), "gone");
}

/// A gateway with an HTTP listener and a raw one.
fn both(backend: SocketAddr) -> TestGateway {
    TestGateway::start(&format!(
        r#"
        [[listener]]
        name = "web"
        address = "[::]:0"
        [[listener]]
        name = "raw"
        address = "[::1]:0"
        [[route]]
        listeners = ["web"]
        to = "{backend}"
        [[route]]
        listeners = ["raw"]
        protocol = "tcp"
        to = "{backend}"
        "#
    ))
}

#[tokio::test]
async fn tunnels_are_held_until_the_deadline_and_then_cut() {
    // What speaks WebSocket is sent back as WebSocket, the rest as it is.
    let backend = Backend::tcp(|stream| async {
        let mut first = [0];
        if stream.peek(&mut first).await.is_err() {
            return;
        }
        if &first != b"G" {
            let mut stream = stream;
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        } else if let Ok(mut socket) = accept_async(stream).await {
            while let Some(Ok(message)) = socket.next().await {
                let _ = socket.send(message).await;
            }
        }
    })
    .await;
    let gateway = both(backend.addr());
    let web = gateway.addr_of("web");
    let stream = TcpStream::connect(web).await.expect("a connection");
    let (mut socket, _) =
        within("the upgrade", client_async(format!("ws://{web}/"), stream)).await.expect("an upgrade");
    let mut raw = Raw::connect(gateway.addr_of("raw")).await;
    raw.send("x").await;
    raw.exactly(1).await;

    let began = Instant::now();
    let grace = Duration::from_secs(2);
    let stop = stopping(gateway, grace).await;
    socket.send(Message::text("still there")).await.expect("a send");
    let said = within("a message", socket.next()).await.expect("an open socket").expect("a message");
    assert_eq!(said, Message::text("still there"));
    raw.send("so am I").await;
    assert_eq!(raw.exactly(7).await, b"so am I");
    assert!(began.elapsed() < grace, "this machine is too slow for this test: {:?}", began.elapsed());

    stopped(stop).await;
    assert!(began.elapsed() >= grace, "cut after {:?}", began.elapsed());
    assert_eq!(raw.to_end().await, "");
    assert!(!matches!(within("the end", socket.next()).await, Some(Ok(_))), "nothing follows");
}

#[tokio::test]
async fn a_tunnel_that_ends_ends_the_wait() {
    let backend = Backend::tcp_echo().await;
    let gateway = both(backend.addr());
    let mut raw = Raw::connect(gateway.addr_of("raw")).await;
    raw.send("x").await;
    raw.exactly(1).await;
    let stop = stopping(gateway, LONG).await;
    assert!(!stop.is_finished(), "it waits for the tunnel");
    raw.finish().await;
    assert_eq!(raw.to_end().await, "");
    stopped(stop).await;
}

#[tokio::test]
async fn a_server_that_has_yet_to_greet_is_listened_to_for_as_long_as_a_client() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::start(&format!(
        "[gateway]\nworkers = 1\n[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"ssh\"\nprotocol = \"ssh\"\nto = \"{0}\"\n\
         [[route]]\nname = \"mail\"\nprotocol = \"tcp\"\nto = \"{0}\"\n",
        backend.addr()
    ));
    let mut silent = Raw::connect(gateway.addr()).await;
    let _silent_server = visitors.next().await;
    let mut greeted = Raw::connect(gateway.addr()).await;
    let mut server = visitors.next().await;
    let address = gateway.addr();
    let stop = stopping(gateway, LONG).await;
    eventually("a closed door", async || TcpStream::connect(address).await.err()).await;
    let talk = async {
        server.send("220 ready\r\n").await;
        greeted.until("220 ready\r\n").await;
        for _ in 0..20 {
            greeted.send("NOOP\r\n").await;
            server.until("NOOP\r\n").await;
            server.send("250 ok\r\n").await;
            greeted.until("250 ok\r\n").await;
        }
    };
    tokio::select! {
        biased;
        _ = silent.to_end() => panic!("it was not listened to before the time of both was over"),
        () = talk => {}
    }
    assert_eq!(silent.to_end().await, "", "nothing was begun");
    // Who knocked at the door before it closed is there, too.
    drop((greeted, server, visitors));
    stopped(stop).await;
}

#[tokio::test]
async fn an_upgrade_can_still_be_agreed_to() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::with(backend.addr(), r#"upgrades = ["foo"]"#);
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    let stop = stopping(gateway, LONG).await;
    server.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    client.send("ping").await;
    assert_eq!(server.exactly(4).await, b"ping");
    drop((client, server));
    stopped(stop).await;
}

#[tokio::test]
async fn without_grace_everything_is_cut() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    let began = Instant::now();
    gateway.stop(Duration::ZERO).await;
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert_eq!(client.to_end().await, "");
    assert_eq!(server.to_end().await, "");
}

#[tokio::test]
async fn the_configured_grace_is_kept() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::start(&format!(
        "{}\n[gateway]\nworkers = 2\nshutdown_grace = \"300ms\"\n",
        one_route(backend.addr(), "")
    ));
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let _server = visitors.next().await;
    let began = Instant::now();
    gateway.stop_as_configured().await;
    assert!(began.elapsed() >= Duration::from_millis(300), "cut after {:?}", began.elapsed());
    assert_eq!(client.to_end().await, "");
}

#[tokio::test]
async fn a_gateway_that_nobody_uses_stops_at_once() {
    let gateway = TestGateway::to(Backend::nobody().await);
    let address = gateway.addr();
    let began = Instant::now();
    gateway.stop(LONG).await;
    assert!(began.elapsed() < LONG / 2, "it waited for nothing");
    assert!(Client::new(address).connect().await.is_err(), "it is gone");
}
