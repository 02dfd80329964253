//! Entries, many at a time: all of them page by page, and those that may be connected to.

use super::{
    Record, Refusal, Registry, Role, Verdict,
    api::{Answer, Reply, Request, done},
    query::Query,
    shelf::{Choice, Prepared},
    show::Shown,
};
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use std::{
    cmp::Reverse,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Bytes of an answer from which on nothing is added to it.
const LARGEST: usize = 16 * 1024 * 1024;

/// `GET /registry/vms`: the newest first. Expired ones are left out only of those that are `running`.
pub(super) fn list(registry: &Registry, request: &Request<'_>, query: Query<'_>) -> Result<Reply, Answer> {
    let role = query.get("role").map(|name| Role::of(&name));
    let status = query.get("status");
    let with_stale = query.is_set("include_stale");
    let limit = limit(query)?;
    let after = query.get("after");
    let place = after.as_deref().map(|text| Place::read(text).ok_or_else(Place::wrong)).transpose()?;
    let key = format!("vms {role:?} {status:?} {with_stale} {limit:?} {after:?}");
    let of_role = role.flatten();
    prepared(registry, request, key, of_role, |revision| {
        // A role that there is not has no VMs.
        let mut found = if role == Some(None) { Vec::new() } else { registry.all(of_role) };
        if let Some(status) = &status {
            found.retain(|record| {
                let is_left_out = **status == *"running" && record.is_expired() && !with_stale;
                record.status.name() == &**status && !is_left_out
            });
        }
        if let Some(place) = &place {
            found.retain(|record| Place::of(record) > *place);
        }
        found.sort_by(|a, b| Place::of(a).cmp(&Place::of(b)));
        let shown = Many::of(registry, &found, limit);
        // What is not shown begins behind the last that is.
        let last = shown.count.checked_sub(1).and_then(|last| found.get(last));
        let last = last.filter(|_| shown.count < found.len());
        shown.answer(revision, last.map(|record| Place::of(record).write()))
    })
}

/// Where an entry stands in the list: the newest first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place<'a>(Reverse<SystemTime>, &'a str);

impl<'a> Place<'a> {
    fn of(record: &'a Record) -> Self {
        Self(Reverse(record.registered_at), &record.what.id)
    }

    fn write(&self) -> String {
        let since = self.0.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{}.{:09}-{}", since.as_secs(), since.subsec_nanos(), self.1)
    }

    fn read(text: &'a str) -> Option<Self> {
        let (time, id) = text.split_once('-')?;
        let (seconds, nanos) = time.split_once('.')?;
        let nanos = nanos.parse().ok().filter(|nanos| *nanos < 1_000_000_000)?;
        let at = UNIX_EPOCH.checked_add(Duration::new(seconds.parse().ok()?, nanos))?;
        Some(Self(Reverse(at), id))
    }

    fn wrong() -> Refusal {
        Refusal::Invalid("after must be what the page before it has as `next`".to_owned())
    }
}

/// `GET /registry/discover/ROLE`: those that may be connected to, the oldest first.
pub(super) fn discover(
    registry: &Registry,
    request: &Request<'_>,
    role: &str,
    query: Query<'_>,
) -> Result<Reply, Answer> {
    let wanted = Wanted {
        role: Role::of(role),
        service: query.get("service"),
        is_healthy: query.is_set("healthy"),
        is_all: query.is_set("all"),
    };
    let limit = limit(query)?;
    let pick = query.get("pick");
    let is_random = match pick.as_deref() {
        None | Some("first") => false,
        Some("random") => true,
        Some(other) => {
            return Err(Refusal::Invalid(format!("pick must be first or random, not {other}")).into());
        }
    };
    let limit = limit.or(pick.is_some().then_some(1));
    let key = format!("discover {wanted:?}");
    if is_random {
        return done(random(registry, &wanted, &key, limit));
    }
    let key = format!("{key} {limit:?}");
    prepared(registry, request, key, wanted.role, |revision| {
        Many::of(registry, &wanted.find(registry), limit).answer(revision, None)
    })
}

/// Some of those that are wanted, each as likely as any other.
fn random(registry: &Registry, wanted: &Wanted<'_>, key: &str, limit: Option<usize>) -> Answer {
    // Before the entries, so that what is found is at least as new.
    let (all, revision) = (registry.revision(None), registry.revision(wanted.role));
    let choice = registry.choice(key, revision, || {
        let found = wanted.find(registry);
        let best = found.first().map(|record| wanted.rank(record));
        let best = found.partition_point(|record| Some(wanted.rank(record)) == best);
        Choice { revision, best, ids: found.iter().map(|record| Arc::clone(&record.what.id)).collect() }
    });
    let picked = picked(&choice, limit.unwrap_or(usize::MAX));
    let picked: Vec<_> = picked.iter().filter_map(|id| registry.get(id)).collect();
    Many::of(registry, &picked, None).answer(all, None)
}

/// Who is asked for.
#[derive(Debug)]
struct Wanted<'a> {
    /// A role that there is not has no VMs.
    role: Option<Role>,
    service: Option<std::borrow::Cow<'a, str>>,
    is_healthy: bool,
    is_all: bool,
}

impl Wanted<'_> {
    fn find(&self, registry: &Registry) -> Vec<Arc<Record>> {
        let mut found = if self.role.is_none() { Vec::new() } else { registry.all(self.role) };
        found.retain(|record| {
            (self.is_all || record.is_discoverable())
                && (!self.is_healthy || !(record.is_held() || self.fails(record)))
                && self.service.as_deref().is_none_or(|name| record.service(name).is_some())
        });
        // Where nothing works, the fault may be with those who found that out.
        if !self.is_all && found.iter().any(|record| !self.fails(record)) {
            found.retain(|record| !self.fails(record));
        }
        found.sort_by(|a, b| {
            let key = |record: &Record| (self.rank(record), record.registered_at);
            key(a).cmp(&key(b)).then_with(|| a.what.id.cmp(&b.what.id))
        });
        found
    }

    fn fails(&self, record: &Record) -> bool {
        record.verdict(self.service.as_deref()) == Verdict::Unhealthy
    }

    /// Those that are certain come first, and the oldest of them.
    fn rank(&self, record: &Record) -> (bool, Verdict) {
        (record.is_held(), record.verdict(self.service.as_deref()))
    }
}

fn limit(query: Query<'_>) -> Result<Option<usize>, Refusal> {
    let limit = query.number("limit").map_err(Refusal::Invalid)?;
    Ok(limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)))
}

/// So many of them, each of the best as likely as any other of the best, and then of the others.
fn picked(choice: &Choice, most: usize) -> Vec<Arc<str>> {
    let best = choice.ids.get(..choice.best).unwrap_or_default();
    if most <= best.len() / 4 {
        // Few of many: none is met twice for long.
        let mut picked: Vec<usize> = Vec::with_capacity(most);
        while picked.len() < most {
            let chosen = below(best.len());
            if !picked.contains(&chosen) {
                picked.push(chosen);
            }
        }
        return picked.into_iter().filter_map(|index| best.get(index).cloned()).collect();
    }
    let mut all = choice.ids.to_vec();
    let (front, back) = all.split_at_mut(choice.best.min(choice.ids.len()));
    shuffle(front, most);
    shuffle(back, most.saturating_sub(choice.best));
    all.truncate(most);
    all
}

fn below(end: usize) -> usize {
    let chosen = getrandom::u64().unwrap_or_default().checked_rem(end as u64).unwrap_or_default();
    usize::try_from(chosen).unwrap_or_default()
}

/// Brings so many to the front, each as likely as any other.
fn shuffle<T>(items: &mut [T], most: usize) {
    let length = items.len();
    for front in 0..most.min(length) {
        items.swap(front, front + below(length - front));
    }
}

/// `GET /registry/stale`: those that have expired.
pub(super) fn stale(registry: &Registry) -> Answer {
    let revision = registry.revision(None);
    let expired = registry.all(None).into_iter().filter(|record| record.is_expired());
    Many::of(registry, &expired.collect::<Vec<_>>(), None).answer(revision, None)
}

/// The same answer once more, while nothing of this role changes but renewals; nothing at all to who has it. What it
/// is made with is the revision of everything, where changes go on from.
fn prepared(
    registry: &Registry,
    request: &Request<'_>,
    key: String,
    role: Option<Role>,
    make: impl FnOnce(u64) -> Answer,
) -> Result<Reply, Answer> {
    let now = registry.now();
    // Before the entries, so that what is found is at least as new.
    let (all, revision) = (registry.revision(None), registry.revision(role));
    if registry.lost_for().is_some() {
        // It says how old it is, which is something else each time.
        return done(make(all));
    }
    let etag = Some(match registry.instance() {
        None => format!("\"{revision}\""),
        Some(instance) => format!("\"{revision}-{instance:x}\""),
    });
    if request.if_none_match.is_some_and(|known| is_known(known, etag.as_deref().unwrap_or_default())) {
        return done(Answer {
            status: StatusCode::NOT_MODIFIED,
            body: Bytes::new(),
            etag,
            allow: None,
            age: None,
        });
    }
    if let Some(found) = registry.prepared(&key, revision, now.mono) {
        return done(Answer { status: StatusCode::OK, body: found.body, etag, allow: None, age: None });
    }
    let answer = Answer { etag, ..make(all) };
    registry.prepare(key, Prepared { revision, made: now.mono, body: answer.body.clone() });
    done(answer)
}

/// RFC 9110 §13.1.2.
fn is_known(list: &[u8], etag: &str) -> bool {
    list.split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .any(|known| known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == etag.as_bytes())
}

/// An answer with entries, as many as fit into it.
struct Many {
    body: Vec<u8>,
    count: usize,
    /// Whether one of them is held, or nothing is certain.
    stale: bool,
    /// Seconds since all of it was certain, where the store is lost.
    age: Option<u64>,
}

impl Many {
    /// The first of those that were found.
    fn of(registry: &Registry, found: &[Arc<Record>], limit: Option<usize>) -> Self {
        let now = registry.as_of();
        let age = registry.lost_for().map(|age| age.as_secs());
        let mut many = Self { body: b"{\"vms\":[".to_vec(), count: 0, stale: age.is_some(), age };
        for record in found.iter().take(limit.unwrap_or(usize::MAX)) {
            if many.body.len() >= LARGEST {
                break;
            }
            if many.count > 0 {
                many.body.push(b',');
            }
            // What is written has no keys but strings: this cannot fail.
            let _ = serde_json::to_writer(&mut many.body, &Shown::of(record, now));
            many.count += 1;
            many.stale |= record.is_held();
        }
        many
    }

    /// With where changes go on from, and where the next page begins.
    fn answer(mut self, revision: u64, next: Option<String>) -> Answer {
        #[derive(Serialize)]
        struct End {
            count: usize,
            revision: u64,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            stale: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            age: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            next: Option<String>,
        }
        let end = End { count: self.count, revision, stale: self.stale, age: self.age, next };
        let end = serde_json::to_vec(&end).unwrap_or_default();
        self.body.extend_from_slice(b"],");
        self.body.extend_from_slice(end.get(1..).unwrap_or_default());
        self.body.shrink_to_fit();
        Answer { status: StatusCode::OK, body: self.body.into(), etag: None, allow: None, age: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_may_be_asked_for() {
        let ids = || ["a", "b", "c", "d", "e", "f", "g", "h", "i"].map(Arc::from).to_vec();
        for best in [0, 1, 8, 9] {
            let choice = Choice { revision: 1, ids: ids().into(), best };
            for most in [0, 1, 2, 9, 10, usize::MAX / 4, usize::MAX / 4 + 1, usize::MAX] {
                let mut found = picked(&choice, most);
                assert_eq!(found.len(), most.min(9), "{most} of {best} that are best");
                found.sort();
                found.dedup();
                assert_eq!(found.len(), most.min(9), "none of them twice");
            }
        }
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        for (nanos, id) in [(0, "a"), (1, "a-b"), (999_999_999, "x.y:z@-"), (5, "")] {
            let place = Place(Reverse(UNIX_EPOCH + Duration::new(1_800_000_000, nanos)), id);
            assert_eq!(Place::read(&place.write()), Some(place));
        }
        for bad in ["", "-", "1-a", "1.-a", "x.1-a", "1.1000000000-a", "18446744073709551615.1-a"] {
            assert_eq!(Place::read(bad), None, "{bad}");
        }
    }
}
