//! Wishes that wait for etcd: few, and not for long. Heartbeats wait in a line of their own: writes take longer, and
//! who only renews must not lapse behind them.

use super::super::{Done, Refusal, Wish};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

/// A wish, and whom to tell what came of it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) wish: Wish,
    pub(super) done: oneshot::Sender<Result<Done, Refusal>>,
    /// When it is too late for it: whoever asked is told so by then, and may ask for something else.
    pub(super) until: Instant,
}

/// Who waits for the same turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Writes,
    Renewals,
}

impl Line {
    pub(super) const ALL: [Self; 2] = [Self::Writes, Self::Renewals];

    /// Where a wish waits.
    fn of(wish: &Wish) -> Self {
        match wish {
            Wish::Renew(..) => Self::Renewals,
            Wish::Register(_) | Wish::Change(..) | Wish::Remove(..) | Wish::Purge(_) => Self::Writes,
        }
    }

    /// Wishes that may wait in it: about as many as are done before it is too late for them. Who comes then is
    /// refused at once.
    fn most(self) -> usize {
        match self {
            Self::Writes => 4_000,
            Self::Renewals => 10_000,
        }
    }
}

/// Both lines.
#[derive(Debug, Default)]
pub(super) struct Queue {
    writes: Waiting,
    renewals: Waiting,
}

/// Who waits in a line.
#[derive(Debug, Default)]
struct Waiting {
    asked: Mutex<VecDeque<Asked>>,
    came: Arc<Notify>,
}

impl Queue {
    /// Puts a wish at the end of its line.
    pub(super) fn push(&self, asked: Asked) -> Result<(), Refusal> {
        let line = Line::of(&asked.wish);
        let waiting = self.waiting(line);
        let mut all = waiting.asked();
        if all.len() >= line.most() {
            return Err(Refusal::Busy);
        }
        all.push_back(asked);
        drop(all);
        waiting.came.notify_one();
        Ok(())
    }

    /// The first one of a line that somebody still waits for; or what tells, once, that another one came.
    pub(super) fn try_next(&self, line: Line) -> Result<Asked, Arc<Notify>> {
        let waiting = self.waiting(line);
        while let Some(asked) = waiting.pop_if(|_| true) {
            if !asked.done.is_closed() {
                return Ok(asked);
            }
        }
        Err(Arc::clone(&waiting.came))
    }

    /// Refuses those for whom it is too late.
    pub(super) fn refuse_late(&self, now: Instant) {
        // They all have as long, so each line is in order.
        self.refuse_while(&Refusal::Busy, |asked| asked.until <= now);
    }

    /// Refuses all of them, for this reason.
    pub(super) fn refuse_all(&self, refusal: &Refusal) {
        self.refuse_while(refusal, |_| true);
    }

    fn refuse_while(&self, refusal: &Refusal, is_due: impl Fn(&Asked) -> bool) {
        for line in Line::ALL {
            while let Some(asked) = self.waiting(line).pop_if(&is_due) {
                let _ = asked.done.send(Err(refusal.clone()));
            }
        }
    }

    fn waiting(&self, line: Line) -> &Waiting {
        match line {
            Line::Writes => &self.writes,
            Line::Renewals => &self.renewals,
        }
    }
}

impl Waiting {
    fn pop_if(&self, is_due: impl FnOnce(&Asked) -> bool) -> Option<Asked> {
        let mut all = self.asked();
        all.front().is_some_and(is_due).then(|| all.pop_front()).flatten()
    }

    fn asked(&self) -> MutexGuard<'_, VecDeque<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{Caller, Renewal},
        *,
    };
    use std::time::Duration;

    type Answer = oneshot::Receiver<Result<Done, Refusal>>;

    fn push(queue: &Queue, wish: Wish, until: Instant) -> Result<Answer, Refusal> {
        let (done, answer) = oneshot::channel();
        queue.push(Asked { wish, done, until }).map(|()| answer)
    }

    fn removal(id: &str) -> Wish {
        Wish::Remove(id.into(), Caller::default())
    }

    fn renewal(id: &str) -> Wish {
        Wish::Renew(id.into(), Renewal::default())
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_served_who_has_gone() {
        let queue = Queue::default();
        let until = Instant::now() + Duration::from_secs(8);
        drop(push(&queue, removal("a"), until));
        let _stays = push(&queue, removal("b"), until).expect("room");
        assert_eq!(&**queue.try_next(Line::Writes).expect("one").wish.id(), "b");
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_do_not_wait_behind_writes() {
        let queue = Queue::default();
        let until = Instant::now() + Duration::from_secs(8);
        let writes: Vec<_> = (0..Line::Writes.most()).map(|_| push(&queue, removal("a"), until)).collect();
        assert!(writes.iter().all(Result::is_ok));
        assert_eq!(push(&queue, removal("b"), until).expect_err("it is full"), Refusal::Busy);
        let _waits = push(&queue, renewal("c"), until).expect("room");
        assert_eq!(&**queue.try_next(Line::Renewals).expect("one").wish.id(), "c");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waited_too_long_is_refused() {
        let queue = Queue::default();
        let soon = Instant::now() + Duration::from_secs(1);
        let late = push(&queue, removal("a"), soon).expect("room");
        let mut other = push(&queue, renewal("b"), soon + Duration::from_secs(1)).expect("room");
        queue.refuse_late(soon);
        assert_eq!(late.await.expect("an answer").expect_err("it is late"), Refusal::Busy);
        assert!(other.try_recv().is_err(), "it is not late yet");
        queue.refuse_all(&Refusal::Closed);
        assert_eq!(other.await.expect("an answer").expect_err("nobody is served"), Refusal::Closed);
    }
}
