//! Whether there is a VM for a name that somebody wants a certificate for.

use crate::{
    route::HostPattern,
    snapshot::Ordered,
    vms::{Known, Lookup, VmId, Vms},
};
use std::sync::Arc;
use tokio::time::timeout;

/// The capture of a pattern that stands for a VM's name.
const VM: &str = "vm";

/// The VMs that there are, where that is known.
#[derive(Default)]
pub(super) struct Fleet {
    vms: Option<Arc<Vms>>,
    lookup: Option<Box<dyn Lookup>>,
}

impl Fleet {
    /// Takes up what a configuration says.
    pub(super) fn apply(&mut self, vms: Option<&Arc<Vms>>) {
        let is_same = match (&self.vms, vms) {
            (Some(known), Some(vms)) => Arc::ptr_eq(known, vms),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            *self = Self { vms: vms.cloned(), lookup: None };
        }
    }

    /// Whether a name that is on demand is that of a VM that there is. Where a pattern names no VM, or
    /// nothing is known of VMs, the pattern decides alone. Nobody knows is no.
    pub(super) async fn allows(&mut self, ordered: &Ordered, name: &str) -> bool {
        let Some(vms) = self.vms.clone() else { return ordered.is_on_demand(name) };
        for pattern in ordered.on_demand.iter().filter(|pattern| pattern.matches(name)) {
            let HostPattern::Label { capture, .. } = pattern else { return true };
            if **capture != *VM {
                return true;
            }
            let label = name.split('.').next().unwrap_or_default();
            if let Ok(vm) = label.parse()
                && self.has(&vms, &vm).await
            {
                return true;
            }
        }
        false
    }

    async fn has(&mut self, vms: &Vms, vm: &VmId) -> bool {
        match &vms.known {
            Known::Table(table) => table.get(vm).is_some(),
            Known::Asked(source) => {
                let lookup = self.lookup.get_or_insert_with(|| source.open());
                let answer = timeout(vms.terms.timeout, lookup.find(vm)).await;
                answer.is_ok_and(|answer| answer.is_ok_and(|(addresses, _)| !addresses.is_empty()))
            }
        }
    }
}
