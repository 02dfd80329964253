//! Write plugins for vers-gateway in Rust.
//!
//! A plugin is a struct: it **is** the `config` table of the gateway's TOML, and its hooks are the
//! methods of a trait. [`export!`] makes a WebAssembly component of it.
//!
//! ```
//! use vers_plugin::prelude::*;
//!
//! /// Refuses requests without the token.
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct AuthToken {
//!     secret: String,
//!     #[serde(default)]
//!     exempt: Vec<String>,
//! }
//!
//! impl HttpFilter for AuthToken {
//!     fn on_request(&self, req: &mut Request) -> Verdict {
//!         if self.exempt.iter().any(|path| req.path() == path) || req.bearer_matches(&self.secret) {
//!             return Verdict::Next;
//!         }
//!         Verdict::unauthorized("missing-token")
//!     }
//! }
//!
//! vers_plugin::export!(AuthToken: http_filter);
//! # fn main() {}
//! ```
//!
//! The crate's type is `cdylib`, and `cargo build --release --target wasm32-wasip2` makes the
//! component. The same code runs without WebAssembly in ordinary tests: see [`testing`].
//!
//! # What configurations are made of
//!
//! Types for what operators write as text, read with the configuration, so that a hook meets only
//! values that are sound and a mistake is reported at its key. They are in the [`prelude`].
//!
//! - [`path`]: patterns such as `/assets/*` that no second spelling of a path gets around, and names
//!   that are safe in a path.
//! - [`template`]: header values with `{facts}` of the exchange; [`edits`]: tables of them to set or to
//!   append, and lists of headers to remove.
//! - [`url`]: where a service answers; [`duration`]: `"15s"`.
//!
//! And for work that may fail, [`back_off`]. [`schema`] tells others what a configuration consists of.
//!
//! # What the gateway promises
//!
//! - **Order.** [`on_request`](HttpFilter::on_request) runs in the order of the route's `plugins`,
//!   [`on_response`](HttpFilter::on_response) in the reverse order. A plugin that answers a request
//!   ends the way in; its own `on_response` and those before it still see the answer.
//! - **Instances.** Each call may meet any instance of the plugin, on any thread, or a fresh one;
//!   one instance serves one call at a time. Fields set by the configuration are always there. What
//!   else must survive from one hook to the next belongs into [`Exchange::set`], not into memory.
//! - **Configuration** comes once per instance, before every hook, and is checked before a reload
//!   takes effect: a table that does not fit, or that [`validate`](HttpFilter::validate) refuses,
//!   leaves the running configuration in place.
//! - **Faults.** A panic, a spent time budget or a spent memory limit costs the call and the
//!   instance. The request is treated as the plugin's `on_error` says, and the next call meets a
//!   fresh instance.
//! - **Trust.** Hop-by-hop and forwarding headers are settled before the first plugin runs.
//!   [`Exchange::client_address`] cannot be forged by a client, and `x-forwarded-for` agrees with it.
//! - **Grants.** [`secrets`], [`http`] and [`kv`] work where the TOML grants them. A component that imports
//!   more than it was granted is not loaded; what a plugin never calls, it does not import.

#![deny(missing_docs)]

// The derive macro names the crate as its users do.
#[cfg(test)]
extern crate self as vers_plugin;

pub mod back_off;
#[doc(hidden)]
#[allow(unsafe_code, reason = "the canonical ABI is made of raw pointers")]
pub mod bindings;
mod completed;
mod config;
mod connection;
pub mod duration;
pub mod edits;
mod exchange;
mod export;
#[doc(hidden)]
pub mod guest;
pub mod headers;
pub mod http;
pub mod kv;
mod message;
pub mod metrics;
pub mod path;
mod plugin;
mod reply;
mod request;
mod response;
pub mod schema;
mod services;
#[cfg(not(target_family = "wasm"))]
mod simulation;
pub mod template;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod url;

/// The gateway behind every call: the real one in a component, a simulation in native tests.
#[cfg(target_family = "wasm")]
use bindings::base::vers::gateway as host;
#[cfg(not(target_family = "wasm"))]
use simulation as host;

pub use completed::Completed;
pub use config::{ConfigProblem, ParseError, Problems};
pub use connection::{Closed, Connection, TcpVerdict};
pub use exchange::Exchange;
pub use headers::{EditError, Headers};
pub use message::Message;
pub use plugin::{
    Background, BodyFilter, ExchangeLog, HttpFilter, Next, Plugin, Reason, RequestBodyTransform,
    ResponseBodyTransform, TcpBytesFilter, TcpFilter, TcpLog, Transform,
};
pub use reply::{BodyVerdict, Reply, ResponseVerdict, Verdict};
pub use request::Request;
pub use response::Response;
pub use services::{clock, identity, log, random, secrets};

/// What a plugin's `lib.rs` needs.
///
/// ```
/// use vers_plugin::prelude::*;
/// ```
pub mod prelude {
    pub use crate::{
        Background, BodyFilter, BodyVerdict, Closed, Completed, ConfigProblem, Connection, EditError,
        Exchange, ExchangeLog, Headers, HttpFilter, Message, Next, Problems, Reason, Reply, Request,
        RequestBodyTransform, Response, ResponseBodyTransform, ResponseVerdict, TcpBytesFilter, TcpFilter,
        TcpLog, TcpVerdict, Transform, Verdict,
        back_off::BackOff,
        clock, duration,
        edits::{HeaderNames, HeaderValues},
        http, identity, kv, log, metrics,
        path::{PathPattern, PathSegment},
        random,
        schema::ConfigSchema,
        secrets,
        template::Template,
        url::BaseUrl,
    };
    pub use serde::{Deserialize, Serialize};
}

/// The guide's examples compile and run as this crate's tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/plugins.md")]
#[doc = include_str!("../README.md")]
struct Guide;
