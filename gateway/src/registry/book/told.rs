//! Entries that a store decides on which several gateways share: how this gateway's book follows it. What the book
//! decides itself then is only what becomes of a wish (a book of one entry), and who is held.

use super::{Book, Deleted, Kept, Terms, still_true};
use crate::registry::{Effect, Grace, Health, Lease, Moment, Record};
use std::{collections::HashSet, sync::Arc, time::Duration};

/// Changes of the store are counted by it, and so are the same for all gateways; this many of each gateway's own fit
/// between two of them.
const OWN: u32 = 16;

/// An entry as the store tells it.
#[derive(Debug, Clone)]
pub(in crate::registry) struct Told {
    pub(in crate::registry) kept: Kept,
    /// Whether its lease runs.
    pub(in crate::registry) lives: bool,
}

/// Who was deleted, and of which generation it was.
pub(in crate::registry) type Tombstone = (Arc<str>, Option<u64>);

/// A change that the store tells.
#[derive(Debug)]
pub(in crate::registry) struct News {
    /// As the store counts changes.
    pub(in crate::registry) revision: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Put(Box<Told>),
    Gone(Arc<str>),
}

impl News {
    pub(in crate::registry) fn put(told: Told, revision: u64) -> Self {
        Self { revision, what: What::Put(Box::new(told)) }
    }

    pub(in crate::registry) fn gone(id: Arc<str>, revision: u64) -> Self {
        Self { revision, what: What::Gone(id) }
    }

    pub(in crate::registry) fn id(&self) -> &Arc<str> {
        match &self.what {
            What::Put(told) => told.kept.id(),
            What::Gone(id) => id,
        }
    }

    /// Whether it says that a lease does not run.
    pub(in crate::registry) fn is_end(&self) -> bool {
        matches!(&self.what, What::Put(told) if !told.lives)
    }
}

/// A revision of the store, as this registry counts.
pub(in crate::registry) fn counted(revision: u64) -> u64 {
    revision << OWN
}

impl Book {
    /// A book of one entry, which was heard of then, or of none: it says what a wish comes to.
    pub(in crate::registry) fn of_one(
        terms: Terms,
        told: Option<Told>,
        (heard, tomb): (Option<Duration>, Option<Tombstone>),
        now: Moment,
    ) -> Self {
        let mut book = Self::new(terms, 0);
        if let Some((id, generation)) = tomb {
            book.deleted.insert(id, Deleted { until: Duration::MAX, generation });
        }
        if let Some(told) = told {
            let mut record = book.record(told, None, now);
            record.heard = heard.unwrap_or(record.heard);
            book.put(None, Arc::new(record));
        }
        book
    }

    /// Takes up everything that the store has, and nothing else is known.
    pub(in crate::registry) fn load(&mut self, news: Vec<News>, now: Moment) {
        for record in self.records.values().cloned().collect::<Vec<_>>() {
            self.erase(&record);
        }
        for News { revision, what } in news {
            let What::Put(told) = what else { continue };
            let mut record = self.record(*told, None, now);
            record.revision = counted(revision);
            let record = Arc::new(record);
            self.put(None, Arc::clone(&record));
            self.effects.push(Effect::Put { record, was: None, is_news: false, is_kept: false });
        }
    }

    /// Takes up changes, in order.
    pub(in crate::registry) fn follow(&mut self, news: Vec<News>, now: Moment) {
        self.forget_lapses(now);
        let lapsing: HashSet<&Arc<str>> = news.iter().filter(|it| self.is_lapse(it)).map(News::id).collect();
        let is_wave = !lapsing.is_empty() && self.is_wave(lapsing.len());
        self.take_up_all(news, is_wave, now);
    }

    /// Takes up changes that came while nobody here listened: that many have ended since says nothing.
    pub(in crate::registry) fn catch_up(&mut self, news: Vec<News>, now: Moment) {
        self.take_up_all(news, false, now);
        self.lapses.clear();
    }

    /// Ends leases that were held, and returns who expired so long ago that it is to be removed.
    pub(in crate::registry) fn sweep(&mut self, now: Moment) -> Vec<Arc<str>> {
        self.forget_lapses(now);
        let mut old = Vec::new();
        let mut over = Vec::new();
        for (_, id) in self.due.iter().take_while(|(at, _)| *at <= now.mono) {
            let Some(record) = self.records.get(id) else { continue };
            match record.lease {
                Lease::Runs { .. } => over.push(Arc::clone(record)),
                Lease::Expired { .. } => old.push(Arc::clone(id)),
                Lease::Told { .. } | Lease::Paused { .. } => {}
            }
        }
        for before in over {
            self.lapses.push_back(now.mono);
            self.expire(&before, now);
        }
        old
    }

    /// It was heard of, and its lease is renewed. Returns the entry.
    pub(in crate::registry) fn heard(&mut self, id: &str, at: Moment) -> Option<Arc<Record>> {
        let before = self.records.get(id).cloned()?;
        if !matches!(before.lease, Lease::Told { .. }) {
            return Some(before);
        }
        let mut record = (*before).clone();
        (record.heard, record.last_seen) = (record.heard.max(at.mono), record.last_seen.max(at.wall));
        let length = self.terms.length(record.status, record.ttl);
        record.lease = Lease::Told { until: Some(record.heard + length) };
        let record = Arc::new(record);
        self.put(Some(&before), Arc::clone(&record));
        let of_effect = Arc::clone(&record);
        self.effects.push(Effect::Put { record: of_effect, was: None, is_news: false, is_kept: false });
        Some(record)
    }

    /// The entry that expired longest ago, which makes room.
    pub(in crate::registry) fn oldest(&self) -> Option<Arc<str>> {
        let expired = self.records.values().filter_map(|record| match record.lease {
            Lease::Expired { at, .. } => Some((at, &record.what.id)),
            _ => None,
        });
        expired.min().map(|(_, id)| Arc::clone(id))
    }

    /// Whether a lease ends by this that was known to run.
    fn is_lapse(&self, news: &News) -> bool {
        let known = self.records.get(news.id());
        let ran = known.is_some_and(|record| matches!(record.lease, Lease::Told { .. }));
        ran && news.is_end()
    }

    fn take_up_all(&mut self, news: Vec<News>, is_wave: bool, now: Moment) {
        for it in news {
            let is_lapse = self.is_lapse(&it);
            // One less than what it is counted as: whatever follows counts itself.
            self.revision = self.revision.max(counted(it.revision).saturating_sub(1));
            match it.what {
                What::Gone(id) => {
                    if let Some(record) = self.records.get(&id).cloned() {
                        self.erase(&record);
                    }
                }
                What::Put(told) => self.take_up(*told, (is_lapse, is_wave), now),
            }
        }
    }

    fn take_up(&mut self, told: Told, (is_lapse, is_wave): (bool, bool), now: Moment) {
        let before = self.records.get(told.kept.id()).cloned();
        let mut record = self.record(told, before.as_deref(), now);
        if is_lapse {
            (record.lease, record.health) = if is_wave {
                let until = now.mono + self.terms.ttl;
                (Lease::Runs { until, grace: Some(Grace::Held) }, record.health)
            } else {
                // Nobody asks who is not there, and nobody sends requests.
                (self.lapsed(now), Health::default())
            };
        }
        let Some(known) = &before else {
            self.replace(None, record);
            return;
        };
        let is_news = !known.what.is_like(&record.what)
            || (known.status, known.ttl, &known.key) != (record.status, record.ttl, &record.key)
            || std::mem::discriminant(&known.lease) != std::mem::discriminant(&record.lease);
        if is_news {
            self.replace(before.as_ref(), record);
        } else {
            record.revision = known.revision;
            let record = Arc::new(record);
            self.put(before.as_ref(), Arc::clone(&record));
            self.effects.push(Effect::Put { record, was: None, is_news: false, is_kept: false });
        }
    }

    fn lapsed(&mut self, now: Moment) -> Lease {
        self.lapses.push_back(now.mono);
        self.expired += 1;
        Lease::Expired { at: now.wall, gone: now.mono + self.terms.retention }
    }

    /// An entry as the store has it, with what is known here alone.
    fn record(&self, told: Told, before: Option<&Record>, now: Moment) -> Record {
        let Told { kept, lives } = told;
        let is_known = before.is_some_and(|before| kept.last_seen <= before.last_seen);
        let heard = before.filter(|_| is_known).map_or(now.mono, |before| before.heard);
        let lease = match (lives, before.map(|before| before.lease)) {
            (true, Some(lease @ Lease::Told { .. })) if is_known => lease,
            // When it was renewed last, is not known of one that is met.
            (true, known) => Lease::Told { until: known.map(|_| heard + kept.length(self.terms)) },
            (false, Some(held @ Lease::Runs { .. })) => held,
            (false, known) => {
                let known = match known {
                    Some(Lease::Expired { at, .. }) => Some(at),
                    _ => None,
                };
                let at = kept.expired_at.or(known).unwrap_or(now.wall);
                let since = now.wall.duration_since(at).unwrap_or_default();
                Lease::Expired { at, gone: now.mono + self.terms.retention.saturating_sub(since) }
            }
        };
        let health = before.map(|before| still_true(before, &kept.what)).unwrap_or_default();
        Record {
            status: kept.status,
            registered_at: kept.registered_at,
            last_seen: before.map_or(kept.last_seen, |before| before.last_seen.max(kept.last_seen)),
            heard,
            ttl: kept.ttl,
            granted: kept.granted,
            asked_ttl: kept.asked_ttl,
            lease,
            key: kept.key,
            health,
            revision: 0,
            what: Arc::new(kept.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::due, *};
    use crate::registry::{Registration, Renewal};
    use std::time::SystemTime;

    const TERMS: Terms =
        Terms { ttl: Duration::from_secs(45), retention: Duration::from_secs(3600), strict_conflict: false };

    fn at(seconds: u64) -> Moment {
        let mono = Duration::from_secs(seconds);
        Moment { mono, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + mono }
    }

    fn kept(id: &str, now: Moment) -> Kept {
        let text = format!(r#"{{"id":"{id}","name":"n","role":"worker","address":"{id}.test"}}"#);
        let asked = Registration::read(text.as_bytes()).expect("a registration");
        Kept::of(&Book::new(TERMS, 0).register(asked, now).expect("an entry"))
    }

    fn told(id: &str, lives: bool) -> Told {
        Told { kept: kept(id, at(0)), lives }
    }

    fn state(book: &Book, id: &str) -> &'static str {
        book.records.get(id).map_or("none", |record| record.state())
    }

    fn seen(book: &mut Book) -> Vec<(u64, bool)> {
        let seen = book.take_effects().into_iter().map(|effect| match effect {
            Effect::Put { record, is_news, .. } => (record.revision, is_news),
            Effect::Gone { revision, .. } => (revision, true),
        });
        seen.collect()
    }

    #[test]
    fn changes_have_the_revisions_of_the_store() {
        let mut book = Book::new(TERMS, 0);
        book.load(vec![News::put(told("a", true), 5)], at(0));
        book.begin(counted(7));
        assert_eq!(seen(&mut book), [(counted(5), false)]);
        book.follow(vec![News::put(told("b", true), 9)], at(1));
        assert_eq!(seen(&mut book), [(counted(9), true)]);
        book.follow(vec![News::put(told("b", true), 10)], at(2));
        assert_eq!(seen(&mut book), [(counted(9), false)], "nothing has changed");
        book.follow(vec![News::put(told("a", false), 11), News::gone("b".into(), 11)], at(3));
        assert_eq!(seen(&mut book), [(counted(11), true), (counted(11) + 1, true)]);
        assert_eq!((state(&book, "a"), state(&book, "b")), ("expired", "none"));
        book.follow(vec![News::gone("b".into(), 12)], at(3));
        assert_eq!(seen(&mut book), []);
        book.follow(vec![News::put(told("a", true), 20)], at(4));
        assert_eq!(state(&book, "a"), "registered");
    }

    #[test]
    fn a_lease_runs_until_the_store_says_otherwise() {
        let mut book = Book::new(TERMS, 0);
        book.load(vec![News::put(told("a", true), 5)], at(0));
        assert_eq!(book.sweep(at(100_000)), Vec::<Arc<str>>::new());
        assert_eq!(state(&book, "a"), "registered");
        book.follow(vec![News::put(told("a", false), 6)], at(100_000));
        assert_eq!(state(&book, "a"), "expired");
        assert_eq!(book.sweep(at(103_599)), Vec::<Arc<str>>::new());
        assert_eq!(book.sweep(at(103_600)), ["a".into()], "it is for the store to remove it");
        assert_eq!(state(&book, "a"), "expired");
    }

    #[test]
    fn a_wave_is_held_once() {
        let mut book = Book::new(TERMS, 0);
        let names: Vec<String> = (0..10).map(|n| format!("vm-{n}")).collect();
        book.load(names.iter().map(|name| News::put(told(name, true), 1)).collect(), at(0));
        let ends = |names: &[String], revision| {
            names.iter().map(|name| News::put(told(name, false), revision)).collect::<Vec<_>>()
        };
        book.follow(ends(&names[..3], 2), at(1));
        assert_eq!(state(&book, "vm-0"), "expired", "three of ten are believed");
        book.follow(ends(&names[3..9], 3), at(2));
        assert!(book.records.get("vm-5").is_some_and(|record| record.is_held()));
        book.follow(ends(&names[5..6], 4), at(3));
        assert!(book.records.get("vm-5").is_some_and(|record| record.is_held()), "told once more");
        book.follow(vec![News::put(told("vm-6", true), 5)], at(4));
        assert!(book.records.get("vm-6").is_some_and(|record| !record.is_held()));
        book.sweep(at(47));
        assert_eq!((state(&book, "vm-5"), state(&book, "vm-6")), ("expired", "registered"));
        let mut cut_off = Book::new(TERMS, 0);
        cut_off.load(names.iter().map(|name| News::put(told(name, true), 1)).collect(), at(0));
        cut_off.catch_up(ends(&names, 2), at(60));
        assert!(
            names.iter().all(|name| state(&cut_off, name) == "expired"),
            "they ended while nobody listened"
        );
    }

    #[test]
    fn a_book_of_one_says_what_becomes_of_a_wish() {
        let one = |lives| Book::of_one(TERMS, Some(told("a", lives)), (None, None), at(10));
        let mut book = one(true);
        assert!(book.renew("a", &Renewal::default(), at(20)).is_ok());
        assert_eq!(seen(&mut book).first().map(|(_, is_news)| *is_news), Some(false), "a plain renewal");
        let mut book = one(false);
        assert!(book.renew("a", &Renewal::default(), at(20)).is_ok());
        assert_eq!(seen(&mut book).first().map(|(_, is_news)| *is_news), Some(true), "it begins anew");
        let mut book = Book::of_one(TERMS, None, (None, Some(("a".into(), Some(3)))), at(10));
        let refused = book.renew("a", &Renewal::default(), at(20)).expect_err("it was deleted");
        assert_eq!(refused, crate::registry::Refusal::Deleted);
    }

    #[test]
    fn what_is_known_here_alone_stays() {
        let mut book = Book::new(TERMS, 0);
        book.load(vec![News::put(told("a", true), 5)], at(0));
        let heard = book.heard("a", at(30)).expect("it is there");
        assert_eq!(
            (heard.last_seen, heard.lease),
            (at(30).wall, Lease::Told { until: Some(Duration::from_secs(75)) })
        );
        book.follow(vec![News::put(told("a", true), 6)], at(40));
        let after = book.records.get("a").expect("it is there");
        assert_eq!((after.last_seen, after.lease), (heard.last_seen, heard.lease));
        assert_eq!(due(after), Duration::MAX);
    }
}
