//! A whole gateway in-process.

use crate::{
    admin::{Admin, loopback},
    client::Client,
    components::{guest, plugin_table},
    files::replace,
    wait::within,
};
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

    /// Starts with one listener, `[::]`, and one route, `app`, to this address.
    ///
    /// # Panics
    /// Panics with the error where it does not start.
    pub fn to(backend: SocketAddr) -> Self {
        Self::with(backend, "")
    }

    /// As [`Self::to`], with further keys of the route, such as `timeouts = { idle = "1s" }`.
    ///
    /// # Panics
    /// Panics with the error where it does not start.
    pub fn with(backend: SocketAddr, route: &str) -> Self {
        Self::start(&one_route(backend, route))
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

    /// As [`Self::start`], with these files beside the configuration: what they hold, by name.
    ///
    /// # Panics
    /// Panics where it does not start.
    pub fn with_files(toml: &str, files: &[(&str, &str)]) -> Self {
        Self::prepared(toml, false, files)
            .unwrap_or_else(|error| panic!("the gateway does not start: {error}"))
    }

    fn launch(toml: &str, watch: bool) -> Result<Self, server::StartError> {
        Self::prepared(toml, watch, &[])
    }

    /// As [`Self::try_start`], with files as [`Self::with_files`] has them, and perhaps following changes.
    ///
    /// # Errors
    /// Fails as the gateway does.
    pub fn prepared(toml: &str, watch: bool, files: &[(&str, &str)]) -> Result<Self, server::StartError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).expect("a file is written");
        }
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
        self.operator().client().clone()
    }

    /// What an operator reads there.
    pub fn operator(&self) -> Admin {
        match self.running.admin() {
            Some(AdminAddress::Socket(address)) => Admin::new(*address),
            other => panic!("no admin address: {other:?}"),
        }
    }

    /// Replaces the configuration's text; [`Self::reload`] or the watcher makes it take effect.
    pub fn write(&self, toml: &str) {
        replace(&self.folder.path().join("gateway.toml"), complete(toml));
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
        self.operator().metric(name, labels).await
    }

    /// What `/status` says.
    pub async fn status(&self) -> serde_json::Value {
        self.operator().status().await
    }

    /// Stops it, and waits for what runs until the time of grace is over.
    pub async fn stop(self, grace: Duration) {
        within("a stop", self.running.stop(Some(grace))).await;
    }

    /// As [`Self::stop`], with the grace that its configuration says.
    pub async fn stop_as_configured(self) {
        within("a stop", self.running.stop(None)).await;
    }
}

/// A configuration with one listener, `[::]`, and one route, `app`, to this address. What is added
/// begins with further keys of the route, and tables may follow.
pub fn one_route(backend: SocketAddr, more: &str) -> String {
    format!("[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"app\"\nto = \"{backend}\"\n{more}\n")
}

/// [`one_route`] through a guest, with further keys of the plugin; and beside it `/plain`, without plugins, and
/// `/lenient`, where a fault of the guest does not matter.
pub fn guest_routes(backend: SocketAddr, name: &str, more: &str) -> String {
    let table = plugin_table("guest", &guest(name), more);
    one_route(
        backend,
        &format!(
            "plugins = [\"guest\"]\n[[route]]\nname = \"plain\"\npath = \"/plain\"\nto = \"{backend}\"\n\
             [[route]]\nname = \"lenient\"\npath = \"/lenient\"\nto = \"{backend}\"\n\
             plugins = [{{ use = \"guest\", on_error = \"skip\" }}]\n{table}"
        ),
    )
}

/// A configuration with one listener, `[::]`, and one route, `app`, to a backend of these servers. What
/// is added begins with further keys of the backend, and tables may follow.
pub fn one_backend(servers: &[SocketAddr], more: &str) -> String {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"app\"\nto = \"app\"\n\
         [backend.app]\nservers = {servers:?}\n{more}\n"
    )
}

pub(crate) fn complete(toml: &str) -> String {
    let mut text = toml.to_owned();
    // A table's keys end where the next table begins, so these go to the end.
    if !toml.contains("[gateway]") {
        text.push_str("\n[gateway]\nworkers = 1\nstate_dir = \"state\"\n");
    }
    if !toml.contains("[admin]") {
        text.push_str("\n[admin]\naddress = \"127.0.0.1:0\"\n");
    }
    text
}
