//! The registry in the words of HTTP: a request → an answer, or what to wait for. No connection in sight.

use super::{
    Caller, Change, Committed, Done, ENTRY, LeaseKey, OPENAPI, Record, Refusal, Registration, Registry,
    Renewal, Role, Verdict, Watcher, Wish, Wished,
    caller::is_own,
    query::{Query, decoded},
    shelf::{Choice, Prepared},
    show::{Shown, Time},
};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use std::{net::IpAddr, sync::Arc, time::Duration};
use subtle::ConstantTimeEq as _;
use tokio::sync::oneshot;

/// Bytes that a request's body may have.
pub const BODY: u64 = ENTRY as u64;

/// How long a question for changes waits where it does not say.
const PATIENCE: Duration = Duration::from_secs(25);

/// The longest that it may say.
const LONGEST_WAIT: Duration = Duration::from_secs(55);

/// Changes in one answer.
const CHANGES: usize = 1_000;

/// A request, as far as the registry looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// GET, POST, PATCH, DELETE; HEAD is GET.
    pub method: &'a Method,
    /// The path, as it was written.
    pub path: &'a str,
    /// What follows the question mark.
    pub query: Option<&'a str>,
    /// The body, all of it.
    pub body: &'a [u8],
    /// Its `authorization`.
    pub authorization: Option<&'a [u8]>,
    /// Its `accept`.
    pub accept: Option<&'a [u8]>,
    /// Its `if-none-match`.
    pub if_none_match: Option<&'a [u8]>,
    /// Its `last-event-id`.
    pub last_event_id: Option<&'a [u8]>,
    /// Its `x-lease-key`.
    pub lease_key: Option<&'a [u8]>,
    /// Where it comes from, where that is known.
    pub peer: Option<IpAddr>,
}

/// Who may do what.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Who may ask.
    pub door: Door<'a>,
    /// The token of who may change everybody's entries.
    pub admin: Option<&'a str>,
    /// Whether VMs register addresses of their own only.
    pub own_addresses: bool,
    /// Changes a second that one address may make; any number where there is none.
    pub changes: Option<u32>,
}

/// Who may ask.
#[derive(Debug, Clone, Copy)]
pub enum Door<'a> {
    /// Everybody: somebody else has asked already, or nobody cares.
    Open,
    /// Who shows this token; nobody where it has no value.
    Token(Option<&'a str>),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body: JSON, always.
    pub body: Bytes,
    /// Tells this answer from others to the same question.
    pub etag: Option<String>,
    /// Methods that there are, where the one that was asked for is none of them.
    pub allow: Option<&'static str>,
    /// Seconds since all of this was certain, where the store is lost.
    pub age: Option<u64>,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Reply {
    /// This answer, once that is kept.
    Answer(Answer, Committed),
    /// What [`Decided::answer`] says, once the store has decided that several gateways share.
    Decided(Decided),
    /// [`changes`], once there are any, or at the end of this time.
    Wait(Watcher, Duration),
    /// All changes as they come, as [`events`] has them.
    Events(Watcher),
}

/// Wishes that the store decides on.
#[derive(Debug)]
pub struct Decided {
    call: Call,
    decisions: Vec<oneshot::Receiver<Result<Done, Refusal>>>,
}

/// A call that changes something.
#[derive(Debug, Clone, Copy)]
enum Call {
    Register,
    Change,
    Renew,
    Remove,
    Purge,
}

impl Decided {
    /// Waits for the decision.
    pub async fn answer(self, registry: &Registry) -> Answer {
        let (mut purged, mut last) = (0, None);
        for decision in self.decisions {
            // Whoever decides has gone, and nobody knows how far it was.
            let gone = |_| Err(Refusal::StoreUncertain("the gateway is stopping".to_owned()));
            last = Some(decision.await.unwrap_or_else(gone));
            purged += u64::from(matches!(last, Some(Ok(Done::Removed))));
        }
        match (self.call, last) {
            (Call::Purge, Some(Err(refusal))) if refusal.code().is_some() => refusal.into(),
            (Call::Purge, _) => Answer::json(StatusCode::OK, &json!({ "purged": purged })),
            (call, Some(Ok(done))) => said(registry, call, &done),
            (_, Some(Err(refusal))) => refusal.into(),
            (_, None) => Refusal::Closed.into(),
        }
    }
}

/// Hands over a wish, and answers where it is done.
fn wish(registry: &Registry, call: Call, wish: Wish) -> Result<Reply, Answer> {
    Ok(match registry.wish(wish)? {
        Wished::Done(done, kept) => Reply::Answer(said(registry, call, &done), kept),
        Wished::Asked(decision) => Reply::Decided(Decided { call, decisions: vec![decision] }),
    })
}

/// What is said of something that was done.
fn said(registry: &Registry, call: Call, done: &Done) -> Answer {
    match (call, done) {
        (Call::Register, Done::Entry(record)) => shown(registry, StatusCode::CREATED, record),
        (Call::Renew, Done::Entry(record)) => renewed(record),
        (_, Done::Entry(record)) => shown(registry, StatusCode::OK, record),
        (_, Done::Removed) => Answer::json(StatusCode::OK, &json!({ "deleted": true })),
    }
}

impl Answer {
    fn json(status: StatusCode, value: &impl Serialize) -> Self {
        // What is written has no keys but strings: this cannot fail.
        let body = serde_json::to_vec(value).unwrap_or_default().into();
        Self { status, body, etag: None, allow: None, age: None }
    }

    fn error(status: StatusCode, message: &str) -> Self {
        Self::json(status, &json!({ "error": message }))
    }

    /// The answer to who is refused.
    pub fn refused(refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Unknown | Refusal::Deleted => StatusCode::NOT_FOUND,
            Refusal::Conflict | Refusal::Superseded(_) => StatusCode::CONFLICT,
            Refusal::Bound | Refusal::Foreign => StatusCode::FORBIDDEN,
            Refusal::Full | Refusal::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Busy
            | Refusal::Closed
            | Refusal::NotKept(_)
            | Refusal::StoreLost(_)
            | Refusal::StoreUncertain(_)
            | Refusal::StoreRefuses(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut value = json!({ "error": refusal.to_string() });
        if let Value::Object(fields) = &mut value {
            if let Some(code) = refusal.code() {
                fields.insert("code".to_owned(), code.into());
            }
            match refusal {
                Refusal::Deleted => drop(fields.insert("deleted".to_owned(), true.into())),
                Refusal::Superseded(generation) => {
                    fields.insert("generation".to_owned(), (*generation).into());
                }
                _ => {}
            }
        }
        Self::json(status, &value)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::refused(&refusal)
    }
}

/// Answers a request.
pub fn answer(registry: &Registry, request: &Request<'_>, rules: Rules<'_>) -> Reply {
    let is_read = matches!(*request.method, Method::GET | Method::HEAD);
    match dispatch(registry, request, rules) {
        Ok(Reply::Answer(answer, kept)) if is_read => {
            Reply::Answer(Answer { age: registry.lost_for().map(|age| age.as_secs()), ..answer }, kept)
        }
        Ok(reply) => reply,
        Err(answer) => Reply::Answer(answer, None),
    }
}

fn dispatch(registry: &Registry, request: &Request<'_>, rules: Rules<'_>) -> Result<Reply, Answer> {
    let parts: Vec<_> = request.path.trim_start_matches('/').split('/').collect();
    let parts: Vec<_> = parts.iter().map(|part| decoded(part, false)).collect();
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    let method = if request.method == Method::HEAD { &Method::GET } else { request.method };
    if let ["health"] | ["registry", "health"] = *parts {
        only(method, "GET")?;
        return done(Answer::json(StatusCode::OK, &json!({ "status": "ok" })));
    }
    let caller = admitted(registry, request, rules)?;
    let query = Query(request.query);
    let must_be_own = (rules.own_addresses && !caller.is_admin).then_some(request.peer);
    match (method.as_str(), &*parts) {
        ("GET", ["registry", "openapi.json"]) => {
            let body = Bytes::from_static(OPENAPI.as_bytes());
            done(Answer { status: StatusCode::OK, body, etag: None, allow: None, age: None })
        }
        ("GET", ["registry", "vms"]) => list(registry, request, query),
        ("POST", ["registry", "vms"]) => {
            let asked = Registration { caller, ..Registration::read(request.body)? };
            own(&asked.what.address, &asked.what.id, must_be_own)?;
            wish(registry, Call::Register, Wish::Register(asked))
        }
        ("GET", ["registry", "vms", id]) => {
            let record = registry.get(id).ok_or(Refusal::Unknown)?;
            done(shown(registry, StatusCode::OK, &record))
        }
        ("PATCH", ["registry", "vms", id]) => {
            // Whether there is such an entry comes first, as ever.
            let unknown = |refusal| if registry.get(id).is_some() { refusal } else { Refusal::Unknown };
            let change = Change { caller, ..Change::read(request.body).map_err(unknown)? };
            change
                .address
                .as_ref()
                .map_or(Ok(()), |address| own(address, id, must_be_own))
                .map_err(unknown)?;
            wish(registry, Call::Change, Wish::Change((*id).into(), change))
        }
        ("DELETE", ["registry", "vms", id]) => {
            wish(registry, Call::Remove, Wish::Remove((*id).into(), caller))
        }
        ("POST", ["registry", "vms", id, "heartbeat"]) => {
            let renewal = Renewal { caller, ..Renewal::read(request.body)? };
            wish(registry, Call::Renew, Wish::Renew((*id).into(), renewal))
        }
        ("GET", ["registry", "discover", role]) => discover(registry, request, role, query),
        ("GET", ["registry", "resolve", name]) => resolve(registry, name),
        ("GET", ["registry", "stale"]) => {
            let found =
                registry.all(None).into_iter().filter(|record| record.is_expired()).collect::<Vec<_>>();
            done(many(registry, &found, registry.revision(None)))
        }
        ("DELETE", ["registry", "stale"]) => purge(registry),
        ("GET", ["registry", "watch"]) => watch(registry, request, query),
        (_, parts) => Err(no_such_call(parts)),
    }
}

/// Who asks, where it may.
fn admitted(registry: &Registry, request: &Request<'_>, rules: Rules<'_>) -> Result<Caller, Answer> {
    let is_admin =
        rules.admin.is_some_and(|admin| may_enter(request.authorization, Door::Token(Some(admin))));
    if !is_admin && !may_enter(request.authorization, rules.door) {
        return Err(Answer::error(StatusCode::UNAUTHORIZED, "Unauthorized"));
    }
    if !registry.is_open() {
        return Err(registry.closed().into());
    }
    if !matches!(*request.method, Method::GET | Method::HEAD)
        && let (Some(most), Some(peer)) = (rules.changes, request.peer)
        && !registry.admits(peer, most)
    {
        return Err(Refusal::TooMany(most).into());
    }
    Ok(Caller { key: request.lease_key.map(LeaseKey::read).transpose()?, is_admin })
}

/// Where addresses have to be VMs' own: whether this one is.
fn own(address: &str, id: &str, must_be_of: Option<Option<IpAddr>>) -> Result<(), Refusal> {
    match must_be_of {
        None => Ok(()),
        Some(Some(peer)) if is_own(address, id, peer) => Ok(()),
        Some(_) => Err(Refusal::Foreign),
    }
}

/// What is said where there is no such call: which methods there are, where it is only that.
fn no_such_call(parts: &[&str]) -> Answer {
    match parts {
        ["registry", "vms"] => not_allowed("GET, POST"),
        ["registry", "vms", _] => not_allowed("GET, PATCH, DELETE"),
        ["registry", "vms", _, "heartbeat"] => not_allowed("POST"),
        ["registry", "stale"] => not_allowed("GET, DELETE"),
        ["registry", "openapi.json" | "watch"] | ["registry", "discover" | "resolve", _] => {
            not_allowed("GET")
        }
        _ => Answer::error(
            StatusCode::NOT_FOUND,
            "not found: the registry's calls are in /registry/openapi.json",
        ),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the last word of each arm")]
fn done(answer: Answer) -> Result<Reply, Answer> {
    Ok(Reply::Answer(answer, None))
}

fn only(method: &Method, allowed: &'static str) -> Result<(), Answer> {
    if method.as_str() == allowed { Ok(()) } else { Err(not_allowed(allowed)) }
}

fn not_allowed(allowed: &'static str) -> Answer {
    let answer = Answer::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    Answer { allow: Some(allowed), ..answer }
}

/// In constant time: how much of a token is right must not be told by how long it takes.
fn may_enter(authorization: Option<&[u8]>, door: Door<'_>) -> bool {
    let token = match door {
        Door::Open => return true,
        Door::Token(None) => return false,
        Door::Token(Some(token)) => token,
    };
    let sent = authorization.unwrap_or_default();
    let (scheme, sent) = sent.split_at_checked("bearer ".len()).unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(token.as_bytes().ct_eq(sent.trim_ascii()))
}

fn shown(registry: &Registry, status: StatusCode, record: &Record) -> Answer {
    Answer::json(status, &Shown::of(record, registry.as_of()))
}

fn renewed(record: &Record) -> Answer {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Renewed<'a> {
        id: &'a str,
        last_seen: Time,
        ttl: u64,
        /// Seconds to the next renewal, so that not all come at once.
        renew_after: f64,
        state: &'static str,
        revision: u64,
    }
    let ttl = record.ttl.as_secs();
    Answer::json(
        StatusCode::OK,
        &Renewed {
            id: &record.what.id,
            last_seen: Time(record.last_seen),
            ttl,
            renew_after: (record.ttl.as_secs_f64() / 3.0 * (0.9 + 0.2 * fraction()) * 10.0).round() / 10.0,
            state: record.state(),
            revision: record.revision,
        },
    )
}

/// Anything from 0 to 1.
fn fraction() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}

/// `GET /registry/vms`: the newest first. Expired ones are left out only of those that are `running`.
fn list(registry: &Registry, request: &Request<'_>, query: Query<'_>) -> Result<Reply, Answer> {
    let role = query.get("role").map(|name| Role::of(&name));
    let status = query.get("status");
    let with_stale = query.is_set("include_stale");
    let key = format!("vms {role:?} {status:?} {with_stale}");
    let of_role = role.flatten();
    prepared(registry, request, key, of_role, || {
        // A role that there is not has no VMs.
        let mut found = if role == Some(None) { Vec::new() } else { registry.all(of_role) };
        if let Some(status) = &status {
            found.retain(|record| {
                let is_left_out = **status == *"running" && record.is_expired() && !with_stale;
                record.status.name() == &**status && !is_left_out
            });
        }
        found.sort_by(|a, b| b.registered_at.cmp(&a.registered_at).then_with(|| a.what.id.cmp(&b.what.id)));
        found
    })
}

/// `GET /registry/discover/ROLE`: those that may be connected to, the oldest first.
fn discover(
    registry: &Registry,
    request: &Request<'_>,
    role: &str,
    query: Query<'_>,
) -> Result<Reply, Answer> {
    let of_role = Role::of(role);
    let service = query.get("service");
    let (is_healthy, is_all) = (query.is_set("healthy"), query.is_set("all"));
    let limit = query.number("limit").map_err(Refusal::Invalid)?;
    let pick = query.get("pick");
    let is_random = match pick.as_deref() {
        None | Some("first") => false,
        Some("random") => true,
        Some(other) => {
            return Err(Refusal::Invalid(format!("pick must be first or random, not {other}")).into());
        }
    };
    let limit =
        limit.or(pick.is_some().then_some(1)).map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let fails = |record: &Record| record.verdict(service.as_deref()) == Verdict::Unhealthy;
    // Those that are certain come first, and the oldest of them.
    let rank = |record: &Record| (record.is_held(), record.verdict(service.as_deref()));
    let find = || {
        // A role that there is not has no VMs.
        let mut found = if of_role.is_none() { Vec::new() } else { registry.all(of_role) };
        found.retain(|record| {
            (is_all || record.is_discoverable())
                && (!is_healthy || !(record.is_held() || fails(record)))
                && service.as_deref().is_none_or(|name| record.service(name).is_some())
        });
        // Where nothing works, the fault may be with those who found that out.
        if !is_all && found.iter().any(|record| !fails(record)) {
            found.retain(|record| !fails(record));
        }
        found.sort_by(|a, b| {
            let key = |record: &Record| (rank(record), record.registered_at);
            key(a).cmp(&key(b)).then_with(|| a.what.id.cmp(&b.what.id))
        });
        found
    };
    let key = format!("discover {of_role:?} {service:?} {is_healthy} {is_all}");
    if is_random {
        // Before the entries, so that what is found is at least as new.
        let revision = registry.revision(of_role);
        let choice = registry.choice(&key, revision, || {
            let found = find();
            let best = found.first().map(|record| rank(record));
            let best = found.partition_point(|record| Some(rank(record)) == best);
            Choice { revision, best, ids: found.iter().map(|record| Arc::clone(&record.what.id)).collect() }
        });
        let picked = picked(&choice, limit.unwrap_or(usize::MAX));
        let picked: Vec<_> = picked.iter().filter_map(|id| registry.get(id)).collect();
        return done(many(registry, &picked, revision));
    }
    let key = format!("{key} {limit:?}");
    prepared(registry, request, key, of_role, || {
        let mut found = find();
        found.truncate(limit.unwrap_or(usize::MAX));
        found
    })
}

/// So many of them, each of the best as likely as any other of the best, and then of the others.
fn picked(choice: &Choice, most: usize) -> Vec<Arc<str>> {
    let best = choice.ids.get(..choice.best).unwrap_or_default();
    if most * 4 <= best.len() {
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

/// The same answer once more, while nothing changes but renewals; nothing at all to who has it.
fn prepared(
    registry: &Registry,
    request: &Request<'_>,
    key: String,
    role: Option<Role>,
    find: impl FnOnce() -> Vec<Arc<Record>>,
) -> Result<Reply, Answer> {
    let now = registry.now();
    // Before the entries, so that what is found is at least as new.
    let revision = registry.revision(role);
    if registry.lost_for().is_some() {
        // It says how old it is, which is something else each time.
        return done(many(registry, &find(), revision));
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
    let answer = Answer { etag, ..many(registry, &find(), revision) };
    registry.prepare(key, Prepared { revision, made: now.mono, body: answer.body.clone() });
    done(answer)
}

/// RFC 9110 §13.1.2.
fn is_known(list: &[u8], etag: &str) -> bool {
    list.split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .any(|known| known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == etag.as_bytes())
}

fn many(registry: &Registry, found: &[Arc<Record>], revision: u64) -> Answer {
    #[derive(Serialize)]
    struct Many<'a> {
        vms: Vec<Shown<'a>>,
        count: usize,
        revision: u64,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        stale: bool,
        /// Seconds since all of it was certain, where the store is lost.
        #[serde(skip_serializing_if = "Option::is_none")]
        age: Option<u64>,
    }
    let now = registry.as_of();
    let age = registry.lost_for().map(|age| age.as_secs());
    let vms: Vec<Shown<'_>> = found.iter().map(|record| Shown::of(record, now)).collect();
    let stale = age.is_some() || found.iter().any(|record| record.is_held());
    Answer::json(StatusCode::OK, &Many { count: vms.len(), vms, revision, stale, age })
}

/// `GET /registry/resolve/NAME`.
fn resolve(registry: &Registry, name: &str) -> Result<Reply, Answer> {
    let mut named = registry.all(None);
    named.retain(|record| record.what.name == name);
    // Of several of a name, the one that is there, and the newest.
    let found = named.into_iter().max_by_key(|record| (record.is_discoverable(), record.registered_at));
    let Some(record) = found else {
        let message = format!("No VM registered with name: {name}");
        return Err(Answer::error(StatusCode::NOT_FOUND, &message));
    };
    let what = &record.what;
    done(Answer::json(
        StatusCode::OK,
        &json!({ "name": what.name, "address": what.address, "vmId": &*what.id, "role": what.role, "state": record.state() }),
    ))
}

/// `DELETE /registry/stale`.
fn purge(registry: &Registry) -> Result<Reply, Answer> {
    let (mut purged, mut last, mut decisions) = (0, None, Vec::new());
    for record in registry.all(None).into_iter().filter(|record| record.is_expired()) {
        match registry.wish(Wish::Purge(Arc::clone(&record.what.id))) {
            Ok(Wished::Done(_, kept)) => (purged, last) = (purged + 1, kept.or(last)),
            Ok(Wished::Asked(decision)) => decisions.push(decision),
            // Somebody else was quicker, or it is as it is for all.
            Err(refusal) if refusal.code().is_some() => return Err(refusal.into()),
            Err(_) => {}
        }
    }
    if !decisions.is_empty() {
        return Ok(Reply::Decided(Decided { call: Call::Purge, decisions }));
    }
    // They are kept in order: the last one tells for all.
    Ok(Reply::Answer(Answer::json(StatusCode::OK, &json!({ "purged": purged })), last))
}

/// `GET /registry/watch`.
fn watch(registry: &Registry, request: &Request<'_>, query: Query<'_>) -> Result<Reply, Answer> {
    let resumed = request.last_event_id.and_then(|id| std::str::from_utf8(id).ok()?.trim().parse().ok());
    let since = query.number("since").map_err(Refusal::Invalid)?;
    let wait = query.get("wait").map(|text| match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(&text),
    });
    let wait =
        wait.transpose().map_err(|_| Refusal::Invalid("wait must be seconds, or \"25s\"".to_owned()))?;
    let mut watcher = registry.watch(resumed.or(since));
    let accept = request.accept.unwrap_or_default();
    if memchr::memmem::find(&accept.to_ascii_lowercase(), b"text/event-stream").is_some() {
        return Ok(Reply::Events(watcher));
    }
    if let Some(answer) = changes(registry, &mut watcher) {
        return done(answer);
    }
    Ok(Reply::Wait(watcher, wait.unwrap_or(PATIENCE).min(LONGEST_WAIT)))
}

/// The answer to who asks for changes, where there are any.
pub fn changes(registry: &Registry, watcher: &mut Watcher) -> Option<Answer> {
    match registry.changes(watcher, CHANGES) {
        Ok(found) if found.is_empty() => None,
        Ok(found) => {
            let mut body = format!("{{\"revision\":{},\"changes\":[", watcher.seen()).into_bytes();
            for (index, (_, change)) in found.iter().enumerate() {
                if index > 0 {
                    body.push(b',');
                }
                body.extend_from_slice(change);
            }
            body.extend_from_slice(b"]}");
            Some(Answer { status: StatusCode::OK, body: body.into(), etag: None, allow: None, age: None })
        }
        Err(behind) => {
            let error =
                "changes since then are not known any more: read /registry/vms, and go on from its revision";
            let value = json!({ "error": error, "revision": behind.revision });
            Some(Answer::json(StatusCode::GONE, &value))
        }
    }
}

/// The answer to who has waited in vain.
pub fn no_changes(watcher: &Watcher) -> Answer {
    let body = format!("{{\"revision\":{},\"changes\":[]}}", watcher.seen());
    Answer { status: StatusCode::OK, body: body.into(), etag: None, allow: None, age: None }
}

/// The next events of a stream, as server-sent events have them; none where nothing has changed.
pub fn events(registry: &Registry, watcher: &mut Watcher) -> Vec<u8> {
    let mut text = Vec::new();
    match registry.changes(watcher, CHANGES) {
        Ok(found) => {
            for (revision, change) in found {
                text.extend_from_slice(format!("id: {revision}\nevent: change\ndata: ").as_bytes());
                text.extend_from_slice(&change);
                text.extend_from_slice(b"\n\n");
            }
        }
        Err(behind) => {
            let revision = behind.revision;
            let event = format!("id: {revision}\nevent: reset\ndata: {{\"revision\":{revision}}}\n\n");
            text.extend_from_slice(event.as_bytes());
        }
    }
    text
}

/// What a stream begins with: where it goes on from, so that a client that breaks off at once can, too.
pub fn greeting(watcher: &Watcher) -> Vec<u8> {
    format!("id: {}\n: changes of the registry\n\n", watcher.seen()).into_bytes()
}

/// What keeps a silent stream open.
pub const KEEP_ALIVE: &[u8] = b": still here\n\n";
