//! Certificates that are ordered from authorities: one task for all of them, on the control thread.
//!
//! Orders are made one after the other, each when it is due: at once where there is no certificate, in
//! the last third of its time where there is one, and later and later where an order fails.

mod fleet;
mod item;
mod stage;
mod store;
mod transport;

use crate::{
    acme::{self, OrderError, Rate, Transport, back_off},
    metrics::{Counter, Gauge, Metrics, names},
    snapshot::{Ordered, Snapshot},
    tls::Issued,
};
use fleet::Fleet;
use item::{Fate, Item};
use serde_json::{Value, json};
use stage::Backstage;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};
use store::Store;
use tokio::{
    sync::{Mutex, mpsc},
    task::{JoinHandle, spawn_local},
    time::{sleep, timeout},
};
use transport::Requests;

/// How long an order may take as a whole.
const ORDER_DEADLINE: Duration = Duration::from_secs(300);

/// How long is slept at most: clocks are set.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Most certificates on demand. Further names get none.
const MOST_ON_DEMAND: usize = 10_000;

/// Most characters that are kept of why an order failed: an authority can say anything.
const LONGEST_PROBLEM: usize = 1000;

type Questions = Rc<Mutex<mpsc::Receiver<Box<str>>>>;

/// All orders of a gateway.
pub(super) struct AcmeWork {
    metrics: Arc<Metrics>,
    running: Option<Running>,
    questions: Option<Questions>,
    states: AcmeStates,
    fleet: Rc<Mutex<Fleet>>,
}

struct Running {
    ordered: Vec<Arc<Ordered>>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What `/status` says of each certificate that is ordered.
#[derive(Debug, Clone, Default)]
pub(super) struct AcmeStates(Rc<RefCell<BTreeMap<String, Value>>>);

impl AcmeStates {
    /// One for each certificate of the configuration.
    pub(super) fn all(&self) -> Vec<Value> {
        self.0.borrow().values().cloned().collect()
    }
}

impl AcmeWork {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, running: None, questions: None, states: AcmeStates::default(), fleet: Rc::default() }
    }

    /// What each order came to.
    pub(super) fn states(&self) -> AcmeStates {
        self.states.clone()
    }

    /// Takes up what a new configuration orders. Where that is what the old one did, everything goes on;
    /// an order that is under way is else begun again.
    pub(super) async fn apply(&mut self, snapshot: &Snapshot) {
        self.fleet.lock().await.apply(snapshot.fleet.as_ref().map(|plan| &plan.vms));
        if self.running.as_ref().is_some_and(|running| running.ordered == snapshot.tls.ordered) {
            return;
        }
        self.running = None;
        self.states.0.borrow_mut().clear();
        let (Some(issued), Some(tokens)) = (&snapshot.tls.issued, &snapshot.tls.tokens) else { return };
        // These are asked for once, and the task that reads them may be another one.
        if let Some(questions) = issued.questions() {
            self.questions = Some(Rc::new(Mutex::new(questions)));
        }
        let Some(questions) = self.questions.clone() else { return };
        let desks: Vec<Desk> = snapshot
            .tls
            .ordered
            .iter()
            .map(|ordered| Desk {
                ordered: Arc::clone(ordered),
                transport: Arc::new(Requests::new(&ordered.roots)),
                rate: Rate::new(ordered.orders_per_hour),
                counts: Counts::new(&self.metrics, ordered),
                problem: None,
            })
            .collect();
        let items = store::load(&snapshot.tls.ordered, SystemTime::now());
        let mut clerk = Clerk {
            desks,
            items,
            issued: Arc::clone(issued),
            tokens: Arc::clone(tokens),
            states: self.states.clone(),
            fleet: Rc::clone(&self.fleet),
        };
        clerk.show_all();
        let task = spawn_local(async move { clerk.run(&questions).await });
        self.running = Some(Running { ordered: snapshot.tls.ordered.clone(), task });
    }
}

/// What belongs to one `[certificate.NAME]`.
struct Desk {
    ordered: Arc<Ordered>,
    transport: Arc<dyn Transport>,
    rate: Rate,
    counts: Counts,
    /// Why the last order failed, where it did.
    problem: Option<String>,
}

struct Counts {
    issued: Counter,
    failed: Counter,
    held: Gauge,
    expiry: Option<Gauge>,
    problem: Gauge,
}

impl Counts {
    fn new(metrics: &Metrics, ordered: &Ordered) -> Self {
        let certificate = [("certificate", &*ordered.name)];
        let orders = |outcome| {
            metrics.counter(&names::ACME_ORDERS, &[("certificate", &*ordered.name), ("outcome", outcome)])
        };
        Self {
            issued: orders("issued"),
            failed: orders("failed"),
            held: metrics.gauge(&names::ACME_CERTIFICATES, &certificate),
            expiry: (!ordered.domains.is_empty())
                .then(|| metrics.gauge(&names::CERTIFICATE_EXPIRY, &certificate)),
            problem: metrics.gauge(&names::CERTIFICATE_PROBLEM, &certificate),
        }
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        // Whoever comes after it under the same name adds to what is left.
        self.held.set(0);
        self.problem.set(0);
        self.expiry.iter().for_each(|expiry| expiry.set(0));
    }
}

/// Makes the orders.
struct Clerk {
    desks: Vec<Desk>,
    items: Vec<Item>,
    issued: Arc<Issued>,
    tokens: Arc<acme::Tokens>,
    states: AcmeStates,
    fleet: Rc<Mutex<Fleet>>,
}

impl Clerk {
    /// Shows what is kept, and forgets what is not wanted any more.
    fn show_all(&self) {
        self.issued.retain(|name| self.items.iter().any(|item| item.has(name)));
        for item in &self.items {
            self.show(item);
        }
        (0..self.desks.len()).for_each(|desk| self.report(desk));
    }

    fn show(&self, item: &Item) {
        let Some(certificate) = &item.certificate else { return };
        let is_default =
            !item.is_on_demand && self.desks.get(item.desk).is_some_and(|desk| desk.ordered.is_default);
        self.issued.put(certificate, &item.shown_names(), is_default);
    }

    async fn run(&mut self, questions: &Questions) {
        let mut questions = questions.lock().await;
        loop {
            let now = SystemTime::now();
            let next = self.next(now);
            if let Some((index, due)) = next
                && due <= now
            {
                self.work_on(index, now).await;
                continue;
            }
            let pause = next.map_or(LONGEST_SLEEP, |(_, due)| due.duration_since(now).unwrap_or_default());
            tokio::select! {
                asked = questions.recv() => match asked {
                    Some(name) => self.consider(&name).await,
                    // Nobody can ask any more.
                    None => sleep(LONGEST_SLEEP).await,
                },
                () = sleep(pause.min(LONGEST_SLEEP)) => {}
            }
        }
    }

    /// What is due next, and when it may begin.
    fn next(&mut self, now: SystemTime) -> Option<(usize, SystemTime)> {
        let allowed: Vec<SystemTime> = self.desks.iter_mut().map(|desk| desk.rate.next(now)).collect();
        let due = |item: &Item| allowed.get(item.desk).map_or(item.due, |allowed| item.due.max(*allowed));
        self.items.iter().map(due).enumerate().min_by_key(|(_, due)| *due)
    }

    /// Somebody asked for a name that has no certificate.
    async fn consider(&mut self, name: &str) {
        let is_known = self.items.iter().any(|item| item.has(name));
        let on_demand = self.items.iter().filter(|item| item.is_on_demand).count();
        let desk = self.desks.iter().position(|desk| desk.ordered.is_on_demand(name));
        let Some(index) = desk.filter(|_| !is_known && on_demand < MOST_ON_DEMAND) else { return };
        let Some(desk) = self.desks.get(index) else { return };
        if !self.fleet.lock().await.allows(&desk.ordered, name).await {
            return tracing::debug!(name, "no certificate for this name: there is no such VM");
        }
        self.items.push(Item::on_demand(index, name, SystemTime::now()));
    }

    async fn work_on(&mut self, index: usize, now: SystemTime) {
        let Some(item) = self.items.get_mut(index) else { return };
        let Some(desk) = self.desks.get(item.desk) else { return };
        let (mut is_allowed, mut was_used) = (true, true);
        if let Some(name) = item.asked_name() {
            // VMs go, and their names come to others.
            is_allowed = self.fleet.lock().await.allows(&desk.ordered, name).await;
            was_used = self.issued.was_used(name);
        }
        match item.fate(is_allowed, was_used, now) {
            Fate::Order => self.order(index, now).await,
            Fate::Wait => item.postpone(now),
            Fate::Forget => {
                Store::of(&desk.ordered).remove(item);
                item.names.iter().for_each(|name| self.issued.remove(name));
                let item = self.items.swap_remove(index);
                self.report(item.desk);
            }
        }
    }

    async fn order(&mut self, index: usize, now: SystemTime) {
        let Some(item) = self.items.get(index) else { return };
        let Some(desk) = self.desks.get_mut(item.desk) else { return };
        desk.rate.begin(now);
        let ordered = Arc::clone(&desk.ordered);
        let stage = Backstage::new(&ordered, &self.issued, &self.tokens);
        let ordering = acme::order(&ordered.account, &item.names, ordered.challenge, &desk.transport, &stage);
        let result = match timeout(ORDER_DEADLINE, ordering).await {
            Ok(result) => result,
            Err(_) => Err(OrderError::Stage(format!("it took longer than {ORDER_DEADLINE:?}"))),
        };
        let result = result
            .map_err(|error| error.to_string().chars().take(LONGEST_PROBLEM).collect())
            .and_then(|obtained| Store::of(&ordered).keep(item, &obtained));
        let (index_of_desk, names) = (item.desk, item.names.join(", "));
        let Some(item) = self.items.get_mut(index) else { return };
        let is_new = result.is_ok();
        match result {
            Ok(certificate) => {
                item.renewed(certificate);
                desk.counts.issued.inc();
                desk.problem = None;
                tracing::info!(certificate = ordered.name, names, "issued by the authority");
            }
            Err(problem) => {
                let pause = item.failed(SystemTime::now());
                desk.counts.failed.inc();
                tracing::error!(
                    certificate = ordered.name, names, problem, again_in = ?pause,
                    "no certificate from the authority"
                );
                desk.problem = Some(problem);
            }
        }
        // What is shown already stays as it is, and whether it was used with it.
        if let Some(item) = self.items.get(index).filter(|_| is_new) {
            self.show(item);
        }
        self.report(index_of_desk);
    }

    /// Brings metrics and `/status` up to date.
    fn report(&self, index: usize) {
        let Some(desk) = self.desks.get(index) else { return };
        let mine = || self.items.iter().filter(|item| item.desk == index);
        let held = mine().filter(|item| item.certificate.is_some()).count();
        desk.counts.held.set(held as u64);
        desk.counts.problem.set(desk.problem.is_some().into());
        let fixed = mine().find(|item| !item.is_on_demand);
        let certificate = fixed.and_then(|item| item.certificate.as_ref());
        if let (Some(gauge), Some(certificate)) = (&desk.counts.expiry, certificate) {
            let expiry = certificate.not_after().duration_since(SystemTime::UNIX_EPOCH);
            gauge.set(expiry.unwrap_or_default().as_secs());
        }
        let time = |time| humantime::format_rfc3339_seconds(time).to_string();
        let state = json!({
            "name": desk.ordered.name,
            "names": desk.ordered.domains,
            "default": desk.ordered.is_default,
            "kind": certificate.map(|certificate| certificate.kind().as_str()),
            "source": "acme",
            "not_before": certificate.map(|certificate| time(certificate.not_before())),
            "not_after": certificate.map(|certificate| time(certificate.not_after())),
            "expired": certificate.is_some_and(|certificate| certificate.not_after() < SystemTime::now()),
            "problem": desk.problem,
            "next_order": mine().map(|item| item.due).min().map(time),
            "on_demand": mine().filter(|item| item.is_on_demand && item.certificate.is_some()).count(),
        });
        self.states.0.borrow_mut().insert(desk.ordered.name.clone(), state);
    }
}

/// A random number from 0 to 1.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}

/// How long to wait after so many failures.
fn pause_after(failures: u32) -> Duration {
    back_off(failures, chance())
}
