//! Every metric's name and meaning, in one place: dashboards and code cannot drift apart.
//! A counter's name is printed with `_total` behind it.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Durations in seconds, by bucket.
    Histogram,
}

/// A metric: name, help text, kind.
#[derive(Debug)]
pub struct Name {
    /// As printed, without `_total`.
    pub name: &'static str,
    /// One sentence for the operator.
    pub help: &'static str,
    /// What it is.
    pub kind: Kind,
}

macro_rules! names {
    ($($constant:ident: $kind:ident = $name:literal, $help:literal;)*) => {
        $(#[doc = $help] pub static $constant: Name =
            Name { name: $name, help: $help, kind: Kind::$kind };)*
        /// All metrics, for documentation and its test.
        pub static ALL: &[&Name] = &[$(&$constant),*];
    };
}

names! {
    BUILD_INFO: Gauge = "vers_build_info", "Always 1; the label tells the version.";
    CONNECTIONS: Counter = "vers_connections", "Connections accepted, by listener.";
    CONNECTIONS_ACTIVE: Gauge = "vers_connections_active", "Connections open now, by listener.";
    CONNECTIONS_REJECTED: Counter = "vers_connections_rejected", "Connections closed at accept, by listener and reason.";
    CONNECTIONS_CUT: Counter = "vers_connections_cut", "Connections ended without an answer that could tell why, by reason.";
    TLS_HANDSHAKES: Counter = "vers_tls_handshakes", "TLS handshakes with clients, by outcome.";
    CERTIFICATE_EXPIRY: Gauge = "vers_certificate_expiry_timestamp_seconds", "When a certificate expires, in seconds since 1970, by certificate.";
    CERTIFICATE_PROBLEM: Gauge = "vers_certificate_problem", "1 while what is in a certificate's files cannot be used, else 0, by certificate.";
    ACME_ORDERS: Counter = "vers_acme_orders", "Certificates ordered from an authority, by certificate and outcome.";
    ACME_REFUSED: Counter = "vers_acme_names_refused", "Names that clients asked for and that get no certificate on demand, by reason.";
    ACME_CERTIFICATES: Gauge = "vers_acme_certificates", "Certificates from an authority that are shown, by certificate.";
    ACCEPT_ERRORS: Counter = "vers_accept_errors", "Failed calls of accept, by listener.";
    REQUESTS: Counter = "vers_requests", "Requests answered, by route and class of status.";
    REQUEST_SECONDS: Histogram = "vers_request_duration_seconds", "From the request's head to the answer's head, by route.";
    GATEWAY_ERRORS: Counter = "vers_gateway_errors", "Answers that the gateway gave itself, by error code.";
    HELD_BODIES: Gauge = "vers_held_bodies_bytes", "Memory of requests' bodies that are held as a whole now.";
    TUNNELS_ACTIVE: Gauge = "vers_tunnels_active", "WebSocket, upgraded and raw TCP connections relayed now, by route.";
    TUNNEL_BYTES: Counter = "vers_tunnel_bytes", "Bytes relayed in tunnels, by route and direction.";
    UPSTREAM_CONNECTS: Counter = "vers_upstream_connects", "Connections opened to a backend, by backend and outcome.";
    UPSTREAM_REUSES: Counter = "vers_upstream_reuses", "Requests sent on a kept connection, by backend.";
    UPSTREAM_IDLE: Gauge = "vers_upstream_idle_connections", "Kept connections that carry nothing now, by backend.";
    UPSTREAM_RETRIES: Counter = "vers_upstream_retries", "Requests sent once more, by backend and reason.";
    UPSTREAM_OVER_BUDGET: Counter = "vers_upstream_retries_over_budget", "Requests not sent once more for want of a budget, by backend.";
    UPSTREAM_EJECTIONS: Counter = "vers_upstream_ejections", "Times that a server was left alone for a while, by backend and reason.";
    UPSTREAM_PENDING: Gauge = "vers_upstream_pending", "Requests that wait for a server with room, by backend.";
    UPSTREAM_PENDING_REFUSED: Counter = "vers_upstream_pending_refused", "Requests that found no room, by backend and reason.";
    HEALTH_CHECKS: Counter = "vers_health_checks", "Questions whether a server works, by backend, server and outcome.";
    SERVER_HEALTHY: Gauge = "vers_server_healthy", "1 while its check says that a server works, else 0, by backend and server.";
    VM_LOOKUPS: Counter = "vers_vm_lookups", "Requests and connections whose VM was looked up, by outcome.";
    VM_QUERIES: Counter = "vers_vm_queries", "Questions to DNS or the registry where a VM is.";
    REGISTRY_ENTRIES: Gauge = "vers_registry_entries", "Entries of the registry, by state.";
    REGISTRY_EXPIRED: Counter = "vers_registry_expired", "Leases of the registry that ran out.";
    REGISTRY_HELD: Gauge = "vers_registry_held", "Entries that were not renewed in time, and are kept for now because too many lapsed at once.";
    REGISTRY_WATCHERS: Gauge = "vers_registry_watchers", "Clients that wait for changes of the registry.";
    REGISTRY_COMMITS: Counter = "vers_registry_commits", "Commits to the registry's file, where many changes may share one; transactions in its etcd.";
    REGISTRY_STORE_PROBLEM: Gauge = "vers_registry_store_problem", "1 while the registry's entries cannot be kept, else 0.";
    REGISTRY_STORE_AGE: Gauge = "vers_registry_store_age_seconds", "How old what is known of the registry's etcd may be: up to 2 while it answers.";
    REGISTRY_STORE_FAILURES: Counter = "vers_registry_store_failures", "Requests to the registry's etcd that failed.";
    REGISTRY_PROBES: Counter = "vers_registry_probes", "Questions to registered services whether they work, by outcome.";
    REGISTRY_PROBED: Gauge = "vers_registry_probed", "Registered services that are asked whether they work.";
    REGISTRY_REMOTE_AGE: Gauge = "vers_registry_remote_age_seconds", "How old what is known of a registry elsewhere may be: up to 10 while it answers.";
    REGISTRY_REMOTE_FAILURES: Counter = "vers_registry_remote_failures", "Questions to a registry elsewhere that failed.";
    PLUGIN_CALLS: Counter = "vers_plugin_calls", "Calls of a plugin, by plugin and hook.";
    PLUGIN_FAULTS: Counter = "vers_plugin_faults", "Calls that failed, by plugin and kind of fault.";
    PLUGIN_CPU: Counter = "vers_plugin_cpu_nanoseconds", "Time spent inside a plugin, by plugin.";
    PLUGIN_SERIES_DROPPED: Counter = "vers_plugin_series_dropped", "Values of a plugin's own metrics that belong to no series, mostly because there are too many, by plugin.";
    PLUGIN_LOG_DROPPED: Counter = "vers_plugin_log_dropped", "Exchanges that a plugin was not shown when they were over, for want of room in its queue, by plugin.";
    PLUGIN_WAITING: Gauge = "vers_plugin_waiting", "Calls of a plugin that wait for their turn, by plugin.";
    PLUGIN_RECYCLED: Counter = "vers_plugin_recycled", "Instances that were replaced, by plugin and reason.";
    PLUGIN_BREAKERS_OPEN: Gauge = "vers_plugin_breakers_open", "Workers in which a hook of a plugin is left alone on a route, by plugin, route and hook.";
    PLUGIN_INSTANCES: Gauge = "vers_plugin_instances", "Instances of a plugin in memory, by plugin.";
    ORIGIN_FAULTS: Counter = "vers_origin_faults", "Requests that a component failed on, by origin and kind of fault.";
    ORIGIN_CPU: Counter = "vers_origin_cpu_nanoseconds", "Time spent inside a component that answers, by origin.";
    ORIGIN_INSTANCES: Gauge = "vers_origin_instances", "Requests that a component answers now, by origin.";
    ORIGIN_WAITING: Gauge = "vers_origin_waiting", "Requests that wait for their turn at a component, by origin.";
    TASKS_ACTIVE: Gauge = "vers_tasks_active", "Tasks alive now, by worker.";
    RELOADS: Counter = "vers_reloads", "Reloads that took effect.";
    RELOAD_FAILURES: Counter = "vers_reload_failures", "Reloads that were refused and changed nothing.";
    GENERATION: Gauge = "vers_generation", "Number of the configuration that runs; the first is 1.";
    LOG_LINES_DROPPED: Counter = "vers_log_lines_dropped", "Log lines dropped because the output was slower than the traffic.";
}
