//! Which host a request is for (RFC 9112 §3.2, RFC 9110 §7.2).

use crate::message::{Known, RequestHead, host_of};
use http::Version;
use std::borrow::Cow;

/// `host[:port]` of a request, taken apart. The host is in lower case, without a final dot.
#[derive(Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// As the client sent it.
    pub full: &'a str,
    /// Name or address; an IPv6 address keeps its brackets.
    pub host: Cow<'a, str>,
}

/// Why a request has no usable host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// HTTP/1.1 requires one (RFC 9112 §3.2).
    #[error("no Host header")]
    Missing,
    /// Several Host lines, or one that contradicts an absolute-form target.
    #[error("several hosts")]
    Ambiguous,
    /// Not `host[:port]`.
    #[error("the Host header is malformed")]
    Malformed,
}

/// The authority that a request is for.
///
/// # Errors
/// Fails where there is not exactly one, in the Host header or in an absolute-form target.
pub fn authority(head: &RequestHead) -> Result<Authority<'_>, AuthorityError> {
    let mut hosts = head.fields.all(Known::Host);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(AuthorityError::Ambiguous);
    }
    match (head.authority(), host) {
        (None, None) => Err(AuthorityError::Missing),
        // RFC 9112 §3.2: with an absolute target, too. HTTP/1.0 knows no Host.
        (Some(target), None) if head.version == Version::HTTP_10 => parse(target),
        (Some(_), None) => Err(AuthorityError::Missing),
        (None, Some(host)) => parse(host),
        // §3.2.2 lets the target win. A client that means two hosts at once is up to something.
        (Some(target), Some(host)) if target.eq_ignore_ascii_case(host) => parse(host),
        (Some(_), Some(_)) => Err(AuthorityError::Ambiguous),
    }
}

fn parse(full: &[u8]) -> Result<Authority<'_>, AuthorityError> {
    let host = host_of(full).ok_or(AuthorityError::Malformed)?;
    let full = std::str::from_utf8(full).map_err(|_| AuthorityError::Malformed)?;
    let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    };
    Ok(Authority { full, host })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{HeadLimits, parse_request};

    fn check(target: &str, hosts: &[&str], expected: Result<&str, AuthorityError>) {
        let mut text = format!("GET {target} HTTP/1.1\r\n");
        hosts.iter().for_each(|host| text.push_str(&format!("Host: {host}\r\n")));
        text.push_str("\r\n");
        let parsed = parse_request(text.as_bytes(), HeadLimits { size: 1024, headers: 8 });
        let (head, _) = parsed.expect("a head").expect("a whole one");
        let got = authority(&head).map(|authority| authority.host.into_owned());
        assert_eq!(got.as_deref().map_err(|e| *e), expected, "{target} {hosts:?}");
    }

    #[test]
    fn hosts() {
        use AuthorityError::{Ambiguous, Malformed, Missing};
        check("/", &["example.com"], Ok("example.com"));
        check("/", &["EXAMPLE.com:8080"], Ok("example.com"));
        check("/", &["example.com."], Ok("example.com"));
        check("/", &["[2001:db8::1]:80"], Ok("[2001:db8::1]"));
        check("/", &["[::1]"], Ok("[::1]"));
        check("/", &[], Err(Missing));
        check("/", &["a", "a"], Err(Ambiguous));
        check("http://a/", &["a"], Ok("a"));
        check("http://a/", &["A"], Ok("a"));
        check("http://a/", &["b"], Err(Ambiguous));
        check("http://a/", &[], Err(Missing));
        check("http://u@a/", &["u@a"], Err(Malformed));
        for bad in [
            "", ":80", "a:x", "a:99999", "a b", "a/b", "a@b", "[::1", "[a b", "[a/b:80", "[::g]", "[::1]x",
            "a:+1", "a\u{e9}", "a,b",
        ] {
            check("/", &[bad], Err(Malformed));
        }
    }
}
