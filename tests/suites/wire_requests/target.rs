//! Request targets, in the four forms of RFC 9112 §3.2.

use super::case::{Case, Want, forwarded, get, refused, want};

pub(super) const CASES: &[Case] = &[
    // §3.2.1, origin-form: passed on as it was written.
    forwarded(
        "a query",
        b"GET /MARK?x=1&y=%20 HTTP/1.1\r\nhost: a\r\n\r\n",
        &[want("GET", "/MARK?x=1&y=%20")],
    ),
    forwarded("an empty query", b"GET /MARK? HTTP/1.1\r\nhost: a\r\n\r\n", &[want("GET", "/MARK?")]),
    forwarded("two slashes", b"GET //MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[want("GET", "//MARK")]),
    forwarded(
        "dots",
        b"GET /x/../MARK/./%2e%2E HTTP/1.1\r\nhost: a\r\n\r\n",
        &[want("GET", "/x/../MARK/./%2e%2E")],
    ),
    forwarded(
        "a URL in the path",
        b"GET /http://b/MARK HTTP/1.1\r\nhost: a\r\n\r\n",
        &[want("GET", "/http://b/MARK")],
    ),
    forwarded(
        "a question mark in the query",
        b"GET /MARK?a?b/@: HTTP/1.1\r\nhost: a\r\n\r\n",
        &[want("GET", "/MARK?a?b/@:")],
    ),
    forwarded("a wrong escape", b"GET /MARK%zz% HTTP/1.1\r\nhost: a\r\n\r\n", &[want("GET", "/MARK%zz%")]),
    forwarded(
        "bytes that browsers send",
        b"GET /MARK|{}[]^\\?|{}[]^\\ HTTP/1.1\r\nhost: a\r\n\r\n",
        &[want("GET", "/MARK|{}[]^\\?|{}[]^\\")],
    ),
    forwarded(
        "bytes that nobody should send",
        b"GET /MARK\"`?\"`<> HTTP/1.1\r\nhost: a\r\n\r\n",
        &[want("GET", "/MARK\"`?\"`<>")],
    ),
    refused(400, "a fragment", b"GET /MARK#x HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a fragment in the query", b"GET /MARK?a#b HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a NUL in the target", b"GET /MARK\0 HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a control byte in the target", b"GET /MARK\x01 HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "an escape byte in the query", b"GET /MARK?\x1b[31m HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a DEL in the target", b"GET /MARK\x7f HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "UTF-8 in the target", b"GET /MARK\xc3\xa4 HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "Latin-1 in the query", b"GET /MARK?\xe4 HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "the byte 0x80 in the target", b"GET /MARK\x80 HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a path without its slash", b"GET MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a query without a path", b"GET ?MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a backslash for a slash", b"GET \\MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a path that begins with a point", b"GET ./MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    // §3.2.2, absolute-form: becomes a path and a Host.
    forwarded("a URL", b"GET http://a/MARK?x HTTP/1.1\r\nhost: a\r\n\r\n", &[want("GET", "/MARK?x")]),
    forwarded(
        "a URL with a port",
        b"GET http://a:81/MARK HTTP/1.1\r\nhost: a:81\r\n\r\n",
        &[get().has(&[("host", "a:81")])],
    ),
    forwarded("a URL of https", b"GET https://a/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[get()]),
    forwarded("a URL in upper case", b"GET HTTP://a/MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[get()]),
    forwarded(
        "a URL whose host differs in case",
        b"GET http://A/MARK HTTP/1.1\r\nhost: a\r\n\r\n",
        &[get().has(&[])],
    ),
    forwarded(
        "a URL of an IPv6 address",
        b"GET http://[::1]:81/MARK HTTP/1.1\r\nhost: [::1]:81\r\n\r\n",
        &[get().has(&[("host", "[::1]:81")])],
    ),
    forwarded(
        "a URL without a path",
        b"GET http://a HTTP/1.1\r\nhost: a\r\nx: MARK\r\n\r\n",
        &[want("GET", "/")],
    ),
    forwarded(
        "a URL with a query and no path",
        b"GET http://a?MARK HTTP/1.1\r\nhost: a\r\n\r\n",
        &[want("GET", "/?MARK")],
    ),
    forwarded(
        "a POST to a URL",
        b"POST http://a/MARK HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
        &[HI],
    ),
    forwarded("a URL and no Host in HTTP/1.0", b"GET http://a/MARK HTTP/1.0\r\n\r\n", &[get()]).closed(),
    refused(400, "a URL and no Host", b"GET http://a/MARK HTTP/1.1\r\n\r\n"),
    refused(400, "a URL and an empty Host", b"GET http://a/MARK HTTP/1.1\r\nhost:\r\n\r\n"),
    refused(400, "a URL and two Hosts", b"GET http://a/MARK HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
    refused(400, "a URL of another host", b"GET http://b/MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a URL of another host in HTTP/1.0", b"GET http://b/MARK HTTP/1.0\r\nhost: a\r\n\r\n"),
    refused(400, "a URL of another port", b"GET http://a:81/MARK HTTP/1.1\r\nhost: a:82\r\n\r\n"),
    refused(400, "a URL with a port that Host has not", b"GET http://a:80/MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a URL without a port that Host has", b"GET http://a/MARK HTTP/1.1\r\nhost: a:80\r\n\r\n"),
    refused(400, "a URL with a user", b"GET http://u@a/MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(
        400,
        "a URL with a user and a password",
        b"GET http://u:p@a/MARK HTTP/1.1\r\nhost: u:p@a\r\n\r\n",
    ),
    refused(400, "a URL with an empty user", b"GET http://@a/MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a URL with a port that is a word", b"GET http://a:x/MARK HTTP/1.1\r\nhost: a:x\r\n\r\n"),
    refused(
        400,
        "a URL with a port that is too large",
        b"GET http://a:65536/MARK HTTP/1.1\r\nhost: a:65536\r\n\r\n",
    ),
    refused(400, "a URL of half an IPv6 address", b"GET http://[::1/MARK HTTP/1.1\r\nhost: [::1\r\n\r\n"),
    refused(400, "a URL with a backslash in its host", b"GET http://a\\b/MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a URL without a host", b"GET http:///MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a URL without anything", b"GET http:// HTTP/1.1\r\nhost: a\r\nx: MARK\r\n\r\n"),
    refused(400, "a URL with one slash", b"GET http:/a/MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a URL with a fragment", b"GET http://a/MARK#x HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a URL without a scheme", b"GET ://a/MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a URL of ftp", b"GET ftp://a/MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a URL of ws", b"GET ws://a/MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a URL of a file", b"GET file:///MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "a URL of a script", b"GET javascript:MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(
        400,
        "a URL of a scheme that begins like http",
        b"GET httpx://a/MARK HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    // §3.2.3, authority-form: only for CONNECT, and this is no forward proxy.
    refused(501, "CONNECT", b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\nx: MARK\r\n\r\n"),
    refused(501, "CONNECT with a path", b"CONNECT /MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(501, "CONNECT with a URL", b"CONNECT http://a/MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(501, "CONNECT in HTTP/1.0", b"CONNECT a:443 HTTP/1.0\r\nx: MARK\r\n\r\n"),
    refused(400, "an authority for a GET", b"GET a:80 HTTP/1.1\r\nhost: a:80\r\nx: MARK\r\n\r\n"),
    refused(400, "connect in lower case", b"connect a:443 HTTP/1.1\r\nhost: a:443\r\nx: MARK\r\n\r\n"),
    // §3.2.4, asterisk-form: only for OPTIONS.
    forwarded(
        "OPTIONS of the server",
        b"OPTIONS * HTTP/1.1\r\nhost: a\r\nx: MARK\r\n\r\n",
        &[want("OPTIONS", "*")],
    ),
    forwarded("OPTIONS of a path", b"OPTIONS /MARK HTTP/1.1\r\nhost: a\r\n\r\n", &[want("OPTIONS", "/MARK")]),
    forwarded(
        "OPTIONS of the server by its URL",
        b"OPTIONS http://a HTTP/1.1\r\nhost: a\r\nx: MARK\r\n\r\n",
        &[want("OPTIONS", "*")],
    ),
    forwarded(
        "OPTIONS of the root by its URL",
        b"OPTIONS http://a/ HTTP/1.1\r\nhost: a\r\nx: MARK\r\n\r\n",
        &[want("OPTIONS", "/")],
    ),
    refused(400, "an asterisk for a GET", b"GET * HTTP/1.1\r\nhost: a\r\nx: MARK\r\n\r\n"),
    refused(
        400,
        "an asterisk for a POST",
        b"POST * HTTP/1.1\r\nhost: a\r\nx: MARK\r\ncontent-length: 0\r\n\r\n",
    ),
    refused(400, "an asterisk and more", b"OPTIONS *MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
    refused(400, "an asterisk and a query", b"OPTIONS *?MARK HTTP/1.1\r\nhost: a\r\n\r\n"),
];

const HI: Want = Want { body: "hi", ..want("POST", "/MARK") };
