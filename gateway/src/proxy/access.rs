//! The access log: one line for each request, and for each raw TCP connection, when it is over; and what
//! plugins are shown of it.

use super::{answer::ErrorCode, worker::Worker};
use crate::{
    ids::{ClientAddr, RequestId},
    message::{Known, RequestHead},
    plugins::{Completed, Exchange, Facts},
    snapshot::LocalRoute,
};
use http::StatusCode;
use std::{
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// The target of access lines, by which the log's format tells them apart.
pub(crate) const TARGET: &str = "access";

/// What a line tells, and plugins are shown; made only where the log is on or a plugin wants to see it.
#[derive(Debug)]
pub(super) struct Entry {
    /// Whether there is a line.
    is_written: bool,
    pub(super) plugins: Option<Box<Readers>>,
    pub(super) id: RequestId,
    pub(super) client: ClientAddr,
    pub(super) began: Instant,
    /// None where what came was no request.
    asked: Option<Asked>,
    pub(super) route: Option<Arc<str>>,
    /// None where the client left before there was an answer.
    pub(super) status: Option<StatusCode>,
    /// From the request's head to the answer's.
    pub(super) head: Option<Duration>,
    pub(super) error: Option<ErrorCode>,
    /// The plugin that answered, and its reason.
    pub(super) answered_by: Option<(String, String)>,
    /// Bytes of the body that went to the client.
    pub(super) sent: u64,
    received: u64,
    /// Bytes of the body that went to the backend.
    pub(super) uploaded: u64,
    /// The answer did not come to its end.
    pub(super) broke_off: bool,
}

/// The plugins that are shown what became of a request.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) worker: Rc<Worker>,
    /// Where they are. A tunnel may outlive that: what a route was must not live as long.
    pub(super) route: Weak<LocalRoute>,
    pub(super) peer: ClientAddr,
    pub(super) local_port: u16,
    pub(super) captures: Vec<(Box<str>, Box<str>)>,
    /// What the hooks before have stored in it.
    pub(super) exchange: Option<Box<Exchange>>,
}

#[derive(Debug)]
struct Asked {
    method: Box<str>,
    host: Box<str>,
    path: Box<str>,
}

impl Entry {
    pub(super) fn new(id: RequestId, client: ClientAddr, began: Instant, is_written: bool) -> Self {
        Self {
            is_written,
            plugins: None,
            id,
            client,
            began,
            asked: None,
            route: None,
            status: None,
            head: None,
            error: None,
            answered_by: None,
            sent: 0,
            received: 0,
            uploaded: 0,
            broke_off: false,
        }
    }

    /// What the request asked for.
    pub(super) fn asked(&mut self, head: &RequestHead) {
        let host = head.authority().or_else(|| head.fields.get(Known::Host)).unwrap_or_default();
        self.asked = Some(Asked {
            method: head.method.as_str().into(),
            host: String::from_utf8_lossy(host).into(),
            path: head.path().into(),
        });
    }

    /// Bytes of a tunnel went to the client and to the backend.
    pub(super) fn tunnelled(&mut self, to_client: u64, to_backend: u64) {
        (self.sent, self.received) = (to_client, to_backend);
    }

    /// Keeps what hooks have stored in an exchange, where somebody may ask for it.
    pub(super) fn keep(&mut self, exchange: Box<Exchange>) {
        // What an instance took along into its end has no facts.
        if let Some(plugins) = self.plugins.as_mut().filter(|_| exchange.facts.is_some()) {
            plugins.exchange = Some(exchange);
        }
    }

    fn show(&mut self, readers: Readers) {
        let Readers { worker, route, peer, local_port, captures, exchange } = readers;
        let Some(name) = self.route.take() else { return };
        let asked = self.asked.take();
        let completed = Completed {
            method: asked.as_ref().map(|asked| asked.method.clone()).unwrap_or_default(),
            authority: asked.as_ref().map(|asked| asked.host.clone()).unwrap_or_default(),
            path: asked.map(|asked| asked.path).unwrap_or_default(),
            status: self.status,
            head: self.head,
            total: self.began.elapsed(),
            received: self.received + self.uploaded,
            sent: self.sent,
            answered_by: self.answered_by.take(),
            error: self.error.map(ErrorCode::as_str),
            broke_off: self.broke_off || self.status.is_none(),
        };
        let anew = |name| {
            let (id, client, is_upgrade) = (self.id, self.client, false);
            let facts = Facts { id, route: name, client, peer, local_port, captures, is_upgrade };
            Box::new(Exchange::over(facts))
        };
        if let Some(route) = route.upgrade() {
            let exchange = exchange.unwrap_or_else(|| anew(name));
            route.terms.chain.log(&worker.journal, exchange, completed);
        } else if let Some(route) = worker.local().routes.iter().find(|route| *route.name == *name) {
            // Its plugins may be others now, to whom the values do not belong.
            route.terms.chain.log(&worker.journal, anew(name), completed);
        }
    }

    fn write(&self) {
        let asked = self.asked.as_ref();
        let (plugin, reason) =
            self.answered_by.as_ref().map(|(plugin, reason)| (plugin.as_str(), reason.as_str())).unzip();
        tracing::info!(
            target: TARGET,
            client = %self.client,
            method = asked.map(|asked| &*asked.method),
            host = asked.map(|asked| &*asked.host),
            path = asked.map(|asked| &*asked.path),
            status = self.status.map(|status| status.as_u16()),
            duration_us = micros(self.began),
            sent = self.sent,
            received = (self.received > 0).then_some(self.received),
            route = self.route.as_deref(),
            error = self.error.map(ErrorCode::as_str),
            plugin,
            reason,
            broke_off = (self.broke_off || self.status.is_none()).then_some(true),
            request_id = %self.id,
        );
    }
}

/// Whatever becomes of a request, it leaves its line.
impl Drop for Entry {
    fn drop(&mut self) {
        if self.is_written {
            self.write();
        }
        if let Some(readers) = self.plugins.take() {
            self.show(*readers);
        }
    }
}

/// Writes the line of a raw TCP connection, with the bytes to the server and to the client, and why it ended
/// where that was not in order.
pub(super) fn connection(
    client: ClientAddr,
    route: &str,
    began: Instant,
    (to_server, to_client): (u64, u64),
    error: Option<&str>,
) {
    tracing::info!(
        target: TARGET,
        %client,
        duration_us = micros(began),
        sent = to_client,
        received = to_server,
        route,
        error,
    );
}

/// Writes the line of a connection that a plugin's fault has closed.
pub(super) fn failed(client: ClientAddr, route: &str, began: Instant, (plugin, error): (&str, &str)) {
    tracing::info!(target: TARGET, %client, duration_us = micros(began), sent = 0, received = 0, route, error, plugin);
}

/// Writes the line of a connection that a plugin refused, with its reason.
pub(super) fn refused(client: ClientAddr, route: &str, began: Instant, (plugin, reason): (&str, &str)) {
    tracing::info!(target: TARGET, %client, duration_us = micros(began), sent = 0, received = 0, route, plugin, reason);
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
