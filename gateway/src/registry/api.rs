//! The registry in the words of HTTP: a request → an answer, or what to wait for. No connection in sight.

use super::{
    Caller, Change, Committed, Done, ENTRY, LeaseKey, OPENAPI, Record, Refusal, Registration, Registry,
    Renewal, Watcher, Wish, Wished,
    caller::is_own,
    chance,
    lists::{discover, list, stale},
    query::{Query, decoded},
    show::{Shown, Time},
};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use std::{net::IpAddr, sync::Arc, time::Duration};
use subtle::ConstantTimeEq as _;
use tokio::{sync::oneshot, time::Instant};

/// Bytes that a request's body may have.
pub const BODY: u64 = ENTRY as u64;

/// How long a question for changes waits where it does not say.
const PATIENCE: Duration = Duration::from_secs(25);

/// The longest that it may say.
const LONGEST_WAIT: Duration = Duration::from_secs(55);

/// Expired entries that are removed at a time from a store that several gateways share.
const PURGED_AT_ONCE: usize = 32;

/// For how long further ones are removed in one call.
const PURGING: Duration = Duration::from_secs(4);

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
    /// Which addresses VMs may register.
    pub addresses: Addresses<'a>,
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

/// Which addresses VMs may register.
#[derive(Debug, Clone, Copy)]
pub enum Addresses<'a> {
    /// Any.
    Any,
    /// The one that they come from, and their name below this domain, where there is one.
    Own {
        /// As in `{id}.vm.example.com`, without what stands before it.
        names_below: Option<&'a str>,
    },
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

/// What the store decides on.
#[derive(Debug)]
pub struct Decided(Deciding);

#[derive(Debug)]
enum Deciding {
    /// One wish.
    Wish(Call, oneshot::Receiver<Result<Done, Refusal>>),
    /// The removal of all of these that have expired.
    Purge(Vec<Arc<str>>),
}

/// A call that changes something.
#[derive(Debug, Clone, Copy)]
enum Call {
    Register,
    Change,
    Renew,
    Remove,
}

impl Decided {
    /// Waits for the decision.
    pub async fn answer(self, registry: &Registry) -> Answer {
        match self.0 {
            Deciding::Purge(expired) => removed(registry, &expired).await,
            Deciding::Wish(call, decision) => match decided(decision).await {
                Ok(done) => said(registry, call, &done),
                Err(refusal) => refusal.into(),
            },
        }
    }
}

async fn decided(decision: oneshot::Receiver<Result<Done, Refusal>>) -> Result<Done, Refusal> {
    // Whoever decides has gone, and nobody knows how far it was.
    let gone = |_| Err(Refusal::StoreUncertain("the gateway is stopping".to_owned()));
    decision.await.unwrap_or_else(gone)
}

/// Removes those of them that have expired, a few at a time: others want to write as well. What is left after a while
/// is for whoever asks again.
async fn removed(registry: &Registry, expired: &[Arc<str>]) -> Answer {
    let until = Instant::now() + PURGING;
    let mut purged = 0_usize;
    for (turn, some) in expired.chunks(PURGED_AT_ONCE).enumerate() {
        if Instant::now() > until {
            let left = expired.len() - turn * PURGED_AT_ONCE;
            return Answer::json(StatusCode::OK, &json!({ "purged": purged, "left": left }));
        }
        let purge = |id: &Arc<str>| registry.ask(Wish::Purge(Arc::clone(id)));
        for decision in some.iter().map(purge).collect::<Vec<_>>() {
            let done = match decision {
                Ok(decision) => decided(decision).await,
                Err(refusal) => Err(refusal),
            };
            match done {
                Ok(_) => purged += 1,
                Err(refusal) if refusal.code().is_some() => return refusal.into(),
                // Somebody else was quicker, or it lives again.
                Err(_) => {}
            }
        }
    }
    Answer::json(StatusCode::OK, &json!({ "purged": purged }))
}

/// Hands over a wish, and answers where it is done.
fn wish(registry: &Registry, call: Call, wish: Wish) -> Result<Reply, Answer> {
    match registry.wish(wish) {
        Ok(Wished::Done(done, kept)) => Ok(Reply::Answer(said(registry, call, &done), kept)),
        Ok(Wished::Asked(decision)) => Ok(Reply::Decided(Decided(Deciding::Wish(call, decision)))),
        Err(refusal) => once_gone(registry, &refusal),
    }
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
    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        // What is written has no keys but strings: this cannot fail.
        let body = serde_json::to_vec(value).unwrap_or_default().into();
        Self { status, body, etag: None, allow: None, age: None }
    }

    fn error(status: StatusCode, message: &str) -> Self {
        Self::json(status, &json!({ "error": message }))
    }

    /// With how old it may be, where the store is lost: that somebody is not known is as old as all else.
    fn aged(self, registry: &Registry) -> Self {
        Self { age: registry.lost_for().map(|age| age.as_secs()), ..self }
    }

    /// The answer to who is refused.
    pub fn refused(refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Unknown | Refusal::Deleted => StatusCode::NOT_FOUND,
            Refusal::Conflict | Refusal::Superseded(_) | Refusal::Outlived => StatusCode::CONFLICT,
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
                Refusal::Deleted | Refusal::Outlived => {
                    drop(fields.insert("deleted".to_owned(), true.into()))
                }
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
        Ok(Reply::Answer(answer, kept)) if is_read => Reply::Answer(answer.aged(registry), kept),
        Ok(reply) => reply,
        Err(answer) if is_read => Reply::Answer(answer.aged(registry), None),
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
    let addresses = if caller.is_admin { Addresses::Any } else { rules.addresses };
    match (method.as_str(), &*parts) {
        ("GET", ["registry", "openapi.json"]) => {
            let body = Bytes::from_static(OPENAPI.as_bytes());
            done(Answer { status: StatusCode::OK, body, etag: None, allow: None, age: None })
        }
        ("GET", ["registry", "vms"]) => list(registry, request, query),
        ("POST", ["registry", "vms"]) => {
            let asked = Registration { caller, ..Registration::read(request.body)? };
            own(&asked.what.address, &asked.what.id, request.peer, addresses)?;
            wish(registry, Call::Register, Wish::Register(asked))
        }
        ("GET", ["registry", "vms", id]) => {
            let record = registry.get(id).ok_or(Refusal::Unknown)?;
            done(shown(registry, StatusCode::OK, &record))
        }
        ("PATCH", ["registry", "vms", id]) => {
            // Whether there is such an entry comes first, as ever.
            let unknown = |refusal| if registry.get(id).is_some() { refusal } else { Refusal::Unknown };
            let change = Change::read(request.body).map_err(unknown)?;
            let change = Change { caller: caller.of(change.caller.generation), ..change };
            let own = |address: &String| own(address, id, request.peer, addresses);
            change.address.as_ref().map_or(Ok(()), own).map_err(unknown)?;
            wish(registry, Call::Change, Wish::Change((*id).into(), change))
        }
        ("DELETE", ["registry", "vms", id]) => {
            let generation = query.number("generation").map_err(Refusal::Invalid)?;
            wish(registry, Call::Remove, Wish::Remove((*id).into(), caller.of(generation)))
        }
        ("POST", ["registry", "vms", id, "heartbeat"]) => {
            let renewal = Renewal::read(request.body)?;
            let renewal = Renewal { caller: caller.of(renewal.caller.generation), ..renewal };
            wish(registry, Call::Renew, Wish::Renew((*id).into(), renewal))
        }
        ("GET", ["registry", "discover", role]) => discover(registry, request, role, query),
        ("GET", ["registry", "resolve", name]) => resolve(registry, name),
        ("GET", ["registry", "stale"]) => done(stale(registry)),
        ("DELETE", ["registry", "stale"]) => purge(registry),
        ("GET", ["registry", "watch"]) => watch(registry, request, query),
        (_, parts) => Err(no_such_call(parts)),
    }
}

/// That it is gone is true once that is kept: somebody else may have asked for it a moment ago.
fn once_gone(registry: &Registry, refusal: &Refusal) -> Result<Reply, Answer> {
    match refusal {
        Refusal::Unknown | Refusal::Deleted => {
            Ok(Reply::Answer(Answer::refused(refusal), registry.all_kept()))
        }
        refusal => Err(Answer::refused(refusal)),
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
    Ok(Caller { key: request.lease_key.map(LeaseKey::read).transpose()?, is_admin, generation: None })
}

/// Whether a VM may register this address.
fn own(address: &str, id: &str, peer: Option<IpAddr>, addresses: Addresses<'_>) -> Result<(), Refusal> {
    match addresses {
        Addresses::Any => Ok(()),
        Addresses::Own { names_below } if is_own(address, id, peer, names_below) => Ok(()),
        Addresses::Own { .. } => Err(Refusal::Foreign),
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
pub(super) fn done(answer: Answer) -> Result<Reply, Answer> {
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
            renew_after: (record.ttl.as_secs_f64() / 3.0 * (0.9 + 0.2 * chance()) * 10.0).round() / 10.0,
            state: record.state(),
            revision: record.revision,
        },
    )
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
    let expired = registry.all(None).into_iter().filter(|record| record.is_expired());
    let expired = expired.map(|record| Arc::clone(&record.what.id));
    if registry.is_shared() {
        registry.reachable()?;
        return Ok(Reply::Decided(Decided(Deciding::Purge(expired.collect()))));
    }
    let (mut purged, mut last) = (0, None);
    for id in expired {
        match registry.wish(Wish::Purge(id)) {
            Ok(Wished::Done(_, kept)) => (purged, last) = (purged + 1, kept.or(last)),
            // Somebody else was quicker, or it is as it is for all.
            Err(refusal) if refusal.code().is_some() => return Err(refusal.into()),
            Ok(Wished::Asked(_)) | Err(_) => {}
        }
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
            let answer =
                Answer { status: StatusCode::OK, body: body.into(), etag: None, allow: None, age: None };
            Some(answer.aged(registry))
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
pub fn no_changes(registry: &Registry, watcher: &Watcher) -> Answer {
    let body = format!("{{\"revision\":{},\"changes\":[]}}", watcher.seen());
    Answer { status: StatusCode::OK, body: body.into(), etag: None, allow: None, age: None }.aged(registry)
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
