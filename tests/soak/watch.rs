//! Memory meanwhile, and what stands in a process that carries nothing.

use crate::stage::Stage;
use std::{fs, time::Duration};
use tokio::time::{Instant, interval};

/// What a daemon has that must be the same again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) connections: f64,
    pub(crate) tunnels: f64,
    pub(crate) idle: f64,
    pub(crate) pending: f64,
    pub(crate) tasks: f64,
    pub(crate) instances: f64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Standing {
    pub(crate) async fn of(stage: &Stage) -> Self {
        let admin = stage.gateway.admin();
        let of_process = |folder: &str| {
            let path = format!("/proc/{}/{folder}", stage.gateway.id());
            fs::read_dir(path).expect("a process that runs").count()
        };
        Self {
            connections: admin.metric("vers_connections_active", &[]).await,
            tunnels: admin.metric("vers_tunnels_active", &[]).await,
            idle: admin.metric("vers_upstream_idle_connections", &[]).await,
            pending: admin.metric("vers_upstream_pending", &[]).await,
            tasks: admin.metric("vers_tasks_active", &[]).await,
            instances: admin.metric("vers_plugin_instances", &[]).await,
            descriptors: of_process("fd"),
            threads: of_process("task"),
        }
    }
}

/// Bytes in use over time.
#[derive(Debug)]
pub(crate) struct Memory(Vec<(Duration, u64)>);

impl Memory {
    /// The middle of what was in use around this moment.
    pub(crate) fn around(&self, moment: Duration) -> u64 {
        const WINDOW: Duration = Duration::from_secs(15);
        let near = |at: Duration| at + WINDOW >= moment && at <= moment + WINDOW;
        let mut found: Vec<u64> =
            self.0.iter().filter(|(at, _)| near(*at)).map(|(_, bytes)| *bytes).collect();
        found.sort_unstable();
        found.get(found.len() / 2).copied().unwrap_or_default()
    }

    pub(crate) fn length(&self) -> Duration {
        self.0.last().map_or(Duration::ZERO, |(at, _)| *at)
    }
}

/// Looks at the memory until the time is over, and says so now and then.
pub(crate) async fn memory(stage: &Stage, length: Duration) -> Memory {
    let began = Instant::now();
    let mut memory = Memory(Vec::new());
    let mut looks = interval(Duration::from_secs(1));
    while began.elapsed() < length {
        looks.tick().await;
        let (at, bytes) = (began.elapsed(), stage.gateway.rss());
        if memory.0.len().is_multiple_of(30) {
            let standing = Standing::of(stage).await;
            println!(
                "{:>5} s  RSS {:>6} KiB  {} connections, {} tunnels, {} kept, {} tasks, {} instances, {} descriptors",
                at.as_secs(),
                bytes >> 10,
                standing.connections,
                standing.tunnels,
                standing.idle,
                standing.tasks,
                standing.instances,
                standing.descriptors,
            );
        }
        memory.0.push((at, bytes));
    }
    memory
}
