//! Header lines of answers: RFC 9112 §5; the same rules as for requests.

use super::case::{Case, bad_gateway, delivered};

pub(super) const CASES: &[Case] = &[
    bad_gateway("a blank before the colon", b"<OK>x : a\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a tab before the colon", b"<OK>x\t: a\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a blank after the length's name", b"<OK>content-length : 2\r\n\r\nok"),
    bad_gateway("a folded line", b"<OK>x: a\r\n b\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a line folded by a tab", b"<OK>x: a\r\n\tb\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a folded length", b"<OK>content-length:\r\n 2\r\n\r\nok"),
    bad_gateway("a first line with a blank before it", b"<OK> x: a\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a line of blanks", b"<OK>x: a\r\n \r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a line that ends in LF", b"<OK>x: a\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("an empty line that is an LF", b"<OK>content-length: 2\r\n\nok"),
    bad_gateway("all lines end in LF", b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok"),
    bad_gateway("a CR in a value", b"<OK>x: a\rb\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a line that ends in two CR", b"<OK>x: a\r\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a NUL in a value", b"<OK>x: a\0b\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a control byte in a value", b"<OK>x: a\x01b\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("an escape byte in a value", b"<OK>x: \x1b[0m\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a DEL in a value", b"<OK>x: a\x7f\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("no name", b"<OK>: a\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a line without a colon", b"<OK>xyz\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a blank in a name", b"<OK>x y: a\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a NUL in a name", b"<OK>x\0: a\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a name that is no token", b"<OK>x(y): a\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("Latin-1 in a name", b"<OK>caf\xe9: a\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a second status line", b"<OK><OK>content-length: 2\r\n\r\nok"),
    bad_gateway("101 lines", b"<OK><100*x: y\r\n>content-length: 2\r\n\r\nok"),
    bad_gateway("a value that is too long", b"<OK>x: <9000*v>\r\ncontent-length: 2\r\n\r\nok"),
    bad_gateway("a value without an end", b"<OK>x: <20000*v>"),
    bad_gateway("a head without an end", b"<OK>x: y\r\n<FIN>"),
    bad_gateway("a head without an end, and a reset", b"<OK>x: y\r\n<RST>"),
    bad_gateway("a head and half its end", b"<OK>content-length: 0\r\n\r<FIN>"),
    delivered("an empty value", b"<OK>x:\r\ncontent-length: 2\r\n\r\nok", "ok").has(&[("x", "")]),
    delivered("blanks around a value", b"<OK>x:\t a \t b \t\r\ncontent-length: 2\r\n\r\nok", "ok").has(&[("x", "a \t b")]),
    delivered("no blank after the colon", b"<OK>x:a\r\ncontent-length:2\r\n\r\nok", "ok").has(&[("x", "a")]),
    delivered("Latin-1 in a value", b"<OK>x: caf\xe9\r\ncontent-length: 2\r\n\r\nok", "ok").has(&[("x", "caf\u{e9}")]),
    delivered("UTF-8 in a value", b"<OK>x: \xc3\xa4\r\ncontent-length: 2\r\n\r\nok", "ok").has(&[("x", "\u{c3}\u{a4}")]),
    delivered("names in upper case", b"<OK>X-ABC: D\r\nCONTENT-LENGTH: 2\r\n\r\nok", "ok").has(&[("x-abc", "D")]),
    delivered("a name of all symbols of a token", b"<OK>!#$%&'*+-.^_`|~0z: a\r\ncontent-length: 2\r\n\r\nok", "ok")
        .has(&[("!#$%&'*+-.^_`|~0z", "a")]),
    delivered("repeated lines in their order", b"<OK>x: 1\r\ny: 2\r\nX: 3\r\nx: 1\r\ncontent-length: 2\r\n\r\nok", "ok")
        .has(&[("x", "1"), ("x", "3"), ("x", "1"), ("y", "2")]),
    delivered("cookies on two lines", b"<OK>set-cookie: a=1; path=/\r\nset-cookie: b=2\r\ncontent-length: 2\r\n\r\nok", "ok")
        .has(&[("set-cookie", "a=1; path=/"), ("set-cookie", "b=2")]),
    delivered("a date and a server of its own", b"<OK>date: yesterday\r\nserver: x\r\ncontent-length: 2\r\n\r\nok", "ok")
        .has(&[("date", "yesterday"), ("server", "x")]),
    delivered("100 lines", b"<OK><99*x: y\r\n>content-length: 2\r\n\r\nok", "ok"),
    delivered("a long value", b"<OK>x: <7000*v>\r\ncontent-length: 2\r\n\r\nok", "ok"),
    // RFC 9110 §7.6.1.
    delivered("what Connection names", b"<OK>connection: x, Y\r\nx: 1\r\ny: 2\r\nz: 3\r\ncontent-length: 2\r\n\r\nok", "ok")
        .lacks(&["x", "y"])
        .has(&[("z", "3")]),
    delivered(
        "what always belongs to a connection",
        b"<OK>keep-alive: timeout=5\r\nproxy-connection: x\r\nproxy-authenticate: Basic\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nok",
        "ok",
    )
    .lacks(&["keep-alive", "proxy-connection", "proxy-authenticate", "upgrade"]),
    delivered("a length, named by Connection", b"<OK>connection: content-length\r\ncontent-length: 2\r\n\r\nok", "ok"),
    delivered("keep-alive", b"<OK>connection: keep-alive\r\ncontent-length: 2\r\n\r\nok", "ok"),
    delivered("close", b"<OK>connection: close\r\ncontent-length: 2\r\n\r\nok", "ok").unused(),
    delivered("close in upper case among others", b"<OK>connection: x, CLOSE\r\ncontent-length: 2\r\n\r\nok", "ok").unused(),
    delivered("close, and the end", b"<OK>connection: close\r\ncontent-length: 2\r\n\r\nok<FIN>", "ok").unused(),
    delivered("no word of it, and the end", b"<OK>content-length: 2\r\n\r\nok<FIN>", "ok").unused(),
];
