//! What the plugins of a route say to a connection that carries bytes, before any of them is passed on; and
//! what they are told when it is over.

use super::{
    access, answer::Error, arrival::Arrival, client::Client, conn::LAST_CALL, cut::Cut, stream::ClientStream,
    tcp::Way, worker::Worker,
};
use crate::{
    drain::Guard,
    io::Stream as _,
    plugins::{Closed, Connection, Exchange, Facts, Refusal, Ruling, Wanted},
    relay::{End, Summary},
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
use tokio::time::Instant;

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

impl Way {
    /// Asks the route's plugins, where there are some. None where the connection has ended with that. Reads
    /// nothing that nobody asks for, and waits for that no longer than `patience` in all.
    pub(super) async fn admit(
        &self,
        client: &mut Client<ClientStream>,
        arrival: &Arrival,
        worker: &Rc<Worker>,
        patience: Duration,
        guard: &mut Guard,
    ) -> Option<Pass> {
        if !self.route.terms.chain.sees_connections() {
            return Some(Pass::default());
        }
        // In a place of its own: it is over soon, and large.
        Box::pin(self.consult(client, arrival, (worker, guard), patience)).await
    }

    async fn consult(
        &self,
        client: &mut Client<ClientStream>,
        arrival: &Arrival,
        (worker, guard): (&Rc<Worker>, &mut Guard),
        patience: Duration,
    ) -> Option<Pass> {
        let chain = &self.route.terms.chain;
        let mut exchange =
            Box::new(Exchange::connected(self.facts(arrival, worker), self.connection(arrival)));
        let ruling = self.ask(client, (worker, guard), patience, &mut exchange).await;
        let to = exchange.connection_goes_to();
        let mut closing = chain.has_connection_logs().then(|| Box::new(Closing::new(self, worker, exchange)));
        let (refused_by, why) = match ruling {
            Ok(Ruling::Next) => {
                let detour = to.and_then(|to| self.route.terms.detours.get(to.link)?.get(to.backend));
                return Some(Pass { to: detour.map(|detour| Rc::clone(&detour.pool)), closing });
            }
            Ok(Ruling::Refused { refusal, plugin }) => {
                worker.count_cut(Cut::Refused);
                if worker.local().shared.log.access {
                    access::refused(arrival.peer, &self.route.name, self.began, (&plugin, &refusal.reason));
                }
                let Refusal { reset, reason } = refusal;
                match reset {
                    true => client.io.reset(),
                    false => client.io.say_goodbye(),
                }
                (Some((plugin, reason)), "refused")
            }
            Ok(Ruling::Denied { .. }) => {
                worker.count_cut(Cut::Plugin);
                client.io.say_goodbye();
                (None, "fault")
            }
            Err(_) => (None, "broken"),
        };
        if let Some(closing) = &mut closing {
            (closing.closed.refused_by, closing.closed.why) = (refused_by, why);
        }
        None
    }

    /// What they say.
    ///
    /// # Errors
    /// Fails where the client goes away while its first bytes are waited for.
    async fn ask(
        &self,
        client: &mut Client<ClientStream>,
        (worker, guard): (&Worker, &mut Guard),
        patience: Duration,
        exchange: &mut Box<Exchange>,
    ) -> io::Result<Ruling> {
        let chain = &self.route.terms.chain;
        let mut ruling = chain.on_accept(exchange).await;
        let mut due = None;
        while matches!(ruling, Ruling::Next)
            && let Some(wanted) = exchange.next_wanted()
        {
            let due = *due.get_or_insert_with(|| Instant::now() + patience);
            let more = peek(client, wanted, due, (worker, guard)).await?;
            let bytes = client.inbox.bytes();
            let bytes = bytes.get(..wanted.most).unwrap_or(bytes);
            ruling = chain.on_first_bytes(exchange, wanted, bytes, more).await;
        }
        Ok(ruling)
    }

    fn facts(&self, arrival: &Arrival, worker: &Worker) -> Facts {
        Facts {
            id: worker.ids.next(),
            route: Arc::clone(&self.route.name),
            client: arrival.peer,
            peer: arrival.peer,
            local_port: arrival.port,
            captures: self.captures.iter().map(|(name, text)| (name.into(), text.into())).collect(),
            is_upgrade: false,
        }
    }

    fn connection(&self, arrival: &Arrival) -> Connection {
        Connection {
            client_port: arrival.ends.source.port(),
            server_name: self.server_name.clone().or_else(|| arrival.sni.clone()),
            is_tls: arrival.is_tls,
            certificate: arrival.certificate.as_ref().map(|certificate| certificate.forwarded().into()),
            is_proxied: arrival.is_proxied,
            ..Connection::default()
        }
    }
}

/// Waits until as much is there as a plugin wants, or its time is over: that of a client that has come is short
/// where its listener goes. Returns whether more may come.
async fn peek(
    client: &mut Client<ClientStream>,
    wanted: Wanted,
    due: Instant,
    (worker, guard): (&Worker, &mut Guard),
) -> io::Result<bool> {
    let mut due = due.min(Instant::now() + wanted.within);
    let mut is_leaving = false;
    poll_fn(|cx| {
        loop {
            let there = client.inbox.bytes().len();
            if there >= wanted.least {
                return Poll::Ready(Ok(there < wanted.most));
            }
            match client.inbox.poll_fill(cx, &mut client.io, &worker.buffers) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(read) => return Poll::Ready(read.map(|_| false)),
                Poll::Pending => break,
            }
        }
        if !is_leaving && guard.poll_draining(cx).is_ready() {
            is_leaving = true;
            due = due.min(Instant::now() + LAST_CALL);
        }
        client.timer.poll(cx, due).map(|()| Ok(false))
    })
    .await
}

impl Pass {
    /// Connects to where it goes: `own` is the way to the route's own server. Where that fails, the log tells
    /// why.
    pub(super) async fn dial(
        self,
        way: &Way,
        arrival: &Arrival,
        own: impl Future<Output = Result<Lease, Error>>,
    ) -> Option<Opening> {
        let Self { to, mut closing } = self;
        let dialled = match &to {
            None => own.await,
            Some(pool) => way.lease(pool, arrival).await,
        };
        match dialled {
            Ok(lease) => Some(Opening { lease, closing }),
            Err(error) => {
                way.report(&error, arrival);
                if let Some(closing) = &mut closing {
                    closing.closed.why = error.code().as_str();
                }
                None
            }
        }
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
    exchange: Option<Box<Exchange>>,
    closed: Closed,
}

impl Closing {
    fn new(way: &Way, worker: &Rc<Worker>, exchange: Box<Exchange>) -> Self {
        Self {
            worker: Rc::clone(worker),
            route: Rc::downgrade(&way.route),
            name: Arc::clone(&way.route.name),
            began: way.began,
            exchange: Some(exchange),
            // Where nobody says more, its task was dropped.
            closed: Closed { why: "stopped", ..Closed::default() },
        }
    }

    /// Both sides have been relayed.
    pub(super) fn relayed(&mut self, relayed: &Summary) {
        (self.closed.sent, self.closed.received) = (relayed.sent, relayed.received);
        self.closed.why = match relayed.end {
            End::Closed => "closed",
            End::Idle => "idle",
            End::Failed(_) => "broken",
        };
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let Some(mut exchange) = self.exchange.take() else { return };
        let mut closed = std::mem::take(&mut self.closed);
        closed.total = self.began.elapsed();
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
