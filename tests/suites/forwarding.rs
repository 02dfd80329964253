//! What reaches the backend, and what comes back.

use bytes::Bytes;
use gateway_tests::{Answer, Backend, Client, Raw, TestGateway, Visitors, eventually, settled, within};
use http::{Method, Response};
use http_body_util::{BodyExt as _, Full};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

#[tokio::test]
async fn a_request_and_its_answer_pass() {
    let backend = Backend::echo().await;
    let gateway = TestGateway::to(backend.addr());
    let answer = gateway.client().post("/x?y=1", "ping").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ping"));
    let heard = backend.last();
    assert_eq!((heard.uri.path(), heard.uri.query()), ("/x", Some("y=1")));
    assert_eq!(heard.header("x-forwarded-for"), "::1");
}

#[tokio::test]
async fn every_method_passes() {
    let backend = Backend::http(|heard| {
        Response::builder()
            .header("x-method", heard.method.as_str())
            .body(Full::default())
            .expect("an answer")
    })
    .await;
    let gateway = TestGateway::to(backend.addr());
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW"] {
        let method: Method = method.parse().expect("a method");
        let answer = gateway.client().send(method.clone(), "/", Bytes::new()).await;
        assert_eq!(answer.header("x-method"), method.as_str(), "as the backend heard it");
    }
}

#[tokio::test]
async fn a_target_passes_as_it_was_written() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    for target in ["/", "/a%2Fb/%C3%A4?q=%20&&=", "/a/../b//c/.", "/?", "/*", "/a;b=c,d:e@f"] {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(format!("GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        let answer = client.to_end().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
        assert_eq!(backend.last().uri.to_string(), target);
    }
}

#[tokio::test]
async fn a_requests_body_passes_however_it_is_framed() {
    // What stands after the request line and `host`, the body that is meant, and its framing at the
    // backend.
    const CASES: [(&str, &str, &str); 7] = [
        ("GET", "\r\n", ""),
        ("POST", "content-length: 0\r\n\r\n", "content-length: 0"),
        ("POST", "content-length: 4\r\n\r\nping", "content-length: 4"),
        ("POST", "transfer-encoding: chunked\r\n\r\n2\r\npi\r\n2;x=y\r\nng\r\n0\r\n\r\n", CHUNKED),
        ("GET", "transfer-encoding: chunked\r\n\r\n4\r\nping\r\n0\r\n\r\n", CHUNKED),
        ("GET", "content-length: 4\r\n\r\nping", "content-length: 4"),
        ("DELETE", "Transfer-Encoding: Chunked\r\n\r\n4\r\nping\r\n0\r\n\r\n", CHUNKED),
    ];
    const CHUNKED: &str = "transfer-encoding: chunked";
    let backend = Backend::echo().await;
    let gateway = TestGateway::to(backend.addr());
    for (method, rest, framing) in CASES {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{rest}")).await;
        let answer = client.to_end().await;
        let expected = if rest.contains("pi") { "ping" } else { "" };
        assert!(answer.starts_with("HTTP/1.1 200 "), "{method} {rest:?}: {answer}");
        let heard = backend.last();
        assert_eq!(heard.body, expected, "{method} {rest:?}");
        let framed = ["content-length", "transfer-encoding"]
            .into_iter()
            .filter(|name| heard.headers.contains_key(*name))
            .map(|name| format!("{name}: {}", heard.header(name)));
        assert_eq!(framed.collect::<Vec<_>>().join(", "), framing, "{method} {rest:?}");
    }
}

#[tokio::test]
async fn an_answers_body_passes_however_it_is_framed() {
    // What the backend answers to which method, and what the client gets after the head.
    const CASES: [(&str, &str, &str); 10] = [
        ("GET", "200 OK\r\ncontent-length: 4\r\n\r\npong", "pong"),
        ("GET", "200 OK\r\ncontent-length: 0\r\n\r\n", ""),
        ("GET", "200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\npo\r\n2\r\nng\r\n0\r\n\r\n", "pong"),
        ("GET", "200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", ""),
        ("GET", "200 OK\r\n\r\npong", "pong"),
        ("GET", "200 OK\r\n\r\n", ""),
        ("GET", "404 Not Found\r\ncontent-length: 4\r\n\r\npong", "pong"),
        ("GET", "204 No Content\r\n\r\n", ""),
        ("GET", "304 Not Modified\r\netag: \"1\"\r\n\r\n", ""),
        ("POST", "599 Odd\r\ncontent-length: 4\r\n\r\npong", "pong"),
    ];
    for (method, answer, body) in CASES {
        let backend = Backend::canned(format!("HTTP/1.1 {answer}")).await;
        let gateway = TestGateway::to(backend.addr());
        let got = gateway.client().send(method.parse().expect("a method"), "/", Bytes::new()).await;
        assert_eq!((got.status.as_str(), got.text().as_str()), (&answer[..3], body), "{answer:?}");
    }
}

#[tokio::test]
async fn a_large_body_arrives_whole_and_what_follows_it_too() {
    // Sizes around those at which the kernel takes over.
    let backend = Backend::echo().await;
    let gateway = TestGateway::to(backend.addr());
    let mut kept = gateway.client().connect().await.expect("a connection");
    for size in [65_535, 131_071, 131_072, 200_000, 1 << 20, (3 << 20) + 17] {
        let body: Bytes = (0..size).map(|at: usize| (at % 251) as u8).collect();
        let sent = kept.try_send(Method::POST, "/", body.clone());
        let answer = within("an echo", sent).await.expect("an answer");
        assert!(answer.body == body, "{size} bytes");
    }
    assert_eq!(backend.connections(), 1, "the connections stay in step");
}

#[tokio::test]
async fn an_answer_without_a_body_ends_with_its_head() {
    // On a connection that is kept, one byte too many or too few would spoil the next answer.
    const CASES: [(&str, &str, &str); 4] = [
        ("HEAD", "200 OK\r\ncontent-length: 1234\r\n\r\n", "content-length: 1234\r\n"),
        ("HEAD", "200 OK\r\ntransfer-encoding: chunked\r\n\r\n", ""),
        ("GET", "204 No Content\r\n\r\n", ""),
        ("GET", "304 Not Modified\r\ncontent-length: 1234\r\n\r\n", ""),
    ];
    for (method, answer, kept) in CASES {
        let (backend, mut visitors) = Backend::by_hand().await;
        let gateway = TestGateway::to(backend.addr());
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(format!("{method} /1 HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let mut server = visitors.next().await;
        server.head().await;
        server.send(format!("HTTP/1.1 {answer}")).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {}", &answer[..3])), "{head}");
        assert!(head.contains(kept), "{method} {answer:?} lost its length: {head}");
        client.send("GET /2 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let second = server.head().await;
        assert!(second.starts_with("GET /2 "), "the backend's connection is used again: {second}");
        server.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "after {method} {answer:?} came {head:?}");
        assert_eq!(client.exactly(2).await, b"ok");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client
        .send(
            "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: x-sum\r\n\
             transfer-encoding: chunked\r\n\r\n4\r\nping\r\n0\r\nx-sum: 10\r\n\r\n",
        )
        .await;
    let mut server = visitors.next().await;
    let head = server.head().await;
    assert!(head.contains("trailer: x-sum\r\n"), "{head}");
    assert_eq!(server.until("0\r\nx-sum: 10\r\n\r\n").await, "4\r\nping\r\n0\r\nx-sum: 10\r\n\r\n");
    server
        .send(
            "HTTP/1.1 200 OK\r\ntrailer: grpc-status\r\ntransfer-encoding: chunked\r\n\r\n\
             4\r\npong\r\n0\r\ngrpc-status: 7\r\n\r\n",
        )
        .await;
    let head = client.head().await;
    assert!(head.contains("trailer: grpc-status\r\n"), "{head}");
    assert_eq!(client.until("0\r\ngrpc-status: 7\r\n\r\n").await, "4\r\npong\r\n0\r\ngrpc-status: 7\r\n\r\n");
}

#[tokio::test]
async fn trailers_that_nobody_announced_do_not_break_the_answer() {
    let backend = Backend::canned(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npong\r\n0\r\nx-late: 1\r\n\r\n",
    )
    .await;
    let gateway = TestGateway::to(backend.addr());
    let answer = gateway.client().get("/").await;
    assert_eq!(answer.text(), "pong");
}

/// Larger than all buffers of the machine on the way: see `tcp_rmem` and `tcp_wmem` of tcp(7).
const MUCH: usize = 96 << 20;
/// What those buffers may hold.
const BUFFERED: usize = 48 << 20;

#[tokio::test]
async fn a_slow_reader_holds_the_backend_back() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let backend = Backend::tcp(move |stream| {
        let count = Arc::clone(&count);
        async move {
            let mut server = Raw::over(stream);
            server.head().await;
            server.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n")).await;
            pour(&mut server.stream, &count).await;
        }
    })
    .await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::over(narrow(gateway.addr()).await);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.head().await;
    let held = settled("the backend is held back", async || written.load(Ordering::SeqCst)).await;
    assert!(held < BUFFERED, "the gateway took {held} bytes for a client that reads nothing");
    assert_eq!(client.skip(MUCH).await, MUCH, "everything arrives once it is read");
}

#[tokio::test]
async fn a_slow_backend_holds_an_upload_back() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {MUCH}\r\n\r\n")).await;
    let mut server = visitors.next().await;
    server.head().await;
    let written = Arc::new(AtomicUsize::new(0));
    let (mut reading, mut writing) = client.stream.into_split();
    let count = Arc::clone(&written);
    let upload = tokio::spawn(async move {
        pour(&mut writing, &count).await;
        writing
    });
    let held = settled("the client is held back", async || written.load(Ordering::SeqCst)).await;
    assert!(held < BUFFERED, "the gateway took {held} bytes for a backend that reads nothing");
    assert_eq!(server.skip(MUCH).await, MUCH, "everything arrives once it is read");
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    let _open = within("the end of the upload", upload).await.expect("the upload");
    let mut answer = [0; 12];
    within("the answer", reading.read_exact(&mut answer)).await.expect("the answer");
    assert_eq!(&answer, b"HTTP/1.1 204");
}

/// Writes [`MUCH`] bytes, and counts those that were taken.
async fn pour(to: &mut (impl tokio::io::AsyncWrite + Unpin), count: &AtomicUsize) {
    let piece = vec![b'x'; 64 << 10];
    for _ in 0..MUCH / piece.len() {
        if to.write_all(&piece).await.is_err() {
            return;
        }
        count.fetch_add(piece.len(), Ordering::SeqCst);
    }
}

/// A connection whose kernel takes little at a time.
async fn narrow(address: SocketAddr) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v6().expect("a socket");
    socket.set_recv_buffer_size(32 << 10).expect("a small buffer");
    within("a connection", socket.connect(address)).await.expect("a connection")
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET /events HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let head = client.head().await;
    assert!(head.contains("content-type: text/event-stream\r\n"), "the head comes before any event: {head}");
    for event in 0..5 {
        let text = format!("data: {event}\n\n");
        server.send(format!("{:x}\r\n{text}\r\n", text.len())).await;
        // The backend sends the next event only after this one has arrived.
        client.until(&text).await;
    }
}

#[tokio::test]
async fn a_request_that_waits_behind_does_not_hold_an_answer_back() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nfirs").await;
    client.until("\r\n\r\nfirs").await;
    server.send("t...").await;
    client.until("t...").await;
    assert!(server.head().await.starts_with("GET /2 "), "its turn comes");
}

#[tokio::test]
async fn an_answer_can_begin_while_the_upload_goes_on() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("POST /talk HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.head().await;
    for word in ["one", "two", "six"] {
        client.send(format!("3\r\n{word}\r\n")).await;
        server.until(word).await;
        server.send(format!("3\r\n{word}\r\n")).await;
        client.until(word).await;
    }
    client.send("0\r\n\r\n").await;
    server.until("0\r\n\r\n").await;
    server.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
}

#[tokio::test]
async fn an_early_refusal_of_an_upload_arrives() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nbegun").await;
    let mut server = visitors.next().await;
    server.until("begun").await;
    server.send("HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig").await;
    drop(server);
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert_eq!(client.exactly(3).await, b"big");
}

#[tokio::test]
async fn a_client_that_asks_to_continue_is_told_so() {
    let backend = Backend::echo().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("ping").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(client.exactly(4).await, b"ping");
}

#[tokio::test]
async fn hints_of_the_backend_do_not_take_the_answers_place() {
    let backend = Backend::canned(
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let gateway = TestGateway::to(backend.addr());
    let answer = gateway.client().get("/").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok"));
}

#[tokio::test]
async fn connections_to_the_backend_are_used_again() {
    let backend = Backend::echo().await;
    let gateway = TestGateway::to(backend.addr());
    for _ in 0..10 {
        // Each from a client of its own.
        assert_eq!(gateway.client().post("/", "x").await.status, 200);
    }
    assert_eq!(backend.connections(), 1, "one request at a time needs one connection");
    assert_eq!(gateway.metric("vers_upstream_reuses_total", &[]).await, 9.0);
    assert_eq!(gateway.metric("vers_upstream_connects_total", &["outcome=\"connected\""]).await, 1.0);
    // The client may have the answer before the gateway has put the connection away.
    eventually("a kept connection", async || {
        (gateway.metric("vers_upstream_idle_connections", &[]).await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_kept_connection_that_the_backend_closed_is_replaced() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    for round in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut server = visitors.next().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        // It said nothing of this in its answer.
        drop(server);
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "round {round}: {head}");
    }
    assert_eq!(backend.connections(), 3);
}

/// A client whose first request left a connection to the backend behind, which the gateway keeps.
async fn with_a_kept_connection(gateway: &TestGateway, visitors: &mut Visitors) -> (Raw, Raw) {
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET /1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    client.head().await;
    (client, server)
}

#[tokio::test]
async fn a_request_that_meets_a_closing_connection_is_sent_again_where_that_is_harmless() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    for request in [
        "GET /2 HTTP/1.1\r\nhost: a\r\n\r\n",
        "PUT /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody",
        "PUT /2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
    ] {
        let (mut client, mut server) = with_a_kept_connection(&gateway, &mut visitors).await;
        client.send(request).await;
        // The kept connection takes the second request, and breaks.
        server.head().await;
        drop(server);
        let mut server = visitors.next().await;
        let head = server.head().await;
        assert!(head.starts_with(&request[..7]), "{head}");
        if request.starts_with("PUT") {
            server.until("body").await;
        }
        server.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
        assert!(client.until("ok").await.starts_with("HTTP/1.1 200 OK\r\n"), "after {request:?}");
    }
}

#[tokio::test]
async fn a_request_that_may_have_had_its_effect_is_never_sent_twice() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let (mut client, mut server) = with_a_kept_connection(&gateway, &mut visitors).await;
    client.send("POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    server.head().await;
    drop(server);
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert!(head.contains("x-gateway-error: upstream-bad-answer\r\n"), "{head}");
    assert_eq!(backend.connections(), 1, "it could have had its effect the first time");
}

#[tokio::test]
async fn nothing_is_kept_where_the_configuration_says_so() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::start(&format!(
        r#"
        [[listener]]
        address = "[::]:0"
        [[route]]
        to = "app"
        [backend.app]
        servers = ["{}"]
        keepalive = {{ connections = 0 }}
        "#,
        backend.addr()
    ));
    for _ in 0..3 {
        assert_eq!(gateway.client().get("/").await.status, 200);
    }
    assert_eq!(backend.connections(), 3);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::http(|heard| Response::new(Full::from(format!("<{}>", heard.uri.path())))).await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client
        .send(
            "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n\
             POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc\
             GET /3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        )
        .await;
    let answers = client.to_end().await;
    let order: Vec<_> = ["</1>", "</2>", "</3>"].iter().map(|text| answers.find(text)).collect();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{answers}");
}

#[tokio::test]
async fn http_1_0_closes_unless_it_asks_to_stay() {
    let backend = Backend::echo().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    for _ in 0..2 {
        client
            .send("POST / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\ncontent-length: 4\r\n\r\nping")
            .await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("connection: keep-alive\r\n"), "{head}");
        assert_eq!(client.exactly(4).await, b"ping");
    }
    client.send("POST / HTTP/1.0\r\nhost: a\r\ncontent-length: 4\r\n\r\npong").await;
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\npong"), "{answer}");
}

#[tokio::test]
async fn http_1_0_gets_no_chunks() {
    let backend = Backend::canned(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\npo\r\n2\r\nng\r\n0\r\n\r\n",
    )
    .await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    let answer = client.to_end().await;
    assert!(answer.ends_with("\r\n\r\npong"), "{answer}");
    assert!(!answer.contains("chunked"), "{answer}");
}

#[tokio::test]
async fn an_absolute_target_becomes_a_path_and_a_host() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    for (target, path) in [("http://a.example:81/x?y=1", "/x?y=1"), ("http://a.example:81", "/")] {
        let mut client = Raw::connect(gateway.addr()).await;
        client
            .send(format!("GET {target} HTTP/1.1\r\nhost: a.example:81\r\nconnection: close\r\n\r\n"))
            .await;
        let answer = client.to_end().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let heard = backend.last();
        assert_eq!((heard.uri.to_string().as_str(), heard.header("host")), (path, "a.example:81"));
    }
}

#[tokio::test]
async fn options_of_the_server_as_a_whole_pass() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(backend.last().uri, "*");
}

#[tokio::test]
async fn one_listener_takes_ipv6_and_ipv4_and_knows_which() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    for (address, client) in [(gateway.addr(), "::1"), (gateway.addr_v4(), "127.0.0.1")] {
        assert_eq!(Client::new(address).get("/").await.status, 200);
        let heard = backend.last();
        assert_eq!(heard.header("x-forwarded-for"), client, "never a mapped address");
        let node = if client.contains(':') { format!("\"[{client}]\"") } else { client.to_owned() };
        let forwarded = heard.header("forwarded").to_owned();
        assert!(forwarded.starts_with(&format!("for={node};")), "{forwarded}");
    }
}

#[tokio::test]
async fn a_service_on_an_ipv6_address_is_reached_too() {
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.expect("a free port");
    let gateway = TestGateway::to(listener.local_addr().expect("an address"));
    let mut client = Raw::connect(gateway.addr_v4()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let (stream, _) = within("a connection", listener.accept()).await.expect("a connection");
    let mut server = Raw::over(stream);
    server.head().await;
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 204 "));
}

#[tokio::test]
async fn a_name_with_an_address_that_refuses_is_tried_on_the_next() {
    // `localhost` is ::1 and 127.0.0.1; the service binds the second only.
    let backend = Backend::hello().await;
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nto = \"localhost:{}\"\n",
        backend.addr().port()
    ));
    assert_eq!(gateway.client().get("/").await.text(), "hello");
}

#[tokio::test]
async fn a_route_can_answer_itself() {
    let gateway = TestGateway::start(
        r#"
        [[listener]]
        address = "[::]:0"
        [[route]]
        path = "/teapot"
        to = { respond = { status = 418, body = "short and stout", headers = { x-spout = "here" } } }
        [[route]]
        path = "/json"
        to = { respond = { body = "{}", headers = { content-type = "application/json" } } }
        [[route]]
        path = "/old/*"
        to = { redirect = { to = "https://example.com/new", status = 302 } }
        [[route]]
        path = "/moved"
        to = { redirect = { to = "/here" } }
        "#,
    );
    let client = gateway.client();
    let answer = client.get("/teapot").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (418, "short and stout"));
    assert_eq!(answer.header("x-spout"), "here");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(client.get("/json").await.header("content-type"), "application/json");
    let head = client.send(Method::HEAD, "/teapot", Bytes::new()).await;
    assert_eq!((head.status.as_u16(), head.text().as_str()), (418, ""));
    for (path, status, location) in [("/old/x", 302, "https://example.com/new"), ("/moved", 308, "/here")] {
        let answer = client.post(path, "a body").await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (status, location));
    }
}

#[tokio::test]
async fn the_most_specific_route_is_taken() {
    let gateway = TestGateway::start(&routes(&[
        ("rest", ""),
        ("get", "methods = [\"GET\"]"),
        ("api", "path = \"/api/*\""),
        ("user", "path = \"/api/users/{id}\""),
        ("me", "path = \"/api/users/me\""),
        ("beta", "path = \"/api/*\"\nheaders = { x-beta = \"1\" }"),
        ("host", "host = \"a.example.com\""),
        ("below", "host = \"*.example.com\""),
        ("vm", "host = \"{vm}.vm.example.com\""),
    ]));
    for (host, method, path, header, expected) in [
        ("x", "POST", "/", None, "rest"),
        ("x", "GET", "/", None, "get"),
        ("x", "GET", "/api/x", None, "api"),
        ("x", "GET", "/api/x?q=/api/users/me", None, "api"),
        ("x", "GET", "/api", None, "get"),
        ("x", "GET", "/API/x", None, "get"),
        ("x", "GET", "/api/users/7", None, "user"),
        ("x", "GET", "/api/users/7/x", None, "api"),
        ("x", "GET", "/api/users/me", None, "me"),
        ("x", "GET", "/api/x", Some("1"), "beta"),
        ("x", "GET", "/api/x", Some("2"), "api"),
        ("a.example.com", "GET", "/api/x", None, "host"),
        ("A.Example.COM:8080", "GET", "/", None, "host"),
        ("b.example.com", "GET", "/", None, "below"),
        ("c.b.example.com", "GET", "/", None, "below"),
        ("example.com", "POST", "/", None, "rest"),
        ("7.vm.example.com", "GET", "/", None, "vm"),
        ("8.7.vm.example.com", "GET", "/", None, "below"),
    ] {
        let mut client = gateway.client().with("host", host);
        if let Some(beta) = header {
            client = client.with("x-beta", beta);
        }
        let answer = client.send(method.parse().expect("a method"), path, Bytes::new()).await;
        assert_eq!(answer.text(), expected, "{method} {host} {path} {header:?}");
    }
}

#[tokio::test]
async fn a_request_without_a_route_is_told_so() {
    let gateway = TestGateway::start(&routes(&[("a", "host = \"a\"")]));
    let answer = gateway.client().with("host", "b").get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (404, "no-route"));
    assert_eq!(gateway.client().with("host", "a").get("/").await.text(), "a", "the connection was fine");
}

/// Routes that answer with their names.
fn routes(routes: &[(&str, &str)]) -> String {
    let routes = routes.iter().map(|(name, conditions)| {
        format!("[[route]]\nname = \"{name}\"\n{conditions}\nto = {{ respond = {{ body = \"{name}\" }} }}\n")
    });
    format!("[[listener]]\naddress = \"[::]:0\"\n{}", routes.collect::<String>())
}

#[tokio::test]
async fn servers_of_a_backend_take_turns() {
    let (one, two) = (Backend::hello().await, Backend::hello().await);
    let gateway = TestGateway::start(&format!(
        r#"
        [[listener]]
        address = "[::]:0"
        [[route]]
        to = "app"
        [backend.app]
        servers = ["{}", "{}"]
        "#,
        one.addr(),
        two.addr()
    ));
    for turn in 1..=3 {
        for _ in 0..2 {
            assert_eq!(gateway.client().get("/").await.status, 200);
        }
        assert_eq!((one.heard().len(), two.heard().len()), (turn, turn));
    }
}

#[tokio::test]
async fn a_download_of_unknown_length_is_complete() {
    // Longer than any buffer, and every byte depends on its place.
    let body: Bytes = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (sent, pieces) = (body.clone(), body.len() / 7);
    let backend = Backend::streaming(move |_| {
        let pieces: Vec<_> = sent.chunks(pieces).map(Bytes::copy_from_slice).collect();
        async move { Response::new(Pieces(pieces.into()).boxed()) }
    })
    .await;
    let gateway = TestGateway::to(backend.addr());
    let answer: Answer = gateway.client().get("/").await;
    assert!(!answer.headers.contains_key("content-length"), "nobody knew it");
    assert!(answer.body == body, "{} bytes of {} arrived, or others", answer.body.len(), body.len());
}

/// A body of unknown length.
struct Pieces(std::collections::VecDeque<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, std::io::Error>>> {
        std::task::Poll::Ready(self.0.pop_front().map(|piece| Ok(hyper::body::Frame::data(piece))))
    }
}
