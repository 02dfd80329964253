//! What passes and what does not, without a gateway.

use super::*;
use vers_plugin::testing::{self, MockHost, RequestBuilder};

fn plugin(table: &str) -> AuthToken {
    testing::configure(table).unwrap_or_else(|problems| panic!("{table}: {problems:?}"))
}

fn get(path: &str) -> RequestBuilder {
    testing::request("GET", path)
}

/// The reason of the refusal, if it is one.
fn reason(plugin: &AuthToken, request: RequestBuilder) -> Option<String> {
    plugin.on_request(&mut request.build()).reply().map(|reply| reply.reason.clone())
}

#[test]
fn a_token_decides() {
    let _host = MockHost::new().secret("fleet", "s3cret");
    let plugin = plugin("secret = 'fleet'");
    let check = |header: &str, expected: Option<&str>| {
        let got = reason(&plugin, get("/").header("authorization", header));
        assert_eq!(got.as_deref(), expected, "{header:?}");
    };
    check("Bearer s3cret", None);
    check("bearer s3cret", None);
    check("BEARER   s3cret", None);
    check("Bearer s3cre", Some("wrong-token"));
    check("Bearer s3cret2", Some("wrong-token"));
    check("Bearer S3CRET", Some("wrong-token"));
    check("Bearer s3cret, Bearer x", Some("wrong-token"));
    check("Bearer", Some("missing-token"));
    check("Bearer ", Some("missing-token"));
    check("Basic s3cret", Some("missing-token"));
    check("s3cret", Some("missing-token"));
    check("", Some("missing-token"));
    assert_eq!(reason(&plugin, get("/")).as_deref(), Some("missing-token"));
}

#[test]
fn two_authorization_headers_are_none() {
    let _host = MockHost::new().secret("fleet", "s3cret");
    let twice = get("/").header("authorization", "Bearer s3cret").header("authorization", "Bearer s3cret");
    assert_eq!(reason(&plugin("secret = 'fleet'"), twice).as_deref(), Some("missing-token"));
}

#[test]
fn challenges_follow_rfc_6750() {
    let _host = MockHost::new().secret("fleet", "s3cret");
    let check = |table: &str, request: RequestBuilder, expected: &str| {
        let verdict = plugin(table).on_request(&mut request.build());
        let reply = verdict.reply().expect("a refusal");
        assert_eq!(reply.status, 401);
        assert_eq!(reply.header_str("www-authenticate"), Some(expected));
    };
    let wrong = || get("/").header("authorization", "Bearer no");
    check("secret = 'fleet'", get("/"), "Bearer");
    check("secret = 'fleet'", wrong(), "Bearer error=\"invalid_token\"");
    check("secret = 'fleet'\nrealm = 'vms'", get("/"), "Bearer realm=\"vms\"");
    check("secret = 'fleet'\nrealm = 'vms'", wrong(), "Bearer realm=\"vms\", error=\"invalid_token\"");
}

#[test]
fn exempt_paths_are_exact() {
    let _host = MockHost::new().secret("fleet", "s3cret");
    let check = |table: &str, path: &str, passes: bool| {
        assert_eq!(reason(&plugin(table), get(path)).is_none(), passes, "{table} {path}");
    };
    let default = "secret = 'fleet'";
    check(default, "/health", true);
    check(default, "/health?verbose=1", true);
    for path in [
        "/",
        "/health/",
        "/Health",
        "/healthz",
        "/health/../admin",
        "/health%2f",
        "/health%2f..%2fadmin",
        "//health",
        "/./health",
        "/%68ealth",
        "/health;x",
    ] {
        check(default, path, false);
    }
    check("secret = 'fleet'\nexempt = []", "/health", false);

    // What a pattern covers in general is the SDK's matter, and tested there.
    check("secret = 'fleet'\nexempt = ['/assets/']", "/assets/app.js", false);
    let below = "secret = 'fleet'\nexempt = ['/assets/*', '/docs']";
    for path in ["/assets/", "/assets/app.js", "/assets/a/b%20c", "/docs"] {
        check(below, path, true);
    }
    for path in
        ["/assets", "/health", "/assets/../admin", "/assets/%2e%2e/admin", "/assets/..\\admin", "/docs/a"]
    {
        check(below, path, false);
    }
}

#[test]
fn an_unset_secret_denies_unless_told_otherwise() {
    for host in [MockHost::new, || MockHost::new().secret("fleet", "")] {
        let host = host();
        let token = || get("/").header("authorization", "Bearer ");
        assert_eq!(reason(&plugin("secret = 'fleet'"), token()).as_deref(), Some("secret-unset"));
        assert!(host.logged(log::Level::Error, "no value"));
        assert_eq!(reason(&plugin("secret = 'fleet'"), get("/health")), None);
        assert_eq!(reason(&plugin("secret = 'fleet'\nwhen_unset = 'allow'"), token()), None);
    }
    let _host = MockHost::new().secret("fleet", "s3cret");
    assert!(reason(&plugin("secret = 'fleet'\nwhen_unset = 'allow'"), get("/")).is_some(), "it is set");
}

#[test]
fn mistakes_are_named() {
    let check = |table: &str, path: &str, message: &str| {
        let problems = testing::configure::<AuthToken>(table).expect_err(table);
        assert_eq!(problems[0].path, path, "{table}");
        assert!(problems[0].message.contains(message), "{table}: {}", problems[0].message);
    };
    check("", "", "missing field `secret`");
    check("secret = ''", "secret", "[secret.NAME]");
    check("secret = 5", "secret", "expected a string");
    check("secret = 'a'\nexemt = []", "exemt", "unknown field `exemt`, expected one of `secret`, `exempt`");
    check("secret = 'a'\nexempt = ['/a', 'b']", "exempt.1", "starts with \"/\"");
    check("secret = 'a'\nexempt = ['/*']", "exempt.0", "take the plugin off the route");
    check("secret = 'a'\nexempt = ['/a*']", "exempt.0", "/prefix/*");
    check("secret = 'a'\nexempt = ['/a/*/b']", "exempt.0", "/prefix/*");
    check("secret = 'a'\nexempt = ['/*/*']", "exempt.0", "/prefix/*");
    check("secret = 'a'\nwhen_unset = 'open'", "when_unset", "expected `deny` or `allow`");
    check("secret = 'a'\nrealm = 'a\"b'", "realm", "printable ASCII");
}
