//! The body of a request on its way through the plugins that transform it: a piece is read, and no other
//! before all has left that the plugins make of it.

use super::{carrier::Carrier, flow::FlowError, piece::poll_piece};
use crate::{
    http1::{Decoder, Malformed},
    io::{Buffers, Inbox},
    plugins::{Fault, Transforms},
};
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

/// What plugins make of a body.
pub(super) struct TransformedBody {
    state: State,
    /// Whether the plugins know that no more comes.
    is_told: bool,
    /// How long they may be waited for that are called only so often at a time.
    patience: Duration,
    /// Bytes that there may be more of it.
    room: u64,
}

/// A call of a plugin; with it go the plugins, and back.
type Call = Pin<Box<dyn Future<Output = (Box<Transforms>, Made)>>>;

type Made = Result<Option<Vec<u8>>, (Fault, String)>;

enum State {
    /// No plugin is called. Whether they need more of the body first.
    Idle { transforms: Box<Transforms>, is_hungry: bool },
    /// One is.
    Called(Call),
    /// All has come, and they end.
    Ending(Pin<Box<dyn Future<Output = ()>>>),
    /// They have.
    Over,
}

impl TransformedBody {
    /// A body of which nothing has come yet, and of which there may be so many bytes in the end.
    pub(super) fn new(transforms: Box<Transforms>, most: u64, patience: Duration) -> Self {
        let state = State::Idle { transforms, is_hungry: true };
        Self { state, is_told: false, patience, room: most }
    }

    /// Whether a plugin is waited for: that has a deadline of its own.
    pub(super) fn is_called(&self) -> bool {
        matches!(self.state, State::Called(_) | State::Ending(_))
    }

    /// Whether all has come out that there will be.
    pub(super) fn is_over(&self) -> bool {
        match &self.state {
            State::Idle { transforms, is_hungry } => self.is_told && (*is_hungry || transforms.is_over()),
            State::Called(_) => false,
            State::Ending(_) | State::Over => true,
        }
    }

    /// What goes on next; none where that was all.
    ///
    /// # Errors
    /// Fails where the client does, where a plugin does, and where it becomes too large.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Decoder,
        from: &mut impl Carrier,
        inbox: &mut Inbox,
        buffers: &Buffers,
    ) -> Poll<Result<Option<Vec<u8>>, FlowError>> {
        loop {
            if self.is_over() {
                return Poll::Ready(Ok(None));
            }
            match &mut self.state {
                State::Idle { transforms, is_hungry: is_hungry @ true } => {
                    match ready!(poll_piece(cx, from, inbox, decoder, buffers))? {
                        Some(piece) => transforms.feed(piece),
                        None => {
                            transforms.end();
                            self.is_told = true;
                        }
                    }
                    *is_hungry = false;
                }
                State::Idle { .. } => self.call(),
                State::Called(call) => {
                    let (transforms, made) = ready!(call.as_mut().poll(cx));
                    let is_hungry = matches!(made, Ok(None));
                    self.state = State::Idle { transforms, is_hungry };
                    match made {
                        Ok(Some(bytes)) => return Poll::Ready(self.count(bytes).map(Some)),
                        Ok(None) => {}
                        Err((fault, plugin)) => {
                            return Poll::Ready(Err(FlowError::Plugin(Box::new((fault.kind, plugin)))));
                        }
                    }
                }
                State::Ending(_) | State::Over => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// The plugins' part is over. Ready when their instances serve others.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let State::Idle { .. } = self.state
            && let State::Idle { transforms, .. } = std::mem::replace(&mut self.state, State::Over)
        {
            self.state = State::Ending(Box::pin(transforms.discard()));
        }
        if let State::Ending(ending) = &mut self.state {
            ready!(ending.as_mut().poll(cx));
            self.state = State::Over;
        }
        Poll::Ready(())
    }

    fn call(&mut self) {
        if let State::Idle { mut transforms, .. } = std::mem::replace(&mut self.state, State::Over) {
            let patience = self.patience;
            self.state = State::Called(Box::pin(async move {
                let made = transforms.next(patience).await;
                (transforms, made)
            }));
        }
    }

    /// What few bytes become is bounded as they are.
    fn count(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, FlowError> {
        let left = self.room.checked_sub(bytes.len() as u64);
        self.room = left.ok_or(FlowError::Malformed(Malformed::BodyTooLarge))?;
        Ok(bytes)
    }
}

impl Drop for TransformedBody {
    /// It broke off, or its answer came before all of it had.
    fn drop(&mut self) {
        if let State::Idle { transforms, .. } = std::mem::replace(&mut self.state, State::Over) {
            transforms.leave();
        }
    }
}

impl fmt::Debug for TransformedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransformedBody").field("is_told", &self.is_told).finish_non_exhaustive()
    }
}
