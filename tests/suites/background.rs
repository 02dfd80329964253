//! Background work, by the example of registry-register: a VM makes itself known, stays known, and
//! says goodbye; and none of it is traffic's business.

use gateway_tests::{
    Backend, Heard, TestGateway, eventually, guest, one_route, plugin, plugin_table, settled,
};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

/// A registry that keeps its entries in memory, as far as plugins use one.
struct Registry {
    server: Backend,
    entries: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Answers 500 to everything while it is.
    broken: Arc<Mutex<bool>>,
}

impl Registry {
    async fn start() -> Self {
        let (entries, broken) = (Arc::<Mutex<BTreeMap<_, _>>>::default(), Arc::<Mutex<bool>>::default());
        let (known, is_broken) = (Arc::clone(&entries), Arc::clone(&broken));
        let server = Backend::http(move |heard| {
            let (status, body) = if *is_broken.lock().expect("no panic") {
                (500, json!({ "error": "broken" }))
            } else {
                answer(&mut known.lock().expect("no panic"), heard)
            };
            let mut response = Response::new(Full::from(body.to_string()));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            response
        })
        .await;
        Self { server, entries, broken }
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// What it was asked, in order: `POST /registry/vms`.
    fn asked(&self) -> Vec<String> {
        self.server.heard().iter().map(|heard| format!("{} {}", heard.method, heard.uri.path())).collect()
    }

    /// How often it was asked this.
    fn count(&self, what: &str) -> usize {
        self.asked().iter().filter(|asked| *asked == what).count()
    }

    fn entry(&self, id: &str) -> Option<Value> {
        self.entries.lock().expect("no panic").get(id).cloned()
    }

    fn forget(&self) {
        self.entries.lock().expect("no panic").clear();
    }

    fn set_broken(&self, broken: bool) {
        *self.broken.lock().expect("no panic") = broken;
    }
}

fn answer(entries: &mut BTreeMap<String, Value>, heard: &Heard) -> (u16, Value) {
    let body: Value = serde_json::from_slice(&heard.body).unwrap_or_default();
    let path: Vec<&str> = heard.uri.path().split('/').skip(1).collect();
    match (heard.method.as_str(), path.as_slice()) {
        ("POST", ["registry", "vms"]) => {
            let missing = ["id", "name", "role", "address", "registeredBy"]
                .into_iter()
                .find(|key| !body[key].is_string());
            let id = body["id"].as_str().unwrap_or_default().to_owned();
            match missing {
                Some(key) => (400, json!({ "error": format!("{key} is missing") })),
                None if entries.contains_key(&id) => (409, json!({ "error": "there is such a VM" })),
                None => {
                    entries.insert(id, body.clone());
                    (201, body)
                }
            }
        }
        (method, ["registry", "vms", id, rest @ ..]) => match (entries.get_mut(*id), method, rest) {
            (None, ..) => (404, json!({ "error": "no such VM" })),
            (Some(entry), "PATCH", []) => {
                for (key, value) in body.as_object().into_iter().flatten().filter(|(key, _)| *key != "role") {
                    entry[key] = value.clone();
                }
                (200, entry.clone())
            }
            (Some(_), "DELETE", []) => {
                entries.remove(*id);
                (200, json!({ "deleted": true }))
            }
            (Some(_), "POST", ["heartbeat"]) => (200, json!({ "id": id })),
            (Some(_), ..) => (405, json!({ "error": "no such call" })),
        },
        _ => (404, json!({ "error": "no such path" })),
    }
}

const REGISTER: &str = "POST /registry/vms";
const RENEW: &str = "POST /registry/vms/a1/heartbeat";

/// A route on which the VM registers, with further keys of the plugin's `config` and further tables.
fn toml(app: &Backend, registry: SocketAddr, config: &str, tables: &str) -> String {
    let more = format!(
        "grants = {{ http = [\"http://{registry}\"], secrets = [\"fleet\"] }}\n\
         [plugin.register.config]\nregistry = \"http://{registry}\"\nname = \"app\"\ninterval = \"100ms\"\n{config}\n\
         [secret.fleet]\nfile = \"fleet.txt\"\n[gateway]\nworkers = 1\nvm_id = \"a1\"\n{tables}\n"
    );
    let table = plugin_table("register", &plugin("registry_register"), &more);
    one_route(app.addr(), &format!("plugins = [\"register\"]\n{table}"))
}

async fn asked(registry: &Registry, what: &str, times: usize) {
    let told = format!("{what}, {times} times");
    eventually(&told, async || (registry.count(what) >= times).then_some(())).await;
}

#[tokio::test]
async fn a_vm_registers_renews_and_says_goodbye() {
    let (app, registry) = (Backend::hello().await, Registry::start().await);
    let config = "role = \"golden\"\nservices = [{ name = \"api\", port = 3000, health_path = \"/health\" }]\n\
                  metadata = { region = \"eu\" }";
    let gateway = TestGateway::start(&toml(&app, registry.addr(), config, ""));
    asked(&registry, RENEW, 3).await;
    assert_eq!(registry.asked()[0], REGISTER);
    assert_eq!(registry.count(REGISTER), 1, "{:?}", registry.asked());
    let expected = json!({
        "id": "a1", "name": "app", "role": "golden", "address": "a1", "registeredBy": "vers-gateway",
        "status": "running", "services": [{ "name": "api", "port": 3000, "healthPath": "/health" }],
        "metadata": { "region": "eu" }, "ttl": 5.0,
    });
    assert_eq!(registry.entry("a1"), Some(expected));
    assert_eq!(gateway.operator().plugin("register").await["background"], "ok");
    assert_eq!(gateway.client().get("/").await.text(), "hello", "requests pass beside it");
    assert_eq!(gateway.operator().plugin("register").await["calls"], 0, "and never meet it");

    gateway.stop(Duration::from_secs(5)).await;
    assert_eq!(registry.asked().last().map(String::as_str), Some("DELETE /registry/vms/a1"));
    assert_eq!(registry.entry("a1"), None);
}

#[tokio::test]
async fn the_token_is_shown_where_there_is_one() {
    let (app, registry) = (Backend::hello().await, Registry::start().await);
    let with_secret = toml(&app, registry.addr(), "secret = \"fleet\"", "");
    let gateway = TestGateway::start(&with_secret);
    asked(&registry, RENEW, 1).await;
    assert_eq!(registry.server.last().header("authorization"), "", "the secret has no value yet");
    std::fs::write(gateway.folder().join("fleet.txt"), "s3cret\n").expect("the secret is written");
    gateway.reload().await.expect("a good configuration");
    asked(&registry, REGISTER, 2).await;
    asked(&registry, RENEW, registry.count(RENEW) + 2).await;
    assert_eq!(registry.server.last().header("authorization"), "Bearer s3cret");
}

#[tokio::test]
async fn an_entry_of_an_earlier_life_is_brought_up_to_date() {
    let (app, registry) = (Backend::hello().await, Registry::start().await);
    let stale = json!({ "id": "a1", "name": "old", "role": "worker", "status": "stopped" });
    registry.entries.lock().expect("no panic").insert("a1".to_owned(), stale);
    let _gateway = TestGateway::start(&toml(&app, registry.addr(), "", ""));
    asked(&registry, RENEW, 2).await;
    assert_eq!(registry.asked()[..3], [REGISTER, "PATCH /registry/vms/a1", RENEW]);
    let entry = registry.entry("a1").expect("an entry");
    assert_eq!((&entry["name"], &entry["status"]), (&"app".into(), &"running".into()), "{entry}");
}

/// What went wrong before: a registry that had lost its data answered 404 to every renewal, and no
/// VM ever came back.
#[tokio::test]
async fn a_registry_that_forgot_is_told_at_once() {
    let (app, registry) = (Backend::hello().await, Registry::start().await);
    let _gateway = TestGateway::start(&toml(&app, registry.addr(), "", ""));
    asked(&registry, RENEW, 1).await;
    registry.forget();
    asked(&registry, REGISTER, 2).await;
    let asked = registry.asked();
    let again = asked.iter().rposition(|asked| asked == REGISTER).expect("it registered");
    assert_eq!(asked[again - 1], RENEW, "the renewal that was refused, and nothing in between: {asked:?}");
    assert!(registry.entry("a1").is_some());
}

/// Back-off is a second or two after the first failure: long enough not to be a storm.
#[tokio::test]
async fn a_registry_that_fails_is_left_alone_and_tried_again() {
    let (app, registry) = (Backend::hello().await, Registry::start().await);
    registry.set_broken(true);
    let gateway = TestGateway::start(&toml(&app, registry.addr(), "", ""));
    asked(&registry, REGISTER, 1).await;
    let tries = settled("a pause", async || registry.asked().len()).await;
    assert_eq!(tries, 1, "a failure is no reason to hurry");
    assert_eq!(gateway.client().get("/").await.text(), "hello", "requests do not notice");
    assert_eq!(gateway.operator().plugin("register").await["faults"], json!({}));
    registry.set_broken(false);
    asked(&registry, RENEW, 3).await;
    assert_eq!(registry.count(REGISTER), 2, "{:?}", registry.asked());

    // Once registered, a failure does not make it unknown.
    registry.set_broken(true);
    asked(&registry, RENEW, registry.count(RENEW) + 1).await;
    registry.set_broken(false);
    asked(&registry, RENEW, registry.count(RENEW) + 3).await;
    assert_eq!(registry.count(REGISTER), 2, "{:?}", registry.asked());
}

#[tokio::test]
async fn a_registry_that_is_not_there_yet_is_found_later() {
    let app = Backend::hello().await;
    let nobody = Backend::nobody().await;
    let gateway = TestGateway::start(&toml(&app, nobody, "", ""));
    eventually("an attempt", async || {
        (gateway.operator().plugin("register").await["background"] == "ok").then_some(())
    })
    .await;
    assert_eq!(gateway.client().get("/").await.text(), "hello", "requests do not notice");
    let registry = Registry::start().await;
    gateway.write(&toml(&app, registry.addr(), "", ""));
    gateway.reload().await.expect("a good configuration");
    asked(&registry, RENEW, 1).await;
    assert_eq!(registry.asked()[0], REGISTER);
}

#[tokio::test]
async fn a_changed_plugin_says_goodbye_before_it_comes_back() {
    let (app, registry) = (Backend::hello().await, Registry::start().await);
    let gateway = TestGateway::start(&toml(&app, registry.addr(), "", ""));
    asked(&registry, RENEW, 1).await;
    gateway.write(&toml(&app, registry.addr(), "id = \"b2\"", ""));
    gateway.reload().await.expect("a good configuration");
    asked(&registry, "POST /registry/vms/b2/heartbeat", 1).await;
    let asked = registry.asked();
    let gone =
        asked.iter().position(|asked| asked == "DELETE /registry/vms/a1").expect("the old one says goodbye");
    let come = asked.iter().rposition(|asked| asked == REGISTER).expect("the new one registers");
    assert!(gone < come, "the old one first: {asked:?}");
    assert_eq!((registry.entry("a1"), registry.entry("b2").is_some()), (None, true));

    // Off the route, it is off the registry.
    let without = one_route(app.addr(), "");
    gateway.write(&without);
    gateway.reload().await.expect("a good configuration");
    eventually("its goodbye", async || registry.entry("b2").is_none().then_some(())).await;
    let last = settled("an end of its work", async || registry.asked().len()).await;
    assert_eq!(registry.asked()[last - 1], "DELETE /registry/vms/b2");
}

#[tokio::test]
async fn an_unrelated_reload_leaves_it_alone() {
    let (app, registry) = (Backend::hello().await, Registry::start().await);
    let other = Backend::hello().await;
    let gateway = TestGateway::start(&toml(&app, registry.addr(), "", ""));
    asked(&registry, RENEW, 1).await;
    for path in ["/one", "/two", "/three"] {
        let route = format!("[[route]]\npath = \"{path}\"\nto = \"{}\"", other.addr());
        gateway.write(&toml(&app, registry.addr(), "", &route));
        gateway.reload().await.expect("a good configuration");
        asked(&registry, RENEW, registry.count(RENEW) + 2).await;
    }
    // Nor does one that is refused.
    gateway.write("nonsense");
    gateway.reload().await.expect_err("no configuration");
    asked(&registry, RENEW, registry.count(RENEW) + 2).await;
    assert_eq!(registry.count(REGISTER), 1, "{:?}", registry.asked());
    assert_eq!(registry.count("DELETE /registry/vms/a1"), 0, "{:?}", registry.asked());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_registry_that_hangs() {
    let app = Backend::hello().await;
    let (silent, registry) = (Backend::silent().await, Registry::start().await);
    let gateway = TestGateway::start(&toml(&app, registry.addr(), "", ""));
    asked(&registry, RENEW, 1).await;
    drop(registry);
    gateway.write(&toml(&app, silent.addr(), "", ""));
    gateway.reload().await.expect("a good configuration");
    eventually("a call that hangs", async || (silent.connections() > 0).then_some(())).await;
    let began = std::time::Instant::now();
    gateway.stop(Duration::from_millis(300)).await;
    assert!(began.elapsed() < Duration::from_secs(3), "it took {:?} with a grace of 300 ms", began.elapsed());
}

/// With two tables of one plugin, each new one comes after both old ones: they may speak of the same thing.
#[tokio::test]
async fn what_is_new_begins_when_all_of_its_name_has_ended() {
    const DONE: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    let app = Backend::hello().await;
    let (listener, mut calls) = Backend::by_hand().await;
    let url = format!("http://{}", listener.addr());
    let used = |name: &str| format!("[{{ use = \"tell\", config = {{ url = \"{url}/{name}\" }} }}]");
    let more = format!("grants = {{ http = [\"{url}\"] }}\nlimits = {{ wall = \"10m\" }}\n");
    let table = plugin_table("tell", &guest("bg_tell"), &more);
    let toml = |one: &str, two: &str| {
        let (one, two, to) = (used(one), used(two), app.addr());
        one_route(
            to,
            &format!("plugins = {one}\n[[route]]\npath = \"/two\"\nto = \"{to}\"\nplugins = {two}\n{table}"),
        )
    };
    let gateway = TestGateway::start(&toml("a", "b"));
    for _ in 0..2 {
        let mut call = calls.next().await;
        assert!(call.head().await.contains("/begins"));
        call.send(DONE).await;
    }
    gateway.write(&toml("c", "d"));
    // They run before there is an answer to what they begin with.
    eventually("both run", async || {
        (gateway.operator().plugin("tell").await["background"] == "done").then_some(())
    })
    .await;
    gateway.reload().await.expect("a good configuration");
    let (mut first, mut second) = (calls.next().await, calls.next().await);
    assert!(first.head().await.contains("/ends") && second.head().await.contains("/ends"));
    first.send(DONE).await;
    let called = settled("nothing begins", async || listener.connections()).await;
    assert_eq!(called, 4, "one of the old ones has not ended");
    second.send(DONE).await;
    for _ in 0..2 {
        let mut call = calls.next().await;
        assert!(call.head().await.contains("/begins"));
        call.send(DONE).await;
    }
}
