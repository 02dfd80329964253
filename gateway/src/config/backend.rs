//! `[backend.NAME]`: servers that do the same work.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use toml::Spanned;

use super::{
    fault,
    values::{Duration, whole},
};

/// Servers that do the same work; a request goes to one of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The NAME in `[backend.NAME]`.
    #[serde(skip, default = "super::unnamed")]
    pub name: Spanned<String>,
    /// Addresses with port: `"127.0.0.1:3000"`, `"[::1]:3000"` or `"localhost:3000"`. At least one.
    #[serde(deserialize_with = "at_least_one")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub servers: Vec<Spanned<String>>,
    /// How the server of a request is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// Connections kept open for later requests.
    #[serde(default)]
    pub keepalive: Keepalive,
}

/// How the server of a request is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// By chance.
    Random,
}

/// Connections to a server kept open for later requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Keepalive {
    /// Idle connections kept by each worker for each server, 0 to 100000. 0 opens a connection for
    /// every request.
    #[serde(deserialize_with = "whole::<_, u32, _, 0, 100000>")]
    #[schemars(range(min = 0, max = 100000))]
    pub connections: u32,
    /// How long an idle connection is kept.
    pub idle: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { connections: 256, idle: Duration::from_secs(60) }
    }
}

fn at_least_one<'de, D>(deserializer: D) -> Result<Vec<Spanned<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    let servers = Vec::deserialize(deserializer)?;
    if servers.is_empty() {
        let label = "expected at least one address such as \"127.0.0.1:3000\"";
        return Err(D::Error::custom(fault::custom("no servers", label, None)));
    }
    Ok(servers)
}
