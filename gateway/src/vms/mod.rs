//! Where VMs are: from the name of one to its addresses.
//!
//! What a gateway knows of all VMs is a [`Vms`], shared by its workers and never changed: a table, or a
//! [`Source`] that is asked. What one worker remembers of what it asked is a [`Directory`]. Nothing here
//! connects to a VM, or knows why one is looked for.

mod cache;
mod directory;
mod dns;
mod id;
mod source;
mod table;

pub use directory::{Addresses, Directory, DirectoryMetrics, NoVm};
pub use dns::{Dns, MACHINES_SERVERS, NameError, name_servers};
pub use id::{BadVmId, VmId};
pub use source::{Answer, Lookup, Source, SourceError};
pub use table::{BadLine, Table};

use std::{net::IpAddr, time::Duration};

/// What a gateway knows of all VMs.
#[derive(Debug)]
pub struct Vms {
    /// Where that is.
    pub known: Known,
    /// How it is asked.
    pub terms: Terms,
}

/// Where it is known where VMs are.
#[derive(Debug)]
pub enum Known {
    /// Here, all of it.
    Table(Table),
    /// Somewhere else.
    Asked(Box<dyn Source>),
}

/// How VMs are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// How long an answer counts at most.
    pub ttl: Duration,
    /// How long it counts that there is no such VM.
    pub negative_ttl: Duration,
    /// How long a question may take.
    pub timeout: Duration,
    /// Most VMs that a worker remembers.
    pub remembered: usize,
    /// Whether VMs may be reached over IPv4.
    pub allow_ipv4: bool,
}

impl Terms {
    /// Whether a VM may have this address.
    pub fn allow(&self, address: IpAddr) -> bool {
        self.allow_ipv4 || address.to_canonical().is_ipv6()
    }
}
