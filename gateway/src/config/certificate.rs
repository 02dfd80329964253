//! `[certificate.NAME]`: what TLS listeners show to clients.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use toml::Spanned;

use super::{Listener, ListenerProtocol, fault, values::whole};

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
    /// Ordered from an authority (RFC 8555), and renewed in time.
    Acme(Spanned<Acme>),
}

/// A certificate that the gateway orders from an authority by ACME (RFC 8555), and renews in time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Acme {
    /// URL where the authority begins. By default that of Let's Encrypt.
    #[schemars(with = "String")]
    pub directory: Spanned<String>,
    /// Address that the authority writes to when something is wrong. By default none.
    #[schemars(with = "Option<String>")]
    pub email: Option<Spanned<String>>,
    /// Whether the authority's terms are agreed to. Without that there is no order.
    pub terms_agreed: bool,
    /// Names of the certificate, all of them this gateway's.
    #[schemars(with = "Vec<String>")]
    pub domains: Vec<Spanned<String>>,
    /// How the authority is shown that they are. By default `http-01` where a listener has port 80 and
    /// speaks HTTP, else `tls-alpn-01`.
    #[schemars(with = "Option<AcmeChallenge>")]
    pub challenge: Option<Spanned<AcmeChallenge>>,
    /// Patterns of further names, as routes have them in `host`: each gets a certificate of its own when
    /// a client asks for it first. Where there is a `[vms]`, `{vm}` stands only for VMs that it knows.
    #[schemars(with = "Vec<String>")]
    pub on_demand: Vec<Spanned<String>>,
    /// Orders an hour, 1 to 10000.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 10000>")]
    #[schemars(range(min = 1, max = 10000))]
    pub orders_per_hour: u32,
    /// PEM file of authorities that the directory's own certificate may be of, beside those of this
    /// machine. By default none.
    #[schemars(with = "Option<String>")]
    pub ca: Option<Spanned<String>>,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            directory: Spanned::new(0..0, "https://acme-v02.api.letsencrypt.org/directory".to_owned()),
            email: None,
            terms_agreed: false,
            domains: Vec::new(),
            challenge: None,
            on_demand: Vec::new(),
            orders_per_hour: 20,
            ca: None,
        }
    }
}

impl Acme {
    /// How the authority is shown that the names are this gateway's, with these listeners.
    pub fn challenge_with(&self, listeners: &[Listener]) -> AcmeChallenge {
        let has_80 = |listener: &Listener| {
            let speaks_http = !listener.tls && listener.protocol != ListenerProtocol::Tcp;
            speaks_http && listener.address.get_ref().ports().contains(80)
        };
        match &self.challenge {
            Some(challenge) => *challenge.get_ref(),
            None if listeners.iter().any(has_80) => AcmeChallenge::Http01,
            None => AcmeChallenge::TlsAlpn01,
        }
    }
}

/// How an authority is shown that a name is this gateway's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AcmeChallenge {
    /// By a file on port 80 (RFC 8555 §8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// By a certificate on port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
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
        let Written { cert, key, ocsp, self_signed, acme, names, default } =
            Written::deserialize(deserializer)?;
        let sources = [cert.is_some(), self_signed, acme.is_some()];
        if sources.into_iter().filter(|is_there| *is_there).count() > 1 {
            return Err(mistake("a certificate has one source, not several"));
        }
        if acme.is_some() && names.is_some() {
            return Err(mistake("an `acme` certificate is shown for its `domains`, and has no `names`"));
        }
        if let Some(acme) = acme.as_ref().map(Spanned::get_ref) {
            if acme.domains.is_empty() && acme.on_demand.is_empty() {
                let label = "needs `domains`, such as `domains = [\"app.example.com\"]`";
                return Err(D::Error::custom(fault::custom(
                    "no name to order a certificate for",
                    label,
                    None,
                )));
            }
            if !acme.terms_agreed {
                let message = "the authority's terms are not agreed to";
                let help = Some("read them first; the authority's directory says where they are");
                return Err(D::Error::custom(fault::custom(message, "needs `terms_agreed = true`", help)));
            }
        }
        let source = match (cert, acme) {
            (Some(cert), _) => CertificateSource::Files(CertificateFiles { cert, key, ocsp }),
            (None, _) if key.is_some() => return Err(mistake("`key` needs the `cert` that it belongs to")),
            (None, _) if ocsp.is_some() => return Err(mistake("`ocsp` needs the `cert` that it is about")),
            (None, Some(acme)) => CertificateSource::Acme(acme),
            (None, None) if self_signed => CertificateSource::SelfSigned,
            (None, None) => return Err(mistake("a certificate needs a source")),
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
/// gateway orders or makes itself.
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
    /// Orders the certificate from an authority by ACME (RFC 8555), and renews it in time.
    #[schemars(with = "Option<Acme>")]
    acme: Option<Spanned<Acme>>,
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
    let label = "expected one of `cert = \"FILE\"`, `acme = {…}` and `self_signed = true`";
    E::custom(fault::custom(message, label, None))
}
