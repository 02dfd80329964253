//! What a worker gives to its connections.

use super::{
    answer::{ErrorCode, ErrorCounters},
    cut::{Cut, CutCounters},
    date::Date,
    held_body::Room,
    secure::Handshakes,
};
use crate::{
    ids::RequestIds,
    io::{Buffers, Timers},
    metrics::{Metrics, names},
    plugins::Journal,
    relay::Turns,
    snapshot::{Local, Parts, Snapshot},
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};
use tokio::sync::{Notify, futures::Notified};

/// What a worker gives to its connections; one per worker, on its thread only.
#[derive(Debug)]
pub struct Worker {
    local: RefCell<Rc<Local>>,
    replaced: Notify,
    /// The time of a stop is over.
    is_cut_off: Cell<bool>,
    cut_off: Notify,
    errors: ErrorCounters,
    cuts: CutCounters,
    pub(super) handshakes: Handshakes,
    pub(super) ids: RequestIds,
    pub(super) buffers: Rc<Buffers>,
    pub(super) timers: Timers,
    pub(super) turns: Rc<Turns>,
    pub(super) date: Date,
    pub(super) journal: Rc<Journal>,
    /// For bodies of requests.
    pub(super) room: Rc<Room>,
}

impl Worker {
    /// Starts with a snapshot.
    pub fn new(snapshot: Arc<Snapshot>, parts: Parts<'_>) -> Self {
        Self {
            local: RefCell::new(Rc::new(Local::build(snapshot, None, parts))),
            replaced: Notify::new(),
            is_cut_off: Cell::new(false),
            cut_off: Notify::new(),
            errors: ErrorCounters::new(parts.metrics),
            cuts: CutCounters::new(parts.metrics),
            handshakes: Handshakes::new(parts.metrics),
            // Two workers that start at the same number would only make ids that are harder to tell
            // apart.
            ids: RequestIds::new(getrandom::u64().unwrap_or_default()),
            buffers: Rc::default(),
            timers: Timers::default(),
            turns: Rc::default(),
            date: Date::default(),
            journal: Rc::default(),
            room: Rc::new(Room::new(parts.metrics)),
        }
    }

    /// What new requests run on.
    pub fn local(&self) -> Rc<Local> {
        Rc::clone(&self.local.borrow())
    }

    /// Where plugins are shown what is over.
    pub fn journal(&self) -> &Rc<Journal> {
        &self.journal
    }

    /// Whether this is what new requests run on.
    pub(super) fn runs(&self, local: &Rc<Local>) -> bool {
        Rc::ptr_eq(&self.local.borrow(), local)
    }

    /// Replaces what new requests run on; those that run keep what they have.
    pub fn swap(&self, snapshot: Arc<Snapshot>, parts: Parts<'_>) {
        let next = Rc::new(Local::build(snapshot, Some(&self.local()), parts));
        let previous = self.local.replace(Rc::clone(&next));
        previous.retire(&next);
        self.replaced.notify_waiters();
    }

    /// Waits until [`Self::local`] is another one than now.
    pub(super) fn replaced(&self) -> Notified<'_> {
        self.replaced.notified()
    }

    /// Ends what plugins are told of, so that they still are: the time of a stop is over.
    pub fn cut_off(&self) {
        self.is_cut_off.set(true);
        self.cut_off.notify_waiters();
    }

    /// Whether the time of a stop is over.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off.get()
    }

    /// Waits until it is.
    pub(super) async fn until_cut_off(&self) {
        if !self.is_cut_off.get() {
            self.cut_off.notified().await;
        }
    }

    pub(super) fn count_error(&self, code: ErrorCode) {
        self.errors.count(code);
    }

    pub(super) fn count_cut(&self, cut: Cut) {
        self.cuts.count(cut);
    }
}

/// The metrics that [`ErrorCounters`] need, so that the table of errors stays in one file.
impl ErrorCounters {
    fn new(metrics: &Metrics) -> Self {
        Self::from_fn(|code| metrics.counter(&names::GATEWAY_ERRORS, &[("code", code.as_str())]))
    }
}

/// The same for what is cut.
impl CutCounters {
    fn new(metrics: &Metrics) -> Self {
        Self::from_fn(|cut| metrics.counter(&names::CONNECTIONS_CUT, &[("reason", cut.as_str())]))
    }
}

/// The same for TLS handshakes.
impl Handshakes {
    fn new(metrics: &Metrics) -> Self {
        Self::from_fn(|how| metrics.counter(&names::TLS_HANDSHAKES, &[("outcome", how.as_str())]))
    }
}
