//! Entries and leases: what becomes of them, and when. Pure: time is a parameter.

mod told;

use super::{
    Caller, Change, Description, ENTRY, Finding, Grace, Health, LONGEST_TTL, Lease, LeaseKey, Moment, Record,
    Refusal, Registration, Renewal, Role, SHORTEST_TTL, Service, Status,
};
pub(super) use told::{News, Told, counted};

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Most entries.
pub const ENTRIES: usize = 20_000;

/// What clients of the service before this one count on: they are found for so long after each sign of
/// life, and say nothing of a time to live.
const OLD_WINDOW: Duration = Duration::from_secs(300);

/// The longest pause between renewals that a lease is fitted to. Who is silent for longer was away.
const OLD_PAUSE: Duration = Duration::from_secs(150);

/// The last moment that can be shown, the end of the year 9999, since 1970.
const LAST_MOMENT: Duration = Duration::from_secs(253_402_300_799);

/// Where so many entries are known, more than half of them lapsing at once says more of the network than
/// of them.
const GUARDED: usize = 6;

/// What may be configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The lease of who asks for none, 5 s to 1 h.
    pub ttl: Duration,
    /// How long expired entries are shown.
    pub retention: Duration,
    /// Whether a VM that is known cannot register again.
    pub strict_conflict: bool,
}

impl Terms {
    /// How long a lease is: who is paused cannot renew.
    pub(super) fn length(&self, status: Status, ttl: Duration) -> Duration {
        if status == Status::Paused { self.retention.max(ttl) } else { ttl }
    }
}

/// What a change comes to, for those who look at entries, watch them and keep them.
#[derive(Debug, Clone)]
pub enum Effect {
    /// An entry as it is now.
    Put {
        /// The entry.
        record: Arc<Record>,
        /// The role that it had before, where it had another one.
        was: Option<Role>,
        /// Whether somebody who watches should hear of it.
        is_news: bool,
        /// Whether it is to be kept.
        is_kept: bool,
    },
    /// An entry that is no more.
    Gone {
        /// Its last state.
        record: Arc<Record>,
        /// As the registry counts changes.
        revision: u64,
    },
}

/// All entries.
#[derive(Debug)]
pub struct Book {
    terms: Terms,
    records: HashMap<Arc<str>, Arc<Record>>,
    /// When something is due of which entry.
    due: BTreeSet<(Duration, Arc<str>)>,
    /// Entries that were deleted, for a while.
    deleted: HashMap<Arc<str>, Deleted>,
    /// When entries lapsed, within the last time to live.
    lapses: VecDeque<Duration>,
    revision: u64,
    expired: u64,
    effects: Vec<Effect>,
}

#[derive(Debug, Clone, Copy)]
struct Deleted {
    until: Duration,
    generation: Option<u64>,
}

/// An entry as it outlasts the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    what: Description,
    status: Status,
    registered_at: SystemTime,
    last_seen: SystemTime,
    ttl: Duration,
    granted: Duration,
    asked_ttl: bool,
    /// The hash of the key that it was registered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<LeaseKey>,
    /// When its lease ran out, where it has.
    expired_at: Option<SystemTime>,
    /// When the registry was started, where it was not renewed since.
    recovered_at: Option<SystemTime>,
    /// When it changed last, as the registry counts changes.
    pub revision: u64,
}

impl Effect {
    /// Whether it is to be kept.
    pub(super) fn is_kept(&self) -> bool {
        match self {
            Self::Put { is_kept, .. } => *is_kept,
            Self::Gone { .. } => true,
        }
    }
}

impl Kept {
    /// What is to be kept of an entry.
    pub fn of(record: &Record) -> Self {
        Self {
            what: (*record.what).clone(),
            status: record.status,
            registered_at: record.registered_at,
            last_seen: record.last_seen,
            ttl: record.ttl,
            granted: record.granted,
            key: record.key.clone(),
            asked_ttl: record.asked_ttl,
            expired_at: match record.lease {
                Lease::Expired { at, .. } => Some(at),
                _ => None,
            },
            recovered_at: match record.lease {
                Lease::Runs { grace: Some(Grace::Recovered(at)), .. } => Some(at),
                _ => None,
            },
            revision: record.revision,
        }
    }

    /// Which VM it is.
    pub fn id(&self) -> &Arc<str> {
        &self.what.id
    }

    /// The same, as far as this version of the gateway can live with it: whoever else wrote it where others write, too,
    /// may not know what a registration is held to.
    ///
    /// # Errors
    /// Fails where it is not the entry of this VM, or makes no sense.
    pub(super) fn sound(self, id: &str) -> Result<Self, String> {
        if *self.what.id != *id {
            return Err(format!("it is the entry of another VM: {:?}", self.what.id));
        }
        self.what.check()?;
        let times = [Some(self.registered_at), Some(self.last_seen), self.expired_at, self.recovered_at];
        let is_shown =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|it| it <= LAST_MOMENT);
        if !times.into_iter().flatten().all(is_shown) {
            return Err("a time is before the year 1970, or after 9999".to_owned());
        }
        let clamped = |ttl: Duration| ttl.clamp(SHORTEST_TTL, LONGEST_TTL);
        Ok(Self { ttl: clamped(self.ttl), granted: clamped(self.granted), ..self })
    }

    /// The same, marked with when its lease ran out.
    pub(super) fn expired_at(&self, at: SystemTime) -> Self {
        Self { expired_at: Some(at), ..self.clone() }
    }

    /// How long its lease is.
    pub(super) fn length(&self, terms: Terms) -> Duration {
        terms.length(self.status, self.ttl)
    }

    /// Whether it is.
    pub(super) fn is_marked(&self) -> bool {
        self.expired_at.is_some()
    }

    /// Which of its lives it is.
    pub(super) fn generation(&self) -> Option<u64> {
        self.what.generation
    }
}

impl Book {
    /// An empty one, whose changes are counted from there.
    pub fn new(terms: Terms, revision: u64) -> Self {
        Self {
            terms,
            records: HashMap::new(),
            due: BTreeSet::new(),
            deleted: HashMap::new(),
            lapses: VecDeque::new(),
            revision,
            expired: 0,
            effects: Vec::new(),
        }
    }

    /// Other terms, for what comes.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// What it goes by.
    pub(super) fn terms(&self) -> Terms {
        self.terms
    }

    /// Counts changes from there.
    pub fn begin(&mut self, revision: u64) {
        self.revision = revision;
    }

    /// How many changes there were.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What the last calls came to, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Takes a VM in, or replaces what is known of it.
    ///
    /// # Errors
    /// Fails where a newer one is there, where it may not be replaced, and where there is no room.
    pub fn register(&mut self, asked: Registration, now: Moment) -> Result<Arc<Record>, Refusal> {
        let id = Arc::clone(&asked.what.id);
        let before = self.records.get(&id).cloned();
        if before.is_some() && self.terms.strict_conflict {
            return Err(Refusal::Conflict);
        }
        let key = key_after(before.as_deref(), &asked.caller)?;
        match &before {
            Some(before) => before.yields_to(asked.what.generation)?,
            None => self.outlives(&id, asked.what.generation, now)?,
        }
        if before.is_none() && self.records.len() >= ENTRIES {
            self.make_room()?;
        }
        let ttl = match asked.ttl {
            Some(ttl) => ttl,
            None if asked.is_old_client => OLD_WINDOW.max(self.terms.ttl),
            None => self.terms.ttl,
        };
        let mut what = asked.what;
        what.generation = what.generation.or(before.as_ref().and_then(|before| before.what.generation));
        self.deleted.remove(&id);
        if let Some(before) = &before
            && before.what.is_like(&what)
            && before.key == key
            && (before.status, before.granted) == (asked.status, ttl)
        {
            // Who says the same again renews.
            let renewal = Renewal { ttl: asked.ttl, status: Some(asked.status), caller: asked.caller };
            return self.renew(&id, &renewal, now);
        }
        let health = before.as_ref().map(|before| still_true(before, &what)).unwrap_or_default();
        let record = Record {
            what: Arc::new(what),
            status: asked.status,
            registered_at: before.as_ref().map_or(now.wall, |before| before.registered_at),
            last_seen: now.wall,
            heard: now.mono,
            ttl,
            granted: ttl,
            asked_ttl: asked.ttl.is_some(),
            lease: self.running(asked.status, ttl, now),
            key,
            health,
            revision: 0,
        };
        Ok(self.replace(before.as_ref(), record))
    }

    /// Changes an entry, which is a sign of life as well.
    ///
    /// # Errors
    /// Fails where there is none, and where it would be too large.
    pub fn change(&mut self, id: &str, change: Change, now: Moment) -> Result<Arc<Record>, Refusal> {
        let before = self.touched(id, &change.caller, now)?;
        let mut what = (*before.what).clone();
        if let Some(name) = change.name {
            what.name = name;
        }
        if let Some(role) = change.role {
            what.role = role;
        }
        if let Some(address) = change.address {
            what.address = address;
        }
        if let Some(services) = change.services {
            what.services = services;
        }
        what.metadata = change.metadata.or(what.metadata);
        // Who may not register again says so here.
        what.generation = change.caller.generation.or(what.generation);
        // What was said in fewer words may be a little longer here; it does not get longer than it is.
        let length = |what: &Description| serde_json::to_vec(what).map_or(usize::MAX, |text| text.len());
        if length(&what) > ENTRY.max(length(&before.what)) {
            return Err(Refusal::TooLarge);
        }
        let status = change.status.unwrap_or(before.status);
        let mut record = (*before).clone();
        record.health = still_true(&before, &what);
        record.what = Arc::new(what);
        record.status = status;
        (record.last_seen, record.heard) = (now.wall, now.mono);
        record.lease = self.running(status, record.ttl, now);
        Ok(self.replace(Some(&before), record))
    }

    /// Renews a lease. Who renews is running, unless it says otherwise or is on its way out.
    ///
    /// # Errors
    /// Fails where there is no such entry.
    pub fn renew(&mut self, id: &str, renewal: &Renewal, now: Moment) -> Result<Arc<Record>, Refusal> {
        let before = self.touched(id, &renewal.caller, now)?;
        let mut record = (*before).clone();
        record.status = match (renewal.status, before.status) {
            (Some(status), _) => status,
            (None, Status::Draining) => Status::Draining,
            (None, _) => Status::Running,
        };
        let pause = now.mono.saturating_sub(before.heard);
        if let Some(ttl) = renewal.ttl {
            (record.ttl, record.granted, record.asked_ttl) = (ttl, ttl, true);
        } else if !before.asked_ttl {
            record.ttl = fitted(&before, pause);
        }
        (record.last_seen, record.heard) = (now.wall, now.mono);
        record.lease = self.running(record.status, record.ttl, now);
        let is_plain = record.status == before.status
            && record.ttl == before.ttl
            && matches!(
                before.lease,
                Lease::Runs { grace: None, .. } | Lease::Paused { .. } | Lease::Told { .. }
            );
        if is_plain {
            let record = Arc::new(record);
            self.put(Some(&before), Arc::clone(&record));
            self.effects.push(Effect::Put {
                record: Arc::clone(&record),
                was: None,
                is_news: false,
                is_kept: false,
            });
            return Ok(record);
        }
        Ok(self.replace(Some(&before), record))
    }

    /// Takes up what somebody found out about a service. It is not kept: after a restart it is found out anew.
    pub fn judge(&mut self, finding: &Finding, now: Moment) {
        let Some(before) = self.records.get(&finding.id).cloned() else { return };
        // Whoever asked may have done so before it was registered anew, without this service.
        let is_there = before.service(&finding.service).is_some();
        let Some(health) = before.health.with(finding, now.wall).filter(|_| is_there) else { return };
        self.revision += 1;
        let record = Arc::new(Record { health, revision: self.revision, ..(*before).clone() });
        self.put(Some(&before), Arc::clone(&record));
        self.effects.push(Effect::Put { record, was: None, is_news: true, is_kept: false });
    }

    /// Removes an entry. A late renewal does not bring it back.
    ///
    /// # Errors
    /// Fails where there is none.
    pub fn remove(&mut self, id: &str, caller: &Caller, now: Moment) -> Result<(), Refusal> {
        let record = self.known(id, now)?;
        record.yields_to(caller.generation)?;
        // What has expired is nobody's; but it does not come back by who has no key.
        if !record.is_expired() && !caller.may_touch(record.key.as_ref()) {
            return Err(Refusal::Bound);
        }
        let deleted = Deleted { until: now.mono + self.terms.ttl, generation: record.what.generation };
        if self.deleted.len() < ENTRIES {
            self.deleted.insert(Arc::clone(&record.what.id), deleted);
        }
        self.erase(&record);
        Ok(())
    }

    /// Does what is due: leases run out, and what ran out long ago is removed.
    pub fn tick(&mut self, now: Moment) {
        let window = self.terms.ttl;
        self.forget_lapses(now);
        self.deleted.retain(|_, deleted| deleted.until > now.mono);
        let (mut lapsing, mut left, mut old) = (Vec::new(), Vec::new(), Vec::new());
        for (_, id) in self.due.iter().take_while(|(at, _)| *at <= now.mono) {
            let Some(record) = self.records.get(id) else { continue };
            match record.lease {
                Lease::Runs { .. } => lapsing.push(Arc::clone(record)),
                Lease::Expired { .. } => old.push(Arc::clone(record)),
                Lease::Paused { .. } => left.push(Arc::clone(record)),
                Lease::Told { .. } => {}
            }
        }
        old.iter().for_each(|record| self.erase(record));
        left.iter().for_each(|before| self.expire(before, now));
        let is_wave = !lapsing.is_empty() && self.is_wave(lapsing.len());
        for before in lapsing {
            if is_wave && !before.is_held() {
                let lease = Lease::Runs { until: now.mono + window, grace: Some(Grace::Held) };
                self.replace(Some(&before), Record { lease, ..(*before).clone() });
            } else {
                self.lapses.push_back(now.mono);
                self.expire(&before, now);
            }
        }
    }

    fn forget_lapses(&mut self, now: Moment) {
        while self.lapses.front().is_some_and(|at| *at + self.terms.ttl < now.mono) {
            self.lapses.pop_front();
        }
    }

    fn expire(&mut self, before: &Arc<Record>, now: Moment) {
        let lease = Lease::Expired { at: now.wall, gone: now.mono + self.terms.retention };
        // Nobody asks who is not there, and nobody sends requests.
        let health = Health::default();
        self.expired += 1;
        self.replace(Some(before), Record { lease, health, ..(**before).clone() });
    }

    /// Whether so many more would make it more than half of all within one time to live.
    fn is_wave(&self, lapsing: usize) -> bool {
        let runs = |record: &&Arc<Record>| matches!(record.lease, Lease::Runs { .. } | Lease::Told { .. });
        let all = self.records.values().filter(runs).count() + self.lapses.len();
        all >= GUARDED && (self.lapses.len() + lapsing) * 2 > all
    }

    /// Grants each lease that runs its time to live once more: nobody could be heard for a while.
    pub fn grant_grace(&mut self, now: Moment) {
        let records: Vec<Arc<Record>> = self.records.values().cloned().collect();
        for before in records {
            let Lease::Runs { until, grace } = before.lease else { continue };
            let mut record = (*before).clone();
            record.lease = Lease::Runs { until: until.max(now.mono + record.ttl), grace };
            let record = Arc::new(record);
            self.put(Some(&before), Arc::clone(&record));
            self.effects.push(Effect::Put { record, was: None, is_news: false, is_kept: false });
        }
    }

    /// Takes in what was kept. Leases that ran then run for their time to live once more, and only once.
    pub fn recover(&mut self, kept: Vec<Kept>, now: Moment) {
        for kept in kept {
            let since = |then: SystemTime| now.wall.duration_since(then).unwrap_or_default();
            let lease = match (kept.expired_at, kept.recovered_at) {
                (Some(at), _) => {
                    let left = self.terms.retention.saturating_sub(since(at));
                    Lease::Expired { at, gone: now.mono + left }
                }
                (None, _) if kept.status == Status::Paused => {
                    let left = self.terms.retention.max(kept.ttl).saturating_sub(since(kept.last_seen));
                    Lease::Paused { until: now.mono + left }
                }
                (None, at) => {
                    let at = at.unwrap_or(now.wall);
                    let until = now.mono + kept.ttl.saturating_sub(since(at));
                    Lease::Runs { until, grace: Some(Grace::Recovered(at)) }
                }
            };
            let record = Arc::new(Record {
                what: Arc::new(kept.what),
                status: kept.status,
                registered_at: kept.registered_at,
                last_seen: kept.last_seen,
                heard: now.mono,
                ttl: kept.ttl,
                granted: kept.granted,
                asked_ttl: kept.asked_ttl,
                lease,
                key: kept.key,
                health: Health::default(),
                revision: kept.revision,
            });
            self.revision = self.revision.max(kept.revision);
            self.put(None, Arc::clone(&record));
            self.effects.push(Effect::Put { record, was: None, is_news: false, is_kept: true });
        }
    }

    /// How many entries are in which state, and how many of them are held.
    pub fn census(&self) -> (HashMap<&'static str, u64>, u64) {
        let (mut census, mut held) = (HashMap::new(), 0);
        for record in self.records.values() {
            *census.entry(record.state()).or_default() += 1;
            held += u64::from(record.is_held());
        }
        (census, held)
    }

    /// How many leases ran out so far.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    fn known(&self, id: &str, now: Moment) -> Result<Arc<Record>, Refusal> {
        match self.records.get(id) {
            Some(record) => Ok(Arc::clone(record)),
            None if self.deleted.get(id).is_some_and(|deleted| deleted.until > now.mono) => {
                Err(Refusal::Deleted)
            }
            None => Err(Refusal::Unknown),
        }
    }

    /// The entry, where this caller may touch it.
    fn touched(&self, id: &str, caller: &Caller, now: Moment) -> Result<Arc<Record>, Refusal> {
        let record = self.known(id, now)?;
        record.yields_to(caller.generation)?;
        if caller.may_touch(record.key.as_ref()) { Ok(record) } else { Err(Refusal::Bound) }
    }

    /// A lease that begins now.
    fn running(&self, status: Status, ttl: Duration, now: Moment) -> Lease {
        match status {
            Status::Paused => Lease::Paused { until: now.mono + self.terms.length(status, ttl) },
            _ => Lease::Runs { until: now.mono + ttl, grace: None },
        }
    }

    /// Fails where a newer life of this VM was deleted a moment ago. The one that was deleted may come back, by
    /// a registration: it was restarted.
    fn outlives(&self, id: &str, generation: Option<u64>, now: Moment) -> Result<(), Refusal> {
        let deleted = self.deleted.get(id).filter(|deleted| deleted.until > now.mono);
        match (deleted.and_then(|deleted| deleted.generation), generation) {
            (Some(newest), Some(asked)) if asked < newest => Err(Refusal::Outlived),
            _ => Ok(()),
        }
    }

    /// Removes the entry that expired longest ago.
    fn make_room(&mut self) -> Result<(), Refusal> {
        let oldest = self.records.values().filter_map(|record| match record.lease {
            Lease::Expired { at, .. } => Some((at, Arc::clone(record))),
            _ => None,
        });
        let (_, oldest) = oldest.min_by_key(|(at, _)| *at).ok_or(Refusal::Full)?;
        self.erase(&oldest);
        Ok(())
    }

    /// A new state of an entry, which is news.
    fn replace(&mut self, before: Option<&Arc<Record>>, mut record: Record) -> Arc<Record> {
        self.revision += 1;
        record.revision = self.revision;
        let was = before.map(|before| before.what.role).filter(|role| *role != record.what.role);
        let record = Arc::new(record);
        self.put(before, Arc::clone(&record));
        self.effects.push(Effect::Put { record: Arc::clone(&record), was, is_news: true, is_kept: true });
        record
    }

    fn put(&mut self, before: Option<&Arc<Record>>, record: Arc<Record>) {
        let id = &record.what.id;
        if let Some(before) = before {
            self.due.remove(&(due(before), Arc::clone(id)));
        }
        self.due.insert((due(&record), Arc::clone(id)));
        self.records.insert(Arc::clone(id), record);
    }

    fn erase(&mut self, record: &Arc<Record>) {
        let id = &record.what.id;
        self.due.remove(&(due(record), Arc::clone(id)));
        self.records.remove(id);
        self.revision += 1;
        self.effects.push(Effect::Gone { record: Arc::clone(record), revision: self.revision });
    }
}

fn due(record: &Record) -> Duration {
    match record.lease {
        Lease::Runs { until, .. } | Lease::Paused { until } => until,
        Lease::Expired { gone, .. } => gone,
        // When the store says so.
        Lease::Told { .. } => Duration::MAX,
    }
}

/// The key that an entry has once this caller has registered it: its own, or the one that is there.
fn key_after(before: Option<&Record>, caller: &Caller) -> Result<Option<LeaseKey>, Refusal> {
    match before.filter(|before| !before.is_expired()) {
        None => Ok(caller.key.clone()),
        Some(before) if caller.may_touch(before.key.as_ref()) => {
            // An admin that repairs an entry does not take it.
            let own = caller.key.clone().filter(|_| !caller.is_admin || before.key.is_none());
            Ok(own.or_else(|| before.key.clone()))
        }
        Some(_) => Err(Refusal::Bound),
    }
}

/// What was found out about services that are still the same.
fn still_true(before: &Record, what: &Description) -> Health {
    before.health.only(|name| {
        let of = |what: &Description| {
            let service = what.services.iter().flatten().find(|service| service.name == name)?;
            Some((what.address.clone(), service.port, service.health_path.clone()))
        };
        of(&before.what) == of(what)
    })
}

/// The lease of who asks for none, and was silent for so long. Who renews just in time would be gone with the first
/// renewal that is late. No pause is like the other: what is enough stays, because each other one is news.
fn fitted(before: &Record, pause: Duration) -> Duration {
    let is_enough = |ttl: Duration| pause * 5 <= ttl * 4;
    if pause > OLD_PAUSE || pause * 5 <= before.granted * 2 {
        return before.granted;
    }
    if is_enough(before.ttl) {
        return before.ttl;
    }
    let seconds = (pause * 3).as_secs().next_multiple_of(10);
    before.granted.max(Duration::from_secs(seconds))
}

impl Record {
    /// Fails where somebody of an older life of this VM asks.
    fn yields_to(&self, generation: Option<u64>) -> Result<(), Refusal> {
        match (self.what.generation, generation) {
            (Some(newest), Some(asked)) if asked < newest => Err(Refusal::Superseded(newest)),
            _ => Ok(()),
        }
    }

    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.what.services.iter().flatten().find(|service| service.name == name)
    }
}
