//! A whole gateway in-process.

use crate::{client::Client, wait::within};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use vers_gateway::{
    config::AdminAddress,
    server::{self, Options, Refused, Reloaded, Running},
};

/// A running gateway with a configuration file of its own. It stops when it is dropped.
#[derive(Debug)]
pub struct TestGateway {
    running: Running,
    folder: tempfile::TempDir,
}

impl TestGateway {
    /// Starts with this configuration; `\[admin]` is added, and one worker unless the text says
    /// otherwise. Addresses in it are on port 0.
    ///
    /// # Panics
    /// Panics with the error where it does not start.
    pub fn start(toml: &str) -> Self {
        Self::try_start(toml).unwrap_or_else(|error| panic!("the gateway does not start: {error}"))
    }

    /// As [`Self::start`], without following changes of files.
    ///
    /// # Errors
    /// Fails as the gateway does.
    pub fn try_start(toml: &str) -> Result<Self, server::StartError> {
        Self::launch(toml, false)
    }

    /// As [`Self::start`], following changes of its files.
    ///
    /// # Panics
    /// Panics where it does not start.
    pub fn watching(toml: &str) -> Self {
        Self::launch(toml, true).unwrap_or_else(|error| panic!("the gateway does not start: {error}"))
    }

    fn launch(toml: &str, watch: bool) -> Result<Self, server::StartError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, complete(toml)).expect("the configuration is written");
        let running = server::start(Options { watch, ..Options::file(path) })?;
        Ok(Self { running, folder })
    }

    /// The folder of its configuration.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The gateway itself.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Address of its only or first listener, on loopback.
    pub fn addr(&self) -> SocketAddr {
        let (_, address) = self.running.listeners().first().expect("a listener");
        loopback(*address)
    }

    /// Address of a listener by name, on loopback.
    pub fn addr_of(&self, name: &str) -> SocketAddr {
        let listeners = self.running.listeners();
        let found = listeners.iter().find(|(known, _)| known == name);
        loopback(found.unwrap_or_else(|| panic!("no listener {name} in {listeners:?}")).1)
    }

    /// The same port on IPv4.
    pub fn addr_v4(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.addr().port()))
    }

    /// A client for its first listener.
    pub fn client(&self) -> Client {
        Client::new(self.addr())
    }

    /// A client for its admin address.
    pub fn admin(&self) -> Client {
        match self.running.admin() {
            Some(AdminAddress::Socket(address)) => Client::new(*address),
            other => panic!("no admin address: {other:?}"),
        }
    }

    /// Replaces the configuration's text; [`Self::reload`] or the watcher makes it take effect.
    pub fn write(&self, toml: &str) {
        std::fs::write(self.folder.path().join("gateway.toml"), complete(toml))
            .expect("the configuration is written");
    }

    /// Reads the configuration again.
    ///
    /// # Errors
    /// Fails with what is wrong with it.
    pub async fn reload(&self) -> Result<Reloaded, Refused> {
        within("a reload", self.running.reload()).await
    }

    /// The value of a metric: the sum of its lines that contain all of `labels` (`route="app"`).
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin().get("/metrics").await.text();
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
    pub async fn status(&self) -> serde_json::Value {
        let text = self.admin().get("/status").await.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Stops it, and waits for what runs.
    pub async fn stop(self, grace: Duration) {
        within("a stop", self.running.stop(Some(grace))).await;
    }
}

fn complete(toml: &str) -> String {
    let mut text = toml.to_owned();
    // A table's keys end where the next table begins, so these go to the end.
    if !toml.contains("[gateway]") {
        text.push_str("\n[gateway]\nworkers = 1\n");
    }
    if !toml.contains("[admin]") {
        text.push_str("\n[admin]\naddress = \"127.0.0.1:0\"\n");
    }
    text
}

fn loopback(address: SocketAddr) -> SocketAddr {
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
