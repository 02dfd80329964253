//! A connection of a TCP route, on the stage.

use super::{Ready, Stage, backend};
use crate::{
    config::CaseConnection,
    ids::ClientAddr,
    plugins::{Closed, Connection, Exchange, Facts, Fault, Refusal, Ruling},
};
use std::time::Duration;

/// What became of a connection.
#[derive(Debug, Default)]
pub(in crate::cli::plugin) struct Met {
    /// The backend that it goes to instead of the route's own.
    pub(in crate::cli::plugin) to: Option<String>,
    /// How the plugin refused it.
    pub(in crate::cli::plugin) refusal: Option<Refusal>,
    /// Why a call failed.
    pub(in crate::cli::plugin) fault: Option<Fault>,
    /// What the plugin sent elsewhere.
    pub(in crate::cli::plugin) sent: Vec<String>,
}

impl Stage {
    /// Shows the plugin a connection, and its first bytes where it asks for them: all at once, and no more come.
    pub(in crate::cli::plugin) fn meet(&self, ready: &Ready, case: &CaseConnection) -> Met {
        self.runtime.block_on(met(ready, self.connected(case), case.bytes.as_bytes()))
    }

    /// Shows it so many such connections: what all of it took. Without a plugin, what the rest takes.
    pub(in crate::cli::plugin) fn measure_connection(
        &self,
        ready: Option<&Ready>,
        case: &CaseConnection,
        calls: u32,
    ) -> Result<Duration, String> {
        self.timed(calls, async || {
            let exchange = self.connected(case);
            match ready {
                None => Ok(()),
                Some(ready) => met(ready, exchange, case.bytes.as_bytes()).await.fault.map_or(Ok(()), Err),
            }
        })
    }

    fn connected(&self, case: &CaseConnection) -> Box<Exchange> {
        let facts = Facts {
            id: self.ids.next(),
            route: "test".into(),
            client: ClientAddr::from(case.client),
            peer: ClientAddr::from(case.client),
            local_port: case.port,
            captures: case
                .captures
                .iter()
                .map(|(name, text)| (name.as_str().into(), text.as_str().into()))
                .collect(),
            is_upgrade: false,
        };
        let connection = Connection {
            client_port: case.client_port,
            server_name: case.server_name.as_deref().map(Into::into),
            is_tls: case.tls,
            certificate: case.client_certificate.as_deref().map(Into::into),
            is_proxied: case.proxied,
            ..Connection::default()
        };
        Box::new(Exchange::connected(facts, connection))
    }
}

async fn met(ready: &Ready, mut exchange: Box<Exchange>, bytes: &[u8]) -> Met {
    let chain = &ready.chain;
    let mut ruling = chain.on_accept(&mut exchange).await;
    while matches!(ruling, Ruling::Next)
        && let Some(wanted) = exchange.next_wanted()
    {
        let shown = bytes.get(..wanted.most).unwrap_or(bytes);
        let more = shown.len() >= wanted.least && shown.len() < wanted.most;
        ruling = chain.on_first_bytes(&mut exchange, wanted, shown, more).await;
    }
    let mut met = Met { to: exchange.connection_goes_to().map(|to| backend(ready, to)), ..Met::default() };
    let mut closed = Closed { why: "closed", ..Closed::default() };
    match ruling {
        Ruling::Next => {}
        Ruling::Refused { refusal, plugin } => {
            (closed.why, closed.refused_by) = ("refused", Some((plugin, refusal.reason.clone())));
            met.refusal = Some(refusal);
        }
        Ruling::Denied { fault, .. } => met.fault = Some(fault),
    }
    if met.fault.is_none() && chain.has_connection_logs() {
        met.fault = chain.log_connection_now(&mut exchange, closed).await.err();
    }
    met.sent = ready.services.take_sent();
    met
}
