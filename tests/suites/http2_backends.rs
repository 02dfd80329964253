//! HTTP/2 to backends: shared connections, and how they end.

use bytes::Bytes;
use gateway_tests::{
    Backend, Heard, Http2, TestGateway, collect, echo, eventually, h2c_backend, h2c_backend_with,
    one_backend, within,
};
use h2::{Reason, server};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Semaphore;

const H2C: &str = "protocol = \"h2c\"";

fn h2c(servers: &[SocketAddr]) -> TestGateway {
    TestGateway::start(&one_backend(servers, H2C))
}

#[tokio::test]
async fn a_client_of_http1_reaches_a_backend_of_http2() {
    let backend = h2c_backend(echo).await;
    let gateway = h2c(&[backend.addr()]);
    let client = gateway.client();
    for length in [0, 1, 20_000, 4 << 20] {
        let body: Bytes = (0..length).map(|at| (at % 251) as u8).collect();
        let answer = client.post("/a", body.clone()).await;
        assert_eq!((answer.status, answer.header("x-path")), (StatusCode::OK, "/a"));
        assert!(answer.body == body, "{length} bytes came back as {}", answer.body.len());
    }
    assert_eq!(client.send(Method::HEAD, "/", Bytes::new()).await.header("x-method"), "HEAD");
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn bodies_and_trailers_pass_from_end_to_end() {
    let backend = h2c_backend(echo).await;
    let gateway = h2c(&[backend.addr()]);
    let mut client = Http2::connect(gateway.addr()).await;
    for length in [1, 65_536, 4 << 20] {
        let body: Bytes = (0..length).map(|at| (at % 251) as u8).collect();
        let (answer, mut stream) = client.open(client.ask(Method::POST, "/"), false).await;
        stream.send_data(body.clone(), false).expect("data");
        let sum = HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from_static("7"))]);
        stream.send_trailers(sum).expect("trailers");
        let answer = within("an answer", collect(answer)).await.expect("an answer");
        assert!(answer.body == body, "{length} bytes came back as {}", answer.body.len());
        assert_eq!(answer.trailer("x-sum"), "7");
    }
}

#[tokio::test]
async fn trailers_reach_a_client_of_http1() {
    let backend = h2c_backend(|_, mut respond| async move {
        let mut stream = respond.send_response(Response::new(()), false).expect("a head");
        stream.send_data("hi".into(), false).expect("data");
        let sum = HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from_static("7"))]);
        stream.send_trailers(sum).expect("trailers");
    })
    .await;
    let gateway = h2c(&[backend.addr()]);
    let mut raw = gateway_tests::Raw::connect(gateway.addr()).await;
    raw.send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n").await;
    let head = raw.head().await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert_eq!(raw.until("\r\n\r\n").await, "2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n");
}

#[tokio::test]
async fn heads_are_those_of_http2() {
    let (heads, mut came) = tokio::sync::mpsc::unbounded_channel();
    let backend = h2c_backend(move |request, mut respond| {
        let _ = heads.send(request.into_parts().0);
        async move {
            let _ = respond.send_response(Response::new(()), true);
        }
    })
    .await;
    let gateway = h2c(&[backend.addr()]);
    let mut raw = gateway_tests::Raw::connect(gateway.addr()).await;
    raw.send("GET /a?b HTTP/1.1\r\nHost: b.example\r\nConnection: x, upgrade\r\nX: 1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 0\r\n"), "{head}");
    let head = within("a head", came.recv()).await.expect("a head");
    assert_eq!(head.uri, "http://b.example/a?b");
    for gone in ["host", "connection", "x", "upgrade", "transfer-encoding"] {
        assert!(!head.headers.contains_key(gone), "{gone}: {:?}", head.headers);
    }
    assert_eq!(head.headers["via"], "1.1 vers-gateway");
}

/// A backend that answers when it is let, and the number of requests that it has.
async fn held(settings: server::Builder) -> (Backend, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (leave, here) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (wait, count) = (Arc::clone(&leave), Arc::clone(&here));
    let backend = h2c_backend_with(settings, move |_, mut respond| {
        let (wait, count) = (Arc::clone(&wait), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            wait.acquire().await.expect("a semaphore").forget();
            let _ = respond.send_response(Response::new(()), true);
        }
    })
    .await;
    (backend, leave, here)
}

async fn until(here: &AtomicUsize, number: usize) {
    eventually("the requests", async || (here.load(Ordering::SeqCst) == number).then_some(())).await;
}

#[tokio::test]
async fn requests_share_a_connection_up_to_what_its_server_takes() {
    let mut settings = server::Builder::new();
    settings.max_concurrent_streams(3);
    let (backend, leave, here) = held(settings).await;
    let gateway = h2c(&[backend.addr()]);
    let mut client = Http2::connect(gateway.addr()).await;
    let mut answers = Vec::new();
    for number in 1..=7 {
        let (answer, _) = client.open(client.get("/"), true).await;
        answers.push(tokio::spawn(collect(answer)));
        until(&here, number).await;
    }
    assert_eq!(backend.connections(), 3, "three, three and one");
    leave.add_permits(7);
    for answer in answers {
        assert_eq!(within("an answer", answer).await.expect("a task").expect("an answer").status, 200);
    }
    leave.add_permits(1);
    assert_eq!(client.send(client.get("/"), "").await.status, 200);
    assert_eq!(backend.connections(), 3, "they are kept");
}

#[tokio::test]
async fn a_burst_opens_one_connection() {
    let backend = h2c_backend(echo).await;
    let gateway = h2c(&[backend.addr()]);
    let mut client = Http2::connect(gateway.addr()).await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        let (answer, _) = client.open(client.get("/"), true).await;
        answers.push(tokio::spawn(collect(answer)));
    }
    for answer in answers {
        assert_eq!(within("an answer", answer).await.expect("a task").expect("an answer").status, 200);
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_server_that_refuses_a_stream_is_asked_again_elsewhere() {
    let refusing =
        h2c_backend(|_, mut respond| async move { respond.send_reset(Reason::REFUSED_STREAM) }).await;
    let working = h2c_backend(echo).await;
    let gateway = h2c(&[refusing.addr(), working.addr()]);
    let mut client = Http2::connect(gateway.addr()).await;
    for _ in 0..4 {
        // Without a body: one that has left already, and did not come with its head, cannot be sent twice.
        let answer = client.send(client.ask(Method::POST, "/"), "").await;
        assert_eq!(answer.status, 200, "though it is a POST");
    }
}

#[tokio::test]
async fn a_server_that_refuses_every_stream_is_not_asked_for_ever() {
    let refusing =
        h2c_backend(|_, mut respond| async move { respond.send_reset(Reason::REFUSED_STREAM) }).await;
    let gateway = h2c(&[refusing.addr()]);
    let mut client = Http2::connect(gateway.addr()).await;
    for _ in 0..3 {
        assert_eq!(client.send(client.get("/"), "").await.status, 502);
    }
}

#[tokio::test]
async fn a_reset_before_the_head_is_a_bad_answer_and_one_behind_it_a_reset() {
    let backend = h2c_backend(|request, mut respond| async move {
        if request.uri().path() == "/before" {
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
        let mut stream = respond.send_response(Response::new(()), false).expect("a head");
        stream.send_data("hi".into(), false).expect("data");
        // Once that has arrived.
        let _ = request.into_body().data().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let gateway = h2c(&[backend.addr()]);
    let mut client = Http2::connect(gateway.addr()).await;
    let answer = client.send(client.get("/before"), "").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (502, "upstream-bad-answer"));
    let (answer, mut stream) = client.open(client.ask(Method::POST, "/behind"), false).await;
    let mut body = within("a head", answer).await.expect("a head").into_body();
    assert_eq!(within("data", body.data()).await.expect("data").expect("data"), "hi");
    stream.send_data("go on".into(), false).expect("data");
    let error = within("more", body.data()).await.expect("no end").expect_err("no data");
    assert!(error.is_reset() && error.is_remote(), "{error}");
    let mut raw = gateway_tests::Raw::connect(gateway.addr()).await;
    raw.send("POST /behind HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n").await;
    raw.until("2\r\nhi\r\n").await;
    raw.send("go on").await;
    assert_eq!(raw.to_end().await, "", "over HTTP/1 it breaks off without a last chunk");
}

#[tokio::test]
async fn a_connection_that_its_server_retires_is_replaced_and_finished() {
    let (leave, here) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (wait, count) = (Arc::clone(&leave), Arc::clone(&here));
    let backend = Backend::tcp(move |stream| {
        let (wait, count) = (Arc::clone(&wait), Arc::clone(&count));
        async move {
            let mut connection = server::handshake(stream).await.expect("HTTP/2");
            let mut running = tokio::task::JoinSet::new();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                // One request for each connection, says its first answer's GOAWAY.
                connection.graceful_shutdown();
                count.fetch_add(1, Ordering::SeqCst);
                let wait = Arc::clone(&wait);
                running.spawn(async move {
                    wait.acquire().await.expect("a semaphore").forget();
                    let _ = respond.send_response(Response::<()>::new(()), true)
                        as Result<h2::SendStream<Bytes>, _>;
                });
            }
            while running.join_next().await.is_some() {}
        }
    })
    .await;
    let gateway = h2c(&[backend.addr()]);
    let mut client = Http2::connect(gateway.addr()).await;
    let mut answers = Vec::new();
    for number in 1..=5 {
        let (answer, _) = client.open(client.ask(Method::POST, "/"), true).await;
        answers.push(tokio::spawn(collect(answer)));
        until(&here, number).await;
    }
    leave.add_permits(5);
    for answer in answers {
        assert_eq!(within("an answer", answer).await.expect("a task").expect("an answer").status, 200);
    }
    assert!(backend.connections() >= 2, "{} connections", backend.connections());
}

#[tokio::test]
async fn a_kept_connection_that_its_server_closed_is_replaced() {
    let first = h2c_backend(echo).await;
    let address = first.addr();
    let gateway = h2c(&[address]);
    let mut client = Http2::connect(gateway.addr()).await;
    assert_eq!(client.send(client.get("/"), "").await.status, 200);
    first.end().await;
    let answer = client.send(client.get("/"), "").await;
    assert_eq!(answer.header("x-gateway-error"), "upstream-refused", "a new connection was tried");
}

#[tokio::test]
async fn a_server_that_speaks_http1_only_is_a_bad_answer() {
    let backend = Backend::hello().await;
    let gateway = h2c(&[backend.addr()]);
    let answer = gateway.client().get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (502, "upstream-bad-answer"));
}

#[tokio::test]
async fn auto_speaks_http2_for_grpc_only() {
    let backend = Backend::http(|_: &Heard| Response::new(http_body_util::Full::from("http1"))).await;
    let toml = one_backend(&[backend.addr()], "protocol = \"auto\"");
    let gateway = TestGateway::start(&toml);
    let mut client = Http2::connect(gateway.addr()).await;
    assert_eq!(client.send(client.get("/"), "").await.text(), "http1");
    let backend = h2c_backend(echo).await;
    let gateway = TestGateway::start(&one_backend(&[backend.addr()], "protocol = \"auto\""));
    let mut client = Http2::connect(gateway.addr()).await;
    let mut grpc = client.ask(Method::POST, "/");
    grpc.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    assert_eq!(client.send(grpc, "hi").await.text(), "hi");
}

#[tokio::test]
async fn a_check_is_asked_over_http2() {
    let backend = h2c_backend(|request, mut respond| async move {
        let status = if request.uri().path() == "/up" { 204 } else { 500 };
        let answer = Response::builder().status(status).body(()).expect("an answer");
        let _ = respond.send_response(answer, true);
    })
    .await;
    let health = "health = { path = \"/up\", interval = \"10ms\" }";
    let gateway = TestGateway::start(&one_backend(&[backend.addr()], &format!("{H2C}\n{health}")));
    eventually("a check that passes", async || {
        (gateway.metric("vers_health_checks_total", &["passed"]).await > 0.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("vers_health_checks_total", &["failed"]).await, 0.0);
}

#[tokio::test]
async fn who_gives_a_request_up_has_it_reset_at_the_backend() {
    let (gone, mut told) = tokio::sync::mpsc::unbounded_channel();
    let backend = h2c_backend(move |_, mut respond| {
        let gone = gone.clone();
        async move {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            let _ = gone.send(reason);
        }
    })
    .await;
    let gateway = h2c(&[backend.addr()]);
    let mut client = Http2::connect(gateway.addr()).await;
    let (answer, mut stream) = client.open(client.get("/"), true).await;
    // So that the backend has it before it is taken back.
    eventually("the connection", async || (backend.connections() == 1).then_some(())).await;
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    let reason = within("the reset", told.recv()).await;
    if let Some(reason) = reason {
        assert_eq!(reason.expect("a reason"), Reason::CANCEL);
    }
}

/// Answers, and counts the connections that have ended.
async fn counted() -> (Backend, Arc<AtomicUsize>) {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let backend = Backend::tcp(move |stream| {
        let count = Arc::clone(&count);
        async move {
            let Ok(mut connection) = server::handshake(stream).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(echo(request, respond));
            }
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    (backend, ended)
}

#[tokio::test]
async fn none_is_kept_where_none_is_to_be_kept() {
    let (backend, ended) = counted().await;
    let toml = one_backend(&[backend.addr()], "protocol = \"h2c\"\nkeepalive = { connections = 0 }");
    let gateway = TestGateway::start(&toml);
    let mut client = Http2::connect(gateway.addr()).await;
    for number in 1..=3 {
        assert_eq!(client.send(client.get("/"), "").await.status, 200);
        until(&ended, number).await;
    }
    assert_eq!(gateway.metric("vers_upstream_idle_connections", &[]).await, 0.0);
}

#[tokio::test]
async fn unused_connections_are_counted_and_bounded() {
    let mut settings = server::Builder::new();
    settings.max_concurrent_streams(1);
    let (backend, leave, here) = held(settings).await;
    let more = "protocol = \"h2c\"\nkeepalive = { connections = 2 }";
    let gateway = TestGateway::start(&one_backend(&[backend.addr()], more));
    let mut client = Http2::connect(gateway.addr()).await;
    let mut answers = Vec::new();
    for number in 1..=5 {
        let (answer, _) = client.open(client.get("/"), true).await;
        answers.push(tokio::spawn(collect(answer)));
        until(&here, number).await;
    }
    assert_eq!(backend.connections(), 5);
    assert_eq!(gateway.metric("vers_upstream_idle_connections", &[]).await, 0.0, "all are in use");
    leave.add_permits(5);
    for answer in answers {
        assert_eq!(within("an answer", answer).await.expect("a task").expect("an answer").status, 200);
    }
    eventually("two that are kept", async || {
        (gateway.metric("vers_upstream_idle_connections", &[]).await == 2.0).then_some(())
    })
    .await;
    leave.add_permits(1);
    assert_eq!(client.send(client.get("/"), "").await.status, 200);
    assert_eq!(backend.connections(), 5, "one of them served it");
    gateway.write(&one_backend(&[backend.addr()], "protocol = \"h2c\"\nkeepalive = { connections = 1 }"));
    gateway.reload().await.expect("a reload");
    eventually("the end of those of a backend that is gone", async || {
        (gateway.metric("vers_upstream_idle_connections", &[]).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_that_are_their_clients_alone_are_bounded_over_all_vms() {
    const VMS: usize = 6;
    let (mut vms, mut routes) = (Vec::new(), String::new());
    for number in 0..VMS {
        let listener = tokio::net::TcpListener::bind("[::1]:0").await.expect("a free port");
        let vm = Backend::on(listener, |mut stream| async move {
            // The header in front: 16 bytes, and two addresses with their ports.
            let mut header = [0; 16 + 36];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut header).await.expect("a header");
            let Ok(mut connection) = server::handshake(stream).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(echo(request, respond));
            }
        });
        routes += &format!("[[route]]\nhost = \"vm{number}.test\"\nto = \"vm:web:{}\"\n", vm.addr().port());
        vms.push(vm);
    }
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n{routes}[vms]\ntable = {{ web = \"::1\" }}\nproxy_protocol = \"v2\"\n\
         keepalive = {{ connections = 3 }}\n"
    ));
    let call = async |client: &mut Http2, number: usize| {
        let uri = format!("http://vm{number}.test/");
        let mut grpc = http::Request::post(uri).body(()).expect("a request");
        grpc.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        assert_eq!(client.send(grpc, "hi").await.text(), "hi");
    };
    for number in (0..VMS).chain(0..VMS) {
        let mut client = Http2::connect(gateway.addr()).await;
        call(&mut client, number).await;
        call(&mut client, number).await;
    }
    let connections: Vec<usize> = vms.iter().map(Backend::connections).collect();
    assert_eq!(connections, [2; VMS], "one for each client, for both of its requests");
    eventually("those that are kept", async || {
        (gateway.metric("vers_upstream_idle_connections", &["backend=\"vms\""]).await == 3.0).then_some(())
    })
    .await;
}

/// A head of a quarter of a megabyte in a few bytes (RFC 7541 §6.1): what is in the table is referred to.
fn interim(is_first: bool) -> Vec<u8> {
    use gateway_tests::frames::{END_HEADERS, block, frame, kind};
    let mut head = block(&[(":status", b"103")]);
    if is_first {
        let mut entry = block(&[("x", &[b'x'; 4000])]);
        entry[0] = 0x40;
        head.extend(entry);
    }
    head.extend([0x80 | 62].repeat(60));
    frame(kind::HEADERS, END_HEADERS, 1, &head)
}

#[tokio::test]
async fn answers_before_the_answer_are_not_gathered_for_who_does_not_read() {
    use gateway_tests::frames::{frame, kind};
    let (backend, mut visitors) = Backend::by_hand().await;
    let more = "protocol = \"h2c\"\n[limits]\nheader_size = \"1MiB\"";
    let gateway = TestGateway::start(&one_backend(&[backend.addr()], more));
    let socket = tokio::net::TcpSocket::new_v6().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut client = gateway_tests::Raw::over(socket.connect(gateway.addr()).await.expect("a connection"));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.exactly(24).await;
    server.send(frame(kind::SETTINGS, 0, 0, &[])).await;
    server.send(interim(true)).await;
    let mut sent = 1;
    loop {
        let head = server.exactly(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = server.exactly(length).await;
        match head[3] {
            kind::RST_STREAM => break,
            // Each of these says that what came before it was read.
            kind::PING if head[4] == 1 => assert!(payload.len() == 8 && sent < 1000, "{sent} of them"),
            _ => {}
        }
        server.send(interim(false)).await;
        server.send(frame(kind::PING, 0, 0, &[0; 8])).await;
        sent += 1;
    }
    assert!(sent <= 32, "{sent} of them");
}
