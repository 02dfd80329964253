//! A TCP connection to a server, with a deadline.

use super::{Cause, Server};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// Connects to the first address of a server that answers.
///
/// # Errors
/// Fails where the name has no address, where all addresses refuse, and after `deadline`.
pub async fn connect(server: &Server, deadline: Duration) -> Result<TcpStream, Cause> {
    let connected = timeout(deadline, async {
        match server.literal() {
            Some(address) => TcpStream::connect(address).await.map_err(cause),
            None => connect_any(&server.resolve().await.map_err(Cause::Resolve)?).await,
        }
    });
    let stream = connected.await.map_err(|_| Cause::ConnectTimeout)??;
    // Small writes are requests and frames that somebody waits for.
    stream.set_nodelay(true).map_err(Cause::Connect)?;
    Ok(stream)
}

/// A name such as `localhost` has an IPv6 and an IPv4 address, and the service often listens on one
/// of them only: the first that accepts is taken.
async fn connect_any(addresses: &[SocketAddr]) -> Result<TcpStream, Cause> {
    let mut last = Cause::Resolve(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = cause(error),
        }
    }
    Err(last)
}

fn cause(error: io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Cause::Refused,
        _ => Cause::Connect(error),
    }
}
