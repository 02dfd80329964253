//! What is agreed on before anything else, and for how long that is tried.

use super::{config, counted, gateway, openssl, start, tcp_route};
use gateway_tests::{
    Backend, Http2, Pki, Raw, TestGateway, certificate_table, dribbling, eventually, tls, within,
};
use rustls::{
    HandshakeKind,
    version::{TLS12, TLS13},
};

#[tokio::test]
async fn several_versions_are_spoken_and_old_ones_are_not() {
    let backend = Backend::hello().await;
    let (gateway, pki) = gateway(backend.addr());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = tls::config(&[pki.certificate()], &[version], None);
        let client = pki.client("app.test").configured(config);
        let stream = client.connect(gateway.addr_of("tls")).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    }
    // TLS 1.1 (RFC 8996): a ClientHello that offers nothing newer.
    let Ok(output) =
        openssl(&["-connect", &gateway.addr_of("tls").to_string(), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"])
            .await
    else {
        return;
    };
    assert!(output.contains("alert") || output.contains("no protocols available"), "{output}");
}

#[tokio::test]
async fn http_1_is_agreed_on() {
    let backend = Backend::hello().await;
    let (gateway, pki) = gateway(backend.addr());
    for (offered, agreed) in [(&["http/1.1"][..], Some(&b"http/1.1"[..])), (&[], None)] {
        let client = pki.client("app.test").offering(offered);
        let stream = client.connect(gateway.addr_of("tls")).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
    }
    // RFC 7301 §3.2.
    let client = pki.client("app.test").offering(&["something/9"]);
    let error = client.connect(gateway.addr_of("tls")).await.expect_err("nothing in common");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn a_raw_tcp_route_speaks_whatever_the_client_does() {
    let backend = Backend::tcp_echo().await;
    let pki = Pki::new();
    let pair = pki.issue(&["db.test"]);
    let gateway = start(&tcp_route(backend.addr()), &[("web", &pair)], false);
    for protocol in ["postgresql", "imap", "http/1.1"] {
        let stream = pki.client("db.test").offering(&["h2", protocol]).connect(gateway.addr()).await;
        assert_eq!(stream.expect("a handshake").get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    }
    // What nobody has registered, and in TLS 1.2, too; what is known comes first all the same.
    for (offered, agreed) in [
        (&["something/9"][..], "something/9"),
        (&["something/9", "another"], "something/9"),
        (&["something/9", "imap"], "imap"),
    ] {
        for versions in [&[&TLS12][..], &[&TLS13]] {
            let client = pki.client("db.test").configured(tls::config(&[pki.certificate()], versions, None));
            let stream = client.offering(offered).connect(gateway.addr()).await.expect("a handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(agreed.as_bytes()));
            let mut raw = gateway_tests::Raw::over(stream);
            raw.send("who are you?").await;
            raw.until("who are you?").await;
        }
    }
    // A proof of a name is none of a backend's (RFC 8737).
    let proof = pki.client("db.test").offering(&["acme-tls/1"]).connect(gateway.addr()).await;
    assert!(proof.expect_err("no proof").to_string().contains("NoApplicationProtocol"));
    // As clients of gRPC do.
    let stream = pki.client("db.test").offering(&["h2"]).connect(gateway.addr()).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut raw = gateway_tests::Raw::over(stream);
    raw.send("PRI * HTTP/2.0\r\n\r\n").await;
    assert_eq!(raw.until("\r\n\r\n").await, "PRI * HTTP/2.0\r\n\r\n", "what it is, is the backend's to say");
}

/// A client that is asked to try again (RFC 8446 §4.1.4) asks for its name twice.
#[tokio::test]
async fn nobody_is_taken_for_the_client_before() {
    let backend = Backend::tcp_echo().await;
    let pki = Pki::new();
    let pair = pki.issue(&["a.test", "b.test"]);
    let toml = format!(
        "[gateway]\nworkers = 1\n[[listener]]\naddress = \"[::]:0\"\ntls = true\n\
         [[route]]\nhost = \"a.test\"\nto = {{ respond = {{ body = \"a\" }} }}\n\
         [[route]]\nhost = \"b.test\"\nprotocol = \"tcp\"\nto = \"{}\"\n\
         [[route]]\nhost = \"c.test\"\nprotocol = \"ssh\"\nto = \"{}\"\n{}",
        backend.addr(),
        backend.addr(),
        certificate_table("web")
    );
    let gateway = start(&toml, &[("web", &pair)], false);
    let address = gateway.addr().to_string();
    let Ok(output) =
        openssl(&["-connect", &address, "-servername", "a.test", "-groups", "P-521:X25519"]).await
    else {
        return;
    };
    assert!(output.contains("X25519"), "it was asked to try again: {output}");
    for name in ["b.test", "a.test", "b.test"] {
        // Its hello takes more than one read.
        let through = dribbling(gateway.addr()).await;
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(pki.client(name).config));
        let name = rustls::pki_types::ServerName::try_from(name).expect("a name");
        let stream = within("a handshake", connector.connect(name.clone(), through)).await;
        let mut client = Raw::over(stream.expect("a handshake"));
        client.send("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await;
        let expected = if name.to_str() == "b.test" { "GET / HTTP/1.1" } else { "HTTP/1.1 200 OK" };
        client.until(expected).await;
    }
}

#[tokio::test]
async fn http_on_a_tls_port_is_told_so() {
    let backend = Backend::hello().await;
    let (gateway, _) = gateway(backend.addr());
    let mut client = Raw::connect(gateway.addr_of("tls")).await;
    client.send("GET / HTTP/1.1\r\nhost: app.test\r\n\r\n").await;
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.contains("x-gateway-error: not-tls") && body.contains("speaks TLS"), "{answer}");
    assert!(
        head.contains(&format!("content-length: {}\r\n", body.len()))
            || head.ends_with(&format!("content-length: {}", body.len())),
        "{answer}"
    );
    assert!(backend.heard().is_empty());
    counted(&gateway, "not-tls", 1.0).await;
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let backend = Backend::hello().await;
    let pki = Pki::new();
    let pair = pki.issue(&["app.test"]);
    let toml = config(backend.addr(), &certificate_table("web")).replacen(
        "tls = true",
        "tls = true\ntimeouts = { handshake = \"200ms\" }",
        1,
    );
    let gateway = TestGateway::with_files(&toml, &[("web.pem", &pair.cert), ("web-key.pem", &pair.key)]);
    // Nothing at all, and the beginning of a ClientHello.
    for begun in [&b""[..], &b"\x16\x03\x01\x02\x00\x01"[..]] {
        let mut client = Raw::connect(gateway.addr_of("tls")).await;
        client.send(begun).await;
        assert_eq!(client.to_end().await, "");
    }
    counted(&gateway, "late", 2.0).await;
}

#[tokio::test]
async fn handshakes_that_stall_hold_nobody_up_and_are_not_endless() {
    let backend = Backend::hello().await;
    let pki = Pki::new();
    let pair = pki.issue(&["app.test"]);
    let toml = config(backend.addr(), &certificate_table("web"));
    let gateway = start(&toml, &[("web", &pair)], false);
    let address = gateway.addr_of("tls");
    let mut stalled = Vec::new();
    for _ in 0..1000 {
        let mut client = Raw::connect(address).await;
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
        stalled.push(client);
    }
    let mut client = pki.client("app.test").raw(address).await;
    client.send("GET / HTTP/1.1\r\nhost: app.test\r\n\r\n").await;
    client.until("hello").await;
    // The limit itself, on a gateway where it is small.
    let toml = format!("{toml}[limits]\nhandshakes = 2\n");
    let gateway = start(&toml, &[("web", &pair)], false);
    let address = gateway.addr_of("tls");
    let (first, _second) = (Raw::connect(address).await, Raw::connect(address).await);
    assert_eq!(Raw::connect(address).await.to_end().await, "", "a third is closed");
    counted(&gateway, "busy", 1.0).await;
    drop(first);
    eventually("room for another", async || pki.client("app.test").connect(address).await.ok().map(drop))
        .await;
    drop(stalled);
}

#[tokio::test]
async fn sessions_go_on_whichever_worker_a_client_comes_to() {
    let backend = Backend::hello().await;
    let pki = Pki::new();
    let pair = pki.issue(&["app.test"]);
    let toml = format!("{}[gateway]\nworkers = 4\n", config(backend.addr(), &certificate_table("web")));
    let gateway = start(&toml, &[("web", &pair)], false);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = tls::config(&[pki.certificate()], &[version], None);
        let client = pki.client("app.test").configured(config);
        for times in 0..12 {
            if times == 6 {
                // The keys survive a reload.
                gateway.write(&format!("{toml}shutdown_grace = \"1{}s\"\n", u16::from(version.version)));
                gateway.reload().await.expect("a reload");
            }
            let mut raw = client.raw(gateway.addr_of("tls")).await;
            raw.send("GET / HTTP/1.1\r\nhost: app.test\r\n\r\n").await;
            raw.until("hello").await;
            let kind = raw.stream.get_ref().1.handshake_kind();
            let expected = if times == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(kind, Some(expected), "{:?}, time {times}", version.version);
        }
    }
    counted(&gateway, "full", 2.0).await;
    counted(&gateway, "resumed", 22.0).await;
}

#[tokio::test]
async fn http2_is_agreed_on_where_the_client_has_it() {
    let backend = Backend::hello().await;
    let (gateway, pki) = gateway(backend.addr());
    for (offer, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = pki.client("app.test").offering(offer).connect(gateway.addr_of("tls")).await;
        let stream = stream.expect("a connection");
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes), "{offer:?}");
        if agreed != Some("h2") {
            let mut raw = Raw::over(stream);
            raw.send("GET / HTTP/1.1\r\nhost: app.test\r\n\r\n").await;
            assert!(raw.head().await.starts_with("HTTP/1.1 200 "), "{offer:?}");
            continue;
        }
        let mut client = Http2::over(stream, "app.test".to_owned(), &h2::client::Builder::new()).await;
        let answer = client.send(client.get("/"), "").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "hello"));
        let heard = backend.last();
        assert_eq!((heard.header("x-forwarded-proto"), heard.header("host")), ("https", "app.test"));
    }
}
