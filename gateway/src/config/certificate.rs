//! `[certificate.NAME]`: what TLS listeners show to clients.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, de::Error};
use toml::Spanned;

use super::fault;

/// What TLS listeners show to clients that ask for one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The NAME in `[certificate.NAME]`.
    pub name: Spanned<String>,
    /// Where it is from.
    pub source: CertificateSource,
    /// Names that it is shown for, exact or `*.example.com`. By default those that follow from its
    /// source.
    pub names: Option<Vec<Spanned<String>>>,
    /// Whether it is shown to clients that ask for no name, or for one that no certificate has. By
    /// default the first certificate of the file is.
    pub default: Option<Spanned<bool>>,
}

/// Where a certificate is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Files; relative paths start at the folder of the configuration file.
    Files(CertificateFiles),
    /// Made by the gateway, signed by an authority of its own.
    SelfSigned,
}

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM file of the certificate, with those between it and its authority behind it.
    pub cert: Spanned<String>,
    /// PEM file of its private key, where that is not in the file of `cert`.
    pub key: Option<Spanned<String>>,
    /// DER file of an OCSP response.
    pub ocsp: Option<Spanned<String>>,
}

impl<'de> Deserialize<'de> for Certificate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { cert, key, ocsp, self_signed, names, default } = Written::deserialize(deserializer)?;
        let source = match (cert, self_signed) {
            (Some(_), true) => return Err(mistake("a certificate has one source, not two")),
            (Some(cert), false) => CertificateSource::Files(CertificateFiles { cert, key, ocsp }),
            (None, _) if key.is_some() => return Err(mistake("`key` needs the `cert` that it belongs to")),
            (None, _) if ocsp.is_some() => return Err(mistake("`ocsp` needs the `cert` that it is about")),
            (None, true) => CertificateSource::SelfSigned,
            (None, false) => return Err(mistake("a certificate needs a source")),
        };
        Ok(Self { name: super::unnamed(), source, names, default })
    }
}

impl JsonSchema for Certificate {
    fn schema_name() -> Cow<'static, str> {
        "Certificate".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Written::json_schema(generator)
    }
}

/// What TLS listeners show to clients that ask for one of its names: files, or a certificate that the
/// gateway makes itself.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Written {
    /// PEM file of the certificate, with those between it and its authority behind it.
    #[schemars(with = "Option<String>")]
    cert: Option<Spanned<String>>,
    /// PEM file of its private key. By default the key is in the file of `cert`.
    #[schemars(with = "Option<String>")]
    key: Option<Spanned<String>>,
    /// DER file of an OCSP response, which is shown along. By default none is.
    #[schemars(with = "Option<String>")]
    ocsp: Option<Spanned<String>>,
    /// Makes the certificate, signed by an authority of the gateway's own, for development. The
    /// authority is kept in `[gateway] state_dir`.
    self_signed: bool,
    /// Names that it is shown for: exact, or `*.example.com` for one label below. By default those in
    /// the certificate; of a `self_signed` one, those of the routes, and the loopback addresses.
    #[schemars(with = "Option<Vec<String>>")]
    names: Option<Vec<Spanned<String>>>,
    /// Whether it is shown to clients that ask for no name, or for one that no certificate has. By
    /// default the first certificate of the file is.
    #[schemars(with = "Option<bool>")]
    default: Option<Spanned<bool>>,
}

fn mistake<E: Error>(message: &str) -> E {
    let label = "expected either `cert = \"FILE\"` or `self_signed = true`";
    E::custom(fault::custom(message, label, None))
}
