//! What a backend is: servers that are equal, and how to choose one.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

/// A set of equal servers.
#[derive(Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name in the configuration, or its only server's address.
    pub name: String,
    /// At least one.
    pub servers: Vec<Server>,
    /// How one of them is chosen.
    pub balance: Balance,
    /// How many unused connections a worker keeps, for each server.
    pub keep: usize,
    /// How long an unused connection is kept.
    pub keep_for: Duration,
}

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
}

/// `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Host {
    Address(IpAddr),
    Name(Box<str>),
}

/// Not `host:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not `host:port`; an IPv6 address stands in brackets, as in `[::1]:3000`")]
pub struct ServerError;

impl Server {
    /// The address, where no name must be resolved for it.
    pub(super) fn literal(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Address(ip) => Some((ip, self.port).into()),
            Host::Name(_) => None,
        }
    }

    /// The addresses of the server now.
    pub(super) async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        match &self.host {
            Host::Address(ip) => Ok(vec![(*ip, self.port).into()]),
            Host::Name(name) => Ok(tokio::net::lookup_host((&**name, self.port)).await?.collect()),
        }
    }
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Address(address.ip()), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or(ServerError)?;
        let port = port.parse().map_err(|_| ServerError)?;
        let is_name = !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if is_name { Ok(Self { host: Host::Name(host.into()), port }) } else { Err(ServerError) }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(ip) => SocketAddr::from((*ip, self.port)).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        for good in ["127.0.0.1:80", "[::1]:80", "localhost:3000", "a-b.example.com:1"] {
            assert_eq!(good.parse::<Server>().map(|s| s.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "127.0.0.1", ":80", "a:", "a:99999", "::1:80", "a b:80", "http://a:80"] {
            assert_eq!(bad.parse::<Server>(), Err(ServerError), "{bad}");
        }
    }
}
