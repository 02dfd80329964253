//! What clients want of a registry, and what comes of it: at once where one gateway decides, and later where
//! several do.

use super::{Caller, Change, Committed, Record, Refusal, Registration, Renewal};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a client wants.
#[derive(Debug, Clone)]
pub enum Wish {
    /// To take a VM in.
    Register(Registration),
    /// To change the entry of this id.
    Change(Arc<str>, Change),
    /// To renew its lease.
    Renew(Arc<str>, Renewal),
    /// To remove it.
    Remove(Arc<str>, Caller),
    /// To remove it where it has expired.
    Purge(Arc<str>),
}

impl Wish {
    /// Whose entry it is about.
    pub fn id(&self) -> &Arc<str> {
        match self {
            Self::Register(asked) => &asked.what.id,
            Self::Change(id, _) | Self::Renew(id, _) | Self::Remove(id, _) | Self::Purge(id) => id,
        }
    }
}

/// What came of a wish.
#[derive(Debug, Clone)]
pub enum Done {
    /// The entry as it is now.
    Entry(Arc<Record>),
    /// It is gone.
    Removed,
}

/// When it is known what comes of a wish.
#[derive(Debug)]
pub enum Wished {
    /// Now, and it is kept then.
    Done(Done, Committed),
    /// Once the store has decided.
    Asked(oneshot::Receiver<Result<Done, Refusal>>),
}
