//! Plugins that misbehave: what it costs the request, the others beside it, and the gateway.

use futures_util::future::{join, join_all};
use gateway_tests::{
    Admin, Answer, Backend, Client, GatewayProcess, Kept, Raw, TestGateway, eventually, guest_routes,
    settled, within,
};
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

fn through(backend: &Backend, name: &str, more: &str) -> TestGateway {
    TestGateway::start(&guest_routes(backend.addr(), name, more))
}

/// `slow_call` calls this address; `more` are further keys of its `config`.
fn calling(callee: &Backend, more: &str, limits: &str) -> String {
    let callee = callee.addr();
    format!(
        "grants = {{ http = [\"http://{callee}\"] }}\nconfig = {{ url = \"http://{callee}/\"{more} }}\n\
         limits = {{ {limits} }}"
    )
}

fn assert_fault(answer: &Answer, code: &str) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("x-gateway-error"), code, "{answer:?}");
}

async fn faults(gateway: &Admin, kind: &str) -> f64 {
    let kind = format!("kind=\"{kind}\"");
    gateway.metric("vers_plugin_faults_total", &["plugin=\"guest\"", &kind]).await
}

async fn instances(gateway: &Admin) -> f64 {
    gateway.metric("vers_plugin_instances", &["plugin=\"guest\""]).await
}

/// A fault costs its request and its instance, and nothing else: not the connection, not the next
/// request, not one where faults do not matter. Metrics and status name it.
async fn check(name: &str, limits: &str, bad: (&'static str, &str), kind: &str) {
    let backend = Backend::hello().await;
    let gateway = through(&backend, name, &format!("limits = {{ {limits} }}"));
    let operator = gateway.operator();
    let good = gateway.client();
    let (header, value) = bad;
    let bad = gateway.client().with(header, value);

    assert_eq!(good.get("/").await.status, 200);
    assert_eq!(instances(&operator).await, 1.0, "{kind}: one request makes one instance");
    let reached = backend.heard().len();
    let mut connection = bad.connect().await.expect("a connection");
    for _ in 0..2 {
        assert_fault(&connection.get("/").await, "plugin-fault");
        assert_eq!(instances(&operator).await, 0.0, "{kind}: the instance is gone");
    }
    assert_eq!(connection.get("/plain").await.text(), "hello", "{kind}: the connection is as good as before");
    let in_the_response = usize::from(value == "response") * 2;
    assert_eq!(
        backend.heard().len(),
        reached + in_the_response + 1,
        "{kind}: a request that is denied stops there"
    );

    let answer = bad.get("/lenient").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "hello"),
        "{kind}: on_error = \"skip\""
    );
    let half_done = (backend.last().header("x-half-done").len(), answer.header("x-half-done").len());
    assert_eq!(half_done, (0, 0), "{kind}: as if the plugin were not there, whatever it had begun");
    assert_eq!(good.get("/").await.text(), "hello", "{kind}: the next request");
    assert_eq!(instances(&operator).await, 1.0, "{kind}: with a new instance");

    assert_eq!(faults(&operator, kind).await, 3.0, "{kind}");
    let status = operator.plugin("guest").await;
    assert_eq!(status["faults"], serde_json::json!({ kind: 3 }), "{status}");
    let errors = operator.metric("vers_gateway_errors_total", &["code=\"plugin-fault\""]).await;
    assert_eq!(errors, 2.0, "{kind}: a fault that is skipped is no answer of the gateway");
}

#[tokio::test]
async fn a_trap_on_a_request_costs_that_request() {
    check("trap", "", ("x-trap", "request"), "trap").await;
}

#[tokio::test]
async fn a_trap_on_an_answer_costs_that_request() {
    check("trap", "", ("x-trap", "response"), "trap").await;
}

#[tokio::test]
async fn an_endless_loop_costs_that_request() {
    check("spin", "cpu = \"20ms\"", ("x-spin", "request"), "cpu").await;
}

#[tokio::test]
async fn an_endless_loop_on_an_answer_costs_that_request() {
    check("spin", "cpu = \"20ms\"", ("x-spin", "response"), "cpu").await;
}

#[tokio::test]
async fn a_memory_hog_costs_that_request() {
    check("hog_memory", "memory = \"16MiB\"", ("x-hog", "all"), "memory").await;
}

#[tokio::test]
async fn memory_within_the_limit_is_no_fault() {
    let backend = Backend::hello().await;
    let gateway = through(&backend, "hog_memory", "limits = { memory = \"16MiB\" }");
    assert_eq!(gateway.client().with("x-hog", "8").get("/").await.status, 200);
    assert_fault(&gateway.client().with("x-hog", "16").get("/").await, "plugin-fault");
}

#[tokio::test]
async fn what_a_guest_says_when_it_panics_is_in_the_log() {
    let backend = Backend::hello().await;
    let gateway = GatewayProcess::start(crate::DAEMON, &guest_routes(backend.addr(), "trap", "")).await;
    let client = Client::new(gateway.addr_of("[::]:0").await).with("x-trap", "request");
    assert_fault(&client.get("/").await, "plugin-fault");
    let line = eventually("a line about the fault", async || {
        gateway.log().into_iter().find(|line| line["fault"] == "trap")
    });
    let line = line.await;
    assert_eq!((&line["level"], &line["plugin"]), (&"ERROR".into(), &"guest".into()), "{line}");
    let detail = line["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("asked to panic on request"), "the panic's message: {line}");
    assert!(detail.contains("#on-request"), "where it was: {line}");
    let access = eventually("the request's line", async || {
        gateway.log().into_iter().find(|line| line["target"] == "access")
    });
    let access = access.await;
    assert_eq!((&access["status"], &access["error"]), (&503.into(), &"plugin-fault".into()), "{access}");
}

/// Sends small requests, one after the other, as long as `beside` goes on, and returns how long each
/// took.
async fn latencies(kept: &mut Kept, path: &str, beside: impl Future<Output = ()>) -> Vec<Duration> {
    let (over, mut taken) = (Cell::new(false), Vec::new());
    let requests = async {
        while !over.get() {
            let began = Instant::now();
            assert_eq!(kept.get(path).await.status, 200, "{path} beside the fault");
            taken.push(began.elapsed());
        }
    };
    join(requests, async {
        beside.await;
        over.set(true);
    })
    .await;
    taken
}

fn percentile(taken: &mut [Duration], percent: usize) -> Duration {
    taken.sort_unstable();
    taken[(taken.len() * percent / 100).min(taken.len() - 1)]
}

/// The worker is one thread: were a guest to hold it, every request beside it would take as long as
/// the guest may compute, 200 ms.
#[tokio::test]
async fn requests_flow_beside_guests_that_spin() {
    const MOST: Duration = Duration::from_millis(50);
    let backend = Backend::hello().await;
    let gateway = through(&backend, "spin", "limits = { cpu = \"200ms\" }\nbreaker = { faults = 0 }");
    let mut kept = gateway.client().connect().await.expect("a connection");
    let (mut median, mut p95) = (Duration::MAX, Duration::MAX);
    // A machine that is busy with something else for a moment says nothing about the gateway: it may
    // have another try, and of a hundred requests a few may be late.
    for _ in 0..5 {
        let spin =
            async || assert_fault(&gateway.client().with("x-spin", "request").get("/").await, "plugin-fault");
        let spinning = async {
            for _ in 0..3 {
                join_all((0..2).map(async |_| spin().await)).await;
            }
        };
        let mut taken = latencies(&mut kept, "/plain", spinning).await;
        assert!(taken.len() > 20, "only {} requests beside 1.2 s of spinning", taken.len());
        let p99;
        [median, p95, p99] = [50, 95, 99].map(|percent| percentile(&mut taken, percent));
        println!("beside two spinning guests: {} requests, {median:?}, {p95:?}, {p99:?}", taken.len());
        if p95 < MOST {
            break;
        }
    }
    // Where the machine is busy all the time, one in twenty may wait for it as long again.
    assert!(median < MOST && p95 < 2 * MOST, "small requests took {median:?}, one in twenty {p95:?}");
    assert!(faults(&gateway.operator(), "cpu").await >= 6.0, "they did spin");
}

#[tokio::test]
async fn requests_flow_beside_guests_that_wait() {
    let backend = Backend::hello().await;
    let silent = Backend::silent().await;
    let more = calling(&silent, ", timeout_ms = 600000", "wall = \"10s\", instances = 8");
    let gateway = through(&backend, "slow_call", &more);
    let parked: Vec<_> = join_all((0..8).map(async |_| {
        let mut raw = Raw::connect(gateway.addr()).await;
        raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        raw
    }))
    .await;
    eventually("eight calls that wait", async || (silent.connections() == 8).then_some(())).await;
    let mut kept = gateway.client().connect().await.expect("a connection");
    for _ in 0..100 {
        assert_eq!(kept.get("/plain").await.status, 200);
    }
    assert_eq!(instances(&gateway.operator()).await, 8.0, "they wait still");
    drop(parked);
}

/// The clock of `limits.cpu` stands still while the guest waits for the gateway.
#[tokio::test]
async fn waiting_for_an_answer_is_no_cpu_time() {
    const BUDGET: Duration = Duration::from_millis(10);
    let backend = Backend::hello().await;
    // Slow is what this server is: many times the budget.
    let slow = Backend::streaming(|_| async {
        tokio::time::sleep(BUDGET * 30).await;
        http::Response::new(http_body_util::combinators::BoxBody::default())
    })
    .await;
    let gateway = through(&backend, "slow_call", &calling(&slow, "", "cpu = \"10ms\""));
    for _ in 0..2 {
        let began = Instant::now();
        let answer = gateway.client().get("/").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(began.elapsed() >= BUDGET * 30, "the call was made");
        assert_eq!(backend.last().header("x-called"), "200");
    }
    assert_eq!(gateway.operator().plugin("guest").await["faults"], serde_json::json!({}));
}

#[tokio::test]
async fn a_call_that_waits_for_ever_is_ended() {
    let backend = Backend::hello().await;
    let silent = Backend::silent().await;
    for hook in ["request", "response"] {
        let config = format!(", timeout_ms = 600000, hook = \"{hook}\"");
        let gateway = through(&backend, "slow_call", &calling(&silent, &config, "wall = \"200ms\""));
        assert_fault(&gateway.client().get("/").await, "plugin-fault");
        let operator = gateway.operator();
        assert_eq!((faults(&operator, "wall").await, instances(&operator).await), (1.0, 0.0), "{hook}");
        let answer = gateway.client().get("/lenient").await;
        assert_eq!(
            (answer.text().as_str(), answer.header("x-called")),
            ("hello", ""),
            "{hook}: on_error = \"skip\""
        );
        assert_eq!(backend.last().header("x-called"), "", "{hook}: as if the plugin were not there");
        assert_eq!(faults(&operator, "wall").await, 2.0, "{hook}");
    }
}

/// The guest's own deadline comes first, and is no fault.
#[tokio::test]
async fn a_call_may_give_up_before_its_time_is_over() {
    let backend = Backend::hello().await;
    let silent = Backend::silent().await;
    let gateway = through(&backend, "slow_call", &calling(&silent, ", timeout_ms = 50", ""));
    assert_eq!(gateway.client().get("/").await.status, 200);
    assert_eq!(backend.last().header("x-called"), "no answer in time");
    assert_eq!(instances(&gateway.operator()).await, 1.0);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_waiting_call_along() {
    let backend = Backend::hello().await;
    let silent = Backend::silent().await;
    let more = calling(&silent, ", timeout_ms = 600000", "wall = \"10m\", instances = 4");
    let gateway = through(&backend, "slow_call", &more);
    let operator = gateway.operator();
    for round in 1..=3 {
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut raw = Raw::connect(gateway.addr()).await;
            raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            clients.push(raw);
        }
        eventually("four calls that wait", async || (instances(&operator).await == 4.0).then_some(())).await;
        eventually("four calls that went out", async || (silent.connections() == 4 * round).then_some(()))
            .await;
        drop(clients);
        eventually("their end", async || (instances(&operator).await == 0.0).then_some(())).await;
    }
    assert_eq!(operator.plugin("guest").await["faults"], serde_json::json!({}), "nobody failed");
    assert_eq!(backend.connections(), 0, "nothing was sent for a client that is gone");
}

#[tokio::test]
async fn more_calls_than_instances_are_refused_at_once() {
    let backend = Backend::hello().await;
    let (callee, mut calls) = Backend::by_hand().await;
    let gateway = through(&backend, "slow_call", &calling(&callee, ", timeout_ms = 600000", "instances = 1"));
    let client = gateway.client();
    let first = tokio::spawn(async move { client.get("/").await });
    let mut call = calls.next().await;
    call.head().await;

    assert_fault(&gateway.client().get("/").await, "plugin-busy");
    assert_eq!(gateway.client().get("/lenient").await.status, 200, "on_error = \"skip\"");
    assert_eq!(gateway.client().get("/plain").await.status, 200);
    let operator = gateway.operator();
    let both_hooks = 1.0 + 2.0;
    assert_eq!((faults(&operator, "busy").await, instances(&operator).await), (both_hooks, 1.0));

    call.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(within("the first answer", first).await.expect("no panic").status, 200);
    assert_eq!(backend.last().header("x-called"), "204");
    assert_eq!(instances(&operator).await, 1.0, "and its instance serves the next");
}

/// In a process of its own, where nothing else takes or frees memory.
#[tokio::test]
async fn faults_leave_no_memory_behind() {
    const MOST: u64 = 8 << 20;
    let backend = Backend::hello().await;
    let gateway = GatewayProcess::start(
        crate::DAEMON,
        &format!(
            "{}[log]\nformat = \"json\"\naccess = false\n",
            guest_routes(backend.addr(), "trap", "breaker = { faults = 0 }")
        ),
    )
    .await;
    let address = gateway.addr_of("[::]:0").await;
    let fault = async |hook: &str| {
        assert_fault(&Client::new(address).with("x-trap", hook).get("/").await, "plugin-fault");
    };
    // The first faults load what it takes to tell where a guest was.
    for _ in 0..50 {
        fault("request").await;
    }
    let before = gateway.rss();
    for _ in 0..100 {
        fault("request").await;
        fault("response").await;
    }
    let after = gateway.rss();
    println!("RSS after 50 faults {} KiB, after 250 {} KiB", before >> 10, after >> 10);
    assert!(after < before + MOST, "200 faults took {} KiB", (after - before) >> 10);
    assert_eq!(instances(gateway.admin()).await, 0.0);
    assert_eq!(faults(gateway.admin(), "trap").await, 250.0);
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut() {
    let backend = Backend::hello().await;
    let gateway = GatewayProcess::start(crate::DAEMON, &guest_routes(backend.addr(), "log_flood", "")).await;
    let client = Client::new(gateway.addr_of("[::]:0").await);
    let lines = async || -> Vec<serde_json::Value> {
        gateway.log().into_iter().filter(|line| line["plugin"] == "guest").collect()
    };

    assert_eq!(client.clone().with("x-flood", "10").get("/").await.status, 200);
    let told =
        eventually("eleven lines", async || Some(lines().await).filter(|lines| lines.len() >= 11)).await;
    let last = told[10]["message"].as_str().unwrap_or_default();
    assert_eq!((last.len(), last.trim_matches('x')), (4096, ""), "a long line is cut");
    assert_eq!((&told[0]["message"], &told[0]["level"]), (&"flood 0".into(), &"WARN".into()));

    // Another instance would have another budget: one request after the other meets the same.
    assert_eq!(client.with("x-flood", "10000").get("/").await.status, 200);
    let told = settled("an end of the flood", async || lines().await.len()).await - 11;
    assert!((1..=101).contains(&told), "{told} of 10001 lines were written");
    let cut = lines()
        .await
        .iter()
        .filter(|line| line["message"].as_str().is_some_and(|it| it.starts_with("too many")))
        .count();
    assert!((1..=2).contains(&cut), "the cut is told once a second, not {cut} times");
}

#[tokio::test]
async fn background_work_that_fails_is_tried_again_ever_later() {
    let backend = Backend::hello().await;
    let gateway = GatewayProcess::start(crate::DAEMON, &guest_routes(backend.addr(), "bg_trap", "")).await;
    let client = Client::new(gateway.addr_of("[::]:0").await);
    let faulted = async || -> Vec<serde_json::Value> {
        gateway.log().into_iter().filter(|line| line["fault"] == "trap").collect()
    };
    let (mut at, mut served) = (Vec::new(), 0);
    while at.len() < 3 {
        assert_eq!(client.get("/").await.text(), "hello", "requests do not notice");
        served += 1;
        let seen = faulted().await.len();
        at.extend((at.len()..seen).map(|_| Instant::now()));
        assert!(at.first().is_none_or(|first| first.elapsed() < gateway_tests::PATIENCE), "{at:?}");
    }
    let (first, second) = (at[1] - at[0], at[2] - at[1]);
    println!("{served} requests beside it, and pauses of {first:?} and {second:?}");
    assert!(first > Duration::from_millis(700), "not at once: {first:?}");
    assert!(second > first.mul_f64(1.4), "{first:?}, then {second:?}");
    assert_eq!(gateway.admin().plugin("guest").await["background"], "fault: it trapped");
    assert!(faults(gateway.admin(), "trap").await >= 3.0);
    let said = faulted().await[0]["detail"].as_str().unwrap_or_default().to_owned();
    assert!(said.contains("panics on each run; this is Reason::Start"), "a new instance each time: {said}");
}
