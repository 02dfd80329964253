//! Whether there is a VM for a name that somebody wants a certificate for.

use crate::{
    metrics::Metrics,
    snapshot::{self, Demand, FleetPlan, Ordered},
    vms::{Directory, NoVm},
};
use std::{cell::RefCell, rc::Rc, sync::Arc};

/// The VMs that there are, where that is known.
#[derive(Clone, Default)]
pub(super) struct Fleet(Rc<RefCell<Option<Rc<Directory>>>>);

impl Fleet {
    /// Takes up what a configuration says.
    pub(super) fn apply(&self, plan: Option<&FleetPlan>, metrics: &Metrics) {
        let mut directory = self.0.borrow_mut();
        let is_same = match (&*directory, plan) {
            (Some(directory), Some(plan)) => Arc::ptr_eq(directory.vms(), &plan.vms),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            *directory = plan.map(|plan| Rc::new(snapshot::directory(plan, None, metrics)));
        }
    }

    /// Whether a name gets a certificate: where a pattern names a VM and it is known which there are, only
    /// if there is such a VM.
    ///
    /// # Errors
    /// Fails where it gets none, and where nobody can tell.
    pub(super) async fn allows(&self, ordered: &Ordered, name: &str) -> Result<(), NoVm> {
        let directory = self.0.borrow().clone();
        match (ordered.demand(name), directory) {
            (Demand::None, _) => Err(NoVm::Unknown),
            (Demand::Any, _) | (Demand::OfVm(_), None) => Ok(()),
            (Demand::OfVm(vm), Some(directory)) => {
                let vm = vm.parse().map_err(|_| NoVm::Unknown)?;
                directory.find(&vm).await.map(drop)
            }
        }
    }
}
