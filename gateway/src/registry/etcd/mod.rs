//! The registry in etcd, which several gateways share: each follows what etcd says and shows that; what clients want
//! is decided by what etcd has, and done there by transactions that fail where it has something else by then. Leases
//! are etcd's.
//!
//! Nothing of this knows of sockets: [`Transport`] carries requests. What waits for etcd runs on a thread of its own,
//! and whoever reads waits for nothing.

mod client;
#[cfg(test)]
mod fake;
mod follow;
mod keys;
mod link;
mod more;
mod queue;
mod seen;
#[cfg(test)]
mod tests;
mod transport;
mod view;
mod wire;
mod write;

pub use follow::run;
pub(super) use link::Link;
pub use link::{DEADLINE, StoreState};
pub use transport::{Access, Answering, Pieces, Transport, Undelivered, User};
