//! A worker's connections to servers that are known only when they are asked for: VMs, by the million.
//!
//! A VM's port that has connections has a [`Pool`] of its own; one that has none costs nothing. Unused
//! connections to all of them are bounded together.

use super::{Backend, Pool, PoolMetrics, Server, Settings};
use smallvec::SmallVec;
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    net::IpAddr,
    rc::{Rc, Weak},
    sync::Arc,
};

/// Pools below which nobody looks for those that are not needed any more, between sweeps.
const FEW: usize = 1024;

/// A worker's connections to servers that are known only when they are asked for.
#[derive(Debug)]
pub struct Fleet {
    /// What each of them is like, but for its address.
    settings: Settings,
    pools: RefCell<HashMap<Place, Rc<Pool>>>,
    /// With so many pools, those that are not needed are looked for.
    crowded: Cell<usize>,
    shelf: Rc<Shelf>,
    metrics: PoolMetrics,
}

type Place = (SmallVec<[IpAddr; 1]>, u16);

impl Fleet {
    /// No connections yet. `settings` have no servers; of unused connections, `most_idle` are kept in
    /// all.
    pub fn new(settings: Settings, most_idle: usize, metrics: PoolMetrics) -> Self {
        let shelf = Rc::new(Shelf { most: Cell::new(most_idle), ..Shelf::default() });
        Self { settings, pools: RefCell::default(), crowded: Cell::new(FEW), shelf, metrics }
    }

    /// What each server is like, and how many unused connections are kept in all.
    pub fn is_like(&self, settings: &Settings, most_idle: usize) -> bool {
        self.settings == *settings && self.shelf.most.get() == most_idle
    }

    /// Connections to this port of these addresses, which are one server's: the preferred one first.
    pub fn pool(&self, addresses: &[IpAddr], port: u16) -> Rc<Pool> {
        let place: Place = (addresses.into(), port);
        if let Some(pool) = self.pools.borrow().get(&place) {
            return Rc::clone(pool);
        }
        if self.pools.borrow().len() >= self.crowded.get() {
            self.trim();
            self.crowded.set(FEW.max(2 * self.pools.borrow().len()));
        }
        let settings = Settings { servers: vec![Server::at(addresses, port)], ..self.settings.clone() };
        let backend = Arc::new(Backend::new(settings, None));
        let pool = Rc::new(Pool::on_shelf(backend, self.metrics.clone(), Some(Rc::clone(&self.shelf))));
        self.pools.borrow_mut().insert(place, Rc::clone(&pool));
        pool
    }

    /// Closes connections that were idle for too long or that the server closed, and forgets servers
    /// that have none.
    pub fn sweep(&self) {
        self.pools.borrow().values().for_each(|pool| pool.sweep());
        self.trim();
    }

    /// Closes what is kept, and keeps nothing from now on: no new request will come.
    pub fn retire(&self) {
        self.shelf.most.set(0);
        self.pools.borrow().values().for_each(|pool| pool.retire());
    }

    /// How many servers have connections, or had some a moment ago.
    pub fn len(&self) -> usize {
        self.pools.borrow().len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn trim(&self) {
        let mut pools = self.pools.borrow_mut();
        pools.retain(|_, pool| Rc::strong_count(pool) > 1 || !pool.is_bare());
        let len = pools.len();
        if pools.capacity() > 4 * len.max(FEW) {
            pools.shrink_to(2 * len);
        }
    }
}

/// The unused connections of many pools, in the order in which they were put down.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    most: Cell<usize>,
    idle: Cell<usize>,
    next: Cell<u64>,
    /// With those that were taken again since, until there are too many of them.
    order: RefCell<VecDeque<(Weak<Pool>, u64)>>,
}

impl Shelf {
    /// A name for one more.
    pub(super) fn number(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    /// One more is unused. Where that is one too many, the one that was for longest is closed.
    pub(super) fn put(&self, pool: &Rc<Pool>, number: u64) {
        self.idle.set(self.idle.get() + 1);
        self.order.borrow_mut().push_back((Rc::downgrade(pool), number));
        while self.idle.get() > self.most.get() {
            let oldest = self.order.borrow_mut().pop_front();
            let Some((pool, number)) = oldest else { break };
            if let Some(pool) = pool.upgrade() {
                pool.discard(number);
            }
        }
        if self.order.borrow().len() > 2 * self.most.get() + 64 {
            let is_there =
                |(pool, number): &(Weak<Pool>, u64)| pool.upgrade().is_some_and(|pool| pool.has(*number));
            self.order.borrow_mut().retain(is_there);
        }
    }

    /// One is unused no longer.
    pub(super) fn taken(&self) {
        self.idle.set(self.idle.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tries;
    use super::*;
    use crate::{
        io::Stream as _,
        metrics::{Metrics, names},
    };
    use std::time::Duration;
    use tokio::net::TcpListener;

    const DEADLINE: Duration = Duration::from_secs(5);

    fn fleet(most_idle: usize) -> Fleet {
        let metrics = Metrics::new();
        let counter = || metrics.counter(&names::UPSTREAM_CONNECTS, &[]);
        let metrics = PoolMetrics {
            connected: counter(),
            failed: counter(),
            reused: counter(),
            idle: metrics.gauge(&names::UPSTREAM_IDLE, &[]),
            stale: counter(),
            servers: None,
            queue: None,
        };
        let settings = Settings { servers: Vec::new(), keep: most_idle, ..Settings::test() };
        Fleet::new(settings, most_idle, metrics)
    }

    #[tokio::test]
    async fn servers_without_connections_cost_nothing() {
        let listener = TcpListener::bind("[::1]:0").await.expect("a port");
        let here = listener.local_addr().expect("an address");
        let fleet = fleet(8);
        for port in 1..5000 {
            fleet.pool(&[here.ip()], port);
        }
        assert!(fleet.len() <= FEW, "{} without a single connection", fleet.len());
        let pool = fleet.pool(&[here.ip()], here.port());
        let lease = pool.lease(&mut Tries::of_request(1, None), DEADLINE).await.expect("a connection");
        drop(pool);
        fleet.sweep();
        assert_eq!(fleet.len(), 1, "one that is in use");
        lease.keep();
        fleet.sweep();
        assert_eq!(fleet.len(), 1, "one that is kept");
        let again = fleet.pool(&[here.ip()], here.port());
        let lease = again.lease(&mut Tries::of_request(1, None), DEADLINE).await.expect("a connection");
        assert!(lease.is_reused());
        drop((lease, again));
        fleet.sweep();
        assert_eq!((fleet.len(), fleet.shelf.idle.get()), (0, 0));
    }

    #[tokio::test]
    async fn the_connection_that_was_unused_for_longest_goes_first() {
        let mut listeners = Vec::new();
        for _ in 0..4 {
            listeners.push(TcpListener::bind("[::1]:0").await.expect("a port"));
        }
        let fleet = fleet(2);
        let pool = |n: usize| {
            let address = listeners[n].local_addr().expect("an address");
            fleet.pool(&[address.ip()], address.port())
        };
        let lease = async |n: usize| {
            pool(n).lease(&mut Tries::of_request(1, None), DEADLINE).await.expect("a connection")
        };
        for n in [0, 1, 0, 2] {
            lease(n).await.keep();
        }
        assert_eq!(fleet.shelf.idle.get(), 2);
        assert!(lease(0).await.is_reused(), "it was used again");
        assert!(!lease(1).await.is_reused(), "it went for the third");
        assert!(lease(2).await.is_reused());
        for _ in 0..1000 {
            lease(3).await.keep();
        }
        assert!(fleet.shelf.order.borrow().len() <= 70, "{}", fleet.shelf.order.borrow().len());
    }

    #[tokio::test]
    async fn one_address_that_does_not_answer_is_not_the_last() {
        let listener = TcpListener::bind("[::1]:0").await.expect("a port");
        let here = listener.local_addr().expect("an address");
        let elsewhere: IpAddr = "127.0.0.1".parse().expect("an address");
        let pool = fleet(1).pool(&[elsewhere, here.ip()], here.port());
        let lease = pool.lease(&mut Tries::of_request(1, None), DEADLINE).await.expect("a connection");
        let socket = lease.io.plain().expect("a socket");
        assert_eq!(socket.peer_addr().expect("an address"), here);
    }
}
