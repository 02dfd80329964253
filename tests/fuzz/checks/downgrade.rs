//! Heads of HTTP/2 as those of HTTP/1: what is let through is one message to every reader, and the one
//! that was sent.

use super::{LIMITS, WIDE, consistent, lines, shown};
use http::{HeaderName, HeaderValue, Method, Request, Uri, uri};
use vers_gateway::{
    http1::{parse_request, write_request},
    http2::request_head,
    message::RequestHead,
};

/// Panics where a rule is broken. The first lines are the method, the authority and the path, each as
/// a pseudo-header; the others are `name: value`.
pub(crate) fn check(bytes: &[u8]) {
    let Some(parts) = parts(bytes) else { return };
    let Ok(head) = request_head(&parts, None, LIMITS) else { return };
    consistent(&head.fields);
    let mut text = Vec::new();
    write_request(&head, &mut text);
    text.extend_from_slice(b"\r\n");
    let read = parse_request(&text, WIDE);
    let Ok(Some((read, length))) = read else { panic!("{read:?} of {}", shown(&text)) };
    assert_eq!(length, text.len(), "two messages: {}", shown(&text));
    assert_eq!((&read.method, target(&read)), (&head.method, target(&head)));
    assert_eq!(lines(&read.fields), lines(&head.fields));
    for (name, value) in &parts.headers {
        let is_there = head.fields.all_named(name.as_str().as_bytes()).any(|found| found == value.as_bytes());
        assert!(is_there || name == "cookie", "{name} is gone: {}", shown(bytes));
    }
    assert!(head.fields.all_named(b"cookie").count() <= 1, "{}", shown(bytes));
}

fn target(head: &RequestHead) -> (&str, Option<&str>) {
    (head.path(), head.query())
}

/// What h2 makes of such a head; none where it refuses it.
fn parts(bytes: &[u8]) -> Option<http::request::Parts> {
    let mut all = bytes.split(|byte| *byte == b'\n');
    let (method, authority, path) = (all.next()?, all.next()?, all.next()?);
    let mut pieces = uri::Parts::default();
    if !authority.is_empty() {
        pieces.authority = Some(uri::Authority::try_from(authority).ok()?);
        pieces.scheme = Some(uri::Scheme::HTTP);
    }
    if !path.is_empty() {
        pieces.path_and_query = Some(uri::PathAndQuery::try_from(path).ok()?);
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.uri_mut() = Uri::from_parts(pieces).ok()?;
    for line in all {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (HeaderName::from_bytes(&line[..colon]).ok()?, &line[colon + 1..]);
        request.headers_mut().append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(request.into_parts().0)
}
