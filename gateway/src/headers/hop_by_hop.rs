//! Fields that belong to one connection and are not forwarded (RFC 9110 §7.6.1).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE},
};

const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// The protocol that a message wants to change to, where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade(HeaderValue);

impl Upgrade {
    /// Whether a backend that was asked for this may agree to `agreed`: it picks from what is listed
    /// (RFC 9110 §7.8).
    pub fn allows(&self, agreed: &Self) -> bool {
        tokens(&agreed.0).all(|picked| tokens(&self.0).any(|listed| listed.eq_ignore_ascii_case(picked)))
    }

    /// Puts the fields back that [`strip`] took, for the next hop.
    pub fn restore(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.0.clone());
    }
}

/// Removes everything that belongs to the connection it came on: the known fields and those that
/// `Connection` nominates. Returns the protocol change that the message asked for.
///
/// `TE: trailers` stays, because it says what the sender of the message can take (§10.1.4). Host and
/// the framing fields cannot be nominated away: they would change what the message is.
///
/// `Upgrade: h2c` is never returned: it would carry requests past everything that filters them.
pub fn strip(headers: &mut HeaderMap) -> Option<Upgrade> {
    // Nearly no message has any of these fields; one look at the names settles that.
    if !headers.keys().any(is_hop_by_hop) {
        return None;
    }
    let upgrade = upgrade(headers);
    let takes_trailers = headers.get_all(TE).iter().any(|value| has_token(value, "trailers"));
    if headers.contains_key(CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112 §6.3: the coding decides where the body ends, and a length beside it is wrong.
        headers.remove(CONTENT_LENGTH);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    upgrade
}

/// Whether a message's body is coded in a way that is undone by neither side of this gateway
/// (RFC 9112 §6.1): forwarded without its name, it could not be read.
pub fn has_other_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter().flat_map(tokens);
    codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"chunked"))
}

/// Whether a field belongs to one connection and is not forwarded.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

fn upgrade(headers: &HeaderMap) -> Option<Upgrade> {
    let asked = headers.get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade"));
    let mut protocols = headers.get_all(UPGRADE).iter();
    let (protocol, None) = (protocols.next()?, protocols.next()) else {
        return None;
    };
    let carries_http = has_token(protocol, "h2c") || has_token(protocol, "h2");
    (asked && !carries_http).then(|| Upgrade(protocol.clone()))
}

fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(tokens)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING, TE].contains(name))
        .collect()
}

fn has_token(value: &HeaderValue, wanted: &str) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(wanted.as_bytes()))
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (name.parse::<HeaderName>().expect("a name"), value.parse::<HeaderValue>().expect("a value"))
            })
            .collect()
    }

    #[track_caller]
    fn check(before: &[(&str, &str)], after: &[(&str, &str)]) -> Option<Upgrade> {
        let mut headers = head(before);
        let upgrade = strip(&mut headers);
        assert_eq!(headers, head(after), "from {before:?}");
        upgrade
    }

    #[test]
    fn known_and_nominated_fields_go() {
        let plain = [("host", "a"), ("accept", "*/*")];
        check(&plain, &plain);
        check(&[("connection", "close"), ("keep-alive", "5"), ("host", "a")], &[("host", "a")]);
        check(
            &[("connection", "X-Auth , x-b"), ("x-auth", "1"), ("x-b", "2"), ("x-c", "3")],
            &[("x-c", "3")],
        );
        check(&[("te", "gzip, trailers"), ("proxy-connection", "x")], &[("te", "trailers")]);
    }

    #[test]
    fn a_length_beside_a_transfer_coding_goes() {
        check(&[("transfer-encoding", "chunked"), ("content-length", "3")], &[]);
        assert!(!has_other_coding(&head(&[("transfer-encoding", "Chunked")])));
        assert!(has_other_coding(&head(&[("transfer-encoding", "gzip, chunked")])));
    }

    #[test]
    fn host_and_framing_cannot_be_nominated_away() {
        check(
            &[("connection", "host, content-length"), ("host", "a"), ("content-length", "3")],
            &[("host", "a"), ("content-length", "3")],
        );
    }

    #[test]
    fn an_upgrade_is_reported_and_can_be_restored() {
        let upgrade = check(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")], &[]);
        let upgrade = upgrade.expect("an upgrade");
        let mut headers = HeaderMap::new();
        upgrade.restore(&mut headers);
        assert_eq!(headers, head(&[("connection", "upgrade"), ("upgrade", "WebSocket")]));
    }

    #[test]
    fn a_backend_picks_from_what_was_asked_for() {
        let upgrade = |protocol| Upgrade(HeaderValue::from_static(protocol));
        for (asked, agreed, expected) in [
            ("websocket", "WebSocket", true),
            ("foo/2, websocket", "websocket", true),
            ("foo/2", "foo", false),
            ("foo", "foo, bar", false),
            ("foo", "", false),
        ] {
            assert_eq!(upgrade(asked).allows(&upgrade(agreed)), expected, "{asked:?}, {agreed:?}");
        }
    }

    #[test]
    fn what_is_no_upgrade() {
        assert_eq!(check(&[("upgrade", "websocket")], &[]), None, "not nominated by Connection");
        assert_eq!(check(&[("connection", "upgrade")], &[]), None, "no protocol");
        assert_eq!(check(&[("connection", "upgrade"), ("upgrade", "h2c")], &[]), None);
        assert_eq!(check(&[("connection", "upgrade"), ("upgrade", "websocket, H2C")], &[]), None);
        assert_eq!(
            check(&[("connection", "upgrade"), ("upgrade", "a"), ("upgrade", "b")], &[]),
            None,
            "two lines are one too many"
        );
    }
}
