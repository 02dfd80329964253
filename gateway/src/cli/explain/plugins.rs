//! What each plugin of a route makes of a request: each is called in the sandbox, in order.

use crate::{
    ids::{ClientAddr, RequestIds},
    message::RequestHead,
    metrics::Metrics,
    plugins::{
        Chain, Exchange, Facts, FetchError, Fetching, Host, OnError, Outcome, Plugin, PluginMetrics, Services,
    },
    route::Captures,
    snapshot::{Route, Snapshot},
};
use bytes::Bytes;
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
    /// The request, where it goes on.
    pub(super) end: End,
}

pub(super) enum End {
    /// On its way, maybe to another backend: its number in the snapshot.
    On(RequestHead, Option<usize>),
    /// Answered by a plugin, with this status and reason.
    Answered(u16, String),
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
    let (mut head, mut to, mut steps) = (head, None, Vec::new());
    for (number, on_error) in &arrived.route.plugins {
        let Some(plugin) = snapshot.plugins.get(*number) else { continue };
        let mut step = Step::of(plugin);
        if !plugin.hooks().request {
            steps.push(step);
            continue;
        }
        // What a plugin keeps of an exchange, no other one sees: each may have one of its own.
        let mut exchange = Box::new(Exchange::new(facts(), head.clone()));
        let labels = PluginMetrics::new(&metrics, plugin.name());
        let instances = host.instances(Arc::clone(plugin), Arc::new(Nobody), labels);
        let chain = Chain::new(&arrived.route.name, [(Rc::new(instances), OnError::Deny)]);
        match chain.on_request(&mut exchange).await.0 {
            Outcome::Next { to: chosen, body } => {
                let after = exchange.request.take().unwrap_or_else(|| head.clone());
                // A request for another protocol has no body to show.
                step.goes_on(changes(&head, &after), body.filter(|_| !arrived.is_upgrade));
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
                return Walk { steps, end: End::Answered(response.status.as_u16(), response.reason) };
            }
            Outcome::Denied { fault, .. } => {
                step.says = Some(format!("{}\n{}", fault.kind, fault.detail).trim().to_owned());
                step.verdict = if *on_error == OnError::Skip { "skipped" } else { "fault" };
                if *on_error == OnError::Deny {
                    steps.push(step);
                    return Walk { steps, end: End::Fault };
                }
            }
        }
        steps.push(step);
    }
    Walk { steps, end: End::On(head, to) }
}

impl Step {
    fn of(plugin: &Plugin) -> Self {
        Self {
            plugin: plugin.name().to_owned(),
            verdict: "none",
            says: None,
            changes: Vec::new(),
            sees_answers: plugin.hooks().response,
        }
    }

    /// It lets the request pass, and may want to see a body of so many bytes.
    fn goes_on(&mut self, changes: Vec<String>, body: Option<u64>) {
        self.changes = changes;
        self.verdict = if body.is_some() { "next-with-body" } else { "next" };
        self.says = body.map(|most| format!("it would see the body, of at most {most} bytes"));
    }
}

/// What a plugin has changed.
fn changes(before: &RequestHead, after: &RequestHead) -> Vec<String> {
    let mut changes = Vec::new();
    let (old, new) = (target(before), target(after));
    if old != new {
        changes.push(format!("path {old} becomes {new}"));
    }
    let names: BTreeSet<String> = [before, after]
        .into_iter()
        .flat_map(|head| head.fields.iter())
        .map(|(name, _)| String::from_utf8_lossy(name).to_ascii_lowercase())
        .collect();
    for name in names {
        let of = |head: &'_ RequestHead| -> Vec<Vec<u8>> {
            head.fields.all_named(name.as_bytes()).map(<[u8]>::to_vec).collect()
        };
        match (of(before), of(after)) {
            (old, new) if old == new => {}
            (_, new) if new.is_empty() => changes.push(format!("removes {name}")),
            (_, new) => changes.push(format!("sets {name}: {}", shown(&name, &new))),
        }
    }
    changes
}

/// The path, with its query.
pub(super) fn target(head: &RequestHead) -> String {
    head.query().map_or_else(|| head.path().to_owned(), |query| format!("{}?{query}", head.path()))
}

/// What may be shown of a header's values: what is printed here may end up in a ticket.
fn shown(name: &str, values: &[Vec<u8>]) -> String {
    if matches!(name, "authorization" | "proxy-authorization" | "cookie") {
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
