//! The same requests over HTTP/2: heads, bodies, ends.

use bytes::Bytes;
use gateway_tests::{
    Backend, Http2, Raw, TestGateway, collect, eventually, h2c_backend, one_backend, one_route, settled,
    within,
};
use h2::Reason;
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::Full;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[tokio::test]
async fn a_request_takes_the_same_path_as_over_http1() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let answer = client.send(client.get("/a?b=c"), "").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "hello"));
    assert!(answer.headers.contains_key("date"));
    let heard = backend.last();
    assert_eq!(heard.uri, "/a?b=c");
    assert_eq!(heard.header("host"), gateway.addr().to_string());
    assert_eq!(heard.header("via"), "2.0 vers-gateway");
    assert_eq!((heard.header("x-forwarded-for"), heard.header("x-forwarded-proto")), ("::1", "http"));
    assert!(!heard.headers.contains_key("transfer-encoding"), "it has no body");
}

#[tokio::test]
async fn bodies_go_both_ways_whatever_their_length() {
    let backend = Backend::echo().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    for length in [1, 1000, 16_384, 65_536, 300_000, 4 << 20] {
        let body: Bytes = (0..length).map(|at| (at % 251) as u8).collect();
        let answer = client.send(client.ask(Method::POST, "/"), body.clone()).await;
        assert_eq!(answer.status, 200, "{length}");
        assert!(answer.body == body, "{length} bytes came back as {}", answer.body.len());
        assert_eq!(backend.last().header("transfer-encoding"), "chunked");
        let mut told = client.ask(Method::POST, "/");
        told.headers_mut().insert("content-length", HeaderValue::from(length));
        let answer = client.send(told, body.clone()).await;
        assert!(answer.body == body, "of known length: {length}");
        assert_eq!(backend.last().header("content-length"), length.to_string());
    }
}

#[tokio::test]
async fn trailers_of_requests_and_answers_arrive() {
    let canned =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\nhost: b\r\n\r\n";
    let backend = Backend::canned(canned).await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let answer = client.send(client.get("/"), "").await;
    assert_eq!((answer.text(), answer.trailer("x-sum"), answer.trailer("host")), ("hi", "7", ""));
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let (answer, mut stream) = client.open(client.ask(Method::POST, "/"), false).await;
    stream.send_data("hi".into(), false).expect("data");
    let trailers = HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from_static("7"))]);
    stream.send_trailers(trailers).expect("trailers");
    assert_eq!(within("an answer", collect(answer)).await.expect("an answer").text(), "hello");
    let heard = backend.last();
    assert_eq!(heard.body, "hi");
    assert_eq!(heard.trailers.expect("trailers").get("x-sum"), Some(&HeaderValue::from_static("7")));
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let backend = Backend::http(|heard| {
        let status: u16 = heard.uri.path()[1..].parse().expect("a status");
        let body = if heard.method == Method::HEAD || status == 200 { "hello" } else { "" };
        Response::builder().status(status).body(Full::from(body)).expect("an answer")
    })
    .await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    for (method, path, length) in [
        (Method::HEAD, "/200", "5"),
        (Method::GET, "/204", ""),
        (Method::GET, "/304", ""),
        (Method::GET, "/200", "5"),
    ] {
        let answer = client.send(client.ask(method.clone(), path), "").await;
        assert_eq!(answer.header("content-length"), length, "{method} {path}");
        let has_body = method == Method::GET && path == "/200";
        assert_eq!(answer.text(), if has_body { "hello" } else { "" }, "{method} {path}");
    }
}

#[tokio::test]
async fn a_hundred_requests_share_one_connection() {
    let backend = Backend::echo().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let mut answers = Vec::new();
    for number in 0..100 {
        let (answer, mut stream) = client.open(client.ask(Method::POST, "/"), false).await;
        stream.send_data(number.to_string().into(), true).expect("data");
        answers.push(tokio::spawn(collect(answer)));
    }
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = within("an answer", answer).await.expect("a task").expect("an answer");
        assert_eq!(answer.text(), number.to_string());
    }
    assert_eq!(gateway.metric("vers_connections_total", &[]).await, 1.0);
    assert_eq!(gateway.metric("vers_requests_total", &["route=\"app\"", "2xx"]).await, 100.0);
}

#[tokio::test]
async fn errors_have_their_code() {
    let nobody = Backend::nobody().await;
    let gateway = TestGateway::start(&one_route(nobody, "path = \"/app/*\""));
    let mut client = Http2::connect(gateway.addr()).await;
    let answer = client.send(client.get("/app/"), "").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (502, "upstream-refused"));
    assert!(answer.text().contains("(upstream-refused)"), "{}", answer.text());
    let answer = client.send(client.get("/"), "").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (404, "no-route"));
    let answer = client.send(client.ask(Method::HEAD, "/"), "").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (404, ""));
    let connect = http::Request::builder().method("CONNECT").uri("a:443").body(()).expect("a request");
    let answer = client.send(connect, "").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (501, "connect-method"));
}

#[tokio::test]
async fn answers_before_the_answer_pass() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\ncontent-length: 5\r\n\r\n";
    let backend = Backend::canned(format!("{early}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")).await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let (mut answer, _) = client.open(client.get("/"), true).await;
    let hints = within("hints", std::future::poll_fn(|cx| answer.poll_informational(cx))).await;
    let hints = hints.expect("an interim answer").expect("an answer");
    assert_eq!((hints.status().as_u16(), hints.headers().len()), (103, 1));
    assert_eq!(within("an answer", collect(answer)).await.expect("an answer").text(), "hi");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset_and_never_ended() {
    for head in ["content-length: 10\r\n\r\nhi", "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n5\r\nwo"] {
        let backend = Backend::canned(format!("HTTP/1.1 200 OK\r\n{head}")).await;
        let gateway = TestGateway::to(backend.addr());
        let mut client = Http2::connect(gateway.addr()).await;
        let (answer, _) = client.open(client.get("/"), true).await;
        // The head may be lost with the rest.
        let error = within("an error", collect(answer)).await.expect_err("no end");
        assert_eq!((error.reason(), error.is_remote()), (Some(Reason::INTERNAL_ERROR), true), "{head}");
        assert_eq!(gateway.metric("vers_connections_cut_total", &["upstream"]).await, 1.0);
        let again = client.try_send(client.get("/"), "").await.expect_err("no end");
        assert!(again.is_reset(), "the connection goes on: {again}");
    }
}

#[tokio::test]
async fn who_gives_a_request_up_gives_the_backends_up() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let (answer, mut stream) = client.open(client.get("/"), true).await;
    let mut server = visitors.next().await;
    server.head().await;
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    within("the end of the backend's connection", server.to_end()).await;
    // And in the middle of an answer.
    let (answer, mut stream) = client.open(client.get("/"), true).await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhi").await;
    let answer = within("a head", answer).await.expect("a head");
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    within("the end of the backend's connection", server.to_end()).await;
}

#[tokio::test]
async fn bodies_over_their_limit_are_refused() {
    let backend = Backend::echo().await;
    let gateway = TestGateway::with(backend.addr(), "limits = { body = \"10B\" }");
    let mut client = Http2::connect(gateway.addr()).await;
    assert_eq!(client.send(client.ask(Method::POST, "/"), "0123456789").await.text(), "0123456789");
    let answer = client.send(client.ask(Method::POST, "/"), "0123456789a").await;
    assert_eq!(answer.header("x-gateway-error"), "body-too-large", "of unknown length");
    let mut told = client.ask(Method::POST, "/");
    told.headers_mut().insert("content-length", HeaderValue::from_static("11"));
    let (answer, _stream) = client.open(told, false).await;
    let answer = within("an answer", collect(answer)).await.expect("an answer");
    assert_eq!(answer.header("x-gateway-error"), "body-too-large", "of known length, before it comes");
}

#[tokio::test]
async fn deadlines_are_those_of_the_route() {
    let silent = Backend::silent().await;
    let gateway = TestGateway::with(silent.addr(), "timeouts = { response = \"50ms\" }");
    let mut client = Http2::connect(gateway.addr()).await;
    assert_eq!(client.send(client.get("/"), "").await.header("x-gateway-error"), "upstream-timeout");
    let gateway = TestGateway::with(silent.addr(), "timeouts = { total = \"50ms\" }");
    let mut client = Http2::connect(gateway.addr()).await;
    assert_eq!(client.send(client.get("/"), "").await.header("x-gateway-error"), "total-timeout");
    let gateway = TestGateway::with(silent.addr(), "timeouts = { idle = \"50ms\" }");
    let mut client = Http2::connect(gateway.addr()).await;
    let (answer, _stream) = client.open(client.ask(Method::POST, "/"), false).await;
    let answer = within("an answer", collect(answer)).await.expect("an answer");
    assert_eq!(answer.header("x-gateway-error"), "body-timeout");
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_says_that_no_more_are_taken() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let (answer, _) = client.open(client.get("/"), true).await;
    let mut server = visitors.next().await;
    server.head().await;
    let stop = tokio::spawn(gateway.stop(Duration::from_secs(60)));
    eventually("the news that no more are taken", async || {
        client.send.clone().ready().await.is_err().then_some(())
    })
    .await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    assert_eq!(within("an answer", collect(answer)).await.expect("an answer").text(), "hi");
    within("the stop", stop).await.expect("a stop");
    client.ended().await.expect("an orderly end");
}

/// A client that takes 16 KiB every 30 ms, however much there is.
struct Unhurried {
    stream: tokio::net::TcpStream,
    pace: tokio::time::Interval,
    left: usize,
}

impl AsyncRead for Unhurried {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.left == 0 {
            ready!(this.pace.poll_tick(cx));
            this.left = 16 * 1024;
        }
        let mut space = [0; 16 * 1024];
        let mut some = ReadBuf::new(&mut space[..this.left.min(into.remaining())]);
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut some))?;
        this.left -= some.filled().len();
        into.put_slice(some.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Unhurried {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_stop_waits_for_clients_that_are_still_reading() {
    const ANSWERS: usize = 60;
    let body = Bytes::from(vec![b'x'; 60_000]);
    let sent = body.clone();
    let backend = Backend::http(move |_| Response::new(Full::from(sent.clone()))).await;
    let gateway = TestGateway::to(backend.addr());
    let socket = tokio::net::TcpSocket::new_v6().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let stream = socket.connect(gateway.addr()).await.expect("a connection");
    let pace = tokio::time::interval(Duration::from_millis(30));
    let slow = Unhurried { stream, pace, left: 0 };
    let mut settings = h2::client::Builder::new();
    settings.initial_connection_window_size(16 << 20);
    let mut client = Http2::over(slow, gateway.addr().to_string(), &settings).await;
    let mut answers = Vec::new();
    for _ in 0..ANSWERS {
        let (answer, _) = client.open(client.get("/"), true).await;
        answers.push(tokio::spawn(collect(answer)));
    }
    eventually("the end of all answers at the backend", async || {
        let idle = gateway.metric("vers_upstream_idle_connections", &[]).await;
        (backend.heard().len() == ANSWERS && idle as usize == backend.connections()).then_some(())
    })
    .await;
    // All there is to do is to send on what is here.
    within("the stop", gateway.stop(Duration::from_secs(60))).await;
    for answer in answers {
        let answer = within("an answer", answer).await.expect("a task").expect("all of an answer");
        assert!(answer.body == body, "{} bytes", answer.body.len());
    }
    client.ended().await.expect("an orderly end");
}

#[tokio::test]
async fn a_listener_that_goes_retires_its_connections() {
    let backend = Backend::hello().await;
    let two = |first: &str| {
        format!(
            "{first}[[listener]]\nname = \"stays\"\naddress = \"[::]:0\"\n[[route]]\nto = \"{}\"\n",
            backend.addr()
        )
    };
    let gateway = TestGateway::start(&two("[[listener]]\nname = \"goes\"\naddress = \"127.0.0.1:0\"\n"));
    let mut client = Http2::connect(gateway.addr_of("goes")).await;
    let mut other = Http2::connect(gateway.addr_of("stays")).await;
    assert_eq!(client.send(client.get("/"), "").await.text(), "hello");
    gateway.write(&two(""));
    gateway.reload().await.expect("a reload");
    client.ended().await.expect("an orderly end");
    assert_eq!(other.send(other.get("/"), "").await.text(), "hello");
}

#[tokio::test]
async fn a_connection_that_carries_nothing_ends() {
    let backend = Backend::hello().await;
    let listener = "[[listener]]\naddress = \"[::]:0\"\ntimeouts = { idle = \"100ms\" }\n";
    let gateway = TestGateway::start(&format!("{listener}[[route]]\nto = \"{}\"\n", backend.addr()));
    let mut client = Http2::connect(gateway.addr()).await;
    assert_eq!(client.send(client.get("/"), "").await.text(), "hello");
    client.ended().await.expect("an orderly end");
    assert_eq!(gateway.metric("vers_connections_cut_total", &["keep-alive"]).await, 1.0);
}

#[tokio::test]
async fn the_preface_may_come_in_pieces_and_first_only() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for cut in [1, 3, 17, 18, 19, 23, 24, 25, 32] {
        let mut raw = Raw::connect(gateway.addr()).await;
        raw.send(&preface[..cut]).await;
        tokio::task::yield_now().await;
        raw.send(&preface[cut..]).await;
        // The server's SETTINGS, which begin with their length and type.
        let settings = raw.exactly(4).await;
        assert_eq!(settings[3], 4, "cut at {cut}");
    }
    let mut raw = Raw::connect(gateway.addr()).await;
    raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    raw.until("hello").await;
    raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 505 "), "{head}");
}

/// Bytes that a side could send until nothing moved any more.
async fn stuck(sent: &AtomicUsize) -> usize {
    settled("a standstill", async || sent.load(Ordering::SeqCst)).await
}

#[tokio::test]
async fn a_reader_that_stops_bounds_what_is_held_for_it() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let backend = h2c_backend(move |_, mut respond| {
        let sent = Arc::clone(&counted);
        async move {
            let mut stream = respond.send_response(Response::new(()), false).expect("a head");
            loop {
                stream.reserve_capacity(16_384);
                let Some(Ok(granted)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                    return;
                };
                if stream.send_data(vec![0; granted].into(), false).is_err() {
                    return;
                }
                sent.fetch_add(granted, Ordering::SeqCst);
            }
        }
    })
    .await;
    let gateway = TestGateway::start(&one_backend(&[backend.addr()], "protocol = \"h2c\""));
    let mut client = Http2::connect(gateway.addr()).await;
    let (answer, _) = client.open(client.get("/"), true).await;
    let answer = within("a head", answer).await.expect("a head");
    let held = stuck(&sent).await;
    // Windows of 64 KiB on both sides, and one buffer between them.
    assert!((65_535..=4 * 65_536).contains(&held), "{held} bytes");
    drop(answer);
}

#[tokio::test]
async fn a_backend_that_stops_reading_bounds_what_is_held_for_it() {
    let backend = h2c_backend(|request, respond| async move {
        std::future::pending::<()>().await;
        drop((request, respond));
    })
    .await;
    let gateway = TestGateway::start(&one_backend(&[backend.addr()], "protocol = \"h2c\""));
    let mut client = Http2::connect(gateway.addr()).await;
    let (_answer, mut stream) = client.open(client.ask(Method::POST, "/"), false).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        loop {
            stream.reserve_capacity(16_384);
            let Some(Ok(granted)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
            stream.send_data(vec![0; granted].into(), false).expect("data");
            counted.fetch_add(granted, Ordering::SeqCst);
        }
    });
    let held = stuck(&sent).await;
    assert!((65_535..=4 * 65_536).contains(&held), "{held} bytes");
    sending.abort();
}
