//! What time it is, by several clocks, and when time has passed that nobody saw.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime},
};

/// A moment, by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since the registry began, by the clock that nobody sets. Leases run by this one.
    pub mono: Duration,
    /// For people, and for what outlasts the process.
    pub wall: SystemTime,
}

/// Something that knows what time it is.
pub trait Clock: fmt::Debug + Send + Sync {
    /// What time it is.
    fn now(&self) -> Moment;

    /// Since some time, by the clock that goes on while the machine is suspended; none where there is no such
    /// clock.
    fn since_boot(&self) -> Option<Duration>;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    began: Instant,
}

impl SystemClock {
    /// Begins now.
    pub fn new() -> Self {
        Self { began: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment { mono: self.began.elapsed(), wall: SystemTime::now() }
    }

    /// Linux writes CLOCK_BOOTTIME there, to the hundredth of a second.
    fn since_boot(&self) -> Option<Duration> {
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        Duration::try_from_secs_f64(uptime.split(' ').next()?.parse().ok()?).ok()
    }
}

/// Without a look for so long, the registry itself did not run, and heard no renewal.
const UNSEEN: Duration = Duration::from_secs(3);
/// The machine was suspended for at least so long.
const SUSPENDED: Duration = Duration::from_secs(2);
/// The wall's clock went further than the others: it was set, or the machine is a copy that went on later.
const JUMPED: Duration = Duration::from_secs(5);

/// Time in which no renewal could have been heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Gap {
    #[error("the registry was stopped for a while")]
    Stopped,
    #[error("the machine was suspended")]
    Suspended,
    #[error("the clock was set forward, or the machine was restored from a snapshot")]
    Jumped,
}

/// Finds out when time has passed in which no renewal could have been heard.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    last: Option<(Moment, Option<Duration>)>,
}

impl Gaps {
    /// Looks at the clocks. Returns what happened since the last look, where it was such a gap.
    pub(super) fn look(&mut self, now: Moment, since_boot: Option<Duration>) -> Option<Gap> {
        let (last, last_boot) = self.last.replace((now, since_boot))?;
        let mono = now.mono.saturating_sub(last.mono);
        let boot = since_boot.zip(last_boot).map_or(mono, |(now, last)| now.saturating_sub(last));
        let wall = now.wall.duration_since(last.wall).unwrap_or_default();
        if mono > UNSEEN {
            Some(Gap::Stopped)
        } else if boot.saturating_sub(mono) > SUSPENDED {
            Some(Gap::Suspended)
        } else if wall.saturating_sub(mono) > JUMPED {
            Some(Gap::Jumped)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_told_from_clocks_that_only_go_on() {
        let look = |gaps: &mut Gaps, mono: u64, boot: u64, wall: u64| {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000 + wall);
            let now = Moment { mono: Duration::from_millis(mono), wall };
            gaps.look(now, Some(Duration::from_millis(boot)))
        };
        for (mono, boot, wall, expected) in [
            (1200, 1200, 1200, None),
            (5000, 5000, 5000, Some(Gap::Stopped)),
            (1200, 9200, 1200, Some(Gap::Suspended)),
            (1200, 1200, 3_601_200, Some(Gap::Jumped)),
        ] {
            let mut gaps = Gaps::default();
            assert_eq!(look(&mut gaps, 1000, 1000, 1000), None, "the first look");
            assert_eq!(look(&mut gaps, mono, boot, wall), expected);
            assert_eq!(look(&mut gaps, mono, boot, wall), None, "once for each");
        }
        let mut gaps = Gaps::default();
        look(&mut gaps, 1000, 1000, 9_000_000);
        assert_eq!(look(&mut gaps, 1200, 1200, 1), None, "set back: nothing was missed");
    }

    #[test]
    fn the_machines_clocks_go_on() {
        let clock = SystemClock::new();
        let (a, b) = (clock.now(), clock.now());
        assert!(b.mono >= a.mono);
        assert!(clock.since_boot() <= clock.since_boot());
    }
}
