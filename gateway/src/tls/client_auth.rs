//! Certificates that clients show: whose count, and what they say.

use super::{CertificateError, certificate, provider};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use x509_parser::extensions::GeneralName;

/// Whose certificates clients may show, and whether they must.
#[derive(Debug, Clone)]
pub struct ClientAuth {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    key: [u8; 32],
}

/// What the certificate of a client says, which was found to be of an authority that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub der: Box<[u8]>,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// Its subject, as RFC 4514 writes it: `CN=worker,O=Example`.
    pub subject: String,
    /// Its subject's alternative names that are host names.
    pub dns: Vec<String>,
    /// Its subject's alternative names that are URIs.
    pub uris: Vec<String>,
}

impl ClientAuth {
    /// Certificates of the authorities of a PEM text.
    ///
    /// # Errors
    /// Fails where the text holds no authority's certificate.
    pub fn from_pem(authorities: &[u8], is_required: bool) -> Result<Self, CertificateError> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities) {
            let authority = authority.map_err(|error| CertificateError::Pem(error.to_string()))?;
            roots.add(authority).map_err(|error| CertificateError::Malformed(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()));
        let builder = if is_required { builder } else { builder.allow_unauthenticated() };
        let verifier = builder.build().map_err(|error| CertificateError::Malformed(error.to_string()))?;
        let mut hash = Sha256::new();
        hash.update([u8::from(is_required)]);
        hash.update(authorities);
        Ok(Self { verifier, key: hash.finalize().into() })
    }

    /// The same for two that let the same clients in.
    pub fn key(&self) -> [u8; 32] {
        self.key
    }
}

impl Identity {
    /// Reads a certificate. One that cannot be read says nothing but that it is there.
    pub(super) fn new(der: &CertificateDer<'_>) -> Self {
        let mut identity = Self {
            der: der.to_vec().into(),
            sha256: Sha256::digest(der).into(),
            subject: String::new(),
            dns: Vec::new(),
            uris: Vec::new(),
        };
        let Ok(certificate) = certificate::parse(der) else { return identity };
        identity.subject = certificate.subject().to_string();
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => identity.dns.push((*name).to_owned()),
                GeneralName::URI(uri) => identity.uris.push((*uri).to_owned()),
                _ => {}
            }
        }
        identity
    }
}
