//! Answers that end with their connection: RFC 9112 §6.3, 8.

use super::case::{ASK_HEAD, Case, OLD, OLD_KEPT, POST, aborted, broken, delivered};

pub(super) const CASES: &[Case] = &[
    delivered("a body up to the end", b"<OK>\r\nok<FIN>", "ok")
        .has(&[("transfer-encoding", "chunked")])
        .unused(),
    delivered("no body up to the end", b"<OK>\r\n<FIN>", "").unused(),
    delivered("a body up to the end that comes later", b"<OK>\r\n<HEAD>ok<HEAD><FIN>", "ok").unused(),
    delivered("a body up to the end in two pieces", b"<OK>\r\no<HEAD>k<FIN>", "ok").unused(),
    delivered("a body and close", b"<OK>connection: close\r\n\r\nok<FIN>", "ok").unused(),
    delivered("a body and keep-alive", b"<OK>connection: keep-alive\r\n\r\nok<FIN>", "ok").unused(),
    delivered(
        "a body up to the end that looks like an answer",
        b"<OK>\r\n<OK>content-length: 0\r\n\r\n<FIN>",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    )
    .unused(),
    delivered("HTTP/1.0 up to the end", b"HTTP/1.0 200 OK\r\n\r\nok<FIN>", "ok")
        .has(&[("transfer-encoding", "chunked")])
        .unused(),
    delivered(
        "HTTP/1.0 with a length, and the end",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok<FIN>",
        "ok",
    )
    .unused(),
    delivered("an answer to a POST up to the end", b"<OK>\r\nok<FIN>", "ok").to(POST).unused(),
    delivered("an error up to the end", b"HTTP/1.1 500 Oh\r\n\r\nno<FIN>", "no").status(500).unused(),
    delivered("to HTTP/1.0", b"<OK>\r\nok<FIN>", "ok").to(OLD).lacks(&["transfer-encoding"]).unused().last(),
    delivered("to HTTP/1.0 that asked to be kept", b"<OK>\r\nok<FIN>", "ok")
        .to(OLD_KEPT)
        .lacks(&["transfer-encoding"])
        .unused()
        .last(),
    delivered("HEAD, and the end", b"<OK>\r\n<FIN>", "").to(ASK_HEAD).unused(),
    broken("a body, and a reset", b"<OK>\r\nok<RST>"),
    aborted("a body, and later a reset", b"<OK>\r\nok<HEAD><RST>"),
    aborted("a body to HTTP/1.0, and later a reset", b"<OK>\r\nok<HEAD><RST>").to(OLD),
    aborted("a body of HTTP/1.0, and later a reset", b"HTTP/1.0 200 OK\r\n\r\nok<HEAD><RST>"),
];
