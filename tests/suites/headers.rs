//! What a proxy adds to heads, and what it takes away, so that nobody is lied to.

use gateway_tests::{Backend, Heard, Raw, TestGateway, plugin, plugin_table};

/// Sends a GET with these header lines, besides Host, and returns what the backend heard.
async fn heard(gateway: &TestGateway, backend: &Backend, lines: &str) -> Heard {
    let before = backend.heard().len();
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(format!("GET / HTTP/1.1\r\nhost: App.example:81\r\n{lines}\r\n")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{lines:?}: {head}");
    assert_eq!(backend.heard().len(), before + 1, "{lines:?}");
    backend.last()
}

/// What a backend heard that could be read as a statement about the client or the way to it.
fn statements(heard: &Heard) -> Vec<String> {
    let mut all: Vec<String> = heard
        .headers
        .iter()
        .filter(|(name, _)| {
            let name = name.as_str().replace('_', "-");
            name.contains("forwarded") || name == "x-real-ip"
        })
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn nobody_can_forge_who_they_are() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let truth = statements(&heard(&gateway, &backend, "").await);
    let port = gateway.addr().port();
    assert_eq!(
        truth,
        [
            "forwarded: for=\"[::1]\";host=\"App.example:81\";proto=http".to_owned(),
            "x-forwarded-for: ::1".to_owned(),
            "x-forwarded-host: App.example:81".to_owned(),
            format!("x-forwarded-port: {port}"),
            "x-forwarded-proto: http".to_owned(),
        ]
    );
    for forged in [
        "x-forwarded-for: 6.6.6.6\r\n",
        "X-Forwarded-For: 6.6.6.6\r\nX-FORWARDED-FOR: 7.7.7.7\r\n",
        "x_forwarded_for: 6.6.6.6\r\n",
        "X-Forwarded_For: 6.6.6.6\r\n",
        "X_Real_IP: 6.6.6.6\r\nx-real-ip: 6.6.6.6\r\n",
        "forwarded: for=6.6.6.6\r\nForwarded: for=7.7.7.7;proto=https\r\n",
        "x-forwarded-proto: https\r\nx-forwarded-host: bank.example\r\nx-forwarded-port: 443\r\n",
        "x-forwarded: for=6.6.6.6\r\nx-forwarded-server: s\r\nx-forwarded-prefix: /admin\r\n",
        "x-forwarded-scheme: https\r\nx-forwarded-ssl: on\r\nx-forwarded-by: me\r\n",
        // Named for removal, or so that a second hop removes what the gateway put there.
        "connection: x-forwarded-for, forwarded\r\nx-forwarded-for: 6.6.6.6\r\n",
        "connection: keep-alive, X-Forwarded-Proto, x-real-ip\r\n",
    ] {
        assert_eq!(statements(&heard(&gateway, &backend, forged).await), truth, "{forged:?}");
    }
}

/// The route runs a plugin that tells the backend who the gateway takes the client for.
fn behind_proxies(backend: &Backend, listener: &str, networks: &str) -> TestGateway {
    TestGateway::start(&format!(
        r#"
        [gateway]
        workers = 1
        trusted_proxies = {networks}
        [[listener]]
        address = "[::]:0"
        {listener}
        [[route]]
        to = "{}"
        plugins = ["tell"]
        {}
        config = {{ request = {{ x-taken-for = "{{client_address}}" }} }}
        "#,
        backend.addr(),
        plugin_table("tell", &plugin("header_inject"), "")
    ))
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_added_to() {
    let backend = Backend::hello().await;
    let gateway = behind_proxies(&backend, "", r#"["::1", "10.0.0.0/8"]"#);
    for (sent, client, chain) in [
        ("", "::1", "::1"),
        ("x-forwarded-for: 192.0.2.1\r\n", "192.0.2.1", "192.0.2.1, ::1"),
        // A proxy behind a proxy.
        ("x-forwarded-for: 192.0.2.1, 10.1.2.3\r\n", "192.0.2.1", "192.0.2.1, 10.1.2.3, ::1"),
        // What the client forged stands before what the first trusted proxy saw.
        ("x-forwarded-for: 6.6.6.6, 192.0.2.1\r\n", "192.0.2.1", "6.6.6.6, 192.0.2.1, ::1"),
        (
            "x-forwarded-for: 6.6.6.6\r\nx-forwarded-for: 192.0.2.1\r\n",
            "192.0.2.1",
            "6.6.6.6, 192.0.2.1, ::1",
        ),
        ("x-forwarded-for: ::ffff:192.0.2.1\r\n", "192.0.2.1", "::ffff:192.0.2.1, ::1"),
        ("x-forwarded-for: [2001:db8::7]:4711\r\n", "2001:db8::7", "[2001:db8::7]:4711, ::1"),
        ("x-forwarded-for: 192.0.2.1, unknown\r\n", "::1", "192.0.2.1, unknown, ::1"),
        ("forwarded: for=192.0.2.9;proto=https\r\n", "192.0.2.9", "::1"),
    ] {
        let heard = heard(&gateway, &backend, sent).await;
        assert_eq!(heard.header("x-taken-for"), client, "{sent:?}");
        assert_eq!(heard.header("x-forwarded-for"), chain, "{sent:?}");
        let forwarded = heard.header("forwarded");
        assert!(forwarded.ends_with("for=\"[::1]\";host=\"App.example:81\";proto=http"), "{forwarded}");
    }
    let heard = heard(&gateway, &backend, "x-forwarded-proto: https\r\nx-forwarded-port: 443\r\n").await;
    assert_eq!((heard.header("x-forwarded-proto"), heard.header("x-forwarded-port")), ("https", "443"));
}

#[tokio::test]
async fn a_spelling_that_only_frameworks_know_is_trusted_from_nobody() {
    // A proxy passes on what it does not know; a WSGI or CGI application reads both names as one.
    let backend = Backend::hello().await;
    let gateway = behind_proxies(&backend, "", r#"["::1"]"#);
    let heard = heard(&gateway, &backend, "x-forwarded-for: 192.0.2.1\r\nx_forwarded_for: 6.6.6.6\r\n").await;
    assert_eq!(heard.header("x-forwarded-for"), "192.0.2.1, ::1");
    assert!(!heard.headers.contains_key("x_forwarded_for"), "{:?}", heard.headers);
}

#[tokio::test]
async fn a_listener_can_trust_others_than_the_rest() {
    let backend = Backend::hello().await;
    let forged = "x-forwarded-for: 192.0.2.1\r\n";
    let gateway = behind_proxies(&backend, "trusted_proxies = []", r#"["::1"]"#);
    assert_eq!(heard(&gateway, &backend, forged).await.header("x-taken-for"), "::1");
    let gateway = behind_proxies(&backend, "trusted_proxies = [\"::1\"]", "[]");
    assert_eq!(heard(&gateway, &backend, forged).await.header("x-taken-for"), "192.0.2.1");
}

#[tokio::test]
async fn what_belongs_to_one_connection_stays_on_it() {
    let backend = Backend::http(|_| {
        http::Response::builder()
            .header("connection", "x-hop, keep-alive")
            .header("keep-alive", "timeout=5")
            .header("x-hop", "1")
            .header("proxy-authenticate", "Basic")
            .header("upgrade", "h2c")
            .header("x-end", "2")
            .body(http_body_util::Full::from("ok"))
            .expect("an answer")
    })
    .await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client
        .send(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: x-secret , X-Hop\r\nconnection: close\r\nx-secret: 1\r\n\
             x-hop: 2\r\nkeep-alive: 5\r\nproxy-connection: keep-alive\r\nproxy-authorization: Basic eA==\r\n\
             te: gzip;q=0.5\r\nupgrade: websocket\r\nhttp2-settings: AAMAAABk\r\nx-end: 3\r\n\r\n",
        )
        .await;
    let answer = client.to_end().await;
    let heard = backend.last();
    let mut names: Vec<_> = heard.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "forwarded",
            "host",
            "via",
            "x-end",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-proto",
        ]
    );
    assert!(answer.contains("x-end: 2\r\n"), "{answer}");
    for gone in ["x-hop", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
}

#[tokio::test]
async fn what_frames_a_message_cannot_be_nominated_away() {
    let backend = Backend::echo().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client
        .send(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: host, content-length, close\r\ncontent-length: 4\r\n\r\nping",
        )
        .await;
    let answer = client.to_end().await;
    assert!(answer.ends_with("\r\n\r\nping"), "{answer}");
    let heard = backend.last();
    assert_eq!((heard.header("host"), heard.header("content-length")), ("a", "4"));
}

#[tokio::test]
async fn a_client_that_takes_trailers_says_so_to_the_backend() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    for sent in ["te: trailers\r\n", "te: gzip, Trailers\r\nconnection: te\r\n"] {
        assert_eq!(heard(&gateway, &backend, sent).await.header("te"), "trailers", "{sent:?}");
    }
    assert!(!heard(&gateway, &backend, "te: gzip\r\n").await.headers.contains_key("te"));
}

#[tokio::test]
async fn the_way_is_recorded_and_the_host_stays() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let heard = heard(&gateway, &backend, "via: 1.0 front\r\n").await;
    let via: Vec<_> = heard.headers.get_all("via").iter().collect();
    assert_eq!(via, ["1.0 front", "1.1 vers-gateway"]);
    assert_eq!(heard.header("host"), "App.example:81", "as the client wrote it");
}

#[tokio::test]
async fn all_other_headers_pass_as_they_are() {
    let answer = b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nx-latin: caf\xe9\r\nx-empty:\r\n\
        server: old\r\ndate: yesterday\r\ncontent-length: 0\r\n\r\n";
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client
        .send(b"GET / HTTP/1.1\r\nhost: a\r\ncookie: a=1\r\ncookie: b=2\r\nx-latin: caf\xe9\r\nx-empty:\r\n\r\n")
        .await;
    let mut server = visitors.next().await;
    let head = server.head().await;
    assert!(head.contains("\r\ncookie: a=1\r\ncookie: b=2\r\n"), "{head}");
    // Not UTF-8, so it reads as a replacement character.
    assert!(head.contains("\r\nx-latin: caf\u{fffd}\r\n"), "{head}");
    assert!(head.contains("\r\nx-empty: \r\n") || head.contains("\r\nx-empty:\r\n"), "{head}");
    server.send(answer).await;
    let head = client.head().await;
    for line in
        ["set-cookie: a=1\r\nset-cookie: b=2", "x-latin: caf\u{fffd}", "server: old", "date: yesterday"]
    {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line:?} in {head}");
    }
    assert_eq!(head.matches("date:").count(), 1, "{head}");
}

#[tokio::test]
async fn a_request_without_exactly_one_good_host_is_refused() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    for head in [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nhost:\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nHost: b\r\n",
        "GET / HTTP/1.1\r\nhost: a, b\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n",
        "GET / HTTP/1.1\r\nhost: a@b\r\n",
        "GET / HTTP/1.1\r\nhost: a/b\r\n",
        "GET / HTTP/1.1\r\nhost: a:port\r\n",
        "GET / HTTP/1.1\r\nhost: a:65536\r\n",
        "GET / HTTP/1.1\r\nhost: [::1\r\n",
        "GET / HTTP/1.1\r\nhost: [::g]\r\n",
        "GET / HTTP/1.1\r\nhost: http://a/\r\n",
        "GET http://a/ HTTP/1.1\r\nhost: b\r\n",
        "GET http://a:81/ HTTP/1.1\r\nhost: a\r\n",
    ] {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(format!("{head}connection: close\r\n\r\n")).await;
        let answer = client.to_end().await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head:?}: {answer}");
        assert!(answer.contains("\r\nx-gateway-error: bad-host\r\n"), "{head:?}: {answer}");
    }
    assert_eq!(backend.connections(), 0, "the backend heard of none of them");
    assert_eq!(gateway.metric("vers_gateway_errors_total", &["code=\"bad-host\""]).await, 15.0);
}

#[tokio::test]
async fn connect_is_not_served() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 501 "), "{head}");
    assert!(head.contains("\r\nx-gateway-error: connect-method\r\n"), "{head}");
    assert_eq!(backend.connections(), 0);
}
