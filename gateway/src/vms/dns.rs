//! VMs by DNS: each has a name with an AAAA record.
//!
//! The resolver is one of our own and not the machine's: that one tells neither how long an answer
//! counts, nor a name that is not there from a server that does not answer, and it takes a thread for
//! each question.

use super::{Answer, Lookup, Source, SourceError, VmId};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{RData, RecordType},
    system_conf::parse_resolv_conf,
};
use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    time::Duration,
};

/// What stands for the VM's name.
const HOLE: &str = "{vm}";

/// Where a machine has its name servers.
pub const MACHINES_SERVERS: &str = "/etc/resolv.conf";

/// The port of name servers.
const PORT: u16 = 53;

/// The name servers in a text such as that of [`MACHINES_SERVERS`]; none where it names none.
pub fn name_servers(text: &[u8]) -> Vec<SocketAddr> {
    let Ok((config, _)) = parse_resolv_conf(text) else { return Vec::new() };
    config.name_servers().iter().map(|server| SocketAddr::new(server.ip, PORT)).collect()
}

/// VMs by the names that a template makes of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    before: String,
    after: String,
    /// Who is asked.
    servers: Vec<SocketAddr>,
    timeout: Duration,
    allow_ipv4: bool,
}

/// A template that names no VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Without the place for it, all VMs would be one.
    #[error("it must have `{{vm}}` once, where the VM's name goes")]
    Hole,
    /// Not what DNS knows.
    #[error("it is not the name of a host, with `{{vm}}` as one of its labels")]
    Name,
}

impl Dns {
    /// VMs by the names of this template, such as `{vm}.internal`, that these servers know. Without any,
    /// nothing can be found out: a machine that boots may not know them yet.
    ///
    /// # Errors
    /// Fails where the template makes no names.
    pub fn new(
        template: &str,
        servers: Vec<SocketAddr>,
        timeout: Duration,
        allow_ipv4: bool,
    ) -> Result<Self, NameError> {
        let (before, after) = template.split_once(HOLE).ok_or(NameError::Hole)?;
        if after.contains(HOLE) {
            return Err(NameError::Hole);
        }
        let is_name = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            text.bytes().all(plain) && !text.starts_with('.') && !text.contains("..")
        };
        let example = format!("{before}a{after}");
        // The longest name of a VM has 63 bytes.
        if !is_name(&example) || example.len() + 63 > 253 {
            return Err(NameError::Name);
        }
        let after = after.strip_suffix('.').unwrap_or(after);
        Ok(Self { before: before.to_owned(), after: after.to_owned(), servers, timeout, allow_ipv4 })
    }

    fn resolver(&self) -> Result<TokioResolver, SourceError> {
        if self.servers.is_empty() {
            return Err(SourceError::Silent(format!("no name servers in {MACHINES_SERVERS}")));
        }
        let servers = self.servers.iter().map(|server| {
            let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = server.port());
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options: &mut ResolverOpts = builder.options_mut();
        // What is remembered, and for how long, is the directory's to say.
        options.cache_size = 0;
        options.attempts = 2;
        options.timeout = self.timeout / 2;
        // This is asked for on a worker, which reads no files; and a name of the machine's own is no VM.
        options.use_hosts_file = ResolveHosts::Never;
        builder.build().map_err(|error| SourceError::Silent(format!("no resolver: {error}")))
    }
}

impl Source for Dns {
    fn open(&self) -> Box<dyn Lookup> {
        Box::new(Asked { dns: self.clone(), resolver: self.resolver() })
    }
}

/// One worker's resolver: its sockets are this worker's.
struct Asked {
    dns: Dns,
    resolver: Result<TokioResolver, SourceError>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.dns.fmt(f)
    }
}

impl Lookup for Asked {
    fn find<'a>(&'a self, vm: &'a VmId) -> Pin<Box<dyn Future<Output = Answer> + 'a>> {
        Box::pin(async move {
            // Whole, so that no other domain is tried.
            let name = format!("{}{vm}{}.", self.dns.before, self.dns.after);
            let found = self.ask(&name, RecordType::AAAA).await?;
            if found.0.is_empty() && self.dns.allow_ipv4 {
                return self.ask(&name, RecordType::A).await;
            }
            Ok(found)
        })
    }
}

impl Asked {
    async fn ask(&self, name: &str, kind: RecordType) -> Answer {
        let resolver = self.resolver.as_ref().map_err(Clone::clone)?;
        let found = match resolver.lookup(name, kind).await {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() => return Ok((Vec::new(), None)),
            Err(error) => return Err(SourceError::Silent(format!("{name}: {error}"))),
        };
        let mut addresses = Vec::new();
        let mut ttl = u32::MAX;
        for record in found.answers() {
            match &record.data {
                RData::AAAA(address) => addresses.push(IpAddr::V6(address.0)),
                RData::A(address) => addresses.push(IpAddr::V4(address.0)),
                // An alias on the way counts no longer than it says.
                _ => {}
            }
            ttl = ttl.min(record.ttl);
        }
        Ok((addresses, Some(Duration::from_secs(ttl.into()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_of_a_machine() {
        for (text, servers) in [
            (
                "nameserver 192.0.2.1\nsearch a.test\nnameserver 2001:db8::1\n",
                vec!["192.0.2.1:53", "[2001:db8::1]:53"],
            ),
            ("# none\noptions edns0\n", vec![]),
            ("nameserver nonsense\nnameserver ::1", vec!["[::1]:53"]),
            ("", vec![]),
        ] {
            let found: Vec<String> = name_servers(text.as_bytes()).iter().map(ToString::to_string).collect();
            assert_eq!(found, servers, "{text}");
        }
    }

    #[test]
    fn templates() {
        let parse = |text: &str| Dns::new(text, Vec::new(), Duration::from_secs(1), false).map(|_| ());
        for good in ["{vm}.internal", "{vm}", "vm-{vm}.a.b.", "{vm}.x_y"] {
            assert_eq!(parse(good), Ok(()), "{good}");
        }
        for bad in ["internal", "{vm}.{vm}", "", "{vm"] {
            assert_eq!(parse(bad), Err(NameError::Hole), "{bad}");
        }
        let long = format!("{{vm}}.{}", "a.".repeat(120));
        for bad in [".{vm}", "{vm}..a", "{vm}:80", "http://{vm}", "{vm}.{x}", &long] {
            assert_eq!(parse(bad), Err(NameError::Name), "{bad}");
        }
    }
}
