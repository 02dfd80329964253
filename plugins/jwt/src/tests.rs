//! Tokens of two kinds, and all that can be wrong with them. RS256 is in the gateway's suite, which can make RSA keys.

use super::*;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use vers_plugin::testing::{self, MockHost};

/// The keys of RFC 8037 A.1 and RFC 7515 A.3.1.
const ED_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const ED_D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
const EC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const EC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const EC_D: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";

fn pkcs8(prefix: &str, private: &str) -> Vec<u8> {
    let mut der = HEXLOWER.decode(prefix.as_bytes()).expect("hex");
    der.extend(BASE64URL_NOPAD.decode(private.as_bytes()).expect("base64"));
    der
}

fn ed() -> EncodingKey {
    EncodingKey::from_ed_der(&pkcs8("302e020100300506032b657004220420", ED_D))
}

fn ec() -> EncodingKey {
    let prefix = "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420";
    EncodingKey::from_ec_der(&pkcs8(prefix, EC_D))
}

fn ed_jwk(kid: &str) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": ED_X })
}

fn ec_jwk(kid: &str) -> Value {
    json!({ "kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256", "x": EC_X, "y": EC_Y })
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn now() -> i64 {
    i64::try_from(jsonwebtoken::get_current_timestamp()).expect("a time")
}

fn token(alg: Algorithm, key: &EncodingKey, kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(alg) };
    encode(&header, claims, key).expect("a token")
}

fn good() -> Value {
    json!({ "iss": "https://issuer", "aud": ["app", "other"], "sub": "ann", "exp": now() + 600 })
}

const TABLE: &str = "jwks = 'https://issuer/jwks'\nissuer = 'https://issuer'\naudience = ['app']\n\
                     headers = { x-user = 'sub', x-admin = 'admin' }\nexempt = ['/health']";

fn plugin() -> Jwt {
    match testing::configure(TABLE) {
        Ok(plugin) => plugin,
        Err(problems) => panic!("{problems:?}"),
    }
}

/// The reason of the answer; none where the request goes on.
fn asked(plugin: &Jwt, token: &str) -> String {
    let mut req = testing::request("GET", "/").header("authorization", format!("Bearer {token}")).build();
    plugin.on_request(&mut req).reply().map(|reply| reply.reason.clone()).unwrap_or_default()
}

#[test]
fn tokens_of_the_issuer_pass_and_tell_the_backend_who_it_is() {
    let _host = MockHost::new().reply(200, &set(&[json!({ "kty": "strange" }), ed_jwk("a"), ec_jwk("b")]));
    let plugin = plugin();
    assert!(plugin.run(Reason::Start).is_ok());
    let mut claims = good();
    claims["admin"] = json!(true);
    for (alg, key, kid) in [(Algorithm::EdDSA, ed(), "a"), (Algorithm::ES256, ec(), "b")] {
        let token = token(alg, &key, Some(kid), &claims);
        let request = testing::request("GET", "/").header("x-user", "root").header("x-admin", "yes");
        let mut req = request.header("authorization", format!("Bearer {token}")).build();
        assert_eq!(plugin.on_request(&mut req), Verdict::Next, "{alg:?}");
        assert_eq!(req.headers().get_all("x-user"), [b"ann".to_vec()]);
        assert_eq!(req.headers().get_all("x-admin"), [b"true".to_vec()]);
    }
    let mut req =
        testing::request("GET", "/health").header("x-user", "root").header("X_User", "root").build();
    assert_eq!(plugin.on_request(&mut req), Verdict::Next);
    assert_eq!((req.header("x-user"), req.header("x_user")), (None, None), "nobody has said who it is");
}

#[test]
fn all_others_are_refused_and_told_why() {
    let _host = MockHost::new().reply(200, &set(&[ed_jwk("a"), ec_jwk("b")])).reply(500, "");
    let plugin = plugin();
    assert!(plugin.run(Reason::Start).is_ok());
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        token(Algorithm::EdDSA, &ed(), Some("a"), &claims)
    };
    let without = |name: &str| {
        let mut claims = good();
        claims.as_object_mut().expect("claims").remove(name);
        token(Algorithm::EdDSA, &ed(), Some("a"), &claims)
    };
    let signed = with("sub", json!("ann"));
    let (content, signature) = signed.rsplit_once('.').expect("a signature");
    let other = with("sub", json!("root"));
    let (other, _) = other.rsplit_once('.').expect("a signature");
    let none = BASE64URL_NOPAD.encode(br#"{"alg":"none","kid":"a"}"#);
    let payload = content.split_once('.').expect("a payload").1;
    let header = Header { crit: Some(vec!["x".to_owned()]), ..Header::new(Algorithm::EdDSA) };
    let critical = encode(&Header { kid: Some("a".to_owned()), ..header }, &good(), &ed()).expect("a token");
    let secret = EncodingKey::from_secret(ED_X.as_bytes());
    for (token, reason) in [
        (format!("{content}.{signature}"), ""),
        (with("exp", json!(now() - 30)), ""),
        (with("exp", json!(now() - 90)), "expired"),
        (with("nbf", json!(now() + 30)), ""),
        (with("nbf", json!(now() + 90)), "not-yet"),
        (with("iss", json!("https://other")), "wrong-issuer"),
        (with("aud", json!("other")), "wrong-audience"),
        (with("sub", json!("a\r\nx-admin: true")), "bad-claim"),
        (without("exp"), "missing-claim"),
        (without("iss"), "missing-claim"),
        (without("aud"), "missing-claim"),
        (format!("{other}.{signature}"), "bad-token"),
        (format!("{content}."), "bad-token"),
        (content.to_owned(), "bad-token"),
        (format!("{none}.{payload}."), "bad-token"),
        (critical, "bad-token"),
        (String::new(), "missing-token"),
        ("a.b.c".to_owned(), "bad-token"),
        (token(Algorithm::HS256, &secret, Some("a"), &good()), "bad-algorithm"),
        (token(Algorithm::EdDSA, &ed(), Some("b"), &good()), "bad-algorithm"),
        (token(Algorithm::ES256, &ec(), Some("a"), &good()), "bad-token"),
        (token(Algorithm::EdDSA, &ed(), Some("c"), &good()), "unknown-key"),
        (token(Algorithm::EdDSA, &ed(), None, &good()), "unknown-key"),
    ] {
        assert_eq!(asked(&plugin, &token), reason, "{token}");
    }
}

#[test]
fn a_new_key_is_looked_for_once_in_a_while_and_the_old_ones_outlast_an_issuer() {
    let host =
        MockHost::new().reply(500, "").reply(200, &set(&[ed_jwk("a")])).reply(200, &set(&[ec_jwk("b")]));
    let host = host.reply(500, "").reply(500, "");
    let (plugin, old) = (plugin(), token(Algorithm::EdDSA, &ed(), Some("a"), &good()));
    let new = token(Algorithm::ES256, &ec(), Some("b"), &good());
    assert_eq!(asked(&plugin, &old), "no-keys");
    assert_eq!(asked(&plugin, &old), "no-keys", "too early");
    host.advance(Duration::from_secs(11));
    assert_eq!(asked(&plugin, &old), "", "keys were looked for");
    assert_eq!(asked(&plugin, &new), "unknown-key", "too early");
    assert_eq!(host.sent().len(), 2);
    host.advance(Duration::from_secs(11));
    assert_eq!(asked(&plugin, &new), "", "the keys were changed");
    assert_eq!(asked(&plugin, &old), "unknown-key", "taken back");
    assert!(plugin.run(Reason::Timer).is_ok());
    assert_eq!(asked(&plugin, &new), "");
    host.advance(STALE);
    assert_eq!(asked(&plugin, &new), "no-keys");
}

#[test]
fn mistakes() {
    for (table, path) in [
        ("jwks = 'issuer/jwks'", "jwks"),
        ("jwks = 'https://i/j'\nheaders = { host = 'sub' }", "headers.host"),
        ("jwks = 'https://i/j'\nexempt = ['/*']", "exempt.0"),
    ] {
        match testing::configure::<Jwt>(table) {
            Err(problems) => assert_eq!(problems[0].path, path, "{problems:?}"),
            Ok(_) => panic!("{table} is accepted"),
        }
    }
}
