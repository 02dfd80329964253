//! Waiting for a state, never for time.

use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a test waits for what must happen. Long, because machines are slow at times; what
/// happens at once does not wait.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The output of a future that must end.
///
/// # Panics
/// Panics when it does not.
#[track_caller]
pub fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("{caller}: {what} did not happen within {PATIENCE:?}"),
        }
    }
}

/// Asks until the answer is some.
///
/// # Panics
/// Panics when it never is.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {PATIENCE:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Asks until the answer has stayed the same for a while, and returns it: for showing that something
/// does *not* go on. Too short a look lets a fault pass; it never invents one.
///
/// # Panics
/// Panics when the answer never stays the same.
pub async fn settled<T: PartialEq>(what: &str, mut ask: impl AsyncFnMut() -> T) -> T {
    const LOOKS: usize = 30;
    let mut last = ask().await;
    let mut same = 0;
    eventually(what, async || {
        let now = ask().await;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same >= LOOKS).then_some(())
    })
    .await;
    last
}
