//! What must be so when all traffic has ended.

use crate::{
    stage::Stage,
    watch::{Memory, Standing},
};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::{Instant, sleep};

/// Longer than what is kept open for a while.
const PATIENCE: Duration = Duration::from_secs(90);

/// When everything has been used often: what is kept for the next time, and the allocator's own stock, grow
/// ever more slowly.
const WARM: Duration = Duration::from_secs(300);

/// What the process may grow by from then on: a twentieth, and what one reload more or less holds.
const SHARE: u64 = 20;
const MOST: u64 = 6 << 20;

/// Instances and descriptors that stay for the next request, for each worker.
const KEPT_INSTANCES: f64 = 8.0;
const KEPT_DESCRIPTORS: usize = 16;
const WORKERS: usize = 2;

/// Everything that is not so.
pub(crate) async fn faults(stage: &Stage, before: &Standing, memory: &Memory) -> Vec<String> {
    let mut faults = Vec::new();
    let warm = WARM.min(memory.length() / 2);
    let (early, late) = (memory.around(warm), memory.around(memory.length()));
    println!("RSS {} KiB after {} s, {} KiB at the end", early >> 10, warm.as_secs(), late >> 10);
    if late > early + early / SHARE + MOST {
        faults.push(format!("memory grew from {} to {} KiB", early >> 10, late >> 10));
    }
    let deadline = Instant::now() + PATIENCE;
    let after = loop {
        let after = Standing::of(stage).await;
        if left(&after, before).is_empty() || Instant::now() > deadline {
            break after;
        }
        sleep(Duration::from_millis(500)).await;
    };
    println!("before {before:?}\nafter  {after:?}, RSS {} KiB", stage.gateway.rss() >> 10);
    faults.extend(left(&after, before));
    let unguarded = stage.unguarded.load(Ordering::Relaxed);
    if unguarded > 0 {
        faults.push(format!("{unguarded} requests came past the token"));
    }
    let log = stage.gateway.log_text();
    for word in ["panicked", "\"level\":\"ERROR\""] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(word)).collect();
        // A refused configuration is an error to its operator, and was meant to be.
        let odd = lines.iter().filter(|line| !line.contains("reload"));
        faults.extend(odd.take(3).map(|line| format!("in the log: {line}")));
    }
    faults
}

fn left(after: &Standing, before: &Standing) -> Vec<String> {
    let mut left = Vec::new();
    let mut check = |what: &str, is_back: bool| {
        if !is_back {
            left.push(format!("{what} are left: {after:?}, before {before:?}"));
        }
    };
    check("connections", after.connections == before.connections);
    check("tunnels", after.tunnels == before.tunnels);
    check("kept connections", after.idle == before.idle);
    check("waiting requests", after.pending == before.pending);
    check("tasks", after.tasks == before.tasks);
    check("instances", after.instances <= before.instances + KEPT_INSTANCES * WORKERS as f64);
    check("descriptors", after.descriptors <= before.descriptors + KEPT_DESCRIPTORS * WORKERS);
    check("threads", after.threads <= before.threads + 1);
    left
}
