//! Which tunnels relay now, where a worker has more to do than it can.
//!
//! With thousands of busy tunnels, each served once in turn, all that the kernel and this program know
//! of a tunnel has left the processor's caches when its turn comes again: a message costs 1.7 times
//! what it costs among 200 tunnels. So a part of them is served for some milliseconds, then the next
//! part, in the order in which they came to wait. Nobody waits where the worker has time for all.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    task::{spawn_local, yield_now},
    time::Instant,
};

/// How many tunnels have the turn at a time.
const PLACES: usize = 96;

/// For how long, while others wait.
const SLICE: Duration = Duration::from_millis(4);

/// Tunnels served between two looks for new events, below which the worker has time for more.
const FEW: usize = 16;

/// The turns of one worker's tunnels.
#[derive(Debug)]
pub struct Turns {
    /// Which turn it is. Zero is none's.
    turn: Cell<u64>,
    began: Cell<Instant>,
    /// How many have the turn.
    taken: Cell<usize>,
    /// How often one of them was served.
    served: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Place>>>,
    distributing: Cell<bool>,
}

/// A tunnel's place in the turns.
#[derive(Debug, Default)]
struct Place {
    turn: Cell<u64>,
    /// Whom to wake, while it waits.
    waker: RefCell<Option<Waker>>,
}

/// A tunnel's part in them.
pub(super) struct Turn {
    turns: Rc<Turns>,
    /// The last turn that it had, where looking costs nothing.
    had: Cell<u64>,
    place: Rc<Place>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            turn: Cell::new(1),
            began: Cell::new(Instant::now()),
            taken: Cell::new(0),
            served: Cell::new(0),
            waiting: RefCell::default(),
            distributing: Cell::default(),
        }
    }
}

impl Turns {
    pub(super) fn join(self: &Rc<Self>) -> Turn {
        Turn { turns: Rc::clone(self), had: Cell::default(), place: Rc::default() }
    }

    /// Begins the next turn, for those who wait.
    fn next(&self) {
        self.turn.set(self.turn.get() + 1);
        self.began.set(Instant::now());
        self.admit();
    }

    /// Gives the turn to as many as it has places.
    fn admit(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let places = waiting.len().min(PLACES);
        self.taken.set(places);
        for place in waiting.drain(..places) {
            place.turn.set(self.turn.get());
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
        }
    }

    /// Goes on for as long as somebody waits.
    async fn distribute(self: Rc<Self>) {
        while !self.waiting.borrow().is_empty() {
            let served = self.served.get();
            // Whoever has the turn and something to do comes before this.
            yield_now().await;
            if self.began.get().elapsed() >= SLICE {
                self.next();
            } else if self.served.get().wrapping_sub(served) < FEW {
                self.admit();
            }
        }
        self.distributing.set(false);
    }
}

impl Turn {
    /// Ready while it is this one's turn.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { turns, had, place } = self;
        let turn = turns.turn.get();
        if had.get() != turn {
            if place.turn.get() != turn && !self.take() {
                return self.wait(cx);
            }
            had.set(turns.turn.get());
        }
        turns.served.set(turns.served.get().wrapping_add(1));
        Poll::Ready(())
    }

    /// Takes a place, where one is free.
    fn take(&self) -> bool {
        let Self { turns, place, .. } = self;
        if turns.taken.get() == PLACES {
            if !turns.waiting.borrow().is_empty() || turns.began.get().elapsed() < SLICE {
                return false;
            }
            turns.next();
        }
        turns.taken.set(turns.taken.get() + 1);
        place.turn.set(turns.turn.get());
        true
    }

    fn wait(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { turns, place, .. } = self;
        if place.waker.replace(Some(cx.waker().clone())).is_none() {
            turns.waiting.borrow_mut().push_back(Rc::clone(place));
            if !turns.distributing.replace(true) {
                spawn_local(Rc::clone(turns).distribute());
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::{task::LocalSet, time::advance};

    /// Runs so many tunnels, each of which is served until `length` is over, and each service takes
    /// `each`. Returns how often each was served, and the longest time that one waited.
    async fn tunnels(count: usize, length: Duration, each: Duration) -> Vec<(usize, Duration)> {
        let turns = Rc::new(Turns::default());
        let begin = Instant::now();
        let tunnel = |turn: Turn| async move {
            let (mut served, mut longest) = (0, Duration::ZERO);
            while begin.elapsed() < length {
                let asked = Instant::now();
                poll_fn(|cx| turn.poll(cx)).await;
                longest = longest.max(asked.elapsed());
                served += 1;
                advance(each).await;
                yield_now().await;
            }
            (served, longest)
        };
        let set = LocalSet::new();
        let tunnels: Vec<_> = (0..count).map(|_| set.spawn_local(tunnel(turns.join()))).collect();
        set.run_until(async move {
            let mut results = Vec::new();
            for tunnel in tunnels {
                results.push(tunnel.await.expect("a tunnel that ends"));
            }
            results
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_while_there_are_places() {
        for (served, longest) in tunnels(PLACES, 10 * SLICE, Duration::from_micros(10)).await {
            assert!(served > 1 && longest.is_zero(), "served {served} times, waited for {longest:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_worker_serves_a_part_at_a_time_and_everybody_in_turn() {
        let each = Duration::from_micros(10);
        let results = tunnels(4 * PLACES, 100 * SLICE, each).await;
        // Others have the turn three times of four; the last of a part may still be at work.
        let longest = results.iter().map(|(_, longest)| *longest).max().unwrap_or_default();
        assert!(longest >= 2 * SLICE, "nobody waited for others: {longest:?}");
        assert!(longest <= 5 * SLICE, "one was left waiting for {longest:?}");
        let served = results.iter().map(|(served, _)| *served);
        let (least, most) = (served.clone().min().unwrap_or(0), served.max().unwrap_or(0));
        assert!(least * 2 > most, "from {least} to {most} times");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_the_time_where_few_have_something_to_do() {
        let turns = Rc::new(Turns::default());
        let set = LocalSet::new();
        let tunnels: Vec<_> = (0..10 * PLACES)
            .map(|_| turns.join())
            .map(|turn| set.spawn_local(async move { poll_fn(|cx| turn.poll(cx)).await }))
            .collect();
        let begin = Instant::now();
        set.await;
        assert!(tunnels.iter().all(tokio::task::JoinHandle::is_finished));
        assert!(begin.elapsed() < SLICE, "they took {:?}", begin.elapsed());
        assert!(turns.waiting.borrow().is_empty() && !turns.distributing.get());
    }
}
