//! The listeners of one worker: started, kept or drained by the difference of two generations.

use super::Generation;
use crate::{
    drain::Drain,
    ids::ClientAddr,
    listen::{Accepted, Bound, Seat, accept_loop},
    metrics::{Counter, Gauge, Metrics, names},
    proxy::{self, Worker},
    snapshot::{Listener, Local, Mode},
};
use std::{
    cell::OnceCell,
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tokio::{net::TcpListener, net::TcpStream, task::spawn_local};

/// The listeners of one worker.
pub(super) struct Listeners {
    /// Which of the sockets are this worker's.
    index: usize,
    worker: Rc<Worker>,
    metrics: Arc<Metrics>,
    /// By configured address.
    running: HashMap<SocketAddr, Running>,
    /// Those that are gone, while connections of them live.
    draining: Vec<Drain>,
}

struct Running {
    drain: Drain,
    last: Last,
}

/// What a listener served with before it went: the kernel may have accepted connections for it that
/// nobody has taken yet. Empty as long as the listener is there.
type Last = Rc<OnceCell<Rc<Local>>>;

impl Listeners {
    pub(super) fn new(index: usize, worker: Rc<Worker>, metrics: Arc<Metrics>) -> Self {
        Self { index, worker, metrics, running: HashMap::new(), draining: Vec::new() }
    }

    /// Starts listeners that are new, drains those that are gone, and leaves the others alone.
    /// `previous` is what the worker ran on until now.
    pub(super) fn apply(&mut self, generation: &Generation, previous: &Rc<Local>) {
        self.draining.retain(|drain| drain.live() > 0);
        let wanted = &generation.snapshot.listeners;
        let gone: Vec<SocketAddr> = self
            .running
            .keys()
            .filter(|address| wanted.iter().all(|listener| listener.address != **address))
            .copied()
            .collect();
        for address in gone {
            if let Some(running) = self.running.remove(&address) {
                // A listener goes once, so nothing is there yet.
                let _ = running.last.set(Rc::clone(previous));
                running.drain.start();
                self.draining.push(running.drain);
            }
        }
        for (listener, bound) in wanted.iter().zip(&generation.sockets) {
            if !self.running.contains_key(&listener.address) {
                self.start(listener.address, &listener.name, bound);
            }
        }
    }

    /// Drains all of them.
    pub(super) fn drain(&mut self) {
        self.draining.extend(self.running.drain().map(|(_, running)| running.drain).inspect(Drain::start));
    }

    /// Waits until nothing of the drained ones is left.
    pub(super) async fn drained(&self) {
        for drain in &self.draining {
            drain.finished().await;
        }
    }

    fn start(&mut self, address: SocketAddr, name: &str, bound: &Arc<Bound>) {
        let Some(socket) = bound.take(self.index) else { return };
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                return tracing::error!(%address, %error, "a listener could not be started on a worker");
            }
        };
        let (drain, last) = (Drain::new(), Last::default());
        let door = Door {
            address,
            last: Rc::clone(&last),
            bound: Arc::clone(bound),
            worker: Rc::clone(&self.worker),
            drain: drain.clone(),
            metrics: DoorMetrics::new(&self.metrics, name),
        };
        let guard = drain.guard();
        spawn_local(accept_loop(listener, guard, move |accepted| door.on_accept(accepted)));
        self.running.insert(address, Running { drain, last });
    }
}

/// Where connections of one listener come in on one worker.
struct Door {
    address: SocketAddr,
    last: Last,
    bound: Arc<Bound>,
    worker: Rc<Worker>,
    drain: Drain,
    metrics: DoorMetrics,
}

struct DoorMetrics {
    accepted: Counter,
    active: Gauge,
    over_limit: Counter,
    over_share: Counter,
    failed: Counter,
}

impl DoorMetrics {
    fn new(metrics: &Metrics, listener: &str) -> Self {
        let labels = [("listener", listener)];
        let rejected = |reason| {
            metrics.counter(&names::CONNECTIONS_REJECTED, &[("listener", listener), ("reason", reason)])
        };
        Self {
            accepted: metrics.counter(&names::CONNECTIONS, &labels),
            active: metrics.gauge(&names::CONNECTIONS_ACTIVE, &labels),
            over_limit: rejected("limit"),
            over_share: rejected("client"),
            failed: metrics.counter(&names::ACCEPT_ERRORS, &labels),
        }
    }
}

impl Door {
    fn on_accept(&self, accepted: Accepted) {
        match accepted {
            Accepted::Connection(stream, peer) => self.enter(stream, peer),
            Accepted::Failed(error) => {
                self.metrics.failed.inc();
                if let Some(times) = self.bound.trouble.happened(Instant::now()) {
                    tracing::warn!(
                        listener = %self.address, %error, times,
                        "cannot accept connections; those that are open go on, and it is tried again"
                    );
                }
            }
        }
    }

    fn enter(&self, stream: TcpStream, peer: SocketAddr) {
        self.metrics.accepted.inc();
        let inside = Inside::new(&self.bound, &self.metrics.active);
        let local = self.last.get().cloned().unwrap_or_else(|| self.worker.local());
        let listener = local.shared.listener(self.address);
        let Some(listener) = listener else { return };
        let is_http = matches!(listener.mode, Mode::Http(_)) && listener.tls.is_none();
        let refuse = |counter: &Counter, answer: &[u8]| {
            counter.inc();
            if is_http {
                // Best effort, and it costs nothing: the socket's buffer is empty.
                let _ = stream.try_write(answer);
            }
        };
        if self.bound.open.load(Ordering::Relaxed) > listener.connections {
            return refuse(&self.metrics.over_limit, proxy::TOO_MANY_CONNECTIONS);
        }
        let seat = match self.seat(listener, peer.into()) {
            Ok(seat) => seat,
            Err(Taken) => {
                return refuse(&self.metrics.over_share, proxy::TOO_MANY_CONNECTIONS_PER_CLIENT);
            }
        };
        // A socket that is dead already says so at the first read.
        let _ = stream.set_nodelay(true);
        let (worker, guard, address) = (Rc::clone(&self.worker), self.drain.guard(), self.address);
        spawn_local(async move {
            let tunnel = proxy::serve(stream, peer, local, address, worker, guard).await;
            if let Some(tunnel) = tunnel {
                spawn_local(async move {
                    let _inside = (inside, seat);
                    tunnel.run().await;
                });
            }
        });
    }

    /// Counts a connection as its client's, where those have a limit. A trusted proxy brings many
    /// clients.
    fn seat(&self, listener: &Listener, client: ClientAddr) -> Result<Option<Seat>, Taken> {
        let Some(limit) = listener.connections_per_client else { return Ok(None) };
        if listener.trusted_proxies.iter().any(|network| network.contains(&client.ip())) {
            return Ok(None);
        }
        self.bound.clients.enter(client, limit).map(Some).ok_or(Taken)
    }
}

/// A client has as many connections as it may.
struct Taken;

/// Counts one open connection, however it ends.
struct Inside {
    bound: Arc<Bound>,
    active: Gauge,
}

impl Inside {
    fn new(bound: &Arc<Bound>, active: &Gauge) -> Self {
        bound.open.fetch_add(1, Ordering::Relaxed);
        active.inc();
        Self { bound: Arc::clone(bound), active: active.clone() }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.bound.open.fetch_sub(1, Ordering::Relaxed);
        self.active.dec();
    }
}
