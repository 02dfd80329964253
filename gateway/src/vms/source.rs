//! What can be asked where a VM is: DNS, a registry, or whatever comes.

use super::VmId;
use std::{fmt, future::Future, net::IpAddr, pin::Pin, time::Duration};

/// What knows where VMs are. Shared by all workers, each of which asks by a [`Lookup`] of its own.
pub trait Source: fmt::Debug + Send + Sync {
    /// A worker's way to ask; called on that worker's thread.
    fn open(&self) -> Box<dyn Lookup>;
}

/// A worker's way to ask where VMs are. Who asks sees to deadlines, to one question at a time for each
/// VM, and to what is remembered.
pub trait Lookup: fmt::Debug {
    /// Asks where a VM is.
    fn find<'a>(&'a self, vm: &'a VmId) -> Pin<Box<dyn Future<Output = Answer> + 'a>>;
}

/// The addresses of a VM, the preferred one first, and how long they count where the source says that;
/// no address means that there is no such VM.
pub type Answer = Result<(Vec<IpAddr>, Option<Duration>), SourceError>;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The source could not be asked, or did not know: whether there is such a VM is not known, and where it was
    /// it may still be.
    #[error("{0}")]
    Silent(String),
    /// There is such a VM, and it has no address: where it was, it is not any more.
    #[error("{0}")]
    Nowhere(String),
}
