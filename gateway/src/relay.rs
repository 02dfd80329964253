//! Copies bytes both ways until both sides are done, or nothing moved for too long.
//!
//! One side's end is passed on as an end of that direction only (half-close); the other direction
//! goes on. A direction holds a buffer only while bytes are in it, and where there are many of them
//! the kernel moves them itself. What the bytes mean is nobody's business here.

#[cfg(target_os = "linux")]
use crate::io::Pipe;
use crate::{
    io::{BUFFER_SIZE, Buffers, Stream},
    metrics::Counter,
};
use bytes::Bytes;
use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both sides closed.
    Closed,
    /// No byte moved for the idle time.
    Idle,
    /// A side failed.
    Failed(io::Error),
}

/// Bytes relayed, and why it ended.
#[derive(Debug)]
pub struct Summary {
    /// From the first side to the second.
    pub sent: u64,
    /// From the second side to the first.
    pub received: u64,
    /// Why it ended.
    pub end: End,
}

/// One side of a relay: a stream, and bytes that were read from it before.
#[derive(Debug)]
pub struct Side<I> {
    /// The stream.
    pub io: I,
    /// Bytes that come before those of the stream.
    pub early: Bytes,
}

/// What is counted while a relay runs; it may run for days.
#[derive(Debug)]
pub struct Counters<'a> {
    /// Bytes from the first side to the second.
    pub sent: &'a Counter,
    /// Bytes from the second side to the first.
    pub received: &'a Counter,
}

/// Relays between two sides until both have closed.
pub async fn relay<A, B>(
    mut a: Side<A>,
    mut b: Side<B>,
    idle: Duration,
    buffers: &Buffers,
    counters: Counters<'_>,
) -> Summary
where
    A: Stream,
    B: Stream,
{
    let mut there = Direction::new(a.early, buffers, counters.sent);
    let mut back = Direction::new(b.early, buffers, counters.received);
    let mut timer = IdleTimer::new(idle);
    let end = poll_fn(|cx| {
        let before = there.bytes + back.bytes;
        let sent = there.poll(cx, &mut a.io, &mut b.io);
        let received = back.poll(cx, &mut b.io, &mut a.io);
        match (sent, received) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                return Poll::Ready(End::Failed(error));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Closed),
            _ => {}
        }
        if there.bytes + back.bytes > before && timer.moved() {
            return Poll::Pending;
        }
        timer.poll_expired(cx).map(|()| End::Idle)
    })
    .await;
    Summary { sent: there.bytes, received: back.bytes, end }
}

struct Direction<'a> {
    early: Bytes,
    buffer: Option<Box<[u8]>>,
    #[cfg(target_os = "linux")]
    bulk: Bulk,
    /// The part of the buffer that waits to be written.
    start: usize,
    end: usize,
    bytes: u64,
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
    fn new(early: Bytes, buffers: &'a Buffers, counter: &'a Counter) -> Self {
        Self {
            early,
            buffer: None,
            #[cfg(target_os = "linux")]
            bulk: Bulk::No,
            start: 0,
            end: 0,
            bytes: 0,
            unflushed: false,
            state: State::Copying,
            buffers,
            counter,
        }
    }

    fn poll(
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
        if matches!(self.bulk, Bulk::No) && self.end == BUFFER_SIZE {
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
        self.bytes += written as u64;
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
        let mut read = ReadBuf::new(&mut buffer);
        let result = Pin::new(from).poll_read(cx, &mut read);
        let filled = read.filled().len();
        debug_assert!(filled <= BUFFER_SIZE, "a buffer has {BUFFER_SIZE} bytes, not {filled}");
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

/// Expires when nothing moved for a while. The timer underneath is touched once per idle time, not
/// once per byte: when it fires early, it is set again for what remains.
struct IdleTimer {
    idle: Duration,
    last: Instant,
    /// When the sleep ends, once it knows whom to wake.
    armed: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl IdleTimer {
    fn new(idle: Duration) -> Self {
        let last = Instant::now();
        Self { idle, last, armed: None, sleep: Box::pin(sleep_until(last + idle)) }
    }

    /// Notes that something moved. True where the timer will wake this task in any case: then it need
    /// not be asked, which for thousands of tunnels is memory that need not be touched.
    fn moved(&mut self) -> bool {
        self.last = Instant::now();
        self.armed.is_some_and(|end| self.last < end)
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.armed = Some(self.sleep.deadline());
            // Outside of tokio's budget: without it the sleep would not note whom to wake.
            ready!(pin!(unconstrained(self.sleep.as_mut())).poll(cx));
            let due = self.last + self.idle;
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, names};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        net::TcpListener,
    };

    impl Stream for DuplexStream {
        fn reset(&self) {}
    }

    fn counter() -> Counter {
        Metrics::new().counter(&names::TUNNEL_BYTES, &[])
    }

    fn side<I>(io: I, early: &'static str) -> Side<I> {
        Side { io, early: Bytes::from_static(early.as_bytes()) }
    }

    #[tokio::test]
    async fn both_ways_with_half_close_and_early_bytes() {
        let ((mut client, a), (mut server, b)) = (duplex(16), duplex(16));
        let buffers = Buffers::default();
        let counters = Counters { sent: &counter(), received: &counter() };
        let relaying = relay(side(a, "early "), side(b, ""), Duration::from_secs(60), &buffers, counters);
        let talking = async {
            client.write_all(b"ping").await.expect("a write");
            client.shutdown().await.expect("a shutdown");
            let mut got = String::new();
            server.read_to_string(&mut got).await.expect("the client's bytes and its end");
            assert_eq!(got, "early ping");
            server.write_all(b"the other way still works").await.expect("a write");
            drop(server);
            let mut got = String::new();
            client.read_to_string(&mut got).await.expect("the server's bytes");
            assert_eq!(got, "the other way still works");
        };
        let (summary, ()) = tokio::join!(relaying, talking);
        assert!(matches!(summary.end, End::Closed), "{summary:?}");
        assert_eq!((summary.sent, summary.received), (10, 25));
    }

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (near, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("a connection"), accepted.expect("a connection").0)
    }

    #[tokio::test]
    async fn much_and_little_in_turn_arrives_whole_and_in_order() {
        let ((mut client, a), (b, mut server)) = (connected().await, connected().await);
        let buffers = Buffers::default();
        let counters = Counters { sent: &counter(), received: &counter() };
        let relaying = relay(side(a, ""), side(b, ""), Duration::from_secs(60), &buffers, counters);
        let sizes = [1, 5 << 20, 3, 70_000, 1, 8 << 20, 16_000, 2 << 20];
        let byte = |at: usize| (at % 251) as u8;
        let total: usize = sizes.iter().sum();
        let sending = async {
            let mut at = 0;
            for size in sizes {
                let bytes: Vec<u8> = (at..at + size).map(byte).collect();
                client.write_all(&bytes).await.expect("a write");
                at += size;
            }
            client.shutdown().await.expect("a shutdown");
        };
        let receiving = async {
            let mut got = Vec::with_capacity(total);
            server.read_to_end(&mut got).await.expect("the bytes");
            assert_eq!(got.len(), total);
            assert!(got.iter().enumerate().all(|(at, got)| *got == byte(at)), "in order");
            drop(server);
        };
        let (summary, (), ()) = tokio::join!(relaying, sending, receiving);
        assert_eq!(summary.sent, total as u64);
    }

    #[tokio::test]
    async fn idle() {
        let buffers = Buffers::default();
        let ((_client, a), (_server, b)) = (duplex(16), duplex(16));
        let counters = Counters { sent: &counter(), received: &counter() };
        let summary = relay(side(a, ""), side(b, ""), Duration::from_millis(9), &buffers, counters).await;
        assert!(matches!(summary.end, End::Idle), "{summary:?}");
    }
}
