//! How many connections each client has open on a listener.

use crate::ids::ClientAddr;
use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Bits of an IPv6 address that tell who somebody is: the rest one can choose anew for each connection.
const NETWORK_BITS: u32 = 64;

/// How many connections each client has open on a listener, on all workers together.
///
/// A lock, but for an addition: it is taken where a connection begins and ends, only where there is a
/// limit, and never by a request.
#[derive(Debug, Default)]
pub struct Clients(Mutex<HashMap<IpAddr, usize>>);

/// One connection of a client, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    /// Counts one more connection, unless the client has as many as it may.
    pub fn enter(self: &Arc<Self>, client: ClientAddr, limit: usize) -> Option<Seat> {
        let client = network(client);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Seat { clients: Arc::clone(self), client })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = open.entry(self.client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

fn network(client: ClientAddr) -> IpAddr {
    match client.ip() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let host_bits = Ipv6Addr::BITS - NETWORK_BITS;
            Ipv6Addr::from_bits(address.to_bits() >> host_bits << host_bits).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_as_many_seats_as_it_may_and_gets_them_back() {
        let clients = Arc::new(Clients::default());
        let enter = |text: &str| clients.enter(text.parse().expect("an address"), 2);
        for (first, second, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:2::1"),
        ] {
            let seats = (enter(first), enter(second));
            assert!(seats.0.is_some() && seats.1.is_some(), "{first}: as many as allowed");
            assert!(enter(first).is_none() && enter(second).is_none(), "{first} and {second} are one client");
            assert!(enter(other).is_some(), "{other} is another");
            drop(seats.0);
            assert!(enter(second).is_some(), "{first}: a seat that is free again");
        }
        assert!(clients.0.lock().expect("no panic").is_empty(), "who is gone costs nothing");
    }
}
