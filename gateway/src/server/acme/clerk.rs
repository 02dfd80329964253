//! Who makes the orders: one after the other, each when it is due and its authority may be asked.

use super::{
    AcmeStates, Fleet,
    attempts::Attempts,
    intake::{Taken, Wanted},
    item::{Fate, Item},
    stage::Backstage,
    store::Store,
    transport::Requests,
};
use crate::{
    acme::{self, OrderError, Rate, Transport},
    metrics::{Counter, Gauge, Metrics, names},
    snapshot::Ordered,
    tls::Issued,
};
use serde_json::json;
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

/// How long an order may take as a whole.
const ORDER_DEADLINE: Duration = Duration::from_secs(300);

/// How long is slept at most: clocks are set.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// How long no order begins after what it brings could not be kept.
const WITHHELD: Duration = Duration::from_secs(60);

/// Most characters that are kept of why an order failed: an authority can say anything.
const LONGEST_PROBLEM: usize = 1000;

/// What belongs to one `[certificate.NAME]`.
pub(super) struct Desk {
    ordered: Arc<Ordered>,
    transport: Arc<dyn Transport>,
    rate: Rate,
    counts: Counts,
    /// Why the last order failed or did not begin, where that is so.
    problem: Option<String>,
    /// Until when no order begins, because what it brings could not be kept.
    withheld_until: SystemTime,
}

impl Desk {
    /// One that goes on where the last one has left off.
    pub(super) fn new(ordered: &Arc<Ordered>, attempts: &Attempts, metrics: &Metrics) -> Self {
        Self {
            ordered: Arc::clone(ordered),
            transport: Arc::new(Requests::new(&ordered.roots)),
            rate: Rate::new(ordered.orders_per_hour, attempts.begun()),
            counts: Counts::new(metrics, ordered),
            problem: None,
            withheld_until: SystemTime::UNIX_EPOCH,
        }
    }

    /// When the next order may begin.
    fn next(&self, now: SystemTime) -> SystemTime {
        // A clock that was set back must not make it wait for ever.
        self.rate.next(now).max(self.withheld_until.min(now + WITHHELD))
    }
}

struct Counts {
    issued: Counter,
    failed: Counter,
    withheld: Counter,
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
            withheld: orders("withheld"),
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

/// Why nobody was asked.
enum Withheld {
    /// Nothing of the certificate can be kept.
    All(String),
    /// There is no place for what this order would bring.
    One(String),
}

/// Makes the orders.
pub(super) struct Clerk {
    pub(super) desks: Vec<Desk>,
    pub(super) items: Vec<Item>,
    /// Names that clients asked for, and that get certificates. What bounds them is that each is taken.
    pub(super) asked: mpsc::UnboundedReceiver<Wanted>,
    pub(super) taken: Taken,
    pub(super) issued: Arc<Issued>,
    pub(super) tokens: Arc<acme::Tokens>,
    pub(super) states: AcmeStates,
    pub(super) fleet: Fleet,
}

impl Clerk {
    /// Shows what is kept, and forgets what is not wanted any more.
    pub(super) fn show_all(&self) {
        // Handshakes wait meanwhile.
        let wanted: HashSet<&str> =
            self.items.iter().flat_map(|item| &item.names).map(String::as_str).collect();
        self.issued.retain(|name| wanted.contains(name));
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

    /// Makes orders for ever.
    pub(super) async fn run(&mut self) {
        loop {
            while let Ok(wanted) = self.asked.try_recv() {
                self.take(wanted);
            }
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
                Some(wanted) = self.asked.recv() => self.take(wanted),
                () = sleep(pause.min(LONGEST_SLEEP)) => {}
            }
        }
    }

    fn take(&mut self, (desk, name): Wanted) {
        self.items.push(Item::on_demand(desk, &name, SystemTime::now()));
    }

    /// What is to be done next, and when: of what may be done now, what comes first by its rank.
    fn next(&self, now: SystemTime) -> Option<(usize, SystemTime)> {
        let allowed: Vec<SystemTime> = self.desks.iter().map(|desk| desk.next(now)).collect();
        let due = |item: &Item| allowed.get(item.desk).map_or(item.due, |allowed| item.due.max(*allowed));
        let items = self.items.iter().enumerate();
        let first = items.min_by_key(|(_, item)| (due(item).max(now), item.rank(), item.due));
        first.map(|(index, item)| (index, due(item)))
    }

    async fn work_on(&mut self, index: usize, now: SystemTime) {
        let Some(item) = self.items.get_mut(index) else { return };
        let Some(desk) = self.desks.get(item.desk) else { return };
        let (mut is_allowed, mut was_used) = (true, true);
        if let Some(name) = item.asked_name() {
            // VMs go, and their names come to others.
            is_allowed = self.fleet.allows(&desk.ordered, name).await.is_ok();
            was_used = self.issued.was_used(name);
        }
        match item.fate(is_allowed, was_used, now) {
            Fate::Order => self.order(index, now).await,
            Fate::Wait => item.postpone(now),
            Fate::Forget => {
                Store::of(&desk.ordered).remove(item);
                for name in &item.names {
                    self.issued.remove(name);
                    self.taken.release(name);
                }
                let item = self.items.swap_remove(index);
                self.report(item.desk);
            }
        }
    }

    async fn order(&mut self, index: usize, now: SystemTime) {
        if let Err(withheld) = self.begin(index, now) {
            return self.withhold(index, withheld, now);
        }
        let Some(item) = self.items.get(index) else { return };
        let Some(desk) = self.desks.get_mut(item.desk) else { return };
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
        if let Err(problem) = self.keep_record(index_of_desk, SystemTime::now()) {
            tracing::error!(certificate = ordered.name, "{problem}");
        }
        // What is shown already stays as it is, and whether it was used with it.
        if let Some(item) = self.items.get(index).filter(|_| is_new) {
            self.show(item);
        }
        self.report(index_of_desk);
    }

    /// Sees that what an order brings can be kept, and keeps that it began. Nobody is asked before that.
    fn begin(&mut self, index: usize, now: SystemTime) -> Result<(), Withheld> {
        let Some(item) = self.items.get_mut(index) else { return Ok(()) };
        let Some(desk) = self.desks.get_mut(item.desk) else { return Ok(()) };
        let store = Store::of(&desk.ordered);
        store.is_ready().map_err(Withheld::All)?;
        store.has_place_for(item).map_err(Withheld::One)?;
        desk.rate.begin(now);
        let before = item.begins(now);
        let of_desk = item.desk;
        self.keep_record(of_desk, now).map_err(|problem| {
            // Nobody was asked: it has not begun.
            if let Some(desk) = self.desks.get_mut(of_desk) {
                desk.rate.undo();
            }
            if let Some(item) = self.items.get_mut(index) {
                item.has_not_begun(before);
            }
            Withheld::All(problem)
        })
    }

    /// Puts an order off, or all of a certificate.
    fn withhold(&mut self, index: usize, withheld: Withheld, now: SystemTime) {
        let Some(item) = self.items.get_mut(index) else { return };
        let (index_of_desk, names) = (item.desk, item.names.join(", "));
        let Some(desk) = self.desks.get_mut(index_of_desk) else { return };
        let problem = match withheld {
            Withheld::All(problem) => {
                desk.withheld_until = now + WITHHELD;
                problem
            }
            // The names behind it have places of their own.
            Withheld::One(problem) => {
                item.due = now + WITHHELD;
                problem
            }
        };
        desk.counts.withheld.inc();
        tracing::error!(
            certificate = desk.ordered.name, names, problem, again_in = ?WITHHELD,
            "no certificate was ordered"
        );
        desk.problem = Some(problem);
        self.report(index_of_desk);
    }

    fn keep_record(&self, index: usize, now: SystemTime) -> Result<(), String> {
        let Some(desk) = self.desks.get(index) else { return Ok(()) };
        let mine = self.items.iter().filter(|item| item.desk == index);
        Attempts::of(&desk.rate, mine, now).keep(&Store::of(&desk.ordered))
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
        let allowed = desk.next(SystemTime::now());
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
            "next_order": mine().map(|item| item.due.max(allowed)).min().map(time),
            "on_demand": mine().filter(|item| item.is_on_demand && item.certificate.is_some()).count(),
        });
        self.states.set(&desk.ordered.name, state);
    }
}
