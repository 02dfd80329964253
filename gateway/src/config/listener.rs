//! `[[listener]]`: an address that clients connect to.

use std::net::SocketAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{
    text::{optional_list, spanned},
    values::{Duration, whole},
};

/// An address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// What routes, logs and metrics call it. By default its address.
    #[schemars(with = "Option<String>")]
    pub name: Option<Spanned<String>>,
    /// IP address and port. `"[::]:8080"` takes IPv6 and IPv4 on every address of the machine; port 0
    /// lets the system choose.
    #[serde(deserialize_with = "spanned")]
    #[schemars(with = "String")]
    pub address: Spanned<SocketAddr>,
    /// What it carries: HTTP requests, or whole connections, all by one TCP route.
    #[serde(default)]
    pub protocol: ListenerProtocol,
    /// Whether clients speak TLS. The certificate is chosen by the name that they ask for.
    #[serde(default)]
    pub tls: bool,
    /// PEM file of the authorities whose certificates clients may show. By default no certificate is
    /// asked for.
    #[schemars(with = "Option<String>")]
    pub client_ca: Option<Spanned<String>>,
    /// Whether clients must show such a certificate. By default they must where `client_ca` is set.
    #[schemars(with = "Option<ClientAuth>")]
    pub client_auth: Option<Spanned<ClientAuth>>,
    /// Networks whose proxies are believed about the client, instead of those in `[gateway]`.
    #[serde(default, deserialize_with = "optional_list")]
    #[schemars(with = "Option<Vec<String>>")]
    pub trusted_proxies: Option<Vec<Spanned<IpNet>>>,
    /// Connections open at a time, 1 to 1000000, instead of the number in `[limits]`.
    #[serde(default, deserialize_with = "whole::<_, u32, _, 1, 1000000>")]
    #[schemars(range(min = 1, max = 1000000))]
    pub connections: Option<u32>,
    /// Connections open at a time from one client, 1 to 1000000, instead of the number in `[limits]`.
    #[serde(default, deserialize_with = "whole::<_, u32, _, 1, 1000000>")]
    #[schemars(range(min = 1, max = 1000000))]
    pub connections_per_client: Option<u32>,
    /// How long to wait for a client.
    #[serde(default)]
    pub timeouts: ListenerTimeouts,
}

impl Listener {
    /// What logs and metrics call it: its name, or else its address.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => name.get_ref().clone(),
            None => self.address.get_ref().to_string(),
        }
    }
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Those that show one must show a good one.
    Optional,
    /// Those that show none are refused.
    Required,
}

/// What a listener carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListenerProtocol {
    /// What its routes carry. Where both could, those that name it decide.
    #[default]
    Auto,
    /// HTTP requests.
    Http,
    /// Whole connections, whatever they speak.
    Tcp,
}

/// How long a listener waits for a client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTimeouts {
    /// For the TLS handshake as a whole.
    pub handshake: Duration,
    /// For the whole head of a request. A slower client is told 408.
    pub head: Duration,
    /// For the next request on a connection that is kept open.
    pub idle: Duration,
}

impl Default for ListenerTimeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(75),
        }
    }
}
