//! Copies bytes both ways until both sides are done, or nothing moved for too long.
//!
//! One side's end is passed on as an end of that direction only (half-close); the other direction
//! goes on. A direction holds a buffer only while bytes are in it, and where there are many of them
//! the kernel moves them itself. What the bytes mean is nobody's business here.

mod direction;
mod idle;
mod turns;

pub use turns::Turns;

use crate::{
    io::{Buffers, Stream},
    metrics::Counter,
};
use bytes::Bytes;
use direction::Direction;
use idle::IdleTimer;
use std::{
    cell::Cell,
    future::poll_fn,
    io,
    rc::Rc,
    task::{Poll, ready},
    time::Duration,
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
    /// Both, of this relay alone.
    pub tally: &'a Tally,
}

/// Bytes that one relay has moved so far: they are known even where it is dropped.
#[derive(Debug, Default)]
pub struct Tally {
    /// From the first side to the second.
    pub sent: Cell<u64>,
    /// From the second side to the first.
    pub received: Cell<u64>,
}

impl Tally {
    fn total(&self) -> u64 {
        self.sent.get() + self.received.get()
    }
}

/// What a worker gives to all of its relays.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// What they hold while bytes wait.
    pub buffers: &'a Buffers,
    /// Who of them goes first.
    pub turns: &'a Rc<Turns>,
}

/// Relays between two sides until both have closed, and returns how it ended.
pub async fn relay<A, B>(
    mut a: Side<A>,
    mut b: Side<B>,
    idle: Duration,
    means: Means<'_>,
    counters: Counters<'_>,
) -> End
where
    A: Stream,
    B: Stream,
{
    let tally = counters.tally;
    let mut there = Direction::new(a.early, means.buffers, (counters.sent, &tally.sent));
    let mut back = Direction::new(b.early, means.buffers, (counters.received, &tally.received));
    let mut timer = IdleTimer::new(idle);
    let turn = means.turns.join();
    let end = poll_fn(|cx| {
        ready!(turn.poll(cx));
        let before = tally.total();
        let sent = there.poll(cx, &mut a.io, &mut b.io);
        let received = back.poll(cx, &mut b.io, &mut a.io);
        match (sent, received) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                return Poll::Ready(End::Failed(error));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Closed),
            _ => {}
        }
        if tally.total() > before && timer.moved() {
            return Poll::Pending;
        }
        timer.poll_expired(cx).map(|()| End::Idle)
    })
    .await;
    if matches!(end, End::Failed(_)) {
        // An end that was not told, or a connection that was cut: neither side may take it for an
        // orderly one.
        a.io.reset();
        b.io.reset();
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, names};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        net::{TcpListener, TcpStream},
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
        let (buffers, turns) = (Buffers::default(), Rc::default());
        let tally = Tally::default();
        let counters = Counters { sent: &counter(), received: &counter(), tally: &tally };
        let relaying = relay(
            side(a, "early "),
            side(b, ""),
            Duration::from_secs(60),
            Means { buffers: &buffers, turns: &turns },
            counters,
        );
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
        let (end, ()) = tokio::join!(relaying, talking);
        assert!(matches!(end, End::Closed), "{end:?}");
        assert_eq!((tally.sent.get(), tally.received.get()), (10, 25));
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
        let (buffers, turns) = (Buffers::default(), Rc::default());
        let tally = Tally::default();
        let counters = Counters { sent: &counter(), received: &counter(), tally: &tally };
        let relaying = relay(
            side(a, ""),
            side(b, ""),
            Duration::from_secs(60),
            Means { buffers: &buffers, turns: &turns },
            counters,
        );
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
        let (_, (), ()) = tokio::join!(relaying, sending, receiving);
        assert_eq!(tally.sent.get(), total as u64);
    }

    #[tokio::test]
    async fn idle() {
        let (buffers, turns) = (Buffers::default(), Rc::default());
        let ((_client, a), (_server, b)) = (duplex(16), duplex(16));
        let tally = Tally::default();
        let counters = Counters { sent: &counter(), received: &counter(), tally: &tally };
        let end = relay(
            side(a, ""),
            side(b, ""),
            Duration::from_millis(9),
            Means { buffers: &buffers, turns: &turns },
            counters,
        )
        .await;
        assert!(matches!(end, End::Idle), "{end:?}");
    }
}
