//! Tokens of an issuer that changes its keys, by `jwt`: keys that come with background work, signatures of all kinds.

use data_encoding::BASE64URL_NOPAD;
use gateway_tests::{Backend, TestGateway, eventually, one_route, plugin, plugin_table};
use http::Response;
use http_body_util::Full;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData as _, SigningKey as _,
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::SystemTime,
};

/// A key of an issuer.
struct Key {
    alg: &'static str,
    kid: &'static str,
    pair: KeyPair,
}

impl Key {
    fn new(alg: &'static str, kid: &'static str) -> Self {
        let kind = match alg {
            "RS256" => &PKCS_RSA_SHA256,
            "ES256" => &PKCS_ECDSA_P256_SHA256,
            _ => &PKCS_ED25519,
        };
        Self { alg, kid, pair: KeyPair::generate_for(kind).expect("a key") }
    }

    /// As sets of keys have it (RFC 7517, 7518, 8037).
    fn jwk(&self) -> Value {
        let public = self.pair.der_bytes();
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let mut jwk = match self.alg {
            "RS256" => {
                let [n, e] = integers(public);
                json!({ "kty": "RSA", "n": text(&n), "e": text(&e) })
            }
            "ES256" => {
                let (x, y) = public[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": text(x), "y": text(y) })
            }
            _ => json!({ "kty": "OKP", "crv": "Ed25519", "x": text(public) }),
        };
        jwk["kid"] = json!(self.kid);
        jwk["alg"] = json!(self.alg);
        jwk
    }

    /// A token for this user, which is valid for so many seconds.
    fn token(&self, user: &str, seconds: i64) -> String {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a time").as_secs();
        let until = i64::try_from(now).expect("a time") + seconds;
        let header = json!({ "alg": self.alg, "kid": self.kid, "typ": "JWT" });
        let claims = json!({ "iss": "https://issuer", "aud": "app", "sub": user, "exp": until });
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let content = format!("{}.{}", part(&header), part(&claims));
        let mut signature = self.pair.sign(content.as_bytes()).expect("a signature");
        if self.alg == "ES256" {
            // RFC 7518 §3.4: both numbers, each of 32 bytes.
            let [r, s] = integers(&signature).map(|number| [vec![0; 32 - number.len()], number].concat());
            signature = [r, s].concat();
        }
        format!("{content}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

/// The two numbers of a DER sequence, without leading zeros.
fn integers(der: &[u8]) -> [Vec<u8>; 2] {
    fn content<'a>(der: &mut &'a [u8]) -> &'a [u8] {
        let mut length = usize::from(der[1]);
        let mut start = 2;
        if length > 127 {
            start += length - 128;
            length = der[2..start].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        }
        let (this, rest) = der[start..].split_at(length);
        *der = rest;
        this
    }
    let mut numbers = content(&mut &*der);
    let first = content(&mut numbers);
    let second = content(&mut numbers);
    [first, second].map(|number| number.iter().copied().skip_while(|byte| *byte == 0).collect())
}

/// Shows keys, which may be changed.
struct Issuer {
    server: Backend,
    keys: Arc<Mutex<Vec<Value>>>,
}

impl Issuer {
    async fn start(keys: &[&Key]) -> Self {
        let keys = Arc::new(Mutex::new(keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()));
        let shown = Arc::clone(&keys);
        let server = Backend::http(move |_| {
            let keys = shown.lock().expect("no panic").clone();
            Response::new(Full::from(json!({ "keys": keys }).to_string()))
        });
        Self { server: server.await, keys }
    }

    fn show(&self, keys: &[&Key]) {
        *self.keys.lock().expect("no panic") = keys.iter().map(|key| key.jwk()).collect();
    }

    /// A gateway that takes its tokens, and looks for unknown keys this often.
    fn gateway(&self, backend: &Backend, cooldown: &str) -> TestGateway {
        let issuer = self.server.addr();
        let more = format!(
            "grants = {{ http = [\"http://{issuer}\"], kv = \"64KiB\" }}\n\
             config = {{ jwks = \"http://{issuer}/keys\", issuer = \"https://issuer\", audience = [\"app\"], \
             headers = {{ x-user = \"sub\" }}, cooldown = \"{cooldown}\" }}\n"
        );
        let table = plugin_table("jwt", &plugin("jwt"), &more);
        TestGateway::start(&one_route(backend.addr(), &format!("plugins = [\"jwt\"]\n{table}")))
    }
}

async fn status(gateway: &TestGateway, token: &str) -> u16 {
    let client = gateway.client().with("authorization", &format!("Bearer {token}"));
    let client = client.with("x-user", "root").with("x_user", "root");
    client.get("/").await.status.as_u16()
}

#[tokio::test]
async fn signatures_of_all_kinds_are_verified_and_the_backend_learns_who_it_is() {
    let keys = ["RS256", "ES256", "EdDSA"].map(|alg| Key::new(alg, alg));
    let issuer = Issuer::start(&keys.each_ref()).await;
    let backend = Backend::hello().await;
    let gateway = issuer.gateway(&backend, "60m");
    for key in &keys {
        assert_eq!(status(&gateway, &key.token("ann", 600)).await, 200, "{}", key.alg);
        assert_eq!(backend.last().header("x-user"), "ann", "{}", key.alg);
        assert_eq!(backend.last().header("x_user"), "", "{}: backends may read it as the same", key.alg);
        assert_eq!(status(&gateway, &key.token("ann", -90)).await, 401, "{}: expired", key.alg);
        let stranger = Key::new(key.alg, key.kid);
        assert_eq!(status(&gateway, &stranger.token("ann", 600)).await, 401, "{}: another's", key.alg);
        let (ann, root) = (key.token("ann", 600), key.token("root", 600));
        let forged = format!(
            "{}.{}",
            root.rsplit_once('.').expect("a token").0,
            ann.rsplit_once('.').expect("a token").1
        );
        assert_eq!(status(&gateway, &forged).await, 401, "{}: forged", key.alg);
    }
    assert_eq!(gateway.client().get("/").await.status, 401);
    assert_eq!(backend.heard().len(), keys.len());
}

#[tokio::test]
async fn an_issuer_changes_its_keys_and_goes_away() {
    let (old, new, newest) = (Key::new("EdDSA", "1"), Key::new("ES256", "2"), Key::new("EdDSA", "3"));
    let issuer = Issuer::start(&[&old]).await;
    let backend = Backend::hello().await;
    let gateway = issuer.gateway(&backend, "300ms");
    eventually("the first keys", async || {
        (status(&gateway, &old.token("a", 600)).await == 200).then_some(())
    })
    .await;

    issuer.show(&[&old, &new]);
    eventually("a new key", async || (status(&gateway, &new.token("a", 600)).await == 200).then_some(()))
        .await;
    assert_eq!(status(&gateway, &old.token("a", 600)).await, 200, "both are good");
    issuer.show(&[&newest]);
    eventually("another one", async || {
        (status(&gateway, &newest.token("a", 600)).await == 200).then_some(())
    })
    .await;
    assert_eq!(status(&gateway, &old.token("a", 600)).await, 401, "it was taken back");

    issuer.server.end().await;
    assert_eq!(status(&gateway, &newest.token("a", 600)).await, 200, "what is known stays");
    assert_eq!(status(&gateway, &new.token("a", 600)).await, 401);
}

#[tokio::test]
async fn keys_that_clients_make_up_are_looked_for_once() {
    let (known, made_up) = (Key::new("EdDSA", "1"), Key::new("EdDSA", "2"));
    let issuer = Issuer::start(&[&known]).await;
    let backend = Backend::hello().await;
    let gateway = issuer.gateway(&backend, "60m");
    assert_eq!(status(&gateway, &known.token("a", 600)).await, 200);
    for _ in 0..30 {
        assert_eq!(status(&gateway, &made_up.token("a", 600)).await, 401);
    }
    assert_eq!(status(&gateway, &known.token("a", 600)).await, 200);
    let asked = issuer.server.heard().len();
    assert!(asked <= 2, "once at the start, and once for an unknown key: {asked}");
}
