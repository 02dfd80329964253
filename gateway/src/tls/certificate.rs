//! A certificate with its key, read and found to fit together.

use super::{
    ocsp::{self, OcspError, Response},
    provider,
};
use rustls::{
    InconsistentKeys, SignatureAlgorithm,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

/// A certificate with its key and the certificates up to its authority.
#[derive(Debug)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    ocsp: Option<Result<Ocsp, OcspError>>,
    names: Vec<Box<str>>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// The key with an OCSP response.
#[derive(Debug)]
struct Ocsp {
    key: Arc<CertifiedKey>,
    said: Response,
}

/// What a certificate's key signs with. A client may know only one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Slow to sign with, and known to every client.
    Rsa,
    /// Fast, and known to nearly every client.
    Ecdsa,
    /// Fast, and known to few.
    Ed25519,
}

impl Kind {
    /// As it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ecdsa => "ecdsa",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No PEM section with a certificate.
    #[error("it holds no certificate: no `-----BEGIN CERTIFICATE-----`")]
    NoCertificate,
    /// No PEM section with a private key.
    #[error("it holds no private key: no `-----BEGIN PRIVATE KEY-----`, nor one of RSA or EC")]
    NoKey,
    /// The key is encrypted.
    #[error("its private key is encrypted; `openssl pkey -in FILE -out NEW` decrypts it")]
    EncryptedKey,
    /// A PEM section that cannot be read.
    #[error("it is no PEM file: {0}")]
    Pem(String),
    /// What is in a section is no certificate.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// A key of a kind that is not known, or too small.
    #[error("the private key cannot be used: {0}")]
    Key(String),
    /// Certificate and key are of different pairs.
    #[error("the private key belongs to another certificate")]
    Mismatch,
}

impl Certificate {
    /// Reads a chain, its own certificate first, and the key, which may stand in the same text.
    ///
    /// # Errors
    /// Fails where one of them cannot be read, or they do not fit together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Pem(error.to_string()))?;
        let key = private_key(key)?;
        Self::new(chain, key)
    }

    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CertificateError> {
        let own = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (names, not_before, not_after) = contents(own)?;
        for issuer in chain.iter().skip(1) {
            parse(issuer)?;
        }
        let key = CertifiedKey::from_der(chain, key, provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => CertificateError::Mismatch,
            error => CertificateError::Key(error.to_string()),
        })?;
        Ok(Self { key: Arc::new(key), ocsp: None, names, not_before, not_after })
    }

    /// The same, which shows an OCSP response (RFC 6066 §8) to clients that ask for one, where it is one
    /// for this certificate and as long as it counts.
    #[must_use]
    pub fn with_ocsp(self, response: Vec<u8>) -> Self {
        let serial = self.key.cert.first().and_then(|own| Some(parse(own).ok()?.raw_serial().to_vec()));
        let ocsp = ocsp::read(&response, &serial.unwrap_or_default()).map(|said| {
            let mut key = CertifiedKey::clone(&self.key);
            key.ocsp = Some(response);
            Ocsp { key: Arc::new(key), said }
        });
        Self { ocsp: Some(ocsp), ..self }
    }

    /// What is wrong with its OCSP response, at this time; none where it has none.
    pub fn ocsp(&self, now: SystemTime) -> Option<Result<(), OcspError>> {
        let said = match self.ocsp.as_ref()? {
            Ok(ocsp) => ocsp.said,
            Err(error) => return Some(Err(error.clone())),
        };
        Some(match said.until {
            Some(until) if until <= now => Err(OcspError::Expired(until)),
            _ if said.is_revoked => Err(OcspError::Revoked),
            _ => Ok(()),
        })
    }

    /// What is shown to a client.
    pub(super) fn shown(&self) -> Arc<CertifiedKey> {
        match &self.ocsp {
            Some(Ok(Ocsp { key, said })) if said.until.is_none_or(|until| until > SystemTime::now()) => {
                Arc::clone(key)
            }
            _ => Arc::clone(&self.key),
        }
    }

    /// The names in it: host names in lower case, `*.example.com`, and addresses.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// From when on it is valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// What its key signs with.
    pub fn kind(&self) -> Kind {
        match self.key.key.algorithm() {
            SignatureAlgorithm::ED25519 => Kind::Ed25519,
            SignatureAlgorithm::ECDSA => Kind::Ecdsa,
            _ => Kind::Rsa,
        }
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    use rustls::pki_types::pem::Error;
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        Error::NoItemsFound if contains(pem, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") => {
            CertificateError::EncryptedKey
        }
        Error::NoItemsFound => CertificateError::NoKey,
        error => CertificateError::Pem(error.to_string()),
    })
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    memchr::memmem::find(text, words).is_some()
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| CertificateError::Malformed(error.to_string()))?;
    Ok(certificate)
}

type Contents = (Vec<Box<str>>, SystemTime, SystemTime);

/// The names in a certificate, and its validity.
fn contents(der: &CertificateDer<'_>) -> Result<Contents, CertificateError> {
    let certificate = parse(der)?;
    let extension = certificate
        .subject_alternative_name()
        .map_err(|error| CertificateError::Malformed(error.to_string()))?;
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into_boxed_str()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string().into()),
        _ => None,
    });
    let validity = certificate.validity();
    Ok((names.collect(), time(validity.not_before.timestamp()), time(validity.not_after.timestamp())))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn time(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}
