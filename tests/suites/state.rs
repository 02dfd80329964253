//! What plugins keep from request to request: shared by workers and reloads, apart from each other's, bounded.

use futures_util::future::join_all;
use gateway_tests::{Backend, TestGateway, guest, one_route, plugin, plugin_table};
use std::net::SocketAddr;

/// A route behind rate limits of these names, each with three requests at once.
fn toml(backend: SocketAddr, names: &[&str], grant: &str) -> String {
    let limit = |name: &&str| {
        let more = format!(
            "grants = {{ kv = \"{grant}\" }}\nconfig = {{ requests = 1, per = \"60m\", burst = 3, by = \"x-user\" }}\n"
        );
        plugin_table(name, &plugin("rate_limit"), &more)
    };
    let tables: String = names.iter().map(limit).collect();
    format!("{}[gateway]\nworkers = 4\n", one_route(backend, &format!("plugins = {names:?}\n{tables}")))
}

/// How many of ten requests pass, each on a connection of its own.
async fn passed(gateway: &TestGateway, user: &str) -> usize {
    let asked = join_all((0..10).map(async |_| {
        let answer = gateway.client().with("x-user", user).get("/").await;
        match answer.status.as_u16() {
            200 => true,
            429 => {
                let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
                assert!((1..=3600).contains(&seconds), "{seconds}");
                false
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }));
    asked.await.into_iter().filter(|passed| *passed).count()
}

#[tokio::test]
async fn all_workers_count_together_and_a_reload_forgets_nothing() {
    let backend = Backend::hello().await;
    let good = toml(backend.addr(), &["limit"], "64KiB");
    let gateway = TestGateway::start(&good);
    assert_eq!(passed(&gateway, "ann").await, 3);
    assert_eq!(passed(&gateway, "bob").await, 3);
    let kept = &gateway.operator().plugin("limit").await["kv"];
    assert_eq!(kept["granted"], 65536);
    assert!((100..400).contains(&kept["bytes"].as_u64().expect("bytes")), "two clients: {kept}");
    assert_eq!(backend.heard().len(), 6, "what is over the limit reaches no backend");
    // Another configuration of it, and so other instances.
    gateway.write(&good.replace("burst = 3", "burst = 4"));
    gateway.reload().await.expect("a good configuration");
    assert_eq!(passed(&gateway, "ann").await, 1, "three of four are used up");
}

#[tokio::test]
async fn a_reload_that_is_refused_bounds_nothing() {
    let backend = Backend::hello().await;
    let good = toml(backend.addr(), &["limit"], "64KiB");
    let gateway = TestGateway::start(&good);
    assert_eq!(passed(&gateway, "ann").await, 3);
    let small = good.replace("64KiB", "150B");
    gateway.write(&format!("{small}[plugin.missing]\ncomponent = \"missing.wasm\"\n"));
    gateway.reload().await.expect_err("there is no such component");
    let granted = async || gateway.operator().plugin("limit").await["kv"]["granted"].clone();
    assert_eq!((granted().await, passed(&gateway, "bob").await), (65536.into(), 3), "as before");
    gateway.write(&small);
    gateway.reload().await.expect("a good configuration");
    assert_eq!(
        (granted().await, passed(&gateway, "eve").await),
        (150.into(), 0),
        "now there is room for none"
    );
}

#[tokio::test]
async fn each_plugin_has_its_own() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::start(&toml(backend.addr(), &["one", "two"], "64KiB"));
    assert_eq!(passed(&gateway, "ann").await, 3, "together they would have counted each request twice");
}

#[tokio::test]
async fn the_grant_bounds_it_and_without_one_nothing_is_kept() {
    let backend = Backend::hello().await;
    // Room for one client.
    let small = toml(backend.addr(), &["limit"], "150B");
    let gateway = TestGateway::start(&small);
    assert_eq!(passed(&gateway, "ann").await, 3);
    assert_eq!(passed(&gateway, "bob").await, 0);
    let allowed = small.replace("burst = 3", "burst = 3, when_full = \"allow\"");
    gateway.write(&allowed);
    gateway.reload().await.expect("a good configuration");
    assert_eq!(passed(&gateway, "bob").await, 10);
    gateway.write(&small.replace("kv = \"150B\"", ""));
    let refused = gateway.reload().await.expect_err("it imports kv").text;
    assert!(refused.contains("kv@0.1.0`, which is not granted"), "{refused}");
    assert!(refused.contains("grants = { kv = \"64KiB\" }"), "{refused}");
}

#[tokio::test]
async fn many_requests_for_the_same_value_ask_for_it_once() {
    let (backend, source) = (Backend::hello().await, Backend::hello().await);
    let more = format!(
        "grants = {{ kv = \"64KiB\", http = [\"http://{0}\"] }}\nconfig = {{ url = \"http://{0}/value\" }}\n",
        source.addr()
    );
    let table = plugin_table("once", &guest("single_flight"), &more);
    let gateway = TestGateway::start(&one_route(backend.addr(), &format!("plugins = [\"once\"]\n{table}")));
    let answers = join_all((0..20).map(async |_| gateway.client().get("/").await)).await;
    for answer in answers {
        assert_eq!(
            (answer.status.as_u16(), answer.text().contains("hello")),
            (200, true),
            "{}",
            answer.text()
        );
    }
    assert_eq!(source.heard().len(), 1);
}
