//! Who serves what, for those of this gateway who ask: in its own registry, or in what it has of another.

use super::{Mirror, Registry, Role};
use std::sync::Arc;
use tokio::sync::watch;

/// A registry, wherever it is.
#[derive(Debug, Clone)]
pub enum Directory {
    /// This gateway's own.
    Own(Arc<Registry>),
    /// Another one, as it was heard of last.
    Remote(Arc<Mirror>),
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Which VM's.
    pub id: String,
    /// A host name or an IP address.
    pub address: String,
    /// Its port there.
    pub port: u16,
    /// Whether nobody says that it does not work.
    pub is_good: bool,
}

impl Directory {
    /// Where the service of this name is, on VMs of this role that may be connected to; in the order of their
    /// ids. Those that are said not to work are left out, unless that is all of them.
    pub fn endpoints(&self, role: &str, service: &str) -> Vec<Endpoint> {
        let mut found = match self {
            Self::Own(registry) => own(registry, role, service),
            Self::Remote(mirror) => mirror.endpoints(role, service),
        };
        if found.iter().any(|endpoint| endpoint.is_good) {
            found.retain(|endpoint| endpoint.is_good);
        }
        found
    }

    /// The address of the VM of this id, where its lease runs.
    pub fn address(&self, id: &str) -> Option<String> {
        match self {
            Self::Own(registry) => {
                let record = registry.get(id).filter(|record| !record.is_expired())?;
                Some(record.what.address.clone())
            }
            Self::Remote(mirror) => mirror.address(id),
        }
    }

    /// Something that changes whenever answers may.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        match self {
            Self::Own(registry) => registry.subscribe(),
            Self::Remote(mirror) => mirror.subscribe(),
        }
    }
}

fn own(registry: &Registry, role: &str, service: &str) -> Vec<Endpoint> {
    let Some(role) = Role::of(role) else { return Vec::new() };
    let mut found = Vec::new();
    for record in registry.all(Some(role)) {
        if record.is_discoverable()
            && let Some(service) = record.service(service)
        {
            let (address, id) = (record.what.address.clone(), record.what.id.to_string());
            let is_good = !record.health.fails_probe(&service.name);
            found.push(Endpoint { id, address, port: service.port, is_good });
        }
    }
    found
}
