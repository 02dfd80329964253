//! The registry: what clients of today get, leases, what outlasts a process, and changes as they come.

mod cli; // the command line
mod clocks; // a process that is stopped
mod crash; // kill -9 at random points
mod discovery; // backends whose servers are those that are registered
mod disk; // a disk that is full
mod etcd; // several gateways, one registry: what becomes of it while members of etcd come and go
mod etcd_trouble; // an etcd that hangs, forgets, is full, or is cut off from one of the gateways
mod generations; // lives of a VM
mod health; // what is found out about services
mod keys; // whose entries may be changed by whom, and how often
mod openapi; // the document, against what is served
mod scale; // much of everything
mod session; // a recorded session of today's clients
mod watch; // changes as they come

use gateway_tests::{Answer, Client, Etcd, TestGateway, eventually, within};
use http::Method;
use serde_json::{Value, json};

/// Services of tests are on this machine.
const HERE: &str = "networks = [\"::1\", \"127.0.0.0/8\"]";

/// Of `[registry]`: that, and entries in memory.
const OF_TESTS: &str = "store = \"memory\"\nnetworks = [\"::1\", \"127.0.0.0/8\"]";

/// Where entries are kept: what holds in one place, holds in the other.
struct Kept {
    etcd: Option<Etcd>,
}

impl Kept {
    /// With the gateway itself.
    fn here() -> Self {
        Self { etcd: None }
    }

    /// In an etcd of the test's own; nowhere, where there is none.
    async fn in_etcd(test: &str) -> Option<Self> {
        Some(Self { etcd: Some(Etcd::start(test).await?) })
    }

    /// As `store` has it.
    fn store(&self) -> String {
        self.etcd.as_ref().map_or_else(|| "memory".to_owned(), Etcd::store)
    }

    /// The same, where it outlasts the gateway.
    fn lasting(&self, folder: &std::path::Path) -> String {
        let file = || format!("file:{}", folder.join("registry.redb").display());
        self.etcd.as_ref().map_or_else(file, Etcd::store)
    }

    /// Of `[registry]`: that, and services on this machine.
    fn of_tests(&self) -> String {
        format!("store = \"{}\"\n{HERE}", self.store())
    }

    /// A gateway with such a registry, with further keys of `[registry]`, and tables behind them.
    fn gateway(&self, more: &str) -> TestGateway {
        TestGateway::start(&text(&format!("{}\n{more}", self.of_tests())))
    }
}

/// Makes two tests of each function: what holds in one store, holds in the other.
macro_rules! in_each_store {
    ($($name:ident),+ $(,)?) => {
        mod in_memory {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(&crate::registry::Kept::here()).await;
                }
            )+
        }
        mod in_etcd {
            $(
                #[tokio::test]
                async fn $name() {
                    if let Some(kept) = crate::registry::Kept::in_etcd(stringify!($name)).await {
                        super::$name(&kept).await;
                    }
                }
            )+
        }
    };
}
use in_each_store;

in_each_store! {
    an_expired_entry_leaves_and_metrics_say_so,
    bodies_come_in_any_framing_and_are_bounded,
    over_http2_it_is_the_same,
    vms_are_found_by_their_entries,
    a_vm_registers_itself_comes_back_when_forgotten_and_leaves,
    a_vm_whose_service_does_not_work_is_seen_and_not_used,
}

/// A gateway with a registry in memory, with further keys of `[registry]`, and tables behind them.
fn gateway(more: &str) -> TestGateway {
    TestGateway::start(&text(&format!("{OF_TESTS}\n{more}")))
}

fn text(registry: &str) -> String {
    format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"registry\"\nto = \"registry\"\n\
         [registry]\n{registry}\n"
    )
}

fn vm(id: &str) -> Value {
    json!({ "id": id, "name": "n", "role": "worker", "address": format!("{id}.vm.test"),
        "services": [{ "name": "api", "port": 3000 }] })
}

async fn call(client: &Client, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer = ask(client, method, path, body).await;
    let value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status.as_u16(), value)
}

async fn ask(client: &Client, method: &str, path: &str, body: &Value) -> Answer {
    let method: Method = method.parse().expect("a method");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    client.send(method, path, body.into()).await
}

async fn register(client: &Client, vm: &Value) {
    let (status, answer) = call(client, "POST", "/registry/vms", vm).await;
    assert_eq!(status, 201, "{answer}");
}

fn ids(found: &Value) -> Vec<&str> {
    found["vms"].as_array().expect("VMs").iter().filter_map(|vm| vm["id"].as_str()).collect()
}

#[tokio::test]
async fn the_registry_may_ask_for_a_token_itself() {
    let secret = "token = \"fleet\"\n[secret.fleet]\nfile = \"token\"";
    let toml = text(&format!("store = \"memory\"\n{secret}"));
    let gateway = TestGateway::with_files(&toml, &[("token", "s3cret\n")]);
    let client = gateway.client();
    assert_eq!(client.get("/health").await.status, 200);
    for token in ["", "Bearer", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret"] {
        let answer = client.clone().with("authorization", token).get("/registry/vms").await;
        assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, "Bearer"), "{token}");
        assert_eq!(answer.text(), "{\"error\":\"Unauthorized\"}");
    }
    let answer = client.clone().with("authorization", "bearer s3cret").get("/registry/vms").await;
    assert_eq!(answer.status, 200);
    // Without a value it is nobody's.
    let gateway = TestGateway::start(&toml);
    assert_eq!(gateway.client().with("authorization", "Bearer ").get("/registry/vms").await.status, 401);
}

#[tokio::test]
async fn plugins_of_the_route_are_asked_first() {
    let table = gateway_tests::plugin_table(
        "auth",
        &gateway_tests::plugin("auth_token"),
        "grants = { secrets = [\"fleet\"] }\nconfig = { secret = \"fleet\", exempt = [\"/health\"] }\n",
    );
    let toml = text("store = \"memory\"").replace("to = ", "plugins = [\"auth\"]\nto = ");
    let toml = format!("{toml}{table}\n[secret.fleet]\nfile = \"token\"\n");
    let gateway = TestGateway::with_files(&toml, &[("token", "s3cret")]);
    let client = gateway.client();
    assert_eq!(client.post("/registry/vms", vm("a").to_string()).await.status, 401);
    assert_eq!(client.get("/health").await.status, 200);
    register(&client.with("authorization", "Bearer s3cret"), &vm("a")).await;
}

#[tokio::test]
async fn a_reload_loses_no_entry() {
    let gateway = TestGateway::start(&text("store = \"file:registry.redb\""));
    let client = gateway.client();
    register(&client, &vm("a")).await;
    gateway.write(&text("store = \"file:registry.redb\"\nttl = \"10s\"\nstrict_conflict = true"));
    gateway.reload().await.expect("a reload");
    assert_eq!(ids(&call(&client, "GET", "/registry/discover/worker", &Value::Null).await.1), ["a"]);
    let (status, _) = call(&client, "POST", "/registry/vms", &vm("a")).await;
    assert_eq!(status, 409, "and what may change, has");
    register(&client, &vm("b")).await;
    let (_, b) = call(&client, "GET", "/registry/vms/b", &Value::Null).await;
    assert_eq!(b["ttl"], 10);
    // One that cannot be opened is no reason to give up the one that is.
    gateway.write(&text("store = \"file:gateway.toml/registry.redb\""));
    let refused = gateway.reload().await.expect_err("there is no such folder");
    assert!(refused.text.contains("registry cannot be opened"), "{refused}");
    assert_eq!(call(&client, "GET", "/registry/vms", &Value::Null).await.1["count"], 2);
}

async fn an_expired_entry_leaves_and_metrics_say_so(kept: &Kept) {
    let gateway = kept.gateway("");
    let client = gateway.client();
    let mut brief = vm("brief");
    brief["ttl"] = 5.into();
    register(&client, &vm("steady")).await;
    register(&client, &brief).await;
    let discover = async || call(&client, "GET", "/registry/discover/worker", &Value::Null).await.1;
    assert_eq!(ids(&discover().await), ["steady", "brief"]);
    let before = std::time::Instant::now();
    eventually("its end", async || (ids(&discover().await) == ["steady"]).then_some(())).await;
    assert!(before.elapsed() < std::time::Duration::from_secs(6), "{:?}", before.elapsed());
    let (_, listed) = call(&client, "GET", "/registry/vms/brief", &Value::Null).await;
    assert_eq!(listed["state"], "expired", "{listed}");
    let counted = async || {
        let expired = gateway.metric("vers_registry_entries", &["state=\"expired\""]).await;
        let ended = gateway.metric("vers_registry_expired_total", &[]).await;
        (expired == 1.0 && ended == 1.0).then_some(())
    };
    eventually("the metrics", counted).await;
}

async fn bodies_come_in_any_framing_and_are_bounded(kept: &Kept) {
    let gateway = kept.gateway("");
    let body = vm("a").to_string();
    let (front, back) = body.split_at(20);
    let request = format!(
        "POST /registry/vms HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{front}\r\n{:x}\r\n{back}\r\n0\r\n\r\n\
         GET /registry/vms/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        front.len(),
        back.len()
    );
    let mut raw = gateway_tests::Raw::connect(gateway.addr()).await;
    raw.send(&request).await;
    let answers = raw.to_end().await;
    assert!(answers.starts_with("HTTP/1.1 201") && answers.contains("HTTP/1.1 200"), "{answers}");
    let large = format!("{{\"id\":\"{}\"}}", "a".repeat(9000));
    let answer = gateway.client().post("/registry/vms", large.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (413, "application/json"));
    let mut raw = gateway_tests::Raw::connect(gateway.addr()).await;
    raw.send(&format!(
        "POST /registry/vms HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n",
        large.len()
    ))
    .await;
    let answer = raw.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("connection: close"), "{answer}");
    let mut raw = gateway_tests::Raw::connect(gateway.addr()).await;
    raw.send(&format!(
        "POST /registry/vms HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ))
    .await;
    raw.until("HTTP/1.1 100 Continue\r\n\r\n").await;
    raw.send(&body).await;
    assert!(raw.to_end().await.contains("HTTP/1.1 201"));
}

async fn over_http2_it_is_the_same(kept: &Kept) {
    let gateway = kept.gateway("");
    let mut client = gateway_tests::Http2::connect(gateway.addr()).await;
    let answer = client.send(client.ask(Method::POST, "/registry/vms"), vm("a").to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let answer = client.send(client.get("/registry/discover/worker"), "").await;
    let found: Value = serde_json::from_str(answer.text()).expect("JSON");
    assert_eq!(ids(&found), ["a"]);
}

async fn vms_are_found_by_their_entries(kept: &Kept) {
    let backend = gateway_tests::Backend::named_v6("the VM").await;
    let port = backend.addr().port();
    let toml = format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\npath = \"/registry/*\"\nto = \"registry\"\n\
         [[route]]\nname = \"vms\"\nhost = \"{{vm}}.vm.test\"\nto = \"vm:{{vm}}:{port}\"\n\
         [registry]\nstore = \"{}\"\n[vms]\nresolve = \"registry\"\nnegative_ttl = \"1s\"\nnetworks = [\"::1/128\"]\n",
        kept.store()
    );
    let gateway = TestGateway::start(&toml);
    let client = gateway.client();
    let visit = async |vm: &str| {
        let answer = client.clone().with("host", &format!("{vm}.vm.test")).get("/x").await;
        (answer.status.as_u16(), answer.header("x-gateway-error").to_owned(), answer.text())
    };
    assert_eq!(visit("a1").await.1, "vm-unknown");
    let mut entry = vm("a1");
    entry["address"] = "::1".into();
    register(&client, &entry).await;
    eventually("the VM", async || (visit("a1").await.2 == "the VM").then_some(())).await;
    let (_, shown) = call(&client, "GET", "/registry/vms/a1", &Value::Null).await;
    assert_eq!(shown["services"][0]["url"], "https://[::1]:3000");
    register(&client, &vm("b2")).await;
    assert_eq!(visit("b2").await.1, "vm-lookup-failed", "a name leads to the edge, and that is here");
    register(&client, &vm("a1")).await;
    let moved = async || (visit("a1").await.1 == "vm-lookup-failed").then_some(());
    eventually("that it is not where it was", moved).await;
    let (status, _) = call(&client, "DELETE", "/registry/vms/a1", &Value::Null).await;
    assert_eq!(status, 200);
    eventually("its end", async || (visit("a1").await.1 == "vm-unknown").then_some(())).await;
    within("a stop", gateway.stop(std::time::Duration::from_secs(1))).await;
}

#[tokio::test]
async fn networks_of_the_registry_hold_for_vms_from_a_reload_on() {
    let backend = gateway_tests::Backend::named_v6("the VM").await;
    let toml = format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\npath = \"/registry/*\"\nto = \"registry\"\n\
         [[route]]\nname = \"vms\"\nhost = \"{{vm}}.vm.test\"\nto = \"vm:{{vm}}:{}\"\n\
         [registry]\nstore = \"memory\"\n{HERE}\n[vms]\nresolve = \"registry\"\nnegative_ttl = \"1s\"\n",
        backend.addr().port()
    );
    let gateway = TestGateway::start(&toml);
    let client = gateway.client();
    let mut entry = vm("a1");
    entry["address"] = "::1".into();
    register(&client, &entry).await;
    let visit = async || client.clone().with("host", "a1.vm.test").get("/x").await;
    eventually("the VM", async || (visit().await.text() == "the VM").then_some(())).await;
    for (networks, expected) in [("networks = [\"2001:db8::/32\"]", "vm-unknown"), (HERE, "")] {
        gateway.write(&toml.replace(HERE, networks));
        gateway.reload().await.expect("a reload");
        let said = async || (visit().await.header("x-gateway-error") == expected).then_some(());
        eventually(&format!("what {networks} says"), said).await;
    }
}

/// The first-party plugin on a VM, and the registry of another gateway. `granted` are further origins, `config`
/// further keys.
fn registering(app: &gateway_tests::Backend, infra: &TestGateway, granted: &str, config: &str) -> String {
    let registry = infra.addr_v4();
    let grants = format!("grants = {{ http = [\"http://{registry}\"{granted}], secrets = [\"fleet\"] }}");
    let table = gateway_tests::plugin_table("register", &gateway_tests::plugin("registry_register"), &grants);
    format!(
        "{}\nplugins = [\"register\"]\n{table}\n[plugin.register.config]\nregistry = \"http://{registry}\"\n\
         name = \"app\"\naddress = \"{{id}}.vm.test\"\n{config}\n[secret.fleet]\nfile = \"none\"\n\
         [gateway]\nworkers = 1\nvm_id = \"file:vm-id\"\n",
        gateway_tests::one_route(app.addr(), "")
    )
}

async fn a_vm_registers_itself_comes_back_when_forgotten_and_leaves(kept: &Kept) {
    let infra = kept.gateway("");
    let client = infra.client();
    let app = gateway_tests::Backend::hello().await;
    let config = "interval = \"100ms\"\nservices = [{ name = \"web\", port = 80 }]";
    let vm = TestGateway::with_files(&registering(&app, &infra, "", config), &[("vm-id", "a1\n")]);
    let found = async || {
        let (_, found) = call(&client, "GET", "/registry/discover/worker?service=web", &Value::Null).await;
        found["vms"].get(0).cloned()
    };
    let entry = eventually("the entry", found).await;
    assert_eq!(entry["services"][0]["url"], "https://a1.vm.test:80", "{entry}");
    assert_eq!(entry["ttl"], 5, "three intervals, and no less than a registry grants: {entry}");
    let renewed = async || found().await.filter(|it| it["lastSeen"] != entry["lastSeen"]);
    eventually("a renewal", renewed).await;
    call(&client, "DELETE", "/registry/vms/a1", &Value::Null).await;
    eventually("its return", found).await;
    let (_, before) = call(&client, "GET", "/registry/vms", &Value::Null).await;
    vm.stop(std::time::Duration::from_secs(5)).await;
    assert_eq!(found().await, None);
    let path = format!("/registry/watch?wait=0&since={}", before["revision"]);
    let (_, changes) = call(&client, "GET", &path, &Value::Null).await;
    let changes = changes["changes"].as_array().expect("changes").clone();
    let kinds: Vec<&str> = changes
        .iter()
        .filter_map(|change| change["vm"]["state"].as_str().or(change["kind"].as_str()))
        .collect();
    assert_eq!(kinds, ["draining", "gone"]);
}

async fn a_vm_whose_service_does_not_work_is_seen_and_not_used(kept: &Kept) {
    let infra = kept.gateway("probe = { enabled = false }");
    let client = infra.client();
    let service = gateway_tests::Asleep::new();
    let app = gateway_tests::Backend::hello().await;
    let port = service.addr().port();
    let config = format!(
        "grace = \"1ms\"\nservices = [{{ name = \"web\", port = {port}, health_path = \"/health\" }}]"
    );
    let granted = format!(", \"http://127.0.0.1:{port}\"");
    let toml = registering(&app, &infra, &granted, &config);
    let _vm = TestGateway::with_files(&toml, &[("vm-id", "a1\n")]);
    let entry = async || call(&client, "GET", "/registry/vms/a1", &Value::Null).await.1;
    let has = async |state: &str| (entry().await["state"] == state).then_some(());
    eventually("that it is stopped", async || has("stopped").await).await;
    let why = entry().await["metadata"]["unhealthy"].clone();
    assert!(why.as_str().is_some_and(|why| why.starts_with("web: ")), "{why}");
    assert_eq!(entry().await["ttl"], 45);
    let _awake = service.wake();
    eventually("that it runs", async || has("registered").await).await;
    assert_eq!(entry().await["metadata"], json!({}));
}
