//! A process that is stopped and goes on: time in which nobody could be heard does not count.

use super::{call, text};
use gateway_tests::{GatewayProcess, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[tokio::test]
async fn who_could_not_be_heard_has_not_expired() {
    const TTL: Duration = Duration::from_secs(5);
    let gateway = GatewayProcess::start(crate::DAEMON, &text("store = \"memory\"")).await;
    let address = gateway.admin().status().await["listeners"][0]["address"].clone();
    let address: std::net::SocketAddr = address.as_str().and_then(|it| it.parse().ok()).expect("an address");
    let client = gateway_tests::Client::new(([127, 0, 0, 1], address.port()).into());
    let entry =
        json!({ "id": "a", "name": "n", "role": "worker", "address": "a.test", "ttl": TTL.as_secs() });
    assert_eq!(call(&client, "POST", "/registry/vms", &entry).await.0, 201);
    let state = async || call(&client, "GET", "/registry/vms/a", &Value::Null).await.1["state"].clone();

    gateway.signal(Signal::STOP);
    let stopped = Instant::now();
    eventually("twice its time to live", async || (stopped.elapsed() > 2 * TTL).then_some(())).await;
    gateway.signal(Signal::CONT);
    let went_on = Instant::now();
    assert_eq!(state().await, "registered");
    eventually("its end", async || (state().await == "expired").then_some(())).await;
    let after = went_on.elapsed();
    assert!(after > TTL - Duration::from_millis(500), "it had its whole time once more, and not {after:?}");
    assert!(after < TTL + Duration::from_secs(2), "and no more: {after:?}");
}
