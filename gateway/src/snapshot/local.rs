//! What one worker runs on: the shared snapshot, and what belongs to this worker alone: connections
//! to backends, plugin instances, shards of metrics. Nothing in it is ever touched by another thread.

use super::{
    Destination, FleetPlan, RegistryPlan, Route, Snapshot, Sticky, Target, Timeouts, VmName,
    services::Outbound,
};
use crate::{
    metrics::{Counter, Gauge, Kind, Metrics, Name, Strip, Wanted, names},
    plugins::{Chain, Handler, HandlerMetrics, Handlers, Host, Instances, Plugin, PluginMetrics},
    upstream::{Backend, Budget, Fleet, Pool, PoolMetrics, QueueMetrics, ServersMetrics, Settings},
    vms::{Directory, DirectoryMetrics},
};
use http::StatusCode;
use std::{collections::HashMap, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

/// What one worker runs on.
#[derive(Debug)]
pub struct Local {
    /// What all workers share.
    pub shared: Arc<Snapshot>,
    /// By the numbers of `shared.routes`.
    pub routes: Vec<Rc<LocalRoute>>,
    pools: Vec<Rc<Pool>>,
    vms: Option<(Rc<Directory>, Rc<Fleet>)>,
    /// Those of routes to any port of an address.
    fleets: Vec<Rc<Fleet>>,
    instances: Vec<Rc<Instances>>,
    /// By the numbers of `shared.origins`.
    components: Vec<Rc<LocalComponent>>,
}

/// A route on one worker. Of ten thousand routes, what is each one's own is memory that has to be fetched: it
/// is little, and in this order.
#[derive(Debug)]
#[repr(C)]
pub struct LocalRoute {
    /// What its requests are subject to.
    pub terms: Rc<LocalTerms>,
    /// What is counted.
    pub metrics: RouteMetrics,
    /// How many of its requests may be sent once more.
    pub budget: Budget,
    /// Its name, in this worker's memory.
    pub name: Arc<str>,
    /// What all workers share.
    pub route: Arc<Route>,
}

/// What requests of a route are subject to, on one worker. Routes that say the same share one, but for those
/// with plugins.
#[derive(Debug)]
pub struct LocalTerms {
    /// How long it waits for what.
    pub timeouts: Timeouts,
    /// Most bytes of a request's body.
    pub body_limit: u64,
    /// Attempts for a request, the first among them.
    pub attempts: u32,
    /// What requests for the same server have in common.
    pub sticky: Option<Sticky>,
    /// Where requests go.
    pub target: LocalTarget,
    /// Its plugins.
    pub chain: Chain,
    /// Where each of them may send requests instead.
    pub detours: Box<[Rc<[Detour]>]>,
}

/// Where requests go.
#[derive(Debug)]
pub enum LocalTarget {
    /// To a backend, through these connections.
    Pool(Rc<Pool>),
    /// To a server that is known only when it is asked for.
    Asked(Goal),
    /// To the registry, which answers itself.
    Registry(Arc<RegistryPlan>),
    /// To a component, which answers itself.
    Component(Rc<LocalComponent>),
    /// Nowhere: the route's own answer is sent.
    Respond,
}

/// A component that answers requests itself, on one worker.
#[derive(Debug)]
pub struct LocalComponent {
    /// What runs it.
    pub handlers: Handlers,
    /// What stands for it where there is a backend otherwise: without servers, and with its name.
    pub pool: Rc<Pool>,
}

/// A backend that a plugin may send requests to instead of their route's own.
#[derive(Debug, Clone)]
pub struct Detour {
    /// Connections to it.
    pub pool: Rc<Pool>,
    /// What requests for the same server have in common.
    pub sticky: Option<Sticky>,
}

/// A server that is known only when it is asked for.
#[derive(Debug)]
pub enum Goal {
    /// A VM.
    Vm {
        /// Which one.
        name: VmName,
        /// Its port; the one that the client asked for where there is none.
        port: Option<u16>,
        /// Where it is.
        directory: Rc<Directory>,
        /// Connections to it.
        fleet: Rc<Fleet>,
    },
    /// The port that the client asked for.
    AnyPort {
        /// Of this address.
        ip: IpAddr,
        /// Connections to it.
        fleet: Rc<Fleet>,
    },
}

/// A route's metrics on one worker. Clones share the shards, and stay on the worker.
#[derive(Debug, Clone)]
pub struct RouteMetrics(Strip);

/// What a worker brings along.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The sandbox.
    pub host: &'a Host,
    /// All metrics.
    pub metrics: &'a Arc<Metrics>,
    /// This worker's way to send plugins' requests.
    pub outbound: &'a Outbound,
}

impl Local {
    /// Adds to a snapshot what is the worker's own. Connections and instances of what did not
    /// change are taken over from the previous one; the rest goes with it, once its requests end.
    pub fn build(shared: Arc<Snapshot>, previous: Option<&Self>, parts: Parts<'_>) -> Self {
        let kept_pools = previous.map_or(&[][..], |previous| &previous.pools);
        let pools: Vec<Rc<Pool>> = shared
            .backends
            .iter()
            .map(|backend| {
                let kept = kept_pools.iter().find(|pool| Arc::ptr_eq(pool.backend(), backend));
                kept.cloned().unwrap_or_else(|| {
                    Rc::new(Pool::new(Arc::clone(backend), pool_metrics(parts.metrics, &backend.settings)))
                })
            })
            .collect();
        let vms = shared.fleet.as_ref().map(|plan| vms(plan, previous, parts.metrics));
        let instances = instances(&shared, previous, parts);
        let components = components(&shared, previous, parts);
        let detours = detours(&shared, &pools);
        // Names are unique, and there may be tens of thousands of them.
        let kept: HashMap<&str, &RouteMetrics> = previous
            .iter()
            .flat_map(|previous| &previous.routes)
            .map(|kept| (&*kept.route.name, &kept.metrics))
            .collect();
        let metrics = route_metrics(&shared.routes, &kept, parts.metrics);
        let mut fleets: Vec<Rc<Fleet>> = Vec::new();
        let mut terms = Interned::default();
        let mut local = |(route, metrics): (&Arc<Route>, RouteMetrics)| {
            let target = match &route.target {
                Target::Backend(backend) => pools
                    .get(*backend)
                    .map_or(LocalTarget::Respond, |pool| LocalTarget::Pool(Rc::clone(pool))),
                Target::Vm(name, port) => vms.as_ref().map_or(LocalTarget::Respond, |(directory, fleet)| {
                    let (directory, fleet) = (Rc::clone(directory), Rc::clone(fleet));
                    LocalTarget::Asked(Goal::Vm { name: name.clone(), port: *port, directory, fleet })
                }),
                Target::AnyPort(ip, settings) => {
                    let before = previous.into_iter().flat_map(|previous| &previous.fleets);
                    let known =
                        fleets.iter().chain(before).find(|fleet| fleet.is_like(settings, settings.keep));
                    let fleet = known.cloned();
                    let fleet = fleet.unwrap_or_else(|| new_fleet(settings, settings.keep, parts.metrics));
                    fleets.push(Rc::clone(&fleet));
                    LocalTarget::Asked(Goal::AnyPort { ip: *ip, fleet })
                }
                Target::Registry(plan) => LocalTarget::Registry(Arc::clone(plan)),
                Target::Component(number) => components
                    .get(*number)
                    .map_or(LocalTarget::Respond, |component| LocalTarget::Component(Rc::clone(component))),
                Target::Respond(_) => LocalTarget::Respond,
            };
            let name: Arc<str> = Arc::from(&*route.name);
            let terms = terms.intern(local_terms(route, &name, target, (&instances, &detours)));
            let budget = Budget::new(route.retries.budget);
            Rc::new(LocalRoute { terms, metrics, budget, name, route: Arc::clone(route) })
        };
        let routes = shared.routes.iter().zip(metrics).map(&mut local).collect();
        Self { shared, routes, pools, vms, fleets, instances, components }
    }

    /// What `next` has not taken over serves the requests that have it still, and keeps nothing for
    /// others.
    pub fn retire(&self, next: &Self) {
        let is_gone = |pool: &&Rc<Pool>| !next.pools.iter().any(|kept| Rc::ptr_eq(kept, pool));
        self.pools.iter().filter(is_gone).for_each(|pool| pool.retire());
        let is_gone = |fleet: &&Rc<Fleet>| !next.all_fleets().any(|kept| Rc::ptr_eq(kept, fleet));
        self.all_fleets().filter(is_gone).for_each(|fleet| fleet.retire());
        let is_gone =
            |instances: &&Rc<Instances>| !next.instances.iter().any(|kept| Rc::ptr_eq(kept, instances));
        self.instances.iter().filter(is_gone).for_each(|instances| instances.retire());
    }

    /// Closes connections to backends, and frees plugin instances, that nobody needs any more.
    pub fn sweep(&self) {
        self.pools.iter().for_each(|pool| pool.sweep());
        self.all_fleets().for_each(|fleet| fleet.sweep());
        self.instances.iter().for_each(|instances| instances.trim());
    }

    fn all_fleets(&self) -> impl Iterator<Item = &Rc<Fleet>> {
        self.vms.iter().map(|(_, fleet)| fleet).chain(&self.fleets)
    }
}

impl RouteMetrics {
    // In the order in which a request meets them, with the most usual answer next to what it took.
    const NAMES: [&'static Name; 9] = [
        &names::REQUESTS,
        &names::REQUESTS,
        &names::REQUESTS,
        &names::REQUESTS,
        &names::REQUESTS,
        &names::REQUEST_SECONDS,
        &names::TUNNELS_ACTIVE,
        &names::TUNNEL_BYTES,
        &names::TUNNEL_BYTES,
    ];
    const CLASSES: [&'static str; 5] = ["1xx", "3xx", "4xx", "5xx", "2xx"];
    const DURATION: usize = Self::CLASSES.len();
    const TUNNELS: usize = Self::DURATION + Kind::Histogram.width();
    const SENT: usize = Self::TUNNELS + 1;
    const RECEIVED: usize = Self::SENT + 1;

    fn new() -> Self {
        Self(Strip::new(Self::NAMES.map(|name| name.kind)))
    }

    fn register(&self, metrics: &Metrics, route: &str) {
        let own = ("route", route);
        let class = |class| [own, ("status", class)];
        let bytes = |direction| [own, ("direction", direction)];
        let classes = Self::CLASSES.map(class);
        let [a, b, c, d, e] = &classes;
        let (sent, received) = (bytes("sent"), bytes("received"));
        let labels: [&[_]; 9] = [a, b, c, d, e, &[own], &[own], &sent, &received];
        let wanted: Vec<Wanted<'_>> = Self::NAMES.into_iter().zip(labels).collect();
        metrics.register(&self.0, &wanted);
    }

    /// Counts an answer, and the time from the request's head to the answer's.
    pub fn answered(&self, status: StatusCode, after: Duration) {
        match status.as_u16() / 100 {
            2 => self.0.inc(4),
            1 => self.0.inc(0),
            class @ 3..=5 => self.0.inc(usize::from(class) - 2),
            _ => {}
        }
        self.0.record(Self::DURATION, after);
    }

    /// Tunnels open now.
    pub fn tunnels(&self) -> Gauge {
        self.0.shard(Self::TUNNELS).into()
    }

    /// Bytes to the backend in tunnels.
    pub fn sent(&self) -> Counter {
        self.0.shard(Self::SENT).into()
    }

    /// Bytes to the client in tunnels.
    pub fn received(&self) -> Counter {
        self.0.shard(Self::RECEIVED).into()
    }
}

/// One for each route: those that are kept, and new ones.
///
/// Where there are thousands of routes, a request finds nothing of its own in the processor's caches. What
/// it reads and writes lies close together then: first all cells, then all routes.
fn route_metrics(
    routes: &[Arc<Route>],
    kept: &HashMap<&str, &RouteMetrics>,
    metrics: &Metrics,
) -> Vec<RouteMetrics> {
    let of = |route: &Arc<Route>| kept.get(&*route.name).copied().cloned();
    let all = routes.iter().map(|route| of(route).unwrap_or_else(RouteMetrics::new)).collect::<Vec<_>>();
    for (route, new) in routes.iter().zip(&all).filter(|(route, _)| !kept.contains_key(&*route.name)) {
        new.register(metrics, &route.name);
    }
    all
}

/// Where each plugin may send requests, in the order of its grants.
fn detours(shared: &Snapshot, pools: &[Rc<Pool>]) -> Vec<Rc<[Detour]>> {
    let detour = |destination: &Destination| {
        let pool = pools.get(destination.backend).map(Rc::clone)?;
        Some(Detour { pool, sticky: destination.sticky.clone() })
    };
    shared.destinations.iter().map(|of_plugin| of_plugin.iter().filter_map(detour).collect()).collect()
}

fn local_terms(
    route: &Arc<Route>,
    name: &Arc<str>,
    target: LocalTarget,
    (instances, detours): (&[Rc<Instances>], &[Rc<[Detour]>]),
) -> LocalTerms {
    let links = route
        .plugins
        .iter()
        .filter_map(|(plugin, on_error)| Some((Rc::clone(instances.get(*plugin)?), *on_error)));
    let detours = route.plugins.iter().filter_map(|(plugin, _)| detours.get(*plugin).cloned());
    LocalTerms {
        timeouts: route.timeouts,
        body_limit: route.body_limit,
        attempts: route.retries.attempts,
        sticky: route.sticky.clone(),
        target,
        chain: if route.plugins.is_empty() { Chain::default() } else { Chain::new(name, links) },
        detours: detours.collect(),
    }
}

/// Terms that routes to one backend have in common, by what is most likely to tell them apart.
#[derive(Default)]
struct Interned(HashMap<(*const Pool, u64, u32), Vec<Rc<LocalTerms>>>);

impl Interned {
    fn intern(&mut self, terms: LocalTerms) -> Rc<LocalTerms> {
        let LocalTarget::Pool(pool) = &terms.target else { return Rc::new(terms) };
        if !terms.chain.is_empty() {
            return Rc::new(terms);
        }
        let alike = self.0.entry((Rc::as_ptr(pool), terms.body_limit, terms.attempts)).or_default();
        let known = alike
            .iter()
            .find(|known| (known.timeouts, &known.sticky) == (terms.timeouts, &terms.sticky))
            .cloned();
        known.unwrap_or_else(|| {
            let new = Rc::new(terms);
            alike.push(Rc::clone(&new));
            new
        })
    }
}

/// Where VMs are, and connections to them, as far as they stayed the same.
fn vms(plan: &FleetPlan, previous: Option<&Local>, metrics: &Metrics) -> (Rc<Directory>, Rc<Fleet>) {
    let kept = previous.and_then(|previous| previous.vms.as_ref());
    let same = kept.filter(|(directory, _)| Arc::ptr_eq(directory.vms(), &plan.vms));
    let directory = same.map(|(directory, _)| Rc::clone(directory));
    // Other servers know the same VMs, and may not answer just now.
    let before = previous.and_then(|previous| previous.shared.fleet.as_ref());
    let asks_the_same = before.is_some_and(|before| before.asks_the_same(plan));
    let remembers = kept.filter(|_| asks_the_same).map(|(directory, _)| &**directory);
    let fleet = kept.filter(|(_, fleet)| fleet.is_like(&plan.settings, plan.most_idle));
    let fleet = fleet.map(|(_, fleet)| Rc::clone(fleet));
    (
        directory.unwrap_or_else(|| Rc::new(self::directory(plan, remembers, metrics))),
        fleet.unwrap_or_else(|| new_fleet(&plan.settings, plan.most_idle, metrics)),
    )
}

/// Where VMs are, as one thread remembers it: nothing yet, or what another did that asked the same.
pub fn directory(plan: &FleetPlan, previous: Option<&Directory>, metrics: &Metrics) -> Directory {
    let found = |outcome| metrics.counter(&names::VM_LOOKUPS, &[("outcome", outcome)]);
    let metrics = DirectoryMetrics {
        found: found("found"),
        unknown: found("unknown"),
        failed: found("failed"),
        asked: metrics.counter(&names::VM_QUERIES, &[]),
    };
    Directory::new(Arc::clone(&plan.vms), previous, metrics)
}

fn new_fleet(settings: &Settings, most_idle: usize, metrics: &Metrics) -> Rc<Fleet> {
    // Of those that a fleet is made of, each has one server.
    Rc::new(Fleet::new(settings.clone(), most_idle, pool_metrics(metrics, settings)))
}

/// Those of each plugin, in the order of the snapshot.
fn instances(shared: &Snapshot, previous: Option<&Local>, parts: Parts<'_>) -> Vec<Rc<Instances>> {
    let kept_instances = previous.map_or(&[][..], |previous| &previous.instances);
    let mut instances: Vec<Rc<Instances>> = Vec::with_capacity(shared.plugins.len());
    for plugin in &shared.plugins {
        let kept = kept_instances.iter().find(|instances| Arc::ptr_eq(instances.plugin(), plugin));
        let its = kept.cloned().unwrap_or_else(|| {
            let mut others = kept_instances.iter().chain(&instances);
            let namesake = others.find(|others| others.plugin().name() == plugin.name());
            Rc::new(new_instances(plugin, parts).beside(namesake.map(Rc::as_ref)))
        });
        instances.push(its);
    }
    instances
}

/// Components that answer, in the order of the snapshot.
fn components(shared: &Snapshot, previous: Option<&Local>, parts: Parts<'_>) -> Vec<Rc<LocalComponent>> {
    let kept = previous.map_or(&[][..], |previous| &previous.components);
    let component = |handler: &Arc<Handler>| {
        let same = kept.iter().find(|kept| Arc::ptr_eq(kept.handlers.handler(), handler));
        same.cloned().unwrap_or_else(|| Rc::new(new_component(handler, parts)))
    };
    shared.origins.iter().map(component).collect()
}

fn new_instances(plugin: &Arc<Plugin>, parts: Parts<'_>) -> Instances {
    let metrics = PluginMetrics::new(parts.metrics, plugin.name());
    parts.host.instances(Arc::clone(plugin), Arc::new(parts.outbound.clone()), metrics)
}

fn new_component(handler: &Arc<Handler>, parts: Parts<'_>) -> LocalComponent {
    let metrics = HandlerMetrics::new(parts.metrics, handler.name());
    let services = Arc::new(parts.outbound.clone());
    let settings = Settings::nowhere(format!("wasm:{}", handler.name()));
    LocalComponent {
        handlers: parts.host.handlers(Arc::clone(handler), services, metrics),
        pool: Rc::new(Pool::new(Arc::new(Backend::new(settings, None)), uncounted())),
    }
}

/// Metrics of a backend that no connection leads to: nobody is shown them.
fn uncounted() -> PoolMetrics {
    let cells = Strip::new([Kind::Counter, Kind::Counter, Kind::Counter, Kind::Gauge, Kind::Counter]);
    PoolMetrics {
        connected: cells.shard(0).into(),
        failed: cells.shard(1).into(),
        reused: cells.shard(2).into(),
        idle: cells.shard(3).into(),
        stale: cells.shard(4).into(),
        servers: None,
        queue: None,
    }
}

fn pool_metrics(metrics: &Metrics, settings: &Settings) -> PoolMetrics {
    let backend = &*settings.name;
    let labelled = |name, label, value| metrics.counter(name, &[("backend", backend), (label, value)]);
    let connects = |outcome| labelled(&names::UPSTREAM_CONNECTS, "outcome", outcome);
    let retries = |reason| labelled(&names::UPSTREAM_RETRIES, "reason", reason);
    let ejections = |reason| labelled(&names::UPSTREAM_EJECTIONS, "reason", reason);
    let refused = |reason| labelled(&names::UPSTREAM_PENDING_REFUSED, "reason", reason);
    PoolMetrics {
        connected: connects("connected"),
        failed: connects("failed"),
        reused: metrics.counter(&names::UPSTREAM_REUSES, &[("backend", backend)]),
        idle: metrics.gauge(&names::UPSTREAM_IDLE, &[("backend", backend)]),
        stale: retries("stale"),
        // There are backends by the ten thousand, and most have one server and no limits.
        servers: (settings.servers.len() > 1 || settings.source.is_some()).then(|| ServersMetrics {
            unreachable: retries("unreachable"),
            broken: retries("broken"),
            over_budget: metrics.counter(&names::UPSTREAM_OVER_BUDGET, &[("backend", backend)]),
            ejected_unreachable: ejections("unreachable"),
            ejected_failing: ejections("failing"),
        }),
        queue: settings.limits.is_some().then(|| QueueMetrics {
            waiting: metrics.gauge(&names::UPSTREAM_PENDING, &[("backend", backend)]),
            full: refused("full"),
            late: refused("late"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_of_a_route_counts_what_it_is_named_for() {
        let metrics = Arc::new(Metrics::new());
        let route = RouteMetrics::new();
        route.register(&metrics, "a");
        for (status, times) in [(101, 1), (200, 2), (304, 3), (404, 4), (503, 5), (999, 1)] {
            let status = StatusCode::from_u16(status).expect("a status");
            (0..times).for_each(|_| route.answered(status, Duration::from_millis(1)));
        }
        route.tunnels().set(6);
        route.sent().add(7);
        route.received().add(8);
        let value = |name, labels: &[_]| metrics.value(name, &[&[("route", "a")], labels].concat());
        let class = |class| value(&names::REQUESTS, &[("status", class)]);
        assert_eq!(["1xx", "2xx", "3xx", "4xx", "5xx"].map(class), [1, 2, 3, 4, 5]);
        assert_eq!(value(&names::REQUEST_SECONDS, &[]), 16_000_000, "nanoseconds in all");
        assert_eq!(value(&names::TUNNELS_ACTIVE, &[]), 6);
        assert_eq!(value(&names::TUNNEL_BYTES, &[("direction", "sent")]), 7);
        assert_eq!(value(&names::TUNNEL_BYTES, &[("direction", "received")]), 8);
        let text = metrics.render();
        assert!(text.contains(r#"vers_request_duration_seconds_count{route="a"} 16"#), "{text}");
    }
}
