//! What carries messages: the bytes of HTTP/1, which hold heads and ends, or a stream of HTTP/2, which
//! is told of both apart from the bytes. The path of a request is the same over either.

use super::stream::ClientStream;
use crate::{
    http1::Malformed,
    http2::{Call, ServerStream},
    io::Stream,
    message::{Fields, ResponseHead},
    upstream::Io,
};
use std::{
    io,
    task::{Context, Poll},
};
use tokio::net::TcpStream;

/// What carries messages in one or both directions. Unless it says otherwise, their heads, frames and
/// ends are among its bytes.
pub(super) trait Carrier: Stream {
    /// Whether heads and ends are told to it, and nothing but bodies is read and written.
    fn frames(&self) -> bool {
        false
    }

    /// Whether the message that is read has ended, as far as can be known without reading on.
    fn is_at_end(&self) -> bool {
        false
    }

    /// What is wrong with the message that is read, where reading fails for that.
    fn malformed(&self) -> Option<Malformed> {
        None
    }

    /// The trailers of the message that was read.
    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        None
    }

    /// Says that what is written ends after so many more bytes.
    fn ends_after(&mut self, _bytes: usize) {}

    /// Ends what is written.
    fn end(&mut self, _trailers: Option<&Fields>) -> io::Result<()> {
        Ok(())
    }
}

/// What carries requests of clients, and their answers.
pub(super) trait Downstream: Carrier {
    /// The socket beneath, where it is this client's request alone that it carries.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    /// Sends an answer before the answer, where heads are told.
    fn send_interim(&mut self, _head: &ResponseHead) -> io::Result<()> {
        Ok(())
    }

    /// Sends an answer's head, where heads are told.
    fn send_head(&mut self, _head: &ResponseHead, _is_last: bool) -> io::Result<()> {
        Ok(())
    }

    /// Ready when the client has given up this request alone.
    fn poll_reset(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// Whether what follows the request's head is another protocol, should it be granted (RFC 8441).
    fn opens_tunnel(&self) -> bool {
        false
    }
}

impl Carrier for ClientStream {}

impl Downstream for ClientStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.socket())
    }
}

impl Carrier for ServerStream {
    fn frames(&self) -> bool {
        true
    }

    fn is_at_end(&self) -> bool {
        self.is_at_end()
    }

    fn malformed(&self) -> Option<Malformed> {
        self.malformed()
    }

    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.body().take_trailers()
    }

    fn ends_after(&mut self, bytes: usize) {
        self.body().ends_after(bytes);
    }

    fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        self.end(trailers)
    }
}

impl Downstream for ServerStream {
    fn send_interim(&mut self, head: &ResponseHead) -> io::Result<()> {
        self.send_interim(head)
    }

    fn send_head(&mut self, head: &ResponseHead, is_last: bool) -> io::Result<()> {
        self.send_head(head, is_last)
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_reset(cx)
    }

    fn opens_tunnel(&self) -> bool {
        self.opens_tunnel()
    }
}

impl Carrier for Io {
    fn frames(&self) -> bool {
        !matches!(self, Self::Tcp(_) | Self::Tls(_))
    }

    fn is_at_end(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Tls(_) => false,
            Self::Http2(call) => Call::is_at_end(call),
            Self::Local(call) => call.is_at_end(),
        }
    }

    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        match self {
            Self::Tcp(_) | Self::Tls(_) => None,
            Self::Http2(call) => call.body().take_trailers(),
            Self::Local(call) => call.take_trailers(),
        }
    }

    fn ends_after(&mut self, bytes: usize) {
        match self {
            Self::Tcp(_) | Self::Tls(_) => {}
            Self::Http2(call) => call.body().ends_after(bytes),
            Self::Local(call) => call.ends_after(bytes),
        }
    }

    fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Tls(_) => Ok(()),
            Self::Http2(call) => call.body().end(trailers),
            Self::Local(call) => call.end(trailers),
        }
    }
}
