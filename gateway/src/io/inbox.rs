//! Bytes that were read from a connection and are not done with.

use super::{BUFFER_SIZE, Buffers};
use bytes::Bytes;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, ReadBuf};

/// What is kept in a piece of memory of its size while more is waited for.
const LITTLE: usize = 4 * 1024;

/// Bytes that were read from a connection and are not done with. It holds a buffer only while there
/// are any, so that an idle connection costs none.
#[derive(Debug, Default)]
pub struct Inbox {
    buffer: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was read and is not done with.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.as_deref().and_then(|buffer| buffer.get(self.start..self.end)).unwrap_or_default()
    }

    /// The same, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start, self.end);
        self.buffer.as_deref_mut().and_then(|buffer| buffer.get_mut(start..end)).unwrap_or_default()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether the next read would need a larger buffer.
    pub fn is_full(&self) -> bool {
        self.end - self.start >= BUFFER_SIZE
    }

    /// Done with so many bytes from the front.
    pub fn consume(&mut self, bytes: usize, buffers: &Buffers) {
        self.start = self.end.min(self.start + bytes);
        if self.is_empty() {
            self.release(buffers);
        }
    }

    /// Forgets everything, and gives the buffer back.
    pub fn release(&mut self, buffers: &Buffers) {
        (self.start, self.end) = (0, 0);
        if let Some(buffer) = self.buffer.take() {
            buffers.put(buffer);
        }
    }

    /// What is left, to outlive the buffer.
    pub fn take(&mut self, buffers: &Buffers) -> Bytes {
        let left = Bytes::copy_from_slice(self.bytes());
        self.release(buffers);
        left
    }

    /// Reads once, behind what is there. 0 is the end of the connection.
    ///
    /// The buffer grows where what it holds must stay together: who calls this without being done
    /// with anything has a limit on how often.
    ///
    /// # Errors
    /// Fails as the connection does.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = self.make_room(buffers);
        let mut space = ReadBuf::new(buffer.get_mut(self.end..).unwrap_or_default());
        let polled = Pin::new(from).poll_read(cx, &mut space);
        let read = space.filled().len();
        self.buffer = Some(buffer);
        if self.is_empty() && read == 0 {
            self.release(buffers);
        }
        if polled.is_pending() {
            self.shrink(buffers);
        }
        ready!(polled)?;
        self.end += read;
        Poll::Ready(Ok(read))
    }

    /// Holds no more than is there, where that is little: thousands of clients that send the first
    /// byte of something, and no second one, would have a whole buffer each.
    fn shrink(&mut self, buffers: &Buffers) {
        let bytes = self.bytes();
        if bytes.is_empty() || bytes.len() > LITTLE {
            return;
        }
        let kept = bytes.into();
        if let Some(large) = self.buffer.replace(kept) {
            (self.start, self.end) = (0, self.end - self.start);
            buffers.put(large);
        }
    }

    fn make_room(&mut self, buffers: &Buffers) -> Box<[u8]> {
        let Some(mut buffer) = self.buffer.take() else { return buffers.take() };
        if self.end < buffer.len() {
            return buffer;
        }
        if buffer.len() < BUFFER_SIZE {
            let small = std::mem::replace(&mut buffer, buffers.take());
            if let Some(front) = buffer.get_mut(..small.len()) {
                front.copy_from_slice(&small);
            }
            return buffer;
        }
        if self.start > 0 {
            buffer.copy_within(self.start..self.end, 0);
        } else {
            let mut larger = buffer.to_vec();
            larger.resize(2 * buffer.len(), 0);
            buffers.put(std::mem::replace(&mut buffer, larger.into_boxed_slice()));
        }
        (self.start, self.end) = (0, self.end - self.start);
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn who_waits_for_more_holds_what_is_there() {
        let buffers = Buffers::default();
        let mut inbox = Inbox::new();
        let held = |inbox: &Inbox| inbox.buffer.as_deref().map_or(0, <[u8]>::len);
        let (mut near, mut far) = tokio::io::duplex(2 * BUFFER_SIZE);
        let mut sent = Vec::new();
        for part in [&b"a"[..], b"few bytes", &[b'x'; BUFFER_SIZE / 2], &[b'y'; BUFFER_SIZE], b"z"] {
            far.write_all(part).await.expect("room");
            sent.extend_from_slice(part);
            poll_fn(|cx| {
                while let Poll::Ready(read) = inbox.poll_fill(cx, &mut near, &buffers) {
                    assert_ne!(read.expect("bytes"), 0);
                }
                Poll::Ready(())
            })
            .await;
            assert_eq!(inbox.bytes(), sent, "in order, after {}", part.len());
            if sent.len() <= LITTLE {
                assert_eq!(held(&inbox), sent.len());
            }
        }
        inbox.consume(sent.len() - 3, &buffers);
        let is_pending =
            poll_fn(|cx| Poll::Ready(inbox.poll_fill(cx, &mut near, &buffers).is_pending())).await;
        assert!(is_pending, "there is no more");
        assert_eq!((inbox.bytes(), held(&inbox)), (&b"yyz"[..], 3));
    }

    #[tokio::test]
    async fn bytes_stay_in_order_while_the_buffer_moves_and_grows() {
        let buffers = Buffers::default();
        let sent: Vec<u8> = (0..4 * BUFFER_SIZE).map(|n| (n % 251) as u8).collect();
        let mut from = sent.as_slice();
        let mut inbox = Inbox::new();
        let mut seen = Vec::new();
        loop {
            // One byte less than there is: the rest moves to the front, or needs a larger buffer.
            let read = poll_fn(|cx| inbox.poll_fill(cx, &mut from, &buffers)).await.expect("a read");
            if read == 0 {
                break;
            }
            let take = if seen.len() < BUFFER_SIZE { inbox.bytes().len() - 1 } else { 1 };
            seen.extend_from_slice(&inbox.bytes()[..take]);
            inbox.consume(take, &buffers);
        }
        seen.extend_from_slice(&inbox.take(&buffers));
        assert_eq!(seen, sent);
        assert!(inbox.is_empty() && inbox.buffer.is_none());
    }
}
