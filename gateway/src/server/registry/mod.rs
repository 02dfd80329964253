//! The registry's life: it is opened before a snapshot runs that has one, and goes with the last that did; and
//! what is done with it apart from requests.

mod discovery;
mod etcd;
mod probes;
mod remote;
mod traffic;

pub(super) use discovery::Discovery;
pub(super) use etcd::Followers;

use super::StartError;
use crate::{
    metrics::Metrics,
    registry::{Place, Registry, StoreError},
    snapshot::{EtcdPlan, Snapshot},
};
use std::{io, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long a start waits for what is in etcd. Without it, the gateway starts all the same, and says so.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// Opens the registry of a snapshot, unless the one before it did.
///
/// # Errors
/// Fails where its file cannot be used.
pub(super) async fn open(
    snapshot: &Snapshot,
    followers: &mut Followers,
    metrics: &Metrics,
) -> Result<(), StartError> {
    let Some(plan) = &snapshot.registry else { return Ok(()) };
    let no_thread = |error: io::Error| StartError::Registry(StoreError(error.to_string()));
    let is_first = match &plan.etcd {
        Some(etcd) => followers.follow(&plan.registry, etcd).map_err(no_thread)?,
        None => plan.registry.open().map_err(StartError::Registry)?,
    };
    if !is_first {
        return Ok(());
    }
    if *plan.registry.place() == Place::Memory {
        tracing::info!("the registry is in memory only, and ends with this process");
    }
    plan.registry.keep_time(metrics).map_err(no_thread)?;
    if let Some(etcd) = &plan.etcd {
        first_word(&plan.registry, etcd).await;
    }
    Ok(())
}

/// Waits until it is known what is in etcd, but not for long.
async fn first_word(registry: &Arc<Registry>, plan: &EtcdPlan) {
    let mut changes = registry.subscribe();
    let opening = async { while !registry.is_open() && changes.changed().await.is_ok() {} };
    if timeout(FIRST_WORD, opening).await.is_err() {
        let trouble = registry.store_state().and_then(|state| state.trouble).unwrap_or_default();
        let members = plan.members.join(",");
        tracing::error!(
            members,
            "the registry's etcd cannot be reached: until it can, nobody is known here, and nobody can register: {trouble}"
        );
    }
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
pub(super) fn apply(snapshot: &Snapshot, before: &Snapshot, followers: &mut Followers) {
    if let Some(before) = &before.registry {
        before.end(snapshot.registry.as_ref());
    }
    if let Some(plan) = &snapshot.registry {
        plan.registry.set_terms(plan.terms);
        if let Some(etcd) = &plan.etcd {
            followers.turn(&plan.registry, etcd);
        }
    }
}
