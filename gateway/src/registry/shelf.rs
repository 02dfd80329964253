//! Entries as readers find them. Readers never wait for a writer's disk, nor writers for a reader's answer:
//! each takes a lock of a part for as long as it takes to copy references.

use super::{Effect, Record, Role};
use bytes::Bytes;
use dashmap::DashMap;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// For how long an answer is given again while nothing changes but renewals.
const FRESH: Duration = Duration::from_secs(1);

/// Bytes of answers that are kept at most.
const MOST_KEPT: usize = 32 * 1024 * 1024;

/// All entries, for readers.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    entries: DashMap<Arc<str>, Arc<Record>>,
    roles: DashMap<Role, BTreeMap<Arc<str>, Arc<Record>>>,
    /// The last change of each role, in the order of [`Role::ALL`].
    revisions: [AtomicU64; Role::ALL.len()],
    answers: DashMap<String, Prepared>,
    kept: AtomicUsize,
    choices: DashMap<String, Choice>,
}

/// Lists of candidates that are kept: one for each role and service that is asked for.
const MOST_CHOICES: usize = 256;

/// Who may be picked, the best first. Holds until something changes but renewals.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) revision: u64,
    pub(super) ids: Arc<[Arc<str>]>,
    /// So many at the front are as good as each other.
    pub(super) best: usize,
}

/// An answer that can be given again.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) revision: u64,
    pub(super) made: Duration,
    pub(super) body: Bytes,
}

impl Shelf {
    /// Takes up a change.
    pub(super) fn apply(&self, effect: &Effect) {
        match effect {
            Effect::Put { record, was, is_news, .. } => {
                let id = &record.what.id;
                self.entries.insert(Arc::clone(id), Arc::clone(record));
                self.roles.entry(record.what.role).or_default().insert(Arc::clone(id), Arc::clone(record));
                if let Some(was) = *was {
                    self.take_out(was, id);
                    self.stamp(was, record.revision);
                }
                if *is_news {
                    self.stamp(record.what.role, record.revision);
                }
            }
            Effect::Gone { record, revision } => {
                self.entries.remove(&record.what.id);
                self.take_out(record.what.role, &record.what.id);
                self.stamp(record.what.role, *revision);
            }
        }
    }

    /// Begins counting from there.
    pub(super) fn begin(&self, revision: u64) {
        self.answers.clear();
        self.choices.clear();
        self.kept.store(0, Relaxed);
        self.revisions.iter().for_each(|last| last.store(revision, Relaxed));
    }

    /// The last change of this role, or of any.
    pub(super) fn revision(&self, role: Option<Role>) -> u64 {
        let of = |(candidate, last): (Role, &AtomicU64)| {
            role.is_none_or(|role| role == candidate).then(|| last.load(Relaxed))
        };
        Role::ALL.into_iter().zip(&self.revisions).filter_map(of).max().unwrap_or_default()
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Record>> {
        self.entries.get(id).map(|record| Arc::clone(&record))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries of this role, or all.
    pub(super) fn all(&self, role: Option<Role>) -> Vec<Arc<Record>> {
        match role {
            Some(role) => {
                self.roles.get(&role).map(|records| records.values().cloned().collect()).unwrap_or_default()
            }
            None => self.entries.iter().map(|record| Arc::clone(&record)).collect(),
        }
    }

    /// An answer that was given a moment ago.
    pub(super) fn prepared(&self, key: &str, revision: u64, now: Duration) -> Option<Prepared> {
        let found = self.answers.get(key)?;
        (found.revision == revision && now.saturating_sub(found.made) < FRESH).then(|| found.clone())
    }

    pub(super) fn prepare(&self, key: String, answer: Prepared) {
        // Entries count as well as their bytes: keys are what clients ask for.
        let size = key.len() + answer.body.len() + 256;
        if self.kept.fetch_add(size, Relaxed) + size > MOST_KEPT {
            self.answers.clear();
            self.kept.store(size, Relaxed);
        }
        if let Some(before) = self.answers.insert(key, answer) {
            self.kept.fetch_sub(before.body.len().min(self.kept.load(Relaxed)), Relaxed);
        }
    }

    /// Candidates of a moment ago, as long as nothing has changed; others where it has.
    pub(super) fn choice(&self, key: &str, revision: u64, make: impl FnOnce() -> Choice) -> Choice {
        if let Some(found) = self.choices.get(key).filter(|found| found.revision == revision) {
            return found.clone();
        }
        let made = make();
        if self.choices.len() >= MOST_CHOICES {
            self.choices.clear();
        }
        self.choices.insert(key.to_owned(), made.clone());
        made
    }

    fn take_out(&self, role: Role, id: &Arc<str>) {
        if let Some(mut records) = self.roles.get_mut(&role) {
            records.remove(id);
        }
    }

    fn stamp(&self, role: Role, revision: u64) {
        for (candidate, last) in Role::ALL.into_iter().zip(&self.revisions) {
            if candidate == role {
                last.store(revision, Relaxed);
            }
        }
    }
}
