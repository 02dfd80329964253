//! What a connection must be able to do, whatever carries it.

use socket2::SockRef;
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A connection's two directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Ends the connection in such a way that the other side cannot take it for an orderly end.
    fn reset(&self);

    /// The socket, where what is on it is nothing but the bytes of this connection: the kernel may
    /// move them itself.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl Stream for TcpStream {
    fn reset(&self) {
        // A socket on which this fails is dead already, and the other side knows.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}
