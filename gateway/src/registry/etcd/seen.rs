//! What etcd says of one VM, as it was seen at some revision. Pure.

use super::{
    super::{Kept, book::Told},
    keys::{Keys, Kind},
    wire::{self, KeyValue},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// What etcd says of one VM.
#[derive(Debug, Clone, Default)]
pub(in crate::registry) struct Seen {
    entry: Option<At<Option<Arc<Entry>>>>,
    alive: Option<At<u64>>,
    deleted: Option<At<Option<Tomb>>>,
}

/// Something, and the revision that it is of.
#[derive(Debug, Clone, Copy)]
struct At<T> {
    revision: u64,
    what: T,
}

/// What is known of a VM, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Tells each write from all others: whoever hears nothing of its own finds out so whether it was done.
    pub(super) write: u64,
    pub(super) kept: Kept,
}

/// What is known of a VM that was deleted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Tomb {
    pub(super) write: u64,
    pub(super) generation: Option<u64>,
}

impl Seen {
    /// Takes up a key that is there.
    pub(super) fn put(&mut self, kind: Kind, kv: &KeyValue) {
        let revision = kv.mod_revision;
        match kind {
            Kind::Entry => self.entry = Some(At { revision, what: read(kv).map(Arc::new) }),
            Kind::Alive => self.alive = Some(At { revision, what: kv.lease }),
            Kind::Deleted => self.deleted = Some(At { revision, what: read(kv) }),
        }
    }

    /// Takes up that a key is there no more.
    pub(super) fn end(&mut self, kind: Kind) {
        match kind {
            Kind::Entry => self.entry = None,
            Kind::Alive => self.alive = None,
            Kind::Deleted => self.deleted = None,
        }
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_nothing(&self) -> bool {
        self.entry.is_none() && self.alive.is_none() && self.deleted.is_none()
    }

    /// The last change of what is told of it.
    pub(super) fn revision(&self) -> u64 {
        let entry = self.entry.as_ref().map_or(0, |entry| entry.revision);
        entry.max(self.alive.map_or(0, |alive| alive.revision))
    }

    /// What is known of it.
    pub(super) fn entry(&self) -> Option<&Entry> {
        self.entry.as_ref()?.what.as_deref()
    }

    /// Whether it has expired, and nobody has kept when.
    pub(super) fn is_unmarked(&self) -> bool {
        self.lease().is_none() && self.entry().is_some_and(|entry| !entry.kept.is_marked())
    }

    /// The lease that it lives by; none where it does not, nor where somebody else has put it without one.
    pub(super) fn lease(&self) -> Option<u64> {
        self.alive.map(|alive| alive.what).filter(|lease| *lease != 0)
    }

    /// What is told of it to those who look at entries; none where there is none.
    pub(super) fn told(&self) -> Option<Told> {
        let kept = self.entry()?.kept.clone();
        Some(Told { kept, lives: self.lease().is_some() })
    }

    /// That it was deleted, and of which generation it was.
    pub(super) fn tomb(&self) -> Option<Tomb> {
        // One that nobody can read says no less.
        self.deleted.map(|deleted| deleted.what.unwrap_or(Tomb { write: 0, generation: None }))
    }

    /// Whether its last change is this write.
    pub(super) fn is_by(&self, write: u64) -> bool {
        let entry = self.entry().map(|entry| entry.write);
        entry == Some(write) || (entry.is_none() && self.tomb().is_some_and(|tomb| tomb.write == write))
    }

    /// What a transaction compares with.
    pub(super) fn same(&self, keys: &Keys, id: &str) -> [(Vec<u8>, u64); 3] {
        [
            (keys.of(Kind::Entry, id), self.entry.as_ref().map_or(0, |entry| entry.revision)),
            (keys.of(Kind::Alive, id), self.alive.map_or(0, |alive| alive.revision)),
            (keys.of(Kind::Deleted, id), self.deleted.map_or(0, |deleted| deleted.revision)),
        ]
    }

    /// The transaction that puts this entry in its place, living by this lease, where it lives.
    pub(super) fn to_put(&self, keys: &Keys, entry: &Entry, lease: Option<u64>) -> Value {
        let id = entry.kept.id();
        // What is written has no keys but strings: this cannot fail.
        let text = serde_json::to_vec(entry).unwrap_or_default();
        let mut then = vec![wire::put(&keys.of(Kind::Entry, id), &text, 0)];
        if let Some(lease) = lease {
            then.push(wire::put(&keys.of(Kind::Alive, id), b"", lease));
        }
        if self.deleted.is_some() {
            then.push(wire::delete(&keys.of(Kind::Deleted, id)));
        }
        wire::transaction(&self.same(keys, id), &then)
    }

    /// The transaction that removes it, and leaves a tomb under this lease, where there is to be one.
    pub(super) fn to_remove(&self, keys: &Keys, id: &str, tomb: Option<(Tomb, u64)>) -> Value {
        let mut then = vec![wire::delete(&keys.of(Kind::Entry, id)), wire::delete(&keys.of(Kind::Alive, id))];
        if let Some((tomb, lease)) = tomb {
            let text = serde_json::to_vec(&tomb).unwrap_or_default();
            then.push(wire::put(&keys.of(Kind::Deleted, id), &text, lease));
        }
        wire::transaction(&self.same(keys, id), &then)
    }
}

fn read<T: serde::de::DeserializeOwned>(kv: &KeyValue) -> Option<T> {
    serde_json::from_slice(&kv.value)
        .inspect_err(|error| {
            let key = String::from_utf8_lossy(&kv.key);
            tracing::warn!(%key, "what etcd has there is nothing of a registry: {error}");
        })
        .ok()
}
