//! Content-Length of answers, and where answers end that have no body: RFC 9110 §8.6, RFC 9112 §6.3.

use super::case::{ASK_HEAD, Case, OLD, OLD_HEAD, OLD_KEPT, aborted, bad_gateway, broken, delivered};

pub(super) const CASES: &[Case] = &[
    // RFC 9112 §6.3, 3 and 5.
    bad_gateway(
        "a length and a coding",
        b"<OK>content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    bad_gateway(
        "a coding and a length",
        b"<OK>transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    bad_gateway(
        "a length of 0 and a coding",
        b"<OK>content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    bad_gateway("two lengths that differ", b"<OK>content-length: 2\r\ncontent-length: 3\r\n\r\nok!"),
    bad_gateway("two lengths that are equal", b"<OK>content-length: 2\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a list of equal lengths", b"<OK>content-length: 2, 2\r\n\r\nok"),
    bad_gateway("a list of lengths that differ", b"<OK>content-length: 2,3\r\n\r\nok!"),
    bad_gateway("a length and an empty one", b"<OK>content-length: 2\r\ncontent-length:\r\n\r\nok"),
    bad_gateway("an empty length", b"<OK>content-length:\r\n\r\nok<FIN>"),
    bad_gateway("a length with a plus", b"<OK>content-length: +2\r\n\r\nok"),
    bad_gateway("a length with a minus", b"<OK>content-length: -2\r\n\r\nok"),
    bad_gateway("a length in hexadecimal", b"<OK>content-length: 0x2\r\n\r\nok"),
    bad_gateway("a length and a letter", b"<OK>content-length: 2b\r\n\r\nok"),
    bad_gateway("a length in two words", b"<OK>content-length: 0 2\r\n\r\nok"),
    bad_gateway("a length in quotes", b"<OK>content-length: \"2\"\r\n\r\nok"),
    bad_gateway("a length of 2^63", b"<OK>content-length: 9223372036854775808\r\n\r\nok"),
    bad_gateway("a length of 2^64 + 2", b"<OK>content-length: 18446744073709551618\r\n\r\nok"),
    bad_gateway("a wrong length where there is no body", b"<OK>content-length: x\r\n\r\n").to(ASK_HEAD),
    bad_gateway("two lengths where there is no body", b"<OK>content-length: 2\r\ncontent-length: 2\r\n\r\n")
        .to(ASK_HEAD),
    bad_gateway(
        "two lengths of what was not modified",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n",
    ),
    bad_gateway(
        "a length and a coding in HTTP/1.0",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    // What passes, and how.
    delivered("a length", b"<OK>content-length: 2\r\n\r\nok", "ok")
        .has(&[("content-length", "2")])
        .lacks(&["transfer-encoding"]),
    delivered("a length of 0", b"<OK>content-length: 0\r\n\r\n", "").has(&[("content-length", "0")]),
    delivered("a length with blanks around it", b"<OK>content-length:\t 2 \t\r\n\r\nok", "ok"),
    delivered("a body that comes later", b"<OK>content-length: 2\r\n\r\n<HEAD>ok", "ok"),
    delivered("a body of two pieces", b"<OK>content-length: 2\r\n\r\no<HEAD>k", "ok"),
    delivered(
        "a body that looks like an answer",
        b"<OK>content-length: 19\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ),
    delivered(
        "a body of bytes that are no text",
        b"<OK>content-length: 6\r\n\r\n\0\r\n\xff\n\r",
        "\0\r\n\u{ff}\n\r",
    ),
    delivered("a length to HTTP/1.0", b"<OK>content-length: 2\r\n\r\nok", "ok")
        .to(OLD)
        .has(&[("content-length", "2")])
        .last(),
    delivered("a length to HTTP/1.0 that is kept", b"<OK>content-length: 2\r\n\r\nok", "ok")
        .to(OLD_KEPT)
        .has(&[("content-length", "2"), ("connection", "keep-alive")]),
    // RFC 9110 §9.3.2, §15.3.5, §15.4.5: no body, whatever is said of it.
    delivered("HEAD with a length", b"<OK>content-length: 1234\r\n\r\n", "")
        .to(ASK_HEAD)
        .has(&[("content-length", "1234")]),
    delivered("HEAD with a length of 0", b"<OK>content-length: 0\r\n\r\n", "")
        .to(ASK_HEAD)
        .has(&[("content-length", "0")]),
    delivered("HEAD with a coding", b"<OK>transfer-encoding: chunked\r\n\r\n", "")
        .to(ASK_HEAD)
        .lacks(&["content-length"]),
    delivered("HEAD with neither", b"<OK>x: y\r\n\r\n", "").to(ASK_HEAD).has(&[("x", "y")]),
    delivered("HEAD of an error", b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\n", "")
        .to(ASK_HEAD)
        .status(404)
        .has(&[("content-length", "5")]),
    delivered("HEAD in HTTP/1.0", b"<OK>content-length: 1234\r\n\r\n", "")
        .to(OLD_HEAD)
        .has(&[("content-length", "1234")])
        .last(),
    delivered("HEAD with a body", b"<OK>content-length: 2\r\n\r\nok", "")
        .to(ASK_HEAD)
        .has(&[("content-length", "2")])
        .unused(),
    delivered("HEAD with chunks", b"<OK>transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "")
        .to(ASK_HEAD)
        .unused(),
    delivered("204", b"HTTP/1.1 204 No Content\r\n\r\n", "")
        .status(204)
        .lacks(&["content-length", "transfer-encoding"]),
    delivered("204 with a length of 0", b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", "")
        .status(204)
        .lacks(&["content-length"]),
    // Whoever announces a body where there is none may send it later.
    delivered("204 with a length", b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n", "")
        .status(204)
        .lacks(&["content-length"])
        .doubtful(),
    delivered("204 with a body", b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nok", "")
        .status(204)
        .lacks(&["content-length"])
        .unused(),
    delivered("304", b"HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n", "")
        .status(304)
        .has(&[("etag", "\"1\"")]),
    delivered("304 with a length", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1234\r\n\r\n", "")
        .status(304)
        .has(&[("content-length", "1234")]),
    delivered("304 with a coding", b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n", "")
        .status(304),
    delivered("304 with a body", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\nok", "")
        .status(304)
        .unused(),
    delivered("a large body", b"<OK>content-length: 500000\r\n\r\n<500000*b>", "<500000*b>"),
    delivered(
        "a large body that comes later",
        b"<OK>content-length: 500000\r\n\r\n<HEAD><500000*b>",
        "<500000*b>",
    ),
    delivered("a large body to HTTP/1.0", b"<OK>content-length: 500000\r\n\r\n<500000*b>", "<500000*b>")
        .to(OLD)
        .last(),
    // What comes behind an answer is no answer to anything.
    delivered("bytes behind a large body", b"<OK>content-length: 500000\r\n\r\n<500000*b>!", "<500000*b>")
        .unused(),
    delivered(
        "a second answer behind a large body",
        b"<OK>content-length: 500000\r\n\r\n<500000*b><OK>content-length: 2\r\n\r\nno",
        "<500000*b>",
    )
    .unused(),
    delivered("bytes behind a body", b"<OK>content-length: 2\r\n\r\nok!", "ok").unused(),
    delivered("an empty line behind a body", b"<OK>content-length: 2\r\n\r\nok\r\n", "ok").unused(),
    delivered("a second answer", b"<OK>content-length: 2\r\n\r\nok<OK>content-length: 2\r\n\r\nno", "ok")
        .unused(),
    delivered(
        "a second answer behind one without a body",
        b"<OK>content-length: 0\r\n\r\n<OK>content-length: 2\r\n\r\nno",
        "",
    )
    .unused(),
    delivered(
        "an interim answer behind a body",
        b"<OK>content-length: 2\r\n\r\nokHTTP/1.1 100 Continue\r\n\r\n",
        "ok",
    )
    .unused(),
    delivered(
        "a second answer behind 204",
        b"HTTP/1.1 204 No Content\r\n\r\n<OK>content-length: 2\r\n\r\nno",
        "",
    )
    .status(204)
    .unused(),
    delivered(
        "a second answer behind HEAD",
        b"<OK>content-length: 0\r\n\r\n<OK>content-length: 2\r\n\r\nno",
        "",
    )
    .to(ASK_HEAD)
    .unused(),
    delivered(
        "a second answer while nobody asks",
        b"<OK>content-length: 2\r\n\r\nok<DONE><OK>content-length: 2\r\n\r\nno",
        "ok",
    )
    .unused(),
    delivered("a byte while nobody asks", b"<OK>content-length: 2\r\n\r\nok<DONE>\n", "ok").unused(),
    delivered("the end while nobody asks", b"<OK>content-length: 2\r\n\r\nok<DONE><FIN>", "ok").unused(),
    delivered("a reset while nobody asks", b"<OK>content-length: 2\r\n\r\nok<DONE><RST>", "ok").unused(),
    // RFC 9112 §8: what ends before its end is not all.
    broken("half a body, and the end", b"<OK>content-length: 10\r\n\r\nhello<FIN>"),
    broken("half a body, and a reset", b"<OK>content-length: 10\r\n\r\nhello<RST>"),
    broken("no body, and the end", b"<OK>content-length: 10\r\n\r\n<FIN>"),
    broken("a little of the largest body", b"<OK>content-length: 9223372036854775807\r\n\r\nhello<FIN>"),
    broken("half a large body, and the end", b"<OK>content-length: 500000\r\n\r\n<400000*b><FIN>"),
    broken("half a large body, and a reset", b"<OK>content-length: 500000\r\n\r\n<400000*b><RST>"),
    aborted(
        "half a large body, and later the end",
        b"<OK>content-length: 500000\r\n\r\n<HEAD><400000*b><FIN>",
    ),
    aborted(
        "half a large body to HTTP/1.0, and later the end",
        b"<OK>content-length: 500000\r\n\r\n<HEAD><400000*b><FIN>",
    )
    .to(OLD),
    aborted("half a body, and later the end", b"<OK>content-length: 10\r\n\r\nhello<HEAD><FIN>"),
    aborted("half a body, and later a reset", b"<OK>content-length: 10\r\n\r\nhello<HEAD><RST>"),
    aborted("no body, and later the end", b"<OK>content-length: 10\r\n\r\n<HEAD><FIN>"),
    aborted("half a body to HTTP/1.0, and later the end", b"<OK>content-length: 10\r\n\r\nhello<HEAD><FIN>")
        .to(OLD),
    aborted(
        "half a body to HTTP/1.0 that is kept, and later the end",
        b"<OK>content-length: 10\r\n\r\nhello<HEAD><FIN>",
    )
    .to(OLD_KEPT),
];
