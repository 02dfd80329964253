//! How much a server takes at a time, who waits for it, and who does not.

use bytes::Bytes;
use gateway_tests::{Backend, Raw, TestGateway, Visitors, eventually, one_backend, within};
use http::Response;
use http_body_util::{BodyExt as _, Full};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A client that has asked for this path.
async fn ask(gateway: &TestGateway, path: &str) -> Raw {
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    client
}

/// A gateway to one server that takes one request at a time, and that request: its client and its
/// server.
async fn busy(limits: &str) -> (Backend, Visitors, TestGateway, Raw, Raw) {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::start(&one_backend(
        &[backend.addr()],
        &format!("limits = {{ connections = 1{limits} }}"),
    ));
    let client = ask(&gateway, "/first").await;
    let mut server = visitors.next().await;
    server.head().await;
    (backend, visitors, gateway, client, server)
}

async fn pending(gateway: &TestGateway, requests: f64) {
    eventually(&format!("{requests} requests that wait"), async || {
        (gateway.metric("vers_upstream_pending", &[]).await == requests).then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_wait_in_the_order_in_which_they_came() {
    let (backend, _visitors, gateway, mut first, mut server) = busy("").await;
    let mut waiting = Vec::new();
    for number in 1..=3 {
        waiting.push(ask(&gateway, &format!("/waiting/{number}")).await);
        pending(&gateway, f64::from(number)).await;
    }
    assert_eq!(gateway.operator().server(backend.addr()).await["in_use"], 1);
    server.send(ANSWER).await;
    first.until("ok").await;
    for (number, mut client) in (1..).zip(waiting) {
        let head = server.head().await;
        assert!(head.starts_with(&format!("GET /waiting/{number} ")), "{head}");
        server.send(ANSWER).await;
        client.until("ok").await;
    }
    assert_eq!(backend.connections(), 1, "one connection was enough for all of them");
    pending(&gateway, 0.0).await;
}

#[tokio::test]
async fn a_full_queue_is_said_at_once() {
    let (_backend, _visitors, gateway, _first, mut server) = busy(", pending = 1").await;
    let mut second = ask(&gateway, "/second").await;
    pending(&gateway, 1.0).await;
    let answer = gateway.client().get("/third").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (503, "upstream-queue-full"));
    assert_eq!(gateway.metric("vers_upstream_pending_refused_total", &["reason=\"full\""]).await, 1.0);
    server.send(ANSWER).await;
    server.head().await;
    server.send(ANSWER).await;
    second.until("ok").await;
}

#[tokio::test]
async fn without_places_nobody_waits() {
    let (_backend, _visitors, gateway, _first, _server) = busy(", pending = 0").await;
    let answer = gateway.client().get("/second").await;
    assert_eq!(answer.header("x-gateway-error"), "upstream-queue-full");
}

#[tokio::test]
async fn a_request_does_not_wait_for_ever() {
    let (_backend, _visitors, gateway, mut first, mut server) = busy(", wait = \"100ms\"").await;
    let began = Instant::now();
    let answer = gateway.client().get("/second").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (503, "upstream-queue-timeout"));
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!(gateway.metric("vers_upstream_pending_refused_total", &["reason=\"late\""]).await, 1.0);
    server.send(ANSWER).await;
    first.until("ok").await;
    let mut third = ask(&gateway, "/third").await;
    let head = server.head().await;
    assert!(head.starts_with("GET /third "), "the one that was told off is not sent: {head}");
    server.send(ANSWER).await;
    third.until("ok").await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_its_place() {
    let (_backend, _visitors, gateway, mut first, mut server) = busy(", pending = 2, wait = \"1h\"").await;
    let leaves = ask(&gateway, "/leaves").await;
    pending(&gateway, 1.0).await;
    let mut stays = ask(&gateway, "/stays").await;
    pending(&gateway, 2.0).await;
    drop(leaves);
    pending(&gateway, 1.0).await;
    let mut comes = ask(&gateway, "/comes").await;
    pending(&gateway, 2.0).await;
    server.send(ANSWER).await;
    first.until("ok").await;
    for (path, client) in [("/stays", &mut stays), ("/comes", &mut comes)] {
        let head = server.head().await;
        assert!(head.starts_with(&format!("GET {path} ")), "{head}");
        server.send(ANSWER).await;
        client.until("ok").await;
    }
}

#[tokio::test]
async fn an_exchange_that_breaks_off_gives_up_its_connection() {
    let (_backend, mut visitors, gateway, mut first, server) = busy(", wait = \"1h\"").await;
    let second = ask(&gateway, "/second").await;
    pending(&gateway, 1.0).await;
    drop(server);
    assert!(first.head().await.starts_with("HTTP/1.1 502 "));
    let mut server = visitors.next().await;
    server.head().await;
    drop(first);
    // Now one whose client leaves in the midst of it.
    let mut third = ask(&gateway, "/third").await;
    pending(&gateway, 1.0).await;
    second.stream.set_zero_linger().expect("a reset at the end");
    drop(second);
    let mut server = visitors.next().await;
    server.head().await;
    server.send(ANSWER).await;
    third.until("ok").await;
}

#[tokio::test]
async fn the_limit_is_one_for_all_workers() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside, peak) = (Arc::clone(&now), Arc::clone(&most));
    let backend = Backend::streaming(move |_| {
        let (inside, peak) = (Arc::clone(&inside), Arc::clone(&peak));
        async move {
            peak.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Long enough for others to come in, if they may.
            sleep(Duration::from_millis(5)).await;
            inside.fetch_sub(1, Ordering::SeqCst);
            Response::new(Full::<Bytes>::from("ok").map_err(|never| match never {}).boxed())
        }
    })
    .await;
    let gateway = TestGateway::start(&one_backend(
        &[backend.addr()],
        "limits = { connections = 2, wait = \"1h\" }\n[gateway]\nworkers = 3",
    ));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let client = gateway.client();
        clients.spawn(async move { client.get("/").await.text() });
    }
    let answers = within("all answers", clients.join_all()).await;
    assert!(answers.iter().all(|answer| answer == "ok"), "{answers:?}");
    assert_eq!(most.load(Ordering::SeqCst), 2, "as many as may, and no more");
}

#[tokio::test]
async fn any_server_with_room_is_taken() {
    let (one, mut at_one) = Backend::by_hand().await;
    let (two, mut at_two) = Backend::by_hand().await;
    let gateway = TestGateway::start(&one_backend(&[one.addr(), two.addr()], "limits = { connections = 1 }"));
    let _first = ask(&gateway, "/1").await;
    let _busy = at_one.next().await;
    let _second = ask(&gateway, "/2").await;
    let mut server = at_two.next().await;
    server.head().await;
    let mut third = ask(&gateway, "/3").await;
    pending(&gateway, 1.0).await;
    // It would have been the other one's turn.
    server.send(ANSWER).await;
    assert!(server.head().await.starts_with("GET /3 "));
    server.send(ANSWER).await;
    third.until("ok").await;
}

#[tokio::test]
async fn tunnels_hold_their_place_until_they_end() {
    let backend = Backend::tcp_echo().await;
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nprotocol = \"tcp\"\nto = \"app\"\n\
         [backend.app]\nservers = [\"{}\"]\nlimits = {{ connections = 1, wait = \"1h\" }}\n",
        backend.addr()
    ));
    let mut first = Raw::connect(gateway.addr()).await;
    first.send("ping").await;
    first.exactly(4).await;
    let mut second = Raw::connect(gateway.addr()).await;
    second.send("pong").await;
    pending(&gateway, 1.0).await;
    assert_eq!(backend.connections(), 1);
    drop(first);
    assert_eq!(second.exactly(4).await, b"pong");
}

#[tokio::test]
async fn what_is_in_use_stays_so_over_a_reload() {
    let (backend, mut visitors, gateway, mut first, mut server) = busy(", wait = \"1h\"").await;
    let mut waits = ask(&gateway, "/waits").await;
    pending(&gateway, 1.0).await;
    gateway.write(&one_backend(
        &[backend.addr()],
        "limits = { connections = 1, wait = \"2h\" }\nkeepalive = { connections = 7 }",
    ));
    gateway.reload().await.expect("a reload");
    let mut comes = ask(&gateway, "/comes").await;
    pending(&gateway, 2.0).await;
    assert_eq!(backend.connections(), 1);
    server.send(ANSWER).await;
    first.until("ok").await;
    // What is replaced keeps no connection for later, and the new settings have connections of their own.
    assert_eq!(server.to_end().await, "");
    let mut server = visitors.next().await;
    let head = server.head().await;
    assert!(head.starts_with("GET /waits "), "{head}");
    server.send(ANSWER).await;
    waits.until("ok").await;
    let mut server = visitors.next().await;
    assert!(server.head().await.starts_with("GET /comes "));
    server.send(ANSWER).await;
    comes.until("ok").await;
}
