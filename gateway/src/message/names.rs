//! Fields that the gateway itself understands, so that asking for one of them is a comparison of
//! numbers, and asking whether a head has any of a group is one of bits.

/// A field that the gateway understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    /// RFC 9110 §7.6.1.
    Connection,
    /// RFC 9110 §8.6.
    ContentLength,
    /// RFC 9110 §10.1.1.
    Expect,
    /// RFC 7239.
    Forwarded,
    /// `Content_Length` and `Transfer_Encoding`: they frame nothing, but backends that take `_` for `-`
    /// read them as if they did.
    FramingAlike,
    /// Every other name that backends read as a statement about the client or the way to it:
    /// `X-Forwarded-*`, `X-Real-IP`, `Client-Cert` and `Client-Cert-Chain` (RFC 9440), and names that frameworks confuse with any of them because
    /// they take `_` for `-`.
    ForwardedOther,
    /// RFC 9110 §7.2.
    Host,
    /// RFC 7540 §3.2.1; obsolete.
    Http2Settings,
    /// RFC 2068 §19.7.1.
    KeepAlive,
    /// RFC 9110 §11.7.1.
    ProxyAuthenticate,
    /// RFC 9110 §11.7.2.
    ProxyAuthorization,
    /// Never standardised, and sent all the same.
    ProxyConnection,
    /// RFC 6455 §11.3.3.
    SecWebSocketAccept,
    /// RFC 6455 §11.3.1.
    SecWebSocketKey,
    /// RFC 6455 §11.3.5.
    SecWebSocketVersion,
    /// RFC 9110 §10.1.4.
    Te,
    /// RFC 9110 §6.6.2.
    Trailer,
    /// RFC 9112 §6.1.
    TransferEncoding,
    /// RFC 9110 §7.8.
    Upgrade,
    /// RFC 9110 §7.6.3.
    Via,
    /// The client's address, in use everywhere.
    XForwardedFor,
    /// The host that the client asked for.
    XForwardedHost,
    /// The port that the client connected to.
    XForwardedPort,
    /// `http` or `https`.
    XForwardedProto,
    /// One address only; of nginx.
    XRealIp,
}

impl Known {
    /// The field that a name means, in whatever case.
    pub fn of(name: &[u8]) -> Option<Self> {
        // First letter and length leave one, and rule out nearly every name that is not known.
        let first = name.first()?.to_ascii_lowercase();
        let known = match (first, name.len()) {
            (b'c', 10) => Self::Connection,
            (b'c', 11 | 17) => return Self::client_cert(name),
            (b'c', 14) => Self::ContentLength,
            (b'e', 6) => Self::Expect,
            (b'f', 9) => Self::Forwarded,
            (b'h', 4) => Self::Host,
            (b'h', 14) => Self::Http2Settings,
            (b'k', 10) => Self::KeepAlive,
            (b'p', 16) => Self::ProxyConnection,
            (b'p', 18) => Self::ProxyAuthenticate,
            (b'p', 19) => Self::ProxyAuthorization,
            (b's', 17) => Self::SecWebSocketKey,
            (b's', 20) => Self::SecWebSocketAccept,
            (b's', 21) => Self::SecWebSocketVersion,
            (b't', 2) => Self::Te,
            (b't', 7) => Self::Trailer,
            (b't', 17) => Self::TransferEncoding,
            (b'u', 7) => Self::Upgrade,
            (b'v', 3) => Self::Via,
            (b'x', 9) => Self::XRealIp,
            (b'x', 15) => Self::XForwardedFor,
            (b'x', 16) if matches!(name.get(12), Some(b'h' | b'H')) => Self::XForwardedHost,
            (b'x', 16) => Self::XForwardedPort,
            (b'x', 17) => Self::XForwardedProto,
            (b'x', 10..) => return Self::forwarded_other(name),
            _ => return None,
        };
        if known.name().as_bytes().eq_ignore_ascii_case(name) {
            return Some(known);
        }
        match known {
            Self::ContentLength | Self::TransferEncoding => Self::framing_alike(name),
            _ if first == b'x' => Self::forwarded_other(name),
            _ => None,
        }
    }

    /// The field's name, in lower case; of the unnamed groups, none.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::ContentLength => "content-length",
            Self::Expect => "expect",
            Self::Forwarded => "forwarded",
            Self::FramingAlike | Self::ForwardedOther => "",
            Self::Host => "host",
            Self::Http2Settings => "http2-settings",
            Self::KeepAlive => "keep-alive",
            Self::ProxyAuthenticate => "proxy-authenticate",
            Self::ProxyAuthorization => "proxy-authorization",
            Self::ProxyConnection => "proxy-connection",
            Self::SecWebSocketAccept => "sec-websocket-accept",
            Self::SecWebSocketKey => "sec-websocket-key",
            Self::SecWebSocketVersion => "sec-websocket-version",
            Self::Te => "te",
            Self::Trailer => "trailer",
            Self::TransferEncoding => "transfer-encoding",
            Self::Upgrade => "upgrade",
            Self::Via => "via",
            Self::XForwardedFor => "x-forwarded-for",
            Self::XForwardedHost => "x-forwarded-host",
            Self::XForwardedPort => "x-forwarded-port",
            Self::XForwardedProto => "x-forwarded-proto",
            Self::XRealIp => "x-real-ip",
        }
    }

    /// Whether the field belongs to one connection and is not forwarded (RFC 9110 §7.6.1).
    pub fn is_hop_by_hop(self) -> bool {
        self.bit() & HOP_BY_HOP != 0
    }

    /// Whether backends read the field as a statement about the client or the way to it.
    pub fn is_forwarding(self) -> bool {
        self.bit() & FORWARDING != 0
    }

    /// Whether nobody but the gateway writes the field: how a message is framed, where it goes and
    /// what is said about its way.
    pub fn is_gateways(self) -> bool {
        const OTHERS: u32 = Known::Host.bit()
            | Known::ContentLength.bit()
            | Known::Expect.bit()
            | Known::Trailer.bit()
            | Known::Via.bit();
        self.bit() & (HOP_BY_HOP | FORWARDING | OTHERS) != 0
    }

    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }

    fn forwarded_other(name: &[u8]) -> Option<Self> {
        let begins = name.get(.."x-forwarded".len()).is_some_and(|start| is_alike(start, b"x-forwarded"));
        (begins || is_alike(name, b"x-real-ip")).then_some(Self::ForwardedOther)
    }

    fn client_cert(name: &[u8]) -> Option<Self> {
        let is_alike = is_alike(name, b"client-cert") || is_alike(name, b"client-cert-chain");
        is_alike.then_some(Self::ForwardedOther)
    }

    fn framing_alike(name: &[u8]) -> Option<Self> {
        let is_alike = is_alike(name, b"content-length") || is_alike(name, b"transfer-encoding");
        is_alike.then_some(Self::FramingAlike)
    }
}

/// Whether two names are the same to who takes `_` for `-`, as many frameworks do.
pub(super) fn is_alike(name: &[u8], other: &[u8]) -> bool {
    let folded = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == other.len() && name.iter().zip(other).all(|(one, other)| folded(one) == folded(other))
}

pub(super) const HOP_BY_HOP: u32 = Known::Connection.bit()
    | Known::FramingAlike.bit()
    | Known::KeepAlive.bit()
    | Known::ProxyConnection.bit()
    | Known::ProxyAuthenticate.bit()
    | Known::ProxyAuthorization.bit()
    | Known::Te.bit()
    | Known::TransferEncoding.bit()
    | Known::Upgrade.bit()
    | Known::Http2Settings.bit();

pub(super) const FORWARDING: u32 = Known::Forwarded.bit()
    | Known::ForwardedOther.bit()
    | Known::XForwardedFor.bit()
    | Known::XForwardedHost.bit()
    | Known::XForwardedPort.bit()
    | Known::XForwardedProto.bit()
    | Known::XRealIp.bit();

#[cfg(test)]
mod tests {
    use super::*;

    const NAMED: [Known; 23] = [
        Known::Connection,
        Known::ContentLength,
        Known::Expect,
        Known::Forwarded,
        Known::Host,
        Known::Http2Settings,
        Known::KeepAlive,
        Known::ProxyAuthenticate,
        Known::ProxyAuthorization,
        Known::ProxyConnection,
        Known::SecWebSocketAccept,
        Known::SecWebSocketKey,
        Known::SecWebSocketVersion,
        Known::Te,
        Known::Trailer,
        Known::TransferEncoding,
        Known::Upgrade,
        Known::Via,
        Known::XForwardedFor,
        Known::XForwardedHost,
        Known::XForwardedPort,
        Known::XForwardedProto,
        Known::XRealIp,
    ];

    #[test]
    fn every_name_is_found_in_any_case() {
        for known in NAMED {
            let name = known.name();
            assert_eq!(Known::of(name.as_bytes()), Some(known), "{name}");
            assert_eq!(Known::of(name.to_ascii_uppercase().as_bytes()), Some(known), "{name}");
            let mut other = name.as_bytes().to_vec();
            if let Some(last) = other.last_mut() {
                *last = b'z';
            }
            assert!(Known::of(&other).is_none_or(|known| known == Known::ForwardedOther), "{name}");
        }
        for other in ["", "x", "accept", "hosts", "x-request-id", "content-type", "t", "connectiom"] {
            assert_eq!(Known::of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn what_frameworks_confuse_with_forwarding_fields() {
        for name in [
            "x_forwarded_for",
            "X-Forwarded_For",
            "x-forwarded",
            "X-Forwarded-Prefix",
            "x_real_ip",
            "Client-Cert",
            "client_cert_chain",
        ] {
            let known = Known::of(name.as_bytes());
            assert!(known.is_some_and(Known::is_forwarding), "{name}: {known:?}");
        }
        assert_eq!(Known::of(b"x-real-ips"), None);
        for name in ["Content_Length", "transfer_encoding"] {
            assert_eq!(Known::of(name.as_bytes()), Some(Known::FramingAlike), "{name}");
        }
    }
}
