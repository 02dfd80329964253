//! Raw TCP routes: bytes both ways, whatever they mean.

use gateway_tests::{Backend, Raw, TestGateway, eventually, settled, within};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn gateway(backend: SocketAddr, more: &str) -> TestGateway {
    TestGateway::start(&format!(
        r#"
        [[listener]]
        name = "raw"
        address = "[::]:0"
        [[route]]
        name = "raw"
        protocol = "tcp"
        to = "{backend}"
        {more}
        "#
    ))
}

/// Waits until no tunnel is open.
async fn over(gateway: &TestGateway) {
    eventually("the end of the tunnel", async || {
        (gateway.metric("vers_tunnels_active", &[]).await == 0.0).then_some(())
    })
    .await;
}

async fn bytes(gateway: &TestGateway, direction: &str) -> f64 {
    let direction = format!("direction=\"{direction}\"");
    gateway.metric("vers_tunnel_bytes_total", &["route=\"raw\"", &direction]).await
}

#[tokio::test]
async fn bytes_come_back_over_ipv6_and_ipv4() {
    let backend = Backend::tcp_echo().await;
    let gateway = gateway(backend.addr(), "");
    for address in [gateway.addr(), gateway.addr_v4()] {
        let mut client = Raw::connect(address).await;
        // Nothing of this is HTTP, and some of it only looks so.
        for bytes in [&b"\0\xff\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n"] {
            client.send(bytes).await;
            assert_eq!(client.exactly(bytes.len()).await, bytes, "over {address}");
        }
        client.finish().await;
        assert_eq!(client.to_end().await, "", "an end answers the end");
    }
}

#[tokio::test]
async fn the_server_may_speak_first() {
    let backend = Backend::tcp(|stream| async {
        let mut server = Raw::over(stream);
        server.send("220 ready\r\n").await;
        server.until("QUIT\r\n").await;
    })
    .await;
    let gateway = gateway(backend.addr(), "");
    let mut client = Raw::connect(gateway.addr()).await;
    client.until("220 ready\r\n").await;
    client.send("QUIT\r\n").await;
    assert_eq!(client.to_end().await, "");
}

#[tokio::test]
async fn either_side_may_finish_first() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    let mut client = Raw::connect(gateway.addr()).await;
    let mut server = visitors.next().await;
    client.send("a question").await;
    client.finish().await;
    assert_eq!(server.to_end().await, "a question");
    server.send("an answer after the end of the question").await;
    server.finish().await;
    assert_eq!(client.to_end().await, "an answer after the end of the question");
    over(&gateway).await;

    let mut client = Raw::connect(gateway.addr()).await;
    let mut server = visitors.next().await;
    server.send("an announcement").await;
    server.finish().await;
    assert_eq!(client.to_end().await, "an announcement");
    client.send("taken note of").await;
    client.finish().await;
    assert_eq!(server.to_end().await, "taken note of");
    over(&gateway).await;
}

#[tokio::test]
async fn much_goes_each_way_and_is_counted() {
    const UP: usize = 24 << 20;
    const DOWN: usize = 40 << 20;
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    let mut client = Raw::connect(gateway.addr()).await;
    let mut server = visitors.next().await;
    client.send("a word").await;
    server.until("a word").await;
    eventually("the count of an open tunnel", async || (bytes(&gateway, "sent").await == 6.0).then_some(()))
        .await;
    // All at once: no direction waits for the other.
    let (mut from_client, mut to_client) = server.stream.into_split();
    let (mut from_server, mut to_server) = client.stream.into_split();
    within("four halves", async {
        let (up, down) = (vec![b'u'; UP - 6], vec![b'd'; DOWN]);
        let (mut up_there, mut down_there) = (vec![0; UP - 6], vec![0; DOWN]);
        let done = tokio::try_join!(
            to_server.write_all(&up),
            to_client.write_all(&down),
            from_client.read_exact(&mut up_there),
            from_server.read_exact(&mut down_there),
        );
        done.expect("all of it");
        assert!(up_there == up && down_there == down, "other bytes than were sent");
    })
    .await;
    drop((from_client, to_client, from_server, to_server));
    over(&gateway).await;
    assert_eq!(bytes(&gateway, "sent").await, UP as f64, "to the backend");
    assert_eq!(bytes(&gateway, "received").await, DOWN as f64, "from the backend");
}

#[tokio::test]
async fn a_slow_reader_holds_the_other_side_back() {
    // More than the machine's buffers hold: see `tcp_rmem` and `tcp_wmem` of tcp(7).
    const MUCH: usize = 96 << 20;
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    let mut client = Raw::connect(gateway.addr()).await;
    let mut server = visitors.next().await;
    let sending = tokio::spawn(async move { server.send(vec![b'x'; MUCH]).await });
    settled("the sender is held back", async || bytes(&gateway, "received").await as u64).await;
    assert!(!sending.is_finished(), "somebody took {MUCH} bytes for a client that reads nothing");
    assert_eq!(client.skip(MUCH).await, MUCH, "everything arrives once it is read");
    within("the end of the sending", sending).await.expect("the sending");
}

#[tokio::test]
async fn a_backend_that_refuses_closes_the_client() {
    let gateway = gateway(Backend::nobody().await, "");
    let mut client = Raw::connect(gateway.addr()).await;
    assert_eq!(client.to_end().await, "", "closed without a word: nobody knows which would be understood");
    assert_eq!(gateway.metric("vers_upstream_connects_total", &["outcome=\"failed\""]).await, 1.0);
    assert_eq!(gateway.metric("vers_tunnels_active", &[]).await, 0.0);
}

#[tokio::test]
async fn a_connection_that_carries_nothing_is_closed() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), r#"timeouts = { tunnel = "500ms" }"#);
    let mut client = Raw::connect(gateway.addr()).await;
    let mut server = visitors.next().await;
    client.send("hello").await;
    server.until("hello").await;
    assert_eq!(client.to_end().await, "", "closed by the gateway");
    assert_eq!(server.to_end().await, "", "closed by the gateway");
}

#[tokio::test]
async fn a_backend_that_breaks_off_breaks_the_client_off() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    let mut client = Raw::connect(gateway.addr()).await;
    let server = visitors.next().await;
    server.stream.set_zero_linger().expect("a reset at the end");
    drop(server);
    client.to_end().await;
    over(&gateway).await;
}

#[tokio::test]
async fn each_listener_carries_what_its_routes_say() {
    let (web, raw) = (Backend::hello().await, Backend::tcp_echo().await);
    let gateway = TestGateway::start(&format!(
        r#"
        [[listener]]
        name = "web"
        address = "[::]:0"
        [[listener]]
        name = "named"
        address = "127.0.0.1:0"
        [[listener]]
        name = "told"
        address = "[::1]:0"
        protocol = "tcp"

        [[route]] # on all listeners that carry HTTP
        name = "web"
        to = "{}"
        [[route]]
        name = "raw"
        listeners = ["named", "told"]
        protocol = "tcp"
        to = "{}"
        "#,
        web.addr(),
        raw.addr()
    ));
    assert_eq!(gateway.client().get("/").await.text(), "hello");
    for name in ["named", "told"] {
        let mut client = Raw::connect(gateway.addr_of(name)).await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(
            client.until("\r\n\r\n").await,
            "GET / HTTP/1.1\r\n\r\n",
            "echoed by the TCP route of {name}"
        );
    }
}

#[tokio::test]
async fn a_client_over_the_limit_is_closed_without_a_word() {
    let backend = Backend::tcp_echo().await;
    let gateway = TestGateway::start(&format!(
        r#"
        [[listener]]
        address = "[::]:0"
        connections = 1
        [[route]]
        protocol = "tcp"
        to = "{}"
        "#,
        backend.addr()
    ));
    let mut first = Raw::connect(gateway.addr()).await;
    first.send("x").await;
    first.exactly(1).await;
    let mut second = Raw::connect(gateway.addr()).await;
    assert_eq!(second.to_end().await, "", "an answer in HTTP would mean nothing, or something else, to it");
}
