//! Certificates from an authority that asks for proof and for nothing else (ACME, RFC 8555): how one is
//! ordered, and when the next order is due.
//!
//! Only this module names instant-acme. It opens no port and keeps no file: what shows the proofs, what
//! carries its requests and who remembers its account is given to it.

mod order;
mod schedule;
mod tokens;
mod transport;

pub use order::{Account, Obtained, OrderError, Proof, Stage, order};
pub use schedule::{Rate, back_off, renewal};
pub use tokens::Tokens;
pub use transport::{Answering, Transport};

/// How an authority is shown that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// By a file on port 80 (RFC 8555 §8.3).
    Http01,
    /// By a certificate on port 443 (RFC 8737).
    TlsAlpn01,
}
