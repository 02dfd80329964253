//! How much of a server's connection is read before those whose answers came have a turn.
//!
//! h2 reads on as long as something comes, and keeps what nobody has looked at yet. Bodies have windows;
//! answers before the answer (1xx) have none, and a few bytes of them unpack to a large head.

use crate::io::Stream;
use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one turn: a full window of a stream. One read may go beyond it.
const BYTES: usize = 64 * 1024;

/// What may still be read in this turn.
#[derive(Debug, Clone)]
pub(super) struct Ration(Rc<Cell<usize>>);

impl Default for Ration {
    fn default() -> Self {
        Self(Rc::new(Cell::new(BYTES)))
    }
}

impl Ration {
    /// Another turn begins.
    pub(super) fn renew(&self) {
        self.0.set(BYTES);
    }
}

/// A connection that is read in turns.
#[derive(Debug)]
pub(super) struct Rationed<I> {
    io: I,
    left: Ration,
}

impl<I> Rationed<I> {
    pub(super) fn new(io: I, left: Ration) -> Self {
        Self { io, left }
    }
}

impl<I: Stream> AsyncRead for Rationed<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, left: Ration(left) } = self.get_mut();
        if left.get() == 0 {
            // Behind all others that can go on.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(io).poll_read(cx, buffer))?;
        left.set(left.get().saturating_sub(buffer.filled().len() - before));
        Poll::Ready(Ok(()))
    }
}

impl<I: Stream> AsyncWrite for Rationed<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };
    use tokio::io::{AsyncWriteExt as _, duplex};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_turn_has_an_end_and_another_follows() {
        let (near, mut far) = duplex(1 << 20);
        far.write_all(&vec![0; 1 << 20]).await.expect("room");
        let ration = Ration::default();
        let mut rationed = Rationed::new(near, ration.clone());
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut space = vec![0; 10_000];
        let mut turn = || {
            let (mut cx, mut all) = (Context::from_waker(&waker), 0);
            loop {
                let mut buffer = ReadBuf::new(&mut space);
                match Pin::new(&mut rationed).poll_read(&mut cx, &mut buffer) {
                    Poll::Ready(read) => read.expect("bytes"),
                    Poll::Pending => return all,
                }
                all += buffer.filled().len();
            }
        };
        for number in 1..4 {
            assert_eq!(turn(), 70_000);
            assert_eq!(woken.0.load(Ordering::Relaxed), number);
            ration.renew();
        }
    }
}
