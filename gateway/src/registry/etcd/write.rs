//! What a client wants, done in etcd: decided here, by what etcd said last; done there, where that still holds; and
//! decided anew where it does not. A refusal is given only by what etcd says now.

use super::{
    super::{
        Change, Done, ENTRIES, Kept, Lease, Moment, Record, Refusal, Registration, Registry, Terms, Wish,
        book::{Book, counted},
    },
    client::{Answer, Client, Failed},
    keys::{Keys, Kind},
    seen::{Entry, Seen, Tomb},
    view::View,
    wire::{self, KeyValue},
};
use std::{cell::RefCell, sync::Arc, time::Duration};
use tokio::{
    sync::{SemaphorePermit, watch},
    time::{Instant, timeout},
};

/// For what nobody waits for.
const UNHURRIED: Duration = Duration::from_secs(8);

/// Times that a wish is decided: others may change the same entry meanwhile.
const ATTEMPTS: usize = 16;

/// Entries below what there may be from which on they are counted in etcd; and above it that there may be for a
/// moment, while those that have expired make room.
const NEARLY: usize = 1_000;

/// By so much, a lease may be shorter than what is granted.
const SHORTENED: Duration = Duration::from_millis(250);

/// How long one's own change may take to come back among the changes that are watched.
pub(super) const ECHO: Duration = Duration::from_secs(2);

/// What is said of an entry that a later version has written.
const LATER: &str = "a later version of vers-gateway has written this entry: upgrade this gateway as well";

/// What a wish comes to.
#[derive(Debug)]
pub(super) enum Decision {
    /// Its lease is renewed, and that is all.
    Renew(Arc<Record>),
    /// This takes its place.
    Put(Arc<Record>),
    /// It goes, and leaves a tomb of this generation.
    Remove(Option<u64>),
    /// It goes, where it has expired, and leaves nothing.
    Forget,
}

/// Decides a wish by what etcd said of the VM. `heard` is when this gateway heard of it last.
pub(super) fn decide(
    wish: &Wish,
    seen: &Seen,
    (terms, heard, now): (Terms, Option<Duration>, Moment),
) -> Result<Decision, Refusal> {
    let later = || Refusal::StoreRefuses(LATER.to_owned());
    if seen.is_later() && !(matches!(wish, Wish::Renew(..)) && seen.is_told()) {
        return Err(later());
    }
    let tomb = seen.tomb().map(|tomb| (Arc::clone(wish.id()), tomb.generation));
    let mut book = Book::of_one(terms, seen.told(), (heard, tomb), now);
    let record = match wish {
        Wish::Register(asked) => book.register(Registration::clone(asked), now)?,
        Wish::Change(id, change) => book.change(id, Change::clone(change), now)?,
        Wish::Renew(id, renewal) => book.renew(id, renewal, now)?,
        Wish::Remove(id, caller) => {
            book.remove(id, caller, now)?;
            let generation = seen.entry().and_then(|entry| entry.kept.generation());
            return Ok(Decision::Remove(generation));
        }
        Wish::Purge(_) if seen.entry().is_some() && seen.lease().is_none() => return Ok(Decision::Forget),
        Wish::Purge(_) => return Err(Refusal::Unknown),
    };
    // What a book would not keep is a renewal.
    let is_kept = book.take_effects().iter().any(super::super::Effect::is_kept);
    match is_kept {
        true if seen.is_later() => Err(later()),
        true => Ok(Decision::Put(record)),
        false => Ok(Decision::Renew(record)),
    }
}

/// Who does what is wished.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'a> {
    pub(super) client: &'a Client,
    pub(super) view: &'a RefCell<View>,
    pub(super) keys: &'a Keys,
    /// Up to which of etcd's revisions changes have come.
    pub(super) reached: &'a watch::Sender<u64>,
    /// The last of one's own changes that has not come back in time.
    pub(super) missed: &'a watch::Sender<u64>,
}

impl<'a> Writer<'a> {
    /// Keeps with an entry when it expired, as this gateway knows it.
    pub(super) async fn mark(self, registry: &Registry, id: &Arc<str>) {
        let seen = self.view.borrow().of(id);
        let at = registry.get(id).and_then(|record| match record.lease {
            Lease::Expired { at, .. } => Some(at),
            // It is held for now.
            _ => None,
        });
        if let (Some(at), Some(entry), true) = (at, seen.entry(), seen.is_unmarked() && !seen.is_later()) {
            let marked = Entry::new(entry.write, entry.kept.expired_at(at), Some(entry));
            let body = seen.to_put(self.keys, &marked, None);
            let answer = self.client.transact(&body, Instant::now() + UNHURRIED).await;
            // Where not, another gateway has done it, or it is tried again.
            if matches!(answer, Answer::Given(transacted) if transacted.succeeded) {
                registry.count_commit();
            }
        }
    }

    /// Removes an entry that expired long ago. Whether that worked does not matter: who could not be removed now is so
    /// later.
    pub(super) async fn forget(self, registry: &Registry, id: Arc<str>) {
        let wish = Wish::Purge(id);
        let mut errand = self.errand(registry, &wish, Instant::now() + UNHURRIED, None);
        let _ = errand.run().await;
        errand.tidy_up().await;
    }

    /// What does a wish, until then at the latest. It gives back its turn where others may have theirs, and may still
    /// have to wait.
    pub(super) fn errand(
        self,
        registry: &'a Registry,
        wish: &'a Wish,
        until: Instant,
        turn: Option<SemaphorePermit<'a>>,
    ) -> Errand<'a> {
        Errand {
            writer: self,
            registry,
            wish,
            until,
            turn,
            write: getrandom::u64().unwrap_or_default(),
            is_unknown: false,
            granted: None,
            over: Vec::new(),
        }
    }
}

/// One wish on its way.
#[derive(Debug)]
pub(super) struct Errand<'a> {
    writer: Writer<'a>,
    registry: &'a Registry,
    wish: &'a Wish,
    until: Instant,
    turn: Option<SemaphorePermit<'a>>,
    /// Tells its write from all others.
    write: u64,
    /// Whether it may have been done, though nobody heard so.
    is_unknown: bool,
    /// A lease that was granted for it, until it is used, and for how many seconds.
    granted: Option<(u64, u64)>,
    /// Leases that nobody lives by any more.
    over: Vec<u64>,
}

impl Errand<'_> {
    /// Does it.
    pub(super) async fn run(&mut self) -> Result<Done, Refusal> {
        let mut seen = self.writer.view.borrow().of(self.wish.id());
        let mut is_fresh = false;
        self.make_room(&seen).await?;
        for _ in 0..ATTEMPTS {
            let heard = self.heard(&seen).await?;
            let now = self.registry.now();
            let terms = self.registry.terms();
            let step = match decide(self.wish, &seen, (terms, heard, now)) {
                Err(refusal) if is_fresh => return Err(refusal),
                Err(_) => Step::Again,
                Ok(Decision::Renew(record)) => self.renew(record, &seen, now).await?,
                Ok(Decision::Put(record)) => self.put(record, &seen, now).await?,
                Ok(Decision::Remove(generation)) => self.remove(Some(generation), &seen).await?,
                Ok(Decision::Forget) => self.remove(None, &seen).await?,
            };
            seen = match step {
                Step::Done(done) => return Ok(done),
                Step::Differs(seen) => seen,
                Step::Again => self.look().await?,
            };
            is_fresh = true;
        }
        Err(Refusal::Busy)
    }

    /// Ends leases that nobody needs any more: nobody has to wait for that.
    pub(super) async fn tidy_up(self) {
        let unused = self.granted.map(|(lease, _)| lease);
        for lease in self.over.into_iter().chain(unused) {
            self.writer.client.revoke(lease).await;
        }
    }

    /// Where there is no room for another VM, the one that expired longest ago goes. What nobody here could see is
    /// not written: who is told that it is there has to be found.
    async fn make_room(&self, seen: &Seen) -> Result<(), Refusal> {
        let is_wanted = matches!(self.wish, Wish::Register(_) | Wish::Change(..) | Wish::Renew(..));
        if is_wanted && seen.is_nothing() && self.writer.view.borrow().is_overfull() {
            return Err(Refusal::Full);
        }
        let is_new = matches!(self.wish, Wish::Register(_)) && seen.entry().is_none();
        if !is_new || self.registry.len() + NEARLY < ENTRIES {
            return Ok(());
        }
        // Others may have taken in many since this gateway heard of them: they are counted where all write.
        let (first, end) = self.writer.keys.all_of(Kind::Entry);
        let there = self.given(self.writer.client.count((&first, &end), self.until).await)?;
        let there = usize::try_from(there).unwrap_or(usize::MAX);
        if there < ENTRIES {
            return Ok(());
        }
        let oldest = self.registry.oldest_expired().filter(|_| there < ENTRIES + NEARLY);
        // It is done by whoever takes its turn; one more for a moment is no harm.
        drop(self.registry.ask(Wish::Purge(oldest.ok_or(Refusal::Full)?)));
        Ok(())
    }

    /// When the VM was heard of last, by whichever gateway. Asked only where that matters: who has asked for no time
    /// to live may need more than it has.
    async fn heard(&self, seen: &Seen) -> Result<Option<Duration>, Refusal> {
        let Wish::Renew(id, renewal) = self.wish else { return Ok(None) };
        let Some(known) = self.registry.get(id) else { return Ok(None) };
        let now = self.registry.now().mono;
        let is_suspect = renewal.ttl.is_none() && known.is_late(now);
        let lease = seen.lease().filter(|_| is_suspect);
        let Some(lease) = lease else { return Ok(Some(known.heard)) };
        Ok(match self.writer.client.time_to_live(lease, self.until).await {
            Answer::Given(Some(left)) => {
                let silent = u64::try_from(left.ttl).map_or(0, |ttl| left.granted.saturating_sub(ttl));
                Some(now.saturating_sub(Duration::from_secs(silent)))
            }
            _ => Some(known.heard),
        })
    }

    async fn renew(&self, record: Arc<Record>, seen: &Seen, now: Moment) -> Result<Step, Refusal> {
        let Some(lease) = seen.lease() else { return Ok(Step::Again) };
        if self.given(self.writer.client.keep_alive(lease, self.until).await)?.is_none() {
            // Granted anew, and put anew, by what is there now.
            return Ok(Step::Again);
        }
        Ok(Step::Done(Done::Entry(self.registry.heard(self.wish.id(), now).unwrap_or(record))))
    }

    async fn put(&mut self, record: Arc<Record>, seen: &Seen, now: Moment) -> Result<Step, Refusal> {
        let leased = Instant::now();
        let lease = self.lease(&record, seen).await?;
        let entry = Entry::new(self.write, Kept::of(&record), seen.entry());
        let body = seen.to_put(self.writer.keys, &entry, Some(lease));
        match self.transact(&body).await? {
            Transaction::Done(revision) => {
                self.granted = None;
                self.over.extend(seen.lease().filter(|before| *before != lease));
                self.echo(revision).await;
                // Its time began before anybody is told so.
                if leased.elapsed() > SHORTENED
                    && matches!(self.writer.client.keep_alive(lease, self.until).await, Answer::Given(None))
                {
                    return Ok(Step::Again);
                }
                let shown = self.registry.heard(self.wish.id(), now);
                // Somebody may have removed it meanwhile, or it did not come yet: this is what was done.
                let shown = shown.filter(|shown| shown.revision >= counted(revision));
                let told = || Arc::new(Record { revision: counted(revision), ..(*record).clone() });
                Ok(Step::Done(Done::Entry(shown.unwrap_or_else(told))))
            }
            Transaction::Differs(seen) => Ok(Step::Differs(seen)),
            Transaction::NoLease => Ok(Step::Again),
        }
    }

    async fn remove(&mut self, tomb: Option<Option<u64>>, seen: &Seen) -> Result<Step, Refusal> {
        let id = Arc::clone(self.wish.id());
        let tomb = match tomb {
            Some(generation) => {
                let ttl = self.registry.terms().ttl;
                Some((Tomb { write: self.write, generation }, self.grant(in_seconds(ttl)).await?))
            }
            None => None,
        };
        let body = seen.to_remove(self.writer.keys, &id, tomb);
        match self.transact(&body).await? {
            Transaction::Done(revision) => {
                self.granted = None;
                self.over.extend(seen.lease());
                self.echo(revision).await;
                Ok(Step::Done(Done::Removed))
            }
            Transaction::Differs(seen) => Ok(Step::Differs(seen)),
            Transaction::NoLease => Ok(Step::Again),
        }
    }

    /// The lease that an entry is to live by: the one that it has, renewed, where that is as long; else another.
    async fn lease(&mut self, record: &Record, seen: &Seen) -> Result<u64, Refusal> {
        let terms = self.registry.terms();
        let length = terms.length(record.status, record.ttl);
        let seconds = in_seconds(length);
        let is_as_long = seen.entry().is_some_and(|entry| entry.kept.length(terms) == length);
        if let Some(lease) = seen.lease().filter(|_| is_as_long) {
            let renewed = self.given(self.writer.client.keep_alive(lease, self.until).await)?;
            // It was granted by the terms of then.
            if renewed.is_some_and(|renewed| u64::try_from(renewed.ttl).is_ok_and(|ttl| ttl >= seconds)) {
                return Ok(lease);
            }
        }
        self.grant(seconds).await
    }

    async fn grant(&mut self, seconds: u64) -> Result<u64, Refusal> {
        match self.granted {
            // By an attempt before this one.
            Some((lease, granted)) if granted == seconds => return Ok(lease),
            Some((lease, _)) => self.over.push(lease),
            None => {}
        }
        // Chosen here: where the answer is lost, it is known what to ask for again, and what to end.
        let lease = (getrandom::u64().unwrap_or_default() >> 1).max(1);
        self.granted = Some((lease, seconds));
        let granted = self.writer.client.grant(lease, seconds, self.until).await;
        if matches!(granted, Answer::Without(_)) {
            self.granted = None;
        }
        self.given(granted)?;
        Ok(lease)
    }

    async fn transact(&mut self, body: &serde_json::Value) -> Result<Transaction, Refusal> {
        let answer = self.writer.client.transact(body, self.until).await;
        match &answer {
            // It ran out meanwhile: another is granted, and put.
            Answer::Without(failed) | Answer::Unknown(failed) if failed.is_no_lease() => {
                self.granted = None;
                return Ok(Transaction::NoLease);
            }
            Answer::Unknown(_) => {
                self.is_unknown = true;
                // It may be what the entry lives by now.
                self.granted = None;
            }
            _ => {}
        }
        let transacted = self.given(answer)?;
        let revision = transacted.header.revision;
        if transacted.succeeded {
            self.registry.count_commit();
            return Ok(Transaction::Done(revision));
        }
        let seen = self.of(transacted.into_found());
        // It was done before: only nobody heard so.
        if seen.is_by(self.write) {
            self.registry.count_commit();
            return Ok(Transaction::Done(revision));
        }
        Ok(Transaction::Differs(seen))
    }

    /// What etcd says of the VM now.
    async fn look(&mut self) -> Result<Seen, Refusal> {
        // Nothing has revision 0 and 1 at once: what it compares with fails, and all is told.
        let never = Seen::default().same(self.writer.keys, self.wish.id());
        let mut body = wire::transaction(&never, &[]);
        if let Some(compare) = body.get_mut("compare").and_then(serde_json::Value::as_array_mut) {
            compare.push(wire::never(&self.writer.keys.pulse()));
        }
        let answer = self.writer.client.transact(&body, self.until).await;
        let transacted = self.given(answer)?;
        Ok(self.of(transacted.into_found()))
    }

    fn of(&self, found: impl Iterator<Item = KeyValue>) -> Seen {
        let mut seen = Seen::default();
        for kv in found {
            if let Some((kind, id)) = self.writer.keys.read(&kv.key)
                && let Err(error) = seen.put(kind, id, &kv)
            {
                tracing::debug!(id, "what etcd has of it makes no sense: {error}");
            }
        }
        seen
    }

    /// Waits until what was done is seen by those who look. Others have their turn meanwhile.
    async fn echo(&mut self, revision: u64) {
        self.turn.take();
        let mut reached = self.writer.reached.subscribe();
        let came = reached.wait_for(|reached| *reached >= revision);
        let left = self.until.saturating_duration_since(Instant::now());
        if timeout(ECHO.min(left), came).await.is_err() {
            self.writer
                .missed
                .send_if_modified(|missed| std::mem::replace(missed, revision.max(*missed)) < revision);
        }
    }

    fn given<T>(&self, answer: Answer<T>) -> Result<T, Refusal> {
        Err(match answer {
            Answer::Given(answer) => return Ok(answer),
            Answer::Without(failed) | Answer::Unknown(failed) if self.is_unknown => {
                Refusal::StoreUncertain(failed.to_string())
            }
            Answer::Without(failed @ Failed::Refused(..)) => Refusal::StoreRefuses(failed.to_string()),
            // Whatever was asked then was about a lease, and nothing of an entry.
            Answer::Without(failed) | Answer::Unknown(failed) => Refusal::StoreLost(failed.to_string()),
        })
    }
}

/// Whole seconds, and no less.
fn in_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// How far an errand is.
enum Step {
    Done(Done),
    /// It is to be decided anew, by this.
    Differs(Seen),
    /// It is to be decided anew, by what etcd says now.
    Again,
}

enum Transaction {
    /// At this revision.
    Done(u64),
    Differs(Seen),
    /// The lease has run out that it was to be under.
    NoLease,
}
