//! Fields that belong to one connection and are not forwarded (RFC 9110 §7.6.1).

use crate::message::{Fields, Known, trim};

/// The protocol that a message wants to change to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade(Box<[u8]>);

/// What a message says about the connection that it came on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The sender closes it after this message (RFC 9112 §9.6).
    pub close: bool,
    /// The sender keeps it, where that is not understood by itself (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// The sender wants another protocol on it (RFC 9110 §7.8).
    pub upgrade: Option<Upgrade>,
}

impl Upgrade {
    /// Without all but these protocols; none where none is left.
    pub fn limited_to(self, protocols: &[Box<str>]) -> Option<Self> {
        let is_listed =
            |wanted: &[u8]| protocols.iter().any(|protocol| protocol.as_bytes().eq_ignore_ascii_case(wanted));
        if tokens(&self.0).all(is_listed) {
            return Some(self);
        }
        let left: Vec<&[u8]> = tokens(&self.0).filter(|wanted| is_listed(wanted)).collect();
        (!left.is_empty()).then(|| Self(left.join(&b", "[..]).into()))
    }

    /// Whether it is to WebSocket (RFC 6455), and to nothing else.
    pub fn is_to_websocket(&self) -> bool {
        tokens(&self.0).all(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
    }

    /// Whether WebSocket is among what it names.
    pub fn names_websocket(&self) -> bool {
        tokens(&self.0).any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
    }

    /// Whether a backend that was asked for this may agree to `agreed`: it picks from what is listed
    /// (RFC 9110 §7.8).
    pub fn allows(&self, agreed: &Self) -> bool {
        tokens(&agreed.0).all(|picked| tokens(&self.0).any(|listed| listed.eq_ignore_ascii_case(picked)))
    }

    /// Puts the fields back that [`strip`] took, for the next hop.
    pub fn restore(&self, fields: &mut Fields) {
        fields.append_known(Known::Connection, b"upgrade");
        fields.append_known(Known::Upgrade, &self.0);
    }
}

/// Removes everything that belongs to the connection that a message came on: the known fields and
/// those that `Connection` nominates. Returns what the message says about the connection.
///
/// `TE: trailers` stays, because it says what the sender of the message can take (§10.1.4). Host and
/// the framing fields cannot be nominated away: they would change what the message is.
///
/// `Upgrade: h2c` is never returned: it would carry requests past everything that filters them.
pub fn strip(fields: &mut Fields) -> Options {
    // Many messages have none of these fields.
    if !fields.has_hop_by_hop() {
        return Options::default();
    }
    let options = options(fields);
    let takes_trailers = fields.all(Known::Te).any(|value| has_token(value, b"trailers"));
    let nominated = nominated(fields);
    fields.retain(|known, name| {
        let is_nominated = || nominated.binary_search(&name.to_ascii_lowercase()).is_ok();
        !known.is_some_and(Known::is_hop_by_hop) && (nominated.is_empty() || !is_nominated())
    });
    if takes_trailers {
        fields.append_known(Known::Te, b"trailers");
    }
    options
}

/// Removes from trailers what has no place in them (RFC 9110 §6.5.1): what frames, routes or speaks
/// about the connection, the client or the way. Some recipients merge trailers into the header.
pub fn strip_trailers(trailers: &mut Fields) {
    trailers.retain(|known, _| !known.is_some_and(Known::is_gateways));
}

fn options(fields: &Fields) -> Options {
    let says = |token| fields.all(Known::Connection).any(|value| has_token(value, token));
    Options {
        close: says(b"close"),
        keep_alive: says(b"keep-alive"),
        upgrade: fields
            .only(Known::Upgrade)
            .filter(|protocol| {
                let carries_http = has_token(protocol, b"h2c") || has_token(protocol, b"h2");
                !protocol.is_empty() && !carries_http && says(b"upgrade")
            })
            .map(|protocol| Upgrade(protocol.into())),
    }
}

/// Names in lower case, sorted: there may be thousands of either, and looking each up among all would
/// be what somebody is after.
fn nominated(fields: &Fields) -> Vec<Vec<u8>> {
    let tokens = fields.all(Known::Connection).flat_map(tokens);
    let mut names: Vec<_> =
        tokens.filter(|name| is_nominable(name)).map(<[u8]>::to_ascii_lowercase).collect();
    names.sort_unstable();
    names
}

fn is_nominable(name: &[u8]) -> bool {
    // The usual ones are no fields, or go anyway.
    let is_usual = [&b"close"[..], b"keep-alive", b"upgrade", b"te"];
    let is_message = [Known::Host, Known::ContentLength, Known::TransferEncoding];
    !is_usual.iter().any(|usual| name.eq_ignore_ascii_case(usual))
        && !Known::of(name).is_some_and(|known| is_message.contains(&known))
}

fn has_token(value: &[u8], wanted: &[u8]) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(wanted))
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(fields: &Fields) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[track_caller]
    fn check(before: &[(&str, &str)], after: &[(&str, &str)]) -> Options {
        let mut fields: Fields = before.iter().copied().collect();
        let options = strip(&mut fields);
        assert_eq!(lines(&fields), lines(&after.iter().copied().collect()), "from {before:?}");
        options
    }

    #[test]
    fn known_and_nominated_fields_go() {
        let plain = [("host", "a"), ("accept", "*/*")];
        check(&plain, &plain);
        check(&[("connection", "close"), ("keep-alive", "5"), ("host", "a")], &[("host", "a")]);
        check(
            &[("connection", "X-Auth , x-b"), ("x-auth", "1"), ("X-B", "2"), ("x-c", "3")],
            &[("x-c", "3")],
        );
        check(&[("te", "gzip, trailers"), ("proxy-connection", "x")], &[("te", "trailers")]);
        check(&[("transfer-encoding", "chunked")], &[]);
        // They frame nothing here, and must not do so behind.
        check(&[("content_length", "3"), ("Transfer_Encoding", "chunked")], &[]);
    }

    #[test]
    fn host_and_framing_cannot_be_nominated_away() {
        check(
            &[("connection", "host, content-length"), ("host", "a"), ("content-length", "3")],
            &[("host", "a"), ("content-length", "3")],
        );
    }

    #[test]
    fn what_becomes_of_the_connection() {
        let says = |value| check(&[("Connection", value)], &[]);
        assert!(says("close").close && says("foo, Close").close && !says("keep-alive").close);
        assert!(says("Keep-Alive").keep_alive && !says("close").keep_alive);
    }

    #[test]
    fn an_upgrade_is_reported_and_can_be_restored() {
        let options = check(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")], &[]);
        let upgrade = options.upgrade.expect("an upgrade");
        assert!(upgrade.is_to_websocket());
        let mut fields = Fields::new();
        upgrade.restore(&mut fields);
        let restored = [("connection", "upgrade"), ("upgrade", "WebSocket")];
        assert_eq!(lines(&fields), lines(&restored.into_iter().collect()));
    }

    #[test]
    fn a_backend_picks_from_what_was_asked_for() {
        let upgrade = |protocol: &str| Upgrade(protocol.as_bytes().into());
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
    fn only_what_is_listed_can_be_changed_to() {
        let limited = |protocol: &str| Upgrade(protocol.as_bytes().into()).limited_to(&["websocket".into()]);
        assert!(limited("foo, WebSocket").is_some_and(|upgrade| upgrade.is_to_websocket()));
        assert_eq!(limited("foo"), None);
    }

    #[test]
    fn what_is_no_upgrade() {
        let none = |fields: &[(&str, &str)]| assert_eq!(check(fields, &[]).upgrade, None, "{fields:?}");
        none(&[("upgrade", "websocket")]);
        none(&[("connection", "upgrade")]);
        none(&[("connection", "upgrade"), ("upgrade", "h2c")]);
        none(&[("connection", "upgrade"), ("upgrade", "websocket, H2C")]);
        // Two lines are one too many.
        none(&[("connection", "upgrade"), ("upgrade", "a"), ("upgrade", "b")]);
    }

    #[test]
    fn trailers_say_nothing_about_the_message() {
        let sent = [
            ("x-sum", "1"),
            ("Content-Length", "5"),
            ("host", "b"),
            ("x-forwarded-for", "c"),
            ("te", "x"),
            ("Via", "1.1 nobody"),
        ];
        let mut trailers: Fields = sent.into_iter().collect();
        strip_trailers(&mut trailers);
        assert_eq!(lines(&trailers), [("x-sum".to_owned(), "1".to_owned())]);
    }
}
