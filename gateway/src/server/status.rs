//! What `/status` answers: the state of the machine, not of the file.

use super::{Generation, acme::AcmeStates, background::States, certificates, health::Reports};
use crate::{
    metrics::{Metrics, names},
    plugins::{FaultKind, Handler, HandlerFaultKind, Plugin},
    registry::Place,
    snapshot::{FleetPlan, Mode, Snapshot, Target, VmName},
    upstream::{Backend, Member, Server},
    vms::Known,
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

/// How the last reload ended.
#[derive(Debug, Clone)]
pub(super) struct LastReload {
    pub(super) at: SystemTime,
    /// Why it was refused, where it was.
    pub(super) error: Option<String>,
}

pub(super) fn status(
    generation: &Generation,
    last: Option<&LastReload>,
    (states, reports, acme): (&States, &Reports, &AcmeStates),
    metrics: &Metrics,
    draining: bool,
) -> Value {
    let snapshot = &*generation.snapshot;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "generation": generation.number,
        "draining": draining,
        "workers": snapshot.workers,
        "last_reload": last.map(|last| json!({
            "at": humantime::format_rfc3339_millis(last.at).to_string(),
            "error": last.error,
        })),
        "listeners": listeners(generation),
        "certificates": certificates::status(snapshot).into_iter().chain(acme.all()).collect::<Vec<_>>(),
        "routes": routes(snapshot, metrics),
        "backends": backends(snapshot, reports, metrics),
        "registry": registry(snapshot),
        "vms": snapshot.fleet.as_ref().map(|plan| vms(plan, metrics)),
        "plugins": snapshot.plugins.iter().map(|plugin| of_plugin(plugin, states, metrics)).collect::<Vec<_>>(),
        "origins": snapshot.origins.iter().map(|origin| of_origin(origin, metrics)).collect::<Vec<_>>(),
    })
}

fn listeners(generation: &Generation) -> Vec<Value> {
    let listeners = generation.snapshot.listeners.iter().zip(&generation.sockets);
    listeners
        .map(|(listener, bound)| {
            json!({
                "name": listener.name,
                "address": bound.address.to_string(),
                "ports": bound.sockets.len(),
                "carries": match listener.modes.other {
                    Mode::Http(_) => "http",
                    Mode::Tcp(_) => "tcp",
                    Mode::Any(_) => "any",
                },
                "tls": listener.tls.is_some(),
                "connections": bound.counts.open.load(Ordering::Relaxed),
                "limit": listener.connections,
                "limit_per_client": listener.connections_per_client,
                "warning": bound.warning,
            })
        })
        .collect()
}

fn routes(snapshot: &Snapshot, metrics: &Metrics) -> Vec<Value> {
    let plugin_name = |index: usize| snapshot.plugins.get(index).map(|plugin| plugin.name());
    snapshot
        .routes
        .iter()
        .map(|route| {
            let requests: u64 = ["1xx", "2xx", "3xx", "4xx", "5xx"]
                .iter()
                .map(|class| metrics.value(&names::REQUESTS, &[("route", &route.name), ("status", class)]))
                .sum();
            json!({
                "name": &*route.name,
                "to": match &route.target {
                    Target::Backend(index) => snapshot.backends.get(*index).map(|backend| backend.settings.name.clone()).unwrap_or_default(),
                    Target::Vm(name, port) => {
                        let name = match name {
                            VmName::Captured(name) => format!("{{{name}}}"),
                            VmName::Fixed(vm) => vm.to_string(),
                        };
                        let port = port.map_or_else(|| "{port}".to_owned(), |port| port.to_string());
                        format!("vm:{name}:{port}")
                    }
                    Target::AnyPort(_, settings) => settings.name.clone(),
                    Target::Registry(_) => "registry".to_owned(),
                    Target::Component(index) => origin_name(snapshot, *index),
                    Target::Respond(fixed) => format!("{}", fixed.status.as_u16()),
                },
                "plugins": route.plugins.iter().filter_map(|(index, _)| plugin_name(*index)).collect::<Vec<_>>(),
                "requests": requests,
                "tunnels": metrics.value(&names::TUNNELS_ACTIVE, &[("route", &route.name)]),
            })
        })
        .collect()
}

fn origin_name(snapshot: &Snapshot, index: usize) -> String {
    snapshot.origins.get(index).map(|origin| format!("wasm:{}", origin.name())).unwrap_or_default()
}

fn backends(snapshot: &Snapshot, reports: &Reports, metrics: &Metrics) -> Vec<Value> {
    let one = |backend: &Arc<Backend>| {
        let name = &*backend.settings.name;
        let now = backend.now();
        let connects =
            |outcome| metrics.value(&names::UPSTREAM_CONNECTS, &[("backend", name), ("outcome", outcome)]);
        json!({
            "name": name,
            "servers": now.members().map(|(server, member)| of_server(name, server, member, reports)).collect::<Vec<_>>(),
            "connected": connects("connected"),
            "failed": connects("failed"),
            "idle_connections": metrics.value(&names::UPSTREAM_IDLE, &[("backend", name)]),
            "pending": metrics.value(&names::UPSTREAM_PENDING, &[("backend", name)]),
        })
    };
    snapshot.backends.iter().map(one).collect()
}

fn registry(snapshot: &Snapshot) -> Option<Value> {
    if let Some(plan) = &snapshot.remote {
        let state = plan.mirror.report();
        return Some(json!({
            "url": plan.url,
            "entries": state.entries,
            "age_seconds": state.age.map(|age| age.as_secs_f64()),
            "trouble": state.trouble,
        }));
    }
    let plan = snapshot.registry.as_ref()?;
    let mut status = json!({
        "store": match plan.registry.place() {
            Place::Memory => "memory".to_owned(),
            Place::File(path) => format!("file:{}", path.display()),
            Place::Etcd(_) => {
                format!("etcd:{}", plan.etcd.as_ref().map(|etcd| etcd.members.join(",")).unwrap_or_default())
            }
        },
        "entries": plan.registry.len(),
        "revision": plan.registry.revision(None),
    });
    if let (Some(state), Place::Etcd(prefix), Value::Object(fields)) =
        (plan.registry.store_state(), plan.registry.place(), &mut status)
    {
        fields.insert("prefix".to_owned(), prefix.as_str().into());
        fields.insert("age_seconds".to_owned(), state.age.map(|age| age.as_secs_f64()).into());
        fields.insert("lost".to_owned(), state.is_lost.into());
        fields.insert("trouble".to_owned(), state.trouble.into());
    }
    Some(status)
}

fn vms(plan: &FleetPlan, metrics: &Metrics) -> Value {
    let outcome = |outcome| metrics.value(&names::VM_LOOKUPS, &[("outcome", outcome)]);
    json!({
        "known": match &plan.vms.known {
            Known::Table(table) => Some(table.len()),
            Known::Asked(_) => None,
        },
        "found": outcome("found"),
        "unknown": outcome("unknown"),
        "failed": outcome("failed"),
        "idle_connections": metrics.value(&names::UPSTREAM_IDLE, &[("backend", &plan.settings.name)]),
    })
}

fn of_server(backend: &str, server: &Server, member: &Member, reports: &Reports) -> Value {
    let address = server.to_string();
    let ejected = member.ejected_for();
    json!({
        "state": match (member.is_healthy(), ejected) {
            (false, _) => "unhealthy",
            (true, Some(_)) => "ejected",
            (true, None) => "up",
        },
        "ejected_for_ms": ejected.map(|left| left.as_millis()),
        "check": reports.of(backend, &address),
        "in_use": member.in_use(),
        "address": address,
    })
}

/// Where it is not called, and in how many workers.
fn breakers(plugin: &str, metrics: &Metrics) -> Vec<Value> {
    let open = metrics.series(&names::PLUGIN_BREAKERS_OPEN);
    let labelled = |labels: &[(&'static str, String)], key| {
        labels.iter().find(|(label, _)| *label == key).map(|(_, value)| value.clone())
    };
    open.iter()
        .filter(|(labels, _)| labelled(labels, "plugin").as_deref() == Some(plugin))
        .map(|(labels, workers)| {
            json!({
                "route": labelled(labels, "route"),
                "hook": labelled(labels, "hook"),
                "state": "open",
                "workers": workers,
            })
        })
        .collect()
}

/// How often each kind of fault has happened, of those that have.
fn faults<C: Into<Value>>(
    kinds: impl Iterator<Item = &'static str>,
    count: impl Fn(&'static str) -> C,
) -> serde_json::Map<String, Value> {
    let counts = kinds.map(|kind| (kind.to_owned(), count(kind).into()));
    counts.filter(|(_, count)| *count != 0).collect()
}

fn of_origin(origin: &Handler, metrics: &Metrics) -> Value {
    let name = origin.name();
    let faults = faults(HandlerFaultKind::ALL.iter().map(|kind| kind.as_str()), |kind| {
        metrics.value(&names::ORIGIN_FAULTS, &[("origin", name), ("kind", kind)])
    });
    json!({
        "name": name,
        "component": origin.component().file(),
        "sha256": origin.component().hash().to_string(),
        "faults": faults,
        "instances": metrics.value(&names::ORIGIN_INSTANCES, &[("origin", name)]),
        "waiting": metrics.value(&names::ORIGIN_WAITING, &[("origin", name)]),
    })
}

fn of_plugin(plugin: &Plugin, states: &States, metrics: &Metrics) -> Value {
    let name = plugin.name();
    let calls = |hook| metrics.value(&names::PLUGIN_CALLS, &[("plugin", name), ("hook", hook)]);
    let faults = faults(FaultKind::ALL.iter().map(|kind| kind.as_str()), |kind| {
        metrics.value(&names::PLUGIN_FAULTS, &[("plugin", name), ("kind", kind)])
    });
    json!({
        "name": name,
        "component": plugin.component().file(),
        "sha256": plugin.component().hash().to_string(),
        "hooks": plugin.hooks().names(),
        "calls": calls("request") + calls("request-body") + calls("response") + calls("log"),
        "faults": faults,
        "instances": metrics.value(&names::PLUGIN_INSTANCES, &[("plugin", name)]),
        "waiting": metrics.value(&names::PLUGIN_WAITING, &[("plugin", name)]),
        "breakers": breakers(name, metrics),
        "kv": plugin.kept().map(|(kept, granted)| json!({ "bytes": kept, "granted": granted })),
        "background": states.borrow().get(name),
    })
}
