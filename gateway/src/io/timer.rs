//! A timer that is touched about once per deadline that could pass, not once per request: when it
//! fires early, it is set again for what remains.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};
use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// One timer for all deadlines of one task.
#[derive(Debug, Default)]
pub struct Timer {
    /// Made when somebody first waits: short connections never do.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether the sleep knows whom to wake. A connection is one task, so that does not change.
    armed: bool,
}

impl Timer {
    /// Not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ready once `due` has passed. Only the latest call counts.
    pub fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let Self { sleep, armed } = self;
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
            *armed = false;
        }
        loop {
            if *armed && !sleep.is_elapsed() {
                return Poll::Pending;
            }
            *armed = true;
            // Outside of tokio's budget: without it the sleep would not note whom to wake.
            ready!(pin!(unconstrained(sleep.as_mut())).poll(cx));
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
            *armed = false;
        }
    }

    /// Another task waits from now on.
    pub fn hand_on(&mut self) {
        self.armed = false;
    }

    /// Nobody waits any more.
    pub fn stop(&mut self) {
        *self = Self::new();
    }

    /// Waits for the future, until `due`; none where that has passed first.
    pub async fn within<F: Future>(&mut self, due: Instant, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll(cx, due).map(|()| None),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, time::Duration};

    #[tokio::test(start_paused = true)]
    async fn the_latest_deadline_counts() {
        let mut timer = Timer::new();
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        poll_fn(|cx| {
            assert!(timer.poll(cx, after(100)).is_pending());
            assert!(timer.poll(cx, after(50)).is_pending(), "an earlier one");
            assert!(timer.poll(cx, after(80)).is_pending(), "a later one");
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| timer.poll(cx, after(80))).await;
        assert_eq!(start.elapsed(), Duration::from_millis(80));
        assert_eq!(timer.within(after(90), std::future::pending::<()>()).await, None);
        assert_eq!(start.elapsed(), Duration::from_millis(90));
        assert_eq!(timer.within(after(90), std::future::ready(1)).await, Some(1));
    }
}
