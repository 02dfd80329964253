//! An answer whose body plugins transform on its way: piece by piece, and no more is read before a piece has
//! left.

use super::{After, Answer, Content, Session, body::wire_length, send::Framed};
use crate::{
    headers::{hop_by_hop::strip_trailers, remove_sums},
    http1::{BodyLength, Decoder, write_chunk_size, write_last_chunk},
    message::Known,
    plugins::{self, Fault, Transforms, Way},
    proxy::{
        answer::Error,
        carrier::Downstream,
        client::Client,
        cut::Cut,
        exchange::{Exchange, Towards, TransferError},
    },
    snapshot::LocalRoute,
};
use bytes::Bytes;
use http::StatusCode;
use std::pin::pin;

/// Why a body did not come to its end.
enum Broken {
    Transfer(TransferError),
    /// A plugin failed.
    Plugin,
}

impl From<TransferError> for Broken {
    fn from(error: TransferError) -> Self {
        Self::Transfer(error)
    }
}

impl From<(Fault, String)> for Broken {
    fn from(_: (Fault, String)) -> Self {
        Self::Plugin
    }
}

impl Session<'_> {
    /// Asks the route's plugins who transforms the body of this answer, of a backend. Its head is in the
    /// exchange.
    pub(super) async fn begin_transforms<I: Downstream>(
        &self,
        client: &mut Client<I>,
        route: &LocalRoute,
        exchange: &mut Box<plugins::Exchange>,
        content: &mut Content,
    ) -> Result<(), Error> {
        let Content::Upstream { exchange: upstream, length, transforms, .. } = content else { return Ok(()) };
        let has_body = *length != BodyLength::None;
        let is_not_modified =
            exchange.response.as_ref().is_some_and(|head| head.status == StatusCode::NOT_MODIFIED);
        // Heads without a body tell of the one that there would be.
        let tells_of_one = !has_body && (self.is_head || is_not_modified);
        if !has_body && !tells_of_one {
            return Ok(());
        }
        let begun = {
            let beginning = pin!(route.terms.chain.begin_transforms(Way::Response, exchange));
            upstream.while_waiting(client, self.buffers(), beginning).await?
        };
        let begun = begun.map_err(|(fault, plugin)| Error::Plugin { plugin, kind: fault.kind })?;
        if let Some(head) = &mut exchange.response {
            if begun.is_some() || tells_of_one {
                // Nobody knows how long it will be, or would be.
                head.fields.remove(Known::ContentLength);
            }
            if begun.is_some() {
                // Which bytes may be asked for alone is said of others, too.
                head.fields.remove_named(b"accept-ranges");
                remove_sums(&mut head.fields);
            }
        }
        match begun {
            Some(begun) if tells_of_one => {
                let discarding = pin!(begun.discard());
                upstream.while_waiting(client, self.buffers(), discarding).await?;
            }
            begun => *transforms = begun,
        }
        Ok(())
    }

    /// Sends the backend's answer as the plugins return it.
    pub(super) async fn send_transformed<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        answer: &mut Answer,
    ) -> After {
        let content = std::mem::replace(&mut answer.content, Content::Whole(Bytes::new()));
        let Content::Upstream { mut exchange, length, keep, transforms: Some(mut transforms) } = content
        else {
            return After::Close;
        };
        let head = &mut answer.head;
        let framed = self.frame(head, BodyLength::Chunked, exchange.is_sent(), client.io.frames());
        self.count(head.status);
        let text = match framed {
            Framed::Apart { .. } if self.tell(client, head, false).is_err() => return After::Close,
            Framed::Apart { .. } => Vec::new(),
            _ => self.answer_head(head, framed),
        };
        let decoder = Decoder::new(wire_length(length, exchange.frames()));
        let mut towards = Towards { client, idle: self.idle(), buffers: self.buffers() };
        let mut passing = Passing { framed, text, sent: 0 };
        let passed = passing.run(&mut exchange, &mut towards, &mut transforms, decoder).await;
        self.buffers().put_text(std::mem::take(&mut passing.text));
        // Behind the last byte: what plugins do at their end is nobody's wait.
        transforms.discard().await;
        if let Some(entry) = &mut self.entry {
            entry.sent = passing.sent;
            entry.uploaded += exchange.uploaded();
            entry.broke_off = passed.is_err();
        }
        let cut = match passed {
            Ok(()) => {
                let can_go_on = exchange.finish(&mut client.inbox, keep, self.buffers());
                return match (self.close, can_go_on) {
                    (false, true) => After::Next,
                    (true, true) => After::Close,
                    (_, false) => After::Linger,
                };
            }
            Err(Broken::Plugin) => Some(Cut::Plugin),
            Err(Broken::Transfer(error)) => error.cut(),
        };
        tracing::debug!(request_id = %self.id, ?cut, "an answer broke off");
        if let Some(cut) = cut {
            self.connection.worker.count_cut(cut);
        }
        if framed == Framed::UntilClose { After::Reset } else { After::BreakOff }
    }
}

/// A body that is passed on.
struct Passing {
    framed: Framed,
    /// What is to be written next; the head at first.
    text: Vec<u8>,
    /// Bytes of the body.
    sent: u64,
}

impl Passing {
    async fn run<I: Downstream>(
        &mut self,
        exchange: &mut Exchange,
        towards: &mut Towards<'_, I>,
        transforms: &mut Transforms,
        mut decoder: Decoder,
    ) -> Result<(), Broken> {
        // The head does not wait for the body.
        self.emit(exchange, towards).await?;
        while let Some(piece) = exchange.piece(towards, &mut decoder).await? {
            transforms.feed(piece);
            self.pass(exchange, towards, transforms).await?;
        }
        transforms.end();
        self.pass(exchange, towards, transforms).await?;
        let mut trailers = decoder.take_trailers();
        if let Some(trailers) = &mut trailers {
            strip_trailers(trailers);
            remove_sums(trailers);
        }
        let trailers = trailers.as_deref().filter(|trailers| !trailers.is_empty());
        if self.framed == Framed::Chunked {
            write_last_chunk(trailers, &mut self.text);
        }
        self.emit(exchange, towards).await?;
        if matches!(self.framed, Framed::Apart { .. }) {
            towards.client.io.end(trailers).map_err(|_| TransferError::Client)?;
        }
        Ok(())
    }

    /// Passes on what the plugins make of what they were fed.
    async fn pass<I: Downstream>(
        &mut self,
        exchange: &mut Exchange,
        towards: &mut Towards<'_, I>,
        transforms: &mut Transforms,
    ) -> Result<(), Broken> {
        let idle = towards.idle;
        while let Some(bytes) = exchange.while_uploading(towards, pin!(transforms.next(idle))).await?? {
            self.frame(&bytes);
            self.emit(exchange, towards).await?;
        }
        Ok(())
    }

    fn frame(&mut self, bytes: &[u8]) {
        self.sent += bytes.len() as u64;
        if bytes.is_empty() {
            return;
        }
        let chunked = self.framed == Framed::Chunked;
        if chunked {
            write_chunk_size(bytes.len(), &mut self.text);
        }
        self.text.extend_from_slice(bytes);
        if chunked {
            self.text.extend_from_slice(b"\r\n");
        }
    }

    async fn emit<I: Downstream>(
        &mut self,
        exchange: &mut Exchange,
        towards: &mut Towards<'_, I>,
    ) -> Result<(), Broken> {
        if !self.text.is_empty() {
            exchange.emit(towards, &self.text).await?;
            self.text.clear();
        }
        Ok(())
    }
}
