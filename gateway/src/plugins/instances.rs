//! One worker's instances of one plugin, borrowed for a call each.

use super::{
    Exchange, Fault, FaultKind, LoadError, LocalResponse, Plugin, Services, Verdict,
    bindings::{
        exports::vers::gateway::{request_body_filter, request_filter, response_filter},
        vers::gateway::types,
    },
    breaker::Breakers,
    engine::Caller,
    gate::Turn,
    handles::{REQUEST, RESPONSE},
    instance::Instance,
    journal::LogQueue,
};
use crate::{
    io::Seldom,
    metrics::{Counter, Gauge, Metrics, names},
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};
use wasmtime::component::Resource;

/// One worker's share of a plugin's metrics.
#[derive(Debug, Clone)]
pub struct PluginMetrics {
    /// Calls of `on-request`.
    pub requests: Counter,
    /// Calls of `on-response`.
    pub responses: Counter,
    /// Calls of `on-request-body`.
    pub bodies: Counter,
    /// Bodies shown to `request-body-transform`.
    pub request_transforms: Counter,
    /// Bodies shown to `response-body-transform`.
    pub transforms: Counter,
    /// Calls of `on-complete`.
    pub logs: Counter,
    /// Calls of `on-accept`.
    pub tcp: Counter,
    /// Calls of `on-first-bytes`.
    pub tcp_bytes: Counter,
    /// Calls of `on-close`.
    pub tcp_logs: Counter,
    /// Exchanges that it should have logged, and that found no room in its queue.
    pub log_dropped: Counter,
    /// Faults, in the order of [`FaultKind::ALL`].
    pub faults: [Counter; FaultKind::ALL.len()],
    /// Nanoseconds inside the guest.
    pub cpu: Counter,
    /// Live instances.
    pub instances: Gauge,
    /// Calls that wait for their turn.
    pub waiting: Gauge,
    /// Instances replaced after so many calls.
    pub recycled_calls: Counter,
    /// Instances replaced after they had grown so much.
    pub recycled_memory: Counter,
    /// Where the others are that few plugins ever need.
    pub all: Arc<Metrics>,
}

impl PluginMetrics {
    /// One thread's share of a plugin's metrics.
    pub fn new(metrics: &Arc<Metrics>, plugin: &str) -> Self {
        let counter = |name, label, value| metrics.counter(name, &[("plugin", plugin), (label, value)]);
        let gauge = |name| metrics.gauge(name, &[("plugin", plugin)]);
        Self {
            requests: counter(&names::PLUGIN_CALLS, "hook", "request"),
            responses: counter(&names::PLUGIN_CALLS, "hook", "response"),
            bodies: counter(&names::PLUGIN_CALLS, "hook", "request-body"),
            request_transforms: counter(&names::PLUGIN_CALLS, "hook", "request-transform"),
            transforms: counter(&names::PLUGIN_CALLS, "hook", "transform"),
            logs: counter(&names::PLUGIN_CALLS, "hook", "log"),
            tcp: counter(&names::PLUGIN_CALLS, "hook", "tcp"),
            tcp_bytes: counter(&names::PLUGIN_CALLS, "hook", "tcp-bytes"),
            tcp_logs: counter(&names::PLUGIN_CALLS, "hook", "tcp-log"),
            log_dropped: metrics.counter(&names::PLUGIN_LOG_DROPPED, &[("plugin", plugin)]),
            faults: FaultKind::ALL.map(|kind| counter(&names::PLUGIN_FAULTS, "kind", kind.as_str())),
            cpu: metrics.counter(&names::PLUGIN_CPU, &[("plugin", plugin)]),
            instances: gauge(&names::PLUGIN_INSTANCES),
            waiting: gauge(&names::PLUGIN_WAITING),
            recycled_calls: counter(&names::PLUGIN_RECYCLED, "reason", "calls"),
            recycled_memory: counter(&names::PLUGIN_RECYCLED, "reason", "memory"),
            all: Arc::clone(metrics),
        }
    }

    /// Counts an open breaker.
    pub(super) fn breaker_gauge(&self, plugin: &str, route: &str, hook: &str) -> Gauge {
        let labels = [("plugin", plugin), ("route", route), ("hook", hook)];
        self.all.gauge(&names::PLUGIN_BREAKERS_OPEN, &labels)
    }

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
    stock: Rc<Stock>,
    log_queue: LogQueue,
    /// By route; they outlive a reload that changes neither.
    breakers: RefCell<HashMap<Arc<str>, Weak<Breakers>>>,
    /// Most instances in use at once since the last trim.
    peak: Cell<usize>,
    /// Bodies that plugins of this name transform.
    transforming: Rc<Cell<usize>>,
    /// Whether new requests use other instances.
    is_retired: Cell<bool>,
    /// Calls that were refused because there are too many.
    refused: Seldom,
}

/// Small, because a call moves it often.
pub(super) struct Idle {
    pub(super) instance: Box<Instance>,
    calls: u32,
    _live: Live,
}

/// An instance for one call, and its place among all calls at a time, where these are bounded.
pub(super) struct Borrowed<'a> {
    pub(super) idle: Idle,
    _turn: Option<Turn<'a>>,
}

impl Borrowed<'_> {
    /// The instance alone, for longer than its call.
    pub(super) fn into_idle(self) -> Idle {
        self.idle
    }
}

/// How many instances there are, and who waits for one.
#[derive(Debug, Default)]
struct Stock {
    live: Cell<usize>,
    /// Calls in the queue.
    queued: Cell<usize>,
    /// Those of them that wait for an instance of this worker.
    waiting: Cell<usize>,
    freed: Notify,
    /// Calls that nobody waits for, and that have an instance when nobody else wants it.
    patient: Cell<usize>,
    spare: Notify,
}

impl Stock {
    /// Somebody may have a turn.
    fn free(&self) {
        if self.waiting.get() > 0 {
            self.freed.notify_one();
        } else if self.patient.get() > 0 {
            self.spare.notify_one();
        }
    }
}

/// A call that waits for an instance of this worker.
struct Waiting<'a>(&'a Stock);

impl<'a> Waiting<'a> {
    fn new(stock: &'a Stock) -> Self {
        stock.waiting.set(stock.waiting.get() + 1);
        Self(stock)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        // It may have been woken, and gone all the same: what it was woken for is anybody's then.
        if self.0.waiting.get() == 0 && self.0.patient.get() > 0 {
            self.0.spare.notify_one();
        }
    }
}

/// Counts one live instance, however it ends.
struct Live {
    stock: Rc<Stock>,
    gauge: Gauge,
}

impl Live {
    fn new(stock: &Rc<Stock>, gauge: &Gauge) -> Self {
        stock.live.set(stock.live.get() + 1);
        gauge.inc();
        Self { stock: Rc::clone(stock), gauge: gauge.clone() }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stock.live.set(self.stock.live.get() - 1);
        self.gauge.dec();
        self.stock.free();
    }
}

/// Counts one call more, until it is dropped.
struct Count<'a>(&'a Cell<usize>);

impl<'a> Count<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Tells the metrics that a call waits.
pub(super) struct Waits(Gauge);

impl Waits {
    pub(super) fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Instances {
    pub(super) fn new(
        plugin: Arc<Plugin>,
        services: Arc<dyn Services>,
        caller: Caller,
        metrics: PluginMetrics,
    ) -> Self {
        let (idle, stock, log_queue, breakers, peak, transforming, is_retired, refused) = Default::default();
        Self {
            plugin,
            services,
            caller,
            metrics,
            idle,
            stock,
            log_queue,
            breakers,
            peak,
            transforming,
            is_retired,
            refused,
        }
    }

    /// The same, beside others of a plugin of this name: bodies that are on their way there count here, too.
    #[must_use]
    pub fn beside(self, others: Option<&Self>) -> Self {
        let transforming = others.map_or(self.transforming, |others| Rc::clone(&others.transforming));
        Self { transforming, ..self }
    }

    /// Those of a route: as they are, where a route of this name has them already.
    pub(super) fn breakers(&self, route: &Arc<str>) -> Rc<Breakers> {
        let mut known = self.breakers.borrow_mut();
        if let Some(breakers) = known.get(route).and_then(Weak::upgrade) {
            return breakers;
        }
        if known.len() == known.capacity() {
            known.retain(|_, breakers| breakers.strong_count() > 0);
        }
        let breakers = Rc::default();
        known.insert(Arc::clone(route), Rc::downgrade(&breakers));
        breakers
    }

    /// Bodies that are being transformed.
    pub(super) fn transforming(&self) -> &Rc<Cell<usize>> {
        &self.transforming
    }

    pub(super) fn log_queue(&self) -> &LogQueue {
        &self.log_queue
    }

    pub(super) fn metrics(&self) -> &PluginMetrics {
        &self.metrics
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
        let in_use = self.stock.live.get().saturating_sub(idle.len());
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
            let Some(guest) = instance.hooks.request.take() else { return Ok(request_filter::Verdict::Next) };
            let verdict = instance
                .run(async |store| guest.call_on_request(store, Resource::new_borrow(REQUEST)).await)
                .await;
            instance.hooks.request = Some(guest);
            verdict
        });
        let verdict = verdict.await?;
        if exchange.wanted.is_some() && !self.plugin.hooks().body {
            let fault = FaultKind::Body.into();
            self.report(&fault);
            return Err(fault);
        }
        Ok(match verdict {
            request_filter::Verdict::Next => Verdict::Next,
            request_filter::Verdict::Respond(response) => Verdict::Respond(self.answer(response)?),
            request_filter::Verdict::RouteTo(name) => self.route_to(&name)?,
        })
    }

    /// Calls `on-request-body`, as [`Self::on_request`] does.
    pub(super) async fn on_request_body(
        &self,
        exchange: &mut Box<Exchange>,
        body: &[u8],
    ) -> Result<Verdict, Fault> {
        self.metrics.bodies.inc();
        let verdict = self.call(exchange, async |instance| {
            let Some(guest) = instance.hooks.body.take() else {
                return Ok(request_body_filter::Verdict::Next);
            };
            let verdict = instance
                .run(async |store| {
                    guest.call_on_request_body(store, Resource::new_borrow(REQUEST), body).await
                })
                .await;
            instance.hooks.body = Some(guest);
            verdict
        });
        Ok(match verdict.await? {
            request_body_filter::Verdict::Next => Verdict::Next,
            request_body_filter::Verdict::Replace(body) => Verdict::Replace(body),
            request_body_filter::Verdict::Respond(response) => Verdict::Respond(self.answer(response)?),
            request_body_filter::Verdict::RouteTo(name) => self.route_to(&name)?,
        })
    }

    fn answer(&self, response: types::LocalResponse) -> Result<LocalResponse, Fault> {
        LocalResponse::from_guest(response).inspect_err(|fault| self.report(fault))
    }

    fn route_to(&self, name: &str) -> Result<Verdict, Fault> {
        self.backend(name).map(Verdict::RouteTo)
    }

    /// The number of a backend that the plugin names.
    pub(super) fn backend(&self, name: &str) -> Result<usize, Fault> {
        let granted = self.plugin.backends().iter().position(|backend| backend == name);
        granted.ok_or_else(|| self.not_granted(name))
    }

    /// Calls `on-response`, as [`Self::on_request`] does.
    pub(super) async fn on_response(&self, exchange: &mut Box<Exchange>) -> Result<Verdict, Fault> {
        self.metrics.responses.inc();
        let verdict = self.call(exchange, async |instance| {
            let Some(guest) = instance.hooks.response.take() else {
                return Ok(response_filter::Verdict::Next);
            };
            let verdict = instance
                .run(async |store| guest.call_on_response(store, Resource::new_borrow(RESPONSE)).await)
                .await;
            instance.hooks.response = Some(guest);
            verdict
        });
        Ok(match verdict.await? {
            response_filter::Verdict::Next => Verdict::Next,
            response_filter::Verdict::Replace(response) => Verdict::Respond(self.answer(response)?),
        })
    }

    /// Calls `on-complete`, when nobody else wants an instance.
    pub(super) async fn on_complete(&self, exchange: &mut Box<Exchange>) -> Result<(), Fault> {
        self.metrics.logs.inc();
        let borrowed = self.spare().await;
        self.call_in(borrowed, exchange, async |instance| {
            let Some(guest) = instance.hooks.log.take() else { return Ok(()) };
            let logged = instance
                .run(async |store| guest.call_on_complete(store, Resource::new_borrow(0)).await)
                .await;
            instance.hooks.log = Some(guest);
            logged
        })
        .await
    }

    pub(super) async fn call<T>(
        &self,
        exchange: &mut Box<Exchange>,
        hook: impl AsyncFnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.call_in(self.borrow().await, exchange, hook).await
    }

    pub(super) async fn call_in<T>(
        &self,
        borrowed: Result<Borrowed<'_>, Fault>,
        exchange: &mut Box<Exchange>,
        hook: impl AsyncFnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut borrowed = borrowed.inspect_err(|fault| self.report(fault))?;
        let instance = &mut borrowed.idle.instance;
        std::mem::swap(exchange, &mut instance.store.data_mut().exchange);
        let result = hook(instance).await;
        std::mem::swap(exchange, &mut instance.store.data_mut().exchange);
        self.count_cpu(instance.cpu);
        match &result {
            Ok(_) => self.give_back(borrowed.idle),
            Err(fault) => self.report(fault),
        }
        result
    }

    /// Counts the time of a call inside the guest.
    pub(super) fn count_cpu(&self, cpu: Duration) {
        self.metrics.cpu.add(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) async fn borrow(&self) -> Result<Borrowed<'_>, Fault> {
        // Without anybody who waits, it takes no more than a look at what is there.
        let turn = match &self.plugin.gate {
            None => None,
            Some(gate) => match gate.try_enter() {
                Some(turn) => Some(turn),
                None => return Box::pin(self.queue(None)).await,
            },
        };
        if self.stock.waiting.get() == 0
            && let Some(idle) = self.take_idle()
        {
            return Ok(Borrowed { idle, _turn: turn });
        }
        Box::pin(self.start_or_queue(turn)).await
    }

    async fn start_or_queue<'a>(&'a self, turn: Option<Turn<'a>>) -> Result<Borrowed<'a>, Fault> {
        if self.stock.waiting.get() == 0
            && let Some(idle) = self.take().await?
        {
            return Ok(Borrowed { idle, _turn: turn });
        }
        self.queue(turn).await
    }

    /// An instance that nobody else wants, within the time of a call.
    pub(super) async fn spare(&self) -> Result<Borrowed<'_>, Fault> {
        let borrowed = timeout(self.plugin.limits.wall, self.borrow_spare()).await;
        borrowed.unwrap_or_else(|_| Err(FaultKind::Queue.into()))
    }

    /// An instance that nobody else wants. It holds nothing while it waits.
    async fn borrow_spare(&self) -> Result<Borrowed<'_>, Fault> {
        let turn = loop {
            while self.stock.waiting.get() > 0 || !self.has_room() {
                let _patient = Count::new(&self.stock.patient);
                self.stock.spare.notified().await;
            }
            let Some(gate) = &self.plugin.gate else { break None };
            match gate.try_enter() {
                Some(turn) => break Some(turn),
                None => gate.spare().await,
            }
        };
        let idle = self.take().await?.ok_or(FaultKind::Queue)?;
        Ok(Borrowed { idle, _turn: turn })
    }

    fn has_room(&self) -> bool {
        !self.idle.borrow().is_empty() || self.stock.live.get() < self.plugin.limits.instances
    }

    /// An instance that is idle.
    fn take_idle(&self) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        let taken = idle.pop()?;
        self.note_in_use(self.stock.live.get() - idle.len());
        Some(taken)
    }

    /// An instance that is idle, or a new one; none where there may be no more.
    async fn take(&self) -> Result<Option<Idle>, Fault> {
        if let Some(idle) = self.take_idle() {
            return Ok(Some(idle));
        }
        if self.stock.live.get() >= self.plugin.limits.instances {
            return Ok(None);
        }
        let live = Live::new(&self.stock, &self.metrics.instances);
        self.note_in_use(self.stock.live.get());
        let started =
            Instance::start(Arc::clone(&self.plugin), Arc::clone(&self.services), self.caller.clone()).await;
        let instance = Box::new(started.map_err(LoadError::into_fault)?);
        Ok(Some(Idle { instance, calls: 0, _live: live }))
    }

    /// So many instances are in use now.
    fn note_in_use(&self, count: usize) {
        self.peak.set(self.peak.get().max(count));
    }

    /// Waits for a place among all calls, where there is none yet, and for an instance.
    async fn queue<'a>(&'a self, turn: Option<Turn<'a>>) -> Result<Borrowed<'a>, Fault> {
        let limits = &self.plugin.limits;
        if self.stock.queued.get() >= limits.queue {
            return Err(FaultKind::Busy.into());
        }
        let turn = {
            let _queued = Count::new(&self.stock.queued);
            let _waits = Waits::new(self.metrics.waiting.clone());
            timeout(limits.queue_timeout, self.turn(turn)).await
        };
        let turn = turn.map_err(|_| Fault::from(FaultKind::Queue))?;
        // Nobody else has come between: this is the only thread, and an instance or room for one is there.
        let idle = self.take().await?.ok_or(FaultKind::Queue)?;
        Ok(Borrowed { idle, _turn: turn })
    }

    /// Waits until there is an instance, or room for one.
    async fn turn<'a>(&'a self, turn: Option<Turn<'a>>) -> Option<Turn<'a>> {
        let turn = match (&self.plugin.gate, turn) {
            (Some(gate), None) => Some(gate.enter().await),
            (_, turn) => turn,
        };
        // Who waits already comes first.
        let mut is_first = self.stock.waiting.get() == 0;
        while !(is_first && self.has_room()) {
            let _waiting = Waiting::new(&self.stock);
            self.stock.freed.notified().await;
            is_first = true;
        }
        turn
    }

    pub(super) fn give_back(&self, mut idle: Idle) {
        idle.calls += 1;
        let limits = &self.plugin.limits;
        if self.is_retired.get() {
            return;
        }
        if idle.calls >= limits.recycle_calls {
            self.metrics.recycled_calls.inc();
        } else if idle.instance.grown() > limits.recycle_memory {
            self.metrics.recycled_memory.inc();
        } else {
            self.idle.borrow_mut().push(idle);
            self.stock.free();
        }
    }

    fn not_granted(&self, backend: &str) -> Fault {
        let detail = format!("`{}` is not in its `grants.backends`", backend.escape_debug());
        let fault = Fault { kind: FaultKind::Route, detail };
        self.report(&fault);
        fault
    }

    pub(super) fn report(&self, fault: &Fault) {
        self.metrics.fault(fault.kind);
        if matches!(fault.kind, FaultKind::Busy | FaultKind::Queue) {
            return self.report_refused(fault);
        }
        tracing::error!(
            plugin = self.plugin.name(),
            fault = fault.kind.as_str(),
            detail = fault.detail,
            "a plugin call failed: {}",
            fault.kind
        );
    }
}

impl Instances {
    /// Clients decide how many these are: one line in a while tells it.
    fn report_refused(&self, fault: &Fault) {
        let Some(times) = self.refused.happened(Instant::now()) else { return };
        tracing::warn!(
            plugin = self.plugin.name(),
            fault = fault.kind.as_str(),
            detail = fault.detail,
            times,
            "calls of a plugin were refused: {}",
            fault.kind
        );
    }
}

impl std::fmt::Debug for Instances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instances")
            .field("plugin", &self.plugin)
            .field("live", &self.stock.live.get())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::pin::pin;

    #[test]
    fn what_a_request_was_woken_for_is_anybodys_where_it_has_left() {
        let stock = Stock::default();
        let _patient = Count::new(&stock.patient);
        let mut spare = pin!(stock.spare.notified());
        assert!(spare.as_mut().now_or_never().is_none());
        let waiting = Waiting::new(&stock);
        stock.free();
        assert!(spare.as_mut().now_or_never().is_none(), "requests come first");
        drop(waiting);
        assert!(spare.now_or_never().is_some());
    }
}
