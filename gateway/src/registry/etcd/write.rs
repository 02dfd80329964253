//! What a client wants, done in etcd: decided here, by what etcd said last; done there, where that still holds; and
//! decided anew where it does not. A refusal is given only by what etcd says now.

use super::{
    super::{
        Change, Done, Kept, Lease, Moment, Record, Refusal, Registration, Registry, Terms, Wish,
        book::{Book, counted},
    },
    client::{Answer, Client, Failed},
    keys::Keys,
    seen::{Entry, Seen, Tomb},
    view::View,
    wire::{self, KeyValue, Leased},
};
use std::{cell::RefCell, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

/// For all that a wish takes. An election of etcd's takes one or two seconds of it.
const DEADLINE: Duration = Duration::from_secs(8);

/// Times that a wish is decided: others may change the same entry meanwhile.
const ATTEMPTS: usize = 16;

/// By so much, a lease may be shorter than what is granted.
const SHORTENED: Duration = Duration::from_millis(250);

/// How long one's own change may take to come back among the changes that are watched.
const ECHO: Duration = Duration::from_secs(2);

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
    Ok(if is_kept { Decision::Put(record) } else { Decision::Renew(record) })
}

/// Who does what is wished.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'a> {
    pub(super) client: &'a Client,
    pub(super) view: &'a RefCell<View>,
    pub(super) keys: &'a Keys,
    /// Up to which of etcd's revisions changes have come.
    pub(super) reached: &'a watch::Sender<u64>,
    /// Told where one's own change did not come.
    pub(super) is_deaf: &'a Notify,
}

impl Writer<'_> {
    /// Keeps with an entry when it expired, as this gateway knows it.
    pub(super) async fn mark(self, registry: &Registry, id: &Arc<str>) {
        let seen = self.view.borrow().of(id);
        let at = registry.get(id).and_then(|record| match record.lease {
            Lease::Expired { at, .. } => Some(at),
            // It is held for now.
            _ => None,
        });
        if let (Some(at), Some(entry), true) = (at, seen.entry(), seen.is_unmarked()) {
            let kept = entry.kept.expired_at(at);
            let body = seen.to_put(self.keys, &Entry { write: entry.write, kept }, None);
            // Another gateway may have done it, or it is tried again.
            let _ = self.client.transact(&body, Instant::now() + DEADLINE).await;
        }
    }
}

/// One wish on its way.
struct Errand<'a> {
    writer: Writer<'a>,
    registry: &'a Registry,
    wish: &'a Wish,
    until: Instant,
    /// Tells its write from all others.
    write: u64,
    /// Whether it may have been done, though nobody heard so.
    is_unknown: bool,
    /// A lease that was granted for it, until it is used, and for how many seconds.
    granted: Option<(u64, u64)>,
}

impl Writer<'_> {
    /// Does what is wished.
    pub(super) async fn fulfil(self, registry: &Registry, wish: &Wish) -> Result<Done, Refusal> {
        let mut errand = Errand {
            writer: self,
            registry,
            wish,
            until: Instant::now() + DEADLINE,
            write: getrandom::u64().unwrap_or_default(),
            is_unknown: false,
            granted: None,
        };
        let done = errand.run().await;
        if let Some((lease, _)) = errand.granted {
            self.client.revoke(lease).await;
        }
        done
    }
}

impl Errand<'_> {
    async fn run(&mut self) -> Result<Done, Refusal> {
        let mut seen = self.writer.view.borrow().of(self.wish.id());
        let mut is_fresh = false;
        self.make_room(&seen)?;
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

    /// Where there is no room for another VM, the one that expired longest ago goes.
    fn make_room(&self, seen: &Seen) -> Result<(), Refusal> {
        let is_new = matches!(self.wish, Wish::Register(_)) && seen.entry().is_none();
        if !is_new || self.registry.has_room() {
            return Ok(());
        }
        let oldest = self.registry.oldest_expired().ok_or(Refusal::Full)?;
        // It is done by whoever takes its turn; one more for a moment is no harm.
        drop(self.registry.ask(Wish::Purge(oldest)));
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
        let entry = Entry { write: self.write, kept: Kept::of(&record) };
        let body = seen.to_put(self.writer.keys, &entry, Some(lease));
        match self.transact(&body).await? {
            Transaction::Done(revision) => {
                self.granted = None;
                if leased.elapsed() > SHORTENED {
                    // Its time began long before anybody is told so.
                    let _ = self.writer.client.keep_alive(lease, self.until).await;
                }
                let before = seen.lease().filter(|before| *before != lease);
                if let Some(before) = before {
                    self.writer.client.revoke(before).await;
                }
                self.echo(revision).await;
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
                Some((Tomb { write: self.write, generation }, self.grant(ttl).await?))
            }
            None => None,
        };
        let body = seen.to_remove(self.writer.keys, &id, tomb);
        match self.transact(&body).await? {
            Transaction::Done(revision) => {
                self.granted = None;
                if let Some(lease) = seen.lease() {
                    self.writer.client.revoke(lease).await;
                }
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
        let is_as_long = seen.entry().is_some_and(|entry| entry.kept.length(terms) == length);
        if let Some(lease) = seen.lease().filter(|_| is_as_long)
            && self.given(self.writer.client.keep_alive(lease, self.until).await)?.is_some()
        {
            return Ok(lease);
        }
        self.grant(length).await
    }

    async fn grant(&mut self, ttl: Duration) -> Result<u64, Refusal> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        match self.granted {
            // By an attempt before this one.
            Some((lease, granted)) if granted == seconds => return Ok(lease),
            Some((lease, _)) => self.writer.client.revoke(lease).await,
            None => {}
        }
        let Leased { id, .. } = self.given(self.writer.client.grant(seconds, self.until).await)?;
        self.granted = Some((id, seconds));
        Ok(id)
    }

    async fn transact(&mut self, body: &serde_json::Value) -> Result<Transaction, Refusal> {
        let answer = self.writer.client.transact(body, self.until).await;
        match &answer {
            // It ran out meanwhile: another is granted, and put.
            Answer::Without(failed) | Answer::Unknown(failed) if failed.is_no_lease() => {
                self.granted = None;
                return Ok(Transaction::NoLease);
            }
            Answer::Unknown(_) => self.is_unknown = true,
            _ => {}
        }
        let transacted = self.given(answer)?;
        self.registry.count_commit();
        let revision = transacted.header.revision;
        if transacted.succeeded {
            return Ok(Transaction::Done(revision));
        }
        let seen = self.of(transacted.into_found());
        // It was done before: only nobody heard so.
        if seen.is_by(self.write) {
            return Ok(Transaction::Done(seen.revision().max(1)));
        }
        Ok(Transaction::Differs(seen))
    }

    /// What etcd says of the VM now.
    async fn look(&mut self) -> Result<Seen, Refusal> {
        // Nothing has revision 0 and 1 at once: what it compares with fails, and all is told.
        let never = Seen::default().same(self.writer.keys, self.wish.id());
        let mut body = wire::transaction(&never, &[]);
        if let Some(compare) = body.get_mut("compare").and_then(serde_json::Value::as_array_mut) {
            compare.push(wire::never(&self.writer.keys.nothing()));
        }
        let answer = self.writer.client.transact(&body, self.until).await;
        let transacted = self.given(answer)?;
        Ok(self.of(transacted.into_found()))
    }

    fn of(&self, found: impl Iterator<Item = KeyValue>) -> Seen {
        let mut seen = Seen::default();
        for kv in found {
            if let Some((kind, _)) = self.writer.keys.read(&kv.key) {
                seen.put(kind, &kv);
            }
        }
        seen
    }

    /// Waits until what was done is seen by those who look.
    async fn echo(&self, revision: u64) {
        let mut reached = self.writer.reached.subscribe();
        let came = reached.wait_for(|reached| *reached >= revision);
        if timeout(ECHO, came).await.is_err() {
            self.writer.is_deaf.notify_one();
        }
    }

    fn given<T>(&self, answer: Answer<T>) -> Result<T, Refusal> {
        Err(match answer {
            Answer::Given(answer) => return Ok(answer),
            Answer::Without(Failed::Refused(_, why)) if !self.is_unknown => Refusal::StoreRefuses(why),
            Answer::Without(failed) if !self.is_unknown => Refusal::StoreLost(failed.to_string()),
            Answer::Without(failed) | Answer::Unknown(failed) => Refusal::StoreUncertain(failed.to_string()),
        })
    }
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
