//! Requests that the registry answers: their bodies, what is waited for, and the streams of changes.

use super::{
    answer::Error,
    carrier::Downstream,
    client::Client,
    http::{Answer, Content},
};
use crate::{
    drain::Guard,
    http1::{BodyLength, Decoder, Malformed},
    io::Buffers,
    message::{Fields, RequestHead, ResponseHead},
    registry::{
        Committed, Refusal, Registry, Watcher,
        api::{self, Reply, Request},
    },
    snapshot::RegistryPlan,
};
use ipnet::IpNet;
use std::{future::poll_fn, net::IpAddr, sync::Arc, task::Poll, time::Duration};
use tokio::time::{Instant, timeout};

pub(super) use api::BODY;

/// How long a disk may take to keep something.
const KEEPING: Duration = Duration::from_secs(10);

/// How long a store that several gateways share may take to decide: longer than who asks it tries.
const DECIDING: Duration = Duration::from_secs(12);

/// How often a stream without changes says that it is still there.
const STILL_THERE: Duration = Duration::from_secs(15);

/// How long changes are collected before they are sent: many come at once.
const TOGETHER: Duration = Duration::from_millis(5);

/// A stream of changes.
#[derive(Debug)]
pub(super) struct Watch {
    registry: Arc<Registry>,
    watcher: Watcher,
    is_begun: bool,
}

/// Reads the rest of a body; none where it is too large.
///
/// # Errors
/// Fails where the client leaves, stops, or sends what is no body.
pub(super) async fn collect<I: Downstream>(
    client: &mut Client<I>,
    length: BodyLength,
    limit: u64,
    idle: Duration,
    buffers: &Buffers,
) -> Result<Option<Vec<u8>>, Error> {
    let mut decoder = Decoder::limited(length, limit);
    let (mut body, mut since) = (Vec::new(), Instant::now());
    let read = poll_fn(|cx| {
        loop {
            if !decoder.is_ended() && !client.inbox.is_empty() {
                let decoded = match decoder.decode(client.inbox.bytes_mut()) {
                    Ok(decoded) => decoded,
                    Err(error) => return Poll::Ready(Err(Error::Malformed(error))),
                };
                body.extend_from_slice(client.inbox.bytes().get(decoded.data).unwrap_or_default());
                client.inbox.consume(decoded.consumed, buffers);
            }
            if !decoder.is_ended() && client.io.frames() && client.io.is_at_end() {
                return Poll::Ready(decoder.end_of_input().map_err(Error::Malformed));
            }
            if decoder.is_ended() {
                return Poll::Ready(Ok(()));
            }
            match client.inbox.poll_fill(cx, &mut client.io, buffers) {
                Poll::Ready(Ok(1..)) => since = Instant::now(),
                Poll::Ready(Ok(0)) => return Poll::Ready(decoder.end_of_input().map_err(Error::Malformed)),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Error::ClientGone)),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(over) = client.poll_overdue(cx) {
            return Poll::Ready(Err(over));
        }
        client.timer.poll(cx, since + idle).map(|()| Err(Error::BodyTimeout))
    });
    match read.await {
        Ok(()) => Ok(Some(body)),
        Err(Error::Malformed(Malformed::BodyTooLarge)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The answer to a body that is too large.
pub(super) fn too_large() -> Answer {
    whole(api::Answer::refused(&Refusal::TooLarge))
}

/// Asks the registry, and waits for what it waits for. Who waits for changes does so until the listener goes.
pub(super) async fn ask(
    plan: &RegistryPlan,
    (head, body): (&RequestHead, &[u8]),
    trusted_proxies: &[IpNet],
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
        peer: client_of(field("x-forwarded-for"), trusted_proxies),
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
            tokio::select! {
                // Either way it is told what there is.
                _ = timeout(patience, watcher.changed()) => {}
                () = poll_fn(|cx| guard.poll_draining(cx)) => {}
            }
            let answer = api::changes(registry, &mut watcher);
            whole(answer.unwrap_or_else(|| api::no_changes(&watcher)))
        }
        Reply::Events(watcher) => {
            let mut fields = Fields::new();
            fields.append(b"content-type", b"text/event-stream");
            fields.append(b"cache-control", b"no-store");
            let watch = Watch { registry: Arc::clone(registry), watcher, is_begun: false };
            Answer { head: ResponseHead::new(http::StatusCode::OK, fields), content: Content::Changes(watch) }
        }
    }
}

/// Who the client is, by the header that this gateway has settled: the last address in it that is not a trusted
/// proxy's; the first one where all are.
fn client_of(forwarded_for: Option<&[u8]>, trusted_proxies: &[IpNet]) -> Option<IpAddr> {
    let chain = str::from_utf8(forwarded_for?).ok()?;
    let addresses = chain.rsplit(',').map_while(|address| address.trim().parse::<IpAddr>().ok());
    let mut last = None;
    for address in addresses {
        last = Some(address);
        if !trusted_proxies.iter().any(|network| network.contains(&address)) {
            break;
        }
    }
    last
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
    /// What to send next, or the end: the listener goes.
    pub(super) async fn next(&mut self, guard: &mut Guard) -> Option<Vec<u8>> {
        if !std::mem::replace(&mut self.is_begun, true) {
            return Some(api::greeting(&self.watcher));
        }
        let Self { registry, watcher, .. } = self;
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
            came = timeout(STILL_THERE, came) => Some(came.unwrap_or_else(|_| api::KEEP_ALIVE.to_vec())),
            () = poll_fn(|cx| guard.poll_draining(cx)) => None,
        }
    }
}
