//! A gateway in a process of its own, where its memory, its log and its CPU time are nobody else's.

use crate::{
    admin::Admin,
    files::replace,
    gateway::complete,
    namespace::Namespace,
    wait::{eventually, within},
};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// A running daemon with a configuration file of its own, which it follows. It is killed when this
/// is dropped.
#[derive(Debug)]
pub struct GatewayProcess {
    child: Child,
    folder: tempfile::TempDir,
    admin: Admin,
    log: Log,
}

/// What a daemon wrote so far.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl GatewayProcess {
    /// Runs the daemon with this configuration, to which is added what [`crate::TestGateway`] adds,
    /// and a log in JSON.
    ///
    /// # Panics
    /// Panics with what it wrote where it does not start.
    pub async fn start(daemon: impl AsRef<Path>, toml: &str) -> Self {
        Self::launch(Command::new(daemon.as_ref()), toml, &[]).await
    }

    /// As [`Self::start`], in another network, with these files beside the configuration: what they hold,
    /// by name.
    ///
    /// # Panics
    /// Panics with what it wrote where it does not start.
    pub async fn start_in(
        namespace: &Namespace,
        daemon: impl AsRef<Path>,
        toml: &str,
        files: &[(&str, &str)],
    ) -> Self {
        let mut process = Self::launch(namespace.command(daemon.as_ref()), toml, files).await;
        process.admin = process.admin.inside(namespace.clone());
        process
    }

    async fn launch(mut daemon: Command, toml: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).expect("a file is written");
        }
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, with_log(toml)).expect("the configuration is written");
        let mut child = daemon
            .args(["run", "-c"])
            .arg(&path)
            .env_remove("VERS_LOG")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the daemon starts");
        let log = Log::default();
        let written = log.clone();
        let mut lines = BufReader::new(child.stderr.take().expect("its standard error")).lines();
        // It ends with the daemon.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                written.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let admin = eventually("the daemon's start", async || {
            let ended = child.try_wait().expect("the daemon's state");
            assert!(ended.is_none(), "the daemon ended: {}", log.text());
            let line = log.lines().into_iter().find(|line| line["message"] == "admin")?;
            Some(line["address"].as_str()?.parse().expect("an address"))
        });
        let admin = Admin::new(admin.await);
        Self { child, folder, admin, log }
    }

    /// Its admin address.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Address of a listener by name, on loopback; a listener without a name has its address for one.
    ///
    /// # Panics
    /// Panics where there is no such listener.
    pub async fn addr_of(&self, name: &str) -> SocketAddr {
        self.admin.listener(name).await.unwrap_or_else(|| panic!("no listener {name}"))
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("a daemon that runs")
    }

    /// The folder of its configuration.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Replaces the configuration's text, which the daemon notices by itself.
    pub fn write(&self, toml: &str) {
        replace(&self.folder.path().join("gateway.toml"), with_log(toml));
    }

    /// What it wrote so far: one object for each line that is one.
    pub fn log(&self) -> Vec<Value> {
        self.log.lines()
    }

    /// What it wrote so far, as it is.
    pub fn log_text(&self) -> String {
        self.log.text()
    }

    /// Bytes of memory that it has in use and that are in RAM, as the system counts them (`VmRSS`).
    ///
    /// # Panics
    /// Panics where the daemon has ended.
    pub fn rss(&self) -> u64 {
        let path = format!("/proc/{}/status", self.id());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes * 1024
    }

    /// How many files it has open, sockets included.
    ///
    /// # Panics
    /// Panics where the daemon has ended.
    pub fn files(&self) -> u64 {
        self.descriptors().count() as u64
    }

    /// How many of them are sockets.
    ///
    /// # Panics
    /// Panics where the daemon has ended.
    pub fn sockets(&self) -> u64 {
        self.descriptors().filter(|target| target.to_string_lossy().starts_with("socket:")).count() as u64
    }

    /// What its open files are. One that is closed meanwhile is none.
    fn descriptors(&self) -> impl Iterator<Item = PathBuf> {
        let path = format!("/proc/{}/fd", self.id());
        let entries = std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
    }

    /// Sets how many files it may have open; what it has stays.
    ///
    /// # Panics
    /// Panics where the daemon has ended.
    pub fn limit_files(&self, files: u64) {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(files), maximum };
        prlimit(Some(self.pid()), Resource::Nofile, limit).expect("a limit of a process of our own");
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// Panics where the daemon has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a signal to a process of our own");
    }

    fn pid(&self) -> Pid {
        i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("the id of a process")
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        within("the daemon's end", self.child.wait()).await.expect("the daemon's state")
    }
}

impl Log {
    fn lines(&self) -> Vec<Value> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

fn with_log(toml: &str) -> String {
    let mut text = complete(toml);
    if !toml.contains("[log]") {
        text.push_str("\n[log]\nformat = \"json\"\n");
    }
    text
}
