//! Where entries are kept, so that they outlast the process.

use super::Kept;
use std::{fmt, sync::Arc};

/// Something that keeps entries. Used by one thread.
pub trait Store: fmt::Debug + Send {
    /// Keeps all of this, or none. Returns once it would survive the machine.
    ///
    /// # Errors
    /// Fails where it is not kept.
    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError>;
}

/// One change to what is kept.
#[derive(Debug, Clone)]
pub enum Write {
    /// An entry as it is now.
    Put(Box<Kept>),
    /// An entry that is no more, and by which change.
    Remove(Arc<str>, u64),
}

impl Write {
    /// The entry's id.
    pub fn id(&self) -> &Arc<str> {
        match self {
            Self::Put(kept) => kept.id(),
            Self::Remove(id, _) => id,
        }
    }
}

/// What a store had.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The entries.
    pub entries: Vec<Kept>,
    /// The last change that is known to have been kept.
    pub revision: u64,
    /// What was damaged, and what became of it.
    pub damage: Option<String>,
}

/// Why nothing is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);
