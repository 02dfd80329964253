//! TLS towards the clients of a listener.

use super::{Certificates, ClientAuth, ServerStream, Trouble, issued::ACME, provider};
use crate::io::Buffers;
use rustls::{
    Error, ServerConfig,
    server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use std::{future::poll_fn, io, rc::Rc, sync::Arc};
use tokio::net::TcpStream;

/// HTTP/2, as it is agreed on (RFC 9113 §3.2).
pub(super) const HTTP2: &[u8] = b"h2";

/// HTTP/1.1, as it is agreed on.
pub(super) const HTTP1: &[u8] = b"http/1.1";

/// What else is registered for ALPN and carried by TCP, HTTP/1.1, which every server of HTTP speaks, and
/// HTTP/2 for clients that have nothing else, such as those of gRPC.
const ANYTHING: [&[u8]; 20] = [
    b"postgresql",
    b"imap",
    b"pop3",
    b"managesieve",
    b"ftp",
    b"mqtt",
    b"irc",
    b"nntp",
    b"nnsp",
    b"xmpp-client",
    b"xmpp-server",
    b"sip/2",
    b"smb",
    b"tds/8.0",
    b"dot",
    b"ntske/1",
    b"sunrpc",
    b"radius/1.1",
    HTTP1,
    HTTP2,
];

/// What a listener carries: which protocols are agreed on (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// HTTP/2 where the client has it, else HTTP/1.1.
    Requests,
    /// What is spoken is between the client and the backend, which is not asked: what is registered is
    /// agreed on, as some clients insist on being answered, or else what the client would like best.
    Bytes,
    /// Requests where the client has HTTP, else bytes.
    Anything,
}

/// What a listener needs to speak TLS.
#[derive(Debug)]
pub struct Terminator {
    of_requests: Arc<ServerConfig>,
    of_bytes: Arc<ServerConfig>,
    of_anything: Arc<ServerConfig>,
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
    /// The client showed no certificate, or one that does not count.
    #[error("the client's certificate: {0}")]
    Certificate(#[source] rustls::Error),
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
    /// Shows these certificates; sessions go on by these tickets, which must not be those of a listener
    /// that lets other clients in.
    ///
    /// # Errors
    /// Fails where the cryptography cannot do what is asked of it.
    pub fn new(
        certificates: Arc<Certificates>,
        tickets: &Tickets,
        client_auth: Option<&ClientAuth>,
    ) -> io::Result<Self> {
        let has_proofs = certificates.has_proofs();
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(
                client_auth
                    .map_or_else(WebPkiClientVerifier::no_client_auth, |auth| Arc::clone(&auth.verifier)),
            )
            .with_cert_resolver(certificates);
        config.ticketer = Arc::clone(&tickets.0);
        // Tickets are all there is to sessions: nothing is kept for a client that may never come back.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A client has it only where it is an authority that looks for a proof.
        let proof: &[&[u8]] = if has_proofs { &[ACME] } else { &[] };
        // The preferred ones first.
        let mut agreeing = |protocols: &[&[u8]]| {
            config.alpn_protocols = protocols.iter().chain(proof).map(|protocol| protocol.to_vec()).collect();
            Arc::new(config.clone())
        };
        Ok(Self {
            of_requests: agreeing(&[HTTP2, HTTP1]),
            of_bytes: agreeing(&ANYTHING),
            of_anything: agreeing(&[&[HTTP2, HTTP1], &ANYTHING[..]].concat()),
        })
    }

    /// Shakes hands. Who calls this sets the deadline.
    ///
    /// # Errors
    /// Fails where that is not done as it should; the client was told why, where TLS has words for it.
    pub async fn accept(
        &self,
        socket: TcpStream,
        carries: Carries,
        buffers: Rc<Buffers>,
    ) -> Result<ServerStream, HandshakeError> {
        let config = match carries {
            Carries::Requests => &self.of_requests,
            Carries::Bytes => &self.of_bytes,
            Carries::Anything => &self.of_anything,
        };
        let stream = ServerStream::new(Arc::clone(config), socket, buffers);
        let mut stream = stream.map_err(HandshakeError::Failed)?;
        let mut result = poll_fn(|cx| stream.poll_handshake(cx)).await;
        // Where bytes are carried, it is not for this gateway to refuse a protocol that it does not know.
        if result.is_err()
            && carries != Carries::Requests
            && let Some(protocol) = stream.refused_protocol()
        {
            let mut agreeing = ServerConfig::clone(config);
            agreeing.alpn_protocols = vec![protocol];
            result = match stream.begin_again(Arc::new(agreeing)) {
                Ok(()) => poll_fn(|cx| stream.poll_handshake(cx)).await,
                Err(error) => Err(error),
            };
        }
        let error = match result {
            Ok(()) => return Ok(stream),
            Err(error) => error,
        };
        Err(match error {
            Trouble::NotTls => HandshakeError::NotTls(stream.into_socket()),
            Trouble::Gone => HandshakeError::Gone,
            Trouble::Io(error) => HandshakeError::Io(error),
            Trouble::Tls(_) if stream.is_name_unknown() => {
                let name = stream.server_name().map(str::to_owned);
                // Best effort: the socket's buffer is empty, and the client leaves either way. rustls
                // would say that access is denied.
                let _ = stream.into_socket().try_write(&UNRECOGNIZED_NAME);
                HandshakeError::UnknownName(name)
            }
            Trouble::Tls(error) => {
                stream.send_now();
                match error {
                    Error::NoCertificatesPresented | Error::InvalidCertificate(_) => {
                        HandshakeError::Certificate(error)
                    }
                    error => HandshakeError::Failed(error),
                }
            }
        })
    }
}

/// The fatal alert `unrecognized_name` (RFC 6066 §3, RFC 8446 §6), before there are any keys.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
