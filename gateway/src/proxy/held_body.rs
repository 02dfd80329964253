//! Bodies of requests that are held in memory, because somebody wants to see all of one; and the room that a
//! worker has for them: clients decide how many there are, and how long they take to come.

use super::{answer::Error, carrier::Downstream, client::Client};
use crate::{
    http1::{BodyLength, Decoder, Malformed},
    io::Buffers,
    metrics::{Gauge, Metrics, names},
};
use std::{cell::Cell, future::poll_fn, rc::Rc, task::Poll, time::Duration};
use tokio::time::Instant;

/// What all held bodies of a worker take.
#[derive(Debug)]
pub(super) struct Room {
    taken: Cell<usize>,
    gauge: Gauge,
}

/// A body that is held. Its place is free again when it is dropped.
#[derive(Debug)]
pub(super) struct HeldBody {
    bytes: Vec<u8>,
    place: Place,
    /// Bytes that there may be of it.
    most: u64,
}

/// A part of the room.
#[derive(Debug)]
struct Place {
    room: Rc<Room>,
    /// Bytes that all may take.
    most: usize,
    /// Bytes that this one does.
    taken: usize,
}

impl Room {
    /// A worker's room.
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { taken: Cell::new(0), gauge: metrics.gauge(&names::HELD_BODIES, &[]) }
    }

    fn set(&self, taken: usize) {
        self.taken.set(taken);
        self.gauge.set(taken as u64);
    }
}

impl Place {
    /// Takes so many bytes, instead of what it has taken.
    fn resize(&mut self, bytes: usize) -> Result<(), Error> {
        let others = self.room.taken.get() - self.taken;
        if bytes > self.taken && bytes > self.most.saturating_sub(others) {
            return Err(Error::HeldBodiesFull);
        }
        self.room.set(others + bytes);
        self.taken = bytes;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.set(self.room.taken.get() - self.taken);
    }
}

impl HeldBody {
    /// Nothing yet of a body of at most so many bytes, where all may take `room_for` together.
    pub(super) fn new(room: &Rc<Room>, room_for: usize, most: u64) -> Self {
        let place = Place { room: Rc::clone(room), most: room_for, taken: 0 };
        Self { bytes: Vec::new(), place, most }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Lets somebody replace it. [`Self::settle`] comes after that.
    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Takes the place of what it is now.
    ///
    /// # Errors
    /// Fails where it has grown, and there is no room.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        self.place.resize(self.bytes.capacity())
    }

    /// Adds bytes, of which there may be so many.
    ///
    /// # Errors
    /// Fails where there is no room.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            // Twice as much each time, but no more than will come: a told length is nothing that has come.
            let most = usize::try_from(self.most).unwrap_or(usize::MAX);
            let ample = self.bytes.capacity().saturating_mul(2).min(most).max(needed);
            self.place.resize(ample).or_else(|_| self.place.resize(needed))?;
            self.bytes.reserve_exact(self.place.taken - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads the rest of a body into `body`; none where it is too large.
///
/// # Errors
/// Fails where the client leaves, stops, or sends what is no body, and where there is no room.
pub(super) async fn collect<I: Downstream>(
    client: &mut Client<I>,
    length: BodyLength,
    mut body: Box<HeldBody>,
    idle: Duration,
    buffers: &Buffers,
) -> Result<Option<Box<HeldBody>>, Error> {
    let mut decoder = Decoder::limited(length, body.most);
    let mut since = Instant::now();
    let read = poll_fn(|cx| {
        loop {
            if !decoder.is_ended() && !client.inbox.is_empty() {
                let decoded = match decoder.decode(client.inbox.bytes_mut()) {
                    Ok(decoded) => decoded,
                    Err(error) => return Poll::Ready(Err(Error::Malformed(error))),
                };
                if let Err(error) = body.push(client.inbox.bytes().get(decoded.data).unwrap_or_default()) {
                    return Poll::Ready(Err(error));
                }
                client.inbox.consume(decoded.consumed, buffers);
            }
            if !decoder.is_ended() && client.io.frames() && client.io.is_at_end() {
                return Poll::Ready(decoder.end_of_input().map_err(Error::Malformed));
            }
            if decoder.is_ended() {
                return Poll::Ready(Ok(()));
            }
            match client.inbox.poll_fill(cx, &mut client.io, buffers) {
                Poll::Ready(Ok(1..)) => since = Instant::now(),
                Poll::Ready(Ok(0)) => return Poll::Ready(decoder.end_of_input().map_err(Error::Malformed)),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Error::ClientGone)),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(over) = client.poll_overdue(cx) {
            return Poll::Ready(Err(over));
        }
        client.timer.poll(cx, since + idle).map(|()| Err(Error::BodyTimeout))
    });
    match read.await {
        Ok(()) => Ok(Some(body)),
        Err(Error::Malformed(Malformed::BodyTooLarge)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_the_room_and_give_it_back() {
        let metrics = Metrics::new();
        let room = Rc::new(Room::new(&metrics));
        let held = || metrics.value(&names::HELD_BODIES, &[]);
        let mut first = HeldBody::new(&room, 100, 60);
        first.push(&[1; 40]).expect("room");
        assert_eq!(held(), 40, "what has come, and not what may");
        let mut second = HeldBody::new(&room, 100, 1000);
        assert!(matches!(second.push(&[2; 61]), Err(Error::HeldBodiesFull)));
        assert_eq!(held(), 40);
        second.push(&[2; 30]).expect("room");
        first.push(&[1; 5]).expect("room, if not for twice as much as before");
        assert_eq!((held(), first.bytes.capacity()), (90, 60), "no more than will come of it");
        second.push(&[2; 10]).expect("just enough");
        assert_eq!(held(), 100);
        drop(first);
        assert_eq!((held(), second.bytes()), (40, &[2; 40][..]));
        *second.bytes_mut() = vec![3; 101];
        assert!(matches!(second.settle(), Err(Error::HeldBodiesFull)));
        *second.bytes_mut() = Vec::new();
        second.settle().expect("a smaller one");
        assert_eq!(held(), 0);
    }

    #[test]
    fn a_room_that_became_smaller_lets_what_is_there_shrink() {
        let room = Rc::new(Room::new(&Metrics::new()));
        let mut body = HeldBody::new(&room, 100, 100);
        body.push(&[1; 80]).expect("room");
        body.place.most = 10;
        body.bytes_mut().truncate(50);
        body.bytes_mut().shrink_to_fit();
        body.settle().expect("less than before");
        assert_eq!(room.taken.get(), 50);
    }
}
