//! The TLS handshake of a connection: in its own task, with a deadline, and not too many at a time.

use super::{
    answer,
    arrival::Arrival,
    conn::{LINGER, linger},
    stream::ClientStream,
    worker::Worker,
};
use crate::{
    headers::ClientCertificate,
    metrics::Counter,
    snapshot::{Listener, Mode},
    tls::{Carries, HandshakeError, Identity, Terminator},
};
use std::{cell::Cell, rc::Rc};
use tokio::{net::TcpStream, time::timeout};

/// How a handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handshake {
    /// Done as a whole.
    Full,
    /// An earlier session goes on.
    Resumed,
    /// Not within the listener's time.
    Late,
    /// Not begun: too many are under way.
    Busy,
    /// What the client sent is something else, probably HTTP.
    NotTls,
    /// No certificate for the name that the client asked for.
    UnknownName,
    /// The client left.
    Gone,
    /// The client showed no certificate where it must, or one that does not count.
    Certificate,
    /// They could not agree, or what came was malformed.
    Failed,
}

impl Handshake {
    const ALL: [Self; 9] = [
        Self::Full,
        Self::Resumed,
        Self::Late,
        Self::Busy,
        Self::NotTls,
        Self::UnknownName,
        Self::Gone,
        Self::Certificate,
        Self::Failed,
    ];

    /// As it is printed.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Late => "late",
            Self::Busy => "busy",
            Self::NotTls => "not-tls",
            Self::UnknownName => "unknown-name",
            Self::Gone => "gone",
            Self::Certificate => "client-certificate",
            Self::Failed => "failed",
        }
    }
}

/// A worker's handshakes: how many are under way, and how they ended.
#[derive(Debug)]
pub(super) struct Handshakes {
    running: Cell<usize>,
    counters: [Counter; Handshake::ALL.len()],
}

impl Handshakes {
    pub(super) fn from_fn(counter: impl FnMut(Handshake) -> Counter) -> Self {
        Self { running: Cell::new(0), counters: Handshake::ALL.map(counter) }
    }

    fn count(&self, how: Handshake) {
        let at = Handshake::ALL.iter().position(|known| *known == how);
        if let Some(counter) = at.and_then(|at| self.counters.get(at)) {
            counter.inc();
        }
    }

    fn begin(&self, limit: usize) -> Option<Running<'_>> {
        (self.running.get() < limit).then(|| {
            self.running.set(self.running.get() + 1);
            Running(&self.running)
        })
    }
}

/// One handshake, until it is dropped.
struct Running<'a>(&'a Cell<usize>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Shakes hands with a client, and notes what it said about itself. None where that came to nothing:
/// the client was told then, as far as it could be.
pub(super) async fn secure(
    stream: TcpStream,
    tls: &Terminator,
    listener: &Listener,
    limit: usize,
    arrival: &mut Arrival,
    worker: &Worker,
) -> Option<ClientStream> {
    let handshakes = &worker.handshakes;
    let Some(running) = handshakes.begin(limit) else {
        handshakes.count(Handshake::Busy);
        return None;
    };
    let carries = match listener.modes.of(arrival.port) {
        Mode::Http(_) => Carries::Requests,
        Mode::Any(kinds) if kinds.has_requests() => Carries::Anything,
        Mode::Tcp(_) | Mode::Any(_) => Carries::Bytes,
    };
    let accepting = tls.accept(stream, carries, Rc::clone(&worker.buffers));
    let result = timeout(listener.handshake_deadline, accepting).await;
    drop(running);
    let how = match &result {
        Ok(Ok(stream)) if stream.is_resumed() => Handshake::Resumed,
        Ok(Ok(_)) => Handshake::Full,
        Err(_) => Handshake::Late,
        Ok(Err(error)) => {
            tracing::debug!(listener = listener.name, client = %arrival.peer, %error, "no TLS handshake");
            match error {
                HandshakeError::NotTls(_) => Handshake::NotTls,
                HandshakeError::UnknownName(_) => Handshake::UnknownName,
                HandshakeError::Gone | HandshakeError::Io(_) => Handshake::Gone,
                HandshakeError::Certificate(_) => Handshake::Certificate,
                HandshakeError::Failed(_) => Handshake::Failed,
            }
        }
    };
    handshakes.count(how);
    match result {
        Ok(Ok(mut stream)) if stream.was_for_proof() => {
            stream.say_goodbye();
            None
        }
        Ok(Ok(stream)) => {
            arrival.sni = stream.server_name().map(Box::from);
            arrival.certificate = stream.identity().map(|identity| {
                let Identity { der, sha256, subject, dns, uris } = identity;
                Rc::new(ClientCertificate::new(&der, &sha256, &subject, &dns, &uris))
            });
            Some(ClientStream::Tls(Box::new(stream)))
        }
        Ok(Err(HandshakeError::NotTls(stream))) => {
            // Best effort: the socket's buffer is empty.
            let _ = stream.try_write(answer::PLAIN_HTTP_ON_TLS);
            linger(&mut ClientStream::Plain(stream), worker, LINGER).await;
            None
        }
        _ => None,
    }
}
