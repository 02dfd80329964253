//! Who reads slowly slows its sender down, and costs no memory: in both directions, through HTTP and
//! through tunnels.

use super::Scene;
use gateway_tests::{Backend, Raw, eventually, settled};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

const CLIENTS: usize = 48;

/// What each may cost: a buffer of 64 KiB, its connection, and what allocators add.
const EACH: u64 = 100 << 10;

/// What the daemon may grow by for other reasons.
const SLACK: u64 = 4 << 20;

/// Writes for ever, and counts.
async fn flood(stream: &mut (impl tokio::io::AsyncWrite + Unpin), piece: &[u8], written: &AtomicU64) {
    while stream.write_all(piece).await.is_ok() {
        written.fetch_add(piece.len() as u64, Relaxed);
    }
}

fn chunk() -> Vec<u8> {
    [b"8000\r\n", &[b'x'; 0x8000][..], b"\r\n"].concat()
}

/// Whoever sends has come to a standstill, and the gateway holds no more than a buffer for each.
async fn check(scene: &Scene, written: &AtomicU64, idle: u64, what: &str) -> u64 {
    let stopped = settled("a standstill", async || written.load(Relaxed)).await;
    assert!(stopped > CLIENTS as u64 * EACH, "{what}: something was sent");
    let grown = scene.gateway.rss().saturating_sub(idle);
    println!("{what}: {grown} bytes for {CLIENTS} slow readers, {stopped} bytes under way");
    assert!(grown < CLIENTS as u64 * EACH + SLACK, "{what}: {grown} bytes for {CLIENTS} slow readers");
    grown
}

/// Two waves of slow readers: the second finds what the first gave back.
async fn check_waves(scene: &Scene, what: &str, wave: impl AsyncFn(u64) -> u64) {
    // Whatever is made once is made.
    assert_eq!(scene.client().get("/steady").await.status, 200);
    let idle = scene.gateway.rss();
    let mut grown = Vec::new();
    for _ in 0..2 {
        grown.push(wave(idle).await);
        eventually("their end", async || {
            let held = scene.held().await;
            (held.connections == 0.0 && held.tunnels == 0.0).then_some(())
        })
        .await;
    }
    assert!(grown[1] < grown[0] + SLACK, "{what}: {grown:?}: the second wave takes what the first gave back");
}

/// A backend that sends for ever once it is asked.
async fn endless(head: &'static str, piece: Vec<u8>) -> (Backend, Arc<AtomicU64>) {
    let written = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&written);
    let backend = Backend::tcp(move |mut stream| {
        let (counted, piece) = (Arc::clone(&counted), piece.clone());
        async move {
            let mut request = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_buf(&mut stream, &mut request).await;
            let _ = stream.write_all(head.as_bytes()).await;
            flood(&mut stream, &piece, &counted).await;
        }
    })
    .await;
    (backend, written)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down() {
    for (what, request, head, piece) in [
        ("chunks", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "transfer-encoding: chunked", chunk()),
        ("until the end", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "x: y", vec![b'x'; 0x8000]),
        ("a tunnel", UPGRADE, "", vec![b'x'; 0x8000]),
    ] {
        let head = match what {
            "a tunnel" => AGREED,
            _ => Box::leak(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").into_boxed_str()),
        };
        let (backend, written) = endless(head, piece).await;
        let scene = Scene::of(backend.addr(), "upgrades = [\"echo\"]").await;
        check_waves(&scene, what, async |idle| {
            written.store(0, Relaxed);
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                let mut client = scene.raw().await;
                client.send(request).await;
                client.head().await;
                clients.push(client);
            }
            let first = check(&scene, &written, idle, what).await;
            // They go on for a bit, each at its own pace.
            for (index, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.skip(index * 10_000).await, index * 10_000);
            }
            let then = check(&scene, &written, idle, what).await;
            first.max(then)
        })
        .await;
    }
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up() {
    const CHUNKED: &str = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    const LENGTH: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000000\r\n\r\n";
    for (what, head, piece) in [
        ("chunks", CHUNKED, chunk()),
        ("a length", LENGTH, vec![b'x'; 0x8000]),
        ("a tunnel", UPGRADE, vec![b'x'; 0x8000]),
    ] {
        // It agrees to everything, and never reads more than a head.
        let backend = Backend::tcp(move |mut stream| async move {
            if what == "a tunnel" {
                let _ = stream.write_all(AGREED.as_bytes()).await;
            }
            hold(stream).await;
        })
        .await;
        // Of a client whose bytes nobody takes, it is seen only then that it is gone.
        let keys = "upgrades = [\"echo\"]\ntimeouts = { response = \"3s\", tunnel = \"3s\" }";
        let scene = Scene::of(backend.addr(), keys).await;
        let written = Arc::new(AtomicU64::new(0));
        check_waves(&scene, what, async |idle| {
            written.store(0, Relaxed);
            let mut clients = JoinSet::new();
            for _ in 0..CLIENTS {
                let mut client = Raw::connect(scene.address).await;
                client.send(head).await;
                let (written, piece) = (Arc::clone(&written), piece.clone());
                clients.spawn(async move { flood(&mut client.stream, &piece, &written).await });
            }
            check(&scene, &written, idle, what).await
        })
        .await;
    }
}

/// Holds a connection without reading it.
async fn hold(stream: TcpStream) {
    let _stream = stream;
    std::future::pending().await
}
