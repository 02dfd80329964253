//! The OpenAPI document, against what is served: every call that it has, every status that is seen, every
//! field of every answer.

use super::{Kept, ask, in_each_store};
use serde_json::{Value, json};

in_each_store! { the_document_says_what_is_served }

/// Checks a value against a schema, as far as the document uses what there is.
fn check(document: &Value, schema: &Value, value: &Value, place: &str, problems: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(reference.trim_start_matches('#')).expect("what is referred to");
        return check(document, schema, value, place, problems);
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        problems.push(format!("{place}: {value} is none of {words:?}"));
    }
    let is_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !is_type {
        problems.push(format!("{place}: {value} is no {}", schema["type"]));
    }
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(key).is_none() {
            problems.push(format!("{place}: {key} is absent from {value}"));
        }
    }
    if let (Some(known), Some(fields)) = (schema["properties"].as_object(), value.as_object()) {
        for (key, value) in fields {
            match known.get(key) {
                Some(schema) => check(document, schema, value, &format!("{place}.{key}"), problems),
                None => problems.push(format!("{place}: {key} is not described")),
            }
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(document, &schema["items"], item, &format!("{place}[{index}]"), problems);
    }
}

#[expect(clippy::too_many_lines, reason = "mostly a table")]
async fn the_document_says_what_is_served(kept: &Kept) {
    let gateway = kept.gateway("");
    let client = gateway.client();
    let document: Value =
        serde_json::from_slice(&client.get("/registry/openapi.json").await.body).expect("JSON");
    let full = json!({ "id": "a", "name": "n", "role": "worker", "address": "a.test", "status": "running",
        "services": [{ "name": "api", "port": 80, "healthPath": "/" }], "metadata": { "x": 1 },
        "registeredBy": "test", "ttl": 60, "generation": 1 });
    let old = json!({ "id": "a", "name": "n", "role": "worker", "address": "a.test", "generation": 0 });
    let nil = Value::Null;
    let calls = [
        ("GET", "/health", "/health", nil.clone()),
        ("GET", "/registry/openapi.json", "/registry/openapi.json", nil.clone()),
        ("POST", "/registry/vms", "/registry/vms", full.clone()),
        ("POST", "/registry/vms", "/registry/vms", old),
        ("POST", "/registry/vms", "/registry/vms", json!({})),
        ("POST", "/registry/vms", "/registry/vms", json!({ "id": "x".repeat(9000) })),
        ("GET", "/registry/vms", "/registry/vms?role=worker", nil.clone()),
        ("GET", "/registry/vms", "/registry/vms?limit=0", nil.clone()),
        ("GET", "/registry/vms", "/registry/vms?after=x", nil.clone()),
        ("GET", "/registry/vms/{id}", "/registry/vms/a", nil.clone()),
        ("GET", "/registry/vms/{id}", "/registry/vms/none", nil.clone()),
        ("POST", "/registry/vms/{id}/heartbeat", "/registry/vms/a/heartbeat", json!({ "ttl": "90s" })),
        ("POST", "/registry/vms/{id}/heartbeat", "/registry/vms/a/heartbeat", json!({ "ttl": "soon" })),
        ("POST", "/registry/vms/{id}/heartbeat", "/registry/vms/none/heartbeat", nil.clone()),
        ("POST", "/registry/vms/{id}/heartbeat", "/registry/vms/a/heartbeat", json!({ "generation": 0 })),
        ("PATCH", "/registry/vms/{id}", "/registry/vms/a", json!({ "generation": 0 })),
        ("DELETE", "/registry/vms/{id}", "/registry/vms/a?generation=0", nil.clone()),
        ("DELETE", "/registry/vms/{id}", "/registry/vms/a?generation=x", nil.clone()),
        ("GET", "/registry/discover/{role}", "/registry/discover/worker", nil.clone()),
        ("GET", "/registry/discover/{role}", "/registry/discover/worker?limit=x", nil.clone()),
        ("GET", "/registry/resolve/{name}", "/registry/resolve/n", nil.clone()),
        ("GET", "/registry/resolve/{name}", "/registry/resolve/none", nil.clone()),
        ("PATCH", "/registry/vms/{id}", "/registry/vms/a", json!({ "status": "draining" })),
        ("PATCH", "/registry/vms/{id}", "/registry/vms/a", json!({ "status": 7 })),
        ("PATCH", "/registry/vms/{id}", "/registry/vms/none", json!({})),
        ("GET", "/registry/watch", "/registry/watch?since=1", nil.clone()),
        ("GET", "/registry/watch", "/registry/watch?since=x", nil.clone()),
        ("GET", "/registry/watch", "/registry/watch?wait=0", nil.clone()),
        ("GET", "/registry/stale", "/registry/stale", nil.clone()),
        ("DELETE", "/registry/stale", "/registry/stale", nil.clone()),
        ("DELETE", "/registry/vms/{id}", "/registry/vms/a", nil.clone()),
        ("DELETE", "/registry/vms/{id}", "/registry/vms/a", nil.clone()),
    ];
    let mut problems = Vec::new();
    for (method, template, path, body) in &calls {
        let operation = &document["paths"][template][method.to_lowercase()];
        let answer = ask(&client, method, path, body).await;
        let response = &operation["responses"][answer.status.as_str()];
        let place = format!("{method} {path} {}", answer.status);
        if response.is_null() {
            problems.push(format!("{place} is not described: {}", answer.text()));
            continue;
        }
        let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let schema = &response["content"]["application/json"]["schema"];
        check(&document, schema, &value, &place, &mut problems);
    }
    for (template, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let is_called =
                calls.iter().any(|(known, path, ..)| path == template && known.to_lowercase() == *method);
            if !is_called {
                problems.push(format!("{method} {template} is described, and not tried"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let answer = ask(&client, "PUT", "/registry/vms/a", &full).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET, PATCH, DELETE"));
    assert_eq!(ask(&client, "GET", "/registry/nothing", &Value::Null).await.status, 404);
}
