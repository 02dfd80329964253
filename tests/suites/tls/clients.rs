//! Certificates of clients: who must show one, and who learns what it says.

use super::{config, counted};
use gateway_tests::{Backend, Pair, Pki, Raw, TestGateway, TlsClient, certificate_table, tls};

/// What a client may send to be taken for another.
const FORGED: [&str; 5] =
    ["client-cert", "client_cert", "client-cert-chain", "x-forwarded-client-cert", "x_forwarded_client_cert"];

/// A listener that asks for certificates of one authority.
struct Scene {
    backend: Backend,
    gateway: TestGateway,
    /// Of the gateway's own certificate.
    pki: Pki,
    /// Whose certificates count.
    clients: Pki,
}

impl Scene {
    async fn new(auth: &str) -> Self {
        let backend = Backend::hello().await;
        let (pki, clients) = (Pki::new(), Pki::new());
        let pair = pki.issue(&["app.test"]);
        let files = [
            ("web.pem", pair.cert.as_str()),
            ("web-key.pem", &pair.key),
            ("clients.pem", clients.certificate()),
        ];
        let gateway = TestGateway::with_files(&Self::toml(&backend, auth), &files);
        Self { backend, gateway, pki, clients }
    }

    fn toml(backend: &Backend, auth: &str) -> String {
        let keys = format!("tls = true\nclient_ca = \"clients.pem\"\nclient_auth = \"{auth}\"");
        config(backend.addr(), &certificate_table("web")).replacen("tls = true", &keys, 1)
    }

    fn client(&self, identity: Option<&Pair>) -> TlsClient {
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let config = tls::config(&[self.pki.certificate()], &versions, identity);
        self.pki.client("app.test").configured(config)
    }

    /// Asks, with all that a liar would say; false where the gateway does not let the client in.
    async fn is_let_in(&self, client: &TlsClient) -> bool {
        let forged: String = FORGED.map(|name| format!("{name}: Hash=1\r\n")).concat();
        // In TLS 1.3 a client learns only after its own last word that it is not let in.
        let Ok(stream) = client.connect(self.gateway.addr_of("tls")).await else { return false };
        let mut raw = Raw::over(stream);
        let request = format!("GET / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n{forged}\r\n");
        // Nor need it be able to send all of that.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, request.as_bytes()).await;
        raw.to_end().await.ends_with("hello")
    }
}

/// A certificate of this authority for a client.
fn identity(authority: &Pki) -> Pair {
    authority.issue_with(&["worker.test"], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "worker \"7\"");
    })
}

#[tokio::test]
async fn a_client_shows_who_it_is_and_nobody_else_says_so() {
    let scene = Scene::new("optional").await;
    let identity = identity(&scene.clients);
    let expected = format!(":{}:", data_encoding::BASE64.encode(&tls::der(&identity.cert)));
    let client = scene.client(Some(&identity));
    // The second time by its session.
    for _ in 0..2 {
        assert!(scene.is_let_in(&client).await);
        let heard = scene.backend.last();
        let all: Vec<_> = heard.headers.get_all("client-cert").iter().collect();
        assert_eq!(all, [expected.as_str()]);
        let told = heard.header("x-forwarded-client-cert");
        assert!(told.starts_with("Hash=") && told.contains(";Subject=\"CN=worker \\\"7\\\"\""), "{told}");
        assert!(told.ends_with(";DNS=\"worker.test\""), "{told}");
        for name in ["client_cert", "client-cert-chain", "x_forwarded_client_cert"] {
            assert_eq!(heard.header(name), "", "{name}");
        }
    }
    counted(&scene.gateway, "resumed", 1.0).await;
    assert!(scene.is_let_in(&scene.client(None)).await);
    for name in FORGED {
        assert_eq!(scene.backend.last().header(name), "", "{name}");
    }
}

#[tokio::test]
async fn strangers_are_not_let_in() {
    let scene = Scene::new("optional").await;
    let stranger = identity(&Pki::new());
    assert!(!scene.is_let_in(&scene.client(Some(&stranger))).await, "another authority's");
    counted(&scene.gateway, "client-certificate", 1.0).await;
    let nobody = scene.client(None);
    assert!(scene.is_let_in(&nobody).await, "none is needed");
    // A session of a listener that let everybody in opens no other.
    scene.gateway.write(&Scene::toml(&scene.backend, "required"));
    scene.gateway.reload().await.expect("a reload");
    assert!(!scene.is_let_in(&nobody).await, "a session from before");
    assert!(!scene.is_let_in(&scene.client(None)).await, "no certificate");
    counted(&scene.gateway, "client-certificate", 3.0).await;
    assert_eq!(scene.backend.heard().len(), 1, "nothing of them was passed on");
    let identity = identity(&scene.clients);
    assert!(scene.is_let_in(&scene.client(Some(&identity))).await);
}
