//! How much each client address may change: so many changes a second, and some more at once.

use dashmap::DashMap;
use std::{net::IpAddr, time::Duration};

/// What counts as one address: an IPv6 client has a whole network of them (RFC 6177).
fn client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        v4 => v4,
    }
}

/// Seconds' worth of changes that may come at once.
const BURST: f64 = 5.0;

/// Addresses that are remembered. Past that, those that are at rest are forgotten.
const MOST: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Rates(DashMap<IpAddr, Bucket>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Duration,
}

impl Rates {
    /// Whether an address may make one more change now, at so many a second.
    pub(super) fn admit(&self, peer: IpAddr, per_second: u32, now: Duration) -> bool {
        let peer = client(peer);
        let (rate, full) = (f64::from(per_second), f64::from(per_second) * BURST);
        let filled =
            |bucket: &Bucket| (bucket.left + now.saturating_sub(bucket.at).as_secs_f64() * rate).min(full);
        if self.0.len() >= MOST && !self.0.contains_key(&peer) {
            self.0.retain(|_, bucket| filled(bucket) < full);
            // As many at work at once are no fleet.
            if self.0.len() >= MOST {
                return false;
            }
        }
        let mut bucket = self.0.entry(peer).or_insert(Bucket { left: full, at: now });
        let left = filled(&bucket);
        *bucket = Bucket { left: if left >= 1.0 { left - 1.0 } else { left }, at: now };
        left >= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_rate() {
        let rates = Rates::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let admitted = |peer, times, now| (0..times).filter(|_| rates.admit(peer, 2, now)).count();
        assert_eq!(admitted(one, 20, Duration::ZERO), 10, "five seconds' worth at once");
        assert_eq!(admitted(other, 1, Duration::ZERO), 1);
        assert_eq!(admitted(one, 20, Duration::from_secs(1)), 2);
        assert_eq!(admitted(one, 20, Duration::from_secs(60)), 10, "and no more after a rest");
    }

    #[test]
    fn addresses_of_one_client_count_together() {
        let rates = Rates::default();
        let admitted = |address: &str| {
            let peer = address.parse().expect("an address");
            (0..20).filter(|_| rates.admit(peer, 1, Duration::ZERO)).count()
        };
        for (address, expected) in [
            ("2001:db8:0:1::1", 5),
            ("2001:db8:0:1:ffff::2", 0),
            ("2001:db8:0:2::1", 5),
            ("10.0.0.1", 5),
            ("::ffff:10.0.0.1", 0),
            ("::ffff:10.0.0.2", 5),
        ] {
            assert_eq!(admitted(address), expected, "{address}");
        }
    }

    #[test]
    fn addresses_at_rest_are_forgotten() {
        let rates = Rates::default();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        (0..20_000)
            .for_each(|number| assert!(rates.admit(address(number), 1, Duration::from_secs(number.into()))));
        assert!(rates.0.len() <= MOST);
    }
}
