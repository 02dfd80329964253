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

use crate::networks::Networks;
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
    /// Where they may be.
    pub networks: Networks,
}

impl Terms {
    /// Whether a VM may have this address.
    pub fn allow(&self, address: IpAddr) -> bool {
        (self.allow_ipv4 || address.to_canonical().is_ipv6()) && self.networks.contain(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(allow_ipv4: bool) -> Terms {
        let (ttl, negative_ttl, timeout) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        Terms { ttl, negative_ttl, timeout, remembered: 2, allow_ipv4, networks: Networks::All }
    }

    #[test]
    fn a_vm_has_an_address_that_is_one_machines() {
        for (address, over_ipv6, over_any) in [
            ("2001:db8::1", true, true),
            ("192.0.2.1", false, true),
            ("::ffff:192.0.2.1", false, true),
            ("::", false, false),
            ("::ffff:0.0.0.0", false, false),
            ("ff02::1", false, false),
            ("224.0.0.1", false, false),
        ] {
            let address = address.parse().expect("an address");
            let found = [false, true].map(|allow_ipv4| terms(allow_ipv4).allow(address));
            assert_eq!(found, [over_ipv6, over_any], "{address}");
        }
    }
}
