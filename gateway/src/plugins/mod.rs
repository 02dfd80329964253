//! The sandbox: components, what they may do, and calls of their hooks.
//!
//! Only this module names wasmtime, and no type of it leaves. A plugin is made in three moments:
//! once per file content it is compiled ([`Host::component`]), once per configuration it is linked
//! and tried out ([`Host::link`], [`Plugin::try_out`]), and each worker makes instances of it, which
//! calls borrow ([`Instances`], [`Chain`]).
//!
//! A fault costs one call: the instance is thrown away, and the next call gets another one.

mod background;
mod bindings;
mod breaker;
mod chain;
mod clock;
mod component;
mod connection;
mod engine;
mod exchange;
mod exports;
mod fault;
mod gate;
mod grant;
mod guest_text;
mod handles;
mod host;
mod host_tcp;
mod inspect;
mod instance;
mod instances;
mod journal;
mod kv;
mod pieces;
mod places;
mod plugin;
mod response;
mod state;
mod tcp;
mod transform;

pub use background::{Background, Ran};
pub use chain::{Chain, Destination, OnError, Outcome, Verdict};
pub use component::{Component, Hash, Hooks};
pub use connection::{Closed, Connection, Refusal, Said, Wanted};
pub use exchange::{Completed, Exchange, Facts};
pub use fault::{ConfigProblem, Fault, FaultKind, LoadError};
pub use grant::{Origin, OriginError, Secret};
pub use inspect::{Import, Inspection, Manifest, inspect};
pub use instances::{Instances, PluginMetrics};
pub use journal::Journal;
pub use pieces::Way;
pub use plugin::{Grants, Limits, Plugin, PluginSpec};
pub use response::LocalResponse;
pub use tcp::Ruling;
pub use transform::Transforms;

use crate::metrics::Metrics;
use bytes::Bytes;
use engine::{Caller, Ticker};
use gate::Gate;
use kv::Space;
use places::Places;
use state::State;
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use wasmtime::component::{HasSelf, Linker};

/// What plugins may ask for and only the rest of the gateway can do.
pub trait Services: Send + Sync {
    /// Sends an HTTP request and reads the whole answer. The caller bounds the time.
    fn fetch(&self, request: http::Request<Bytes>) -> Fetching;
}

/// A request on its way.
pub type Fetching = Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, FetchError>> + Send>>;

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error("{0}")]
    Connect(String),
    /// The answer is over the limit.
    #[error("the answer is too large")]
    TooLarge,
    /// The exchange broke off.
    #[error("{0}")]
    Protocol(String),
}

/// The sandbox's engine, with the components that it compiled.
pub struct Host {
    engine: wasmtime::Engine,
    ticker: Ticker,
    linker: Linker<State>,
    /// By content: the same file under two names, or after a reload, is compiled once. A component
    /// that nobody uses any more is freed.
    components: Mutex<HashMap<Hash, Weak<Component>>>,
    /// What plugins keep, by their names: a plugin that a reload makes anew finds what the one before it
    /// has kept, and what no plugin has any more is freed.
    spaces: Mutex<HashMap<String, Weak<Space>>>,
    /// How many calls of plugins there may be at a time, by name and number: all tables of one share it.
    gates: Mutex<HashMap<(String, usize), Weak<Gate>>>,
    /// Where instances are.
    places: Arc<Places>,
    /// Where plugins' own metrics are.
    metrics: Arc<Metrics>,
}

/// The sandbox could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the WebAssembly sandbox could not be set up: {0}")]
pub struct HostError(String);

impl Host {
    /// Sets the sandbox up, and starts the thread that keeps guests within their time.
    ///
    /// # Errors
    /// Fails where the machine refuses address space or a thread.
    pub fn new(metrics: &Arc<Metrics>) -> Result<Self, HostError> {
        let failed = |error: &dyn std::fmt::Display| HostError(error.to_string());
        let instances = engine::most_instances();
        let engine = engine::engine(instances).map_err(|error| failed(&error))?;
        let ticker = Ticker::start(engine.clone()).map_err(|error| failed(&error))?;
        let linker = base_linker(&engine).map_err(|error| failed(&error))?;
        let (components, spaces, gates) = Default::default();
        let (places, metrics) = (Places::new(instances as usize), Arc::clone(metrics));
        Ok(Self { engine, ticker, linker, components, spaces, gates, places, metrics })
    }

    /// Compiles a component, or finds it compiled. Takes milliseconds to seconds: not for a worker.
    ///
    /// # Errors
    /// Fails where the bytes are no component, or no plugin.
    pub fn component(&self, file: &str, bytes: &[u8]) -> Result<Arc<Component>, LoadError> {
        let hash = Hash::of(bytes);
        let known =
            self.components.lock().unwrap_or_else(PoisonError::into_inner).get(&hash).and_then(Weak::upgrade);
        if let Some(component) = known {
            return Ok(component);
        }
        let component = Arc::new(Component::compile(&self.engine, file, bytes)?);
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.retain(|_, component| component.strong_count() > 0);
        components.insert(hash, Arc::downgrade(&component));
        Ok(component)
    }

    /// A worker's instances of a plugin; none yet.
    pub fn instances(
        &self,
        plugin: Arc<Plugin>,
        services: Arc<dyn Services>,
        metrics: PluginMetrics,
    ) -> Instances {
        Instances::new(plugin, services, self.caller(), metrics)
    }

    /// What a plugin of this name keeps; with room for so many bytes where it is new.
    fn space(&self, plugin: &str, most: usize) -> Arc<Space> {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = spaces.get(plugin).and_then(Weak::upgrade) {
            return space;
        }
        let space = Arc::new(Space::new(most));
        spaces.retain(|_, space| space.strong_count() > 0);
        spaces.insert(plugin.to_owned(), Arc::downgrade(&space));
        space
    }

    /// What bounds the calls at a time of a plugin of this name.
    fn gate(&self, plugin: &str, most: usize) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = gates.entry((plugin.to_owned(), most)).or_default();
        gate.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Gate::new(most));
            *gate = Arc::downgrade(&new);
            new
        })
    }

    fn caller(&self) -> Caller {
        self.ticker.caller()
    }

    /// What a plugin with these grants can import.
    fn linker(&self, grants: &Grants) -> wasmtime::Result<Linker<State>> {
        use bindings::vers::gateway::{kv, outbound_http, secrets};
        let mut linker = self.linker.clone();
        if !grants.secrets.is_empty() {
            secrets::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
        }
        if grants.kv > 0 {
            kv::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
        }
        if !grants.http.is_empty() {
            outbound_http::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
        }
        Ok(linker)
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

/// What every plugin can import. WASI is an empty sandbox: standard libraries expect it to be there.
fn base_linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    use bindings::vers::gateway::{clock, identity, log, metrics, random, types};
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    types::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    log::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    identity::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    random::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    metrics::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    clock::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}
