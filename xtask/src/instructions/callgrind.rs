//! The gateway under valgrind, which counts its instructions, thread by thread.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use crate::Result;

pub(crate) struct Callgrind {
    child: Child,
    address: SocketAddr,
    counts: PathBuf,
    dumps: usize,
}

/// Whether there is a valgrind.
pub(crate) fn check() -> Result {
    let is_there = |tool| {
        Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    if is_there("valgrind") && is_there("vgdb") {
        return Ok(());
    }
    Err("valgrind is not here; Debian and Ubuntu have it: apt-get install valgrind".into())
}

impl Callgrind {
    /// Starts it, and waits until it listens. It counts nothing yet: compiling plugins would take
    /// minutes.
    pub(crate) fn start(daemon: &Path, folder: &Path) -> Result<Self> {
        let counts = folder.join("counts");
        for entry in fs::read_dir(folder)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("counts") {
                fs::remove_file(entry.path())?;
            }
        }
        let mut child = Command::new("valgrind")
            .args(["--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes"])
            .arg(format!("--callgrind-out-file={}", counts.display()))
            .arg(format!("--log-file={}", folder.join("valgrind.log").display()))
            .arg(daemon)
            .args(["run", "-c"])
            .arg(folder.join("gateway.toml"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?).lines();
        let mut gateway = Self { child, address: SocketAddr::from(([0; 4], 0)), counts, dumps: 0 };
        let mut said = String::new();
        while let Some(line) = lines.next().transpose()? {
            let line_of_log: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if line_of_log["message"] == "listening" {
                gateway.address = line_of_log["address"].as_str().unwrap_or_default().parse()?;
                // Somebody has to read on, or the gateway would lose lines.
                thread::spawn(move || lines.for_each(drop));
                return Ok(gateway);
            }
            said += &(line + "\n");
        }
        Err(format!("the gateway did not start under valgrind:\n{said}").into())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts from now on.
    pub(crate) fn begin(&self) -> Result {
        self.tell(&["instrumentation", "on"])
    }

    /// What each thread has done since the last time, by the thread's number.
    pub(crate) fn dump(&mut self) -> Result<BTreeMap<String, u64>> {
        self.tell(&["dump"])?;
        self.dumps += 1;
        let prefix = format!("{}.{}-", self.counts.display(), self.dumps);
        let mut counts = BTreeMap::new();
        let folder = self.counts.parent().ok_or("counts lie in a folder")?;
        for entry in fs::read_dir(folder)?.flatten() {
            let path = entry.path();
            if let Some(thread) = path.display().to_string().strip_prefix(&prefix) {
                counts.insert(thread.to_owned(), total(&path)?);
            }
        }
        Ok(counts)
    }

    fn tell(&self, command: &[&str]) -> Result {
        let told = Command::new("vgdb").arg(format!("--pid={}", self.child.id())).args(command).output()?;
        if told.status.success() {
            return Ok(());
        }
        Err(format!("valgrind does not {command:?}: {}", String::from_utf8_lossy(&told.stderr)).into())
    }
}

impl Drop for Callgrind {
    fn drop(&mut self) {
        // Nothing to do where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn total(dump: &Path) -> Result<u64> {
    let text = fs::read(dump)?;
    let text = String::from_utf8_lossy(&text);
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or_else(|| format!("{} has no total", dump.display()))?.trim().parse()?)
}
