//! The daemon behind `vers-gateway`: a gateway for fleets of VMs, extended by WebAssembly components.
//!
//! # The life of a connection
//! `listen` accepts it on one worker, and it never leaves that worker's thread. `proxy::conn` is the
//! spine: for HTTP, each request meets `route` (which route?), `headers` (what a proxy must remove
//! and add), `plugins` (what the route's components say), `upstream` (a connection to the backend)
//! and its answer comes back through the same plugins. An upgrade, and every raw TCP route, ends in
//! `relay`. Any error becomes a status in `proxy::answer`.
//!
//! # The life of a configuration
//! `config` reads what the user wrote and reports every error in it; `snapshot` builds from it what
//! the machine runs on; `server` swaps the new snapshot for the old one and lets the old one finish.
//!
//! Modules stand on floors, and import only from floors below their own; `docs/architecture.md` has
//! the map and a test keeps it true.

#![warn(
    missing_docs,
    // Bytes from the network can end a connection, never the process.
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    // Only the command line prints, and it returns its exit code.
    clippy::exit,
    clippy::print_stderr,
    clippy::print_stdout
)]

// Floor 0: knows nothing of gateways.
pub mod drain;
pub mod ids;
pub mod io;
pub mod message;
pub mod metrics;
pub mod networks;
pub mod ports;
// Floor 1: what the user wrote, and what is on the wire.
pub mod config;
pub mod http1;
pub mod proxy_protocol;
// Floor 2: stands on what HTTP/1 says of messages.
pub mod http2;
// Floor 3: the parts; none knows its siblings or its callers.
pub mod acme;
pub mod headers;
pub mod listen;
pub mod plugins;
pub mod registry;
pub mod relay;
pub mod route;
pub mod sniff;
pub mod tls;
pub mod upstream;
pub mod vms;
// Floor 4: what the machine runs on.
pub mod snapshot;
// Floor 5: the path of a request.
pub mod proxy;
// Floor 6: the composition root.
pub mod server;
// Floor 7: the command line.
pub mod cli;
