//! Heads of HTTP/2 as those of HTTP/1, and back: nothing that HTTP/1 would not take gets through
//! (RFC 9113 §8.2, §8.3, §10.3). Pure.
//!
//! h2 resets streams whose heads are not of HTTP/2 at all: pseudo-headers that are missing, doubled,
//! unknown or not in front (§8.3), names in upper case (§8.2.1), fields of the connection and `te`
//! other than `trailers` (§8.2.2), a Content-Length that the DATA contradicts (§8.1.1). What it lets
//! pass is checked here.

use crate::{
    http1::{HeadLimits, Malformed},
    message::{Fields, Known, RequestHead, ResponseHead, is_field_value, is_target},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, uri,
};

/// No registered method comes near.
const LONGEST_METHOD: usize = 32;

/// The key of a handshake that the client does not make itself (RFC 8441 §5).
pub(super) type WebSocketKey<'a> = &'a str;

/// The head of a request as it came. A CONNECT to the protocol `websocket` (RFC 8441) becomes the
/// request for an upgrade that HTTP/1 has instead, with this key.
///
/// # Errors
/// Fails where HTTP/1 would refuse it, or where it could be read in two ways.
pub fn request_head(
    parts: &http::request::Parts,
    key: Option<WebSocketKey<'_>>,
    limits: HeadLimits,
) -> Result<RequestHead, Malformed> {
    let target = target(&parts.uri, &parts.method)?;
    if parts.method.as_str().len() > LONGEST_METHOD {
        return Err(Malformed::Method);
    }
    let authority = parts.uri.authority().map(uri::Authority::as_str);
    let told = target.len() + authority.map_or(0, str::len);
    let mut fields = checked(&parts.headers, told, limits)?;
    let target = fields.keep(target.as_bytes());
    let authority = match authority {
        // §8.3.1: what a client of HTTP/2 sends instead of Host becomes it.
        Some(authority) if !fields.has(Known::Host) => {
            fields.append_known(Known::Host, authority.as_bytes());
            None
        }
        // §8.3.1: if there are both they must agree, as with an absolute target in HTTP/1.
        Some(authority) => Some(fields.keep(authority.as_bytes())),
        None => None,
    };
    let mut method = parts.method.clone();
    if let Some(key) = key {
        // RFC 9110 §9.3.6: a CONNECT has no content. The upgrade that it becomes has none either, and a
        // length would make the backend take the next request for it.
        if fields.has(Known::ContentLength) {
            return Err(Malformed::ContentLength);
        }
        method = Method::GET;
        fields.append_known(Known::Connection, b"upgrade");
        fields.append_known(Known::Upgrade, b"websocket");
        fields.set_known(Known::SecWebSocketKey, key.as_bytes());
    }
    Ok(RequestHead::new(method, Version::HTTP_2, fields, target, authority))
}

/// The head of an answer as it came.
///
/// # Errors
/// Fails where HTTP/1 would refuse it.
pub fn response_head(
    status: StatusCode,
    headers: &HeaderMap,
    limits: HeadLimits,
) -> Result<ResponseHead, Malformed> {
    // RFC 9113 §8.6: HTTP/2 has no such answer.
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Malformed::StatusLine);
    }
    let mut head = ResponseHead::new(status, checked(headers, 0, limits)?);
    head.version = Version::HTTP_2;
    Ok(head)
}

/// Fields as they came, of trailers too.
///
/// # Errors
/// Fails where HTTP/1 would refuse them.
pub fn fields(headers: &HeaderMap, limits: HeadLimits) -> Result<Fields, Malformed> {
    checked(headers, 0, limits)
}

/// §8.3.1: path and query, or `*`; CONNECT without a protocol has none, and is refused later.
fn target<'a>(uri: &'a Uri, method: &Method) -> Result<&'a str, Malformed> {
    let target = uri.path_and_query().map_or("", uri::PathAndQuery::as_str);
    match target.as_bytes() {
        b"" if *method == Method::CONNECT => return Ok("/"),
        b"*" if *method == Method::OPTIONS => {}
        [b'/', ..] => {}
        _ => return Err(Malformed::Target),
    }
    if is_target(target.as_bytes()) { Ok(target) } else { Err(Malformed::Target) }
}

fn checked(headers: &HeaderMap, told: usize, limits: HeadLimits) -> Result<Fields, Malformed> {
    if headers.len() > limits.headers {
        return Err(Malformed::TooManyFields);
    }
    let mut size = 0;
    for (name, value) in headers {
        size += name.as_str().len() + value.len();
        let value = value.as_bytes();
        // §8.2.1: no whitespace around it, which HTTP/1 would take away; no control characters.
        let is_trimmed = !matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
        // A name is a token: h2 has no other type for it. Names that begin with a colon it has taken out.
        if !is_trimmed || !is_field_value(value) {
            return Err(Malformed::FieldValue);
        }
    }
    if told > limits.size {
        return Err(Malformed::TargetTooLong);
    }
    if size + told > limits.size {
        return Err(Malformed::HeadTooLarge);
    }
    let mut fields = Fields::with_room(size + told, headers.len());
    for (name, value) in headers {
        if *name != header::COOKIE {
            fields.append(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if headers.contains_key(header::COOKIE) {
        // §8.2.3: they came in pieces to be compressed, and are one field to everybody else. An empty
        // piece would leave a space at the end.
        let crumbs = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
        let crumbs: Vec<&[u8]> = crumbs.filter(|crumb| !crumb.is_empty()).collect();
        fields.append(b"cookie", &crumbs.join(&b"; "[..]));
    }
    Ok(fields)
}

/// Fields as HTTP/2 sends them: names in lower case, nothing about a connection (§8.2.2).
///
/// # Errors
/// Fails where a field cannot be sent; all that come from a message can.
pub fn header_map(fields: &Fields) -> Result<HeaderMap, Malformed> {
    // Its own bound is far beyond any head's, and it would panic there.
    let too_many = |_| Malformed::TooManyFields;
    let mut headers = HeaderMap::try_with_capacity(fields.len() + 1).map_err(too_many)?;
    // One piece of memory for all values.
    let mut values = BytesMut::with_capacity(fields.size());
    for (name, value) in fields.iter() {
        let known = if fields.has_hop_by_hop() { Known::of(name) } else { None };
        if known.is_some_and(|known| known.is_hop_by_hop() && known != Known::Te) {
            continue;
        }
        let name = HeaderName::from_bytes(name).map_err(|_| Malformed::FieldName)?;
        values.put_slice(value);
        let value =
            HeaderValue::from_maybe_shared(values.split().freeze()).map_err(|_| Malformed::FieldValue)?;
        headers.try_append(name, value).map_err(too_many)?;
    }
    Ok(headers)
}

/// A request as HTTP/2 sends it.
///
/// # Errors
/// Fails where its target is one that only HTTP/1 has.
pub fn request(head: &RequestHead) -> Result<Request<()>, Malformed> {
    let mut headers = header_map(&head.fields)?;
    let host = headers.remove(header::HOST).ok_or(Malformed::Target)?;
    let mut target = BytesMut::with_capacity(head.path().len() + 1 + head.query().map_or(0, str::len));
    target.put_slice(head.path().as_bytes());
    if let Some(query) = head.query() {
        target.put_u8(b'?');
        target.put_slice(query.as_bytes());
    }
    let mut parts = uri::Parts::default();
    parts.scheme = Some(uri::Scheme::HTTP);
    parts.authority = Some(uri::Authority::try_from(host.as_bytes()).map_err(|_| Malformed::Target)?);
    let target: Bytes = target.freeze();
    parts.path_and_query = Some(uri::PathAndQuery::from_maybe_shared(target).map_err(|_| Malformed::Target)?);
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Malformed::Target)?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// An answer as HTTP/2 sends it.
///
/// # Errors
/// Fails where a field cannot be sent.
pub(super) fn response(head: &ResponseHead) -> Result<Response<()>, Malformed> {
    let mut response = Response::new(());
    *response.version_mut() = Version::HTTP_2;
    *response.status_mut() = head.status;
    *response.headers_mut() = header_map(&head.fields)?;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { size: 256, headers: 4 };

    fn parts(method: &str, uri: &str, headers: &[(&str, &[u8])]) -> http::request::Parts {
        let mut request = Request::builder().method(method).uri(uri).body(()).expect("a request");
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a name");
            // As h2 does: what this refuses it has refused.
            request.headers_mut().append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        request.into_parts().0
    }

    fn read(method: &str, uri: &str, headers: &[(&str, &[u8])]) -> Result<RequestHead, Malformed> {
        request_head(&parts(method, uri, headers), None, LIMITS)
    }

    #[test]
    fn the_authority_becomes_the_host() {
        let head = read("GET", "https://a.example:1/b?c", &[("x", b"1")]).expect("a head");
        assert_eq!(head.fields.get(Known::Host), Some(b"a.example:1".as_slice()));
        assert_eq!((head.path(), head.query(), head.authority()), ("/b", Some("c"), None));
        let head = read("GET", "https://a/", &[("host", b"b")]).expect("a head");
        assert_eq!(head.authority(), Some(b"a".as_slice()), "whoever asks for the host sees both");
        assert_eq!(head.fields.get(Known::Host), Some(b"b".as_slice()));
    }

    #[test]
    fn targets_are_those_of_http1() {
        assert_eq!(read("OPTIONS", "*", &[("host", b"a")]).expect("a head").path(), "*");
        assert_eq!(read("GET", "*", &[("host", b"a")]).err(), Some(Malformed::Target));
        assert_eq!(read("GET", "/\u{e9}", &[("host", b"a")]).err(), Some(Malformed::Target));
    }

    #[test]
    fn values_are_those_of_http1() {
        for bad in [&b" a"[..], b"a ", b"\ta", b"a\t"] {
            assert_eq!(
                read("GET", "https://a/", &[("x", bad)]).err(),
                Some(Malformed::FieldValue),
                "{bad:?}"
            );
        }
        for good in [&b""[..], b"a b\tc", b"\xe9"] {
            assert!(read("GET", "https://a/", &[("x", good)]).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let head = read("GET", "https://a/", &[("cookie", b"a=1"), ("x", b"y"), ("cookie", b"b=2; c")]);
        let head = head.expect("a head");
        assert_eq!(head.fields.only(Known::Host), Some(b"a".as_slice()));
        assert_eq!(head.fields.all_named(b"cookie").collect::<Vec<_>>(), [b"a=1; b=2; c"]);
    }

    #[test]
    fn limits() {
        let five = [("a", &b""[..]), ("b", b""), ("c", b""), ("d", b""), ("e", b"")];
        assert!(read("GET", "https://a/", &five[..4]).is_ok());
        assert_eq!(read("GET", "https://a/", &five).err(), Some(Malformed::TooManyFields));
        let large = [b'a'; 256];
        assert_eq!(read("GET", "https://a/", &[("x", &large)]).err(), Some(Malformed::HeadTooLarge));
        let long = format!("https://a/{}", "b".repeat(256));
        assert_eq!(read("GET", &long, &[]).err(), Some(Malformed::TargetTooLong));
    }

    #[test]
    fn a_websocket_over_a_stream_becomes_an_upgrade() {
        let parts = parts("CONNECT", "https://a/chat", &[("sec-websocket-version", b"13")]);
        let head = request_head(&parts, Some("dGhlIHNhbXBsZSBub25jZQ=="), LIMITS).expect("a head");
        assert_eq!((head.method, head.fields.get(Known::Upgrade)), (Method::GET, Some(&b"websocket"[..])));
    }

    #[test]
    fn what_goes_out_says_nothing_of_a_connection() {
        let lines = [
            ("Host", "a"),
            ("Connection", "x"),
            ("Upgrade", "h2c"),
            ("Transfer-Encoding", "chunked"),
            ("Keep-Alive", "5"),
            ("TE", "trailers"),
            ("X-A", "1"),
            ("x-a", "2"),
        ];
        let fields: Fields = lines.into_iter().collect();
        let headers = header_map(&fields).expect("headers");
        let mut names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "te", "x-a", "x-a"]);
        let mut fields = fields;
        let target = fields.keep(b"/b?c=<d>");
        let head = RequestHead::new(Method::GET, Version::HTTP_11, fields.clone(), target, None);
        assert_eq!(request(&head).err(), Some(Malformed::Target));
        let target = fields.keep(b"/b?c");
        let head = RequestHead::new(Method::GET, Version::HTTP_11, fields, target, None);
        let request = request(&head).expect("a request");
        assert_eq!(request.uri(), "http://a/b?c");
        assert!(!request.headers().contains_key("host"));
    }

    #[test]
    fn more_fields_than_any_map_holds_are_an_error() {
        let mut fields = Fields::new();
        (0..30_000).for_each(|number| fields.append(format!("x-{number}").as_bytes(), b"1"));
        assert_eq!(header_map(&fields).err(), Some(Malformed::TooManyFields));
    }

    #[test]
    fn answers() {
        let head = response_head(StatusCode::OK, &HeaderMap::new(), LIMITS).expect("a head");
        assert_eq!(head.version, Version::HTTP_2);
        let switching = response_head(StatusCode::SWITCHING_PROTOCOLS, &HeaderMap::new(), LIMITS);
        assert_eq!(switching.err(), Some(Malformed::StatusLine));
    }
}
