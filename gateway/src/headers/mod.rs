//! What a proxy must do to header fields. Pure: no I/O, no clock, nothing of routes or plugins.
//!
//! The order matters and is the caller's: [`hop_by_hop::strip`] first, so that a client cannot
//! nominate for removal what the gateway sets; then [`Forwarding`], which rebuilds what backends and
//! plugins trust.

mod authority;
mod client_certificate;
mod cookie;
mod forwarded;
pub mod hop_by_hop;
mod sums;
pub mod websocket;

pub use authority::{Authority, AuthorityError, authority};
pub use client_certificate::ClientCertificate;
pub use cookie::cookie;
pub use forwarded::Forwarding;
pub use hop_by_hop::Upgrade;
pub use sums::remove_sums;
