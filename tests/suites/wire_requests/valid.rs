//! Requests as clients send them every day.

use super::case::{Case, Want, forwarded, post, want};

pub(super) const CASES: &[Case] = &[
    forwarded("HEAD", b"HEAD /MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[want("HEAD", "/MARK")]).told(&[("content-length", "2")]),
    forwarded("HEAD in HTTP/1.0", b"HEAD /MARK HTTP/1.0\r\nhost: a\r\n\r\n", &[want("HEAD", "/MARK")]).closed(),
    forwarded("PUT", b"PUT /MARK HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi", &[Want { body: "hi", ..want("PUT", "/MARK") }]),
    forwarded("PATCH", b"PATCH /MARK HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi", &[Want { body: "hi", ..want("PATCH", "/MARK") }]),
    forwarded("DELETE", b"DELETE /MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[want("DELETE", "/MARK")]),
    forwarded("TRACE", b"TRACE /MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[want("TRACE", "/MARK")]),
    forwarded("PROPFIND", b"PROPFIND /MARK HTTP/1.1\r\nhost: a\r\ndepth: 1\r\n\r\n", &[want("PROPFIND", "/MARK").has(&[("depth", "1")])]),
    forwarded(
        "a browser",
        b"GET /MARK HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive\r\nsec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\n\
          Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html,*/*;q=0.8\r\n\
          Accept-Encoding: gzip, deflate, br\r\nCookie: a=b; c=\"d\"\r\nIf-None-Match: W/\"1\"\r\n\r\n",
        &[want("GET", "/MARK").has(&[
            ("host", "a.example"),
            ("sec-ch-ua", "\"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\""),
            ("upgrade-insecure-requests", "1"),
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
            ("accept", "text/html,*/*;q=0.8"),
            ("accept-encoding", "gzip, deflate, br"),
            ("cookie", "a=b; c=\"d\""),
            ("if-none-match", "W/\"1\""),
        ])],
    ),
    forwarded(
        "a form",
        b"<POST>content-type: application/x-www-form-urlencoded\r\ncontent-length: 12\r\n\r\na=1&b=%C3%A4",
        &[post("a=1&b=%C3%A4").has(&[("content-type", "application/x-www-form-urlencoded")])],
    ),
    forwarded(
        "gRPC-Web",
        b"<POST>content-type: application/grpc-web+proto\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n5\r\n\0\0\0\0\0\r\n0\r\n\r\n",
        &[post("\0\0\0\0\0").has(&[("content-type", "application/grpc-web+proto"), ("te", "trailers")])],
    ),
    forwarded("a range", b"<GET>range: bytes=0-1\r\n\r\n", &[want("GET", "/MARK").has(&[("range", "bytes=0-1")])]),
];
