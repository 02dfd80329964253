//! The one instance of a plugin that works beside the traffic.

use super::{
    Fault, Host, LoadError, Plugin, PluginMetrics, Services,
    bindings::exports::vers::gateway::background::Reason, engine::Caller, instance::Instance,
};
use std::{sync::Arc, time::Duration};

/// Least time between two runs, whatever the plugin asks for.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// A plugin's background work: at most one instance, made when it is first needed.
pub struct Background {
    plugin: Arc<Plugin>,
    services: Arc<dyn Services>,
    metrics: PluginMetrics,
    caller: Caller,
    instance: Option<Instance>,
}

/// What a run ended with.
#[derive(Debug)]
pub enum Ran {
    /// To be called again after this time.
    After(Duration),
    /// Not to be called again.
    Done,
    /// The plugin reports an error.
    Failed(String),
}

impl Background {
    /// Prepares the work of a plugin; nothing runs yet.
    pub fn new(
        host: &Host,
        plugin: Arc<Plugin>,
        services: Arc<dyn Services>,
        metrics: PluginMetrics,
    ) -> Self {
        Self { plugin, services, metrics, caller: host.caller(), instance: None }
    }

    /// Name of the plugin.
    pub fn name(&self) -> &str {
        self.plugin.name()
    }

    /// Does what is due. A fault costs the instance; the next run starts with a fresh one.
    ///
    /// # Errors
    /// Fails where the call does.
    pub async fn run(&mut self) -> Result<Ran, Fault> {
        let reason = if self.instance.is_some() { Reason::Timer } else { Reason::Start };
        let ran = self.call(async |instance| {
            let Some(guest) = instance.hooks.background.take() else { return Ok(Ok(None)) };
            let ran = instance.run(async |store| guest.call_run(store, reason).await).await;
            instance.hooks.background = Some(guest);
            ran
        });
        Ok(match ran.await? {
            Ok(Some(ms)) => Ran::After(Duration::from_millis(ms.into()).max(SHORTEST_PAUSE)),
            Ok(None) => Ran::Done,
            Err(message) => Ran::Failed(message),
        })
    }

    /// Tells the plugin that its work ends, and who goes on with it. One that never ran has nothing to undo.
    ///
    /// # Errors
    /// Fails where the call does.
    pub async fn stop(&mut self, successor: Option<Arc<Plugin>>) -> Result<(), Fault> {
        // Who goes on as another VM goes on with something else.
        let successor = successor.filter(|successor| successor.vm_id == self.plugin.vm_id);
        match &mut self.instance {
            Some(instance) => instance.store.data_mut().successor = successor,
            None => return Ok(()),
        }
        self.call(async |instance| {
            let Some(guest) = instance.hooks.background.take() else { return Ok(()) };
            instance.run(async |store| guest.call_stop(store).await).await
        })
        .await
    }

    async fn call<T>(
        &mut self,
        hook: impl AsyncFnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let result = self.call_in_instance(hook).await;
        if let Err(fault) = &result {
            self.metrics.fault(fault.kind);
        }
        result
    }

    async fn call_in_instance<T>(
        &mut self,
        hook: impl AsyncFnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                Instance::start(Arc::clone(&self.plugin), Arc::clone(&self.services), self.caller.clone())
                    .await
                    .map_err(LoadError::into_fault)?
            }
        };
        let result = hook(&mut instance).await;
        self.metrics.cpu.add(u64::try_from(instance.cpu.as_nanos()).unwrap_or(u64::MAX));
        if result.is_ok() {
            self.instance = Some(instance);
        }
        result
    }
}

impl std::fmt::Debug for Background {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Background").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}
