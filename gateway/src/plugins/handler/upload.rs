//! The body of a request on its way to a guest: a piece at a time, so that a guest that does not read slows its client
//! down.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Where the client's bytes come in. Dropped before the end, the body broke off.
///
/// Both ends are on one thread; the lock is there because what lies in a store must be `Send`.
#[derive(Debug)]
pub(super) struct Upload {
    shared: Arc<Mutex<Shared>>,
    /// After so many more bytes the body ends.
    left: Option<usize>,
    has_ended: bool,
}

/// Where the guest reads them. Dropped, nobody does.
#[derive(Debug)]
pub(super) struct UploadBody(Arc<Mutex<Shared>>);

/// The client is gone before the end of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BrokeOff;

impl From<BrokeOff> for wasmtime_wasi_http::Error {
    fn from(_: BrokeOff) -> Self {
        Self::ConnectionTerminated
    }
}

#[derive(Debug, Default)]
struct Shared {
    piece: Option<Bytes>,
    state: State,
    trailers: Option<HeaderMap>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Ended,
    BrokeOff,
    /// Nobody reads it.
    Unwanted,
}

/// A body, or none where the request has none.
pub(super) fn upload(is_empty: bool) -> (Upload, UploadBody) {
    let state = if is_empty { State::Ended } else { State::Open };
    let shared = Arc::new(Mutex::new(Shared { state, ..Shared::default() }));
    (Upload { shared: Arc::clone(&shared), left: None, has_ended: is_empty }, UploadBody(shared))
}

impl Upload {
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut shared = lock(&self.shared);
        if shared.state != State::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if shared.piece.is_some() {
            shared.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        shared.piece = Some(Bytes::copy_from_slice(data));
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(data.len());
            if *left == 0 {
                (shared.state, self.has_ended) = (State::Ended, true);
            }
        }
        wake(shared, |shared| shared.reader.take());
        Poll::Ready(Ok(data.len()))
    }

    pub(super) fn ends_after(&mut self, bytes: usize) {
        self.left = Some(bytes);
    }

    pub(super) fn end(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        if self.has_ended {
            return Ok(());
        }
        let mut shared = lock(&self.shared);
        if shared.state == State::Unwanted {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        (shared.state, shared.trailers, self.has_ended) = (State::Ended, trailers, true);
        wake(shared, |shared| shared.reader.take());
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        if shared.state == State::Open {
            shared.state = State::BrokeOff;
        }
        wake(shared, |shared| shared.reader.take());
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let mut shared = lock(&self.0);
        if let Some(piece) = shared.piece.take() {
            wake(shared, |shared| shared.writer.take());
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match shared.state {
            State::Open => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Ended | State::Unwanted => {
                Poll::Ready(shared.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            State::BrokeOff => Poll::Ready(Some(Err(BrokeOff))),
        }
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.0);
        shared.piece.is_none() && shared.state == State::Ended && shared.trailers.is_none()
    }
}

impl Drop for UploadBody {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        shared.piece = None;
        if shared.state == State::Open {
            shared.state = State::Unwanted;
        }
        wake(shared, |shared| shared.writer.take());
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes who waits, once nothing is locked any more.
fn wake(mut shared: MutexGuard<'_, Shared>, who: impl FnOnce(&mut Shared) -> Option<Waker>) {
    let waker = who(&mut shared);
    drop(shared);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;
    use std::future::poll_fn;

    fn write(upload: &mut Upload, data: &[u8]) -> Option<io::Result<usize>> {
        poll_fn(|cx| upload.poll_write(cx, data)).now_or_never()
    }

    fn next(body: &mut UploadBody) -> Option<Option<Result<Frame<Bytes>, BrokeOff>>> {
        body.frame().now_or_never()
    }

    fn data(next: Option<Option<Result<Frame<Bytes>, BrokeOff>>>) -> Bytes {
        next.expect("ready").expect("a frame").expect("no error").into_data().expect("data")
    }

    #[test]
    fn one_piece_waits_and_no_more() {
        let (mut upload, mut body) = upload(false);
        assert!(next(&mut body).is_none(), "nothing has come");
        assert_eq!(write(&mut upload, b"one").expect("room").expect("a write"), 3);
        assert!(write(&mut upload, b"two").is_none(), "the first was not read yet");
        assert_eq!(data(next(&mut body)), "one");
        assert_eq!(write(&mut upload, b"two").expect("room").expect("a write"), 3);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("3"));
        upload.end(Some(trailers)).expect("an end");
        assert_eq!(data(next(&mut body)), "two");
        let trailers = next(&mut body).expect("ready").expect("a frame").expect("no error").into_trailers();
        assert_eq!(trailers.expect("trailers")["x-sum"], "3");
        assert!(next(&mut body).expect("ready").is_none());
    }

    #[test]
    fn an_end_that_was_told_comes_with_the_last_byte() {
        let (mut upload, mut body) = upload(false);
        upload.ends_after(5);
        write(&mut upload, b"12").expect("room").expect("a write");
        data(next(&mut body));
        write(&mut upload, b"345").expect("room").expect("a write");
        assert!(!body.is_end_stream());
        data(next(&mut body));
        assert!(body.is_end_stream());
        assert!(next(&mut body).expect("ready").is_none());
    }

    #[test]
    fn a_body_that_breaks_off_does_not_end() {
        let (upload, mut body) = upload(false);
        drop(upload);
        assert_eq!(next(&mut body).expect("ready").expect("an error").expect_err("no frame"), BrokeOff);
    }

    #[test]
    fn what_nobody_reads_is_not_taken() {
        let (mut writer, body) = upload(false);
        write(&mut writer, b"one").expect("room").expect("a write");
        drop(body);
        write(&mut writer, b"two").expect("an answer").expect_err("nobody reads");
        let (mut writer, body) = upload(true);
        assert!(body.is_end_stream());
        writer.end(None).expect("it has ended");
    }
}
