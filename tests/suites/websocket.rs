//! Protocols that begin as an HTTP request: WebSocket, and any other `Upgrade`.

use futures_util::{SinkExt as _, StreamExt as _};
use gateway_tests::{Backend, Raw, TestGateway, eventually, within};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// An upgrade as a client of that protocol asks for it.
fn ask(protocol: &str) -> String {
    let handshake = "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    format!(
        "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: {protocol}\r\n{handshake}\r\n\r\n"
    )
}

/// How a server agrees.
fn agree(protocol: &str) -> String {
    let handshake = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n{handshake}\r\n\r\n"
    )
}

async fn open(address: SocketAddr) -> WebSocketStream<TcpStream> {
    let stream = within("a connection", TcpStream::connect(address)).await.expect("a connection");
    let url = format!("ws://{address}/chat");
    within("the upgrade", client_async(url, stream)).await.expect("the upgrade").0
}

async fn said(socket: &mut WebSocketStream<TcpStream>) -> Message {
    within("a message", socket.next()).await.expect("an open socket").expect("a message")
}

#[tokio::test]
async fn messages_go_both_ways_over_ipv6_and_ipv4() {
    let backend = Backend::websocket().await;
    let gateway = TestGateway::to(backend.addr());
    for address in [gateway.addr(), gateway.addr_v4()] {
        let mut socket = open(address).await;
        let large = Message::binary((0..1_500_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
        for message in [Message::text("hello"), Message::text(""), Message::binary(vec![0, 255]), large] {
            socket.send(message.clone()).await.expect("a send");
            assert!(said(&mut socket).await == message, "over {address}");
        }
    }
}

#[tokio::test]
async fn pings_are_answered_by_the_other_end_itself() {
    let backend = Backend::websocket().await;
    let gateway = TestGateway::to(backend.addr());
    let mut socket = open(gateway.addr()).await;
    socket.send(Message::Ping("are you there".into())).await.expect("a send");
    assert_eq!(said(&mut socket).await, Message::Pong("are you there".into()));
}

#[tokio::test]
async fn a_client_closes_and_the_server_learns_why() {
    let (reasons, mut told) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::tcp(move |stream| {
        let reasons = reasons.clone();
        async move {
            let mut socket = accept_async(stream).await.expect("an upgrade");
            while let Some(Ok(message)) = socket.next().await {
                let _ = reasons.send(message);
            }
        }
    })
    .await;
    let gateway = TestGateway::to(backend.addr());
    let mut socket = open(gateway.addr()).await;
    let bye = CloseFrame { code: CloseCode::Away, reason: "lunch".into() };
    socket.close(Some(bye.clone())).await.expect("a close");
    let told = within("the close", told.recv()).await.expect("a message");
    assert_eq!(told, Message::Close(Some(bye.clone())));
    assert_eq!(said(&mut socket).await, Message::Close(Some(bye)), "the server's half of the handshake");
    assert!(within("the end", socket.next()).await.is_none(), "and then the end");
}

#[tokio::test]
async fn a_server_closes_and_the_client_learns_why() {
    let bye = CloseFrame { code: CloseCode::Restart, reason: "new version".into() };
    let sent = bye.clone();
    let backend = Backend::tcp(move |stream| {
        let bye = sent.clone();
        async move {
            let mut socket = accept_async(stream).await.expect("an upgrade");
            let _ = socket.close(Some(bye)).await;
            while let Some(Ok(_)) = socket.next().await {}
        }
    })
    .await;
    let gateway = TestGateway::to(backend.addr());
    let mut socket = open(gateway.addr()).await;
    assert_eq!(said(&mut socket).await, Message::Close(Some(bye)));
    assert!(within("the end", socket.next()).await.is_none(), "and then the end");
}

#[tokio::test]
async fn the_handshake_reaches_the_server_whole() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client
        .send(
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: chat, soap\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        )
        .await;
    let mut server = visitors.next().await;
    let head = server.head().await.to_lowercase();
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-key: dghlihnhbxbszsbub25jzq==",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: chat, soap",
        "sec-websocket-extensions: permessage-deflate",
        "x-forwarded-for: ::1",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line:?} in {head}");
    }
    server
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
        )
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: chat",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line:?} in {head}");
    }
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
}

#[tokio::test]
async fn a_route_says_what_else_can_be_changed_to() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::with(backend.addr(), r#"upgrades = ["foo/2"]"#);
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(ask("foo/2")).await;
    let mut server = visitors.next().await;
    assert!(server.head().await.contains("\r\nupgrade: foo/2\r\n"));
    server.send(agree("foo/2")).await;
    assert!(client.head().await.contains("\r\nupgrade: foo/2\r\n"));
    // Nothing of this is HTTP.
    client.send(b"\0\r\n\r\nHTTP/9.9 \xff").await;
    assert_eq!(server.exactly(15).await, b"\0\r\n\r\nHTTP/9.9 \xff");
    server.send(b"\xff\0GET").await;
    assert_eq!(client.exactly(5).await, b"\xff\0GET");
}

#[tokio::test]
async fn a_refused_upgrade_leaves_http() {
    for refusal in ["200 OK", "400 Bad Request", "426 Upgrade Required"] {
        let (backend, mut visitors) = Backend::by_hand().await;
        let gateway = TestGateway::to(backend.addr());
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(ask("websocket")).await;
        let mut server = visitors.next().await;
        server.head().await;
        server.send(format!("HTTP/1.1 {refusal}\r\ncontent-length: 2\r\n\r\nno")).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {refusal}\r\n")), "{head}");
        assert_eq!(client.exactly(2).await, b"no");
        client.send("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(server.head().await.starts_with("GET /next "), "both connections are HTTP again");
        server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 204 "), "after {refusal}");
        assert_eq!(gateway.metric("vers_tunnels_active", &[]).await, 0.0);
    }
}

#[tokio::test]
async fn bytes_behind_the_question_wait_for_the_answer() {
    // A backend that refuses would take them for a request that nobody checked.
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(format!("{}GET /admin HTTP/1.1\r\nhost: smuggled\r\n\r\n", ask("websocket"))).await;
    let mut server = visitors.next().await;
    let head = server.head().await;
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    server.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 400 "));
    // They were a request, and it went the way of every request.
    let second = server.head().await;
    assert!(second.starts_with("GET /admin ") && second.contains("\r\nx-forwarded-for: ::1\r\n"), "{second}");
}

#[tokio::test]
async fn bytes_behind_the_question_are_the_first_of_the_tunnel() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(format!("{}early", ask("websocket"))).await;
    let mut server = visitors.next().await;
    server.head().await;
    // The answer comes together with bytes of the new protocol.
    server.send(format!("{}first", agree("websocket"))).await;
    client.head().await;
    assert_eq!(client.exactly(5).await, b"first");
    assert_eq!(server.exactly(5).await, b"early");
}

#[tokio::test]
async fn a_body_makes_it_no_upgrade() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client
        .send(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             content-length: 4\r\n\r\nping",
        )
        .await;
    let mut server = visitors.next().await;
    let head = server.head().await;
    assert!(!head.contains("upgrade"), "{head}");
    assert_eq!(server.exactly(4).await, b"ping");
}

#[tokio::test]
async fn http_2_is_not_changed_to() {
    // It would carry requests past everything that looks at them.
    for protocol in ["h2c", "H2C", "websocket, h2c", "h2"] {
        let (backend, mut visitors) = Backend::by_hand().await;
        let gateway = TestGateway::to(backend.addr());
        let mut client = Raw::connect(gateway.addr()).await;
        client
            .send(format!(
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: {protocol}\r\n\
                 http2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
            ))
            .await;
        let mut server = visitors.next().await;
        let head = server.head().await;
        assert!(!head.contains("upgrade:") && !head.contains("http2-settings"), "{protocol}: {head}");
        server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 204 "), "it is answered as what it is");
    }
}

#[tokio::test]
async fn an_answer_to_another_question_is_the_backends_fault() {
    for (question, answer) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), agree("websocket")),
        (ask("websocket"), agree("foo")),
        (ask("foo"), agree("websocket")),
        (ask("foo"), agree("bar")),
        (ask("websocket"), agree("h2c")),
        (ask("websocket"), agree("websocket").replace("s3pPLM", "AAAAAA")),
        (ask("websocket"), agree("websocket").replace("sec-websocket-accept", "x")),
        (ask("websocket"), "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n".to_owned()),
        (ask("websocket"), "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\r\n".to_owned()),
    ] {
        let (backend, mut visitors) = Backend::by_hand().await;
        let gateway = TestGateway::with(backend.addr(), r#"upgrades = ["websocket", "foo"]"#);
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(&question).await;
        let mut server = visitors.next().await;
        server.head().await;
        server.send(&answer).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{question:?}, {answer:?}: {head}");
        assert!(head.contains("\r\nx-gateway-error: upstream-bad-answer\r\n"), "{head}");
        assert_eq!(server.to_end().await, "", "the backend's connection is worth nothing any more");
    }
}

#[tokio::test]
async fn a_client_may_name_several_protocols_and_the_server_picks() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::with(backend.addr(), r#"upgrades = ["websocket", "foo"]"#);
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(ask("foo, websocket, bar")).await;
    let mut server = visitors.next().await;
    assert!(
        server.head().await.contains("\r\nupgrade: foo, websocket\r\n"),
        "less what the route does not have"
    );
    server.send(agree("websocket")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

#[tokio::test]
async fn what_a_route_does_not_list_goes_on_as_http() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(ask("foo")).await;
    let mut server = visitors.next().await;
    let head = server.head().await;
    assert!(!head.contains("upgrade"), "{head}");
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 204 "), "it is answered as what it is");
}

#[tokio::test]
async fn either_side_may_finish_first() {
    for client_first in [Order::ClientFirst, Order::ServerFirst] {
        let (backend, mut visitors) = Backend::by_hand().await;
        let gateway = TestGateway::with(backend.addr(), r#"upgrades = ["foo"]"#);
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(ask("foo")).await;
        let mut server = visitors.next().await;
        server.head().await;
        server.send(agree("foo")).await;
        client.head().await;
        let (first, second) = match client_first {
            Order::ClientFirst => (&mut client, &mut server),
            Order::ServerFirst => (&mut server, &mut client),
        };
        first.send("last words").await;
        first.finish().await;
        assert_eq!(second.to_end().await, "last words");
        second.send("an answer to them").await;
        second.finish().await;
        assert_eq!(first.to_end().await, "an answer to them");
        eventually("the end of the tunnel", async || {
            (gateway.metric("vers_tunnels_active", &[]).await == 0.0).then_some(())
        })
        .await;
    }
}

enum Order {
    ClientFirst,
    ServerFirst,
}

#[tokio::test]
async fn a_tunnel_that_carries_nothing_is_closed() {
    let (backend, mut visitors) = Backend::by_hand().await;
    // Requests may idle for long: what counts after the 101 is the tunnel's own time.
    let gateway =
        TestGateway::with(backend.addr(), r#"timeouts = { tunnel = "200ms", idle = "1h", response = "1h" }"#);
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(ask("websocket")).await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send(agree("websocket")).await;
    client.head().await;
    assert_eq!(client.to_end().await, "", "closed by the gateway");
    assert_eq!(server.to_end().await, "", "closed by the gateway");
}

#[tokio::test]
async fn a_tunnel_outlives_the_times_of_requests() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::start(&format!(
        r#"
        [[listener]]
        address = "[::]:0"
        timeouts = {{ head = "250ms", idle = "250ms" }}
        [[route]]
        to = "{}"
        timeouts = {{ idle = "250ms", tunnel = "800ms" }}
        "#,
        backend.addr()
    ));
    let mut client = Raw::connect(gateway.addr()).await;
    let began = tokio::time::Instant::now();
    client.send(ask("websocket")).await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send(agree("websocket")).await;
    client.head().await;
    client.to_end().await;
    let lived = began.elapsed();
    assert!(lived >= std::time::Duration::from_millis(800), "it was cut after {lived:?}");
}

#[tokio::test]
async fn tunnels_are_counted() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(ask("websocket")).await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send(agree("websocket")).await;
    client.head().await;
    client.send("to the backend").await;
    server.exactly(14).await;
    server.send("back").await;
    client.exactly(4).await;
    assert_eq!(gateway.metric("vers_tunnels_active", &["route=\"app\""]).await, 1.0);
    drop((client, server));
    eventually("the end of the tunnel", async || {
        (gateway.metric("vers_tunnels_active", &["route=\"app\""]).await == 0.0).then_some(())
    })
    .await;
    let bytes =
        async |direction| gateway.metric("vers_tunnel_bytes_total", &["route=\"app\"", direction]).await;
    assert_eq!(bytes("direction=\"sent\"").await, 14.0, "to the backend");
    assert_eq!(bytes("direction=\"received\"").await, 4.0, "from the backend");
    assert_eq!(gateway.metric("vers_requests_total", &["route=\"app\"", "status=\"1xx\""]).await, 1.0);
}
