//! How large the body of a request may be, and how long all of it may take.

use futures_util::future::join;
use gateway_tests::{Backend, Raw, TestGateway, guest, one_route, plugin_table, within};
use std::time::Duration;
use tokio::{io::AsyncWriteExt as _, time::interval};

fn limited(backend: &Backend, limit: &str) -> TestGateway {
    TestGateway::with(backend.addr(), &format!("limits = {{ body = \"{limit}\" }}"))
}

/// Sends bytes on a connection of their own, and returns all that comes back.
async fn told(gateway: &TestGateway, bytes: &str) -> String {
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(bytes).await;
    client.to_end().await
}

fn chunked(body: &[&str]) -> String {
    let chunks: String = body.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
    format!(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    )
}

fn assert_too_large(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-gateway-error: body-too-large\r\n"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn a_body_that_is_told_to_be_too_large_is_refused_before_anything_is_forwarded() {
    let backend = Backend::echo().await;
    let gateway = limited(&backend, "10B");
    let answer = gateway.client().post("/", "0123456789").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "0123456789"),
        "as much as is allowed"
    );
    let connections = backend.connections();
    for expect in ["", "expect: 100-continue\r\n"] {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{expect}content-length: 11\r\n\r\n");
        assert_too_large(&told(&gateway, &head).await);
    }
    let answer = gateway.client().post("/", vec![b'x'; 1_000_000]).await;
    assert_eq!(answer.status, 413, "a client that sends first and reads then is told as well");
    assert_eq!((backend.connections(), backend.heard().len()), (connections, 1));
    assert_eq!(gateway.metric("vers_gateway_errors_total", &["code=\"body-too-large\""]).await, 3.0);
}

#[tokio::test]
async fn a_body_in_chunks_is_refused_with_the_first_that_is_too_much() {
    let backend = Backend::echo().await;
    let gateway = limited(&backend, "10B");
    let answer = told(&gateway, &chunked(&["01234", "56789"])).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "as much as is allowed: {answer}");
    assert_too_large(&told(&gateway, &chunked(&["0123456789", "x"])).await);
    assert_too_large(&told(&gateway, &chunked(&[&"x".repeat(11)])).await);

    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = limited(&backend, "10B");
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n9\r\nforwarded\r\n").await;
    let mut server = visitors.next().await;
    server.until("forwarded\r\n").await;
    client.send("2\r\n").await;
    assert_too_large(&client.to_end().await);
    assert_eq!(server.to_end().await, "", "no end that looks like one");
}

#[tokio::test]
async fn a_limit_is_its_routes() {
    let backend = Backend::echo().await;
    let to = backend.addr();
    let gateway = TestGateway::with(
        to,
        &format!(
            "[[route]]\npath = \"/small\"\nto = \"{to}\"\nlimits = {{ body = \"0B\" }}\n\
             [[route]]\npath = \"/none\"\nto = {{ respond = {{ status = 204 }} }}\nlimits = {{ body = \"1B\" }}"
        ),
    );
    let body = vec![b'x'; 3_000_000];
    assert_eq!(gateway.client().post("/", body.clone()).await.body, body, "any size by default");
    assert_eq!(gateway.client().get("/small").await.status, 200, "no body is none");
    assert_eq!(gateway.client().post("/small", "x").await.status, 413);
    assert_eq!(gateway.client().post("/none", "xx").await.status, 413, "whoever answers");
}

/// A gateway whose requests have this long, and everything else very long.
fn timed(backend: &Backend, total: &str, more: &str) -> TestGateway {
    let long = "connect = \"1h\", response = \"1h\", idle = \"1h\", tunnel = \"1h\"";
    TestGateway::with(backend.addr(), &format!("timeouts = {{ {long}, total = \"{total}\" }}\n{more}"))
}

fn assert_late(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-gateway-error: total-timeout\r\n"), "{answer}");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up_and_the_next_has_its_own_time() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = timed(&backend, "300ms", "");
    let mut client = Raw::connect(gateway.addr()).await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut server = visitors.next().await;
        server.head().await;
        assert_late(&client.until("total-timeout)\n").await);
        assert_eq!(server.to_end().await, "");
    }
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 204 "));
    assert_eq!(gateway.metric("vers_gateway_errors_total", &["code=\"total-timeout\""]).await, 2.0);
}

#[tokio::test]
async fn bytes_that_move_do_not_prolong_it() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = timed(&backend, "300ms", "");
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
    let dribble = async {
        let mut tick = interval(Duration::from_millis(10));
        loop {
            tick.tick().await;
            if server.stream.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    let (answer, ()) = within("the end of both", join(client.to_end(), dribble)).await;
    assert!(answer.ends_with("xxx"), "it went on for a while: {answer}");
    assert_eq!(gateway.metric("vers_connections_cut_total", &["reason=\"total\""]).await, 1.0);
}

#[tokio::test]
async fn plugins_are_part_of_it() {
    let backend = Backend::hello().await;
    let silent = Backend::silent().await;
    let callee = silent.addr();
    for hook in ["request", "response"] {
        let table = plugin_table(
            "guest",
            &guest("slow_call"),
            &format!(
                "grants = {{ http = [\"http://{callee}\"] }}\nlimits = {{ wall = \"10m\" }}\n\
                 config = {{ url = \"http://{callee}/\", timeout_ms = 600000, hook = \"{hook}\" }}"
            ),
        );
        let route = format!("plugins = [\"guest\"]\ntimeouts = {{ total = \"300ms\" }}\n{table}");
        let gateway = TestGateway::start(&one_route(backend.addr(), &route));
        let answer = gateway.client().get("/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-gateway-error")),
            (504, "total-timeout"),
            "{hook}"
        );
        assert_eq!(gateway.metric("vers_plugin_instances", &[]).await, 0.0, "{hook}: nobody waits any more");
    }
}

#[tokio::test]
async fn what_follows_an_upgrade_has_all_the_time() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = timed(&backend, "300ms", "upgrades = [\"echo\"]");
    let mut upgraded = Raw::connect(gateway.addr()).await;
    upgraded.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
    let mut echo = visitors.next().await;
    echo.head().await;
    echo.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
    upgraded.head().await;
    // A request that begins now is over later than the upgrade's time.
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let _silent = visitors.next().await;
    assert_late(&client.until("total-timeout)\n").await);
    upgraded.send("ping").await;
    echo.until("ping").await;
    echo.send("pong").await;
    upgraded.until("pong").await;
}
