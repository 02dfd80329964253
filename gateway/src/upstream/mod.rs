//! The VM's side: where a backend is, which of its servers is next, a connection to it.
//!
//! It knows nothing of what connections carry, of routes, plugins or clients.

mod backend;
mod balance;
mod budget;
mod connect;
mod error;
mod fleet;
mod io;
mod local;
mod member;
mod metrics;
mod names;
mod pool;
mod queue;
mod roster;
mod seat;
mod secure;

pub use backend::{Asked, Backend, Balance, Ejection, Limits, Protocol, Server, ServerError, Settings};
pub use balance::key;
pub use budget::Budget;
pub use connect::connect;
pub use error::{Cause, UpstreamError};
pub use fleet::Fleet;
pub use io::Io;
pub use local::{Failure, Local};
pub use member::Member;
pub use metrics::{PoolMetrics, QueueMetrics, ServersMetrics};
pub use pool::{Lease, Pool, Tries};
pub use seat::Seat;
pub use secure::{Secure, SecureStream, Secured, Security, Speaks};
