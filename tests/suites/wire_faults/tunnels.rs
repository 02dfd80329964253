//! What goes wrong after an upgrade, and on TCP routes: both sides learn of it, and nothing is left.

use super::{ROUNDS, Scene};
use gateway_tests::{Backend, Raw, Visitors, eventually};
use tokio::sync::Mutex;

const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

/// The two ends of a tunnel that works.
async fn open(scene: &Scene, visitors: &Mutex<Visitors>) -> (Raw, Raw) {
    let mut client = scene.raw().await;
    client.send(UPGRADE).await;
    let mut server = visitors.lock().await.next().await;
    server.head().await;
    server.send(AGREED).await;
    client.head().await;
    client.send("ping").await;
    server.until("ping").await;
    server.send("pong").await;
    client.until("pong").await;
    (client, server)
}

#[tokio::test]
async fn one_side_vanishes() {
    let (backend, visitors) = Backend::by_hand().await;
    let visitors = Mutex::new(visitors);
    let scene = Scene::of(backend.addr(), "upgrades = [\"echo\"]").await;
    scene
        .play(async |scene| {
            for is_reset in [false, true] {
                let leave = |side: Raw| {
                    if is_reset {
                        side.stream.set_zero_linger().expect("a reset at the end");
                    }
                    drop(side);
                };
                let (client, mut server) = open(scene, &visitors).await;
                leave(client);
                assert_eq!(server.to_end().await, "");
                drop(server);
                let (mut client, server) = open(scene, &visitors).await;
                leave(server);
                assert_eq!(client.to_end().await, "");
            }
        })
        .await;
}

#[tokio::test]
async fn nothing_moves() {
    let (backend, visitors) = Backend::by_hand().await;
    let visitors = Mutex::new(visitors);
    let scene = Scene::of(backend.addr(), "upgrades = [\"echo\"]\ntimeouts = { tunnel = \"200ms\" }").await;
    scene
        .play(async |scene| {
            let (mut client, mut server) = open(scene, &visitors).await;
            assert_eq!(client.to_end().await, "");
            assert_eq!(server.to_end().await, "");
        })
        .await;
    assert_eq!(scene.cut("tunnel").await, ROUNDS as f64);
}

#[tokio::test]
async fn one_side_never_reads() {
    let (backend, visitors) = Backend::by_hand().await;
    let visitors = Mutex::new(visitors);
    let scene = Scene::of(backend.addr(), "upgrades = [\"echo\"]\ntimeouts = { tunnel = \"300ms\" }").await;
    scene
        .play(async |scene| {
            let (mut client, server) = open(scene, &visitors).await;
            super::pour(&mut client, &vec![b'x'; 50_000_000]).await;
            drop(server);
        })
        .await;
}

#[tokio::test]
async fn a_request_that_is_refused_its_upgrade_leaves_nothing() {
    let (backend, visitors) = Backend::by_hand().await;
    let visitors = Mutex::new(visitors);
    let scene = Scene::of(backend.addr(), "upgrades = [\"echo\"]").await;
    scene
        .play(async |scene| {
            let mut client = scene.raw().await;
            client.send(UPGRADE).await;
            let mut server = visitors.lock().await.next().await;
            server.head().await;
            server.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno").await;
            assert!(client.until("no").await.starts_with("HTTP/1.1 200 "));
            // HTTP again, on both sides.
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            server.head().await;
            server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
            client.head().await;
        })
        .await;
}

#[tokio::test]
async fn a_raw_connection_is_let_go_with_its_other_side() {
    let (backend, visitors) = Backend::by_hand().await;
    let visitors = Mutex::new(visitors);
    let nobody = Backend::nobody().await;
    let tables = format!(
        "[[listener]]\nname = \"raw\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nlisteners = [\"raw\"]\nprotocol = \"tcp\"\nto = \"{}\"\n\
         [[listener]]\nname = \"gone\"\naddress = \"[::1]:0\"\n\
         [[route]]\nlisteners = [\"gone\"]\nprotocol = \"tcp\"\nto = \"{nobody}\"",
        backend.addr()
    );
    let scene = Scene::of(backend.addr(), &tables).await;
    let (raw, gone) = (scene.gateway.addr_of("raw").await, scene.gateway.addr_of("gone").await);
    scene
        .play(async |scene| {
            let mut client = Raw::connect(raw).await;
            client.send("ping").await;
            let mut server = visitors.lock().await.next().await;
            server.until("ping").await;
            drop(client);
            assert_eq!(server.to_end().await, "");
            drop(server);
            let mut client = Raw::connect(raw).await;
            let server = visitors.lock().await.next().await;
            server.stream.set_zero_linger().expect("a reset at the end");
            drop(server);
            assert_eq!(client.to_end().await, "");
            assert_eq!(Raw::connect(gone).await.to_end().await, "");
            eventually("no tunnel", async || (scene.held().await.tunnels == 0.0).then_some(())).await;
        })
        .await;
}
