//! Plugins that ask for the bodies of requests: what they see and change, and what is not held up for them.

use gateway_tests::{
    Answer, Backend, Http2, Raw, TestGateway, eventually, guest, one_route, plugin_table, within,
};
use http::Method;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt as _;

/// A route through `body_edit`, which may send requests to `other`; and `/lenient`, where its faults do not
/// matter. With further keys of the plugin.
fn toml(backend: SocketAddr, other: SocketAddr, more: &str) -> String {
    let grants = format!("config = {{ to = \"{other}\" }}\ngrants = {{ backends = [\"{other}\"] }}\n{more}");
    let table = plugin_table("bodies", &guest("body_edit"), &grants);
    one_route(
        backend,
        &format!(
            "plugins = [\"bodies\"]\nupgrades = [\"chat\"]\n[[route]]\nname = \"lenient\"\npath = \"/lenient\"\n\
             to = \"{backend}\"\nplugins = [{{ use = \"bodies\", on_error = \"skip\" }}]\n{table}"
        ),
    )
}

struct Case {
    backend: Backend,
    other: Backend,
    gateway: TestGateway,
}

async fn case(more: &str) -> Case {
    let (backend, other) = (Backend::echo().await, Backend::named("the other one").await);
    let gateway = TestGateway::start(&toml(backend.addr(), other.addr(), more));
    Case { backend, other, gateway }
}

impl Case {
    async fn post(&self, path: &str, most: &str, body: &str) -> Answer {
        self.gateway.client().with("x-body", most).post(path, body.to_owned()).await
    }
}

#[tokio::test]
async fn a_plugin_sees_the_whole_body_and_may_replace_it_answer_or_route() {
    let case = case("").await;
    assert_eq!(case.post("/", "100", "abc").await.text(), "cba");
    let heard = case.backend.last();
    assert_eq!((heard.header("x-bytes"), heard.header("content-length")), ("3", "3"), "and the head with it");
    assert_eq!(case.post("/", "100", "keep").await.text(), "keep");
    assert_eq!(case.post("/", "100", "").await.text(), "");
    let heard = case.backend.last();
    assert_eq!((heard.header("x-bytes"), heard.header("content-length")), ("0", "0"));
    let reached = case.backend.heard().len();
    assert_eq!(case.post("/", "100", "refuse").await.status, 422);
    assert_eq!(case.post("/", "100", "route").await.text(), "the other one");
    assert_eq!(case.other.last().body, "route");
    assert_eq!(case.backend.heard().len(), reached, "neither came to the route's own backend");
    // Nobody asks: it goes on as it is.
    assert_eq!(case.gateway.client().post("/", "abc").await.text(), "abc");
    assert_eq!(case.backend.last().header("x-bytes"), "");
    let get = case.gateway.client().with("x-body", "5").get("/").await;
    assert_eq!((get.status.as_u16(), case.backend.last().header("content-length")), (200, ""));
}

#[tokio::test]
async fn a_larger_body_than_was_asked_for_is_refused() {
    let case = case("limits = { body = \"8B\" }").await;
    for (most, body, status) in
        [("4", "1234", 200), ("4", "12345", 413), ("100", "12345678", 200), ("100", "123456789", 413)]
    {
        assert_eq!(case.post("/", most, body).await.status, status, "{most}: {body}");
        let mut raw = Raw::connect(case.gateway.addr()).await;
        let length = body.len();
        raw.send(format!(
            "POST / HTTP/1.1\r\nhost: a\r\nx-body: {most}\r\ntransfer-encoding: chunked\r\n\r\n\
             {length:x}\r\n{body}\r\n0\r\n\r\n"
        ))
        .await;
        assert!(raw.head().await.starts_with(&format!("HTTP/1.1 {status}")), "{most}: {body}, in chunks");
    }
    assert_eq!(case.gateway.client().post("/", "123456789").await.status, 200, "nobody asked for this one");
}

#[tokio::test]
async fn what_follows_a_body_in_chunks_is_the_next_request() {
    let case = case("").await;
    let mut raw = Raw::connect(case.gateway.addr()).await;
    raw.send(
        "POST /1 HTTP/1.1\r\nhost: a\r\nx-body: 9\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n",
    )
    .await;
    assert!(raw.head().await.starts_with("HTTP/1.1 100"), "the plugin waits for it");
    raw.send("2\r\nab\r\n1\r\nc\r\n0\r\nx-trailer: 1\r\n\r\nPOST /2 HTTP/1.1\r\nhost: a\r\nx-body: 9\r\n")
        .await;
    raw.send("content-length: 3\r\n\r\nxyz").await;
    raw.until("cba").await;
    raw.until("zyx").await;
    let heard: Vec<_> = case.backend.heard();
    assert_eq!(heard.len(), 2);
    assert_eq!(heard[0].header("expect"), "", "it has come");
    assert_eq!((heard[0].header("content-length"), heard[0].header("transfer-encoding")), ("3", ""));
}

#[tokio::test]
async fn bodies_over_http2_are_the_same() {
    let case = case("").await;
    let mut client = Http2::connect(case.gateway.addr()).await;
    for (body, expected) in [("abc", "cba"), ("keep", "keep"), ("", "")] {
        let mut request = client.ask(Method::POST, "/");
        request.headers_mut().insert("x-body", "100".parse().expect("a value"));
        let answer = client.send(request, body).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, expected));
    }
    let mut request = client.ask(Method::POST, "/");
    request.headers_mut().insert("x-body", "2".parse().expect("a value"));
    assert_eq!(client.send(request, "abc").await.status, 413);
}

#[tokio::test]
async fn a_fault_on_a_body_costs_that_request() {
    let case = case("").await;
    let answer = case.post("/", "100", "trap").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (503, "plugin-fault"));
    assert_eq!(case.post("/lenient", "100", "trap").await.text(), "trap", "on_error = \"skip\"");
    assert_eq!(case.backend.last().header("x-bytes"), "", "as if the plugin were not there");
    assert_eq!(case.post("/", "100", "abc").await.text(), "cba");
}

#[tokio::test]
async fn who_asks_without_a_hook_for_it_has_failed() {
    let backend = Backend::echo().await;
    let table = plugin_table("hookless", &guest("body_hookless"), "");
    let gateway =
        TestGateway::start(&one_route(backend.addr(), &format!("plugins = [\"hookless\"]\n{table}")));
    assert_eq!(gateway.client().post("/", "abc").await.status, 503);
    let labels = ["plugin=\"hookless\"", "kind=\"body\""];
    assert_eq!(gateway.metric("vers_plugin_faults_total", &labels).await, 1.0);
}

#[tokio::test]
async fn an_upgrade_never_waits_for_a_body() {
    let (backend, mut visits) = Backend::by_hand().await;
    let gateway = TestGateway::start(&toml(backend.addr(), backend.addr(), ""));
    let mut client = Raw::connect(gateway.addr()).await;
    let head = "connection: upgrade\r\nupgrade: chat\r\n\r\n";
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-body: 100\r\n{head}")).await;
    let mut server = visits.next().await;
    assert!(!server.head().await.contains("x-bytes"), "its hook is not called");
    server.send(format!("HTTP/1.1 101 Switching Protocols\r\n{head}")).await;
    client.head().await;
    client.send("12345").await;
    server.until("12345").await;
}

#[tokio::test]
async fn a_body_that_stops_and_a_client_that_leaves_end_their_request_only() {
    let (backend, collector) = (Backend::echo().await, Backend::echo().await);
    let config = toml(backend.addr(), collector.addr(), "");
    let gateway =
        TestGateway::start(&config.replace("upgrades =", "timeouts = { idle = \"200ms\" }\nupgrades ="));
    let begin = "POST / HTTP/1.1\r\nhost: a\r\nx-body: 100\r\ncontent-length: 10\r\n\r\nabc";
    let mut slow = Raw::connect(gateway.addr()).await;
    slow.send(begin).await;
    assert!(within("an answer", slow.head()).await.starts_with("HTTP/1.1 408"));
    let mut leaving = Raw::connect(gateway.addr()).await;
    leaving.send(begin).await;
    drop(leaving);
    eventually("nothing is open", async || {
        (gateway.metric("vers_connections_active", &[]).await <= 1.0).then_some(())
    })
    .await;
    assert_eq!(backend.connections(), 0, "no backend has seen any of it");
}

#[tokio::test]
async fn an_answer_that_a_plugin_thinks_about_loses_nothing_of_an_upload() {
    const MUCH: usize = 8 << 20;
    let ((backend, mut visitors), (helper, mut asked)) = (Backend::by_hand().await, Backend::by_hand().await);
    let url = format!("http://{}", helper.addr());
    let table = plugin_table(
        "slow",
        &guest("slow_call"),
        &format!("config = {{ url = \"{url}/\", hook = \"response\" }}\ngrants = {{ http = [\"{url}\"] }}\n"),
    );
    let gateway = TestGateway::start(&one_route(backend.addr(), &format!("plugins = [\"slow\"]\n{table}")));
    let body: Vec<u8> = (0..MUCH).map(|at| (at % 251) as u8).collect();
    let client = Raw::connect(gateway.addr()).await;
    let (from, mut to) = client.stream.into_split();
    let sent = body.clone();
    let upload = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: {MUCH}\r\n\r\n");
        to.write_all(head.as_bytes()).await.expect("it is taken");
        to.write_all(&sent).await.expect("it is taken");
        to
    });
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let mut helped = asked.next().await;
    helped.head().await;
    // The plugin waits, and the upload does not.
    assert!(server.exactly(MUCH).await == body, "other bytes than were sent");
    let to = within("the upload", upload).await.expect("all of it");
    helped.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    let mut client = Raw::over(from.reunite(to).expect("both halves"));
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("x-called: 204"), "{head}");
    assert_eq!(client.exactly(2).await, b"ok");
}

/// Waits until so much is held in memory.
async fn held(gateway: &TestGateway, is_it: impl Fn(f64) -> bool) {
    eventually("so much that is held", async || {
        is_it(gateway.metric("vers_held_bodies_bytes", &[]).await).then_some(())
    })
    .await;
}

/// With a single worker, whose room is small.
fn small(backend: &Backend) -> String {
    let config = toml(backend.addr(), backend.addr(), "");
    format!("{config}[gateway]\nworkers = 1\n[limits]\nheld_bodies = \"1MiB\"\n")
}

#[tokio::test]
async fn bodies_that_are_held_share_a_room() {
    let backend = Backend::echo().await;
    let gateway = TestGateway::start(&small(&backend));
    let client = gateway.client().with("x-body", "1000000");
    let mut first = Raw::connect(gateway.addr()).await;
    first.send("POST / HTTP/1.1\r\nhost: a\r\nx-body: 1000000\r\ncontent-length: 700000\r\n\r\n").await;
    held(&gateway, |bytes| bytes == 0.0).await;
    first.send(vec![b'a'; 600_000]).await;
    held(&gateway, |bytes| (600_000.0..=700_000.0).contains(&bytes)).await;

    let refused = client.post("/", vec![b'b'; 500_000]).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-gateway-error")), (503, "held-bodies-full"));
    let mut http2 = Http2::connect(gateway.addr()).await;
    let mut request = http2.ask(Method::POST, "/");
    request.headers_mut().insert("x-body", "1000000".parse().expect("a value"));
    assert_eq!(http2.send(request, vec![b'b'; 500_000]).await.header("x-gateway-error"), "held-bodies-full");
    let counted = gateway.metric("vers_gateway_errors_total", &["code=\"held-bodies-full\""]).await;
    assert_eq!(counted, 2.0);
    assert_eq!(client.post("/", "abc").await.text(), "cba", "there is room for this one");
    assert_eq!(gateway.client().post("/", vec![b'b'; 500_000]).await.status, 200, "this one is not held");

    first.send(vec![b'a'; 100_000]).await;
    assert!(first.head().await.starts_with("HTTP/1.1 200"));
    held(&gateway, |bytes| bytes == 0.0).await;
    assert_eq!(client.post("/", vec![b'b'; 500_000]).await.status, 200);
    held(&gateway, |bytes| bytes == 0.0).await;
}

#[tokio::test]
async fn a_body_is_held_until_it_has_left_and_a_small_one_until_it_is_answered() {
    let (backend, mut visits) = Backend::by_hand().await;
    let gateway = TestGateway::start(&small(&backend));
    for (bytes, is_small) in [(300_000, false), (1000, true)] {
        let mut client = Raw::connect(gateway.addr()).await;
        let head =
            format!("POST / HTTP/1.1\r\nhost: a\r\nx-body: 1000000\r\ncontent-length: {bytes}\r\n\r\n");
        client.send(head).await;
        client.send([b"liat".as_slice(), &vec![b'a'; bytes - 4]].concat()).await;
        let mut server = visits.next().await;
        server.head().await;
        server.until("tail").await;
        // The backend has all of it, and answers when it likes.
        held(&gateway, |held| if is_small { held >= bytes as f64 } else { held == 0.0 }).await;
        server.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await;
        client.head().await;
        held(&gateway, |held| held == 0.0).await;
        server.send("done").await;
        client.until("done").await;
    }
}

#[tokio::test]
async fn a_held_body_of_a_client_that_leaves_is_gone() {
    let backend = Backend::echo().await;
    let gateway = TestGateway::start(&small(&backend));
    let mut leaving = Raw::connect(gateway.addr()).await;
    leaving.send("POST / HTTP/1.1\r\nhost: a\r\nx-body: 1000000\r\ncontent-length: 900000\r\n\r\n").await;
    leaving.send(vec![b'a'; 100_000]).await;
    held(&gateway, |bytes| bytes >= 100_000.0).await;
    drop(leaving);
    held(&gateway, |bytes| bytes == 0.0).await;
}
