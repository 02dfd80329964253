//! `[[listener]]`: an address that clients connect to.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{
    text::{list, optional_list, spanned},
    values::{Duration, whole},
};
use crate::ports::{ListenAddress, PortSet};

/// An address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// What routes, logs and metrics call it. By default its address.
    #[schemars(with = "Option<String>")]
    pub name: Option<Spanned<String>>,
    /// IP address and port, or several ports: `"[::]:443,3000,8080-8090"`. `"[::]:8080"` takes IPv6 and
    /// IPv4 on every address of the machine; port 0 lets the system choose.
    #[serde(deserialize_with = "spanned")]
    #[schemars(with = "String")]
    pub address: Spanned<ListenAddress>,
    /// Connections come by a redirect rule of the kernel (`REDIRECT` or `TPROXY`), and the port that
    /// each one asked for is the one before that rule.
    #[serde(default)]
    pub original_destination: bool,
    /// Which of the ports that clients ask for are served. By default all.
    #[serde(default)]
    pub ports: PortRules,
    /// Whether connections begin with a header of the PROXY protocol, which says who the client is.
    /// Only networks in `trusted_proxies` may send one.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// What it carries: HTTP requests, or whole connections.
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

impl Listener {
    /// Whether a connection may have asked for a port that the listener's address does not name.
    pub fn has_other_ports(&self) -> bool {
        self.original_destination || self.proxy_protocol != ProxyProtocol::Off
    }

    /// Whether clients that show no certificate are refused.
    pub fn requires_certificates(&self) -> bool {
        let is_optional =
            self.client_auth.as_ref().is_some_and(|auth| *auth.get_ref() == ClientAuth::Optional);
        self.client_ca.is_some() && !is_optional
    }

    /// Whether connections that asked for this port may come here.
    pub fn may_have_port(&self, port: u16) -> bool {
        let ports = self.address.get_ref().ports();
        // The system will choose port 0.
        self.has_other_ports() || ports.contains(0) || ports.contains(port)
    }
}

/// Which ports of a listener are served. A connection that asked for another is answered 403 where it
/// speaks HTTP, and closed otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PortRules {
    /// Only these: numbers, or ranges as `"8000-8999"`. By default all.
    #[serde(deserialize_with = "optional_list")]
    #[schemars(with = "Option<Vec<PortItem>>")]
    pub allow: Option<Vec<Spanned<PortSet>>>,
    /// None of these, even where `allow` has them.
    #[serde(deserialize_with = "list")]
    #[schemars(with = "Vec<PortItem>")]
    pub deny: Vec<Spanned<PortSet>>,
}

/// A port, or ports as a string.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum PortItem {
    /// One port.
    Port(u16),
    /// Ports: `"8000-8999"`.
    Ports(String),
}

/// Whether connections of a listener begin with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// None does.
    #[default]
    Off,
    /// Those of trusted proxies may.
    Accept,
    /// All do; one without, or from elsewhere, is closed.
    Require,
}

/// What a listener carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListenerProtocol {
    /// What its routes carry. Where an HTTP and a TCP route meet that nothing tells apart, those that
    /// name it decide.
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
    /// For the header of the PROXY protocol. A connection without one by then is closed.
    pub proxy_protocol: Duration,
}

impl Default for ListenerTimeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            proxy_protocol: Duration::from_secs(5),
        }
    }
}
