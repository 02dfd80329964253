//! Registers this VM and its services, renews the registration, and takes it back at the end.

use serde_json::{Map, Value, json};
use std::{cell::Cell, num::NonZeroU16, time::Duration};
use vers_plugin::prelude::*;

#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(deny_unknown_fields)]
struct RegistryRegister {
    /// Where the registry is, such as `https://infra.vm.example.com:3000`.
    registry: BaseUrl,
    name: String,
    #[serde(default = "worker")]
    role: String,
    /// This VM's id; the gateway's own, where the environment tells.
    id: Option<PathSegment>,
    /// Where others reach it.
    address: Option<String>,
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default)]
    metadata: Map<String, Value>,
    /// Between renewals.
    #[serde(default = "duration::seconds::<15>", with = "duration")]
    interval: Duration,
    /// Name of the secret to show to the registry.
    secret: Option<String>,
    // What follows lasts from call to call: a background plugin has one instance.
    #[serde(skip)]
    is_registered: Cell<bool>,
    #[serde(skip)]
    back_off: BackOff,
}

#[derive(Debug, Deserialize, Serialize, ConfigSchema)]
#[serde(deny_unknown_fields, rename_all(serialize = "camelCase"))]
struct Service {
    name: String,
    port: NonZeroU16,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_path: Option<String>,
}

impl Background for RegistryRegister {
    fn run(&self, _why: Reason) -> Result<Next, String> {
        let id = self.id()?;
        let outcome = if self.is_registered.get() { self.renew(&id) } else { self.register(&id) };
        if let Err(error) = outcome {
            log::warn(format!("{}: {error}", self.registry));
            return Ok(Next::after(self.back_off.failed()));
        }
        self.back_off.succeeded();
        Ok(Next::about(self.interval))
    }

    fn stop(&self) {
        let (true, Ok(id)) = (self.is_registered.get(), self.id()) else { return };
        match self.request("DELETE", &format!("/{id}")).send().and_then(http::Response::error_for_status) {
            Ok(_) => log::info(format!("{id} deregistered")),
            Err(error) => log::warn(format!("{id} not deregistered: {error}")),
        }
    }

    fn validate(&self, problems: &mut Problems) {
        for (i, service) in self.services.iter().enumerate() {
            if service.health_path.as_deref().is_some_and(|path| !path.starts_with('/')) {
                problems.add(format!("services.{i}.health_path"), "expected a path that starts with \"/\"");
            }
        }
    }
}
vers_plugin::export!(RegistryRegister: background);

impl RegistryRegister {
    /// A restarted VM may be known still. Its entry is brought up to date, and the renewal makes it
    /// seen again, which a change alone does not in every registry.
    fn register(&self, id: &PathSegment) -> Result<(), http::Error> {
        let entry = self.entry(id);
        let mut answer = self.request("POST", "").json(&entry).send()?;
        if answer.status() == 409 {
            self.request("PATCH", &format!("/{id}")).json(&entry).send()?.error_for_status()?;
            answer = self.request("POST", &format!("/{id}/heartbeat")).send()?;
        }
        answer.error_for_status()?;
        log::info(format!("{id} registered at {} as {}", self.registry, self.role));
        self.is_registered.set(true);
        Ok(())
    }

    /// A registry that lost its data, or was replaced, knows nobody: the fleet comes back by itself.
    fn renew(&self, id: &PathSegment) -> Result<(), http::Error> {
        let answer = self.request("POST", &format!("/{id}/heartbeat")).send()?;
        if answer.status() == 404 { self.register(id) } else { answer.error_for_status().map(drop) }
    }

    fn request(&self, method: &str, path: &str) -> http::Request {
        let request = http::request(method, &format!("{}/registry/vms{path}", self.registry));
        // A fleet without a token has none on either side.
        let token = self.secret.as_deref().and_then(secrets::get);
        if let Some(token) = token { request.bearer(&token) } else { request }
    }

    fn id(&self) -> Result<PathSegment, &'static str> {
        let id = self.id.clone().or_else(|| identity::vm_id()?.parse().ok());
        id.ok_or("this VM has no usable id: set `id` here, or VERS_VM_ID in the gateway's environment")
    }

    fn entry(&self, id: &PathSegment) -> Value {
        json!({
            "id": id, "name": self.name, "role": self.role, "address": self.address(id), "status": "running",
            "registeredBy": "vers-gateway", "services": self.services, "metadata": self.metadata,
        })
    }

    /// As told; else beside the registry's own VM, where VMs are called `<id>.vm.<domain>`; else the id.
    fn address(&self, id: &PathSegment) -> String {
        let domain = self.registry.host().split_once('.').map(|(_, domain)| domain);
        let beside = domain.filter(|it| it.starts_with("vm.")).map(|domain| format!("{id}.{domain}"));
        self.address.clone().or(beside).unwrap_or_else(|| id.to_string())
    }
}

fn worker() -> String {
    "worker".into()
}

#[cfg(test)]
mod tests;
