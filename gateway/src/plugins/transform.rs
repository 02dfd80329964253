//! Bodies on their way through the plugins that transform them: of requests to a backend, of answers to the client.

use super::{
    Chain, Exchange, Fault, FaultKind, Instances, Way,
    bindings::vers::gateway::types::Transformed,
    breaker::{Breaker, Breakers, Whose},
    chain::Link,
    instances::{Idle, Waits},
    pieces::{Ask, Pieces},
};
use crate::message::{RequestHead, ResponseHead};
use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};
use tokio::time::timeout;
use wasmtime::component::ResourceAny;

/// Bytes of a piece that a plugin is handed.
const PIECE: usize = 64 * 1024;

/// Bytes that it may return at a time: what it has beyond them, it is asked for.
const OUTPUT: usize = 1024 * 1024;

/// A body on its way through the plugins that transform it, each with an instance of its own until it is
/// over. Dropped before that, the instances are gone with it.
#[derive(Debug)]
pub struct Transforms {
    way: Way,
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
    /// Whether any plugin may transform bodies that go this way.
    pub fn has_transforms(&self, way: Way) -> bool {
        self.hooks.transforms(way)
    }

    /// Asks each plugin whether it transforms the body behind this head, in the order in which such a body meets
    /// them; none where nobody does.
    ///
    /// # Errors
    /// Fails with the fault of a plugin whose `on_error` is to deny, and its name.
    pub async fn begin_transforms(
        &self,
        way: Way,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<Box<Transforms>>, (Fault, String)> {
        let mut all = Transforms { way, route: Arc::clone(&self.route), steps: Vec::new() };
        let count = self.links.len();
        for turn in 0..count {
            let position = if way == Way::Request { turn } else { count - 1 - turn };
            let Some(link) = self.links.get(position).filter(|link| link.hooks.transforms(way)) else {
                continue;
            };
            exchange.caller = position;
            let untouched = link.may_be_skipped().then(|| Heads::of(exchange));
            match (link.begin_transform(way, &self.route, exchange).await, untouched) {
                (Ok(step), _) => all.steps.extend(step),
                (Err(_), Some(heads)) => heads.put_back(exchange),
                (Err(fault), None) => {
                    // Nothing is wrong with the others.
                    all.discard().await;
                    return Err((fault, link.name()));
                }
            }
        }
        Ok((!all.steps.is_empty()).then(|| Box::new(all)))
    }
}

/// The heads that a plugin may change, as they were.
struct Heads(Box<(Option<RequestHead>, Option<ResponseHead>)>);

impl Heads {
    fn of(exchange: &Exchange) -> Self {
        Self(Box::new((exchange.request.clone(), exchange.response.clone())))
    }

    fn put_back(self, exchange: &mut Exchange) {
        (exchange.request, exchange.response) = *self.0;
    }
}

impl Link {
    async fn begin_transform(
        &self,
        way: Way,
        route: &str,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<Step>, Fault> {
        let pass = self.breakers.of_transform(way).enter(self.whose(route, way.hook()))?;
        let begun = self.begin(way, exchange).await;
        match &begun {
            // One that has begun well may fail yet.
            Ok(Some(_)) => pass.began(),
            over => pass.ended(over),
        }
        begun
    }

    async fn begin(&self, way: Way, exchange: &mut Box<Exchange>) -> Result<Option<Step>, Fault> {
        let instances = &self.instances;
        match way {
            Way::Request => instances.metrics().request_transforms.inc(),
            Way::Response => instances.metrics().transforms.inc(),
        }
        let reported = |fault: &Fault| instances.report(fault);
        let place = Place::take(instances).ok_or_else(|| FaultKind::Busy.into()).inspect_err(reported)?;
        let mut borrowed = instances.borrow().await.inspect_err(reported)?;
        let instance = &mut borrowed.idle.instance;
        std::mem::swap(exchange, &mut instance.store.data_mut().exchange);
        let begun = match Pieces::take(way, &mut instance.hooks) {
            None => Ok(None),
            Some(guest) => {
                let begun = instance.run(async |store| guest.begin(store).await).await;
                guest.put(&mut instance.hooks);
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
    /// Fails with the fault of the first plugin that does, and its name: the body has no end then.
    pub async fn next(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, (Fault, String)> {
        // What has come furthest goes on first, so that each holds no more than what one has returned.
        while let Some(at) = self.steps.iter().rposition(Step::has_work) {
            let is_last = at + 1 == self.steps.len();
            let Some(step) = self.steps.get_mut(at) else { break };
            let went_on = step.go_on(self.way, &self.route, patience).await;
            let bytes = went_on.map_err(|fault| (fault, step.instances.plugin().name().to_owned()))?;
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

    /// Whether all has come out that there will be.
    pub fn is_over(&self) -> bool {
        self.steps.last().is_none_or(Step::is_over)
    }

    /// Nobody waits for the plugins' ends: instances that are in no call serve others, and the next call of each
    /// begins with that.
    pub fn leave(self) {
        for step in self.steps {
            step.leave(self.way);
        }
    }

    /// Nothing more will come, whether or not that was all: instances that are in no call serve others.
    pub async fn discard(self) {
        for step in self.steps {
            step.discard(self.way).await;
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
    async fn go_on(&mut self, way: Way, route: &str, patience: Duration) -> Result<Vec<u8>, Fault> {
        let made = if self.has_more {
            self.call(way, patience, Ask::Pull).await.and_then(|made| {
                match made.more && made.bytes.is_empty() {
                    // It could be asked for ever, and no deadline is about that.
                    true => Err(failed("it says that it has more, and returns nothing of it".to_owned())),
                    false => Ok(made),
                }
            })
        } else if self.at < self.input.len() {
            let piece = self.at..self.input.len().min(self.at + PIECE);
            self.at = piece.end;
            let input = std::mem::take(&mut self.input);
            let made = self.call(way, patience, Ask::Push(input.get(piece).unwrap_or_default())).await;
            self.input = input;
            made
        } else {
            self.end = End::Finished;
            self.call(way, patience, Ask::Finish).await
        };
        let judged = made.map(|Transformed { bytes, more }| {
            self.has_more = more;
            bytes
        });
        if judged.is_err() || self.is_over() {
            let whose = Whose { instances: &self.instances, route, hook: way.hook() };
            self.breakers.of_transform(way).note(whose, &judged);
        }
        judged.inspect_err(|fault| self.instances.report(fault))
    }

    async fn call(&mut self, way: Way, patience: Duration, ask: Ask<'_>) -> Result<Transformed, Fault> {
        let plugin = Arc::clone(self.instances.plugin());
        let _turn = match &plugin.gate {
            None => None,
            Some(gate) => match gate.try_enter() {
                Some(turn) => Some(turn),
                // It has its instance: to wait costs nothing but the sender's patience.
                None => {
                    let _waits = Waits::new(self.instances.metrics().waiting.clone());
                    Some(timeout(patience, gate.enter()).await.map_err(|_| FaultKind::Queue)?)
                }
            },
        };
        let (instance, transform) = (&mut self.idle.instance, self.transform);
        let Some(guest) = Pieces::take(way, &mut instance.hooks) else { return Err(FaultKind::Trap.into()) };
        let called = instance.run(async |store| guest.ask(store, transform, ask).await).await;
        guest.put(&mut instance.hooks);
        self.instances.count_cpu(instance.cpu);
        // After a fault it is of no use, and is not given back.
        self.is_broken = called.is_err();
        match called? {
            Ok(made) if made.bytes.len() <= OUTPUT => Ok(made),
            Ok(made) => Err(failed(format!("it returned {} bytes at a time", made.bytes.len()))),
            Err(why) => Err(failed(why)),
        }
    }

    fn leave(self, way: Way) {
        let Self { instances, mut idle, transform, is_broken, .. } = self;
        if !is_broken && Pieces::are_there(way, &idle.instance.hooks) {
            idle.instance.left_behind = Some(transform);
            *idle.instance.store.data_mut().exchange = Exchange::default();
            instances.give_back(idle);
        }
    }

    /// The body is over, and the instance can serve others: where it is in no call that was given up.
    async fn discard(self, way: Way) {
        let Self { instances, mut idle, transform, is_broken, .. } = self;
        if is_broken || !Pieces::are_there(way, &idle.instance.hooks) {
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

impl Breakers {
    fn of_transform(&self, way: Way) -> &Breaker {
        match way {
            Way::Request => &self.request_transform,
            Way::Response => &self.transform,
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
