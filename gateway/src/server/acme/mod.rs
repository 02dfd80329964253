//! Certificates that are ordered from authorities: one task for all of them, on the control thread, and one
//! for the names that clients ask for.
//!
//! Orders are made one after the other, each when it is due: at once where there is no certificate, in
//! the last third of its time where there is one, and later and later where an order fails.

mod attempts;
mod clerk;
mod fleet;
mod intake;
mod item;
mod stage;
mod store;
mod transport;

use crate::{
    metrics::Metrics,
    snapshot::{Ordered, Snapshot},
};
use attempts::Attempts;
use clerk::{Clerk, Desk};
use fleet::Fleet;
use intake::{Intake, Questions, Refused, Taken};
use serde_json::Value;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::SystemTime};
use store::Store;
use tokio::{
    sync::{Mutex, mpsc},
    task::{JoinHandle, spawn_local},
};

/// Most certificates on demand. Further names get none.
const MOST_ON_DEMAND: usize = 10_000;

/// All orders of a gateway.
pub(super) struct AcmeWork {
    metrics: Arc<Metrics>,
    running: Option<Running>,
    questions: Option<Questions>,
    states: AcmeStates,
    fleet: Fleet,
}

struct Running {
    ordered: Vec<Arc<Ordered>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
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

    fn set(&self, name: &str, state: Value) {
        self.0.borrow_mut().insert(name.to_owned(), state);
    }
}

impl AcmeWork {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let (states, fleet) = Default::default();
        Self { metrics, running: None, questions: None, states, fleet }
    }

    /// What each order came to.
    pub(super) fn states(&self) -> AcmeStates {
        self.states.clone()
    }

    /// Takes up what a new configuration orders. Where that is what the old one did, everything goes on;
    /// an order that is under way is else given up, and has failed.
    pub(super) fn apply(&mut self, snapshot: &Snapshot) {
        self.fleet.apply(snapshot.fleet.as_ref(), &self.metrics);
        let ordered = &snapshot.tls.ordered;
        if self.running.as_ref().is_some_and(|running| running.ordered == *ordered) {
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
        let now = SystemTime::now();
        let (mut desks, mut items) = (Vec::new(), Vec::new());
        for (index, one) in ordered.iter().enumerate() {
            let attempts = Attempts::load(&Store::of(one));
            items.extend(store::load(ordered, index, &attempts, now));
            desks.push(Desk::new(one, &attempts, &self.metrics));
        }
        let (wanted, asked) = mpsc::unbounded_channel();
        let intake = Intake {
            ordered: ordered.clone(),
            fleet: self.fleet.clone(),
            taken: Taken::new(items.iter().flat_map(|item| item.names.iter().map(|name| (**name).into()))),
            issued: Arc::clone(issued),
            wanted,
            refused: Refused::new(&self.metrics),
        };
        let mut clerk = Clerk {
            desks,
            items,
            asked,
            taken: intake.taken.clone(),
            issued: Arc::clone(issued),
            tokens: Arc::clone(tokens),
            states: self.states.clone(),
            fleet: self.fleet.clone(),
        };
        clerk.show_all();
        let tasks = [
            spawn_local(async move { clerk.run().await }),
            spawn_local(async move { intake.run(&questions).await }),
        ];
        self.running = Some(Running { ordered: ordered.clone(), tasks });
    }
}
