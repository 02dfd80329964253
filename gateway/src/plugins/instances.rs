//! One worker's instances of one plugin, borrowed for a call each.

use super::{
    Exchange, Fault, FaultKind, LocalResponse, Plugin, Services, Verdict,
    bindings::exports::vers::gateway::{request_filter, response_filter},
    engine::Caller,
    handles::{REQUEST, RESPONSE},
    instance::Instance,
};
use crate::metrics::{Counter, Gauge};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};
use wasmtime::component::Resource;

/// Calls after which an instance is replaced: what a guest leaks is bounded by that.
const CALLS_PER_INSTANCE: u64 = 100_000;

/// One worker's share of a plugin's metrics.
#[derive(Debug, Clone)]
pub struct PluginMetrics {
    /// Calls of `on-request`.
    pub requests: Counter,
    /// Calls of `on-response`.
    pub responses: Counter,
    /// Faults, in the order of [`FaultKind::ALL`].
    pub faults: [Counter; FaultKind::ALL.len()],
    /// Nanoseconds inside the guest.
    pub cpu: Counter,
    /// Live instances.
    pub instances: Gauge,
}

impl PluginMetrics {
    /// Counts a fault.
    pub fn fault(&self, kind: FaultKind) {
        if let Some(counter) =
            FaultKind::ALL.iter().position(|known| *known == kind).and_then(|at| self.faults.get(at))
        {
            counter.inc();
        }
    }
}

/// One worker's instances of one plugin.
pub struct Instances {
    plugin: Arc<Plugin>,
    services: Arc<dyn Services>,
    caller: Caller,
    metrics: PluginMetrics,
    idle: RefCell<Vec<Idle>>,
    live: Rc<Cell<usize>>,
    /// Most instances in use at once since the last trim.
    peak: Cell<usize>,
    /// Whether new requests use other instances.
    is_retired: Cell<bool>,
}

struct Idle {
    instance: Instance,
    calls: u64,
    _live: Live,
}

/// Counts one live instance, however it ends.
struct Live {
    count: Rc<Cell<usize>>,
    gauge: Gauge,
}

impl Live {
    fn new(count: &Rc<Cell<usize>>, gauge: &Gauge) -> Self {
        count.set(count.get() + 1);
        gauge.inc();
        Self { count: Rc::clone(count), gauge: gauge.clone() }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.count.set(self.count.get() - 1);
        self.gauge.dec();
    }
}

impl Instances {
    pub(super) fn new(
        plugin: Arc<Plugin>,
        services: Arc<dyn Services>,
        caller: Caller,
        metrics: PluginMetrics,
    ) -> Self {
        let (idle, live, peak, is_retired) = Default::default();
        Self { plugin, services, caller, metrics, idle, live, peak, is_retired }
    }

    /// Frees what is idle, and keeps nothing from now on: no new request will come.
    pub fn retire(&self) {
        self.is_retired.set(true);
        self.idle.take();
    }

    /// Frees the instances that a burst left behind: as many stay as were in use at once since the
    /// last time.
    pub fn trim(&self) {
        let mut idle = self.idle.borrow_mut();
        let in_use = self.live.get().saturating_sub(idle.len());
        // The oldest go: the youngest were used last, and their memory is warm.
        let superfluous = idle.len().saturating_sub(self.peak.get().saturating_sub(in_use).max(1));
        idle.drain(..superfluous);
        self.peak.set(in_use);
    }

    /// The plugin that these are instances of.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// Calls `on-request`. The exchange is the plugin's until this returns; dropped before that, it
    /// is gone together with the instance.
    ///
    /// # Errors
    /// Fails where the call does; the instance is gone then.
    pub(super) async fn on_request(&self, exchange: &mut Box<Exchange>) -> Result<Verdict, Fault> {
        self.metrics.requests.inc();
        let verdict = self.call(exchange, async |instance| {
            let Instance { request, .. } = instance;
            let Some(guest) = request.take() else { return Ok(request_filter::Verdict::Next) };
            let verdict = instance
                .run(async |store| guest.call_on_request(store, Resource::new_borrow(REQUEST)).await)
                .await;
            instance.request = Some(guest);
            verdict
        });
        Ok(match verdict.await? {
            request_filter::Verdict::Next => Verdict::Next,
            request_filter::Verdict::Respond(response) => {
                Verdict::Respond(LocalResponse::from_guest(response))
            }
            request_filter::Verdict::RouteTo(name) => {
                let granted = self.plugin.backends().iter().position(|backend| *backend == name);
                Verdict::RouteTo(granted.ok_or_else(|| self.not_granted(&name))?)
            }
        })
    }

    /// Calls `on-response`, as [`Self::on_request`] does.
    pub(super) async fn on_response(&self, exchange: &mut Box<Exchange>) -> Result<Verdict, Fault> {
        self.metrics.responses.inc();
        let verdict = self.call(exchange, async |instance| {
            let Instance { response, .. } = instance;
            let Some(guest) = response.take() else { return Ok(response_filter::Verdict::Next) };
            let verdict = instance
                .run(async |store| guest.call_on_response(store, Resource::new_borrow(RESPONSE)).await)
                .await;
            instance.response = Some(guest);
            verdict
        });
        Ok(match verdict.await? {
            response_filter::Verdict::Next => Verdict::Next,
            response_filter::Verdict::Replace(response) => {
                Verdict::Respond(LocalResponse::from_guest(response))
            }
        })
    }

    async fn call<T>(
        &self,
        exchange: &mut Box<Exchange>,
        hook: impl AsyncFnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut borrowed = self.borrow().await.inspect_err(|fault| self.report(fault))?;
        let instance = &mut borrowed.instance;
        std::mem::swap(exchange, &mut instance.store.data_mut().exchange);
        let result = hook(instance).await;
        std::mem::swap(exchange, &mut instance.store.data_mut().exchange);
        self.metrics.cpu.add(u64::try_from(instance.cpu.as_nanos()).unwrap_or(u64::MAX));
        match &result {
            Ok(_) => self.give_back(borrowed),
            Err(fault) => self.report(fault),
        }
        result
    }

    async fn borrow(&self) -> Result<Idle, Fault> {
        let idle = self.idle.borrow_mut().pop();
        let in_use = self.live.get() - self.idle.borrow().len() + usize::from(idle.is_none());
        self.peak.set(self.peak.get().max(in_use));
        if let Some(idle) = idle {
            return Ok(idle);
        }
        if self.live.get() >= self.plugin.limits.instances {
            return Err(Fault { kind: FaultKind::Busy, detail: String::new() });
        }
        let live = Live::new(&self.live, &self.metrics.instances);
        let started =
            Instance::start(Arc::clone(&self.plugin), Arc::clone(&self.services), self.caller.clone()).await;
        let instance =
            started.map_err(|error| Fault { kind: FaultKind::Start, detail: error.to_string() })?;
        Ok(Idle { instance, calls: 0, _live: live })
    }

    fn give_back(&self, mut borrowed: Idle) {
        borrowed.calls += 1;
        if borrowed.calls < CALLS_PER_INSTANCE && !self.is_retired.get() {
            self.idle.borrow_mut().push(borrowed);
        }
    }

    fn not_granted(&self, backend: &str) -> Fault {
        let detail = format!("`{}` is not in its `grants.backends`", backend.escape_debug());
        let fault = Fault { kind: FaultKind::Route, detail };
        self.report(&fault);
        fault
    }

    fn report(&self, fault: &Fault) {
        self.metrics.fault(fault.kind);
        tracing::error!(
            plugin = self.plugin.name(),
            fault = fault.kind.as_str(),
            detail = fault.detail,
            "a plugin call failed: {}",
            fault.kind
        );
    }
}

impl std::fmt::Debug for Instances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instances")
            .field("plugin", &self.plugin)
            .field("live", &self.live.get())
            .finish_non_exhaustive()
    }
}
