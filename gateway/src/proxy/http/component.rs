//! A request to a component that answers it itself, and what that answers.

use super::{Answer, Session, body::Prepared, deliver::answer_of, switch::Asked};
use crate::{
    http1::BodyLength,
    message::{Fields, Known, RequestHead, ResponseHead},
    plugins::Refused,
    proxy::{
        answer::Error,
        carrier::Downstream,
        client::Client,
        exchange::{Exchange, Order},
        served::Served,
    },
    snapshot::{LocalComponent, LocalRoute},
    upstream::Cause,
};
use http::StatusCode;
use std::{pin::pin, rc::Rc};

impl Session<'_> {
    /// To a component: waits for its turn, and gives it the head; both bodies go on from there.
    pub(super) async fn ask_component<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        (route, component): (&Rc<LocalRoute>, &LocalComponent),
        head: &mut RequestHead,
        (body, asked): (&mut Option<Prepared>, &mut Option<Box<Asked>>),
    ) -> Result<Answer, Error> {
        // It answers, and nothing else; a request may be taken without its Upgrade.
        if asked.take().is_some() && client.io.opens_tunnel() {
            return Err(Error::Connect);
        }
        let LocalComponent { handlers, pool } = component;
        let entering = client.while_waiting(self.buffers(), pin!(handlers.enter())).await?;
        let entrance = entering.map_err(|refused| {
            let cause = match refused {
                Refused::Full => Cause::QueueFull,
                Refused::Late => Cause::QueueTimeout,
            };
            Error::Upstream(pool.failure(cause))
        })?;
        if head.fields.has(Known::Expect) {
            // A component has no words for that: whether it will read the body, nobody knows before it does.
            if !matches!(body, Some(Prepared::Held(_))) && self.body != BodyLength::None {
                self.pass_on(client, ResponseHead::new(StatusCode::CONTINUE, Fields::new())).await?;
            }
            head.fields.remove(Known::Expect);
        }
        let upload = self.compose(head, (body.take(), None), client, route.terms.body_limit, true)?;
        let order = Order {
            pool,
            head,
            over_http2: true,
            heads: self.view.local.shared.heads,
            timeouts: &route.terms.timeouts,
            attempts: 1,
            budget: &route.budget,
            key: None,
            client: None,
            buffers: self.buffers(),
        };
        // From here on the component takes the body, as a backend would.
        if self.body != BodyLength::None {
            self.body = BodyLength::UntilClose;
        }
        let lease = pool.local(Served::new(handlers.call(entrance, self.guard.another())));
        let asked = Exchange::ask(client, &order, (lease, upload)).await;
        let (mut exchange, head, length) = asked.inspect_err(|error| self.failed(error))?;
        exchange.answered();
        Ok(answer_of(head, length, exchange))
    }
}
