//! Drain: stop taking new work, let the running work finish, know when it is done.
//!
//! One [`Drain`] belongs to one listener on one worker; everything here stays on that thread, so a
//! connection asks "are we draining?" by reading a plain bool. This module knows no deadline: who
//! waits for [`Drain::finished`] sets it.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Counts the running work and tells it when to end.
#[derive(Debug, Default, Clone)]
pub struct Drain(Rc<State>);

#[derive(Debug, Default)]
struct State {
    draining: Cell<bool>,
    live: Cell<usize>,
    /// Who to wake when draining starts; a guard's slot is free again once it is dropped.
    waiting: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    finished: RefCell<Option<Waker>>,
}

impl Drain {
    /// Nothing runs, nothing drains.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one piece of work, until the guard is dropped.
    pub fn guard(&self) -> Guard {
        self.0.live.set(self.0.live.get() + 1);
        Guard { state: Rc::clone(&self.0), slot: None }
    }

    /// How many guards are alive.
    pub fn live(&self) -> usize {
        self.0.live.get()
    }

    /// Tells all guards to end; later ones learn it at once.
    pub fn start(&self) {
        self.0.draining.set(true);
        for waker in self.0.waiting.borrow_mut().iter_mut().filter_map(Option::take) {
            waker.wake();
        }
    }

    /// Waits until no guard is left. At most one task may wait.
    pub async fn finished(&self) {
        poll_fn(|cx| {
            if self.0.live.get() == 0 {
                return Poll::Ready(());
            }
            *self.0.finished.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Proof that one piece of work runs; dropping it says that the work is over.
#[derive(Debug)]
pub struct Guard {
    state: Rc<State>,
    slot: Option<usize>,
}

impl Guard {
    /// Counts one more piece of work.
    pub fn another(&self) -> Self {
        self.state.live.set(self.state.live.get() + 1);
        Self { state: Rc::clone(&self.state), slot: None }
    }

    /// Whether the work should end.
    pub fn is_draining(&self) -> bool {
        self.state.draining.get()
    }

    /// Ready once draining has started. The waker of the first call is kept: poll it from one task.
    pub fn poll_draining(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_draining() {
            return Poll::Ready(());
        }
        if self.slot.is_none() {
            self.slot = Some(self.state.register(cx.waker().clone()));
        }
        Poll::Pending
    }

    /// Waits until draining starts.
    pub async fn draining(&mut self) {
        poll_fn(|cx| self.poll_draining(cx)).await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.state.unregister(slot);
        }
        self.state.live.set(self.state.live.get() - 1);
        if self.state.live.get() == 0
            && let Some(waker) = self.state.finished.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

impl State {
    fn register(&self, waker: Waker) -> usize {
        let mut waiting = self.waiting.borrow_mut();
        match self.free.borrow_mut().pop() {
            Some(slot) => {
                if let Some(place) = waiting.get_mut(slot) {
                    *place = Some(waker);
                }
                slot
            }
            None => {
                waiting.push(Some(waker));
                waiting.len() - 1
            }
        }
    }

    fn unregister(&self, slot: usize) {
        if let Some(place) = self.waiting.borrow_mut().get_mut(slot) {
            *place = None;
        }
        self.free.borrow_mut().push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(guard: &mut Guard) -> Poll<()> {
        guard.poll_draining(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_guard_learns_of_the_drain_and_the_drain_of_the_guard() {
        let drain = Drain::new();
        let mut early = drain.guard();
        assert!(poll(&mut early).is_pending(), "nothing drains yet");
        drain.start();
        assert!(poll(&mut early).is_ready());
        assert!(drain.guard().is_draining(), "a late guard learns it at once");
        assert_eq!(drain.live(), 1);
        drop(early);
        assert_eq!(drain.live(), 0);
    }

    #[test]
    fn slots_are_used_again() {
        let drain = Drain::new();
        for _ in 0..100 {
            let mut guard = drain.guard();
            assert!(poll(&mut guard).is_pending());
        }
        assert_eq!(drain.0.waiting.borrow().len(), 1);
    }
}
