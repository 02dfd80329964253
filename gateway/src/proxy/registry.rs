//! Requests that the registry answers: what is waited for, and the streams of changes.

use super::http::{Answer, Content};
use crate::{
    drain::Guard,
    message::{Fields, RequestHead, ResponseHead},
    registry::{
        Committed, Refusal, Registry, Watcher,
        api::{self, Reply, Request},
        etcd::DEADLINE,
    },
    snapshot::RegistryPlan,
};
use std::{future::poll_fn, net::IpAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};

pub(super) use api::BODY;

/// How long a disk may take to keep something.
const KEEPING: Duration = Duration::from_secs(10);

/// How long a store that several gateways share may take to decide: longer than who asks it tries.
const DECIDING: Duration = DEADLINE.saturating_add(Duration::from_secs(1));

/// How often a stream without changes says that it is still there.
const STILL_THERE: Duration = Duration::from_secs(15);

/// How long changes are collected before they are sent: many come at once.
const TOGETHER: Duration = Duration::from_millis(5);

/// A stream of changes.
#[derive(Debug)]
pub(super) struct Watch {
    registry: Arc<Registry>,
    watcher: Watcher,
    /// Whether others are let in now.
    over: watch::Receiver<bool>,
    is_begun: bool,
}

/// The answer to a body that is too large.
pub(super) fn too_large() -> Answer {
    whole(api::Answer::refused(&Refusal::TooLarge))
}

/// Asks the registry, and waits for what it waits for. Who waits for changes does so until the listener goes.
pub(super) async fn ask(
    plan: &RegistryPlan,
    (head, body): (&RequestHead, &[u8]),
    client: IpAddr,
    mut guard: Guard,
) -> Answer {
    let field = |name: &'static str| head.fields.get_named(name.as_bytes());
    let request = Request {
        method: &head.method,
        path: head.path(),
        query: head.query(),
        body,
        authorization: field("authorization"),
        accept: field("accept"),
        if_none_match: field("if-none-match"),
        last_event_id: field("last-event-id"),
        lease_key: field("x-lease-key"),
        peer: Some(client),
    };
    let registry = &plan.registry;
    match api::answer(registry, &request, plan.rules()) {
        Reply::Answer(answer, kept) => whole(once_kept(answer, kept).await),
        Reply::Decided(decided) => {
            let late = || {
                let why = format!("it took longer than {} s", DECIDING.as_secs());
                api::Answer::refused(&Refusal::StoreUncertain(why))
            };
            whole(timeout(DECIDING, decided.answer(registry)).await.unwrap_or_else(|_| late()))
        }
        Reply::Wait(mut watcher, patience) => {
            let mut over = plan.over();
            tokio::select! {
                // In these cases it is told what there is.
                _ = timeout(patience, watcher.changed()) => {}
                () = poll_fn(|cx| guard.poll_draining(cx)) => {}
                _ = over.wait_for(|is_over| *is_over) => return whole(api::no_changes(registry, &watcher)),
            }
            let answer = api::changes(registry, &mut watcher);
            whole(answer.unwrap_or_else(|| api::no_changes(registry, &watcher)))
        }
        Reply::Events(watcher) => {
            let mut fields = Fields::new();
            fields.append(b"content-type", b"text/event-stream");
            fields.append(b"cache-control", b"no-store");
            let watch = Watch { registry: Arc::clone(registry), watcher, over: plan.over(), is_begun: false };
            Answer { head: ResponseHead::new(http::StatusCode::OK, fields), content: Content::Changes(watch) }
        }
    }
}

/// The answer, once what it says would survive the machine.
async fn once_kept(answer: api::Answer, kept: Committed) -> api::Answer {
    let Some(kept) = kept else { return answer };
    let why = match timeout(KEEPING, kept).await {
        Ok(Ok(Ok(()))) => return answer,
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => "the gateway is stopping".to_owned(),
        Err(_) => format!("the disk took longer than {} s", KEEPING.as_secs()),
    };
    api::Answer::refused(&Refusal::NotKept(why))
}

fn whole(answer: api::Answer) -> Answer {
    let mut fields = Fields::new();
    fields.append(b"content-type", b"application/json");
    fields.append(b"cache-control", b"no-cache");
    if let Some(etag) = &answer.etag {
        fields.append(b"etag", etag.as_bytes());
    }
    if let Some(age) = answer.age {
        fields.append(b"age", age.to_string().as_bytes());
    }
    if let Some(allow) = answer.allow {
        fields.append(b"allow", allow.as_bytes());
    }
    if answer.status == http::StatusCode::UNAUTHORIZED {
        fields.append(b"www-authenticate", b"Bearer");
    }
    Answer { head: ResponseHead::new(answer.status, fields), content: Content::Whole(answer.body) }
}

impl Watch {
    /// What to send next, or the end: the listener goes, or others are let in now.
    pub(super) async fn next(&mut self, guard: &mut Guard) -> Option<Vec<u8>> {
        if !std::mem::replace(&mut self.is_begun, true) {
            return Some(api::greeting(&self.watcher));
        }
        let Self { registry, watcher, over, .. } = self;
        let came = async {
            loop {
                let events = api::events(registry, watcher);
                if !events.is_empty() {
                    return events;
                }
                watcher.changed().await;
                tokio::time::sleep(TOGETHER).await;
            }
        };
        tokio::select! {
            biased;
            _ = over.wait_for(|is_over| *is_over) => None,
            came = timeout(STILL_THERE, came) => Some(came.unwrap_or_else(|_| api::KEEP_ALIVE.to_vec())),
            () = poll_fn(|cx| guard.poll_draining(cx)) => None,
        }
    }
}
