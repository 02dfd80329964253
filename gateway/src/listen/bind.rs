//! One listening address: a socket for each worker, all on the same port.

use super::Clients;
use crate::io::Seldom;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;

/// A listening address.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens; the port is the real one where 0 was asked for.
    pub address: SocketAddr,
    /// Connections open on all workers.
    pub open: AtomicUsize,
    /// The same, by client, where that has a limit.
    pub clients: Arc<Clients>,
    /// Failed accepts, on all workers.
    pub trouble: Seldom,
    /// What the operator should know: IPv6 is off, say.
    pub warning: Option<String>,
    sockets: Mutex<Vec<Option<TcpListener>>>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("the port is in use; `ss -ltnp 'sport = :{port}'` tells by whom")]
    InUse {
        /// The port.
        port: u16,
    },
    /// Ports below 1024 are for root, or for who has the capability.
    #[error("no permission; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE")]
    Denied,
    /// No interface of this machine has the address.
    #[error("no interface of this machine has this address")]
    NotHere,
    /// Anything else.
    #[error("{0}")]
    Other(#[source] io::Error),
}

impl BindError {
    /// What it means that this port could not be bound.
    pub fn of(error: io::Error, port: u16) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { port },
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::AddrNotAvailable => Self::NotHere,
            _ => Self::Other(error),
        }
    }
}

impl Bound {
    /// A worker's socket; each worker takes its own once.
    pub fn take(&self, worker: usize) -> Option<TcpListener> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).get_mut(worker)?.take()
    }
}

/// Binds one address for all workers. `[::]` takes IPv4 clients too; where the machine has no IPv6,
/// `0.0.0.0` stands in for it, with a warning.
///
/// # Errors
/// Fails where the address is taken, forbidden or not this machine's.
pub fn bind(requested: SocketAddr, workers: usize) -> Result<Bound, BindError> {
    bind_port(requested, workers, Port::Free)
}

/// As [`bind`], where this gateway listens on the port already, on another address: `[::]:8080`
/// beside `0.0.0.0:8080`, which a reload is about to end.
///
/// # Errors
/// As [`bind`].
pub fn bind_beside(requested: SocketAddr, workers: usize) -> Result<Bound, BindError> {
    bind_port(requested, workers, Port::Ours)
}

/// Who is expected to have a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Free,
    Ours,
}

fn bind_port(requested: SocketAddr, workers: usize, port: Port) -> Result<Bound, BindError> {
    match bind_all(requested, workers, port) {
        Err(error) if requested.ip().is_unspecified() && requested.is_ipv6() && has_no_ipv6(&error) => {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, requested.port()));
            let mut bound =
                bind_all(v4, workers, port).map_err(|error| BindError::of(error, requested.port()))?;
            bound.warning =
                Some(format!("this machine has no IPv6: listening on {v4} instead of {requested}"));
            Ok(bound)
        }
        bound => bound.map_err(|error| BindError::of(error, requested.port())),
    }
}

fn bind_all(requested: SocketAddr, workers: usize, port: Port) -> io::Result<Bound> {
    if requested.port() != 0 && port == Port::Free {
        // Sockets that share a port would share it with another gateway as well, each getting some
        // of the connections. One without that option finds out whether anybody is there.
        drop(socket(requested, Sharing::No)?);
    }
    let mut address = requested;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let socket = socket(address, Sharing::Yes)?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr()?;
        sockets.push(Some(listener));
    }
    Ok(Bound {
        address,
        open: AtomicUsize::new(0),
        clients: Arc::default(),
        trouble: Seldom::default(),
        warning: None,
        sockets: Mutex::new(sockets),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Yes,
    No,
}

fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Connections of an earlier run that linger in TIME_WAIT are no reason not to start.
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Yes {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_gets_a_socket_on_the_same_port() {
        let bound = bind("127.0.0.1:0".parse().expect("an address"), 2).expect("a free port");
        let sockets = [bound.take(0), bound.take(1)].map(|socket| socket.expect("a socket"));
        for socket in &sockets {
            assert_eq!(socket.local_addr().expect("an address"), bound.address);
        }
        assert!(bound.take(0).is_none(), "a socket is taken once");
    }

    #[test]
    fn another_gateway_on_the_port_is_noticed() {
        let first = bind("127.0.0.1:0".parse().expect("an address"), 1).expect("a free port");
        assert!(matches!(bind(first.address, 1), Err(BindError::InUse { .. })));
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        assert!(matches!(bind("192.0.2.1:0".parse().expect("an address"), 1), Err(BindError::NotHere)));
    }
}
