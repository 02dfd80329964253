//! Listening sockets and the accept loop. It knows nothing of what a connection is for.

mod accept;
mod bind;

pub use accept::{Accepted, accept_loop};
pub use bind::{BindError, Bound, bind, bind_beside};
