//! What the plugins of a route say to a connection that carries bytes.

use super::{
    Chain, Closed, Destination, Exchange, Fault, FaultKind, Instances, Journal, Refusal, Wanted,
    bindings::vers::gateway::types::{self, TcpVerdict},
    chain::Link,
    handles::CONNECTION,
};
use wasmtime::component::Resource;

/// What a chain decided about a connection.
#[derive(Debug)]
pub enum Ruling {
    /// Every plugin that has been asked lets it pass.
    Next,
    /// A plugin refuses it.
    Refused {
        /// How.
        refusal: Refusal,
        /// Name of the plugin.
        plugin: String,
    },
    /// A plugin failed, and its `on_error` is to deny.
    Denied {
        /// Why.
        fault: Fault,
        /// Name of the plugin.
        plugin: String,
    },
}

/// What one plugin decided.
#[derive(Debug)]
enum Verdict {
    Next,
    /// To the backend of this number in its grants.
    RouteTo(usize),
    Refuse(Refusal),
}

impl Chain {
    /// Whether any plugin has a say about connections, or is shown those that are over.
    pub fn sees_connections(&self) -> bool {
        self.hooks.tcp || self.hooks.tcp_log
    }

    /// Whether any plugin is shown connections that are over.
    pub fn has_connection_logs(&self) -> bool {
        self.hooks.tcp_log
    }

    /// Shows a connection to each plugin in turn, until one refuses it.
    pub async fn on_accept(&self, exchange: &mut Box<Exchange>) -> Ruling {
        for (position, link) in self.links.iter().enumerate().filter(|(_, link)| link.hooks.tcp) {
            exchange.caller = position;
            let verdict = link.on_accept(&self.route, exchange).await;
            let ruling = link.settle(exchange, position, 0, verdict);
            if !matches!(ruling, Ruling::Next) {
                return ruling;
            }
        }
        Ruling::Next
    }

    /// Shows first bytes to the plugin that wants them. `more` is whether more may come.
    pub async fn on_first_bytes(
        &self,
        exchange: &mut Box<Exchange>,
        wanted: Wanted,
        bytes: &[u8],
        more: bool,
    ) -> Ruling {
        let Some(link) = self.links.get(wanted.link) else { return Ruling::Next };
        exchange.caller = wanted.link;
        let verdict = link.on_first_bytes(&self.route, exchange, bytes, more).await;
        link.settle(exchange, wanted.link, bytes.len(), verdict)
    }

    /// Leaves what became of a connection to those who log it.
    pub fn log_connection(&self, journal: &Journal, mut exchange: Box<Exchange>, closed: Closed) {
        if let Some(connection) = &mut exchange.connection {
            connection.closed = Some(closed);
            journal.begin(&self.route, &self.links, exchange);
        }
    }
}

impl Chain {
    /// As [`Self::log_connection`], at once: for who tries a plugin out.
    ///
    /// # Errors
    /// Fails with the fault of the first plugin that does.
    pub async fn log_connection_now(
        &self,
        exchange: &mut Box<Exchange>,
        closed: Closed,
    ) -> Result<(), Fault> {
        if let Some(connection) = &mut exchange.connection {
            connection.closed = Some(closed);
        }
        for (position, link) in self.links.iter().enumerate().filter(|(_, link)| link.hooks.tcp_log) {
            exchange.caller = position;
            link.instances.on_close(exchange).await?;
        }
        Ok(())
    }
}

impl Exchange {
    /// The next wish to see first bytes.
    pub fn next_wanted(&mut self) -> Option<Wanted> {
        self.connection.as_mut()?.said.wanted.pop_front()
    }

    /// The same, which stays.
    pub fn first_wanted(&self) -> Option<&Wanted> {
        self.connection.as_ref()?.said.wanted.front()
    }

    /// Where plugins send the connection, if not to its route's own server.
    pub fn connection_goes_to(&self) -> Option<Destination> {
        self.connection.as_ref()?.said.to
    }
}

impl Link {
    async fn on_accept(&self, route: &str, exchange: &mut Box<Exchange>) -> Result<Verdict, Fault> {
        let pass = self.breakers.request.enter(self.whose(route, "tcp"))?;
        let verdict = self.instances.on_accept(exchange).await;
        pass.ended(&verdict);
        verdict
    }

    async fn on_first_bytes(
        &self,
        route: &str,
        exchange: &mut Box<Exchange>,
        bytes: &[u8],
        more: bool,
    ) -> Result<Verdict, Fault> {
        let pass = self.breakers.body.enter(self.whose(route, "tcp-bytes"))?;
        let verdict = self.instances.on_first_bytes(exchange, bytes, more).await;
        pass.ended(&verdict);
        verdict
    }

    /// What follows from a plugin's verdict, or from its fault, once it has seen so many bytes.
    fn settle(
        &self,
        exchange: &mut Exchange,
        position: usize,
        seen: usize,
        verdict: Result<Verdict, Fault>,
    ) -> Ruling {
        let Some(connection) = &mut exchange.connection else { return Ruling::Next };
        let asked = connection.said.asked.take();
        match verdict {
            Ok(Verdict::Next) => {}
            Ok(Verdict::RouteTo(backend)) => {
                connection.said.to = Some(Destination { link: position, backend });
            }
            Ok(Verdict::Refuse(refusal)) => return Ruling::Refused { refusal, plugin: self.name() },
            // As if the plugin were not there: what it asked for is forgotten with it.
            Err(_) if self.may_be_skipped() => return Ruling::Next,
            Err(fault) => return Ruling::Denied { fault, plugin: self.name() },
        }
        if let Some((least, within)) = asked {
            let most = self.instances.plugin().limits.peek;
            // Whoever asks again is shown something new: the same bytes would only be looked at for ever.
            let least = least.max(seen + 1).min(most);
            let wanted = Wanted { link: position, least, within, most };
            // Whoever asks again comes before those who have not been asked yet.
            let at = connection.said.wanted.iter().position(|known| known.link > position);
            connection.said.wanted.insert(at.unwrap_or(connection.said.wanted.len()), wanted);
        }
        Ruling::Next
    }
}

impl Instances {
    async fn on_accept(&self, exchange: &mut Box<Exchange>) -> Result<Verdict, Fault> {
        self.metrics().tcp.inc();
        let verdict = self.call(exchange, async |instance| {
            let Some(guest) = instance.hooks.tcp.take() else { return Ok(TcpVerdict::Next) };
            let verdict = instance
                .run(async |store| guest.call_on_accept(store, Resource::new_borrow(CONNECTION)).await)
                .await;
            instance.hooks.tcp = Some(guest);
            verdict
        });
        let verdict = verdict.await?;
        self.verdict(exchange, verdict, self.plugin().hooks().tcp_bytes)
    }

    async fn on_first_bytes(
        &self,
        exchange: &mut Box<Exchange>,
        bytes: &[u8],
        more: bool,
    ) -> Result<Verdict, Fault> {
        self.metrics().tcp_bytes.inc();
        let verdict = self.call(exchange, async |instance| {
            let Some(guest) = instance.hooks.tcp_bytes.take() else { return Ok(TcpVerdict::Next) };
            let verdict = instance
                .run(async |store| {
                    guest.call_on_first_bytes(store, Resource::new_borrow(CONNECTION), bytes, more).await
                })
                .await;
            instance.hooks.tcp_bytes = Some(guest);
            verdict
        });
        let verdict = verdict.await?;
        // Where no more can come, it would be asked for ever.
        self.verdict(exchange, verdict, more)
    }

    /// Calls `on-close`, when nobody else wants an instance.
    pub(super) async fn on_close(&self, exchange: &mut Box<Exchange>) -> Result<(), Fault> {
        self.metrics().tcp_logs.inc();
        let borrowed = self.spare().await;
        self.call_in(borrowed, exchange, async |instance| {
            let Some(guest) = instance.hooks.tcp_log.take() else { return Ok(()) };
            let logged = instance
                .run(async |store| guest.call_on_close(store, Resource::new_borrow(CONNECTION)).await)
                .await;
            instance.hooks.tcp_log = Some(guest);
            logged
        })
        .await
    }

    /// What follows from what a guest says, which may ask for bytes only where it can have them.
    fn verdict(&self, exchange: &Exchange, said: TcpVerdict, may_ask: bool) -> Result<Verdict, Fault> {
        if !may_ask && exchange.asks_for_bytes() {
            let fault = FaultKind::Bytes.into();
            self.report(&fault);
            return Err(fault);
        }
        Ok(match said {
            TcpVerdict::Next => Verdict::Next,
            TcpVerdict::RouteTo(name) => Verdict::RouteTo(self.backend(&name)?),
            TcpVerdict::Refuse(types::Refusal { reset, reason }) => {
                Verdict::Refuse(Refusal { reset, reason })
            }
        })
    }
}

impl Exchange {
    fn asks_for_bytes(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.said.asked.is_some())
    }
}
