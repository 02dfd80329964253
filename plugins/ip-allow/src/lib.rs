//! Lets requests pass by the address of their client.

use std::{net::IpAddr, str::FromStr};
use vers_plugin::prelude::*;

/// Lets requests pass by the address of their client.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(deny_unknown_fields)]
struct IpAllow {
    /// Who may pass, such as "10.0.0.0/8", "2001:db8::/32" or one address; by default all who are not denied.
    #[serde(default)]
    allow: Vec<Network>,
    /// Who may not, even if allowed.
    #[serde(default)]
    deny: Vec<Network>,
}

/// Addresses that begin with the same bits.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl HttpFilter for IpAllow {
    fn on_request(&self, req: &mut Request) -> Verdict {
        // What is no address is nobody's.
        let Ok(client) = req.exchange().client_address().parse() else {
            return Verdict::forbidden("no-address");
        };
        let is_in = |networks: &[Network]| networks.iter().any(|network| network.contains(client));
        if is_in(&self.deny) {
            return Verdict::forbidden("address-denied");
        }
        if self.allow.is_empty() || is_in(&self.allow) {
            return Verdict::Next;
        }
        Verdict::forbidden("address-not-allowed")
    }

    fn validate(&self, problems: &mut Problems) {
        if self.allow.is_empty() && self.deny.is_empty() {
            problems.add("", "lets everybody pass: set `allow` or `deny`");
        }
    }
}
vers_plugin::export!(IpAllow: request_filter);

impl Network {
    fn contains(&self, client: IpAddr) -> bool {
        match (self.address, client) {
            (IpAddr::V4(own), IpAddr::V4(client)) => {
                (own.to_bits() ^ client.to_bits()).checked_shr(32 - self.bits).unwrap_or_default() == 0
            }
            (IpAddr::V6(own), IpAddr::V6(client)) => {
                (own.to_bits() ^ client.to_bits()).checked_shr(128 - self.bits).unwrap_or_default() == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected an address or a network, such as \"10.0.0.0/8\"";
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| EXPECTED)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let is_number = |bits: &str| !bits.is_empty() && bits.bytes().all(|digit| digit.is_ascii_digit());
        let bits = match bits {
            None => most,
            Some(bits) if is_number(bits) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or(EXPECTED)?
            }
            Some(_) => return Err(EXPECTED),
        };
        // The gateway names IPv4 clients as such, whatever they came through.
        match address {
            IpAddr::V6(mapped) if mapped.to_ipv4_mapped().is_some() && bits >= 96 => {
                Ok(Self { address: address.to_canonical(), bits: bits - 96 })
            }
            _ => Ok(Self { address, bits }),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vers_plugin::testing;

    #[track_caller]
    fn check(table: &str, client: &str, reason: &str) {
        let plugin: IpAllow = testing::configure(table).expect("a good table");
        let verdict = plugin.on_request(&mut testing::request("GET", "/").client(client).build());
        let got = verdict.reply().map(|reply| reply.reason.as_str()).unwrap_or_default();
        assert_eq!(got, reason, "{table} {client}");
    }

    #[test]
    fn networks() {
        let table = "allow = ['10.0.0.0/8', '192.0.2.7', '2001:db8::/32', '::ffff:198.51.100.0/120']\ndeny = ['10.1.0.0/16']";
        for client in ["10.0.0.1", "10.255.0.1", "192.0.2.7", "2001:db8::1", "198.51.100.9"] {
            check(table, client, "");
        }
        for client in ["11.0.0.1", "192.0.2.8", "2001:db9::1", "198.51.101.1", "::1"] {
            check(table, client, "address-not-allowed");
        }
        check(table, "10.1.2.3", "address-denied");
        check("deny = ['0.0.0.0/0']", "192.0.2.1", "address-denied");
        check("deny = ['0.0.0.0/0']", "2001:db8::1", "");
        check("allow = ['::/0']", "192.0.2.1", "address-not-allowed");
    }

    #[test]
    fn mistakes() {
        for table in [
            "",
            "allow = []",
            "allow = ['10.0.0.0/33']",
            "allow = ['10.0.0/8']",
            "deny = ['::/129']",
            "deny = ['10.0.0.0/+8']",
            "deny = ['10.0.0.0/']",
            "allow = ['example.com']",
        ] {
            assert!(testing::configure::<IpAllow>(table).is_err(), "{table}");
        }
    }
}
