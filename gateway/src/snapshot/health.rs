//! How servers are asked whether they work.

use crate::{
    config,
    proxy_protocol::Version,
    upstream::{Backend, Member, Protocol, Security, Server},
};
use std::{sync::Arc, time::Duration};

/// How one server is asked whether it works.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    /// Name of its backend.
    pub backend: String,
    /// The server.
    pub server: Server,
    /// What is known of it.
    pub member: Arc<Member>,
    /// How it is asked.
    pub question: Question,
}

/// How a server is asked whether it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Path that is asked for; none asks for a connection only.
    pub path: Option<String>,
    /// Host that is asked for.
    pub host: String,
    /// Whether it is asked over HTTP/2.
    pub over_http2: bool,
    /// From the end of one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good answers after which a server is used again.
    pub healthy: u32,
    /// Bad answers after which a server is not used any more.
    pub unhealthy: u32,
    /// The PROXY header that its connections begin with, where they do.
    pub proxy_protocol: Option<Version>,
    /// TLS, where it is asked over that.
    pub tls: Option<Security>,
}

impl HealthCheck {
    /// The checks of a backend's servers: of one that stands there twice, one.
    pub(super) fn of_backend(backend: &Backend, health: &config::Health) -> Vec<Self> {
        let mut checks: Vec<Self> = Vec::new();
        for (server, member) in backend.members() {
            if checks.iter().any(|check| Arc::ptr_eq(&check.member, member)) {
                continue;
            }
            let host = health.host.as_ref().map(|host| host.get_ref().clone());
            checks.push(Self {
                backend: backend.settings.name.clone(),
                server: server.clone(),
                member: Arc::clone(member),
                question: Question {
                    path: health.path.as_ref().map(|path| path.get_ref().clone()),
                    host: host.unwrap_or_else(|| server.to_string()),
                    over_http2: backend.settings.protocol == Protocol::Http2,
                    interval: health.interval.get(),
                    timeout: health.timeout.get(),
                    healthy: health.healthy,
                    unhealthy: health.unhealthy,
                    proxy_protocol: backend.settings.proxy_protocol,
                    tls: backend.settings.tls.clone(),
                },
            });
        }
        checks
    }
}
