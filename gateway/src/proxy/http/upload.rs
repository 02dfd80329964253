//! A request whose body plugins transform.

use super::Session;
use crate::{
    headers::remove_sums,
    http1::{BodyLength, Malformed},
    message::Known,
    plugins::{self, Transforms, Way},
    proxy::{
        answer::Error, carrier::Downstream, client::Client, held_body::HeldBody,
        transformed_body::TransformedBody,
    },
    snapshot::LocalRoute,
};
use std::pin::pin;

impl Session<'_> {
    /// Asks the route's plugins who transforms the body of this request, that goes to a backend. One that was
    /// held is transformed at once, and is held on.
    pub(super) async fn begin_upload<I: Downstream>(
        &self,
        client: &mut Client<I>,
        route: &LocalRoute,
        exchange: &mut Box<plugins::Exchange>,
        held: &mut Option<Box<HeldBody>>,
    ) -> Result<Option<Box<TransformedBody>>, Error> {
        let is_there = match held {
            Some(held) => !held.bytes().is_empty(),
            None => self.body != BodyLength::None,
        };
        if !is_there {
            return Ok(None);
        }
        let begun = {
            let beginning = pin!(route.terms.chain.begin_transforms(Way::Request, exchange));
            client.while_waiting(self.buffers(), beginning).await?
        };
        let begun = begun.map_err(|(fault, plugin)| Error::Plugin { plugin, kind: fault.kind })?;
        let (Some(transforms), Some(head)) = (begun, &mut exchange.request) else { return Ok(None) };
        remove_sums(&mut head.fields);
        let most = route.terms.body_limit;
        if let Some(body) = held.take() {
            *held = Some(self.transform_held(client, transforms, body, most).await?);
            return Ok(None);
        }
        head.fields.remove(Known::ContentLength);
        Ok(Some(Box::new(TransformedBody::new(transforms, most, self.idle()))))
    }

    async fn transform_held<I: Downstream>(
        &self,
        client: &mut Client<I>,
        mut transforms: Box<Transforms>,
        mut body: Box<HeldBody>,
        most: u64,
    ) -> Result<Box<HeldBody>, Error> {
        let mut made = self.room_for(most);
        // Its place is taken until there is no more of it.
        transforms.feed(std::mem::take(body.bytes_mut()));
        transforms.end();
        loop {
            let next = {
                let next = pin!(transforms.next(self.idle()));
                client.while_waiting(self.buffers(), next).await?
            };
            let next = next.map_err(|(fault, plugin)| Error::Plugin { plugin, kind: fault.kind })?;
            let Some(bytes) = next else { break };
            if (made.bytes().len() + bytes.len()) as u64 > most {
                return Err(Error::Malformed(Malformed::BodyTooLarge));
            }
            made.push(&bytes)?;
        }
        client.while_waiting(self.buffers(), pin!(transforms.discard())).await?;
        Ok(made)
    }
}
