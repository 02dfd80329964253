//! Lives of a VM: which of them an entry is for, and what the others are told.

use super::{Kept, call, gateway, in_each_store, register, registering, vm};
use gateway_tests::{Backend, TestGateway, eventually};
use serde_json::{Value, json};
use std::time::Duration;

in_each_store! {
    a_vm_that_says_its_generation_comes_back_after_a_restart,
    an_older_life_is_told_by_whom_it_was_superseded,
}

async fn a_vm_that_says_its_generation_comes_back_after_a_restart(kept: &Kept) {
    let infra = kept.gateway("");
    let client = infra.client();
    let app = Backend::hello().await;
    let toml = registering(&app, &infra, "", "interval = \"100ms\"\ngeneration = 2");
    let files = [("vm-id", "a1\n")];
    let found = async || {
        let (status, entry) = call(&client, "GET", "/registry/vms/a1", &Value::Null).await;
        (status == 200).then_some(entry)
    };
    for life in ["the first", "after a restart"] {
        let vm = TestGateway::with_files(&toml, &files);
        let entry = eventually(&format!("its entry, {life}"), found).await;
        assert_eq!(entry["generation"], 2, "{life}: {entry}");
        vm.stop(Duration::from_secs(5)).await;
        assert_eq!(found().await, None, "{life}");
    }
}

async fn an_older_life_is_told_by_whom_it_was_superseded(kept: &Kept) {
    let gateway = kept.gateway("");
    let client = gateway.client();
    let mut newer = vm("a");
    newer["generation"] = 3.into();
    register(&client, &newer).await;
    let older = json!({ "generation": 2, "status": "draining" });
    for (method, path) in [
        ("POST", "/registry/vms/a/heartbeat"),
        ("PATCH", "/registry/vms/a"),
        ("DELETE", "/registry/vms/a?generation=2"),
    ] {
        let (status, answer) = call(&client, method, path, &older).await;
        assert_eq!((status, &answer["generation"]), (409, &json!(3)), "{method}: {answer}");
    }
    let (_, entry) = call(&client, "GET", "/registry/vms/a", &Value::Null).await;
    assert_eq!(entry["state"], "registered", "{entry}");
    let (status, _) = call(&client, "DELETE", "/registry/vms/a?generation=3", &Value::Null).await;
    assert_eq!(status, 200);
    newer["generation"] = 2.into();
    let (status, answer) = call(&client, "POST", "/registry/vms", &newer).await;
    assert_eq!((status, &answer["deleted"]), (409, &json!(true)), "{answer}");
    newer["generation"] = u64::MAX.into();
    register(&client, &newer).await;
    let last = format!("/registry/vms/a?generation={}", u64::MAX);
    assert_eq!(call(&client, "DELETE", &last, &Value::Null).await.0, 200);
    register(&client, &newer).await;
}

#[tokio::test]
async fn a_reload_that_changes_the_plugin_leaves_the_vm_where_it_is() {
    let infra = gateway("");
    let client = infra.client();
    let app = Backend::hello().await;
    let toml = registering(&app, &infra, "", "interval = \"100ms\"");
    let vm = TestGateway::with_files(&toml, &[("vm-id", "a1\n")]);
    let found = async || {
        let (status, entry) = call(&client, "GET", "/registry/vms/a1", &Value::Null).await;
        (status == 200).then_some(entry)
    };
    let before = eventually("its entry", found).await;
    vm.write(&toml.replace("name = \"app\"", "name = \"renamed\""));
    vm.reload().await.expect("a reload");
    let renamed = async || found().await.filter(|entry| entry["name"] == "renamed");
    let after = eventually("its new name", renamed).await;
    assert_eq!(after["registeredAt"], before["registeredAt"], "it was there all the time");
    let path = format!("/registry/watch?wait=0&since={}", before["revision"]);
    let (_, changes) = call(&client, "GET", &path, &Value::Null).await;
    let changes = changes["changes"].as_array().expect("changes").clone();
    let states: Vec<_> = changes.iter().map(|change| &change["vm"]["state"]).collect();
    assert!(states.iter().all(|state| **state == "registered"), "{changes:?}");
    // Without the plugin, the VM leaves.
    vm.write(&gateway_tests::one_route(app.addr(), ""));
    vm.reload().await.expect("a reload");
    eventually("that it has left", async || found().await.is_none().then_some(())).await;
}
