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
    relay::{Counters, End, Means, Side, relay},
    snapshot::LocalRoute,
    upstream::Seat,
};
use std::{rc::Rc, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::Instant};

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
    pub(super) side: Side<TcpStream>,
    pub(super) _seat: Seat,
}

/// What the access log tells about a tunnel.
#[derive(Debug)]
pub(super) enum Line {
    /// The request that it began with; none where that log is off.
    Request(Option<Box<Entry>>),
    /// A connection of a TCP route.
    Connection {
        client: ClientAddr,
        route: Arc<str>,
        began: Instant,
        /// The plugins that are told of its end.
        closing: Option<Box<Closing>>,
    },
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
        let counters = Counters { sent: &sent, received: &received };
        let means = Means { buffers: &worker.buffers, turns: &worker.turns };
        let summary = relay(client, upstream.side, idle, means, counters).await;
        match &summary.end {
            End::Closed => {}
            End::Idle => worker.count_cut(Cut::Tunnel),
            // A peer that is gone is how most tunnels end.
            End::Failed(error) => tracing::debug!(%error, "a tunnel broke off"),
        }
        match line {
            Line::Request(entry) => {
                if let Some(mut entry) = entry {
                    entry.tunnelled(summary.received, summary.sent);
                }
            }
            Line::Connection { client, route, began, closing } => {
                if let Some(mut closing) = closing {
                    closing.relayed(&summary);
                }
                if worker.local().shared.log.access {
                    access::connection(client, &route, began, &summary);
                }
            }
        }
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
