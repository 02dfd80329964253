//! Content-Length: RFC 9110 §8.6, RFC 9112 §6.2 and §6.3.

use super::case::{Case, Want, forwarded, get, post, refused, want};

pub(super) const CASES: &[Case] = &[
    // RFC 9112 §6.3, 3: with a coding beside it the message has two ends.
    refused(
        400,
        "a length and a coding",
        b"<POST>content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        400,
        "a coding and a length",
        b"<POST>transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    ),
    refused(
        400,
        "a length of 0 and a coding",
        b"<POST>content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        400,
        "a coding between two lengths",
        b"<POST>content-length: 5\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    ),
    refused(
        400,
        "a length and a coding on a GET",
        b"<GET>content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        400,
        "a length and an unknown coding",
        b"<POST>content-length: 5\r\ntransfer-encoding: gzip\r\n\r\nhello",
    ),
    refused(
        400,
        "a length and an empty coding",
        b"<POST>content-length: 5\r\ntransfer-encoding:\r\n\r\nhello",
    ),
    refused(
        400,
        "a wrong length and a coding",
        b"<POST>content-length: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        400,
        "a length and a coding, both in upper case",
        b"<POST>CONTENT-LENGTH: 5\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n",
    ),
    // RFC 9112 §6.3, 5: more than one length is refused even where they agree.
    refused(400, "two lengths that differ", b"<POST>content-length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
    refused(400, "two lengths that are equal", b"<POST>content-length: 5\r\ncontent-length: 5\r\n\r\nhello"),
    refused(400, "two lengths of 0", b"<POST>content-length: 0\r\ncontent-length: 0\r\n\r\n"),
    refused(
        400,
        "two lengths far apart",
        b"<POST>content-length: 5\r\nx: y\r\nContent-Length: 05\r\n\r\nhello",
    ),
    refused(400, "a length and an empty one", b"<POST>content-length: 5\r\ncontent-length:\r\n\r\nhello"),
    refused(400, "a list of equal lengths", b"<POST>content-length: 5, 5\r\n\r\nhello"),
    refused(400, "a list of lengths without a blank", b"<POST>content-length: 5,5\r\n\r\nhello"),
    refused(400, "a list of lengths that differ", b"<POST>content-length: 5, 6\r\n\r\nhello!"),
    refused(400, "a length and a comma", b"<POST>content-length: 5,\r\n\r\nhello"),
    refused(400, "a comma and a length", b"<POST>content-length: ,5\r\n\r\nhello"),
    // RFC 9110 §8.6: digits and nothing else.
    refused(400, "an empty length", b"<POST>content-length:\r\n\r\nhello"),
    refused(400, "a length of blanks", b"<POST>content-length: \t \r\n\r\nhello"),
    refused(400, "a length with a plus", b"<POST>content-length: +5\r\n\r\nhello"),
    refused(400, "a length with a minus", b"<POST>content-length: -5\r\n\r\nhello"),
    refused(400, "minus zero", b"<POST>content-length: -0\r\n\r\n"),
    refused(400, "a length in hexadecimal", b"<POST>content-length: 0x5\r\n\r\nhello"),
    refused(400, "a length of hexadecimal digits", b"<POST>content-length: a\r\n\r\nhellohello"),
    refused(400, "a length and a letter", b"<POST>content-length: 5a\r\n\r\nhello"),
    refused(400, "a length with a fraction", b"<POST>content-length: 5.0\r\n\r\nhello"),
    refused(400, "a length with an exponent", b"<POST>content-length: 5e0\r\n\r\nhello"),
    refused(400, "a length with an underscore", b"<POST>content-length: 0_5\r\n\r\nhello"),
    refused(400, "a length with a parameter", b"<POST>content-length: 5;a=b\r\n\r\nhello"),
    refused(400, "a length in quotes", b"<POST>content-length: \"5\"\r\n\r\nhello"),
    refused(400, "a length in two words", b"<POST>content-length: 1 0\r\n\r\nhellohello"),
    refused(400, "a length in two words with a tab", b"<POST>content-length: 0\t5\r\n\r\nhello"),
    refused(400, "a length and a NUL", b"<POST>content-length: 5\0\r\n\r\nhello"),
    refused(400, "a length and a vertical tab", b"<POST>content-length: \x0b5\r\n\r\nhello"),
    refused(400, "a length of digits outside ASCII", b"<POST>content-length: \xd9\xa5\r\n\r\nhello"),
    refused(400, "a length and a no-break space", b"<POST>content-length: 5\xa0\r\n\r\nhello"),
    refused(400, "a length of 2^63", b"<POST>content-length: 9223372036854775808\r\n\r\nhello"),
    refused(400, "a length of 2^64", b"<POST>content-length: 18446744073709551616\r\n\r\nhello"),
    refused(400, "a length of 2^64 + 5", b"<POST>content-length: 18446744073709551621\r\n\r\nhello"),
    refused(400, "a length of 100 digits", b"<POST>content-length: <100*9>\r\n\r\nhello"),
    refused(
        400,
        "a wrong length in HTTP/1.0",
        b"POST /MARK HTTP/1.0\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello",
    ),
    refused(400, "two lengths on a GET", b"<GET>content-length: 5\r\ncontent-length: 0\r\n\r\nhello"),
    // What passes, and how.
    forwarded(
        "a length",
        b"<POST>content-length: 5\r\n\r\nhello",
        &[post("hello").has(&[("content-length", "5")])],
    ),
    forwarded(
        "a length of 0",
        b"<POST>content-length: 0\r\n\r\n",
        &[post("").has(&[("content-length", "0")])],
    ),
    forwarded("a length with a zero before it", b"<POST>content-length: 005\r\n\r\nhello", &[post("hello")]),
    forwarded(
        "a length with blanks around it",
        b"<POST>content-length:\t 5 \t\r\n\r\nhello",
        &[post("hello")],
    ),
    forwarded("a length in upper case", b"<POST>CONTENT-LENGTH:5\r\n\r\nhello", &[post("hello")]),
    forwarded("a body that comes later", b"<POST>content-length: 5\r\n\r\n<LATER>hello", &[post("hello")]),
    forwarded("a body of two pieces", b"<POST>content-length: 5\r\n\r\nhe<LATER>llo", &[post("hello")]),
    forwarded("a long body", b"<POST>content-length: 70000\r\n\r\n<70000*b>", &[post("<70000*b>")]),
    forwarded(
        "a GET with a body",
        b"<GET>content-length: 5\r\n\r\nhello",
        &[Want { body: "hello", ..get() }],
    ),
    forwarded("a GET with a length of 0", b"<GET>content-length: 0\r\n\r\n", &[get()]),
    forwarded(
        "a DELETE with a body",
        b"DELETE /MARK HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
        &[Want { body: "hello", ..want("DELETE", "/MARK") }],
    ),
    forwarded(
        "a HEAD with a body",
        b"HEAD /MARK HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
        &[Want { body: "hello", ..want("HEAD", "/MARK") }],
    ),
    forwarded(
        "OPTIONS with a body",
        b"OPTIONS * HTTP/1.1\r\nhost: a\r\nx: MARK\r\ncontent-length: 5\r\n\r\nhello",
        &[Want { body: "hello", ..want("OPTIONS", "*") }],
    ),
    forwarded("a POST without a body", b"<POST>\r\n", &[post("").lacks(&["transfer-encoding"])]),
    forwarded(
        "a body that looks like a request",
        b"<POST>content-length: 40\r\n\r\nGET /smuggled/MARK HTTP/1.1\r\nhost: a\r\n\r\n",
        &[post("GET /smuggled/MARK HTTP/1.1\r\nhost: a\r\n\r\n")],
    ),
    forwarded("a large body", b"<POST>content-length: 500000\r\n\r\n<500000*b>", &[post("<500000*b>")]),
    forwarded(
        "a request behind a large body",
        b"<POST>content-length: 500000\r\n\r\n<500000*b>GET /2/MARK HTTP/1.1\r\nhost: a\r\n\r\n",
        &[post("<500000*b>"), want("GET", "/2/MARK")],
    ),
    // What frames nothing here must not have framed anything.
    forwarded(
        "a header that is a length but for an underscore",
        b"<POST>content_length: 5\r\n\r\n",
        &[post("")],
    ),
    forwarded(
        "a header that is a coding but for an underscore",
        b"<POST>transfer_encoding: chunked\r\ncontent-length: 5\r\n\r\nhello",
        &[post("hello")],
    ),
    forwarded(
        "a body of bytes that are no text",
        b"<POST>content-length: 6\r\n\r\n\0\r\n\xff\n\r",
        &[post("\0\r\n\u{ff}\n\r")],
    ),
];
