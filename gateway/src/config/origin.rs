//! `[origin.NAME]`: a WebAssembly component that answers requests itself, and what it may do.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::values::{ByteSize, Duration, size, whole};

/// A WebAssembly component that answers requests itself (`wasi:http/incoming-handler`), and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The NAME in `[origin.NAME]`.
    #[serde(skip, default = "super::unnamed")]
    pub name: Spanned<String>,
    /// Path of the component. A relative path starts at the folder of the configuration file. Or
    /// `"oci://HOST/NAME@sha256:…"`: what `plugin fetch` has fetched of it into `[gateway] state_dir`.
    #[schemars(with = "String")]
    pub component: Spanned<String>,
    /// SHA-256 of the component in 64 hexadecimal digits; another content is refused. By default any
    /// content is taken.
    #[schemars(with = "Option<String>")]
    pub sha256: Option<Spanned<String>>,
    /// Environment variables that it sees. By default none.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub env: BTreeMap<String, Spanned<String>>,
    /// Environment variables whose values are those of secrets: the name of one for each. A secret that is not
    /// set is no variable. By default none.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub secret_env: BTreeMap<String, Spanned<String>>,
    /// What it may reach besides the requests that it answers.
    #[serde(default)]
    pub grants: OriginGrants,
    /// What it may use up.
    #[serde(default)]
    pub limits: OriginLimits,
}

/// What an origin may reach besides the requests that it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OriginGrants {
    /// Origins it may send HTTP requests to, such as `"https://infra.example.com:3000"`. By default
    /// none.
    #[schemars(with = "Vec<String>")]
    pub http: Vec<Spanned<String>>,
}

/// What an origin may use up. Each request has an instance of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OriginLimits {
    /// Memory of one instance, 1MiB to 4GiB.
    #[serde(deserialize_with = "size::<_, 1048576, 4294967296>")]
    pub memory: ByteSize,
    /// Time of one request spent computing; waiting does not count.
    pub cpu: Duration,
    /// Time of one request from start to end, whatever moves. By default as long as the timeouts of its route
    /// let it.
    pub wall: Option<Duration>,
    /// Requests at a time in each worker, 1 to 10000. One more waits in the queue, or is answered 503
    /// (`upstream-queue-full`).
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 10000>")]
    #[schemars(range(min = 1, max = 10000))]
    pub instances: u32,
    /// Requests at a time, in all workers together, 1 to 10000. By default as many as there are instances.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 10000>")]
    #[schemars(with = "Option<u32>", range(min = 1, max = 10000))]
    pub concurrency: Option<u32>,
    /// Requests that wait for their turn in each worker, 0 to 100000.
    #[serde(deserialize_with = "whole::<_, u32, _, 0, 100000>")]
    #[schemars(range(min = 0, max = 100000))]
    pub queue: u32,
    /// How long a request waits for its turn (`upstream-queue-timeout`).
    pub queue_timeout: Duration,
}

impl Default for OriginLimits {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(128),
            cpu: Duration::from_secs(1),
            wall: None,
            instances: 64,
            concurrency: None,
            queue: 64,
            queue_timeout: Duration::from_secs(1),
        }
    }
}
