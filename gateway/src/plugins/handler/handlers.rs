//! One worker's share of a component: how many requests it answers at a time, and what is counted.

use super::{
    super::{Services, engine::Caller, instances::Waits, state::LogBudget},
    Handler, HandlerFault, HandlerFaultKind, Serving,
};
use crate::{
    drain::Guard,
    metrics::{Counter, Gauge, Metrics, names},
};
use std::{
    cell::Cell,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// One worker's share of a component that answers requests.
pub struct Handlers {
    pub(super) handler: Arc<Handler>,
    pub(super) services: Arc<dyn Services>,
    pub(super) caller: Caller,
    pub(super) metrics: Rc<HandlerMetrics>,
    /// Lines that its instances may log.
    pub(super) log: Arc<Mutex<LogBudget>>,
    /// Those of this worker.
    places: Arc<Semaphore>,
    waiting: Cell<usize>,
}

/// One worker's share of the metrics of a component that answers requests.
#[derive(Debug)]
pub struct HandlerMetrics {
    /// Faults, in the order of [`HandlerFaultKind::ALL`].
    faults: [Counter; HandlerFaultKind::ALL.len()],
    /// Nanoseconds inside the guest.
    cpu: Counter,
    /// Live instances.
    pub(super) instances: Gauge,
    /// Requests that wait for their turn.
    waiting: Gauge,
}

/// A request's place among those that are answered at a time.
#[derive(Debug)]
pub struct Entrance {
    _of_worker: OwnedSemaphorePermit,
    _of_all: Option<OwnedSemaphorePermit>,
}

/// Why a request has no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many wait as may.
    Full,
    /// It waited for too long.
    Late,
}

impl HandlerMetrics {
    /// One worker's share.
    pub fn new(metrics: &Metrics, origin: &str) -> Self {
        let own = ("origin", origin);
        let fault =
            |kind: HandlerFaultKind| metrics.counter(&names::ORIGIN_FAULTS, &[own, ("kind", kind.as_str())]);
        Self {
            faults: HandlerFaultKind::ALL.map(fault),
            cpu: metrics.counter(&names::ORIGIN_CPU, &[own]),
            instances: metrics.gauge(&names::ORIGIN_INSTANCES, &[own]),
            waiting: metrics.gauge(&names::ORIGIN_WAITING, &[own]),
        }
    }

    pub(super) fn count_cpu(&self, cpu: Duration) {
        self.cpu.add(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts a fault, and tells the log.
    pub(super) fn report(&self, origin: &str, fault: &HandlerFault) {
        let counted = HandlerFaultKind::ALL.iter().position(|known| *known == fault.kind);
        if let Some(counter) = counted.and_then(|at| self.faults.get(at)) {
            counter.inc();
        }
        let (kind, detail) = (fault.kind.as_str(), &*fault.detail);
        tracing::error!(origin, fault = kind, detail, "a component failed on a request: {}", fault.kind);
    }
}

impl super::Host {
    /// A worker's share of a component that answers requests.
    pub fn handlers(
        &self,
        handler: Arc<Handler>,
        services: Arc<dyn Services>,
        metrics: HandlerMetrics,
    ) -> Handlers {
        let places = Arc::new(Semaphore::new(handler.limits.instances));
        let (caller, metrics) = (self.caller(), Rc::new(metrics));
        let (log, waiting) = (Arc::new(Mutex::new(LogBudget::new())), Cell::new(0));
        Handlers { handler, services, caller, metrics, log, places, waiting }
    }
}

impl Handlers {
    /// The component.
    pub fn handler(&self) -> &Arc<Handler> {
        &self.handler
    }

    /// Waits for a place among the requests that are answered at a time; who came first has one first.
    ///
    /// # Errors
    /// Fails where too many wait, or this one has waited for too long.
    pub async fn enter(&self) -> Result<Entrance, Refused> {
        if let Some(entrance) = self.try_enter() {
            return Ok(entrance);
        }
        let limits = &self.handler.limits;
        if self.waiting.get() >= limits.queue {
            return Err(Refused::Full);
        }
        let _waits = (Waiting::new(&self.waiting), Waits::new(self.metrics.waiting.clone()));
        timeout(limits.queue_timeout, self.wait()).await.ok().flatten().ok_or(Refused::Late)
    }

    fn try_enter(&self) -> Option<Entrance> {
        let of_worker = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let of_all = match &self.handler.gate {
            Some(gate) => Some(Arc::clone(gate.places()).try_acquire_owned().ok()?),
            None => None,
        };
        Some(Entrance { _of_worker: of_worker, _of_all: of_all })
    }

    async fn wait(&self) -> Option<Entrance> {
        let of_all = match &self.handler.gate {
            Some(gate) => Some(Arc::clone(gate.places()).acquire_owned().await.ok()?),
            None => None,
        };
        let of_worker = Arc::clone(&self.places).acquire_owned().await.ok()?;
        Some(Entrance { _of_worker: of_worker, _of_all: of_all })
    }

    /// A request, which is still to be told. What goes on behind its answer holds the guard.
    pub fn call(&self, entrance: Entrance, guard: Guard) -> Serving {
        Serving::new(self, entrance, guard)
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handlers").field("handler", &self.handler).finish_non_exhaustive()
    }
}

/// Counts one request more that waits, until it is dropped.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
