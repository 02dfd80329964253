//! An exchange that is over.

use crate::{Exchange, host::types};
use std::{cell::OnceCell, time::Duration};

/// What became of a request and its answer, once both are over.
///
/// Every method asks the gateway, so keep what you need twice.
///
/// ```
/// use vers_plugin::testing;
///
/// let done = testing::completed(401).answered_by("auth", "missing-token").build();
/// assert_eq!(done.status(), Some(401));
/// assert_eq!(done.answered_by().as_deref(), Some("auth"));
/// ```
#[derive(Debug)]
pub struct Completed {
    handle: types::Completed,
    exchange: OnceCell<Exchange>,
}

impl Completed {
    pub(crate) fn new(handle: types::Completed) -> Self {
        Self { handle, exchange: OnceCell::new() }
    }

    /// The exchange: who asked, on which route, and what earlier hooks of this plugin have stored.
    pub fn exchange(&self) -> &Exchange {
        self.exchange.get_or_init(|| Exchange::new(self.handle.exchange()))
    }

    /// `GET`, `POST`, …, as the client sent it.
    pub fn method(&self) -> String {
        self.handle.method()
    }

    /// `host[:port]` as the client asked for it.
    pub fn authority(&self) -> String {
        self.handle.authority()
    }

    /// The path as the client sent it, without the query.
    pub fn path(&self) -> String {
        self.handle.path()
    }

    /// The status that the client was sent; none where it left before there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.handle.status()
    }

    /// From the request's head to the head of the answer, where there was one.
    pub fn head_duration(&self) -> Option<Duration> {
        self.handle.head_duration_us().map(Duration::from_micros)
    }

    /// From the request's head to the end of all: of the answer's body, or of the tunnel that a 101 opened.
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.handle.duration_us())
    }

    /// Bytes of the request's body that a backend was sent; of a tunnel, those to the backend.
    pub fn request_bytes(&self) -> u64 {
        self.handle.request_bytes()
    }

    /// Bytes of the answer's body that were sent to the client; of a tunnel, those to the client.
    pub fn response_bytes(&self) -> u64 {
        self.handle.response_bytes()
    }

    /// Name of the plugin that answered, where it was one.
    pub fn answered_by(&self) -> Option<String> {
        self.handle.answered_by()
    }

    /// Why it did: the reason of its reply.
    pub fn reason(&self) -> Option<String> {
        self.handle.reason()
    }

    /// Code of the error, where the gateway answered (`upstream-timeout`).
    pub fn error(&self) -> Option<String> {
        self.handle.error()
    }

    /// Whether the answer did not come to its end.
    pub fn broke_off(&self) -> bool {
        self.handle.broke_off()
    }
}
