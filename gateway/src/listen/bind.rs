//! One listener: its sockets, on one port or on many, and what is counted of all of them.

use super::{Clients, files};
use crate::{
    io::Seldom,
    ports::{ListenAddress, PortSet},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
};

/// Connections that the kernel holds until they are accepted.
pub(super) const BACKLOG: i32 = 4096;

/// Ports up to which each worker has a socket of its own on each. With more, each port has one socket
/// that all workers watch: there would be as many times more of them as there are workers.
const OWN_SOCKETS: usize = if cfg!(target_os = "linux") { 64 } else { usize::MAX };

/// The sockets of a listener.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens; the port is the real one where 0 was asked for.
    pub address: ListenAddress,
    /// One for each port, in the order of the ports.
    pub sockets: Vec<Arc<BoundPort>>,
    /// What goes on there.
    pub counts: Arc<Counts>,
    /// What the operator should know: IPv6 is off, say.
    pub warning: Option<String>,
}

/// What goes on at a listener, on all workers.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections open.
    pub open: AtomicUsize,
    /// The same, by client, where that has a limit.
    pub clients: Arc<Clients>,
    /// Failed accepts.
    pub trouble: Seldom,
}

/// Where a connection came in.
#[derive(Debug, Clone, Copy)]
pub struct Entrance {
    /// As configured, by which it is known after a reload.
    pub configured: SocketAddr,
    /// The real port, where 0 was asked for.
    pub port: u16,
}

/// One port that is listened on.
#[derive(Debug)]
pub struct BoundPort {
    /// As configured, by which it is known after a reload.
    pub configured: SocketAddr,
    /// Where it listens.
    address: SocketAddr,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    /// One for each worker, all on the same port; each worker takes its own.
    Own(Mutex<Vec<Option<TcpListener>>>),
    /// One for all workers.
    Shared(TcpListener),
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("port {port} is in use; `ss -ltnp 'sport = :{port}'` tells by whom")]
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
    /// Each socket is an open file.
    #[error(
        "its {sockets} sockets are as many open files, and RLIMIT_NOFILE allows {limit}: raise it \
         (`ulimit -n`, or `LimitNOFILE=` of a service), or listen on one port with \
         `original_destination = true` behind a redirect rule"
    )]
    Files {
        /// How many are needed.
        sockets: usize,
        /// How many files may be open.
        limit: u64,
    },
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
    /// Where it listens, with the real port where 0 was asked for; the first of several.
    pub fn first(&self) -> SocketAddr {
        self.sockets.first().map_or_else(|| SocketAddr::new(self.address.ip(), 0), |socket| socket.address)
    }
}

impl BoundPort {
    /// What its connections came in by.
    pub fn entrance(&self) -> Entrance {
        Entrance { configured: self.configured, port: self.address.port() }
    }

    /// A worker's own socket, where each has one; each worker takes its own once.
    pub fn take(&self, worker: usize) -> Option<TcpListener> {
        match &self.sockets {
            Sockets::Own(sockets) => {
                sockets.lock().unwrap_or_else(PoisonError::into_inner).get_mut(worker)?.take()
            }
            Sockets::Shared(_) => None,
        }
    }

    /// The socket of all workers, where there is only one.
    pub fn shared(&self) -> Option<&TcpListener> {
        match &self.sockets {
            Sockets::Own(_) => None,
            Sockets::Shared(socket) => Some(socket),
        }
    }
}

/// What a listener is bound with.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// How many workers accept on it.
    pub workers: usize,
    /// Whether connections to other addresses come here by TPROXY.
    pub transparent: bool,
    /// The listeners that are there already.
    pub present: &'a [Arc<Bound>],
}

/// Binds a listener for all workers. Ports that are bound already stay as they are. `[::]` takes IPv4
/// clients too; where the machine has no IPv6, `0.0.0.0` stands in for it, with a warning.
///
/// # Errors
/// Fails where a port is taken, forbidden or not this machine's, and where there cannot be as many
/// sockets.
pub fn bind(requested: &ListenAddress, terms: Terms<'_>) -> Result<Bound, BindError> {
    let present: HashMap<SocketAddr, (&Arc<BoundPort>, &Arc<Counts>)> = terms
        .present
        .iter()
        .flat_map(|bound| bound.sockets.iter().map(|socket| (socket.configured, (socket, &bound.counts))))
        .collect();
    let is_shared = requested.ports().count() > OWN_SOCKETS;
    let new = requested.sockets().filter(|socket| !present.contains_key(socket)).count();
    files::make_room(if is_shared { new } else { new * terms.workers.max(1) })?;
    let (mut sockets, mut warning) = (Vec::with_capacity(requested.ports().count()), None);
    // A listener that keeps some of its ports is still the same one.
    let mut counts = None;
    for configured in requested.sockets() {
        if let Some((kept, of)) = present.get(&configured) {
            counts.get_or_insert_with(|| Arc::clone(of));
            sockets.push(Arc::clone(kept));
            continue;
        }
        let is_ours = terms.present.iter().any(|bound| bound.address.ports().contains(configured.port()));
        let how = How {
            workers: (!is_shared).then_some(terms.workers.max(1)),
            transparent: terms.transparent,
            beside: is_ours,
        };
        let port = if warning.is_some() {
            bind_port(configured, without_ipv6(configured), how)
        } else {
            bind_port(configured, configured, how).or_else(|error| {
                if !(configured.ip().is_unspecified() && configured.is_ipv6() && has_no_ipv6(&error)) {
                    return Err(error);
                }
                let v4 = without_ipv6(configured);
                let port = bind_port(configured, v4, how)?;
                warning = Some(format!(
                    "this machine has no IPv6: listening on {} instead of {}",
                    v4.ip(),
                    configured.ip()
                ));
                Ok(port)
            })
        };
        sockets.push(Arc::new(port.map_err(|error| BindError::of(error, configured.port()))?));
    }
    let address = match sockets.first() {
        Some(only) if sockets.len() == 1 => only.address.into(),
        _ => requested.clone(),
    };
    Ok(Bound { address, sockets, counts: counts.unwrap_or_default(), warning })
}

/// What the operator should know of listeners that leave few ports for connections that go out, or none.
///
/// The kernel takes the ports of those from a range, and none that somebody listens on. The gateway
/// itself finds a way (`upstream::connect`); other programs of the machine do not.
pub fn few_ports_left<'a>(listeners: impl Iterator<Item = &'a PortSet>) -> Option<String> {
    /// Fewer cannot carry much.
    const FEW: usize = 4096;
    let (from, to) = files::own_ports()?;
    let all = PortSet::of_ranges(listeners.flat_map(PortSet::ranges));
    let left = (from..=to).filter(|port| !all.contains(*port)).count();
    let is_few = left < FEW && left <= usize::from(to - from) / 2;
    is_few.then(|| {
        format!(
            "of the ports that this machine's own connections come from ({from}-{to}), {left} are left: \
             leave more of them out, move net.ipv4.ip_local_port_range, or listen on one port with \
             `original_destination = true` behind a redirect rule"
        )
    })
}

/// How one port is bound.
#[derive(Clone, Copy)]
struct How {
    /// How many sockets of its own it has; none where one is shared.
    workers: Option<usize>,
    transparent: bool,
    /// Whether this gateway listens on the port already, on another address: `[::]:8080` beside
    /// `0.0.0.0:8080`, which a reload is about to end.
    beside: bool,
}

fn bind_port(configured: SocketAddr, on: SocketAddr, how: How) -> io::Result<BoundPort> {
    if on.port() != 0 && !how.beside {
        // Sockets that share a port would share it with another gateway as well, each getting some
        // of the connections. One without that option finds out whether anybody is there.
        drop(socket(on, Sharing::No)?);
    }
    let Some(workers) = how.workers else {
        let listener = listener(on, how.transparent)?;
        let address = listener.local_addr()?;
        return Ok(BoundPort { configured, address, sockets: Sockets::Shared(listener) });
    };
    let mut address = on;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let listener = listener(address, how.transparent)?;
        address = listener.local_addr()?;
        sockets.push(Some(listener));
    }
    Ok(BoundPort { configured, address, sockets: Sockets::Own(Mutex::new(sockets)) })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Yes,
    No,
}

fn listener(address: SocketAddr, transparent: bool) -> io::Result<TcpListener> {
    // A socket that is the only one shares its port all the same: with connections that go out.
    let socket = socket(address, Sharing::Yes)?;
    if transparent {
        accept_any_address(&socket, address);
    }
    // What it accepts has this from it: a call less for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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

/// TPROXY hands over connections to addresses of others. `REDIRECT` does not, and needs no capability,
/// so a socket that may not is fine for that.
#[cfg(target_os = "linux")]
fn accept_any_address(socket: &Socket, address: SocketAddr) {
    let v4 = socket.set_ip_transparent_v4(true);
    let set = if address.is_ipv6() { v4.and(socket.set_ip_transparent_v6(true)) } else { v4 };
    if let Err(error) = set {
        tracing::debug!(%address, %error, "TPROXY needs CAP_NET_ADMIN; REDIRECT works without");
    }
}

#[cfg(not(target_os = "linux"))]
fn accept_any_address(_: &Socket, _: SocketAddr) {}

fn without_ipv6(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port())
}

fn has_no_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(address: &str, workers: usize, present: &[Arc<Bound>]) -> Result<Arc<Bound>, BindError> {
        let address = address.parse().expect("an address");
        bind(&address, Terms { workers, transparent: false, present }).map(Arc::new)
    }

    #[test]
    fn every_worker_gets_a_socket_on_the_same_port() {
        let bound = bound("127.0.0.1:0", 2, &[]).expect("a free port");
        let port = bound.sockets.first().expect("a port");
        for socket in [port.take(0), port.take(1)].map(|socket| socket.expect("a socket")) {
            assert_eq!(socket.local_addr().expect("an address"), bound.first());
        }
        assert!(port.take(0).is_none(), "a socket is taken once");
    }

    #[test]
    fn what_is_accepted_sends_small_parts_at_once() {
        let bound = bound("127.0.0.1:0", 1, &[]).expect("a free port");
        let socket = bound.sockets.first().and_then(|port| port.take(0)).expect("a socket");
        let _client = std::net::TcpStream::connect(bound.first()).expect("a connection");
        socket.set_nonblocking(false).expect("a socket that waits");
        let (accepted, _) = socket.accept().expect("a connection");
        assert!(accepted.nodelay().expect("an option"));
    }

    #[test]
    fn another_gateway_on_the_port_is_noticed() {
        let first = bound("127.0.0.1:0", 1, &[]).expect("a free port");
        let again = bound(&first.first().to_string(), 1, &[]);
        assert!(matches!(again, Err(BindError::InUse { .. })), "{again:?}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        assert!(matches!(bound("192.0.2.1:0", 1, &[]), Err(BindError::NotHere)));
    }

    #[test]
    fn ports_that_are_bound_already_stay() {
        // Addresses of this machine that nothing else uses.
        let [.., high, low] = std::process::id().to_be_bytes();
        let on = |ports: &str| format!("127.9.{high}.{low}:{ports}");
        let first = bound(&on("20001-20002"), 1, &[]).expect("free ports");
        let second = bound(&on("20002-20003"), 1, std::slice::from_ref(&first)).expect("free ports");
        assert!(Arc::ptr_eq(&first.sockets[1], &second.sockets[0]));
        assert!(Arc::ptr_eq(&first.counts, &second.counts), "it is the same listener");
        assert_eq!(second.sockets.len(), 2);
        let many = bound(&on("20101-20200"), 4, &[]).expect("free ports");
        assert!(many.sockets.iter().all(|socket| socket.shared().is_some() && socket.take(0).is_none()));
        assert!(matches!(bound(&on("20150"), 1, &[]), Err(BindError::InUse { port: 20150 })));
    }

    #[test]
    fn too_few_ports_for_others_are_noticed() {
        let few = |text: &str| few_ports_left([text.parse().expect("ports")].iter());
        assert_eq!(few("443,3000"), None);
        assert!(few("1-65535").is_some_and(|warning| warning.contains(" 0 are left")));
    }
}
