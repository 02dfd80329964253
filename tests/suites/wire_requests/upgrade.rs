//! Upgrade: RFC 9110 §7.8, RFC 6455 §4.2. The backend of these tables agrees to none.

use super::case::{Case, Want, forwarded, get, post, refused, want};

pub(super) const CASES: &[Case] = &[
    // RFC 6455 §4.2.1: exactly one key, of 16 bytes.
    refused(400, "no key", b"<WS>sec-websocket-version: 13\r\n\r\n"),
    refused(400, "an empty key", b"<WS>sec-websocket-key:\r\nsec-websocket-version: 13\r\n\r\n"),
    refused(400, "two keys", b"<WS><KEY>sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"),
    refused(400, "a key of one byte", b"<WS>sec-websocket-key: YQ==\r\nsec-websocket-version: 13\r\n\r\n"),
    refused(400, "a key of 17 bytes", b"<WS>sec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZmc=\r\nsec-websocket-version: 13\r\n\r\n"),
    refused(400, "a key without its padding", b"<WS>sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ\r\nsec-websocket-version: 13\r\n\r\n"),
    refused(400, "a key of another alphabet", b"<WS>sec-websocket-key: __hlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"),
    refused(400, "a key that is no base64", b"<WS>sec-websocket-key: (((((((((((((((((((((((=\r\nsec-websocket-version: 13\r\n\r\n"),
    refused(400, "a key of two words", b"<WS>sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ== x\r\nsec-websocket-version: 13\r\n\r\n"),
    // RFC 6455 §4.4.
    refused(426, "no version of WebSocket", b"<WS>sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"),
    refused(426, "an old version of WebSocket", b"<WS>sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 8\r\n\r\n"),
    refused(426, "a version that begins like the right one", b"<WS>sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 130\r\n\r\n"),
    refused(426, "two versions", b"<WS>sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13, 8\r\n\r\n"),
    // A backend that refuses leaves HTTP.
    forwarded("a WebSocket", b"<WS><KEY>\r\n", &[ASKED]),
    forwarded("a WebSocket in mixed case", b"GET /MARK HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n<KEY>\r\n", &[get().has(&[("upgrade", "WebSocket"), ("connection", "upgrade")])]),
    forwarded("a WebSocket with a length of 0", b"<WS><KEY>content-length: 0\r\n\r\n", &[ASKED]),
    forwarded("a WebSocket and its subprotocols", b"<WS><KEY>sec-websocket-protocol: chat, soap\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n", &[get().has(&[("upgrade", "websocket"), ("sec-websocket-protocol", "chat, soap"), ("sec-websocket-extensions", "permessage-deflate")])]),
    forwarded("a request behind a WebSocket that is refused", b"GET /1/MARK HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n<KEY>\r\nGET /2/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[want("GET", "/1/MARK").has(&[("upgrade", "websocket")]), want("GET", "/2/MARK").lacks(GONE)]),
    // What is no upgrade is a request without one.
    forwarded("an upgrade that Connection does not name", b"<GET>upgrade: websocket\r\n<KEY>\r\n", &[get().lacks(GONE)]),
    forwarded("an upgrade without a protocol", b"<GET>connection: upgrade\r\n<KEY>\r\n", &[get().lacks(GONE)]),
    forwarded("a WebSocket with a body", b"<WS><KEY>content-length: 5\r\n\r\nhello", &[Want { body: "hello", ..get() }.lacks(GONE)]),
    forwarded("a WebSocket with chunks", b"<WS><KEY>transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", &[Want { body: "hello", ..get() }.lacks(GONE)]),
    forwarded("a WebSocket with an empty body of chunks", b"<WS><KEY>transfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[get().lacks(GONE)]),
    forwarded("a WebSocket with a body that looks like a request", b"<WS><KEY>content-length: 40\r\n\r\nGET /smuggled/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[Want { body: "GET /smuggled/MARK HTTP/1.1\r\nhost: a\r\n\r\n", ..get() }.lacks(GONE)]),
    forwarded("a WebSocket by POST", b"<POST>connection: upgrade\r\nupgrade: websocket\r\n<KEY>\r\n", &[post("").lacks(GONE)]),
    forwarded("a WebSocket by POST without a key", b"<POST>connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 5\r\n\r\nhello", &[post("hello").lacks(GONE)]),
    forwarded("a WebSocket in HTTP/1.0", b"GET /MARK HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n<KEY>\r\n", &[get().lacks(GONE)]).closed(),
    forwarded("another protocol", b"<GET>connection: upgrade\r\nupgrade: foo/2\r\n\r\n", &[get().lacks(GONE)]),
    forwarded("TLS inside", b"<GET>connection: upgrade\r\nupgrade: TLS/1.2\r\n\r\n", &[get().lacks(GONE)]),
    // RFC 9113 §3.1: a connection that became HTTP/2 would carry requests past every check.
    forwarded("HTTP/2", b"<GET>connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n", &[get().lacks(H2)]),
    forwarded("HTTP/2 in upper case", b"<GET>connection: Upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", &[get().lacks(H2)]),
    forwarded("the settings of HTTP/2 alone", b"<GET>http2-settings: AAMAAABkAAQAAP__\r\n\r\n", &[get().lacks(H2)]),
    forwarded("HTTP/2 with a body", b"<POST>connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\ncontent-length: 5\r\n\r\nhello", &[post("hello").lacks(H2)]),
];

const ASKED: Want = get().has(&[
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
]);

const GONE: &[&str] = &["connection", "upgrade"];

const H2: &[&str] = &["connection", "upgrade", "http2-settings"];
