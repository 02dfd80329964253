//! Listening sockets and accept loops. It knows nothing of what a connection is for.

mod accept;
mod bind;
mod clients;
mod crowd;
mod files;

pub use accept::{Accepted, Acceptor};
pub use bind::{BindError, Bound, BoundPort, Counts, Entrance, Terms, bind, few_ports_left};
pub use clients::{Clients, Seat};
pub use crowd::Crowd;
