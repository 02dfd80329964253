//! Which server is next. Pure: who may be chosen, and how busy each is, is the caller's to know.

use super::{Balance, Server};
use std::cell::Cell;

/// A worker's place in the rotation over the servers of one backend.
#[derive(Debug)]
pub(super) struct Balancer {
    balance: Balance,
    /// Where the rotation goes on, or the state of chance.
    next: Cell<usize>,
    /// What each server's name is hashed to.
    seeds: Box<[u64]>,
}

/// What requests with the same text have in common. The same in every process, so that gateways side
/// by side choose alike.
pub fn key(text: &[u8]) -> u64 {
    // FNV-1a spreads the bytes, and `mix` the bits.
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(text.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

impl Balancer {
    pub(super) fn new(balance: Balance, servers: &[Server]) -> Self {
        let next = match balance {
            // Workers that began alike would all hit the same server at the same time.
            Balance::Random => getrandom::u64().unwrap_or_default() as usize,
            _ => 0,
        };
        let seeds = servers.iter().map(|server| key(server.to_string().as_bytes())).collect();
        Self { balance, next: Cell::new(next), seeds }
    }

    /// Goes on where this one is, over other servers.
    pub(super) fn go_on_from(&self, before: &Self) {
        let place = before.next.get();
        let is_chance = self.balance == Balance::Random;
        self.next.set(if is_chance { place } else { place.checked_rem(self.seeds.len()).unwrap_or(0) });
    }

    /// One of the servers that may be chosen; none where none may.
    pub(super) fn choose(
        &self,
        key: Option<u64>,
        may: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> usize,
    ) -> Option<usize> {
        match (self.balance, key) {
            (Balance::Key, Some(key)) => self.highest(key, may),
            (Balance::RoundRobin | Balance::Key, _) => self.take(self.rotation().find(|server| may(*server))),
            (Balance::LeastRequests, _) => {
                // Of equals, the first in the rotation is taken.
                self.take(self.rotation().filter(|server| may(*server)).min_by_key(|server| load(*server)))
            }
            (Balance::Random, _) => self.any(may),
        }
    }

    /// All servers, beginning behind the one that was chosen last: a server that is left out leaves
    /// its share to all others, and not to its neighbour.
    fn rotation(&self) -> impl Iterator<Item = usize> {
        let servers = self.seeds.len();
        let next = self.next.get();
        (next..servers).chain(0..next.min(servers))
    }

    fn take(&self, chosen: Option<usize>) -> Option<usize> {
        let chosen = chosen?;
        let next = chosen + 1;
        self.next.set(if next < self.seeds.len() { next } else { 0 });
        Some(chosen)
    }

    /// Rendezvous: each server has its own number for each key, and the highest wins. Without one of
    /// the servers, only the keys that it won go elsewhere.
    fn highest(&self, key: u64, may: impl Fn(usize) -> bool) -> Option<usize> {
        let candidates = self.seeds.iter().enumerate().filter(|(server, _)| may(*server));
        candidates.max_by_key(|(_, seed)| mix(key ^ **seed)).map(|(server, _)| server)
    }

    fn any(&self, may: impl Fn(usize) -> bool) -> Option<usize> {
        let first = self.below(self.seeds.len());
        if may(first) {
            return Some(first);
        }
        let candidates = || (0..self.seeds.len()).filter(|server| may(*server));
        candidates().nth(self.below(candidates().count()))
    }

    fn below(&self, end: usize) -> usize {
        let state = self.next.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.next.set(state);
        (mix(state as u64) as usize).checked_rem(end).unwrap_or(0)
    }
}

/// Splitmix64's last step.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancer(balance: Balance, servers: usize) -> Balancer {
        let servers: Vec<Server> =
            (0..servers).map(|n| format!("10.0.0.{n}:80").parse().expect("a server")).collect();
        Balancer::new(balance, &servers)
    }

    fn shares(balancer: &Balancer, times: usize, may: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut shares = vec![0; balancer.seeds.len()];
        for _ in 0..times {
            shares[balancer.choose(None, &may, |_| 0).expect("a server")] += 1;
        }
        shares
    }

    #[test]
    fn a_rotation_is_even_with_and_without_one_of_them() {
        for balance in [Balance::RoundRobin, Balance::LeastRequests, Balance::Key] {
            let balancer = balancer(balance, 4);
            assert_eq!(shares(&balancer, 8, |_| true), [2, 2, 2, 2], "{balance:?}");
            assert_eq!(shares(&balancer, 9, |server| server != 1), [3, 0, 3, 3], "{balance:?}");
        }
    }

    #[test]
    fn chance_is_fair_with_and_without_one_of_them() {
        let balancer = balancer(Balance::Random, 4);
        for (left_out, expected) in [(9, 1000.0), (1, 4000.0 / 3.0)] {
            let shares = shares(&balancer, 4000, |server| server != left_out);
            for (server, share) in shares.iter().enumerate().filter(|(server, _)| *server != left_out) {
                assert!((*share as f64 - expected).abs() < 200.0, "{server} got {share} of {shares:?}");
            }
        }
    }

    #[test]
    fn the_least_busy_is_taken() {
        let balancer = balancer(Balance::LeastRequests, 3);
        let loads = [2, 1, 1];
        let choose = |may: fn(usize) -> bool| balancer.choose(None, may, |server| loads[server]);
        assert_eq!([choose(|_| true), choose(|_| true), choose(|_| true)], [Some(1), Some(2), Some(1)]);
        assert_eq!(choose(|server| server == 0), Some(0));
        assert_eq!(choose(|_| false), None);
    }

    #[test]
    fn a_lost_server_moves_only_its_own_keys() {
        let balancer = balancer(Balance::Key, 5);
        let mut shares = [0; 5];
        for user in 0..5000 {
            let key = key(format!("user-{user}").as_bytes());
            let chosen = balancer.choose(Some(key), |_| true, |_| 0).expect("a server");
            shares[chosen] += 1;
            let without = balancer.choose(Some(key), |server| server != 2, |_| 0).expect("a server");
            assert_ne!(without, 2);
            assert!(chosen == 2 || chosen == without, "user {user} moved from {chosen} to {without}");
        }
        assert!(shares.iter().all(|share| (800..1200).contains(share)), "{shares:?}");
    }

    #[test]
    fn nobody_is_chosen_where_nobody_may_be() {
        for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastRequests, Balance::Key] {
            assert_eq!(balancer(balance, 3).choose(Some(1), |_| false, |_| 0), None);
        }
    }
}
