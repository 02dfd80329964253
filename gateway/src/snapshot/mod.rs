//! What the machine runs on: a configuration with nothing left to look up, find wrong or decide.
//!
//! A [`Snapshot`] is built once per configuration and shared by all workers, unchanged; each worker
//! adds what is its own in a [`Local`]. A request sees exactly one of them from its first byte to
//! its last. Nothing here listens.

mod build;
mod certificates;
mod compiled;
mod components;
mod files;
mod health;
mod identity;
mod local;
mod modes;
mod ordered;
mod origins;
mod plugins;
mod private;
mod registry;
mod securities;
mod services;
mod state_dir;
mod sticky;
mod terminators;
mod tls;
mod vms;

pub use build::{Inputs, Problems, build};
pub use certificates::{Certificate, Source};
pub use components::{ComponentStore, Layer, ManifestError, StoreError};
pub use files::Files;
pub use health::{HealthCheck, Question};
pub use local::{
    Detour, Goal, Local, LocalComponent, LocalRoute, LocalTarget, LocalTerms, Parts, RouteMetrics, directory,
};
pub use modes::{Kinds, Mode, Modes};
pub use ordered::{Demand, Ordered};
pub use plugins::plugin_limits;
pub use private::{try_private, write_private};
pub use registry::{Discovered, EtcdPlan, RegistryPlan, RemotePlan};
pub use services::Outbound;
pub use state_dir::{default_state_dir, state_dir};
pub use sticky::Sticky;
pub use terminators::SessionKeys;
pub use tls::Tls;
pub use vms::FleetPlan;

use crate::{
    config::{AdminAddress, Diagnostic, Log, ProxyProtocol, RouteProtocol},
    http1::HeadLimits,
    message::Fields,
    plugins::{Handler, OnError, Plugin, Secret},
    ports::{ListenAddress, PortSet},
    registry::Directory,
    tls::Terminator,
    upstream::{Backend, Settings},
    vms::VmId,
};
use bytes::Bytes;
use http::StatusCode;
use ipnet::IpNet;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// What the machine runs on.
#[derive(Debug)]
pub struct Snapshot {
    /// Where clients connect to.
    pub listeners: Vec<Arc<Listener>>,
    /// Where requests and connections go.
    pub routes: Vec<Arc<Route>>,
    /// Servers behind the routes.
    pub backends: Vec<Arc<Backend>>,
    /// Where VMs are, and how they are reached, where routes go to VMs.
    pub fleet: Option<FleetPlan>,
    /// The registry, where routes go to it, or VMs or servers are looked up in it.
    pub registry: Option<Arc<RegistryPlan>>,
    /// The registry that is asked instead, where it is elsewhere.
    pub remote: Option<Arc<RemotePlan>>,
    /// How the servers of backends are asked whether they work; one for each server that is listed.
    pub checks: Vec<HealthCheck>,
    /// Backends whose servers are those that are registered.
    pub discovered: Vec<Discovered>,
    /// Plugins as the routes use them: one for each component and configuration.
    pub plugins: Vec<Arc<Plugin>>,
    /// Where each of them may send requests, in the order of its grants.
    pub destinations: Vec<Vec<Destination>>,
    /// Components that answer requests themselves.
    pub origins: Vec<Arc<Handler>>,
    /// What TLS listeners show.
    pub tls: Tls,
    /// Limits of the heads of requests.
    pub heads: HeadLimits,
    /// Requests at a time on one connection of HTTP/2.
    pub http2_streams: u32,
    /// Bytes of requests' bodies that each worker may hold as a whole.
    pub held_bodies: usize,
    /// What is logged.
    pub log: Log,
    /// Where operators look, where the file says so.
    pub admin: Option<AdminAddress>,
    /// The token they need.
    pub admin_token: Option<Secret>,
    /// How many workers there are.
    pub workers: usize,
    /// How long a stop waits for what runs.
    pub shutdown_grace: Duration,
    /// What is probably not as it was meant, and only seen when everything is there.
    pub warnings: Vec<Diagnostic>,
    /// The files that it was made from: a change of one is a reason to build again.
    pub files: Files,
}

impl Snapshot {
    /// How all servers are asked whether they work, those that are registered now among them.
    pub fn checks(&self) -> Vec<HealthCheck> {
        let of_discovered = self.discovered.iter().flat_map(|discovered| {
            let health = discovered.health.as_ref();
            health
                .map(|health| HealthCheck::of_backend(&discovered.backend.now(), health))
                .unwrap_or_default()
        });
        self.checks.iter().cloned().chain(of_discovered).collect()
    }

    /// The registry that is asked, wherever it is.
    pub fn directory(&self) -> Option<Directory> {
        let own = self.registry.as_ref().map(|plan| Directory::Own(Arc::clone(&plan.registry)));
        own.or_else(|| self.remote.as_ref().map(|plan| Directory::Remote(Arc::clone(&plan.mirror))))
    }

    /// The listener that has a socket with this configured address.
    pub fn listener(&self, socket: SocketAddr) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| listener.address.contains(socket))
    }
}

/// An address that clients connect to.
#[derive(Debug)]
pub struct Listener {
    /// Its name, or its address.
    pub name: String,
    /// As configured.
    pub address: ListenAddress,
    /// How its clients are secured, where they are.
    pub tls: Option<Arc<Terminator>>,
    /// How long a TLS handshake may take.
    pub handshake_deadline: Duration,
    /// What a connection carries.
    pub modes: Modes,
    /// Whether a redirect rule of the kernel brings connections that asked for other ports.
    pub original_destination: bool,
    /// Which of the ports that clients ask for are served.
    pub ports: PortRules,
    /// Whether connections begin with a header that says who the client is.
    pub proxy_protocol: ProxyProtocol,
    /// How long that header may take.
    pub proxy_deadline: Duration,
    /// Proxies whose forwarding headers count.
    pub trusted_proxies: Vec<IpNet>,
    /// Most connections at a time.
    pub connections: usize,
    /// Most connections at a time from one client.
    pub connections_per_client: Option<usize>,
    /// How long a head may take.
    pub head_deadline: Duration,
    /// How long a connection may carry nothing between requests.
    pub idle_deadline: Duration,
}

impl Listener {
    /// Whether this is an address of a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }
}

/// Which ports are served.
#[derive(Debug)]
pub struct PortRules {
    /// Only these; all where absent.
    pub allow: Option<PortSet>,
    /// None of these.
    pub deny: PortSet,
}

impl PortRules {
    /// Whether a connection may ask for this port.
    pub fn allow(&self, port: u16) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.contains(port)) && !self.deny.contains(port)
    }
}

/// Where matched requests go, and through what.
#[derive(Debug)]
pub struct Route {
    /// Its name, or `route N`.
    pub name: Arc<str>,
    /// What it carries.
    pub protocol: RouteProtocol,
    /// Where requests go.
    pub target: Target,
    /// Numbers of its plugins, in order.
    pub plugins: Vec<(usize, OnError)>,
    /// Protocols that its requests may change to.
    pub upgrades: Vec<Box<str>>,
    /// How long it waits for what.
    pub timeouts: Timeouts,
    /// Most bytes of a request's body.
    pub body_limit: u64,
    /// How often a request may be sent to another server.
    pub retries: Retries,
    /// What requests for the same server have in common, where the backend has it so.
    pub sticky: Option<Sticky>,
}

/// A backend that a plugin may send requests to.
#[derive(Debug)]
pub struct Destination {
    /// Number of the backend.
    pub backend: usize,
    /// What requests for the same server have in common, where the backend has it so.
    pub sticky: Option<Sticky>,
}

/// What a route does with a request.
#[derive(Debug)]
pub enum Target {
    /// Number of the backend it is sent to.
    Backend(usize),
    /// A VM, and a port of it: the one that the client asked for where there is none.
    Vm(VmName, Option<u16>),
    /// The port that the client asked for, of this address.
    AnyPort(IpAddr, Settings),
    /// The registry.
    Registry(Arc<RegistryPlan>),
    /// Number of the component that answers it.
    Component(usize),
    /// An answer that is always the same.
    Respond(Fixed),
}

/// Which VM a route goes to.
#[derive(Debug, Clone)]
pub enum VmName {
    /// The one that was captured under this name.
    Captured(Arc<str>),
    /// Always this one.
    Fixed(VmId),
}

/// An answer that is always the same.
#[derive(Debug)]
pub struct Fixed {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub fields: Fields,
    /// Its body.
    pub body: Bytes,
}

/// How long a route waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to a server.
    pub connect: Duration,
    /// For the head of the answer.
    pub response: Duration,
    /// Without a byte of a body in either direction.
    pub idle: Duration,
    /// Without a byte in a tunnel.
    pub tunnel: Duration,
    /// For all of a request and its answer.
    pub total: Option<Duration>,
}

/// How often a request may be sent to another server.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// Attempts, the first among them.
    pub attempts: u32,
    /// Percent of the requests that may be repeated after they were sent.
    pub budget: u32,
}
