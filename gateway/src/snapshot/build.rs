//! Configuration → snapshot: the only door. Everything that can be wrong is found here, all of it at
//! once, with its place; what did not change is taken over from the previous snapshot.

use super::{
    Destination, Files, Fixed, HealthCheck, Listener, PortRules, Retries, Route, Snapshot, Sticky, Target,
    Timeouts, VmName, modes,
    origins::Origins,
    plugins::Plugins,
    registry::{Discovered, Registries, RegistryPlan, Whose},
    securities,
    terminators::Terminators,
    tls::Draft,
    vms,
};
use crate::{
    config::{
        self, AdminAddress, Config, Diagnostic, PortAsked, Route as RouteConfig, RouteProtocol, Spanned,
        VmTarget,
    },
    http1::HeadLimits,
    message::{Fields, is_field_value, is_token, trim},
    networks::Networks,
    plugins::{Host, OnError, Services},
    ports::PortSet,
    route::{Conditions, HostPattern, PathPattern, PatternError},
    upstream::{Asked, Backend, Balance, Ejection, Limits, Protocol, Security, Server, Settings},
};
use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;
use std::{collections::BTreeMap, ops::Range, path::Path, sync::Arc};

/// What a configuration is built with.
pub struct Inputs<'a> {
    /// The folder that relative paths start from.
    pub base: &'a Path,
    /// Gives the value of an environment variable.
    pub env: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// The sandbox.
    pub host: Arc<Host>,
    /// What plugins may ask for while they are tried out.
    pub services: Arc<dyn Services>,
    /// Whether state may be written down: not where a configuration is only looked at.
    pub keep_state: bool,
    /// How many workers there are where the configuration does not say.
    pub default_workers: usize,
}

/// Why a configuration cannot be run. The files are those that it was read from: a change of one
/// may mend it.
#[derive(Debug)]
pub struct Problems {
    /// Everything that is wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// The files that were looked at.
    pub files: Files,
}

/// Builds what the machine runs on. Compiles components: not for a worker.
///
/// # Errors
/// Fails with everything that is wrong.
#[expect(clippy::too_many_lines, reason = "the parts of a snapshot, one after the other")]
pub async fn build(
    config: &Config,
    previous: Option<&Snapshot>,
    mut files: Files,
    inputs: &Inputs<'_>,
) -> Result<Snapshot, Problems> {
    let mut plugins = Plugins::load(inputs, config, previous, &mut files).await;
    let mut problems = Vec::new();
    let mut origins = Origins::new(inputs, config, previous);
    let read = (inputs, &mut files);
    let registries = Registries::build(config, previous, read, &mut problems, |name| plugins.secret(name));
    let securities = securities::build(config, (inputs, &mut files), &mut problems);
    let mut backends = Backends::new(config, previous, &registries, securities);
    let mut routes = Vec::new();
    let mut conditions = Vec::new();
    for (index, route) in config.routes.iter().enumerate() {
        let mut used = Vec::new();
        for plugin in &route.plugins {
            used.extend(plugins.attach(plugin.get_ref(), route.protocol).await);
        }
        conditions.push(self::conditions(route, &mut problems));
        let target = match route.to.get_ref() {
            config::Target::Wasm(component) => {
                let to = (component.as_str(), route.to.span());
                let origin = origins.attach(to, &mut files, |secret| plugins.secret(secret)).await;
                // Where it is none, there is a problem, and no snapshot.
                Target::Component(origin.unwrap_or(usize::MAX))
            }
            _ => build_target(route, registries.own.as_ref(), &mut backends, &mut problems),
        };
        routes.push(Arc::new(build_route(route, index, used, target, &backends)));
    }
    let written = config.vms.as_ref();
    let fleet = written
        .and_then(|vms| vms::build(vms, previous, &registries, (inputs.base, &mut files), &mut problems));
    let mut tls = Draft::new(config, (previous, fleet.as_ref()), inputs, &mut files, &mut problems);
    let listeners = build_listeners(config, &conditions, &mut tls.terminators, &mut files, &mut problems);
    let admin_token = config.admin.token.as_ref().map(|name| plugins.secret(name.get_ref()));
    let (plugins, of_plugins) = plugins.finish();
    let destinations = plugins.iter().map(|plugin| backends.destinations(plugin.backends())).collect();
    problems.extend(of_plugins);
    let (origins, of_origins) = origins.finish();
    problems.extend(of_origins);
    if !problems.is_empty() {
        problems.sort_by_key(|problem| problem.span.start);
        return Err(Problems { diagnostics: problems, files });
    }
    let (backends, checks, discovered) = backends.finish();
    Ok(Snapshot {
        listeners,
        routes,
        backends,
        fleet,
        registry: registries.own,
        remote: registries.remote,
        checks,
        discovered,
        plugins,
        destinations,
        origins,
        warnings: tls.warnings(config),
        tls: tls.finish(config),
        heads: head_limits(config),
        http2_streams: config.limits.http2_streams,
        held_bodies: usize::try_from(config.limits.held_bodies.get()).unwrap_or(usize::MAX),
        log: config.log.clone(),
        admin: config.admin.address.as_ref().map(|address| match address.get_ref() {
            AdminAddress::Unix(path) => AdminAddress::Unix(inputs.base.join(path)),
            address => address.clone(),
        }),
        admin_token,
        workers: config.gateway.workers.map_or(inputs.default_workers, usize::from),
        shutdown_grace: config.gateway.shutdown_grace.get(),
        files,
    })
}

fn head_limits(config: &Config) -> HeadLimits {
    HeadLimits {
        size: usize::try_from(config.limits.header_size.get()).unwrap_or(usize::MAX),
        headers: config.limits.headers as usize,
    }
}

fn build_target(
    route: &RouteConfig,
    registry: Option<&Arc<RegistryPlan>>,
    backends: &mut Backends<'_>,
    problems: &mut Vec<Diagnostic>,
) -> Target {
    match route.to.get_ref() {
        config::Target::Address(address) => Target::Backend(backends.of_address(address)),
        config::Target::Backend(name) => Target::Backend(backends.of_name(name)),
        config::Target::Vm(target) => vm_target(target, route.to.span(), problems),
        config::Target::AnyPort(ip) => {
            let like = config::Backend::of_one_server();
            let (keep, keep_for) = (like.keepalive.connections as usize, like.keepalive.idle.get());
            Target::AnyPort(
                *ip,
                vms::settings(&route.to.get_ref().to_string(), keep, keep_for, like.proxy_protocol),
            )
        }
        // It has been built.
        config::Target::Wasm(_) => Target::Component(usize::MAX),
        // There is one where a route goes to it.
        config::Target::Registry => match registry {
            Some(registry) => Target::Registry(Arc::clone(registry)),
            None => Target::Backend(usize::MAX),
        },
        config::Target::Respond(respond) => Target::Respond(Fixed {
            status: StatusCode::from_u16(respond.status).unwrap_or(StatusCode::OK),
            fields: fixed_fields(&respond.headers, &respond.body, problems),
            body: respond.body.clone().into(),
        }),
        config::Target::Redirect(redirect) => {
            let mut fields = Fields::new();
            let to = redirect.to.get_ref().as_bytes();
            if is_field_value(to) {
                fields.append(b"location", to);
            } else {
                problems.push(
                    Diagnostic::error(redirect.to.span(), "a location cannot hold these characters")
                        .label("not a URL"),
                );
            }
            let status =
                StatusCode::from_u16(*redirect.status.get_ref()).unwrap_or(StatusCode::PERMANENT_REDIRECT);
            Target::Respond(Fixed { status, fields, body: bytes::Bytes::new() })
        }
    }
}

fn build_route(
    route: &RouteConfig,
    index: usize,
    plugins: Vec<(usize, OnError)>,
    target: Target,
    backends: &Backends<'_>,
) -> Route {
    let timeouts = &route.timeouts;
    Route {
        name: route.label(index).into(),
        protocol: route.protocol,
        target,
        plugins,
        upgrades: route.upgrades.iter().map(|protocol| protocol.get_ref().as_str().into()).collect(),
        timeouts: Timeouts {
            connect: timeouts.connect.get(),
            response: timeouts.response.get(),
            idle: timeouts.idle.get(),
            tunnel: timeouts.tunnel.get(),
            total: timeouts.total.map(config::Duration::get),
        },
        body_limit: route.limits.body.as_ref().map_or(u64::MAX, |body| body.get_ref().get()),
        retries: Retries { attempts: route.retries.attempts, budget: route.retries.budget },
        sticky: match route.to.get_ref() {
            config::Target::Backend(name) => backends.sticky(name),
            _ => None,
        },
    }
}

fn vm_target(target: &VmTarget, span: Range<usize>, problems: &mut Vec<Diagnostic>) -> Target {
    let port = match target.port {
        PortAsked::Same => None,
        PortAsked::Fixed(port) => Some(port),
    };
    let name = match &target.vm {
        config::VmName::Captured(name) => VmName::Captured(name.as_str().into()),
        config::VmName::Fixed(name) => match name.parse() {
            Ok(vm) => VmName::Fixed(vm),
            Err(error) => {
                let message = format!("`{name}` is no VM's name: {error}");
                problems.push(Diagnostic::error(span, message).label("goes nowhere"));
                VmName::Captured(name.as_str().into())
            }
        },
    };
    Target::Vm(name, port)
}

fn fixed_fields(
    written: &std::collections::BTreeMap<String, Spanned<String>>,
    body: &str,
    problems: &mut Vec<Diagnostic>,
) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in written {
        if is_token(name.as_bytes()) && is_field_value(value.get_ref().as_bytes()) {
            fields.append(name.as_bytes(), trim(value.get_ref().as_bytes()));
        } else {
            problems.push(
                Diagnostic::error(value.span(), format!("`{name}` cannot be a header with this value"))
                    .label("not a header"),
            );
        }
    }
    if !body.is_empty() && fields.get_named(b"content-type").is_none() {
        fields.append(b"content-type", b"text/plain; charset=utf-8");
    }
    fields
}

/// Makes backends as routes ask for them; equal ones are the same, and unchanged ones stay the very
/// same object, by which workers know that their connections are still good.
struct Backends<'a> {
    config: &'a Config,
    previous: Option<&'a Snapshot>,
    /// The registry that tells servers.
    whose: Option<Whose>,
    /// Where its servers may be.
    networks: Arc<Networks>,
    /// TLS towards servers, by the names of their backends.
    securities: BTreeMap<String, Security>,
    built: Vec<Arc<Backend>>,
}

impl<'a> Backends<'a> {
    fn new(
        config: &'a Config,
        previous: Option<&'a Snapshot>,
        registries: &Registries,
        securities: BTreeMap<String, Security>,
    ) -> Self {
        let whose = registries.directory().map(|(_, whose)| whose);
        let networks = Arc::clone(&registries.networks);
        Self { config, previous, whose, networks, securities, built: Vec::new() }
    }

    fn of_address(&mut self, address: &str) -> usize {
        let servers = address.parse::<Server>().into_iter().collect();
        self.add(settings(address, servers, &config::Backend::of_one_server()))
    }

    fn of_name(&mut self, name: &str) -> usize {
        // The configuration was checked: the backend exists, and its servers parse.
        let Some(declared) = self.config.backends.get(name) else { return self.of_address(name) };
        let servers = declared.servers.iter().filter_map(|server| server.get_ref().parse().ok()).collect();
        let source = declared.discover.as_ref().map(|discover| {
            let config::Discover { role, service } = discover.get_ref();
            format!("{service} of {role}, {:?}", self.whose)
        });
        let tls = self.securities.get(name).cloned();
        self.add(Settings { source, tls, ..settings(name, servers, declared) })
    }

    /// What requests for the same server of this backend have in common.
    fn sticky(&self, name: &str) -> Option<Sticky> {
        match &self.config.backends.get(name)?.balance {
            config::Balance::Header(name) => Some(Sticky::Header(name.get_ref().as_str().into())),
            config::Balance::Cookie(name) => Some(Sticky::Cookie(name.get_ref().as_str().into())),
            _ => None,
        }
    }

    /// Where a plugin may send requests.
    fn destinations(&mut self, granted: &[String]) -> Vec<Destination> {
        let destination =
            |name: &String| Destination { backend: self.of_name(name), sticky: self.sticky(name) };
        granted.iter().map(destination).collect()
    }

    fn add(&mut self, settings: Settings) -> usize {
        if let Some(known) = self.built.iter().position(|known| known.settings == settings) {
            return known;
        }
        let before = |like: &dyn Fn(&Settings) -> bool| {
            let previous = self.previous?;
            previous.backends.iter().find(|known| like(&known.settings))
        };
        let unchanged = before(&|known| *known == settings).cloned();
        let backend = unchanged.unwrap_or_else(|| {
            let namesake = before(&|known| known.name == settings.name).cloned();
            Arc::new(match settings.source {
                None => Backend::new(settings, namesake.as_deref()),
                Some(_) => Backend::followed(settings, namesake.as_deref()),
            })
        });
        self.built.push(backend);
        self.built.len() - 1
    }

    fn finish(self) -> (Vec<Arc<Backend>>, Vec<HealthCheck>, Vec<Discovered>) {
        let (mut checks, mut discovered) = (Vec::new(), Vec::new());
        for backend in &self.built {
            let Some(declared) = self.config.backends.get(&backend.settings.name) else { continue };
            let health = declared.health.as_ref().map(Spanned::get_ref);
            match (&declared.discover, health) {
                (Some(discover), _) => {
                    discovered.push(Discovered::new(backend, discover.get_ref(), &self.networks, health));
                }
                (None, Some(health)) => checks.extend(HealthCheck::of_backend(backend, health)),
                (None, None) => {}
            }
        }
        (self.built, checks, discovered)
    }
}

fn settings(name: &str, servers: Vec<Server>, declared: &config::Backend) -> Settings {
    let config::BackendLimits { connections, pending, wait } = declared.limits;
    Settings {
        protocol: match declared.protocol {
            config::BackendProtocol::Http1 => Protocol::Http1,
            config::BackendProtocol::H2c | config::BackendProtocol::H2 => Protocol::Http2,
            config::BackendProtocol::Auto => Protocol::Auto,
        },
        name: name.to_owned(),
        servers,
        source: None,
        balance: match declared.balance {
            config::Balance::RoundRobin => Balance::RoundRobin,
            config::Balance::Random => Balance::Random,
            config::Balance::LeastRequests => Balance::LeastRequests,
            config::Balance::Header(_) | config::Balance::Cookie(_) => Balance::Key,
        },
        keep: declared.keepalive.connections as usize,
        keep_for: declared.keepalive.idle.get(),
        ejection: Ejection {
            failures: declared.ejection.failures,
            first: declared.ejection.first.get(),
            longest: declared.ejection.longest.get(),
        },
        proxy_protocol: vms::version(declared.proxy_protocol),
        tls: None,
        host: match declared.host {
            config::BackendHost::Client => Asked::Clients,
            config::BackendHost::Server => Asked::Servers,
        },
        limits: connections.map(|connections| Limits {
            connections: connections as usize,
            pending: pending as usize,
            wait: wait.get(),
        }),
    }
}

fn conditions(route: &RouteConfig, problems: &mut Vec<Diagnostic>) -> Conditions {
    let host = pattern(route.host.as_ref(), HostPattern::parse, problems);
    let path = pattern(route.path.as_ref(), PathPattern::parse, problems);
    let mut captures: Vec<&str> = host.iter().filter_map(|host| host.capture()).map(|name| &**name).collect();
    for name in path.iter().flat_map(PathPattern::captures) {
        if captures.contains(&&**name) {
            let span = route.path.as_ref().map(Spanned::span).unwrap_or_default();
            problems.push(
                Diagnostic::error(span, PatternError::Twice(name.to_string()).to_string())
                    .label("rename one of them"),
            );
        }
        captures.push(name);
    }
    let methods = route.methods.iter().flatten().filter_map(|method| method.get_ref().parse().ok()).collect();
    let mut headers = Vec::new();
    for (name, value) in &route.headers {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value.get_ref())) {
            (Ok(name), Ok(value)) => headers.push((name, value)),
            _ => problems.push(
                Diagnostic::error(value.span(), format!("no request has a header `{name}` with this value"))
                    .label("not a header"),
            ),
        }
    }
    Conditions {
        host,
        path,
        methods,
        headers,
        has_port: route.listener_port.is_some(),
        has_protocol: route.protocol != RouteProtocol::Any,
    }
}

fn pattern<T>(
    written: Option<&Spanned<String>>,
    parse: impl Fn(&str) -> Result<T, PatternError>,
    problems: &mut Vec<Diagnostic>,
) -> Option<T> {
    let written = written?;
    parse(written.get_ref())
        .map_err(|error| {
            problems.push(Diagnostic::error(written.span(), error.to_string()).label("not a pattern"))
        })
        .ok()
}

fn build_listeners(
    config: &Config,
    conditions: &[Conditions],
    terminators: &mut Terminators<'_>,
    files: &mut Files,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Arc<Listener>> {
    let mut listeners = Vec::new();
    for listener in &config.listeners {
        let Some(modes) = modes::build(config, listener, conditions, problems) else { continue };
        let trusted = listener.trusted_proxies.as_ref().unwrap_or(&config.gateway.trusted_proxies);
        listeners.push(Arc::new(Listener {
            name: listener.label(),
            address: listener.address.get_ref().clone(),
            tls: terminators.of(listener, files, problems),
            handshake_deadline: listener.timeouts.handshake.get(),
            modes,
            original_destination: listener.original_destination,
            ports: PortRules {
                allow: listener.ports.allow.as_deref().map(port_set),
                deny: port_set(&listener.ports.deny),
            },
            proxy_protocol: listener.proxy_protocol,
            proxy_deadline: listener.timeouts.proxy_protocol.get(),
            trusted_proxies: trusted.iter().map(|network| canonical(*network.get_ref())).collect(),
            connections: listener.connections.unwrap_or(config.limits.connections) as usize,
            connections_per_client: listener
                .connections_per_client
                .or(config.limits.connections_per_client)
                .map(|most| most as usize),
            head_deadline: listener.timeouts.head.get(),
            idle_deadline: listener.timeouts.idle.get(),
        }));
    }
    listeners
}

fn port_set(rules: &[Spanned<PortSet>]) -> PortSet {
    PortSet::of_ranges(rules.iter().flat_map(|rule| rule.get_ref().ranges()))
}

/// A network of mapped addresses means the IPv4 network in it: clients appear as IPv4.
fn canonical(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => {
            let v4 =
                v6.addr().to_ipv4_mapped().and_then(|v4| ipnet::Ipv4Net::new(v4, v6.prefix_len() - 96).ok());
            v4.map_or(network, IpNet::V4)
        }
        IpNet::V4(_) | IpNet::V6(_) => network,
    }
}
