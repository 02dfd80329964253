//! What all workers know together of one server: whether it works, and how much of it is in use.
//!
//! Plain atomics, read with each choice and written when something fails: while all is well, no
//! worker writes what another reads.

use super::Ejection;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;
use tokio::time::Instant;

/// What all workers know of one server.
#[derive(Debug)]
pub struct Member {
    /// What times are counted from.
    since: Instant,
    /// Whether a check says that it is out of order.
    unhealthy: AtomicBool,
    /// When it may be tried again after failures, in milliseconds; 0 while nothing is wrong.
    ejected_until: AtomicU64,
    /// Exchanges that failed in a row.
    failures: AtomicU32,
    /// Ejections in a row.
    ejections: AtomicU32,
    /// Connections in use, where they are limited.
    in_use: AtomicUsize,
}

impl Default for Member {
    /// Nothing is known: it is taken to work.
    fn default() -> Self {
        Self {
            since: Instant::now(),
            unhealthy: AtomicBool::new(false),
            ejected_until: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            in_use: AtomicUsize::new(0),
        }
    }
}

impl Member {
    /// Whether it is worth a try.
    pub fn is_usable(&self) -> bool {
        self.is_healthy() && self.ejected_for().is_none()
    }

    /// Whether no check says otherwise.
    pub fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Relaxed)
    }

    /// For how long it is left alone from now on, where it is.
    pub fn ejected_for(&self) -> Option<Duration> {
        let until = self.ejected_until.load(Relaxed);
        // Nobody looks at the clock while nothing is wrong.
        if until == 0 {
            return None;
        }
        until.checked_sub(self.now()).filter(|left| *left > 0).map(Duration::from_millis)
    }

    /// Connections in use now, where they are limited.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Relaxed)
    }

    /// What its check says. One that passes again is taken back at once, whatever has been.
    pub fn checked(&self, healthy: bool) {
        let was_unhealthy = self.unhealthy.swap(!healthy, Relaxed);
        if healthy && was_unhealthy {
            self.ejected_until.store(0, Relaxed);
            self.failures.store(0, Relaxed);
        }
    }

    /// It took a connection: whatever was wrong with its address is over.
    pub(super) fn connected(&self) {
        if self.ejected_until.load(Relaxed) != 0 {
            self.ejected_until.store(0, Relaxed);
        }
    }

    /// It did what was asked of it.
    pub(super) fn answered(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if self.ejections.load(Relaxed) != 0 && self.ejected_for().is_none() {
            self.ejections.store(0, Relaxed);
            self.ejected_until.store(0, Relaxed);
        }
    }

    /// It did not take a connection. Returns whether it is left alone for this.
    pub(super) fn unreachable(&self, ejection: &Ejection) -> bool {
        self.eject(ejection)
    }

    /// An exchange with it failed. Returns whether it is left alone for this.
    pub(super) fn failed(&self, ejection: &Ejection) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        failures >= ejection.failures && self.eject(ejection)
    }

    /// Takes one of the connections that may be in use, where one is left.
    pub(super) fn enter(&self, limit: usize) -> bool {
        let more = |in_use: usize| (in_use < limit).then(|| in_use + 1);
        self.in_use.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Whether one is left.
    pub(super) fn has_room(&self, limit: usize) -> bool {
        self.in_use.load(SeqCst) < limit
    }

    /// Gives one back.
    pub(super) fn leave(&self) {
        self.in_use.fetch_sub(1, SeqCst);
    }

    /// Of many requests that fail at the same moment, one counts.
    fn eject(&self, ejection: &Ejection) -> bool {
        let (now, until) = (self.now(), self.ejected_until.load(Relaxed));
        if until > now || ejection.first.is_zero() {
            return false;
        }
        let repeats = self.ejections.load(Relaxed).min(16);
        let span = ejection.first.saturating_mul(1 << repeats).min(ejection.longest.max(ejection.first));
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
        if self.ejected_until.compare_exchange(until, now.saturating_add(span), Relaxed, Relaxed).is_err() {
            return false;
        }
        self.ejections.fetch_add(1, Relaxed);
        self.failures.store(0, Relaxed);
        true
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const EJECTION: Ejection =
        Ejection { failures: 3, first: Duration::from_secs(5), longest: Duration::from_secs(12) };

    #[tokio::test(start_paused = true)]
    async fn ejections_grow_and_are_bounded() {
        let member = Member::default();
        for seconds in [5, 10, 12, 12] {
            assert!(member.is_usable());
            assert!(member.unreachable(&EJECTION));
            assert!(!member.unreachable(&EJECTION), "the same failure, seen by another request");
            assert_eq!(member.ejected_for(), Some(Duration::from_secs(seconds)));
            advance(Duration::from_secs(seconds)).await;
        }
        member.connected();
        member.answered();
        assert!(member.unreachable(&EJECTION));
        assert_eq!(member.ejected_for(), Some(EJECTION.first), "what it did before is forgiven");
    }

    #[tokio::test(start_paused = true)]
    async fn only_failures_in_a_row_count() {
        let member = Member::default();
        assert!(!member.failed(&EJECTION) && !member.failed(&EJECTION));
        member.answered();
        assert!(!member.failed(&EJECTION) && !member.failed(&EJECTION));
        assert!(member.failed(&EJECTION) && !member.is_usable());
        member.answered();
        assert!(!member.is_usable(), "an answer to what was asked before");
        member.connected();
        assert!(member.is_usable(), "somebody tried it anyway");
    }

    #[tokio::test(start_paused = true)]
    async fn no_time_ejects_nobody() {
        let member = Member::default();
        assert!(!member.unreachable(&Ejection { first: Duration::ZERO, ..EJECTION }));
        assert!(member.is_usable());
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_takes_out_and_back() {
        let member = Member::default();
        member.unreachable(&EJECTION);
        member.checked(true);
        assert!(!member.is_usable(), "a check that passed all the time says nothing about requests");
        member.checked(false);
        advance(EJECTION.longest).await;
        assert!(!member.is_usable());
        member.unreachable(&EJECTION);
        member.checked(true);
        assert!(member.is_usable());
    }

    #[test]
    fn connections_are_counted() {
        let member = Member::default();
        assert!(member.enter(2) && member.has_room(2) && member.enter(2));
        assert!(!member.has_room(2) && !member.enter(2));
        member.leave();
        assert!(member.enter(2));
    }
}
