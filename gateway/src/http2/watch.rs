//! Watches the frames of a client's connection go by, for what h2 does not tell: how many come that are
//! of no use (RFC 9113 §10.5), which it answers one by one, mostly without a limit; since when a head has
//! been on its way; and whether anything leaves. What is said leaves when whoever polls h2 says so, and not
//! when h2 does: see [`Outbox`].

use super::outbox::Outbox;
use crate::io::{Buffers, Stream};
use bytes::{Buf as _, Bytes};
use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Frames without use that may come one after the other.
const CREDIT: u32 = 4096;

/// The same for each second, on and on.
const CREDIT_PER_SECOND: u32 = 128;

/// What a frame of use earns: clients of streams send a window update and a ping with many of them.
const CREDIT_PER_FRAME: u32 = 4;

/// Bytes to the other side that earn one: it gives windows back for them.
const BYTES_PER_CREDIT: usize = 1024;

/// Bytes that are read behind the last word.
const MOST_DISCARDED: usize = 64 * 1024 * 1024;

/// Bytes of the preface (RFC 9113 §3.4).
const PREFACE: usize = 24;

const FRAME_HEAD: usize = 9;

/// The flag of the last frame of a head (RFC 9113 §6.2).
const END_HEADERS: u8 = 0x4;

/// A client's connection, as h2 has it and as the one has it who polls h2.
#[derive(Debug)]
pub(super) struct Shared<I>(Rc<RefCell<Watched<I>>>);

impl<I> Clone for Shared<I> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<I: Stream> Shared<I> {
    /// A connection whose frames are counted, after bytes that were read from it before.
    pub(super) fn new(io: I, early: Bytes, buffers: Rc<Buffers>) -> Self {
        Self(Rc::new(RefCell::new(Watched {
            early,
            out: Outbox::new(io, buffers),
            frames: Frames::default(),
            credit: Credit::default(),
            head: None,
            written: 0,
            discarded: 0,
            is_greeted: false,
            is_flooded: false,
            is_closing: false,
        })))
    }

    /// From now on, what is said leaves when it is drained.
    pub(super) fn gather(&self) {
        self.0.borrow_mut().is_greeted = true;
    }

    /// Ready once everything has left that was said.
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_drain(cx)
    }

    /// Whether something was said that has not left.
    pub(super) fn is_holding(&self) -> bool {
        !self.0.borrow().out.is_drained()
    }

    /// Whether too much came that is of no use.
    pub(super) fn is_flood(&self) -> bool {
        self.0.borrow().is_flooded
    }

    /// Since when a head, or the beginning of some frame, has been waiting for the rest of it.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.0.borrow().head.map(|(_, since)| since)
    }

    /// Bytes that have left so far.
    pub(super) fn written(&self) -> u64 {
        self.0.borrow().written
    }

    /// Whether the last word has been said.
    pub(super) fn is_closing(&self) -> bool {
        self.0.borrow().is_closing
    }
}

#[derive(Debug)]
struct Watched<I> {
    early: Bytes,
    out: Outbox<I>,
    frames: Frames,
    credit: Credit,
    /// The head that is on its way, and since when.
    head: Option<(u64, Instant)>,
    written: u64,
    discarded: usize,
    is_greeted: bool,
    is_flooded: bool,
    is_closing: bool,
}

impl<I: Stream> Watched<I> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let drained = self.out.poll_drain(cx);
        self.count_sent();
        drained
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let put = self.out.poll_put(cx, slices);
        self.count_sent();
        put
    }

    fn count_sent(&mut self) {
        let sent = self.out.take_sent();
        self.credit.earn(sent);
        self.written += sent as u64;
    }

    fn set_head(&mut self, open: Option<u64>) {
        if open != self.head.map(|(known, _)| known) {
            // Time is looked at only where a head has not come in one piece.
            self.head = open.map(|head| (head, Instant::now()));
        }
    }
}

impl<I: Stream> AsyncRead for Shared<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self.0.borrow_mut();
        if this.is_flooded {
            // Nothing more is read; whoever owns the connection ends it now.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.early.is_empty() {
            ready!(Pin::new(&mut this.out.io).poll_read(cx, buffer))?;
        } else {
            let taken = this.early.len().min(buffer.remaining());
            buffer.put_slice(this.early.get(..taken).unwrap_or_default());
            this.early.advance(taken);
        }
        let credit = &mut this.credit;
        let mut is_flood = false;
        this.frames.pass(buffer.filled().get(before..).unwrap_or_default(), |is_of_use| {
            is_flood |= !credit.count(is_of_use);
        });
        this.is_flooded = is_flood;
        this.set_head(this.frames.open_head());
        Poll::Ready(Ok(()))
    }
}

impl<I: Stream> AsyncWrite for Shared<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_put(cx, &[io::IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_put(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self.0.borrow_mut();
        // A client may wait for the greeting before it says anything.
        if this.is_greeted { Poll::Ready(Ok(())) } else { this.poll_drain(cx) }
    }

    /// Says that this was the last word, and reads on to the client's: a socket that is closed before
    /// resets the connection when more comes, such as a window update, and what the client has not read
    /// by then is lost. Who calls this sets the deadline.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self.0.borrow_mut();
        if !this.is_closing {
            ready!(this.poll_drain(cx))?;
            ready!(Pin::new(&mut this.out.io).poll_shutdown(cx))?;
            this.is_closing = true;
        }
        let mut space = [0; 4096];
        while this.discarded < MOST_DISCARDED {
            let mut buffer = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.out.io).poll_read(cx, &mut buffer))?;
            match buffer.filled().len() {
                0 => break,
                read => this.discarded += read,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// How many more frames without use may come.
#[derive(Debug)]
struct Credit {
    left: u32,
    /// Bytes written that have earned nothing yet.
    written: usize,
    since: Option<Instant>,
}

impl Default for Credit {
    fn default() -> Self {
        Self { left: CREDIT, written: 0, since: None }
    }
}

impl Credit {
    /// Counts one frame; false where it is one too many.
    fn count(&mut self, is_of_use: bool) -> bool {
        if is_of_use {
            self.left = CREDIT.min(self.left + CREDIT_PER_FRAME);
            return true;
        }
        if self.left == 0 {
            // Time is looked at when it matters only.
            let now = Instant::now();
            let since = self.since.replace(now);
            let seconds = since.map_or(u64::MAX, |since| now.duration_since(since).as_secs());
            let earned = seconds.saturating_mul(CREDIT_PER_SECOND.into());
            self.left = u32::try_from(earned).unwrap_or(CREDIT).min(CREDIT);
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }

    fn earn(&mut self, bytes: usize) {
        let bytes = self.written + bytes;
        self.written = bytes % BYTES_PER_CREDIT;
        let earned = u32::try_from(bytes / BYTES_PER_CREDIT).unwrap_or(CREDIT);
        self.left = CREDIT.min(self.left.saturating_add(earned));
    }
}

/// Where in a sequence of frames the next byte is.
#[derive(Debug)]
struct Frames {
    /// Bytes that belong to the preface or to a frame whose head has been seen.
    skip: usize,
    head: [u8; FRAME_HEAD],
    seen: usize,
    /// Whether the frame that was seen last is of a head, and whether that goes on in another one.
    is_of_head: bool,
    goes_on: bool,
    /// Frames so far, those that belong to one head as one.
    number: u64,
}

impl Default for Frames {
    fn default() -> Self {
        let (is_of_head, goes_on) = (false, false);
        Self { skip: PREFACE, head: [0; FRAME_HEAD], seen: 0, is_of_head, goes_on, number: 0 }
    }
}

impl Frames {
    /// Passes bytes, and says of each frame whether it is of use.
    fn pass(&mut self, mut bytes: &[u8], mut frame: impl FnMut(bool)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            for (slot, byte) in self.head.iter_mut().skip(self.seen).zip(bytes) {
                *slot = *byte;
            }
            let taken = if self.skip == 0 { bytes.len().min(FRAME_HEAD - self.seen) } else { 0 };
            self.seen += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.seen == FRAME_HEAD {
                let [a, b, c, kind, flags, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                frame(is_of_use(kind, flags, length));
                (self.skip, self.seen) = (length as usize, 0);
                self.number += u64::from(!self.goes_on);
                self.is_of_head = is_of_head(kind);
                self.goes_on = self.is_of_head && flags & END_HEADERS == 0;
            }
        }
    }

    /// The number of the head that is on its way, or of the frame that may become one: nothing else may
    /// come before its end.
    fn open_head(&self) -> Option<u64> {
        match (self.goes_on || (self.is_of_head && self.skip > 0), self.seen > 0) {
            (true, _) => Some(self.number),
            (false, true) => Some(self.number + 1),
            (false, false) => None,
        }
    }
}

/// HEADERS and CONTINUATION.
fn is_of_head(kind: u8) -> bool {
    matches!(kind, 0x1 | 0x9)
}

/// RFC 9113 §6: DATA with data or an end in it, HEADERS, and CONTINUATION, which h2 limits itself. An
/// acknowledgement is the answer to what this side sent.
fn is_of_use(kind: u8, flags: u8, length: u32) -> bool {
    const ACK_OR_END_STREAM: u8 = 0x1;
    let is_flagged = flags & ACK_OR_END_STREAM != 0;
    match kind {
        // DATA.
        0x0 => length > 0 || is_flagged,
        // SETTINGS and PING: no side sends more of these than h2 asked for.
        kind => is_of_head(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(length).expect("a length").to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        bytes.resize(FRAME_HEAD + length, 0xff);
        bytes
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for (kind, flags, length) in [(4, 0, 6), (0, 0, 300), (0, 0, 0), (0, 1, 0), (6, 0, 8), (1, 4, 1)] {
            all.extend(frame(kind, flags, length));
        }
        for size in 1..all.len() {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            all.chunks(size).for_each(|chunk| frames.pass(chunk, |is_of_use| seen.push(is_of_use)));
            assert_eq!(seen, [false, true, false, true, false, true], "in pieces of {size}");
        }
    }

    #[test]
    fn a_head_is_on_its_way_from_its_first_byte_to_its_last() {
        let mut frames = Frames::default();
        let mut pass = |bytes: &[u8]| {
            frames.pass(bytes, |_| {});
            frames.open_head()
        };
        assert_eq!(pass(&[0; PREFACE]), None);
        let pieces = [frame(1, 0, 3), frame(9, 0, 0), frame(9, END_HEADERS, 2)];
        let head = pieces.concat();
        let (last, all) = head.split_last().expect("bytes");
        for byte in all {
            assert_eq!(pass(&[*byte]), Some(1));
        }
        assert_eq!(pass(&[*last]), None);
        // A body may take its time, once it is one.
        let data = frame(0, 0, 10);
        assert_eq!(pass(&data[..FRAME_HEAD - 1]), Some(2));
        assert_eq!(pass(&data[FRAME_HEAD - 1..FRAME_HEAD + 1]), None);
        // Pieces that end in the middle of one head after the other are no head that takes long.
        assert_eq!(pass(&[&data[FRAME_HEAD + 1..], &head[..4]].concat()), Some(3));
        assert_eq!(pass(&[&head[4..], &head[..4]].concat()), Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_of_no_use_is_limited_by_what_is_and_by_time() {
        let mut credit = Credit::default();
        let flood = |credit: &mut Credit| (0..3 * CREDIT).take_while(|_| credit.count(false)).count() as u32;
        // The first look at the clock tells nothing, so it is as good as a long time.
        assert_eq!(flood(&mut credit), 2 * CREDIT);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(flood(&mut credit), 2 * CREDIT_PER_SECOND);
        assert!(credit.count(true));
        credit.earn(BYTES_PER_CREDIT - 1);
        credit.earn(1);
        assert_eq!(flood(&mut credit), CREDIT_PER_FRAME + 1);
        for _ in 0..100_000 {
            assert!(credit.count(true) && credit.count(false), "as many of each");
        }
    }
}
