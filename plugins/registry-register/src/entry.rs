//! What the registry is told of this VM.

use super::RegistryRegister;
use serde_json::{Value, json};
use std::time::Duration;
use vers_plugin::prelude::*;

/// The shortest lease that a registry grants.
const SHORTEST: Duration = Duration::from_secs(5);

impl RegistryRegister {
    pub(super) fn entry(&self, id: &PathSegment, registry: &BaseUrl) -> Value {
        let mut entry = json!({
            "id": id, "name": self.name, "role": self.role, "address": self.address(id, registry),
            "status": self.status(), "registeredBy": "vers-gateway", "services": self.services,
            "metadata": self.metadata, "ttl": self.ttl().as_secs_f64().ceil(),
        });
        if let Some(generation) = self.generation {
            entry["generation"] = generation.into();
        }
        // For people: others are not sent to who is stopped.
        if let Some(why) = self.works.failed.borrow().as_deref() {
            entry["metadata"]["unhealthy"] = why.into();
        }
        entry
    }

    pub(super) fn status(&self) -> &'static str {
        if self.works.failed.borrow().is_some() { "stopped" } else { "running" }
    }

    fn ttl(&self) -> Duration {
        let of_interval = self.interval.map(|interval| (interval * 3).max(SHORTEST));
        self.ttl.or(of_interval).unwrap_or(Duration::from_secs(45))
    }

    /// As told; else beside the registry's own VM, where VMs are called `<id>.vm.<domain>`; else the id.
    fn address(&self, id: &PathSegment, registry: &BaseUrl) -> String {
        if let Some(address) = &self.address {
            return address.replace("{id}", &id.to_string());
        }
        let domain = registry.host().split_once('.').map(|(_, domain)| domain);
        let beside = domain.filter(|it| it.starts_with("vm.")).map(|domain| format!("{id}.{domain}"));
        beside.unwrap_or_else(|| id.to_string())
    }
}
