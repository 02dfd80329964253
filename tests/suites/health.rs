//! Servers that do not work: who notices, what becomes of requests meanwhile, and for how long.

use bytes::Bytes;
use gateway_tests::{Admin, Asleep, Backend, TestGateway, eventually, one_backend, settled};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

async fn failed_connects(gateway: &TestGateway) -> f64 {
    gateway.metric("vers_upstream_connects_total", &["outcome=\"failed\""]).await
}

async fn has_state(admin: &Admin, server: SocketAddr, state: &str) {
    eventually(&format!("{server} being {state}"), async || {
        (admin.server(server).await["state"] == state).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_refuses_is_left_alone_and_nobody_notices() {
    let (dead, alive) = (Asleep::new(), Backend::hello().await);
    let gateway = TestGateway::start(&one_backend(
        &[dead.addr(), alive.addr()],
        "ejection = { first = \"1h\", longest = \"1h\" }\n[gateway]\nworkers = 2",
    ));
    for _ in 0..40 {
        assert_eq!(gateway.client().get("/").await.text(), "hello");
    }
    assert_eq!(failed_connects(&gateway).await, 1.0, "what one worker learns, all know");
    let ejections = gateway.metric("vers_upstream_ejections_total", &["reason=\"unreachable\""]).await;
    assert_eq!(ejections, 1.0);
    let server = gateway.operator().server(dead.addr()).await;
    assert_eq!(server["state"], "ejected");
    assert!(server["ejected_for_ms"].as_u64().is_some_and(|left| left > 3_000_000), "{server}");
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again() {
    let (dead, alive) = (Asleep::new(), Backend::hello().await);
    let (address, alive_too) = (dead.addr(), alive.addr());
    let gateway = TestGateway::start(&one_backend(&[address, alive_too], "ejection = { first = \"50ms\" }"));
    let client = gateway.client();
    assert_eq!(client.get("/").await.text(), "hello");
    let _awake = dead.wake();
    eventually("an answer of the server that was down", async || {
        (client.get("/").await.text() == "awake").then_some(())
    })
    .await;
    has_state(&gateway.operator(), address, "up").await;
}

#[tokio::test]
async fn where_nobody_works_one_is_tried_all_the_same() {
    let (one, other) = (Asleep::new(), Asleep::new());
    let gateway = TestGateway::start(&one_backend(
        &[one.addr(), other.addr()],
        "ejection = { first = \"1h\", longest = \"1h\" }",
    ));
    for _ in 0..3 {
        let answer = gateway.client().get("/").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (503, "upstream-down"));
    }
    assert_eq!(failed_connects(&gateway).await, 6.0, "all are tried each time");
    let address = other.addr();
    let _awake = other.wake();
    for _ in 0..3 {
        assert_eq!(gateway.client().get("/").await.text(), "awake", "an hour is not waited for");
    }
    assert_eq!(gateway.operator().server(address).await["state"], "up");
}

#[tokio::test]
async fn an_only_server_is_never_left_alone() {
    let dead = Asleep::new();
    let gateway = TestGateway::start(&one_backend(&[dead.addr()], ""));
    for _ in 0..3 {
        let answer = gateway.client().get("/").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (502, "upstream-refused"));
    }
    assert_eq!(gateway.operator().server(dead.addr()).await["state"], "up");
    let _awake = dead.wake();
    assert_eq!(gateway.client().get("/").await.text(), "awake");
}

#[tokio::test]
async fn a_server_that_fails_one_exchange_after_the_other_is_left_alone() {
    let (mute, alive) = (Backend::canned("").await, Backend::hello().await);
    let gateway = TestGateway::start(&one_backend(
        &[mute.addr(), alive.addr()],
        "ejection = { failures = 3, first = \"1h\", longest = \"1h\" }",
    ));
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(gateway.client().post("/", "x").await.status.as_u16());
    }
    assert_eq!(statuses, [502, 200, 502, 200, 502, 200, 200, 200, 200, 200, 200, 200]);
    let ejections = gateway.metric("vers_upstream_ejections_total", &["reason=\"failing\""]).await;
    assert_eq!(ejections, 1.0);
}

#[tokio::test]
async fn everything_but_a_whole_answer_in_time_is_a_failure() {
    let alive = Backend::hello().await;
    for server in [
        Backend::silent().await,
        Backend::canned("SSH-2.0-OpenSSH_9.6\r\n\r\n").await,
        Backend::canned("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await,
    ] {
        let text = one_backend(
            &[server.addr(), alive.addr()],
            "ejection = { failures = 1, first = \"1h\", longest = \"1h\" }",
        );
        let gateway = TestGateway::start(
            &text.replace("to = \"app\"\n", "to = \"app\"\ntimeouts = { response = \"100ms\" }\n"),
        );
        // What the client sees of it depends on how much of an answer there was.
        let _ = gateway.client().try_send(Method::GET, "/", Bytes::new()).await;
        has_state(&gateway.operator(), server.addr(), "ejected").await;
        assert_eq!(gateway.client().get("/").await.text(), "hello");
        assert_eq!(gateway.client().get("/").await.text(), "hello");
    }
}

#[tokio::test]
async fn every_status_is_an_answer() {
    let broken = Backend::http(|_| {
        let mut answer = Response::new(Full::<Bytes>::from("sorry"));
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
    .await;
    let alive = Backend::hello().await;
    let gateway =
        TestGateway::start(&one_backend(&[broken.addr(), alive.addr()], "ejection = { failures = 1 }"));
    for _ in 0..4 {
        assert_eq!(gateway.client().get("/").await.text(), "sorry");
        assert_eq!(gateway.client().get("/").await.text(), "hello");
    }
}

#[tokio::test]
async fn what_is_known_of_a_server_outlives_a_reload() {
    let (dead, alive, new) = (Asleep::new(), Backend::hello().await, Backend::hello().await);
    let ejection = "ejection = { first = \"1h\", longest = \"1h\" }";
    let gateway = TestGateway::start(&one_backend(&[dead.addr(), alive.addr()], ejection));
    gateway.client().get("/").await;
    assert_eq!(gateway.operator().server(dead.addr()).await["state"], "ejected");
    gateway.write(&one_backend(
        &[new.addr(), dead.addr()],
        &format!("{ejection}\nbalance = \"least_requests\""),
    ));
    gateway.reload().await.expect("a reload");
    assert_eq!(gateway.operator().server(dead.addr()).await["state"], "ejected");
    for _ in 0..4 {
        assert_eq!(gateway.client().get("/").await.text(), "hello");
    }
    assert_eq!(new.heard().len(), 4);
    assert_eq!(failed_connects(&gateway).await, 1.0);
}

/// A server whose `/health` answers as the switch says.
async fn switched(name: &'static str) -> (Backend, Arc<AtomicBool>) {
    let works = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&works);
    let backend = Backend::http(move |heard| {
        let mut answer = Response::new(Full::from(name));
        if heard.uri.path() == "/health" && !switch.load(Ordering::SeqCst) {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        answer
    })
    .await;
    (backend, works)
}

const CHECK: &str = "health = { path = \"/health\", host = \"app.example.com\", interval = \"10ms\", healthy = 2, unhealthy = 2 }";

#[tokio::test]
async fn a_server_that_says_it_does_not_work_gets_nothing_until_it_does() {
    let ((sick, works), (well, _)) = (switched("sick").await, switched("well").await);
    let gateway = TestGateway::start(&one_backend(&[sick.addr(), well.addr()], CHECK));
    let (admin, client) = (gateway.operator(), gateway.client());
    eventually("a first check", async || {
        (admin.server(sick.addr()).await["check"] == "passed").then_some(())
    })
    .await;
    let label = format!("server=\"{}\"", sick.addr());
    assert_eq!(admin.metric("vers_server_healthy", &[&label]).await, 1.0);
    works.store(false, Ordering::SeqCst);
    has_state(&admin, sick.addr(), "unhealthy").await;
    assert_eq!(admin.server(sick.addr()).await["check"], "failed: it answered 503 Service Unavailable");
    assert_eq!(admin.metric("vers_server_healthy", &[&label]).await, 0.0);
    assert_eq!(admin.server(well.addr()).await["state"], "up");
    for _ in 0..4 {
        assert_eq!(client.get("/").await.text(), "well");
    }
    works.store(true, Ordering::SeqCst);
    has_state(&admin, sick.addr(), "up").await;
    assert_eq!(client.get("/").await.text() + &client.get("/").await.text(), "sickwell");
    assert!(admin.metric("vers_health_checks_total", &[&label, "outcome=\"failed\""]).await >= 2.0);
    assert!(admin.metric("vers_health_checks_total", &[&label, "outcome=\"passed\""]).await >= 3.0);
    let asked = sick.heard().into_iter().find(|heard| heard.uri.path() == "/health").expect("a check");
    assert_eq!((asked.method.as_str(), asked.header("host")), ("GET", "app.example.com"));
}

#[tokio::test]
async fn a_check_says_what_is_wrong() {
    let silent = Backend::silent().await;
    let (dead, dead_too) = (Asleep::new(), Asleep::new());
    for (server, health, reason) in [
        (silent.addr(), "path = \"/\", timeout = \"100ms\"", "failed: no answer in time"),
        (dead_too.addr(), "tcp = true", "failed: connection refused"),
        (dead.addr(), "path = \"/\"", "failed: connection refused"),
    ] {
        let gateway = TestGateway::start(&one_backend(
            &[server],
            &format!("health = {{ {health}, interval = \"10ms\" }}"),
        ));
        eventually(reason, async || {
            (gateway.operator().server(server).await["check"] == reason).then_some(())
        })
        .await;
    }
    for (answer, reason) in [
        ("", "failed: the connection was closed without an answer"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", "failed: its answer is malformed: "),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "failed: it answered 404 Not Found"),
        ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 302 Found\r\n\r\n", "passed"),
    ] {
        let backend = Backend::canned(answer).await;
        let gateway = TestGateway::start(&one_backend(
            &[backend.addr()],
            "health = { path = \"/\", interval = \"10ms\" }",
        ));
        eventually(reason, async || {
            let check = gateway.operator().server(backend.addr()).await["check"].clone();
            check.as_str().is_some_and(|check| check.starts_with(reason)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn where_all_are_out_of_order_one_is_tried_all_the_same() {
    let (sick, works) = switched("sick").await;
    works.store(false, Ordering::SeqCst);
    let gateway = TestGateway::start(&one_backend(&[sick.addr()], CHECK));
    has_state(&gateway.operator(), sick.addr(), "unhealthy").await;
    assert_eq!(gateway.client().get("/").await.text(), "sick");
    sick.end().await;
    let answer = gateway.client().get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (503, "upstream-down"));
}

#[tokio::test]
async fn a_check_takes_a_server_back_before_its_time() {
    let (dead, alive) = (Asleep::new(), Backend::hello().await);
    let address = dead.addr();
    let gateway = TestGateway::start(&one_backend(
        &[address, alive.addr()],
        "ejection = { first = \"1h\", longest = \"1h\" }\n\
         health = { tcp = true, interval = \"10ms\", healthy = 1, unhealthy = 1 }",
    ));
    gateway.client().get("/").await;
    has_state(&gateway.operator(), address, "unhealthy").await;
    let _awake = dead.wake();
    has_state(&gateway.operator(), address, "up").await;
}

#[tokio::test]
async fn checks_follow_a_reload() {
    let ((sick, works), (well, _)) = (switched("sick").await, switched("well").await);
    works.store(false, Ordering::SeqCst);
    let servers = [sick.addr(), well.addr()];
    let gateway = TestGateway::start(&one_backend(&servers, CHECK));
    let admin = gateway.operator();
    has_state(&admin, sick.addr(), "unhealthy").await;

    // Another question: until it is answered, the old answer holds.
    let other = "health = { path = \"/other\", interval = \"10ms\", healthy = 2 }";
    gateway.write(&one_backend(&servers, other));
    gateway.reload().await.expect("a reload");
    has_state(&admin, sick.addr(), "up").await;
    let asks = || sick.heard().iter().filter(|heard| heard.uri.path() == "/health").count();
    settled("the old question", async || asks()).await;
    works.store(true, Ordering::SeqCst);

    gateway.write(&one_backend(&servers, CHECK));
    gateway.reload().await.expect("a reload");
    works.store(false, Ordering::SeqCst);
    has_state(&admin, sick.addr(), "unhealthy").await;

    // No question any more.
    gateway.write(&one_backend(&servers, ""));
    gateway.reload().await.expect("a reload");
    let server = admin.server(sick.addr()).await;
    assert_eq!((&server["state"], &server["check"]), (&"up".into(), &serde_json::Value::Null));
    settled("all questions", async || sick.heard().len()).await;
    assert!(!gateway.admin().get("/metrics").await.text().contains("vers_server_healthy{"));
}

#[tokio::test]
async fn checks_end_with_the_gateway() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let backend = Backend::http(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Response::new(Full::<Bytes>::from("hello"))
    })
    .await;
    let gateway = TestGateway::start(&one_backend(&[backend.addr()], CHECK));
    eventually("some checks", async || (asked.load(Ordering::SeqCst) > 3).then_some(())).await;
    gateway.stop(Duration::from_secs(5)).await;
    let after = asked.load(Ordering::SeqCst);
    assert_eq!(settled("checks", async || asked.load(Ordering::SeqCst)).await, after);
}
