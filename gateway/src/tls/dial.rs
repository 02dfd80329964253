//! TLS to a server that somebody named.

use super::{Connector, provider};
use crate::io::Stream;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{
        self, CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use rustls_platform_verifier::Verifier;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Whom to believe: the certificate authorities of this machine, and more.
#[derive(Debug, Clone)]
pub struct Roots(Arc<ClientConfig>);

/// Why there is nobody to believe.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// What was given is no certificate.
    #[error("no certificate in PEM: {0}")]
    Pem(String),
    /// This machine has none, and none was given.
    #[error("the root certificates of this machine cannot be used: {0}")]
    Machine(rustls::Error),
    /// What we would show cannot be shown.
    #[error("the certificate to show cannot be used: {0}")]
    Own(String),
}

/// Why there is no connection over TLS.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not in time.
    #[error("no TLS handshake within {0:?}")]
    Late(Duration),
    /// The server is not who it should be, or speaks no TLS.
    #[error("{0}")]
    Handshake(io::Error),
}

/// The name that a server's certificate must be for: a host's name or address.
#[derive(Debug, Clone)]
pub struct ServerName(pki_types::ServerName<'static>);

impl std::str::FromStr for ServerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = pki_types::ServerName::try_from(text.to_owned());
        name.map(Self).map_err(|_| format!("`{text}` is neither a host's name nor an address"))
    }
}

impl Roots {
    /// Those of this machine, and those in `pem`.
    ///
    /// # Errors
    /// Fails where neither has any, and where `pem` is not what it should be.
    pub fn with(pem: &[u8]) -> Result<Self, RootsError> {
        Self::showing(pem, None)
    }

    /// The same, of who shows a certificate itself where it is asked for one: that and its key, both PEM.
    ///
    /// # Errors
    /// Fails as [`Self::with`], and where the certificate or its key cannot be used.
    pub fn showing(pem: &[u8], own: Option<(&[u8], &[u8])>) -> Result<Self, RootsError> {
        let extra: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let extra = extra.map_err(|error| RootsError::Pem(error.to_string()))?;
        if extra.is_empty() && !pem.is_empty() {
            return Err(RootsError::Pem("there is none in it".to_owned()));
        }
        let provider = Arc::clone(provider());
        let verifier = Verifier::new_with_extra_roots(extra, Arc::clone(&provider));
        let verifier = verifier.map_err(RootsError::Machine)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(RootsError::Machine)?
            .dangerous() // Another verifier; this one asks the machine, and checks all that there is to check.
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let wrong = |error: pem::Error| RootsError::Own(error.to_string());
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
                let key = PrivateKeyDer::from_pem_slice(key).map_err(wrong)?;
                let config = config.with_client_auth_cert(chain.map_err(wrong)?, key);
                config.map_err(|error| RootsError::Own(error.to_string()))?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// Nobody is believed: for who is asked without TLS.
    ///
    /// # Errors
    /// Does not fail, but where there is no cryptography.
    pub fn none() -> Result<Self, RootsError> {
        let config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .map_err(RootsError::Machine)?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// Makes a handshake, in which the server shows that it has this name.
    ///
    /// # Errors
    /// Fails where it does not, and after `deadline`.
    pub async fn handshake(
        &self,
        name: ServerName,
        socket: TcpStream,
        deadline: Duration,
    ) -> Result<DialedStream, DialError> {
        timeout(deadline, self.agree(name, socket)).await.map_err(|_| DialError::Late(deadline))?
    }

    /// The same, which offers to speak one of these protocols (RFC 7301).
    #[must_use]
    pub fn offering(&self, protocols: &[&[u8]]) -> Self {
        let mut config = (*self.0).clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Self(Arc::new(config))
    }

    /// Makes a handshake, in which the server shows that it has this name. Takes as long as the server does.
    ///
    /// # Errors
    /// Fails where it does not, or nothing can be agreed on.
    pub async fn agree(&self, name: ServerName, socket: TcpStream) -> Result<DialedStream, DialError> {
        let connected = TlsConnector::from(Arc::clone(&self.0)).connect(name.0, socket).await;
        connected.map(DialedStream).map_err(DialError::Handshake)
    }

    /// For HTTP requests; attempts to connect end after `deadline`.
    pub fn connector(&self, deadline: Duration) -> Connector {
        self.carried_by(HttpConnector::new(), deadline)
    }

    /// The same, for connections that are silent for long: one ends where the other side has acknowledged nothing for
    /// `silence`, though it was asked to.
    pub fn lasting_connector(&self, deadline: Duration, silence: Duration) -> Connector {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_keepalive(Some(silence / 2));
        http.set_keepalive_interval(Some(silence / 4));
        http.set_keepalive_retries(Some(2));
        http.set_tcp_user_timeout(Some(silence));
        self.carried_by(http, deadline)
    }

    fn carried_by(&self, mut http: HttpConnector, deadline: Duration) -> Connector {
        http.enforce_http(false);
        http.set_connect_timeout(Some(deadline));
        let config = (*self.0).clone();
        HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http)
    }
}

/// A connection whose server is who it should be.
#[derive(Debug)]
pub struct DialedStream(TlsStream<TcpStream>);

impl DialedStream {
    /// Whether this protocol was agreed on.
    pub fn agreed_on(&self, protocol: &[u8]) -> bool {
        self.0.get_ref().1.alpn_protocol() == Some(protocol)
    }
}

impl Stream for DialedStream {
    fn reset(&self) {
        self.0.get_ref().0.reset();
    }
}

impl AsyncRead for DialedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for DialedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
