//! How long is waited, how much is taken, and what a client is told when it is too long or too much.

use bytes::Bytes;
use gateway_tests::{Backend, Client, Raw, TestGateway, eventually, within};
use http::{Method, StatusCode};
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};

/// A gateway in front of a backend with `[limits]`.
fn limited(backend: &Backend, limits: &str) -> TestGateway {
    TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nto = \"{}\"\n[limits]\n{limits}\n",
        backend.addr()
    ))
}

/// A gateway in front of a backend with `timeouts` of its listener.
fn impatient(backend: &Backend, timeouts: &str) -> TestGateway {
    TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\ntimeouts = {{ {timeouts} }}\n[[route]]\nto = \"{}\"\n",
        backend.addr()
    ))
}

/// Sends a whole head, and returns what comes until the end.
async fn told(gateway: &TestGateway, head: &str) -> String {
    let mut client = Raw::connect(gateway.addr()).await;
    // A gateway that has seen enough closes, whatever is still being sent.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, head.as_bytes()).await;
    client.to_end().await
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let backend = Backend::hello().await;
    let gateway = limited(&backend, "header_size = \"8KiB\"");
    let head = |filler: usize| {
        let filler = "x".repeat(filler);
        format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: {filler}\r\n\r\n")
    };
    let overhead = head(0).len();
    let answer = told(&gateway, &head(8192 - overhead)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "as much as is allowed: {answer}");
    let answer = told(&gateway, &head(8193 - overhead)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "a byte more: {answer}");
    let answer = told(&gateway, &head(10_000_000)).await;
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "far more: {answer}");
    let answer = told(&gateway, &format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(9000))).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "a target is part of the head: {answer}");
    assert_eq!(backend.heard().len(), 1);
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let backend = Backend::hello().await;
    let gateway = limited(&backend, "headers = 12");
    let head = |more: usize| {
        let more: String = (0..more).map(|n| format!("x-{n}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{more}\r\n")
    };
    let answer = told(&gateway, &head(10)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "as many as are allowed: {answer}");
    let answer = told(&gateway, &head(11)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "one more: {answer}");
    assert_eq!(backend.heard().len(), 1);
}

#[tokio::test]
async fn limits_of_a_head_hold_for_answers_too() {
    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let backend = Backend::canned(format!("HTTP/1.1 204 No Content\r\n{many}\r\n")).await;
    for (limits, status) in [("headers = 300", 204), ("headers = 199", 502), ("", 502)] {
        let answer = told(&limited(&backend, limits), GET).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "200 headers, {limits:?}: {answer}");
    }
    let backend =
        Backend::canned(format!("HTTP/1.1 204 No Content\r\nx: {}\r\n\r\n", "x".repeat(20_000))).await;
    for (limits, status) in [("header_size = \"32KiB\"", 204), ("header_size = \"16KiB\"", 502)] {
        let answer = told(&limited(&backend, limits), GET).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "20 kB, {limits:?}: {answer}");
    }
}

#[tokio::test]
async fn a_head_that_is_not_finished_in_time_is_told_so() {
    let backend = Backend::hello().await;
    let gateway = impatient(&backend, "head = \"200ms\", idle = \"1h\"");
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-slow").await;
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer:?}");
    assert!(answer.contains("\r\nx-gateway-error: head-timeout\r\n"), "{answer:?}");

    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until("hello").await;
    client.send("GET / HT").await;
    let answer = client.to_end().await;
    assert_eq!(answer, "", "what is sent now could be taken for the end of the answer before");
    assert_eq!(backend.heard().len(), 1);
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_prolong_a_head() {
    let backend = Backend::hello().await;
    let gateway = impatient(&backend, "head = \"200ms\", idle = \"1h\"");
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").await;
    let mut drip = tokio::time::interval(Duration::from_millis(10));
    within("the end of patience", async {
        loop {
            tokio::select! {
                readable = client.stream.readable() => return readable.expect("an answer"),
                _ = drip.tick() => drop(client.stream.try_write(b"x")),
            }
        }
    })
    .await;
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let backend = Backend::hello().await;
    let gateway = impatient(&backend, "idle = \"400ms\", head = \"1h\"");
    let began = Instant::now();
    let mut client = Raw::connect(gateway.addr()).await;
    assert_eq!(client.to_end().await, "", "never a request");
    assert!(began.elapsed() >= Duration::from_millis(400), "closed after {:?}", began.elapsed());

    let mut client = Raw::connect(gateway.addr()).await;
    let began = Instant::now();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until("hello").await;
    assert_eq!(client.to_end().await, "", "not a second one");
    assert!(began.elapsed() >= Duration::from_millis(400), "closed after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_given_up() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::with(backend.addr(), "timeouts = { response = \"1s\" }");
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET /1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    let head = client.until("upstream-timeout)\n").await;
    assert!(head.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{head}");
    assert!(head.contains("\r\nx-gateway-error: upstream-timeout\r\n"), "{head}");
    assert_eq!(server.to_end().await, "", "its connection is of no use any more: an answer may still come");
    client.send("GET /2 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 204 "), "the client's connection is as good as before");
}

#[tokio::test]
async fn an_upload_that_stops_is_given_up() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::with(backend.addr(), "timeouts = { idle = \"100ms\", response = \"1h\" }");
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf").await;
    let mut server = visitors.next().await;
    server.until("half").await;
    assert_eq!(server.to_end().await, "", "the backend does not wait for the rest for ever");
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_download_that_stops_is_cut() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::with(
        backend.addr(),
        "timeouts = { idle = \"100ms\", response = \"1h\", tunnel = \"1h\" }",
    );
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    let answer = client.to_end().await;
    assert!(answer.ends_with("4\r\nhalf\r\n"), "no end that looks like one: {answer}");
    assert_eq!(server.to_end().await, "");
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_along() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET /waiting HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    drop(client);
    assert_eq!(server.to_end().await, "", "nobody waits for this answer");

    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET /reading HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
    client.until("half").await;
    drop(client);
    assert_eq!(server.to_end().await, "", "nobody reads the rest");

    let mut client = Raw::connect(gateway.addr()).await;
    client.send("POST /sending HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf").await;
    let mut server = visitors.next().await;
    server.until("half").await;
    drop(client);
    assert_eq!(server.to_end().await, "", "half a request is none");
}

#[tokio::test]
async fn a_backend_that_cannot_be_reached_is_named_by_code() {
    let answer = TestGateway::to(Backend::nobody().await).client().get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (502, "upstream-refused"));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    let text = answer.text();
    assert!(text.starts_with("502 Bad Gateway: ") && text.ends_with(" (upstream-refused)\n"), "{text:?}");
    assert!(!text.contains("127.0.0.1"), "clients are told nothing of what stands behind: {text:?}");
}

#[tokio::test]
async fn a_backend_that_does_not_accept_is_given_up() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let full = socket.listen(0).expect("a listener");
    let address = full.local_addr().expect("an address");
    let mut waiting = Vec::new();
    // Once its queue is full, the kernel leaves further connections unanswered.
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await
    {
        waiting.push(stream);
    }
    let gateway = TestGateway::with(address, "timeouts = { connect = \"100ms\", response = \"1h\" }");
    let answer = gateway.client().get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (504, "upstream-connect-timeout"));
}

#[tokio::test]
async fn a_broken_answer_never_looks_whole() {
    for answer in [
        "content-length: 10\r\n\r\nhalf",
        "content-length: 10\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf-and-more\r\n0\r\n\r\n",
    ] {
        let backend = Backend::canned(format!("HTTP/1.1 200 OK\r\n{answer}")).await;
        let gateway = TestGateway::to(backend.addr());
        let sent = within("an end", gateway.client().try_send(Method::GET, "/", Bytes::new())).await;
        // Where nothing of it has left yet, the client is told.
        let is_told = sent.as_ref().is_ok_and(|answer| answer.status == StatusCode::BAD_GATEWAY);
        assert!(sent.is_err() || is_told, "{answer:?} became {sent:?}");
        assert_eq!(gateway.metric("vers_upstream_idle_connections", &[]).await, 0.0, "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_must_end_well() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\n\r\nhalf").await;
    client.until("half\r\n").await;
    // The end of such an answer is a close; this is a reset.
    server.stream.set_zero_linger().expect("a reset at the end");
    drop(server);
    let rest = client.to_end().await;
    assert!(!rest.contains("0\r\n\r\n"), "it looks whole: {rest:?}");
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_the_backends_fault() {
    for answer in [
        "",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "hello\r\n\r\n",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-length: 4",
        "HTTP/3.0 200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        let backend = Backend::canned(answer).await;
        let gateway = TestGateway::to(backend.addr());
        let got = gateway.client().get("/").await;
        assert_eq!(
            (got.status.as_u16(), got.header("x-gateway-error")),
            (502, "upstream-bad-answer"),
            "{answer:?}"
        );
        assert_eq!(backend.connections(), 1, "{answer:?}: a request that was sent is not sent again");
    }
}

#[tokio::test]
async fn a_client_over_the_limit_is_told_so_and_others_go_on() {
    let backend = Backend::hello().await;
    let gateway = limited(&backend, "connections = 2");
    let mut inside = [Raw::connect(gateway.addr()).await, Raw::connect(gateway.addr_v4()).await];
    for client in &mut inside {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        client.until("hello").await;
    }
    for request in ["", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
        let mut outside = Raw::connect(gateway.addr()).await;
        // It may be closed already.
        let _ = outside.stream.try_write(request.as_bytes());
        let answer = outside.to_end().await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer:?}");
        assert!(answer.contains("\r\nx-gateway-error: too-many-connections\r\n"), "{answer:?}");
    }
    assert_eq!(gateway.metric("vers_connections_rejected_total", &["reason=\"limit\""]).await, 2.0);
    let [mut stays, leaves] = inside;
    stays.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    stays.until("hello").await;
    drop(leaves);
    eventually("room for another", async || {
        (gateway.metric("vers_connections_active", &[]).await == 1.0).then_some(())
    })
    .await;
    assert_eq!(Client::new(gateway.addr()).get("/").await.text(), "hello");
}

/// Two listeners for two workers, and a limit for each client.
fn shared(backend: &Backend, more: &str) -> TestGateway {
    let to = backend.addr();
    TestGateway::start(&format!(
        "[gateway]\nworkers = 2\n{more}\n[limits]\nconnections_per_client = 3\n\
         [[listener]]\nname = \"web\"\naddress = \"[::]:0\"\n\
         [[listener]]\nname = \"raw\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         connections_per_client = 1\n\
         [[route]]\nto = \"{to}\"\n[[route]]\nlisteners = [\"raw\"]\nprotocol = \"tcp\"\nto = \"{to}\"\n"
    ))
}

/// A connection from an address of this machine.
async fn from(source: &str, address: std::net::SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{source}:0").parse().expect("an address")).expect("an address of loopback");
    Raw::over(within("a connection", socket.connect(address)).await.expect("a connection"))
}

/// Whether a connection is served; one that is not is told why.
async fn is_served(client: &mut Raw) -> bool {
    let _ = client.stream.try_write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = client.head().await;
    let is_refused = answer.contains("\r\nx-gateway-error: too-many-connections-per-client\r\n");
    assert_eq!(is_refused, answer.starts_with("HTTP/1.1 503 "), "{answer}");
    !is_refused
}

#[tokio::test]
async fn a_client_has_so_many_connections_on_all_workers_and_others_have_theirs() {
    let backend = Backend::hello().await;
    let gateway = shared(&backend, "");
    let mut inside = Vec::new();
    for source in ["127.0.0.1", "127.0.0.2"] {
        for index in 0..12 {
            let mut client = from(source, gateway.addr_v4()).await;
            assert_eq!(is_served(&mut client).await, index < 3, "{source}, connection {index}");
            inside.push(client);
        }
    }
    assert!(is_served(&mut Raw::connect(gateway.addr()).await).await, "[::1] is another client");
    let rejected = gateway.metric("vers_connections_rejected_total", &["reason=\"client\""]).await;
    assert_eq!(rejected, 18.0);
    assert_eq!(gateway.status().await["listeners"][0]["limit_per_client"], 3);
    inside.clear();
    eventually("room again", async || {
        (gateway.metric("vers_connections_active", &[]).await == 0.0).then_some(())
    })
    .await;
    assert!(is_served(&mut from("127.0.0.1", gateway.addr_v4()).await).await, "who leaves makes room");
}

#[tokio::test]
async fn a_raw_connection_over_the_limit_for_its_client_is_closed() {
    let backend = Backend::tcp_echo().await;
    let gateway = shared(&backend, "");
    let mut first = Raw::connect(gateway.addr_of("raw")).await;
    first.send("ping").await;
    first.until("ping").await;
    assert_eq!(Raw::connect(gateway.addr_of("raw")).await.to_end().await, "", "without a word of HTTP");
    first.send("pong").await;
    first.until("pong").await;
}

#[tokio::test]
async fn a_trusted_proxy_is_no_client() {
    let backend = Backend::hello().await;
    let gateway = shared(&backend, "trusted_proxies = [\"127.0.0.1\"]");
    let mut inside = Vec::new();
    for _ in 0..8 {
        let mut client = from("127.0.0.1", gateway.addr_v4()).await;
        assert!(is_served(&mut client).await);
        inside.push(client);
    }
}

#[tokio::test]
async fn what_is_closed_without_a_word_is_counted() {
    let backend = Backend::hello().await;
    let gateway = impatient(&backend, "idle = \"100ms\", head = \"100ms\"");
    let cut = async |reason: &str| {
        gateway.metric("vers_connections_cut_total", &[&format!("reason=\"{reason}\"")]).await
    };
    let mut client = Raw::connect(gateway.addr()).await;
    assert_eq!(client.to_end().await, "");
    assert_eq!((cut("keep-alive").await, cut("head").await), (1.0, 0.0));
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until("hello").await;
    client.send("GET").await;
    assert_eq!(client.to_end().await, "");
    assert_eq!((cut("keep-alive").await, cut("head").await), (1.0, 1.0));
}

#[tokio::test]
async fn what_is_no_http_ends_its_connection_and_nothing_else() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: a\r\n\r\n",
        b"\0\0\0\0",
        b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(garbage).await;
        client.finish().await;
        let answer = client.to_end().await;
        let is_refused = ["HTTP/1.1 400 ", "HTTP/1.1 505 "].iter().any(|status| answer.starts_with(status));
        assert!(is_refused || answer.is_empty(), "{garbage:?}: {answer}");
    }
    assert_eq!(backend.connections(), 0);
    assert_eq!(gateway.client().get("/").await.text(), "hello");
}
