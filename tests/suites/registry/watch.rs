//! Changes as they come: who waits for an answer, and who reads a stream.

use super::{Kept, call, in_each_store, register, vm};
use gateway_tests::{Http2, Raw, TestGateway, within};
use serde_json::{Value, json};
use std::time::Duration;

in_each_store! {
    who_waits_gets_changes_when_they_come_and_misses_none,
    a_stream_has_each_change_and_can_be_resumed,
    a_stream_ends_well_with_its_gateway,
    who_waits_is_answered_when_the_gateway_goes,
    a_stream_over_http2_is_the_same,
}

async fn revision(gateway: &TestGateway) -> u64 {
    let (_, listed) = call(&gateway.client(), "GET", "/registry/vms", &Value::Null).await;
    listed["revision"].as_u64().expect("a revision")
}

async fn who_waits_gets_changes_when_they_come_and_misses_none(kept: &Kept) {
    let gateway = kept.gateway("");
    let client = gateway.client();
    let since = revision(&gateway).await;
    let path = format!("/registry/watch?since={since}");
    let waiting = tokio::spawn({
        let (client, path) = (client.clone(), path.clone());
        async move { call(&client, "GET", &path, &Value::Null).await }
    });
    gateway_tests::eventually("a watcher", async || {
        (gateway.metric("vers_registry_watchers", &[]).await == 1.0).then_some(())
    })
    .await;
    register(&client, &vm("a")).await;
    let (status, answer) = within("the change", waiting).await.expect("no panic");
    assert_eq!((status, &answer["changes"][0]["vm"]["id"]), (200, &json!("a")), "{answer}");
    let seen = answer["revision"].as_u64().expect("a revision");
    call(&client, "POST", "/registry/vms/a/heartbeat", &Value::Null).await;
    register(&client, &vm("b")).await;
    call(&client, "DELETE", "/registry/vms/a", &Value::Null).await;
    let (_, answer) = call(&client, "GET", &format!("/registry/watch?since={seen}"), &Value::Null).await;
    let kinds: Vec<&str> =
        answer["changes"].as_array().expect("changes").iter().filter_map(|it| it["kind"].as_str()).collect();
    assert_eq!(kinds, ["put", "gone"], "{answer}");
    let last = answer["revision"].as_u64().expect("a revision");
    let nothing = format!("/registry/watch?since={last}&wait=0");
    let (status, answer) = call(&client, "GET", &nothing, &Value::Null).await;
    assert_eq!((status, answer), (200, json!({ "revision": last, "changes": [] })));
    for of_another_life in [1, last + 1000] {
        let path = format!("/registry/watch?since={of_another_life}");
        let (status, answer) = call(&client, "GET", &path, &Value::Null).await;
        assert_eq!((status, &answer["revision"]), (410, &last.into()), "{answer}");
    }
}

async fn a_stream_has_each_change_and_can_be_resumed(kept: &Kept) {
    let gateway = kept.gateway("");
    let client = gateway.client();
    let mut stream = Raw::connect(gateway.addr()).await;
    let ask = "GET /registry/watch HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n";
    stream.send(format!("{ask}\r\n")).await;
    let begun = stream.until(": changes of the registry\n\n").await;
    assert!(
        begun.starts_with("HTTP/1.1 200") && begun.contains("content-type: text/event-stream"),
        "{begun}"
    );
    for id in ["a", "b", "c"] {
        register(&client, &vm(id)).await;
        let event = stream.until("\n\n").await;
        assert!(event.contains("event: change\ndata: {\"kind\":\"put\""), "{event}");
        assert!(event.contains(&format!("\"id\":\"{id}\"")), "{event}");
    }
    drop(stream);
    let (_, a) = call(&client, "GET", "/registry/vms/a", &Value::Null).await;
    let mut stream = Raw::connect(gateway.addr()).await;
    stream.send(format!("{ask}last-event-id: {}\r\n\r\n", a["revision"])).await;
    let resumed = stream.until("\"id\":\"c\"").await;
    assert!(resumed.contains("\"id\":\"b\"") && !resumed.contains("\"id\":\"a\""), "{resumed}");
    let mut stream = Raw::connect(gateway.addr()).await;
    stream.send(format!("{ask}last-event-id: 1\r\n\r\n")).await;
    stream.until("event: reset\ndata: {\"revision\":").await;
}

async fn a_stream_ends_well_with_its_gateway(kept: &Kept) {
    let gateway = kept.gateway("");
    let mut stream = Raw::connect(gateway.addr()).await;
    stream.send("GET /registry/watch HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n").await;
    stream.until(": changes of the registry\n\n").await;
    gateway.stop(Duration::from_secs(30)).await;
    let end = stream.to_end().await;
    assert!(end.ends_with("0\r\n\r\n"), "{end}");
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_it_was_opened_with() {
    let toml = super::text("store = \"memory\"\ntoken = \"fleet\"\n[secret.fleet]\nfile = \"token\"");
    let gateway = TestGateway::with_files(&toml, &[("token", "s3cret")]);
    let ask = "GET /registry/watch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer s3cret\r\n";
    let mut stream = Raw::connect(gateway.addr()).await;
    stream.send(format!("{ask}accept: text/event-stream\r\n\r\n")).await;
    stream.until(": changes of the registry\n\n").await;
    // What has nothing to do with it ends no stream.
    gateway.write(&toml.replace("[secret", "ttl = \"60s\"\n[secret"));
    gateway.reload().await.expect("a reload");
    register(&gateway.client().with("authorization", "Bearer s3cret"), &vm("a")).await;
    let event = stream.until("\n\n").await;
    assert!(event.contains("\"id\":\"a\""), "{event}");
    let mut waiting = Raw::connect(gateway.addr()).await;
    waiting.send(format!("{ask}connection: close\r\n\r\n")).await;
    gateway_tests::eventually("both watchers", async || {
        (gateway.metric("vers_registry_watchers", &[]).await == 2.0).then_some(())
    })
    .await;
    std::fs::write(gateway.folder().join("token"), "another").expect("a file");
    gateway.reload().await.expect("a reload");
    let client = gateway.client().with("authorization", "Bearer another");
    register(&client, &vm("b")).await;
    let end = stream.to_end().await;
    assert!(end.ends_with("0\r\n\r\n") && !end.contains("\"id\":\"b\""), "{end}");
    let answer = waiting.to_end().await;
    assert!(answer.ends_with("\"changes\":[]}"), "{answer}");
}

async fn who_waits_is_answered_when_the_gateway_goes(kept: &Kept) {
    let gateway = kept.gateway("");
    let mut waiting = Raw::connect(gateway.addr()).await;
    waiting.send("GET /registry/watch HTTP/1.1\r\nhost: x\r\n\r\n").await;
    gateway_tests::eventually("a watcher", async || {
        (gateway.metric("vers_registry_watchers", &[]).await == 1.0).then_some(())
    })
    .await;
    gateway.stop(Duration::from_secs(30)).await;
    let answer = waiting.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\"changes\":[]}"), "{answer}");
}

async fn a_stream_over_http2_is_the_same(kept: &Kept) {
    let gateway = kept.gateway("");
    let mut client = Http2::connect(gateway.addr()).await;
    let mut request = client.get("/registry/watch");
    request.headers_mut().insert("accept", "text/event-stream".parse().expect("a value"));
    let (answer, _) = client.open(request, true).await;
    let mut body = within("its head", answer).await.expect("an answer").into_body();
    register(&gateway.client(), &vm("a")).await;
    let mut text = String::new();
    while !text.contains("\"id\":\"a\"") {
        let bytes = within("the change", body.data()).await.expect("more").expect("bytes");
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    assert!(text.contains("event: change"), "{text}");
}
