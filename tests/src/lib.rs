//! What the suites are made of: a whole gateway in-process, backends, clients, and waiting.
//!
//! Every socket is on port 0, every wait is for a state and has a deadline, and everything that a
//! test starts ends with it.

mod backend;
mod client;
mod components;
mod gateway;
mod wait;

pub use backend::{Backend, Heard};
pub use client::{Answer, Client, Raw};
pub use components::{guest, plugin};
pub use gateway::TestGateway;
pub use wait::{PATIENCE, eventually, within};
