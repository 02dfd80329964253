//! Where the VM of a route would be found: in the table, or by the name servers. The one thing that `explain` asks
//! of others.

use crate::{
    metrics::Metrics,
    proxy::ErrorCode,
    route::Captures,
    snapshot::{Route, Snapshot, Target, VmName, directory},
    vms::{NoVm, VmId},
};
use std::net::SocketAddr;
use tokio::task::LocalSet;

/// What is known of a VM.
pub(super) enum Found {
    /// It is at these addresses.
    At(Vec<String>),
    /// It is not known before somebody asks for it, and why.
    Later(&'static str),
    /// Nobody gets there: the error, and its cause where there is one.
    Nowhere(ErrorCode, Option<String>),
}

/// Looks for the VM that a route leads to; none where it leads to something else. `asked` is the port that the
/// client asked for.
pub(super) fn find(
    runtime: &tokio::runtime::Runtime,
    snapshot: &Snapshot,
    route: &Route,
    captures: &Captures,
    asked: u16,
) -> Option<Found> {
    let Target::Vm(name, port) = &route.target else { return None };
    let plan = snapshot.fleet.as_ref()?;
    let vm = match name {
        VmName::Fixed(vm) => Ok(vm.clone()),
        VmName::Captured(name) => captures.get(name).unwrap_or_default().parse::<VmId>(),
    };
    let Ok(vm) = vm else { return Some(Found::Nowhere(ErrorCode::VmUnknown, None)) };
    if plan.is_by_registry() {
        return Some(Found::Later("the registry is asked when somebody comes"));
    }
    // Those who ask have a task of their own.
    let asking = LocalSet::new();
    let found = runtime.block_on(asking.run_until(async {
        let directory = directory(plan, None, &Metrics::new());
        directory.find(&vm).await
    }));
    let port = port.unwrap_or(asked);
    Some(match found {
        Ok(addresses) => {
            Found::At(addresses.iter().map(|ip| SocketAddr::new(*ip, port).to_string()).collect())
        }
        Err(NoVm::Unknown) => Found::Nowhere(ErrorCode::VmUnknown, None),
        Err(NoVm::Failed(why)) => Found::Nowhere(ErrorCode::VmLookup, Some(why.to_string())),
    })
}
