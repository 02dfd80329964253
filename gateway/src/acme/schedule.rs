//! When the next order is due. Pure: the time and a random number are parameters.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// When a certificate is to be renewed: when two thirds of its time are over, and up to a twentieth of
/// its time later, so that many gateways that began together do not ask together. `chance` is from 0 to
/// 1.
pub fn renewal(not_before: SystemTime, not_after: SystemTime, chance: f64) -> SystemTime {
    let whole = not_after.duration_since(not_before).unwrap_or_default();
    not_before + whole.mul_f64(2.0 / 3.0) + whole.mul_f64(chance.clamp(0.0, 1.0) / 20.0)
}

/// How long to wait after so many failures in a row: a minute, then twice as long each time, up to six
/// hours; and up to a quarter more.
pub fn back_off(failures: u32, chance: f64) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    pause.min(LONGEST_PAUSE).mul_f64(1.0 + chance.clamp(0.0, 1.0) / 4.0)
}

/// So many orders an hour, and no more.
#[derive(Debug)]
pub struct Rate {
    most: usize,
    begun: VecDeque<SystemTime>,
}

impl Rate {
    /// At most so many an hour, of which these have begun already.
    pub fn new(most: usize, begun: impl IntoIterator<Item = SystemTime>) -> Self {
        Self { most, begun: begun.into_iter().collect() }
    }

    /// The last one has not begun after all.
    pub fn undo(&mut self) {
        self.begun.pop_back();
    }

    /// Counts one that begins now.
    pub fn begin(&mut self, now: SystemTime) {
        self.begun.retain(|begun| counts(*begun, now));
        self.begun.push_back(now);
    }

    /// When those began that count.
    pub fn begun(&self, now: SystemTime) -> impl Iterator<Item = SystemTime> {
        self.begun.iter().copied().filter(move |begun| counts(*begun, now))
    }

    /// When the next may begin.
    pub fn next(&self, now: SystemTime) -> SystemTime {
        let over = self.begun(now).count().checked_sub(self.most);
        over.and_then(|over| self.begun(now).nth(over)).map_or(now, |oldest| oldest + HOUR)
    }
}

/// A clock that was set back counts for nothing that was in its future.
fn counts(begun: SystemTime, now: SystemTime) -> bool {
    now.duration_since(begun).is_ok_and(|since| since < HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_certificate_is_renewed_in_its_last_third() {
        let begin = SystemTime::UNIX_EPOCH + seconds(1_000_000);
        let end = begin + seconds(90 * 24 * 3600);
        let day = |chance| {
            renewal(begin, end, chance).duration_since(begin).expect("later").as_secs_f64() / 86_400.0
        };
        assert!((59.9..60.1).contains(&day(0.0)));
        assert!((64.4..64.6).contains(&day(1.0)));
        assert_eq!(renewal(end, begin, 0.5), end, "one that was never valid, at once");
    }

    #[test]
    fn pauses_grow_and_end_growing() {
        let pauses: Vec<u64> = (1..12).map(|failures| back_off(failures, 0.0).as_secs()).collect();
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3840, 7680, 15_360, 21_600, 21_600]);
        assert_eq!(back_off(1, 1.0), seconds(75));
        assert_eq!(back_off(u32::MAX, 0.0), LONGEST_PAUSE);
        assert!(back_off(0, 0.0) >= FIRST_PAUSE, "never at once");
    }

    #[test]
    fn a_rate_holds_for_every_hour() {
        let begin = SystemTime::UNIX_EPOCH + seconds(1_000_000);
        let mut rate = Rate::new(2, []);
        assert_eq!(rate.next(begin), begin);
        rate.begin(begin);
        rate.begin(begin + seconds(10));
        let now = begin + seconds(20);
        assert_eq!(rate.next(now), begin + HOUR);
        assert_eq!(rate.next(begin + HOUR), begin + HOUR);
        rate.begin(begin + HOUR);
        assert_eq!(rate.next(begin + HOUR), begin + seconds(10) + HOUR);
        assert_eq!(rate.begun(begin + HOUR).count(), 2, "what is over is forgotten");
        let kept = rate.begun(begin + HOUR).collect::<Vec<_>>();
        assert_eq!(Rate::new(2, kept).next(begin + HOUR), begin + seconds(10) + HOUR, "after a restart");
        assert_eq!(rate.next(begin - seconds(5)), begin - seconds(5), "a clock that was set back");
    }
}
