//! Plugins that choose where a request goes: to which backend, and as what it is asked there.

use gateway_tests::{Backend, TestGateway, one_route, plugin, plugin_table};
use std::net::SocketAddr;

/// A route to the first backend, and a canary with these grants and settings.
fn toml(backend: SocketAddr, backends: &str, config: &str) -> String {
    let more = format!("grants = {{ backends = [{backends}] }}\nconfig = {{ {config} }}\n");
    let table = plugin_table("canary", &plugin("canary"), &more);
    one_route(backend, &format!("plugins = [\"canary\"]\n{table}"))
}

#[tokio::test]
async fn requests_with_the_header_go_to_the_other_backend_and_ask_for_its_host() {
    let (old, new) = (Backend::hello().await, Backend::hello().await);
    let config = r#"to = "next", header = { name = "x-canary" }, host = "next.internal:8443""#;
    let next = format!("[backend.next]\nservers = [\"{}\"]\n", new.addr());
    let gateway = TestGateway::start(&(toml(old.addr(), "\"next\"", config) + &next));
    let client = gateway.client();
    assert_eq!(client.get("/a").await.status, 200);
    assert_eq!((old.heard().len(), new.heard().len()), (1, 0));
    let asked_for = old.last().header("host").to_owned();
    assert_eq!(client.with("x-canary", "1").get("/b?c=d").await.status, 200);
    assert_eq!((old.heard().len(), new.heard().len()), (1, 1));
    let last = new.last();
    assert_eq!(last.uri.path_and_query().map(|it| it.as_str()), Some("/b?c=d"));
    assert_eq!(last.header("host"), "next.internal:8443");
    assert_eq!(last.header("x-forwarded-host"), asked_for, "what the client asked for");
    assert_eq!(
        gateway.metric("vers_upstream_connects_total", &["backend=\"next\"", "outcome=\"connected\""]).await,
        1.0
    );
}

#[tokio::test]
async fn an_address_may_be_granted_and_a_route_need_not_have_a_backend() {
    let other = Backend::hello().await;
    let address = format!("\"{}\"", other.addr());
    let config = format!("to = {address}, header = {{ name = \"x-canary\" }}");
    let table = toml(other.addr(), &address, &config);
    let fixed = table.replacen(&format!("to = {address}"), "to = { respond = { status = 404 } }", 1);
    assert_ne!(fixed, table);
    let gateway = TestGateway::start(&fixed);
    assert_eq!(gateway.client().get("/").await.status, 404);
    assert_eq!(gateway.client().with("x-canary", "1").get("/").await.status, 200);
    assert_eq!(other.heard().len(), 1);
}

#[tokio::test]
async fn a_backend_that_is_not_granted_is_a_fault_and_no_request_leaves() {
    let (own, other) = (Backend::hello().await, Backend::hello().await);
    let config = format!("to = \"{}\", percent = 100", other.addr());
    let denied = toml(own.addr(), "", &config);
    let gateway = TestGateway::start(&denied);
    let answer = gateway.client().get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (503, "plugin-fault"));
    assert_eq!((own.heard().len(), other.heard().len()), (0, 0));
    let faults = ["plugin=\"canary\"", "kind=\"route\""];
    assert_eq!(gateway.metric("vers_plugin_faults_total", &faults).await, 1.0);

    let skipped = TestGateway::start(&denied.replace("component =", "on_error = \"skip\"\ncomponent ="));
    assert_eq!(skipped.client().get("/").await.status, 200, "as if the plugin were not there");
    assert_eq!((own.heard().len(), other.heard().len()), (1, 0));
}

#[tokio::test]
async fn of_several_plugins_the_last_one_chooses() {
    let (own, first, last) = (Backend::hello().await, Backend::hello().await, Backend::hello().await);
    let canary = |name: &str, to: &Backend, header: &str| {
        let more = format!(
            "grants = {{ backends = [\"{0}\"] }}\nconfig = {{ to = \"{0}\", header = {{ name = \"{header}\" }} }}\n",
            to.addr()
        );
        plugin_table(name, &plugin("canary"), &more)
    };
    let tables = canary("one", &first, "x-one") + &canary("two", &last, "x-two");
    let gateway =
        TestGateway::start(&one_route(own.addr(), &format!("plugins = [\"one\", \"two\"]\n{tables}")));
    let counts = || (own.heard().len(), first.heard().len(), last.heard().len());
    gateway.client().with("x-one", "1").get("/").await;
    assert_eq!(counts(), (0, 1, 0));
    gateway.client().with("x-one", "1").with("x-two", "1").get("/").await;
    assert_eq!(counts(), (0, 1, 1));
    gateway.client().get("/").await;
    assert_eq!(counts(), (1, 1, 1), "the choice was for one request");
}

#[tokio::test]
async fn a_reload_moves_the_other_backend_and_a_wrong_name_changes_nothing() {
    let (own, before, after) = (Backend::hello().await, Backend::hello().await, Backend::hello().await);
    let with = |name: &str, servers: &Backend| {
        let table = toml(own.addr(), &format!("\"{name}\""), "to = \"next\", percent = 100");
        format!("{table}[backend.next]\nservers = [\"{}\"]\n", servers.addr())
    };
    let gateway = TestGateway::start(&with("next", &before));
    assert_eq!(gateway.client().get("/").await.status, 200);
    gateway.write(&with("next", &after));
    gateway.reload().await.expect("a good configuration");
    assert_eq!(gateway.client().get("/").await.status, 200);
    gateway.write(&with("nxet", &before));
    let refused = gateway.reload().await.expect_err("there is no such backend");
    let text = refused.text;
    assert!(text.contains("no backend is named `nxet`") && text.contains("did you mean `next`"), "{text}");
    assert_eq!(gateway.client().get("/").await.status, 200);
    assert_eq!((own.heard().len(), before.heard().len(), after.heard().len()), (0, 1, 2));
}
