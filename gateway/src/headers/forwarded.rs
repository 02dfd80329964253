//! Who the client is, as backends and plugins are told: `Forwarded` (RFC 7239) and the older
//! `X-Forwarded-*`. Rebuilt from the socket; what the client sent counts only if the socket's other
//! end is a trusted proxy.

use super::ClientCertificate;
use crate::{
    ids::ClientAddr,
    message::{Fields, Known},
};
use ipnet::IpNet;
use std::{cell::RefCell, net::IpAddr, rc::Rc};

/// What one connection contributes to the forwarding headers of its requests, prepared once.
#[derive(Debug)]
pub struct Forwarding {
    peer: ClientAddr,
    peer_value: String,
    scheme: &'static str,
    port: String,
    trusted: bool,
    /// Of this connection's client, where it showed one.
    certificate: Option<Rc<ClientCertificate>>,
    /// The last host and the `Forwarded` value made for it: nearly all requests of a connection
    /// name the same host, and formatting costs more than comparing.
    last: RefCell<(Vec<u8>, String)>,
}

impl Forwarding {
    /// For a connection from `peer` to `port`, trusted if `peer` is in one of the networks.
    pub fn new(peer: ClientAddr, scheme: &'static str, port: u16, trusted_proxies: &[IpNet]) -> Self {
        Self {
            peer,
            peer_value: peer.text(),
            scheme,
            port: itoa::Buffer::new().format(port).to_owned(),
            trusted: contains(trusted_proxies, peer.ip()),
            certificate: None,
            last: RefCell::default(),
        }
    }

    /// The same for a client that showed this certificate.
    #[must_use]
    pub fn certified(self, certificate: Option<Rc<ClientCertificate>>) -> Self {
        Self { certificate, ..self }
    }

    /// Rebuilds the forwarding headers of a request and returns the client's address.
    ///
    /// `host` is the value of the Host header. From a stranger, every forwarding header is dropped
    /// first, whatever its spelling; from a trusted proxy they are appended to, and the client is
    /// the last address in them that is not a trusted proxy itself.
    pub fn apply(&self, fields: &mut Fields, host: &[u8], trusted_proxies: &[IpNet]) -> ClientAddr {
        if fields.has_forwarding() {
            if self.trusted {
                return self.append(fields, host, trusted_proxies);
            }
            fields.retain(|known, _| !known.is_some_and(Known::is_forwarding));
        }
        if let Some(certificate) = &self.certificate {
            certificate.put(fields);
        }
        fields.append_known(Known::XForwardedFor, self.peer_value.as_bytes());
        fields.append_known(Known::XForwardedProto, self.scheme.as_bytes());
        fields.append_known(Known::XForwardedHost, host);
        fields.append_known(Known::XForwardedPort, self.port.as_bytes());
        self.with_forwarded(host, |value| fields.append_known(Known::Forwarded, value));
        self.peer
    }

    fn append(&self, fields: &mut Fields, host: &[u8], trusted_proxies: &[IpNet]) -> ClientAddr {
        // No proxy writes these, but many pass them on: they are the client's own words.
        fields.retain(|known, name| !(known == Some(Known::ForwardedOther) && name.contains(&b'_')));
        if let Some(certificate) = &self.certificate {
            certificate.put(fields);
        }
        let client = self.client(fields, trusted_proxies);
        // Proxies maintain one family of headers and let the other through as the client sent it:
        // where they disagree, `Forwarded` is not the proxies'.
        let told = self.first_stranger(elements(fields).map(forwarded_for), trusted_proxies);
        if fields.has(Known::Forwarded) && told != client {
            fields.remove(Known::Forwarded);
        }
        fields.remove(Known::XRealIp);
        let chain = join(fields, Known::XForwardedFor, self.peer_value.as_bytes());
        fields.set_known(Known::XForwardedFor, &chain);
        let forwarded = self.with_forwarded(host, |value| join(fields, Known::Forwarded, value));
        fields.set_known(Known::Forwarded, &forwarded);
        for (known, value) in [
            (Known::XForwardedProto, self.scheme.as_bytes()),
            (Known::XForwardedHost, host),
            (Known::XForwardedPort, self.port.as_bytes()),
        ] {
            if !fields.has(known) {
                fields.append_known(known, value);
            }
        }
        client
    }

    /// Walks the chain from its end, which the nearest proxy wrote, to the first stranger in it.
    fn client(&self, fields: &Fields, trusted_proxies: &[IpNet]) -> ClientAddr {
        if fields.has(Known::XForwardedFor) {
            let addresses = lines(fields, Known::XForwardedFor).flat_map(|line| line.split(','));
            self.first_stranger(addresses.map(|address| node(address.trim())), trusted_proxies)
        } else {
            self.first_stranger(elements(fields).map(forwarded_for), trusted_proxies)
        }
    }

    fn first_stranger(
        &self,
        chain: impl Iterator<Item = Option<ClientAddr>>,
        trusted_proxies: &[IpNet],
    ) -> ClientAddr {
        let chain: Vec<Option<ClientAddr>> = chain.collect();
        let mut client = self.peer;
        for address in chain.into_iter().rev() {
            // An entry that is no address ends the walk: nothing before it can be relied on.
            let Some(address) = address else { break };
            client = address;
            if !contains(trusted_proxies, address.ip()) {
                break;
            }
        }
        client
    }

    /// Hands the `Forwarded` element of this host to the function.
    fn with_forwarded<T>(&self, host: &[u8], then: impl FnOnce(&[u8]) -> T) -> T {
        let mut last = self.last.borrow_mut();
        let (known, made) = &mut *last;
        if known != host || made.is_empty() {
            *known = host.to_vec();
            *made = self.forwarded_element(host);
        }
        then(made.as_bytes())
    }

    /// RFC 7239 §4.
    fn forwarded_element(&self, host: &[u8]) -> String {
        let mut text = String::with_capacity(96);
        // IPv6 needs brackets, and brackets need quotes (§6).
        let (before, after) = if self.peer.ip().is_ipv6() { ("for=\"[", "]\"") } else { ("for=", "") };
        for part in [before, &self.peer_value, after] {
            text.push_str(part);
        }
        if let Ok(host) = std::str::from_utf8(host)
            && !host.contains(['"', '\\'])
        {
            for part in [";host=\"", host, "\""] {
                text.push_str(part);
            }
        }
        text.push_str(";proto=");
        text.push_str(self.scheme);
        text
    }
}

fn contains(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

/// All lines of a field. One that is not text becomes one that holds no address.
fn lines(fields: &Fields, known: Known) -> impl Iterator<Item = &str> {
    fields.all(known).map(|value| std::str::from_utf8(value).unwrap_or("?"))
}

/// All elements of `Forwarded`, across its lines.
fn elements(fields: &Fields) -> impl Iterator<Item = &str> {
    lines(fields, Known::Forwarded).flat_map(|line| split_unquoted(line, ','))
}

/// Splits where a separator stands outside of a quoted string (RFC 9110 §5.6.4): proxies put the host
/// that a client names in quotes, with whatever it holds.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |char| {
        if std::mem::take(&mut is_escaped) {
            return false;
        }
        is_escaped = is_quoted && char == '\\';
        is_quoted ^= char == '"';
        char == separator && !is_quoted
    })
}

/// An address as `X-Forwarded-For` and RFC 7239 §6 write it: bare, bracketed, with or without port.
fn node(text: &str) -> Option<ClientAddr> {
    let text = text.trim_matches('"');
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        // One colon separates a port; more of them are an IPv6 address.
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => host,
            _ => text,
        },
    };
    bare.parse().ok()
}

fn forwarded_for(element: &str) -> Option<ClientAddr> {
    let mut pairs = split_unquoted(element, ';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, _)| key.eq_ignore_ascii_case("for"))?;
    node(value)
}

fn join(fields: &Fields, known: Known, last: &[u8]) -> Vec<u8> {
    let values: Vec<&[u8]> = fields.all(known).chain([last]).collect();
    values.join(&b", "[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXIES: &str = "10.0.0.0/8";

    struct Case<'a> {
        peer: &'a str,
        sent: &'a [(&'a str, &'a str)],
        client: &'a str,
        chain: &'a str,
    }

    #[track_caller]
    fn check(case: &Case<'_>) -> Fields {
        let proxies: Vec<IpNet> = vec![PROXIES.parse().expect("a network")];
        let mut fields: Fields = case.sent.iter().copied().collect();
        let forwarding = Forwarding::new(case.peer.parse().expect("an address"), "http", 8080, &proxies);
        let client = forwarding.apply(&mut fields, b"a:8080", &proxies);
        assert_eq!(client.to_string(), case.client);
        assert_eq!(text(&fields, "x-forwarded-for"), case.chain);
        fields
    }

    fn text<'a>(fields: &'a Fields, name: &'a str) -> &'a str {
        let mut values = fields.all_named(name.as_bytes());
        let value = std::str::from_utf8(values.next().unwrap_or_default()).expect("text");
        assert_eq!(values.next(), None, "a second line of {name}");
        value
    }

    #[test]
    fn a_stranger_cannot_forge() {
        let forged = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-prefix", "/admin"),
            ("x-forwarded", "x"),
            ("x-real-ip", "1.1.1.1"),
        ];
        let headers =
            check(&Case { peer: "192.0.2.1", sent: &forged, client: "192.0.2.1", chain: "192.0.2.1" });
        assert_eq!(headers.len(), 5, "{headers:?}");
        assert_eq!(text(&headers, "forwarded"), "for=192.0.2.1;host=\"a:8080\";proto=http");
        assert_eq!(text(&headers, "x-forwarded-port"), "8080");
    }

    #[test]
    fn mapped_and_ipv6_peers() {
        check(&Case { peer: "::ffff:192.0.2.1", sent: &[], client: "192.0.2.1", chain: "192.0.2.1" });
        let headers =
            check(&Case { peer: "2001:db8::1", sent: &[], client: "2001:db8::1", chain: "2001:db8::1" });
        assert_eq!(text(&headers, "forwarded"), "for=\"[2001:db8::1]\";host=\"a:8080\";proto=http");
    }

    #[test]
    fn a_trusted_proxy_is_appended_to_and_skipped() {
        check(&Case {
            peer: "::ffff:10.0.0.9",
            sent: &[("x-forwarded-for", "6.6.6.6, 192.0.2.1"), ("x-forwarded-for", "10.1.1.1")],
            client: "192.0.2.1",
            chain: "6.6.6.6, 192.0.2.1, 10.1.1.1, 10.0.0.9",
        });
        check(&Case {
            peer: "10.0.0.9",
            sent: &[("forwarded", "for=\"[2001:db8::7]:4711\";proto=https")],
            client: "2001:db8::7",
            chain: "10.0.0.9",
        });
        check(&Case {
            peer: "10.0.0.9",
            sent: &[("x-forwarded-for", "192.0.2.1, unknown")],
            client: "10.0.0.9",
            chain: "192.0.2.1, unknown, 10.0.0.9",
        });
    }

    #[test]
    fn of_two_families_that_disagree_one_is_the_clients_own() {
        let headers = check(&Case {
            peer: "10.0.0.9",
            sent: &[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=6.6.6.6"), ("x-real-ip", "6.6.6.6")],
            client: "192.0.2.1",
            chain: "192.0.2.1, 10.0.0.9",
        });
        assert_eq!(text(&headers, "forwarded"), "for=10.0.0.9;host=\"a:8080\";proto=http");
        assert!(!headers.has(Known::XRealIp));
    }

    #[test]
    fn what_stands_in_quotes_is_the_clients_own() {
        for forwarded in [
            "for=192.0.2.1;host=\"a, for=6.6.6.6\"",
            "host=\"a;for=6.6.6.6\";for=192.0.2.1",
            "for=192.0.2.1;host=\"a\\\", for=6.6.6.6\"",
        ] {
            let sent = [("forwarded", forwarded)];
            check(&Case { peer: "10.0.0.9", sent: &sent, client: "192.0.2.1", chain: "10.0.0.9" });
        }
        let sent = [("forwarded", "for=unknown;for=6.6.6.6")];
        check(&Case { peer: "10.0.0.9", sent: &sent, client: "10.0.0.9", chain: "10.0.0.9" });
    }

    #[test]
    fn a_trusted_proxys_scheme_and_host_stay() {
        let headers = check(&Case {
            peer: "10.0.0.9",
            sent: &[("x-forwarded-proto", "https"), ("x-forwarded-for", "192.0.2.1")],
            client: "192.0.2.1",
            chain: "192.0.2.1, 10.0.0.9",
        });
        assert_eq!(text(&headers, "x-forwarded-proto"), "https");
        assert_eq!(text(&headers, "x-forwarded-host"), "a:8080");
    }
}
