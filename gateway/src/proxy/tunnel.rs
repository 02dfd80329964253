//! What follows a protocol change, and what a raw TCP route is: bytes both ways, and nobody looks at
//! them.

use super::{
    access::{self, Entry},
    admit::Closing,
    cut::Cut,
    stream::ClientStream,
    worker::Worker,
};
use crate::{
    drain::Guard,
    ids::ClientAddr,
    io::Stream,
    metrics::{Counter, Gauge},
    relay::{Counters, End, Means, Side, Tally, relay},
    snapshot::LocalRoute,
    upstream::{Io, Seat},
};
use std::{pin::pin, rc::Rc, sync::Arc, time::Duration};
use tokio::time::Instant;

/// A tunnel that is about to open.
///
/// It has a task of its own, and of its route it keeps the name, the idle time, the counters and its
/// place on the server only: it may live for days, there may be thousands, and the plugins and
/// connections of a route that is long replaced must not live as long.
#[derive(Debug)]
pub struct Tunnel {
    client: Side<ClientStream>,
    course: Course,
}

/// A tunnel without its client.
#[derive(Debug)]
pub(super) struct Course {
    upstream: Upstream,
    idle: Duration,
    open: Gauge,
    sent: Counter,
    received: Counter,
    line: Line,
    worker: Rc<Worker>,
    _guard: Guard,
}

/// The backend's side of a tunnel, with its place on the server.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) side: Side<Io>,
    pub(super) _seat: Seat,
}

/// What the access log tells about a tunnel.
#[derive(Debug)]
pub(super) enum Line {
    /// The request that it began with; none where that log is off.
    Request(Option<Box<Entry>>),
    /// A connection of a TCP route.
    Connection(Visit),
}

/// Who uses a TCP route, and since when.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) client: ClientAddr,
    pub(super) route: Arc<str>,
    pub(super) began: Instant,
    /// The plugins that are told of its end.
    pub(super) closing: Option<Box<Closing>>,
}

/// What is known of a tunnel whenever it ends, even where its task is dropped.
#[derive(Debug)]
struct Record {
    tally: Tally,
    /// One word.
    why: &'static str,
    line: Line,
    worker: Rc<Worker>,
    /// Where a stop waits for those who are told.
    told: Option<Guard>,
}

impl Record {
    fn new(line: Line, worker: Rc<Worker>) -> Self {
        let is_told = match &line {
            Line::Request(entry) => entry.as_ref().is_some_and(|entry| entry.plugins.is_some()),
            Line::Connection(visit) => visit.closing.is_some(),
        };
        let told = is_told.then(|| worker.journal().expect());
        Self { tally: Tally::default(), why: "stopped", line, worker, told }
    }

    /// Whether plugins are told of it.
    fn is_told(&self) -> bool {
        self.told.is_some()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (sent, received) = (self.tally.sent.get(), self.tally.received.get());
        match &mut self.line {
            Line::Request(entry) => {
                if let Some(entry) = entry {
                    entry.tunnelled(received, sent);
                }
            }
            Line::Connection(Visit { client, route, began, closing }) => {
                if let Some(mut closing) = closing.take() {
                    closing.relayed((sent, received), self.why);
                }
                if self.worker.local().shared.log.access {
                    let error = Some(self.why).filter(|why| *why != "closed");
                    access::connection(*client, route, *began, (sent, received), error);
                }
            }
        }
    }
}

impl Tunnel {
    pub(super) fn new(client: Side<ClientStream>, course: Course) -> Self {
        Self { client, course }
    }

    /// Relays until both sides are done.
    pub async fn run(self) {
        self.course.run(self.client).await;
    }
}

impl Course {
    pub(super) fn new(
        upstream: Upstream,
        route: &LocalRoute,
        line: Line,
        worker: &Rc<Worker>,
        guard: Guard,
    ) -> Self {
        Self {
            upstream,
            idle: route.terms.timeouts.tunnel,
            open: route.metrics.tunnels(),
            sent: route.metrics.sent(),
            received: route.metrics.received(),
            line,
            worker: Rc::clone(worker),
            _guard: guard,
        }
    }

    /// Relays until both sides are done.
    pub(super) async fn run(self, client: Side<impl Stream>) {
        let Self { upstream, idle, open, sent, received, line, worker, _guard } = self;
        let _open = Open::new(open);
        let mut record = Record::new(line, Rc::clone(&worker));
        let counters = Counters { sent: &sent, received: &received, tally: &record.tally };
        let means = Means { buffers: &worker.buffers, turns: &worker.turns };
        let mut relaying = pin!(relay(client, upstream.side, idle, means, counters));
        let end = if record.is_told() {
            // Else nobody asks, and its task is dropped where a stop cuts it.
            tokio::select! {
                biased;
                end = &mut relaying => Some(end),
                () = worker.until_cut_off() => None,
            }
        } else {
            Some(relaying.await)
        };
        record.why = match end {
            Some(End::Closed) => "closed",
            Some(End::Idle) => {
                worker.count_cut(Cut::Tunnel);
                "idle"
            }
            Some(End::Failed(error)) => {
                // A peer that is gone is how most tunnels end.
                tracing::debug!(%error, "a tunnel broke off");
                "broken"
            }
            None => "stopped",
        };
    }
}

/// Counts one open tunnel, even where its task is dropped.
struct Open(Gauge);

impl Open {
    fn new(tunnels: Gauge) -> Self {
        tunnels.inc();
        Self(tunnels)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
