//! How the body of a message ends for who reads it, and those of requests that are held as a whole.

use super::Session;
use crate::{
    http1::BodyLength,
    message::{Fields, Known, RequestHead, ResponseHead},
    proxy::{
        answer::Error,
        carrier::Downstream,
        client::Client,
        held_body::{self, HeldBody},
        transformed_body::TransformedBody,
    },
};
use http::StatusCode;

impl Session<'_> {
    /// Reads the whole body; none where it is too large.
    pub(super) async fn collect<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        head: &RequestHead,
        most: u64,
    ) -> Result<Option<Box<HeldBody>>, Error> {
        if self.body.is_told_to_exceed(most) {
            return Ok(None);
        }
        if self.body != BodyLength::None && head.fields.has(Known::Expect) {
            self.pass_on(client, ResponseHead::new(StatusCode::CONTINUE, Fields::new())).await?;
        }
        // From here on, nobody knows how much of it is left in front of the next request, until all has come.
        let told = std::mem::replace(&mut self.body, BodyLength::UntilClose);
        let length = wire_length(told, client.io.frames());
        let most = if let BodyLength::Exact(told) = told { told } else { most };
        let body = self.room_for(most);
        let body = held_body::collect(client, length, body, self.idle(), self.buffers()).await?;
        if body.is_some() {
            self.body = BodyLength::None;
        }
        Ok(body)
    }

    /// A body to be held, of which there is nothing yet.
    pub(super) fn room_for(&self, most: u64) -> Box<HeldBody> {
        let room_for = self.view.local.shared.held_bodies;
        Box::new(HeldBody::new(&self.connection.worker.room, room_for, most))
    }
}

/// The body of a request that plugins have to do with.
pub(super) enum Prepared {
    /// All of it is here.
    Held(Box<HeldBody>),
    /// It comes, and goes through them.
    Transformed(Box<TransformedBody>),
}

/// How the body of a request over HTTP/2 ends: where its head does not end it and tells no length, its
/// stream does.
pub(super) fn framed_body(told: BodyLength, head: &RequestHead, stream: &impl Downstream) -> BodyLength {
    let is_open = !stream.opens_tunnel() && !stream.is_at_end();
    match told {
        _ if !is_open => BodyLength::None,
        BodyLength::None if !head.fields.has(Known::ContentLength) => BodyLength::Chunked,
        told => told,
    }
}

/// How a body ends for who reads it: where it is framed apart from its bytes, with them.
pub(super) fn wire_length(length: BodyLength, is_apart: bool) -> BodyLength {
    match length {
        BodyLength::Exact(_) | BodyLength::Chunked if is_apart => BodyLength::UntilClose,
        length => length,
    }
}
