//! What follows a protocol change: bytes both ways, and nobody looks at them.

use super::{access::Entry, worker::Worker};
use crate::{
    relay::{Counters, End, Side, Summary, relay},
    snapshot::LocalRoute,
};
use std::rc::Rc;
use tokio::io::{AsyncRead, AsyncWrite};

/// A tunnel that is about to open: its other side, its route, its line in the access log.
#[derive(Debug)]
pub(super) struct Tunnel<I> {
    pub(super) upstream: Side<I>,
    pub(super) route: Rc<LocalRoute>,
    pub(super) entry: Option<Box<Entry>>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Tunnel<I> {
    /// Relays until both sides are done.
    pub(super) async fn run<C: AsyncRead + AsyncWrite + Unpin>(
        mut self,
        client: Side<C>,
        worker: &Worker,
    ) -> Summary {
        let metrics = &self.route.metrics;
        metrics.tunnels.inc();
        let _open = Open(&self.route);
        let idle = self.route.route.timeouts.tunnel;
        let counters = Counters { sent: &metrics.sent, received: &metrics.received };
        let summary = relay(client, self.upstream, idle, &worker.buffers, counters).await;
        if let End::Failed(error) = &summary.end {
            // A peer that is gone is how most tunnels end.
            tracing::debug!(route = &*self.route.route.name, %error, "a tunnel broke off");
        }
        if let Some(entry) = &mut self.entry {
            entry.tunnelled(summary.received, summary.sent);
            entry.write();
        }
        summary
    }
}

/// Takes the tunnel out of the gauge, even where its task is dropped.
struct Open<'a>(&'a LocalRoute);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.metrics.tunnels.dec();
    }
}
