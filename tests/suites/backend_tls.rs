//! TLS to servers: who they have to be, what goes over it, and what is said where there is none. The servers are
//! gateways, too, with a listener that speaks TLS in front of what each test needs.

use gateway_tests::{
    Backend, Http2, Pair, Pki, Raw, TestGateway, certificate_table, echo, eventually, h2c_backend, within,
};
use http::Method;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// The server: TLS in front of this backend.
fn server(pair: &Pair, backend: SocketAddr, more: &str) -> TestGateway {
    let toml = format!(
        "[[listener]]\naddress = \"[::]:0\"\ntls = true\n[[route]]\nname = \"app\"\nto = \"app\"\n{}\
         [backend.app]\nservers = [\"{backend}\"]\n{more}\n",
        certificate_table("web"),
    );
    TestGateway::with_files(&toml, &[("web.pem", &pair.cert), ("web-key.pem", &pair.key)])
}

/// The gateway: a backend of these servers, with TLS as said, whose authority is in `ca.pem`.
fn gateway(servers: &[String], tls: &str, pki: &Pki) -> TestGateway {
    TestGateway::with_files(&config(servers, tls), &[("ca.pem", pki.certificate())])
}

fn config(servers: &[String], tls: &str) -> String {
    format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"app\"\nto = \"app\"\n\
         [backend.app]\nservers = {servers:?}\n{tls}\n"
    )
}

/// By its name, which has both families here.
fn named(server: &TestGateway) -> String {
    format!("localhost:{}", server.addr().port())
}

const TLS: &str = "tls = { ca = \"ca.pem\" }";

#[tokio::test]
async fn a_server_shows_who_it_is_and_its_connection_is_kept() {
    let (pki, backend) = (Pki::new(), Backend::echo().await);
    let server = server(&pki.issue(&["localhost"]), backend.addr(), "");
    let gateway = gateway(&[named(&server)], TLS, &pki);
    let client = gateway.client();
    for size in [0, 5, 3 << 20] {
        let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let answer = client.post("/a", body.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body == body, "{size} bytes came back as {}", answer.body.len());
    }
    let host = backend.last().header("host").to_owned();
    assert_eq!(host, gateway.addr().to_string(), "what the client asked for");
    let connects = gateway.metric("vers_upstream_connects_total", &["outcome=\"connected\""]).await;
    assert_eq!(connects, 1.0, "one connection for all of them");
    assert_eq!(server.metric("vers_tls_handshakes_total", &[]).await, 1.0);
}

#[tokio::test]
async fn who_does_not_show_who_it_is_gets_nothing() {
    let (pki, stranger, backend) = (Pki::new(), Pki::new(), Backend::hello().await);
    let own = server(&pki.issue(&["localhost"]), backend.addr(), "");
    let other_name = server(&pki.issue(&["other.test"]), backend.addr(), "");
    let strangers = server(&stranger.issue(&["localhost"]), backend.addr(), "");
    let plain = Backend::hello().await;
    for (address, tls) in [
        (named(&other_name), TLS),
        (named(&strangers), TLS),
        (named(&own), "tls = true"),
        (named(&own), "tls = { ca = \"ca.pem\", name = \"other.test\" }"),
        (plain.addr().to_string(), TLS),
    ] {
        let gateway = gateway(std::slice::from_ref(&address), tls, &pki);
        let answer = gateway.client().get("/").await;
        let said = (answer.status.as_u16(), answer.header("x-gateway-error"));
        assert_eq!(said, (502, "upstream-tls-failed"), "{address} {tls}: {}", answer.text());
    }
    assert_eq!((backend.heard().len(), plain.heard().len()), (0, 0));
    // All of them have the name that is asked for.
    let by_name = gateway(&[named(&other_name)], "tls = { ca = \"ca.pem\", name = \"other.test\" }", &pki);
    assert_eq!(by_name.client().get("/").await.text(), "hello");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_given_up_in_time() {
    let (pki, silent) = (Pki::new(), Backend::silent().await);
    let toml = config(&[silent.addr().to_string()], TLS)
        .replace("to = \"app\"", "to = \"app\"\ntimeouts = { connect = \"200ms\" }");
    let gateway = TestGateway::with_files(&toml, &[("ca.pem", pki.certificate())]);
    let answer = within("an answer", gateway.client().get("/")).await;
    assert_eq!(answer.header("x-gateway-error"), "upstream-connect-timeout", "{}", answer.text());
}

#[tokio::test]
async fn the_next_server_is_tried_and_the_one_without_tls_is_left_alone() {
    let (pki, backend, plain) = (Pki::new(), Backend::hello().await, Backend::hello().await);
    let server = server(&pki.issue(&["localhost"]), backend.addr(), "");
    let gateway = gateway(&[plain.addr().to_string(), named(&server)], TLS, &pki);
    for _ in 0..6 {
        assert_eq!(gateway.client().get("/").await.text(), "hello");
    }
    assert_eq!(plain.connections(), 1, "once, and then it is left alone");
    assert_eq!(plain.heard().len(), 0);
}

#[tokio::test]
async fn http2_is_agreed_on_and_nothing_else_will_do() {
    let (pki, backend) = (Pki::new(), h2c_backend(echo).await);
    let h2 = server(&pki.issue(&["localhost"]), backend.addr(), "protocol = \"h2c\"");
    let gateway = gateway(&[named(&h2)], &format!("{TLS}\nprotocol = \"h2\""), &pki);
    let mut client = Http2::connect(gateway.addr()).await;
    for length in [1, 2 << 20] {
        let body = "x".repeat(length);
        let answer = client.send(client.ask(Method::POST, "/a"), body.clone()).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text() == body);
    }
    let over = h2.metric("vers_requests_total", &[]).await;
    assert_eq!((over, backend.connections()), (2.0, 1));
    assert_eq!(h2.metric("vers_tls_handshakes_total", &[]).await, 1.0, "both over one connection");
    // One that speaks TLS, and says nothing of HTTP/2.
    let pair = pki.issue(&["localhost"]);
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
    let terms =
        rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![gateway_tests::tls::der(&pair.cert)], key);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(terms.expect("a certificate")));
    let older = Backend::tcp(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    })
    .await;
    let server = format!("localhost:{}", older.addr().port());
    let gateway = self::gateway(&[server], &format!("{TLS}\nprotocol = \"h2\""), &pki);
    let answer = gateway.client().get("/").await;
    assert_eq!(answer.header("x-gateway-error"), "upstream-tls-failed", "{}", answer.text());
}

#[tokio::test]
async fn websockets_and_raw_connections_go_over_it() {
    let (pki, echo) = (Pki::new(), Backend::websocket().await);
    let upgrading = server(&pki.issue(&["localhost"]), echo.addr(), "");
    let ws = gateway(&[named(&upgrading)], TLS, &pki);
    let (mut socket, _) =
        within("a WebSocket", tokio_tungstenite::connect_async(format!("ws://{}/", ws.addr())))
            .await
            .expect("it opens");
    for text in ["one", "two"] {
        use futures_util::{SinkExt as _, StreamExt as _};
        socket.send(text.into()).await.expect("it goes");
        let back = within("an echo", socket.next()).await.expect("a message").expect("no error");
        assert_eq!(back.into_text().expect("text").as_str(), text);
    }

    let raw = Backend::tcp_echo().await;
    let pair = pki.issue(&["localhost"]);
    let toml = format!(
        "[[listener]]\naddress = \"[::]:0\"\ntls = true\nprotocol = \"tcp\"\n\
         [[route]]\nprotocol = \"tcp\"\nto = \"{}\"\n{}",
        raw.addr(),
        certificate_table("web")
    );
    let raw = TestGateway::with_files(&toml, &[("web.pem", &pair.cert), ("web-key.pem", &pair.key)]);
    let toml = config(&[named(&raw)], TLS)
        .replace("address = \"[::]:0\"", "address = \"[::]:0\"\nprotocol = \"tcp\"")
        .replace("name = \"app\"", "name = \"app\"\nprotocol = \"tcp\"");
    let tunnel = TestGateway::with_files(&toml, &[("ca.pem", pki.certificate())]);
    let mut client = Raw::connect(tunnel.addr()).await;
    let much = "y".repeat(1 << 20);
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    client.send(&much).await;
    assert!(client.exactly(much.len()).await == much.as_bytes());
    client.finish().await;
    assert_eq!(within("the end", client.to_end()).await, "", "half-close goes through");
}

#[tokio::test]
async fn the_gateway_shows_a_certificate_where_it_is_asked_for_one() {
    let (pki, backend) = (Pki::new(), Backend::hello().await);
    let (pair, own) = (pki.issue(&["localhost"]), pki.issue(&["gateway.test"]));
    let toml = format!(
        "[[listener]]\naddress = \"[::]:0\"\ntls = true\nclient_ca = \"ca.pem\"\n\
         [[route]]\nto = \"{}\"\n{}",
        backend.addr(),
        certificate_table("web")
    );
    let files = [("web.pem", &*pair.cert), ("web-key.pem", &*pair.key), ("ca.pem", pki.certificate())];
    let server = TestGateway::with_files(&toml, &files);
    let nobody = gateway(&[named(&server)], TLS, &pki);
    let refused = nobody.client().get("/").await;
    assert_eq!(refused.status, 502, "{}", refused.text());
    let known = TestGateway::with_files(
        &config(&[named(&server)], "tls = { ca = \"ca.pem\", cert = \"own.pem\", key = \"own-key.pem\" }"),
        &[("ca.pem", pki.certificate()), ("own.pem", &own.cert), ("own-key.pem", &own.key)],
    );
    assert_eq!(known.client().get("/").await.text(), "hello");
}

#[tokio::test]
async fn health_is_asked_over_tls_as_well() {
    let (pki, stranger, backend) = (Pki::new(), Pki::new(), Backend::hello().await);
    let good = server(&pki.issue(&["localhost"]), backend.addr(), "");
    let bad = server(&stranger.issue(&["localhost"]), backend.addr(), "");
    for question in ["path = \"/health\"", "tcp = true"] {
        let health =
            format!("{TLS}\nhealth = {{ {question}, interval = \"50ms\", healthy = 1, unhealthy = 1 }}");
        let gateway = gateway(&[named(&good), named(&bad)], &health, &pki);
        let said = async || {
            let status = gateway.status().await;
            let servers = status["backends"][0]["servers"].as_array().cloned().unwrap_or_default();
            let states: Vec<&str> = servers.iter().filter_map(|it| it["state"].as_str()).collect();
            (states == ["up", "unhealthy"]).then_some(())
        };
        eventually(&format!("what is found out by {question}"), said).await;
    }
}

#[tokio::test]
async fn an_authority_that_changes_is_taken_up_by_a_reload() {
    let (pki, stranger, backend) = (Pki::new(), Pki::new(), Backend::hello().await);
    let server = server(&pki.issue(&["localhost"]), backend.addr(), "");
    let gateway = gateway(&[named(&server)], TLS, &stranger);
    assert_eq!(gateway.client().get("/").await.status, 502);
    gateway_tests::replace(&gateway.folder().join("ca.pem"), pki.certificate());
    gateway.reload().await.expect("a reload");
    let served = async || (gateway.client().get("/").await.text() == "hello").then_some(());
    eventually("that it is believed", served).await;
    // What cannot be used changes nothing.
    gateway_tests::replace(&gateway.folder().join("ca.pem"), "nonsense");
    let refused = gateway.reload().await.expect_err("it is no certificate");
    assert!(refused.text.contains("certificate"), "{refused}");
    assert_eq!(gateway.client().get("/").await.text(), "hello");
}

#[tokio::test]
async fn servers_may_be_asked_for_by_their_own_names() {
    let (one, other) = (Backend::hello().await, Backend::hello().await);
    let servers = [one.addr().to_string(), format!("localhost:{}", other.addr().port())];
    let gateway = TestGateway::start(&config(&servers, "host = \"server\""));
    for body in ["", "some"] {
        for _ in 0..2 {
            let answer = gateway.client().with("host", "public.test").post("/a?b", body).await;
            assert_eq!(answer.status, 200);
        }
    }
    for (backend, name) in [(&one, &servers[0]), (&other, &servers[1])] {
        assert_eq!(backend.heard().len(), 2);
        for heard in backend.heard() {
            assert_eq!((heard.header("host"), heard.uri.to_string().as_str()), (&**name, "/a?b"));
            assert_eq!(heard.header("x-forwarded-host"), "public.test");
        }
    }
    // Where one takes no connection, the other is asked for by its own name.
    let gone = Backend::nobody().await.to_string();
    let gateway = TestGateway::start(&config(&[gone, servers[1].clone()], "host = \"server\""));
    for _ in 0..3 {
        assert_eq!(gateway.client().post("/", "x").await.status, 200);
        assert_eq!(other.last().header("host"), servers[1]);
    }
    let mut raw = Raw::connect(gateway.addr()).await;
    raw.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200"));
    assert_eq!((other.last().header("host"), &*other.last().body), (&*servers[1], &b"abc"[..]));
    within("a stop", gateway.stop(Duration::from_secs(1))).await;
}
