//! Heads of requests and answers, and the host that a request is for.

use super::{
    checks, config,
    messages::{line, request, response},
};
use proptest::{collection::vec, prelude::*, sample::select};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn requests_are_read_as_httparse_reads_them_or_refused_for_a_listed_reason(bytes in request()) {
        checks::request::check(&bytes);
    }

    #[test]
    fn no_bytes_harm_the_reader_of_requests(bytes in vec(any::<u8>(), 0..300)) {
        checks::request::check(&bytes);
    }

    #[test]
    fn answers_are_read_as_httparse_reads_them_or_refused_for_a_listed_reason(bytes in response()) {
        checks::response::check(&bytes);
    }

    #[test]
    fn no_bytes_harm_the_reader_of_answers(bytes in vec(any::<u8>(), 0..300)) {
        checks::response::check(&[b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat());
        checks::response::check(&bytes);
    }

    #[test]
    fn there_is_one_host_and_others_see_the_same(
        target in prop_oneof![3 => Just("/"), 2 => select(&TARGETS[..])],
        hosts in prop_oneof![4 => vec(host(), 1), 1 => vec(host(), 0..3)],
        lines in prop_oneof![3 => Just(Vec::new()), 1 => vec(line(), 1)],
    ) {
        let hosts = hosts.into_iter().map(|host| [b"Host: ", &host[..]].concat());
        let lines: Vec<Vec<u8>> = [target.as_bytes().to_vec()].into_iter().chain(hosts).chain(lines).collect();
        checks::authority::check(&lines.join(&b"\n"[..]));
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_http2_lets_through_is_one_message_of_http1(
        method in prop_oneof![4 => select(&["GET", "POST", "OPTIONS", "CONNECT"][..]).prop_map(str::to_owned), 1 => "[!-~ ]{0,40}"],
        authority in prop_oneof![3 => host(), 1 => Just(Vec::new())],
        path in prop_oneof![3 => "/[ -~]{0,20}", 1 => "[\\x00-\\xff]{0,10}"],
        lines in vec(prop_oneof!["[a-z-]{1,8}:[ -~\\t]{0,12}", "(cookie|host|content-length|te):[ -~]{0,8}", "[\\x00-\\xff]{0,12}"], 0..5),
    ) {
        let mut bytes = [method.as_bytes(), b"\n", &authority, b"\n", path.as_bytes()].concat();
        for line in lines {
            bytes.push(b'\n');
            bytes.extend_from_slice(line.as_bytes());
        }
        checks::downgrade::check(&bytes);
    }
}

const TARGETS: [&str; 5] = [
    "http://example.com",
    "http://example.com:8080/x",
    "http://EXAMPLE.com:8080/x",
    "http://[::1]:80",
    "http://a@b/",
];

fn host() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "example\\.com(:8080|:|\\.|\\.:80)?",
        "[a-zA-Z0-9._~@-]{0,12}(:[0-9+]{0,6})?",
        "\\[[0-9a-f:.]{0,12}\\](:[0-9]{0,6})?",
        "[a-z]{1,3}[@%,/ ][a-z]{1,3}(:80)?",
        "[ -~]{0,12}",
    ]
    .prop_map(String::into_bytes)
}

#[test]
fn where_we_are_stricter_than_httparse() {
    use vers_gateway::http1::{Malformed, parse_request, parse_response};
    let long = format!("{} / HTTP/1.1\r\n\r\n", "M".repeat(33));
    for (head, error) in [
        ("GET / HTTP/1.1\nHost: a\n\n", Malformed::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Malformed::LineEnd),
        ("\n\nGET / HTTP/1.1\r\n\r\n", Malformed::RequestLine),
        ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Malformed::RequestLine),
        ("GET /#fragment HTTP/1.1\r\n\r\n", Malformed::Target),
        ("GET /\u{e9} HTTP/1.1\r\n\r\n", Malformed::Target),
        ("GET example.com HTTP/1.1\r\n\r\n", Malformed::Target),
        ("GET * HTTP/1.1\r\n\r\n", Malformed::Target),
        (long.as_str(), Malformed::Method),
    ] {
        assert_eq!(parse_request(head.as_bytes(), checks::LIMITS).err(), Some(error), "{head:?}");
        let mut room = [httparse::EMPTY_HEADER; 4];
        let theirs = httparse::Request::new(&mut room).parse(head.as_bytes());
        assert!(theirs.is_ok_and(|status| status.is_complete()), "httparse refuses it too: {head:?}");
    }
    for (head, error) in [
        ("HTTP/1.1 200 OK\n\n", Malformed::LineEnd),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", Malformed::StatusLine),
        ("HTTP/1.1 099 OK\r\n\r\n", Malformed::StatusLine),
        ("HTTP/1.1 600 OK\r\n\r\n", Malformed::StatusLine),
    ] {
        assert_eq!(parse_response(head.as_bytes(), checks::LIMITS).err(), Some(error), "{head:?}");
        let mut room = [httparse::EMPTY_HEADER; 4];
        let theirs = httparse::Response::new(&mut room).parse(head.as_bytes());
        assert!(theirs.is_ok_and(|status| status.is_complete()), "httparse refuses it too: {head:?}");
    }
}
