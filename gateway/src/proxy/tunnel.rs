//! What follows a protocol change: bytes both ways, and nobody looks at them.

use super::{access::Entry, cut::Cut, worker::Worker};
use crate::{
    metrics::Gauge,
    relay::{Counters, End, Side, Summary, relay},
    snapshot::{LocalRoute, RouteMetrics},
};
use std::{sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};

/// A tunnel that is about to open: its other side, and its line in the access log.
///
/// Of its route it keeps the name, the idle time and the counters. It may live for days, and the
/// plugins and connections of a route that is long replaced must not live as long.
#[derive(Debug)]
pub(super) struct Tunnel<I> {
    upstream: Side<I>,
    route: Arc<str>,
    idle: Duration,
    metrics: RouteMetrics,
    entry: Option<Box<Entry>>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Tunnel<I> {
    pub(super) fn new(upstream: Side<I>, route: &LocalRoute, entry: Option<Box<Entry>>) -> Self {
        let (name, metrics) = (Arc::clone(&route.name), route.metrics.clone());
        Self { upstream, route: name, idle: route.route.timeouts.tunnel, metrics, entry }
    }

    /// Relays until both sides are done.
    pub(super) async fn run<C: AsyncRead + AsyncWrite + Unpin>(
        mut self,
        client: Side<C>,
        worker: &Worker,
    ) -> Summary {
        let _open = Open::new(&self.metrics.tunnels);
        let counters = Counters { sent: &self.metrics.sent, received: &self.metrics.received };
        let summary = relay(client, self.upstream, self.idle, &worker.buffers, counters).await;
        match &summary.end {
            End::Closed => {}
            End::Idle => worker.count_cut(Cut::Tunnel),
            // A peer that is gone is how most tunnels end.
            End::Failed(error) => tracing::debug!(route = &*self.route, %error, "a tunnel broke off"),
        }
        if let Some(entry) = &mut self.entry {
            entry.tunnelled(summary.received, summary.sent);
        }
        summary
    }
}

/// Counts one open tunnel, even where its task is dropped.
struct Open(Gauge);

impl Open {
    fn new(tunnels: &Gauge) -> Self {
        tunnels.inc();
        Self(tunnels.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
