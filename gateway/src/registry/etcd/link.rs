//! What lies between a registry and the thread that follows etcd for it: wishes one way, and how it is with etcd the
//! other.

use super::super::{Done, Refusal, Wish};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Wishes that may wait. Who comes then is refused.
const MOST_WAITING: usize = 10_000;

/// Silent for so long, etcd is lost: a change of its leader takes less.
const LOST: Duration = Duration::from_secs(5);

/// A wish, and whom to tell what came of it.
pub(super) type Asked = (Wish, oneshot::Sender<Result<Done, Refusal>>);

/// The registry's side.
#[derive(Debug)]
pub(in crate::registry) struct Link {
    wishes: mpsc::Sender<Asked>,
    /// Until somebody follows.
    received: Mutex<Option<mpsc::Receiver<Asked>>>,
    /// By the registry's clock that nobody sets, in milliseconds and one more; 0 before etcd was heard of.
    heard: AtomicU64,
    trouble: Mutex<Option<String>>,
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
    pub(in crate::registry) fn new() -> Self {
        let (wishes, received) = mpsc::channel(MOST_WAITING);
        Self {
            wishes,
            received: Mutex::new(Some(received)),
            heard: AtomicU64::new(0),
            trouble: Mutex::default(),
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
        match self.wishes.try_send((wish, done)) {
            Ok(()) => Ok(answer),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refusal::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refusal::Closed),
        }
    }

    /// What clients want, for who does it.
    pub(super) fn take(&self) -> Option<mpsc::Receiver<Asked>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).take()
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
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Time has passed that nobody here saw: what is known is not certain until everything is asked anew.
    pub(in crate::registry) fn doubt(&self, now: Duration) {
        let heard = u64::try_from(now.saturating_sub(2 * LOST).as_millis()).unwrap_or(u64::MAX - 1) + 1;
        self.heard.fetch_min(heard, Relaxed);
        self.is_doubtful.store(true, Relaxed);
    }

    /// It does not answer, for this reason.
    pub(super) fn lose(&self, why: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// How long it is silent, where that is so long that it counts.
    pub(in crate::registry) fn lost_for(&self, now: Duration) -> Option<Duration> {
        self.age(now).filter(|age| *age > LOST)
    }

    pub(in crate::registry) fn age(&self, now: Duration) -> Option<Duration> {
        let heard = self.heard.load(Relaxed).checked_sub(1)?;
        Some(now.saturating_sub(Duration::from_millis(heard)))
    }

    /// How it is.
    pub(in crate::registry) fn state(&self, now: Duration) -> StoreState {
        let age = self.age(now);
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        StoreState { age, is_lost: age.is_none_or(|age| age > LOST), trouble }
    }

    /// Why nothing can be written.
    pub(in crate::registry) fn why(&self) -> String {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        trouble.unwrap_or_else(|| "nobody answers there yet".to_owned())
    }
}
