//! One request's or tunnel's place on a server.

use super::{Member, queue::Queue};
use std::{cell::Cell, rc::Rc, sync::Arc};

/// One request's or tunnel's place on a server, until it is dropped. It may live for days, and holds
/// on to no connection but its own.
#[derive(Debug)]
pub struct Seat {
    server: usize,
    /// What this worker has under way there.
    load: Rc<Cell<usize>>,
    _room: Option<Room>,
}

/// One of the connections that may be in use to a server at a time.
#[derive(Debug)]
pub(super) struct Room {
    member: Arc<Member>,
    queue: Arc<Queue>,
}

impl Seat {
    pub(super) fn new(server: usize, load: &Rc<Cell<usize>>, room: Option<Room>) -> Self {
        load.set(load.get() + 1);
        Self { server, load: Rc::clone(load), _room: room }
    }

    /// The server's number.
    pub(super) fn server(&self) -> usize {
        self.server
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.load.set(self.load.get() - 1);
    }
}

impl Room {
    /// Takes one, where one is left; whoever waits in `queue` hears when it is given back.
    pub(super) fn take(member: &Arc<Member>, queue: &Arc<Queue>, limit: usize) -> Option<Self> {
        member.enter(limit).then(|| Self { member: Arc::clone(member), queue: Arc::clone(queue) })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.member.leave();
        self.queue.given_back();
    }
}
