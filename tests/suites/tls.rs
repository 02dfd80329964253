//! TLS towards clients: certificates, handshakes, and what goes over them.

use gateway_tests::{
    Backend, Http2, Pki, Raw, TestGateway, TlsClient, certificate_table, eventually, tls, within,
};
use std::net::SocketAddr;
use tokio::{io::AsyncReadExt as _, process::Command};

/// A TLS listener and a plain one, and a route, `app`, on both of them.
fn config(backend: SocketAddr, more: &str) -> String {
    format!(
        "[[listener]]\nname = \"tls\"\naddress = \"[::]:0\"\ntls = true\n\
         [[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"app\"\nto = \"{backend}\"\n{more}\n"
    )
}

/// A gateway with one certificate, for `app.test` and one label below it, and the authority of that.
fn gateway(backend: SocketAddr) -> (TestGateway, Pki) {
    let pki = Pki::new();
    let pair = pki.issue(&["app.test", "*.app.test"]);
    let toml = config(backend, &certificate_table("web"));
    (TestGateway::with_files(&toml, &[("web.pem", &pair.cert), ("web-key.pem", &pair.key)]), pki)
}

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
async fn the_end_of_an_answer_is_told_and_a_broken_one_is_not() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let (gateway, pki) = gateway(backend.addr());
    for is_whole in [true, false] {
        let mut client = pki.client("app.test").raw(gateway.addr_of("tls")).await;
        client.send("GET / HTTP/1.0\r\nhost: app.test\r\n\r\n").await;
        let mut visitor = visitors.next().await;
        visitor.head().await;
        visitor.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
        client.until("half").await;
        if is_whole {
            visitor.send("0\r\n\r\n").await;
        }
        drop(visitor);
        let mut rest = Vec::new();
        let end = within("the end", client.stream.read_to_end(&mut rest)).await;
        assert_eq!(end.is_ok(), is_whole, "{end:?}");
    }
}

#[tokio::test]
async fn certificates_are_chosen_by_name() {
    let backend = Backend::hello().await;
    let pki = Pki::new();
    let names = [("first", "a.test"), ("second", "*.b.test"), ("third", "exact.b.test")];
    let pairs = names.map(|(table, name)| (table, pki.issue(&[name])));
    let tables: String = names.iter().map(|(table, _)| certificate_table(table)).collect();
    let files: Vec<(String, &str)> = pairs
        .iter()
        .flat_map(|(table, pair)| {
            [(format!("{table}.pem"), pair.cert.as_str()), (format!("{table}-key.pem"), pair.key.as_str())]
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let toml = config(backend.addr(), &tables);
    let gateway = TestGateway::with_files(&toml, &files);
    for (name, table) in
        [("a.test", "first"), ("x.b.test", "second"), ("exact.b.test", "third"), ("EXACT.b.test", "third")]
    {
        let stream = pki.client(name).connect(gateway.addr_of("tls")).await.expect("a handshake");
        let pair = &pairs.iter().find(|(known, _)| *known == table).expect("a pair").1;
        assert_eq!(tls::shown(&stream), tls::der(&pair.cert), "{name}");
    }
    // Whoever asks for another name, or for none, is shown the first.
    for name in ["unknown.test", "b.test", "x.y.b.test"] {
        let error = pki.client(name).connect(gateway.addr_of("tls")).await.expect_err("the wrong name");
        assert!(error.to_string().contains("a.test"), "{name}: {error}");
    }
    let error = pki.client("127.0.0.1").connect(gateway.addr_of("tls")).await.expect_err("no name");
    assert!(error.to_string().contains("a.test"), "{error}");
    // Without a default they are told that there is nothing for them.
    let without: String = tables
        .lines()
        .map(|line| match line.starts_with('[') {
            true => format!("{line}\ndefault = false\n"),
            false => format!("{line}\n"),
        })
        .collect();
    gateway.write(&config(backend.addr(), &without));
    gateway.reload().await.expect("a reload");
    for name in ["unknown.test", "127.0.0.1"] {
        let error = pki.client(name).connect(gateway.addr_of("tls")).await.expect_err("no certificate");
        assert!(error.to_string().contains("UnrecognisedName"), "{name}: {error}");
    }
    assert!(pki.client("x.b.test").connect(gateway.addr_of("tls")).await.is_ok());
    counted(&gateway, "unknown-name", 2.0).await;
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
async fn a_raw_tcp_route_over_tls_passes_half_closes_on() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let pki = Pki::new();
    let pair = pki.issue(&["db.test"]);
    let toml = format!(
        "[[listener]]\naddress = \"[::]:0\"\ntls = true\n\
         [[route]]\nname = \"db\"\nprotocol = \"tcp\"\nto = \"{}\"\n{}",
        backend.addr(),
        certificate_table("web")
    );
    let gateway = TestGateway::with_files(&toml, &[("web.pem", &pair.cert), ("web-key.pem", &pair.key)]);
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
async fn curl_trusts_the_authority_that_is_kept() {
    let backend = Backend::hello().await;
    let toml = config(backend.addr(), "[certificate.dev]\nself_signed = true\n")
        .replace("name = \"app\"", "name = \"app\"\nhost = \"{vm}.vm.test\"");
    let gateway = TestGateway::start(&toml);
    let authority = gateway.folder().join("state/authority/ca.pem");
    let first = tls::text_of(&authority);
    let port = gateway.addr_of("tls").port();
    let url = format!("https://abc.vm.test:{port}/");
    let resolve = format!("abc.vm.test:{port}:[::1]");
    let path = authority.display().to_string();
    let curl = ["-sS", "--cacert", &path, "--resolve", &resolve, &url];
    if let Ok(output) = run("curl", &curl).await {
        assert_eq!(output, "hello");
    }
    // The next start has the same authority, and so has a client of our own.
    let (folder, toml) = (gateway.folder(), toml.clone());
    let state = format!("[gateway]\nworkers = 1\nstate_dir = \"{}\"\n", folder.join("state").display());
    let again = TestGateway::start(&format!("{toml}{state}"));
    assert_eq!(tls::text_of(&authority), first);
    for gateway in [&gateway, &again] {
        let mut client = TlsClient::new("abc.vm.test", &[&first]).raw(gateway.addr_of("tls")).await;
        client.send("GET / HTTP/1.1\r\nhost: abc.vm.test\r\n\r\n").await;
        client.until("hello").await;
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(folder.join("state/authority/ca-key.pem")).expect("the key").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600, "only the gateway reads its keys");
}

/// Waits until so many handshakes have ended so.
async fn counted(gateway: &TestGateway, outcome: &str, times: f64) {
    let label = format!("outcome=\"{outcome}\"");
    eventually(&format!("{times} times {outcome}"), async || {
        (gateway.metric("vers_tls_handshakes_total", &[&label]).await == times).then_some(())
    })
    .await;
}

/// What a program printed on both streams; an error where there is no such program here.
async fn run(program: &str, arguments: &[&str]) -> std::io::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let result = within(program, command.output()).await;
    if let Err(error) = &result {
        assert!(std::env::var_os("CI").is_none(), "{program} is needed where CI is set: {error}");
        eprintln!("not tested: there is no {program} on this machine");
    }
    let output = result?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

async fn openssl(arguments: &[&str]) -> std::io::Result<String> {
    run("openssl", &[&["s_client"], arguments].concat()).await
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

#[tokio::test]
async fn a_raw_connection_agrees_on_no_http2() {
    let echo = Backend::tcp_echo().await;
    let pki = Pki::new();
    let pair = pki.issue(&["app.test"]);
    let toml = format!(
        "[[listener]]\nname = \"tls\"\naddress = \"[::]:0\"\ntls = true\nprotocol = \"tcp\"\n\
         [[route]]\nprotocol = \"tcp\"\nto = \"{}\"\n{}",
        echo.addr(),
        certificate_table("web")
    );
    let files = [("web.pem", &*pair.cert), ("web-key.pem", &*pair.key)];
    let gateway = TestGateway::with_files(&toml, &files);
    let client = pki.client("app.test").offering(&["h2", "http/1.1"]);
    let stream = client.connect(gateway.addr_of("tls")).await.expect("a connection");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}
