//! From `[vms]` to what is known of VMs. A table of a million is built once, and again only when it says
//! something else.

use super::{
    Files, Snapshot,
    registry::{Registered, Registries, Whose},
};
use crate::{
    config::{self, Diagnostic, ProxyHeader, Resolve, Spanned},
    networks::Networks,
    proxy_protocol::Version,
    upstream::{Asked, Balance, Ejection, Protocol, Settings},
    vms::{self, Dns, Known, MACHINES_SERVERS, Table, Terms, Vms},
};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// What is known of VMs, and how they are reached.
#[derive(Debug)]
pub struct FleetPlan {
    /// Where VMs are.
    pub vms: Arc<Vms>,
    /// What each of them is like as a server.
    pub settings: Settings,
    /// Unused connections that each worker keeps.
    pub most_idle: usize,
    /// What it was made from: where that is the same, so is this.
    origin: Origin,
}

impl FleetPlan {
    /// Whether the registry says where VMs are.
    pub fn is_by_registry(&self) -> bool {
        self.origin.registry.is_some()
    }

    /// Whether both ask for the same, perhaps of other servers.
    pub(super) fn asks_the_same(&self, other: &Self) -> bool {
        self.origin.config == other.origin.config
            && self.origin.networks == other.origin.networks
            && self.origin.config.file.is_none()
    }
}

#[derive(Debug, PartialEq)]
struct Origin {
    config: config::Vms,
    /// The hash of the file of VMs, or of the one that the machine's name servers are in.
    file: Option<[u8; 32]>,
    /// Which registry is asked.
    registry: Option<Whose>,
    /// Where VMs may be: the registry may have a say in that.
    networks: Networks,
}

/// What each server that is known only when it is asked for is like.
pub(super) fn settings(name: &str, keep: usize, keep_for: Duration, header: ProxyHeader) -> Settings {
    Settings {
        name: name.to_owned(),
        servers: Vec::new(),
        source: None,
        balance: Balance::RoundRobin,
        // gRPC over HTTP/2, everything else over HTTP/1.
        protocol: Protocol::Auto,
        keep,
        keep_for,
        // There is no other to turn to.
        ejection: Ejection { failures: u32::MAX, first: Duration::ZERO, longest: Duration::ZERO },
        limits: None,
        proxy_protocol: version(header),
        tls: None,
        host: Asked::Clients,
    }
}

/// The version of a header, where there is one.
pub(super) fn version(header: ProxyHeader) -> Option<Version> {
    match header {
        ProxyHeader::Off => None,
        ProxyHeader::V1 => Some(Version::V1),
        ProxyHeader::V2 => Some(Version::V2),
    }
}

pub(super) fn build(
    written: &config::Vms,
    previous: Option<&Snapshot>,
    registries: &Registries,
    (base, files): (&Path, &mut Files),
    problems: &mut Vec<Diagnostic>,
) -> Option<FleetPlan> {
    let terms = Terms {
        ttl: written.ttl.get(),
        negative_ttl: written.negative_ttl.get(),
        timeout: written.timeouts.lookup.get(),
        remembered: written.limits.remembered as usize,
        allow_ipv4: written.allow_ipv4,
        networks: networks(written, registries),
    };
    let text = match &written.file {
        Some(file) => Some(read(file, base, files, problems)?),
        None => None,
    };
    let path = match &written.file {
        Some(file) => Some(base.join(file.get_ref())),
        None => asks_the_machines_servers(written).then(|| PathBuf::from(MACHINES_SERVERS)),
    };
    let servers = match (&written.file, &path) {
        // Without that file there are none, until it is there: it is followed like all others.
        (None, Some(path)) => files.read(path).map(|text| vms::name_servers(&text)).unwrap_or_default(),
        _ => written.nameservers.iter().map(|server| *server.get_ref()).collect(),
    };
    let file = path.and_then(|path| files.hash_of(&path));
    let registry = registries.directory().filter(|_| written.resolution() == Resolve::Registry);
    let (directory, whose) = registry.unzip();
    let origin = Origin { config: written.clone(), file, registry: whose, networks: terms.networks.clone() };
    let before = previous.and_then(|previous| previous.fleet.as_ref());
    let known = before.filter(|before| before.origin == origin).map(|before| Arc::clone(&before.vms));
    let vms = match known {
        Some(vms) => vms,
        None => {
            let known = match directory {
                Some(directory) => Known::Asked(Box::new(Registered(directory))),
                None => self::known(written, text.as_deref(), servers, &terms, problems)?,
            };
            Arc::new(Vms { known, terms })
        }
    };
    let most_idle = written.keepalive.connections as usize;
    let settings = settings("vms", most_idle, written.keepalive.idle.get(), written.proxy_protocol);
    Some(FleetPlan { vms, settings, most_idle, origin })
}

fn networks(written: &config::Vms, registries: &Registries) -> Networks {
    match (&written.networks, written.resolution()) {
        (Some(networks), _) => Networks::Of(networks.iter().map(|network| *network.get_ref()).collect()),
        (None, Resolve::Static) => Networks::All,
        (None, Resolve::Dns) => Networks::Others,
        (None, Resolve::Registry) => (*registries.networks).clone(),
    }
}

fn asks_the_machines_servers(written: &config::Vms) -> bool {
    written.resolution() == Resolve::Dns && written.nameservers.is_empty()
}

fn read(
    file: &Spanned<String>,
    base: &Path,
    files: &mut Files,
    problems: &mut Vec<Diagnostic>,
) -> Option<String> {
    let text = files.read(&base.join(file.get_ref())).map_err(|error| error.to_string());
    let text = text.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not text".to_owned()));
    text.map_err(|error| {
        problems.push(Diagnostic::error(file.span(), format!("cannot read this file: {error}")).label("VMs"));
    })
    .ok()
}

fn known(
    written: &config::Vms,
    text: Option<&str>,
    servers: Vec<SocketAddr>,
    terms: &Terms,
    problems: &mut Vec<Diagnostic>,
) -> Option<Known> {
    if written.resolution() == Resolve::Dns {
        let dns = written.dns.as_ref()?;
        return match Dns::new(dns.get_ref(), servers, terms.timeout, terms.allow_ipv4) {
            Ok(dns) => Some(Known::Asked(Box::new(dns))),
            Err(error) => {
                problems.push(
                    Diagnostic::error(dns.span(), error.to_string()).label("expected \"{vm}.internal\""),
                );
                None
            }
        };
    }
    let mut vms = Vec::new();
    if let (Some(file), Some(text)) = (&written.file, text) {
        match Table::lines(text, |address| terms.allow(address)) {
            Ok(lines) => vms = lines,
            Err(bad) => {
                let lines: Vec<String> = bad.iter().map(ToString::to_string).collect();
                problems.push(
                    Diagnostic::error(file.span(), "this file has lines that name no VM and address")
                        .label("expected `name,address` on each line")
                        .help(lines.join("\n")),
                );
                return None;
            }
        }
    }
    for (name, address) in &written.table {
        // The configuration was checked: it is an address.
        let Ok(address) = address.get_ref().parse::<IpAddr>() else { continue };
        match name.parse() {
            Ok(vm) => vms.push((vm, address)),
            Err(error) => problems.push(
                Diagnostic::error(
                    written.table.get(name).map(Spanned::span).unwrap_or_default(),
                    format!("`{name}` is no VM's name: {error}"),
                )
                .label("where that would be"),
            ),
        }
    }
    Some(Known::Table(Table::new(vms)))
}
