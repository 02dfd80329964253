//! From `[registry]` to the registry that routes lead to. Its entries outlast reloads: where they are kept is
//! what tells one registry from another.

use super::{Inputs, Snapshot, state_dir::StateDir};
use crate::{
    config::{self, Config, RegistryStore, Resolve, Vms},
    plugins::Secret,
    registry::{FILE_NAME, Place, Registry, Terms, api::Door},
    vms::{Answer, Lookup, Source, SourceError, VmId},
};
use std::{future::Future, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

/// The registry, and who may ask it.
#[derive(Debug)]
pub struct RegistryPlan {
    /// The entries. Whoever runs the snapshot opens it.
    pub registry: Arc<Registry>,
    /// What may be configured of it.
    pub terms: Terms,
    /// The token of those who may ask; everybody may where there is none.
    pub token: Option<Secret>,
}

impl RegistryPlan {
    /// Who may ask.
    pub fn door(&self) -> Door<'_> {
        self.token.as_ref().map_or(Door::Open, |token| Door::Token(token.reveal()))
    }
}

pub(super) fn build(
    config: &Config,
    previous: Option<&Snapshot>,
    inputs: &Inputs<'_>,
    secret: impl Fn(&str) -> Secret,
) -> Option<Arc<RegistryPlan>> {
    let is_target = config.routes.iter().any(|route| *route.to.get_ref() == config::Target::Registry);
    let resolves = config.vms.as_ref().map(Vms::resolution) == Some(Resolve::Registry);
    if !is_target && !resolves {
        return None;
    }
    let written = config.registry.clone().unwrap_or_default();
    let place = match written.store.as_ref().map(|store| store.get_ref()) {
        Some(RegistryStore::Memory) => Place::Memory,
        Some(RegistryStore::File(path)) => Place::File(inputs.base.join(path)),
        None => Place::File(StateDir::of(config, inputs).path().join(FILE_NAME)),
    };
    let terms = Terms {
        ttl: written.ttl.get(),
        retention: written.retention.get(),
        strict_conflict: written.strict_conflict,
    };
    let before = previous.and_then(|previous| previous.registry.as_ref());
    let registry = before.map(|before| &before.registry).filter(|registry| *registry.place() == place);
    let registry = registry.cloned().unwrap_or_else(|| Arc::new(Registry::new(place, terms)));
    let token = written.token.as_ref().map(|name| secret(name.get_ref()));
    Some(Arc::new(RegistryPlan { registry, terms, token }))
}

/// How long the address of a registered VM counts: it is asked for here, and costs nothing.
const TTL: Duration = Duration::from_secs(1);

/// VMs by their entries in the registry of this gateway.
#[derive(Debug, Clone)]
pub(super) struct Registered(pub(super) Arc<Registry>);

impl Source for Registered {
    fn open(&self) -> Box<dyn Lookup> {
        Box::new(self.clone())
    }
}

impl Lookup for Registered {
    fn find<'a>(&'a self, vm: &'a VmId) -> Pin<Box<dyn Future<Output = Answer> + 'a>> {
        Box::pin(std::future::ready(self.address(vm)))
    }
}

impl Registered {
    fn address(&self, vm: &VmId) -> Answer {
        let Some(record) = self.0.get(&vm.to_string()).filter(|record| !record.is_expired()) else {
            return Ok((Vec::new(), Some(TTL)));
        };
        let address = record.what.address.as_str();
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Ok((vec![ip], Some(TTL))),
            // By name, a VM is reached through its edge, and that is here.
            Err(_) => Err(SourceError(format!("{vm} registered as {address}, which is not an IP address"))),
        }
    }
}
