//! TLS: towards clients, with certificates by name; and towards others, for the requests that plugins
//! send.
//!
//! Only this module names rustls, and no type of it leaves.

mod authority;
mod certificate;
mod client_auth;
mod connector;
mod dial;
mod hello;
mod issued;
mod names;
mod ocsp;
mod stream;
mod terminator;
#[cfg(test)]
mod tests;

pub use authority::{Authority, AuthorityError};
pub use certificate::{Certificate, CertificateError, Kind};
pub use client_auth::{ClientAuth, Identity};
pub use connector::{Connector, connector};
pub use dial::{DialError, DialedStream, Roots, RootsError, ServerName};
pub use hello::{Hello, NoHello};
pub use issued::Issued;
pub use names::{Certificates, Entry};
pub use ocsp::OcspError;
pub use stream::ServerStream;
pub use terminator::{Carries, HandshakeError, Terminator, Tickets};

use names::Asked;
use stream::Trouble;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use std::sync::{Arc, LazyLock};

/// The one provider of cryptography.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    &PROVIDER
}
