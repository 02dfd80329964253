//! What is sent once more, and what never: nothing may be lost that need not be, and nothing may have
//! its effect twice.

use gateway_tests::{Asleep, Backend, Raw, TestGateway, Visitors, one_backend};
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};

/// A gateway whose route has these retries.
fn with_retries(servers: &[SocketAddr], retries: &str, more: &str) -> TestGateway {
    let text = one_backend(servers, &format!("ejection = {{ first = \"0s\" }}\n{more}"));
    TestGateway::start(&text.replace("to = \"app\"\n", &format!("to = \"app\"\nretries = {retries}\n")))
}

/// A server that reads a request, and closes without a word.
async fn mute() -> Backend {
    Backend::canned("").await
}

#[tokio::test]
async fn a_server_that_refuses_has_seen_nothing() {
    let (dead, alive) = (Asleep::new(), Backend::echo().await);
    let gateway = with_retries(&[dead.addr(), alive.addr()], "{ budget = 0 }", "");
    let answer = gateway.client().post("/", "once").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "once"), "whatever the method");
    assert_eq!(alive.heard().len(), 1);
    let retries = gateway.metric("vers_upstream_retries_total", &["reason=\"unreachable\""]).await;
    assert_eq!(retries, 1.0);
}

#[tokio::test]
async fn a_server_that_does_not_accept_has_seen_nothing() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let full = socket.listen(0).expect("a listener");
    let address = full.local_addr().expect("an address");
    let mut waiting = Vec::new();
    // Once its queue is full, the kernel leaves further connections unanswered.
    while let Ok(Ok(stream)) =
        tokio::time::timeout(std::time::Duration::from_millis(500), TcpStream::connect(address)).await
    {
        waiting.push(stream);
    }
    let alive = Backend::hello().await;
    let text = one_backend(&[address, alive.addr()], "");
    let text = text.replace("to = \"app\"\n", "to = \"app\"\ntimeouts = { connect = \"100ms\" }\n");
    let gateway = TestGateway::start(&text);
    assert_eq!(gateway.client().get("/").await.text(), "hello");
    assert_eq!(gateway.operator().server(address).await["state"], "ejected");
}

#[tokio::test]
async fn attempts_are_bounded() {
    let dead: Vec<Asleep> = (0..4).map(|_| Asleep::new()).collect();
    let servers: Vec<SocketAddr> = dead.iter().map(Asleep::addr).collect();
    for (retries, attempts) in
        [("{ attempts = 1 }", 1.0), ("{ attempts = 2 }", 2.0), ("{}", 3.0), ("{ attempts = 9 }", 4.0)]
    {
        let gateway = with_retries(&servers, retries, "");
        let answer = gateway.client().get("/").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (502, "upstream-refused"));
        let failed = gateway.metric("vers_upstream_connects_total", &["outcome=\"failed\""]).await;
        assert_eq!(failed, attempts, "{retries}");
    }
}

#[tokio::test]
async fn a_request_without_an_answer_goes_elsewhere_where_that_is_harmless() {
    let (mute, alive) = (mute().await, Backend::echo().await);
    let gateway = with_retries(&[mute.addr(), alive.addr()], "{}", "keepalive = { connections = 0 }");
    for (method, body, chunked) in [("GET", "", false), ("PUT", "body", false), ("PUT", "body", true)] {
        let mut client = Raw::connect(gateway.addr()).await;
        let length =
            if chunked { "transfer-encoding: chunked" } else { &format!("content-length: {}", body.len()) };
        let sent = if chunked { "2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n".to_owned() } else { body.to_owned() };
        client
            .send(format!("{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{length}\r\n\r\n{sent}"))
            .await;
        let answer = client.to_end().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(body), "{method}: {answer}");
        assert_eq!(alive.last().body, body, "all of the body, and nothing but the body");
        // The next request begins with the server that says nothing, too.
        gateway.client().get("/").await;
        gateway.client().get("/").await;
    }
    assert!(gateway.metric("vers_upstream_retries_total", &["reason=\"broken\""]).await >= 3.0);
}

#[tokio::test]
async fn a_request_that_may_have_had_its_effect_is_not_sent_elsewhere() {
    let (mute, alive) = (mute().await, Backend::hello().await);
    let gateway = with_retries(&[mute.addr(), alive.addr()], "{}", "");
    let answer = gateway.client().post("/", "order").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (502, "upstream-bad-answer"));
    assert_eq!((mute.connections(), alive.heard().len()), (1, 0));
}

#[tokio::test]
async fn a_request_whose_answer_was_begun_is_not_sent_elsewhere() {
    for begun in ["H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let (half, alive) = (Backend::canned(begun).await, Backend::hello().await);
        let gateway = with_retries(&[half.addr(), alive.addr()], "{}", "");
        let answer = gateway.client().get("/").await;
        assert_eq!(answer.header("x-gateway-error"), "upstream-bad-answer", "{begun:?}");
        assert_eq!(alive.heard().len(), 0, "{begun:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_gone_is_not_sent_elsewhere() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let alive = Backend::hello().await;
    let gateway = with_retries(&[backend.addr(), alive.addr()], "{}", "");
    let mut client = Raw::connect(gateway.addr()).await;
    let length = 1 << 20;
    client.send(format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n")).await;
    let mut server = visitors.next().await;
    server.head().await;
    client.send(vec![b'x'; 200_000]).await;
    server.skip(200_000).await;
    drop(server);
    let answer = client.head().await;
    assert!(answer.contains("x-gateway-error: upstream-bad-answer\r\n"), "{answer}");
    assert_eq!(alive.heard().len(), 0);
}

#[tokio::test]
async fn without_a_budget_nothing_that_was_sent_is_repeated() {
    let (mute, alive) = (mute().await, Backend::hello().await);
    let gateway = with_retries(&[mute.addr(), alive.addr()], "{ budget = 0 }", "");
    let answer = gateway.client().get("/").await;
    assert_eq!(answer.header("x-gateway-error"), "upstream-bad-answer");
    assert_eq!(gateway.metric("vers_upstream_retries_over_budget_total", &[]).await, 1.0);
}

#[tokio::test]
async fn a_storm_of_repeats_is_bounded() {
    let (mute, alive) = (mute().await, Backend::hello().await);
    let gateway = with_retries(
        &[mute.addr(), alive.addr()],
        "{ budget = 1 }",
        "keepalive = { connections = 0 }\nbalance = { header = \"x-user\" }",
    );
    // A user whose server is the one that says nothing.
    let mut user = 0;
    while mute.connections() == 0 {
        user += 1;
        gateway.client().with("x-user", &user.to_string()).get("/").await;
    }
    let client = gateway.client().with("x-user", &user.to_string());
    let mut refused = 0;
    for _ in 0..300 {
        refused += usize::from(client.get("/").await.status == 502);
    }
    // Thirty at first, three in each second, and a hundredth of the requests.
    assert!(refused > 100, "only {refused} of 300 requests were not repeated");
    assert!(gateway.metric("vers_upstream_retries_over_budget_total", &[]).await >= 100.0);
}

#[tokio::test]
async fn with_one_server_nothing_is_repeated() {
    let mute = mute().await;
    let gateway = with_retries(&[mute.addr()], "{ attempts = 5 }", "");
    assert_eq!(gateway.client().get("/").await.status, 502);
    assert_eq!(mute.connections(), 1);
}

/// A request that a server has kept a connection for, and has not answered yet.
async fn asked(client: &mut Raw, method: &str, visitors: &mut Visitors) -> Raw {
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    client.head().await;
    client.send(format!("{method} /again HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")).await;
    server.head().await;
    server
}

#[tokio::test]
async fn a_kept_connection_that_ends_with_its_server_is_no_loss() {
    let (gone, mut visitors) = Backend::by_hand().await;
    let alive = Backend::named("alive").await;
    // One server for all: whoever asks has the same key.
    let both = [gone.addr(), alive.addr()];
    let gateway = with_retries(&both, "{ budget = 0, attempts = 2 }", "balance = { header = \"host\" }");
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: 0\r\n\r\n").await;
    let mut host = 0;
    // Until there is a host whose server is the one that will go.
    let mut server = loop {
        tokio::select! {
            server = visitors.next() => break server,
            _ = client.head() => {
                client.until("alive").await;
                host += 1;
                client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
            }
        }
    };
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    client.head().await;
    client.send(format!("GET /again HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
    server.head().await;
    gone.end().await;
    drop(server);
    let answer = client.until("alive").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(gateway.metric("vers_upstream_retries_total", &["reason=\"stale\""]).await, 1.0);
}

#[tokio::test]
async fn a_stale_connection_counts_neither_as_an_attempt_nor_against_the_budget() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = with_retries(&[backend.addr()], "{ attempts = 1, budget = 0 }", "");
    let mut client = Raw::connect(gateway.addr()).await;
    drop(asked(&mut client, "GET", &mut visitors).await);
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 204 "));
}

#[tokio::test]
async fn a_raw_connection_goes_to_a_server_that_takes_it() {
    let (dead, alive) = (Asleep::new(), Backend::tcp_echo().await);
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nprotocol = \"tcp\"\nto = \"app\"\n\
         [backend.app]\nservers = [\"{}\", \"{}\"]\n",
        dead.addr(),
        alive.addr()
    ));
    for _ in 0..3 {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send("ping").await;
        assert_eq!(client.exactly(4).await, b"ping");
    }
    let failed = gateway.metric("vers_upstream_connects_total", &["outcome=\"failed\""]).await;
    assert_eq!(failed, 1.0, "and it is not tried again with each connection");
}
