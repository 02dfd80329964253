//! TLS towards servers, by somebody who knows how: what a pool has to know of that.

use super::{Cause, Io, Server};
use crate::io::Stream;
use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tokio::{io::ReadBuf, net::TcpStream};

/// A connection of TLS, or why there is none, in words.
pub type Secured = Pin<Box<dyn Future<Output = Result<Box<dyn Stream + Send>, String>> + Send>>;

/// Makes TLS of connections.
pub trait Secure: Send + Sync {
    /// Makes a handshake in which the server shows that it has this name: a host's name or an IP address. Whoever
    /// calls gives up when it takes too long.
    fn secure(&self, name: &str, socket: TcpStream, speaks: Speaks) -> Secured;
}

/// What is going to be said over TLS (ALPN, RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1, which servers speak that say nothing of it.
    Http1,
    /// HTTP/2, and nothing else will do.
    Http2,
    /// Whatever there is between a client and the server: nothing is said of it.
    Anything,
}

/// TLS towards the servers of a backend.
#[derive(Clone)]
pub struct Security {
    how: Arc<dyn Secure>,
    /// The name that all of them have to show, where it is not each one's own.
    name: Option<Box<str>>,
    /// The same for two that say the same.
    key: [u8; 32],
}

impl Security {
    /// TLS by somebody who does the same as all others with this key.
    pub fn new(how: Arc<dyn Secure>, name: Option<&str>, key: [u8; 32]) -> Self {
        Self { how, name: name.map(Into::into), key }
    }

    /// Makes TLS of a connection to this server.
    ///
    /// # Errors
    /// Fails where the server is not who it should be, or does not speak what it should.
    pub async fn over(&self, socket: TcpStream, server: &Server, speaks: Speaks) -> Result<Io, Cause> {
        let host = server.host();
        let name = self.name.as_deref().unwrap_or(&host);
        let secured = self.how.secure(name, socket, speaks).await;
        let secured = secured.map_err(|why| Cause::Tls(io::Error::other(why)))?;
        Ok(Io::Tls(Box::new(SecureStream(secured))))
    }
}

impl PartialEq for Security {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.name == other.name
    }
}

impl Eq for Security {}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A connection of TLS to a server.
pub struct SecureStream(pub(super) Box<dyn Stream + Send>);

impl SecureStream {
    /// Whether it is still open, and silent. What TLS says for itself, such as that a session may be resumed, is
    /// taken in.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        let read = Pin::new(&mut *self.0).poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
        matches!(read, Poll::Pending)
    }
}

impl fmt::Debug for SecureStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecureStream")
    }
}
