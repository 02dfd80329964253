//! Bodies of answers on their way through the plugins that transform them.

use super::{
    Chain, Exchange, Fault, FaultKind, Instances, breaker::Breakers, chain::Link, handles::RESPONSE,
    instances::Idle,
};
use std::{cell::Cell, rc::Rc, sync::Arc};
use tokio::time::timeout;
use wasmtime::component::{Resource, ResourceAny};

/// A body on its way through the plugins that transform it, each with an instance of its own until it is
/// over. Dropped before that, the instances are gone with it.
#[derive(Debug)]
pub struct Transforms {
    route: Arc<str>,
    /// In the order in which the body meets them.
    steps: Vec<Step>,
}

/// One plugin's part.
struct Step {
    instances: Rc<Instances>,
    breakers: Rc<Breakers>,
    idle: Idle,
    transform: ResourceAny,
    _place: Place,
}

/// Counts one body more, until it is dropped.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(instances: &Instances) -> Option<Self> {
        let count = instances.transforming();
        (count.get() < instances.plugin().limits.transforms).then(|| {
            count.set(count.get() + 1);
            Self(Rc::clone(count))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Chain {
    /// Whether any plugin may transform bodies of answers.
    pub fn has_transforms(&self) -> bool {
        self.hooks.transform
    }

    /// Asks each plugin in reverse order whether it transforms the body behind this head; none where nobody
    /// does.
    ///
    /// # Errors
    /// Fails with the fault of a plugin whose `on_error` is to deny, and its name.
    pub async fn begin_transforms(
        &self,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<Box<Transforms>>, (Fault, String)> {
        let mut steps = Vec::new();
        for (position, link) in self.links.iter().enumerate().rev().filter(|(_, link)| link.hooks.transform) {
            exchange.caller = position;
            let untouched = link.may_be_skipped().then(|| exchange.response.clone());
            match (link.begin_transform(&self.route, exchange).await, untouched) {
                (Ok(step), _) => steps.extend(step),
                (Err(_), Some(head)) => exchange.response = head,
                (Err(fault), None) => return Err((fault, link.name())),
            }
        }
        let route = Arc::clone(&self.route);
        Ok((!steps.is_empty()).then(|| Box::new(Transforms { route, steps })))
    }
}

impl Link {
    async fn begin_transform(
        &self,
        route: &str,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<Step>, Fault> {
        let pass = self.breakers.transform.enter(self.whose(route, "transform"))?;
        let begun = self.begin(exchange).await;
        // One that has begun well may fail yet.
        if !matches!(begun, Ok(Some(_))) {
            pass.ended(&begun);
        }
        begun
    }

    async fn begin(&self, exchange: &mut Box<Exchange>) -> Result<Option<Step>, Fault> {
        let instances = &self.instances;
        instances.metrics().transforms.inc();
        let reported = |fault: &Fault| instances.report(fault);
        let place = Place::take(instances).ok_or_else(|| FaultKind::Busy.into()).inspect_err(reported)?;
        let mut idle = instances.borrow().await.inspect_err(reported)?.idle;
        let instance = &mut idle.instance;
        std::mem::swap(exchange, &mut instance.store.data_mut().exchange);
        let begun = match instance.hooks.transform.take() {
            None => Ok(None),
            Some(guest) => {
                let response = Resource::new_borrow(RESPONSE);
                let begun = instance.run(async |store| guest.call_begin(store, response).await).await;
                instance.hooks.transform = Some(guest);
                begun
            }
        };
        std::mem::swap(exchange, &mut instance.store.data_mut().exchange);
        instances.count_cpu(instance.cpu);
        match begun.inspect_err(reported)? {
            None => {
                instances.give_back(idle);
                Ok(None)
            }
            Some(transform) => {
                let (instances, breakers) = (Rc::clone(instances), Rc::clone(&self.breakers));
                Ok(Some(Step { instances, breakers, idle, transform, _place: place }))
            }
        }
    }
}

impl Transforms {
    /// Takes some bytes through all plugins.
    ///
    /// # Errors
    /// Fails with the fault of the first plugin that does: the body has no end then.
    pub async fn push(&mut self, mut bytes: Vec<u8>) -> Result<Vec<u8>, Fault> {
        for step in &mut self.steps {
            if bytes.is_empty() {
                break;
            }
            let pushed = step.push(&bytes).await;
            bytes = step.judged(&self.route, pushed)?;
        }
        Ok(bytes)
    }

    /// Returns what is left at the body's end.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub async fn finish(mut self) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        for mut step in self.steps.drain(..) {
            if !bytes.is_empty() {
                let pushed = step.push(&bytes).await;
                bytes = step.judged(&self.route, pushed)?;
            }
            let finished = step.finish().await;
            bytes.extend(step.judged(&self.route, finished)?);
            step.end(&self.route).await;
        }
        Ok(bytes)
    }
}

impl Step {
    async fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let transform = self.transform;
        self.call(async |store, guest| guest.transform().call_push(store, transform, bytes).await).await
    }

    async fn finish(&mut self) -> Result<Vec<u8>, Fault> {
        let transform = self.transform;
        self.call(async |store, guest| guest.transform().call_finish(store, transform).await).await
    }

    async fn call(
        &mut self,
        call: impl AsyncFnOnce(
            &mut wasmtime::Store<super::state::State>,
            &Guest,
        ) -> wasmtime::Result<Result<Vec<u8>, String>>,
    ) -> Result<Vec<u8>, Fault> {
        let plugin = Arc::clone(self.instances.plugin());
        let _turn = match &plugin.gate {
            None => None,
            Some(gate) => match timeout(plugin.limits.queue_timeout, gate.enter()).await {
                Ok(turn) => Some(turn),
                Err(_) => return Err(FaultKind::Queue.into()),
            },
        };
        let instance = &mut self.idle.instance;
        let Some(guest) = instance.hooks.transform.take() else { return Ok(Vec::new()) };
        let called = instance.run(async |store| call(store, &guest).await).await;
        instance.hooks.transform = Some(guest);
        self.instances.count_cpu(instance.cpu);
        match called? {
            Ok(bytes) if bytes.len() as u64 <= plugin.limits.body => Ok(bytes),
            Ok(bytes) => {
                let detail = format!("it returned {} bytes at a time", bytes.len());
                Err(Fault { kind: FaultKind::Transform, detail })
            }
            Err(why) => Err(Fault { kind: FaultKind::Transform, detail: why }),
        }
    }

    /// Tells a fault to the log, the metrics and the breaker.
    fn judged<T>(&self, route: &str, result: Result<T, Fault>) -> Result<T, Fault> {
        if let Err(fault) = &result {
            self.instances.report(fault);
            self.ended(route, &result);
        }
        result
    }

    fn ended<T>(&self, route: &str, result: &Result<T, Fault>) {
        let whose = super::breaker::Whose { instances: &self.instances, route, hook: "transform" };
        if let Ok(pass) = self.breakers.transform.enter(whose) {
            pass.ended(result);
        }
    }

    /// The body is over, and the instance can serve others.
    async fn end(self, route: &str) {
        self.ended(route, &Ok(()));
        let Self { instances, mut idle, transform, .. } = self;
        let dropped = idle.instance.run(async |store| transform.resource_drop_async(store).await).await;
        match dropped {
            Ok(()) => instances.give_back(idle),
            Err(fault) => instances.report(&fault),
        }
    }
}

type Guest = super::bindings::exports::vers::gateway::response_body_transform::Guest;

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Step").field("instances", &self.instances).finish_non_exhaustive()
    }
}
