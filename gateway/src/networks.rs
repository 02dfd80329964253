//! Where an address may lead that somebody else than the operator named.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds tell a machine what nobody else should know, outside of link-local networks: Alibaba's and Oracle's
/// metadata servers, and those of AWS and of Google on IPv6.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Networks that somebody else may lead this gateway, and its clients, into.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Networks {
    /// All, where the operator says who is where.
    All,
    /// All but loopback, link-local ones and metadata servers of clouds, where somebody else says that: these would
    /// open to others what is not meant for them. The other addresses of this machine and its network, only the
    /// operator knows.
    Others,
    /// These.
    Of(Vec<IpNet>),
}

impl Networks {
    /// Whether it is one machine's address, and in one of them. An IPv4 address that is written as an IPv6
    /// one (RFC 4291 §2.5.5.2) is the IPv4 address.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        // These would lead to this machine, and to many.
        if address.is_unspecified() || address.is_multicast() {
            return false;
        }
        match (self, address) {
            (Self::All, _) => true,
            (Self::Others, _) if METADATA.contains(&address) => false,
            (Self::Others, IpAddr::V4(ip)) => !ip.is_loopback() && !ip.is_link_local(),
            (Self::Others, IpAddr::V6(ip)) => !ip.is_loopback() && !ip.is_unicast_link_local(),
            (Self::Of(networks), _) => networks.iter().any(|network| network.contains(&address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_where_something_is_does_not_lead_into_the_gateways_own_machine() {
        let written = ["2001:db8::/32", "127.0.0.0/8"].map(|network| network.parse().expect("a network"));
        let of = Networks::Of(written.to_vec());
        for (address, is_one, is_others, is_written) in [
            ("2001:db8::1", true, true, true),
            ("2001:db9::1", true, true, false),
            ("::1", true, false, false),
            ("fe80::1", true, false, false),
            ("127.0.0.1", true, false, true),
            ("::ffff:127.0.0.1", true, false, true),
            ("169.254.169.254", true, false, false),
            ("fd00::1", true, true, false),
            ("fd00:ec2::254", true, false, false),
            ("fd20:ce::254", true, false, false),
            ("100.100.100.200", true, false, false),
            ("::ffff:192.0.0.192", true, false, false),
            ("::", false, false, false),
            ("::ffff:0.0.0.0", false, false, false),
            ("ff02::1", false, false, false),
            ("224.0.0.1", false, false, false),
        ] {
            let address = address.parse().expect("an address");
            let found = [&Networks::All, &Networks::Others, &of].map(|networks| networks.contain(address));
            assert_eq!(found, [is_one, is_others, is_written], "{address}");
        }
    }
}
