//! Heads of requests (RFC 9112 §3).

use super::{HeadLimits, Malformed, head};
use crate::message::{Fields, RequestHead, Span, is_target, is_token};
use http::{Method, Version};

/// No registered method comes near (the longest has 17 bytes).
const LONGEST_METHOD: usize = 32;

/// Reads the head that these bytes begin with, and says how many of them it took; none where there
/// must be more to come.
///
/// # Errors
/// Fails where the bytes cannot become a head, or one that could be read in two ways.
pub fn parse_request(bytes: &[u8], limits: HeadLimits) -> Result<Option<(RequestHead, usize)>, Malformed> {
    // §2.2: clients of old sent an empty line after a body.
    let skipped = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let bytes = bytes.get(skipped..).unwrap_or_default();
    match bytes.first() {
        None => return Ok(None),
        // Another protocol altogether, such as TLS, would wait for an answer until it is tired of it.
        Some(first) if !is_token(&[*first]) && *first != b'\r' => return Err(Malformed::RequestLine),
        Some(_) => {}
    }
    let Some(length) = head::length(bytes, limits)? else { return Ok(None) };
    let head = bytes.get(..length).unwrap_or_default();
    let (line, next) = head::line(head, 0)?;
    let (method, target, version) = request_line(line)?;
    let mut fields = head::fields(head, next, limits)?;
    let (authority, target) = split_target(&method, target, head::offset(head, target), &mut fields)?;
    Ok(Some((RequestHead::new(method, version, fields, target, authority), skipped + length)))
}

/// §3: single spaces, and nothing else, separate the parts.
fn request_line(line: &[u8]) -> Result<(Method, &[u8], Version), Malformed> {
    let first = line.iter().position(|byte| *byte == b' ').ok_or(Malformed::RequestLine)?;
    let (method, rest) = line.split_at(first);
    let last = rest.iter().rposition(|byte| *byte == b' ').filter(|last| *last > 0);
    let (target, version) = rest.split_at(last.ok_or(Malformed::RequestLine)?);
    let (target, version) = (target.get(1..).unwrap_or_default(), version.get(1..).unwrap_or_default());
    if !is_token(method) {
        return Err(Malformed::RequestLine);
    }
    let version = self::version(version)?;
    if !is_target(target) {
        return Err(Malformed::Target);
    }
    if method.len() > LONGEST_METHOD {
        return Err(Malformed::Method);
    }
    let method = Method::from_bytes(method).map_err(|_| Malformed::RequestLine)?;
    Ok((method, target, version))
}

/// §2.3. A version that is well formed and not ours is another error than one that is not.
pub(super) fn version(bytes: &[u8]) -> Result<Version, Malformed> {
    match bytes {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Malformed::Version)
        }
        _ => Err(Malformed::RequestLine),
    }
}

/// §3.2: the authority, where the target names one, and path and query.
fn split_target(
    method: &Method,
    target: &[u8],
    at: usize,
    fields: &mut Fields,
) -> Result<(Option<Span>, Span), Malformed> {
    let whole = Span::new(at, target.len());
    if *method == Method::CONNECT {
        // Refused later, by what it is rather than by how it is spelled.
        return Ok((None, whole));
    }
    match target {
        [b'/', ..] => return Ok((None, whole)),
        b"*" if *method == Method::OPTIONS => return Ok((None, whole)),
        _ => {}
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .ok_or(Malformed::Target)?;
    let rest = target.get(scheme.len()..).unwrap_or_default();
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let path_at = scheme.len() + end;
    let authority = Span::new(at + scheme.len(), end);
    let path = match rest.get(end) {
        Some(b'/') => Span::new(at + path_at, target.len() - path_at),
        Some(_) => {
            let mut path = vec![b'/'];
            path.extend_from_slice(rest.get(end..).unwrap_or_default());
            fields.keep(&path)
        }
        // §3.2.4.
        None if *method == Method::OPTIONS => fields.keep(b"*"),
        None => fields.keep(b"/"),
    };
    Ok((Some(authority), path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Known;

    const LIMITS: HeadLimits = HeadLimits { size: 1024, headers: 4 };

    fn parse(text: &str) -> Result<Option<(RequestHead, usize)>, Malformed> {
        parse_request(text.as_bytes(), LIMITS)
    }

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = "\r\nPOST /a/b?c=d HTTP/1.1\r\nHost: x\r\nX-A:\t 1 2 \r\nEmpty:\r\n\r\nbody";
        let whole = text.len() - "body".len();
        for cut in 0..whole {
            assert!(matches!(parse(&text[..cut]), Ok(None)), "{:?}", &text[..cut]);
        }
        let (head, length) = parse(text).expect("a head").expect("a whole one");
        assert_eq!(length, whole);
        assert_eq!((head.method.as_str(), head.path(), head.query()), ("POST", "/a/b", Some("c=d")));
        assert_eq!(head.fields.get(Known::Host), Some(b"x".as_slice()));
        assert_eq!(head.fields.get_named(b"x-a"), Some(b"1 2".as_slice()));
        assert_eq!(head.fields.get_named(b"empty"), Some(b"".as_slice()));
    }

    #[test]
    fn targets_become_paths() {
        for (line, authority, path, query) in [
            ("GET /?", None, "/", Some("")),
            ("OPTIONS *", None, "*", None),
            ("GET http://a", Some("a"), "/", None),
            ("GET HTTPS://a:1/b?c", Some("a:1"), "/b", Some("c")),
            ("GET http://a?c", Some("a"), "/", Some("c")),
            ("OPTIONS http://a", Some("a"), "*", None),
        ] {
            let (head, _) = parse(&format!("{line} HTTP/1.1\r\n\r\n")).expect(line).expect(line);
            assert_eq!(head.authority(), authority.map(str::as_bytes), "{line}");
            assert_eq!((head.path(), head.query()), (path, query), "{line}");
        }
    }

    #[test]
    fn limits() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1024));
        assert_eq!(parse(&long).err(), Some(Malformed::TargetTooLong));
        let large = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "a".repeat(1024));
        assert_eq!(parse(&large).err(), Some(Malformed::HeadTooLarge));
        assert_eq!(parse(&large[..1024]).err(), Some(Malformed::HeadTooLarge), "before its end has come");
        assert!(parse("GET / HTTP/1.1\r\na:\r\nb:\r\nc:\r\nd:\r\n\r\n").is_ok());
        let many = parse("GET / HTTP/1.1\r\na:\r\nb:\r\nc:\r\nd:\r\ne:\r\n\r\n");
        assert_eq!(many.err(), Some(Malformed::TooManyFields));
    }
}
