//! The registry's life: it is opened before a snapshot runs that has one, and goes with the last that did; and
//! what is done with it apart from requests.

mod discovery;
mod probes;
mod remote;
mod traffic;

pub(super) use discovery::Discovery;

use super::StartError;
use crate::{
    metrics::Metrics,
    registry::{Place, StoreError},
    snapshot::Snapshot,
};

/// Opens the registry of a snapshot, unless the one before it did.
///
/// # Errors
/// Fails where its file cannot be used.
pub(super) fn open(snapshot: &Snapshot, metrics: &Metrics) -> Result<(), StartError> {
    let Some(plan) = &snapshot.registry else { return Ok(()) };
    if !plan.registry.open().map_err(StartError::Registry)? {
        return Ok(());
    }
    if *plan.registry.place() == Place::Memory {
        tracing::info!("the registry is in memory only, and ends with this process");
    }
    let no_thread = |error: std::io::Error| StartError::Registry(StoreError(error.to_string()));
    plan.registry.keep_time(metrics).map_err(no_thread)
}

/// Tells backends who is known already, and serves the first request.
pub(super) fn look(snapshot: &Snapshot) {
    if let Some(directory) = snapshot.directory() {
        for discovered in &snapshot.discovered {
            discovered.look(&directory);
        }
    }
}

/// Takes up what may change of a registry while it runs; whoever was let in by another token, or into another
/// registry, asks anew.
pub(super) fn apply(snapshot: &Snapshot, before: &Snapshot) {
    if let Some(before) = &before.registry {
        before.end(snapshot.registry.as_ref());
    }
    if let Some(plan) = &snapshot.registry {
        plan.registry.set_terms(plan.terms);
    }
}
