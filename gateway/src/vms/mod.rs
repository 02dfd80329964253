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

use ipnet::IpNet;
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

/// Networks that VMs may be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Networks {
    /// All, where the operator says which VM is where.
    All,
    /// All but loopback and link-local ones, where somebody else says that: clients choose the port, so these
    /// would open to them what is not meant for them. The other addresses of this machine and its network, only
    /// the operator knows.
    Others,
    /// These.
    Of(Vec<IpNet>),
}

impl Networks {
    fn contain(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::All, _) => true,
            (Self::Others, IpAddr::V4(ip)) => !ip.is_loopback() && !ip.is_link_local(),
            (Self::Others, IpAddr::V6(ip)) => !ip.is_loopback() && !ip.is_unicast_link_local(),
            (Self::Of(networks), _) => networks.iter().any(|network| network.contains(&address)),
        }
    }
}

impl Terms {
    /// Whether a VM may have this address.
    pub fn allow(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        // These would lead to this machine, and to many.
        let is_one = !address.is_unspecified() && !address.is_multicast();
        is_one && (self.allow_ipv4 || address.is_ipv6()) && self.networks.contain(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(allow_ipv4: bool, networks: Networks) -> Terms {
        let (ttl, negative_ttl, timeout) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        Terms { ttl, negative_ttl, timeout, remembered: 2, allow_ipv4, networks }
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
            let found = [false, true].map(|allow_ipv4| terms(allow_ipv4, Networks::All).allow(address));
            assert_eq!(found, [over_ipv6, over_any], "{address}");
        }
    }

    #[test]
    fn who_says_where_vms_are_does_not_lead_clients_into_the_gateways_own_machine() {
        let written = ["2001:db8::/32", "127.0.0.0/8"].map(|network| network.parse().expect("a network"));
        let of = Networks::Of(written.to_vec());
        for (address, is_others, is_written) in [
            ("2001:db8::1", true, true),
            ("2001:db9::1", true, false),
            ("::1", false, false),
            ("fe80::1", false, false),
            ("127.0.0.1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("169.254.169.254", false, false),
            ("fd00::1", true, false),
        ] {
            let address = address.parse().expect("an address");
            let found = [&Networks::All, &Networks::Others, &of]
                .map(|networks| terms(true, networks.clone()).allow(address));
            assert_eq!(found, [true, is_others, is_written], "{address}");
        }
    }
}
