//! The path of a request and of a connection, in the order in which things happen.
//!
//! [`serve`] is the spine. It reads no file, parses no configuration, compiles nothing and takes no
//! lock: what it needs was made before, and belongs to its worker.

mod access;
mod admit;
mod answer;
mod arrival;
mod carrier;
mod client;
mod conn;
mod cut;
mod date;
mod decide;
mod exchange;
mod flow;
mod goal;
mod grpc;
mod h2;
mod held_body;
mod http;
mod piece;
mod registry;
mod secure;
mod stream;
mod tcp;
mod transformed_body;
mod tunnel;
mod worker;

pub use answer::{ErrorCode, TOO_MANY_CONNECTIONS, TOO_MANY_CONNECTIONS_PER_CLIENT};
pub use arrival::{Arrival, NoArrival};
pub use conn::serve;
pub use cut::Cut;
pub use tunnel::Tunnel;
pub use worker::Worker;
