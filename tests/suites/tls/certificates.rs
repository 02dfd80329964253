//! Which certificate is shown to whom, and what is said of those that cannot be.

use super::{config, counted, openssl, run, start};
use gateway_tests::{Backend, Pair, Pki, TestGateway, TlsClient, certificate_table, tls, within};

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

/// Makes OCSP responses about a certificate, as its authority does.
async fn responses(folder: &std::path::Path, pki: &Pki, pair: &Pair) -> std::io::Result<()> {
    let at = |name: &str| folder.join(name).display().to_string();
    for (name, text) in [("ca.pem", pki.certificate()), ("ca-key.pem", &pki.key()), ("own.pem", &pair.cert)] {
        std::fs::write(folder.join(name), text)?;
    }
    for (name, line) in [
        ("good", "V\t400101000000Z\t\t0342\tunknown\t/CN=a\n"),
        ("revoked", "R\t400101000000Z\t200101000000Z\t0342\tunknown\t/CN=a\n"),
    ] {
        std::fs::write(folder.join("index"), line)?;
        let [index, ca, key, own, out] =
            ["index", "ca.pem", "ca-key.pem", "own.pem", &format!("{name}.der")].map(at);
        let arguments = ["-index", &index, "-rsigner", &ca, "-rkey", &key, "-CA", &ca, "-issuer", &ca];
        let more = ["-cert", &own, "-respout", &out, "-ndays", "30"];
        run("openssl", &[&["ocsp"][..], &arguments, &more].concat()).await?;
    }
    // The time of the next one, which openssl does not put into the past.
    let mut old = std::fs::read(folder.join("good.der"))?;
    let next = old.windows(4).position(|four| four == b"\xa0\x11\x18\x0f").expect("the next one's time");
    old.splice(next + 4..next + 19, *b"20010101000000Z");
    std::fs::write(folder.join("old.der"), old)?;
    Ok(())
}

#[tokio::test]
async fn an_ocsp_response_is_shown_where_it_is_one() {
    let backend = Backend::hello().await;
    let pki = Pki::new();
    let with_serial = |serial: u16| {
        pki.issue_with(&["app.test"], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
            params.serial_number = Some(rcgen::SerialNumber::from(serial.to_be_bytes().to_vec()));
        })
    };
    let (pair, other) = (with_serial(0x0342), with_serial(0x0343));
    let folder = tempfile::tempdir().expect("a folder");
    if responses(folder.path(), &pki, &pair).await.is_err() {
        return;
    }
    // An answer that says only that it is none (RFC 6960 §4.2.1: `tryLater`).
    std::fs::write(folder.path().join("later.der"), b"\x30\x03\x0a\x01\x03").expect("a file");
    std::fs::write(folder.path().join("nonsense.der"), "-----BEGIN OCSP RESPONSE-----").expect("a file");
    let (good, revoked) = ("Cert Status: good", "Cert Status: revoked");
    for (pair, file, shown, told) in [
        (&pair, "good", Some(good), "shown"),
        (&pair, "old", None, "it has expired on 20"),
        (&pair, "revoked", Some(revoked), "it says that the certificate is revoked"),
        (&pair, "later", None, "it holds no answer, but the error tryLater"),
        (&pair, "nonsense", None, "it is no OCSP response in DER"),
        (&other, "good", None, "it is about another certificate"),
    ] {
        let ocsp = format!("ocsp = {:?}\n", folder.path().join(format!("{file}.der")));
        let toml = config(backend.addr(), &format!("{}{ocsp}", certificate_table("web")));
        let gateway =
            TestGateway::with_files(&toml, &[("web.pem", pair.cert.as_str()), ("web-key.pem", &pair.key)]);
        let address = gateway.addr_of("tls").to_string();
        let Ok(output) = openssl(&["-connect", &address, "-servername", "app.test", "-status"]).await else {
            return;
        };
        match shown {
            Some(shown) => assert!(output.contains(shown), "{file}: {output}"),
            None => assert!(output.contains("OCSP response: no response sent"), "{file}: {output}"),
        }
        let status = gateway.status().await;
        let said = status["certificates"][0]["ocsp"].as_str().unwrap_or_default();
        assert!(said.starts_with(told), "{file}: {status}");
        let path = gateway.folder().join("gateway.toml");
        let checking = tokio::task::spawn_blocking(move || vers_gateway::server::check(&path, false));
        let checked = within("a check", checking).await.expect("an end").expect("no error");
        assert_eq!(checked.warnings.contains(told), told != "shown", "{file}: {}", checked.warnings);
    }
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
