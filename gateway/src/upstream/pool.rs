//! A worker's connections to one backend.
//!
//! A connection is no task of its own, and an unused one is polled by nobody: it costs its memory
//! only, and a request crosses no queue between tasks.

use super::{Backend, Balance, Cause, Server, UpstreamError, connect};
use crate::metrics::{Counter, Gauge};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{net::TcpStream, time::Instant};

/// A worker's share of a backend's metrics.
#[derive(Debug)]
pub struct PoolMetrics {
    /// New connections.
    pub connected: Counter,
    /// Failed attempts at one.
    pub failed: Counter,
    /// Requests on a kept connection.
    pub reused: Counter,
    /// Connections kept now.
    pub idle: Gauge,
}

/// A worker's connections to one backend.
#[derive(Debug)]
pub struct Pool {
    backend: Arc<Backend>,
    next: Cell<usize>,
    /// For each server, the connections that nobody uses; the last one was used last.
    idle: Vec<RefCell<Vec<Idle>>>,
    metrics: PoolMetrics,
}

#[derive(Debug)]
struct Idle {
    io: TcpStream,
    since: Instant,
}

/// A connection in use, and where it belongs. Dropped, it is closed.
#[derive(Debug)]
pub struct Lease {
    /// The connection.
    pub io: TcpStream,
    server: usize,
    is_reused: bool,
    pool: Rc<Pool>,
}

impl Pool {
    /// No connections yet.
    pub fn new(backend: Arc<Backend>, metrics: PoolMetrics) -> Self {
        let idle = backend.servers.iter().map(|_| RefCell::default()).collect();
        Self { backend, next: Cell::new(0), idle, metrics }
    }

    /// What the pool connects to.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// A connection to one of the servers: one that is kept, or a new one within the deadline.
    ///
    /// # Errors
    /// Fails as [`connect`] does.
    pub async fn lease(self: &Rc<Self>, deadline: Duration) -> Result<Lease, UpstreamError> {
        let server = self.choose();
        match self.take_idle(server) {
            Some(io) => Ok(Lease { io, server, is_reused: true, pool: Rc::clone(self) }),
            None => self.open(server, deadline).await,
        }
    }

    /// Opens a connection of its own, for a tunnel.
    ///
    /// # Errors
    /// Fails as [`connect`] does.
    pub async fn tunnel(&self, deadline: Duration) -> Result<TcpStream, UpstreamError> {
        self.dial(self.choose(), deadline).await
    }

    /// Closes connections that were idle for too long, or that the server closed.
    pub fn sweep(&self) {
        let now = Instant::now();
        for idle in &self.idle {
            let before = idle.borrow().len();
            idle.borrow_mut()
                .retain(|idle| now.duration_since(idle.since) < self.backend.keep_for && is_quiet(&idle.io));
            (idle.borrow().len()..before).for_each(|_| self.metrics.idle.dec());
        }
    }

    fn choose(&self) -> usize {
        let servers = self.backend.servers.len();
        if servers == 1 {
            return 0;
        }
        let next = match self.backend.balance {
            Balance::RoundRobin => self.next.get().wrapping_add(1),
            // xorshift: spreads well enough, and asks nobody for randomness.
            Balance::Random => {
                let mut x = self.next.get() | 1;
                x ^= x << 13;
                x ^= x >> 7;
                x ^ (x << 17)
            }
        };
        self.next.set(next);
        next % servers
    }

    fn take_idle(&self, server: usize) -> Option<TcpStream> {
        let mut idle = self.idle.get(server)?.borrow_mut();
        loop {
            let Idle { io, since } = idle.pop()?;
            self.metrics.idle.dec();
            if since.elapsed() < self.backend.keep_for && is_quiet(&io) {
                self.metrics.reused.inc();
                return Some(io);
            }
        }
    }

    async fn open(self: &Rc<Self>, server: usize, deadline: Duration) -> Result<Lease, UpstreamError> {
        let io = self.dial(server, deadline).await?;
        Ok(Lease { io, server, is_reused: false, pool: Rc::clone(self) })
    }

    async fn dial(&self, server: usize, deadline: Duration) -> Result<TcpStream, UpstreamError> {
        let address = self.backend.servers.get(server);
        let connected = match address {
            Some(address) => connect(address, deadline).await,
            None => Err(Cause::Refused),
        };
        match &connected {
            Ok(_) => self.metrics.connected.inc(),
            Err(_) => self.metrics.failed.inc(),
        }
        connected.map_err(|cause| self.error(server, cause))
    }

    fn error(&self, server: usize, cause: Cause) -> UpstreamError {
        let server = self.backend.servers.get(server).map(Server::to_string).unwrap_or_default();
        UpstreamError { backend: self.backend.name.clone(), server, cause }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for idle in &self.idle {
            idle.borrow().iter().for_each(|_| self.metrics.idle.dec());
        }
    }
}

impl Lease {
    /// Whether the connection served a request before.
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// A new connection to the same server, instead of this one.
    ///
    /// # Errors
    /// Fails as [`connect`] does.
    pub async fn replace(&self, deadline: Duration) -> Result<Self, UpstreamError> {
        self.pool.open(self.server, deadline).await
    }

    /// Gives the connection back, to be used again: nothing on it is unread or unanswered.
    pub fn keep(self) {
        let Self { io, server, pool, .. } = self;
        if let Some(idle) = pool.idle.get(server)
            && idle.borrow().len() < pool.backend.keep
        {
            idle.borrow_mut().push(Idle { io, since: Instant::now() });
            pool.metrics.idle.inc();
        }
    }

    /// An error of this connection's server.
    pub fn error(&self, cause: Cause) -> UpstreamError {
        self.pool.error(self.server, cause)
    }
}

/// Whether a connection that nobody uses is still open, and silent: what a server sends without being
/// asked would be taken for the next request's answer.
fn is_quiet(io: &TcpStream) -> bool {
    // Mostly answered without a system call, from what the reactor has seen.
    match io.poll_read_ready(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => true,
        Poll::Ready(_) => {
            matches!(io.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        }
    }
}
