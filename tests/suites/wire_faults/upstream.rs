//! Backends, named by what they do wrong.

use super::{Scene, pour};
use gateway_tests::{Answer, Backend, Raw, within};
use http::Method;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::interval,
};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A backend that does this with each connection, once a request's head is there.
async fn backend<F: Future<Output = ()> + Send>(
    act: impl Fn(TcpStream) -> F + Clone + Send + 'static,
) -> Backend {
    Backend::tcp(move |mut stream| {
        let act = act.clone();
        Box::pin(async move {
            let mut head = Vec::new();
            while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
                    return;
                }
            }
            act(stream).await;
        }) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>
    })
    .await
}

async fn drain(stream: &mut TcpStream) {
    let mut sink = vec![0; 64 << 10];
    while let Ok(1..) = stream.read(&mut sink).await {}
}

/// Writes a byte now and then, for ever.
async fn dribble(stream: &mut TcpStream, byte: u8) {
    let mut tick = interval(Duration::from_millis(10));
    loop {
        tick.tick().await;
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
    }
}

fn assert_told(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (status, code), "{answer:?}");
}

/// A `GET` whose answer is the gateway's.
async fn told(scene: &Scene, status: u16, code: &str) {
    assert_told(&scene.client().get("/").await, status, code);
}

/// A `GET` whose answer begins, and visibly does not end.
async fn broken_off(scene: &Scene) {
    let sent = within("an end", scene.client().try_send(Method::GET, "/", Default::default())).await;
    // Where nothing of it has left yet, the client is told.
    let is_told = sent.as_ref().is_ok_and(|answer| answer.status == 502);
    assert!(sent.is_err() || is_told, "it looks whole: {sent:?}");
}

#[tokio::test]
async fn hangs() {
    let backend = Backend::silent().await;
    let scene = Scene::of(backend.addr(), "timeouts = { response = \"150ms\" }").await;
    scene.play(async |scene| told(scene, 504, "upstream-timeout").await).await;
    assert_eq!(scene.kept(backend.addr()).await, 0.0);
}

#[tokio::test]
async fn closes_at_once() {
    let backend = Backend::tcp(|_| async {}).await;
    let scene = Scene::of(backend.addr(), "").await;
    scene.play(async |scene| told(scene, 502, "upstream-bad-answer").await).await;
}

#[tokio::test]
async fn resets_before_its_head() {
    let backend = backend(async |stream| stream.set_zero_linger().expect("a reset at the end")).await;
    let scene = Scene::of(backend.addr(), "").await;
    scene.play(async |scene| told(scene, 502, "upstream-bad-answer").await).await;
}

#[tokio::test]
async fn resets_after_its_head() {
    let (backend, visitors) = Backend::by_hand().await;
    let scene = Scene::of(backend.addr(), "").await;
    let visitors = tokio::sync::Mutex::new(visitors);
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            client.send(GET).await;
            let mut server = visitors.lock().await.next().await;
            server.head().await;
            server.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
            client.until("half").await;
            server.stream.set_zero_linger().expect("a reset at the end");
            drop(server);
            assert_eq!(client.to_end().await, "");
        })
        .await;
    assert_eq!(scene.cut("upstream").await, super::ROUNDS as f64);
}

#[tokio::test]
async fn closes_in_the_middle_of_its_body() {
    for framing in ["content-length: 100\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let (backend, visitors) = Backend::by_hand().await;
        let scene = Scene::of(backend.addr(), "").await;
        let visitors = tokio::sync::Mutex::new(visitors);
        scene
            .play(async |scene| {
                let mut client = scene.raw().await;
                client.send(GET).await;
                let mut server = visitors.lock().await.next().await;
                server.head().await;
                server.send(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
                client.until("half").await;
                drop(server);
                assert_eq!(
                    client.to_end().await.trim_start_matches("\r\n"),
                    "",
                    "no end that looks like one"
                );
            })
            .await;
        assert_eq!(scene.cut("upstream").await, super::ROUNDS as f64, "{framing:?}");
    }
}

#[tokio::test]
async fn dribbles_its_head() {
    let backend = backend(async |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-slow: ").await;
        dribble(&mut stream, b'x').await;
    })
    .await;
    let scene = Scene::of(backend.addr(), "timeouts = { response = \"200ms\" }").await;
    scene.play(async |scene| told(scene, 504, "upstream-timeout").await).await;
}

#[tokio::test]
async fn dribbles_its_body() {
    let backend = backend(async |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
        dribble(&mut stream, b'x').await;
    })
    .await;
    let scene = Scene::of(backend.addr(), "timeouts = { idle = \"1h\", total = \"200ms\" }").await;
    scene.play(broken_off).await;
    assert_eq!(scene.cut("total").await, super::ROUNDS as f64);
}

#[tokio::test]
async fn stops_in_the_middle_of_its_body() {
    let backend = backend(async |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
        drain(&mut stream).await;
    })
    .await;
    let scene = Scene::of(backend.addr(), "timeouts = { idle = \"150ms\" }").await;
    scene.play(broken_off).await;
    assert_eq!(scene.cut("idle").await, super::ROUNDS as f64);
}

#[tokio::test]
async fn answers_while_the_body_is_still_coming() {
    const ANSWER: &[u8] = b"HTTP/1.1 409 Conflict\r\ncontent-length: 5\r\n\r\nearly";
    // One goes on reading, one stops, and one is gone.
    let reads = backend(async |mut stream| {
        let _ = stream.write_all(ANSWER).await;
        drain(&mut stream).await;
    })
    .await;
    let stops = backend(async |mut stream| {
        let _ = stream.write_all(ANSWER).await;
        std::future::pending().await
    })
    .await;
    let leaves = backend(async |mut stream| {
        let _ = stream.write_all(ANSWER).await;
        let _ = stream.shutdown().await;
        drain(&mut stream).await;
    })
    .await;
    for backend in [reads, stops, leaves] {
        let scene = Scene::of(backend.addr(), "").await;
        scene
            .play(async |scene| {
                let mut client = scene.raw().await;
                client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nfirst").await;
                assert!(client.until("early").await.starts_with("HTTP/1.1 409 "));
                pour(&mut client, &[b'x'; 10_000]).await;
                assert_eq!(client.to_end().await, "", "one answer, and the end");
            })
            .await;
        assert_eq!(scene.kept(backend.addr()).await, 0.0, "it has half a request");
    }
}

#[tokio::test]
async fn never_reads() {
    let (backend, visitors) = Backend::by_hand().await;
    let visitors = tokio::sync::Mutex::new(visitors);
    let scene = Scene::of(backend.addr(), "timeouts = { response = \"250ms\", idle = \"1h\" }").await;
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 50000000\r\n\r\n").await;
            let _server = visitors.lock().await.next().await;
            pour(&mut client, &vec![b'x'; 50_000_000]).await;
            let answer = client.to_end().await;
            assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        })
        .await;
}

#[tokio::test]
async fn half_closes_behind_its_answer() {
    let backend = backend(async |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
        let _ = stream.shutdown().await;
        drain(&mut stream).await;
    })
    .await;
    let scene = Scene::of(backend.addr(), "").await;
    scene
        .play(async |scene| {
            let mut client = scene.client().connect().await.expect("a connection");
            for _ in 0..3 {
                assert_eq!(client.get("/").await.text(), "hello");
            }
        })
        .await;
}

#[tokio::test]
async fn says_more_than_its_answer() {
    const MORE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    // With its answer, or when it is idle.
    let with = Backend::canned(format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello{MORE}")).await;
    let scene = Scene::of(with.addr(), "").await;
    scene
        .play(async |scene| {
            let mut client = scene.client().connect().await.expect("a connection");
            for _ in 0..3 {
                assert_eq!(client.get("/").await.text(), "hello", "nothing of another answer");
            }
        })
        .await;
    assert_eq!(scene.kept(with.addr()).await, 0.0);

    let (later, visitors) = Backend::by_hand().await;
    let visitors = tokio::sync::Mutex::new(visitors);
    let scene = Scene::of(later.addr(), "").await;
    scene
        .play(async |scene| {
            let answer = async |client: &mut Raw, server: &mut Raw| {
                client.send(GET).await;
                server.head().await;
                server.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
                client.until("hello").await;
            };
            let mut client = scene.raw().await;
            client.send(GET).await;
            let mut server = visitors.lock().await.next().await;
            server.head().await;
            server.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
            client.until("hello").await;
            gateway_tests::eventually("a kept connection", async || {
                (scene.kept(later.addr()).await == 1.0).then_some(())
            })
            .await;
            server.send(MORE).await;
            // The next request meets a connection without a past.
            client.send(GET).await;
            let mut fresh = visitors.lock().await.next().await;
            fresh.head().await;
            fresh.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
            assert!(client.until("hello").await.starts_with("HTTP/1.1 200 "));
            answer(&mut client, &mut fresh).await;
        })
        .await;
}

#[tokio::test]
async fn never_comes_to_the_answer() {
    for endless in ["HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", "x-more: 1\r\n"] {
        let backend = backend(async move |mut stream| {
            let start = if endless.starts_with('x') { "HTTP/1.1 200 OK\r\n" } else { "" };
            let _ = stream.write_all(start.as_bytes()).await;
            while stream.write_all(endless.as_bytes()).await.is_ok() {}
        })
        .await;
        let scene = Scene::of(backend.addr(), "").await;
        scene.play(async |scene| told(scene, 502, "upstream-bad-answer").await).await;
    }
}

#[tokio::test]
async fn never_comes_to_the_end_of_its_trailers() {
    let backend = backend(async |mut stream| {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n")
            .await;
        while stream.write_all(b"x-more: 1\r\n").await.is_ok() {}
    })
    .await;
    let scene = Scene::of(backend.addr(), "").await;
    scene.play(broken_off).await;
}

#[tokio::test]
async fn changes_to_a_protocol_that_nobody_asked_for() {
    let backend = Backend::canned(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    )
    .await;
    let scene = Scene::of(backend.addr(), "").await;
    scene.play(async |scene| told(scene, 502, "upstream-bad-answer").await).await;
}
