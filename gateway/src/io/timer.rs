//! A timer that is touched about once per deadline that could pass, not once per request: when it
//! fires early, it is set again for what remains.

use std::{
    cell::RefCell,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};
use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// Timers of one worker that nobody needs just now: to make one, and to take it out of the runtime's wheel
/// again, costs more than to set it once more.
#[derive(Debug, Default)]
pub struct Timers(RefCell<Vec<Timer>>);

/// How many are kept; more are freed.
const KEEP: usize = 256;

impl Timers {
    /// A timer that is not set.
    pub fn take(&self) -> Timer {
        let mut timer = self.0.borrow_mut().pop().unwrap_or_default();
        // Another task waits from now on.
        timer.armed = false;
        timer
    }

    /// Gives a timer back.
    pub fn put(&self, timer: Timer) {
        let mut stock = self.0.borrow_mut();
        if timer.sleep.is_some() && stock.len() < KEEP {
            stock.push(timer);
        }
    }
}

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

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_another_task_had_keeps_the_time_of_who_has_it_now() {
        let timers = Timers::default();
        let start = Instant::now();
        let after = move |millis| start + Duration::from_millis(millis);
        let mut first = timers.take();
        poll_fn(|cx| Poll::Ready(first.poll(cx, after(100)).is_pending())).await;
        timers.put(first);
        // Earlier than it was set for, later, and at a time that has passed.
        for (due, rings) in [(60, 60), (200, 200), (150, 200)] {
            let mut timer = timers.take();
            assert!(timer.sleep.is_some(), "it is the same one");
            let waiting = tokio::spawn(async move {
                poll_fn(|cx| timer.poll(cx, after(due))).await;
                timer
            });
            timers.put(waiting.await.expect("no panic"));
            assert_eq!(start.elapsed(), Duration::from_millis(rings));
        }
        timers.put(Timer::new());
        assert_eq!(timers.0.borrow().len(), 1, "one that was never set is no use");
    }
}
