//! How long a connection lives, what belongs to it, and requests behind each other: RFC 9112 §9, RFC
//! 9110 §7.6.1.

use super::case::{Case, Want, forwarded, get, post, unfinished, want};

pub(super) const CASES: &[Case] = &[
    // RFC 9112 §9.3.
    forwarded("close", b"<GET>connection: close\r\n\r\n", &[get().lacks(&["connection"])]).closed().told(CLOSE),
    forwarded("close in upper case among others", b"<GET>connection: x, CLOSE ,y\r\n\r\n", &[get()]).closed().told(CLOSE),
    forwarded("close on a second line", b"<GET>connection: x\r\nconnection: close\r\n\r\n", &[get()]).closed().told(CLOSE),
    forwarded("close and keep-alive", b"<GET>connection: keep-alive, close\r\n\r\n", &[get()]).closed(),
    forwarded("close with a body", b"<POST>connection: close\r\ncontent-length: 5\r\n\r\nhello", &[post("hello")]).closed(),
    forwarded("keep-alive", b"<GET>connection: keep-alive\r\n\r\n", &[get().lacks(&["connection", "keep-alive"])]),
    forwarded("an empty Connection", b"<GET>connection:\r\n\r\n", &[get().lacks(&["connection"])]),
    forwarded("a request behind the last one", b"<GET>connection: close\r\n\r\nGET /smuggled/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[get()]).closed(),
    forwarded("HTTP/1.0", b"GET /MARK HTTP/1.0\r\nhost: a\r\n\r\n", &[get()]).closed(),
    forwarded("HTTP/1.0 with a body", b"POST /MARK HTTP/1.0\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", &[post("hello")]).closed(),
    forwarded("a request behind one of HTTP/1.0", b"GET /MARK HTTP/1.0\r\nhost: a\r\n\r\nGET /smuggled/MARK HTTP/1.0\r\nhost: a\r\n\r\n", &[get()]).closed(),
    forwarded("HTTP/1.0 that is kept", b"GET /MARK HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n", &[get()]).told(KEEP),
    forwarded("HTTP/1.0 that is kept, in mixed case", b"GET /MARK HTTP/1.0\r\nhost: a\r\nConnection: Keep-Alive\r\n\r\n", &[get()]).told(KEEP),
    forwarded("HTTP/1.0 with a body that is kept", b"POST /MARK HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello", &[post("hello")]).told(KEEP),
    forwarded("HTTP/1.0 that is kept twice", b"GET /1/MARK HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\nGET /2/MARK HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n", &[ONE, TWO]).told(KEEP),
    forwarded("HTTP/1.0 that is kept, and then is not", b"GET /1/MARK HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\nGET /2/MARK HTTP/1.0\r\nhost: a\r\n\r\n", &[ONE, TWO]).closed(),
    forwarded("HTTP/1.0 that is kept and closed", b"GET /MARK HTTP/1.0\r\nhost: a\r\nconnection: keep-alive, close\r\n\r\n", &[get()]).closed(),
    forwarded("HTTP/1.0 and proxy-connection", b"GET /MARK HTTP/1.0\r\nhost: a\r\nproxy-connection: keep-alive\r\n\r\n", &[get().lacks(&["proxy-connection"])]).closed(),
    forwarded("HTTP/1.0 without a body by POST", b"POST /MARK HTTP/1.0\r\nhost: a\r\n\r\n", &[post("")]).closed(),
    // RFC 9110 §7.6.1.
    forwarded("what Connection names", b"<GET>connection: x, Y\r\nx: 1\r\ny: 2\r\nz: 3\r\n\r\n", &[get().lacks(&["connection", "x", "y"]).has(&[("z", "3")])]),
    forwarded("what Connection names in odd ways", b"<GET>connection: ,, x ,\t,Y\r\nx: 1\r\ny: 2\r\nz: 3\r\n\r\n", &[get().lacks(&["connection", "x", "y"]).has(&[("z", "3")])]),
    forwarded("what always belongs to a connection", b"<GET>keep-alive: timeout=5\r\nproxy-connection: x\r\nproxy-authorization: Basic eA==\r\nte: gzip\r\nupgrade: x\r\n\r\n", &[get().lacks(&["keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade"])]),
    forwarded("trailers that are taken", b"<GET>te: trailers\r\n\r\n", &[get().has(&[("te", "trailers")])]),
    forwarded("Host, named by Connection", b"<GET>connection: host\r\n\r\n", &[get()]),
    forwarded("what the gateway sets, named by Connection", b"<GET>connection: x-forwarded-for, forwarded, via, x-forwarded-proto\r\nx-forwarded-for: 6.6.6.6\r\nvia: 1.0 b\r\n\r\n", &[get().has(&[("x-forwarded-for", "::1"), ("x-forwarded-proto", "http"), ("via", "1.1 vers-gateway")])]),
    forwarded("Via of a proxy before", b"<GET>via: 1.0 b\r\n\r\n", &[get().has(&[("via", "1.0 b"), ("via", "1.1 vers-gateway")])]),
    // RFC 9112 §9.3.2: answers come in the order of their requests.
    forwarded("two requests", b"GET /1/MARK HTTP/1.1\r\nhost: a\r\n\r\nGET /2/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[ONE, TWO]),
    forwarded("three requests of every framing", b"POST /1/MARK HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhelloPOST /2/MARK HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: 1\r\n\r\nHEAD /3/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[
        Want { body: "hello", ..want("POST", "/1/MARK") },
        Want { body: "hello", ..want("POST", "/2/MARK") }.trailers(&[("x", "1")]),
        want("HEAD", "/3/MARK"),
    ]),
    forwarded("a POST without a length, and a request", b"POST /1/MARK HTTP/1.1\r\nhost: a\r\n\r\nGET /2/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[want("POST", "/1/MARK"), TWO]),
    forwarded("ten requests", b"<10*GET /1/MARK HTTP/1.1\r\nhost: a\r\n\r\n>", &[ONE; 10]),
    forwarded("an empty line between requests", b"POST /1/MARK HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello\r\nGET /2/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[Want { body: "hello", ..want("POST", "/1/MARK") }, TWO]),
    forwarded("two requests, the last of them last", b"GET /1/MARK HTTP/1.1\r\nhost: a\r\n\r\nGET /2/MARK HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &[ONE, TWO]).closed(),
    // What is refused behind a good request is refused as if it were alone.
    forwarded("a request without a Host behind a good one", b"GET /1/MARK HTTP/1.1\r\nhost: a\r\n\r\nGET /2/MARK HTTP/1.1\r\n\r\nGET /3/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[ONE]).answered(&[200, 400]).closed().told(CLOSE),
    forwarded("a request of LF behind a good one", b"GET /1/MARK HTTP/1.1\r\nhost: a\r\n\r\nGET /2/MARK HTTP/1.1\nhost: a\n\nGET /3/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[ONE]).answered(&[200, 400]).closed().told(CLOSE),
    forwarded("a request of two lengths behind a good one", b"POST /1/MARK HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhelloPOST /2/MARK HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /3/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[Want { body: "hello", ..want("POST", "/1/MARK") }]).answered(&[200, 400]).closed().told(CLOSE),
    forwarded("bytes behind a body", b"POST /1/MARK HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello!GET /2/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[Want { body: "hello", ..want("POST", "/1/MARK") }, Want { method: "!GET", ..TWO }]),
    forwarded("garbage behind a body", b"POST /1/MARK HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello\0GET /2/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[Want { body: "hello", ..want("POST", "/1/MARK") }]).answered(&[200, 400]).closed().told(CLOSE),
    // RFC 9112 §8: what ends before its end was never asked.
    unfinished("nothing", b""),
    unfinished("half a request line", b"GET /MARK HT"),
    unfinished("half a head", b"<GET>x: y"),
    unfinished("a head without its empty line", b"<GET>"),
    unfinished("a head and half its end", b"<GET>\r"),
    unfinished("a length and no body", b"<POST>content-length: 5\r\n\r\n"),
    unfinished("half a body", b"<POST>content-length: 5\r\n\r\nhel"),
    unfinished("half a body in two pieces", b"<POST>content-length: 5\r\n\r\nhe<LATER>l"),
    unfinished("most of a large body", b"<POST>content-length: 500000\r\n\r\n<400000*b>"),
    unfinished("a little of the largest body", b"<POST>content-length: 9223372036854775807\r\n\r\nhello"),
    unfinished("chunks and none", b"<CHUNKED>"),
    unfinished("half a size", b"<CHUNKED>5"),
    unfinished("half a chunk", b"<CHUNKED>5\r\nhel"),
    unfinished("half a chunk later", b"<CHUNKED>5\r\nhe<LATER>l"),
    unfinished("chunks without the last", b"<CHUNKED>5\r\nhello\r\n"),
    unfinished("half the last chunk", b"<CHUNKED>5\r\nhello\r\n0\r\n"),
    unfinished("half the trailers", b"<CHUNKED>5\r\nhello\r\n0\r\nx: 1\r\n"),
];

const CLOSE: &[(&str, &str)] = &[("connection", "close")];
const KEEP: &[(&str, &str)] = &[("connection", "keep-alive")];
const ONE: Want = want("GET", "/1/MARK");
const TWO: Want = want("GET", "/2/MARK");
