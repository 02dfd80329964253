//! The gateway may open no further file: who is inside does not notice, who is outside waits, and the
//! log is not flooded.

use super::Scene;
use gateway_tests::{Backend, Raw, eventually};
use std::time::Instant;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Lines about it.
fn lines(scene: &Scene) -> usize {
    let is_one = |line: &serde_json::Value| {
        line["listener"] == "[::]:0"
            && line["message"].as_str().is_some_and(|text| text.starts_with("cannot accept"))
    };
    scene.gateway.log().iter().filter(|line| is_one(line)).count()
}

#[tokio::test]
async fn open_connections_go_on_and_new_ones_wait() {
    let backend = Backend::hello().await;
    let scene = Scene::of(backend.addr(), "").await;
    let mut inside = scene.client().connect().await.expect("a connection");
    assert_eq!(inside.get("/").await.text(), "hello");
    let mut leaving = Vec::new();
    for _ in 0..20 {
        let mut client = scene.raw().await;
        client.send(GET).await;
        client.until("hello").await;
        leaving.push(client);
    }
    let before = scene.held().await;
    let began = Instant::now();
    scene.gateway.limit_files(scene.gateway.files());

    let mut outside: Vec<Raw> = Vec::new();
    for _ in 0..50 {
        outside.push(scene.raw().await);
    }
    eventually("a line about it", async || (lines(&scene) > 0).then_some(())).await;
    for _ in 0..100 {
        assert_eq!(inside.get("/").await.text(), "hello", "who is inside goes on");
    }
    // Each that leaves makes room for one, which is taken, and then there is none again.
    for client in leaving {
        drop(client);
        assert_eq!(inside.get("/").await.text(), "hello");
    }
    let told = lines(&scene);
    let most = 1 + began.elapsed().as_secs() as usize / 10;
    assert!(told <= most, "{told} lines in {:?}", began.elapsed());

    scene.gateway.limit_files(4096);
    for client in &mut outside {
        client.send(GET).await;
        client.until("hello").await;
    }
    let failed = scene.gateway.admin().metric("vers_accept_errors_total", &["listener=\"web\""]).await;
    assert!(failed > told as f64, "{failed} failed, {told} lines");
    drop(outside);
    eventually("what was held before, without those that left", async || {
        (scene.held().await.connections == before.connections - 20.0).then_some(())
    })
    .await;
    assert_eq!(scene.client().get("/").await.text(), "hello");
}
