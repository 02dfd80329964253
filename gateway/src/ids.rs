//! Small values with a meaning of their own; parsing is the only way to make one.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// Address of a client, without port.
///
/// It cannot hold an IPv4-mapped IPv6 address: a dual-stack socket reports an IPv4 client as
/// `::ffff:192.0.2.1`, and a rule written for `192.0.2.0/24` must meet it all the same. This type is
/// made once, at accept, and everything that decides by address takes nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddr(IpAddr);

impl ClientAddr {
    /// The address, in canonical form.
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// What `Display` writes. For IPv4 without the machinery of it: every connection needs this text.
    pub fn text(self) -> String {
        let IpAddr::V4(ip) = self.0 else { return self.to_string() };
        let mut text = String::with_capacity("255.255.255.255".len());
        for octet in ip.octets() {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(itoa::Buffer::new().format(octet));
        }
        text
    }
}

impl From<IpAddr> for ClientAddr {
    fn from(ip: IpAddr) -> Self {
        Self(ip.to_canonical())
    }
}

impl From<SocketAddr> for ClientAddr {
    fn from(addr: SocketAddr) -> Self {
        Self::from(addr.ip())
    }
}

impl FromStr for ClientAddr {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpAddr>().map(Self::from)
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one request in logs and to plugins: 16 hexadecimal digits, unique within a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Makes request ids for one worker, without touching another's memory.
#[derive(Debug)]
pub struct RequestIds(std::cell::Cell<u64>);

impl RequestIds {
    /// Starts at a random place, so that ids of two workers or two runs do not meet.
    pub fn new(seed: u64) -> Self {
        Self(std::cell::Cell::new(seed))
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        // An odd step visits all 2^64 values, and neighbours look nothing alike.
        let id = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(id);
        RequestId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_becomes_ipv4() {
        let mapped: ClientAddr = "::ffff:192.0.2.7".parse().expect("an address");
        assert_eq!(mapped.ip(), IpAddr::from([192, 0, 2, 7]));
        assert_eq!(mapped.to_string(), "192.0.2.7");
        let v6: ClientAddr = "2001:db8::1".parse().expect("an address");
        assert_eq!(v6.to_string(), "2001:db8::1");
        for address in [mapped, v6, ClientAddr::from(IpAddr::from([0, 10, 99, 255]))] {
            assert_eq!(address.text(), address.to_string());
        }
    }

    #[test]
    fn request_ids_are_sixteen_digits_and_differ() {
        let ids = RequestIds::new(0);
        let (a, b) = (ids.next(), ids.next());
        assert_ne!(a, b);
        assert_eq!(a.to_string().len(), 16);
    }
}
