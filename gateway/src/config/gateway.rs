//! `[gateway]`: the process as a whole.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::{
    text::list,
    values::{Duration, duration_or_zero, whole},
};

/// The process as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gateway {
    /// Threads that carry connections, 1 to 1024. By default one for each core.
    #[serde(deserialize_with = "whole::<_, u16, _, 1, 1024>")]
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<u16>,
    /// How long running requests and connections may go on after a stop was asked for. `"0s"` cuts
    /// them at once.
    #[serde(deserialize_with = "duration_or_zero")]
    pub shutdown_grace: Duration,
    /// Folder of what the gateway keeps from one start to the next: the authority of `self_signed`
    /// certificates, the entries of the registry. By default `STATE_DIRECTORY` of the environment, which systemd sets, or else
    /// `vers-gateway` in XDG_STATE_HOME, `~/.local/state`.
    pub state_dir: Option<String>,
    /// Identifier of the VM the gateway runs on, for plugins that want to know it. `file:PATH` is the first
    /// line of a file, and `{hostname}` stands for the machine's name. By default the environment variable
    /// VERS_VM_ID.
    pub vm_id: Option<String>,
    /// Networks whose proxies are believed when they say who the client is (x-forwarded-for,
    /// x-forwarded-proto). Everyone else's such headers are replaced.
    #[serde(deserialize_with = "list")]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<Spanned<IpNet>>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            workers: None,
            shutdown_grace: Duration::from_secs(30),
            state_dir: None,
            vm_id: None,
            trusted_proxies: Vec::new(),
        }
    }
}
