//! What a backend is: servers that are equal, and what all workers know of them together.

use super::{Member, Security, queue::Queue, roster::Roster};
use crate::{networks::Networks, proxy_protocol};
use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

/// A set of equal servers.
///
/// Its settings never change: other settings are another backend. What is known of its servers, and
/// who waits for one, outlives them.
#[derive(Debug)]
pub struct Backend {
    /// As configured.
    pub settings: Settings,
    /// In the order of the servers.
    members: Vec<Arc<Member>>,
    queue: Arc<Queue>,
    /// Its servers, where somebody else tells them.
    roster: Option<Roster>,
}

/// A backend as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name in the configuration, or its only server's address.
    pub name: String,
    /// At least one, unless somebody else tells them.
    pub servers: Vec<Server>,
    /// Who tells its servers, and which, where that is somebody else.
    pub source: Option<String>,
    /// What is spoken with them.
    pub protocol: Protocol,
    /// How one of them is chosen.
    pub balance: Balance,
    /// How many unused connections a worker keeps, for each server.
    pub keep: usize,
    /// How long an unused connection is kept.
    pub keep_for: Duration,
    /// When a server that fails is left alone.
    pub ejection: Ejection,
    /// How much its servers take at a time, where that is limited.
    pub limits: Option<Limits>,
    /// The PROXY header that connections begin with, where they do. They are then their client's alone.
    pub proxy_protocol: Option<proxy_protocol::Version>,
    /// TLS, where it is spoken with them.
    pub tls: Option<Security>,
    /// Which host they are asked for.
    pub host: Asked,
}

/// Which host servers are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Asked {
    /// The one that the client asked for.
    #[default]
    Clients,
    /// The server's own.
    Servers,
}

impl Settings {
    /// Of what is no backend, and named like one where that is said: it has no servers.
    pub fn nowhere(name: String) -> Self {
        Self {
            name,
            servers: Vec::new(),
            source: None,
            protocol: Protocol::Http1,
            balance: Balance::RoundRobin,
            keep: 0,
            keep_for: Duration::ZERO,
            ejection: Ejection { failures: 0, first: Duration::ZERO, longest: Duration::ZERO },
            limits: None,
            proxy_protocol: None,
            tls: None,
            host: Asked::Clients,
        }
    }
}

/// What is spoken with servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without asking first.
    Http2,
    /// HTTP/2 for gRPC, HTTP/1.1 for everything else.
    Auto,
}

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The one with the fewest requests of this worker.
    LeastRequests,
    /// The same one for the same key.
    Key,
}

/// When a server that fails is left alone, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Failed exchanges in a row; a connection that does not come about is enough by itself.
    pub failures: u32,
    /// How long at first; each repetition doubles it. Zero ejects nobody.
    pub first: Duration,
    /// How long at most.
    pub longest: Duration,
}

/// How much the servers of a backend take at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections in use to each server, by all workers together.
    pub connections: usize,
    /// Requests that wait for one, at all servers and workers together.
    pub pending: usize,
    /// How long each of them waits.
    pub wait: Duration,
}

impl Backend {
    /// A backend with these settings. Of servers that the previous one had too, it knows what that
    /// knew.
    pub fn new(settings: Settings, previous: Option<&Self>) -> Self {
        let known = previous.map(|previous| previous.known()).unwrap_or_default();
        // A server that stands there twice gets twice as much, and is one server all the same.
        let mut first: HashMap<&Server, Arc<Member>> = HashMap::with_capacity(settings.servers.len());
        let members = settings.servers.iter().map(|server| {
            let member = || known.get(server).cloned().unwrap_or_default();
            Arc::clone(first.entry(server).or_insert_with(member))
        });
        let members = members.collect();
        let queue = previous.map(|previous| Arc::clone(&previous.queue)).unwrap_or_default();
        Self { settings, members, queue, roster: None }
    }

    /// A backend whose servers [`Self::follow`] tells. It begins with those of the previous one, where the
    /// same told them.
    pub fn followed(settings: Settings, previous: Option<&Self>) -> Self {
        let before = previous.filter(|previous| previous.settings.source == settings.source);
        let before = before.and_then(|before| before.roster.as_ref()).map(Roster::now);
        let servers = before.as_ref().map(|before| before.settings.servers.clone()).unwrap_or_default();
        let now = Self::new(Settings { servers, ..settings.clone() }, before.as_deref().or(previous));
        let queue = Arc::clone(&now.queue);
        Self { settings, members: Vec::new(), queue, roster: Some(Roster::new(now)) }
    }

    /// These are its servers from now on, where it is [followed](Self::followed). Returns whether that changed
    /// anything.
    pub fn follow(&self, servers: Vec<Server>) -> bool {
        self.roster.as_ref().is_some_and(|roster| roster.set(&self.settings, servers))
    }

    /// The backend with the servers that it has now.
    pub fn now(self: &Arc<Self>) -> Arc<Self> {
        self.roster.as_ref().map_or_else(|| Arc::clone(self), Roster::now)
    }

    pub(super) fn roster(&self) -> Option<&Roster> {
        self.roster.as_ref()
    }

    /// The servers, with what is known of each.
    pub fn members(&self) -> impl Iterator<Item = (&Server, &Arc<Member>)> {
        self.settings.servers.iter().zip(&self.members)
    }

    pub(super) fn member(&self, server: usize) -> Option<&Arc<Member>> {
        self.members.get(server)
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// What is known of which server.
    fn known(&self) -> HashMap<Server, Arc<Member>> {
        let known = |backend: &Self| {
            backend.members().map(|(server, member)| (server.clone(), Arc::clone(member))).collect()
        };
        self.roster.as_ref().map_or_else(|| known(self), |roster| known(&roster.now()))
    }
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
    /// One that somebody else than the operator named, and where it may lead.
    NameWithin(Box<str>, Arc<Networks>),
    /// Those that a name has, looked up by somebody else.
    Addresses(Box<[IpAddr]>),
}

/// Why something is no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// Not `host:port`.
    #[error("not `host:port`; an IPv6 address stands in brackets, as in `[::1]:3000`")]
    Form,
    /// Whoever named it may not lead there.
    #[error("its address is in none of the `networks` that it may be in")]
    Outside,
}

impl Server {
    /// A server whose addresses are known: the preferred one first.
    pub(super) fn at(addresses: &[IpAddr], port: u16) -> Self {
        let host = match addresses {
            [ip] => Host::Address(*ip),
            several => Host::Addresses(several.into()),
        };
        Self { host, port }
    }

    /// A server that somebody else than the operator named by a host name or an IP address, which may lead into
    /// these networks only.
    ///
    /// # Errors
    /// Fails where it is neither, or an address outside of them.
    pub fn within(host: &str, port: u16, networks: &Arc<Networks>) -> Result<Self, ServerError> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let host = match bare.parse::<IpAddr>() {
            Ok(ip) if networks.contain(ip) => Host::Address(ip),
            Ok(_) => return Err(ServerError::Outside),
            Err(_) if is_name(host) => Host::NameWithin(host.into(), Arc::clone(networks)),
            Err(_) => return Err(ServerError::Form),
        };
        Ok(Self { host, port })
    }

    /// Its name or IP address, without the port.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Address(ip) => ip.to_string(),
            Host::Name(name) | Host::NameWithin(name, _) => name.to_string(),
            Host::Addresses(ips) => ips.first().map_or_else(String::new, IpAddr::to_string),
        }
    }

    /// What it is asked for: its host, with the port where that is not the usual one.
    pub(super) fn authority(&self, usual: u16) -> String {
        let whole = self.to_string();
        let bare = whole.strip_suffix(&format!(":{usual}")).filter(|_| self.port == usual);
        bare.map(str::to_owned).unwrap_or(whole)
    }

    /// The address, where it is one.
    pub(super) fn literal(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Address(ip) => Some((ip, self.port).into()),
            Host::Name(_) | Host::NameWithin(..) | Host::Addresses(_) => None,
        }
    }

    /// Whether it has a name, whose addresses must be looked up.
    pub(super) fn has_name(&self) -> bool {
        matches!(self.host, Host::Name(_) | Host::NameWithin(..))
    }

    /// The addresses of the server now.
    pub(super) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Host::Address(ip) => Ok(vec![(*ip, self.port).into()]),
            Host::Name(name) => Ok(tokio::net::lookup_host((&**name, self.port)).await?.collect()),
            Host::NameWithin(name, networks) => {
                let mut found: Vec<SocketAddr> =
                    tokio::net::lookup_host((&**name, self.port)).await?.collect();
                found.retain(|address| networks.contain(address.ip()));
                if found.is_empty() { Err(io::Error::other(ServerError::Outside)) } else { Ok(found) }
            }
            Host::Addresses(ips) => Ok(ips.iter().map(|ip| (*ip, self.port).into()).collect()),
        }
    }
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Address(address.ip()), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or(ServerError::Form)?;
        let port = port.parse().map_err(|_| ServerError::Form)?;
        if is_name(host) { Ok(Self { host: Host::Name(host.into()), port }) } else { Err(ServerError::Form) }
    }
}

fn is_name(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(ip) => SocketAddr::from((*ip, self.port)).fmt(f),
            Host::Addresses(ips) => match ips.first() {
                Some(ip) => SocketAddr::from((*ip, self.port)).fmt(f),
                None => write!(f, "nowhere:{}", self.port),
            },
            Host::Name(name) | Host::NameWithin(name, _) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
impl Settings {
    /// Three servers, everything else as it comes.
    pub(super) fn test() -> Self {
        let servers = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
        Self {
            name: "test".to_owned(),
            servers: servers.iter().filter_map(|server| server.parse().ok()).collect(),
            source: None,
            protocol: Protocol::Http1,
            balance: Balance::RoundRobin,
            keep: 1,
            keep_for: Duration::from_secs(60),
            ejection: Ejection {
                failures: 3,
                first: Duration::from_secs(5),
                longest: Duration::from_secs(60),
            },
            limits: None,
            proxy_protocol: None,
            tls: None,
            host: Asked::default(),
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
            assert_eq!(bad.parse::<Server>(), Err(ServerError::Form), "{bad}");
        }
    }

    #[test]
    fn servers_are_asked_for_without_the_usual_port() {
        for (server, usual, expected) in [
            ("a.test:3000", 443, "a.test:3000"),
            ("a.test:443", 443, "a.test"),
            ("a.test:443", 80, "a.test:443"),
            ("a.test:80", 80, "a.test"),
            ("[::1]:443", 443, "[::1]"),
            ("[::443]:1443", 443, "[::443]:1443"),
        ] {
            let server: Server = server.parse().expect("a server");
            assert_eq!(server.authority(usual), expected);
        }
    }

    #[test]
    fn a_server_that_stays_is_known_already() {
        let backend = |servers: &[&str], previous| {
            let servers = servers.iter().map(|server| server.parse().expect("a server")).collect();
            Backend::new(Settings { servers, ..Settings::test() }, previous)
        };
        let old = backend(&["a:1", "b:1", "a:1"], None);
        assert!(Arc::ptr_eq(&old.members[0], &old.members[2]), "one server that stands there twice");
        assert!(!Arc::ptr_eq(&old.members[0], &old.members[1]));
        let new = backend(&["b:1", "b:2"], Some(&old));
        assert!(Arc::ptr_eq(&old.members[1], &new.members[0]));
        assert!(!Arc::ptr_eq(&old.members[1], &new.members[1]), "another port is another server");
        assert!(Arc::ptr_eq(&old.queue, &new.queue));
    }

    #[test]
    fn servers_that_are_told_come_and_go_and_those_that_stay_are_known() {
        let servers = |servers: &[&str]| servers.iter().map(|it| it.parse().expect("a server")).collect();
        let settings = |source: &str| Settings {
            servers: Vec::new(),
            source: Some(source.to_owned()),
            ..Settings::test()
        };
        let backend = Arc::new(Backend::followed(settings("a"), None));
        assert!(backend.now().settings.servers.is_empty() && !backend.follow(Vec::new()));
        assert!(backend.follow(servers(&["a:1", "b:1"])));
        let (mut seen, before) = (backend.roster().expect("a roster").subscribe(), backend.now());
        assert!(!backend.follow(servers(&["a:1", "b:1"])), "the same once more");
        assert!(!seen.has_changed().expect("it is there"));
        assert!(backend.follow(servers(&["b:1", "c:1"])));
        assert_eq!(seen.borrow_and_update().settings.servers, servers(&["b:1", "c:1"]));
        assert!(Arc::ptr_eq(&before.members[1], &backend.now().members[0]));
        // After a reload it knows what it knew, as far as the same is followed.
        let same = Arc::new(Backend::followed(Settings { keep: 7, ..settings("a") }, Some(&backend)));
        assert_eq!(same.now().settings.servers, servers(&["b:1", "c:1"]));
        assert!(Arc::ptr_eq(&same.now().members[0], &backend.now().members[0]));
        let other = Arc::new(Backend::followed(settings("b"), Some(&backend)));
        assert!(other.now().settings.servers.is_empty());
    }
}
