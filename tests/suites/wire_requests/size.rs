//! Heads of more than `[limits]` allow, and of just as much; the gateway of these tables allows 8 KiB
//! and 100 lines.

use super::case::{Case, forwarded, get, refused, want};

pub(super) const CASES: &[Case] = &[
    // RFC 9112 §3: a target that is too long has a status of its own.
    refused(414, "a long target", b"GET /MARK/<9000*t> HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(414, "a long target of a URL", b"GET http://a/MARK/<9000*t> HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(414, "a long target without an end", b"GET /MARK/<20000*t>"),
    refused(414, "a very long target", b"GET /MARK/<70000*t> HTTP/1.1\r\nhost: a\r\n\r\n"),
    // RFC 6585 §5.
    refused(431, "a value that is too long", b"<GET>x: <9000*v>\r\n\r\n"),
    refused(431, "a value that is too long, without an end", b"<GET>x: <20000*v>"),
    refused(431, "a name that is too long", b"<GET><9000*n>: x\r\n\r\n"),
    refused(431, "a name that is too long, without an end", b"<GET><20000*n>"),
    refused(431, "a target and a value that are long together", b"GET /MARK/<5000*t> HTTP/1.1\r\nhost: a\r\nx: <5000*v>\r\n\r\n"),
    refused(431, "long lines", b"<GET><90*x: 34567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890\r\n>\r\n"),
    refused(431, "a very long head", b"<GET>x: <70000*v>\r\n\r\n"),
    refused(431, "101 lines", b"<GET><100*x: y\r\n>\r\n"),
    refused(431, "500 lines", b"<GET><499*x: y\r\n>\r\n"),
    refused(431, "lines without an end", b"<GET><2000*x: y\r\n>"),
    refused(431, "too many lines and a body", b"<POST><100*x: y\r\n>content-length: 5\r\n\r\nhello"),
    forwarded("100 lines", b"<GET><99*x: y\r\n>\r\n", &[get()]),
    forwarded("a target of 7000 bytes", b"GET /MARK/<7000*t> HTTP/1.1\r\nhost: a\r\n\r\n", &[want("GET", "/MARK/<7000*t>")]),
    forwarded("a head of 8000 bytes", b"GET /MARK/<3000*t> HTTP/1.1\r\nhost: a\r\nx: <4900*v>\r\n\r\n", &[want("GET", "/MARK/<3000*t>").has(&[("x", "<4900*v>")])]),
];
