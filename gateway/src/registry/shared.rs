//! The registry as all threads share it.

use super::{
    Behind, Book, Caller, Change, Clock, Done, Effect, FileStore, Finding, Kept, Moment, Record, Refusal,
    Registration, Renewal, Role, StoreError, StoreState, SystemClock, Terms, Watcher, Wish, Wished, Witness,
    Write,
    book::{News as Told, counted},
    changes::Changes,
    clock::{Gap, Gaps},
    etcd::Link,
    keeper,
    rate::Rates,
    shelf::{Choice, Prepared, Shelf},
    show::{News, Shown},
    writer::Writer,
};
use crate::metrics::Metrics;
use bytes::Bytes;
use std::{
    collections::HashMap,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, UNIX_EPOCH},
};
use tokio::sync::oneshot;

/// Jobs that may wait for the disk. Who comes then is refused, and nothing of it is remembered.
const MOST_WAITING: usize = 10_000;

/// By how much changes are counted further after a start: some may have been told of that were not kept.
const REVISION_GAP: u64 = 1_000;

/// Where entries are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: they end with the process.
    Memory,
    /// In this file.
    File(PathBuf),
    /// In etcd, below this prefix, where other gateways share them.
    Etcd(String),
}

/// The entries, shared by all workers and by whoever looks after them.
#[derive(Debug)]
pub struct Registry {
    place: Place,
    clock: Box<dyn Clock>,
    state: Mutex<State>,
    shelf: Shelf,
    changes: Changes,
    rates: Rates,
    is_open: AtomicBool,
    /// To who asks the store, where several gateways share it.
    link: Option<Link>,
}

#[derive(Debug)]
struct State {
    book: Book,
    gaps: Gaps,
    writer: Option<Writer>,
    /// What was counted, at this revision.
    census: Option<(u64, HashMap<&'static str, u64>, u64)>,
}

/// A service that says how to ask whether it works.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Probed {
    /// Which VM.
    pub id: Arc<str>,
    /// Which service of it.
    pub service: Arc<str>,
    /// Where the VM is.
    pub address: String,
    /// The service's port there.
    pub port: u16,
    /// What answers 2xx or 3xx while it works.
    pub path: String,
}

/// The news that something is kept; at once where there is nothing to wait for.
pub type Committed = Option<oneshot::Receiver<Result<(), StoreError>>>;

/// How the registry is.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) states: HashMap<&'static str, u64>,
    pub(super) held: u64,
    pub(super) expired: u64,
    pub(super) watchers: u64,
    pub(super) commits: u64,
    pub(super) has_store_problem: bool,
    /// Seconds since a shared store was heard of last.
    pub(super) store_age: u64,
    /// Questions to it that failed.
    pub(super) store_failures: u64,
}

impl Registry {
    /// One that is not open yet.
    pub fn new(place: Place, terms: Terms) -> Self {
        Self::with_clock(place, terms, Box::new(SystemClock::new()))
    }

    /// The same, by another clock.
    pub fn with_clock(place: Place, terms: Terms, clock: Box<dyn Clock>) -> Self {
        let state = State { book: Book::new(terms, 0), gaps: Gaps::default(), writer: None, census: None };
        Self {
            link: matches!(place, Place::Etcd(_)).then(|| Link::new(clock.now().mono)),
            place,
            clock,
            state: Mutex::new(state),
            shelf: Shelf::default(),
            changes: Changes::new(0),
            rates: Rates::default(),
            is_open: AtomicBool::new(false),
        }
    }

    /// Where its entries are kept.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Reads what was kept, and begins to keep. Takes as long as the disk does. False where it was open already. One
    /// whose store several gateways share is open once that is heard of, and this does nothing.
    ///
    /// # Errors
    /// Fails where the place cannot be used.
    pub fn open(&self) -> Result<bool, StoreError> {
        let mut state = self.state();
        if self.is_open.load(Relaxed) || self.link.is_some() {
            return Ok(false);
        }
        let now = self.clock.now();
        // Others than those of the process before it, wherever they were kept.
        let wall = now.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut revision = u64::try_from(wall.as_millis()).unwrap_or_default();
        let mut kept = Vec::new();
        if let Place::File(path) = &self.place {
            let (store, loaded) = FileStore::open(path)?;
            if let Some(damage) = loaded.damage {
                tracing::error!("{damage}");
            }
            let entries = loaded.entries.len();
            tracing::info!(file = %path.display(), entries, "the registry is open");
            revision = revision.max(loaded.revision + REVISION_GAP);
            kept = loaded.entries;
            let writer = Writer::start(Box::new(store)).map_err(|error| StoreError(error.to_string()))?;
            state.writer = Some(writer);
        }
        state.book.begin(revision);
        self.shelf.begin(revision);
        self.changes.begin(revision);
        state.book.recover(kept, now);
        self.publish(&mut state, now);
        self.is_open.store(true, Relaxed);
        Ok(true)
    }

    /// Looks after leases from now on, on a thread of its own that ends with the registry.
    ///
    /// # Errors
    /// Fails where there is no thread to be had.
    pub fn keep_time(self: &Arc<Self>, metrics: &Metrics) -> std::io::Result<()> {
        keeper::start(self, metrics)
    }

    /// Other terms, for what comes.
    pub fn set_terms(&self, terms: Terms) {
        self.state().book.set_terms(terms);
    }

    /// Does what is due by now.
    pub fn tick(&self) {
        let mut state = self.state();
        let now = self.clock.now();
        if let Some(link) = &self.link {
            // Leases are the store's, which others could reach meanwhile. How old what is known is, is counted by the
            // clock that a suspension stops.
            let gap = state.gaps.look(now, self.clock.since_boot());
            if matches!(gap, Some(Gap::Suspended | Gap::Jumped)) && self.is_open() {
                link.doubt(now.mono);
            }
            state.book.sweep(now);
            self.publish(&mut state, now);
            return;
        }
        if let Some(why) = state.gaps.look(now, self.clock.since_boot()) {
            tracing::warn!("{why}: all leases run for their time to live once more");
            state.book.grant_grace(now);
        }
        state.book.tick(now);
        self.publish(&mut state, now);
    }

    /// Does what a client wants, or asks the store that several gateways share.
    ///
    /// # Errors
    /// Fails where it may not be, where nothing can be kept now, and where the store is lost.
    pub fn wish(&self, wish: Wish) -> Result<Wished, Refusal> {
        if let Some(link) = &self.link {
            link.reachable(self.clock.now().mono)?;
            return self.ask(wish).map(Wished::Asked);
        }
        let (record, committed) = match wish {
            Wish::Register(asked) => self.register(asked)?,
            Wish::Change(id, change) => self.change(&id, change)?,
            Wish::Renew(id, renewal) => self.renew(&id, &renewal)?,
            Wish::Remove(id, caller) => return Ok(Wished::Done(Done::Removed, self.remove(&id, &caller)?)),
            Wish::Purge(id) => {
                self.get(&id).filter(|record| record.is_expired()).ok_or(Refusal::Unknown)?;
                let committed = self.remove(&id, &Caller::default())?;
                return Ok(Wished::Done(Done::Removed, committed));
            }
        };
        Ok(Wished::Done(Done::Entry(record), committed))
    }

    /// Takes a VM in.
    ///
    /// # Errors
    /// As [`Book::register`], and where nothing can be kept now.
    pub fn register(&self, asked: Registration) -> Result<(Arc<Record>, Committed), Refusal> {
        self.keep(|book, now| book.register(asked, now))
    }

    /// Changes an entry.
    ///
    /// # Errors
    /// As [`Book::change`], and where nothing can be kept now.
    pub fn change(&self, id: &str, change: Change) -> Result<(Arc<Record>, Committed), Refusal> {
        self.keep(|book, now| book.change(id, change, now))
    }

    /// Renews a lease.
    ///
    /// # Errors
    /// As [`Book::renew`], and where nothing can be kept now.
    pub fn renew(&self, id: &str, renewal: &Renewal) -> Result<(Arc<Record>, Committed), Refusal> {
        self.write(|book, now| book.renew(id, renewal, now))
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// As [`Book::remove`], and where nothing can be kept now.
    pub fn remove(&self, id: &str, caller: &Caller) -> Result<Committed, Refusal> {
        self.keep(|book, now| book.remove(id, caller, now)).map(|((), committed)| committed)
    }

    /// Takes up what was found out about services.
    pub fn judge(&self, findings: &[Finding]) {
        let mut state = self.state();
        let now = self.clock.now();
        findings.iter().for_each(|finding| state.book.judge(finding, now));
        self.publish(&mut state, now);
    }

    /// Takes nothing that this witness has said for true any more.
    pub fn forget(&self, witness: Witness) {
        let mut findings = Vec::new();
        for record in self.shelf.all(None) {
            for service in record.health.said_by(witness) {
                let (id, service) = (Arc::clone(&record.what.id), Arc::clone(service));
                findings.push(Finding { id, service, witness, works: None });
            }
        }
        self.judge(&findings);
    }

    /// Services that say how to ask whether they work, of VMs that may be connected to.
    pub fn probed(&self) -> Vec<Probed> {
        let mut found = Vec::new();
        for record in self.shelf.all(None).iter().filter(|record| record.is_discoverable()) {
            for service in record.what.services.iter().flatten() {
                let Some(path) = &service.health_path else { continue };
                found.push(Probed {
                    id: Arc::clone(&record.what.id),
                    service: service.name.as_str().into(),
                    address: record.what.address.clone(),
                    port: service.port,
                    path: path.clone(),
                });
            }
        }
        found
    }

    /// The entry of this id.
    pub fn get(&self, id: &str) -> Option<Arc<Record>> {
        self.shelf.get(id)
    }

    /// The entries of this role, or all; in no order.
    pub fn all(&self, role: Option<Role>) -> Vec<Arc<Record>> {
        self.shelf.all(role)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.shelf.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it can be asked.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Relaxed)
    }

    /// How it is with the store that several gateways share; none where this one is alone.
    pub fn store_state(&self) -> Option<StoreState> {
        self.link.as_ref().map(|link| link.state(self.clock.now().mono))
    }

    /// How old all that is known may be, where the store is lost that several gateways share.
    pub(super) fn lost_for(&self) -> Option<Duration> {
        self.link.as_ref()?.lost_for(self.clock.now().mono)
    }

    /// Why it cannot be asked.
    pub(super) fn closed(&self) -> Refusal {
        self.link.as_ref().map_or(Refusal::Closed, |link| Refusal::StoreLost(link.why()))
    }

    /// Whether several gateways share it.
    pub(super) fn is_shared(&self) -> bool {
        self.link.is_some()
    }

    /// Whether what is wanted can be written, as far as that is known.
    pub(super) fn reachable(&self) -> Result<(), Refusal> {
        self.link.as_ref().map_or(Ok(()), |link| link.reachable(self.clock.now().mono))
    }

    /// What tells answers of this gateway from those of others to the same question: they count changes alike, and
    /// have found out other things of their own.
    pub(super) fn instance(&self) -> Option<u64> {
        self.link.as_ref().map(|link| link.instance.load(Relaxed))
    }

    /// The moment up to which it is certain what there is.
    pub(super) fn as_of(&self) -> Moment {
        let now = self.clock.now();
        let silent = self.link.as_ref().and_then(|link| link.lost_for(now.mono)).unwrap_or_default();
        Moment {
            mono: now.mono.saturating_sub(silent),
            wall: now.wall.checked_sub(silent).unwrap_or(now.wall),
        }
    }

    /// Whether a client at this address may make one more change, at so many a second.
    pub fn admits(&self, peer: IpAddr, per_second: u32) -> bool {
        self.rates.admit(peer, per_second, self.clock.now().mono)
    }

    /// What time it is here.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// The last change of this role, or of any.
    pub fn revision(&self, role: Option<Role>) -> u64 {
        self.shelf.revision(role)
    }

    /// Somebody who wants to know of changes, after this one or from now on.
    pub fn watch(&self, since: Option<u64>) -> Watcher {
        self.changes.watch(since)
    }

    /// The revision, as it grows.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What changed since a watcher looked last, at most so many: revisions, and JSON.
    ///
    /// # Errors
    /// Fails where some of it is not known any more.
    pub fn changes(&self, watcher: &mut Watcher, most: usize) -> Result<Vec<(u64, Bytes)>, Behind> {
        self.changes.next(watcher, most)
    }

    pub(super) fn prepared(&self, key: &str, revision: u64, now: Duration) -> Option<Prepared> {
        self.shelf.prepared(key, revision, now)
    }

    pub(super) fn choice(&self, key: &str, revision: u64, make: impl FnOnce() -> Choice) -> Choice {
        self.shelf.choice(key, revision, make)
    }

    pub(super) fn prepare(&self, key: String, answer: Prepared) {
        self.shelf.prepare(key, answer);
    }

    pub(super) fn report(&self) -> Report {
        let mut state = self.state();
        let revision = state.book.revision();
        if state.census.as_ref().is_none_or(|(counted, ..)| *counted != revision) {
            let (states, held) = state.book.census();
            state.census = Some((revision, states, held));
        }
        let (_, states, held) = state.census.clone().unwrap_or_default();
        let progress = state.writer.as_ref().map(Writer::progress);
        Report {
            states,
            held,
            expired: state.book.expired(),
            watchers: self.changes.watchers() as u64,
            commits: match &self.link {
                Some(link) => link.commits.load(Relaxed),
                None => progress.map_or(0, |progress| progress.commits.load(Relaxed)),
            },
            has_store_problem: match &self.link {
                Some(link) => link.has_problem(self.clock.now().mono),
                None => progress.is_some_and(|progress| progress.has_failed.load(Relaxed)),
            },
            store_age: self.link.as_ref().map_or(0, |link| link.silence(self.clock.now().mono).as_secs()),
            store_failures: self.link.as_ref().map_or(0, |link| link.failures.load(Relaxed)),
        }
    }

    /// To who follows the store that several gateways share.
    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// A shared store answered what was asked at this moment.
    #[cfg(test)]
    pub(super) fn hear_of_store(&self) {
        if let Some(link) = &self.link {
            link.hear(self.clock.now().mono);
        }
    }

    /// Where in the store its entries are.
    pub(super) fn prefix(&self) -> Option<&str> {
        match &self.place {
            Place::Etcd(prefix) => Some(prefix),
            Place::Memory | Place::File(_) => None,
        }
    }

    /// Hands over a wish to who asks the store.
    pub(super) fn ask(&self, wish: Wish) -> Result<oneshot::Receiver<Result<Done, Refusal>>, Refusal> {
        self.link.as_ref().ok_or(Refusal::Closed)?.ask(wish)
    }

    pub(super) fn terms(&self) -> Terms {
        self.state().book.terms()
    }

    /// Takes up everything that the store has, as of a revision of it. It is open from then on.
    pub(super) fn begin_shared(&self, told: Vec<Told>, revision: u64) {
        let mut state = self.state();
        let now = self.clock.now();
        let revision = counted(revision);
        state.book.load(told, now);
        self.publish(&mut state, now);
        state.book.begin(revision);
        state.census = None;
        self.shelf.begin(revision);
        if let Some(link) = &self.link {
            link.instance.store(getrandom::u64().unwrap_or_default(), Relaxed);
        }
        self.is_open.store(true, Relaxed);
        self.changes.begin(revision);
    }

    /// Takes up what has changed in the store while it was not followed: nobody is held who has ended then.
    pub(super) fn catch_up(&self, told: Vec<Told>) {
        let mut state = self.state();
        let now = self.clock.now();
        state.book.catch_up(told, now);
        self.publish(&mut state, now);
    }

    /// Takes up what has changed in the store.
    pub(super) fn follow(&self, told: Vec<Told>) {
        let mut state = self.state();
        let now = self.clock.now();
        state.book.follow(told, now);
        self.publish(&mut state, now);
    }

    /// A lease was renewed in the store, or begun, at this moment. Returns the entry.
    pub(super) fn heard(&self, id: &str, at: Moment) -> Option<Arc<Record>> {
        let mut state = self.state();
        let record = state.book.heard(id, at);
        self.publish(&mut state, at);
        record
    }

    /// Who expired so long ago that it is to be removed from the store.
    pub(super) fn long_expired(&self) -> Vec<Arc<str>> {
        let mut state = self.state();
        let now = self.clock.now();
        let found = state.book.sweep(now);
        self.publish(&mut state, now);
        found
    }

    /// Who expired longest ago.
    pub(super) fn oldest_expired(&self) -> Option<Arc<str>> {
        self.state().book.oldest()
    }

    pub(super) fn count_commit(&self) {
        if let Some(link) = &self.link {
            link.commits.fetch_add(1, Relaxed);
        }
    }

    /// The news that all is kept that was written so far.
    pub fn all_kept(&self) -> Committed {
        let state = self.state();
        state.writer.as_ref().map(|writer| writer.keep(Vec::new()))
    }

    /// Writes, and waits for what was written before as well: what is told to be kept may be what somebody
    /// else has asked for a moment ago.
    fn keep<T>(
        &self,
        change: impl FnOnce(&mut Book, Moment) -> Result<T, Refusal>,
    ) -> Result<(T, Committed), Refusal> {
        let (changed, committed) = self.write(change)?;
        Ok((changed, committed.or_else(|| self.all_kept())))
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&mut Book, Moment) -> Result<T, Refusal>,
    ) -> Result<(T, Committed), Refusal> {
        if !self.is_open() {
            return Err(Refusal::Closed);
        }
        let mut state = self.state();
        if state.writer.as_ref().is_some_and(|writer| writer.waiting() > MOST_WAITING) {
            return Err(Refusal::Busy);
        }
        let now = self.clock.now();
        let changed = change(&mut state.book, now);
        // Room may have been made for what was refused in the end.
        let committed = self.publish(&mut state, now);
        Ok((changed?, committed))
    }

    /// Shows and keeps what the book came to. In the order of changes, because the lock is held.
    fn publish(&self, state: &mut State, now: Moment) -> Committed {
        let mut writes = Vec::new();
        let mut latest = None;
        for effect in state.book.take_effects() {
            self.shelf.apply(&effect);
            match &effect {
                Effect::Put { record, is_news, is_kept, .. } => {
                    if *is_news {
                        let news =
                            News::Put { revision: record.revision, vm: Box::new(Shown::of(record, now)) };
                        self.changes.push(record.revision, news.to_json());
                        latest = Some(record.revision);
                    }
                    if *is_kept && state.writer.is_some() {
                        writes.push(Write::Put(Box::new(Kept::of(record))));
                    }
                }
                Effect::Gone { record, revision } => {
                    let news = News::Gone { revision: *revision, id: &record.what.id };
                    self.changes.push(*revision, news.to_json());
                    latest = Some(*revision);
                    if state.writer.is_some() {
                        writes.push(Write::Remove(Arc::clone(&record.what.id), *revision));
                    }
                }
            }
        }
        if let Some(latest) = latest {
            self.changes.announce(latest);
        }
        match &state.writer {
            Some(writer) if !writes.is_empty() => Some(writer.keep(writes)),
            _ => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
