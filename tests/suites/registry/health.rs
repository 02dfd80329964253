//! What others than its owner find out about a service: the registry asks for its `healthPath`, and requests of
//! this gateway fail.

use super::{Kept, OF_TESTS, call, gateway, ids, in_each_store, register, text, vm};
use gateway_tests::{Asleep, Backend, Client, TestGateway, eventually};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

in_each_store! {
    a_service_that_answers_is_healthy_and_one_that_does_not_says_why,
    a_service_that_listens_on_ipv4_only_is_found_and_told_what_to_do,
    requests_of_this_gateway_that_fail_are_a_witness_too,
}

const QUICK: &str = "probe = { interval = \"1s\", timeout = \"2s\" }\n";

fn service(id: &str, ip: IpAddr, port: u16) -> Value {
    let mut vm = vm(id);
    vm["address"] = ip.to_string().into();
    vm["services"] = json!([{ "name": "api", "port": port, "healthPath": "/health" }]);
    vm
}

fn at(id: &str, server: SocketAddr) -> Value {
    service(id, server.ip(), server.port())
}

async fn entry(client: &Client, id: &str) -> Value {
    call(client, "GET", &format!("/registry/vms/{id}"), &Value::Null).await.1
}

async fn becomes(client: &Client, id: &str, state: &str) -> Value {
    let seen = async || Some(entry(client, id).await).filter(|entry| entry["state"] == state);
    eventually(&format!("{id}, {state}"), seen).await
}

async fn discovered(client: &Client, query: &str) -> Vec<String> {
    let path = format!("/registry/discover/worker?{query}");
    let (_, found) = call(client, "GET", &path, &Value::Null).await;
    ids(&found).into_iter().map(str::to_owned).collect()
}

/// A service whose `/health` answers this.
async fn answering(status: &Arc<AtomicU16>) -> Backend {
    let status = Arc::clone(status);
    Backend::http(move |heard| {
        assert_eq!(heard.uri.path(), "/health");
        let answer = http::Response::builder().status(status.load(Ordering::SeqCst));
        answer.body("".into()).expect("an answer")
    })
    .await
}

async fn a_service_that_answers_is_healthy_and_one_that_does_not_says_why(kept: &Kept) {
    let status = Arc::new(AtomicU16::new(200));
    let (sick, well) = (answering(&status).await, answering(&Arc::new(AtomicU16::new(204))).await);
    let gateway = kept.gateway(QUICK);
    let client = gateway.client();
    register(&client, &at("a", sick.addr())).await;
    register(&client, &at("b", well.addr())).await;
    register(&client, &vm("c")).await;
    becomes(&client, "a", "healthy").await;
    becomes(&client, "b", "healthy").await;
    let (_, before) = call(&client, "GET", "/registry/discover/worker", &Value::Null).await;
    assert_eq!(ids(&before), ["a", "b", "c"], "who says no healthPath comes last");
    assert_eq!(before["vms"][0]["services"][0]["state"], "healthy", "{before}");

    status.store(500, Ordering::SeqCst);
    let a = becomes(&client, "a", "unhealthy").await;
    let why = a["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("api: it answered 500 Internal Server Error: 127.0.0.1:"), "{why}");
    assert!(why.contains("/health, since 20"), "{why}");
    assert_eq!(a["services"][0]["state"], "unhealthy", "{a}");
    assert!(a["revision"].as_u64() > before["revision"].as_u64(), "watchers are told");
    assert_eq!(discovered(&client, "").await, ["b", "c"]);
    assert_eq!(discovered(&client, "pick=random&limit=9").await, ["b", "c"]);
    assert_eq!(discovered(&client, "all=1").await, ["b", "c", "a"]);
    // A sign of life says nothing about its services.
    call(&client, "POST", "/registry/vms/a/heartbeat", &Value::Null).await;
    assert_eq!(entry(&client, "a").await["state"], "unhealthy");

    status.store(200, Ordering::SeqCst);
    becomes(&client, "a", "healthy").await;
    assert_eq!(discovered(&client, "").await, ["a", "b", "c"]);
    assert!(gateway.metric("vers_registry_probes_total", &["outcome=\"failed\""]).await >= 3.0);
    assert_eq!(gateway.metric("vers_registry_probed", &[]).await, 2.0);
}

async fn a_service_that_listens_on_ipv4_only_is_found_and_told_what_to_do(kept: &Kept) {
    let backend = Backend::hello().await;
    let gateway = kept.gateway(QUICK);
    let client = gateway.client();
    // The VM is reached over IPv6, and its service is on 127.0.0.1.
    register(&client, &service("a", Ipv6Addr::LOCALHOST.into(), backend.addr().port())).await;
    let a = becomes(&client, "a", "unhealthy").await;
    let why = a["why"].as_str().unwrap_or_default();
    assert!(why.contains("connection refused on [::1]:") && why.contains("bind `::`"), "{why}");
    // It is all there is: the fault may be with who asked.
    assert_eq!(discovered(&client, "").await, ["a"]);
    assert_eq!(discovered(&client, "healthy=1").await, Vec::<String>::new());
    let mut moved = service("a", IpAddr::from([127, 0, 0, 1]), backend.addr().port());
    register(&client, &moved).await;
    becomes(&client, "a", "healthy").await;
    moved["services"][0]["healthPath"] = Value::Null;
    register(&client, &moved).await;
    becomes(&client, "a", "registered").await;
}

#[tokio::test]
async fn who_registers_does_not_make_the_registry_ask_its_own_machine() {
    let inside = Backend::hello().await;
    let toml = text("store = \"memory\"\nprobe = { interval = \"1s\", timeout = \"2s\" }");
    let gateway = TestGateway::start(&toml);
    let client = gateway.client();
    let port = inside.addr().port();
    for (id, address) in
        [("a", "127.0.0.1"), ("b", "::ffff:127.0.0.1"), ("c", "169.254.169.254"), ("d", "localhost")]
    {
        let mut vm = service(id, IpAddr::from(Ipv6Addr::LOCALHOST), port);
        vm["address"] = address.into();
        register(&client, &vm).await;
        let why = becomes(&client, id, "unhealthy").await["why"].clone();
        assert!(why.as_str().is_some_and(|why| why.contains("`networks`") && why.contains(address)), "{why}");
    }
    assert_eq!(inside.connections(), 0);
    gateway.write(&toml.replace("probe", "networks = [\"127.0.0.0/8\"]\nprobe"));
    gateway.reload().await.expect("a reload");
    becomes(&client, "a", "healthy").await;
}

async fn requests_of_this_gateway_that_fail_are_a_witness_too(kept: &Kept) {
    let asleep = Asleep::new();
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\npath = \"/registry/*\"\nto = \"registry\"\n\
         [[route]]\nname = \"work\"\nto = \"workers\"\n\
         [backend.workers]\ndiscover = {{ role = \"worker\", service = \"api\" }}\n\
         ejection = {{ first = \"1h\", longest = \"1h\" }}\n[registry]\n{}\n",
        kept.of_tests(),
    ));
    let client = gateway.client();
    let mut a = at("a", asleep.addr());
    a["services"][0]["healthPath"] = Value::Null;
    register(&client, &a).await;
    let mut b = vm("b");
    b["services"][0]["name"] = "db".into();
    register(&client, &b).await;
    eventually("its use", async || (client.get("/").await.status == 503).then_some(())).await;
    eventually("its failure", async || {
        client.get("/").await;
        (entry(&client, "a").await["state"] == "unhealthy").then_some(())
    })
    .await;
    let why = entry(&client, "a").await["why"].clone();
    assert!(why.as_str().is_some_and(|why| why.contains("requests of backend workers")), "{why}");
    assert_eq!(discovered(&client, "").await, ["b"]);
    let address = asleep.addr();
    let _awake = asleep.wake();
    // Where nothing else is left, the backend tries, and learns that it is over.
    eventually("its work", async || (client.get("/").await.text() == "awake").then_some(())).await;
    becomes(&client, "a", "registered").await;
    assert_eq!(gateway.operator().server(address).await["state"], "up");
}

#[tokio::test]
async fn what_requests_met_ends_with_the_server_that_they_met() {
    let asleep = Asleep::new();
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\npath = \"/registry/*\"\nto = \"registry\"\n\
         [[route]]\nname = \"work\"\nto = \"workers\"\n\
         [backend.workers]\ndiscover = {{ role = \"worker\", service = \"api\" }}\n\
         ejection = {{ first = \"1h\", longest = \"1h\" }}\n[registry]\n{OF_TESTS}\n",
    ));
    let client = gateway.client();
    let mut a = at("a", asleep.addr());
    a["services"][0]["healthPath"] = Value::Null;
    let say = async |status: &str| {
        let said = json!({ "status": status });
        assert_eq!(call(&client, "POST", "/registry/vms/a/heartbeat", &said).await.0, 200);
    };
    register(&client, &a).await;
    let fails = async || {
        client.get("/").await;
        (entry(&client, "a").await["state"] == "unhealthy").then_some(())
    };
    for way in ["it drains", "it moves"] {
        eventually(&format!("its failure, before {way}"), fails).await;
        if way == "it drains" {
            say("draining").await;
            eventually("that it is left", async || {
                (gateway.status().await["backends"][0]["servers"] == json!([])).then_some(())
            })
            .await;
            say("running").await;
        } else {
            let mut moved = a.clone();
            moved["role"] = "infra".into();
            register(&client, &moved).await;
        }
        let entry = becomes(&client, "a", "registered").await;
        assert_eq!(entry["services"][0]["state"], Value::Null, "{way}: {entry}");
    }
}

#[tokio::test]
async fn one_backend_that_goes_on_does_not_speak_for_another() {
    let asleep = Asleep::new();
    let backend = |name: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nto = \"{name}\"\n[backend.{name}]\n\
             discover = {{ role = \"worker\", service = \"api\" }}\n\
             ejection = {{ first = \"1h\", longest = \"1h\" }}\n"
        )
    };
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\npath = \"/registry/*\"\nto = \"registry\"\n{}{}\
         [registry]\n{OF_TESTS}\n",
        backend("one"),
        backend("other"),
    ));
    let client = gateway.client();
    let mut a = at("a", asleep.addr());
    a["services"][0]["healthPath"] = Value::Null;
    register(&client, &a).await;
    let why = async || entry(&client, "a").await["why"].as_str().unwrap_or_default().to_owned();
    let ejected = async |name: &str| {
        let status = gateway.status().await;
        let backends = status["backends"].as_array().cloned().unwrap_or_default();
        let backend = backends.into_iter().find(|it| it["name"] == *name);
        backend.is_some_and(|it| it["servers"][0]["state"] == "ejected")
    };
    for name in ["one", "other"] {
        eventually(&format!("that {name} leaves it alone"), async || {
            client.get(&format!("/{name}")).await;
            ejected(name).await.then_some(())
        })
        .await;
    }
    becomes(&client, "a", "unhealthy").await;
    let _awake = asleep.wake();
    let works = async |name: &str| (client.get(&format!("/{name}")).await.text() == "awake").then_some(());
    eventually("that it works for one", async || works("one").await).await;
    assert!(!ejected("one").await && ejected("other").await, "{}", gateway.status().await);
    eventually("that it is the other's word", async || why().await.contains("backend other").then_some(()))
        .await;
    assert_eq!(entry(&client, "a").await["state"], "unhealthy");
    eventually("that it works for the other", async || works("other").await).await;
    becomes(&client, "a", "registered").await;
}

#[tokio::test]
async fn what_a_backend_met_ends_with_it() {
    let asleep = Asleep::new();
    let routes = "[[listener]]\naddress = \"[::]:0\"\n[[route]]\npath = \"/registry/*\"\nto = \"registry\"\n";
    let without = format!("{routes}[registry]\n{OF_TESTS}\n");
    let with = format!(
        "{routes}[[route]]\nname = \"work\"\nto = \"workers\"\n[registry]\n{OF_TESTS}\n\
         [backend.workers]\ndiscover = {{ role = \"worker\", service = \"api\" }}\n\
         ejection = {{ first = \"1h\", longest = \"1h\" }}\n"
    );
    let gateway = TestGateway::start(&with);
    let client = gateway.client();
    let mut a = at("a", asleep.addr());
    a["services"][0]["healthPath"] = Value::Null;
    register(&client, &a).await;
    eventually("its failure", async || {
        client.get("/").await;
        (entry(&client, "a").await["state"] == "unhealthy").then_some(())
    })
    .await;
    gateway.write(&without);
    gateway.reload().await.expect("a reload");
    becomes(&client, "a", "registered").await;
}

#[tokio::test]
async fn shorter_pauses_begin_with_the_reload_that_asks_for_them() {
    let status = Arc::new(AtomicU16::new(200));
    let backend = answering(&status).await;
    let gateway = gateway(&QUICK.replace("1s", "1h"));
    let client = gateway.client();
    register(&client, &at("a", backend.addr())).await;
    becomes(&client, "a", "healthy").await;
    status.store(500, Ordering::SeqCst);
    gateway.write(&text(&format!("{OF_TESTS}\n{QUICK}")));
    gateway.reload().await.expect("a reload");
    becomes(&client, "a", "unhealthy").await;
}

#[tokio::test]
async fn who_is_not_to_be_asked_is_not() {
    let backend = answering(&Arc::new(AtomicU16::new(500))).await;
    let gateway = TestGateway::start(&text("store = \"memory\"\nprobe = { enabled = false }"));
    let client = gateway.client();
    register(&client, &at("a", backend.addr())).await;
    gateway.write(&text(&format!("{OF_TESTS}\n{QUICK}")));
    gateway.reload().await.expect("a reload");
    becomes(&client, "a", "unhealthy").await;
    let asked = backend.heard().len();
    assert!(asked >= 3, "{asked} questions, all of them since");
    // Who does not ask any more does not know any more.
    gateway.write(&text("store = \"memory\"\nprobe = { enabled = false }"));
    gateway.reload().await.expect("a reload");
    becomes(&client, "a", "registered").await;
}
