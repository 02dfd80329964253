//! Interim answers: RFC 9110 §15.2.

use super::case::{ASK_HEAD, Case, OLD, OLD_KEPT, POST, bad_gateway, delivered};

pub(super) const CASES: &[Case] = &[
    delivered("100", b"HTTP/1.1 100 Continue\r\n\r\n<OK>content-length: 2\r\n\r\nok", "ok").after(&[100]),
    delivered("100 to a POST", b"HTTP/1.1 100 Continue\r\n\r\n<OK>content-length: 2\r\n\r\nok", "ok").to(POST).after(&[100]),
    delivered("100 without a reason", b"HTTP/1.1 100\r\n\r\n<OK>content-length: 2\r\n\r\nok", "ok").after(&[100]),
    delivered("102", b"HTTP/1.1 102 Processing\r\n\r\n<OK>content-length: 2\r\n\r\nok", "ok").after(&[102]),
    delivered("103", b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n<OK>content-length: 2\r\n\r\nok", "ok").after(&[103]).lacks(&["link"]),
    delivered("199", b"HTTP/1.1 199 Odd\r\n\r\n<OK>content-length: 2\r\n\r\nok", "ok").after(&[199]),
    delivered("several", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: 2\r\n\r\n<OK>content-length: 2\r\n\r\nok", "ok").after(&[100, 103, 103]),
    delivered("103 before HEAD", b"HTTP/1.1 103 Early Hints\r\n\r\n<OK>content-length: 2\r\n\r\n", "").to(ASK_HEAD).after(&[103]),
    delivered("103 before 204", b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "").status(204).after(&[103]),
    delivered("103 before chunks", b"HTTP/1.1 103 Early Hints\r\n\r\n<CHUNKED>2\r\nok\r\n0\r\n\r\n", "ok").after(&[103]),
    delivered("103 before the end", b"HTTP/1.1 103 Early Hints\r\n\r\n<OK>\r\nok<FIN>", "ok").after(&[103]).unused(),
    delivered("16 of them", b"<16*HTTP/1.1 103 Early Hints\r\n\r\n><OK>content-length: 2\r\n\r\nok", "ok").after(&[103; 16]),
    delivered("100 to HTTP/1.0", b"HTTP/1.1 100 Continue\r\n\r\n<OK>content-length: 2\r\n\r\nok", "ok").to(OLD).last(),
    delivered("103 to HTTP/1.0 that is kept", b"HTTP/1.1 103 Early Hints\r\nx: 1\r\n\r\n<OK>content-length: 2\r\n\r\nok", "ok").to(OLD_KEPT).lacks(&["x"]),
    bad_gateway("17 of them", b"<17*HTTP/1.1 103 Early Hints\r\n\r\n><OK>content-length: 2\r\n\r\nok").after(&[103; 16]),
    bad_gateway("a thousand of them to HTTP/1.0", b"<1000*HTTP/1.1 103 Early Hints\r\n\r\n>").to(OLD),
    bad_gateway("103, and the end", b"HTTP/1.1 103 Early Hints\r\n\r\n<FIN>").after(&[103]),
    bad_gateway("103, and a reset", b"HTTP/1.1 103 Early Hints\r\n\r\n<RST>").after(&[103]),
    bad_gateway("103, and no status line", b"HTTP/1.1 103 Early Hints\r\n\r\nhello\r\n\r\n").after(&[103]),
    bad_gateway("103, and a body", b"HTTP/1.1 103 Early Hints\r\n\r\nok<OK>content-length: 2\r\n\r\nok").after(&[103]),
    bad_gateway("103, and a wrong length", b"HTTP/1.1 103 Early Hints\r\n\r\n<OK>content-length: x\r\n\r\nok").after(&[103]),
    bad_gateway("103 with a folded line", b"HTTP/1.1 103 Early Hints\r\nx: a\r\n b\r\n\r\n<OK>content-length: 2\r\n\r\nok"),
    bad_gateway("103 with a line that ends in LF", b"HTTP/1.1 103 Early Hints\nx: a\r\n\r\n<OK>content-length: 2\r\n\r\nok"),
    bad_gateway("103 with a head that is too large", b"HTTP/1.1 103 Early Hints\r\nx: <9000*v>\r\n\r\n<OK>content-length: 2\r\n\r\nok"),
];
