//! One direction of a relay: what is read from one side is written to the other, up to its end.

#[cfg(target_os = "linux")]
use crate::io::Pipe;
use crate::{
    io::{BUFFER_SIZE, Buffers, Stream},
    metrics::Counter,
};
use bytes::Bytes;
use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

pub(super) struct Direction<'a> {
    early: Bytes,
    buffer: Option<Box<[u8]>>,
    #[cfg(target_os = "linux")]
    bulk: Bulk,
    /// The part of the buffer that waits to be written.
    start: usize,
    end: usize,
    bytes: &'a Cell<u64>,
    unflushed: bool,
    state: State,
    buffers: &'a Buffers,
    counter: &'a Counter,
}

/// Whether a direction carries so much that a pipe is worth its system calls.
#[cfg(target_os = "linux")]
#[derive(Debug)]
enum Bulk {
    /// No: bytes are copied. A whole buffer at once changes that.
    No,
    /// The kernel moves them. The pipe is there while bytes are in it.
    Yes(Option<Pipe>),
    /// The kernel cannot: these are no sockets of that kind, or there are no more pipes.
    Never,
}

/// Bytes that are read at a time: they fill four records where the other side is one of TLS.
const AT_A_TIME: usize = 64 * 1024;
const _: () = assert!(AT_A_TIME <= BUFFER_SIZE, "what is read has room in a buffer");

/// Bytes at a time below which copying is cheaper than a pipe.
#[cfg(target_os = "linux")]
const WORTH_A_PIPE: usize = 16 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Copying,
    ShuttingDown,
    Done,
}

impl<'a> Direction<'a> {
    pub(super) fn new(
        early: Bytes,
        buffers: &'a Buffers,
        (counter, bytes): (&'a Counter, &'a Cell<u64>),
    ) -> Self {
        Self {
            early,
            buffer: None,
            #[cfg(target_os = "linux")]
            bulk: Bulk::No,
            start: 0,
            end: 0,
            bytes,
            unflushed: false,
            state: State::Copying,
            buffers,
            counter,
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Stream,
        to: &mut impl Stream,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.state {
                State::Copying => {
                    ready!(self.poll_write(cx, to))?;
                    #[cfg(target_os = "linux")]
                    if let (Some(from), Some(to)) = (from.plain(), to.plain())
                        && ready!(self.poll_splice(cx, from, to))?
                    {
                        self.state = State::ShuttingDown;
                        continue;
                    }
                    match self.poll_fill(cx, from) {
                        Poll::Ready(filled) => {
                            if filled? == 0 {
                                self.state = State::ShuttingDown;
                            }
                        }
                        Poll::Pending => {
                            // Nothing more to come for now: what a stream holds back must leave.
                            if self.unflushed {
                                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                                self.unflushed = false;
                            }
                            return Poll::Pending;
                        }
                    }
                }
                State::ShuttingDown => {
                    // A peer that is gone already has nothing left to be told.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.state = State::Done;
                }
                State::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes all that waits; ready once nothing does.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while !self.early.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.early))?;
            self.wrote(written)?;
            drop(self.early.split_to(written));
        }
        while self.start < self.end {
            let waiting =
                self.buffer.as_deref().and_then(|buffer| buffer.get(self.start..self.end)).unwrap_or(&[]);
            let written = ready!(Pin::new(&mut *to).poll_write(cx, waiting))?;
            self.wrote(written)?;
            self.start += written;
        }
        Poll::Ready(Ok(()))
    }

    /// Moves bytes through a pipe while there are many: false where they are to be copied, true at the
    /// end of the direction.
    #[cfg(target_os = "linux")]
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
    ) -> Poll<io::Result<bool>> {
        if matches!(self.bulk, Bulk::No) && self.end == AT_A_TIME {
            (self.start, self.end) = (0, 0);
            self.bulk = Bulk::Yes(None);
            if let Some(buffer) = self.buffer.take() {
                self.buffers.put(buffer);
            }
        }
        let Bulk::Yes(kept) = &mut self.bulk else { return Poll::Ready(Ok(false)) };
        let Some(mut pipe) = kept.take().or_else(|| self.buffers.pipe()) else {
            self.bulk = Bulk::Never;
            return Poll::Ready(Ok(false));
        };
        loop {
            while !pipe.is_empty() {
                let Poll::Ready(moved) = pipe.poll_empty(cx, to) else {
                    self.bulk = Bulk::Yes(Some(pipe));
                    return Poll::Pending;
                };
                let moved = moved?;
                self.wrote(moved)?;
                if pipe.is_empty() && moved < WORTH_A_PIPE {
                    self.buffers.put_pipe(pipe);
                    self.bulk = Bulk::No;
                    return Poll::Ready(Ok(false));
                }
            }
            match pipe.poll_fill(cx, from, usize::MAX) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(_)) => {
                    self.buffers.put_pipe(pipe);
                    return Poll::Ready(Ok(true));
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.bulk = Bulk::Never;
                    return Poll::Ready(Ok(false));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // Whoever has more may have it meanwhile.
                    self.buffers.put_pipe(pipe);
                    return Poll::Pending;
                }
            }
        }
    }

    fn wrote(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes.set(self.bytes.get() + written as u64);
        self.counter.add(written as u64);
        self.unflushed = true;
        Ok(())
    }

    /// Reads what is there; 0 is the end. Keeps no buffer while there is nothing.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        let mut buffer = self.buffer.take().unwrap_or_else(|| self.buffers.take());
        let mut read = ReadBuf::new(buffer.get_mut(..AT_A_TIME).unwrap_or_default());
        let result = Pin::new(from).poll_read(cx, &mut read);
        let filled = read.filled().len();
        (self.start, self.end) = (0, filled);
        if filled == 0 {
            self.buffers.put(buffer);
        } else {
            self.buffer = Some(buffer);
        }
        result.map_ok(|()| filled)
    }
}

impl Drop for Direction<'_> {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.buffers.put(buffer);
        }
    }
}
