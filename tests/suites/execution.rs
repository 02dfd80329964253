//! How many calls of a plugin there are at a time, how long its instances live, and when nobody calls it.

use futures_util::future::join_all;
use gateway_tests::{
    Admin, Answer, Backend, Client, GatewayProcess, Raw, TestGateway, eventually, guest_routes, within,
};
use serde_json::json;

/// What the called server answers.
const DONE: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

/// `slow_call` calls this address.
fn calling(callee: &Backend, limits: &str) -> String {
    let callee = callee.addr();
    format!(
        "grants = {{ http = [\"http://{callee}\"] }}\n\
         config = {{ url = \"http://{callee}/\", timeout_ms = 600000 }}\nlimits = {{ wall = \"10m\", {limits} }}"
    )
}

fn assert_refused(answer: &Answer, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (503, code), "{answer:?}");
}

async fn of_guest(gateway: &Admin, name: &str, label: &str) -> f64 {
    gateway.metric(name, &["plugin=\"guest\"", label]).await
}

async fn waiting(gateway: &Admin, calls: f64) {
    eventually("so many calls that wait", async || {
        (of_guest(gateway, "vers_plugin_waiting", "").await == calls).then_some(())
    })
    .await;
}

/// A request whose answer nobody waits for.
async fn ask(gateway: &TestGateway) -> Raw {
    let mut raw = Raw::connect(gateway.addr()).await;
    raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    raw
}

#[tokio::test]
async fn a_call_waits_for_its_turn_where_there_is_a_queue() {
    let backend = Backend::hello().await;
    let (callee, mut calls) = Backend::by_hand().await;
    let gateway = TestGateway::start(&guest_routes(
        backend.addr(),
        "slow_call",
        &calling(&callee, "instances = 1, queue = 2, queue_timeout = \"10m\""),
    ));
    let operator = gateway.operator();
    let mut first = ask(&gateway).await;
    let mut call = calls.next().await;
    call.head().await;
    let mut second = ask(&gateway).await;
    waiting(&operator, 1.0).await;
    let leaving = ask(&gateway).await;
    waiting(&operator, 2.0).await;
    assert_refused(&gateway.client().get("/").await, "plugin-busy");
    assert_eq!(operator.plugin("guest").await["waiting"], 2);
    assert_eq!(of_guest(&operator, "vers_plugin_faults_total", "kind=\"busy\"").await, 1.0);

    drop(leaving);
    waiting(&operator, 1.0).await;
    call.send(DONE).await;
    // Who has waited comes first; the first request's other hook is the next to wait.
    let mut call = calls.next().await;
    call.head().await;
    waiting(&operator, 1.0).await;
    call.send(DONE).await;
    first.until("hello").await;
    second.until("hello").await;
    waiting(&operator, 0.0).await;
    assert_eq!(of_guest(&operator, "vers_plugin_instances", "").await, 1.0, "one served them all");
}

#[tokio::test]
async fn who_waits_too_long_for_its_turn_is_refused() {
    let backend = Backend::hello().await;
    let (callee, mut calls) = Backend::by_hand().await;
    let limits = calling(&callee, "instances = 1, queue = 5, queue_timeout = \"50ms\"");
    let gateway = TestGateway::start(&guest_routes(backend.addr(), "slow_call", &limits));
    let mut first = ask(&gateway).await;
    let mut call = calls.next().await;
    call.head().await;
    assert_refused(&gateway.client().get("/").await, "plugin-busy");
    assert_eq!(gateway.client().get("/lenient").await.status, 200, "on_error = \"skip\"");
    let operator = gateway.operator();
    let both_hooks = 1.0 + 2.0;
    assert_eq!(of_guest(&operator, "vers_plugin_faults_total", "kind=\"queue\"").await, both_hooks);
    call.send(DONE).await;
    first.until("hello").await;
}

#[tokio::test]
async fn all_workers_together_make_no_more_calls_than_they_may() {
    let backend = Backend::hello().await;
    let (callee, mut calls) = Backend::by_hand().await;
    let limits = calling(&callee, "concurrency = 2, queue = 100, queue_timeout = \"10m\"");
    let config = format!("{}[gateway]\nworkers = 4\n", guest_routes(backend.addr(), "slow_call", &limits));
    let gateway = TestGateway::start(&config);
    let operator = gateway.operator();
    let mut asked = join_all((0..12).map(async |_| ask(&gateway).await)).await;
    waiting(&operator, 10.0).await;
    assert_eq!(of_guest(&operator, "vers_plugin_instances", "").await, 2.0);
    for answered in 0..12 {
        let mut call = calls.next().await;
        call.head().await;
        assert!(callee.connections() <= answered + 2, "{} calls, {answered} answered", callee.connections());
        call.send(DONE).await;
    }
    for raw in &mut asked {
        raw.until("hello").await;
    }
    waiting(&operator, 0.0).await;
}

#[tokio::test]
async fn an_instance_is_replaced_after_so_many_calls() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::start(&guest_routes(backend.addr(), "trap", "limits = { recycle_calls = 3 }"));
    let operator = gateway.operator();
    let recycled = async || of_guest(&operator, "vers_plugin_recycled_total", "reason=\"calls\"").await;
    let client = gateway.client();
    // Two hooks each.
    for (requests, replaced) in [(1, 0.0), (2, 1.0), (3, 2.0), (4, 2.0)] {
        assert_eq!(client.get("/").await.status, 200);
        assert_eq!(recycled().await, replaced, "after {requests} requests");
    }
    assert_eq!(of_guest(&operator, "vers_plugin_recycled_total", "reason=\"memory\"").await, 0.0);
}

#[tokio::test]
async fn an_instance_that_has_grown_is_replaced() {
    let backend = Backend::hello().await;
    let limits = "limits = { memory = \"64MiB\", recycle_memory = \"4MiB\" }";
    let gateway = TestGateway::start(&guest_routes(backend.addr(), "hog_memory", limits));
    let operator = gateway.operator();
    let recycled = async || of_guest(&operator, "vers_plugin_recycled_total", "reason=\"memory\"").await;
    assert_eq!(gateway.client().get("/").await.status, 200);
    assert_eq!(gateway.client().with("x-hog", "1").get("/").await.status, 200);
    assert_eq!((recycled().await, of_guest(&operator, "vers_plugin_instances", "").await), (0.0, 1.0));
    assert_eq!(gateway.client().with("x-hog", "8").get("/").await.status, 200, "it is no fault");
    assert_eq!((recycled().await, of_guest(&operator, "vers_plugin_instances", "").await), (1.0, 0.0));
}

/// Asks so often for a fault of this hook.
async fn fail(gateway: &TestGateway, hook: &str, times: usize) {
    let bad = gateway.client().with("x-trap", hook);
    for _ in 0..times {
        assert_refused(&bad.get("/").await, "plugin-fault");
    }
}

#[tokio::test]
async fn a_hook_that_fails_again_and_again_on_a_route_is_left_alone_there() {
    for hook in ["request", "response"] {
        let backend = Backend::hello().await;
        let config = guest_routes(backend.addr(), "trap", "breaker = { faults = 3, open = \"10m\" }");
        let gateway = TestGateway::start(&config);
        let (operator, good) = (gateway.operator(), gateway.client());
        fail(&gateway, hook, 2).await;
        assert_eq!(good.get("/").await.status, 200, "{hook}: two in a row are not enough");
        fail(&gateway, hook, 3).await;
        let calls = of_guest(&operator, "vers_plugin_calls_total", &format!("hook=\"{hook}\"")).await;
        for _ in 0..3 {
            assert_refused(&good.get("/").await, "plugin-open");
        }
        assert_eq!(
            of_guest(&operator, "vers_plugin_calls_total", &format!("hook=\"{hook}\"")).await,
            calls,
            "{hook}: it is not called"
        );
        assert_eq!(of_guest(&operator, "vers_plugin_faults_total", "kind=\"open\"").await, 3.0);
        assert_eq!(good.get("/lenient").await.status, 200);
        assert_eq!(
            of_guest(&operator, "vers_plugin_calls_total", &format!("hook=\"{hook}\"")).await,
            calls + 1.0,
            "{hook}: on another route it is called"
        );
        let expected = json!([{ "route": "app", "hook": hook, "state": "open", "workers": 1 }]);
        assert_eq!(operator.plugin("guest").await["breakers"], expected);

        gateway.write(&config.replace("name = \"lenient\"", "name = \"other\""));
        gateway.reload().await.expect("a good configuration");
        assert_refused(&good.get("/").await, "plugin-open");
        assert_eq!(
            of_guest(&operator, "vers_plugin_breakers_open", &format!("hook=\"{hook}\"")).await,
            1.0,
            "{hook}: a reload that does not change it forgets nothing"
        );
        gateway.write(&config.replace("faults = 3", "faults = 4"));
        gateway.reload().await.expect("a good configuration");
        assert_eq!(good.get("/").await.status, 200, "{hook}: a changed plugin begins anew");
        eventually("no open breaker", async || {
            (operator.plugin("guest").await["breakers"] == json!([])).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn skipping_goes_on_without_calls_while_a_breaker_is_open() {
    let backend = Backend::hello().await;
    let gateway =
        TestGateway::start(&guest_routes(backend.addr(), "trap", "breaker = { faults = 1, open = \"10m\" }"));
    let bad = gateway.client().with("x-trap", "request");
    for _ in 0..5 {
        assert_eq!(bad.get("/lenient").await.text(), "hello");
    }
    let operator = gateway.operator();
    assert_eq!(of_guest(&operator, "vers_plugin_faults_total", "kind=\"trap\"").await, 1.0);
    assert_eq!(of_guest(&operator, "vers_plugin_faults_total", "kind=\"open\"").await, 4.0);
}

#[tokio::test]
async fn one_call_tries_whether_it_works_again() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::start(&guest_routes(
        backend.addr(),
        "trap",
        "breaker = { faults = 2, open = \"100ms\" }",
    ));
    let operator = gateway.operator();
    fail(&gateway, "request", 2).await;
    let traps = async || of_guest(&operator, "vers_plugin_faults_total", "kind=\"trap\"").await;
    // A try that fails opens it again at once: no second one beside it, or after it.
    let bad = gateway.client().with("x-trap", "request");
    eventually("a try", async || {
        assert_eq!(bad.get("/").await.status, 503);
        (traps().await == 3.0).then_some(())
    })
    .await;
    assert_refused(&bad.get("/").await, "plugin-open");
    assert_eq!(traps().await, 3.0);
    eventually("a try that succeeds", async || (gateway.client().get("/").await.status == 200).then_some(()))
        .await;
    assert_eq!(operator.plugin("guest").await["breakers"], json!([]));
    fail(&gateway, "request", 1).await;
    assert_eq!(gateway.client().get("/").await.status, 200, "it counts from the beginning");
}

#[tokio::test]
async fn the_log_says_when_a_plugin_is_left_alone_and_when_it_works_again() {
    let backend = Backend::hello().await;
    let table = "breaker = { faults = 2, open = \"20ms\" }";
    let gateway = GatewayProcess::start(crate::DAEMON, &guest_routes(backend.addr(), "trap", table)).await;
    let client = Client::new(gateway.addr_of("[::]:0").await);
    let bad = client.clone().with("x-trap", "request");
    for _ in 0..4 {
        assert_eq!(bad.get("/").await.status, 503);
    }
    eventually("a try that succeeds", async || (client.get("/").await.status == 200).then_some(())).await;
    let lines = eventually("both lines", async || {
        let lines = gateway.log().into_iter().filter(|line| line["hook"] == "request").collect::<Vec<_>>();
        (lines.len() >= 2).then_some(lines)
    });
    let lines = lines.await;
    let told: Vec<_> = lines.iter().map(|line| (&line["level"], &line["plugin"], &line["route"])).collect();
    let (guest, app) = (json!("guest"), json!("app"));
    assert_eq!(told, [(&json!("WARN"), &guest, &app), (&json!("INFO"), &guest, &app)], "{lines:?}");
    assert_eq!(lines[0]["faults"], 2);
}

#[tokio::test]
async fn without_a_breaker_every_request_is_a_call() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::start(&guest_routes(backend.addr(), "trap", "breaker = { faults = 0 }"));
    within("thirty faults", fail(&gateway, "request", 30)).await;
    assert_eq!(gateway.client().get("/").await.status, 200);
}
