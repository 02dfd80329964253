//! An authority of the gateway's own, for development: what it signs, nobody trusts but who was told to.

use super::{Certificate, CertificateError};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::PrivateKeyDer;
use time::{Duration, OffsetDateTime};

/// How long it signs, and how long what it signs is valid: browsers take no longer one.
const YEARS: Duration = Duration::days(3650);
const LEAF: Duration = Duration::days(397);

/// Clocks of machines differ.
const BEFORE: Duration = Duration::days(1);

/// An authority of the gateway's own.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The cryptography failed.
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// What was made, or kept, cannot be used.
    #[error("{0}")]
    Unusable(#[from] CertificateError),
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// Fails where the machine has no random numbers.
    pub fn generate() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "vers-gateway development authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = validity(YEARS);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Takes up one that was kept: its certificate and its key.
    ///
    /// # Errors
    /// Fails where they cannot be read or do not fit together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        // It is read as any other, so that a mismatch is found here and not by every client.
        Certificate::from_pem(certificate.as_bytes(), key.as_bytes())?;
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        Ok(Self { issuer, certificate: certificate.to_owned() })
    }

    /// The authority's certificate, for who is to trust it.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key, to be kept.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Signs a new certificate for these names: host names, `*.example.com`, addresses.
    ///
    /// # Errors
    /// Fails where a name is none, or the machine has no random numbers.
    pub fn issue(&self, names: &[Box<str>]) -> Result<Certificate, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params =
            CertificateParams::new(names.iter().map(|name| (**name).to_owned()).collect::<Vec<_>>())?;
        let first = names.first().map_or("localhost", |name| name);
        params.distinguished_name.push(DnType::CommonName, first);
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = validity(LEAF);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| CertificateError::Key(error.to_owned()))?;
        Ok(Certificate::new(vec![certificate.der().clone()], key)?)
    }
}

fn validity(length: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - BEFORE, now + length - BEFORE)
}
