//! Messages that are nearly right: of the parts that messages have, in many spellings, with a few
//! bytes changed.

use super::checks::{Lines, shown};
use proptest::{collection::vec, prelude::*, sample::Index, sample::select};
use vers_gateway::message::{Fields, is_field_value, is_token, trim};

const NAMES: [&str; 42] = [
    "accept",
    "close",
    "connection",
    "content-length",
    "content_length",
    "transfer_Encoding",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-accept",
    "sec-websocket-key",
    "sec-websocket-version",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-a",
    "x-forwarded",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "x-real-ips",
    "x-request-id",
    "x_forwarded_for",
    "x-forwarded_for",
    "x_real_ip",
    "x",
    "!#$%&'*+-.^_`|~",
    "",
    "a b",
];

const VALUES: [&str; 66] = [
    "",
    "0",
    "1",
    "5",
    "00012",
    "-1",
    "+1",
    "1, 1",
    "0x1",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "chunked",
    "Chunked",
    "gzip, chunked",
    "chunked, chunked",
    "identity",
    "\"chunked\"",
    "close",
    "keep-alive",
    "Upgrade",
    "upgrade, close",
    "te",
    "host",
    "x-a",
    "X-A, x_b",
    "via, x-forwarded-for",
    "content-length, host",
    "transfer-encoding",
    ",,",
    "close\t,\tx-a",
    "websocket",
    "WebSocket",
    "h2c",
    "websocket, h2c",
    "foo/2",
    "trailers",
    "trailers, deflate;q=0.5",
    "gzip",
    "13",
    "8",
    "dGhlIHNhbXBsZSBub25jZQ==",
    "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    "100-continue",
    "example.com",
    "EXAMPLE.com:8080",
    "example.com.",
    "[::1]:80",
    "[::ffff:1.2.3.4]",
    "a@b",
    "a:",
    "a:99999",
    "a..b",
    "a~b",
    "192.0.2.1",
    "10.0.0.1",
    "192.0.2.1, 10.0.0.1",
    "10.0.0.2, unknown",
    "\"[2001:db8::1]:4711\"",
    "::ffff:10.0.0.1",
    "for=192.0.2.1;proto=https",
    "for=\"[2001:db8::7]\", for=10.0.0.3",
    "For=_hidden",
    "for=192.0.2.1;host=\"a, for=6.6.6.6\"",
    "host=\"a;for=6.6.6.6\";for=10.0.0.1",
    "a\u{e9}b",
];

/// A field's name: known or not, in any case.
pub(super) fn name() -> impl Strategy<Value = Vec<u8>> {
    let known = (select(&NAMES[..]), any::<u64>()).prop_map(|(name, case)| {
        let cased = name
            .bytes()
            .enumerate()
            .map(|(at, byte)| if case >> (at % 64) & 1 == 1 { byte.to_ascii_uppercase() } else { byte });
        cased.collect()
    });
    let plain = select(&NAMES[..]).prop_map(|name| name.as_bytes().to_vec());
    prop_oneof![4 => plain, 4 => known, 1 => "[a-zA-Z_-]{1,12}".prop_map(String::into_bytes)]
}

/// A field's value.
pub(super) fn value() -> impl Strategy<Value = Vec<u8>> {
    let known = select(&VALUES[..]).prop_map(|value| value.as_bytes().to_vec());
    prop_oneof![8 => known, 1 => "[ -~]{0,20}".prop_map(String::into_bytes), 1 => vec(any::<u8>(), 0..12)]
}

/// Fields as a parser leaves them; they print as a person reads them.
#[derive(Clone)]
pub(super) struct Sent(pub(super) Lines);

impl Sent {
    pub(super) fn fields(&self) -> Fields {
        let mut fields = Fields::new();
        self.0.iter().for_each(|(name, value)| fields.append(name, value));
        fields
    }
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, value)| (shown(name), shown(value)))).finish()
    }
}

/// Fields as a parser leaves them.
pub(super) fn fields(most: usize) -> impl Strategy<Value = Sent> {
    vec(clean_field(), 0..=most).prop_map(Sent)
}

/// A name and a value that a parser lets through.
fn clean_field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (name(), value())
        .prop_filter("a field", |(name, value)| is_token(name) && is_field_value(value))
        .prop_map(|(name, value)| (name, trim(&value).to_vec()))
}

/// A header line without its end.
pub(super) fn line() -> impl Strategy<Value = Vec<u8>> {
    let colon = prop_oneof![8 => Just(": "), 1 => Just(":"), 1 => Just(":\t \t"), 1 => Just(" : ")];
    let end = prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("\t")];
    (name(), colon, value(), end)
        .prop_map(|(name, colon, value, end)| [&name[..], colon.as_bytes(), &value, end.as_bytes()].concat())
}

/// The line ends that there are.
fn end() -> impl Strategy<Value = &'static str> {
    prop_oneof![60 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\r\n"), 1 => Just("\r\n ")]
}

fn section(first: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let lines = vec((line(), end()), 0..6);
    let behind = prop_oneof![3 => Just(Vec::new()), 1 => vec(any::<u8>(), 0..20)];
    (first, end(), lines, end(), behind).prop_map(|(first, end, lines, last, behind)| {
        let mut text = [&first[..], end.as_bytes()].concat();
        lines.iter().for_each(|(line, end)| text.extend_from_slice(&[line, end.as_bytes()].concat()));
        [&text[..], last.as_bytes(), &behind].concat()
    })
}

/// A request's head and what follows it.
pub(super) fn request() -> impl Strategy<Value = Vec<u8>> {
    const METHODS: [&str; 8] = [
        "GET",
        "POST",
        "OPTIONS",
        "CONNECT",
        "HEAD",
        "get",
        "X-METHOD-OF-MORE-THAN-32-BYTES-WHICH-IS-LONG",
        "",
    ];
    const TARGETS: [&str; 18] = [
        "/",
        "*",
        "/a/b?c=d",
        "/?",
        "//",
        "/a?b?c",
        "http://a",
        "http://a/b",
        "HTTPS://a:1?q",
        "http:///x",
        "ftp://a/",
        "a:80",
        "/#f",
        "/\u{e9}",
        "/%00",
        "/a b",
        "",
        "/\u{7f}",
    ];
    const VERSIONS: [&str; 7] = ["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.2", "http/1.1", "HTTP/1.1 ", ""];
    let before = prop_oneof![12 => Just(""), 1 => Just("\r\n"), 1 => Just("\r\n\r\n"), 1 => Just("\n")];
    let space = || prop_oneof![20 => Just(" "), 1 => Just("  "), 1 => Just("\t"), 1 => Just("")];
    let version = prop_oneof![6 => Just("HTTP/1.1"), 1 => select(&VERSIONS[..])];
    let target = prop_oneof![2 => select(&TARGETS[..]), 1 => Just("/")];
    let method = prop_oneof![1 => select(&METHODS[..]), 1 => Just("GET")];
    let first = (before, method, space(), target, space(), version)
        .prop_map(|(a, b, c, d, e, f)| [a, b, c, d, e, f].concat().into_bytes());
    mangled(section(first))
}

/// An answer's head and what follows it.
pub(super) fn response() -> impl Strategy<Value = Vec<u8>> {
    const LINES: [&str; 14] = [
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200",
        "HTTP/1.1 200 ",
        "HTTP/1.0 204 No Content",
        "HTTP/1.1 304 x",
        "HTTP/1.1 101 Switching Protocols",
        "HTTP/1.1 100 Continue",
        "HTTP/1.1 599 \u{e9}",
        "HTTP/1.1 600 x",
        "HTTP/1.1 099 x",
        "HTTP/1.1 2000",
        "HTTP/1.1  200 OK",
        "HTTP/2 200",
        "\r\nHTTP/1.1 200 OK",
    ];
    let first = prop_oneof![2 => select(&LINES[..]), 1 => Just("HTTP/1.1 200 OK")];
    mangled(section(first.prop_map(|line| line.as_bytes().to_vec())))
}

/// A chunked body and what follows it.
pub(super) fn chunked() -> impl Strategy<Value = Vec<u8>> {
    let extension = prop_oneof![12 => Just(""), 1 => Just(";a=b"), 1 => Just(";\"\r\""), 1 => Just(" "), 1 => Just(";\u{1}")];
    let size = (0_usize..40, 0_usize..3, any::<bool>()).prop_map(|(size, zeros, upper)| {
        let digits = if upper { format!("{size:X}") } else { format!("{size:x}") };
        (size, "0".repeat(zeros) + &digits)
    });
    let chunk = (size, extension, any::<u8>()).prop_map(|((size, digits), extension, byte)| {
        let data = vec![byte; size];
        [format!("{digits}{extension}\r\n").as_bytes(), &data[..], b"\r\n"].concat()
    });
    let trailers = vec(line(), 0..3).prop_map(|lines| {
        let lines: Vec<u8> = lines.into_iter().flat_map(|line| [&line[..], b"\r\n"].concat()).collect();
        [b"0\r\n", &lines[..], b"\r\n"].concat()
    });
    let whole = (vec(chunk, 0..5), trailers, vec(any::<u8>(), 0..8));
    mangled(whole.prop_map(|(chunks, trailers, behind)| [&chunks.concat()[..], &trailers, &behind].concat()))
}

/// Half of the time with some bytes changed.
fn mangled(text: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    const ODD: [&[u8]; 14] = [
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b"\x7f",
        b"\x80",
        b"0",
        b"f",
        b";",
    ];
    let insert = (any::<Index>(), select(&ODD[..]), 0_usize..2);
    let edits = prop_oneof![3 => Just(Vec::new()), 2 => vec(insert, 1..4)];
    (text, edits, prop_oneof![9 => Just(None), 1 => any::<Index>().prop_map(Some)]).prop_map(
        |(mut text, edits, end)| {
            for (at, new, replaced) in edits {
                let at = at.index(text.len() + 1);
                let until = text.len().min(at + replaced);
                text.splice(at..until, new.iter().copied());
            }
            if let Some(end) = end {
                text.truncate(end.index(text.len() + 1));
            }
            text
        },
    )
}
