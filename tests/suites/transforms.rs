//! Plugins that transform bodies of answers on their way: what goes on, how it is framed, and how it breaks off.

use crate::grpc;
use bytes::Bytes;
use futures_util::future::join_all;
use gateway_tests::{
    Backend, Http2, Raw, TestGateway, Visitors, collect, eventually, guest, h2c_backend, one_backend,
    one_route, plugin_table, settled, within,
};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::Full;
use std::{fmt::Write as _, net::SocketAddr, sync::Arc};
use tokio::io::AsyncWriteExt as _;

fn gateway(backend: SocketAddr, more: &str) -> TestGateway {
    let table = plugin_table("it", &guest("transform"), more);
    TestGateway::start(&one_route(backend, &format!("plugins = [\"it\"]\n{table}")))
}

/// Answers with this body, and asks for it to be transformed in this way.
async fn page(how: &'static str, body: &'static str) -> Backend {
    Backend::http(move |_| {
        let mut response = Response::builder().header("etag", "\"1\"");
        if !how.is_empty() {
            response = response.header("x-transform", how);
        }
        response.body(Full::from(body)).expect("a response")
    })
    .await
}

/// A client that has asked, and the backend's side of it, which has read that.
async fn asked(gateway: &TestGateway, visitors: &mut Visitors) -> (Raw, Raw) {
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    (client, server)
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n";

fn chunk(bytes: &str) -> String {
    format!("{:x}\r\n{bytes}\r\n", bytes.len())
}

async fn faults(gateway: &TestGateway, kind: &str) -> f64 {
    gateway.metric("vers_plugin_faults_total", &[&format!("kind=\"{kind}\"")]).await
}

#[tokio::test]
async fn what_the_plugin_returns_is_what_the_client_gets() {
    for (how, tail, expected) in [
        ("upper", "", "ONE TWO"),
        ("upper", " and three", "ONE TWO and three"),
        ("hold", "!", "one two!"),
        ("twice", "", "one twoone two"),
        ("", "never seen", "one two"),
    ] {
        let backend = page(how, "one two").await;
        let gateway = gateway(backend.addr(), &format!("config = {{ tail = \"{tail}\" }}\n"));
        // Both on one connection: where the body ends is told.
        let mut kept = gateway.client().connect().await.expect("a connection");
        for _ in 0..2 {
            let answer = kept.try_send(http::Method::GET, "/", bytes::Bytes::new()).await.expect("an answer");
            assert_eq!(answer.text(), expected, "{how}");
            assert_eq!(answer.header("x-transformed"), how);
            let length = if how.is_empty() { "7" } else { "" };
            assert_eq!(answer.header("content-length"), length, "{how}: nobody knows it before the end");
        }
        assert_eq!(backend.connections(), 1, "and the backend's connection is used again");
    }
}

#[tokio::test]
async fn pieces_leave_as_they_come_and_trailers_are_kept() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    let (mut client, mut server) = asked(&gateway, &mut visitors).await;
    server.send(format!("{CHUNKED}x-transform: upper\r\ntrailer: x-sum\r\n\r\n")).await;
    let head = client.head().await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "the head does not wait for the body: {head}");
    for word in ["one", "two"] {
        server.send(chunk(word)).await;
        client.until(&chunk(&word.to_ascii_uppercase())).await;
    }
    server.send("0\r\nx-sum: 7\r\n\r\n").await;
    client.until("0\r\nx-sum: 7\r\n\r\n").await;
    // The connection goes on.
    client.send("GET /again HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    assert!(server.head().await.starts_with("GET /again "));
}

#[tokio::test]
async fn answers_without_a_body_tell_no_length_that_would_be_wrong() {
    let backend = Backend::http(|heard| {
        let response = Response::builder().header("x-transform", "twice");
        match heard.uri.path() {
            "/same" => response
                .status(304)
                .header("accept-ranges", "bytes")
                .header("content-length", "7")
                .body(Full::default()),
            "/none" => response.status(204).header("accept-ranges", "bytes").body(Full::default()),
            _ => response.body(Full::from("one two")),
        }
        .expect("a response")
    })
    .await;
    let gateway = gateway(backend.addr(), "");
    let mut client = Raw::connect(gateway.addr()).await;
    for (asks, begins, is_shown) in [
        ("HEAD /", "HTTP/1.1 200", true),
        ("GET /same", "HTTP/1.1 304", true),
        ("GET /none", "HTTP/1.1 204", false),
    ] {
        client.send(format!("{asks} HTTP/1.1\r\nhost: a.test\r\n\r\n")).await;
        let head = client.head().await;
        assert!(head.starts_with(begins), "{asks}: {head}");
        assert!(!head.contains("content-length"), "{asks}: {head}");
        assert_eq!(head.contains("x-transformed: twice"), is_shown, "{asks}: {head}");
        // Where there is a body, they go; and so they do where there is none.
        assert_eq!(head.contains("accept-ranges"), !is_shown, "{asks}: {head}");
    }
    // Its instance is there for the next one.
    assert_eq!(gateway.metric("vers_plugin_instances", &[]).await, 1.0);
    assert_eq!(faults(&gateway, "trap").await, 0.0);
}

#[tokio::test]
async fn nothing_is_said_of_bytes_that_the_client_does_not_get() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    for (how, is_kept) in [("upper", false), ("", true)] {
        let (mut client, mut server) = asked(&gateway, &mut visitors).await;
        let header = if how.is_empty() { String::new() } else { format!("x-transform: {how}\r\n") };
        let sums = "accept-ranges: bytes\r\nrepr-digest: sha-256=:YQ==:\r\ncontent-md5: YQ==\r\n";
        server.send(format!("{CHUNKED}{header}{sums}trailer: content-digest\r\n\r\n{}", chunk("a"))).await;
        server
            .send("0\r\ncontent-digest: sha-256=:YQ==:\r\nx-amz-checksum-sha256: YQ==\r\nx-cost: 7\r\n\r\n")
            .await;
        let head = client.head().await;
        client.until("0\r\n").await;
        let trailers = client.until("\r\n\r\n").await;
        for name in ["accept-ranges", "repr-digest", "content-md5"] {
            assert_eq!(head.contains(name), is_kept, "{name}: {head}");
        }
        let sums = trailers.contains("content-digest") || trailers.contains("x-amz-checksum");
        assert!(sums == is_kept && trailers.contains("x-cost: 7"), "{trailers}");
    }
}

#[tokio::test]
async fn what_becomes_much_more_comes_in_parts() {
    let backend = page("burst", "ab").await;
    let file = guest("transform");
    // No limit of requests' bodies is one of answers; and the next plugin is handed what it can take.
    let table = |name: &str| plugin_table(name, &file, "limits = { body = \"0B\" }\n");
    let toml = one_route(
        backend.addr(),
        &format!("plugins = [\"first\", \"second\"]\n{}{}", table("first"), table("second")),
    );
    let gateway = TestGateway::start(&toml);
    let only = one_route(backend.addr(), &format!("plugins = [\"first\"]\n{}", table("first")));
    let text = TestGateway::start(&only).client().get("/").await.text();
    let parts: Vec<_> = text.as_bytes().chunks(1 << 20).map(|part| (part[0], part[part.len() - 1])).collect();
    let expected: Vec<_> = (b'0'..=b'9').rev().map(|digit| (digit, digit)).collect();
    assert_eq!((text.len(), parts), (10 << 20, expected));
    // Each piece of 64 KiB becomes 10 MiB once more: the client gets as much of it as it reads, and no fault.
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.skip(40 << 20).await, 40 << 20);
    drop(client);
    assert_eq!(faults(&gateway, "transform").await, 0.0);
}

#[tokio::test]
async fn a_small_limit_of_requests_breaks_no_answer() {
    let body: &'static str = Box::leak("x".repeat(3 << 20).into_boxed_str());
    let backend = page("upper", body).await;
    let file = guest("transform");
    let tables = ["first", "second"].map(|name| plugin_table(name, &file, "limits = { body = \"16KiB\" }\n"));
    let toml = one_route(backend.addr(), &format!("plugins = [\"first\", \"second\"]\n{}", tables.concat()));
    let gateway = TestGateway::start(&toml);
    assert_eq!(gateway.client().get("/").await.text(), body.to_ascii_uppercase());
}

#[tokio::test]
async fn a_plugin_that_may_be_called_once_at_a_time_breaks_nothing_off() {
    let body: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
    let backend = page("upper", body).await;
    let more = "limits = { concurrency = 1, queue = 100, queue_timeout = \"60m\" }\n";
    let gateway = gateway(backend.addr(), more);
    let ask = async || assert_eq!(gateway.client().get("/").await.text(), body.to_ascii_uppercase());
    join_all((0..10).map(|_| ask())).await;
    assert_eq!(faults(&gateway, "queue").await, 0.0);
    assert_eq!(gateway.metric("vers_plugin_waiting", &[]).await, 0.0);
}

#[tokio::test]
async fn bodies_that_outlive_a_reload_count_on() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let toml = |tail: &str| {
        let more =
            format!("limits = {{ instances = 3, transforms = 1 }}\nconfig = {{ tail = \"{tail}\" }}\n");
        let table = plugin_table("it", &guest("transform"), &more);
        one_route(backend.addr(), &format!("plugins = [\"it\"]\n{table}"))
    };
    let gateway = TestGateway::start(&toml("old"));
    let (mut client, mut server) = asked(&gateway, &mut visitors).await;
    server.send(format!("{CHUNKED}x-transform: upper\r\n\r\n")).await;
    client.head().await;
    gateway.write(&toml("new"));
    gateway.reload().await.expect("a good configuration");
    let (mut second, mut its) = asked(&gateway, &mut visitors).await;
    its.send(format!("{CHUNKED}x-transform: upper\r\n\r\n")).await;
    assert!(second.head().await.contains("plugin-busy"), "each reload would have bodies anew");
    // It ends as it began, and makes room.
    server.send("0\r\n\r\n").await;
    client.until("old\r\n0\r\n\r\n").await;
    let mut third = Raw::connect(gateway.addr()).await;
    third.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    // The backend's connection is used again.
    server.head().await;
    server.send(format!("{CHUNKED}x-transform: upper\r\n\r\n0\r\n\r\n")).await;
    third.until("new\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn bodies_leave_instances_to_others() {
    let backend = page("", "one").await;
    let table = plugin_table("it", &guest("transform"), "limits = { instances = 4, transforms = 4 }\n");
    let toml = one_route(backend.addr(), &format!("plugins = [\"it\"]\n{table}"));
    let said = TestGateway::try_start(&toml).expect_err("requests would find none").to_string();
    assert!(said.contains("`limits.transforms` is 4, and `limits.instances` is 4"), "{said}");
    // By itself it is half of them: a third body finds no place, and a fourth call does.
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = self::gateway(backend.addr(), "limits = { instances = 4 }\n");
    let mut going = Vec::new();
    for _ in 0..2 {
        let (mut client, mut server) = asked(&gateway, &mut visitors).await;
        server.send(format!("{CHUNKED}x-transform: upper\r\n\r\n")).await;
        client.head().await;
        going.push((client, server));
    }
    let (mut client, mut server) = asked(&gateway, &mut visitors).await;
    server.send(format!("{CHUNKED}x-transform: upper\r\n\r\n")).await;
    assert!(client.head().await.contains("plugin-busy"));
}

#[tokio::test]
async fn a_breaker_counts_what_fails_on_the_way_and_nothing_else() {
    let how = std::sync::Arc::new(std::sync::Mutex::new("panic"));
    let says = std::sync::Arc::clone(&how);
    let backend = Backend::http(move |_| {
        let how = *says.lock().expect("nobody panics");
        Response::builder()
            .header("x-transform", how)
            .body(Full::from("one ".repeat(50_000)))
            .expect("a response")
    })
    .await;
    let gateway = gateway(backend.addr(), "breaker = { faults = 2, open = \"1ms\" }\n");
    let open = async || gateway.metric("vers_plugin_breakers_open", &["hook=\"transform\""]).await;
    let ask = async || {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await;
        client.to_end().await
    };
    // They all begin well.
    for _ in 0..2 {
        ask().await;
    }
    assert_eq!((faults(&gateway, "trap").await, open().await), (2.0, 1.0));
    *how.lock().expect("nobody panics") = "upper";
    eventually("a try that goes well", async || ask().await.contains("ONE").then_some(())).await;
    assert_eq!(open().await, 0.0);
    assert!(ask().await.contains("ONE"));
}

#[tokio::test]
async fn several_transform_one_after_the_other_in_reverse() {
    let backend = page("upper", "one").await;
    let (file, tail) = (guest("transform"), |tail: &str| format!("config = {{ tail = \"{tail}\" }}\n"));
    let tables =
        [plugin_table("first", &file, &tail(" outer")), plugin_table("second", &file, &tail(" inner"))];
    let toml = one_route(backend.addr(), &format!("plugins = [\"first\", \"second\"]\n{}", tables.concat()));
    let gateway = TestGateway::start(&toml);
    assert_eq!(gateway.client().get("/").await.text(), "ONE INNER outer");
}

#[tokio::test]
async fn a_fault_in_the_middle_is_seen_by_the_client() {
    for (how, kind) in [
        ("refuse", "transform"),
        ("panic", "trap"),
        ("spin", "cpu"),
        ("flood", "transform"),
        ("endless", "transform"),
    ] {
        let (backend, mut visitors) = Backend::by_hand().await;
        let gateway = gateway(backend.addr(), "on_error = \"skip\"\n");
        let (mut client, mut server) = asked(&gateway, &mut visitors).await;
        server.send(format!("{CHUNKED}x-transform: {how}\r\n\r\n{}", chunk("one"))).await;
        // These two fail by the first piece, and nobody takes another one.
        if !matches!(how, "flood" | "endless") {
            client.until(&chunk("one")).await;
            server.send(format!("{}0\r\n\r\n", chunk("two"))).await;
        }
        let rest = client.to_end().await;
        assert!(!rest.contains("\r\n0\r\n") && !rest.starts_with("0\r\n"), "{how}: it looks whole: {rest:?}");
        assert_eq!(faults(&gateway, kind).await, 1.0, "{how}");
        let cut = gateway.metric("vers_connections_cut_total", &["reason=\"plugin\""]).await;
        assert_eq!(cut, 1.0, "{how}");
    }
    // To HTTP/1.0, the end of the connection would be the end of the body.
    let backend = page("end", "one two").await;
    let gateway = gateway(backend.addr(), "");
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.0\r\nhost: a.test\r\n\r\n").await;
    let mut all = Vec::new();
    let end = within("the end", tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut all)).await;
    assert!(end.is_err(), "an orderly end after {:?}", String::from_utf8_lossy(&all));
}

#[tokio::test]
async fn a_fault_at_the_beginning_is_an_error_or_is_passed_by() {
    let backend = page("upper", "one").await;
    let denies = gateway(backend.addr(), "config = { fails = true }\n");
    let answer = denies.client().get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (503, "plugin-fault"));
    let skips = gateway(backend.addr(), "config = { fails = true }\non_error = \"skip\"\n");
    let answer = skips.client().get("/").await;
    assert_eq!((answer.text().as_str(), answer.header("content-length")), ("one", "3"));
}

#[tokio::test]
async fn a_body_keeps_its_instance_and_others_go_on() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway =
        gateway(backend.addr(), "limits = { instances = 3, transforms = 2 }\nconfig = { tail = \".\" }\n");
    let mut going = Vec::new();
    for number in 0..2 {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(format!("GET /{number} HTTP/1.1\r\nhost: a.test\r\n\r\n")).await;
        let mut server = visitors.next().await;
        server.head().await;
        server.send(format!("{CHUNKED}x-transform: hold\r\n\r\n{}", chunk(&format!("body {number}")))).await;
        client.head().await;
        going.push((client, server));
    }
    // A third one has no place, and that is a fault as any other.
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET /third HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send(format!("{CHUNKED}x-transform: hold\r\n\r\n")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("plugin-busy"), "{head}");
    for (number, (client, server)) in going.iter_mut().enumerate() {
        server.send("0\r\n\r\n").await;
        let whole = format!("body {number}.");
        client.until(&format!("{}0\r\n\r\n", chunk(&whole))).await;
    }
    let live = gateway.metric("vers_plugin_instances", &[]).await;
    assert_eq!(live, 2.0, "both are kept for others");
    // Those that nobody reads to their end are over too, and their instances are there for others.
    drop(going);
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET /left HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send(format!("{CHUNKED}x-transform: upper\r\n\r\n{}", chunk("x"))).await;
    client.until("X\r\n").await;
    drop(client);
    eventually("their places", async || {
        let (mut client, mut server) = asked(&gateway, &mut visitors).await;
        server.send(format!("{CHUNKED}x-transform: upper\r\n\r\n0\r\n\r\n")).await;
        client.head().await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    assert_eq!(gateway.metric("vers_plugin_instances", &[]).await, 2.0);
    assert_eq!(gateway.metric("vers_plugin_recycled_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_slow_reader_holds_the_backend_back() {
    const MUCH: usize = 64 << 20;
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    let (mut client, mut server) = asked(&gateway, &mut visitors).await;
    server.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\nx-transform: upper\r\n\r\n")).await;
    client.head().await;
    let taken = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&taken);
    let sending = tokio::spawn(async move {
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..MUCH / piece.len() {
            server.stream.write_all(&piece).await.expect("it is taken");
            count.fetch_add(piece.len(), std::sync::atomic::Ordering::Relaxed);
        }
    });
    settled("the backend is held back", async || taken.load(std::sync::atomic::Ordering::Relaxed) as u64)
        .await;
    assert!(!sending.is_finished(), "somebody took {MUCH} bytes for a client that reads nothing");
    // The frames of the chunks come on top.
    assert!(client.skip(MUCH).await == MUCH);
    within("the end of the sending", sending).await.expect("the sending");
}

#[tokio::test]
async fn an_upload_goes_on_while_its_answer_is_transformed() {
    const MUCH: usize = 8 << 20;
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gateway(backend.addr(), "");
    let client = Raw::connect(gateway.addr()).await;
    let (mut from, mut to) = client.stream.into_split();
    let upload = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: {MUCH}\r\n\r\n");
        to.write_all(head.as_bytes()).await.expect("it is taken");
        to.write_all(&vec![b'u'; MUCH]).await.expect("it is taken");
        to
    });
    let mut server = visitors.next().await;
    server.head().await;
    server.send(format!("{CHUNKED}x-transform: upper\r\n\r\n{}", chunk("early"))).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"EARLY\r\n") {
        within("the answer", tokio::io::AsyncReadExt::read_buf(&mut from, &mut seen)).await.expect("bytes");
    }
    assert_eq!(server.skip(MUCH).await, MUCH, "the rest of the request comes behind the answer's beginning");
    within("the upload", upload).await.expect("all of it");
    server.send("0\r\n\r\n").await;
    while !seen.ends_with(b"0\r\n\r\n") {
        within("the end", tokio::io::AsyncReadExt::read_buf(&mut from, &mut seen)).await.expect("bytes");
    }
}

#[tokio::test]
async fn over_http2_it_is_the_same() {
    let backend = page("upper", "one two").await;
    let gateway = gateway(backend.addr(), "config = { tail = \" three\" }\n");
    let mut client = Http2::connect(gateway.addr()).await;
    let request = client.get("/");
    let answer = client.send(request, "").await;
    assert_eq!(answer.text(), "ONE TWO three");
}

#[tokio::test]
async fn many_at_a_time_keep_apart() {
    let backend = Backend::http(|heard| {
        let mut body = String::new();
        for line in 0..2000 {
            let _ = writeln!(body, "{} {line}", heard.uri.path());
        }
        Response::builder().header("x-transform", "upper").body(Full::from(body)).expect("a response")
    })
    .await;
    let gateway = gateway(backend.addr(), "");
    let ask = async |number: usize| {
        let text = gateway.client().get(&format!("/page{number}")).await.text();
        assert_eq!(text.lines().count(), 2000);
        assert!(text.lines().all(|line| line.starts_with(&format!("/PAGE{number} "))), "another one's lines");
    };
    join_all((0..20).map(ask)).await;
    let calls = gateway.metric("vers_plugin_calls_total", &["hook=\"transform\""]).await;
    assert_eq!(calls, 20.0);
}

/// A route to one backend of these keys, by way of the guest.
fn to_backend(server: SocketAddr, keys: &str, more: &str) -> TestGateway {
    let table = plugin_table("it", &guest("transform"), more);
    let toml = one_backend(&[server], &format!("{keys}\n{table}"));
    TestGateway::start(&toml.replace("to = \"app\"", "to = \"app\"\nplugins = [\"it\"]"))
}

#[tokio::test]
async fn over_http2_what_breaks_off_is_reset_and_never_ended() {
    let body: &'static str = Box::leak("x".repeat(200_000).into_boxed_str());
    let backend = Backend::http(move |heard| {
        let how = heard.uri.path().trim_start_matches('/');
        Response::builder().header("x-transform", how).body(Full::from(body)).expect("a response")
    })
    .await;
    let gateway = gateway(backend.addr(), "breaker = { faults = 0 }\n");
    let mut client = Http2::connect(gateway.addr()).await;
    let broken = ["refuse", "panic", "spin", "flood", "endless", "end"];
    for how in broken {
        let (answer, _) = client.open(client.get(&format!("/{how}")), true).await;
        let error = within("the end", collect(answer)).await.expect_err("it looks whole");
        assert!(error.is_reset() && error.is_remote(), "{how}: {error}");
    }
    // The others on the connection go on.
    let whole = client.send(client.get("/upper"), "").await;
    assert_eq!(whole.text(), body.to_ascii_uppercase());
    let cut = gateway.metric("vers_connections_cut_total", &["reason=\"plugin\""]).await;
    assert_eq!(cut, broken.len() as f64);
}

#[tokio::test]
async fn a_backend_of_http2_is_transformed_as_well() {
    let break_off = Arc::new(tokio::sync::Semaphore::new(0));
    let may_break = Arc::clone(&break_off);
    let answer = move |request: gateway_tests::H2Request, mut respond: SendResponse<Bytes>| async move {
        let head = Response::builder().header("x-transform", "upper").header("content-length", "7");
        let mut stream = respond.send_response(head.body(()).expect("a head"), false).expect("a stream");
        stream.send_data("one ".into(), false).expect("data");
        if request.uri().path() == "/broken" {
            may_break.acquire().await.expect("it is open").forget();
            return stream.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        stream.send_data("two".into(), false).expect("data");
        let field = |name: &str, value| (name.parse().expect("a name"), HeaderValue::from_static(value));
        let trailers =
            HeaderMap::from_iter([field("x-cost", "7"), field("content-digest", "sha-256=:YQ==:")]);
        stream.send_trailers(trailers).expect("trailers");
    };
    let backend = h2c_backend(move |request, respond| answer.clone()(request, respond)).await;
    let gateway = to_backend(backend.addr(), "protocol = \"h2c\"", "config = { tail = \" three\" }\n");
    let mut client = Http2::connect(gateway.addr()).await;
    let answer = client.send(client.get("/"), "").await;
    assert_eq!((answer.text(), answer.header("content-length")), ("ONE TWO three", ""));
    assert_eq!((answer.trailer("x-cost"), answer.trailer("content-digest")), ("7", ""));
    let mut raw = Raw::connect(gateway.addr()).await;
    raw.send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n").await;
    let head = raw.head().await;
    assert!(head.contains("transfer-encoding: chunked\r\n") && !head.contains("content-length"), "{head}");
    let body = raw.until("\r\n\r\n").await;
    assert!(body.contains("ONE ") && body.ends_with("0\r\nx-cost: 7\r\n\r\n"), "{body}");
    // What the backend breaks off is no end, whoever reads it; and what it would be missing is not there.
    let (answer, _) = client.open(client.get("/broken"), true).await;
    let mut body = within("a head", answer).await.expect("a head").into_body();
    assert_eq!(within("a piece", body.data()).await.expect("data").expect("data"), "ONE ");
    break_off.add_permits(1);
    let read = within("the end", gateway_tests::read(body)).await;
    assert!(read.expect_err("it looks whole").is_reset());
    raw.send("GET /broken HTTP/1.1\r\nhost: a\r\n\r\n").await;
    raw.until("ONE ").await;
    break_off.add_permits(1);
    let rest = raw.to_end().await;
    assert!(!rest.ends_with("0\r\n\r\n") && !rest.contains("three"), "{rest}");
    assert_eq!(gateway.metric("vers_plugin_faults_total", &[]).await, 0.0);
}

#[tokio::test]
async fn grpc_through_a_transform_is_grpc() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (backend, given_up) = grpc::server_on(listener);
    let gateway = to_backend(backend.addr(), "protocol = \"auto\"", "config = { how = \"same\" }\n");
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", gateway.addr()));
    let channel = within("a connection", endpoint.expect("a URL").connect()).await.expect("a connection");
    grpc::calls_of_all_kinds(grpc::client_over(channel).await, &given_up).await;
    let calls =
        async |hook: &str| gateway.metric("vers_plugin_calls_total", &[&format!("hook=\"{hook}\"")]).await;
    assert!(calls("transform").await >= 7.0 && calls("request-transform").await >= 7.0);
    assert_eq!(gateway.metric("vers_plugin_faults_total", &[]).await, 0.0);
}

#[tokio::test]
async fn of_two_that_transform_one_may_fail() {
    let body: &'static str = Box::leak("one ".repeat(50_000).into_boxed_str());
    let backend = page("", body).await;
    let file = guest("transform");
    let two = |first: &str, second: &str, on_error: &str| {
        let table = |name: &str, config: &str| {
            plugin_table(name, &file, &format!("config = {{ {config} }}\non_error = \"{on_error}\"\n"))
        };
        let tables = [table("first", first), table("second", second)].concat();
        TestGateway::start(&one_route(
            backend.addr(),
            &format!("plugins = [\"first\", \"second\"]\n{tables}"),
        ))
    };
    // An answer meets the second one first.
    let (upper, refuse) = ("how = \"upper\"", "how = \"refuse\"");
    for on_error in ["deny", "skip"] {
        for (first, second) in [(upper, refuse), (refuse, upper)] {
            let gateway = two(first, second, on_error);
            let mut client = Raw::connect(gateway.addr()).await;
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert!(client.head().await.starts_with("HTTP/1.1 200"));
            let rest = client.to_end().await;
            assert!(
                rest.contains("ONE") && !rest.ends_with("0\r\n\r\n"),
                "{first}, {second}: it looks whole"
            );
            assert!(!rest.contains("one"), "{first}, {second}: what is not transformed by both is not sent");
            assert_eq!(faults(&gateway, "transform").await, 1.0);
        }
    }
    // At the beginning, the policy of who fails decides, whoever has begun already.
    for (first, second) in [(upper, "fails = true"), ("fails = true", upper)] {
        let denies = two(first, second, "deny");
        let answer = denies.client().get("/").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (503, "plugin-fault"));
        let skips = two(first, second, "skip");
        assert_eq!(skips.client().get("/").await.text(), body.to_ascii_uppercase());
        // Who has begun well serves others; the second one is asked first.
        let begun = if first == upper { 0.0 } else { 1.0 };
        for (gateway, live) in [(denies, begun), (skips, 1.0)] {
            assert_eq!(faults(&gateway, "trap").await, 1.0);
            assert_eq!(gateway.metric("vers_plugin_instances", &[]).await, live, "{first}, {second}");
        }
    }
}

#[tokio::test]
async fn a_body_on_its_way_knows_its_exchange_and_leaves_nothing_to_others() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let table = plugin_table("it", &guest("keeper"), "limits = { instances = 3, transforms = 2 }\n");
    let toml = one_route(backend.addr(), &format!("path = \"/{{name}}\"\nplugins = [\"it\"]\n{table}"));
    let gateway = TestGateway::start(&toml);
    let expected =
        |name: &str| format!("id true route app client ::1 name Some(\"{name}\") stored None gone true;");
    let ask = async |visitors: &mut Visitors, name: &str| {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(format!("GET /{name} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let mut server = visitors.next().await;
        server.head().await;
        server.send(format!("{CHUNKED}connection: close\r\n\r\n{}", chunk("x"))).await;
        client.head().await;
        (client, server)
    };
    // Two at a time, and others in the same instances after them: each says what is its own.
    for _ in 0..2 {
        let (mut first, mut its) = ask(&mut visitors, "first").await;
        let (mut second, mut others) = ask(&mut visitors, "second").await;
        first.until(&expected("first")).await;
        second.until(&expected("second")).await;
        its.send(chunk("y")).await;
        first.until(&expected("first")).await;
        for (client, server) in [(&mut first, &mut its), (&mut second, &mut others)] {
            server.send("0\r\n\r\n").await;
            client.until("0\r\n\r\n").await;
        }
    }
    assert_eq!(gateway.metric("vers_plugin_instances", &[]).await, 2.0);
    assert_eq!(gateway.metric("vers_plugin_faults_total", &[]).await, 0.0);
}
