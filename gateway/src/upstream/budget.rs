//! How many requests may be sent once more: repeats must not double the load of a backend that is
//! failing under it.

use std::{cell::Cell, time::Duration};
use tokio::time::Instant;

/// What is counted over.
const WINDOW: Duration = Duration::from_secs(10);

/// Repeats in a second that are allowed anyway: a share of few requests is none.
const FLOOR: f64 = 3.0;

/// A worker's allowance of repeats for one route: a share of its requests of the last seconds.
#[derive(Debug)]
#[repr(C)] // What each request touches comes first.
pub struct Budget {
    requests: Cell<u64>,
    /// Repeats per request.
    share: f64,
    /// Requests that the allowance was reckoned up to, when that was, and what is left of it.
    reckoned: Cell<(u64, Instant, f64)>,
}

impl Budget {
    /// `percent` of the requests may be repeats; none where that is 0.
    pub fn new(percent: u32) -> Self {
        let share = f64::from(percent) / 100.0;
        let first = if percent == 0 { 0.0 } else { FLOOR * WINDOW.as_secs_f64() };
        Self { share, requests: Cell::new(0), reckoned: Cell::new((0, Instant::now(), first)) }
    }

    /// Counts a request.
    pub fn deposit(&self) {
        self.requests.set(self.requests.get().wrapping_add(1));
    }

    /// Takes one repeat, where one is left.
    pub fn withdraw(&self, now: Instant) -> bool {
        if self.share == 0.0 {
            return false;
        }
        let (counted, since, left) = self.reckoned.get();
        let requests = self.requests.get();
        let passed = now.saturating_duration_since(since).as_secs_f64();
        let window = WINDOW.as_secs_f64();
        // Of a longer time, the window's part: requests of a busy hour do not pay for a storm now.
        let part = if passed > window { window / passed } else { 1.0 };
        let earned = requests.wrapping_sub(counted) as f64 * part * self.share + FLOOR * passed.min(window);
        let left = left * (1.0 - passed / window).max(0.0) + earned;
        let may = left >= 1.0;
        self.reckoned.set((requests, now, if may { left - 1.0 } else { left }));
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrawn(budget: &Budget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_of_the_requests_and_a_few_more() {
        let budget = Budget::new(20);
        let start = Instant::now();
        assert_eq!(withdrawn(&budget, start), 30, "a few, before there was any request");
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!(withdrawn(&budget, start), 200);
        assert_eq!(withdrawn(&budget, start + Duration::from_secs(1)), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_long_ago_pays_for_nothing() {
        let budget = Budget::new(20);
        let start = Instant::now();
        (0..36_000).for_each(|_| budget.deposit());
        let hour_later = start + Duration::from_secs(3600);
        // 10 requests a second, over ten seconds, and three repeats in each.
        assert_eq!(withdrawn(&budget, hour_later), 20 + 30);
    }

    #[tokio::test(start_paused = true)]
    async fn no_share_is_no_repeat() {
        let budget = Budget::new(0);
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!(withdrawn(&budget, Instant::now()), 0);
    }
}
