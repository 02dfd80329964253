//! What a call may take: CPU time inside the guest, and wall-clock time in all.

use super::{engine::TICK, fault::FaultKind};
use rustix::time::{ClockId, clock_gettime};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::{Sleep, sleep_until};
use wasmtime::UpdateDeadline;

/// Measures how long a guest has been running, leaving out the time it was parked in the host.
///
/// A guest that computes is looked at with each tick of the epoch, and one that the host computes for is
/// looked at when that is over. From the first look on, the processor's time of the thread counts, all of it:
/// whatever the guest makes the host do, and nothing that the machine does for somebody else.
///
/// Most calls are over before the first tick, and reading that clock, which takes a system call, would cost a
/// fifth of them. Up to the first look the wall's time counts, and of that no more than [`SLICE`]: beyond
/// it, a busy machine would fail calls that take a microsecond. Even so, one of [`SAMPLE`] calls is measured,
/// and counts for all of them.
///
/// The times are atomics because wasmtime wants its callbacks `Send`; only one thread uses them.
#[derive(Debug)]
pub(super) struct CpuClock {
    base: Instant,
    /// When the guest was last resumed or looked at, in nanoseconds since `base`, or of the thread's time;
    /// [`UNKNOWN`] from a resumption that nobody measured to the next tick.
    looked: AtomicU64,
    /// Whether that is of the thread's time.
    is_exact: AtomicBool,
    /// Nanoseconds of this call before that.
    used: AtomicU64,
    budget: u64,
}

/// One of so many calls is measured.
const SAMPLE: u32 = 16;

const UNKNOWN: u64 = u64::MAX;

/// The most that counts before the first look.
const SLICE: u64 = 2 * TICK.as_nanos() as u64;

/// The guest exceeded its CPU budget; told apart from other traps by this type.
#[derive(Debug, thiserror::Error)]
#[error("the CPU budget of the call is used up")]
pub(super) struct CpuBudgetSpent;

impl CpuClock {
    pub(super) fn new(budget: Duration) -> Arc<Self> {
        let budget = u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
        let (looked, is_exact, used) = Default::default();
        Arc::new(Self { base: Instant::now(), looked, is_exact, used, budget })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// What the call that runs, or ran last, has taken so far.
    pub(super) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Relaxed))
    }

    /// A call begins.
    fn begin(&self, is_measured: bool) {
        self.looked.store(if is_measured { self.now() } else { UNKNOWN }, Relaxed);
        self.is_exact.store(false, Relaxed);
    }

    /// A call goes on that has waited or made way: it is not one of the short ones.
    fn resume(&self) {
        self.looked.store(thread_time(), Relaxed);
        self.is_exact.store(true, Relaxed);
    }

    /// Adds what the guest took since the last look, and returns the sum.
    fn look(&self) -> u64 {
        self.look_at(self.now(), thread_time())
    }

    /// The same at these times, since the base and of the thread.
    fn look_at(&self, now: u64, thread: u64) -> u64 {
        let is_exact = self.is_exact.swap(true, Relaxed);
        let taken = match self.looked.swap(thread, Relaxed) {
            looked if is_exact => thread.saturating_sub(looked),
            // A tick ends this time, so it was no longer than one.
            UNKNOWN => SLICE / 2,
            looked => now.saturating_sub(looked).min(SLICE),
        };
        let used = self.used.load(Relaxed).saturating_add(taken);
        self.used.store(used, Relaxed);
        used
    }

    /// The CPU time of a call that has paused or ended.
    fn pause(&self) -> u64 {
        match self.looked.load(Relaxed) {
            _ if self.is_exact.load(Relaxed) => self.look_at(0, thread_time()),
            // No tick has met it.
            UNKNOWN => self.used.load(Relaxed),
            _ => self.look_at(self.now(), 0),
        }
    }

    /// What to do when the epoch moved on while the guest ran: end it, or let other connections of
    /// the worker have their turn.
    pub(super) fn on_epoch(&self) -> wasmtime::Result<UpdateDeadline> {
        if self.look() > self.budget {
            return Err(CpuBudgetSpent.into());
        }
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    }
}

/// Nanoseconds that the processor has worked for this thread.
fn thread_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = Duration::try_from(time).map(|time| time.as_nanos()).unwrap_or_default();
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}

/// A call under its clocks. Its output tells the CPU time it took.
pub(super) struct Timed<F> {
    call: F,
    clock: Arc<CpuClock>,
    /// How many calls it stands for, where it is over at once; 0 where others stand for it.
    weight: u32,
    started: Option<Instant>,
    wall: Duration,
    /// Made when the call first waits: most calls never do.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<F> Timed<F> {
    /// `number` counts the calls of the instance.
    pub(super) fn new(call: F, clock: Arc<CpuClock>, wall: Duration, number: u32) -> Self {
        clock.used.store(0, Relaxed);
        let weight = if number.is_multiple_of(SAMPLE) { SAMPLE } else { 0 };
        Self { call, clock, weight, started: None, wall, sleep: None }
    }
}

impl<T, F: Future<Output = wasmtime::Result<T>>> Future for Timed<Pin<&mut F>> {
    type Output = (Result<T, CallError>, Duration);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let before = self.clock.used.load(Relaxed);
        let is_first = self.started.is_none();
        if is_first {
            self.clock.begin(self.weight > 0);
        } else {
            self.clock.resume();
        }
        let result = self.call.as_mut().poll(cx);
        let used = self.clock.pause();
        let is_short = is_first && result.is_ready() && used - before < TICK.as_nanos() as u64;
        let cpu = Duration::from_nanos(if is_short { used * u64::from(self.weight) } else { used });
        if let Poll::Ready(result) = result {
            return Poll::Ready((result.map_err(CallError::Guest), cpu));
        }
        let started = *self.started.get_or_insert_with(Instant::now);
        let due = started + self.wall;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due.into())));
        sleep.as_mut().poll(cx).map(|()| (Err(CallError::Host(FaultKind::Wall)), cpu))
    }
}

/// How a call failed: by the guest, or because the host ended it.
#[derive(Debug)]
pub(super) enum CallError {
    Guest(wasmtime::Error),
    Host(FaultKind),
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    #[test]
    fn a_tick_counts_though_nobody_saw_the_start() {
        let clock = CpuClock::new(Duration::from_millis(10));
        clock.begin(false);
        assert_eq!(clock.pause(), 0, "no tick, and nobody measures");
        clock.begin(false);
        assert_eq!(clock.look_at(500 * MILLI, 7 * MILLI), SLICE / 2);
        assert_eq!(clock.look_at(900 * MILLI, 8 * MILLI), SLICE / 2 + MILLI);
    }

    #[test]
    fn what_a_guest_computes_adds_up() {
        let clock = CpuClock::new(Duration::from_millis(10));
        let used: Vec<u64> = [2, 4, 6].into_iter().map(|at| clock.look_at(at * MILLI, at * MILLI)).collect();
        assert_eq!(used, [2 * MILLI, 4 * MILLI, 6 * MILLI]);
    }

    #[test]
    fn what_the_host_computes_for_a_guest_counts_in_full() {
        let clock = CpuClock::new(Duration::from_millis(10));
        clock.look_at(MILLI, MILLI);
        assert_eq!(clock.look_at(500 * MILLI, 300 * MILLI), 300 * MILLI, "one call of the host took that");
        clock.resume();
        let begun = thread_time();
        while thread_time() < begun + 6 * MILLI {}
        assert!(clock.pause() >= 306 * MILLI, "whatever it does between two looks");
    }

    #[test]
    fn a_machine_that_ran_somebody_else_is_not_the_guests_fault() {
        let clock = CpuClock::new(Duration::from_millis(10));
        assert_eq!(clock.look_at(500 * MILLI, 0), SLICE, "half a second away, and one slice counts");
        assert_eq!(clock.look_at(900 * MILLI, MILLI), SLICE + MILLI, "by the thread's own time");
    }
}
