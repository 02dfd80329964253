//! A client's connection over TLS.
//!
//! rustls gets what came, and gives what is to go, in the worker's own buffers: a connection that
//! carries nothing holds none, and a read or a write is one system call for many records.

use super::{
    Asked, Identity,
    hello::first_protocol,
    issued::ACME,
    names,
    terminator::{HTTP1, HTTP2},
};
use crate::io::{BUFFER_SIZE, Buffers, Stream};
use rustls::{
    Error, ServerConfig,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic},
};
use socket2::SockRef;
use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes that are encrypted at a time: as many as fit into a buffer with all that TLS adds.
const MOST_AT_A_TIME: usize = BUFFER_SIZE - BUFFER_SIZE.div_ceil(RECORD) * RECORD_OVERHEAD;

/// Bytes in a record, at most (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;

/// What a record has beside its bytes, at most: header, explicit nonce, content type, tag.
const RECORD_OVERHEAD: usize = 5 + 8 + 1 + 16;

/// What a client may send before something of it makes sense: room for a chain of certificates.
const MOST_OF_A_HANDSHAKE: usize = 32 * 1024;

/// Bytes of a record from which on the next one is taken to be as large: whoever sends much fills records.
const ALIKE: usize = 4 * 1024;

/// The first byte of what a TLS client sends first (RFC 8446 §5.1).
const CONTENT_TYPE_HANDSHAKE: u8 = 22;

/// A client's connection over TLS.
pub struct ServerStream {
    socket: TcpStream,
    tls: UnbufferedServerConnection,
    buffers: Rc<Buffers>,
    asked: Option<Asked>,
    /// What came of a record that is not whole yet.
    partial: Vec<u8>,
    /// Bytes of the last record that had many, with all that TLS adds.
    record: usize,
    /// What was decrypted and nobody has read yet, and how much of the first piece somebody has.
    plain: VecDeque<Vec<u8>>,
    read: usize,
    /// What is encrypted and has not left yet.
    out: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    has_begun: bool,
    /// Whether rustls is done with something that came, or has said something.
    has_moved: bool,
    is_closed_by_client: bool,
    is_closed_by_us: bool,
    failed: Option<Error>,
}

/// Why a connection brings nothing more.
pub(super) enum Trouble {
    /// What came first is not of TLS.
    NotTls,
    /// TLS was broken, or nothing could be agreed on.
    Tls(Error),
    /// The client left without a word.
    Gone,
    /// The connection failed.
    Io(io::Error),
}

impl ServerStream {
    pub(super) fn new(
        config: Arc<ServerConfig>,
        socket: TcpStream,
        buffers: Rc<Buffers>,
    ) -> Result<Self, Error> {
        Ok(Self {
            socket,
            tls: UnbufferedServerConnection::new(config)?,
            buffers,
            asked: None,
            partial: Vec::new(),
            record: 0,
            plain: VecDeque::new(),
            read: 0,
            out: None,
            start: 0,
            end: 0,
            has_begun: false,
            has_moved: false,
            is_closed_by_client: false,
            is_closed_by_us: false,
            failed: None,
        })
    }

    /// The name that the client asked for, in lower case.
    pub fn server_name(&self) -> Option<&str> {
        self.asked.as_ref()?.name.as_deref()
    }

    /// Whether HTTP/2 was agreed on (RFC 7301).
    pub fn speaks_http2(&self) -> bool {
        self.tls.alpn_protocol() == Some(HTTP2)
    }

    /// Whether HTTP/1.1 or HTTP/2 was agreed on.
    pub fn speaks_http(&self) -> bool {
        self.speaks_http2() || self.tls.alpn_protocol() == Some(HTTP1)
    }

    /// Whether the client is an authority that looked for a proof, and wants nothing else (RFC 8737 §3).
    pub fn was_for_proof(&self) -> bool {
        self.tls.alpn_protocol() == Some(ACME)
    }

    /// The certificate that the client showed, where it did, and what that says.
    pub fn identity(&self) -> Option<Identity> {
        self.tls.peer_certificates()?.first().map(Identity::new)
    }

    /// Whether an earlier session goes on.
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// What is beneath.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Whether there was no certificate for what the client asked for.
    pub(super) fn is_name_unknown(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.is_unknown)
    }

    /// The protocol that the client would like best, where it was refused for want of a common one and
    /// [`Self::begin_again`] can mend that.
    pub(super) fn refused_protocol(&self) -> Option<Vec<u8>> {
        let is_refused = self.failed == Some(Error::NoApplicationProtocol);
        first_protocol(&self.partial).filter(|protocol| is_refused && protocol != ACME)
    }

    /// Reads the client's first message once more, by another configuration: nothing was answered yet.
    pub(super) fn begin_again(&mut self, config: Arc<ServerConfig>) -> Result<(), Trouble> {
        self.tls = UnbufferedServerConnection::new(config).map_err(Trouble::Tls)?;
        (self.start, self.end, self.failed) = (0, 0, None);
        self.release();
        let mut hello = std::mem::take(&mut self.partial);
        self.take_in(&mut hello, &mut ReadBuf::new(&mut []))
    }

    /// Tells the client, as far as that does not need waiting, that this is the end (RFC 8446 §6.1): what
    /// it has got is not cut off.
    pub fn say_goodbye(&mut self) {
        // A client that takes nothing now learns less than it could.
        if self.queue_close_notify().is_ok() {
            self.send_now();
        }
    }

    /// Sends what the socket takes at once.
    pub(super) fn send_now(&mut self) {
        let waiting = self.out.as_deref().and_then(|block| block.get(self.start..self.end));
        if let Some(Ok(sent)) = waiting.map(|waiting| self.socket.try_write(waiting)) {
            self.start += sent;
        }
        self.release();
    }

    /// Ready once both sides have agreed on everything.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        loop {
            if !self.tls.is_handshaking() {
                // A request that is there already is answered in the same breath.
                if self.plain.is_empty()
                    && let Poll::Ready(Err(error)) = self.poll_send(cx)
                {
                    return Poll::Ready(Err(Trouble::Io(error)));
                }
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_send(cx)).map_err(Trouble::Io)?;
            ready!(self.poll_more(cx, &mut ReadBuf::new(&mut [])))?;
            // One that is done with the handshake may have said all that it has to say in the same breath.
            if self.is_closed_by_client && self.tls.is_handshaking() {
                return Poll::Ready(Err(Trouble::Gone));
            }
        }
    }

    /// Reads once from the socket, and decrypts what is whole.
    fn poll_more(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<(), Trouble>> {
        let mut block = self.buffers.take();
        let held = self.partial.len();
        if let Some(front) = block.get_mut(..held) {
            front.copy_from_slice(&self.partial);
        }
        let most = match self.record {
            _ if self.tls.is_handshaking() => MOST_OF_A_HANDSHAKE,
            0 => block.len(),
            // In bulk, records are alike. Of one that ends in the next block, the part in this one would be
            // copied twice.
            record => block.len() / record * record,
        };
        // None at all where a client sends something larger than anything can be: that is its end.
        let mut space = ReadBuf::new(block.get_mut(held..most).unwrap_or_default());
        let polled = Pin::new(&mut self.socket).poll_read(cx, &mut space);
        let read = space.filled().len();
        let result = match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(Trouble::Io(error))),
            Poll::Ready(Ok(())) if read == 0 => Poll::Ready(Err(Trouble::Gone)),
            Poll::Ready(Ok(())) => {
                let came = block.get_mut(..held + read).unwrap_or_default();
                Poll::Ready(self.take_in(came, into))
            }
        };
        self.buffers.put(block);
        result
    }

    fn take_in(&mut self, came: &mut [u8], into: &mut ReadBuf<'_>) -> Result<(), Trouble> {
        if !self.has_begun {
            self.has_begun = true;
            if came.first() != Some(&CONTENT_TYPE_HANDSHAKE) {
                return Err(Trouble::NotTls);
            }
        }
        let (used, result) = self.advance(came, into);
        // Each time: a client that is asked to try again (RFC 8446 §4.1.4) asks twice, and what it leaves
        // there would be the next one's.
        if let Some(asked) = names::asked() {
            self.asked = Some(asked);
        }
        let is_first = !self.has_moved;
        self.has_moved |= used > 0 || self.end > 0;
        if let Err(error) = result {
            // What was refused may be begun again.
            self.partial =
                if is_first && error == Error::NoApplicationProtocol { came.to_vec() } else { Vec::new() };
            self.encode_last_words(came.get_mut(used..).unwrap_or_default());
            self.failed = Some(error.clone());
            return Err(Trouble::Tls(error));
        }
        let left = came.get_mut(used..).unwrap_or_default();
        // rustls has looked into it and remembers places in it, so it must come again as it is now.
        if left.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(left);
        }
        Ok(())
    }

    /// Encodes what is still to be said after an error, why there is one among it. rustls must not look
    /// at what came once more.
    fn encode_last_words(&mut self, came: &mut [u8]) {
        while self.tls.wants_write() {
            let UnbufferedStatus { state, .. } = self.tls.process_tls_records(came);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { return };
            let block = self.out.get_or_insert_with(|| self.buffers.take());
            let Ok(encoded) = data.encode(block.get_mut(self.end..).unwrap_or_default()) else { return };
            self.end += encoded;
        }
    }

    /// Lets rustls work on what came, until it needs more. Returns how much of that it is done with.
    fn advance(&mut self, came: &mut [u8], into: &mut ReadBuf<'_>) -> (usize, Result<(), Error>) {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.tls.process_tls_records(came.get_mut(used..).unwrap_or_default());
            let mut is_done = false;
            match state {
                Err(error) => return (used + discard, Err(error)),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    self.record = if discard >= ALIKE { discard } else { 0 };
                    while let Some(record) = traffic.next_record() {
                        let record = match record {
                            Ok(record) => record,
                            Err(error) => return (used + discard, Err(error)),
                        };
                        discard += record.discard;
                        let fits = if self.plain.is_empty() {
                            into.remaining().min(record.payload.len())
                        } else {
                            0
                        };
                        let (now, later) = record.payload.split_at_checked(fits).unwrap_or_default();
                        into.put_slice(now);
                        if !later.is_empty() {
                            self.plain.push_back(later.to_vec());
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let block = self.out.get_or_insert_with(|| self.buffers.take());
                    match data.encode(block.get_mut(self.end..).unwrap_or_default()) {
                        Ok(encoded) => self.end += encoded,
                        Err(EncodeError::AlreadyEncoded) => {}
                        // A client that makes work and reads no answers.
                        Err(EncodeError::InsufficientSize(_)) => {
                            return (used + discard, Err(Error::General("too much to answer".to_owned())));
                        }
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_closed_by_client = true,
                Ok(_) => is_done = true,
            }
            used += discard;
            if is_done {
                return (used, Ok(()));
            }
        }
    }

    /// Encrypts behind what waits to leave. There must be room.
    fn encrypt(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(|traffic, space| traffic.encrypt(bytes, space))
    }

    fn queue_close_notify(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_closed_by_us, true) {
            return Ok(());
        }
        self.put(|traffic, space| traffic.queue_close_notify(space))
    }

    /// Brings rustls to where it takes something to encrypt, and puts that behind what waits to leave.
    fn put(
        &mut self,
        with: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        if self.failed.is_some() {
            return Err(broken_pipe());
        }
        let mut partial = std::mem::take(&mut self.partial);
        let (mut used, result) = self.advance(&mut partial, &mut ReadBuf::new(&mut []));
        if let Err(error) = result {
            self.failed = Some(error.clone());
            return Err(invalid(error));
        }
        let block = self.out.get_or_insert_with(|| self.buffers.take());
        let space = block.get_mut(self.end..).unwrap_or_default();
        let rest = partial.get_mut(used..).unwrap_or_default();
        let UnbufferedStatus { discard, state } = self.tls.process_tls_records(rest);
        let put = match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                with(&mut traffic, space).map_err(io::Error::other)
            }
            _ => Err(broken_pipe()),
        };
        used += discard;
        partial.drain(..used.min(partial.len()));
        self.partial = partial;
        self.end += put?;
        Ok(())
    }

    /// Bytes that can be encrypted behind what waits.
    fn room(&self) -> usize {
        if self.is_clear() { MOST_AT_A_TIME } else { MOST_AT_A_TIME.saturating_sub(self.end) }
    }

    fn is_clear(&self) -> bool {
        self.start == self.end
    }

    fn release(&mut self) {
        if self.is_clear() {
            (self.start, self.end) = (0, 0);
            if let Some(block) = self.out.take() {
                self.buffers.put(block);
            }
        }
    }

    /// Sends what waits. Ready once nothing does.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_clear() {
            let waiting =
                self.out.as_deref().and_then(|block| block.get(self.start..self.end)).unwrap_or_default();
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, waiting))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += sent;
        }
        self.release();
        Poll::Ready(Ok(()))
    }

    /// Hands out what was decrypted.
    fn deliver(&mut self, into: &mut ReadBuf<'_>) {
        while let Some(piece) = self.plain.front() {
            let rest = piece.get(self.read..).unwrap_or_default();
            let fits = rest.len().min(into.remaining());
            into.put_slice(rest.get(..fits).unwrap_or_default());
            if fits < rest.len() {
                self.read += fits;
                return;
            }
            self.read = 0;
            self.plain.pop_front();
        }
        self.plain = VecDeque::new();
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn broken_pipe() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Stream for ServerStream {
    fn reset(&self) {
        // A socket on which this fails is dead already, and the other side knows.
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if !this.plain.is_empty() {
                this.deliver(into);
            }
            if into.filled().len() > before || this.is_closed_by_client {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = &this.failed {
                return Poll::Ready(Err(invalid(error.clone())));
            }
            match this.poll_more(cx, into) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Trouble::Io(error))) => return Poll::Ready(Err(error)),
                // RFC 8446 §6.1: whoever stands between them could have cut it off.
                Poll::Ready(Err(Trouble::Gone)) => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Err(Trouble::NotTls)) => return Poll::Ready(Err(broken_pipe())),
                Poll::Ready(Err(Trouble::Tls(error))) => {
                    this.send_now();
                    return Poll::Ready(Err(invalid(error)));
                }
                Poll::Pending => {
                    // The handshake's last words, or an answer to a change of keys: nobody else sends
                    // them while there is nothing to write.
                    if let Poll::Ready(Err(error)) = this.poll_send(cx) {
                        return Poll::Ready(Err(error));
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.room() < bytes.len() {
            ready!(this.poll_send(cx))?;
        }
        let bytes = bytes.get(..this.room()).unwrap_or(bytes);
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.encrypt(bytes)?;
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What has not left leaves later.
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Pieces of a message leave in one record, so they are put together first.
        let buffers = Rc::clone(&self.buffers);
        let mut block = buffers.take();
        let mut gathered = 0;
        for slice in slices {
            let space = block.get_mut(gathered..MOST_AT_A_TIME).unwrap_or_default();
            let fits = space.len().min(slice.len());
            if let (Some(space), Some(slice)) = (space.get_mut(..fits), slice.get(..fits)) {
                space.copy_from_slice(slice);
            }
            gathered += fits;
        }
        let written = self.poll_write(cx, block.get(..gathered).unwrap_or_default());
        buffers.put(block);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // What waits has its place in front of the last word.
        ready!(this.poll_send(cx))?;
        this.queue_close_notify()?;
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

impl fmt::Debug for ServerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}
