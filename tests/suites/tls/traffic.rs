//! What goes over TLS once it stands, and how that ends.

use super::{counted, gateway, start, tcp_route};
use gateway_tests::{Backend, Pki, within};
use http::Response;
use http_body_util::Full;
use tokio::io::AsyncReadExt as _;

#[tokio::test]
async fn a_request_over_tls_reaches_the_backend_as_https() {
    let backend = Backend::hello().await;
    let (gateway, pki) = gateway(backend.addr());
    let port = gateway.addr_of("tls").port().to_string();
    let mut client = pki.client("app.test").raw(gateway.addr_of("tls")).await;
    for _ in 0..2 {
        client.send("GET /x HTTP/1.1\r\nhost: app.test\r\nx-forwarded-proto: http\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(client.exactly(5).await, b"hello");
    }
    for heard in backend.heard() {
        assert_eq!(heard.header("x-forwarded-proto"), "https");
        assert_eq!(heard.header("x-forwarded-port"), port);
        assert!(heard.header("forwarded").ends_with(";proto=https"), "{}", heard.header("forwarded"));
    }
    counted(&gateway, "full", 1.0).await;
}

#[tokio::test]
async fn bodies_of_any_size_go_both_ways() {
    let backend = Backend::echo().await;
    let (gateway, pki) = gateway(backend.addr());
    let mut client = pki.client("app.test").raw(gateway.addr_of("tls")).await;
    for size in [0, 1, 16 << 10, (16 << 10) + 1, 3 << 20] {
        let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        client.send(format!("POST / HTTP/1.1\r\nhost: app.test\r\ncontent-length: {size}\r\n\r\n")).await;
        client.send(&body).await;
        let head = client.head().await;
        assert!(head.contains(&format!("content-length: {size}\r\n")), "{head}");
        assert!(client.exactly(size).await == body, "{size} bytes");
    }
}

#[tokio::test]
async fn large_answers_wait_for_slow_readers() {
    let size = 8 << 20;
    let backend = Backend::http(move |_| Response::new(Full::new(vec![b'x'; size].into()))).await;
    let (gateway, pki) = gateway(backend.addr());
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = pki.client("app.test").raw(gateway.addr_of("tls")).await;
        client.send("GET / HTTP/1.1\r\nhost: app.test\r\n\r\n").await;
        clients.push(client);
    }
    for client in &mut clients {
        client.head().await;
        assert_eq!(client.skip(size).await, size);
        client.send("GET / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n").await;
        assert!(client.to_end().await.ends_with("xxx"));
    }
}

#[tokio::test]
async fn the_end_of_an_answer_is_told_and_a_broken_one_is_not() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let (gateway, pki) = gateway(backend.addr());
    let (chunked, exact) =
        ("transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", "content-length: 8\r\n\r\nhalf");
    for (version, begin, end) in
        [("1.0", chunked, "0\r\n\r\n"), ("1.1", chunked, "0\r\n\r\n"), ("1.1", exact, "half")]
    {
        for is_whole in [true, false] {
            let mut client = pki.client("app.test").raw(gateway.addr_of("tls")).await;
            client.send(format!("GET / HTTP/{version}\r\nhost: app.test\r\nconnection: close\r\n\r\n")).await;
            let mut visitor = visitors.next().await;
            visitor.head().await;
            visitor.send(format!("HTTP/1.1 200 OK\r\n{begin}")).await;
            client.until("half").await;
            if is_whole {
                visitor.send(end).await;
            }
            drop(visitor);
            let mut rest = Vec::new();
            let end = within("the end", client.stream.read_to_end(&mut rest)).await;
            assert_eq!(end.is_ok(), is_whole, "{begin:?} over {version}: {end:?}");
        }
    }
}

#[tokio::test]
async fn a_websocket_goes_over_tls() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let (gateway, pki) = gateway(backend.addr());
    let mut client = pki.client("app.test").raw(gateway.addr_of("tls")).await;
    client
        .send(
            "GET /ws HTTP/1.1\r\nhost: app.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    let mut visitor = visitors.next().await;
    visitor.head().await;
    visitor
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst",
        )
        .await;
    client.head().await;
    client.until("first").await;
    client.send("second").await;
    visitor.until("second").await;
    drop(client);
    visitor.to_end().await;
}

#[tokio::test]
async fn a_raw_tcp_route_over_tls_passes_half_closes_on() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let pki = Pki::new();
    let pair = pki.issue(&["db.test"]);
    let gateway = start(&tcp_route(backend.addr()), &[("web", &pair)], false);
    let mut client = pki.client("db.test").raw(gateway.addr()).await;
    // The server speaks first.
    let mut visitor = visitors.next().await;
    visitor.send("220 hello\r\n").await;
    client.until("220 hello\r\n").await;
    client.send("the last words").await;
    client.finish().await;
    assert_eq!(visitor.to_end().await, "the last words", "and then the client's end");
    visitor.send("and mine").await;
    drop(visitor);
    let mut rest = Vec::new();
    // An end that is not told would be an error here.
    within("the end", client.stream.read_to_end(&mut rest)).await.expect("an orderly end");
    assert_eq!(rest, b"and mine");
}

#[tokio::test]
async fn an_end_that_is_not_told_is_no_end() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let pki = Pki::new();
    let pair = pki.issue(&["db.test"]);
    let gateway = start(&tcp_route(backend.addr()), &[("web", &pair)], false);
    let mut client = pki.client("db.test").raw(gateway.addr()).await;
    client.send("half of it").await;
    let mut visitor = visitors.next().await;
    visitor.until("half of it").await;
    // Somebody between them closes the socket.
    let (socket, _) = client.stream.into_inner();
    drop(socket);
    let mut rest = Vec::new();
    let end = within("the end", visitor.stream.read_to_end(&mut rest)).await;
    assert!(end.is_err(), "the backend took it for an orderly end");
}
