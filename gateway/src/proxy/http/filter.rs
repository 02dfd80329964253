//! A request and its answer through the plugins of its route.

use super::{Answer, Content, Outgoing, Session, body::Prepared, switch::Asked};
use crate::{
    http1::Malformed,
    message::{Known, ResponseHead},
    plugins::{self, Destination, Facts, LocalResponse, Outcome, Way},
    proxy::{answer::Error, carrier::Downstream, client::Client, held_body::HeldBody},
    snapshot::{Detour, LocalRoute, LocalTarget},
};
use std::{pin::pin, rc::Rc, sync::Arc};

/// What the plugins made of a request.
enum Filtered {
    /// They let it pass: where to, if not to the route's own target, and its body, where they wanted to see that.
    Passed(Option<Destination>, Option<Box<HeldBody>>),
    /// One of them answers it.
    Answered(Box<Answer>),
}

impl Session<'_> {
    /// Through the route's plugins, to its target, and back through the plugins.
    pub(super) async fn filter<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        route: &Rc<LocalRoute>,
        mut exchange: Box<plugins::Exchange>,
        mut asked: Option<Box<Asked>>,
    ) -> Result<Outgoing, Error> {
        let filtered = self.filter_in(client, route, &mut exchange, &mut asked).await;
        if let Some(entry) = &mut self.entry {
            entry.keep(exchange);
        }
        filtered
    }

    async fn filter_in<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        route: &Rc<LocalRoute>,
        exchange: &mut Box<plugins::Exchange>,
        asked: &mut Option<Box<Asked>>,
    ) -> Result<Outgoing, Error> {
        let (filtered, seen) = self.filter_request(client, route, exchange, asked.is_some()).await?;
        let Answer { head, mut content } = match filtered {
            Filtered::Passed(to, held) => {
                let detour = to.and_then(|to| route.terms.detours.get(to.link)?.get(to.backend));
                let mut body = match route.terms.chain.has_transforms(Way::Request) && asked.is_none() {
                    true => Box::pin(self.prepare(client, (route, detour), exchange, held)).await?,
                    false => held.map(Prepared::Held),
                };
                let mut head = exchange.request.take().ok_or(Error::NoRoute)?;
                match self.deliver(client, (route, detour), &mut head, (&mut body, asked)).await? {
                    Outgoing::Answer(answer) => answer,
                    switching @ Outgoing::Switching(..) => return Ok(switching),
                }
            }
            Filtered::Answered(answer) => *answer,
        };
        let chain = &route.terms.chain;
        if !chain.has_response_filters() && !chain.has_transforms(Way::Response) {
            return Ok(Outgoing::Answer(Answer { head, content }));
        }
        exchange.response = Some(head);
        if chain.has_response_filters() {
            self.filter_answer(client, route, (exchange, seen), &mut content).await?;
        }
        if chain.has_transforms(Way::Response) {
            // In a place of its own, as what is asked for by few always is here.
            let beginning = Box::pin(self.begin_transforms(client, route, exchange, &mut content));
            if let Err(error) = beginning.await {
                self.is_not_sent(&content);
                return Err(error);
            }
        }
        let head = exchange.response.take().ok_or(Error::NoRoute)?;
        Ok(Outgoing::Answer(Answer { head, content }))
    }

    /// Hands the body over to the plugins that transform it, where it goes to a backend.
    async fn prepare<I: Downstream>(
        &self,
        client: &mut Client<I>,
        (route, detour): (&LocalRoute, Option<&Detour>),
        exchange: &mut Box<plugins::Exchange>,
        mut held: Option<Box<HeldBody>>,
    ) -> Result<Option<Prepared>, Error> {
        let is_for_backend =
            detour.is_some() || matches!(route.terms.target, LocalTarget::Pool(_) | LocalTarget::Asked(_));
        if is_for_backend
            && let Some(transformed) = self.begin_upload(client, route, exchange, &mut held).await?
        {
            return Ok(Some(Prepared::Transformed(transformed)));
        }
        Ok(held.map(Prepared::Held))
    }

    /// Shows a request to the plugins, and its body to those who ask for that. Returns how many have seen it.
    async fn filter_request<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        route: &Rc<LocalRoute>,
        exchange: &mut Box<plugins::Exchange>,
        is_upgrade: bool,
    ) -> Result<(Filtered, usize), Error> {
        // In a place of its own, so that each of them is small enough for the allocator's fast path.
        let filtering = Box::pin(route.terms.chain.on_request(exchange));
        let (outcome, seen) = client.while_waiting(self.buffers(), filtering).await?;
        let (to, most) = match outcome {
            // What is for another protocol has no body.
            Outcome::Next { to, body: Some(most) } if !is_upgrade => (to, most),
            outcome => return Ok((self.filtered(outcome, None)?, seen)),
        };
        let (outcome, body) = Box::pin(self.filter_body(client, route, exchange, most)).await?;
        Ok((self.filtered(outcome.or(to), Some(body))?, seen))
    }

    fn filtered(&mut self, outcome: Outcome, body: Option<Box<HeldBody>>) -> Result<Filtered, Error> {
        match outcome {
            Outcome::Next { to, .. } => Ok(Filtered::Passed(to, body)),
            Outcome::Respond { response, plugin } => {
                self.answered_by(plugin, &response);
                Ok(Filtered::Answered(Box::new(local(response))))
            }
            Outcome::Denied { fault, plugin } => Err(Error::Plugin { plugin, kind: fault.kind }),
        }
    }

    /// Shows the head of an answer to the plugins that have seen its request.
    async fn filter_answer<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        route: &LocalRoute,
        (exchange, seen): (&mut Box<plugins::Exchange>, usize),
        content: &mut Content,
    ) -> Result<(), Error> {
        let (buffers, mut replaced) = (self.buffers(), None);
        let filtered = {
            let replace = |exchange: &mut plugins::Exchange, replacement, plugin| {
                self.answered_by(plugin, &replacement);
                let answer = local(replacement);
                (exchange.response, replaced) = (Some(answer.head), Some(answer.content));
            };
            let filtering = Box::pin(route.terms.chain.on_response(exchange, seen, replace));
            match content {
                Content::Upstream { exchange, .. } => {
                    exchange.while_waiting(client, buffers, filtering).await?
                }
                Content::Whole(_) | Content::Changes(_) => client.while_waiting(buffers, filtering).await?,
            }
        };
        filtered.map_err(|(fault, plugin)| Error::Plugin { plugin, kind: fault.kind })?;
        if let Some(replaced) = replaced {
            self.is_not_sent(content);
            *content = replaced;
        }
        Ok(())
    }

    /// Shows the whole body to the plugins that have asked for it.
    async fn filter_body<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        route: &Rc<LocalRoute>,
        exchange: &mut Box<plugins::Exchange>,
        most: u64,
    ) -> Result<(Outcome, Box<HeldBody>), Error> {
        let request = exchange.request.as_mut().ok_or(Error::NoRoute)?;
        let too_large = || Error::Malformed(Malformed::BodyTooLarge);
        let body = self.collect(client, request, most.min(route.terms.body_limit)).await?;
        let mut body = body.ok_or_else(too_large)?;
        // It is said already that it may come, and it has.
        request.fields.remove(Known::Expect);
        let (outcome, _) = {
            let filtering = pin!(route.terms.chain.on_request_body(exchange, body.bytes_mut()));
            client.while_waiting(self.buffers(), filtering).await?
        };
        body.settle()?;
        Ok((outcome, body))
    }

    pub(super) fn facts(&self, route: &LocalRoute, is_upgrade: bool) -> Facts {
        Facts {
            id: self.id,
            route: Arc::clone(&route.name),
            client: self.client_address,
            peer: self.connection.arrival.neighbour(),
            local_port: self.connection.arrival.port,
            captures: self.captures.iter().map(|(name, text)| (name.into(), text.into())).collect(),
            is_upgrade,
        }
    }

    fn answered_by(&mut self, plugin: String, response: &LocalResponse) {
        if let Some(entry) = &mut self.entry {
            entry.answered_by = Some((plugin, response.reason.clone()));
        }
    }

    /// Notes what a backend was sent whose answer nobody gets.
    fn is_not_sent(&mut self, content: &Content) {
        if let (Content::Upstream { exchange, .. }, Some(entry)) = (content, &mut self.entry) {
            entry.uploaded += exchange.uploaded();
        }
    }
}

/// A plugin's own answer.
fn local(response: LocalResponse) -> Answer {
    let head = ResponseHead::new(response.status, response.fields);
    Answer { head, content: Content::Whole(response.body) }
}
