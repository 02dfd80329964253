//! `[plugin.NAME]`: a WebAssembly component and what it may do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{
    plugin_config::PluginConfig,
    values::{ByteSize, Duration, size, whole},
};

/// A WebAssembly component and what it may do.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// The NAME in `[plugin.NAME]`.
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
    /// The plugin's own settings; the plugin decides what stands here. By default empty.
    pub config: Option<PluginConfig>,
    /// What the plugin may reach besides the requests it is given.
    #[serde(default)]
    pub grants: Grants,
    /// What the plugin may use up.
    #[serde(default)]
    pub limits: PluginLimits,
    /// When the plugin is left alone for a while on a route.
    #[serde(default)]
    pub breaker: Breaker,
    /// What becomes of a request when the plugin fails on it.
    #[serde(default)]
    pub on_error: OnError,
}

/// What a plugin may reach besides the requests it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Origins it may send HTTP requests to, such as `"https://infra.example.com:3000"`. By default
    /// none.
    #[schemars(with = "Vec<String>")]
    pub http: Vec<Spanned<String>>,
    /// Names of the secrets it may read. By default none.
    #[schemars(with = "Vec<String>")]
    pub secrets: Vec<Spanned<String>>,
    /// Backends, by name or as `"host:port"`, that it may send requests to instead of their route's
    /// own. By default none.
    #[schemars(with = "Vec<String>")]
    pub backends: Vec<Spanned<String>>,
    /// How much it may keep in memory from request to request, up to 1GiB. By default nothing.
    #[serde(deserialize_with = "size::<_, 0, 1073741824>")]
    pub kv: ByteSize,
}

/// What a plugin may use up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PluginLimits {
    /// Memory of one instance, 1MiB to 4GiB.
    #[serde(deserialize_with = "size::<_, 1048576, 4294967296>")]
    pub memory: ByteSize,
    /// Time of one call spent computing; waiting does not count.
    pub cpu: Duration,
    /// Time of one call from start to end.
    pub wall: Duration,
    /// Live instances in each worker, 1 to 10000. A call that finds all of them in use waits in the
    /// queue, or fails (`plugin-busy`).
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 10000>")]
    #[schemars(range(min = 1, max = 10000))]
    pub instances: u32,
    /// Calls at a time, in all workers together, 1 to 10000. One more waits in the queue, or fails
    /// (`plugin-busy`). By default as many as there are instances.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 10000>")]
    #[schemars(with = "Option<u32>", range(min = 1, max = 10000))]
    pub concurrency: Option<u32>,
    /// Calls that wait for their turn in each worker, 0 to 100000.
    #[serde(deserialize_with = "whole::<_, u32, _, 0, 100000>")]
    #[schemars(range(min = 0, max = 100000))]
    pub queue: u32,
    /// How long a call waits for its turn. `wall` begins after that.
    pub queue_timeout: Duration,
    /// Size of a request's body that it may ask for, up to 1GiB: so much is held in memory for each such
    /// request. A larger one is answered 413.
    #[serde(deserialize_with = "size::<_, 0, 1073741824>")]
    pub body: ByteSize,
    /// Bodies that it transforms at a time in each worker (`request-body-transform`, `response-body-transform`), 0 to 10000:
    /// each keeps an instance until it is over, so they must be fewer than `instances`. One more fails (`plugin-busy`).
    /// By default half of the instances, and no more than 32.
    #[serde(deserialize_with = "whole::<_, u32, _, 0, 10000>")]
    #[schemars(with = "Option<u32>", range(min = 0, max = 10000))]
    pub transforms: Option<u32>,
    /// First bytes of a connection that it may ask for (`tcp-bytes-filter`), up to 64KiB: so much is held in
    /// memory for each such connection.
    #[serde(deserialize_with = "size::<_, 1, 65536>")]
    pub peek: ByteSize,
    /// Exchanges that wait in each worker until they are logged (`exchange-log`), 0 to 1000000. Those
    /// over it are not. Connections of `tcp-log` wait there, too.
    #[serde(deserialize_with = "whole::<_, u32, _, 0, 1000000>")]
    #[schemars(range(min = 0, max = 1000000))]
    pub log_queue: u32,
    /// Series of the plugin's own metrics, 0 to 10000: values of labels beyond them are not counted.
    #[serde(deserialize_with = "whole::<_, u32, _, 0, 10000>")]
    #[schemars(range(min = 0, max = 10000))]
    pub series: u32,
    /// Calls after which an instance is replaced, 1 to 1000000000.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 1000000000>")]
    #[schemars(range(min = 1, max = 1000000000))]
    pub recycle_calls: u32,
    /// How much an instance's memory may grow, since it was configured, until it is replaced, 64KiB to
    /// 4GiB.
    #[serde(deserialize_with = "size::<_, 65536, 4294967296>")]
    pub recycle_memory: ByteSize,
}

impl PluginLimits {
    /// Bodies that it transforms at a time: others find an instance meanwhile.
    pub fn transforms(&self) -> u32 {
        self.transforms.unwrap_or((self.instances / 2).clamp(1, 32))
    }
}

/// When a plugin is left alone for a while on a route.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// Calls of one hook on one route, in one worker, that fail in a row until it opens, 0 to 100000.
    /// 0 never opens it.
    #[serde(deserialize_with = "whole::<_, u32, _, 0, 100000>")]
    #[schemars(range(min = 0, max = 100000))]
    pub faults: u32,
    /// How long it stays open until one call may try.
    pub open: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { faults: 20, open: Duration::from_secs(1) }
    }
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(64),
            cpu: Duration::from_millis(50),
            wall: Duration::from_secs(5),
            instances: 64,
            concurrency: None,
            queue: 0,
            queue_timeout: Duration::from_secs(1),
            body: ByteSize::mib(1),
            transforms: None,
            peek: ByteSize::kib(16),
            log_queue: 1024,
            series: 100,
            recycle_calls: 100_000,
            recycle_memory: ByteSize::mib(16),
        }
    }
}

/// What becomes of a request when a plugin fails on it: traps, or exceeds a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The gateway answers it with an error.
    #[default]
    Deny,
    /// It goes on as if the plugin were not there.
    Skip,
}
