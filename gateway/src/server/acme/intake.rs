//! Names that clients asked for and that have no certificate: which of them get one.
//!
//! Clients can make up names as fast as they shake hands, and an order takes minutes. So names are looked
//! at beside the orders and many at a time, each once, and what there is no room for is told of.

use super::{Fleet, MOST_ON_DEMAND, store};
use crate::{
    io::Seldom,
    metrics::{Counter, Metrics, names},
    snapshot::Ordered,
    tls::Issued,
    vms::NoVm,
};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    future::pending,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Mutex, mpsc},
    time::sleep,
};

/// Names that are looked at at a time: mostly one question to DNS each.
const AT_ONCE: usize = 256;

/// How long names that find no room are not told of at most.
const TELLING: Duration = Duration::from_secs(1);

/// Where names that were asked for come from; one task at a time reads them.
pub(super) type Questions = Rc<Mutex<mpsc::Receiver<Box<str>>>>;

/// A name that is to get a certificate, and the number of what it is ordered by.
pub(super) type Wanted = (usize, Box<str>);

/// Names that are looked at, ordered or issued: of bounded number, and none of them is looked at again.
#[derive(Clone)]
pub(super) struct Taken(Rc<RefCell<HashSet<Box<str>>>>);

impl Taken {
    pub(super) fn new(names: impl Iterator<Item = Box<str>>) -> Self {
        Self(Rc::new(RefCell::new(names.collect())))
    }

    /// It may be asked for again.
    pub(super) fn release(&self, name: &str) {
        self.0.borrow_mut().remove(name);
    }

    fn has(&self, name: &str) -> bool {
        self.0.borrow().contains(name)
    }

    /// Whether there is room for one more.
    fn take(&self, name: &str, most: usize) -> bool {
        let mut names = self.0.borrow_mut();
        names.len() < most && names.insert(name.into())
    }
}

/// Decides which names get certificates.
pub(super) struct Intake {
    pub(super) ordered: Vec<Arc<Ordered>>,
    pub(super) fleet: Fleet,
    pub(super) taken: Taken,
    pub(super) issued: Arc<Issued>,
    pub(super) wanted: mpsc::UnboundedSender<Wanted>,
    pub(super) refused: Refused,
}

/// What is counted and told of names that get none.
pub(super) struct Refused {
    unknown: Counter,
    failed: Counter,
    full: Counter,
    busy: Counter,
    told: [Seldom; 3],
    /// How many were lost that no line has told of.
    untold: Cell<u64>,
}

impl Refused {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let refused = |reason| metrics.counter(&names::ACME_REFUSED, &[("reason", reason)]);
        let [unknown, failed, full, busy] = ["unknown", "failed", "full", "busy"].map(refused);
        Self { unknown, failed, full, busy, told: Default::default(), untold: Cell::default() }
    }

    fn not_allowed(&self, name: &str, why: &NoVm) {
        match why {
            NoVm::Unknown => {
                self.unknown.inc();
                tracing::debug!(name, "no certificate for this name: there is no such VM");
            }
            NoVm::Failed(error) => {
                self.failed.inc();
                let [told, ..] = &self.told;
                if let Some(names) = told.happened(Instant::now()) {
                    tracing::warn!(name, %error, names, "no certificate for names whose VMs cannot be looked up");
                }
            }
        }
    }

    fn full(&self, name: &str) {
        self.full.inc();
        let [_, told, _] = &self.told;
        if let Some(names) = told.happened(Instant::now()) {
            tracing::warn!(
                name,
                names,
                most = MOST_ON_DEMAND,
                "no certificate for further names: there are as many on demand as there may be"
            );
        }
    }

    fn busy(&self, lost: u64) {
        self.busy.add(lost);
        let untold = self.untold.get() + lost;
        self.untold.set(untold);
        let [.., told] = &self.told;
        if lost > 0 && told.happened(Instant::now()).is_some() {
            self.untold.set(0);
            tracing::warn!(
                names = untold,
                "clients ask for certificates faster than their names can be looked at"
            );
        }
    }
}

impl Intake {
    /// Looks at names until nobody can ask any more.
    pub(super) async fn run(self, questions: &Questions) {
        let mut questions = questions.lock().await;
        let mut looking = FuturesUnordered::new();
        loop {
            tokio::select! {
                name = questions.recv(), if looking.len() < AT_ONCE => match name {
                    Some(name) => {
                        self.refused.busy(self.issued.lost());
                        looking.extend(self.desk(&name).map(|desk| self.look(desk, name)));
                    }
                    None => pending().await,
                },
                Some(()) = looking.next() => {}
                // Nothing may end for long, and nobody would be told.
                () = sleep(TELLING), if looking.len() >= AT_ONCE => self.refused.busy(self.issued.lost()),
            }
        }
    }

    /// Which certificate's patterns a name is of, where it is to be looked at.
    fn desk(&self, name: &str) -> Option<usize> {
        if self.taken.has(name) {
            return None;
        }
        let desk = store::first_of(&self.ordered, name)?;
        // What the file names itself is not on demand.
        let fixed: usize = self.ordered.iter().map(|ordered| ordered.domains.len()).sum();
        if self.taken.take(name, MOST_ON_DEMAND + fixed) {
            return Some(desk);
        }
        self.refused.full(name);
        None
    }

    async fn look(&self, desk: usize, name: Box<str>) {
        let Some(ordered) = self.ordered.get(desk) else { return };
        match self.fleet.allows(ordered, &name).await {
            Ok(()) => {
                // Where nobody orders any more, this ends, too.
                let _ = self.wanted.send((desk, name));
            }
            Err(why) => {
                self.refused.not_allowed(&name, &why);
                self.taken.release(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once_and_only_so_many_are() {
        let taken = Taken::new(["fixed.test".into()].into_iter());
        assert!(taken.has("fixed.test") && !taken.has("a.test"));
        assert!(taken.take("a.test", 3) && taken.take("b.test", 3));
        assert!(!taken.take("a.test", 9), "a second time");
        assert!(!taken.take("c.test", 3), "one too many");
        taken.release("a.test");
        assert!(taken.take("c.test", 3));
    }
}
