//! Bodies of answers on their way through the plugins that transform them.

use super::{
    Chain, Exchange, Fault, FaultKind, Instances,
    bindings::exports::vers::gateway::response_body_transform::{Guest, Output},
    breaker::{Breakers, Whose},
    chain::Link,
    handles::RESPONSE,
    instances::{Idle, Waits},
    state::State,
};
use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};
use tokio::time::timeout;
use wasmtime::{
    Store,
    component::{Resource, ResourceAny},
};

/// Bytes of a piece that a plugin is handed.
const PIECE: usize = 64 * 1024;

/// Bytes that it may return at a time: what it has beyond them, it is asked for.
const OUTPUT: usize = 1024 * 1024;

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
    /// What it has not been handed yet, from `at` on.
    input: Vec<u8>,
    at: usize,
    /// Whether it has more of what it was handed.
    has_more: bool,
    end: End,
    /// Whether a call has failed, or was given up.
    is_broken: bool,
    _place: Place,
}

/// How far the end of a body has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// More may come.
    Open,
    /// What there is, is all.
    Told,
    /// The plugin knows.
    Finished,
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
                (Err(fault), None) => {
                    // Nothing is wrong with the others.
                    Transforms { route: Arc::clone(&self.route), steps }.discard().await;
                    return Err((fault, link.name()));
                }
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
        match &begun {
            // One that has begun well may fail yet.
            Ok(Some(_)) => pass.began(),
            over => pass.ended(over),
        }
        begun
    }

    async fn begin(&self, exchange: &mut Box<Exchange>) -> Result<Option<Step>, Fault> {
        let instances = &self.instances;
        instances.metrics().transforms.inc();
        let reported = |fault: &Fault| instances.report(fault);
        let place = Place::take(instances).ok_or_else(|| FaultKind::Busy.into()).inspect_err(reported)?;
        let mut borrowed = instances.borrow().await.inspect_err(reported)?;
        let instance = &mut borrowed.idle.instance;
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
        let begun = begun.inspect_err(reported)?;
        if begun.is_some() {
            *instance.store.data_mut().exchange = Exchange::of_body(exchange.facts.clone());
        }
        let idle = borrowed.into_idle();
        let Some(transform) = begun else {
            instances.give_back(idle);
            return Ok(None);
        };
        let (instances, breakers) = (Rc::clone(instances), Rc::clone(&self.breakers));
        let (input, at, has_more, end, is_broken) = (Vec::new(), 0, false, End::Open, false);
        Ok(Some(Step {
            instances,
            breakers,
            idle,
            transform,
            input,
            at,
            has_more,
            end,
            is_broken,
            _place: place,
        }))
    }
}

impl Transforms {
    /// Takes some bytes, once [`Self::next`] has returned all of those before.
    pub fn feed(&mut self, bytes: Vec<u8>) {
        if let Some(first) = self.steps.first_mut() {
            first.feed(bytes);
        }
    }

    /// There are no more bytes.
    pub fn end(&mut self) {
        if let Some(first) = self.steps.first_mut() {
            first.end = End::Told;
        }
    }

    /// The next bytes that go on, and none where more must be [fed](Self::feed) first. Waits for a plugin that may
    /// be called only so often at a time, but no longer than `patience`.
    ///
    /// # Errors
    /// Fails with the fault of the first plugin that does: the body has no end then.
    pub async fn next(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, Fault> {
        // What has come furthest goes on first, so that each holds no more than what one has returned.
        while let Some(at) = self.steps.iter().rposition(Step::has_work) {
            let is_last = at + 1 == self.steps.len();
            let Some(step) = self.steps.get_mut(at) else { break };
            let bytes = step.go_on(&self.route, patience).await?;
            let is_over = step.is_over();
            match self.steps.get_mut(at + 1) {
                Some(next) => {
                    next.feed(bytes);
                    if is_over {
                        next.end = End::Told;
                    }
                }
                None if is_last && !bytes.is_empty() => return Ok(Some(bytes)),
                None => {}
            }
        }
        Ok(None)
    }

    /// Nothing more will come, whether or not that was all: instances that are in no call serve others.
    pub async fn discard(self) {
        for step in self.steps {
            step.discard().await;
        }
    }
}

impl Step {
    fn feed(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.at == self.input.len(), "what was there before has gone");
        (self.input, self.at) = (bytes, 0);
    }

    fn has_work(&self) -> bool {
        self.has_more || self.at < self.input.len() || self.end == End::Told
    }

    fn is_over(&self) -> bool {
        self.end == End::Finished && !self.has_more
    }

    /// One call, and what it returns.
    async fn go_on(&mut self, route: &str, patience: Duration) -> Result<Vec<u8>, Fault> {
        let transform = self.transform;
        let made = if self.has_more {
            let pulled = self
                .call(patience, async |store, guest| guest.transform().call_pull(store, transform).await)
                .await;
            pulled.and_then(|output| match output.more && output.bytes.is_empty() {
                // It could be asked for ever, and no deadline is about that.
                true => Err(failed("it says that it has more, and returns nothing of it".to_owned())),
                false => Ok(output),
            })
        } else if self.at < self.input.len() {
            let piece = self.at..self.input.len().min(self.at + PIECE);
            self.at = piece.end;
            let input = std::mem::take(&mut self.input);
            let bytes = input.get(piece).unwrap_or_default();
            let made = self
                .call(patience, async |store, guest| {
                    guest.transform().call_push(store, transform, bytes).await
                })
                .await;
            self.input = input;
            made
        } else {
            self.end = End::Finished;
            self.call(patience, async |store, guest| guest.transform().call_finish(store, transform).await)
                .await
        };
        let judged = made.map(|Output { bytes, more }| {
            self.has_more = more;
            bytes
        });
        if judged.is_err() || self.is_over() {
            let whose = Whose { instances: &self.instances, route, hook: "transform" };
            self.breakers.transform.note(whose, &judged);
        }
        judged.inspect_err(|fault| self.instances.report(fault))
    }

    async fn call(
        &mut self,
        patience: Duration,
        call: impl AsyncFnOnce(&mut Store<State>, &Guest) -> wasmtime::Result<Result<Output, String>>,
    ) -> Result<Output, Fault> {
        let plugin = Arc::clone(self.instances.plugin());
        let _turn = match &plugin.gate {
            None => None,
            Some(gate) => match gate.try_enter() {
                Some(turn) => Some(turn),
                // It has its instance: to wait costs nothing but the backend's patience.
                None => {
                    let _waits = Waits::new(self.instances.metrics().waiting.clone());
                    Some(timeout(patience, gate.enter()).await.map_err(|_| FaultKind::Queue)?)
                }
            },
        };
        let instance = &mut self.idle.instance;
        let Some(guest) = instance.hooks.transform.take() else { return Err(FaultKind::Trap.into()) };
        let called = instance.run(async |store| call(store, &guest).await).await;
        instance.hooks.transform = Some(guest);
        self.instances.count_cpu(instance.cpu);
        // After a fault it is of no use, and is not given back.
        self.is_broken = called.is_err();
        match called? {
            Ok(output) if output.bytes.len() <= OUTPUT => Ok(output),
            Ok(output) => Err(failed(format!("it returned {} bytes at a time", output.bytes.len()))),
            Err(why) => Err(failed(why)),
        }
    }

    /// The body is over, and the instance can serve others: where it is in no call that was given up.
    async fn discard(self) {
        let Self { instances, mut idle, transform, is_broken, .. } = self;
        if is_broken || idle.instance.hooks.transform.is_none() {
            return;
        }
        let plugin = Arc::clone(instances.plugin());
        let _turn = match &plugin.gate {
            None => None,
            Some(gate) => match timeout(plugin.limits.wall, gate.enter()).await {
                Ok(turn) => Some(turn),
                Err(_) => return,
            },
        };
        let dropped = idle.instance.run(async |store| transform.resource_drop_async(store).await).await;
        *idle.instance.store.data_mut().exchange = Exchange::default();
        match dropped {
            Ok(()) => instances.give_back(idle),
            Err(fault) => instances.report(&fault),
        }
    }
}

fn failed(detail: String) -> Fault {
    Fault { kind: FaultKind::Transform, detail }
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Step").field("instances", &self.instances).finish_non_exhaustive()
    }
}
