//! What clients of the service before this one send, as they send it, and what they get.

use super::{Kept, call, in_each_store};
use gateway_tests::Client;
use serde_json::{Value, json};

in_each_store! {
    a_recorded_session_of_todays_clients,
    the_documented_line_registers,
    a_restarted_vm_replaces_its_entry,
    strict_clients_get_their_conflict,
    a_heartbeat_makes_a_stopped_vm_discoverable_again,
    discovery_is_narrowed_by_its_query,
    who_has_the_answer_is_told_that_it_is_the_same,
}

/// The answer has all of this; what it has beyond, old clients ignore.
fn has(answer: &Value, expected: &Value) -> bool {
    match (answer, expected) {
        (Value::Object(answer), Value::Object(expected)) => {
            expected.iter().all(|(key, expected)| answer.get(key).is_some_and(|value| has(value, expected)))
        }
        (Value::Array(answer), Value::Array(expected)) => {
            answer.len() == expected.len() && answer.iter().zip(expected).all(|(a, b)| has(a, b))
        }
        (Value::String(time), Value::String(expected)) if expected == "<time>" => {
            time.len() == 24
                && time.ends_with('Z')
                && time.as_bytes()[10] == b'T'
                && time.as_bytes()[19] == b'.'
        }
        _ => answer == expected,
    }
}

async fn play(client: &Client, session: &[(&str, &str, Value, u16, Value)]) {
    for (method, path, body, status, expected) in session {
        let (found, answer) = call(client, method, path, body).await;
        assert_eq!(found, *status, "{method} {path}: {answer}");
        assert!(has(&answer, expected), "{method} {path}: {answer:#}\nhas not all of {expected:#}");
    }
}

fn agent(id: &str) -> Value {
    json!({
        "id": id, "name": "agent-1", "role": "worker", "address": format!("{id}.vm.vers.sh"),
        "services": [{ "name": "pi-rpc", "port": 3000, "healthPath": "/health" }],
        "registeredBy": "orchestrator", "metadata": { "commit": "abc", "depth": 2 }
    })
}

/// What is known of that agent.
fn entry() -> Value {
    json!({
        "id": "vm-001", "name": "agent-1", "role": "worker", "status": "running",
        "address": "vm-001.vm.vers.sh",
        "services": [{ "name": "pi-rpc", "port": 3000, "healthPath": "/health" }],
        "metadata": { "commit": "abc", "depth": 2 }, "registeredBy": "orchestrator",
        "registeredAt": "<time>", "lastSeen": "<time>"
    })
}

#[expect(clippy::too_many_lines, reason = "a table, in the order of the session")]
async fn a_recorded_session_of_todays_clients(kept: &Kept) {
    let gateway = kept.gateway("");
    let entry = entry();
    let none = json!({ "vms": [], "count": 0 });
    let one = json!({ "vms": [entry], "count": 1 });
    let unknown = json!({ "error": "VM not found" });
    let nil = Value::Null;
    let session = [
        ("GET", "/health", nil.clone(), 200, json!({ "status": "ok" })),
        ("GET", "/registry/vms", nil.clone(), 200, none.clone()),
        ("POST", "/registry/vms", agent("vm-001"), 201, entry.clone()),
        ("GET", "/registry/vms", nil.clone(), 200, one.clone()),
        ("GET", "/registry/vms?role=worker&status=running", nil.clone(), 200, one.clone()),
        ("GET", "/registry/vms?role=infra", nil.clone(), 200, none.clone()),
        ("GET", "/registry/vms?status=paused", nil.clone(), 200, none.clone()),
        ("GET", "/registry/vms/vm-001", nil.clone(), 200, entry.clone()),
        ("GET", "/registry/discover/worker", nil.clone(), 200, one.clone()),
        ("GET", "/registry/discover/lieutenant", nil.clone(), 200, none.clone()),
        ("GET", "/registry/discover/no-such-role", nil.clone(), 200, none.clone()),
        (
            "POST",
            "/registry/vms/vm-001/heartbeat",
            nil.clone(),
            200,
            json!({ "id": "vm-001", "lastSeen": "<time>" }),
        ),
        ("POST", "/registry/vms/vm-001/heartbeat", json!({}), 200, json!({ "id": "vm-001" })),
        (
            "PATCH",
            "/registry/vms/vm-001",
            json!({ "status": "paused" }),
            200,
            json!({ "status": "paused", "name": "agent-1" }),
        ),
        ("GET", "/registry/discover/worker", nil.clone(), 200, none.clone()),
        (
            "PATCH",
            "/registry/vms/vm-001",
            json!({ "status": "running", "name": " agent-2 " }),
            200,
            json!({ "name": "agent-2" }),
        ),
        (
            "PATCH",
            "/registry/vms/vm-001",
            json!({ "status": "asleep" }),
            400,
            json!({ "error": "invalid status: asleep" }),
        ),
        (
            "PATCH",
            "/registry/vms/vm-001",
            json!({ "name": "" }),
            400,
            json!({ "error": "name cannot be empty" }),
        ),
        ("PATCH", "/registry/vms/none", json!({ "status": "running" }), 404, unknown.clone()),
        (
            "GET",
            "/registry/resolve/agent-2",
            nil.clone(),
            200,
            json!({ "name": "agent-2", "vmId": "vm-001", "role": "worker", "address": "vm-001.vm.vers.sh" }),
        ),
        (
            "GET",
            "/registry/resolve/nobody",
            nil.clone(),
            404,
            json!({ "error": "No VM registered with name: nobody" }),
        ),
        ("GET", "/registry/stale", nil.clone(), 200, none.clone()),
        ("DELETE", "/registry/stale", nil.clone(), 200, json!({ "purged": 0 })),
        ("DELETE", "/registry/vms/vm-001", nil.clone(), 200, json!({ "deleted": true })),
        ("DELETE", "/registry/vms/vm-001", nil.clone(), 404, unknown.clone()),
        ("GET", "/registry/vms/vm-001", nil.clone(), 404, unknown.clone()),
        ("POST", "/registry/vms/vm-001/heartbeat", nil.clone(), 404, unknown.clone()),
        ("POST", "/registry/vms", agent("vm-001"), 201, entry.clone()),
        ("POST", "/registry/vms", json!({ "name": "x" }), 400, json!({ "error": "id is required" })),
        (
            "POST",
            "/registry/vms",
            json!({ "id": "x", "name": "x", "address": "x" }),
            400,
            json!({ "error": "invalid role: undefined" }),
        ),
    ];
    play(&gateway.client(), &session).await;
}

/// The one line of the platform's documentation, which the service before this one answered with 400.
async fn the_documented_line_registers(kept: &Kept) {
    let gateway = kept.gateway("");
    let body = json!({ "id": "vm-7", "name": "my-service", "role": "worker", "address": "vm-7.vm.vers.sh",
        "services": [{ "name": "api", "port": 3000 }] });
    let session = [
        (
            "POST",
            "/registry/vms",
            body,
            201,
            json!({ "registeredBy": "self", "state": "registered", "ttl": 45 }),
        ),
        (
            "GET",
            "/registry/discover/worker",
            Value::Null,
            200,
            json!({ "count": 1, "vms": [{ "services": [{ "url": "https://vm-7.vm.vers.sh:3000" }] }] }),
        ),
    ];
    play(&gateway.client(), &session).await;
}

/// A restarted VM got 409, and the change that its client fell back to could not say its role.
async fn a_restarted_vm_replaces_its_entry(kept: &Kept) {
    let gateway = kept.gateway("");
    let mut lieutenant = agent("vm-001");
    lieutenant["role"] = "lieutenant".into();
    let nil = Value::Null;
    let session = [
        ("POST", "/registry/vms", agent("vm-001"), 201, json!({ "role": "worker" })),
        ("POST", "/registry/vms", lieutenant, 201, json!({ "role": "lieutenant" })),
        ("GET", "/registry/discover/worker", nil.clone(), 200, json!({ "count": 0 })),
        ("GET", "/registry/discover/lieutenant", nil, 200, json!({ "count": 1 })),
    ];
    play(&gateway.client(), &session).await;
}

async fn strict_clients_get_their_conflict(kept: &Kept) {
    let gateway = kept.gateway("strict_conflict = true");
    let session = [
        ("POST", "/registry/vms", agent("vm-001"), 201, Value::Object(Default::default())),
        ("POST", "/registry/vms", agent("vm-001"), 409, json!({ "error": "VM already registered" })),
    ];
    play(&gateway.client(), &session).await;
}

/// Each turn of an agent ended with `stopped`, and its heartbeats did not make it discoverable again.
async fn a_heartbeat_makes_a_stopped_vm_discoverable_again(kept: &Kept) {
    let gateway = kept.gateway("");
    let nil = Value::Null;
    let count = |count: u64| json!({ "count": count });
    let session = [
        ("POST", "/registry/vms", agent("vm-001"), 201, json!({})),
        ("PATCH", "/registry/vms/vm-001", json!({ "status": "stopped" }), 200, json!({ "state": "stopped" })),
        ("GET", "/registry/discover/worker", nil.clone(), 200, count(0)),
        ("POST", "/registry/vms/vm-001/heartbeat", nil.clone(), 200, json!({})),
        ("GET", "/registry/discover/worker", nil.clone(), 200, count(1)),
        (
            "POST",
            "/registry/vms/vm-001/heartbeat",
            json!({ "status": "draining" }),
            200,
            json!({ "state": "draining" }),
        ),
        ("GET", "/registry/discover/worker", nil.clone(), 200, count(0)),
        (
            "GET",
            "/registry/discover/worker?all=1",
            nil,
            200,
            json!({ "vms": [{ "why": "its owner says that it is draining" }] }),
        ),
    ];
    play(&gateway.client(), &session).await;
}

async fn discovery_is_narrowed_by_its_query(kept: &Kept) {
    let gateway = kept.gateway("");
    let client = gateway.client();
    for n in 0..5 {
        let mut vm = agent(&format!("vm-{n}"));
        if n > 2 {
            vm["services"] = json!([{ "name": "db", "port": 5432 }]);
        }
        super::register(&client, &vm).await;
    }
    for (query, expected) in [
        ("", 5),
        ("?service=db", 2),
        ("?service=none", 0),
        ("?limit=3", 3),
        ("?limit=0", 0),
        ("?pick=first", 1),
        ("?pick=random", 1),
        ("?pick=random&limit=4", 4),
        ("?healthy=1", 5),
    ] {
        let (status, found) =
            call(&client, "GET", &format!("/registry/discover/worker{query}"), &Value::Null).await;
        assert_eq!((status, &found["count"]), (200, &expected.into()), "{query}: {found}");
        assert_eq!(found["vms"].as_array().map(Vec::len), Some(expected), "{query}");
    }
    for query in ["?pick=best", "?limit=some"] {
        let (status, answer) =
            call(&client, "GET", &format!("/registry/discover/worker{query}"), &Value::Null).await;
        assert_eq!(status, 400, "{query}: {answer}");
    }
    let mut picked = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let (_, found) = call(&client, "GET", "/registry/discover/worker?pick=random", &Value::Null).await;
        picked.insert(super::ids(&found)[0].to_owned());
    }
    assert_eq!(picked.len(), 5, "each of them");
}

async fn who_has_the_answer_is_told_that_it_is_the_same(kept: &Kept) {
    let gateway = kept.gateway("");
    let client = gateway.client();
    super::register(&client, &agent("vm-1")).await;
    let first = client.get("/registry/discover/worker").await;
    let etag = first.header("etag").to_owned();
    let again = client.clone().with("if-none-match", &etag);
    for path in ["/registry/discover/worker", "/registry/vms?role=worker"] {
        call(&client, "POST", "/registry/vms/vm-1/heartbeat", &Value::Null).await;
        let answer = again.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0), "{path}: a renewal is no change");
    }
    super::register(&client, &agent("vm-2")).await;
    let answer = again.get("/registry/discover/worker").await;
    assert_eq!(answer.status, 200);
    assert_ne!(answer.header("etag"), etag);
}
