//! A request to the target of its route, and what that answers.

use super::{
    Answer, Content, Outgoing, Session,
    body::Prepared,
    closes,
    switch::{Asked, switching},
};
use crate::{
    headers::hop_by_hop,
    http1::BodyLength,
    message::{Known, RequestHead, ResponseHead},
    proxy::{
        answer::{self, Error},
        carrier::Downstream,
        client::Client,
        exchange::{Exchange, Order, Said},
        held_body::HeldBody,
        registry,
    },
    snapshot::{Detour, Fixed, Goal, LocalRoute, LocalTarget, RegistryPlan, Target},
    upstream::{Pool, Protocol},
};
use http::{StatusCode, Version};
use std::{pin::pin, rc::Rc};

impl Session<'_> {
    /// To the route's target, or where a plugin sends it instead, and the head of its answer back. With the head go
    /// the body, where plugins have to do with it, and the protocol change that is asked for.
    pub(super) async fn deliver<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        (route, detour): (&Rc<LocalRoute>, Option<&Detour>),
        head: &mut RequestHead,
        (body, asked): (&mut Option<Prepared>, &mut Option<Box<Asked>>),
    ) -> Result<Outgoing, Error> {
        let pool = match (detour, &route.terms.target) {
            (Some(detour), _) => Rc::clone(&detour.pool),
            (None, LocalTarget::Pool(pool)) => Rc::clone(pool),
            (None, LocalTarget::Asked(goal)) => self.find(client, goal).await?,
            (None, LocalTarget::Registry(_) | LocalTarget::Component(_)) => {
                let answering = Box::pin(self.answer_here(client, route, head, (body, asked)));
                return answering.await.map(Outgoing::Answer);
            }
            (None, LocalTarget::Respond) => return Ok(Outgoing::Answer(fixed(route))),
        };
        let over_http2 = self.goes_over_http2(pool.backend().settings.protocol);
        // What is spoken there has no Upgrade, and a request may be taken without one.
        if over_http2 && asked.take().is_some() && client.io.opens_tunnel() {
            return Err(Error::Connect);
        }
        let sticky = detour.map_or(&route.terms.sticky, |detour| &detour.sticky);
        let key = sticky.as_ref().and_then(|sticky| sticky.key(&head.fields));
        let body = (body.take(), asked.as_deref());
        let upload = self.compose(head, body, client, route.terms.body_limit, over_http2)?;
        let tells = pool.backend().settings.proxy_protocol.is_some();
        let order = Order {
            pool: &pool,
            head,
            over_http2,
            heads: self.view.local.shared.heads,
            timeouts: &route.terms.timeouts,
            attempts: route.terms.attempts,
            budget: &route.budget,
            key,
            client: tells.then(|| self.connection.arrival.ends(client.io.socket())),
            buffers: self.buffers(),
        };
        // From here on the backend takes the body. Should the exchange fail, nobody knows how much of
        // it is left in front of the next request.
        if self.body != BodyLength::None {
            self.body = BodyLength::UntilClose;
        }
        let began = Exchange::begin(client, &order, upload).await;
        let began =
            began.map_err(|error| if detour.is_some() { error } else { self.explained(route, error) });
        let (mut exchange, said) = began.inspect_err(|error| self.failed(error))?;
        let said = match said {
            // In a place of its own: few backends have two answers.
            Said::Interim(head) => Box::pin(self.pass_interim(client, &order, &mut exchange, head)).await?,
            said => said,
        };
        match said {
            Said::Answer(head, length) => {
                exchange.answered();
                Ok(Outgoing::Answer(answer_of(head, length, exchange)))
            }
            // No interim answer is left: one would be refused as what it is, no agreement.
            Said::Switching(head) | Said::Interim(head) => switching(head, exchange, asked.as_deref()),
        }
    }

    /// Passes on the answers before the answer. Returns what comes after them.
    async fn pass_interim<I: Downstream>(
        &self,
        client: &mut Client<I>,
        order: &Order<'_>,
        exchange: &mut Exchange,
        mut head: ResponseHead,
    ) -> Result<Said, Error> {
        loop {
            exchange.while_passing(order, pin!(self.pass_on(client, head))).await?;
            let said = exchange.next(client, order).await;
            match said.inspect_err(|error| self.failed(error))? {
                Said::Interim(next) => head = next,
                said => return Ok(said),
            }
        }
    }

    fn goes_over_http2(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Http1 => false,
            Protocol::Auto => self.is_grpc,
            Protocol::Http2 => true,
        }
    }

    /// Connections to where a request goes whose server has to be asked for.
    async fn find<I: Downstream>(&self, client: &mut Client<I>, goal: &Goal) -> Result<Rc<Pool>, Error> {
        let finding = pin!(goal.pool(&self.connection.arrival, |name| self.captures.get(name)));
        let found = client.while_waiting(self.buffers(), finding).await?;
        found.inspect_err(|error| self.failed(error))
    }

    /// To what answers inside of this process.
    async fn answer_here<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        route: &Rc<LocalRoute>,
        head: &mut RequestHead,
        (body, asked): (&mut Option<Prepared>, &mut Option<Box<Asked>>),
    ) -> Result<Answer, Error> {
        match &route.terms.target {
            LocalTarget::Registry(plan) => {
                let held = match body.take() {
                    Some(Prepared::Held(held)) => Some(held),
                    // Those that plugins transform go elsewhere.
                    Some(Prepared::Transformed(_)) | None => None,
                };
                self.consult(client, route, plan, (head, held)).await
            }
            LocalTarget::Component(component) => {
                self.ask_component(client, (route, component), head, (body, asked)).await
            }
            LocalTarget::Pool(_) | LocalTarget::Asked(_) | LocalTarget::Respond => Err(Error::NoRoute),
        }
    }

    /// To the registry: reads the body, asks, and waits until what was asked for is kept.
    async fn consult<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        route: &LocalRoute,
        plan: &RegistryPlan,
        (head, body): (&RequestHead, Option<Box<HeldBody>>),
    ) -> Result<Answer, Error> {
        let body = match body {
            Some(body) => Some(body),
            None => self.collect(client, head, route.terms.body_limit.min(registry::BODY)).await?,
        };
        let Some(body) = body else { return Ok(registry::too_large()) };
        let body = body.bytes();
        if let Some(entry) = &mut self.entry {
            entry.uploaded = body.len() as u64;
        }
        let asking = pin!(registry::ask(plan, (head, body), self.client_address.ip(), self.guard.another()));
        client.while_waiting(self.buffers(), asking).await
    }

    /// What an error is to whoever runs what the route leads to.
    fn explained(&self, route: &LocalRoute, error: Error) -> Error {
        match &route.terms.target {
            LocalTarget::Asked(goal) => goal.explain(error, &self.connection.arrival),
            LocalTarget::Pool(_)
            | LocalTarget::Registry(_)
            | LocalTarget::Component(_)
            | LocalTarget::Respond => error,
        }
    }

    /// An answer before the answer goes on as it is (RFC 9110 §15.2), to who can take it.
    pub(super) async fn pass_on<I: Downstream>(
        &self,
        client: &mut Client<I>,
        mut head: ResponseHead,
    ) -> Result<(), Error> {
        if self.version == Version::HTTP_10 {
            return Ok(());
        }
        hop_by_hop::strip(&mut head.fields);
        head.fields.remove(Known::ContentLength);
        if client.io.frames() {
            return client.io.send_interim(&head).map_err(|_| Error::ClientGone);
        }
        self.write_head(client, &head).await
    }
}

/// The backend's answer, whose body is still to come.
pub(super) fn answer_of(mut head: ResponseHead, length: BodyLength, exchange: Box<Exchange>) -> Answer {
    let options = hop_by_hop::strip(&mut head.fields);
    // A 204 that tells a length may send it, too, later on.
    let told = head.fields.get(Known::ContentLength).is_some_and(|told| told != b"0");
    let may_go_on = head.status == StatusCode::NO_CONTENT && told;
    let keep = length != BodyLength::UntilClose && !may_go_on && !closes(head.version, &options);
    let content = Content::Upstream { exchange, length, keep, transforms: None };
    Answer { head, content }
}

/// The answer that a route always gives.
fn fixed(route: &LocalRoute) -> Answer {
    let Target::Respond(Fixed { status, fields, body }) = &route.route.target else {
        // Routes with a backend have a pool; the builder of the snapshot sees to that.
        let (head, body) = answer::answer(&Error::NoRoute);
        return Answer { head, content: Content::Whole(body) };
    };
    Answer { head: ResponseHead::new(*status, fields.clone()), content: Content::Whole(body.clone()) }
}
