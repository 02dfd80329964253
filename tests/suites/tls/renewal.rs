//! Certificates that change while they are shown.

use super::{config, start};
use gateway_tests::{Backend, Pki, certificate_table, eventually, replace, tls};

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
