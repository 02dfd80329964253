//! Clients, named by what they do wrong.

use super::{ROUNDS, Scene, pour};
use gateway_tests::{Backend, Raw, within};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    sync::Mutex,
    time::interval,
};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const HALF_A_POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf";

/// Sends bytes one by one until the gateway says something.
async fn dribble(client: &mut Raw, byte: u8) {
    let mut tick = interval(Duration::from_millis(10));
    within("the end of patience", async {
        loop {
            tokio::select! {
                readable = client.stream.readable() => return readable.expect("an answer"),
                _ = tick.tick() => drop(client.stream.try_write(&[byte])),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn slow_head() {
    let backend = Backend::hello().await;
    let scene = Scene::with(backend.addr(), "timeouts = { head = \"200ms\" }", "").await;
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            client.send("GET / HTTP/1.1\r\nx: ").await;
            dribble(&mut client, b'x').await;
            let answer = client.to_end().await;
            assert!(answer.contains("x-gateway-error: head-timeout"), "{answer}");
            // A second request may be slow as well.
            let mut client = scene.raw().await;
            client.send(GET).await;
            client.until("hello").await;
            client.send("GET / HTTP/1.1\r\nx: ").await;
            assert_eq!(client.to_end().await, "");
        })
        .await;
    assert_eq!(scene.cut("head").await, ROUNDS as f64);
}

#[tokio::test]
async fn stops_in_the_middle_of_its_body() {
    let backend = Backend::silent().await;
    let scene = Scene::of(backend.addr(), "timeouts = { idle = \"150ms\" }").await;
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            client.send(HALF_A_POST).await;
            let answer = client.to_end().await;
            assert!(answer.contains("x-gateway-error: body-timeout"), "{answer}");
        })
        .await;
}

#[tokio::test]
async fn dribbles_its_body() {
    let backend = Backend::silent().await;
    let scene = Scene::of(backend.addr(), "timeouts = { idle = \"1h\", total = \"200ms\" }").await;
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n").await;
            dribble(&mut client, b'x').await;
            let answer = client.to_end().await;
            assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
            assert!(answer.contains("x-gateway-error: total-timeout"), "{answer}");
        })
        .await;
}

/// Writes for ever.
async fn endless() -> Backend {
    Backend::tcp(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let chunk = [b"10000\r\n", &[b'x'; 1 << 16][..], b"\r\n"].concat();
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await
}

#[tokio::test]
async fn never_reads() {
    let backend = endless().await;
    let scene = Scene::of(backend.addr(), "timeouts = { idle = \"200ms\" }").await;
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            client.send(GET).await;
            client.head().await;
            let cut = scene.cut("idle").await;
            gateway_tests::eventually("the end of patience", async || {
                (scene.cut("idle").await == cut + 1.0).then_some(())
            })
            .await;
        })
        .await;
}

/// More than the gateway's socket takes while the client reads nothing.
const LARGE: usize = 6 << 20;

/// A scene whose routes answer by themselves, and a client that has room for little.
async fn large_answer(timeouts: &str) -> Scene {
    let body = "x".repeat(LARGE);
    let routes = format!(
        "{timeouts}\n[[route]]\npath = \"/large\"\nto = {{ respond = {{ body = \"{body}\" }} }}\n{timeouts}"
    );
    Scene::of(Backend::hello().await.addr(), &routes).await
}

async fn narrow(scene: &Scene) -> Raw {
    let socket = if scene.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("a small buffer");
    Raw::over(socket.connect(scene.address).await.expect("a connection"))
}

#[tokio::test]
async fn reads_the_gateways_own_answer_slowly() {
    let scene = large_answer("timeouts = { idle = \"300ms\" }").await;
    let mut client = narrow(&scene).await;
    client.send("GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    client.head().await;
    let (mut left, began) = (LARGE, Instant::now());
    let mut pace = interval(Duration::from_millis(10));
    while left > 0 {
        pace.tick().await;
        left -= client.exactly(left.min(64 * 1024)).await.len();
    }
    assert!(began.elapsed() > Duration::from_millis(600), "that was not slow: {:?}", began.elapsed());
    assert_eq!(scene.cut("idle").await, 0.0);
}

#[tokio::test]
async fn never_reads_the_gateways_own_answer() {
    for (timeouts, reason) in [
        ("timeouts = { idle = \"200ms\" }", "idle"),
        ("timeouts = { idle = \"1h\", total = \"200ms\" }", "total"),
    ] {
        let scene = large_answer(timeouts).await;
        let mut client = narrow(&scene).await;
        client.send("GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
        gateway_tests::eventually("the end of patience", async || {
            (scene.cut(reason).await == 1.0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn asks_for_ever_and_never_reads() {
    let backend = Backend::hello().await;
    let scene = Scene::of(backend.addr(), "timeouts = { idle = \"200ms\" }").await;
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            let requests = GET.repeat(1000);
            within("the end of patience", async {
                while client.stream.write_all(requests.as_bytes()).await.is_ok() {}
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn vanishes() {
    let (backend, visitors) = Backend::by_hand().await;
    let scene = Scene::of(backend.addr(), "").await;
    let visitors = Mutex::new(visitors);
    for is_reset in [false, true] {
        let leave = |client: Raw| {
            if is_reset {
                client.stream.set_zero_linger().expect("a reset at the end");
            }
            drop(client);
        };
        scene
            .play(async |scene| {
                leave(scene.raw().await);
                let mut client = scene.raw().await;
                client.send("GET / HTTP/1.1\r\nho").await;
                leave(client);
                for request in [GET, HALF_A_POST] {
                    let mut client = scene.raw().await;
                    client.send(request).await;
                    let mut server = visitors.lock().await.next().await;
                    server.head().await;
                    leave(client);
                    let _ = server.to_end().await;
                }
                let mut client = scene.raw().await;
                client.send(GET).await;
                let mut server = visitors.lock().await.next().await;
                server.head().await;
                server.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
                client.until("half").await;
                leave(client);
                assert_eq!(server.to_end().await, "", "nobody reads the rest");
            })
            .await;
        assert_eq!(scene.kept(backend.addr()).await, 0.0);
    }
}

#[tokio::test]
async fn half_closes_behind_its_request() {
    // It answers in pieces, for longer than a client that has closed is waited for.
    let backend = Backend::tcp(|mut stream| async move {
        let mut tick = interval(Duration::from_millis(50));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n").await;
        for _ in 0..30 {
            tick.tick().await;
            if stream.write_all(b"x").await.is_err() {
                return;
            }
        }
    })
    .await;
    let scene = Scene::of(backend.addr(), "").await;
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            client.send(GET).await;
            client.finish().await;
            let answer = client.to_end().await;
            assert!(answer.ends_with(&"x".repeat(30)), "{answer}");
        })
        .await;
}

#[tokio::test]
async fn half_closes_behind_two_requests() {
    // Each answer is waited for as long as the only one would be, and both together take longer.
    let backend = Backend::tcp(|stream| async move {
        let mut server = Raw::over(stream);
        let mut tick = interval(Duration::from_millis(700));
        tick.tick().await;
        for _ in 0..2 {
            server.until("\r\n\r\n").await;
            tick.tick().await;
            server.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
        }
    })
    .await;
    let scene = Scene::of(backend.addr(), "").await;
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            client.send(GET.repeat(2)).await;
            client.finish().await;
            let answers = client.to_end().await;
            assert_eq!(answers.matches("hello").count(), 2, "{answers}");
        })
        .await;
}

#[tokio::test]
async fn half_closes_in_the_middle_of_its_body() {
    let (backend, visitors) = Backend::by_hand().await;
    let visitors = Mutex::new(visitors);
    let scene = Scene::of(backend.addr(), "").await;
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            client.send(HALF_A_POST).await;
            let mut server = visitors.lock().await.next().await;
            server.until("half").await;
            client.finish().await;
            assert_eq!(server.to_end().await, "", "half a request is none");
            let answer = client.to_end().await;
            assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
        })
        .await;
}

#[tokio::test]
async fn sends_garbage() {
    let backend = Backend::hello().await;
    let scene = Scene::of(backend.addr(), "").await;
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            client.send("\0\x01\x02\r\n\r\n").await;
            assert!(client.to_end().await.starts_with("HTTP/1.1 400 "));
            let mut client = scene.raw().await;
            client.send(format!("{GET}\0\x01\x02\r\n\r\n")).await;
            let answers = client.to_end().await;
            assert!(answers.starts_with("HTTP/1.1 200 "), "{answers}");
            assert!(answers.contains("helloHTTP/1.1 400 "), "{answers}");
            // In the middle of a body.
            let mut client = scene.raw().await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n").await;
            client.send("garbage\r\n").await;
            assert!(client.to_end().await.starts_with("HTTP/1.1 400 "));
        })
        .await;
}

#[tokio::test]
async fn sends_more_than_it_may_when_it_is_answered() {
    let (backend, visitors) = Backend::by_hand().await;
    let visitors = Mutex::new(visitors);
    let scene = Scene::of(backend.addr(), "limits = { body = \"10B\" }").await;
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n").await;
            let mut server = visitors.lock().await.next().await;
            server.until("x\r\n").await;
            server.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
            client.until("half").await;
            client.send("a\r\n").await;
            assert_eq!(client.to_end().await, "");
            assert!(!server.to_end().await.contains("a\r\n"), "nothing of it came that far");
        })
        .await;
    assert_eq!(scene.cut("body").await, ROUNDS as f64);
}

/// What it sends in vain is no reason to reset the connection: its answer may still be on the way.
#[tokio::test]
async fn goes_on_behind_its_last_request() {
    let backend = Backend::hello().await;
    let scene = Scene::of(backend.addr(), "").await;
    scene
        .play(async |scene| {
            for last in [
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
                "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
            ] {
                let mut client = scene.raw().await;
                client.send(format!("{last}{}", "x".repeat(500_000))).await;
                client.until("hello").await;
                let mut byte = [0];
                let end = within("the end", client.stream.read(&mut byte)).await;
                assert_eq!(end.expect("no reset"), 0);
            }
        })
        .await;
}

/// Three hundred at once, some without a byte, some that leave a request behind.
#[tokio::test]
async fn comes_as_a_storm() {
    let backend = Backend::hello().await;
    let scene = Scene::of(backend.addr(), "").await;
    scene
        .play(async |scene| {
            let mut storm = Vec::new();
            for index in 0..300 {
                let mut client = scene.raw().await;
                match index % 3 {
                    0 => {}
                    1 => pour(&mut client, GET.as_bytes()).await,
                    _ => client.stream.set_zero_linger().expect("a reset at the end"),
                }
                storm.push(client);
            }
            for index in (1..300).step_by(3) {
                storm[index].until("hello").await;
            }
        })
        .await;
}
