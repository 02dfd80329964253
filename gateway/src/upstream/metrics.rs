//! What a worker counts of one backend.

use crate::metrics::{Counter, Gauge};

/// What a worker counts of one backend. Clones share the shards, and stay on the worker.
#[derive(Debug, Clone)]
pub struct PoolMetrics {
    /// New connections.
    pub connected: Counter,
    /// Failed attempts at one.
    pub failed: Counter,
    /// Requests on a kept connection.
    pub reused: Counter,
    /// Connections kept now.
    pub idle: Gauge,
    /// Requests that met a kept connection at its end, and were sent on a new one.
    pub stale: Counter,
    /// Where there is more than one server.
    pub servers: Option<ServersMetrics>,
    /// Where connections are limited.
    pub queue: Option<QueueMetrics>,
}

/// What there is to count where a backend has several servers.
#[derive(Debug, Clone)]
pub struct ServersMetrics {
    /// Requests that went to another server because the first did not take a connection.
    pub unreachable: Counter,
    /// Requests that went to another server because the first broke off.
    pub broken: Counter,
    /// Requests that did not, for want of a budget.
    pub over_budget: Counter,
    /// Servers left alone because they did not take a connection.
    pub ejected_unreachable: Counter,
    /// Servers left alone because exchanges with them failed.
    pub ejected_failing: Counter,
}

/// What there is to count where connections are limited.
#[derive(Debug, Clone)]
pub struct QueueMetrics {
    /// Requests that wait now.
    pub waiting: Gauge,
    /// Requests that could not even wait.
    pub full: Counter,
    /// Requests that waited for nothing.
    pub late: Counter,
}
