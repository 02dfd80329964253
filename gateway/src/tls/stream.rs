//! A client's connection over TLS.

use super::terminator::HTTP2;
use crate::io::Stream;
use socket2::SockRef;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// A client's connection over TLS, after the handshake.
#[derive(Debug)]
pub struct ServerStream(TlsStream<TcpStream>);

impl ServerStream {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self(stream)
    }

    /// The name that the client asked for, in lower case.
    pub fn server_name(&self) -> Option<&str> {
        self.0.get_ref().1.server_name()
    }

    /// Whether HTTP/2 was agreed on (RFC 7301).
    pub fn speaks_http2(&self) -> bool {
        self.0.get_ref().1.alpn_protocol() == Some(HTTP2)
    }

    /// Whether an earlier session goes on.
    pub fn is_resumed(&self) -> bool {
        self.0.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// What is beneath.
    pub fn socket(&self) -> &TcpStream {
        self.0.get_ref().0
    }

    /// Tells the client, as far as that does not need waiting, that this is the end (RFC 8446 §6.1): what
    /// it has got is not cut off.
    pub fn say_goodbye(&mut self) {
        let (socket, session) = self.0.get_mut();
        session.send_close_notify();
        // A client that takes nothing now learns less than it could.
        let _ = session.write_tls(&mut Now(socket));
    }
}

/// Writes what the socket takes at once.
struct Now<'a>(&'a TcpStream);

impl io::Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for ServerStream {
    fn reset(&self) {
        // A socket on which this fails is dead already, and the other side knows.
        let _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
