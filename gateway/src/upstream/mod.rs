//! The VM's side: where a backend is, a connection to it, one request sent on it.
//!
//! It retries only what was never sent. It knows nothing of routes, plugins or the client.

mod backend;
mod body;
mod connect;
mod error;
mod pool;

pub use backend::{Backend, Balance, HeadLimits, Server, ServerError};
pub use body::{RequestBody, ResponseBody};
pub use connect::connect;
pub use error::{Cause, UpstreamError};
pub use pool::{Pool, PoolMetrics, Reply, Upgraded};
