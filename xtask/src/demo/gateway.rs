//! The real gateway as a child process, which never outlives the demo.

use std::{
    fs::File,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::{client, plan::Plan};
use crate::{Result, tree};

pub(crate) struct Gateway {
    child: Child,
}

impl Gateway {
    /// Starts it with its log on this terminal, or in a file.
    pub(crate) fn start(plan: &Plan, log: Option<&Path>) -> Result<Self> {
        Self::run(&plan.file(), plan, log)
    }

    /// The one that is the registry, with its log in a file.
    pub(crate) fn start_infra(plan: &Plan) -> Result<Self> {
        Self::run(&plan.infra(), plan, Some(&plan.infra_log()))
    }

    fn run(file: &Path, plan: &Plan, log: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(tree::gateway());
        command.arg("run").arg("-c").arg(file).env("VERS_AUTH_TOKEN", &plan.token).stdin(Stdio::null());
        if let Some(log) = log {
            command.stderr(File::create(log)?);
        }
        // Ctrl-C is for the demo, which then asks the gateway to stop.
        let child = command.process_group(0).spawn();
        Ok(Self { child: child.map_err(|error| format!("{}: {error}", tree::gateway().display()))? })
    }

    /// Waits until it serves.
    pub(crate) async fn ready(&mut self, admin: SocketAddr, limit: Duration) -> Result {
        let deadline = Instant::now() + limit;
        let url = format!("http://{admin}/readyz");
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the gateway did not start: {status}").into());
            }
            if client::get(&url).await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(format!("the gateway was not ready within {limit:?}").into())
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks it to stop, as `systemctl stop` would, and waits.
    pub(crate) async fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(pid) = Pid::from_raw(self.child.id().try_into()?) {
            kill_process(pid, Signal::TERM)?;
        }
        let ended = tokio::time::timeout(limit, self.ended()).await;
        ended.map_err(|_| format!("the gateway did not stop within {limit:?}"))?
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Nothing to do where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
