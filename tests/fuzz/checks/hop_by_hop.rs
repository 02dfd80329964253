//! What belongs to one connection: it goes, and nothing else does.

use super::{Lines, consistent, lines, request::fields_of};
use vers_gateway::{
    headers::hop_by_hop::{Options, strip, strip_trailers},
    message::Fields,
};

/// Panics where a rule is broken. The bytes are header lines.
pub(crate) fn check(bytes: &[u8]) {
    if let Some(sent) = fields_of(bytes) {
        of(&sent);
    }
}

/// RFC 9110 §7.6.1, and what was added to it over the years.
const CONNECTION: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// They say what the message is, so nobody can nominate them away.
const MESSAGE: [&str; 2] = ["host", "content-length"];

/// Backends that take `_` for `-` would frame by these.
const FRAMING: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];

/// Panics where a rule is broken for a message with these fields.
pub(crate) fn of(sent: &Fields) {
    let mut fields = sent.clone();
    let options = strip(&mut fields);
    consistent(&fields);
    let (before, after) = (lines(sent), lines(&fields));
    let takes_trailers = tokens(&before, "te").iter().any(|token| token == b"trailers");
    assert_eq!(after, kept(&before, takes_trailers), "of {before:?}");
    let connection = tokens(&before, "connection");
    let says = |option: &str| connection.iter().any(|token| token == option.as_bytes());
    assert_eq!((options.close, options.keep_alive), (says("close"), says("keep-alive")));
    if options.upgrade.is_some() {
        let wanted = tokens(&before, "upgrade");
        assert!(says("upgrade") && !wanted.is_empty(), "of {before:?}");
        assert!(!wanted.iter().any(|token| token == b"h2c" || token == b"h2"), "of {before:?}");
    }
    let again = strip(&mut fields);
    assert_eq!((lines(&fields), again), (after, Options::default()), "twice is once");
    trailers(sent, &before);
}

/// Everything that is neither the connection's nor nominated, and `TE: trailers` at the end.
fn kept(before: &Lines, takes_trailers: bool) -> Lines {
    let nominated = tokens(before, "connection");
    let is_kept = |name: &[u8]| {
        let is = |list: &[&str]| list.iter().any(|listed| name.eq_ignore_ascii_case(listed.as_bytes()));
        let is_nominated = nominated.iter().any(|nominated| name.eq_ignore_ascii_case(nominated));
        // Not fields of anybody, and yet somebody may have sent one of that name.
        let is_option = is(&["close"]);
        let is_alike = name.contains(&b'_') && FRAMING.contains(&super::folded(name).as_slice());
        !is(&CONNECTION) && !is_alike && (!is_nominated || is(&MESSAGE) || is_option)
    };
    let mut kept: Lines = before.iter().filter(|(name, _)| is_kept(name)).cloned().collect();
    if takes_trailers {
        kept.push((b"te".to_vec(), b"trailers".to_vec()));
    }
    kept
}

/// RFC 9110 §6.5.1.
fn trailers(sent: &Fields, before: &Lines) {
    let mut trailers = sent.clone();
    strip_trailers(&mut trailers);
    consistent(&trailers);
    let after = lines(&trailers);
    for (name, _) in &after {
        let name = super::folded(name);
        let framing: [&[u8]; 5] = [b"host", b"content-length", b"trailer", b"expect", b"via"];
        let is_meant = !framing.contains(&name.as_slice())
            && !FRAMING.contains(&name.as_slice())
            && !CONNECTION.iter().any(|known| known.as_bytes() == name.as_slice() && !name.contains(&b'_'))
            && name != b"forwarded"
            && name != b"x-real-ip"
            && !name.starts_with(b"x-forwarded");
        assert!(is_meant, "{} in trailers", super::shown(&name));
    }
    let mut rest = before.iter();
    assert!(after.iter().all(|line| rest.any(|other| other == line)), "{after:?} of {before:?}");
}

/// All members of a list field, in lower case.
fn tokens(lines: &Lines, field: &str) -> Vec<Vec<u8>> {
    let named = lines.iter().filter(|(name, _)| name.eq_ignore_ascii_case(field.as_bytes()));
    let members = named.flat_map(|(_, value)| value.split(|byte| *byte == b','));
    members.map(|member| vers_gateway::message::trim(member).to_ascii_lowercase()).collect()
}
