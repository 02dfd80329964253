//! Gathers what is said on a connection until that is all for now, and sends it in one write.
//!
//! h2 flushes behind each frame of a body: a write, and under TLS a record, for every answer, however
//! many are ready at the same time. So a flush of h2's changes nothing here. Whoever polls the
//! connection drains the outbox when there is nothing more to do.

use crate::io::{BUFFER_SIZE, Buffers, Stream};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

/// Bytes that are gathered at most. What does not fit waits in h2, whose streams have limits of their own.
const MOST: usize = 32 * 1024;

/// From so many bytes on, a piece leaves as it is: to copy it costs as much as a write of its own.
const LARGE: usize = 8 * 1024;

/// What has been said on a connection and has not left.
#[derive(Debug)]
pub(super) struct Outbox<I> {
    pub(super) io: I,
    buffers: Rc<Buffers>,
    /// There while something waits in it.
    block: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    /// Bytes that have been sent and nobody has asked about.
    sent: usize,
    /// Whether all of it has been sent, also by what is beneath.
    is_drained: bool,
}

const _: () = assert!(MOST <= BUFFER_SIZE, "what is gathered has room in a block");

impl<I: Stream> Outbox<I> {
    pub(super) fn new(io: I, buffers: Rc<Buffers>) -> Self {
        Self { io, buffers, block: None, start: 0, end: 0, sent: 0, is_drained: true }
    }

    /// Whether everything has left, for the kernel.
    pub(super) fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Bytes that have been sent since this was asked last.
    pub(super) fn take_sent(&mut self) -> usize {
        std::mem::take(&mut self.sent)
    }

    /// Puts these bytes behind the others, as far as there is room.
    pub(super) fn poll_put(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_drained = false;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total >= LARGE || self.end + total > MOST {
            ready!(self.poll_send(cx))?;
        }
        if total >= LARGE {
            let sent = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
            self.sent += sent;
            return Poll::Ready(Ok(sent));
        }
        let block = self.block.get_or_insert_with(|| self.buffers.take());
        for slice in slices {
            if let Some(space) = block.get_mut(self.end..self.end + slice.len()) {
                space.copy_from_slice(slice);
                self.end += slice.len();
            }
        }
        Poll::Ready(Ok(total))
    }

    /// Ready once everything has left that was put into it.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.is_drained = true;
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.start < self.end {
            let waiting = self.block.as_deref().and_then(|block| block.get(self.start..self.end));
            match ready!(Pin::new(&mut self.io).poll_write(cx, waiting.unwrap_or_default()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => {
                    self.start += sent;
                    self.sent += sent;
                }
            }
        }
        (self.start, self.end) = (0, 0);
        if let Some(block) = self.block.take() {
            self.buffers.put(block);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::{
        io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
        net::{TcpListener, TcpStream},
    };

    #[tokio::test]
    async fn what_is_put_leaves_in_order_and_not_before_it_is_drained() {
        let (near, mut far) = connection().await;
        let mut outbox = Outbox::new(near, Rc::default());
        let mut sent = Vec::new();
        for (round, size) in [10, 300, LARGE - 1, LARGE, 20, MOST - 1, 1, LARGE - 1].into_iter().enumerate() {
            let bytes = vec![u8::try_from(round).expect("few"); size];
            let (head, rest) = bytes.split_at(size / 3);
            let put = poll_fn(|cx| outbox.poll_put(cx, &[IoSlice::new(head), IoSlice::new(rest)])).await;
            assert_eq!(put.expect("room"), size);
            sent.extend(bytes);
            let waits = size < LARGE;
            assert_eq!(outbox.start < outbox.end, waits, "{size} bytes");
            assert!(!outbox.is_drained());
        }
        poll_fn(|cx| outbox.poll_drain(cx)).await.expect("a way out");
        assert!(outbox.is_drained() && outbox.block.is_none());
        assert_eq!(outbox.take_sent(), sent.len());
        outbox.io.shutdown().await.expect("an end");
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.expect("the bytes");
        assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    }

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (near, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("a connection"), accepted.expect("a connection").0)
    }

    #[tokio::test]
    async fn it_holds_no_more_than_it_may() {
        let (near, _far) = connection().await;
        let mut outbox = Outbox::new(near, Rc::default());
        let piece = [7; 1000];
        let mut put = 0;
        // Nobody reads at the other end.
        while poll_fn(|cx| Poll::Ready(outbox.poll_put(cx, &[IoSlice::new(&piece)]).is_ready())).await {
            put += piece.len();
        }
        assert!(outbox.end <= MOST && put > MOST, "{} held of {put}", outbox.end);
    }

    /// Takes everything, and sends it once it is told that it may: as TLS does while a client reads slowly.
    struct Hoarder(bool);

    impl Stream for Hoarder {
        fn reset(&self) {}
    }

    impl AsyncRead for Hoarder {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Hoarder {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(data.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.0 { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn what_waits_beneath_has_not_left() {
        let mut outbox = Outbox::new(Hoarder(false), Rc::default());
        let drain = async |outbox: &mut Outbox<Hoarder>| {
            poll_fn(|cx| Poll::Ready(outbox.poll_drain(cx).is_ready())).await && outbox.is_drained()
        };
        assert!(outbox.is_drained(), "nothing was put into it");
        let put = poll_fn(|cx| outbox.poll_put(cx, &[IoSlice::new(b"an answer")])).await;
        assert_eq!(put.expect("room"), 9);
        assert!(!drain(&mut outbox).await);
        outbox.io.0 = true;
        assert!(drain(&mut outbox).await);
    }
}
