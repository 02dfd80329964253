//! The conversation with a registry, without one.

use super::*;
use vers_plugin::testing::{self, MockHost};

const TABLE: &str = r#"
    registry = "https://infra.vm.example.com:3000/"
    name = "my-service"
    services = [{ name = "api", port = 3000 }, { name = "ssh", port = 22 }]
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
    let host = MockHost::new().vm_id("a1").secret("fleet", "s3cret");
    // Without a grant for this VM's own ports, no service is asked.
    let host = host.fail(http::Error::NotGranted).fail(http::Error::NotGranted).reply(201, "{}");
    let table = TABLE.replace("port = 3000", "port = 3000, health_path = '/health'");
    plugin(&format!("{table}\nsecret = 'fleet'")).run(Reason::Start).expect("a next call");
    let sent = host.sent().pop().expect("a request");
    assert_eq!(sent.header_str("authorization"), Some("Bearer s3cret"));
    assert_eq!(sent.header_str("content-type"), Some("application/json"));
    let expected = serde_json::json!({
        "id": "a1", "name": "my-service", "role": "worker", "address": "a1.vm.example.com",
        "registeredBy": "vers-gateway", "status": "running",
        "services": [{ "name": "api", "port": 3000, "healthPath": "/health" }, { "name": "ssh", "port": 22 }],
        "metadata": { "region": "eu", "slots": 4 }, "ttl": 45.0,
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
    let host = host.reply(201, "").reply(400, "").reply(200, "");
    run(&plugin, &host, Reason::Start);
    plugin.stop();
    let [draining, sent] = host.sent().try_into().expect("two requests");
    assert_eq!(
        (draining.json(), path(&draining.url)),
        (serde_json::json!({ "status": "draining" }), "/vms/b2/heartbeat")
    );
    assert_eq!((sent.method.as_str(), path(&sent.url)), ("DELETE", "/vms/b2"));
}

#[test]
fn who_is_replaced_leaves_what_the_next_does_not_go_on_with() {
    let plugin = plugin("registries = ['https://a', 'https://b']\nname = 'n'");
    let registered = MockHost::new().vm_id("a1").reply(201, "{}").reply(201, "{}");
    plugin.run(Reason::Start).expect("a next call");
    plugin.run(Reason::Timer).expect("a next call");
    drop(registered.sent());
    for (next, left) in [
        (r#"{"name":"m","registry":"https://b/","registries":["https://a"]}"#, [].as_slice()),
        (r#"{"name":"n","registry":"https://b"}"#, &["a"]),
        (r#"{"name":"n","registries":["https://a","https://b"],"id":"a2"}"#, &["a", "b"]),
        (r#"{"something":"else"}"#, &["a", "b"]),
    ] {
        let host = MockHost::new().vm_id("a1").succeeded_by(next);
        let host = left.iter().fold(host, |host, _| host.reply(200, "{}").reply(200, "{}"));
        plugin.stop();
        let mut sent: Vec<String> = host.sent().into_iter().map(|it| it.method + " " + &it.url).collect();
        sent.retain(|sent| sent.starts_with("DELETE"));
        sent.sort();
        let expected = left.iter().map(|host| format!("DELETE https://{host}/registry/vms/a1"));
        assert_eq!(sent, expected.collect::<Vec<_>>(), "{next}");
    }
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
        let entry = serde_json::to_value(
            plugin(&table).entry(&"a1".parse().expect("an id"), &registry.parse().expect("a URL")),
        )
        .expect("JSON");
        assert_eq!(entry["address"], expected, "{table}");
    };
    check("https://infra.vm.example.com:3000", "", "a1.vm.example.com");
    check("http://x.vm.example.com/base", "", "a1.vm.example.com");
    check("http://127.0.0.1:3000", "", "a1");
    check("http://localhost:3000", "", "a1");
    check("http://[::1]:3000", "", "a1");
    check("http://localhost:3000", "address = 'a.example.com'", "a.example.com");
    check("http://localhost:3000", "address = '{id}.vm.example.com'", "a1.vm.example.com");
}

#[test]
fn mistakes_are_named() {
    let check = |more: &str, path: &str, message: &str| {
        let table = format!("name = 'n'\n{more}");
        let problems = testing::configure::<RegistryRegister>(&table).expect_err(&table);
        assert_eq!(problems[0].path, path, "{table}");
        assert!(problems[0].message.contains(message), "{table}: {}", problems[0].message);
    };
    check("", "registry", "missing field `registry`");
    check("registry = 'http://r'\nregistries = ['http://s']", "registries", "either");
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

#[test]
fn what_the_registry_grants_decides_on_renewals() {
    let host = MockHost::new().vm_id("a1").reply(201, r#"{"ttl":30,"state":"registered"}"#);
    let (_, delay) = run(&plugin(TABLE), &host, Reason::Start);
    assert!((9_000..=11_000).contains(&delay), "{delay}");
    let host = MockHost::new().vm_id("a1").reply(201, r#"{"ttl":30}"#);
    let next = plugin(&format!("{TABLE}\ninterval = '2s'")).run(Reason::Start).expect("a next call");
    let next = next.delay().expect("a delay").as_millis();
    assert!((1_800..=2_200).contains(&next), "{next}");
    assert_eq!(host.sent()[0].json()["ttl"], 6.0, "what is renewed each 2 s may be late twice");
}

const WAITING: &str = r#"
    registry = "https://infra.vm.example.com:3000"
    name = "n"
    grace = "10s"
    services = [{ name = "api", port = 3000, health_path = "/health" }, { name = "web", port = 80, health_path = "/" }]
"#;

fn refused() -> http::Error {
    http::Error::Connect("refused".into())
}

#[test]
fn it_waits_for_its_services_on_either_family() {
    let plugin = plugin(WAITING);
    let host = MockHost::new().vm_id("a1").fail(refused()).fail(refused());
    let next = plugin.run(Reason::Start).expect("a next call").delay().expect("a delay");
    assert_eq!(next, Duration::from_secs(1));
    let asked: Vec<String> = host.sent().into_iter().map(|sent| sent.url).collect();
    assert_eq!(asked, ["http://127.0.0.1:3000/health", "http://[::1]:3000/health"]);
    // One that works is not asked again.
    let host = host.fail(refused()).reply(204, "").reply(503, "");
    plugin.run(Reason::Timer).expect("a next call");
    assert_eq!(host.sent().len(), 3);
    let host = host.reply(200, "").reply(201, "");
    plugin.run(Reason::Timer).expect("a next call");
    let sent = host.sent();
    assert_eq!(
        (sent[0].url.as_str(), sent[1].json()["status"].as_str()),
        ("http://127.0.0.1:80/", Some("running"))
    );
}

#[test]
fn one_that_does_not_come_up_is_seen_and_not_used_until_it_does() {
    let plugin = plugin(WAITING);
    let host = MockHost::new().vm_id("a1").reply(500, "");
    plugin.run(Reason::Start).expect("a next call");
    host.advance(Duration::from_secs(10));
    let host = host.reply(500, "").reply(201, "");
    let next = plugin.run(Reason::Timer).expect("a next call").delay().expect("a delay");
    assert_eq!(next, Duration::from_secs(1), "a look is worth it");
    let entry = host.sent().pop().expect("a registration").json();
    assert_eq!(
        (&entry["status"], &entry["metadata"]["unhealthy"]),
        (&"stopped".into(), &"api: /health answers 500".into())
    );
    let host = host.reply(200, "").reply(200, "").reply(201, "");
    let next = plugin.run(Reason::Timer).expect("a next call").delay().expect("a delay").as_millis();
    assert!(is_renewal(next), "{next}");
    assert_eq!(host.sent().pop().expect("a registration").json()["status"], "running");
}

#[test]
fn each_of_several_registries_is_enough() {
    let plugin = plugin("registries = ['https://a', 'https://b']\nname = 'n'");
    let host = MockHost::new().vm_id("a1").fail(refused()).reply(201, "");
    let next = plugin.run(Reason::Start).expect("a next call").delay().expect("a delay");
    assert_eq!(next, Duration::ZERO, "the other one is due");
    plugin.run(Reason::Timer).expect("a next call");
    let hosts: Vec<String> = host.sent().into_iter().map(|sent| sent.url).collect();
    assert_eq!(hosts, ["https://a/registry/vms", "https://b/registry/vms"]);
    // The one that failed comes sooner than the renewal of the other.
    host.advance(Duration::from_secs(3));
    let host = host.reply(201, "");
    plugin.run(Reason::Timer).expect("a next call");
    assert_eq!(host.sent()[0].url, "https://a/registry/vms");
}

#[test]
fn an_older_life_leaves_the_registry_to_a_newer_one() {
    let plugin = plugin(&format!("{TABLE}\ngeneration = 3"));
    let host = MockHost::new().vm_id("a1").reply(409, r#"{"error":"superseded","generation":4}"#);
    assert_eq!(plugin.run(Reason::Start).expect("no more calls").delay(), None);
    assert_eq!(host.sent()[0].json()["generation"], 3);
    assert!(host.logged(log::Level::Error, "generation 4"));
    plugin.stop();
    assert_eq!(host.sent(), [], "the entry is not its own");
}

#[test]
fn an_entry_may_be_bound_to_a_key_and_another_vm_with_it_is_told() {
    let plugin = plugin(&format!("{TABLE}\nsecret = 'fleet'\nlease_key = 'own'"));
    let host = MockHost::new().vm_id("a1").secret("fleet", "s3cret").secret("own", "0123456789abcdef");
    let host = host.reply(403, r#"{"error":"this VM was registered with another x-lease-key"}"#);
    let delay = plugin.run(Reason::Start).expect("a next call").delay();
    assert!(delay.is_some(), "its sibling may go");
    assert!(host.logged(log::Level::Warn, "403"));
    let host = host.reply(201, "{}").reply(200, "{}").reply(200, "{}").reply(200, "{}");
    plugin.run(Reason::Timer).expect("a next call");
    plugin.run(Reason::Timer).expect("a next call");
    plugin.stop();
    let sent = host.sent();
    assert_eq!(sent.len(), 5, "refused, registered, renewed, draining, gone");
    for request in sent {
        assert_eq!(request.header_str("x-lease-key"), Some("0123456789abcdef"), "{}", request.url);
        assert_eq!(request.header_str("authorization"), Some("Bearer s3cret"));
    }
}

#[test]
fn a_life_that_is_not_older_comes_back() {
    let plugin = plugin(&format!("{TABLE}\ngeneration = 3"));
    // The one that it was, or a newer one, was deleted a moment ago.
    for answer in [r#"{"generation":3}"#, r#"{"deleted":true}"#] {
        let host = MockHost::new().vm_id("a1").reply(409, answer).reply(404, "");
        let next = plugin.run(Reason::Start).expect("a next call").delay();
        assert!(next.is_some(), "{answer}: it is tried again");
        drop(host.sent());
    }
    let host = MockHost::new().vm_id("a1").reply(201, "{}").reply(200, "{}");
    host.advance(Duration::from_secs(60));
    let (sent, delay) = run(&plugin, &host, Reason::Timer);
    assert_eq!(sent, ["POST /vms"]);
    assert!(is_renewal(delay), "{delay}");
    plugin.run(Reason::Timer).expect("a next call");
    let renewal = host.sent().pop().expect("a renewal");
    assert_eq!(renewal.json(), serde_json::json!({ "status": "running", "generation": 3 }));
    let host = host.reply(200, "{}").reply(200, "{}");
    plugin.stop();
    let [draining, left] = host.sent().try_into().expect("two requests");
    assert_eq!(draining.json(), serde_json::json!({ "status": "draining", "generation": 3 }));
    assert_eq!(path(&left.url), "/vms/a1?generation=3");
}

#[test]
fn an_older_life_hears_that_it_is_over_by_its_renewal_too() {
    let plugin = plugin(&format!("{TABLE}\ngeneration = 3"));
    let host = MockHost::new().vm_id("a1").reply(201, "{}").reply(409, r#"{"generation":4}"#);
    plugin.run(Reason::Start).expect("a next call");
    assert_eq!(plugin.run(Reason::Timer).expect("no more calls").delay(), None);
    drop(host.sent());
    plugin.stop();
    assert_eq!(host.sent(), [], "the entry is not its own");
}

#[test]
fn registries_that_do_not_answer_do_not_hold_up_the_others() {
    let plugin = plugin("registries = ['https://a', 'https://b', 'https://c']\nname = 'n'");
    let host = MockHost::new().vm_id("a1").reply(201, "").reply(201, "").reply(201, "");
    for _ in 0..3 {
        plugin.run(Reason::Start).expect("a next call");
        host.advance(Duration::from_secs(1));
    }
    let host = host.fail(refused());
    host.advance(Duration::from_secs(20));
    plugin.run(Reason::Timer).expect("a next call");
    drop(host.sent());
    let host = host.fail(http::Error::Timeout).reply(200, "").reply(200, "");
    plugin.stop();
    let sent = host.sent().into_iter().map(|sent| format!("{} {}", sent.method, sent.url));
    assert_eq!(
        sent.collect::<Vec<_>>(),
        [
            "POST https://c/registry/vms/a1/heartbeat",
            "POST https://b/registry/vms/a1/heartbeat",
            "DELETE https://b/registry/vms/a1"
        ],
        "the last to answer first, no word more to one that is late, and none to one that failed"
    );
}
