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

/// Those with names of their own.
const NAMES: [(&str, Known); 23] = [
    ("connection", Known::Connection),
    ("content-length", Known::ContentLength),
    ("expect", Known::Expect),
    ("forwarded", Known::Forwarded),
    ("host", Known::Host),
    ("http2-settings", Known::Http2Settings),
    ("keep-alive", Known::KeepAlive),
    ("proxy-authenticate", Known::ProxyAuthenticate),
    ("proxy-authorization", Known::ProxyAuthorization),
    ("proxy-connection", Known::ProxyConnection),
    ("sec-websocket-accept", Known::SecWebSocketAccept),
    ("sec-websocket-key", Known::SecWebSocketKey),
    ("sec-websocket-version", Known::SecWebSocketVersion),
    ("te", Known::Te),
    ("trailer", Known::Trailer),
    ("transfer-encoding", Known::TransferEncoding),
    ("upgrade", Known::Upgrade),
    ("via", Known::Via),
    ("x-forwarded-for", Known::XForwardedFor),
    ("x-forwarded-host", Known::XForwardedHost),
    ("x-forwarded-port", Known::XForwardedPort),
    ("x-forwarded-proto", Known::XForwardedProto),
    ("x-real-ip", Known::XRealIp),
];

impl Known {
    /// The field that a name means, in whatever case.
    pub fn of(name: &[u8]) -> Option<Self> {
        // First letter and length rule out nearly every name that is not known.
        let first = name.first()?.to_ascii_lowercase();
        match (first, name.len()) {
            (b'c', 14) | (b't', 17) => Self::by_name(name).or_else(|| Self::framing_alike(name)),
            (b'c', 11 | 17) => Self::client_cert(name),
            (b'c', 10) | (b'e', 6) | (b'f', 9) | (b'h', 4 | 14) | (b'k', 10) => Self::by_name(name),
            (b'p', 16 | 18 | 19) | (b's', 17 | 20 | 21) | (b't', 2 | 7) => Self::by_name(name),
            (b'u', 7) | (b'v', 3) => Self::by_name(name),
            (b'x', 9..) => Self::by_name(name).or_else(|| Self::forwarded_other(name)),
            _ => None,
        }
    }

    /// The field's name, in lower case; of the unnamed group, none.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
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
        const OTHERS: u32 =
            Known::Host.bit() | Known::ContentLength.bit() | Known::Trailer.bit() | Known::Via.bit();
        self.bit() & (HOP_BY_HOP | FORWARDING | OTHERS) != 0
    }

    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }

    fn by_name(name: &[u8]) -> Option<Self> {
        let found = NAMES.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
        found.map(|(_, known)| *known)
    }

    fn forwarded_other(name: &[u8]) -> Option<Self> {
        let is_alike =
            is_alike(name, "x-forwarded") || (name.len() == "x-real-ip".len() && is_alike(name, "x-real-ip"));
        is_alike.then_some(Self::ForwardedOther)
    }

    fn client_cert(name: &[u8]) -> Option<Self> {
        let names = ["client-cert", "client-cert-chain"];
        let is_alike = names.iter().any(|known| name.len() == known.len() && is_alike(name, known));
        is_alike.then_some(Self::ForwardedOther)
    }

    fn framing_alike(name: &[u8]) -> Option<Self> {
        let framing = ["content-length", "transfer-encoding"];
        framing.iter().any(|framing| is_alike(name, framing)).then_some(Self::FramingAlike)
    }
}

/// Whether a name begins with these words, where `_` and `-` are the same.
fn is_alike(name: &[u8], words: &str) -> bool {
    name.len() >= words.len()
        && name.iter().zip(words.as_bytes()).all(|(byte, wanted)| match byte {
            b'_' => *wanted == b'-',
            byte => byte.eq_ignore_ascii_case(wanted),
        })
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

    #[test]
    fn every_name_is_found_in_any_case() {
        for (name, known) in NAMES {
            assert_eq!(Known::of(name.as_bytes()), Some(known), "{name}");
            assert_eq!(Known::of(name.to_ascii_uppercase().as_bytes()), Some(known), "{name}");
            assert_eq!(known.name(), name);
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
