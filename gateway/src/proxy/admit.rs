//! What the plugins of a route say to a connection that carries bytes, before any of them is passed on; and
//! what they are told when it is over.

use super::{
    access,
    answer::Error,
    arrival::Arrival,
    client::Client,
    conn::{LAST_CALL, LINGER_BRIEFLY, linger},
    cut::Cut,
    stream::ClientStream,
    tcp::Way,
    worker::Worker,
};
use crate::{
    drain::Guard,
    ids::RequestId,
    io::Stream as _,
    plugins::{Closed, Connection, Exchange, Facts, Refusal, Ruling, Wanted},
    snapshot::LocalRoute,
    upstream::{Lease, Pool},
};
use std::{
    future::poll_fn,
    io,
    rc::{Rc, Weak},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::{io::Interest, net::TcpStream, time::Instant};

/// Calls with first bytes that are made as soon as there are as many as a plugin wants. From then on a client
/// that sends byte by byte is waited for: until there are twice as many as were seen, or nothing has come for
/// [`PAUSE`].
const PROMPT: u32 = 8;
const PAUSE: Duration = Duration::from_millis(20);

/// A connection that may go on.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Where to, if not to the route's own server.
    to: Option<Rc<Pool>>,
    /// Who wants to know how it ends.
    closing: Option<Box<Closing>>,
}

/// A connection whose server is there.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) lease: Lease,
    pub(super) closing: Option<Box<Closing>>,
}

/// A connection that the plugins of its route have been shown, and of which they have seen no bytes yet.
#[derive(Debug)]
pub(super) struct Met {
    closing: Box<Closing>,
    ruling: Ruling,
    /// Since when that is so.
    since: Instant,
}

impl Met {
    /// Whether they let it pass as it is.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self.ruling, Ruling::Next) && self.closing.exchange.first_wanted().is_none()
    }

    /// When it goes on without a byte of the client's.
    pub(super) fn due(&self, patience: Duration) -> Instant {
        let wanted = self.closing.exchange.first_wanted();
        self.since + wanted.map_or(patience, |wanted| wanted.within.min(patience))
    }

    /// Where they send it, if not to the route's own server.
    pub(super) fn detour(&self, way: &Way) -> Option<Rc<Pool>> {
        way.detour(&self.closing.exchange)
    }

    /// It is over, for this reason.
    pub(super) fn over(mut self, why: &'static str) {
        self.closing.closed.why = why;
    }

    /// It turned out to be no connection of this route.
    pub(super) fn forget(mut self) {
        self.closing.is_its = false;
    }
}

impl Way {
    /// Shows a connection to the route's plugins. Should it turn out to be another route's after all, they may
    /// be shown it in vain.
    pub(super) async fn meet(&self, arrival: &Arrival, worker: &Rc<Worker>) -> Met {
        let mut met = self.ask(Box::new(Closing::new(self, arrival, worker))).await;
        met.closing.is_its = true;
        met
    }

    async fn ask(&self, mut closing: Box<Closing>) -> Met {
        let ruling = self.route.terms.chain.on_accept(&mut closing.exchange).await;
        Met { closing, ruling, since: Instant::now() }
    }

    /// Asks the route's plugins, where there are some and they have not been asked yet. None where the connection
    /// has ended with that. Reads nothing that nobody asks for, and waits for that no longer than `patience` in all.
    pub(super) async fn admit(
        &self,
        met: Option<Met>,
        client: &mut Client<ClientStream>,
        (arrival, worker): (&Arrival, &Rc<Worker>),
        patience: Duration,
        guard: &mut Guard,
    ) -> Option<Pass> {
        if !self.route.terms.chain.sees_connections() {
            return Some(Pass::default());
        }
        // In a place of its own: it is over soon, and large.
        Box::pin(self.consult(met, client, (arrival, worker), patience, guard)).await
    }

    async fn consult(
        &self,
        met: Option<Met>,
        client: &mut Client<ClientStream>,
        (arrival, worker): (&Arrival, &Rc<Worker>),
        patience: Duration,
        guard: &mut Guard,
    ) -> Option<Pass> {
        let met = match met {
            Some(met) => met,
            None => {
                let mut closing = Box::new(Closing::new(self, arrival, worker));
                closing.is_its = true;
                while_there(client.io.socket(), worker, self.ask(closing)).await?
            }
        };
        let Met { mut closing, ruling, since } = met;
        let ruling = match ruling {
            Ruling::Next => self.show(client, (worker, guard), since, patience, &mut closing.exchange).await,
            decided => Ok(decided),
        };
        let (name, began) = (&*self.route.name, self.began);
        let is_written = worker.local().shared.log.access;
        match ruling {
            Ok(Ruling::Next) => {
                let to = self.detour(&closing.exchange);
                let closing = self.route.terms.chain.has_connection_logs().then_some(closing);
                return Some(Pass { to, closing });
            }
            Ok(Ruling::Refused { refusal, plugin }) => {
                worker.count_cut(Cut::Refused);
                if is_written {
                    access::refused(arrival.peer, name, began, (&plugin, &refusal.reason));
                }
                let Refusal { reset, reason } = refusal;
                closing.closed.why = "refused";
                closing.closed.refused_by = Some((plugin, reason));
                drop(closing);
                match reset {
                    true => client.io.reset(),
                    false => close(client, worker).await,
                }
            }
            Ok(Ruling::Denied { fault, plugin }) => {
                worker.count_cut(Cut::Plugin);
                tracing::debug!(
                    route = name, client = %arrival.peer, plugin, fault = fault.kind.as_str(),
                    "a plugin failed on a TCP connection, which was closed"
                );
                if is_written {
                    let error = Error::Plugin { plugin: plugin.clone(), kind: fault.kind };
                    access::failed(arrival.peer, name, began, (&plugin, error.code().as_str()));
                }
                closing.closed.why = "fault";
                drop(closing);
                close(client, worker).await;
            }
            Err(_) => {
                if is_written {
                    access::connection(arrival.peer, name, began, (0, 0), Some("broken"));
                }
            }
        }
        None
    }

    /// Shows the first bytes to those who want them.
    ///
    /// # Errors
    /// Fails where the client goes away meanwhile.
    async fn show(
        &self,
        client: &mut Client<ClientStream>,
        (worker, guard): (&Worker, &mut Guard),
        since: Instant,
        patience: Duration,
        exchange: &mut Box<Exchange>,
    ) -> io::Result<Ruling> {
        let chain = &self.route.terms.chain;
        let (due, mut since, mut calls, mut seen) = (since + patience, since, 0, 0);
        let mut ruling = Ruling::Next;
        while matches!(ruling, Ruling::Next)
            && let Some(wanted) = exchange.next_wanted()
        {
            let due = due.min(since + wanted.within);
            let plenty = if calls < PROMPT { 0 } else { 2 * seen };
            let more = peek(client, wanted, plenty, due, (worker, guard)).await?;
            let bytes = client.inbox.bytes();
            let bytes = bytes.get(..wanted.most).unwrap_or(bytes);
            (calls, seen) = (calls + 1, bytes.len());
            let asking = chain.on_first_bytes(exchange, wanted, bytes, more);
            let said = while_there(client.io.socket(), worker, asking).await;
            ruling = said.ok_or(io::ErrorKind::ConnectionReset)?;
            since = Instant::now();
        }
        Ok(ruling)
    }

    fn detour(&self, exchange: &Exchange) -> Option<Rc<Pool>> {
        let to = exchange.connection_goes_to()?;
        let detour = self.route.terms.detours.get(to.link)?.get(to.backend)?;
        Some(Rc::clone(&detour.pool))
    }

    fn exchange(&self, arrival: &Arrival, id: RequestId) -> Box<Exchange> {
        Box::new(Exchange::connected(self.facts(arrival, id), self.connection(arrival)))
    }

    fn facts(&self, arrival: &Arrival, id: RequestId) -> Facts {
        Facts {
            id,
            route: Arc::clone(&self.route.name),
            client: arrival.peer,
            peer: arrival.neighbour(),
            local_port: arrival.port,
            captures: self.captures.iter().map(|(name, text)| (name.into(), text.into())).collect(),
            is_upgrade: false,
        }
    }

    fn connection(&self, arrival: &Arrival) -> Connection {
        Connection {
            client_port: arrival.client_port,
            server_name: self.server_name.clone().or_else(|| arrival.sni.clone()),
            is_tls: arrival.is_tls,
            certificate: arrival.certificate.as_ref().map(|certificate| certificate.forwarded().into()),
            is_proxied: arrival.is_proxied,
            ..Connection::default()
        }
    }
}

/// Waits for what a plugin says while its client is there, and no longer than a stop lets it. A client that has
/// only ended its side is there.
pub(super) async fn while_there<T>(
    socket: &TcpStream,
    worker: &Worker,
    asking: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        said = asking => Some(said),
        _ = socket.ready(Interest::ERROR) => None,
        () = worker.until_cut_off() => None,
    }
}

/// Ends a connection in order. What its client has said and nobody has read would make the kernel reset it.
async fn close(client: &mut Client<ClientStream>, worker: &Worker) {
    client.inbox.release(&worker.buffers);
    linger(&mut client.io, worker, LINGER_BRIEFLY).await;
}

/// Waits until as much is there as a plugin wants, or its time is over: that of a client that has come is short
/// where its listener goes. Where `plenty` is more than that, it is waited for a moment. Returns whether more may
/// come.
async fn peek(
    client: &mut Client<ClientStream>,
    wanted: Wanted,
    plenty: usize,
    due: Instant,
    (worker, guard): (&Worker, &mut Guard),
) -> io::Result<bool> {
    let plenty = plenty.clamp(wanted.least, wanted.most);
    let (mut due, mut is_leaving, mut rest) = (due, false, None);
    poll_fn(|cx| {
        let there = loop {
            let there = client.inbox.bytes().len();
            if there >= plenty {
                return Poll::Ready(Ok(there < wanted.most && Instant::now() < due));
            }
            match client.inbox.poll_fill(cx, &mut client.io, &worker.buffers) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(read) => return Poll::Ready(read.map(|_| false)),
                Poll::Pending => break there,
            }
        };
        if !is_leaving && guard.poll_draining(cx).is_ready() {
            is_leaving = true;
            due = due.min(Instant::now() + LAST_CALL);
        }
        let is_enough = there >= wanted.least;
        let until = match is_enough {
            true => due.min(*rest.get_or_insert_with(|| Instant::now() + PAUSE)),
            false => due,
        };
        client.timer.poll(cx, until).map(|()| Ok(is_enough && Instant::now() < due))
    })
    .await
}

impl Pass {
    /// Connects to where it goes. Where that fails, the log tells why.
    pub(super) async fn dial(self, way: &Way, arrival: &Arrival, worker: &Worker) -> Option<Opening> {
        let dialled = way.dial(self.to.as_ref(), arrival).await;
        self.open(dialled, way, arrival, worker)
    }

    /// The same, where that was done ahead.
    pub(super) fn open(
        self,
        dialled: Result<Lease, Error>,
        way: &Way,
        arrival: &Arrival,
        worker: &Worker,
    ) -> Option<Opening> {
        let mut closing = self.closing;
        let error = match dialled {
            Ok(lease) => return Some(Opening { lease, closing }),
            Err(error) => error,
        };
        way.report(&error, arrival);
        let code = error.code().as_str();
        if worker.local().shared.log.access {
            access::connection(arrival.peer, &way.route.name, way.began, (0, 0), Some(code));
        }
        if let Some(closing) = &mut closing {
            closing.closed.why = code;
        }
        None
    }
}

/// What is told to plugins once a connection is over, however it ends.
#[derive(Debug)]
pub(super) struct Closing {
    worker: Rc<Worker>,
    /// Where they are. A tunnel may outlive that: what a route was must not live as long.
    route: Weak<LocalRoute>,
    name: Arc<str>,
    began: Instant,
    exchange: Box<Exchange>,
    /// The same, without what hooks have stored: a call that is not finished takes the other one along.
    spare: Option<Box<Exchange>>,
    closed: Closed,
    /// Whether it is a connection of this route at all.
    is_its: bool,
}

impl Closing {
    fn new(way: &Way, arrival: &Arrival, worker: &Rc<Worker>) -> Self {
        let id = worker.ids.next();
        Self {
            worker: Rc::clone(worker),
            route: Rc::downgrade(&way.route),
            name: Arc::clone(&way.route.name),
            began: way.began,
            exchange: way.exchange(arrival, id),
            spare: way.route.terms.chain.has_connection_logs().then(|| way.exchange(arrival, id)),
            // Where nobody says more, the client has gone.
            closed: Closed { why: "broken", ..Closed::default() },
            is_its: false,
        }
    }

    /// So many bytes have been relayed, to the server and to the client.
    pub(super) fn relayed(&mut self, (sent, received): (u64, u64), why: &'static str) {
        (self.closed.sent, self.closed.received, self.closed.why) = (sent, received, why);
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let Some(spare) = self.spare.take().filter(|_| self.is_its) else { return };
        let mut exchange = std::mem::replace(&mut self.exchange, spare);
        if exchange.facts.is_none() {
            std::mem::swap(&mut exchange, &mut self.exchange);
        }
        let mut closed = std::mem::take(&mut self.closed);
        closed.total = self.began.elapsed();
        if closed.why == "broken" && self.worker.is_cut_off() {
            closed.why = "stopped";
        }
        let journal = self.worker.journal();
        if let Some(route) = self.route.upgrade() {
            route.terms.chain.log_connection(journal, exchange, closed);
        } else if let Some(route) = self.worker.local().routes.iter().find(|route| route.name == self.name) {
            // Its plugins may be others now, to whom the values do not belong.
            exchange.forget();
            route.terms.chain.log_connection(journal, exchange, closed);
        }
    }
}
