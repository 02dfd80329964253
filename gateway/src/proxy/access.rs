//! The access log: one line for each request, and for each raw TCP connection, when it is over.

use super::answer::ErrorCode;
use crate::{
    ids::{ClientAddr, RequestId},
    message::{Known, RequestHead},
    relay::Summary,
};
use http::StatusCode;
use std::sync::Arc;
use tokio::time::Instant;

/// The target of access lines, by which the log's format tells them apart.
pub(crate) const TARGET: &str = "access";

/// What a line tells; made only where the log is on.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: RequestId,
    pub(super) client: ClientAddr,
    pub(super) began: Instant,
    /// None where what came was no request.
    asked: Option<Asked>,
    pub(super) route: Option<Arc<str>>,
    /// None where the client left before there was an answer.
    pub(super) status: Option<StatusCode>,
    pub(super) error: Option<ErrorCode>,
    /// The plugin that answered, and its reason.
    pub(super) answered_by: Option<(String, String)>,
    /// Bytes of the body that went to the client.
    pub(super) sent: u64,
    received: u64,
    /// The answer did not come to its end.
    pub(super) broke_off: bool,
}

#[derive(Debug)]
struct Asked {
    method: Box<str>,
    host: Box<str>,
    path: Box<str>,
}

impl Entry {
    pub(super) fn new(id: RequestId, client: ClientAddr, began: Instant) -> Self {
        Self {
            id,
            client,
            began,
            asked: None,
            route: None,
            status: None,
            error: None,
            answered_by: None,
            sent: 0,
            received: 0,
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
        self.write();
    }
}

/// Writes the line of a raw TCP connection.
pub(super) fn connection(client: ClientAddr, route: &str, began: Instant, relayed: &Summary) {
    tracing::info!(
        target: TARGET,
        %client,
        duration_us = micros(began),
        sent = relayed.received,
        received = relayed.sent,
        route,
    );
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
