//! The thread that ends leases. One of its own: it must not wait for anything that takes longer.

use super::Registry;
use crate::metrics::{Counter, Gauge, Metrics, names};
use std::{
    io,
    sync::{Arc, Weak},
    thread::{Builder, sleep},
    time::Duration,
};

/// How often leases are looked at.
const INTERVAL: Duration = Duration::from_millis(200);

const STATES: [&str; 7] = ["registered", "healthy", "unhealthy", "draining", "paused", "stopped", "expired"];

/// Starts it. It ends with the registry.
pub(super) fn start(registry: &Arc<Registry>, metrics: &Metrics) -> io::Result<()> {
    let counts = Counts::new(metrics);
    let registry = Arc::downgrade(registry);
    Builder::new().name("vers-reg-leases".to_owned()).spawn(move || run(&registry, &counts)).map(drop)
}

fn run(registry: &Weak<Registry>, counts: &Counts) {
    loop {
        match registry.upgrade() {
            Some(registry) => {
                registry.tick();
                counts.show(&registry);
            }
            None => return,
        }
        sleep(INTERVAL);
    }
}

struct Counts {
    entries: [Gauge; STATES.len()],
    expired: Counter,
    held: Gauge,
    watchers: Gauge,
    problem: Gauge,
    commits: Counter,
    age: Gauge,
    failures: Counter,
    seen: std::cell::Cell<(u64, u64, u64)>,
}

impl Counts {
    fn new(metrics: &Metrics) -> Self {
        Self {
            entries: STATES.map(|state| metrics.gauge(&names::REGISTRY_ENTRIES, &[("state", state)])),
            expired: metrics.counter(&names::REGISTRY_EXPIRED, &[]),
            held: metrics.gauge(&names::REGISTRY_HELD, &[]),
            watchers: metrics.gauge(&names::REGISTRY_WATCHERS, &[]),
            problem: metrics.gauge(&names::REGISTRY_STORE_PROBLEM, &[]),
            commits: metrics.counter(&names::REGISTRY_COMMITS, &[]),
            age: metrics.gauge(&names::REGISTRY_STORE_AGE, &[]),
            failures: metrics.counter(&names::REGISTRY_STORE_FAILURES, &[]),
            seen: std::cell::Cell::default(),
        }
    }

    fn show(&self, registry: &Registry) {
        let report = registry.report();
        for (state, gauge) in STATES.iter().zip(&self.entries) {
            gauge.set(report.states.get(state).copied().unwrap_or_default());
        }
        let now = (report.expired, report.commits, report.store_failures);
        let (expired, commits, failures) = self.seen.replace(now);
        self.expired.add(report.expired - expired);
        self.commits.add(report.commits - commits);
        self.failures.add(report.store_failures - failures);
        self.age.set(report.store_age);
        self.held.set(report.held);
        self.watchers.set(report.watchers);
        self.problem.set(u64::from(report.has_store_problem));
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        for gauge in self.entries.iter().chain([&self.held, &self.watchers, &self.problem, &self.age]) {
            gauge.set(0);
        }
    }
}
