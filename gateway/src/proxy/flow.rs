//! A body on its way from one connection to another: out of one framing, into the other.
//!
//! One buffer's worth is in flight at a time: nothing more is read before it has left, so a slow
//! reader slows its sender down and costs no memory. Where many bytes of known number are left, and
//! both connections are plain sockets, the kernel moves them itself.

use super::{carrier::Carrier, held_body::HeldBody, transformed_body::TransformedBody};
#[cfg(target_os = "linux")]
use crate::io::Pipe;
use crate::{
    headers::{hop_by_hop::strip_trailers, remove_sums},
    http1::{BodyLength, Decoder, Malformed, write_chunk_size, write_last_chunk, write_request},
    io::{BUFFER_SIZE, Buffers, Inbox},
    message::{Fields, RequestHead},
    plugins::FaultKind,
};
use memchr::memmem;
use std::{
    io::{self, IoSlice},
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{io::AsyncWrite, net::TcpStream};

/// Bytes of a body's rest for which a pipe is worth its system calls.
#[cfg(target_os = "linux")]
const WORTH_A_PIPE: u64 = 128 * 1024;

/// A message on its way: its head, then its body.
#[derive(Debug)]
pub(super) struct Flow {
    decoder: Decoder,
    /// Whether the body goes on in chunks; else as it is.
    chunked: bool,
    /// Goes before the data: the head, a chunk's first line.
    lead: Vec<u8>,
    /// The data, in the inbox that it was read into, or in the held body.
    data: Range<usize>,
    /// The whole body, where it was held for somebody.
    held: Option<Box<HeldBody>>,
    /// What plugins make of the body, where they do.
    transformed: Option<Box<TransformedBody>>,
    /// Bytes of the inbox that are done with once the data has left.
    consumed: usize,
    /// Goes behind the data: a chunk's end, the last chunk.
    tail: Vec<u8>,
    /// Bytes of lead, data and tail that have left.
    written: usize,
    /// Whether what has left so far can leave once more.
    is_first: bool,
    unflushed: bool,
    /// Where the kernel moves the bytes, while there are any in it.
    #[cfg(target_os = "linux")]
    pipe: Option<Pipe>,
    /// Bytes of the body that were read.
    body: u64,
    /// Bytes of everything that left.
    moved: u64,
}

/// Why a flow ended too early.
#[derive(Debug)]
pub(super) enum FlowError {
    /// The connection that it comes from failed.
    Source,
    /// What came over it is malformed, or broke off.
    Malformed(Malformed),
    /// A plugin that transforms it did; its name.
    Plugin(Box<(FaultKind, String)>),
    /// The connection that it goes to failed.
    Sink,
}

impl Flow {
    /// A message with this head, whose body comes out of `decoder`.
    pub(super) fn new(head: Vec<u8>, decoder: Decoder, chunked: bool) -> Self {
        Self {
            decoder,
            chunked,
            lead: head,
            data: 0..0,
            held: None,
            transformed: None,
            consumed: 0,
            tail: Vec::new(),
            written: 0,
            is_first: true,
            unflushed: false,
            #[cfg(target_os = "linux")]
            pipe: None,
            body: 0,
            moved: 0,
        }
    }

    /// A message with this head and this body.
    pub(super) fn whole(head: Vec<u8>, body: Box<HeldBody>) -> Self {
        let mut flow = Self::new(head, Decoder::new(BodyLength::None), false);
        flow.data = 0..body.bytes().len();
        flow.body = flow.data.len() as u64;
        flow.held = Some(body);
        flow
    }

    /// Begins with this head of a request, and not with the one that it has. Nothing has left yet.
    pub(super) fn go_on_with(&mut self, head: &RequestHead) {
        const END: &[u8] = b"\r\n\r\n";
        // Behind it may be the first line of a chunk.
        let Some(end) = memmem::find(&self.lead, END) else { return };
        let mut lead = Vec::with_capacity(self.lead.len());
        write_request(head, &mut lead);
        lead.extend_from_slice(b"\r\n");
        lead.extend_from_slice(self.lead.get(end + END.len()..).unwrap_or_default());
        self.lead = lead;
    }

    /// A message with this head, and of its body what plugins make of what comes out of `decoder`.
    pub(super) fn transformed(
        head: Vec<u8>,
        decoder: Decoder,
        chunked: bool,
        body: Box<TransformedBody>,
    ) -> Self {
        Self { transformed: Some(body), ..Self::new(head, decoder, chunked) }
    }

    /// Takes what has been read already along with the head.
    ///
    /// # Errors
    /// Fails where that is malformed: nothing of the message has left then.
    pub(super) fn load(&mut self, inbox: &mut Inbox) -> Result<(), Malformed> {
        if self.decoder.is_ended() {
            return Ok(());
        }
        let decoded = self.decoder.decode(inbox.bytes_mut())?;
        (self.data, self.consumed) = (decoded.data, decoded.consumed);
        self.body += self.data.len() as u64;
        self.frame();
        Ok(())
    }

    /// Whether there is nothing to be sent, now or later.
    pub(super) fn is_empty(&self) -> bool {
        self.decoder.is_ended()
            && !self.decoder.has_trailers()
            && self.has_left()
            && self.transformed.is_none()
    }

    /// Whether it goes on when a plugin has done its part: that is a matter of the plugin's deadlines.
    pub(super) fn waits_for_plugin(&self) -> bool {
        self.transformed.as_deref().is_some_and(TransformedBody::is_called)
    }

    /// Bytes of the body so far.
    pub(super) fn body(&self) -> u64 {
        self.body
    }

    /// Bytes that left so far: whether it moves.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Starts over, on another connection; false where something is gone that would be needed.
    pub(super) fn rewind(&mut self) -> bool {
        if self.is_first {
            self.written = 0;
        }
        self.is_first
    }

    /// It has been answered, and will not start over.
    pub(super) fn answered(&mut self) {
        self.is_first = false;
        self.free();
    }

    /// Frees a held body that has left. A small one may have to leave once more, as one that came with its
    /// head may.
    fn free(&mut self) {
        let is_done = |held: &HeldBody| !self.is_first || held.bytes().len() > BUFFER_SIZE;
        if self.held.as_deref().is_some_and(is_done) && self.has_left() {
            (self.held, self.is_first) = (None, false);
        }
    }

    /// Whether something waits for the connection that it goes to.
    pub(super) fn is_blocked(&self) -> bool {
        #[cfg(target_os = "linux")]
        if self.pipe.is_some() {
            return true;
        }
        !self.has_left()
    }

    /// The message has left: its part of the inbox is done with. Returns the buffer of the head.
    pub(super) fn finish(&mut self, inbox: &mut Inbox, buffers: &Buffers) -> Vec<u8> {
        inbox.consume(self.consumed, buffers);
        std::mem::take(&mut self.lead)
    }

    /// Moves what can be moved. Ready once the whole message has left.
    ///
    /// # Errors
    /// Fails where one of the connections does, or the message is malformed.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Carrier,
        inbox: &mut Inbox,
        to: &mut impl Carrier,
        buffers: &Buffers,
    ) -> Poll<Result<(), FlowError>> {
        if self.transformed.is_some()
            && let Some(mut body) = self.transformed.take()
        {
            let polled = self.poll_transformed(cx, &mut body, (from, inbox), to, buffers);
            self.transformed = Some(body);
            return polled;
        }
        loop {
            if to.frames() && self.decoder.is_ended() && !self.decoder.has_trailers() {
                to.ends_after(self.left());
            }
            ready!(self.poll_write(cx, inbox, to)).map_err(|_| FlowError::Sink)?;
            if self.held.is_some() {
                self.free();
            }
            #[cfg(target_os = "linux")]
            if let Some(pipe) = self.pipe.take()
                && let (Some(from), Some(to)) = (from.plain(), to.plain())
            {
                ready!(self.poll_splice(cx, from, pipe, to, buffers))?;
            }
            if self.decoder.is_ended() {
                if to.frames() {
                    let trailers = self.take_trailers();
                    self.is_first &= trailers.is_none();
                    to.end(trailers.as_deref()).map_err(|_| FlowError::Sink)?;
                }
                return self.poll_flush(cx, to);
            }
            inbox.consume(std::mem::take(&mut self.consumed), buffers);
            self.next_window();
            #[cfg(target_os = "linux")]
            if self.is_bulk(inbox)
                && let (Some(from), Some(to)) = (from.plain(), to.plain())
                && let Some(pipe) = buffers.pipe()
            {
                ready!(self.poll_splice(cx, from, pipe, to, buffers))?;
                continue;
            }
            self.load(inbox).map_err(FlowError::Malformed)?;
            if self.has_left() && !self.decoder.is_ended() {
                let Poll::Ready(read) = inbox.poll_fill(cx, from, buffers) else {
                    // Nothing more to come for now: what a stream holds back must leave.
                    ready!(self.poll_flush(cx, to))?;
                    return Poll::Pending;
                };
                let read = read.map_err(|_| from.malformed().map_or(FlowError::Source, FlowError::Malformed));
                if read? == 0 {
                    self.end_of_input(from).map_err(FlowError::Malformed)?;
                } else {
                    self.load(inbox).map_err(FlowError::Malformed)?;
                    if from.frames() && from.is_at_end() {
                        self.end_of_input(from).map_err(FlowError::Malformed)?;
                    }
                }
            }
        }
    }

    /// As [`Self::poll`], by way of plugins.
    fn poll_transformed(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut TransformedBody,
        (from, inbox): (&mut impl Carrier, &mut Inbox),
        to: &mut impl Carrier,
        buffers: &Buffers,
    ) -> Poll<Result<(), FlowError>> {
        loop {
            if to.frames() && body.is_over() && !self.decoder.has_trailers() {
                to.ends_after(self.left());
            }
            ready!(self.poll_write(cx, inbox, to)).map_err(|_| FlowError::Sink)?;
            if body.is_over() {
                if to.frames() {
                    let trailers = self.take_trailers();
                    to.end(trailers.as_deref()).map_err(|_| FlowError::Sink)?;
                }
                ready!(self.poll_flush(cx, to))?;
                return body.poll_end(cx).map(Ok);
            }
            let Poll::Ready(next) = body.poll_next(cx, &mut self.decoder, from, inbox, buffers) else {
                // It may take a while, and a head may be all that has left.
                ready!(self.poll_flush(cx, to))?;
                return Poll::Pending;
            };
            let next = next?;
            // What has left stays until now: a head alone may leave once more.
            self.next_window();
            self.is_first = false;
            if let Some(bytes) = next {
                self.body += bytes.len() as u64;
                self.frame_bytes(bytes);
            }
            if body.is_over() {
                self.leave_out_sums();
                self.frame_end();
            }
        }
    }

    /// The same bytes are what leaves next.
    fn frame_bytes(&mut self, mut bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        if !self.chunked {
            self.lead.append(&mut bytes);
            return;
        }
        write_chunk_size(bytes.len(), &mut self.lead);
        self.lead.append(&mut bytes);
        self.lead.extend_from_slice(b"\r\n");
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// Fails where the message cannot end here.
    pub(super) fn end_of_input(&mut self, from: &mut impl Carrier) -> Result<(), Malformed> {
        self.decoder.end_of_input()?;
        if let Some(trailers) = from.take_trailers() {
            self.decoder.put_trailers(trailers);
        }
        self.frame_end();
        Ok(())
    }

    /// Whether what is left is worth a pipe.
    #[cfg(target_os = "linux")]
    fn is_bulk(&self, inbox: &Inbox) -> bool {
        !self.chunked && inbox.is_empty() && self.decoder.left().is_some_and(|left| left >= WORTH_A_PIPE)
    }

    /// Moves the rest of the body through a pipe.
    #[cfg(target_os = "linux")]
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        mut pipe: Pipe,
        to: &TcpStream,
        buffers: &Buffers,
    ) -> Poll<Result<(), FlowError>> {
        loop {
            while !pipe.is_empty() {
                let Poll::Ready(moved) = pipe.poll_empty(cx, to) else {
                    self.pipe = Some(pipe);
                    return Poll::Pending;
                };
                match moved {
                    Ok(moved @ 1..) => self.moved += moved as u64,
                    _ => return Poll::Ready(Err(FlowError::Sink)),
                }
            }
            let Some(left) = self.decoder.left() else {
                buffers.put_pipe(pipe);
                return Poll::Ready(Ok(()));
            };
            let Poll::Ready(filled) = pipe.poll_fill(cx, from, usize::try_from(left).unwrap_or(usize::MAX))
            else {
                buffers.put_pipe(pipe);
                return Poll::Pending;
            };
            match filled {
                Ok(filled @ 1..) => {
                    self.decoder.pass(filled as u64);
                    self.body += filled as u64;
                }
                Ok(_) => return Poll::Ready(Err(FlowError::Malformed(Malformed::Truncated))),
                Err(_) => return Poll::Ready(Err(FlowError::Source)),
            }
        }
    }

    /// Puts a chunk's frame around the data, where there are chunks.
    fn frame(&mut self) {
        if !self.chunked {
            return;
        }
        if !self.data.is_empty() {
            write_chunk_size(self.data.len(), &mut self.lead);
            self.tail.extend_from_slice(b"\r\n");
        }
        self.frame_end();
    }

    fn frame_end(&mut self) {
        if self.chunked && self.decoder.is_ended() {
            let trailers = self.take_trailers();
            write_last_chunk(trailers.as_deref().filter(|trailers| !trailers.is_empty()), &mut self.tail);
        }
    }

    /// Leaves out of the trailers what is not so of the bytes that plugins made.
    fn leave_out_sums(&mut self) {
        if let Some(mut trailers) = self.decoder.take_trailers() {
            remove_sums(&mut trailers);
            if !trailers.is_empty() {
                self.decoder.put_trailers(trailers);
            }
        }
    }

    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        let mut trailers = self.decoder.take_trailers()?;
        strip_trailers(&mut trailers);
        Some(trailers)
    }

    fn next_window(&mut self) {
        // Where nothing of the message was in a window, none of it is gone.
        self.is_first &= self.written == 0;
        self.lead.clear();
        self.tail.clear();
        self.data = 0..0;
        self.written = 0;
    }

    fn has_left(&self) -> bool {
        self.left() == 0
    }

    /// Bytes that have not left yet.
    fn left(&self) -> usize {
        self.lead.len() + self.data.len() + self.tail.len() - self.written
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &Inbox,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while !self.has_left() {
            let data = self.held.as_deref().map_or_else(|| inbox.bytes(), HeldBody::bytes);
            let data = data.get(self.data.clone()).unwrap_or_default();
            let mut slices = [IoSlice::new(&self.lead), IoSlice::new(data), IoSlice::new(&self.tail)];
            let mut waiting = slices.as_mut_slice();
            IoSlice::advance_slices(&mut waiting, self.written);
            let written = ready!(write(cx, Pin::new(&mut *to), waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.moved += written as u64;
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), FlowError>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx)).map_err(|_| FlowError::Sink)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// One piece is written as one: gathering costs.
fn write(
    cx: &mut Context<'_>,
    to: Pin<&mut impl AsyncWrite>,
    waiting: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let mut pieces = waiting.iter().filter(|slice| !slice.is_empty());
    match (pieces.next(), pieces.next()) {
        (Some(only), None) => to.poll_write(cx, only),
        _ => to.poll_write_vectored(cx, waiting),
    }
}
