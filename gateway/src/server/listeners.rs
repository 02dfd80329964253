//! The listeners of one worker: started, kept or drained by the difference of two generations.

use super::Generation;
use crate::{
    drain::Drain,
    ids::ClientAddr,
    listen::{Accepted, Acceptor, Bound, BoundPort, Counts, Crowd, Entrance, Seat},
    metrics::{Counter, Gauge, Metrics, names},
    proxy::{self, Arrival, Worker},
    snapshot::{Listener, Local, Mode},
};
use socket2::SockRef;
use std::{
    cell::{OnceCell, RefCell},
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tokio::{
    net::TcpStream,
    task::{JoinHandle, spawn_local},
};

/// The listeners of one worker.
pub(super) struct Listeners {
    /// Which of the sockets are this worker's.
    index: usize,
    worker: Rc<Worker>,
    metrics: Arc<Metrics>,
    /// By configured address.
    running: HashMap<SocketAddr, Running>,
    /// One for each listener.
    doors: Vec<Rc<Door>>,
    /// The sockets that are all workers', once there are any, and the task that accepts on them.
    crowd: Option<(Rc<Crowd<Door>>, JoinHandle<()>)>,
    /// Those that are gone, while connections of them live.
    draining: Vec<Drain>,
}

/// One port that is listened on.
enum Running {
    /// By a socket of this worker.
    Own { drain: Drain, last: Last },
    /// By the socket of all, under this number.
    Shared { door: Rc<Door>, number: u64 },
}

/// What a listener served with before it went: the kernel may have accepted connections for it that
/// nobody has taken yet. Empty as long as the listener is there.
type Last = Rc<OnceCell<Rc<Local>>>;

impl Listeners {
    pub(super) fn new(index: usize, worker: Rc<Worker>, metrics: Arc<Metrics>) -> Self {
        let (running, doors, draining) = (HashMap::new(), Vec::new(), Vec::new());
        Self { index, worker, metrics, running, doors, crowd: None, draining }
    }

    /// Starts sockets that are new, drains those that are gone, and leaves the others alone.
    /// `previous` is what the worker ran on until now.
    pub(super) fn apply(&mut self, generation: &Generation, previous: &Rc<Local>) {
        self.draining.retain(|drain| drain.live() > 0);
        let sockets = || generation.sockets.iter().flat_map(|bound| &bound.sockets);
        let wanted: HashSet<SocketAddr> = sockets().map(|socket| socket.configured).collect();
        let gone: Vec<SocketAddr> =
            self.running.keys().filter(|address| !wanted.contains(*address)).copied().collect();
        for address in gone {
            self.end(address, previous);
        }
        self.doors.retain(|door| generation.sockets.iter().any(|bound| door.is_of(bound)));
        for (listener, bound) in generation.snapshot.listeners.iter().zip(&generation.sockets) {
            let door = self.door(&listener.name, bound);
            for port in &bound.sockets {
                if !self.running.contains_key(&port.configured) {
                    self.start(port, &door);
                }
            }
        }
    }

    /// Drains all of them.
    pub(super) fn drain(&mut self) {
        let local = self.worker.local();
        let all: Vec<SocketAddr> = self.running.keys().copied().collect();
        for address in all {
            self.end(address, &local);
        }
        if let Some((_, accepting)) = self.crowd.take() {
            accepting.abort();
        }
    }

    /// Waits until nothing of the drained ones is left.
    pub(super) async fn drained(&self) {
        for drain in &self.draining {
            drain.finished().await;
        }
    }

    /// The door of a listener, under its present name.
    fn door(&mut self, name: &str, bound: &Arc<Bound>) -> Rc<Door> {
        if let Some(door) = self.doors.iter().find(|door| door.is_of(bound)) {
            if door.metrics.borrow().listener != name {
                door.metrics.replace(DoorMetrics::new(&self.metrics, name));
            }
            return Rc::clone(door);
        }
        let door = Rc::new(Door {
            counts: Arc::clone(&bound.counts),
            worker: Rc::clone(&self.worker),
            shared: RefCell::default(),
            metrics: RefCell::new(DoorMetrics::new(&self.metrics, name)),
        });
        self.doors.push(Rc::clone(&door));
        door
    }

    fn start(&mut self, port: &Arc<BoundPort>, door: &Rc<Door>) {
        let address = port.configured;
        let running = match port.take(self.index) {
            Some(socket) => Acceptor::new(socket).map(|acceptor| {
                let (drain, last) = (Drain::new(), Last::default());
                let guard = drain.guard();
                let (door, its_drain, its_last) = (Rc::clone(door), drain.clone(), Rc::clone(&last));
                let entrance = port.entrance();
                spawn_local(acceptor.run(guard, move |accepted| {
                    door.on_accept(entrance, &its_drain, its_last.get(), accepted);
                }));
                Running::Own { drain, last }
            }),
            None if port.shared().is_none() => return,
            None => self.crowd().and_then(|crowd| {
                let number = crowd.add(port, Rc::clone(door))?;
                Ok(Running::Shared { door: Rc::clone(door), number })
            }),
        };
        match running {
            Ok(running) => drop(self.running.insert(address, running)),
            Err(error) => tracing::error!(%address, %error, "a listener could not be started on a worker"),
        }
    }

    fn end(&mut self, address: SocketAddr, previous: &Rc<Local>) {
        match self.running.remove(&address) {
            Some(Running::Own { drain, last }) => {
                // A listener goes once, so nothing is there yet.
                let _ = last.set(Rc::clone(previous));
                drain.start();
                self.draining.push(drain);
            }
            Some(Running::Shared { door, number }) => {
                let drain = door.drain_of(address);
                drain.start();
                if let Some((crowd, _)) = &self.crowd {
                    crowd.remove(number, |door, entrance, accepted| {
                        door.on_accept(entrance, &drain, Some(previous), accepted);
                    });
                }
                door.shared.borrow_mut().remove(&address);
                if drain.live() > 0 {
                    self.draining.push(drain);
                }
            }
            None => {}
        }
    }

    fn crowd(&mut self) -> io::Result<Rc<Crowd<Door>>> {
        if let Some((crowd, _)) = &self.crowd {
            return Ok(Rc::clone(crowd));
        }
        let crowd = Rc::new(Crowd::new()?);
        let accepting = Rc::clone(&crowd);
        let task = spawn_local(async move {
            let on_accept = |door: &Rc<Door>, entrance: Entrance, accepted| {
                door.on_accept(entrance, &door.drain_of(entrance.configured), None, accepted);
            };
            accepting.accept(on_accept).await;
        });
        self.crowd = Some((Rc::clone(&crowd), task));
        Ok(crowd)
    }
}

/// Where connections of one listener come in on one worker.
struct Door {
    counts: Arc<Counts>,
    worker: Rc<Worker>,
    /// Of ports whose socket is all workers': those that have had connections.
    shared: RefCell<HashMap<SocketAddr, Drain>>,
    metrics: RefCell<DoorMetrics>,
}

struct DoorMetrics {
    listener: String,
    accepted: Counter,
    active: Gauge,
    over_limit: Counter,
    over_share: Counter,
    unproxied: Counter,
    port: Counter,
    failed: Counter,
}

impl DoorMetrics {
    fn new(metrics: &Metrics, listener: &str) -> Self {
        let labels = [("listener", listener)];
        let rejected = |reason| {
            metrics.counter(&names::CONNECTIONS_REJECTED, &[("listener", listener), ("reason", reason)])
        };
        Self {
            listener: listener.to_owned(),
            accepted: metrics.counter(&names::CONNECTIONS, &labels),
            active: metrics.gauge(&names::CONNECTIONS_ACTIVE, &labels),
            over_limit: rejected("limit"),
            over_share: rejected("client"),
            unproxied: rejected("proxy-protocol"),
            port: rejected("port"),
            failed: metrics.counter(&names::ACCEPT_ERRORS, &labels),
        }
    }
}

impl Door {
    fn is_of(&self, bound: &Bound) -> bool {
        Arc::ptr_eq(&self.counts, &bound.counts)
    }

    fn drain_of(&self, address: SocketAddr) -> Drain {
        self.shared.borrow_mut().entry(address).or_default().clone()
    }

    /// `last` is what the listener served with, where it is gone.
    fn on_accept(
        self: &Rc<Self>,
        entrance: Entrance,
        drain: &Drain,
        last: Option<&Rc<Local>>,
        accepted: Accepted,
    ) {
        match accepted {
            Accepted::Connection(stream, peer) => self.enter(entrance, drain, last, stream, peer),
            Accepted::Failed(error) => {
                self.metrics.borrow().failed.inc();
                if let Some(times) = self.counts.trouble.happened(Instant::now()) {
                    tracing::warn!(
                        listener = %entrance.configured, %error, times,
                        "cannot accept connections; those that are open go on, and it is tried again"
                    );
                }
            }
        }
    }

    fn enter(
        self: &Rc<Self>,
        entrance: Entrance,
        drain: &Drain,
        last: Option<&Rc<Local>>,
        stream: TcpStream,
        peer: SocketAddr,
    ) {
        let metrics = self.metrics.borrow();
        metrics.accepted.inc();
        let inside = Inside::new(&self.counts, &metrics.active);
        let local = last.cloned().unwrap_or_else(|| self.worker.local());
        let Some(listener) = local.shared.listener(entrance.configured).map(Arc::clone) else { return };
        if self.counts.open.load(Ordering::Relaxed) > listener.connections {
            metrics.over_limit.inc();
            return refuse(&listener, &stream, proxy::TOO_MANY_CONNECTIONS);
        }
        let Ok(seat) = self.seat(&listener, peer.into()) else {
            metrics.over_share.inc();
            return refuse(&listener, &stream, proxy::TOO_MANY_CONNECTIONS_PER_CLIENT);
        };
        let (door, guard) = (Rc::clone(self), drain.guard());
        // In a place of its own: the runtime moves a task's future about, and this one is large.
        spawn_local(Box::pin(async move {
            let Some((arrival, seat)) = door.arrive(&listener, &stream, (peer, entrance.port), seat).await
            else {
                return;
            };
            let worker = Rc::clone(&door.worker);
            drop(door);
            let listener = (listener, entrance.configured.port());
            let served = proxy::serve(stream, arrival, local, listener, worker, guard);
            if let Some(tunnel) = served.await {
                spawn_local(async move {
                    let _inside = (inside, seat);
                    tunnel.run().await;
                });
            }
        }));
    }

    /// Finds out who has come, and what for. Who comes by a trusted proxy is counted only now.
    async fn arrive(
        &self,
        listener: &Listener,
        stream: &TcpStream,
        (peer, port): (SocketAddr, u16),
        mut seat: Option<Seat>,
    ) -> Option<(Arrival, Option<Seat>)> {
        let arrival = match Arrival::of(stream, (peer, port), listener, &self.worker).await {
            Ok(arrival) => arrival,
            Err(error) => {
                self.metrics.borrow().unproxied.inc();
                tracing::debug!(%peer, %error, "a connection was closed before it began");
                return None;
            }
        };
        if arrival.is_proxied {
            match self.seat(listener, arrival.peer) {
                Ok(its) => seat = its,
                Err(Taken) => {
                    self.metrics.borrow().over_share.inc();
                    refuse(listener, stream, proxy::TOO_MANY_CONNECTIONS_PER_CLIENT);
                    return None;
                }
            }
        }
        if !listener.ports.allow(arrival.port) {
            self.metrics.borrow().port.inc();
            // Who speaks no HTTP cannot be told why.
            listener.modes.of(arrival.port).requests()?;
        }
        Some((arrival, seat))
    }

    /// Counts a connection as its client's, where those have a limit. A trusted proxy brings many
    /// clients.
    fn seat(&self, listener: &Listener, client: ClientAddr) -> Result<Option<Seat>, Taken> {
        let Some(limit) = listener.connections_per_client else { return Ok(None) };
        if listener.trusts(client.ip()) {
            return Ok(None);
        }
        self.counts.clients.enter(client, limit).map(Some).ok_or(Taken)
    }
}

/// Best effort, and it costs nothing: the socket's buffer is empty.
fn refuse(listener: &Listener, stream: &TcpStream, answer: &[u8]) {
    if matches!(listener.modes.other, Mode::Http(_)) && listener.tls.is_none() {
        // Of a new connection, the runtime knows nothing yet.
        let _ = SockRef::from(stream).send(answer);
    }
}

/// A client has as many connections as it may.
struct Taken;

/// Counts one open connection, however it ends.
struct Inside {
    counts: Arc<Counts>,
    active: Gauge,
}

impl Inside {
    fn new(counts: &Arc<Counts>, active: &Gauge) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        active.inc();
        Self { counts: Arc::clone(counts), active: active.clone() }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
        self.active.dec();
    }
}
