//! What an operator reads at a gateway's admin address.

use crate::{client::Client, namespace::Namespace};
use serde_json::Value;
use std::net::SocketAddr;

/// A gateway's admin address.
#[derive(Debug, Clone)]
pub struct Admin(Client);

impl Admin {
    /// The admin server at this address.
    pub fn new(address: SocketAddr) -> Self {
        Self(Client::new(address))
    }

    /// The same, asked from another network.
    #[must_use]
    pub fn inside(self, namespace: Namespace) -> Self {
        Self(self.0.inside(namespace))
    }

    /// A client for it.
    pub fn client(&self) -> &Client {
        &self.0
    }

    /// The value of a metric: the sum of its lines that contain all of `labels` (`route="app"`).
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.0.get("/metrics").await.text();
        text.lines()
            .filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                let (series, value) = rest.rsplit_once(' ')?;
                let complete = series.is_empty() || series.starts_with('{');
                (complete && labels.iter().all(|label| series.contains(label)))
                    .then(|| value.parse::<f64>().expect("a number"))
            })
            .sum()
    }

    /// What `/status` says.
    pub async fn status(&self) -> Value {
        let text = self.0.get("/status").await.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// What `/status` says of a plugin.
    ///
    /// # Panics
    /// Panics where it says nothing of it.
    pub async fn plugin(&self, name: &str) -> Value {
        let status = self.status().await;
        let plugins = status["plugins"].as_array().expect("a list of plugins");
        let found = plugins.iter().find(|plugin| plugin["name"] == name);
        found.unwrap_or_else(|| panic!("no plugin {name} in {status}")).clone()
    }

    /// What `/status` says of a server, whatever its backend.
    ///
    /// # Panics
    /// Panics where it says nothing of it.
    pub async fn server(&self, address: SocketAddr) -> Value {
        let status = self.status().await;
        let backends = status["backends"].as_array().expect("a list of backends");
        let mut servers = backends.iter().flat_map(|backend| backend["servers"].as_array().expect("a list"));
        let found = servers.find(|server| server["address"] == address.to_string());
        found.unwrap_or_else(|| panic!("no server {address} in {status}")).clone()
    }

    /// Where a listener listens now, on loopback; none where there is no such listener.
    pub async fn listener(&self, name: &str) -> Option<SocketAddr> {
        let status = self.status().await;
        let found = status["listeners"].as_array()?.iter().find(|listener| listener["name"] == name)?;
        let address: SocketAddr = found["address"].as_str()?.parse().expect("an address");
        Some(loopback(address))
    }
}

/// How a client on this machine reaches an address that a listener has.
pub(crate) fn loopback(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(_) if address.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, address.port()).into()
        }
        SocketAddr::V4(_) if address.ip().is_unspecified() => {
            (std::net::Ipv4Addr::LOCALHOST, address.port()).into()
        }
        address => address,
    }
}
