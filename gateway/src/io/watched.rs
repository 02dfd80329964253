//! A stream that remembers when bytes last moved, so that one timer per connection can serve every
//! deadline of it, and is not touched by a request.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// When bytes last moved on a stream; shared with who watches it.
#[derive(Debug, Clone)]
pub struct Activity(Rc<Times>);

#[derive(Debug)]
struct Times {
    /// The first read since the last mark.
    first: Cell<Option<Instant>>,
    read: Cell<Instant>,
    written: Cell<Instant>,
}

impl Activity {
    fn new() -> Self {
        let now = Instant::now();
        Self(Rc::new(Times { first: Cell::new(None), read: Cell::new(now), written: Cell::new(now) }))
    }

    /// Starts over with [`Self::first_read`].
    pub fn mark(&self) {
        self.0.first.set(None);
    }

    /// When the first bytes since the last mark arrived.
    pub fn first_read(&self) -> Option<Instant> {
        self.0.first.get()
    }

    /// When bytes last arrived.
    pub fn last_read(&self) -> Instant {
        self.0.read.get()
    }

    fn read(&self) {
        let now = Instant::now();
        self.0.read.set(now);
        if self.0.first.get().is_none() {
            self.0.first.set(Some(now));
        }
    }

    /// When bytes last left.
    pub fn last_written(&self) -> Instant {
        self.0.written.get()
    }

    /// When bytes last moved in either direction.
    pub fn last(&self) -> Instant {
        self.0.read.get().max(self.0.written.get())
    }
}

/// A stream with its [`Activity`].
#[derive(Debug)]
pub struct Watched<I> {
    io: I,
    activity: Activity,
}

impl<I> Watched<I> {
    /// Wraps a stream; its creation counts as activity.
    pub fn new(io: I) -> Self {
        Self { io, activity: Activity::new() }
    }

    /// A handle to the times of this stream.
    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// The stream itself.
    pub fn into_inner(self) -> I {
        self.io
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if result.is_ready() {
            self.activity.read();
        }
        result
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        if result.is_ready() {
            self.activity.0.written.set(Instant::now());
        }
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if result.is_ready() {
            self.activity.0.written.set(Instant::now());
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
