//! What etcd says of all VMs, as its changes tell it, and what that comes to for those who look. Pure.

use super::{
    super::{ENTRIES, book::News},
    keys::{Keys, Kind},
    seen::Seen,
    wire::{Event, KeyValue},
};
use std::{collections::HashMap, sync::Arc};

/// VMs that are remembered. Several gateways at once may take in some more than there may be.
pub(super) const MOST: usize = ENTRIES + 5_000;

/// Where some were left out, everything is read anew once there are so many fewer.
const ROOM: usize = 1_000;

/// What etcd says of all VMs: those that are there. That one was deleted, only who writes needs to know, and asks.
#[derive(Debug)]
pub(super) struct View {
    keys: Keys,
    vms: HashMap<Arc<str>, Seen>,
    is_overfull: bool,
    /// How many keys made no sense since that was asked last, and what was wrong with the first of them.
    senseless: (u64, String),
}

impl View {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, vms: HashMap::new(), is_overfull: false, senseless: Default::default() }
    }

    pub(super) fn of(&self, id: &str) -> Seen {
        self.vms.get(id).cloned().unwrap_or_default()
    }

    /// All VMs that are known.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Seen)> {
        self.vms.iter()
    }

    /// Whether some were left out for want of room, and there is room by now.
    pub(super) fn has_room_again(&self) -> bool {
        self.is_overfull && self.vms.len() + ROOM <= MOST
    }

    /// How many keys made no sense since this was asked last, and what is wrong with one of them.
    pub(super) fn take_senseless(&mut self) -> Option<(u64, String)> {
        Some(std::mem::take(&mut self.senseless)).filter(|(count, _)| *count > 0)
    }

    /// Takes up some of all that there is.
    pub(super) fn load(&mut self, kvs: &[KeyValue]) {
        kvs.iter().for_each(|kv| self.put(kv));
    }

    /// Whether some were left out for want of room.
    pub(super) fn is_overfull(&self) -> bool {
        self.is_overfull
    }

    /// Takes the place of what was known, with everything that there is as of this revision. Returns what that changes,
    /// in order.
    pub(super) fn replace(&mut self, all: Self, revision: u64) -> Vec<News> {
        let mut before = std::mem::replace(self, all).vms;
        let mut news = Vec::new();
        for (id, seen) in &self.vms {
            let was = before.remove(id).unwrap_or_default();
            // One that has ended without a trace of when, has done so by now.
            let is_ended = was.lease().is_some() && seen.lease().is_none();
            let is_news = is_ended || was.revision() != seen.revision() || !was.is_told();
            match seen.told().filter(|_| is_news) {
                Some(told) if is_ended => news.push(News::put(told, revision)),
                Some(told) => news.push(News::put(told, seen.revision())),
                None if !seen.is_told() && was.is_told() => news.push(News::gone(Arc::clone(id), revision)),
                None => {}
            }
        }
        let gone = before.into_iter().filter(|(_, was)| was.is_told());
        news.extend(gone.map(|(id, _)| News::gone(id, revision)));
        news.sort_by(|a, b| (a.revision, a.id()).cmp(&(b.revision, b.id())));
        news
    }

    /// Takes up changes. Returns what they come to, in order.
    pub(super) fn apply(&mut self, events: &[Event]) -> Vec<News> {
        let mut news: Vec<News> = Vec::new();
        let mut rest = events;
        // What one transaction has changed is one change of its VM.
        while let Some(first) = rest.first() {
            let revision = first.kv.mod_revision;
            let (now, later) = rest.split_at(rest.partition_point(|event| event.kv.mod_revision <= revision));
            rest = if now.is_empty() { &[] } else { later };
            let mut touched: Vec<(Arc<str>, bool)> = Vec::new();
            for event in now {
                let Some((kind, id)) = self.keys.read(&event.kv.key) else { continue };
                let was_told = self.vms.get(id).is_some_and(Seen::is_told);
                if event.is_end() {
                    if let Some(seen) = self.vms.get_mut(id) {
                        seen.end(kind);
                    }
                } else {
                    self.put(&event.kv);
                }
                if !touched.iter().any(|(known, _)| **known == *id) {
                    touched.push((id.into(), was_told));
                }
            }
            for (id, was_told) in touched {
                let seen = self.of(&id);
                if seen.is_nothing() {
                    self.vms.remove(&id);
                }
                match seen.told() {
                    Some(told) => news.push(News::put(told, revision)),
                    None if was_told => news.push(News::gone(id, revision)),
                    None => {}
                }
            }
        }
        news
    }

    fn put(&mut self, kv: &KeyValue) {
        let Some((kind, id)) = self.keys.read(&kv.key) else { return };
        if kind == Kind::Deleted {
            return;
        }
        if !self.vms.contains_key(id) && self.vms.len() >= MOST {
            if !std::mem::replace(&mut self.is_overfull, true) {
                tracing::error!(
                    most = MOST,
                    "etcd has more VMs than a registry may have: the others are not known here"
                );
            }
            return;
        }
        let seen = self.vms.entry(id.into()).or_default();
        if let Err(error) = seen.put(kind, id, kv) {
            let (count, first) = &mut self.senseless;
            *count += 1;
            if *count == 1 {
                *first = format!("{}: {error}", String::from_utf8_lossy(&kv.key).escape_debug());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::{Book, Caller, Kept, Moment, Refusal, Registration, Renewal, Terms, Wish},
            keys::Kind,
            seen::{Entry, Tomb},
            wire,
            write::{Decision, decide},
        },
        *,
    };
    use data_encoding::BASE64;
    use serde_json::{Value, json};
    use std::time::{Duration, SystemTime};

    const TERMS: Terms =
        Terms { ttl: Duration::from_secs(45), retention: Duration::from_secs(60), strict_conflict: false };

    fn now() -> Moment {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Moment { mono: Duration::from_secs(100), wall }
    }

    fn asked(id: &str, more: &str) -> Registration {
        let text = format!(r#"{{"id":"{id}","name":"n","role":"worker","address":"{id}.test"{more}}}"#);
        Registration::read(text.as_bytes()).expect("a registration")
    }

    fn entry(id: &str, write: u64) -> Vec<u8> {
        let record = Book::new(TERMS, 0).register(asked(id, r#","generation":3"#), now()).expect("an entry");
        serde_json::to_vec(&Entry::new(write, Kept::of(&record), None)).expect("JSON")
    }

    fn keys() -> Keys {
        Keys::new("/r")
    }

    fn put(kind: Kind, id: &str, revision: u64, value: &[u8], lease: u64) -> Value {
        json!({ "kv": { "key": BASE64.encode(&keys().of(kind, id)), "mod_revision": revision.to_string(),
            "value": BASE64.encode(value), "lease": lease.to_string() } })
    }

    fn end(kind: Kind, id: &str, revision: u64) -> Value {
        let key = BASE64.encode(&keys().of(kind, id));
        json!({ "type": "DELETE", "kv": { "key": key, "mod_revision": revision.to_string() } })
    }

    fn events(events: &[Value]) -> Vec<Event> {
        let line = json!({ "result": { "header": {}, "events": events } }).to_string();
        wire::read_streamed::<wire::Watched>(line.as_bytes()).expect("JSON").expect("a message").events
    }

    /// What changes come to: who, when, and whether it lives.
    fn shown(news: &[News]) -> Vec<(String, u64, bool)> {
        news.iter().map(|it| (it.id().to_string(), it.revision, !it.is_end())).collect()
    }

    fn registered(id: &str, revision: u64, lease: u64) -> [Value; 2] {
        let what = put(Kind::Entry, id, revision, &entry(id, revision), 0);
        [what, put(Kind::Alive, id, revision, b"", lease)]
    }

    #[test]
    fn what_one_transaction_changes_is_one_change() {
        let mut view = View::new(keys());
        let news = view.apply(&events(&[registered("a", 5, 7), registered("b", 6, 8)].concat()));
        assert_eq!(shown(&news), [("a".to_owned(), 5, true), ("b".to_owned(), 6, true)]);
        assert_eq!((view.of("a").lease(), view.of("none").lease()), (Some(7), None));
        let news = view.apply(&events(&[end(Kind::Alive, "a", 9)]));
        assert_eq!(shown(&news), [("a".to_owned(), 9, false)], "its lease has ended");
        let removed =
            [end(Kind::Entry, "b", 10), end(Kind::Alive, "b", 10), put(Kind::Deleted, "b", 10, b"{}", 9)];
        assert_eq!(shown(&view.apply(&events(&removed))), [("b".to_owned(), 10, true)]);
        assert_eq!(view.all().count(), 1, "and nothing of it is left");
        assert_eq!(shown(&view.apply(&events(&[end(Kind::Deleted, "b", 11)]))), []);
        let foreign = json!({ "kv": { "key": BASE64.encode(b"/other"), "mod_revision": "12" } });
        assert_eq!(shown(&view.apply(&events(&[foreign]))), []);
    }

    #[test]
    fn everything_anew_is_compared_with_what_was_known() {
        let found = |of: &[Value]| events(of).into_iter().map(|event| event.kv).collect::<Vec<_>>();
        let mut view = View::new(keys());
        let first = [registered("a", 2, 7), registered("b", 3, 8), registered("c", 4, 9)].concat();
        let all = |of: &[Value]| {
            let mut all = View::new(keys());
            all.load(&found(of));
            all
        };
        assert_eq!(view.replace(all(&first), 4).len(), 3);
        assert_eq!(shown(&view.replace(all(&first), 20)), [], "nothing has changed");
        let [b, _] = registered("b", 3, 8);
        let second = [&registered("a", 2, 7)[..], &[b], &registered("d", 15, 9)].concat();
        let news = view.replace(all(&second), 30);
        let expected = [("d", 15, true), ("b", 30, false), ("c", 30, true)];
        assert_eq!(shown(&news), expected.map(|(id, revision, lives)| (id.to_owned(), revision, lives)));
    }

    #[test]
    fn what_had_no_room_is_for_when_there_is_room_again() {
        let mut view = View::new(keys());
        let alive = |n: usize| KeyValue {
            key: keys().of(Kind::Alive, &format!("vm-{n}")),
            mod_revision: 5,
            lease: 7,
            ..KeyValue::default()
        };
        view.load(&(0..MOST).map(alive).collect::<Vec<_>>());
        assert!(!view.is_overfull());
        view.load(&[alive(MOST)]);
        assert!(view.is_overfull() && view.of(&format!("vm-{MOST}")).is_nothing());
        let ends = |from: usize, to: usize| {
            events(&(from..to).map(|n| end(Kind::Alive, &format!("vm-{n}"), 6)).collect::<Vec<_>>())
        };
        view.apply(&ends(0, ROOM - 1));
        assert!(!view.has_room_again(), "not for each one");
        view.apply(&ends(ROOM - 1, ROOM));
        assert!(view.has_room_again());
    }

    #[test]
    fn what_nobody_can_read_is_not_there_and_can_be_replaced() {
        let mut view = View::new(keys());
        assert_eq!(shown(&view.apply(&events(&[put(Kind::Entry, "a", 5, b"garbage", 0)]))), []);
        let seen = view.of("a");
        let [(_, revision), ..] = seen.same(&keys(), "a");
        assert_eq!(revision, 5, "whoever writes compares with what is there");
        assert!(matches!(
            decide(&Wish::Register(asked("a", "")), &seen, (TERMS, None, now())),
            Ok(Decision::Put(_))
        ));
    }

    #[test]
    fn wishes_are_decided_by_what_etcd_says() {
        let seen_after = |of: &[Value]| {
            let mut seen = Seen::default();
            for event in events(of) {
                let (kind, id) = (keys().read(&event.kv.key).map(|(kind, _)| kind).expect("ours"), "a");
                seen.put(kind, id, &event.kv).expect("sense");
            }
            seen
        };
        let decided = |seen: &Seen, wish: Wish| decide(&wish, seen, (TERMS, None, now()));
        let renewal = || Wish::Renew("a".into(), Renewal::default());
        let removal = || Wish::Remove("a".into(), Caller::default());
        let live = seen_after(&registered("a", 5, 7));
        assert!(matches!(decided(&live, renewal()), Ok(Decision::Renew(_))));
        assert!(matches!(
            decided(&live, Wish::Register(asked("a", r#","generation":3"#))),
            Ok(Decision::Renew(_))
        ));
        assert!(matches!(
            decided(&live, Wish::Register(asked("a", r#","generation":4"#))),
            Ok(Decision::Put(_))
        ));
        let older = decided(&live, Wish::Register(asked("a", r#","generation":2"#)));
        assert_eq!(older.expect_err("an older life"), Refusal::Superseded(3));
        assert!(matches!(decided(&live, removal()), Ok(Decision::Remove(Some(3)))));
        assert_eq!(decided(&live, Wish::Purge("a".into())).expect_err("it lives"), Refusal::Unknown);

        let [what, _] = registered("a", 5, 7);
        let expired = seen_after(&[what]);
        assert!(matches!(decided(&expired, renewal()), Ok(Decision::Put(_))), "it needs another lease");
        assert!(matches!(decided(&expired, Wish::Purge("a".into())), Ok(Decision::Forget)));

        let tomb = serde_json::to_vec(&Tomb { write: 1, generation: Some(3) }).expect("JSON");
        let deleted = seen_after(&[put(Kind::Deleted, "a", 6, &tomb, 9)]);
        assert_eq!(decided(&deleted, renewal()).expect_err("it was deleted"), Refusal::Deleted);
        let older = decided(&deleted, Wish::Register(asked("a", r#","generation":2"#)));
        assert_eq!(older.expect_err("an older life"), Refusal::Outlived);
        assert!(matches!(decided(&deleted, Wish::Register(asked("a", ""))), Ok(Decision::Put(_))));
        assert!(deleted.is_by(1) && !deleted.is_by(2) && live.is_by(5));

        assert_eq!(decided(&Seen::default(), renewal()).expect_err("nobody"), Refusal::Unknown);
    }
}
