//! Who the client is, as backends and plugins are told: `Forwarded` (RFC 7239) and the older
//! `X-Forwarded-*`. Rebuilt from the socket; what the client sent counts only if the socket's other
//! end is a trusted proxy.

use crate::ids::ClientAddr;
use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use ipnet::IpNet;
use std::{cell::RefCell, fmt::Write as _, net::IpAddr};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// What one connection contributes to the forwarding headers of its requests, prepared once.
#[derive(Debug)]
pub struct Forwarding {
    peer: ClientAddr,
    peer_value: HeaderValue,
    scheme: &'static str,
    port: HeaderValue,
    trusted: bool,
    /// The last host and the `Forwarded` value made for it: nearly all requests of a connection
    /// name the same host, and formatting costs more than comparing.
    last: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl Forwarding {
    /// For a connection from `peer` to `port`, trusted if `peer` is in one of the networks.
    pub fn new(peer: ClientAddr, scheme: &'static str, port: u16, trusted_proxies: &[IpNet]) -> Self {
        Self {
            peer,
            peer_value: value(&peer.to_string()),
            scheme,
            port: HeaderValue::from(port),
            trusted: contains(trusted_proxies, peer.ip()),
            last: RefCell::new(None),
        }
    }

    /// Rebuilds the forwarding headers of a request and returns the client's address.
    ///
    /// `host` is the value of the Host header. From a stranger, every forwarding header is dropped
    /// first, whatever its spelling; from a trusted proxy they are appended to, and the client is
    /// the last address in them that is not a trusted proxy itself.
    pub fn apply(
        &self,
        headers: &mut HeaderMap,
        host: &HeaderValue,
        trusted_proxies: &[IpNet],
    ) -> ClientAddr {
        if headers.keys().any(is_forwarding) {
            if self.trusted {
                return self.append(headers, host, trusted_proxies);
            }
            remove(headers, is_forwarding);
        }
        // Growing once is cheaper than growing on the way.
        headers.reserve(8);
        headers.insert(X_FORWARDED_FOR, self.peer_value.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.scheme));
        headers.insert(X_FORWARDED_HOST, host.clone());
        headers.insert(X_FORWARDED_PORT, self.port.clone());
        headers.insert(FORWARDED, self.forwarded(host));
        self.peer
    }

    fn append(&self, headers: &mut HeaderMap, host: &HeaderValue, trusted_proxies: &[IpNet]) -> ClientAddr {
        // No proxy writes these, but many pass them on: they are the client's own words.
        remove(headers, |name| name.as_str().contains('_') && is_forwarding(name));
        let client = self.client(headers, trusted_proxies);
        // Proxies maintain one family of headers and let the other through as the client sent it:
        // where they disagree, `Forwarded` is not the proxies'.
        let told = self.first_stranger(list(headers, &FORWARDED).map(forwarded_for), trusted_proxies);
        if headers.contains_key(FORWARDED) && told != client {
            headers.remove(FORWARDED);
        }
        headers.remove(X_REAL_IP);
        let chain = join(headers, &X_FORWARDED_FOR, &self.peer_value);
        headers.insert(X_FORWARDED_FOR, chain);
        let forwarded = join(headers, &FORWARDED, &self.forwarded(host));
        headers.insert(FORWARDED, forwarded);
        headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(self.scheme));
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
        headers.entry(X_FORWARDED_PORT).or_insert_with(|| self.port.clone());
        client
    }

    /// Walks the chain from its end, which the nearest proxy wrote, to the first stranger in it.
    fn client(&self, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> ClientAddr {
        if headers.contains_key(X_FORWARDED_FOR) {
            self.first_stranger(list(headers, &X_FORWARDED_FOR).map(node), trusted_proxies)
        } else {
            self.first_stranger(list(headers, &FORWARDED).map(forwarded_for), trusted_proxies)
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

    fn forwarded(&self, host: &HeaderValue) -> HeaderValue {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some((known, made)) if known == host => made.clone(),
            _ => {
                let made = forwarded_element(self.peer, host, self.scheme);
                *last = Some((host.clone(), made.clone()));
                made
            }
        }
    }
}

/// Whether backends read a header as a statement about the client or the way to it, by its usual
/// name or by one that frameworks confuse with it (`X_Forwarded_For`).
pub fn is_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str();
    let known = |name: &str| matches!(name, "forwarded" | "x-real-ip") || name.starts_with("x-forwarded");
    known(name) || (name.contains('_') && known(&name.replace('_', "-")))
}

fn remove(headers: &mut HeaderMap, which: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| which(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn contains(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

/// All elements of a list field, across its lines. A line that is not text ends in an element that
/// is no address.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().flat_map(|value| value.to_str().unwrap_or("?").split(',')).map(str::trim)
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
    element.split(';').find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        key.eq_ignore_ascii_case("for").then(|| node(value)).flatten()
    })
}

fn join(headers: &HeaderMap, name: &HeaderName, last: &HeaderValue) -> HeaderValue {
    let mut joined: Vec<u8> = Vec::new();
    for value in headers.get_all(name).iter().chain([last]) {
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_bytes(&joined).unwrap_or_else(|_| last.clone())
}

fn forwarded_element(peer: ClientAddr, host: &HeaderValue, scheme: &str) -> HeaderValue {
    let mut text = String::with_capacity(96);
    // Writing into a String cannot fail. IPv6 needs brackets, and brackets need quotes (§6).
    let _ = match peer.ip() {
        IpAddr::V4(ip) => write!(text, "for={ip}"),
        IpAddr::V6(ip) => write!(text, "for=\"[{ip}]\""),
    };
    if let Ok(host) = host.to_str()
        && !host.contains(['"', '\\'])
    {
        let _ = write!(text, ";host=\"{host}\"");
    }
    let _ = write!(text, ";proto={scheme}");
    value(&text)
}

fn value(text: &str) -> HeaderValue {
    // Addresses and checked hosts are visible ASCII; the fallback is unreachable, not wrong.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
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
    fn check(case: &Case<'_>) -> HeaderMap {
        let proxies: Vec<IpNet> = vec![PROXIES.parse().expect("a network")];
        let mut headers: HeaderMap = case
            .sent
            .iter()
            .map(|(n, v)| {
                (n.parse::<HeaderName>().expect("a name"), v.parse::<HeaderValue>().expect("a value"))
            })
            .collect();
        let forwarding = Forwarding::new(case.peer.parse().expect("an address"), "http", 8080, &proxies);
        let client = forwarding.apply(&mut headers, &HeaderValue::from_static("a:8080"), &proxies);
        assert_eq!(client.to_string(), case.client);
        assert_eq!(headers.get("x-forwarded-for").map(HeaderValue::as_bytes), Some(case.chain.as_bytes()));
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        headers
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
        assert_eq!(headers["forwarded"], "for=192.0.2.1;host=\"a:8080\";proto=http");
        assert_eq!(headers["x-forwarded-port"], "8080");
    }

    #[test]
    fn mapped_and_ipv6_peers() {
        check(&Case { peer: "::ffff:192.0.2.1", sent: &[], client: "192.0.2.1", chain: "192.0.2.1" });
        let headers =
            check(&Case { peer: "2001:db8::1", sent: &[], client: "2001:db8::1", chain: "2001:db8::1" });
        assert_eq!(headers["forwarded"], "for=\"[2001:db8::1]\";host=\"a:8080\";proto=http");
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
        assert_eq!(headers["forwarded"], "for=10.0.0.9;host=\"a:8080\";proto=http");
        assert!(!headers.contains_key("x-real-ip"));
    }

    #[test]
    fn a_trusted_proxys_scheme_and_host_stay() {
        let headers = check(&Case {
            peer: "10.0.0.9",
            sent: &[("x-forwarded-proto", "https"), ("x-forwarded-for", "192.0.2.1")],
            client: "192.0.2.1",
            chain: "192.0.2.1, 10.0.0.9",
        });
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "a:8080");
    }
}
