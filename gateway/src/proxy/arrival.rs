//! Who a connection is from and what it asked for: by the socket, by the redirect rule that it came
//! through, or by the header of the proxy in front. The one place that finds out.

use super::worker::Worker;
use crate::{
    config::ProxyProtocol,
    headers::ClientCertificate,
    ids::ClientAddr,
    proxy_protocol::{self, BadHeader, Begins, Ends},
    snapshot::Listener,
};
use std::{
    cell::OnceCell,
    io,
    net::{Ipv6Addr, SocketAddr},
    rc::Rc,
};
use tokio::{io::Interest, net::TcpStream, time::timeout};

/// What is known of a connection before anything is asked over it.
#[derive(Debug)]
pub struct Arrival {
    /// Who the client is: the other end of the socket, or the one that a trusted proxy tells of.
    pub peer: ClientAddr,
    /// The proxy that tells so, if one does. Apart: each idle connection has one of these.
    proxy: Option<Box<ClientAddr>>,
    /// The port that it asked for.
    pub port: u16,
    /// The client's port, of its end.
    pub client_port: u16,
    /// The client's end, and the one that it connected to, once that was asked for: few want to know.
    ends: OnceCell<Box<Ends>>,
    /// Whether that is what a proxy says.
    pub is_proxied: bool,
    /// Whether it speaks TLS with this gateway.
    pub is_tls: bool,
    /// The name that it asked for in the TLS handshake, in lower case.
    pub sni: Option<Box<str>>,
    /// The certificate that it showed there.
    pub certificate: Option<Rc<ClientCertificate>>,
}

/// Why a connection ends before it begins.
#[derive(Debug, thiserror::Error)]
pub enum NoArrival {
    /// The listener wants a header, and believes it from others only.
    #[error("it must begin with a PROXY header, and comes from no trusted proxy")]
    Untrusted,
    /// It begins with something else.
    #[error("it must begin with a PROXY header, and does not")]
    Missing,
    /// It begins with what is no header.
    #[error(transparent)]
    Bad(#[from] BadHeader),
    /// There was no header in time.
    #[error("its PROXY header did not come in time")]
    Late,
    /// It is gone.
    #[error("it broke off: {0}")]
    Gone(#[from] io::Error),
}

impl Arrival {
    /// Finds out, and reads nothing beyond the header. The connection is from this peer, and came in by this port.
    ///
    /// # Errors
    /// Fails where the listener wants a header, and what there is of one cannot be believed.
    pub async fn of(
        stream: &TcpStream,
        (peer, port): (SocketAddr, u16),
        listener: &Listener,
        worker: &Worker,
    ) -> Result<Self, NoArrival> {
        let own = || match listener.original_destination {
            true => Self::between(Ends { source: peer, destination: destination(stream) }, None),
            false => Self::by(peer, port),
        };
        let is_trusted = || listener.trusts(ClientAddr::from(peer).ip());
        match listener.proxy_protocol {
            ProxyProtocol::Off => return Ok(own()),
            ProxyProtocol::Accept if !is_trusted() => return Ok(own()),
            ProxyProtocol::Require if !is_trusted() => return Err(NoArrival::Untrusted),
            ProxyProtocol::Accept | ProxyProtocol::Require => {}
        }
        let mut buffer = worker.buffers.take();
        // In a place of its own: few connections begin with one.
        let read = Box::pin(timeout(listener.proxy_deadline, header(stream, &mut buffer))).await;
        worker.buffers.put(buffer);
        match read.map_err(|_| NoArrival::Late)?? {
            Header::Of(ends) => Ok(Self::between(ends, Some(peer.into()))),
            Header::Own => Ok(own()),
            Header::None if listener.proxy_protocol == ProxyProtocol::Accept => Ok(own()),
            Header::None => Err(NoArrival::Missing),
        }
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// The other end of the socket.
    pub(super) fn neighbour(&self) -> ClientAddr {
        self.proxy.as_deref().copied().unwrap_or(self.peer)
    }

    /// The client's end, and the one that it connected to: told before, or by this socket.
    pub(super) fn ends(&self, socket: Option<&TcpStream>) -> &Ends {
        self.ends.get_or_init(|| {
            let source = SocketAddr::new(self.peer.ip(), self.client_port);
            let own = socket.and_then(|socket| socket.local_addr().ok());
            let destination = own.unwrap_or_else(|| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port));
            Box::new(Ends { source, destination })
        })
    }

    /// Of a connection that came from there, in by this port.
    fn by(peer: SocketAddr, port: u16) -> Self {
        Self {
            peer: peer.into(),
            proxy: None,
            port,
            client_port: peer.port(),
            ends: OnceCell::new(),
            is_proxied: false,
            is_tls: false,
            sni: None,
            certificate: None,
        }
    }

    /// Of one between these ends, by what a proxy or a redirect rule says.
    fn between(ends: Ends, proxy: Option<ClientAddr>) -> Self {
        let (is_proxied, proxy) = (proxy.is_some(), proxy.map(Box::new));
        let ways = Self::by(ends.source, ends.destination.port());
        Self { proxy, is_proxied, ends: OnceCell::from(Box::new(ends)), ..ways }
    }
}

enum Header {
    Of(Ends),
    /// The proxy speaks for itself.
    Own,
    None,
}

/// Reads a header, and leaves everything else where it is: whoever comes next finds the connection as
/// its client has begun it.
async fn header(stream: &TcpStream, buffer: &mut [u8]) -> Result<Header, NoArrival> {
    let mut seen = 0;
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let peeked = stream.try_io(Interest::READABLE, || {
            let space = buffer.get_mut(..proxy_protocol::LONGEST).unwrap_or_default();
            let (_, bytes) = rustix::net::recv(stream, space, rustix::net::RecvFlags::PEEK)?;
            // What was seen already is no news; the next byte is.
            if bytes == seen && bytes > 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(bytes) }
        });
        seen = match peeked {
            Ok(bytes @ 1..) => bytes,
            // With its end there, a socket is readable for ever, and there is no next byte.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ready.is_read_closed() => continue,
            Ok(_) | Err(_) if ready.is_read_closed() => {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            Ok(_) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Err(error) => return Err(error.into()),
        };
        match proxy_protocol::parse(buffer.get(..seen).unwrap_or_default())? {
            Begins::Unfinished => {}
            Begins::Otherwise => return Ok(Header::None),
            Begins::Header { length, ends } => {
                // All of it has come.
                let header = buffer.get_mut(..length).unwrap_or_default();
                let read = stream.try_read(header)?;
                debug_assert_eq!(read, length, "what was there is there");
                return Ok(ends.map_or(Header::Own, Header::Of));
            }
        }
    }
}

/// Where the client connected to, before any redirect rule.
fn destination(stream: &TcpStream) -> SocketAddr {
    // TPROXY changes nothing, so there the socket's own address is the one.
    let own = || stream.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    before_redirect(stream).unwrap_or_else(own)
}

#[cfg(target_os = "linux")]
fn before_redirect(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    // A socket for both families has its rule in one of them.
    let original = socket.original_dst_v6().or_else(|_| socket.original_dst_v4());
    original.ok()?.as_socket()
}

#[cfg(not(target_os = "linux"))]
fn before_redirect(_: &TcpStream) -> Option<SocketAddr> {
    None
}
