//! `[certificate.NAME]`: what TLS listeners show to clients.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

/// What TLS listeners show to clients that ask for one of its names: files, or a certificate that the
/// gateway makes itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The NAME in `[certificate.NAME]`.
    #[serde(skip, default = "super::unnamed")]
    pub name: Spanned<String>,
    /// PEM file of the certificate, with those between it and its authority behind it.
    #[schemars(with = "Option<String>")]
    pub cert: Option<Spanned<String>>,
    /// PEM file of its private key. By default the key is in the file of `cert`.
    #[schemars(with = "Option<String>")]
    pub key: Option<Spanned<String>>,
    /// DER file of an OCSP response, which is shown along. By default none is.
    #[schemars(with = "Option<String>")]
    pub ocsp: Option<Spanned<String>>,
    /// Makes the certificate, signed by an authority of the gateway's own, for development. The
    /// authority is kept in `[gateway] state_dir`.
    #[schemars(with = "bool")]
    #[serde(default = "no")]
    pub self_signed: Spanned<bool>,
    /// Names that it is shown for: exact, or `*.example.com` for one label below. By default those in
    /// the certificate; of a `self_signed` one, those of the routes, and the loopback addresses.
    #[schemars(with = "Option<Vec<String>>")]
    pub names: Option<Vec<Spanned<String>>>,
    /// Whether it is shown to clients that ask for no name, or for one that no certificate has. By
    /// default the first certificate of the file is.
    #[schemars(with = "Option<bool>")]
    pub default: Option<Spanned<bool>>,
}

fn no() -> Spanned<bool> {
    Spanned::new(0..0, false)
}
