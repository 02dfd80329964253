//! A body piece by piece, out of the framing that it comes in, for who does something with each piece.

use super::{carrier::Carrier, flow::FlowError};
use crate::{
    http1::Decoder,
    io::{Buffers, Inbox},
};
use std::task::{Context, Poll, ready};

/// The next piece of a body: no larger than a buffer, and none where it has ended.
///
/// # Errors
/// Fails where the connection that it comes from does, and where it is malformed.
pub(super) fn poll_piece(
    cx: &mut Context<'_>,
    from: &mut impl Carrier,
    inbox: &mut Inbox,
    decoder: &mut Decoder,
    buffers: &Buffers,
) -> Poll<Result<Option<Vec<u8>>, FlowError>> {
    loop {
        if decoder.is_ended() {
            return Poll::Ready(Ok(None));
        }
        let decoded = decoder.decode(inbox.bytes_mut()).map_err(FlowError::Malformed)?;
        let piece = inbox.bytes().get(decoded.data).unwrap_or_default().to_vec();
        inbox.consume(decoded.consumed, buffers);
        if !piece.is_empty() {
            return Poll::Ready(Ok(Some(piece)));
        }
        if decoder.is_ended() {
            continue;
        }
        let read = match from.frames() && from.is_at_end() {
            true => Ok(0),
            false => ready!(inbox.poll_fill(cx, from, buffers)),
        };
        let read = read.map_err(|_| from.malformed().map_or(FlowError::Source, FlowError::Malformed))?;
        if read == 0 {
            decoder.end_of_input().map_err(FlowError::Malformed)?;
            if let Some(trailers) = from.take_trailers() {
                decoder.put_trailers(trailers);
            }
        }
    }
}
