//! Plugins that transform bodies of requests on their way: what backends get, how it is framed, how it breaks off,
//! and what is not touched.

use bytes::Bytes;
use futures_util::future::join_all;
use gateway_tests::{
    Backend, Heard, Http2, Raw, TestGateway, collect, echo, eventually, guest, h2c_backend, one_backend,
    one_route, plugin_table, settled, within,
};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::Full;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A route by way of the guest, with further keys of the plugin's table.
fn gateway(backend: SocketAddr, more: &str) -> TestGateway {
    with_route(backend, "", more)
}

/// The same, with further keys of the route.
fn with_route(backend: SocketAddr, route: &str, more: &str) -> TestGateway {
    let table = plugin_table("it", &guest("transform"), more);
    TestGateway::start(&one_route(backend, &format!("plugins = [\"it\"]\n{route}\n{table}")))
}

/// A route to a backend of HTTP/2.
fn to_h2c(backend: SocketAddr, more: &str) -> TestGateway {
    let table = plugin_table("it", &guest("transform"), more);
    let toml = one_backend(&[backend], &format!("protocol = \"h2c\"\n{table}"));
    TestGateway::start(&toml.replace("to = \"app\"", "to = \"app\"\nplugins = [\"it\"]"))
}

/// Tables of `bodies`, which has those held that ask for it by `x-body` and turns them round, and of `it` behind it.
fn held_and_transformed() -> String {
    let more = "config = { to = \"127.0.0.1:1\" }\ngrants = { backends = [\"127.0.0.1:1\"] }\n";
    [plugin_table("bodies", &guest("body_edit"), more), plugin_table("it", &guest("transform"), "")].concat()
}

/// A request of HTTP/1.1 with these headers, and what follows them.
fn post(headers: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a.test\r\n{headers}\r\n{body}")
}

fn chunk(bytes: &str) -> String {
    format!("{:x}\r\n{bytes}\r\n", bytes.len())
}

async fn faults(gateway: &TestGateway, kind: &str) -> f64 {
    gateway.metric("vers_plugin_faults_total", &[&format!("kind=\"{kind}\"")]).await
}

async fn calls(gateway: &TestGateway) -> f64 {
    gateway.metric("vers_plugin_calls_total", &["hook=\"request-transform\""]).await
}

async fn cut(gateway: &TestGateway) -> f64 {
    gateway.metric("vers_connections_cut_total", &["reason=\"plugin\""]).await
}

#[tokio::test]
async fn what_the_plugin_returns_is_what_the_backend_gets() {
    let backend = Backend::hello().await;
    for (how, tail, expected) in [
        ("upper", "", "ONE TWO"),
        ("upper", " and three", "ONE TWO and three"),
        ("hold", "!", "one two!"),
        ("twice", "", "one twoone two"),
        ("", "never seen", "one two"),
    ] {
        let gateway = gateway(backend.addr(), &format!("config = {{ tail = \"{tail}\" }}\n"));
        let mut kept = gateway.client();
        if !how.is_empty() {
            kept = kept.with("x-transform", how);
        }
        let mut kept = kept.connect().await.expect("a connection");
        let before = backend.connections();
        // Both on one connection, there and here: where the body ends is told.
        for _ in 0..2 {
            let answer = kept.try_send(Method::POST, "/", "one two".into()).await.expect("an answer");
            assert_eq!(answer.text(), "hello", "{how}");
            let Heard { body, .. } = backend.last();
            assert_eq!(body, expected, "{how}");
            let (length, coding) = if how.is_empty() { ("7", "") } else { ("", "chunked") };
            assert_eq!(backend.last().header("content-length"), length, "{how}: nobody knows it");
            assert_eq!(backend.last().header("transfer-encoding"), coding, "{how}");
            assert_eq!(backend.last().header("x-transformed"), how);
        }
        assert_eq!(backend.connections(), before + 1);
        assert_eq!(calls(&gateway).await, 2.0);
        assert_eq!(
            gateway.metric("vers_plugin_instances", &[]).await,
            1.0,
            "and one instance after the other"
        );
    }
}

#[tokio::test]
async fn pieces_leave_as_they_come_and_what_is_said_of_the_bytes_goes() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    let mut client = Raw::connect(gateway.addr()).await;
    let sums = "content-digest: sha-256=:YQ==:\r\ncontent-md5: YQ==\r\nx-amz-checksum-crc32: YQ==\r\n";
    let head = format!("transfer-encoding: chunked\r\nx-transform: upper\r\ntrailer: x-sum\r\n{sums}");
    client.send(post(&head, "")).await;
    let mut server = visitors.next().await;
    let head = server.head().await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "the head does not wait for the body: {head}");
    for name in ["content-digest", "content-md5", "x-amz-checksum", "content-length"] {
        assert!(!head.contains(name), "{name}: {head}");
    }
    for word in ["one", "two"] {
        client.send(chunk(word)).await;
        server.until(&chunk(&word.to_ascii_uppercase())).await;
    }
    client.send("0\r\nx-sum: 7\r\ncontent-digest: sha-256=:YQ==:\r\nx-amz-checksum-sha1: YQ==\r\n\r\n").await;
    assert_eq!(server.until("\r\n\r\n").await, "0\r\nx-sum: 7\r\n\r\n");
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    client.head().await;
    // Both connections go on, and what nobody transforms is as it was.
    client.send(post(&format!("content-length: 3\r\n{sums}"), "abc")).await;
    let head = server.head().await;
    assert!(head.contains("content-length: 3\r\n") && head.contains("content-digest: "), "{head}");
    assert_eq!(server.exactly(3).await, b"abc");
}

#[tokio::test]
async fn over_http2_on_either_side_it_is_the_same() {
    let backend = Backend::hello().await;
    let gateway = gateway(backend.addr(), "config = { tail = \"!\" }\n");
    let mut client = Http2::connect(gateway.addr()).await;
    let mut request = client.ask(Method::POST, "/");
    let upper = HeaderValue::from_static("upper");
    request.headers_mut().insert("x-transform", upper.clone());
    request.headers_mut().insert("content-length", 7.into());
    assert_eq!(client.send(request, "one two").await.text(), "hello");
    assert_eq!((backend.last().body, backend.last().header("content-length").len()), ("ONE TWO!".into(), 0));

    let server = h2c_backend(echo).await;
    let gateway = to_h2c(server.addr(), "config = { tail = \"!\" }\n");
    let answer = gateway.client().with("x-transform", "upper").post("/", "one two").await;
    assert_eq!(answer.text(), "ONE TWO!");
    let mut client = Http2::connect(gateway.addr()).await;
    for length in [1, 65_536, 3 << 20] {
        let body: Bytes = vec![b'x'; length].into();
        let mut request = client.ask(Method::POST, "/");
        request.headers_mut().insert("x-transform", upper.clone());
        let (answer, mut stream) = client.open(request, false).await;
        stream.send_data(body, false).expect("data");
        let field = |name: &str| (name.parse().expect("a name"), HeaderValue::from_static("7"));
        let trailers = HeaderMap::from_iter([field("x-sum"), field("content-digest")]);
        stream.send_trailers(trailers).expect("trailers");
        let answer = within("an answer", collect(answer)).await.expect("an answer");
        assert_eq!(answer.text(), format!("{}!", "X".repeat(length)));
        assert_eq!((answer.trailer("x-sum"), answer.trailer("content-digest")), ("7", ""));
    }
    // A body of which nothing ever comes, and what the plugin writes behind it.
    let mut request = client.ask(Method::POST, "/");
    request.headers_mut().insert("x-transform", upper);
    let (answer, mut stream) = client.open(request, false).await;
    stream.send_data(Bytes::new(), true).expect("an end");
    assert_eq!(within("an answer", collect(answer)).await.expect("an answer").text(), "!");
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_its_body_is_asked_by_the_backend() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(post("content-length: 3\r\nexpect: 100-continue\r\nx-transform: upper\r\n", "")).await;
    let mut server = visitors.next().await;
    assert!(server.head().await.contains("expect: 100-continue\r\n"));
    server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 100"));
    client.send("abc").await;
    server.until("3\r\nABC\r\n0\r\n\r\n").await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    // And one that is answered without being asked has cost nobody anything.
    client.send(post("content-length: 3\r\nexpect: 100-continue\r\nx-transform: upper\r\n", "")).await;
    server.head().await;
    server.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 417"));
    assert_eq!(faults(&gateway, "transform").await, 0.0);
}

#[tokio::test]
async fn a_client_of_http_1_0_uploads_as_any_other() {
    let backend = Backend::hello().await;
    let gateway = gateway(backend.addr(), "");
    let mut client = Raw::connect(gateway.addr()).await;
    let request = post("content-length: 3\r\nx-transform: twice\r\n", "abc").replace("HTTP/1.1", "HTTP/1.0");
    client.send(request).await;
    assert!(client.to_end().await.ends_with("hello"));
    assert_eq!((backend.last().body, backend.last().header("via")), ("abcabc".into(), "1.0 vers-gateway"));
}

/// All ways to fail that are seen behind the first piece, and how they are counted.
const BROKEN: [(&str, &str); 6] = [
    ("refuse", "transform"),
    ("panic", "trap"),
    ("spin", "cpu"),
    ("flood", "transform"),
    ("endless", "transform"),
    ("end", "transform"),
];

#[tokio::test]
async fn what_breaks_off_never_looks_whole_to_a_backend_and_is_an_error_to_the_client() {
    for (how, kind) in BROKEN {
        let (backend, mut visitors) = Backend::by_hand().await;
        let gateway = gateway(backend.addr(), "on_error = \"skip\"\n");
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(post(&format!("transfer-encoding: chunked\r\nx-transform: {how}\r\n"), "")).await;
        let mut server = visitors.next().await;
        server.head().await;
        client.send(chunk("one")).await;
        if !matches!(how, "flood" | "endless") {
            server.until(&chunk("one")).await;
            client.send(format!("{}0\r\n\r\n", chunk("two"))).await;
        }
        let answer = client.head().await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("plugin-fault"), "{how}: {answer}");
        let rest = server.to_end().await;
        assert!(!rest.ends_with("0\r\n\r\n"), "{how}: it looks whole: {rest:?}");
        assert_eq!(faults(&gateway, kind).await, 1.0, "{how}");
        client.to_end().await;
    }
}

#[tokio::test]
async fn to_a_backend_of_http2_what_breaks_off_is_reset() {
    let (seen, mut came) = tokio::sync::mpsc::unbounded_channel();
    let backend = h2c_backend(move |request, _respond| {
        let seen = seen.clone();
        async move {
            let read = gateway_tests::read(request.into_body()).await;
            let _ = seen.send(read.map(|(body, _)| body));
        }
    })
    .await;
    let gateway = to_h2c(backend.addr(), "breaker = { faults = 0 }\n");
    let mut client = Http2::connect(gateway.addr()).await;
    for (how, _) in BROKEN {
        let mut request = client.ask(Method::POST, "/");
        request.headers_mut().insert("x-transform", HeaderValue::from_static(how));
        let answer = client.try_send(request, "x".repeat(60_000)).await;
        // Where the first piece is all, only its end shows that something is wrong.
        let read = within("its end", came.recv()).await.expect("a backend");
        if matches!(how, "refuse" | "panic" | "spin") {
            continue;
        }
        assert!(read.expect_err("it looks whole").is_reset(), "{how}");
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-gateway-error")),
            (503, "plugin-fault"),
            "{how}"
        );
    }
}

#[tokio::test]
async fn a_fault_behind_the_beginning_of_the_answer_breaks_that_off() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(post("transfer-encoding: chunked\r\nx-transform: refuse\r\n", &chunk("one"))).await;
    let mut server = visitors.next().await;
    server.until(&chunk("one")).await;
    server.send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}", chunk("early"))).await;
    client.until(&chunk("early")).await;
    client.send(chunk("two")).await;
    assert_eq!(client.to_end().await, "", "an end that is none");
    assert!(!server.to_end().await.ends_with("0\r\n\r\n"));
    assert_eq!((faults(&gateway, "transform").await, cut(&gateway).await), (1.0, 1.0));

    let mut client = Http2::connect(gateway.addr()).await;
    let mut request = client.ask(Method::POST, "/");
    request.headers_mut().insert("x-transform", HeaderValue::from_static("refuse"));
    let (answer, mut stream) = client.open(request, false).await;
    stream.send_data("one".into(), false).expect("data");
    let mut server = visitors.next().await;
    server.until(&chunk("one")).await;
    server.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let answer = within("a head", answer).await.expect("a head");
    stream.send_data("two".into(), true).expect("data");
    let read = within("the end", gateway_tests::read(answer.into_body())).await;
    assert!(read.expect_err("it looks whole").is_reset());
}

#[tokio::test]
async fn a_fault_at_the_beginning_is_an_error_or_is_passed_by() {
    let backend = Backend::hello().await;
    let denies = gateway(backend.addr(), "config = { fails = true }\n");
    let answer = denies.client().post("/", "one").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (503, "plugin-fault"));
    assert!(backend.heard().is_empty());
    // What it has done to the head before it failed goes with it.
    let skips = gateway(backend.addr(), "config = { fails = true }\non_error = \"skip\"\n");
    assert_eq!(skips.client().post("/", "one").await.text(), "hello");
    let heard = backend.last();
    assert_eq!(
        (heard.body.as_ref(), heard.header("content-length"), heard.header("x-begun")),
        (&b"one"[..], "3", "")
    );
}

#[tokio::test]
async fn several_transform_one_after_the_other_in_order() {
    let backend = Backend::hello().await;
    let (file, tail) =
        (guest("transform"), |tail: &str| format!("config = {{ how = \"upper\", tail = \"{tail}\" }}\n"));
    let tables = [plugin_table("first", &file, &tail(" a")), plugin_table("second", &file, &tail(" b"))];
    let toml = one_route(backend.addr(), &format!("plugins = [\"first\", \"second\"]\n{}", tables.concat()));
    let gateway = TestGateway::start(&toml);
    gateway.client().post("/", "one").await;
    assert_eq!(backend.last().body, "ONE A b");
}

#[tokio::test]
async fn a_limit_of_bodies_is_one_of_what_comes_and_of_what_it_becomes() {
    let backend = Backend::hello().await;
    let gateway = with_route(backend.addr(), "limits = { body = \"100KiB\" }", "");
    for (how, length, status) in [
        ("upper", 100 << 10, 200),
        ("upper", (100 << 10) + 1, 413),
        // It would become nothing.
        ("hold", (100 << 10) + 1, 413),
        ("twice", 60 << 10, 413),
        ("twice", 50 << 10, 200),
        ("burst", 1, 413),
    ] {
        // One whose length is told, and one whose length is not.
        let told = gateway.client().with("x-transform", how).post("/", "x".repeat(length)).await;
        assert_eq!(told.status.as_u16(), status, "{length} bytes, {how}");
        let mut client = Http2::connect(gateway.addr()).await;
        let mut request = client.ask(Method::POST, "/");
        request.headers_mut().insert("x-transform", HeaderValue::from_static(how));
        let answer = client.send(request, "x".repeat(length)).await;
        assert_eq!(answer.status.as_u16(), status, "{length} bytes of HTTP/2, {how}");
    }
    assert_eq!(backend.heard().len(), 4, "nothing that is too large is whole to a backend");
}

#[tokio::test]
async fn what_has_left_in_part_is_not_sent_again_and_what_was_held_is() {
    let ((first, mut firsts), (second, mut seconds)) = (Backend::by_hand().await, Backend::by_hand().await);
    let toml = one_backend(&[first.addr(), second.addr()], &held_and_transformed())
        .replace("to = \"app\"", "to = \"app\"\nplugins = [\"bodies\", \"it\"]\nretries = { attempts = 2 }");
    let gateway = TestGateway::start(&toml);
    let put = |headers: &str| {
        post(&format!("content-length: 3\r\nx-transform: upper\r\n{headers}"), "abc").replace("POST", "PUT")
    };
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(put("")).await;
    let mut server = tokio::select! { server = firsts.next() => server, server = seconds.next() => server };
    server.until("0\r\n\r\n").await;
    drop(server);
    let answer = client.head().await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert_eq!(first.connections() + second.connections(), 1, "nobody else was asked");
    // One that was held has its length told, and is there for another server.
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(put("x-body: 100\r\nexpect: 100-continue\r\n")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 100"));
    for is_last in [false, true] {
        let mut server =
            tokio::select! { server = firsts.next() => server, server = seconds.next() => server };
        let head = server.head().await;
        assert!(head.contains("content-length: 3\r\n") && !head.contains("chunked"), "{head}");
        assert_eq!(server.exactly(3).await, b"CBA");
        if is_last {
            server.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            assert!(client.head().await.starts_with("HTTP/1.1 200"));
        }
    }
}

#[tokio::test]
async fn one_that_was_held_is_transformed_in_its_room() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::start(&one_route(
        backend.addr(),
        &format!("plugins = [\"bodies\", \"it\"]\n{}", held_and_transformed()),
    ));
    let held = |how: &str| gateway.client().with("x-body", "1000000").with("x-transform", how);
    let body = "x".repeat(200_000);
    assert_eq!(held("twice").post("/", body.clone()).await.status, 200);
    let heard = backend.last();
    assert_eq!((heard.body.len(), heard.header("content-length")), (400_000, "400000"));
    assert_eq!(held("hold").post("/", "").await.status, 200);
    for how in ["refuse", "end", "flood"] {
        let answer = held(how).post("/", body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-gateway-error")),
            (503, "plugin-fault"),
            "{how}"
        );
    }
    assert_eq!(backend.heard().len(), 2);
    assert_eq!(gateway.metric("vers_held_bodies_bytes", &[]).await, 0.0);
}

#[tokio::test]
async fn requests_without_a_body_for_another_protocol_and_to_nobody_are_not_asked_about() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let more = format!(
        "upgrades = [\"chat\"]\n[[route]]\npath = \"/fixed\"\nplugins = [\"it\"]\nto = {{ respond = {{ status = 200 }} }}\n{}",
        plugin_table("it", &guest("transform"), "config = { how = \"upper\" }\n")
    );
    let gateway = TestGateway::start(&one_route(backend.addr(), &format!("plugins = [\"it\"]\n{more}")));
    let mut client = Raw::connect(gateway.addr()).await;
    for request in
        ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"]
    {
        client.send(request).await;
    }
    let mut server = visitors.next().await;
    for _ in 0..2 {
        assert!(!server.head().await.contains("x-begun"));
        server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        client.head().await;
    }
    assert_eq!(gateway.client().post("/fixed", "abc").await.status, 200);
    let upgrade = "connection: upgrade\r\nupgrade: chat\r\n\r\n";
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{upgrade}")).await;
    assert!(!server.head().await.contains("x-begun"));
    server.send(format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}")).await;
    client.head().await;
    client.send("lower").await;
    server.until("lower").await;
    assert_eq!(calls(&gateway).await, 0.0);
}

#[tokio::test]
async fn a_slow_backend_holds_the_client_back() {
    const MUCH: usize = 64 << 20;
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    let client = Raw::connect(gateway.addr()).await;
    let (mut from, mut to) = client.stream.into_split();
    to.write_all(post(&format!("content-length: {MUCH}\r\nx-transform: upper\r\n"), "").as_bytes())
        .await
        .expect("it is taken");
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let sending = tokio::spawn(async move {
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..MUCH / piece.len() {
            to.write_all(&piece).await.expect("it is taken");
            count.fetch_add(piece.len(), Ordering::Relaxed);
        }
        to
    });
    let mut server = visitors.next().await;
    server.head().await;
    settled("the client is held back", async || taken.load(Ordering::Relaxed) as u64).await;
    assert!(!sending.is_finished(), "somebody took {MUCH} bytes for a backend that reads nothing");
    // The frames of the chunks come on top.
    assert_eq!(server.skip(MUCH).await, MUCH);
    within("the end of the sending", sending).await.expect("the sending");
    server.until("0\r\n\r\n").await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let mut answer = [0; 12];
    within("the answer", from.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_slow_backend_holds_a_client_of_http2_back() {
    const MUCH: usize = 16 << 20;
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    let mut client = Http2::connect(gateway.addr()).await;
    let mut request = client.ask(Method::POST, "/");
    request.headers_mut().insert("x-transform", HeaderValue::from_static("upper"));
    let (answer, mut stream) = client.open(request, false).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let sending = tokio::spawn(async move {
        let mut left = MUCH;
        while left > 0 {
            stream.reserve_capacity(left.min(64 << 10));
            let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            let granted = granted.expect("a stream").expect("room").min(left);
            stream.send_data(vec![b'x'; granted].into(), granted == left).expect("data");
            left -= granted;
            count.fetch_add(granted, Ordering::Relaxed);
        }
    });
    let mut server = visitors.next().await;
    server.head().await;
    settled("the client is held back", async || taken.load(Ordering::Relaxed) as u64).await;
    assert!(!sending.is_finished(), "somebody took {MUCH} bytes for a backend that reads nothing");
    server.skip(MUCH).await;
    within("the end of the sending", sending).await.expect("the sending");
    server.until("0\r\n\r\n").await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(within("an answer", collect(answer)).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn who_answers_before_all_has_come_is_heard_and_who_leaves_is_missed_by_nobody() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "limits = { instances = 3, transforms = 1 }\n");
    let head = "transfer-encoding: chunked\r\nx-transform: upper\r\n";
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(post(head, &chunk("one"))).await;
    let mut server = visitors.next().await;
    server.until(&chunk("ONE")).await;
    server.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 403"));
    assert!(!server.to_end().await.ends_with("0\r\n\r\n"));
    assert_eq!(gateway.metric("vers_plugin_instances", &[]).await, 1.0, "it serves others");
    // Its place is there for another one, and so is that of a client that leaves.
    for _ in 0..2 {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(post(head, &chunk("one"))).await;
        let mut server = visitors.next().await;
        server.until(&chunk("ONE")).await;
        drop(client);
        assert!(!server.to_end().await.ends_with("0\r\n\r\n"));
        assert_eq!(gateway.metric("vers_plugin_instances", &[]).await, 1.0, "it serves others");
    }
    // What was left behind in it is nobody else's.
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(post("content-length: 3\r\nx-transform: hold\r\n", "two")).await;
    visitors.next().await.until("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(faults(&gateway, "busy").await + faults(&gateway, "trap").await, 0.0);
}

#[tokio::test]
async fn both_ways_together_there_are_so_many_at_a_time() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "limits = { instances = 3, transforms = 1 }\n");
    let head = "transfer-encoding: chunked\r\nx-transform: upper\r\n";
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(post(head, &chunk("one"))).await;
    let mut server = visitors.next().await;
    server.until(&chunk("ONE")).await;
    let mut second = Raw::connect(gateway.addr()).await;
    second.send(post(head, &chunk("two"))).await;
    let answer = second.head().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("plugin-busy"), "{answer}");
    // Its own answer finds no place either.
    server.send("HTTP/1.1 200 OK\r\nx-transform: upper\r\ncontent-length: 1\r\n\r\nx").await;
    let answer = client.head().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("plugin-busy"), "{answer}");
    assert_eq!(faults(&gateway, "busy").await, 2.0);
}

#[tokio::test]
async fn both_ways_at_once_nothing_is_mixed_up() {
    let backend = Backend::http(|heard| {
        let response = Response::builder().header("x-transform", "hold");
        response.body(Full::new(heard.body.clone())).expect("a response")
    })
    .await;
    let gateway =
        gateway(backend.addr(), "limits = { concurrency = 1, queue = 100, queue_timeout = \"60m\" }\n");
    let ask = async |number: usize| {
        let body = format!("upload {number};").repeat(20_000);
        let answer = gateway.client().with("x-transform", "upper").post("/", body.clone()).await;
        assert!(answer.text() == body.to_ascii_uppercase(), "another one's, or not all");
    };
    join_all((0..10).map(ask)).await;
    assert_eq!((calls(&gateway).await, faults(&gateway, "queue").await), (10.0, 0.0));
}

#[tokio::test]
async fn a_client_that_stops_is_not_waited_for_and_a_plugin_that_thinks_is() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = with_route(
        backend.addr(),
        "timeouts = { idle = \"300ms\", response = \"300ms\" }",
        "limits = { cpu = \"1500ms\", wall = \"1500ms\" }\n",
    );
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(post("content-length: 10\r\nx-transform: upper\r\n", "abc")).await;
    let mut server = visitors.next().await;
    server.until(&chunk("ABC")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 408"));
    assert!(!server.to_end().await.ends_with("0\r\n\r\n"));
    // It is the plugin's own time that is over first, and neither the client's nor the backend's.
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(post("transfer-encoding: chunked\r\nx-transform: spin\r\n", &chunk("one"))).await;
    let mut server = visitors.next().await;
    server.until(&chunk("one")).await;
    let began = std::time::Instant::now();
    client.send(chunk("two")).await;
    let answer = client.head().await;
    assert!(answer.contains("plugin-fault"), "{answer}");
    assert!(began.elapsed() > Duration::from_millis(600), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_breaker_leaves_alone_what_fails_and_bodies_pass_by() {
    let backend = Backend::hello().await;
    let gateway = gateway(
        backend.addr(),
        "config = { fails = true }\non_error = \"skip\"\nbreaker = { faults = 2, open = \"1h\" }\n",
    );
    for _ in 0..4 {
        assert_eq!(gateway.client().post("/", "one").await.text(), "hello");
        assert_eq!(backend.last().body, "one");
    }
    // It fails on the answers as well, and each hook has a breaker of its own.
    assert_eq!((faults(&gateway, "trap").await, faults(&gateway, "open").await), (4.0, 4.0));
    let open = gateway.metric("vers_plugin_breakers_open", &["hook=\"request-transform\""]).await;
    assert_eq!(open, 1.0);
}

#[tokio::test]
async fn what_the_backend_was_sent_is_what_is_told_at_the_end() {
    let backend = Backend::hello().await;
    let collector = Backend::hello().await;
    let url = format!("http://{}", collector.addr());
    let audit = plugin_table(
        "audit",
        &guest("audit"),
        &format!("config = {{ url = \"{url}/\" }}\ngrants = {{ http = [\"{url}\"] }}\n"),
    );
    let table = plugin_table("it", &guest("transform"), "config = { how = \"twice\" }\n");
    let toml = one_route(backend.addr(), &format!("plugins = [\"it\", \"audit\"]\n{table}{audit}"));
    let gateway = TestGateway::start(&toml);
    gateway.client().post("/", "12345").await;
    gateway_tests::assert_told(&collector.told(0).await, &["request-bytes: 10", "status: 200"]);
    // The gateway is there until it has told.
    eventually("its answer", async || (!backend.heard().is_empty()).then_some(())).await;
}
