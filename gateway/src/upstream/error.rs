//! Why a backend gave no answer.

use crate::http1::Malformed;
use std::io;

/// What went wrong, with which server.
#[derive(Debug, thiserror::Error)]
#[error("{cause} (backend {backend}, server {server})")]
pub struct UpstreamError {
    /// Name of the backend.
    pub backend: String,
    /// `host:port` of the server.
    pub server: String,
    /// What went wrong.
    #[source]
    pub cause: Cause,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The name has no address, or the resolver failed.
    #[error("its name could not be resolved")]
    Resolve(#[source] io::Error),
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// No connection within the deadline.
    #[error("no connection within the deadline")]
    ConnectTimeout,
    /// The connection failed in another way.
    #[error("connecting failed: {0}")]
    Connect(#[source] io::Error),
    /// The connection failed before there was an answer.
    #[error("the exchange broke off: {0}")]
    Exchange(#[source] io::Error),
    /// The connection was closed before there was an answer.
    #[error("the connection was closed without an answer")]
    Closed,
    /// What came was no answer.
    #[error("the answer is malformed: {0}")]
    Malformed(#[source] Malformed),
}
