//! How long to wait before something that failed is tried again.

use crate::random;
use std::{cell::Cell, time::Duration};

/// Delays that double from failure to failure, up to a ceiling.
///
/// Half of each delay is left to chance, so that machines which lost the same service do not come
/// back to it in one wave. The count of failures is kept in memory: a field of a
/// [`Background`](crate::Background) plugin, whose one instance it lasts as long as. The default suits
/// a service that restarts: 1 to 2 s after the first failure, up to 15 to 30 s.
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::prelude::*;
///
/// #[derive(Deserialize)]
/// struct Ping {
///     url: BaseUrl,
///     #[serde(skip)]
///     back_off: BackOff,
/// }
///
/// impl Background for Ping {
///     fn run(&self, _why: Reason) -> Result<Next, String> {
///         if let Err(error) = http::get(self.url.as_str()).send() {
///             log::warn(format!("{}: {error}", self.url));
///             return Ok(Next::after(self.back_off.failed()));
///         }
///         self.back_off.succeeded();
///         Ok(Next::about(Duration::from_secs(60)))
///     }
/// }
/// vers_plugin::export!(Ping: background);
/// # fn main() {}
/// ```
#[derive(Debug, Clone)]
pub struct BackOff {
    first: Duration,
    most: Duration,
    /// In a row.
    failures: Cell<u32>,
}

impl BackOff {
    /// Delays of at most `first` after one failure, and never more than `most`; at least half of that.
    ///
    /// ```
    /// use std::time::Duration;
    /// use vers_plugin::back_off::BackOff;
    ///
    /// let back_off = BackOff::new(Duration::from_secs(1), Duration::from_secs(60));
    /// let first = back_off.failed();
    /// assert!(first >= Duration::from_millis(500) && first <= Duration::from_secs(1));
    /// assert!(back_off.failed() >= Duration::from_secs(1));
    /// ```
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: Cell::new(0) }
    }

    /// Counts a failure, and says how long to wait now.
    pub fn failed(&self) -> Duration {
        let failures = self.failures.get();
        self.failures.set(failures.saturating_add(1));
        let half = self.first.saturating_mul(1 << failures.min(31)).min(self.most) / 2;
        let millis = u64::try_from(half.as_millis()).unwrap_or(u64::MAX);
        half + Duration::from_millis(random::u64() % millis.max(1))
    }

    /// Ends the row of failures: the next one is the first again.
    pub fn succeeded(&self) {
        self.failures.set(0);
    }
}

impl Default for BackOff {
    fn default() -> Self {
        Self::new(Duration::from_secs(2), Duration::from_secs(30))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(back_off: &BackOff, ceiling: Duration) {
        let delay = back_off.failed();
        assert!((ceiling / 2..=ceiling).contains(&delay), "{delay:?} of {ceiling:?}");
    }

    #[test]
    fn delays_double_up_to_the_ceiling_and_start_again() {
        let back_off = BackOff::default();
        for seconds in [2, 4, 8, 16, 30, 30] {
            check(&back_off, Duration::from_secs(seconds));
        }
        back_off.succeeded();
        check(&back_off, Duration::from_secs(2));
    }

    #[test]
    fn machines_do_not_come_back_together() {
        let back_off = BackOff::new(Duration::from_secs(8), Duration::from_secs(8));
        let delays: std::collections::BTreeSet<_> = (0..20).map(|_| back_off.failed()).collect();
        assert!(delays.len() > 10, "{delays:?}");
    }

    #[test]
    fn extremes_neither_overflow_nor_divide_by_zero() {
        for (first, most) in [(0, 0), (1, 0), (0, 9), (1, 1), (1, u64::MAX), (u64::MAX, u64::MAX)] {
            let (first, most) = (Duration::from_millis(first), Duration::from_millis(most));
            let back_off = BackOff::new(first, most);
            for _ in 0..40 {
                assert!(back_off.failed() <= most);
            }
        }
        let back_off = BackOff::new(Duration::MAX, Duration::MAX);
        assert!(back_off.failed() >= Duration::MAX / 2);
    }
}
