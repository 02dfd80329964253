//! `cargo xtask instructions`: how many instructions one request takes in the gateway, which no other
//! load of the machine changes, compared with what was accepted before.

mod budgets;
mod callgrind;
mod traffic;

use std::{fs, path::Path};

use self::{
    budgets::Budgets,
    callgrind::Callgrind,
    traffic::{Backend, Client},
};
use crate::{Result, build, tree};

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    /// More than was accepted is a failure.
    Compare,
    /// What is counted now is what was accepted.
    Accept,
}

/// Requests of the shorter run; the longer one has three times as many.
const REQUESTS: u32 = 500;

/// Requests before anything is counted: caches fill, buffers grow, plugins start.
const WARM: u32 = 100;

/// Times that a gateway may be started for each count.
const ATTEMPTS: u32 = 10;

const TOKEN: &str = "counted-token";

/// What is counted, and the plugins of its route.
const CASES: [(&str, &str); 2] = [("h1-small", ""), ("auth-and-headers", PLUGINS)];

const PLUGINS: &str = r#"plugins = ["auth", "headers"]
[plugin.auth]
component = "auth_token.wasm"
grants = { secrets = ["fleet"] }
config = { secret = "fleet" }
[plugin.headers]
component = "header_inject.wasm"
config = { request = { x-vm-id = "vm-1" }, response = { x-served-by = "vers-gateway" } }
[secret.fleet]
file = "token.txt"
"#;

pub(crate) fn run(mode: Mode) -> Result {
    callgrind::check()?;
    build::plugins()?;
    let daemon = build::counted()?;
    let backend = Backend::start()?;
    let mut budgets = Budgets::read()?;
    let mut over = Vec::new();
    for (name, plugins) in CASES {
        let folder = tree::target().join("instructions").join(name);
        prepare(&folder, &backend, plugins)?;
        let counted = count_at_last(&daemon, &folder)?;
        let verdict = budgets.judge(name, counted);
        println!("{name:<20} {counted:>8} instructions for each request; {verdict}");
        if verdict.is_over() {
            over.push(name);
        }
        budgets.set(name, counted);
    }
    match mode {
        Mode::Accept => budgets.write(),
        Mode::Compare if over.is_empty() => Ok(()),
        Mode::Compare => Err(format!(
            "{} takes more than was accepted. Where that is worth it, `cargo xtask instructions --accept` \
             writes it down; say why in the change",
            over.join(" and ")
        )
        .into()),
    }
}

/// A folder with a configuration and what that names.
fn prepare(folder: &Path, backend: &Backend, plugins: &str) -> Result {
    fs::create_dir_all(folder)?;
    for component in ["auth_token.wasm", "header_inject.wasm"] {
        fs::copy(tree::components().join(component), folder.join(component))?;
    }
    fs::write(folder.join("token.txt"), TOKEN)?;
    let text = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nto = \"{}\"\n{plugins}\
         [gateway]\nworkers = 1\n[admin]\naddress = \"off\"\n[log]\nformat = \"json\"\naccess = false\n",
        backend.address()
    );
    Ok(fs::write(folder.join("gateway.toml"), text)?)
}

/// Counts again where the gateway ended: valgrind unmaps the kernel's vDSO, and rustix reads it all the same where
/// `PR_GET_AUXV` says that it is. What is there by then is chance.
fn count_at_last(daemon: &Path, folder: &Path) -> Result<u64> {
    for left in (1..ATTEMPTS).rev() {
        match count(daemon, folder) {
            Ok(counted) => return Ok(counted),
            Err(error) => println!("{error}; {left} more attempts"),
        }
    }
    count(daemon, folder)
}

/// The difference between a long run and a short one, so that what does not belong to a request is in
/// neither.
fn count(daemon: &Path, folder: &Path) -> Result<u64> {
    let mut gateway = Callgrind::start(daemon, folder)?;
    let mut client = Client::connect(gateway.address(), TOKEN)?;
    client.ask(WARM)?;
    gateway.begin()?;
    // Instrumented code is translated anew: that is over after some.
    client.ask(WARM)?;
    gateway.dump()?;
    client.ask(REQUESTS)?;
    let short = gateway.dump()?;
    client.ask(3 * REQUESTS)?;
    let long = gateway.dump()?;
    // The worker's thread; others do what the clock tells them.
    let (thread, short) = short.into_iter().max_by_key(|(_, count)| *count).ok_or("no thread was counted")?;
    let long = long.get(&thread).copied().unwrap_or_default();
    Ok(long.saturating_sub(short) / u64::from(2 * REQUESTS))
}
