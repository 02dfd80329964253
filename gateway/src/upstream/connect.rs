//! A TCP connection to a server, with a deadline.

use super::{Cause, Server};
use crate::proxy_protocol::{self, Ends, Version};
use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep_until, timeout},
};

/// RFC 8305 §5: how long one address has for itself before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to a server, and looks its name up for this. The connection is the gateway's own, and says
/// so where the server wants to be told.
///
/// # Errors
/// Fails where the name has no address, where all addresses refuse, and after `deadline`.
pub async fn connect(
    server: &Server,
    proxy_protocol: Option<Version>,
    deadline: Duration,
) -> Result<TcpStream, Cause> {
    let connecting = async {
        let stream = match server.literal() {
            Some(address) => open(address).await.map_err(cause),
            None => connect_any(&server.resolve().await.map_err(Cause::Resolve)?).await,
        };
        announce(stream?, proxy_protocol, None).await
    };
    within(deadline, connecting).await
}

/// Tells a server whose connection this is, where it wants to be told.
pub(super) async fn announce(
    mut stream: TcpStream,
    proxy_protocol: Option<Version>,
    client: Option<Ends>,
) -> Result<TcpStream, Cause> {
    if let Some(version) = proxy_protocol {
        let mut header = Vec::new();
        proxy_protocol::write(version, client, &mut header);
        stream.write_all(&header).await.map_err(Cause::Connect)?;
    }
    Ok(stream)
}

/// A connection that must stand before the deadline.
pub(super) async fn within(
    deadline: Duration,
    connecting: impl Future<Output = Result<TcpStream, Cause>>,
) -> Result<TcpStream, Cause> {
    let stream = timeout(deadline, connecting).await.map_err(|_| Cause::ConnectTimeout)??;
    // Small writes are requests and frames that somebody waits for.
    stream.set_nodelay(true).map_err(Cause::Connect)?;
    Ok(stream)
}

/// Connects to one of the addresses of a name.
pub(super) async fn connect_any(addresses: &[SocketAddr]) -> Result<TcpStream, Cause> {
    first(&interleaved(addresses), open).await
}

/// Connects to an address.
pub(super) async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let connected = TcpStream::connect(address).await;
    match &connected {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            // Nothing went out: this costs system calls and no time. The rare case has a place of its own.
            Box::pin(from_shared_port(address)).await.unwrap_or(connected)
        }
        _ => connected,
    }
}

/// Connects from a port that this gateway may listen on at the same time.
///
/// The kernel gives outgoing connections no port that somebody listens on, and where a listener has all
/// of them, there is none. A socket that asks for one by name gets it, as its listeners share theirs.
/// None where no port could be had.
async fn from_shared_port(address: SocketAddr) -> Option<io::Result<TcpStream>> {
    /// Some are others', or are in use to this very address.
    const ATTEMPTS: usize = 16;
    let local = |port| match address {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], port)),
        SocketAddr::V6(_) => SocketAddr::from(([0; 16], port)),
    };
    for _ in 0..ATTEMPTS {
        let [high, low, ..] = getrandom::u64().ok()?.to_ne_bytes();
        // Whoever chose ports below 1024 chose them for services.
        let port = u16::from_be_bytes([high, low]).max(1024);
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.ok()?;
        if socket.set_reuseport(true).and_then(|()| socket.bind(local(port))).is_err() {
            continue;
        }
        match socket.connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            connected => return Some(connected),
        }
    }
    None
}

pub(super) fn cause(error: io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Cause::Refused,
        _ => Cause::Connect(error),
    }
}

/// RFC 8305 §4: the families in turn, beginning with the one that the resolver prefers. A name such
/// as `localhost` has both, and the service often listens on one of them only.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let preferred = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let of = |ipv6: bool| addresses.iter().copied().filter(move |address| address.is_ipv6() == ipv6);
    let (mut first, mut second) = (of(preferred), of(!preferred));
    let mut mixed = Vec::with_capacity(addresses.len());
    while mixed.len() < addresses.len() {
        mixed.extend(first.next().into_iter().chain(second.next()));
    }
    mixed
}

/// The first connection that stands: each address is tried when the one before it has failed, or has
/// had its head start.
async fn first<T, F: Future<Output = io::Result<T>>>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, Cause> {
    let mut left = addresses.iter();
    let mut running: Vec<Pin<Box<F>>> = Vec::new();
    let mut last = Cause::Resolve(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    let mut next = pin!(sleep_until(Instant::now()));
    poll_fn(|cx| {
        loop {
            let mut connected = None;
            running.retain_mut(|attempt| match attempt.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(Ok(stream)) => {
                    connected = Some(stream);
                    false
                }
                Poll::Ready(Err(error)) => {
                    last = cause(error);
                    false
                }
            });
            if let Some(stream) = connected {
                return Poll::Ready(Ok(stream));
            }
            if left.len() > 0 && !running.is_empty() && next.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match left.next() {
                Some(address) => {
                    running.push(Box::pin(connect(*address)));
                    next.as_mut().reset(Instant::now() + HEAD_START);
                }
                None if running.is_empty() => {
                    let none = Cause::Refused;
                    return Poll::Ready(Err(std::mem::replace(&mut last, none)));
                }
                None => return Poll::Pending,
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::time::sleep;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn families_take_turns() {
        let of = |texts: &[&str]| texts.iter().map(|text| address(text)).collect::<Vec<_>>();
        for (given, expected) in [
            (vec!["[::1]:1", "[::2]:1", "1.1.1.1:1"], vec!["[::1]:1", "1.1.1.1:1", "[::2]:1"]),
            (vec!["1.1.1.1:1", "2.2.2.2:1", "[::1]:1"], vec!["1.1.1.1:1", "[::1]:1", "2.2.2.2:1"]),
            (vec!["1.1.1.1:1"], vec!["1.1.1.1:1"]),
            (vec![], vec![]),
        ] {
            assert_eq!(interleaved(&of(&given)), of(&expected));
        }
    }

    /// Connects to addresses whose last number is the milliseconds that it takes; odd ones refuse.
    async fn race(ports: &[u16]) -> (Result<u16, Cause>, Vec<(u16, u128)>, u128) {
        let begun = Instant::now();
        let tried = RefCell::new(Vec::new());
        let addresses: Vec<SocketAddr> =
            ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
        let connect = |address: SocketAddr| {
            tried.borrow_mut().push((address.port(), begun.elapsed().as_millis()));
            async move {
                sleep(Duration::from_millis(address.port().into())).await;
                match address.port() % 2 {
                    0 => Ok(address.port()),
                    _ => Err(io::ErrorKind::ConnectionRefused.into()),
                }
            }
        };
        let result = first(&addresses, connect).await;
        (result, tried.into_inner(), begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_waits_for_a_failure_or_its_turn() {
        let (won, tried, took) = race(&[5000, 3000, 100, 10]).await;
        assert_eq!((won.ok(), took), (Some(100), 600));
        assert_eq!(tried, [(5000, 0), (3000, 250), (100, 500)]);

        let (won, tried, took) = race(&[11, 21, 30]).await;
        assert_eq!((won.ok(), took), (Some(30), 62), "refusals cost no head start");
        assert_eq!(tried, [(11, 0), (21, 11), (30, 32)]);

        let (won, _, took) = race(&[260, 10_000]).await;
        assert_eq!((won.ok(), took), (Some(260), 260), "a late first is better than a later second");

        let (failed, _, took) = race(&[301, 401]).await;
        assert!(matches!(failed, Err(Cause::Refused)) && took == 651, "{failed:?} after {took} ms");
        assert!(matches!(race(&[]).await.0, Err(Cause::Resolve(_))));
    }
}
