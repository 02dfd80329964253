//! TLS towards clients: certificates, handshakes, and what goes over them.

use gateway_tests::{
    Backend, Pair, Pki, Raw, TestGateway, TlsClient, certificate_table, eventually, replace, tls, within,
};
use http::Response;
use http_body_util::Full;
use rustls::HandshakeKind;
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

/// Files of these pairs, as [`TestGateway::with_files`] takes them.
fn files_of<'a>(pairs: &'a [(&str, &'a Pair)]) -> Vec<(String, &'a str)> {
    let files = pairs.iter().flat_map(|(name, pair)| {
        [(format!("{name}.pem"), pair.cert.as_str()), (format!("{name}-key.pem"), pair.key.as_str())]
    });
    files.collect()
}

fn start(toml: &str, pairs: &[(&str, &Pair)], watch: bool) -> TestGateway {
    let files = files_of(pairs);
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    TestGateway::prepared(toml, watch, &files).expect("the gateway starts")
}

#[tokio::test]
async fn changed_files_are_taken_over_and_connections_stay() {
    let backend = Backend::hello().await;
    let pki = Pki::new();
    let (first, second) = (pki.issue(&["app.test"]), pki.issue(&["app.test"]));
    let toml = config(backend.addr(), &certificate_table("web"));
    let gateway = start(&toml, &[("web", &first)], true);
    let client = pki.client("app.test");
    let address = gateway.addr_of("tls");
    let mut open = client.raw(address).await;
    assert_eq!(tls::shown(&open.stream), tls::der(&first.cert));
    // The certificate without its key: half of a renewal.
    replace(&gateway.folder().join("web.pem"), &second.cert);
    eventually("the mismatch to be told", async || {
        (gateway.metric("vers_certificate_problem", &["certificate=\"web\""]).await == 1.0).then_some(())
    })
    .await;
    let status = gateway.status().await;
    let problem = status["certificates"][0]["problem"].as_str().expect("a problem").to_owned();
    assert!(problem.contains("another certificate"), "{problem}");
    assert_eq!(status["last_reload"]["error"], serde_json::Value::Null, "the rest was taken over");
    let still = client.connect(address).await.expect("a handshake");
    assert_eq!(tls::shown(&still), tls::der(&first.cert));
    // The other half.
    replace(&gateway.folder().join("web-key.pem"), &second.key);
    eventually("the new certificate", async || {
        let stream = client.connect(address).await.expect("a handshake");
        (tls::shown(&stream) == tls::der(&second.cert)).then_some(())
    })
    .await;
    eventually("the problem to be over", async || {
        (gateway.metric("vers_certificate_problem", &[]).await == 0.0).then_some(())
    })
    .await;
    open.send("GET / HTTP/1.1\r\nhost: app.test\r\n\r\n").await;
    open.until("hello").await;
}

#[tokio::test]
async fn a_wrong_path_is_an_error_of_the_configuration() {
    let backend = Backend::hello().await;
    let pki = Pki::new();
    let pair = pki.issue(&["app.test"]);
    let toml = config(backend.addr(), &certificate_table("web"));
    let gateway = start(&toml, &[("web", &pair)], false);
    gateway.write(&toml.replace("web-key.pem", "wbe-key.pem"));
    let refused = gateway.reload().await.expect_err("no such file");
    assert!(refused.text.contains("wbe-key.pem") && refused.text.contains("gateway.toml:"), "{refused}");
    assert!(pki.client("app.test").connect(gateway.addr_of("tls")).await.is_ok());
}

#[tokio::test]
async fn what_is_wrong_with_files_is_said() {
    let backend = Backend::hello().await;
    let pki = Pki::new();
    let (pair, other) = (pki.issue(&["app.test"]), pki.issue(&["app.test"]));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (cert, key, said) in [
        (pair.cert.as_str(), other.key.as_str(), "the private key belongs to another certificate"),
        (&pair.key, &pair.key, "it holds no certificate"),
        (&pair.cert, &pair.cert, "it holds no private key"),
        (&pair.cert, encrypted, "its private key is encrypted"),
        (broken, &pair.key, "the certificate cannot be read"),
        ("-----BEGIN CERTIFICATE-----\n", &pair.key, "it is no PEM file"),
    ] {
        let toml = config(backend.addr(), &certificate_table("web"));
        let files = [("web.pem", cert), ("web-key.pem", key)];
        let error = TestGateway::prepared(&toml, false, &files).expect_err(said).to_string();
        assert!(error.contains(said) && error.contains("certificate `web`"), "{error}");
    }
    // One file may hold both.
    let both = format!("{}{}", pair.key, pair.cert);
    let toml = config(backend.addr(), "[certificate.web]\ncert = \"both.pem\"\n");
    let gateway = TestGateway::with_files(&toml, &[("both.pem", &both)]);
    assert!(pki.client("app.test").connect(gateway.addr_of("tls")).await.is_ok());
}

#[tokio::test]
async fn an_expired_certificate_is_told_and_still_shown() {
    let backend = Backend::hello().await;
    let pki = Pki::new();
    let pair = pki.issue_with(&["app.test"], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 2, 1);
    });
    let toml = config(backend.addr(), &certificate_table("web"));
    let gateway = start(&toml, &[("web", &pair)], false);
    let expiry = gateway.metric("vers_certificate_expiry_timestamp_seconds", &["certificate=\"web\""]).await;
    assert_eq!(expiry, 980_985_600.0);
    assert_eq!(gateway.status().await["certificates"][0]["expired"], true);
    let error = pki.client("app.test").connect(gateway.addr_of("tls")).await.expect_err("too old");
    assert!(error.to_string().contains("Expired") || error.to_string().contains("expired"), "{error}");
    let path = gateway.folder().join("gateway.toml");
    let checking = tokio::task::spawn_blocking(move || vers_gateway::server::check(&path, false));
    let checked = within("a check", checking).await.expect("an end").expect("no error");
    assert!(checked.warnings.contains("expired on 2001-02-01"), "{}", checked.warnings);
}

#[tokio::test]
async fn each_client_is_shown_what_it_understands() {
    let backend = Backend::hello().await;
    let pki = Pki::new();
    let kinds = [
        ("ecdsa", &rcgen::PKCS_ECDSA_P256_SHA256, "ECDSA+SHA256"),
        ("rsa", &rcgen::PKCS_RSA_SHA256, "RSA-PSS+SHA256"),
        ("ed", &rcgen::PKCS_ED25519, "ed25519"),
    ];
    let pairs = kinds.map(|(name, kind, _)| (name, pki.issue_with(&["app.test"], kind, |_| {})));
    let pairs: Vec<(&str, &Pair)> = pairs.iter().map(|(name, pair)| (*name, pair)).collect();
    // RSA stands first, and counts least.
    let tables: String = ["rsa", "ed", "ecdsa"].map(certificate_table).concat();
    let gateway = start(&config(backend.addr(), &tables), &pairs, false);
    let address = gateway.addr_of("tls");
    let stream = pki.client("app.test").connect(address).await.expect("a handshake");
    assert_eq!(tls::shown(&stream), tls::der(&pairs[0].1.cert));
    for (name, _, algorithms) in kinds {
        for server_name in [&["-servername", "app.test"][..], &["-noservername"]] {
            let address = address.to_string();
            let arguments = [&["-connect", &address, "-sigalgs", algorithms], server_name].concat();
            let Ok(output) = openssl(&arguments).await else { return };
            let pair = pairs.iter().find(|(known, _)| *known == name).expect("a pair").1;
            assert!(
                output.replace('\n', "").contains(&pair.cert.replace(['\r', '\n'], "")),
                "{name}: {output}"
            );
        }
    }
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
async fn a_client_shows_who_it_is_and_nobody_else_does() {
    let backend = Backend::hello().await;
    let (pki, clients, strangers) = (Pki::new(), Pki::new(), Pki::new());
    let pair = pki.issue(&["app.test"]);
    let identify = |pki: &Pki| {
        pki.issue_with(&["worker.test"], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
            params.distinguished_name.push(rcgen::DnType::CommonName, "worker \"7\"");
        })
    };
    let (identity, stranger) = (identify(&clients), identify(&strangers));
    let listener = |auth: &str| {
        config(backend.addr(), &certificate_table("web")).replacen(
            "tls = true",
            &format!("tls = true\nclient_ca = \"clients.pem\"\nclient_auth = \"{auth}\""),
            1,
        )
    };
    let files =
        [("web.pem", pair.cert.as_str()), ("web-key.pem", &pair.key), ("clients.pem", clients.certificate())];
    let gateway = TestGateway::with_files(&listener("optional"), &files);
    let client = |identity: Option<&Pair>| {
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        pki.client("app.test").configured(tls::config(&[pki.certificate()], &versions, identity))
    };
    let forged = "client-cert: :AAAA:\r\nClient_Cert: :AAAA:\r\nclient-cert-chain: :AAAA:\r\n\
                  x-forwarded-client-cert: Hash=1\r\nx_forwarded_client_cert: Hash=1\r\n";
    let request = format!("GET / HTTP/1.1\r\nhost: app.test\r\n{forged}\r\n");
    let (known, unknown) = (client(Some(&identity)), client(None));
    // The second time by its session.
    for _ in 0..2 {
        let mut raw = known.raw(gateway.addr_of("tls")).await;
        raw.send(&request).await;
        raw.until("hello").await;
        let heard = backend.last();
        let expected = data_encoding::BASE64.encode(&tls::der(&identity.cert));
        assert_eq!(heard.header("client-cert"), format!(":{expected}:"));
        let told = heard.header("x-forwarded-client-cert");
        assert!(
            told.contains(";Subject=\"CN=worker \\\"7\\\"\"") && told.ends_with(";DNS=\"worker.test\""),
            "{told}"
        );
        for name in ["client_cert", "client-cert-chain", "x_forwarded_client_cert"] {
            assert_eq!(heard.header(name), "", "{name}");
        }
        assert_eq!(heard.headers.get_all("client-cert").iter().count(), 1);
    }
    counted(&gateway, "resumed", 1.0).await;
    let mut raw = unknown.raw(gateway.addr_of("tls")).await;
    raw.send(&request).await;
    raw.until("hello").await;
    let names = [
        "client-cert",
        "client_cert",
        "client-cert-chain",
        "x-forwarded-client-cert",
        "x_forwarded_client_cert",
    ];
    for name in names {
        assert_eq!(backend.last().header(name), "", "{name}");
    }
    let heard = backend.heard().len();
    let refused = async |client: &TlsClient| {
        // In TLS 1.3 a client learns it only after its own last word.
        let Ok(stream) = client.connect(gateway.addr_of("tls")).await else { return };
        let mut raw = Raw::over(stream);
        raw.send(&request).await;
        assert_eq!(raw.to_end().await, "");
    };
    refused(&client(Some(&stranger))).await;
    // A session of a listener that let everybody in opens no other.
    gateway.write(&listener("required"));
    gateway.reload().await.expect("a reload");
    refused(&unknown).await;
    refused(&client(None)).await;
    counted(&gateway, "client-certificate", 3.0).await;
    assert_eq!(backend.heard().len(), heard, "nothing of them was passed on");
    let mut raw = known.raw(gateway.addr_of("tls")).await;
    raw.send(&request).await;
    raw.until("hello").await;
}

#[tokio::test]
async fn a_raw_tcp_route_speaks_whatever_is_registered() {
    let backend = Backend::tcp_echo().await;
    let pki = Pki::new();
    let pair = pki.issue(&["db.test"]);
    let toml = format!(
        "[[listener]]\naddress = \"[::]:0\"\ntls = true\n\
         [[route]]\nname = \"db\"\nprotocol = \"tcp\"\nto = \"{}\"\n{}",
        backend.addr(),
        certificate_table("web")
    );
    let gateway = start(&toml, &[("web", &pair)], false);
    for protocol in ["postgresql", "imap", "http/1.1"] {
        let stream = pki.client("db.test").offering(&["h2", protocol]).connect(gateway.addr()).await;
        assert_eq!(stream.expect("a handshake").get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    }
}

#[tokio::test]
async fn an_ocsp_response_is_shown_along() {
    let backend = Backend::hello().await;
    let pki = Pki::new();
    let pair = pki.issue(&["app.test"]);
    // An OCSP response that says only that it is none (RFC 6960 §4.2.1: `tryLater`).
    let response = "\u{30}\u{3}\u{a}\u{1}\u{3}";
    let toml = config(backend.addr(), &format!("{}ocsp = \"response.der\"\n", certificate_table("web")));
    let files = [("web.pem", pair.cert.as_str()), ("web-key.pem", &pair.key), ("response.der", response)];
    let gateway = TestGateway::with_files(&toml, &files);
    let address = gateway.addr_of("tls").to_string();
    let Ok(output) = openssl(&["-connect", &address, "-servername", "app.test", "-status"]).await else {
        return;
    };
    assert!(output.contains("OCSP Response Status: trylater (0x3)"), "{output}");
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
async fn an_end_that_is_not_told_is_no_end() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let pki = Pki::new();
    let pair = pki.issue(&["db.test"]);
    let toml = format!(
        "[[listener]]\naddress = \"[::]:0\"\ntls = true\n\
         [[route]]\nname = \"db\"\nprotocol = \"tcp\"\nto = \"{}\"\n{}",
        backend.addr(),
        certificate_table("web")
    );
    let gateway = start(&toml, &[("web", &pair)], false);
    let mut client = pki.client("db.test").raw(gateway.addr()).await;
    client.send("half of it").await;
    let mut visitor = visitors.next().await;
    visitor.until("half of it").await;
    // Somebody between them closes the socket.
    let (socket, _) = client.stream.into_inner();
    drop(socket);
    let mut rest = Vec::new();
    let end = within("the end", visitor.stream.read_to_end(&mut rest)).await;
    assert!(end.is_err(), "the backend took it for an orderly end");
}

#[tokio::test]
async fn large_answers_wait_for_slow_readers() {
    let size = 8 << 20;
    let backend = Backend::http(move |_| Response::new(Full::new(vec![b'x'; size].into()))).await;
    let (gateway, pki) = gateway(backend.addr());
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = pki.client("app.test").raw(gateway.addr_of("tls")).await;
        client.send("GET / HTTP/1.1\r\nhost: app.test\r\n\r\n").await;
        clients.push(client);
    }
    for client in &mut clients {
        client.head().await;
        assert_eq!(client.skip(size).await, size);
        client.send("GET / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n").await;
        assert!(client.to_end().await.ends_with("xxx"));
    }
}
