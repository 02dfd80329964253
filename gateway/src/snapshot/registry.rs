//! From `[registry]` to the registry that routes lead to, or to what is known of another. Entries outlast reloads:
//! where they are kept is what tells one registry from another.

use super::{Files, Inputs, Snapshot, state_dir::StateDir};
use crate::{
    config::{self, Config, Diagnostic, RegistryStore, Resolve, Spanned, Vms},
    networks::Networks,
    plugins::Secret,
    registry::{
        Directory, Endpoint, FILE_NAME, Mirror, Place, Record, Registry, Service, Terms,
        api::{Addresses, Door, Rules},
    },
    tls::Roots,
    upstream::{Backend, Member, Server, ServerError},
    vms::{Answer, Lookup, Source, SourceError, VmId},
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashSet,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// The registry, and who may ask it.
#[derive(Debug)]
pub struct RegistryPlan {
    /// The entries. Whoever runs the snapshot opens it.
    pub registry: Arc<Registry>,
    /// What may be configured of it.
    pub terms: Terms,
    /// How services are asked whether they work, where they are.
    pub probe: Option<config::Probe>,
    /// How its store is reached, where that is etcd.
    pub etcd: Option<EtcdPlan>,
    /// Where services may be.
    pub networks: Arc<Networks>,
    /// The token of those who may ask; everybody may where there is none.
    pub token: Option<Secret>,
    admin_token: Option<Secret>,
    addresses: config::RegistryAddresses,
    names_below: Option<String>,
    changes: Option<u32>,
    /// Whether others are let in now, or into another registry. Plans that are alike in that share it.
    over: Arc<watch::Sender<bool>>,
}

impl RegistryPlan {
    /// Something that is true once whoever was let in has to ask anew.
    pub fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    /// Another plan runs from now on, or none.
    pub fn end(&self, next: Option<&Arc<Self>>) {
        if next.is_none_or(|next| !Arc::ptr_eq(&next.over, &self.over)) {
            self.over.send_replace(true);
        }
    }

    /// Who may do what.
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            door: self.token.as_ref().map_or(Door::Open, |token| Door::Token(token.reveal())),
            admin: self.admin_token.as_ref().and_then(Secret::reveal),
            addresses: match self.addresses {
                config::RegistryAddresses::Any => Addresses::Any,
                config::RegistryAddresses::Own => Addresses::Own { names_below: self.names_below.as_deref() },
            },
            changes: self.changes,
        }
    }
}

/// How the etcd is reached that a registry is in.
#[derive(Debug)]
pub struct EtcdPlan {
    /// Its members: `https://host:2379`.
    pub members: Arc<[String]>,
    /// Who we are there, and the password.
    pub user: Option<(String, Secret)>,
    /// Whom to believe that they are its members.
    pub roots: Roots,
    /// The same for two that say the same.
    pub hash: [u8; 32],
}

/// A registry that is elsewhere.
#[derive(Debug)]
pub struct RemotePlan {
    /// What is known of it. Whoever runs the snapshot asks it.
    pub mirror: Arc<Mirror>,
    /// Where it is, without a slash at its end.
    pub url: String,
    /// The token to show there.
    pub token: Option<Secret>,
}

/// A backend whose servers are those that are registered.
#[derive(Debug)]
pub struct Discovered {
    /// Whom to tell.
    pub backend: Arc<Backend>,
    role: String,
    service: String,
    /// Where its servers may be.
    networks: Arc<Networks>,
    /// How many endpoints could not be servers of it when it was looked last.
    refused: AtomicUsize,
    pub(super) health: Option<config::Health>,
}

impl Discovered {
    pub(super) fn new(
        backend: &Arc<Backend>,
        discover: &config::Discover,
        networks: &Arc<Networks>,
        health: Option<&config::Health>,
    ) -> Self {
        Self {
            backend: Arc::clone(backend),
            role: discover.role.get_ref().clone(),
            service: discover.service.get_ref().clone(),
            networks: Arc::clone(networks),
            refused: AtomicUsize::new(0),
            health: health.cloned(),
        }
    }

    /// Servers that its requests leave alone now.
    pub fn ejected(&self) -> HashSet<Server> {
        let now = self.backend.now();
        let is_ejected = |(server, member): (&Server, &Arc<Member>)| {
            member.ejected_for().is_some().then(|| server.clone())
        };
        now.members().filter_map(is_ejected).collect()
    }

    /// Where its requests for this service of this VM go; none where there are none.
    pub fn server_of(&self, record: &Record, service: &Service) -> Option<Server> {
        let is_one = self.role == record.what.role.name() && self.service == service.name;
        let server = || Server::within(&record.what.address, service.port, &self.networks).ok();
        is_one.then(server).flatten()
    }

    /// Tells the backend who is registered now. Returns whether that changed anything.
    pub fn look(&self, directory: &Directory) -> bool {
        let endpoints = directory.endpoints(&self.role, &self.service);
        let (mut servers, mut refused) = (Vec::with_capacity(endpoints.len()), Vec::new());
        for endpoint in &endpoints {
            match self.server(endpoint) {
                Ok(server) => servers.push(server),
                Err(error) => refused.push((endpoint, error)),
            }
        }
        self.warn(&refused);
        let changes = self.backend.follow(servers);
        if changes {
            let servers = self.backend.now().settings.servers.len();
            tracing::info!(backend = self.backend.settings.name, servers, "other servers are registered");
        }
        changes
    }

    /// Says who cannot serve, where those are others than before.
    fn warn(&self, refused: &[(&Endpoint, ServerError)]) {
        if self.refused.swap(refused.len(), Ordering::Relaxed) == refused.len() {
            return;
        }
        if let Some((Endpoint { id, address, .. }, error)) = refused.first() {
            let (backend, count) = (&self.backend.settings.name, refused.len());
            tracing::warn!(backend, count, vm = id, address, "who is registered cannot be a server: {error}");
        }
    }

    /// Where an endpoint is, for connections.
    fn server(&self, endpoint: &Endpoint) -> Result<Server, ServerError> {
        Server::within(&endpoint.address, endpoint.port, &self.networks)
    }
}

/// The registries of a configuration: at most one of them is there.
#[derive(Debug, Clone)]
pub(super) struct Registries {
    /// Where those may be who are registered.
    pub(super) networks: Arc<Networks>,
    pub(super) own: Option<Arc<RegistryPlan>>,
    pub(super) remote: Option<Arc<RemotePlan>>,
}

/// Which registry it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    Own(Place),
    Remote(String),
}

impl Registries {
    pub(super) fn build(
        config: &Config,
        previous: Option<&Snapshot>,
        (inputs, files): (&Inputs<'_>, &mut Files),
        problems: &mut Vec<Diagnostic>,
        secret: impl Fn(&str) -> Secret,
    ) -> Self {
        let networks = Arc::new(networks(config));
        match config.registry.as_ref().and_then(|registry| registry.url.as_ref()) {
            None => {
                let mut own = build(config, previous, inputs, &networks, &secret);
                if let Some(plan) = &mut own {
                    plan.etcd = etcd(config, (inputs, files), problems, &secret);
                }
                Self { own: own.map(Arc::new), remote: None, networks }
            }
            Some(url) => {
                let url = url.get_ref().as_str();
                let before = previous.and_then(|previous| previous.remote.as_ref());
                let before = before.filter(|before| before.url == url);
                let mirror = before.map(|before| Arc::clone(&before.mirror)).unwrap_or_default();
                let token = config.registry.as_ref().and_then(|registry| registry.token.as_ref());
                let token = token.map(|name| secret(name.get_ref()));
                let remote = Arc::new(RemotePlan { mirror, url: url.to_owned(), token });
                Self { own: None, remote: Some(remote), networks }
            }
        }
    }

    /// Where to ask.
    pub(super) fn directory(&self) -> Option<(Directory, Whose)> {
        match self {
            Self { own: Some(plan), .. } => {
                let whose = Whose::Own(plan.registry.place().clone());
                Some((Directory::Own(Arc::clone(&plan.registry)), whose))
            }
            Self { remote: Some(plan), .. } => {
                Some((Directory::Remote(Arc::clone(&plan.mirror)), Whose::Remote(plan.url.clone())))
            }
            _ => None,
        }
    }
}

fn networks(config: &Config) -> Networks {
    match config.registry.as_ref().and_then(|registry| registry.networks.as_ref()) {
        Some(networks) => Networks::Of(networks.iter().map(|network| *network.get_ref()).collect()),
        None => Networks::Others,
    }
}

fn build(
    config: &Config,
    previous: Option<&Snapshot>,
    inputs: &Inputs<'_>,
    networks: &Arc<Networks>,
    secret: impl Fn(&str) -> Secret,
) -> Option<RegistryPlan> {
    let is_target = config.routes.iter().any(|route| *route.to.get_ref() == config::Target::Registry);
    let resolves = config.vms.as_ref().map(Vms::resolution) == Some(Resolve::Registry);
    let discovers = config.backends.values().any(|backend| backend.discover.is_some());
    if !is_target && !resolves && !discovers {
        return None;
    }
    let written = config.registry.clone().unwrap_or_default();
    let place = match written.store.as_ref().map(|store| store.get_ref()) {
        Some(RegistryStore::Memory) => Place::Memory,
        Some(RegistryStore::File(path)) => Place::File(inputs.base.join(path)),
        // Wherever its members are, what is in there tells itself.
        Some(RegistryStore::Etcd(_)) => Place::Etcd(prefix(written.etcd.as_ref())),
        None => Place::File(StateDir::of(config, inputs).path().join(FILE_NAME)),
    };
    let terms = Terms {
        ttl: written.ttl.get(),
        retention: written.retention.get(),
        strict_conflict: written.strict_conflict,
    };
    let before = previous.and_then(|previous| previous.registry.as_ref());
    let registry = before.map(|before| &before.registry).filter(|registry| *registry.place() == place);
    let registry = registry.cloned().unwrap_or_else(|| Arc::new(Registry::new(place, terms)));
    let token = written.token.as_ref().map(|name| secret(name.get_ref()));
    let admin_token = written.admin_token.as_ref().map(|name| secret(name.get_ref()));
    let alike = before.filter(|before| {
        Arc::ptr_eq(&before.registry, &registry)
            && (&before.token, &before.admin_token) == (&token, &admin_token)
    });
    let over = alike.map(|before| Arc::clone(&before.over)).unwrap_or_default();
    let probe = Some(written.probe).filter(|probe| probe.enabled);
    Some(RegistryPlan {
        registry,
        terms,
        probe,
        etcd: None,
        networks: Arc::clone(networks),
        token,
        admin_token,
        addresses: written.addresses,
        names_below: written.names_below.as_ref().map(|domain| domain.get_ref().to_string()),
        changes: written.changes_per_client,
        over,
    })
}

fn prefix(etcd: Option<&Spanned<config::Etcd>>) -> String {
    let written = etcd.map(|etcd| etcd.get_ref().clone()).unwrap_or_default();
    written.prefix.get_ref().as_str().to_owned()
}

/// How etcd is reached, where the registry is in it.
fn etcd(
    config: &Config,
    (inputs, files): (&Inputs<'_>, &mut Files),
    problems: &mut Vec<Diagnostic>,
    secret: impl Fn(&str) -> Secret,
) -> Option<EtcdPlan> {
    let registry = config.registry.as_ref()?;
    let store = registry.store.as_ref()?;
    let RegistryStore::Etcd(members) = store.get_ref() else { return None };
    let written = registry.etcd.as_ref().map(|etcd| etcd.get_ref().clone()).unwrap_or_default();
    let mut read = |file: &Option<Spanned<String>>| match file {
        None => Some(Vec::new()),
        Some(file) => {
            let path = inputs.base.join(file.get_ref());
            let text = files.read(&path);
            text.map_err(|error| {
                let message = format!("cannot read `{}`: {error}", path.display());
                problems.push(Diagnostic::error(file.span(), message).label("cannot be used"));
            })
            .ok()
        }
    };
    let (ca, cert, key) = (read(&written.ca), read(&written.cert), read(&written.key));
    let (ca, cert, key) = (ca?, cert?, key?);
    let is_over_tls = members.iter().any(|member| member.starts_with("https:"));
    let own = written.cert.is_some().then_some((&*cert, &*key));
    let roots = if is_over_tls { Roots::showing(&ca, own) } else { Roots::none() };
    let roots = roots
        .map_err(|error| {
            let file = written.ca.as_ref().or(written.cert.as_ref());
            let span = file.map_or_else(|| store.span(), Spanned::span);
            problems.push(Diagnostic::error(span, error.to_string()).label("cannot be used"));
        })
        .ok()?;
    let user = written.user.as_ref().map(|user| {
        let password = written.password.as_ref().map(|name| secret(name.get_ref()));
        (user.get_ref().clone(), password.unwrap_or(Secret::new(None)))
    });
    let said_of_user =
        user.as_ref().map(|(name, password)| [name.as_str(), password.reveal().unwrap_or_default()]);
    let mut hash = Sha256::new();
    for part in members.iter().map(String::as_str).chain(said_of_user.into_iter().flatten()) {
        hash.update(part);
        hash.update([0]);
    }
    [&ca, &cert, &key].into_iter().for_each(|text| hash.update(Sha256::digest(text)));
    Some(EtcdPlan { members: members.as_slice().into(), user, roots, hash: hash.finalize().into() })
}

/// How long the address of a registered VM counts: it is asked for here, and costs nothing.
const TTL: Duration = Duration::from_secs(1);

/// VMs by their entries in a registry.
#[derive(Debug, Clone)]
pub(super) struct Registered(pub(super) Directory);

impl Source for Registered {
    fn open(&self) -> Box<dyn Lookup> {
        Box::new(self.clone())
    }
}

impl Lookup for Registered {
    fn find<'a>(&'a self, vm: &'a VmId) -> Pin<Box<dyn Future<Output = Answer> + 'a>> {
        Box::pin(std::future::ready(self.address(vm)))
    }
}

impl Registered {
    fn address(&self, vm: &VmId) -> Answer {
        let Some(address) = self.0.address(&vm.to_string()) else {
            return Ok((Vec::new(), Some(TTL)));
        };
        let address = address.as_str();
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Ok((vec![ip], Some(TTL))),
            // By name, a VM is reached through its edge, and that is here.
            Err(_) => {
                Err(SourceError::Nowhere(format!("{vm} registered as {address}, which is not an IP address")))
            }
        }
    }
}
