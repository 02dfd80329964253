//! All deadlines of a client's connection, on one timer.
//!
//! A request only notes what is awaited; the timer underneath is touched about once per deadline
//! that could pass, not once per request: when it fires early, it is set again for what remains.

use crate::io::Activity;
use std::{
    cell::{Cell, RefCell},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// The deadlines of one connection.
#[derive(Debug)]
pub(super) struct Deadlines {
    activity: Activity,
    head: Duration,
    idle: Duration,
    awaited: Cell<Awaited>,
    /// No request has been answered yet.
    first: Cell<bool>,
    /// The deadline for an answer has passed; the request's own code makes the answer for that.
    answer_late: Cell<bool>,
    timer: RefCell<Timer>,
}

#[derive(Debug, Clone, Copy)]
enum Awaited {
    /// The next request, since then.
    Request(Instant),
    /// The backend's answer: so long after the client's last byte.
    Answer(Instant, Duration),
    /// Bytes of a body, in either direction: so long after the last.
    Body(Instant, Duration),
}

/// Which deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// No request came.
    Idle,
    /// A request's head was begun and not finished.
    Head,
    /// The backend did not answer.
    Answer,
    /// A body stopped flowing.
    Body,
}

impl Deadlines {
    pub(super) fn new(activity: Activity, head: Duration, idle: Duration) -> Self {
        let now = Instant::now();
        let timer = RefCell::new(Timer::new(now + head));
        Self {
            activity,
            head,
            idle,
            awaited: Cell::new(Awaited::Request(now)),
            first: Cell::new(true),
            answer_late: Cell::new(false),
            timer,
        }
    }

    /// Whether nothing was answered on this connection yet.
    pub(super) fn is_first_request(&self) -> bool {
        self.first.get()
    }

    /// A request waits for its answer.
    pub(super) fn await_answer(&self, within: Duration) {
        self.answer_late.set(false);
        // A pipelined request may have arrived long before its turn came.
        self.awaited.set(Awaited::Answer(Instant::now(), within));
    }

    /// The answer's head is on its way; bodies follow.
    pub(super) fn await_body(&self, idle: Duration) {
        self.first.set(false);
        self.answer_late.set(false);
        self.awaited.set(Awaited::Body(Instant::now(), idle));
    }

    /// The answer has ended.
    pub(super) fn request_over(&self) {
        self.activity.mark();
        self.awaited.set(Awaited::Request(Instant::now()));
    }

    /// Ready when the deadline for an answer has passed. The connection polls again when it does.
    pub(super) fn poll_answer_late(&self) -> Poll<()> {
        if self.answer_late.get() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ready when a deadline has passed.
    pub(super) fn poll_late(&self, cx: &mut Context<'_>) -> Poll<Late> {
        if self.answer_late.get() {
            return Poll::Pending;
        }
        let (due, late) = self.due();
        ready!(self.timer.borrow_mut().poll(cx, due));
        self.answer_late.set(late == Late::Answer);
        Poll::Ready(late)
    }

    fn due(&self) -> (Instant, Late) {
        match self.awaited.get() {
            Awaited::Request(since) => match self.activity.first_read() {
                // What the client still reads of the last answer keeps it busy.
                Some(begun) => (begun.max(self.activity.last_written()) + self.head, Late::Head),
                None => (since.max(self.activity.last()) + self.idle, Late::Idle),
            },
            Awaited::Answer(since, within) => (since.max(self.activity.last_read()) + within, Late::Answer),
            Awaited::Body(since, idle) => (since.max(self.activity.last()) + idle, Late::Body),
        }
    }
}

/// A timer that is set again only when it must be.
#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// Whether the sleep knows whom to wake. A connection is one task, so that does not change.
    armed: bool,
}

impl Timer {
    fn new(due: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(due)), armed: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        loop {
            if self.sleep.deadline() > due {
                self.set(due);
            }
            if self.armed && !self.sleep.is_elapsed() {
                return Poll::Pending;
            }
            self.armed = true;
            // Outside of tokio's budget: without it the sleep would not note whom to wake.
            ready!(pin!(unconstrained(self.sleep.as_mut())).poll(cx));
            if self.sleep.deadline() >= due {
                return Poll::Ready(());
            }
            self.set(due);
        }
    }

    fn set(&mut self, due: Instant) {
        self.sleep.as_mut().reset(due);
        self.armed = false;
    }
}
