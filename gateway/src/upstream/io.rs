//! What carries a request to a server: a connection of its own, a stream of a shared one, or nothing at all.

use super::{Local, SecureStream};
use crate::{http2::Call, io::Stream};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// What carries a request to a server.
#[derive(Debug)]
pub enum Io {
    /// A connection, which has it for itself.
    Tcp(TcpStream),
    /// The same, with TLS on it. In a box: it is no larger than the others then.
    Tls(Box<SecureStream>),
    /// A stream of HTTP/2.
    Http2(Box<Call>),
    /// What answers inside of this process.
    Local(Box<dyn Local>),
}

impl Stream for Io {
    fn reset(&self) {
        match self {
            Self::Tcp(stream) => stream.reset(),
            Self::Tls(stream) => stream.0.reset(),
            Self::Http2(call) => call.reset(),
            // One that is dropped before its end is given up.
            Self::Local(_) => {}
        }
    }

    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Tls(_) | Self::Http2(_) | Self::Local(_) => None,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(&mut *stream.0).poll_read(cx, buffer),
            Self::Http2(call) => Pin::new(&mut **call).poll_read(cx, buffer),
            Self::Local(call) => Pin::new(&mut **call).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(&mut *stream.0).poll_write(cx, data),
            Self::Http2(call) => Pin::new(&mut **call).poll_write(cx, data),
            Self::Local(call) => Pin::new(&mut **call).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(&mut *stream.0).poll_write_vectored(cx, slices),
            Self::Http2(call) => Pin::new(&mut **call).poll_write_vectored(cx, slices),
            Self::Local(call) => Pin::new(&mut **call).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.0.is_write_vectored(),
            Self::Http2(call) => call.is_write_vectored(),
            Self::Local(call) => call.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut *stream.0).poll_flush(cx),
            Self::Http2(call) => Pin::new(&mut **call).poll_flush(cx),
            Self::Local(call) => Pin::new(&mut **call).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut *stream.0).poll_shutdown(cx),
            Self::Http2(call) => Pin::new(&mut **call).poll_shutdown(cx),
            Self::Local(call) => Pin::new(&mut **call).poll_shutdown(cx),
        }
    }
}
