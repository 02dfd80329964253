//! The VM's side: where a backend is, which of its servers is next, a connection to it.
//!
//! It knows nothing of what connections carry, of routes, plugins or clients.

mod backend;
mod connect;
mod error;
mod pool;

pub use backend::{Backend, Balance, Server, ServerError};
pub use connect::connect;
pub use error::{Cause, UpstreamError};
pub use pool::{Lease, Pool, PoolMetrics};
