//! What the suites are made of: a whole gateway in-process, backends, clients, and waiting.
//!
//! Every socket is on port 0, every wait is for a state and has a deadline, and everything that a
//! test starts ends with it.

mod address;
mod admin;
mod backend;
mod client;
mod components;
mod dns;
mod etcd;
mod files;
pub mod fleet;
pub mod frames;
mod gateway;
mod http2;
mod namespace;
pub mod openssh;
pub mod pages;
pub mod pebble;
mod process;
mod skip;
pub mod tls;
mod wait;
mod websocket;
pub mod wire;

pub use address::own_ip;
pub use admin::Admin;
pub use backend::{Asleep, Backend, Heard, Visitors, assert_told};
pub use client::{Answer, Client, Kept, Raw, dribbling, values};
pub use components::{guest, origin, plugin, plugin_table};
pub use dns::{NameServer, Says};
pub use etcd::Etcd;
pub use files::replace;
pub use gateway::{TestGateway, guest_routes, one_backend, one_route};
pub use http2::{H2Answer, H2Io, H2Request, Http2, collect, echo, h2c_backend, h2c_backend_with, read};
pub use namespace::{Namespace, in_namespace, in_network, must_run};
pub use pebble::{Pebble, PebbleTerms};
pub use process::GatewayProcess;
pub use skip::{has, lacks, skipped};
pub use tls::{Pair, Pki, TlsClient, certificate_table};
pub use wait::{PATIENCE, eventually, settled, within};
pub use websocket::send_messages_back;
