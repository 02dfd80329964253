//! For what may happen thousands of times a second and is worth a line of the log now and then.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// Says when something that happens often is worth a line.
#[derive(Debug)]
pub struct Seldom {
    since: Instant,
    /// When the next line may be written, in milliseconds.
    next: AtomicU64,
    /// How often it happened without a line.
    untold: AtomicU64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self { since: Instant::now(), next: AtomicU64::new(0), untold: AtomicU64::new(0) }
    }
}

impl Seldom {
    /// It happened. Where that is worth a line: how often it did since the last one.
    pub fn happened(&self, now: Instant) -> Option<u64> {
        self.untold.fetch_add(1, Relaxed);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = millis(now.duration_since(self.since));
        let next = self.next.load(Relaxed);
        // Of several threads, one writes the line.
        let is_time =
            now >= next && self.next.compare_exchange(next, now + millis(PAUSE), Relaxed, Relaxed).is_ok();
        is_time.then(|| self.untold.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_a_while_tells_how_often() {
        let seldom = Seldom::default();
        let at = |seconds| seldom.since + Duration::from_secs(seconds);
        assert_eq!(seldom.happened(at(0)), Some(1), "the first is told at once");
        for second in 1..10 {
            assert_eq!(seldom.happened(at(second)), None);
        }
        assert_eq!(seldom.happened(at(10)), Some(10));
        assert_eq!(seldom.happened(at(10)), None);
    }
}
