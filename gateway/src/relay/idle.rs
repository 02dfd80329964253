//! When nothing has moved for too long.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// Expires when nothing moved for a while. The timer underneath is touched once per idle time, not
/// once per byte: when it fires early, it is set again for what remains.
pub(super) struct IdleTimer {
    idle: Duration,
    last: Instant,
    /// When the sleep ends, once it knows whom to wake.
    armed: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl IdleTimer {
    pub(super) fn new(idle: Duration) -> Self {
        let last = Instant::now();
        Self { idle, last, armed: None, sleep: Box::pin(sleep_until(last + idle)) }
    }

    /// Notes that something moved. True where the timer will wake this task in any case: then it need
    /// not be asked, which for thousands of tunnels is memory that need not be touched.
    pub(super) fn moved(&mut self) -> bool {
        self.last = Instant::now();
        self.armed.is_some_and(|end| self.last < end)
    }

    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.armed = Some(self.sleep.deadline());
            // Outside of tokio's budget: without it the sleep would not note whom to wake.
            ready!(pin!(unconstrained(self.sleep.as_mut())).poll(cx));
            let due = self.last + self.idle;
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(due);
        }
    }
}
