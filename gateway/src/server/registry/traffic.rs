//! Tells the registry of servers that this gateway leaves alone, because requests to them fail, and when that is over.

use crate::{
    registry::{Finding, Record, Registry, Service, Witness},
    snapshot::{Discovered, Snapshot},
    upstream::Server,
};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::time::interval;

/// How often it is looked which servers are left alone: atomics, and more only where there are any.
const LOOK: Duration = Duration::from_millis(500);

/// Never ends.
pub(super) async fn witness(snapshot: &Snapshot) {
    let Some(plan) = &snapshot.registry else { return std::future::pending().await };
    let (registry, discovered) = (&plan.registry, &snapshot.discovered);
    let mut changes = registry.subscribe();
    let mut before = None;
    let mut look = interval(LOOK);
    loop {
        look.tick().await;
        let ejected: Vec<HashSet<Server>> = discovered.iter().map(Discovered::ejected).collect();
        let is_any = ejected.iter().any(|ejected| !ejected.is_empty());
        let is_news = before.as_ref() != Some(&ejected);
        // Whoever registers meanwhile may be one of them, and whoever leaves is none any more.
        if is_news || (is_any && changes.has_changed().is_ok_and(|changed| changed)) {
            changes.mark_unchanged();
            let findings = findings(registry, discovered, &ejected);
            if !findings.is_empty() {
                registry.judge(&findings);
            }
            before = Some(ejected);
        }
        if discovered.is_empty() {
            // What backends of another configuration met, nobody here finds out any more.
            return std::future::pending().await;
        }
    }
}

/// What is not in the registry yet, and what is there and not true any more.
fn findings(registry: &Registry, discovered: &[Discovered], ejected: &[HashSet<Server>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for record in registry.all(None) {
        for service in record.what.services.iter().flatten() {
            // Of several of a name, the first one counts.
            if record.service(&service.name).is_none_or(|first| !std::ptr::eq(first, service)) {
                continue;
            }
            let failing = failing(&record, service, discovered, ejected);
            // Another backend may leave it alone than before.
            if failing.as_deref() != record.health.met(&service.name) {
                findings.push(Finding {
                    id: Arc::clone(&record.what.id),
                    service: service.name.as_str().into(),
                    witness: Witness::Traffic,
                    works: failing.map(Err),
                });
            }
        }
    }
    findings
}

/// Why a service is left alone, where it is: one backend that does is enough.
fn failing(
    record: &Record,
    service: &Service,
    discovered: &[Discovered],
    ejected: &[HashSet<Server>],
) -> Option<String> {
    let mut leaving = discovered.iter().zip(ejected).filter(|(_, ejected)| !ejected.is_empty());
    let found = leaving.find_map(|(discovered, ejected)| {
        let server = discovered.server_of(record, service).filter(|server| ejected.contains(server))?;
        Some(format!("requests of backend {} to {server} fail", discovered.backend.settings.name))
    });
    found.filter(|_| record.is_discoverable())
}
