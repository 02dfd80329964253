//! Requests that wait until a server has room: first come, first served, over all workers.
//!
//! Whoever is at the front holds the gate, and looks for room each time that some is given back. Where
//! nobody waits, giving back costs one load.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};

/// A server that works again tells nobody here: whoever is at the front looks again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Requests that wait for a server of one backend.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: AtomicUsize,
    /// One permit: the front. It is handed on in the order of arrival.
    gate: Semaphore,
    given_back: Notify,
}

impl Default for Queue {
    fn default() -> Self {
        Self { waiting: AtomicUsize::new(0), gate: Semaphore::new(1), given_back: Notify::new() }
    }
}

/// As many wait as may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Queue {
    /// Whether nobody waits, who would have to be let in first.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(SeqCst) == 0
    }

    /// Waits in line until `enter` gives something. Whoever stops waiting is out of the line.
    pub(super) async fn wait<T>(
        &self,
        places: usize,
        mut enter: impl FnMut() -> Option<T>,
    ) -> Result<T, Full> {
        let _place = Place::take(&self.waiting, places).ok_or(Full)?;
        // It is never closed.
        let _front = self.gate.acquire().await;
        loop {
            if let Some(entered) = enter() {
                return Ok(entered);
            }
            // Room that was given back since is remembered.
            let _ = timeout(LOOK_AGAIN, self.given_back.notified()).await;
        }
    }

    /// Some room was given back.
    pub(super) fn given_back(&self) {
        // Who waits has counted itself before it looked for room, and the room was there before this
        // looks for who waits: one of the two sees the other.
        if !self.is_empty() {
            self.given_back.notify_one();
        }
    }
}

/// One place in the line, until it is dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, places: usize) -> Option<Self> {
        // Nobody who got none may give one back: the value is made only then.
        let more = |waiting: usize| (waiting < places).then(|| waiting + 1);
        waiting.fetch_update(SeqCst, SeqCst, more).is_ok().then(|| Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        cell::{Cell, RefCell},
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
    };

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn first_come_first_served_and_whoever_leaves_is_passed_over() {
        let (queue, room) = (Queue::default(), Cell::new(0_usize));
        let served = RefCell::new(Vec::new());
        let visitor = |name: &'static str| {
            let (queue, room, served) = (&queue, &room, &served);
            async move {
                let enter = || room.get().checked_sub(1).map(|left| room.set(left));
                queue.wait(3, enter).await.map(|()| served.borrow_mut().push(name))
            }
        };
        let give = || {
            room.set(room.get() + 1);
            queue.given_back();
        };
        let (mut a, mut c) = (pin!(visitor("a")), pin!(visitor("c")));
        let mut b = Box::pin(visitor("b"));
        assert!(poll(a.as_mut()).is_pending() && poll(b.as_mut()).is_pending());
        assert!(poll(c.as_mut()).is_pending());
        assert_eq!(poll(pin!(visitor("d")).as_mut()), Poll::Ready(Err(Full)));
        give();
        assert!(poll(c.as_mut()).is_pending() && poll(b.as_mut()).is_pending(), "not before a");
        assert!(poll(a.as_mut()).is_ready());
        drop(b);
        give();
        assert!(poll(c.as_mut()).is_ready());
        assert_eq!(*served.borrow(), ["a", "c"]);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_nobody_gave_back_is_found() {
        let (queue, looks) = (Queue::default(), Cell::new(0));
        let enter = || {
            looks.set(looks.get() + 1);
            (looks.get() == 3).then_some(())
        };
        assert_eq!(queue.wait(1, enter).await, Ok(()));
    }
}
