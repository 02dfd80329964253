//! What the plugins of a route make of its answer: that of a plugin, or else one that stands for the backend's.

use super::plugins::changes;
use crate::{
    message::{Fields, ResponseHead},
    plugins::{Chain, Exchange, LocalResponse, OnError},
};
use http::StatusCode;
use serde::Serialize;

/// A plugin that has seen the request, and the exchange as it left it.
pub(super) struct Witness {
    pub(super) plugin: String,
    pub(super) chain: Chain,
    pub(super) exchange: Box<Exchange>,
    pub(super) on_error: OnError,
}

/// What a plugin makes of the answer.
#[derive(Debug, Serialize)]
pub(super) struct Look {
    /// Its name.
    pub(super) plugin: String,
    /// `next`, `replace`, `fault`; `skipped` where a fault does not count.
    pub(super) verdict: &'static str,
    /// What it answers instead, or what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) says: Option<String>,
    /// What it changes.
    pub(super) changes: Vec<String>,
}

/// Shows the answer to each plugin that has seen the request and looks at answers, in reverse order. Returns
/// what each made of it, and the status that the client gets in the end; none where a fault ends it.
pub(super) async fn look(
    seen: Vec<Witness>,
    answer: Option<(StatusCode, Fields)>,
) -> (Vec<Look>, Option<StatusCode>) {
    let (status, fields) = answer.unwrap_or_else(|| (StatusCode::OK, Fields::new()));
    let mut head = ResponseHead::new(status, fields);
    let mut looks = Vec::new();
    for Witness { plugin, chain, mut exchange, on_error } in seen.into_iter().rev() {
        if !chain.has_response_filters() {
            continue;
        }
        exchange.response = Some(head.clone());
        let mut replaced = None;
        let filtered = chain.on_response(&mut exchange, 1, |exchange, response, _| {
            let LocalResponse { status, fields, reason, .. } = response;
            replaced = Some(format!("{} {reason}", status.as_u16()).trim().to_owned());
            exchange.response = Some(ResponseHead::new(status, fields));
        });
        let failed = filtered.await.err().map(|(fault, _)| fault);
        let after = exchange.response.take().filter(|_| failed.is_none());
        let after = after.unwrap_or_else(|| head.clone());
        let mut look = Look { plugin, verdict: "next", says: None, changes: Vec::new() };
        match (failed, replaced) {
            (Some(fault), _) => {
                look.says = Some(format!("{}\n{}", fault.kind, fault.detail).trim().to_owned());
                look.verdict = if on_error == OnError::Skip { "skipped" } else { "fault" };
                if on_error == OnError::Deny {
                    looks.push(look);
                    return (looks, None);
                }
            }
            (None, Some(says)) => (look.verdict, look.says) = ("replace", Some(says)),
            (None, None) => {
                if after.status != head.status {
                    look.changes.push(format!(
                        "status {} becomes {}",
                        head.status.as_u16(),
                        after.status.as_u16()
                    ));
                }
                look.changes.extend(changes(&head.fields, &after.fields));
            }
        }
        looks.push(look);
        head = after;
    }
    (looks, Some(head.status))
}
