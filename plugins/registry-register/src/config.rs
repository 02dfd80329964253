//! What the operator writes, and the entry that comes of it.

use serde::{Deserialize, Serialize};
use std::{cell::Cell, collections::BTreeMap, num::NonZeroU16, time::Duration};
use vers_plugin::{Problems, identity};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistryRegister {
    /// Origin of the registry, such as `https://infra.vm.example.com:3000`.
    #[serde(deserialize_with = "base_url")]
    pub(crate) registry: String,
    name: String,
    #[serde(default = "worker")]
    pub(crate) role: String,
    /// This VM's id; the gateway's own, where the environment tells.
    id: Option<String>,
    /// Where others reach it.
    address: Option<String>,
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default)]
    metadata: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    pub(crate) interval: Interval,
    /// Name of the secret to show to the registry.
    pub(crate) secret: Option<String>,
    #[serde(skip)]
    pub(crate) state: State,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all(serialize = "camelCase"))]
struct Service {
    name: String,
    port: NonZeroU16,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_path: Option<String>,
}

/// What lasts from call to call: a background plugin has one instance.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) is_registered: Cell<bool>,
    /// In a row.
    pub(crate) failures: Cell<u32>,
}

/// Between renewals.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Interval(pub(crate) Duration);

/// The body of a registration.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry<'a> {
    id: &'a str,
    name: &'a str,
    role: &'a str,
    address: String,
    registered_by: &'a str,
    status: &'a str,
    services: &'a [Service],
    metadata: &'a BTreeMap<String, serde_json::Value>,
}

impl RegistryRegister {
    pub(crate) fn id(&self) -> Result<String, String> {
        let id = self.id.clone().or_else(identity::vm_id).filter(|id| is_id(id));
        id.ok_or_else(|| {
            "this VM has no usable id: set `id` here, or VERS_VM_ID in the gateway's environment".into()
        })
    }

    pub(crate) fn entry<'a>(&'a self, id: &'a str) -> Entry<'a> {
        Entry {
            id,
            name: &self.name,
            role: &self.role,
            address: self.address.clone().unwrap_or_else(|| neighbour(&self.registry, id)),
            registered_by: "vers-gateway",
            status: "running",
            services: &self.services,
            metadata: &self.metadata,
        }
    }
}

pub(crate) fn validate(config: &RegistryRegister, problems: &mut Problems) {
    if config.id.as_deref().is_some_and(|id| !is_id(id)) {
        problems.add("id", "expected letters, digits, \"-\", \".\" and \"_\"");
    }
    for (i, service) in config.services.iter().enumerate() {
        if service.health_path.as_deref().is_some_and(|path| !path.starts_with('/')) {
            problems.add(format!("services.{i}.health_path"), "expected a path that starts with \"/\"");
        }
    }
}

/// The address of VM `id` in the domain of the registry's own VM: VMs are called
/// `<id>.vm.<domain>`. Elsewhere, the id.
fn neighbour(registry: &str, id: &str) -> String {
    let host = registry.split_once("://").map_or("", |(_, rest)| rest);
    let host = host.split(['/', ':']).next().unwrap_or_default();
    match host.split_once('.') {
        Some((_, domain)) if domain.starts_with("vm.") => format!("{id}.{domain}"),
        _ => id.into(),
    }
}

/// It stands in paths.
fn is_id(id: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    !id.is_empty() && id.bytes().all(is_allowed) && id.bytes().any(|b| b != b'.')
}

fn worker() -> String {
    "worker".into()
}

fn base_url<'de, D: serde::Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    let url = String::deserialize(value)?;
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/') || host.contains(['?', '#', ' '])) {
        return Err(serde::de::Error::custom("expected a URL such as \"https://infra.vm.example.com:3000\""));
    }
    Ok(url.trim_end_matches('/').into())
}

impl Default for Interval {
    fn default() -> Self {
        Self(Duration::from_secs(15))
    }
}

impl TryFrom<String> for Interval {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = text.strip_suffix(unit).and_then(|digits| digits.parse::<u32>().ok());
        let unit = match unit {
            "ms" => Some(1),
            "s" => Some(1_000),
            "m" => Some(60_000),
            _ => None,
        };
        match (number, unit) {
            (Some(number @ 1..), Some(millis)) => Ok(Self(Duration::from_millis(u64::from(number) * millis))),
            _ => Err("expected a duration such as \"15s\" or \"2m\""),
        }
    }
}
