//! A test in a network of its own: its ports are nobody else's, and rules of the kernel can be set. More
//! such networks can be made in there, for whoever is to be somewhere else. What is mounted is its own, too.

use crate::skip::{has, skipped};
use nix::sched::{CloneFlags, setns};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    os::fd::AsRawFd as _,
    process::{Child, Command, Stdio},
    sync::Arc,
};

/// Set in the process that is in the namespace.
const INSIDE: &str = "VERS_TEST_NAMESPACE";

/// Runs this test in a namespace of networks and mounts: returns true there, and false here once it has
/// passed there. `needs` are programs without which it cannot be run, and is skipped with a word about that.
///
/// # Panics
/// Panics where it fails there.
pub fn in_namespace(test: &str, needs: &[&str]) -> bool {
    isolated(test, needs, &["--net", "--mount"], "true")
}

/// As [`in_namespace`], with processes and mounts of its own as well: whatever is started in there ends with
/// it, and `/etc/hosts` is what `hosts` says.
///
/// # Panics
/// Panics where it fails there.
pub fn in_network(test: &str, needs: &[&str], hosts: &str) -> bool {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(hosts.as_bytes()).expect("a file is written");
    let mount = format!("mount --bind '{}' /etc/hosts", file.path().display());
    isolated(test, needs, &["--net", "--pid", "--fork", "--kill-child", "--mount-proc"], &mount)
}

/// `before` is what a shell does in there first.
fn isolated(test: &str, needs: &[&str], kinds: &[&str], before: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !has(test, &[needs, &["setpriv", "unshare", "nsenter", "ip"]].concat()) {
        return false;
    }
    let may = Command::new("unshare").args(kinds).args(["sh", "-c", before]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        skipped(test, "there is no right to a namespace");
        return false;
    }
    let program = std::env::current_exe().expect("this program");
    let script =
        format!("ip link set lo up && {before} && exec '{}' --exact '{test}' --nocapture", program.display());
    // Killed, this test leaves nothing behind either.
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(kinds)
        .args(["sh", "-c", &script])
        .env(INSIDE, "1")
        .output()
        .expect("a process in a namespace");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "in a namespace:\n{said}\n{complained}");
    assert!(said.contains("1 passed"), "`{test}` is not the name of this test:\n{said}");
    false
}

/// Runs a program that must succeed, and returns what it printed.
///
/// # Panics
/// Panics with what it said where it does not.
pub fn must_run(program: &str, arguments: &[&str]) -> String {
    succeed(Command::new(program).args(arguments))
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complained}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Another network: addresses, routes and rules of its own. It ends with the last clone of this.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Keeps it there, and ends when its input does.
    holder: Child,
    file: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

impl Namespace {
    /// A network with nothing but a loopback interface.
    ///
    /// # Panics
    /// Panics where there is no right to it.
    pub fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo it is there && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`unshare` starts");
        let mut line = String::new();
        let output = holder.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "it is there\n");
        let file = File::open(format!("/proc/{}/ns/net", holder.id())).expect("its network");
        Self(Arc::new(Inner { holder, file }))
    }

    /// The process whose network it is, as `ip link set … netns` takes it.
    pub fn id(&self) -> String {
        self.0.holder.id().to_string()
    }

    /// A program that will run in there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("nsenter");
        command.arg(self.argument()).arg(program).kill_on_drop(true);
        command
    }

    /// Runs a shell's script in there, which must succeed, and returns what it printed.
    ///
    /// # Panics
    /// Panics with what it said where it does not.
    pub fn must_run(&self, script: &str) -> String {
        succeed(Command::new("nsenter").arg(self.argument()).args(["sh", "-ec", script]))
    }

    fn argument(&self) -> String {
        format!("--net=/proc/{}/fd/{}", std::process::id(), self.0.file.as_raw_fd())
    }

    /// Does something in there, on a thread of its own. Sockets that it makes stay there.
    pub fn act<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                setns(&self.0.file, CloneFlags::CLONE_NEWNET).expect("a thread in the namespace");
                act()
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Listens in there.
    ///
    /// # Errors
    /// Fails as the socket does.
    pub fn listen(&self, address: &str) -> io::Result<tokio::net::TcpListener> {
        let listener = self.act(|| std::net::TcpListener::bind(address))?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    }

    /// Connects from there.
    ///
    /// # Errors
    /// Fails as the socket does.
    pub fn connect(&self, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let stream = self.act(|| std::net::TcpStream::connect(address))?;
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream)
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}
