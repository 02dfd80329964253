//! Components that answer requests themselves (`wasi:http/incoming-handler` 0.2): what runs in `wasmtime serve`.
//!
//! Each request has an instance of its own. It runs where its client's connection does, polled by who waits for its
//! answer, as a connection to a backend is: a client that leaves ends it, and one that reads slowly slows it down.

mod fault;
mod handlers;
mod outgoing;
mod run;
mod said;
mod serving;
mod state;
mod upload;

pub use fault::{HandlerFault, HandlerFaultKind, NoAnswer};
pub use handlers::{Entrance, HandlerMetrics, Handlers, Refused};
pub use serving::Serving;

use super::{
    Component, Host, LoadError, Origin, Secret, Services, component::check_handler_imports, gate::Gate,
    places::Share,
};
use state::State;
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};
use wasmtime::component::Linker;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

/// What a component that answers requests is made from.
#[derive(Debug)]
pub struct HandlerSpec {
    /// Its name in the configuration, or its file.
    pub name: Arc<str>,
    /// The compiled component.
    pub component: Arc<Component>,
    /// What it may do.
    pub grants: HandlerGrants,
    /// What it may use.
    pub limits: HandlerLimits,
}

/// What the configuration grants to a component that answers requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandlerGrants {
    /// Where it may send HTTP requests.
    pub http: Vec<Origin>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// What of its environment nobody else must see; one that is unset is no variable.
    pub secret_env: BTreeMap<String, Secret>,
}

/// What a component that answers requests may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandlerLimits {
    /// Bytes of memory, per instance.
    pub memory: usize,
    /// CPU time of one request.
    pub cpu: Duration,
    /// Wall-clock time of one request, where that is bounded.
    pub wall: Option<Duration>,
    /// Requests at a time, per worker.
    pub instances: usize,
    /// Requests at a time in all workers, where that is bounded.
    pub concurrency: Option<usize>,
    /// Requests that wait for their turn, per worker.
    pub queue: usize,
    /// How long each of them waits.
    pub queue_timeout: Duration,
}

/// A component that is ready to answer requests.
pub struct Handler {
    name: Arc<str>,
    component: Arc<Component>,
    grants: HandlerGrants,
    limits: HandlerLimits,
    /// How many requests there may be at a time, where that is bounded.
    gate: Option<Arc<Gate>>,
    /// Where its instances may be.
    share: Arc<Share>,
    pre: ProxyPre<State>,
}

impl Handler {
    /// Its name in the configuration, or its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The component that it runs.
    pub fn component(&self) -> &Arc<Component> {
        &self.component
    }

    /// Whether one made from `spec` would do exactly what this one does.
    pub fn is_same(&self, spec: &HandlerSpec) -> bool {
        self.name == spec.name
            && self.component.hash() == spec.component.hash()
            && self.grants == spec.grants
            && self.limits == spec.limits
    }

    /// Makes an instance and throws it away: what no request could do is found out now.
    ///
    /// # Errors
    /// Fails where there can be none.
    pub async fn try_out(
        self: &Arc<Self>,
        host: &Host,
        services: Arc<dyn Services>,
    ) -> Result<(), HandlerFault> {
        run::try_out(self, services, host.caller()).await
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the grants: secrets stand in them.
        f.debug_struct("Handler")
            .field("name", &self.name)
            .field("component", &self.component)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// Links a component that answers requests.
    ///
    /// # Errors
    /// Fails where it imports what does not exist, or has other types than the interface says.
    pub fn link_handler(&self, spec: HandlerSpec) -> Result<Handler, LoadError> {
        check_handler_imports(&spec.component)?;
        let mismatch = |error: wasmtime::Error| LoadError::Mismatch { reason: format!("{error:#}") };
        let pre = self.handler_linker.instantiate_pre(&spec.component.compiled).map_err(mismatch)?;
        let pre = ProxyPre::new(pre).map_err(mismatch)?;
        let HandlerSpec { name, component, grants, limits } = spec;
        // Plugins may have the same name.
        let shared = format!("wasm:{name}");
        let gate = limits.concurrency.map(|most| self.gate(&shared, most));
        Ok(Handler { share: self.places.share(&shared), name, component, grants, limits, gate, pre })
    }
}

/// What each of them can import: WASI 0.2, with nothing in it, and HTTP, as far as it is granted.
pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// The linker that [`Host`] keeps.
pub(super) type HandlerLinker = Linker<State>;
