//! What etcd says of one VM, as it was seen at some revision. Pure.

use super::{
    super::{Kept, book::Told},
    keys::{Keys, Kind},
    more::More,
    wire::{self, KeyValue},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// What entries are written as. One that is written as a later version is neither replaced nor removed by this one. A
/// version that only adds fields is none: they are kept.
const VERSION: u32 = 1;

/// What etcd says of one VM.
#[derive(Debug, Clone, Default)]
pub(in crate::registry) struct Seen {
    entry: Option<At<Found>>,
    alive: Option<At<u64>>,
    deleted: Option<At<Option<Tomb>>>,
}

/// Something, and the revision that it is of.
#[derive(Debug, Clone)]
struct At<T> {
    revision: u64,
    what: T,
}

/// An entry that is there.
#[derive(Debug, Clone)]
struct Found {
    /// None where it makes no sense here.
    entry: Option<Arc<Entry>>,
    is_later: bool,
}

/// What is known of a VM, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(default = "first_version")]
    version: u32,
    /// Tells each write from all others: whoever hears nothing of its own finds out so whether it was done.
    pub(super) write: u64,
    pub(super) kept: Kept,
    #[serde(skip)]
    more: Arc<More>,
}

/// What is known of a VM that was deleted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Tomb {
    pub(super) write: u64,
    pub(super) generation: Option<u64>,
}

impl Entry {
    /// An entry as this version writes it, in the place of another.
    pub(super) fn new(write: u64, kept: Kept, before: Option<&Self>) -> Self {
        let more = before.map(|before| Arc::clone(&before.more)).unwrap_or_default();
        Self { version: VERSION, write, kept, more }
    }

    /// Reads the entry of a VM.
    fn read(value: &[u8], id: &str) -> Result<Self, String> {
        let in_words = |error: serde_json::Error| error.to_string();
        let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
        let Self { version, write, kept, .. } = serde_json::from_str(text).map_err(in_words)?;
        let kept = kept.sound(id)?;
        let mut entry = Self { version, write, kept, more: Arc::default() };
        let more = More::of(text, &serde_json::to_string(&entry).map_err(in_words)?).map_err(in_words)?;
        entry.more = Arc::new(more);
        Ok(entry)
    }

    fn to_json(&self) -> Vec<u8> {
        let text = serde_json::to_string(self).and_then(|text| self.more.add_to(text));
        // What is written has no keys but strings: this cannot fail.
        text.unwrap_or_default().into_bytes()
    }
}

/// What was written before there were versions.
fn first_version() -> u32 {
    1
}

/// Whether an entry is written as a later version, whatever else it says.
fn is_later(value: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Versioned {
        version: Option<u64>,
    }
    let versioned: Option<Versioned> = serde_json::from_slice(value).ok();
    versioned.and_then(|it| it.version).is_some_and(|version| version > u64::from(VERSION))
}

impl Seen {
    /// Takes up a key of this VM that is there.
    ///
    /// # Errors
    /// Fails where what it says makes no sense; it is known that it is there all the same.
    pub(super) fn put(&mut self, kind: Kind, id: &str, kv: &KeyValue) -> Result<(), String> {
        let revision = kv.mod_revision;
        match kind {
            Kind::Entry => {
                let (entry, error) = match Entry::read(&kv.value, id) {
                    Ok(entry) => (Some(Arc::new(entry)), None),
                    Err(error) => (None, Some(error)),
                };
                let what = Found { entry, is_later: is_later(&kv.value) };
                self.entry = Some(At { revision, what });
                return error.map_or(Ok(()), Err);
            }
            Kind::Alive => self.alive = Some(At { revision, what: kv.lease }),
            Kind::Deleted => {
                let tomb = serde_json::from_slice(&kv.value).ok();
                self.deleted = Some(At { revision, what: tomb });
            }
        }
        Ok(())
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
        entry.max(self.alive.as_ref().map_or(0, |alive| alive.revision))
    }

    /// What is known of it.
    pub(super) fn entry(&self) -> Option<&Entry> {
        self.entry.as_ref()?.what.entry.as_deref()
    }

    /// Whether a later version of the gateway has written it, which this one must not undo.
    pub(super) fn is_later(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.what.is_later)
    }

    /// Whether it has expired, and nobody has kept when.
    pub(super) fn is_unmarked(&self) -> bool {
        self.lease().is_none() && self.entry().is_some_and(|entry| !entry.kept.is_marked())
    }

    /// The lease that it lives by; none where it does not, nor where somebody else has put it without one.
    pub(super) fn lease(&self) -> Option<u64> {
        self.alive.as_ref().map(|alive| alive.what).filter(|lease| *lease != 0)
    }

    /// Whether anything is told of it to those who look at entries.
    pub(super) fn is_told(&self) -> bool {
        self.entry().is_some()
    }

    /// What is told of it to those who look at entries; none where there is none.
    pub(super) fn told(&self) -> Option<Told> {
        let kept = self.entry()?.kept.clone();
        Some(Told { kept, lives: self.lease().is_some() })
    }

    /// That it was deleted, and of which generation it was.
    pub(super) fn tomb(&self) -> Option<Tomb> {
        // One that nobody can read says no less.
        self.deleted.as_ref().map(|deleted| deleted.what.unwrap_or(Tomb { write: 0, generation: None }))
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
            (keys.of(Kind::Alive, id), self.alive.as_ref().map_or(0, |alive| alive.revision)),
            (keys.of(Kind::Deleted, id), self.deleted.as_ref().map_or(0, |deleted| deleted.revision)),
        ]
    }

    /// The transaction that puts this entry in its place, living by this lease, where it lives.
    pub(super) fn to_put(&self, keys: &Keys, entry: &Entry, lease: Option<u64>) -> Value {
        let id = entry.kept.id();
        let mut then = vec![wire::put(&keys.of(Kind::Entry, id), &entry.to_json(), 0)];
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
