//! The same requests over HTTP/2: heads, bodies, ends.

use bytes::Bytes;
use gateway_tests::{Backend, Http2, TestGateway, collect, within};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::Full;

#[tokio::test]
async fn a_request_takes_the_same_path_as_over_http1() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let answer = client.send(client.get("/a?b=c"), "").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "hello"));
    assert!(answer.headers.contains_key("date"));
    let heard = backend.last();
    assert_eq!(heard.uri, "/a?b=c");
    assert_eq!(heard.header("host"), gateway.addr().to_string());
    assert_eq!(heard.header("via"), "2.0 vers-gateway");
    assert_eq!((heard.header("x-forwarded-for"), heard.header("x-forwarded-proto")), ("::1", "http"));
    assert!(!heard.headers.contains_key("transfer-encoding"), "it has no body");
}

#[tokio::test]
async fn bodies_go_both_ways_whatever_their_length() {
    let backend = Backend::echo().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    for length in [1, 1000, 16_384, 65_536, 300_000, 4 << 20] {
        let body: Bytes = (0..length).map(|at| (at % 251) as u8).collect();
        let answer = client.send(client.ask(Method::POST, "/"), body.clone()).await;
        assert_eq!(answer.status, 200, "{length}");
        assert!(answer.body == body, "{length} bytes came back as {}", answer.body.len());
        assert_eq!(backend.last().header("transfer-encoding"), "chunked");
        let mut told = client.ask(Method::POST, "/");
        told.headers_mut().insert("content-length", HeaderValue::from(length));
        let answer = client.send(told, body.clone()).await;
        assert!(answer.body == body, "of known length: {length}");
        assert_eq!(backend.last().header("content-length"), length.to_string());
    }
}

#[tokio::test]
async fn trailers_of_requests_and_answers_arrive() {
    let canned =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\nhost: b\r\n\r\n";
    let backend = Backend::canned(canned).await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let answer = client.send(client.get("/"), "").await;
    assert_eq!((answer.text(), answer.trailer("x-sum"), answer.trailer("host")), ("hi", "7", ""));
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    let (answer, mut stream) = client.open(client.ask(Method::POST, "/"), false).await;
    stream.send_data("hi".into(), false).expect("data");
    let trailers = HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from_static("7"))]);
    stream.send_trailers(trailers).expect("trailers");
    assert_eq!(within("an answer", collect(answer)).await.expect("an answer").text(), "hello");
    let heard = backend.last();
    assert_eq!(heard.body, "hi");
    assert_eq!(heard.trailers.expect("trailers").get("x-sum"), Some(&HeaderValue::from_static("7")));
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let backend = Backend::http(|heard| {
        let status: u16 = heard.uri.path()[1..].parse().expect("a status");
        let body = if heard.method == Method::HEAD || status == 200 { "hello" } else { "" };
        Response::builder().status(status).body(Full::from(body)).expect("an answer")
    })
    .await;
    let gateway = TestGateway::to(backend.addr());
    let mut client = Http2::connect(gateway.addr()).await;
    for (method, path, length) in [
        (Method::HEAD, "/200", "5"),
        (Method::GET, "/204", ""),
        (Method::GET, "/304", ""),
        (Method::GET, "/200", "5"),
    ] {
        let answer = client.send(client.ask(method.clone(), path), "").await;
        assert_eq!(answer.header("content-length"), length, "{method} {path}");
        let has_body = method == Method::GET && path == "/200";
        assert_eq!(answer.text(), if has_body { "hello" } else { "" }, "{method} {path}");
    }
}
