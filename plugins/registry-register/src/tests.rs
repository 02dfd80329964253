//! The conversation with a registry, without one.

use super::*;
use vers_plugin::testing::{self, MockHost};

const TABLE: &str = r#"
    registry = "https://infra.vm.example.com:3000/"
    name = "my-service"
    services = [{ name = "api", port = 3000, health_path = "/health" }, { name = "ssh", port = 22 }]
    metadata = { region = "eu", slots = 4 }
"#;

fn plugin(table: &str) -> RegistryRegister {
    testing::configure(table).unwrap_or_else(|problems| panic!("{table}: {problems:?}"))
}

/// Runs once; says what was sent, and after how many milliseconds it goes on.
fn run(plugin: &RegistryRegister, host: &MockHost, why: Reason) -> (Vec<String>, u128) {
    let next = plugin.run(why).expect("a next call").delay().expect("a delay");
    let sent = host.sent().into_iter().map(|sent| format!("{} {}", sent.method, path(&sent.url)));
    (sent.collect(), next.as_millis())
}

fn path(url: &str) -> &str {
    url.strip_prefix("https://infra.vm.example.com:3000/registry").expect("a URL of the registry")
}

fn is_renewal(delay: u128) -> bool {
    (13_500..=16_500).contains(&delay)
}

#[test]
fn it_registers_then_renews() {
    let host = MockHost::new().vm_id("a1").reply(201, "{}").reply(200, "{}");
    let plugin = plugin(TABLE);
    let (sent, delay) = run(&plugin, &host, Reason::Start);
    assert_eq!(sent, ["POST /vms"]);
    assert!(is_renewal(delay), "{delay}");
    let (sent, delay) = run(&plugin, &host, Reason::Timer);
    assert_eq!(sent, ["POST /vms/a1/heartbeat"]);
    assert!(is_renewal(delay), "{delay}");
}

#[test]
fn the_entry_is_what_the_registry_reads() {
    let host = MockHost::new().vm_id("a1").secret("fleet", "s3cret").reply(201, "{}");
    plugin(&format!("{TABLE}\nsecret = 'fleet'")).run(Reason::Start).expect("a next call");
    let [sent] = host.sent().try_into().expect("one request");
    assert_eq!(sent.header_str("authorization"), Some("Bearer s3cret"));
    assert_eq!(sent.header_str("content-type"), Some("application/json"));
    let expected = serde_json::json!({
        "id": "a1", "name": "my-service", "role": "worker", "address": "a1.vm.example.com",
        "registeredBy": "vers-gateway", "status": "running",
        "services": [{ "name": "api", "port": 3000, "healthPath": "/health" }, { "name": "ssh", "port": 22 }],
        "metadata": { "region": "eu", "slots": 4 },
    });
    assert_eq!(sent.json(), expected);
}

#[test]
fn an_entry_that_is_there_is_brought_up_to_date() {
    let host = MockHost::new().vm_id("a1").reply(409, "").reply(200, "{}").reply(200, "{}");
    let (sent, delay) = run(&plugin(TABLE), &host, Reason::Start);
    assert_eq!(sent, ["POST /vms", "PATCH /vms/a1", "POST /vms/a1/heartbeat"]);
    assert!(is_renewal(delay), "{delay}");
}

#[test]
fn a_registry_that_forgot_is_told_at_once() {
    let host = MockHost::new().vm_id("a1").reply(201, "").reply(404, "").reply(201, "");
    let plugin = plugin(TABLE);
    run(&plugin, &host, Reason::Start);
    let (sent, delay) = run(&plugin, &host, Reason::Timer);
    assert_eq!(sent, ["POST /vms/a1/heartbeat", "POST /vms"]);
    assert!(is_renewal(delay), "{delay}");
}

#[test]
fn failures_back_off_and_never_end_it() {
    let plugin = plugin(TABLE);
    for (round, ceiling) in [2_000, 4_000, 8_000, 16_000, 30_000, 30_000].into_iter().enumerate() {
        let host = MockHost::new().vm_id("a1").fail(http::Error::Connect("refused".into()));
        let (sent, delay) = run(&plugin, &host, if round == 0 { Reason::Start } else { Reason::Timer });
        assert_eq!(sent, ["POST /vms"], "not registered, so it registers");
        assert!((ceiling / 2..=ceiling).contains(&delay), "round {round}: {delay}");
        assert!(host.logged(log::Level::Warn, "no connection: refused"));
    }
    let host = MockHost::new().vm_id("a1").reply(201, "").reply(500, "").reply(200, "");
    let (_, delay) = run(&plugin, &host, Reason::Timer);
    assert!(is_renewal(delay), "{delay}");
    let (_, delay) = run(&plugin, &host, Reason::Timer);
    assert!((1_000..=2_000).contains(&delay), "the count starts again: {delay}");
    let (sent, _) = run(&plugin, &host, Reason::Timer);
    assert_eq!(sent, ["POST /vms/a1/heartbeat"], "a failed renewal does not make it unknown");
}

#[test]
fn stop_deregisters_what_was_registered() {
    let plugin = plugin(&format!("{TABLE}\nid = 'b2'"));
    let host = MockHost::new();
    plugin.stop();
    assert_eq!(host.sent(), []);
    let host = host.reply(201, "").reply(200, "");
    run(&plugin, &host, Reason::Start);
    plugin.stop();
    let [sent] = host.sent().try_into().expect("one request");
    assert_eq!((sent.method.as_str(), path(&sent.url)), ("DELETE", "/vms/b2"));
}

#[test]
fn without_an_id_there_is_an_error_that_says_what_to_do() {
    let _host = MockHost::new();
    let error = plugin(TABLE).run(Reason::Start).expect_err("no id");
    assert!(error.contains("VERS_VM_ID"), "{error}");
}

#[test]
fn addresses() {
    let _host = MockHost::new();
    let check = |registry: &str, more: &str, expected: &str| {
        let table = format!("registry = '{registry}'\nname = 'n'\n{more}");
        let entry = serde_json::to_value(plugin(&table).entry(&"a1".parse().expect("an id"))).expect("JSON");
        assert_eq!(entry["address"], expected, "{table}");
    };
    check("https://infra.vm.example.com:3000", "", "a1.vm.example.com");
    check("http://x.vm.example.com/base", "", "a1.vm.example.com");
    check("http://127.0.0.1:3000", "", "a1");
    check("http://localhost:3000", "", "a1");
    check("http://[::1]:3000", "", "a1");
    check("http://localhost:3000", "address = 'a.example.com'", "a.example.com");
}

#[test]
fn mistakes_are_named() {
    let check = |more: &str, path: &str, message: &str| {
        let table = format!("name = 'n'\n{more}");
        let problems = testing::configure::<RegistryRegister>(&table).expect_err(&table);
        assert_eq!(problems[0].path, path, "{table}");
        assert!(problems[0].message.contains(message), "{table}: {}", problems[0].message);
    };
    check("", "", "missing field `registry`");
    for url in ["infra:3000", "ftp://infra", "http://", "http:///x", "https://a?b"] {
        check(&format!("registry = '{url}'"), "registry", "expected a URL such as");
    }
    let registry = "registry = 'http://r'";
    check(&format!("{registry}\nid = 'a/b'"), "id", "letters, digits");
    check(&format!("{registry}\nid = '..'"), "id", "letters, digits");
    for interval in ["'0s'", "'15'", "'s'", "'1h30m'", "'-1s'", "'99999999999s'"] {
        check(&format!("{registry}\ninterval = {interval}"), "interval", "such as \"15s\"");
    }
    check(&format!("{registry}\nservices = [{{ name = 'a', port = 0 }}]"), "services.0.port", "nonzero");
    check(
        &format!("{registry}\nservices = [{{ name = 'a', port = 1 }}, {{ name = 'a', port = 70000 }}]"),
        "services.1.port",
        "70000",
    );
    check(
        &format!("{registry}\nservices = [{{ name = 'a', port = 1, health_path = 'h' }}]"),
        "services.0.health_path",
        "starts with",
    );
    check(&format!("{registry}\nstate = 1"), "state", "unknown field");
}
