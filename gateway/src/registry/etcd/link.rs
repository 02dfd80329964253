//! What lies between a registry and the thread that follows etcd for it: wishes one way, and how it is with etcd the
//! other.

use super::{
    super::{Done, Refusal, Wish},
    queue::{Asked, Queue},
};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// For all that a wish takes, waiting for its turn included. An election of etcd's takes one or two seconds of it.
pub const DEADLINE: Duration = Duration::from_secs(8);

/// Silent for so long, etcd is lost: a change of its leader takes less.
const LOST: Duration = Duration::from_secs(5);

/// The registry's side.
#[derive(Debug)]
pub(in crate::registry) struct Link {
    pub(super) queue: Queue,
    /// When there was nothing to be heard yet, by the registry's clock that nobody sets.
    begun: Duration,
    /// By the same clock, in milliseconds and one more; 0 before etcd was heard of.
    heard: AtomicU64,
    trouble: Mutex<Option<String>>,
    /// Why it takes no writes, where it does not, though it answers.
    refusal: Mutex<Option<String>>,
    /// Whether something may have passed by unheard: nothing counts as heard until everything is asked anew.
    is_doubtful: AtomicBool,
    pub(in crate::registry) commits: AtomicU64,
    pub(in crate::registry) failures: AtomicU64,
    /// Tells answers of this gateway from those of others.
    pub(in crate::registry) instance: AtomicU64,
}

/// How it is with the store that several gateways share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreState {
    /// How old what is known of it may be; none before it was ever heard of.
    pub age: Option<Duration>,
    /// Whether that is so old that answers say it, and writes are refused.
    pub is_lost: bool,
    /// Why it is silent, where it is.
    pub trouble: Option<String>,
}

impl Link {
    pub(in crate::registry) fn new(now: Duration) -> Self {
        Self {
            queue: Queue::default(),
            begun: now,
            heard: AtomicU64::new(0),
            trouble: Mutex::default(),
            refusal: Mutex::default(),
            is_doubtful: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            instance: AtomicU64::new(0),
        }
    }

    /// Hands over a wish.
    pub(in crate::registry) fn ask(
        &self,
        wish: Wish,
    ) -> Result<oneshot::Receiver<Result<Done, Refusal>>, Refusal> {
        let (done, answer) = oneshot::channel();
        self.queue.push(Asked { wish, done, until: Instant::now() + DEADLINE })?;
        Ok(answer)
    }

    /// Whether everything is to be asked anew; it is taken for granted then that somebody does.
    pub(super) fn take_doubt(&self) -> bool {
        self.is_doubtful.swap(false, Relaxed)
    }

    /// It was heard of, at this moment.
    pub(in crate::registry) fn hear(&self, now: Duration) {
        if self.is_doubtful.load(Relaxed) {
            return;
        }
        self.heard.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1) + 1, Relaxed);
        *open(&self.trouble) = None;
    }

    /// Time has passed that nobody here saw: what is known is not certain until everything is asked anew.
    pub(in crate::registry) fn doubt(&self, now: Duration) {
        let heard = u64::try_from(now.saturating_sub(2 * LOST).as_millis()).unwrap_or(u64::MAX - 1) + 1;
        self.heard.fetch_min(heard, Relaxed);
        self.is_doubtful.store(true, Relaxed);
    }

    /// It does not answer, for this reason.
    pub(super) fn lose(&self, why: String) {
        *open(&self.trouble) = Some(why);
    }

    /// Whether it takes writes; why not, where it does not though it answers. Returns whether that is new.
    pub(super) fn refuses(&self, why: Option<String>) -> bool {
        let mut refusal = open(&self.refusal);
        let is_new = refusal.is_some() != why.is_some();
        *refusal = why;
        is_new
    }

    /// How long it is silent, where that is so long that it counts.
    pub(in crate::registry) fn lost_for(&self, now: Duration) -> Option<Duration> {
        self.age(now).filter(|age| *age > LOST)
    }

    pub(in crate::registry) fn age(&self, now: Duration) -> Option<Duration> {
        let heard = self.heard.load(Relaxed).checked_sub(1)?;
        Some(now.saturating_sub(Duration::from_millis(heard)))
    }

    /// How long it has been silent: since it was heard of, or since there was anybody to hear it.
    pub(in crate::registry) fn silence(&self, now: Duration) -> Duration {
        self.age(now).unwrap_or_else(|| now.saturating_sub(self.begun))
    }

    /// Whether it is lost.
    pub(in crate::registry) fn is_lost(&self, now: Duration) -> bool {
        self.age(now).is_none_or(|age| age > LOST)
    }

    /// Whether what clients want can be asked of it.
    pub(in crate::registry) fn reachable(&self, now: Duration) -> Result<(), Refusal> {
        match self.is_lost(now) {
            true => Err(Refusal::StoreLost(self.why())),
            false => Ok(()),
        }
    }

    /// Whether nothing can be kept there now.
    pub(in crate::registry) fn has_problem(&self, now: Duration) -> bool {
        self.is_lost(now) || open(&self.refusal).is_some()
    }

    /// How it is.
    pub(in crate::registry) fn state(&self, now: Duration) -> StoreState {
        let trouble = open(&self.trouble).clone().or_else(|| open(&self.refusal).clone());
        StoreState { age: self.age(now), is_lost: self.is_lost(now), trouble }
    }

    /// Why nothing can be written.
    pub(in crate::registry) fn why(&self) -> String {
        open(&self.trouble).clone().unwrap_or_else(|| "nobody answers there yet".to_owned())
    }
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
