//! A plugin that is ready to be called: a component, its configuration, what it may do.

use super::{Component, ConfigProblem, Hooks, Origin, Secret, Services, exports::Exports, state::State};
use crate::metrics::{Book, Metrics};
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};
use wasmtime::component::InstancePre;

use super::bindings::exports::vers::gateway::lifecycle;

/// What a plugin is made from.
#[derive(Debug)]
pub struct PluginSpec {
    /// Its name in the configuration.
    pub name: String,
    /// The compiled component.
    pub component: Arc<Component>,
    /// JSON text of its `config` table.
    pub config: String,
    /// What it may do.
    pub grants: Grants,
    /// What it may use.
    pub limits: Limits,
    /// The id of this VM, where it is known.
    pub vm_id: Option<String>,
}

/// What the configuration grants to a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Where it may send HTTP requests.
    pub http: Vec<Origin>,
    /// The secrets it may use, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Where it may send requests of clients instead of their route's own backend.
    pub backends: Vec<String>,
    /// Bytes that it may keep from call to call; 0 where it may keep nothing.
    pub kv: usize,
}

/// What a plugin may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, per instance.
    pub memory: usize,
    /// CPU time of one call.
    pub cpu: Duration,
    /// Wall-clock time of one call, waiting included.
    pub wall: Duration,
    /// Live instances per worker.
    pub instances: usize,
    /// Calls at a time in all workers; none where instances are the only bound.
    pub concurrency: Option<usize>,
    /// Calls that wait for their turn, per worker.
    pub queue: usize,
    /// How long each of them waits.
    pub queue_timeout: Duration,
    /// Bytes of a request's body that it may ask for.
    pub body: u64,
    /// Bodies that it may transform at a time, per worker.
    pub transforms: usize,
    /// First bytes of a connection that it may ask for.
    pub peek: usize,
    /// Exchanges that wait for `exchange-log`, per worker.
    pub log_queue: usize,
    /// Series of its own metrics.
    pub series: usize,
    /// Calls after which an instance is replaced.
    pub recycle_calls: u32,
    /// Bytes by which an instance may grow until it is replaced.
    pub recycle_memory: usize,
    /// Faults in a row that open a breaker; 0 where none does.
    pub breaker_faults: u32,
    /// How long a breaker stays open until a call may try.
    pub breaker_open: Duration,
}

/// A plugin that is ready to be called. Instances of it are made by each worker for itself.
pub struct Plugin {
    pub(super) name: String,
    pub(super) component: Arc<Component>,
    pub(super) config: String,
    pub(super) grants: Grants,
    pub(super) limits: Limits,
    pub(super) vm_id: Option<String>,
    /// What it keeps, where it may.
    pub(super) space: Option<Arc<super::kv::Space>>,
    /// Where its own metrics are.
    pub(super) metrics: Arc<Metrics>,
    pub(super) book: Arc<Book>,
    /// How many calls there may be at a time, where that is bounded.
    pub(super) gate: Option<Arc<super::gate::Gate>>,
    /// Where its instances may be.
    pub(super) share: Arc<super::places::Share>,
    pub(super) pre: InstancePre<State>,
    pub(super) exports: Exports,
}

impl Plugin {
    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The component that it runs.
    pub fn component(&self) -> &Arc<Component> {
        &self.component
    }

    /// Where it may send requests of clients, in the order of the configuration.
    pub fn backends(&self) -> &[String] {
        &self.grants.backends
    }

    /// Bytes that it keeps from call to call, and that it may keep; none where it may keep nothing.
    pub fn kept(&self) -> Option<(usize, usize)> {
        self.space.as_ref().map(|space| space.size())
    }

    /// The text with `***` in place of the secrets that it is granted, for what people are shown.
    pub fn without_secrets(&self, text: &str) -> String {
        let mut values: Vec<&str> = self.grants.secrets.values().filter_map(Secret::reveal).collect();
        // One may be the beginning of another.
        values.sort_unstable_by_key(|value| std::cmp::Reverse(value.len()));
        values.into_iter().fold(text.to_owned(), |text, value| text.replace(value, "***"))
    }

    /// From now on its own limits hold for what it shares with others of its name, such as the one that it replaces.
    /// Until it is certain that it runs, that one's do.
    pub fn enact(&self) {
        if let Some(space) = &self.space {
            space.limit(self.grants.kv);
        }
        self.book.limit(self.limits.series);
    }

    /// The hooks that it has.
    pub fn hooks(&self) -> Hooks {
        self.component.hooks()
    }

    /// Whether a plugin made from `spec` would do exactly what this one does.
    pub fn is_same(&self, spec: &PluginSpec) -> bool {
        self.name == spec.name
            && self.component.hash() == spec.component.hash()
            && self.config == spec.config
            && self.grants == spec.grants
            && self.limits == spec.limits
            && self.vm_id == spec.vm_id
    }

    /// Makes an instance, lets it read its configuration, and throws it away: what a bad table
    /// would do to each request is found out now.
    ///
    /// # Errors
    /// Fails with what the plugin says about its configuration, or with the fault of the attempt.
    pub async fn try_out(
        self: &Arc<Self>,
        host: &super::Host,
        services: Arc<dyn Services>,
    ) -> Result<(), super::LoadError> {
        self.footprint(host, services).await.map(drop)
    }

    /// As [`Self::try_out`]; returns the bytes of memory that the instance has, once it is configured.
    ///
    /// # Errors
    /// As [`Self::try_out`].
    pub async fn footprint(
        self: &Arc<Self>,
        host: &super::Host,
        services: Arc<dyn Services>,
    ) -> Result<usize, super::LoadError> {
        let instance = super::instance::Instance::start(Arc::clone(self), services, host.caller()).await?;
        Ok(instance.store.data().memory.held)
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the configuration nor the grants: secrets may stand in both.
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("component", &self.component)
            .finish_non_exhaustive()
    }
}

impl From<lifecycle::ConfigProblem> for ConfigProblem {
    fn from(problem: lifecycle::ConfigProblem) -> Self {
        Self { path: problem.path, message: problem.message }
    }
}
