//! A worker's connections to one backend.
//!
//! A connection is no task of its own, and an unused one is polled by nobody: it costs its memory
//! only, and a request crosses no queue between tasks.

use super::{
    Asked, Backend, Cause, Io, Limits, Local, Member, PoolMetrics, Seat, Server, Speaks, UpstreamError,
    balance::Balancer,
    connect::{announce, cause, connect_any, open, within},
    fleet::Shelf,
    names::Name,
    queue::Full,
    seat::Room,
};
use crate::{http1::HeadLimits, http2::Client, metrics::Gauge, proxy_protocol::Ends};
use smallvec::SmallVec;
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    task::spawn_local,
    time::{Instant, timeout},
};

/// A worker's connections to one backend.
#[derive(Debug)]
pub struct Pool {
    backend: Arc<Backend>,
    balancer: Balancer,
    /// In the order of the servers. A pool that takes this one's place has those of servers that stay.
    places: Vec<Rc<Place>>,
    /// Where unused connections of many pools are counted together.
    shelf: Option<Rc<Shelf>>,
    metrics: PoolMetrics,
    /// The last connection of HTTP/2.
    last_shared: Cell<u64>,
    /// The pool of the servers of now, where somebody else tells them: this one has none then.
    followed: Option<Followed>,
}

/// Connections to servers that somebody else tells.
#[derive(Debug)]
struct Followed {
    servers: RefCell<watch::Receiver<Arc<Backend>>>,
    pool: RefCell<Rc<Pool>>,
    /// Whether new requests use other pools.
    is_retired: Cell<bool>,
}

/// What a worker has of one server.
#[derive(Debug)]
struct Place {
    /// Connections that nobody uses; the last one was used last.
    idle: RefCell<Vec<Idle>>,
    /// Connections of HTTP/2, whoever uses them.
    shared: RefCell<Vec<Shared>>,
    /// One permit: opening another of them.
    opening: Semaphore,
    /// Requests and tunnels under way.
    load: Rc<Cell<usize>>,
    /// Where its address must be looked up.
    name: Option<Rc<Name>>,
    /// Whether nothing is kept any more: no new request will come.
    is_retired: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    /// Its own connection, with or without TLS.
    io: Io,
    since: Instant,
    /// Whose it is, where the server was told.
    client: Option<Ends>,
    /// By which the shelf knows it, where there is one.
    number: u64,
}

/// A connection of HTTP/2.
#[derive(Debug)]
struct Shared {
    client: Client,
    /// Whose it is, where the server was told.
    owner: Option<Ends>,
    /// By which its end of use is told.
    id: u64,
    /// By which the shelf knows it, while nobody uses it.
    unused: Option<u64>,
}

/// A connection in use, and where it belongs. Dropped, it is closed.
#[derive(Debug)]
pub struct Lease {
    /// The connection, or the stream.
    pub io: Io,
    seat: Seat,
    is_reused: bool,
    client: Option<Ends>,
    pool: Rc<Pool>,
}

/// How often something may be tried on another server, and where it has been.
#[derive(Debug)]
pub struct Tries<'a> {
    key: Option<u64>,
    left: u32,
    been: SmallVec<[usize; 4]>,
    only_new: bool,
    client: Option<&'a Ends>,
    /// Whether a connection has been replaced already. A shared one that a server refuses each request
    /// on is found again and again.
    is_replaced: bool,
    /// Where HTTP/2 is spoken: what the heads of answers may have.
    http2: Option<HeadLimits>,
}

impl Place {
    fn new(server: &Server) -> Self {
        Self {
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Semaphore::new(1),
            load: Rc::default(),
            name: server.has_name().then(Rc::default),
            is_retired: Cell::new(false),
        }
    }

    /// How many connections nobody uses.
    fn unused(&self) -> usize {
        let shared = self.shared.borrow();
        self.idle.borrow().len() + shared.iter().filter(|shared| shared.unused.is_some()).count()
    }

    /// The connection of HTTP/2 that nobody has used for longest.
    fn oldest_shared(&self) -> Option<u64> {
        let shared = self.shared.borrow();
        let unused = shared.iter().filter(|shared| shared.unused.is_some());
        unused.max_by_key(|shared| shared.client.idle()).map(|shared| shared.id)
    }
}

impl<'a> Tries<'a> {
    /// For a request: so many attempts, the first among them. Requests with the same key go to the
    /// same server, where the backend has it so.
    pub fn of_request(attempts: u32, key: Option<u64>) -> Self {
        Self {
            key,
            left: attempts.saturating_sub(1),
            been: SmallVec::new(),
            only_new: false,
            client: None,
            is_replaced: false,
            http2: None,
        }
    }

    /// The same, over HTTP/2, where the heads of answers may have this.
    pub fn over_http2(self, heads: HeadLimits) -> Self {
        Self { http2: Some(heads), ..self }
    }

    /// For a tunnel, which needs a connection that nobody had before.
    pub fn of_tunnel(attempts: u32) -> Self {
        Self { only_new: true, ..Self::of_request(attempts, None) }
    }

    /// On behalf of this client, for servers that want to know.
    #[must_use]
    pub fn of_client(self, client: Option<&'a Ends>) -> Self {
        Self { client, ..self }
    }
}

impl Pool {
    /// No connections yet.
    pub fn new(backend: Arc<Backend>, metrics: PoolMetrics) -> Self {
        Self::on_shelf(backend, metrics, None)
    }

    /// The same, with its unused connections on this shelf.
    pub(super) fn on_shelf(backend: Arc<Backend>, metrics: PoolMetrics, shelf: Option<Rc<Shelf>>) -> Self {
        let places = backend.settings.servers.iter().map(|server| Rc::new(Place::new(server))).collect();
        let followed = backend.roster().map(|roster| {
            let mut servers = roster.subscribe();
            let now = Arc::clone(&servers.borrow_and_update());
            let pool = RefCell::new(Rc::new(Self::on_shelf(now, metrics.clone(), None)));
            Followed { servers: RefCell::new(servers), pool, is_retired: Cell::new(false) }
        });
        let mut pool = Self::at(backend, metrics, shelf, places);
        pool.followed = followed;
        pool
    }

    fn at(
        backend: Arc<Backend>,
        metrics: PoolMetrics,
        shelf: Option<Rc<Shelf>>,
        places: Vec<Rc<Place>>,
    ) -> Self {
        let balancer = Balancer::new(backend.settings.balance, &backend.settings.servers);
        Self { backend, balancer, places, shelf, metrics, last_shared: Cell::new(0), followed: None }
    }

    /// Connections to the servers of now. Those to servers that stayed go on, and requests that began
    /// before end as they began.
    fn current(followed: &Followed) -> Rc<Self> {
        let mut servers = followed.servers.borrow_mut();
        // Its backend tells them, and is here as long as this is.
        if servers.has_changed().unwrap_or(false) {
            let now = Arc::clone(&servers.borrow_and_update());
            let next = Rc::new(followed.pool.borrow().succeed(now));
            if followed.is_retired.get() {
                next.retire();
            }
            followed.pool.replace(next);
        }
        Rc::clone(&followed.pool.borrow())
    }

    /// A pool of other servers, with this one's connections to those that are its own, too.
    fn succeed(&self, backend: Arc<Backend>) -> Self {
        let mut known: HashMap<&Server, VecDeque<&Rc<Place>>> = HashMap::with_capacity(self.places.len());
        for (server, place) in self.backend.settings.servers.iter().zip(&self.places) {
            known.entry(server).or_default().push_back(place);
        }
        let mut place = |server: &Server| {
            let stays = known.get_mut(server).and_then(VecDeque::pop_front);
            stays.map_or_else(|| Rc::new(Place::new(server)), Rc::clone)
        };
        let places = backend.settings.servers.iter().map(&mut place).collect();
        known.values().flatten().for_each(|gone| self.give_up(gone));
        let next = Self::at(backend, self.metrics.clone(), None, places);
        next.balancer.go_on_from(&self.balancer);
        next.last_shared.set(self.last_shared.get());
        next
    }

    /// What the pool connects to.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// A connection to one of the servers: one that is kept, or a new one, each attempt at which has
    /// this long. A server that takes no connection has seen nothing of the request, so the next one
    /// is tried.
    ///
    /// # Errors
    /// Fails where none of those tried takes a connection, and where none has room in time.
    pub async fn lease(
        self: &Rc<Self>,
        tries: &mut Tries<'_>,
        deadline: Duration,
    ) -> Result<Lease, UpstreamError> {
        let current = self.followed.as_ref().map(Self::current);
        let pool = current.as_ref().unwrap_or(self);
        let is_first = pool.backend.settings.limits.is_none() || pool.backend.queue().is_empty();
        let seat = match is_first.then(|| pool.enter(tries)).flatten() {
            Some(seat) => match pool.kept(seat, tries) {
                Ok(lease) => return Ok(lease),
                Err(seat) => Some(seat),
            },
            None => None,
        };
        // In a place of its own: most requests find a connection.
        Box::pin(pool.open(seat, tries, deadline)).await
    }

    /// A request to what answers inside of this process, for a pool without servers: it stands for that.
    pub fn local(self: &Rc<Self>, io: Box<dyn Local>) -> Lease {
        let seat = Seat::new(0, &Rc::default(), None);
        Lease { io: Io::Local(io), seat, is_reused: false, client: None, pool: Rc::clone(self) }
    }

    /// An error of what this pool leads to.
    pub fn failure(&self, cause: Cause) -> UpstreamError {
        self.error(None, cause)
    }

    /// Closes what is kept, and keeps nothing from now on: no new request will come.
    pub fn retire(&self) {
        if let Some(followed) = &self.followed {
            followed.is_retired.set(true);
            followed.pool.borrow().retire();
        }
        self.places.iter().for_each(|place| self.give_up(place));
    }

    fn give_up(&self, place: &Place) {
        place.is_retired.set(true);
        self.close(&place.shared, |_| true);
        place.idle.take().iter().for_each(|_| self.taken());
    }

    /// Closes connections that were idle for too long, or that the server closed.
    pub fn sweep(&self) {
        let now = Instant::now();
        let keep_for = self.backend.settings.keep_for;
        if let Some(followed) = &self.followed {
            Self::current(followed).sweep();
        }
        for place in &self.places {
            let Place { idle, shared, .. } = &**place;
            self.close(shared, |Shared { client, .. }| {
                !client.is_alive() || client.idle().is_some_and(|idle| idle >= keep_for)
            });
            let before = idle.borrow().len();
            idle.borrow_mut()
                .retain_mut(|idle| now.duration_since(idle.since) < keep_for && is_quiet(&mut idle.io));
            (idle.borrow().len()..before).for_each(|_| self.taken());
        }
    }

    /// Whether it has no connection that waits for more.
    pub(super) fn is_bare(&self) -> bool {
        self.places.iter().all(|place| place.idle.borrow().is_empty() && place.shared.borrow().is_empty())
    }

    /// Closes connections of HTTP/2, once their requests have ended: those that are to be closed.
    fn close(&self, shared: &RefCell<Vec<Shared>>, mut is: impl FnMut(&mut Shared) -> bool) {
        let closed: Vec<Shared> = shared.borrow_mut().extract_if(.., |shared| is(shared)).collect();
        closed.iter().filter(|shared| shared.unused.is_some()).for_each(|_| self.taken());
    }

    /// Whether this unused connection is still there.
    pub(super) fn has(&self, number: u64) -> bool {
        self.places.iter().any(|place| {
            let Place { idle, shared, .. } = &**place;
            idle.borrow().iter().any(|idle| idle.number == number)
                || shared.borrow().iter().any(|shared| shared.unused == Some(number))
        })
    }

    /// Closes an unused connection.
    pub(super) fn discard(&self, number: u64) {
        for place in &self.places {
            let Place { idle, shared, .. } = &**place;
            self.close(shared, |shared| shared.unused == Some(number));
            let found = idle.borrow().iter().position(|idle| idle.number == number);
            if let Some(found) = found {
                idle.borrow_mut().remove(found);
                self.taken();
            }
        }
    }

    /// Nobody uses this connection of HTTP/2 any more.
    fn put_down(self: &Rc<Self>, server: usize, id: u64) {
        let Some(place) = self.places.get(server) else { return };
        let most = self.backend.settings.keep;
        if place.is_retired.get() || most == 0 {
            return self.close(&place.shared, |shared| shared.id == id);
        }
        let number = self.shelf.as_ref().map_or(0, |shelf| shelf.number());
        let mut shared = place.shared.borrow_mut();
        let Some(own) = shared.iter_mut().find(|shared| shared.id == id) else { return };
        own.unused = Some(number);
        self.metrics.idle.inc();
        drop(shared);
        let oldest = (place.unused() > most).then(|| place.oldest_shared()).flatten();
        if let Some(shelf) = &self.shelf {
            shelf.put(self, number);
        }
        self.close(&place.shared, |shared| Some(shared.id) == oldest || !shared.client.is_alive());
    }

    /// An unused connection is one no longer.
    fn taken(&self) {
        self.metrics.idle.dec();
        if let Some(shelf) = &self.shelf {
            shelf.taken();
        }
    }

    /// Counts a request that was not repeated, because too many are.
    pub fn over_budget(&self) {
        if let Some(metrics) = &self.metrics.servers {
            metrics.over_budget.inc();
        }
    }

    /// A seat on the server that is next; none where all that are left are full, or none is left.
    fn enter(&self, tries: &Tries<'_>) -> Option<Seat> {
        let limit = self.backend.settings.limits.map(|limits| limits.connections);
        loop {
            let server = self.choose(tries, limit)?;
            let load = &self.places.get(server)?.load;
            let Some(limit) = limit else { return Some(Seat::new(server, load, None)) };
            // Another worker may have been faster; then there is less room, and this ends.
            if let Some(room) = Room::take(self.backend.member(server)?, self.backend.queue(), limit) {
                return Some(Seat::new(server, load, Some(room)));
            }
        }
    }

    fn choose(&self, tries: &Tries<'_>, limit: Option<usize>) -> Option<usize> {
        if self.places.len() == 1 && limit.is_none() && tries.been.is_empty() {
            return Some(0);
        }
        let is_new = |server: usize| !tries.been.contains(&server);
        let has_room = |server| limit.is_none_or(|limit| self.is(server, |member| member.has_room(limit)));
        let load = |server: usize| self.places.get(server).map_or(0, |place| place.load.get());
        let may = |server| is_new(server) && self.is(server, Member::is_usable) && has_room(server);
        let chosen = self.balancer.choose(tries.key, may, load);
        if chosen.is_some() || self.is_any(Member::is_usable) {
            return chosen;
        }
        // None is thought to work. That may be wrong, and it cannot be made worse.
        self.balancer.choose(tries.key, |server| is_new(server) && has_room(server), load)
    }

    fn is(&self, server: usize, so: impl Fn(&Member) -> bool) -> bool {
        self.backend.member(server).is_some_and(|member| so(member))
    }

    fn is_any(&self, so: impl Fn(&Member) -> bool) -> bool {
        (0..self.places.len()).any(|server| self.is(server, &so))
    }

    /// Whether there is a server to go on to.
    fn is_another(&self, tries: &Tries<'_>) -> bool {
        let is_none_usable = !self.is_any(Member::is_usable);
        (0..self.places.len()).any(|server| {
            !tries.been.contains(&server) && (is_none_usable || self.is(server, Member::is_usable))
        })
    }

    /// A seat, after waiting for one where that must be; none where no server is left to try.
    async fn seat(&self, tries: &Tries<'_>) -> Result<Option<Seat>, UpstreamError> {
        let Some(limits) = self.backend.settings.limits else { return Ok(self.enter(tries)) };
        if !self.is_another(tries) {
            return Ok(None);
        }
        if self.backend.queue().is_empty()
            && let Some(seat) = self.enter(tries)
        {
            return Ok(Some(seat));
        }
        self.wait(limits, tries).await.map(Some)
    }

    async fn wait(&self, limits: Limits, tries: &Tries<'_>) -> Result<Seat, UpstreamError> {
        let metrics = self.metrics.queue.as_ref();
        let _waiting = metrics.map(|metrics| Waiting::new(&metrics.waiting));
        let line = self.backend.queue().wait(limits.pending, || self.enter(tries));
        let (cause, counter) = match timeout(limits.wait, line).await {
            Ok(Ok(seat)) => return Ok(seat),
            Ok(Err(Full)) => (Cause::QueueFull, metrics.map(|metrics| &metrics.full)),
            Err(_) => (Cause::QueueTimeout, metrics.map(|metrics| &metrics.late)),
        };
        if let Some(counter) = counter {
            counter.inc();
        }
        Err(self.error(None, cause))
    }

    /// A connection that is kept for the server of this seat; else the seat again.
    fn kept(self: &Rc<Self>, seat: Seat, tries: &Tries<'_>) -> Result<Lease, Seat> {
        if tries.only_new {
            return Err(seat);
        }
        let kept = match tries.http2 {
            None => self.take_idle(seat.server(), tries),
            Some(_) => self.take_stream(seat.server(), tries),
        };
        match kept {
            Some(io) => {
                Ok(Lease { io, seat, is_reused: true, client: tries.client.copied(), pool: Rc::clone(self) })
            }
            None => Err(seat),
        }
    }

    fn take_idle(&self, server: usize, tries: &Tries<'_>) -> Option<Io> {
        let mut idle = self.places.get(server)?.idle.borrow_mut();
        loop {
            let Idle { mut io, since, .. } = if self.backend.settings.proxy_protocol.is_none() {
                idle.pop()?
            } else {
                let own = idle.iter().rposition(|idle| idle.client.as_ref() == tries.client)?;
                idle.remove(own)
            };
            self.taken();
            if since.elapsed() < self.backend.settings.keep_for && is_quiet(&mut io) {
                self.metrics.reused.inc();
                return Some(io);
            }
        }
    }

    /// A stream of a connection that has room for one.
    fn take_stream(&self, server: usize, tries: &Tries<'_>) -> Option<Io> {
        let mut shared = self.places.get(server)?.shared.borrow_mut();
        let is_everybodys = self.backend.settings.proxy_protocol.is_none();
        let own = |shared: &&mut Shared| is_everybodys || shared.owner.as_ref() == tries.client;
        let found =
            shared.iter_mut().filter(own).find_map(|shared| shared.client.has_room().then_some(shared))?;
        if found.unused.take().is_some() {
            self.taken();
        }
        self.metrics.reused.inc();
        Some(Io::Http2(Box::new(found.client.call())))
    }

    /// A connection that is new to this request: its own, or one that is shared.
    async fn connect(
        self: &Rc<Self>,
        server: usize,
        tries: &Tries<'_>,
        deadline: Duration,
    ) -> Result<(Io, bool), Cause> {
        let Some(heads) = tries.http2 else {
            let speaks = if tries.only_new { Speaks::Anything } else { Speaks::Http1 };
            return self.dial(server, tries, (speaks, deadline)).await.map(|io| (io, false));
        };
        let Some(place) = self.places.get(server) else { return Err(Cause::Refused) };
        // One at a time: the others share what it opens.
        let opening = timeout(deadline, place.opening.acquire()).await;
        let _opening = opening.map_err(|_| Cause::ConnectTimeout)?;
        if let Some(io) = self.take_stream(server, tries) {
            return Ok((io, true));
        }
        let io = self.dial(server, tries, (Speaks::Http2, deadline)).await?;
        let greeted = timeout(deadline, Client::greet(io, heads)).await.map_err(|_| Cause::ConnectTimeout)?;
        let (client, driver) = greeted.map_err(|error| Cause::Exchange(error.into()))?;
        let call = client.call();
        self.close(&place.shared, |Shared { client, .. }| !client.is_alive());
        if !place.is_retired.get() {
            let id = self.last_shared.get() + 1;
            self.last_shared.set(id);
            let pool = Rc::downgrade(self);
            client.when_unused(move || {
                if let Some(pool) = pool.upgrade() {
                    pool.put_down(server, id);
                }
            });
            place.shared.borrow_mut().push(Shared { client, owner: tries.client.copied(), id, unused: None });
        }
        // It ends with its connection, which nobody holds longer than the pool and its requests.
        spawn_local(async move {
            if let Err(error) = driver.run().await {
                tracing::debug!(%error, "a connection to a backend ended");
            }
        });
        Ok((Io::Http2(Box::new(call)), false))
    }

    /// A new connection to the server of this seat; then whatever there is to the others.
    async fn open(
        self: &Rc<Self>,
        mut seat: Option<Seat>,
        tries: &mut Tries<'_>,
        deadline: Duration,
    ) -> Result<Lease, UpstreamError> {
        let mut last = None;
        loop {
            let seat = match seat.take() {
                Some(seat) => seat,
                None => match self.seat(tries).await? {
                    Some(seat) => match self.kept(seat, tries) {
                        Ok(lease) => return Ok(lease),
                        Err(seat) => seat,
                    },
                    None => {
                        let cause =
                            if self.places.is_empty() { Cause::NoneRegistered } else { Cause::Refused };
                        return Err(last.unwrap_or_else(|| self.error(None, cause)));
                    }
                },
            };
            let server = seat.server();
            let cause = match self.connect(server, tries, deadline).await {
                Ok((io, is_reused)) => {
                    let client = tries.client.copied();
                    return Ok(Lease { io, seat, is_reused, client, pool: Rc::clone(self) });
                }
                Err(cause) => cause,
            };
            tries.been.push(server);
            let is_down = !self.is_any(Member::is_usable);
            let error = self.error(Some(server), if is_down { Cause::Down(Box::new(cause)) } else { cause });
            if tries.left == 0 || !self.is_another(tries) {
                return Err(error);
            }
            tries.left -= 1;
            if let Some(metrics) = &self.metrics.servers {
                metrics.unreachable.inc();
            }
            last = Some(error);
        }
    }

    async fn dial(
        &self,
        server: usize,
        tries: &Tries<'_>,
        (speaks, deadline): (Speaks, Duration),
    ) -> Result<Io, Cause> {
        let Some(address) = self.backend.settings.servers.get(server) else { return Err(Cause::Refused) };
        let client = tries.client.copied();
        let connected = match &self.backend.settings.tls {
            None => self.dial_socket(server, client, deadline).await.map(Io::Tcp),
            Some(tls) => {
                // Both together have this long. In a place of its own: most backends have none.
                let dialling = Box::pin(async {
                    let socket = self.dial_socket(server, client, deadline).await?;
                    tls.over(socket, address, speaks).await
                });
                timeout(deadline, dialling).await.unwrap_or(Err(Cause::ConnectTimeout))
            }
        };
        match &connected {
            Ok(_) => {
                self.metrics.connected.inc();
                if let Some(member) = self.backend.member(server) {
                    member.connected();
                }
            }
            Err(cause) => {
                self.metrics.failed.inc();
                if !cause.is_ours() {
                    self.unreachable(server, cause);
                }
            }
        }
        connected
    }

    /// A connection, as yet without TLS.
    async fn dial_socket(
        &self,
        server: usize,
        client: Option<Ends>,
        deadline: Duration,
    ) -> Result<TcpStream, Cause> {
        let (Some(address), Some(place)) =
            (self.backend.settings.servers.get(server), self.places.get(server))
        else {
            return Err(Cause::Refused);
        };
        let header = self.backend.settings.proxy_protocol;
        match (address.literal(), &place.name) {
            (Some(address), _) => {
                within(deadline, async {
                    announce(open(address).await.map_err(cause)?, header, client).await
                })
                .await
            }
            (None, Some(name)) => self.dial_name(name, address, client, deadline).await,
            (None, None) => {
                let connecting = async {
                    let addresses = address.resolve().await.map_err(Cause::Resolve)?;
                    announce(connect_any(&addresses).await?, header, client).await
                };
                within(deadline, connecting).await
            }
        }
    }

    async fn dial_name(
        &self,
        name: &Rc<Name>,
        server: &Server,
        client: Option<Ends>,
        deadline: Duration,
    ) -> Result<TcpStream, Cause> {
        let header = self.backend.settings.proxy_protocol;
        let connecting = async {
            let look_up = || {
                let server = server.clone();
                async move { server.resolve().await }
            };
            let addresses = name.addresses(look_up).await.map_err(Cause::Resolve)?;
            announce(connect_any(&addresses).await?, header, client).await
        };
        let connected = within(deadline, connecting).await;
        if matches!(connected, Err(Cause::Refused | Cause::Connect(_) | Cause::ConnectTimeout)) {
            name.doubt();
        }
        connected
    }

    /// A server did not take a connection.
    fn unreachable(&self, server: usize, cause: &Cause) {
        let (Some(metrics), Some(member)) = (&self.metrics.servers, self.backend.member(server)) else {
            return;
        };
        if member.unreachable(&self.backend.settings.ejection) {
            metrics.ejected_unreachable.inc();
            self.say_ejected(server, member, &cause.to_string());
        }
    }

    /// An exchange with a server failed.
    fn failed(&self, server: usize) {
        let (Some(metrics), Some(member)) = (&self.metrics.servers, self.backend.member(server)) else {
            return;
        };
        if member.failed(&self.backend.settings.ejection) {
            metrics.ejected_failing.inc();
            self.say_ejected(server, member, "one exchange after the other failed");
        }
    }

    fn say_ejected(&self, server: usize, member: &Member, why: &str) {
        let backend = &*self.backend.settings.name;
        let server = self.backend.settings.servers.get(server).map(Server::to_string).unwrap_or_default();
        let pause = member.ejected_for().unwrap_or_default();
        tracing::warn!(backend, server, ?pause, "a server is left alone for a while: {why}");
    }

    fn error(&self, server: Option<usize>, cause: Cause) -> UpstreamError {
        let settings = &self.backend.settings;
        let server = server.and_then(|server| settings.servers.get(server)).map(Server::to_string);
        UpstreamError { backend: settings.name.clone(), server, cause }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Those that others have go on.
        for place in self.places.iter().filter(|place| Rc::strong_count(place) == 1) {
            self.close(&place.shared, |_| true);
            place.idle.take().iter().for_each(|_| self.taken());
        }
    }
}

/// Counts one request that waits, however that ends.
struct Waiting<'a>(&'a Gauge);

impl<'a> Waiting<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Lease {
    /// Whether the connection served a request before.
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// The host that the server is asked for, where that is its own and not the client's.
    pub fn host(&self) -> Option<String> {
        let settings = &self.pool.backend.settings;
        match settings.host {
            Asked::Clients => None,
            Asked::Servers => {
                let usual = if settings.tls.is_some() { 443 } else { 80 };
                settings.servers.get(self.seat.server()).map(|server| server.authority(usual))
            }
        }
    }

    /// A new connection to the same server, instead of this one, which had come to its end before it
    /// was used; where that fails, one to another server.
    ///
    /// # Errors
    /// Fails as [`Pool::lease`] does.
    pub async fn replace(self, tries: &mut Tries<'_>, deadline: Duration) -> Result<Self, UpstreamError> {
        let Self { io, seat, pool, .. } = self;
        drop(io);
        tries.is_replaced = true;
        pool.metrics.stale.inc();
        pool.open(Some(seat), tries, deadline).await
    }

    /// Whether [`Self::replace`] may help: once, for a connection that had others before.
    pub fn may_be_replaced(&self, tries: &Tries<'_>) -> bool {
        self.is_reused && !tries.is_replaced
    }

    /// Whether another server may be tried, and there is one that works.
    pub fn has_alternative(&self, tries: &Tries<'_>) -> bool {
        let is_alternative = |server: usize| {
            server != self.seat.server()
                && !tries.been.contains(&server)
                && self.pool.is(server, Member::is_usable)
        };
        tries.left > 0 && (0..self.pool.places.len()).any(is_alternative)
    }

    /// A connection to another server, instead of this one.
    ///
    /// # Errors
    /// Fails as [`Pool::lease`] does.
    pub async fn elsewhere(self, tries: &mut Tries<'_>, deadline: Duration) -> Result<Self, UpstreamError> {
        let Self { io, seat, pool, .. } = self;
        drop(io);
        tries.been.push(seat.server());
        tries.left = tries.left.saturating_sub(1);
        drop(seat);
        if let Some(metrics) = &pool.metrics.servers {
            metrics.broken.inc();
        }
        pool.open(None, tries, deadline).await
    }

    /// The server did what was asked of it.
    pub fn answered(&self) {
        if self.pool.metrics.servers.is_some()
            && let Some(member) = self.pool.backend.member(self.seat.server())
        {
            member.answered();
        }
    }

    /// The server did not do what was asked of it.
    pub fn failed(&self) {
        self.pool.failed(self.seat.server());
    }

    /// Gives the connection back, to be used again: nothing on it is unread or unanswered.
    pub fn keep(self) {
        let Self { io, seat, client, pool, .. } = self;
        let io = match io {
            io @ (Io::Tcp(_) | Io::Tls(_)) => io,
            // A stream is over; its connection stays where it is.
            Io::Http2(_) => return,
            Io::Local(call) => return call.finish(),
        };
        let Some(place) = pool.places.get(seat.server()) else { return };
        if place.is_retired.get() {
            return;
        }
        let (idle, most) = (&place.idle, pool.backend.settings.keep);
        if place.unused() >= most {
            // Of connections that are all the same, one is as good as another; of clients' own, the
            // youngest is the likeliest to be asked for.
            let is_own = pool.backend.settings.proxy_protocol.is_some();
            if !is_own || idle.borrow().is_empty() {
                return;
            }
            idle.borrow_mut().remove(0);
            pool.taken();
        }
        let number = pool.shelf.as_ref().map_or(0, |shelf| shelf.number());
        idle.borrow_mut().push(Idle { io, since: Instant::now(), client, number });
        pool.metrics.idle.inc();
        if let Some(shelf) = &pool.shelf {
            shelf.put(&pool, number);
        }
    }

    /// The request is over, and its connection is not used again.
    pub fn leave(self) {
        if let Io::Local(call) = self.io {
            call.finish();
        }
    }

    /// The connection, and its place on the server, without the pool that they came from.
    pub fn into_parts(self) -> (Io, Seat) {
        (self.io, self.seat)
    }

    /// An error of this connection's server.
    pub fn error(&self, cause: Cause) -> UpstreamError {
        self.pool.error(Some(self.seat.server()), cause)
    }
}

/// Whether a connection that nobody uses is still open, and silent: what a server sends without being
/// asked would be taken for the next request's answer.
fn is_quiet(io: &mut Io) -> bool {
    match io {
        // Mostly answered without a system call, from what the reactor has seen.
        Io::Tcp(io) => {
            matches!(io.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        }
        Io::Tls(io) => io.is_quiet(),
        Io::Http2(_) | Io::Local(_) => false,
    }
}
