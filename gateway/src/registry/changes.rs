//! What changed, in order, for those who watch. Bounded: who falls too far behind has to begin anew.

use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};
use tokio::sync::watch;

/// Changes that are remembered.
const MOST: usize = 16 * 1024;

/// Bytes of changes that are remembered.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of changes that somebody is told at once; one change, however large.
const TOLD: usize = 256 * 1024;

/// The last changes.
#[derive(Debug)]
pub(super) struct Changes {
    log: Mutex<Log>,
    latest: watch::Sender<u64>,
    /// The same for those of this gateway, who are no clients.
    own: watch::Sender<u64>,
}

#[derive(Debug)]
struct Log {
    changes: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// Everything after this one is there.
    since: u64,
}

/// Somebody who has seen everything up to a revision. It holds no change; each is kept once for all who watch.
#[derive(Debug)]
pub struct Watcher {
    seen: u64,
    latest: watch::Receiver<u64>,
}

/// Changes are missing between what was seen and what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// Where to go on from.
    pub revision: u64,
}

impl Changes {
    /// None yet, after this one.
    pub(super) fn new(revision: u64) -> Self {
        let log = Log { changes: VecDeque::new(), bytes: 0, since: revision };
        let sender = || watch::Sender::new(revision);
        Self { log: Mutex::new(log), latest: sender(), own: sender() }
    }

    /// Begins after this one.
    pub(super) fn begin(&self, revision: u64) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        *log = Log { changes: VecDeque::new(), bytes: 0, since: revision };
        drop(log);
        self.latest.send_replace(revision);
        self.own.send_replace(revision);
    }

    /// Adds one, as JSON.
    pub(super) fn push(&self, revision: u64, change: Bytes) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.bytes += change.len();
        log.changes.push_back((revision, change));
        while log.changes.len() > MOST || log.bytes > MOST_BYTES {
            let Some((revision, change)) = log.changes.pop_front() else { break };
            log.bytes -= change.len();
            log.since = revision;
        }
    }

    /// Tells those who wait of what was added.
    pub(super) fn announce(&self, revision: u64) {
        self.latest.send_if_modified(|latest| std::mem::replace(latest, revision) != revision);
        self.own.send_replace(revision);
    }

    /// Tells somebody of this gateway of each change.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.own.subscribe()
    }

    /// Somebody who has seen everything up to there; up to now where that is not said.
    pub(super) fn watch(&self, since: Option<u64>) -> Watcher {
        let latest = self.latest.subscribe();
        let now = *latest.borrow();
        Watcher { seen: since.unwrap_or(now), latest }
    }

    pub(super) fn watchers(&self) -> usize {
        self.latest.receiver_count()
    }

    /// What this one has not seen, at most so many, and marks it as seen.
    ///
    /// # Errors
    /// Fails where some of it is not remembered any more; it goes on from now then.
    pub(super) fn next(&self, watcher: &mut Watcher, most: usize) -> Result<Vec<(u64, Bytes)>, Behind> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let last = log.changes.back().map_or(log.since, |(revision, _)| *revision);
        if watcher.seen < log.since || watcher.seen > last {
            watcher.seen = last;
            return Err(Behind { revision: last });
        }
        let from = log.changes.partition_point(|(revision, _)| *revision <= watcher.seen);
        let mut left = TOLD;
        let fits = |(index, (_, change)): &(usize, &(u64, Bytes))| {
            let fits = *index == 0 || change.len() <= left;
            left = left.saturating_sub(change.len());
            fits
        };
        let unseen = log.changes.iter().skip(from).take(most).enumerate().take_while(fits);
        let found: Vec<(u64, Bytes)> = unseen.map(|(_, change)| change.clone()).collect();
        if let Some((revision, _)) = found.last() {
            watcher.seen = *revision;
        }
        Ok(found)
    }
}

impl Watcher {
    /// Up to where it has seen everything.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Waits until there is something that it has not seen. Ends at once where the registry is gone.
    pub async fn changed(&mut self) {
        let seen = self.seen;
        let _ = self.latest.wait_for(|latest| *latest > seen).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(found: Result<Vec<(u64, Bytes)>, Behind>) -> Vec<u64> {
        found.expect("all of it").into_iter().map(|(revision, _)| revision).collect()
    }

    #[test]
    fn each_change_is_seen_once_and_in_order() {
        let changes = Changes::new(7);
        let mut watcher = changes.watch(None);
        assert_eq!(numbers(changes.next(&mut watcher, 10)), [0_u64; 0]);
        (8..12).for_each(|revision| changes.push(revision, Bytes::from_static(b"{}")));
        assert_eq!(numbers(changes.next(&mut watcher, 3)), [8, 9, 10]);
        assert_eq!(numbers(changes.next(&mut watcher, 3)), [11]);
        assert_eq!(numbers(changes.next(&mut changes.watch(Some(9)), 10)), [10, 11]);
    }

    #[test]
    fn who_falls_behind_is_told_where_to_go_on() {
        let changes = Changes::new(7);
        let last = 8 + MOST as u64;
        (8..=last).for_each(|revision| changes.push(revision, Bytes::from_static(b"{}")));
        assert_eq!(changes.next(&mut changes.watch(Some(7)), 1), Err(Behind { revision: last }));
        assert_eq!(numbers(changes.next(&mut changes.watch(Some(8)), 1)), [9], "the rest is there");
        let of_another_life = changes.next(&mut changes.watch(Some(last + 1)), 1);
        assert_eq!(of_another_life, Err(Behind { revision: last }));
    }

    #[test]
    fn large_changes_count_by_their_bytes() {
        let changes = Changes::new(0);
        let large = Bytes::from(vec![b' '; MOST_BYTES / 4]);
        (1..=6).for_each(|revision| changes.push(revision, large.clone()));
        let mut watcher = changes.watch(Some(2));
        for revision in 3..=6 {
            assert_eq!(numbers(changes.next(&mut watcher, 10)), [revision], "one at a time");
        }
        assert!(changes.next(&mut changes.watch(Some(1)), 10).is_err());
        let part = Bytes::from(vec![b' '; TOLD / 2]);
        (7..=9).for_each(|revision| changes.push(revision, part.clone()));
        assert_eq!(numbers(changes.next(&mut watcher, 10)), [7, 8]);
        assert_eq!(numbers(changes.next(&mut watcher, 10)), [9]);
    }
}
