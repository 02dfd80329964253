//! The PROXY protocol: who the client is, where a proxy says so in front of the connection.

use gateway_tests::{Backend, Raw, TestGateway, eventually};
use std::net::SocketAddr;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 3000\r\n";
const V1_MAPPED: &[u8] = b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 40000 3000\r\n";
const V1_UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n";

fn v2(command: u8, values: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + values.len()).expect("short").to_be_bytes();
    let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0x9c, 0x40, 0x0b, 0xb8];
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, 0x11], &length, &addresses, values].concat()
}

fn gateway(backend: SocketAddr, proxy_protocol: &str, trusted: &str, more: &str) -> TestGateway {
    TestGateway::start(&format!(
        r#"
        [[listener]]
        name = "web"
        address = "[::]:0"
        proxy_protocol = "{proxy_protocol}"
        trusted_proxies = {trusted}
        {more}
        [[route]]
        to = "{backend}"
        "#
    ))
}

/// What the backend was told of the client, by a connection that begins so.
async fn seen(gateway: &TestGateway, backend: &Backend, begins: &[u8]) -> Option<(String, String)> {
    let before = backend.heard().len();
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(begins).await;
    client.send(REQUEST).await;
    let answer = client.to_end().await;
    let heard = backend.heard();
    let heard = heard.get(before)?;
    assert!(answer.ends_with("hello"), "{answer}");
    Some((heard.header("x-forwarded-for").to_owned(), heard.header("x-forwarded-port").to_owned()))
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is() {
    let backend = Backend::hello().await;
    for mode in ["accept", "require"] {
        let gateway = gateway(backend.addr(), mode, "[\"::1\"]", "");
        let of_client = Some(("192.0.2.7".to_owned(), "3000".to_owned()));
        let own = Some(("::1".to_owned(), gateway.addr().port().to_string()));
        for (begins, expected) in [
            (V1.to_vec(), &of_client),
            (V1_MAPPED.to_vec(), &of_client),
            (v2(0x21, &[]), &of_client),
            (v2(0x21, &[0x05, 0, 3, 1, 2, 3]), &of_client),
            (v2(0x20, &[]), &own),
            (V1_UNKNOWN.to_vec(), &own),
        ] {
            let found = seen(&gateway, &backend, &begins).await;
            assert_eq!(&found, expected, "{mode}: {}", begins.escape_ascii());
        }
        let plain = seen(&gateway, &backend, b"").await;
        assert_eq!(plain, own.filter(|_| mode == "accept"), "{mode} without a header");
        let refused = if mode == "require" { 1.0 } else { 0.0 };
        let metric = gateway.metric("vers_connections_rejected_total", &["reason=\"proxy-protocol\""]).await;
        assert_eq!(metric, refused, "{mode}");
    }
}

#[tokio::test]
async fn nobody_else_does() {
    let backend = Backend::hello().await;
    let accepting = gateway(backend.addr(), "accept", "[\"192.0.2.0/24\"]", "");
    let own = Some(("::1".to_owned(), accepting.addr().port().to_string()));
    assert_eq!(seen(&accepting, &backend, b"").await, own);
    for begins in [V1.to_vec(), v2(0x21, &[])] {
        assert_eq!(seen(&accepting, &backend, &begins).await, None, "it is no HTTP");
    }
    let mut client = Raw::connect(accepting.addr()).await;
    client.send([V1, REQUEST].concat()).await;
    assert!(client.to_end().await.starts_with("HTTP/1.1 400 "));
    let requiring = gateway(backend.addr(), "require", "[\"192.0.2.0/24\"]", "");
    let mut client = Raw::connect(requiring.addr()).await;
    assert_eq!(client.to_end().await, "", "not even waited for");
}

#[tokio::test]
async fn headers_that_are_none_and_headers_that_do_not_come_end_the_connection() {
    let backend = Backend::hello().await;
    let gateway = gateway(backend.addr(), "accept", "[\"::1\"]", "timeouts = { proxy_protocol = \"200ms\" }");
    let bad = [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n".to_vec(),
        b"PROXY ".repeat(40),
        v2(0x2f, &[]),
        v2(0x21, &[1]),
    ];
    for begins in &bad {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(begins).await;
        assert_eq!(client.to_end().await, "", "{}", begins.escape_ascii());
    }
    // One that dribbles, and one that says nothing.
    for begins in [&V1[..20], &v2(0x21, &[])[..14], &b"P"[..], b""] {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(begins).await;
        assert_eq!(client.to_end().await, "", "{}", begins.escape_ascii());
    }
    let refused = gateway.metric("vers_connections_rejected_total", &["reason=\"proxy-protocol\""]).await;
    assert_eq!(refused, 8.0);
    assert!(backend.heard().is_empty());
}

/// Such a connection is readable for ever, and brings nothing.
#[tokio::test]
async fn a_client_that_ends_within_its_header_holds_nobody_up() {
    let backend = Backend::hello().await;
    for mode in ["accept", "require"] {
        let gateway = gateway(backend.addr(), mode, "[\"::1\"]", "");
        for begins in [&b"P"[..], b"PROXY ", b"\r", b"\r\n\r\n", &V1[..V1.len() - 1], &v2(0x21, &[])[..20]] {
            let mut client = Raw::connect(gateway.addr()).await;
            client.send(begins).await;
            client.finish().await;
            assert_eq!(client.to_end().await, "", "{mode}: {}", begins.escape_ascii());
        }
        assert!(seen(&gateway, &backend, V1).await.is_some(), "{mode}: others are served");
    }
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let backend = Backend::hello().await;
    let gateway = gateway(backend.addr(), "require", "[\"::1\"]", "");
    for header in [V1.to_vec(), v2(0x21, &[0x05, 0, 3, 1, 2, 3])] {
        let mut client = Raw::connect(gateway.addr()).await;
        client.stream.set_nodelay(true).expect("a socket");
        for byte in &header {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        client.send(REQUEST).await;
        assert!(client.to_end().await.ends_with("hello"));
        assert_eq!(backend.last().header("forwarded"), "for=192.0.2.7;host=\"app.test\";proto=http");
    }
}

#[tokio::test]
async fn clients_behind_a_proxy_are_counted_one_by_one() {
    let backend = Backend::hello().await;
    let gateway = gateway(backend.addr(), "accept", "[\"::1\"]", "connections_per_client = 1");
    let mut first = Raw::connect(gateway.addr()).await;
    first.send([V1, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"].concat()).await;
    first.until("hello").await;
    let mut second = Raw::connect(gateway.addr()).await;
    second.send(V1).await;
    assert!(second.to_end().await.contains("too-many-connections-per-client"));
    let other = b"PROXY TCP4 192.0.2.8 198.51.100.1 1 3000\r\n";
    assert_eq!(seen(&gateway, &backend, other).await.map(|(client, _)| client).as_deref(), Some("192.0.2.8"));
    drop(first);
    eventually("the place is free again", async || seen(&gateway, &backend, V1).await.map(drop)).await;
}

#[tokio::test]
async fn a_raw_connection_begins_behind_its_header() {
    let backend = Backend::tcp_echo().await;
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\nproxy_protocol = \"require\"\ntrusted_proxies = [\"::1\"]\n\
         [[route]]\nprotocol = \"tcp\"\nto = \"{}\"\n",
        backend.addr()
    ));
    let mut client = Raw::connect(gateway.addr()).await;
    client.send([V1, V1, b"\0ping"].concat()).await;
    assert_eq!(client.exactly(V1.len() + 5).await, [V1, b"\0ping"].concat(), "one header is one header");
}

#[tokio::test]
async fn a_forwarding_header_counts_where_the_client_is_a_proxy_itself() {
    let backend = Backend::hello().await;
    let gateway = gateway(backend.addr(), "require", "[\"::1\", \"192.0.2.0/24\"]", "");
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.5\r\nconnection: close\r\n\r\n";
    for (header, expected) in
        [(V1, "203.0.113.5, 192.0.2.7"), (b"PROXY TCP4 198.51.100.9 198.51.100.1 1 3000\r\n", "198.51.100.9")]
    {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send([header, &request[..]].concat()).await;
        client.to_end().await;
        assert_eq!(backend.last().header("x-forwarded-for"), expected);
    }
}
