//! The two bodies of a stream, read and written as if they were a connection's bytes.

use super::{
    error::{Error, misused},
    head,
};
use crate::{
    http1::{HeadLimits, Malformed},
    message::Fields,
};
use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Limits of trailers; those of HTTP/1 here.
const TRAILERS: HeadLimits = HeadLimits { size: 16 * 1024, headers: 64 };

/// The two bodies of a stream: reading gives what the other side sends, up to its end; what is
/// written goes there as its window allows. Dropped before its end, the stream is reset.
#[derive(Debug, Default)]
pub struct Body {
    send: Option<SendStream<Bytes>>,
    recv: Option<RecvStream>,
    /// Came, and was not read yet. The other side gets its window back as it is read.
    came: Bytes,
    trailers: Option<Box<Fields>>,
    /// What is wrong with them: the message has no end then.
    malformed: Option<Malformed>,
    /// After so many more bytes the message ends.
    left: Option<usize>,
    has_ended: bool,
}

impl Body {
    pub(super) fn receiving(recv: RecvStream) -> Self {
        Self { recv: Some(recv), ..Self::default() }
    }

    pub(super) fn sending(send: SendStream<Bytes>, has_ended: bool) -> Self {
        Self { send: Some(send), has_ended, ..Self::default() }
    }

    pub(super) fn send_over(&mut self, send: SendStream<Bytes>, has_ended: bool) {
        (self.send, self.has_ended) = (Some(send), has_ended);
    }

    pub(super) fn receive_over(&mut self, recv: RecvStream) {
        self.recv = Some(recv);
    }

    /// Whether everything that the other side sends has been read, but for its trailers, where it
    /// is known that there are none.
    pub fn is_at_end(&self) -> bool {
        let has_ended = self.recv.as_ref().is_none_or(RecvStream::is_end_stream);
        self.came.is_empty() && has_ended && self.malformed.is_none()
    }

    /// What is wrong with what the other side sent, where that is known.
    pub fn malformed(&self) -> Option<Malformed> {
        self.malformed
    }

    /// The trailers, after everything else was read.
    pub fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
    }

    /// Says that the message ends after so many more bytes.
    pub fn ends_after(&mut self, bytes: usize) {
        self.left = Some(bytes);
    }

    /// Whether the end of this side's message has been sent.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Ends this side's message.
    ///
    /// # Errors
    /// Fails where the stream is gone.
    pub fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        if self.has_ended {
            return Ok(());
        }
        let Some(send) = &mut self.send else { return Err(misused("no head was sent")) };
        let sent = match trailers.filter(|trailers| !trailers.is_empty()) {
            Some(trailers) => send.send_trailers(head::header_map(trailers).map_err(misused)?),
            None => send.send_data(Bytes::new(), true),
        };
        sent.map_err(Error::from)?;
        self.has_ended = true;
        Ok(())
    }

    /// Ready when the other side has ended the stream before its time, or the connection is gone.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.send {
            Some(send) if !self.has_ended => send.poll_reset(cx).map(|_| ()),
            _ => Poll::Pending,
        }
    }

    /// Ends the stream so that nobody takes it for whole.
    pub fn abort(&mut self, reason: Reason) {
        if let Some(send) = &mut self.send {
            send.send_reset(reason);
        }
        self.has_ended = true;
    }

    /// Waits until something has come, or the other side's message has ended.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.came.is_empty() {
            if let Some(malformed) = self.malformed {
                return Poll::Ready(Err(io::Error::other(malformed)));
            }
            let Some(recv) = &mut self.recv else { return Poll::Ready(Ok(())) };
            match ready!(recv.poll_data(cx)) {
                Some(Ok(data)) => self.came = data,
                Some(Err(error)) => return Poll::Ready(Err(Error::from(error).into())),
                None => {
                    let trailers = ready!(recv.poll_trailers(cx)).map_err(Error::from)?;
                    self.recv = None;
                    match trailers.map(|trailers| head::fields(&trailers, TRAILERS)).transpose() {
                        Ok(trailers) => self.trailers = trailers.map(Box::new),
                        Err(error) => self.malformed = Some(of_trailers(error)),
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn of_trailers(error: Malformed) -> Malformed {
    match error {
        Malformed::HeadTooLarge | Malformed::TooManyFields => Malformed::Trailers,
        error => error,
    }
}

impl AsyncRead for Body {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_more(cx))?;
        let taken = this.came.len().min(buffer.remaining());
        if taken > 0 {
            buffer.put_slice(this.came.get(..taken).unwrap_or_default());
            this.came.advance(taken);
            if let Some(recv) = &mut this.recv {
                recv.flow_control().release_capacity(taken).map_err(Error::from)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Body {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(send) = this.send.as_mut().filter(|_| !this.has_ended) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        send.reserve_capacity(data.len());
        // Not more than the other side's window: what h2 holds is bounded by that.
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(granted) => granted.map_err(Error::from)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let written = send.capacity().min(data.len());
        let data = Bytes::copy_from_slice(data.get(..written).unwrap_or_default());
        if let Some(left) = &mut this.left {
            *left = left.saturating_sub(written);
            this.has_ended = *left == 0;
        }
        send.send_data(data, this.has_ended).map_err(Error::from)?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task does it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().end(None))
    }
}
