//! Sets of ports, and addresses with several of them; parsing is the only way to make one.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
};

/// Ports, as ranges in order: `443,3000,8080-8090`. As text, each is from 1 to 65535, and there is
/// at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortSet(Box<[RangeInclusive<u16>]>);

/// What is no set of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Not a port, and not two of them.
    #[error("`{0}` is neither a port nor a range of ports")]
    NotAPort(String),
    /// A range from its end to its start.
    #[error("the range `{0}` ends before it starts")]
    Backwards(String),
}

impl PortSet {
    /// One port.
    pub fn of(port: u16) -> Self {
        Self(Box::new([port..=port]))
    }

    /// Ranges in any order; those that meet become one.
    pub fn of_ranges(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Self(merged.into())
    }

    /// Whether a port is among them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// The smallest port that is in both.
    pub fn first_common(&self, other: &Self) -> Option<u16> {
        let common = |a: &RangeInclusive<u16>, b: &RangeInclusive<u16>| {
            let start = *a.start().max(b.start());
            (start <= *a.end().min(b.end())).then_some(start)
        };
        self.0.iter().find_map(|mine| other.0.iter().find_map(|theirs| common(mine, theirs)))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().cloned().flatten()
    }

    /// The ranges, in order; no two of them meet.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        self.0.iter().cloned()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.iter().map(|range| usize::from(range.end() - range.start()) + 1).sum()
    }

    /// The only one, where there is one only.
    pub fn single(&self) -> Option<u16> {
        match &*self.0 {
            [range] if range.start() == range.end() => Some(*range.start()),
            _ => None,
        }
    }
}

impl FromStr for PortSet {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let port = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse::<u16>().ok()).flatten().filter(|port| *port > 0)
        };
        let ranges = text.split(',').map(|part| {
            let part = part.trim();
            let not_a_port = || PortError::NotAPort(part.to_owned());
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to) = port(from).zip(port(to)).ok_or_else(not_a_port)?;
            if from > to { Err(PortError::Backwards(part.to_owned())) } else { Ok(from..=to) }
        });
        ranges.collect::<Result<Vec<_>, _>>().map(Self::of_ranges)
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if range.start() == range.end() {
                write!(f, "{comma}{}", range.start())?;
            } else {
                write!(f, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

/// An IP address with one port or several: `[::]:443,3000,8080-8090`. Port 0, which lets the system
/// choose, stands alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    ip: IpAddr,
    ports: PortSet,
}

/// What is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenAddressError {
    /// Not an IP address and ports.
    #[error("`{0}` is not an address")]
    NotAnAddress(String),
    /// The address may be fine.
    #[error(transparent)]
    Ports(#[from] PortError),
}

impl ListenAddress {
    /// The IP address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The ports.
    pub fn ports(&self) -> &PortSet {
        &self.ports
    }

    /// The address, where it has one port.
    pub fn single(&self) -> Option<SocketAddr> {
        self.ports.single().map(|port| SocketAddr::new(self.ip, port))
    }

    /// Each port with the IP address.
    pub fn sockets(&self) -> impl Iterator<Item = SocketAddr> {
        self.ports.iter().map(|port| SocketAddr::new(self.ip, port))
    }

    /// Whether this socket, as configured, is one of them.
    pub fn contains(&self, socket: SocketAddr) -> bool {
        self.ip == socket.ip() && self.ports.contains(socket.port())
    }

    /// A port that two listeners cannot both have. A socket on `[::]` takes IPv4 connections too, so
    /// `0.0.0.0` beside it has nothing left; ports that the system chooses meet nobody's.
    pub fn clash(&self, other: &Self) -> Option<u16> {
        let same_ip = self.ip == other.ip || (self.ip.is_unspecified() && other.ip.is_unspecified());
        self.ports.first_common(&other.ports).filter(|port| same_ip && *port != 0)
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip(), ports: PortSet::of(address.port()) }
    }
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let not_an_address = || ListenAddressError::NotAnAddress(text.to_owned());
        let (host, ports) = text.rsplit_once(':').ok_or_else(not_an_address)?;
        let ip = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.and_then(|v6| v6.parse().ok()).map(IpAddr::V6),
            None => host.parse().ok().map(IpAddr::V4),
        };
        Ok(Self { ip: ip.ok_or_else(not_an_address)?, ports: ports.parse()? })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.ports),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.ports),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> PortSet {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn sets_are_in_order_and_print_as_they_are_read() {
        for (text, printed, count) in [
            ("443", "443", 1),
            ("443,3000,8080-8090", "443,3000,8080-8090", 13),
            ("8080-8090, 443", "443,8080-8090", 12),
            ("1-65535", "1-65535", 65535),
            ("1-10,5-20,21,30", "1-21,30", 22),
            ("65535,65534", "65534-65535", 2),
            ("7-7", "7", 1),
        ] {
            let set = set(text);
            assert_eq!((set.to_string().as_str(), set.count()), (printed, count), "{text}");
            assert_eq!(set.iter().count(), count, "{text}");
            assert_eq!(set.to_string().parse(), Ok(set), "{text}");
        }
        assert!(set("443,8080-8090").contains(8090) && !set("443,8080-8090").contains(8091));
        assert_eq!(set("7-7").single(), Some(7));
        assert_eq!(set("7-8").single(), None);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["", ",", "443,", "0", "0-10", "65536", "1-65536", "-", "1-", "-1", "+1", "1-2-3", "a"] {
            assert!(matches!(text.parse::<PortSet>(), Err(PortError::NotAPort(_))), "{text:?}");
        }
        assert_eq!("9-8".parse::<PortSet>(), Err(PortError::Backwards("9-8".to_owned())));
    }

    #[test]
    fn addresses() {
        for good in ["[::]:0", "[::1]:443", "0.0.0.0:80,443", "[::]:1024-65535", "127.0.0.1:1-2,9"] {
            assert_eq!(good.parse::<ListenAddress>().map(|a| a.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", ":80", "::1:80,81", "localhost:80-81", "[::1:80,81", "[127.0.0.1]:80-81", "[::]"] {
            let error = bad.parse::<ListenAddress>().expect_err(bad);
            assert!(matches!(error, ListenAddressError::NotAnAddress(_)), "{bad}: {error:?}");
        }
        assert!(matches!("[::]:0,80".parse::<ListenAddress>(), Err(ListenAddressError::Ports(_))));
    }

    #[test]
    fn two_listeners_cannot_have_the_same_port() {
        let clash = |a: &str, b: &str| {
            let parse = |text: &str| text.parse::<ListenAddress>().expect("an address");
            parse(a).clash(&parse(b))
        };
        assert_eq!(clash("[::]:1-100", "0.0.0.0:50-60"), Some(50));
        assert_eq!(clash("[::]:80", "[::]:443,8080"), None);
        assert_eq!(clash("[::1]:80", "[::]:80"), None, "the more specific one gets its connections");
        assert_eq!(clash("[::]:0", "[::]:0"), None);
    }
}
