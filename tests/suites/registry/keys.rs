//! Whose entries may be changed by whom, and how often: lease keys, addresses of one's own, rates.

use super::{Kept, call, in_each_store, register, text, vm};
use gateway_tests::{Client, TestGateway};
use serde_json::{Value, json};

in_each_store! {
    who_registers_with_a_key_is_changed_by_nobody_else,
    addresses_may_have_to_be_ones_own,
    a_trusted_proxy_tells_whose_address_it_is,
    one_address_changes_no_more_than_it_may,
}

const KEY: &str = "0123456789abcdef";

fn with_key(client: &Client, key: &str) -> Client {
    client.clone().with("x-lease-key", key)
}

/// What each change of an entry is answered.
async fn changes(client: &Client, id: &str) -> [u16; 4] {
    let path = format!("/registry/vms/{id}");
    [
        call(client, "POST", "/registry/vms", &vm(id)).await.0,
        call(client, "PATCH", &path, &json!({ "name": "other" })).await.0,
        call(client, "POST", &format!("{path}/heartbeat"), &Value::Null).await.0,
        call(client, "DELETE", &path, &Value::Null).await.0,
    ]
}

async fn who_registers_with_a_key_is_changed_by_nobody_else(kept: &Kept) {
    let folder = tempfile::tempdir().expect("a folder");
    let toml = text(&format!(
        "store = \"{}\"\ntoken = \"fleet\"\nadmin_token = \"admin\"\n\
         [secret.fleet]\nfile = \"fleet\"\n[secret.admin]\nfile = \"admin\"",
        kept.lasting(folder.path())
    ));
    let files = [("fleet", "fleet-token"), ("admin", "admin-token")];
    let gateway = TestGateway::with_files(&toml, &files);
    let client = gateway.client().with("authorization", "Bearer fleet-token");
    register(&with_key(&client, KEY), &vm("a")).await;
    register(&with_key(&client, KEY), &vm("b")).await;
    assert_eq!(changes(&client, "a").await, [403; 4]);
    assert_eq!(changes(&with_key(&client, "another 0123456789"), "a").await, [403; 4]);
    let (status, answer) = call(&with_key(&client, "short"), "POST", "/registry/vms", &vm("a")).await;
    assert_eq!((status, answer["error"].as_str()), (400, Some("x-lease-key must have 16 to 256 bytes")));
    assert_eq!(call(&client, "GET", "/registry/vms/a", &Value::Null).await.0, 200, "everybody may look");
    let shown = client.get("/registry/vms/a").await.text();
    assert!(!shown.contains("key") && !shown.contains(KEY), "{shown}");

    // A restart does not forget whose it is.
    gateway.stop(std::time::Duration::ZERO).await;
    let gateway = TestGateway::with_files(&toml, &files);
    let client = gateway.client().with("authorization", "Bearer fleet-token");
    assert_eq!(changes(&client, "a").await, [403; 4]);
    assert_eq!(changes(&with_key(&client, KEY), "a").await, [201, 200, 200, 200]);
    let admin = gateway.client().with("authorization", "Bearer admin-token");
    assert_eq!(changes(&admin, "b").await, [201, 200, 200, 200]);
    // Who has no key is changed by everybody who may ask, as ever.
    register(&client, &vm("c")).await;
    assert_eq!(changes(&client, "c").await, [201, 200, 200, 200]);
}

async fn addresses_may_have_to_be_ones_own(kept: &Kept) {
    let own = format!("store = \"{}\"\naddresses = \"own\"", kept.store());
    let gateway = TestGateway::start(&text(&format!("{own}\nnames_below = \"vm.test\"")));
    let client = gateway.client();
    let mut entry = vm("a");
    for (id, address, status) in [
        ("a", "a.vm.test", 201),
        ("a", client_address(&gateway), 201),
        ("a", "2001:db8::7", 403),
        ("a", "api.other.test", 403),
        ("a", "ab.vm.test", 403),
        ("a", "a", 403),
        // Everybody chooses an id.
        ("api.other.test", "api.other.test", 403),
        ("2130706433", "2130706433", 400),
        ("0x0a000005", "0x0a000005", 400),
    ] {
        (entry["id"], entry["address"]) = (id.into(), address.into());
        let (answered, said) = call(&client, "POST", "/registry/vms", &entry).await;
        assert_eq!(answered, status, "{id} at {address}: {said}");
    }
    entry["id"] = "a".into();
    let moved = json!({ "address": "api.other.test" });
    assert_eq!(call(&client, "PATCH", "/registry/vms/a", &moved).await.0, 403);
    assert_eq!(call(&client, "PATCH", "/registry/vms/a", &json!({ "name": "b" })).await.0, 200);
    // A stranger's word for where it comes from is nothing.
    let forged = client.clone().with("x-forwarded-for", "2001:db8::7");
    entry["address"] = "2001:db8::7".into();
    assert_eq!(call(&forged, "POST", "/registry/vms", &entry).await.0, 403);
    gateway.write(&text(&own));
    gateway.reload().await.expect("a reload");
    let (status, said) = call(&client, "POST", "/registry/vms", &vm("a")).await;
    assert_eq!(status, 403, "without a domain there are no names: {said}");
}

/// Where this test's clients come from.
fn client_address(gateway: &TestGateway) -> &'static str {
    if gateway.addr().is_ipv6() { "::1" } else { "127.0.0.1" }
}

async fn a_trusted_proxy_tells_whose_address_it_is(kept: &Kept) {
    let toml = text(&format!("store = \"{}\"\naddresses = \"own\"", kept.store()));
    let toml = toml.replacen("[[route]]", "trusted_proxies = [\"127.0.0.0/8\", \"::1/128\"]\n[[route]]", 1);
    let gateway = TestGateway::start(&toml);
    let client = gateway.client().with("x-forwarded-for", "2001:db8::9, 2001:db8::7");
    let mut entry = vm("a");
    for (address, status) in [("2001:db8::7", 201), ("2001:db8::9", 403), ("::1", 403)] {
        entry["address"] = address.into();
        assert_eq!(call(&client, "POST", "/registry/vms", &entry).await.0, status, "{address}");
    }
    // Whoever it is for backends, it is here.
    entry["address"] = "2001:db8::7".into();
    for (field, value) in [
        ("x-forwarded-for", "[2001:db8::7]:4711"),
        ("forwarded", "for=\"[2001:db8::7]:4711\""),
        ("x-forwarded-for", "2001:db8::9, [2001:db8::7]"),
    ] {
        let client = gateway.client().with(field, value);
        let (status, said) = call(&client, "POST", "/registry/vms", &entry).await;
        assert_eq!(status, 201, "{field}: {value}: {said}");
    }
}

async fn one_address_changes_no_more_than_it_may(kept: &Kept) {
    let gateway = TestGateway::start(&text(&format!("store = \"{}\"\nchanges_per_client = 1", kept.store())));
    let client = gateway.client();
    let mut refused = None;
    for number in 0..20 {
        let (status, answer) = call(&client, "POST", "/registry/vms", &vm(&format!("vm-{number}"))).await;
        if status != 201 {
            refused = Some((number, status, answer["error"].as_str().unwrap_or_default().to_owned()));
            break;
        }
    }
    let (number, status, error) = refused.expect("a refusal");
    assert!(number >= 5, "five at once are let in, and not {number}");
    assert_eq!((status, error.as_str()), (429, "too many changes from this address: 1 a second are let in"));
    assert_eq!(call(&client, "GET", "/registry/vms", &Value::Null).await.0, 200, "who asks changes nothing");
}
