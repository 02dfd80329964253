//! What a connection speaks, told from the first bytes that a client sends.
//!
//! Pure: bytes in, a verdict out, the same for the same bytes. Whoever waits for them has a deadline, and
//! whoever keeps them a limit.

mod probes;

/// Bytes after which a verdict is certain.
pub const ENOUGH: usize = 8 * 1024;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1: a request line (RFC 9112 §3).
    Http1,
    /// HTTP/2 with prior knowledge: its preface (RFC 9113 §3.4).
    Http2,
    /// SSH: an identification string (RFC 4253 §4.2).
    Ssh,
    /// TLS: a record with a `ClientHello` (RFC 8446 §4.1.2).
    Tls,
    /// Something else, which is nobody's business here.
    Opaque,
}

/// What one probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    Match,
    /// It could become one.
    More,
    No,
}

type Probe = fn(&[u8]) -> Guess;

const PROBES: [(Probe, Protocol); 4] = [
    (probes::ssh, Protocol::Ssh),
    (probes::tls, Protocol::Tls),
    // Before HTTP/1: its preface looks like a request line, and is none.
    (probes::http2, Protocol::Http2),
    (probes::http1, Protocol::Http1),
];

/// Tells the protocol; none while more bytes could still make a difference.
pub fn look(bytes: &[u8]) -> Option<Protocol> {
    for (probe, protocol) in PROBES {
        match probe(bytes) {
            Guess::Match => return Some(protocol),
            Guess::More => return None,
            Guess::No => {}
        }
    }
    Some(Protocol::Opaque)
}

/// Whether this could still become a request.
pub fn may_become_http(bytes: &[u8]) -> bool {
    [probes::http1, probes::http2].iter().any(|probe| probe(bytes) == Guess::More)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on the whole, and that no part of it has another one.
    #[track_caller]
    fn check(bytes: &[u8], expected: Option<Protocol>) {
        assert_eq!(look(bytes), expected, "{:?}", bytes.escape_ascii().to_string());
        for end in 0..bytes.len() {
            if let Some(early) = look(&bytes[..end]) {
                assert_eq!(Some(early), expected, "{end} bytes of {:?}", bytes.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn http1() {
        check(b"GET / HTTP/1.1\r\n", Some(Protocol::Http1));
        check(b"GET /a?b HTTP/1.0\nhost", Some(Protocol::Http1));
        check(b"OPTIONS * HTTP/1.1\r\n", Some(Protocol::Http1));
        check(b"GET http://a/ HTTP/1.1\r\n", Some(Protocol::Http1));
        check(b"CONNECT a:443 HTTP/1.1\r\n", Some(Protocol::Http1));
        check(b"M-SEARCH * HTTP/1.1\r\n", Some(Protocol::Http1));
        check(b"GET / HT", None);
        check([&b"GET /"[..], &[b'x'; ENOUGH]].concat().as_slice(), Some(Protocol::Http1));
    }

    /// Commands of others that begin with a word as well.
    #[test]
    fn what_only_looks_like_a_request() {
        for line in
            ["EHLO a.example\r\n", "PING\r\n", "GET key\r\n", "get /a\r\n", "USER anonymous\r\n", "* OK\r\n"]
        {
            check(line.as_bytes(), Some(Protocol::Opaque));
        }
        check(b"a1 LOGIN x y\r\n", Some(Protocol::Opaque));
        check(&[0, 0, 0, 8, 4, 210, 22, 47], Some(Protocol::Opaque)); // PostgreSQL asks for TLS
        check(b"*1\r\n$4\r\nPING\r\n", Some(Protocol::Opaque));
        check([b'a'; ENOUGH].as_slice(), Some(Protocol::Opaque));
        check(b"", None);
    }

    /// Some server takes each of these for a request, and none may get it as bytes.
    #[test]
    fn what_could_be_taken_for_a_request() {
        for line in [
            "\r\nGET / HTTP/1.1\r\n",
            "\n\n GET / HTTP/1.1\r\n",
            "GET  / HTTP/1.1\r\n",
            "GET\t/\tHTTP/1.1\r\n",
            "GET / HTTP/1.1 \r\n",
            "GET / http/1.1\n",
            "GET / HTTP/9.9\r\n",
            "GET / x HTTP/1.1\r\n",
            "get / HTTP/1.1\r\n",
            "CONNECT\ta:1 HTTP/1.1\r\n",
        ] {
            check(line.as_bytes(), Some(Protocol::Http1));
        }
        check([b'\n'; ENOUGH].as_slice(), Some(Protocol::Http1));
        check(b"\r\n\r\n", None);
        check(b"\r\nQUIT\r\n", Some(Protocol::Opaque));
    }

    #[test]
    fn http2() {
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Some(Protocol::Http2));
        check(b"PRI * HTTP/2.0\r\n\r\nS", None);
        check(b"PRI * HTTP/1.1\r\n", Some(Protocol::Http1));
    }

    #[test]
    fn ssh_and_tls() {
        check(b"SSH-2.0-OpenSSH_9.2\r\n", Some(Protocol::Ssh));
        check(b"SSH", None);
        check(b"SSH /x\r\n", Some(Protocol::Opaque));
        check(&[22, 3, 1, 2, 0, 1, 0, 1], Some(Protocol::Tls));
        check(&[22, 3], None);
        check(&[22, 3, 1, 0, 5, 2], Some(Protocol::Opaque));
        check(&[22, 9, 9], Some(Protocol::Opaque));
    }
}
