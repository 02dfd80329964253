//! What the machine runs on: a configuration with nothing left to look up, find wrong or decide.
//!
//! A [`Snapshot`] is built once per configuration and shared by all workers, unchanged; each worker
//! adds what is its own in a [`Local`]. A request sees exactly one of them from its first byte to
//! its last. Nothing here listens.

mod build;
mod certificates;
mod files;
mod health;
mod local;
mod plugins;
mod services;
mod state_dir;
mod sticky;
mod terminators;

pub use build::{Inputs, Problems, build};
pub use certificates::{Certificate, Source};
pub use files::Files;
pub use health::{HealthCheck, Question};
pub use local::{Local, LocalRoute, LocalTarget, Parts, RouteMetrics, plugin_metrics};
pub use services::Outbound;
pub use sticky::Sticky;
pub use terminators::SessionKeys;

use crate::{
    config::{AdminAddress, Diagnostic, Log},
    http1::HeadLimits,
    message::Fields,
    plugins::{OnError, Plugin, Secret},
    route::Table,
    tls::Terminator,
    upstream::Backend,
};
use bytes::Bytes;
use http::StatusCode;
use ipnet::IpNet;
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// What the machine runs on.
#[derive(Debug)]
pub struct Snapshot {
    /// Where clients connect to.
    pub listeners: Vec<Arc<Listener>>,
    /// Where requests and connections go.
    pub routes: Vec<Arc<Route>>,
    /// Servers behind the routes.
    pub backends: Vec<Arc<Backend>>,
    /// How their servers are asked whether they work; one for each server that is.
    pub checks: Vec<HealthCheck>,
    /// Plugins as the routes use them: one for each component and configuration.
    pub plugins: Vec<Arc<Plugin>>,
    /// What TLS listeners show, in the order of the file.
    pub certificates: Vec<Arc<Certificate>>,
    /// Keys of the sessions of TLS clients.
    pub session_keys: SessionKeys,
    /// Most TLS handshakes at a time in each worker.
    pub handshakes: usize,
    /// Limits of the heads of requests.
    pub heads: HeadLimits,
    /// Requests at a time on one connection of HTTP/2.
    pub http2_streams: u32,
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
    /// The listener with this configured address.
    pub fn listener(&self, address: SocketAddr) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| listener.address == address)
    }
}

/// An address that clients connect to.
#[derive(Debug)]
pub struct Listener {
    /// Its name, or its address.
    pub name: String,
    /// As configured.
    pub address: SocketAddr,
    /// How its clients are secured, where they are.
    pub tls: Option<Arc<Terminator>>,
    /// How long a TLS handshake may take.
    pub handshake_deadline: Duration,
    /// What a connection carries.
    pub mode: Mode,
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

/// What the connections of a listener carry.
#[derive(Debug)]
pub enum Mode {
    /// HTTP requests, each with its route.
    Http(Table),
    /// Bytes, all on this route.
    Tcp(usize),
}

/// Where matched requests go, and through what.
#[derive(Debug)]
pub struct Route {
    /// Its name, or `route N`.
    pub name: Arc<str>,
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

/// What a route does with a request.
#[derive(Debug)]
pub enum Target {
    /// Number of the backend it is sent to.
    Backend(usize),
    /// An answer that is always the same.
    Respond(Fixed),
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
#[derive(Debug, Clone, Copy)]
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
