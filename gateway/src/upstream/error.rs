//! Why a backend gave no answer.

use crate::http1::Malformed;
use rustix::io::Errno;
use std::{fmt, io};

/// What went wrong, with which server.
#[derive(Debug)]
pub struct UpstreamError {
    /// Name of the backend.
    pub backend: String,
    /// `host:port` of the server, where it is about one.
    pub server: Option<String>,
    /// What went wrong.
    pub cause: Cause,
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (backend {}", self.cause, self.backend)?;
        match &self.server {
            Some(server) => write!(f, ", server {server})"),
            None => f.write_str(")"),
        }
    }
}

impl std::error::Error for UpstreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
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
    /// No server is thought to work, and trying one all the same failed like this.
    #[error("no server works; the last one tried: {0}")]
    Down(#[source] Box<Cause>),
    /// The connection stands, and there is no TLS on it.
    #[error("no TLS with it: {0}")]
    Tls(#[source] io::Error),
    /// There is no server, for now.
    #[error("nobody is registered who serves this")]
    NoneRegistered,
    /// All servers have as much to do as they may, and as many requests wait as may.
    #[error("no server has room, and too many requests wait for it")]
    QueueFull,
    /// All servers had as much to do as they may, for as long as a request may wait.
    #[error("no server had room in time")]
    QueueTimeout,
    /// The connection failed before there was an answer.
    #[error("the exchange broke off: {0}")]
    Exchange(#[source] io::Error),
    /// The connection was closed before there was an answer.
    #[error("the connection was closed without an answer")]
    Closed,
    /// What came was no answer.
    #[error("the answer is malformed: {0}")]
    Malformed(#[source] Malformed),
    /// What answers inside of this process failed.
    #[error("the component failed: {0}")]
    Component(#[source] io::Error),
}

impl Cause {
    /// Whether it is for want of something here, and says nothing about the server.
    pub fn is_ours(&self) -> bool {
        let Self::Connect(error) = self else { return false };
        let of_process = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
        error.raw_os_error().is_some_and(|code| of_process.iter().any(|ours| ours.raw_os_error() == code))
    }
}
