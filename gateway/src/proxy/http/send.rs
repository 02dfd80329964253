//! An answer to the client.

use super::{After, Answer, Content, Session, body::wire_length};
use crate::{
    http1::{BodyLength, Decoder, LAST_CHUNK, write_chunk_size, write_status_line},
    message::{Known, ResponseHead},
    proxy::{
        answer::Error, carrier::Downstream, client::Client, cut::Cut, exchange::is_whole, flow::Flow,
        registry::Watch,
    },
};
use bytes::Bytes;
use http::{StatusCode, Version};
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
};
use tokio::time::Instant;

/// Bytes of a whole answer that are written together with its head.
const COPIED: usize = 16 * 1024;

/// How a client sees the end of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framed {
    /// As the backend's head says.
    AsIs,
    Chunked,
    /// By the end of the connection: to HTTP/1.0.
    UntilClose,
    /// By what carries it: of HTTP/2. Whether the head is all of it.
    Apart {
        is_last: bool,
    },
}

impl Session<'_> {
    /// Sends the answer, and says what becomes of the connection.
    pub(super) async fn send<I: Downstream>(&mut self, client: &mut Client<I>, answer: &mut Answer) -> After {
        if let Content::Upstream { transforms: Some(_), .. } = &answer.content {
            // In a place of its own: most answers have none.
            return Box::pin(self.send_transformed(client, answer)).await;
        }
        if let Content::Upstream { exchange, length, .. } = &mut answer.content {
            let framed = self.frame(&mut answer.head, *length, exchange.is_sent(), client.io.frames());
            let chunked = framed == Framed::Chunked;
            let head = match framed {
                // It is told as soon as it is certain.
                Framed::Apart { .. } => self.buffers().text(),
                _ => self.answer_head(&answer.head, framed),
            };
            let decoder = Decoder::new(wire_length(*length, exchange.frames()));
            let mut flow = Flow::new(head, decoder, chunked);
            match flow.load(exchange.inbox()) {
                Ok(()) => return self.send_upstream(client, answer, &mut flow, framed).await,
                Err(error) => *answer = self.refuse(&Error::BadAnswer(error)),
            }
        }
        let Answer { head, content } = answer;
        match content {
            Content::Whole(body) => self.send_whole(client, head, body).await,
            Content::Changes(_) if self.is_head => self.send_whole(client, head, &[]).await,
            Content::Changes(watch) => Box::pin(self.send_changes(client, head, watch)).await,
            Content::Upstream { .. } => After::Close,
        }
    }

    /// Sends the backend's answer as it comes.
    async fn send_upstream<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        answer: &mut Answer,
        flow: &mut Flow,
        framed: Framed,
    ) -> After {
        let Content::Upstream { exchange, .. } = &mut answer.content else { return After::Close };
        self.count(answer.head.status);
        if let Framed::Apart { is_last } = framed
            && self.tell(client, &mut answer.head, is_last).is_err()
        {
            return After::Close;
        }
        let idle = self.idle();
        let sent = exchange.transfer(client, flow, idle, self.buffers()).await;
        if let Some(entry) = &mut self.entry {
            entry.sent = flow.body();
            entry.uploaded += exchange.uploaded();
            entry.broke_off = sent.is_err();
        }
        match sent {
            Ok(()) => {
                let content = std::mem::replace(&mut answer.content, Content::Whole(Bytes::new()));
                let Content::Upstream { mut exchange, keep, .. } = content else { return After::Close };
                self.buffers().put_text(flow.finish(exchange.inbox(), self.buffers()));
                let can_go_on = exchange.finish(&mut client.inbox, keep, self.buffers());
                match (self.close, can_go_on) {
                    (false, true) => After::Next,
                    (true, true) => After::Close,
                    (_, false) => After::Linger,
                }
            }
            Err(error) => {
                tracing::debug!(request_id = %self.id, ?error, "an answer broke off");
                if let Some(cut) = error.cut() {
                    self.connection.worker.count_cut(cut);
                }
                if framed == Framed::UntilClose { After::Reset } else { After::BreakOff }
            }
        }
    }

    /// Sends an answer that is there as a whole.
    async fn send_whole<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        head: &mut ResponseHead,
        body: &[u8],
    ) -> After {
        // An answer that was given without looking at the body.
        let is_read = client.io.frames() || is_whole(self.body, &mut client.inbox, self.buffers());
        self.close |= !is_read;
        head.fields.remove(Known::ContentLength);
        let has_body = !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if has_body && self.counted.is_none() {
            head.fields.append_known(Known::ContentLength, itoa::Buffer::new().format(body.len()).as_bytes());
        }
        self.count(head.status);
        let sent = if has_body && !self.is_head { body } else { &[] };
        let written = if client.io.frames() {
            let told = self.tell(client, head, sent.is_empty());
            client.io.ends_after(sent.len());
            match told {
                Ok(()) => self.write_all(client, sent).await,
                Err(error) => Err(error),
            }
        } else {
            let mut text = self.answer_head(head, Framed::AsIs);
            // What is large may be the same for many clients: each would have a copy.
            let (beside, apart) = if sent.len() > COPIED { (&[][..], sent) } else { (sent, &[][..]) };
            text.extend_from_slice(beside);
            let mut written = self.write_text(client, text).await;
            if written.is_ok() && !apart.is_empty() {
                written = self.write_all(client, apart).await;
            }
            written
        };
        if let Some(entry) = &mut self.entry {
            entry.sent = sent.len() as u64;
            entry.broke_off = written.is_err();
        }
        match (written, self.close) {
            (Err(_), _) => After::BreakOff,
            (Ok(()), false) => After::Next,
            (Ok(()), true) if is_read => After::Close,
            (Ok(()), true) => After::Linger,
        }
    }

    /// Sends the registry's changes as they come, until the client leaves or the listener does.
    async fn send_changes<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        head: &mut ResponseHead,
        watch: &mut Watch,
    ) -> After {
        let framed = self.frame(head, BodyLength::Chunked, true, client.io.frames());
        self.count(head.status);
        let begun = match framed {
            Framed::Apart { .. } => self.tell(client, head, false),
            _ => {
                let text = self.answer_head(head, framed);
                self.write_text(client, text).await
            }
        };
        let mut guard = self.guard.another();
        let mut text = self.buffers().text();
        let sent = match begun {
            Ok(()) => loop {
                let next = pin!(watch.next(&mut guard));
                let events = match client.while_waiting(self.buffers(), next).await {
                    Ok(Some(events)) => events,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                };
                text.clear();
                if framed == Framed::Chunked {
                    write_chunk_size(events.len(), &mut text);
                }
                text.extend_from_slice(&events);
                if framed == Framed::Chunked {
                    text.extend_from_slice(b"\r\n");
                }
                if let Some(entry) = &mut self.entry {
                    entry.sent += events.len() as u64;
                }
                if let Err(error) = self.write_all(client, &text).await {
                    break Err(error);
                }
            },
            Err(error) => Err(error),
        };
        let sent = match (sent, framed) {
            (Ok(()), Framed::Chunked) => self.write_all(client, LAST_CHUNK).await,
            (Ok(()), Framed::Apart { .. }) => client.io.end(None).map_err(|_| Error::ClientGone),
            (sent, _) => sent,
        };
        if let Some(entry) = &mut self.entry {
            entry.broke_off = sent.is_err();
        }
        self.buffers().put_text(text);
        match sent {
            // It ends where the listener goes: nothing comes after it.
            Ok(()) => After::Close,
            Err(_) if framed == Framed::UntilClose => After::Reset,
            Err(_) => After::BreakOff,
        }
    }

    /// Writes a head as it is: that of an answer before the answer, or of one that nothing follows that is HTTP.
    pub(super) async fn write_head<I: Downstream>(
        &self,
        client: &mut Client<I>,
        head: &ResponseHead,
    ) -> Result<(), Error> {
        let mut text = self.buffers().text();
        write_status_line(head.status, &mut text);
        head.fields.write(&mut text);
        text.extend_from_slice(b"\r\n");
        self.write_text(client, text).await
    }

    /// Writes this text, and gives its place to the next one.
    async fn write_text<I: Downstream>(&self, client: &mut Client<I>, text: Vec<u8>) -> Result<(), Error> {
        let written = self.write_all(client, &text).await;
        self.buffers().put_text(text);
        written
    }

    /// Writes all of it, or gives the client up: one that takes nothing for too long, and one whose
    /// request's time is over.
    pub(super) async fn write_all<I: Downstream>(
        &self,
        client: &mut Client<I>,
        text: &[u8],
    ) -> Result<(), Error> {
        let (idle, mut since) = (self.idle(), None);
        let mut left = text;
        let cut = poll_fn(|cx| {
            loop {
                let polled = match left {
                    [] => Pin::new(&mut client.io).poll_flush(cx).map_ok(|()| 0),
                    _ => Pin::new(&mut client.io).poll_write(cx, left),
                };
                match polled {
                    Poll::Ready(Ok(_)) if left.is_empty() => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(written @ 1..)) => {
                        left = left.get(written..).unwrap_or_default();
                        since = None;
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(None)),
                    Poll::Pending => break,
                }
            }
            if client.poll_overdue(cx).is_ready() {
                return Poll::Ready(Err(Some(Cut::Total)));
            }
            let since = *since.get_or_insert_with(Instant::now);
            client.timer.poll(cx, since + idle).map(|()| Err(Some(Cut::Idle)))
        })
        .await;
        cut.map_err(|cut| {
            if let Some(cut) = cut {
                self.connection.worker.count_cut(cut);
            }
            Error::ClientGone
        })
    }

    /// Decides how the client sees the end of the body, and says so in the head.
    pub(super) fn frame(
        &mut self,
        head: &mut ResponseHead,
        length: BodyLength,
        is_sent: bool,
        is_apart: bool,
    ) -> Framed {
        // The rest of the request may never be read.
        self.close |= !is_sent;
        match length {
            _ if is_apart => {
                if head.status == StatusCode::NO_CONTENT {
                    head.fields.remove(Known::ContentLength);
                }
                Framed::Apart { is_last: length == BodyLength::None }
            }
            BodyLength::None => {
                let keeps = self.is_head || head.status == StatusCode::NOT_MODIFIED;
                if head.status == StatusCode::NO_CONTENT {
                    head.fields.remove(Known::ContentLength);
                } else if !keeps && !head.fields.has(Known::ContentLength) {
                    head.fields.append_known(Known::ContentLength, b"0");
                }
                Framed::AsIs
            }
            BodyLength::Exact(_) => Framed::AsIs,
            BodyLength::Chunked | BodyLength::UntilClose if self.version == Version::HTTP_11 => {
                Framed::Chunked
            }
            BodyLength::Chunked | BodyLength::UntilClose => {
                self.close = true;
                Framed::UntilClose
            }
        }
    }

    /// Tells the head of an answer to a client whose answers are framed apart from their bytes.
    pub(super) fn tell<I: Downstream>(
        &self,
        client: &mut Client<I>,
        head: &mut ResponseHead,
        is_last: bool,
    ) -> Result<(), Error> {
        if head.fields.get_named(b"date").is_none() {
            self.connection.worker.date.add(&mut head.fields);
        }
        client.io.send_head(head, is_last).map_err(|_| Error::ClientGone)
    }

    /// The head of an answer, up to its empty line and with it.
    pub(super) fn answer_head(&mut self, head: &ResponseHead, framed: Framed) -> Vec<u8> {
        self.close |= self.guard.is_draining();
        let mut text = self.buffers().text();
        write_status_line(head.status, &mut text);
        head.fields.write(&mut text);
        if head.fields.get_named(b"date").is_none() {
            // RFC 9110 §6.6.1: a recipient with a clock adds it.
            self.connection.worker.date.write(&mut text);
        }
        if framed == Framed::Chunked {
            text.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if self.close {
            text.extend_from_slice(b"connection: close\r\n");
        } else if self.version == Version::HTTP_10 {
            text.extend_from_slice(b"connection: keep-alive\r\n");
        }
        text.extend_from_slice(b"\r\n");
        text
    }
}
