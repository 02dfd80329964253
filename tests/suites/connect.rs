//! `connect`: bytes between standard input and output and a server inside TLS, and what OpenSSH, scp and
//! rsync do with it.

use crate::DAEMON;
use gateway_tests::{
    Backend, Pki, TestGateway, certificate_table, has,
    openssh::{Account, SSHD},
    within,
};
use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

/// A gateway that puts TLS in front of a server of raw TCP, and the file of its authority.
struct Edge {
    gateway: TestGateway,
    folder: tempfile::TempDir,
}

impl Edge {
    fn before(backend: &Backend) -> Self {
        let pki = Pki::new();
        let pair = pki.issue(&["vm.test"]);
        let toml = format!(
            "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\ntls = true\n\
             [[route]]\nprotocol = \"tcp\"\nto = \"{}\"\n{}",
            backend.addr(),
            certificate_table("web")
        );
        let files = [("web.pem", pair.cert.as_str()), ("web-key.pem", pair.key.as_str())];
        let gateway = TestGateway::with_files(&toml, &files);
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), pki.certificate()).expect("the authority");
        Self { gateway, folder }
    }

    fn address(&self) -> String {
        self.gateway.addr_of("tls").to_string()
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The command that gets there, as a shell takes it.
    fn proxy_command(&self) -> String {
        format!("{DAEMON} connect {} --servername vm.test --ca {}", self.address(), self.ca().display())
    }

    fn connect(&self, more: &[&str]) -> Command {
        let mut command = Command::new(DAEMON);
        command.arg("connect").arg(self.address()).args(more).env_remove("VERS_CA_FILE").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Says how much came, once all of it has come.
async fn counting() -> Backend {
    Backend::tcp(|mut stream| async move {
        let mut came = Vec::new();
        if stream.read_to_end(&mut came).await.is_ok() {
            // A client that is gone has no use for it.
            let _ = stream.write_all(format!("{} bytes", came.len()).as_bytes()).await;
        }
    })
    .await
}

#[tokio::test]
async fn the_end_of_the_input_is_no_end_of_the_answer() {
    let backend = counting().await;
    let edge = Edge::before(&backend);
    let ca = edge.ca();
    let mut child = edge
        .connect(&["--servername", "vm.test", "--ca", ca.to_str().expect("text")])
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("its input");
    input.write_all(&vec![b'x'; 3 << 20]).await.expect("it reads");
    drop(input);
    let output = within("its end", child.wait_with_output()).await.expect("an end");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3145728 bytes");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_server_that_ends_ends_it_although_the_input_goes_on() {
    let backend = Backend::tcp(|mut stream| async move {
        let _ = stream.write_all(b"220 ready\r\n").await;
    })
    .await;
    let edge = Edge::before(&backend);
    let ca = edge.ca();
    let mut child = edge
        .connect(&["--servername", "vm.test", "--ca", ca.to_str().expect("text")])
        .spawn()
        .expect("it starts");
    let input = child.stdin.take();
    let output = within("its end", child.wait_with_output()).await.expect("an end");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "220 ready\r\n");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    drop(input);
}

#[tokio::test]
async fn nobody_else_is_taken_for_the_server() {
    let backend = counting().await;
    let edge = Edge::before(&backend);
    let ca = edge.ca();
    let ca = ca.to_str().expect("text");
    for (arguments, part) in [
        (&["--servername", "vm.test"][..], "--ca FILE"),
        (&["--servername", "other.test", "--ca", ca], "not valid for name \"other.test\""),
        (&["--ca", ca], "not valid for name"),
    ] {
        let output = within("its end", edge.connect(arguments).output()).await.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(part), "{said}");
        assert!(output.stdout.is_empty());
    }
}

/// A VM with an account that a key opens, served by OpenSSH's own server.
struct Vm {
    backend: Backend,
    account: Account,
}

impl Vm {
    /// None, with a word about it, where OpenSSH or the right to run its server are missing.
    async fn with(programs: &[&str], test: &str) -> Option<Self> {
        if !has(test, programs) {
            return None;
        }
        let account = Account::new(test)?;
        let config = account.server_config();
        let backend = Backend::tcp(move |stream| {
            let config = config.clone();
            async move { serve(&config, stream).await }
        })
        .await;
        Some(Self { backend, account })
    }

    fn options(&self, proxy: &str) -> Vec<String> {
        std::iter::once(format!("ProxyCommand={proxy}"))
            .chain(self.account.client_options())
            .flat_map(|option| ["-o".to_owned(), option])
            .collect()
    }
}

/// One connection, by a server of its own.
async fn serve(config: &Path, stream: TcpStream) {
    let stream = stream.into_std().expect("a socket");
    stream.set_nonblocking(false).expect("a socket that blocks");
    let both = || Stdio::from(OwnedFd::from(stream.try_clone().expect("the same socket")));
    let server = Command::new(SSHD)
        .args(["-i", "-e", "-f"])
        .arg(config)
        .stdin(both())
        .stdout(both())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    drop(stream);
    let _ = server.expect("sshd starts").wait().await;
}

async fn run(program: &str, arguments: impl IntoIterator<Item = String>) -> Output {
    let running = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    within(program, running).await.expect("it runs")
}

#[track_caller]
fn went_well(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(of: &str) -> String {
    of.to_owned()
}

/// The line that the platform documents, and the one without openssl.
#[tokio::test]
async fn openssh_runs_a_command() {
    let Some(vm) = Vm::with(&["ssh", "openssl"], "connect::openssh_runs_a_command").await else { return };
    let edge = Edge::before(&vm.backend);
    let openssl = format!("openssl s_client -connect {} -servername vm.test -quiet", edge.address());
    for proxy in [edge.proxy_command(), openssl] {
        let rest = [text("root@vm.test"), text("echo one; echo two >&2; exit 3")];
        let output = run("ssh", vm.options(&proxy).into_iter().chain(rest)).await;
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "one\n", "by {proxy}");
    }
}

#[tokio::test]
async fn scp_and_rsync_carry_files_both_ways() {
    let test = "connect::scp_and_rsync_carry_files_both_ways";
    let Some(vm) = Vm::with(&["ssh", "scp", "rsync"], test).await else { return };
    let edge = Edge::before(&vm.backend);
    let options = vm.options(&edge.proxy_command());
    let folder = vm.account.at("");
    let here = folder.join("here");
    fs::create_dir_all(here.join("deep/er")).expect("folders");
    let large: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
    fs::write(here.join("large"), &large).expect("a file");
    fs::write(here.join("deep/er/small"), "small").expect("a file");
    let at = |name: &str| folder.join(name).display().to_string();

    let there = [at("here/large"), format!("root@vm.test:{}", at("copy"))];
    went_well(&run("scp", options.iter().cloned().chain(there)).await);
    let back = [format!("root@vm.test:{}", at("copy")), at("back")];
    went_well(&run("scp", options.iter().cloned().chain(back)).await);
    assert!(fs::read(folder.join("back")).expect("a file") == large, "as it was");

    let shell: String = std::iter::once(text("ssh"))
        .chain(options.iter().map(|option| format!("'{option}'")))
        .collect::<Vec<_>>()
        .join(" ");
    let rsync = |from: String, to: String| [text("-az"), text("-e"), shell.clone(), from, to];
    went_well(&run("rsync", rsync(at("here/"), format!("root@vm.test:{}/", at("there")))).await);
    went_well(&run("rsync", rsync(format!("root@vm.test:{}/", at("there")), at("again/"))).await);
    assert!(fs::read(folder.join("again/large")).expect("a file") == large, "as it was");
    assert_eq!(fs::read_to_string(folder.join("again/deep/er/small")).expect("a file"), "small");
}
