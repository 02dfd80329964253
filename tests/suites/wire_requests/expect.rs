//! Expect: RFC 9110 §10.1.1.

use super::case::{Case, forwarded, post, refused};

pub(super) const CASES: &[Case] = &[
    refused(417, "another expectation", b"<POST>expect: 200-ok\r\ncontent-length: 5\r\n\r\nhello"),
    refused(417, "another expectation without a body", b"<GET>expect: x\r\n\r\n"),
    refused(
        417,
        "another expectation beside the known one",
        b"<POST>expect: 100-continue, x\r\ncontent-length: 5\r\n\r\nhello",
    ),
    refused(
        417,
        "another expectation on a line of its own",
        b"<POST>expect: 100-continue\r\nexpect: x\r\ncontent-length: 5\r\n\r\nhello",
    ),
    refused(
        417,
        "the expectation with a parameter",
        b"<POST>expect: 100-continue;x=1\r\ncontent-length: 5\r\n\r\nhello",
    ),
    refused(
        417,
        "the expectation in quotes",
        b"<POST>expect: \"100-continue\"\r\ncontent-length: 5\r\n\r\nhello",
    ),
    refused(417, "half of the expectation", b"<POST>expect: 100\r\ncontent-length: 5\r\n\r\nhello"),
    forwarded(
        "a body that waits",
        b"<POST>expect: 100-continue\r\ncontent-length: 5\r\n\r\n<LATER>hello",
        &[CONTINUED],
    )
    .answered(&[100, 200]),
    forwarded(
        "a body that does not wait",
        b"<POST>expect: 100-continue\r\ncontent-length: 5\r\n\r\nhello",
        &[CONTINUED],
    )
    .answered(&[100, 200]),
    forwarded(
        "chunks that wait",
        b"<POST>expect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n<LATER>5\r\nhello\r\n0\r\n\r\n",
        &[CONTINUED],
    )
    .answered(&[100, 200]),
    forwarded(
        "the expectation in upper case",
        b"<POST>Expect: 100-CONTINUE\r\ncontent-length: 5\r\n\r\n<LATER>hello",
        &[post("hello")],
    )
    .answered(&[100, 200]),
    // HTTP/1.0 knows no interim answers.
    forwarded(
        "an expectation in HTTP/1.0",
        b"POST /MARK HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello",
        &[post("hello").lacks(&["expect"])],
    )
    .closed(),
    forwarded(
        "an expectation in HTTP/1.0 whose body comes later",
        b"POST /MARK HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n<LATER>hello",
        &[post("hello").lacks(&["expect"])],
    )
    .closed(),
];

const CONTINUED: super::case::Want = post("hello").has(&[("expect", "100-continue")]);
