//! Certificates for tests, and clients that speak TLS.

use crate::{client::Raw, wait::within};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SignatureAlgorithm,
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use std::{fs, net::SocketAddr, path::Path, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// An authority for the time of a test.
#[derive(Debug)]
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate with its key, both as PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    /// A new authority.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Its certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key, as PEM.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for these names, with a key of ECDSA.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, &rcgen::PKCS_ECDSA_P256_SHA256, |_| {})
    }

    /// A certificate for these names, with a key of this kind, changed before it is signed.
    pub fn issue_with(
        &self,
        names: &[&str],
        kind: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let key = KeyPair::generate_for(kind).expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { cert: certificate.pem(), key: key.serialize_pem() }
    }

    /// A client that trusts this authority, and asks for this name.
    pub fn client(&self, name: &str) -> TlsClient {
        TlsClient::new(name, &[&self.certificate])
    }
}

impl Pair {
    /// Writes `NAME.pem` and `NAME-key.pem` into a folder.
    pub fn write(&self, folder: &Path, name: &str) {
        crate::replace(&folder.join(format!("{name}.pem")), &self.cert);
        crate::replace(&folder.join(format!("{name}-key.pem")), &self.key);
    }
}

/// The `[certificate.NAME]` of such files.
pub fn certificate_table(name: &str) -> String {
    format!("[certificate.{name}]\ncert = \"{name}.pem\"\nkey = \"{name}-key.pem\"\n")
}

/// A client that speaks TLS.
#[derive(Debug, Clone)]
pub struct TlsClient {
    /// How it does; clones share its sessions.
    pub config: ClientConfig,
    name: ServerName<'static>,
}

impl TlsClient {
    /// A client that asks for this name, and trusts these authorities.
    pub fn new(name: &str, authorities: &[&str]) -> Self {
        Self {
            config: config(authorities, &[&TLS13, &TLS12], None),
            name: ServerName::try_from(name.to_owned()).expect("a name"),
        }
    }

    /// The same for another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = ServerName::try_from(name.to_owned()).expect("a name");
        self
    }

    /// The same, in another configuration.
    #[must_use]
    pub fn configured(self, config: ClientConfig) -> Self {
        Self { config, ..self }
    }

    /// The same with these protocols (RFC 7301).
    #[must_use]
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// Fails as the handshake does.
    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        self.over(within("a connection", TcpStream::connect(address)).await?).await
    }

    /// Shakes hands over a connection that is there already.
    ///
    /// # Errors
    /// Fails as the handshake does.
    pub async fn over(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        within("a TLS handshake", connector.connect(self.name.clone(), stream)).await
    }

    /// Shakes hands, and then sends bytes as they are.
    pub async fn raw(&self, address: SocketAddr) -> Raw<TlsStream<TcpStream>> {
        Raw::over(self.connect(address).await.expect("a TLS connection"))
    }
}

/// A client's configuration: these authorities and versions, and a certificate of its own.
pub fn config(
    authorities: &[&str],
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<&Pair>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        let certificate = CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate");
        roots.add(certificate).expect("an authority");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes()).collect::<Result<_, _>>();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(chain.expect("certificates"), key).expect("an identity")
        }
    }
}

/// The certificate that a server showed, as PEM files have it.
pub fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let (_, session) = stream.get_ref();
    session.peer_certificates().and_then(<[_]>::first).expect("a certificate").clone().into_owned()
}

/// The certificate of a PEM text.
pub fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

/// A file's text.
pub fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
