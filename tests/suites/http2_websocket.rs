//! WebSocket over a stream of HTTP/2 (RFC 8441) to an upgrade of HTTP/1, and what is refused.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use gateway_tests::{Backend, H2Io, Http2, TestGateway, eventually, one_route, within};
use h2::{Reason, client::ResponseFuture, ext::Protocol};
use http::{Method, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{Message, protocol::Role},
};

/// A CONNECT for this protocol.
fn connect(client: &Http2, protocol: &'static str) -> Request<()> {
    let mut request = client.ask(Method::CONNECT, "/chat");
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request.headers_mut().insert("sec-websocket-version", http::HeaderValue::from_static("13"));
    request
}

/// Opens a tunnel, which the gateway must grant.
async fn open(client: &mut Http2) -> H2Io {
    let (answer, send) = client.open(connect(client, "websocket"), false).await;
    let answer = within("an answer", answer).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    for gone in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!answer.headers().contains_key(gone), "{gone}");
    }
    H2Io::new(send, answer.into_body())
}

#[tokio::test]
async fn messages_go_both_ways_beside_requests() {
    let backend = Backend::websocket().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    eventually("the server's settings", async || {
        client.send.is_extended_connect_protocol_enabled().then_some(())
    })
    .await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let io = open(&mut client).await;
        sockets.push(WebSocketStream::from_raw_socket(io, Role::Client, None).await);
    }
    let large = Message::binary((0..300_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    for message in [Message::text("hello"), Message::binary(vec![0, 255]), large] {
        for socket in &mut sockets {
            socket.send(message.clone()).await.expect("a send");
            let came = within("a message", socket.next()).await.expect("an open socket").expect("a message");
            assert!(came == message);
        }
    }
    assert_eq!(gateway.metric("vers_tunnels_active", &[]).await, 3.0);
    for socket in &mut sockets {
        socket.close(None).await.expect("a close");
    }
    drop(sockets);
    eventually("the end of the tunnels", async || {
        (gateway.metric("vers_tunnels_active", &[]).await == 0.0).then_some(())
    })
    .await;
}

/// A tunnel may live for days, and what its configuration had for requests must not live as long.
#[tokio::test]
async fn a_tunnel_holds_nothing_of_a_configuration_that_was_replaced() {
    let backend = Backend::websocket().await;
    let with = |name: &str| {
        format!(
            "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nto = \"{name}\"\n[backend.{name}]\nservers = [\"{}\"]\n",
            backend.addr()
        )
    };
    let gateway = TestGateway::start(&with("first"));
    let mut client = Http2::connect(gateway.addr()).await;
    let io = open(&mut client).await;
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    for (before, after) in [("first", "second"), ("second", "third")] {
        gateway.write(&with(after));
        gateway.reload().await.expect("a reload");
        eventually("the end of what is counted of the old backend", async || {
            let text = gateway.admin().get("/metrics").await.text();
            let counts = |backend: &str| text.contains(&format!("backend=\"{backend}\""));
            (counts(after) && !counts(before)).then_some(())
        })
        .await;
        socket.send(Message::text(after)).await.expect("a send");
        let came = within("a message", socket.next()).await.expect("an open socket").expect("a message");
        assert_eq!(came, Message::text(after));
    }
}

/// Agrees to the upgrade, then does with the connection what the function says.
async fn agreeing<F>(then: impl Fn(tokio::net::TcpStream) -> F + Send + Sync + 'static) -> Backend
where
    F: Future<Output = ()> + Send + 'static,
{
    let then = std::sync::Arc::new(then);
    Backend::tcp(move |stream| {
        let then = std::sync::Arc::clone(&then);
        async move {
            let Ok(socket) = accept_async(stream).await else { return };
            then(socket.into_inner()).await;
        }
    })
    .await
}

#[tokio::test]
async fn each_side_may_end_first() {
    let backend = agreeing(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        all.reverse();
        let _ = stream.write_all(&all).await;
    })
    .await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let mut io = open(&mut client).await;
    io.write_all(b"abc").await.expect("a write");
    io.shutdown().await.expect("an end");
    let mut answer = String::new();
    within("the other end", io.read_to_string(&mut answer)).await.expect("an end");
    assert_eq!(answer, "cba", "after the client has ended");
}

#[tokio::test]
async fn a_backend_that_breaks_off_resets_the_stream() {
    let backend = agreeing(|stream| async move {
        let _ = socket2(&stream);
        drop(stream);
    })
    .await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let mut io = open(&mut client).await;
    let mut rest = Vec::new();
    within("the end", io.read_to_end(&mut rest)).await.expect_err("no orderly end");
}

/// Closes by a reset.
#[expect(deprecated, reason = "zero is the case that does not block")]
fn socket2(stream: &tokio::net::TcpStream) -> std::io::Result<()> {
    stream.set_linger(Some(std::time::Duration::ZERO))
}

#[tokio::test]
async fn a_client_that_resets_the_stream_ends_the_backends_connection() {
    let (ended, mut told) = tokio::sync::mpsc::unbounded_channel();
    let backend = agreeing(move |mut stream| {
        let ended = ended.clone();
        async move {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            let _ = ended.send(rest);
        }
    })
    .await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let mut io = open(&mut client).await;
    io.write_all(b"abc").await.expect("a write");
    io.reset(Reason::CANCEL);
    let rest = within("the end of the connection", told.recv()).await.expect("an end");
    assert!(b"abc".starts_with(&rest), "{rest:?}");
}

async fn refused(answer: ResponseFuture) -> (u16, String) {
    let answer = within("an answer", answer).await.expect("an answer");
    let code = answer.headers().get("x-gateway-error").map(|code| code.to_str().expect("text").to_owned());
    (answer.status().as_u16(), code.unwrap_or_default())
}

#[tokio::test]
async fn what_a_route_does_not_grant_is_refused() {
    let backend = Backend::websocket().await;
    let gateway = TestGateway::start(&one_route(backend.addr(), "upgrades = []"));
    let mut client = Http2::connect(gateway.addr()).await;
    let (answer, _send) = client.open(connect(&client, "websocket"), false).await;
    assert_eq!(refused(answer).await, (501, "connect-method".to_owned()));
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let (answer, _send) = client.open(connect(&client, "connect-udp"), false).await;
    assert_eq!(refused(answer).await, (501, "connect-method".to_owned()), "another protocol");
    let mut old = connect(&client, "websocket");
    old.headers_mut().insert("sec-websocket-version", http::HeaderValue::from_static("8"));
    let (answer, _send) = client.open(old, false).await;
    assert_eq!(refused(answer).await, (426, "bad-handshake-version".to_owned()));
}

/// It would go to the backend in the head of an upgrade that has no body: who comes next on that
/// connection would find its request swallowed.
#[tokio::test]
async fn a_length_that_no_body_will_have_is_refused() {
    let backend = Backend::canned("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    for length in ["5", "0"] {
        let mut request = connect(&client, "websocket");
        request.headers_mut().insert("content-length", http::HeaderValue::from_static(length));
        let (answer, _send) = client.open(request, false).await;
        assert_eq!(refused(answer).await, (400, "bad-request".to_owned()), "{length}");
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_backend_that_declines_is_heard() {
    let backend = Backend::canned("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let (answer, _send) = client.open(connect(&client, "websocket"), false).await;
    let answer = within("an answer", gateway_tests::collect(answer)).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.body), (403, Bytes::from("no")));
}
