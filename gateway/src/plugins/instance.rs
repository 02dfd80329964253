//! One instance of a plugin: a store, and the functions that can be called in it.

use super::{
    ConfigProblem, Fault, FaultKind, LoadError, Plugin, Services,
    clock::{CallError, CpuBudgetSpent, Timed},
    engine::Caller,
    exports::Functions,
    places::Place,
    state::State,
};
use std::{pin::pin, sync::Arc, time::Duration};
use wasmtime::{PoolConcurrencyLimitError, Store, StoreContextMut, component::ResourceAny};

/// One instance of a plugin. It serves one call at a time, and none after a fault.
pub(super) struct Instance {
    pub(super) store: Store<State>,
    pub(super) hooks: Functions,
    /// Bytes of memory that it had once it was configured.
    pub(super) born: usize,
    /// CPU time of the last call.
    pub(super) cpu: Duration,
    /// What nobody had the time to drop who used it last: the next call begins with that.
    pub(super) left_behind: Option<ResourceAny>,
    /// Calls of hooks so far.
    calls: u32,
    caller: Caller,
    _place: Place,
}

/// Bytes that a guest may hand to the host at once, beside a body of the size that it may see: nothing ends it while the
/// host reads them. An element of a list counts with what it takes in the host's memory.
const HANDED_OVER: usize = 4 * 1024 * 1024;

impl Instance {
    /// Makes an instance and gives it its configuration.
    pub(super) async fn start(
        plugin: Arc<Plugin>,
        services: Arc<dyn Services>,
        caller: Caller,
    ) -> Result<Self, LoadError> {
        let place = plugin.share.take().ok_or_else(|| LoadError::Fault(full("the plugin's part of them")))?;
        let mut store = Store::new(plugin.pre.engine(), State::new(Arc::clone(&plugin), services));
        store.limiter(|state| &mut state.memory);
        let body = usize::try_from(plugin.limits.body).unwrap_or(usize::MAX);
        store.set_hostcall_fuel(HANDED_OVER.saturating_add(body));
        store.epoch_deadline_callback(|context: StoreContextMut<'_, State>| context.data().clock.on_epoch());
        store.set_epoch_deadline(1);
        let (hooks, born, cpu, calls, left_behind) = Default::default();
        let mut instance = Self { store, hooks, born, cpu, left_behind, calls, caller, _place: place };
        let started = instance.run(async |store| {
            let linked = plugin.pre.instantiate_async(&mut *store).await?;
            let lifecycle = plugin.exports.lifecycle.load(&mut *store, &linked)?;
            let configured = lifecycle.call_configure(&mut *store, &plugin.config).await?;
            Ok((configured, plugin.exports.load(store, &linked)?))
        });
        let (configured, hooks) = started.await.map_err(LoadError::Fault)?;
        configured
            .map_err(|problems| LoadError::Config(problems.into_iter().map(ConfigProblem::from).collect()))?;
        let born = instance.store.data().memory.held;
        Ok(Self { hooks, born, calls: 0, ..instance })
    }

    /// Bytes by which its memory has grown since it was configured.
    pub(super) fn grown(&self) -> usize {
        self.store.data().memory.held.saturating_sub(self.born)
    }

    /// Runs code in the store within the plugin's limits. After an error the instance is of no use.
    pub(super) async fn run<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        let clock = Arc::clone(&self.store.data().clock);
        let wall = self.store.data().plugin.limits.wall;
        self.store.set_epoch_deadline(1);
        let number = self.calls;
        self.calls = number.wrapping_add(1);
        // Without the ticker a guest that never returns would never be stopped.
        let _calling = self.caller.calling();
        let (result, cpu) = {
            let (store, left_behind) = (&mut self.store, self.left_behind.take());
            let call = pin!(async {
                if let Some(resource) = left_behind {
                    // In a place of its own: it is a rare case of every call.
                    Box::pin(resource.resource_drop_async(&mut *store)).await?;
                }
                call(store).await
            });
            Timed::new(call, clock, wall, number).await
        };
        self.cpu = cpu;
        result.map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &CallError) -> Fault {
        let state = self.store.data();
        let said = state.text.take();
        let (kind, trace) = match error {
            CallError::Host(kind) => (*kind, String::new()),
            CallError::Guest(error) if error.is::<CpuBudgetSpent>() => (FaultKind::Cpu, format!("{error:?}")),
            CallError::Guest(error) if error.is::<PoolConcurrencyLimitError>() => {
                return full(&error.to_string());
            }
            CallError::Guest(error) if state.memory.denied => (FaultKind::Memory, format!("{error:?}")),
            CallError::Guest(error) => (FaultKind::Trap, format!("{error:?}")),
        };
        let detail =
            [said, trace].iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("\n");
        Fault { kind, detail }
    }
}

/// Nothing is wrong with it: there is no room for another instance.
fn full(what: &str) -> Fault {
    Fault { kind: FaultKind::Busy, detail: format!("all places for instances are taken: {what}") }
}
