//! What each plugin of a route makes of a request: each is called in the sandbox, in order.

use super::answers::Witness;
use crate::{
    ids::{ClientAddr, RequestIds},
    message::{Fields, RequestHead},
    metrics::Metrics,
    plugins::{
        Chain, Exchange, Facts, FetchError, Fetching, Host, LocalResponse, OnError, Outcome, Plugin,
        PluginMetrics, Services,
    },
    route::Captures,
    snapshot::{Route, Snapshot},
};
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use std::{collections::BTreeSet, rc::Rc, sync::Arc};

/// What a plugin makes of a request.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    /// Its name.
    pub(super) plugin: String,
    /// `next`, `next-with-body`, `respond`, `route-to`, `fault`; `skipped` where a fault does not count, `none` where it does not look
    /// at requests.
    pub(super) verdict: &'static str,
    /// What it answers, or where it sends the request, or what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) says: Option<String>,
    /// What it changes.
    pub(super) changes: Vec<String>,
    /// Whether it also looks at answers.
    pub(super) sees_answers: bool,
}

/// What all of them make of it.
pub(super) struct Walk {
    pub(super) steps: Vec<Step>,
    /// Those that see the answer, too.
    pub(super) seen: Vec<Witness>,
    /// The request, where it goes on.
    pub(super) end: End,
}

pub(super) enum End {
    /// On its way, maybe to another backend: its number in the snapshot.
    On(RequestHead, Option<usize>),
    /// Answered by a plugin, and its reason.
    Answered(StatusCode, Fields, String),
    /// Ended by a fault.
    Fault,
}

/// What is known of a request that comes to a route.
pub(super) struct Arrived<'a> {
    pub(super) route: &'a Route,
    pub(super) captures: &'a Captures,
    pub(super) client: ClientAddr,
    pub(super) peer: ClientAddr,
    pub(super) port: u16,
    pub(super) is_upgrade: bool,
}

/// Calls each plugin of the route, until one answers.
pub(super) async fn walk(host: &Host, snapshot: &Snapshot, arrived: &Arrived<'_>, head: RequestHead) -> Walk {
    let metrics = Arc::new(Metrics::new());
    let id = RequestIds::new(0).next();
    let facts = || Facts {
        id,
        route: Arc::clone(&arrived.route.name),
        client: arrived.client,
        peer: arrived.peer,
        local_port: arrived.port,
        captures: arrived.captures.iter().map(|(name, text)| (name.into(), text.into())).collect(),
        is_upgrade: arrived.is_upgrade,
    };
    let (mut head, mut to, mut steps, mut seen) = (head, None, Vec::new(), Vec::new());
    for (number, on_error) in &arrived.route.plugins {
        let Some(plugin) = snapshot.plugins.get(*number) else { continue };
        let mut step = Step::of(plugin);
        // What a plugin keeps of an exchange, no other one sees: each may have one of its own.
        let mut exchange = Box::new(Exchange::new(facts(), head.clone()));
        let labels = PluginMetrics::new(&metrics, plugin.name());
        let instances = host.instances(Arc::clone(plugin), Arc::new(Nobody), labels);
        let chain = Chain::new(&arrived.route.name, [(Rc::new(instances), OnError::Deny)]);
        if !plugin.hooks().request {
            steps.push(step);
            seen.push(Witness::new(plugin, chain, exchange, *on_error));
            continue;
        }
        match chain.on_request(&mut exchange).await.0 {
            Outcome::Next { to: chosen, body } => {
                let after = exchange.request.take().unwrap_or_else(|| head.clone());
                // A request for another protocol has no body to show.
                step.goes_on(changes_of_request(&head, &after), body.filter(|_| !arrived.is_upgrade));
                if let Some(chosen) = chosen {
                    step.verdict = "route-to";
                    step.says = plugin.backends().get(chosen.backend).cloned();
                    let destinations = snapshot.destinations.get(*number);
                    to = destinations.and_then(|all| all.get(chosen.backend)).map(|found| found.backend);
                }
                head = after;
            }
            Outcome::Respond { response, .. } => {
                step.verdict = "respond";
                step.says =
                    Some(format!("{} {}", response.status.as_u16(), response.reason).trim().to_owned());
                steps.push(step);
                seen.push(Witness::new(plugin, chain, exchange, *on_error));
                let LocalResponse { status, fields, reason, .. } = response;
                return Walk { steps, seen, end: End::Answered(status, fields, reason) };
            }
            Outcome::Denied { fault, .. } => {
                step.says = Some(format!("{}\n{}", fault.kind, fault.detail).trim().to_owned());
                step.verdict = if *on_error == OnError::Skip { "skipped" } else { "fault" };
                if *on_error == OnError::Deny {
                    steps.push(step);
                    return Walk { steps, seen, end: End::Fault };
                }
            }
        }
        steps.push(step);
        seen.push(Witness::new(plugin, chain, exchange, *on_error));
    }
    Walk { steps, seen, end: End::On(head, to) }
}

impl Witness {
    fn new(plugin: &Plugin, chain: Chain, exchange: Box<Exchange>, on_error: OnError) -> Self {
        Self { plugin: plugin.name().to_owned(), chain, exchange, on_error }
    }
}

impl Step {
    fn of(plugin: &Plugin) -> Self {
        Self {
            plugin: plugin.name().to_owned(),
            verdict: "none",
            says: plugin
                .hooks()
                .request_transform
                .then(|| "it would be asked whether it transforms the body, where there is one".to_owned()),
            changes: Vec::new(),
            sees_answers: plugin.hooks().response || plugin.hooks().transform,
        }
    }

    /// It lets the request pass, and may want to see a body of so many bytes.
    fn goes_on(&mut self, changes: Vec<String>, body: Option<u64>) {
        self.changes = changes;
        self.verdict = if body.is_some() { "next-with-body" } else { "next" };
        if let Some(most) = body {
            self.says = Some(format!("it would see the body, of at most {most} bytes"));
        }
    }
}

/// What a plugin has changed of a request.
fn changes_of_request(before: &RequestHead, after: &RequestHead) -> Vec<String> {
    let (old, new) = (target(before), target(after));
    let moved = (old != new).then(|| format!("path {old} becomes {new}"));
    moved.into_iter().chain(changes(&before.fields, &after.fields)).collect()
}

/// What a plugin has changed of headers.
pub(super) fn changes(before: &Fields, after: &Fields) -> Vec<String> {
    let names: BTreeSet<String> = [before, after]
        .into_iter()
        .flat_map(Fields::iter)
        .map(|(name, _)| String::from_utf8_lossy(name).to_ascii_lowercase())
        .collect();
    let change = |name: String| {
        let of = |fields: &Fields| -> Vec<Vec<u8>> {
            fields.all_named(name.as_bytes()).map(<[u8]>::to_vec).collect()
        };
        match (of(before), of(after)) {
            (old, new) if old == new => None,
            (_, new) if new.is_empty() => Some(format!("removes {name}")),
            (_, new) => Some(format!("sets {name}: {}", shown(&name, &new))),
        }
    };
    names.into_iter().filter_map(change).collect()
}

/// The path, with its query.
pub(super) fn target(head: &RequestHead) -> String {
    head.query().map_or_else(|| head.path().to_owned(), |query| format!("{}?{query}", head.path()))
}

/// What may be shown of a header's values: what is printed here may end up in a ticket.
fn shown(name: &str, values: &[Vec<u8>]) -> String {
    if matches!(name, "authorization" | "proxy-authorization" | "cookie" | "set-cookie") {
        return "***".to_owned();
    }
    let values = values.iter().map(|value| String::from_utf8_lossy(value).into_owned());
    values.collect::<Vec<_>>().join(", ")
}

/// Answers no request of a plugin: what is only asked about must change nothing anywhere.
struct Nobody;

impl Services for Nobody {
    fn fetch(&self, _: http::Request<Bytes>) -> Fetching {
        let error = FetchError::Connect("`explain` sends nothing".to_owned());
        Box::pin(std::future::ready(Err(error)))
    }
}
