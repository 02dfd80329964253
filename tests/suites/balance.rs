//! Which server is next: turns, the least busy one, and the same one for the same user.

use gateway_tests::{Backend, Client, Raw, TestGateway, eventually, one_backend};
use std::{collections::BTreeSet, net::SocketAddr};

/// Three servers, which answer with their names.
async fn trio() -> ([Backend; 3], [SocketAddr; 3]) {
    let servers = [Backend::named("a").await, Backend::named("b").await, Backend::named("c").await];
    let addresses = [servers[0].addr(), servers[1].addr(), servers[2].addr()];
    (servers, addresses)
}

/// Who answers so many requests.
async fn answers(client: &Client, times: usize) -> String {
    let mut said = String::new();
    for _ in 0..times {
        said.push_str(&client.get("/").await.text());
    }
    said
}

#[tokio::test]
async fn servers_take_turns() {
    let (_servers, addresses) = trio().await;
    for more in ["", "balance = \"least_requests\""] {
        let gateway = TestGateway::start(&one_backend(&addresses, more));
        assert_eq!(answers(&gateway.client(), 7).await, "abcabca", "{more}");
    }
}

#[tokio::test]
async fn a_server_that_stands_there_twice_gets_twice_as_much() {
    let (_servers, [a, b, _]) = trio().await;
    let gateway = TestGateway::start(&one_backend(&[a, b, a], ""));
    assert_eq!(answers(&gateway.client(), 6).await, "abaaba");
}

#[tokio::test]
async fn chance_reaches_everybody() {
    let (_servers, addresses) = trio().await;
    let gateway = TestGateway::start(&one_backend(&addresses, "balance = \"random\""));
    let said = answers(&gateway.client(), 60).await;
    for name in ["a", "b", "c"] {
        assert!(said.contains(name), "{name} was never asked: {said}");
    }
}

#[tokio::test]
async fn the_least_busy_server_is_asked() {
    let (busy, mut visitors) = Backend::by_hand().await;
    let idle = Backend::named("b").await;
    let gateway =
        TestGateway::start(&one_backend(&[busy.addr(), idle.addr()], "balance = \"least_requests\""));
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    assert_eq!(answers(&gateway.client(), 5).await, "bbbbb");
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na").await;
    client.until("\r\n\r\na").await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.head().await;
}

#[tokio::test]
async fn a_tunnel_is_work_as_well() {
    let (first, second) = (Backend::tcp_echo().await, Backend::tcp_echo().await);
    let gateway = TestGateway::start(&format!(
        r#"
        [[listener]]
        address = "[::]:0"
        [[route]]
        protocol = "tcp"
        to = "app"
        [backend.app]
        servers = ["{}", "{}"]
        balance = "least_requests"
        "#,
        first.addr(),
        second.addr()
    ));
    let open = async || {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send("x").await;
        client.exactly(1).await;
        client
    };
    let (_stays, leaves) = (open().await, open().await);
    assert_eq!((first.connections(), second.connections()), (1, 1));
    drop(leaves);
    eventually("the end of a tunnel", async || {
        (gateway.metric("vers_tunnels_active", &[]).await == 1.0).then_some(())
    })
    .await;
    let _third = open().await;
    assert_eq!((first.connections(), second.connections()), (1, 2), "it was the first one's turn");
}

/// Who answers each of so many users.
async fn by_user(gateway: &TestGateway, users: usize, header: &'static str) -> Vec<String> {
    let mut said = Vec::new();
    for user in 0..users {
        let value = match header {
            "cookie" => format!("theme=dark; session=user-{user}; x=y"),
            _ => format!("user-{user}"),
        };
        said.push(gateway.client().with(header, &value).get("/").await.text());
    }
    said
}

#[tokio::test]
async fn a_user_stays_with_a_server_and_a_lost_server_moves_only_its_own() {
    for (header, balance) in [("x-user", "{ header = \"X-User\" }"), ("cookie", "{ cookie = \"session\" }")] {
        let ([a, _b, _c], addresses) = trio().await;
        let toml = one_backend(&addresses, &format!("balance = {balance}"));
        let gateway = TestGateway::start(&toml);
        let before = by_user(&gateway, 40, header).await;
        assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 3, "everybody has users: {before:?}");
        assert_eq!(by_user(&gateway, 40, header).await, before);
        assert_eq!(by_user(&TestGateway::start(&toml), 40, header).await, before, "another gateway");
        a.end().await;
        let after = by_user(&gateway, 40, header).await;
        for (user, (before, after)) in before.iter().zip(&after).enumerate() {
            assert!(before == after || before == "a", "user {user} moved from {before} to {after}");
            assert_ne!(after, "a", "user {user}");
        }
    }
}

#[tokio::test]
async fn whoever_has_no_key_gets_the_next_server() {
    let (_servers, addresses) = trio().await;
    let gateway = TestGateway::start(&one_backend(&addresses, "balance = { cookie = \"session\" }"));
    assert_eq!(answers(&gateway.client(), 4).await, "abca");
    let other = gateway.client().with("cookie", "sessions=1; my-session=2; session=");
    assert_eq!(answers(&other, 3).await, "bca");
}
