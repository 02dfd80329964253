//! Where a request with a body is answered early, what is left of the body is never taken for the
//! next request.

use gateway_tests::{Backend, Raw, TestGateway, eventually, guest, one_route, plugin_table};

/// A body that would be a request of its own.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Sends a request whose body looks like another, and returns all that comes back.
async fn answers(gateway: &TestGateway, request: &str) -> String {
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(request).await;
    client.finish().await;
    client.to_end().await
}

fn check(answers: &str, status: &str) {
    assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "one request, one answer: {answers}");
}

#[tokio::test]
async fn of_a_backend_that_refuses() {
    let gateway = TestGateway::to(Backend::nobody().await);
    check(&answers(&gateway, &post(SMUGGLED)).await, "502");
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
        SMUGGLED.len()
    );
    check(&answers(&gateway, &chunked).await, "502");
}

#[tokio::test]
async fn of_a_backend_that_closes_without_an_answer() {
    let backend = Backend::canned("").await;
    let gateway = TestGateway::to(backend.addr());
    check(&answers(&gateway, &post(SMUGGLED)).await, "502");
}

#[tokio::test]
async fn of_a_backend_that_answers_nonsense() {
    let backend = Backend::canned("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n").await;
    let gateway = TestGateway::to(backend.addr());
    check(&answers(&gateway, &post(SMUGGLED)).await, "502");
}

#[tokio::test]
async fn of_a_plugin_that_fails_on_the_answer() {
    let backend = Backend::hello().await;
    let table = plugin_table("guest", &guest("trap"), "");
    let gateway = TestGateway::start(&one_route(backend.addr(), &format!("plugins = [\"guest\"]\n{table}")));
    let request = post(SMUGGLED).replacen("host: a", "host: a\r\nx-trap: response", 1);
    check(&answers(&gateway, &request).await, "503");
    assert_eq!(backend.heard().len(), 1);
}

#[tokio::test]
async fn of_a_backend_that_answers_too_late() {
    let backend = Backend::silent().await;
    let gateway = TestGateway::with(backend.addr(), "timeouts = { response = \"100ms\" }");
    // No end of the client's side: it waits, as clients do.
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(post(SMUGGLED)).await;
    client.until("upstream-timeout)\n").await;
    assert_eq!(client.to_end().await, "", "nothing else was asked");
}

#[tokio::test]
async fn of_a_backend_that_never_reads() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::with(backend.addr(), "timeouts = { response = \"300ms\", idle = \"1h\" }");
    let mut client = Raw::connect(gateway.addr()).await;
    let body = SMUGGLED.repeat(2_000_000 / SMUGGLED.len() * 10);
    let mut sending = post(&body).into_bytes();
    let server = visitors.next();
    let sent = async {
        // It ends as an error once the gateway has answered and closed.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &sending).await;
    };
    let (_server, ()) = tokio::join!(server, sent);
    sending.clear();
    check(&client.to_end().await, "504");
    eventually("an end of the connection", async || {
        (gateway.metric("vers_connections_active", &[]).await == 0.0).then_some(())
    })
    .await;
}

/// A gateway that holds bodies for the registry, and for a plugin, all in a mebibyte.
async fn holding() -> (Backend, TestGateway) {
    let backend = Backend::hello().await;
    let table = plugin_table("bodies", &guest("body_edit"), "config = {}\nlimits = { body = \"1MiB\" }\n");
    let gateway = TestGateway::start(&one_route(
        backend.addr(),
        &format!(
            "plugins = [\"bodies\"]\n[[route]]\nname = \"registry\"\npath = \"/registry/*\"\nto = \"registry\"\n\
             [registry]\nstore = \"memory\"\n[gateway]\nworkers = 1\n[limits]\nheld_bodies = \"1MiB\"\n{table}"
        ),
    ));
    (backend, gateway)
}

async fn held(gateway: &TestGateway, bytes: usize) {
    eventually("what is held", async || {
        (gateway.metric("vers_held_bodies_bytes", &[]).await >= bytes as f64).then_some(())
    })
    .await;
}

/// The head of a request with a chunk of this size, and the first so many bytes of that.
fn begun(head: &str, size: usize, bytes: usize) -> String {
    format!("{head}host: a\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{}", "a".repeat(bytes))
}

/// What is in the middle of a chunk, and would be the end of a body and a request.
fn part() -> String {
    format!("0\r\n\r\n{SMUGGLED}")
}

#[tokio::test]
async fn that_is_too_large_for_who_holds_it() {
    let (backend, gateway) = holding().await;
    for head in ["POST /registry/vms HTTP/1.1\r\n", "POST / HTTP/1.1\r\nx-body: 100\r\n"] {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(begun(head, 1 + part().len(), 1)).await;
        held(&gateway, 1).await;
        client.send(part() + "\r\nFFFFFF\r\n").await;
        check(&client.to_end().await, "413");
    }
    assert!(backend.heard().is_empty());
}

#[tokio::test]
async fn that_there_is_no_room_for() {
    let (backend, gateway) = holding().await;
    let head = "POST / HTTP/1.1\r\nx-body: 1048576\r\n";
    // What is told is the most that it takes.
    let told = (1 << 20) - 20;
    let mut other = Raw::connect(gateway.addr()).await;
    other.send(format!("{head}host: a\r\ncontent-length: {told}\r\n\r\n{}", "a".repeat(told - 1))).await;
    held(&gateway, told).await;
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(begun(head, 1 + part().len(), 1)).await;
    held(&gateway, told + 1).await;
    client.send(part() + "\r\n").await;
    check(&client.to_end().await, "503");
    assert!(backend.heard().is_empty());
}
