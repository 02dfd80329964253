//! Backends whose servers are those that are registered, here or in a registry elsewhere.

use super::{HERE, Kept, OF_TESTS, call, in_each_store, register, vm};
use gateway_tests::{Asleep, Backend, Client, TestGateway, eventually};
use serde_json::{Value, json};
use std::net::SocketAddr;

in_each_store! {
    servers_come_and_go_and_those_that_stay_keep_their_connections,
    one_that_fails_is_left_alone_though_it_is_registered,
}

/// A registry, and a route to the workers that are registered in it.
fn with_workers(backend: &str, more: &str) -> String {
    with_workers_in(&Kept::here(), backend, more)
}

fn with_workers_in(kept: &Kept, backend: &str, more: &str) -> String {
    format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\npath = \"/registry/*\"\nto = \"registry\"\n\
         [[route]]\nname = \"work\"\nto = \"workers\"\n\
         [backend.workers]\ndiscover = {{ role = \"worker\", service = \"api\" }}\n{backend}\n\
         [registry]\n{}\n{more}\n",
        kept.of_tests()
    )
}

/// A gateway that follows the registry there.
fn follower(registry: SocketAddr, more: &str) -> String {
    format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"work\"\nto = \"workers\"\n\
         [backend.workers]\ndiscover = {{ role = \"worker\", service = \"api\" }}\n\
         [registry]\n{HERE}\nurl = \"http://{registry}\"\n{more}\n"
    )
}

fn worker(id: &str, server: SocketAddr) -> Value {
    let mut worker = vm(id);
    worker["address"] = server.ip().to_string().into();
    worker["services"] = json!([{ "name": "ssh", "port": 1 }, { "name": "api", "port": server.port() }]);
    worker
}

async fn named(name: &'static str) -> Backend {
    Backend::http(move |_| http::Response::new(name.into())).await
}

/// What answers `/`: a text, or the gateway's error.
async fn visit(client: &Client) -> String {
    let answer = client.get("/").await;
    match answer.header("x-gateway-error") {
        "" => answer.text(),
        error => format!("{} {error}", answer.status.as_u16()),
    }
}

async fn is_served_by(client: &Client, expected: &[&str]) {
    let all = async || {
        let mut seen = Vec::new();
        for _ in 0..2 * expected.len() {
            seen.push(visit(client).await);
        }
        seen.sort();
        seen.dedup();
        (seen == expected).then_some(())
    };
    eventually(&format!("{expected:?}"), all).await;
}

async fn remove(client: &Client, id: &str) {
    let (status, answer) = call(client, "DELETE", &format!("/registry/vms/{id}"), &Value::Null).await;
    assert_eq!(status, 200, "{answer}");
}

const NOBODY: &str = "503 upstream-none-registered";

async fn servers_come_and_go_and_those_that_stay_keep_their_connections(kept: &Kept) {
    let (one, other) = (named("one").await, Backend::named_v6("other").await);
    let gateway = TestGateway::start(&with_workers_in(kept, "", ""));
    let client = gateway.client();
    let answer = client.get("/").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.text(),
        "503 Service Unavailable: nobody is registered now who serves this (upstream-none-registered)\n"
    );
    register(&client, &worker("a", one.addr())).await;
    is_served_by(&client, &["one"]).await;
    register(&client, &worker("b", other.addr())).await;
    is_served_by(&client, &["one", "other"]).await;
    remove(&client, "b").await;
    is_served_by(&client, &["one"]).await;
    register(&client, &worker("b", other.addr())).await;
    is_served_by(&client, &["one", "other"]).await;
    assert_eq!(one.connections(), 1, "what stays is not connected to anew");
    assert_eq!(other.connections(), 2);
    // Who says that it is draining gets nothing new.
    let draining = json!({ "status": "draining" });
    call(&client, "POST", "/registry/vms/a/heartbeat", &draining).await;
    is_served_by(&client, &["other"]).await;
    let status = gateway.status().await;
    assert_eq!(status["backends"][0]["servers"][0]["address"], other.addr().to_string(), "{status}");
    assert_eq!(status["registry"]["entries"], 2, "{status}");
    remove(&client, "b").await;
    eventually("nobody", async || (visit(&client).await == NOBODY).then_some(())).await;
    let none = gateway.metric("vers_gateway_errors_total", &["code=\"upstream-none-registered\""]).await;
    assert!(none > 1.0, "{none}");
}

#[tokio::test]
async fn who_registers_does_not_lead_requests_into_the_gateways_own_machine() {
    let inside = Backend::named_v6("inside").await;
    let toml = with_workers("", "").replace(HERE, "");
    let gateway = TestGateway::start(&toml);
    let client = gateway.client();
    register(&client, &worker("a", inside.addr())).await;
    let mut named = worker("b", inside.addr());
    named["address"] = "localhost".into();
    register(&client, &named).await;
    // Which addresses a name has, is known when it is connected to.
    let refusals = ["502 upstream-unknown-host", "503 upstream-down"];
    eventually("its refusal", async || refusals.contains(&&*visit(&client).await).then_some(())).await;
    let status = gateway.status().await;
    let servers: Vec<_> = status["backends"][0]["servers"].as_array().into_iter().flatten().collect();
    assert_eq!(servers.len(), 1, "{status}");
    assert_eq!(inside.connections(), 0);
    gateway.write(&with_workers("", ""));
    gateway.reload().await.expect("a reload");
    is_served_by(&client, &["inside"]).await;
}

#[tokio::test]
async fn a_reload_forgets_no_server_and_a_restart_finds_them_again() {
    let one = named("one").await;
    let toml = with_workers("", "").replace("\"memory\"", "\"file:registry.redb\"");
    let gateway = TestGateway::start(&toml);
    let client = gateway.client();
    register(&client, &worker("a", one.addr())).await;
    is_served_by(&client, &["one"]).await;
    gateway.write(&toml.replace("[backend.workers]", "[backend.workers]\nbalance = \"random\""));
    gateway.reload().await.expect("a reload");
    assert_eq!(visit(&client).await, "one", "from the first request on");
    gateway.write(&toml.replace("service = \"api\"", "service = \"db\""));
    gateway.reload().await.expect("a reload");
    eventually("nobody", async || (visit(&client).await == NOBODY).then_some(())).await;
    let kept = std::fs::read(gateway.folder().join("registry.redb"));
    assert!(kept.is_ok(), "{kept:?}");
}

#[tokio::test]
async fn a_reload_that_is_refused_changes_no_server() {
    let one = named("one").await;
    let toml = with_workers("", "");
    let gateway = TestGateway::start(&toml);
    let client = gateway.client();
    register(&client, &worker("a", one.addr())).await;
    is_served_by(&client, &["one"]).await;
    // It is no server by these networks; but one of these listeners cannot be had.
    let elsewhere = toml.replace(HERE, "networks = [\"2001:db8::/32\"]");
    let taken = format!("[[listener]]\naddress = \"{}\"\n", one.addr());
    gateway.write(&format!("{taken}{elsewhere}"));
    let refused = gateway.reload().await.expect_err("somebody listens there");
    assert!(refused.text.contains("cannot listen"), "{refused}");
    for _ in 0..4 {
        assert_eq!(visit(&client).await, "one");
    }
    gateway.write(&elsewhere);
    gateway.reload().await.expect("a reload");
    assert_eq!(visit(&client).await, NOBODY, "from the first request on");
}

async fn one_that_fails_is_left_alone_though_it_is_registered(kept: &Kept) {
    let (one, asleep) = (named("one").await, Asleep::new());
    let gateway =
        TestGateway::start(&with_workers_in(kept, "ejection = { first = \"1h\", longest = \"1h\" }", ""));
    let client = gateway.client();
    register(&client, &worker("a", asleep.addr())).await;
    register(&client, &worker("b", one.addr())).await;
    is_served_by(&client, &["one"]).await;
    let has_state = async |state: &str| {
        let server = gateway.operator().server(asleep.addr()).await;
        (server["state"] == state).then_some(())
    };
    eventually("its ejection", async || {
        visit(&client).await;
        has_state("ejected").await
    })
    .await;
    for _ in 0..4 {
        assert_eq!(visit(&client).await, "one");
    }
}

#[tokio::test]
async fn vms_behind_their_edge_are_reached_over_tls_by_their_public_names() {
    let (pki, app) = (gateway_tests::Pki::new(), named("the VM").await);
    let pair = pki.issue(&["localhost"]);
    // It finds the VM by the host that it is asked for, and shows a certificate for that.
    let edge = format!(
        "[[listener]]\naddress = \"[::]:0\"\ntls = true\n[[route]]\nhost = \"localhost\"\nto = \"{}\"\n{}",
        app.addr(),
        gateway_tests::certificate_table("web")
    );
    let edge = TestGateway::with_files(&edge, &[("web.pem", &pair.cert), ("web-key.pem", &pair.key)]);
    let toml = with_workers("tls = { ca = \"ca.pem\" }\nhost = \"server\"", "");
    let gateway = TestGateway::with_files(&toml, &[("ca.pem", pki.certificate())]);
    let client = gateway.client();
    let mut vm = worker("a", edge.addr());
    vm["address"] = "localhost".into();
    register(&client, &vm).await;
    is_served_by(&client, &["the VM"]).await;
    assert_eq!(app.last().header("host"), format!("localhost:{}", edge.addr().port()));
    // One whose certificate is not for the address that it registered, is none that serves.
    vm["address"] = "127.0.0.1".into();
    register(&client, &vm).await;
    let refusals = ["502 upstream-tls-failed", "503 upstream-down"];
    eventually("its refusal", async || refusals.contains(&&*visit(&client).await).then_some(())).await;
}

#[tokio::test]
async fn checks_of_a_backend_ask_whoever_is_registered() {
    let sick = Backend::http(|heard| {
        let is_check = heard.uri.path() == "/health";
        let answer = http::Response::builder().status(if is_check { 500 } else { 200 });
        answer.body("sick".into()).expect("an answer")
    })
    .await;
    let one = named("one").await;
    let health = "health = { path = \"/health\", interval = \"20ms\", unhealthy = 1 }";
    let gateway = TestGateway::start(&with_workers(health, ""));
    let client = gateway.client();
    register(&client, &worker("a", sick.addr())).await;
    register(&client, &worker("b", one.addr())).await;
    let state = async || {
        let status = gateway.status().await;
        let servers = status["backends"][0]["servers"].as_array().cloned().unwrap_or_default();
        let is_sick = |it: &&Value| it["address"] == sick.addr().to_string();
        (servers.iter().find(is_sick)?["state"] == "unhealthy").then_some(())
    };
    eventually("its check", state).await;
    // Its verdict may be there before the other server is.
    is_served_by(&client, &["one"]).await;
    for _ in 0..4 {
        assert_eq!(visit(&client).await, "one");
    }
}

#[tokio::test]
async fn connections_that_are_no_http_are_carried_to_who_is_registered() {
    let echo = Backend::tcp_echo().await;
    let gateway = TestGateway::start(&format!(
        "[[listener]]\nname = \"web\"\naddress = \"[::]:0\"\n[[listener]]\nname = \"raw\"\naddress = \"[::1]:0\"\n\
         protocol = \"tcp\"\n[[route]]\nlisteners = [\"web\"]\nto = \"registry\"\n\
         [[route]]\nname = \"raw\"\nlisteners = [\"raw\"]\nprotocol = \"tcp\"\nto = \"workers\"\n\
         [backend.workers]\ndiscover = {{ role = \"worker\", service = \"api\" }}\n[registry]\n{OF_TESTS}\n",
    ));
    let client = Client::new(gateway.addr_of("web"));
    register(&client, &worker("a", echo.addr())).await;
    let carried = async || {
        let mut raw = gateway_tests::Raw::connect(gateway.addr_of("raw")).await;
        raw.send("hello").await;
        raw.finish().await;
        (raw.to_end().await == "hello").then_some(())
    };
    eventually("an echo", carried).await;
}

/// A registry elsewhere, whose address stays the same whoever answers there.
struct Elsewhere {
    way: TestGateway,
}

impl Elsewhere {
    fn text(registry: SocketAddr) -> String {
        gateway_tests::one_route(registry, "timeouts = { connect = \"1s\" }")
    }

    async fn move_to(&self, registry: SocketAddr) {
        self.way.write(&Self::text(registry));
        self.way.reload().await.expect("a reload");
    }
}

#[tokio::test]
async fn a_registry_elsewhere_is_followed_and_outlived() {
    let (one, other) = (named("one").await, named("other").await);
    let secret = "token = \"fleet\"\n[secret.fleet]\nfile = \"token\"\n";
    let files = [("token", "s3cret\n")];
    let infra = || {
        let toml = super::text(&format!("store = \"memory\"\n{secret}"));
        TestGateway::with_files(&toml, &files)
    };
    let first = infra();
    let elsewhere = Elsewhere { way: TestGateway::start(&Elsewhere::text(first.addr())) };
    let to_first = first.client().with("authorization", "Bearer s3cret");
    register(&to_first, &worker("a", one.addr())).await;
    let gateway = TestGateway::with_files(&follower(elsewhere.way.addr(), secret), &files);
    let client = gateway.client();
    is_served_by(&client, &["one"]).await;
    register(&to_first, &worker("b", other.addr())).await;
    is_served_by(&client, &["one", "other"]).await;
    remove(&to_first, "a").await;
    is_served_by(&client, &["other"]).await;
    assert_eq!(gateway.status().await["registry"]["trouble"], Value::Null);

    first.stop(std::time::Duration::ZERO).await;
    let trouble = async || {
        let registry = gateway.status().await["registry"].clone();
        (!registry["trouble"].is_null()).then_some(registry)
    };
    let said = eventually("its silence", trouble).await;
    assert_eq!(
        (said["trouble"].as_str(), said["entries"].as_u64()),
        (Some("it answered 502 Bad Gateway"), Some(1))
    );
    assert!(said["age_seconds"].is_number(), "{said}");
    assert_eq!(visit(&client).await, "other", "what it said last holds");
    assert!(gateway.metric("vers_registry_remote_failures_total", &[]).await >= 1.0);
    let age = async || (gateway.metric("vers_registry_remote_age_seconds", &[]).await >= 1.0).then_some(());
    eventually("its age", age).await;

    let second = infra();
    let to_second = second.client().with("authorization", "Bearer s3cret");
    register(&to_second, &worker("c", one.addr())).await;
    elsewhere.move_to(second.addr()).await;
    is_served_by(&client, &["one"]).await;
    assert_eq!(gateway.status().await["registry"]["trouble"], Value::Null);
}

#[tokio::test]
async fn a_registry_that_knows_no_changes_is_asked_now_and_then() {
    let one = named("one").await;
    let infra = super::gateway("");
    register(&infra.client(), &worker("a", one.addr())).await;
    // As the former service is: no leases, and nothing to watch.
    let way = TestGateway::start(&format!(
        "{}[[route]]\npath = \"/registry/watch\"\nto = {{ respond = {{ status = 404, body = \"-\" }} }}\n",
        gateway_tests::one_route(infra.addr(), "")
    ));
    let gateway = TestGateway::start(&follower(way.addr(), ""));
    is_served_by(&gateway.client(), &["one"]).await;
}

#[tokio::test]
async fn vms_are_found_by_a_registry_elsewhere() {
    let backend = Backend::named_v6("the VM").await;
    let infra = super::gateway("");
    let mut entry = vm("a1");
    entry["address"] = "::1".into();
    register(&infra.client(), &entry).await;
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n\
         [[route]]\nname = \"vms\"\nhost = \"{{vm}}.vm.test\"\nto = \"vm:{{vm}}:{}\"\n\
         [registry]\nurl = \"http://{}\"\n[vms]\nresolve = \"registry\"\nnetworks = [\"::1/128\"]\nnegative_ttl = \"1s\"\n",
        backend.addr().port(),
        infra.addr()
    ));
    let client = gateway.client().with("host", "a1.vm.test");
    eventually("the VM", async || (client.get("/x").await.text() == "the VM").then_some(())).await;
}

/// A registry that has nothing to say: each question is answered at once.
async fn mute(since: &'static str, status: u16) -> Backend {
    Backend::http(move |heard| {
        let answer = http::Response::builder();
        let (status, body) = match heard.uri.query() {
            Some("wait=0") => (200, r#"{"revision":1,"changes":[]}"#),
            Some(_) => (status, since),
            None => (200, r#"{"vms":[],"count":0,"revision":1}"#),
        };
        answer.status(status).body(body.into()).expect("an answer")
    })
    .await
}

#[tokio::test]
async fn a_registry_that_tells_nothing_is_asked_less_and_less_often() {
    for (since, status) in [(r#"{"revision":1}"#, 410), (r#"{"revision":1,"changes":[]}"#, 200)] {
        let registry = mute(since, status).await;
        let began = std::time::Instant::now();
        let _gateway = TestGateway::start(&follower(registry.addr(), ""));
        let questions = || {
            let heard = registry.heard();
            heard.iter().filter(|heard| heard.uri.query().is_some_and(|it| it.starts_with("since"))).count()
        };
        eventually("four questions", async || (questions() >= 4).then_some(())).await;
        let least = std::time::Duration::from_millis((250 + 500 + 1000) / 2);
        assert!(began.elapsed() >= least, "{status}: four questions within {:?}", began.elapsed());
    }
}
