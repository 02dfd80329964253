//! How many calls of a plugin there may be at a time, in all workers together.

use std::sync::Arc;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Bounds the calls of the plugins of one name.
#[derive(Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    spare: Notify,
}

/// A place among all calls, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    gate: &'a Gate,
    place: Option<SemaphorePermit<'a>>,
}

impl Gate {
    /// For so many calls.
    pub(super) fn new(most: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), spare: Notify::new() }
    }

    /// The places themselves, for who keeps one for longer than a call.
    pub(super) fn places(&self) -> &Arc<Semaphore> {
        &self.places
    }

    /// A place, where one is free that nobody waits for.
    pub(super) fn try_enter(&self) -> Option<Turn<'_>> {
        let place = self.places.try_acquire().ok()?;
        Some(Turn { gate: self, place: Some(place) })
    }

    /// Waits for a place; who came first has one first.
    pub(super) async fn enter(&self) -> Turn<'_> {
        // It is never closed.
        Turn { gate: self, place: self.places.acquire().await.ok() }
    }

    /// Waits until there may be a place that nobody waits for. It takes none: no request must find it taken.
    pub(super) async fn spare(&self) {
        if self.places.available_permits() == 0 {
            self.spare.notified().await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Who waits for a place has it then.
        self.place.take();
        if self.gate.places.available_permits() > 0 {
            self.gate.spare.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::pin::pin;

    #[test]
    fn who_only_has_what_is_spare_takes_no_turn() {
        let gate = Gate::new(1);
        let first = gate.try_enter().expect("a place");
        assert!(gate.try_enter().is_none());
        let mut spare = pin!(gate.spare());
        assert!(spare.as_mut().now_or_never().is_none());
        let mut waiting = pin!(gate.enter());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        assert!(spare.as_mut().now_or_never().is_none(), "who waited for it has it");
        let second = waiting.now_or_never().expect("its turn");
        drop(second);
        assert!(spare.now_or_never().is_some());
        assert!(gate.try_enter().is_some());
    }
}
