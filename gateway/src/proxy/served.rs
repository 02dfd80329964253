//! A component's call as what `upstream` knows: something inside of this process that answers.

use crate::{
    http1::{HeadLimits, Malformed},
    message::{Fields, RequestHead, ResponseHead},
    plugins::{HandlerFaultKind, NoAnswer, Serving},
    upstream::{Failure, Local},
};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A request to a component.
#[derive(Debug)]
pub(super) struct Served(Serving);

impl Served {
    pub(super) fn new(serving: Serving) -> Box<Self> {
        Box::new(Self(serving))
    }
}

impl Local for Served {
    fn start(&mut self, head: &RequestHead, is_last: bool) -> Result<(), Malformed> {
        self.0.start(head, is_last)
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, limits: HeadLimits) -> Poll<Result<ResponseHead, Failure>> {
        self.0.poll_head(cx, limits).map_err(|error| match error {
            NoAnswer::Malformed(error) => Failure::Malformed(error),
            NoAnswer::Failed(HandlerFaultKind::Full) => Failure::Full,
            NoAnswer::Failed(fault) => Failure::Failed(io::Error::other(fault.to_string())),
        })
    }

    fn is_at_end(&self) -> bool {
        self.0.is_at_end()
    }

    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.0.take_trailers()
    }

    fn ends_after(&mut self, bytes: usize) {
        self.0.ends_after(bytes);
    }

    fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        self.0.end(trailers)
    }

    fn finish(self: Box<Self>) {
        self.0.finish();
    }
}

impl AsyncRead for Served {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().0.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Served {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().0.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().0.end(None))
    }
}
