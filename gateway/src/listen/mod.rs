//! Listening sockets and the accept loop. It knows nothing of what a connection is for.

mod accept;
mod bind;
mod clients;

pub use accept::{Accepted, accept_loop};
pub use bind::{BindError, Bound, bind, bind_beside};
pub use clients::{Clients, Seat};
