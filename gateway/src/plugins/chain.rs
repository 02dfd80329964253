//! The plugins of a route, in order.

use super::{
    Completed, Exchange, Fault, Hooks, Instances, Journal, LocalResponse,
    breaker::{Breakers, Whose},
};
use std::{rc::Rc, sync::Arc};

/// What a plugin decided about a request or an answer.
#[derive(Debug)]
pub enum Verdict {
    /// Go on.
    Next,
    /// Answer with this.
    Respond(LocalResponse),
    /// Go on to the backend of this number in [`Plugin::backends`](super::Plugin::backends).
    RouteTo(usize),
    /// Go on with this body.
    Replace(Vec<u8>),
}

/// What happens to a request whose plugin failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// It is answered with 503.
    Deny,
    /// It goes on as if the plugin were not there.
    Skip,
}

/// The plugins of one route on one worker. By default none.
#[derive(Debug, Default)]
pub struct Chain {
    pub(super) route: Arc<str>,
    pub(super) links: Rc<[Link]>,
    pub(super) hooks: Hooks,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) instances: Rc<Instances>,
    pub(super) hooks: Hooks,
    on_error: OnError,
    pub(super) breakers: Rc<Breakers>,
}

/// What a chain decided about a request.
#[derive(Debug)]
pub enum Outcome {
    /// Every plugin lets it pass.
    Next {
        /// Where to, if not to the route's own backend.
        to: Option<Destination>,
        /// Whether plugins want to see the body first, and how many bytes there may be.
        body: Option<u64>,
    },
    /// A plugin answers it.
    Respond {
        /// The answer.
        response: LocalResponse,
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

impl Outcome {
    /// The same, but to this destination where it has none of its own.
    pub fn or(self, before: Option<Destination>) -> Self {
        match self {
            Self::Next { to: None, body } => Self::Next { to: before, body },
            other => other,
        }
    }
}

/// A backend that a plugin sends a request to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The plugin's number in its chain.
    pub link: usize,
    /// The backend's number in [`Plugin::backends`](super::Plugin::backends).
    pub backend: usize,
}

impl Chain {
    /// A chain of plugins, in the order of the configuration.
    pub fn new(route: &Arc<str>, links: impl IntoIterator<Item = (Rc<Instances>, OnError)>) -> Self {
        let links: Rc<[Link]> = links
            .into_iter()
            .map(|(instances, on_error)| {
                let breakers = instances.breakers(route);
                Link { hooks: instances.plugin().hooks(), instances, on_error, breakers }
            })
            .collect();
        let hooks = links.iter().fold(Hooks::default(), |all, link| all.or(link.hooks));
        Self { route: Arc::clone(route), links, hooks }
    }

    /// Whether there are no plugins.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Where the plugins may send requests, in the order of the links.
    pub fn backends(&self) -> impl Iterator<Item = &[String]> {
        self.links.iter().map(|link| link.instances.plugin().backends())
    }

    /// Whether any plugin looks at requests or answers, or transforms their bodies.
    pub fn has_filters(&self) -> bool {
        let Hooks { request, request_transform, response, transform, .. } = self.hooks;
        request || request_transform || response || transform
    }

    /// Whether any plugin looks at answers.
    pub fn has_response_filters(&self) -> bool {
        self.hooks.response
    }

    /// Whether any plugin is shown what is over.
    pub fn has_logs(&self) -> bool {
        self.hooks.log
    }

    /// Leaves what is over to those who log it.
    pub fn log(&self, journal: &Journal, mut exchange: Box<Exchange>, completed: Completed) {
        (exchange.request, exchange.response, exchange.completed) = (None, None, Some(completed));
        journal.begin(&self.route, &self.links, exchange);
    }

    /// As [`Self::log`], at once: for who tries a plugin out.
    ///
    /// # Errors
    /// Fails with the fault of the first plugin that does.
    pub async fn log_now(&self, exchange: &mut Box<Exchange>, completed: Completed) -> Result<(), Fault> {
        (exchange.request, exchange.response, exchange.completed) = (None, None, Some(completed));
        for (position, link) in self.links.iter().enumerate().filter(|(_, link)| link.hooks.log) {
            exchange.caller = position;
            link.instances.on_complete(exchange).await?;
        }
        Ok(())
    }

    /// Shows a request to each plugin in turn, until one answers. Returns how many have seen it:
    /// those see the answer too.
    pub async fn on_request(&self, exchange: &mut Box<Exchange>) -> (Outcome, usize) {
        let (mut to, mut body) = (None, None);
        for (position, link) in self.links.iter().enumerate() {
            if !link.hooks.request {
                continue;
            }
            exchange.caller = position;
            let untouched = link.may_be_skipped().then(|| Box::new(exchange.request.clone()));
            match link.on_request(&self.route, exchange).await {
                Ok(Verdict::Next | Verdict::Replace(_)) => {}
                Ok(Verdict::RouteTo(backend)) => to = Some(Destination { link: position, backend }),
                Ok(Verdict::Respond(response)) => {
                    return (Outcome::Respond { response, plugin: link.name() }, position + 1);
                }
                Err(fault) => match untouched {
                    Some(head) => (exchange.request, exchange.wanted) = (*head, None),
                    None => return (Outcome::Denied { fault, plugin: link.name() }, position + 1),
                },
            }
            if let Some(most) = exchange.wanted.take() {
                exchange.body_for.push(position);
                body = Some(body.map_or(most, |known: u64| known.min(most)));
            }
        }
        (Outcome::Next { to, body }, self.links.len())
    }

    /// Shows a request's body to each plugin that has asked for it in turn, until one answers. Returns how
    /// many have seen the request, as [`Self::on_request`] does.
    pub async fn on_request_body(
        &self,
        exchange: &mut Box<Exchange>,
        body: &mut Vec<u8>,
    ) -> (Outcome, usize) {
        let mut to = None;
        for position in std::mem::take(&mut exchange.body_for) {
            let Some(link) = self.links.get(position) else { continue };
            exchange.caller = position;
            let untouched = link.may_be_skipped().then(|| Box::new(exchange.request.clone()));
            match link.on_request_body(&self.route, exchange, body).await {
                Ok(Verdict::Next) => {}
                Ok(Verdict::Replace(other)) => *body = other,
                Ok(Verdict::RouteTo(backend)) => to = Some(Destination { link: position, backend }),
                Ok(Verdict::Respond(response)) => {
                    return (Outcome::Respond { response, plugin: link.name() }, self.links.len());
                }
                Err(fault) => match untouched {
                    Some(head) => exchange.request = *head,
                    None => return (Outcome::Denied { fault, plugin: link.name() }, self.links.len()),
                },
            }
        }
        (Outcome::Next { to, body: None }, self.links.len())
    }

    /// Shows an answer to the first `seen` plugins, in reverse order. Those before one that replaces
    /// it see the replacement.
    ///
    /// # Errors
    /// Fails with the fault of a plugin whose `on_error` is to deny, and its name.
    pub async fn on_response(
        &self,
        exchange: &mut Box<Exchange>,
        seen: usize,
        mut replace: impl FnMut(&mut Exchange, LocalResponse, String),
    ) -> Result<(), (Fault, String)> {
        for (position, link) in self.links.iter().enumerate().take(seen).rev() {
            if !link.hooks.response {
                continue;
            }
            exchange.caller = position;
            let untouched = link.may_be_skipped().then(|| Box::new(exchange.response.clone()));
            match link.on_response(&self.route, exchange).await {
                // An answer goes where its request came from.
                Ok(Verdict::Next | Verdict::RouteTo(_) | Verdict::Replace(_)) => {}
                Ok(Verdict::Respond(response)) => replace(exchange, response, link.name()),
                Err(fault) => match untouched {
                    Some(head) => exchange.response = *head,
                    None => return Err((fault, link.name())),
                },
            }
        }
        Ok(())
    }
}

impl Link {
    async fn on_request(&self, route: &str, exchange: &mut Box<Exchange>) -> Result<Verdict, Fault> {
        let pass = self.breakers.request.enter(self.whose(route, "request"))?;
        let verdict = self.instances.on_request(exchange).await;
        pass.ended(&verdict);
        verdict
    }

    async fn on_request_body(
        &self,
        route: &str,
        exchange: &mut Box<Exchange>,
        body: &[u8],
    ) -> Result<Verdict, Fault> {
        let pass = self.breakers.body.enter(self.whose(route, "request-body"))?;
        let verdict = self.instances.on_request_body(exchange, body).await;
        pass.ended(&verdict);
        verdict
    }

    async fn on_response(&self, route: &str, exchange: &mut Box<Exchange>) -> Result<Verdict, Fault> {
        let pass = self.breakers.response.enter(self.whose(route, "response"))?;
        let verdict = self.instances.on_response(exchange).await;
        pass.ended(&verdict);
        verdict
    }

    pub(super) fn whose<'a>(&'a self, route: &'a str, hook: &'static str) -> Whose<'a> {
        Whose { instances: &self.instances, route, hook }
    }

    /// Whether a fault must leave no trace: what the plugin changed before it failed is undone.
    pub(super) fn may_be_skipped(&self) -> bool {
        self.on_error == OnError::Skip
    }

    pub(super) fn name(&self) -> String {
        self.instances.plugin().name().to_owned()
    }
}
