//! A fleet in networks of its own: a client, an edge with the configuration of `docs/edge.md`, and three
//! VMs. What users type reaches a VM by its public name, or is told why not.

mod faults; // what is in the way, and who is told
mod http; // requests, streams and WebSockets
mod ssh; // OpenSSH on port 443, and what uses it
mod tcp; // whatever else runs on a VM

use crate::DAEMON;
use bytes::Bytes;
use gateway_tests::{
    Backend, GatewayProcess, Heard, Namespace, eventually,
    fleet::{DOMAIN, Fleet, Vm, in_fleet},
    pages, within,
};
use http_body_util::Full;
use std::{io::Write as _, process::Stdio};
use tokio::process::{Child, Command};

/// Runs a test in a fleet; the first edge is started by it.
fn fleet(test: &str, needs: &[&str], body: impl AsyncFnOnce(Fleet)) {
    if !in_fleet(test, &[needs, &["nft", "curl"]].concat()) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async { body(Fleet::new()).await });
}

/// What `docs/edge.md` shows in this language, from this first line on.
fn shown(language: &str, first: &str) -> String {
    pages::block(&pages::blocks("docs/edge.md"), language, first).to_owned()
}

/// The edge of `docs/edge.md`, with the name and the files of this fleet.
fn edge_toml() -> String {
    of_this_fleet(&shown("toml", "# edge.toml"))
}

/// What the page shows, with the name and the files of this fleet.
fn of_this_fleet(shown: &str) -> String {
    shown.replace("vm.example.com", DOMAIN).replace("/etc/vers/", "")
}

/// The edge's configuration with one of the changes of it that the page shows.
fn edge_toml_with(change: &str) -> String {
    pages::changed(&edge_toml(), &of_this_fleet(&shown("toml", change)))
}

/// Sets the edge's redirect rule, as the page has it.
fn redirect(fleet: &Fleet) {
    let rules = fleet.folder().join("edge.nft");
    std::fs::write(&rules, shown("nft", "# edge.nft")).expect("a file is written");
    fleet.edge.must_run(&format!("nft -f '{}'", rules.display()));
}

/// Starts the edge of the page.
async fn edge(fleet: &Fleet) -> GatewayProcess {
    edge_of(fleet, &edge_toml()).await
}

/// Starts an edge behind the redirect rule of the page.
async fn edge_of(fleet: &Fleet, toml: &str) -> GatewayProcess {
    redirect(fleet);
    fleet.start_edge(DAEMON, toml).await
}

/// An application in this network: says what it heard, or sends back what it got.
fn application(namespace: &Namespace, address: &str) -> Backend {
    let listener = namespace.listen(address).expect("a free port");
    Backend::http_on(listener, |heard| ::http::Response::new(Full::new(said(heard))))
}

fn said(heard: &Heard) -> Bytes {
    if !heard.body.is_empty() {
        return heard.body.clone();
    }
    let names = ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", "x-vm-id"];
    let lines = names.map(|name| format!("{name}: {}\n", heard.header(name)));
    format!("{} {}\n{}", heard.method, heard.uri, lines.concat()).into()
}

/// What a program did.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self.out
    }
}

/// Runs a program to its end.
async fn run(command: &mut Command) -> Ran {
    let what = format!("{command:?}");
    let output = within(&what, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Starts a server on a VM, and waits until it listens there.
async fn started(mut command: Command, vm: &Vm, port: u16, address: &str) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    let address = format!("{address}:{port}").parse().expect("an address");
    eventually("a server that listens", async || {
        assert_eq!(child.try_wait().expect("its state"), None, "{command:?} has ended");
        vm.namespace.connect(address).ok()
    })
    .await;
    child
}

/// curl that trusts the fleet's authority.
fn curl(fleet: &Fleet, arguments: &[&str]) -> Command {
    curl_by(Command::new("curl"), fleet, arguments)
}

/// The same on a VM.
fn curl_in(namespace: &Namespace, fleet: &Fleet, arguments: &[&str]) -> Command {
    curl_by(namespace.command("curl"), fleet, arguments)
}

fn curl_by(mut curl: Command, fleet: &Fleet, arguments: &[&str]) -> Command {
    curl.args(["-q", "-sS", "--max-time", "15", "--cacert"]).arg(fleet.ca()).args(arguments);
    curl
}

/// A file of so many bytes, and what is in it.
fn file(fleet: &Fleet, name: &str, bytes: usize) -> (String, Vec<u8>) {
    let content: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    let path = fleet.folder().join(name);
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(&content).expect("a file is written");
    (path.display().to_string(), content)
}
