//! Leaves a hook alone for a while that fails again and again on a route: its requests get what
//! `on_error` says, and nobody pays for calls that fail.

use super::{Fault, FaultKind, Instances};
use crate::metrics::Gauge;
use std::{
    cell::{Cell, RefCell},
    time::Instant,
};

/// The breakers of a plugin on a route, in one worker.
///
/// One for each hook: a request filter that works says nothing of a response filter that never does. A route
/// carries requests or bytes, so the hooks for connections share those for requests.
#[derive(Debug, Default)]
pub(super) struct Breakers {
    pub(super) request: Breaker,
    pub(super) body: Breaker,
    pub(super) request_transform: Breaker,
    pub(super) response: Breaker,
    pub(super) transform: Breaker,
    pub(super) log: Breaker,
}

/// One breaker: closed until enough calls in a row have failed; open then; and after a pause one call
/// tries whether it may be closed again.
///
/// Calls in a row, and no share of them: one request in many that fails must not cost the others.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Faults in a row.
    failed: Cell<u32>,
    state: Cell<State>,
    /// Made when it opens: of thousands of routes, hardly any ever has one.
    shown: RefCell<Option<Shown>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    /// From this time on, a call may try.
    Open(Instant),
    /// One tries.
    Trying,
}

/// Whose breaker it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) instances: &'a Instances,
    pub(super) route: &'a str,
    pub(super) hook: &'static str,
}

/// Tells the metrics that a breaker is open, for as long as it is.
#[derive(Debug)]
struct Shown(Gauge);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A call that the breaker lets pass; dropped without a result, it says nothing.
#[derive(Debug)]
#[must_use]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    whose: Whose<'a>,
    is_try: bool,
}

impl Breaker {
    /// Lets a call pass, or fails at once.
    pub(super) fn enter<'a>(&'a self, whose: Whose<'a>) -> Result<Pass<'a>, Fault> {
        let is_try = match self.state.get() {
            State::Closed => false,
            State::Open(until) if until <= Instant::now() => {
                self.state.set(State::Trying);
                true
            }
            State::Open(_) | State::Trying => {
                whose.instances.metrics().fault(FaultKind::Open);
                return Err(FaultKind::Open.into());
            }
        };
        Ok(Pass { breaker: self, whose, is_try })
    }

    /// How something ended that was let pass long ago. It is no try, and nothing is refused by it.
    pub(super) fn note<T>(&self, whose: Whose<'_>, result: &Result<T, Fault>) {
        Pass { breaker: self, whose, is_try: false }.ended(result);
    }

    fn open(&self, whose: Whose<'_>, faults: u32) {
        let Whose { instances, route, hook } = whose;
        let (plugin, pause) = (instances.plugin().name(), instances.plugin().limits.breaker_open);
        let gauge = instances.metrics().breaker_gauge(plugin, route, hook);
        gauge.inc();
        self.shown.replace(Some(Shown(gauge)));
        tracing::warn!(
            plugin,
            route,
            hook,
            faults,
            "a plugin failed too often in a row: on this route it is not called, but tried again every {pause:?}"
        );
    }

    fn close(&self, whose: Whose<'_>) {
        let Whose { instances, route, hook } = whose;
        self.shown.take();
        tracing::info!(
            plugin = instances.plugin().name(),
            route,
            hook,
            "a plugin works again, and is called on this route as before"
        );
    }
}

impl Pass<'_> {
    /// How the call ended.
    pub(super) fn ended<T>(mut self, result: &Result<T, Fault>) {
        match result {
            Ok(_) => self.succeeded(),
            Err(fault) if fault.kind.is_of_instance() => self.failed(),
            // It was not its fault: another call may try.
            Err(_) => {}
        }
    }

    /// It has begun well, and how it ends is [noted](Breaker::note): where it was a try, it has gone well. The
    /// faults before count on, for those that begin well and never end so.
    pub(super) fn began(mut self) {
        self.passed();
    }

    fn passed(&mut self) {
        if std::mem::take(&mut self.is_try) {
            self.breaker.state.set(State::Closed);
            self.breaker.close(self.whose);
        }
    }

    fn succeeded(&mut self) {
        if self.breaker.failed.get() != 0 {
            self.breaker.failed.set(0);
        }
        self.passed();
    }

    fn failed(&mut self) {
        let limits = &self.whose.instances.plugin().limits;
        let failed = self.breaker.failed.get().saturating_add(1);
        self.breaker.failed.set(failed);
        let again = Instant::now() + limits.breaker_open;
        if std::mem::take(&mut self.is_try) {
            self.breaker.state.set(State::Open(again));
        } else if self.breaker.state.get() == State::Closed && (1..=failed).contains(&limits.breaker_faults) {
            self.breaker.state.set(State::Open(again));
            self.breaker.open(self.whose, failed);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_try {
            self.breaker.state.set(State::Open(Instant::now()));
        }
    }
}
