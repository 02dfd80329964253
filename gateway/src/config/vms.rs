//! `[vms]`: where the VMs of the fleet are.

use std::{collections::BTreeMap, net::SocketAddr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{
    backend::ProxyHeader,
    text::{list, optional_list},
    values::{Duration, whole},
};

/// Where the VMs of the fleet are, for routes with `to = "vm:{vm}:{port}"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Vms {
    /// The header of the table.
    #[serde(skip, default = "super::unnamed")]
    pub name: Spanned<String>,
    /// How a VM is found. By default by what else is said: `dns`, or else `table` and `file`.
    #[schemars(with = "Option<Resolve>")]
    pub resolve: Option<Spanned<Resolve>>,
    /// VMs with their addresses.
    #[schemars(with = "BTreeMap<String, String>")]
    pub table: BTreeMap<String, Spanned<String>>,
    /// A file with more of them, a line for each: `name,address`, or `"name" = "address"`. A relative
    /// path starts at the folder of the configuration file.
    #[schemars(with = "Option<String>")]
    pub file: Option<Spanned<String>>,
    /// Names of VMs in DNS, with `{vm}` where the VM's name goes: `"{vm}.internal"`. Each has an AAAA
    /// record.
    #[schemars(with = "Option<String>")]
    pub dns: Option<Spanned<String>>,
    /// Name servers that are asked, `"[2001:db8::53]:53"`. By default the machine's.
    #[serde(deserialize_with = "list")]
    #[schemars(with = "Vec<String>")]
    pub nameservers: Vec<Spanned<SocketAddr>>,
    /// How long an answer counts at most; DNS may say less.
    pub ttl: Duration,
    /// How long it counts that there is no such VM.
    pub negative_ttl: Duration,
    /// How much is asked and kept.
    pub limits: VmLimits,
    /// How long to wait.
    pub timeouts: VmTimeouts,
    /// Connections kept open for later requests.
    pub keepalive: VmKeepalive,
    /// Whether a VM may be reached over IPv4.
    pub allow_ipv4: bool,
    /// Networks that VMs are in. By default any, but for those that lead to this machine and its link, which
    /// only `table` and `file` may name.
    #[serde(deserialize_with = "optional_list")]
    #[schemars(with = "Option<Vec<String>>")]
    pub networks: Option<Vec<Spanned<IpNet>>>,
    /// Header of the PROXY protocol that each connection to a VM begins with.
    pub proxy_protocol: ProxyHeader,
}

/// How a VM is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Resolve {
    /// In `table` and `file`.
    Static,
    /// By `dns`.
    Dns,
    /// In the registry.
    Registry,
}

/// How much of VMs is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VmLimits {
    /// VMs that each worker remembers the address of, 2 to 10000000, where they are not in a table.
    #[serde(deserialize_with = "whole::<_, u32, _, 2, 10000000>")]
    #[schemars(range(min = 2, max = 10000000))]
    pub remembered: u32,
}

/// How long to wait for where a VM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VmTimeouts {
    /// For an answer to where a VM is.
    pub lookup: Duration,
}

/// Connections to VMs kept open for later requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VmKeepalive {
    /// Idle connections kept by each worker, to all VMs together, 0 to 100000. The one that was not used
    /// for longest goes first.
    #[serde(deserialize_with = "whole::<_, u32, _, 0, 100000>")]
    #[schemars(range(min = 0, max = 100000))]
    pub connections: u32,
    /// How long an idle connection is kept.
    pub idle: Duration,
}

impl Default for Vms {
    fn default() -> Self {
        Self {
            name: super::unnamed(),
            resolve: None,
            table: BTreeMap::new(),
            file: None,
            dns: None,
            nameservers: Vec::new(),
            ttl: Duration::from_secs(30),
            negative_ttl: Duration::from_secs(2),
            limits: VmLimits::default(),
            timeouts: VmTimeouts::default(),
            keepalive: VmKeepalive::default(),
            allow_ipv4: false,
            networks: None,
            proxy_protocol: ProxyHeader::Off,
        }
    }
}

impl Default for VmLimits {
    fn default() -> Self {
        Self { remembered: 100_000 }
    }
}

impl Default for VmTimeouts {
    fn default() -> Self {
        Self { lookup: Duration::from_secs(2) }
    }
}

impl Default for VmKeepalive {
    fn default() -> Self {
        Self { connections: 1024, idle: Duration::from_secs(60) }
    }
}

impl Vms {
    /// How a VM is found.
    pub fn resolution(&self) -> Resolve {
        match (&self.resolve, &self.dns) {
            (Some(resolve), _) => *resolve.get_ref(),
            (None, Some(_)) => Resolve::Dns,
            (None, None) => Resolve::Static,
        }
    }
}
