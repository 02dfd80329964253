//! TLS towards the clients of a listener.

use super::{Certificates, ServerStream, provider};
use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, ProducesTickets},
    version::{TLS12, TLS13},
};
use std::{io, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

/// HTTP/2, as it is agreed on (RFC 9113 §3.2).
pub(super) const HTTP2: &[u8] = b"h2";

/// HTTP/1.1, as it is agreed on.
const HTTP1: &[u8] = b"http/1.1";

/// What a listener carries: which protocols are agreed on (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// HTTP/2 where the client has it, else HTTP/1.1.
    Requests,
    /// What is spoken is between the client and the backend, which is not asked.
    Bytes,
}

/// What a listener needs to speak TLS.
#[derive(Debug)]
pub struct Terminator {
    of_requests: Arc<ServerConfig>,
    of_bytes: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
}

/// The keys of session tickets (RFC 5077, RFC 8446 §4.6.1): a client that comes back needs no full
/// handshake, on whichever worker. New keys are made every six hours, and old ones count as long.
#[derive(Debug, Clone)]
pub struct Tickets(Arc<dyn ProducesTickets>);

/// Why there is no secured connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// What the client sent first is something else, probably HTTP.
    #[error("the client does not speak TLS")]
    NotTls(TcpStream),
    /// No certificate for the name that the client asked for, and no default.
    #[error("no certificate for {0:?}")]
    UnknownName(Option<String>),
    /// The client left.
    #[error("the client left")]
    Gone,
    /// They could not agree, or what came was malformed.
    #[error("{0}")]
    Failed(#[source] rustls::Error),
    /// The connection failed.
    #[error("{0}")]
    Io(#[source] io::Error),
}

impl Tickets {
    /// New keys.
    ///
    /// # Errors
    /// Fails where the machine has no random numbers.
    pub fn new() -> io::Result<Self> {
        rustls::crypto::aws_lc_rs::Ticketer::new().map(Self).map_err(io::Error::other)
    }
}

impl Terminator {
    /// Shows these certificates; sessions go on by these tickets.
    ///
    /// # Errors
    /// Fails where the cryptography cannot do what is asked of it.
    pub fn new(certificates: Arc<Certificates>, tickets: &Tickets) -> io::Result<Self> {
        let resolver: Arc<Certificates> = Arc::clone(&certificates);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.ticketer = Arc::clone(&tickets.0);
        // Tickets are all there is to sessions: nothing is kept for a client that may never come back.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = vec![HTTP1.to_vec()];
        let of_bytes = Arc::new(config.clone());
        // The preferred one first.
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Self { of_requests: Arc::new(config), of_bytes, certificates })
    }

    /// Shakes hands. Who calls this sets the deadline.
    ///
    /// # Errors
    /// Fails where that is not done as it should; the client was told why, where TLS has words for it.
    pub async fn accept(&self, stream: TcpStream, carries: Carries) -> Result<ServerStream, HandshakeError> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(0) => return Err(HandshakeError::Gone),
            Ok(_) if first != [CONTENT_TYPE_HANDSHAKE] => return Err(HandshakeError::NotTls(stream)),
            Ok(_) => {}
            Err(error) => return Err(HandshakeError::Io(error)),
        }
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let start = start.await.map_err(failed)?;
        let name = start.client_hello().server_name().map(str::to_owned);
        if !self.certificates.has(name.as_deref()) {
            // Best effort: the socket's buffer is empty, and the client leaves either way.
            let _ = start.io.try_write(&UNRECOGNIZED_NAME);
            return Err(HandshakeError::UnknownName(name));
        }
        let config = match carries {
            Carries::Requests => &self.of_requests,
            Carries::Bytes => &self.of_bytes,
        };
        let stream = start.into_stream(Arc::clone(config)).await.map_err(failed)?;
        Ok(ServerStream::new(stream))
    }
}

/// The first byte of what a TLS client sends first (RFC 8446 §5.1).
const CONTENT_TYPE_HANDSHAKE: u8 = 22;

/// The fatal alert `unrecognized_name` (RFC 6066 §3, RFC 8446 §6), before there are any keys.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

fn failed(error: io::Error) -> HandshakeError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => return HandshakeError::Gone,
        io::ErrorKind::InvalidData => {}
        _ => return HandshakeError::Io(error),
    }
    match error.downcast::<rustls::Error>() {
        Ok(error) => HandshakeError::Failed(error),
        Err(error) => HandshakeError::Io(error),
    }
}
