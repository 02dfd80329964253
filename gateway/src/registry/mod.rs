//! The registry: which VMs there are, what they serve, and for how long that is believed.
//!
//! [`Book`] decides what becomes of entries and leases, and is pure; [`Registry`] shares one among
//! threads: writers take its lock for microseconds, readers look at the shelf and never wait for
//! writers' disks. What is kept goes through a [`Store`] on a thread of its own, and who writes is told
//! once it is there. Where several gateways share a store, [`etcd`] follows that, and has it decide. [`api`] says all
//! of it in the words of HTTP, and knows nothing of connections.

pub mod api;
mod book;
mod caller;
mod changes;
mod clock;
mod directory;
pub mod etcd;
mod file;
mod health;
mod keeper;
mod lists;
mod mirror;
mod model;
mod openapi;
mod query;
mod rate;
mod shared;
mod shelf;
mod show;
mod store;
mod wish;
mod writer;

#[cfg(test)]
mod tests;

pub use book::{Book, ENTRIES, Effect, Kept, Terms};
pub use caller::{Caller, LeaseKey};
pub use changes::{Behind, Watcher};
pub use clock::{Clock, Moment, SystemClock};
pub use directory::{Directory, Endpoint};
pub use etcd::StoreState;
pub use file::{FILE_NAME, FileStore};
pub use health::{Finding, Health, Verdict, Witness};
pub use mirror::{Listing, Mirror, MirrorState, NoRegistry};
pub use model::{
    Change, DEPTH, Description, ENTRY, Grace, LONGEST_TTL, Lease, Record, Registration, Renewal, Role,
    SERVICES, SHORTEST_TTL, Service, Status,
};
pub use openapi::OPENAPI;
pub use shared::{Committed, Place, Probed, Registry};
pub use store::{Loaded, Store, StoreError, Write};
pub use wish::{Done, Wish, Wished};

/// Anything from 0 to 1: so that not all do the same at the same moment.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}

/// Why the registry does not do what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What was written makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// What was written is too large.
    #[error("an entry has at most {ENTRY} bytes")]
    TooLarge,
    /// There is no such entry.
    #[error("VM not found")]
    Unknown,
    /// There was one, and it was deleted a moment ago.
    #[error("VM not found")]
    Deleted,
    /// There is one already, and clients want to know.
    #[error("VM already registered")]
    Conflict,
    /// There is one already, and it was registered with another key.
    #[error("this VM was registered with another x-lease-key")]
    Bound,
    /// The address is somebody else's.
    #[error("address must be this client's own, or the VM's id below `names_below`")]
    Foreign,
    /// Too many changes come from one address.
    #[error("too many changes from this address: {0} a second are let in")]
    TooMany(u32),
    /// There is a newer one.
    #[error("superseded: generation {0} of this VM has registered")]
    Superseded(u64),
    /// There was a newer one, and it was deleted a moment ago.
    #[error("superseded: a newer generation of this VM was deleted a moment ago")]
    Outlived,
    /// There is no room for another.
    #[error("the registry is full: it has {ENTRIES} entries")]
    Full,
    /// Too much waits to be kept already.
    #[error("the registry is busy")]
    Busy,
    /// It is not open yet, or not any more.
    #[error("the registry is not open")]
    Closed,
    /// It could not be kept.
    #[error("the registry cannot keep this: {0}")]
    NotKept(String),
    /// The store that several gateways share cannot be reached. Nothing was done.
    #[error("the registry's store cannot be reached, nothing is written: {0}")]
    StoreLost(String),
    /// It was asked, and nobody knows what came of that.
    #[error("the registry's store did not answer, this may be written or not: {0}")]
    StoreUncertain(String),
    /// It says no.
    #[error("the registry's store refuses, nothing is written: {0}")]
    StoreRefuses(String),
}

impl Refusal {
    /// What it is called where it is nobody's mistake, and passes.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Full => Some("full"),
            Self::TooMany(_) => Some("too-many"),
            Self::Busy => Some("busy"),
            Self::Closed => Some("closed"),
            Self::NotKept(_) => Some("not-kept"),
            Self::StoreLost(_) => Some("store-lost"),
            Self::StoreUncertain(_) => Some("store-uncertain"),
            Self::StoreRefuses(_) => Some("store-refuses"),
            _ => None,
        }
    }

    fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }
}
