//! What the demo tells the person at the terminal.

use std::io::IsTerminal;

use super::{
    plan::{Plan, SERVED_BY, line_of},
    tries::{self, Tries},
};
use crate::tree;

/// A step of the demo begins.
pub(crate) fn step(number: usize, what: &str) {
    eprintln!("{}", bold(&format!("[{number}/3] {what}")));
}

pub(crate) fn stopping() {
    eprintln!("\n{}", bold("stopping: connections are let finish, the VM leaves the registry"));
}

pub(crate) fn stopped() {
    eprintln!("{}", bold("stopped"));
}

/// What runs, what to try, what to change.
pub(crate) fn show(plan: &Plan) {
    let (six, four) = (Tries::at("[::1]", plan), Tries::at("127.0.0.1", plan));
    let (services, Plan { web, raw, page, admin, token, .. }) = (&plan.services, plan);
    let toml = format!("{}:{}", tree::shown(&plan.file()), line_of(&plan.file(), SERVED_BY));
    let source = tree::root().join("plugins/header-inject/src/lib.rs");
    let source = format!("{}:{}", tree::shown(&source), line_of(&source, "fn on_response"));
    let heading = |text: &str| bold(&format!("\n{text}\n"));
    let mut said = heading("It runs.");
    for (what, address, note) in [
        ("gateway", format!("http://[::]:{web}"), "IPv6 and IPv4; token, headers, registration"),
        ("", format!("tcp://[::]:{raw}"), "raw TCP"),
        ("", format!("http://{page}/"), "a page for the browser on this machine; no token here"),
        ("its admin", format!("http://{admin}/status"), "and /metrics, /livez, /readyz"),
        ("application", format!("http://{}", services.app), "on IPv4 loopback: nobody outside reaches it"),
        ("", format!("tcp://{}", services.line), "its raw TCP service"),
        ("registry", format!("http://{}", plan.registry), "another gateway, in memory"),
    ] {
        said += &format!("  {what:<12} {address:<31} {note}\n");
    }
    said += &heading(&format!("Try, in another terminal (the token is {token})"));
    for (what, line) in [
        ("no token: 401", six.refused.line("-i")),
        ("no token needed", six.health.line("-i")),
        ("over IPv6", six.echo.line("-i")),
        ("over IPv4", four.echo.line("-i")),
        ("a forged address", six.forged.line("")),
        ("a body", four.post.line("")),
        ("events as they come", six.events.line("-N")),
        ("WebSocket", format!("websocat -H 'authorization: Bearer {token}' 'ws://[::1]:{web}/ws'")),
        ("raw TCP", format!("nc ::1 {raw}")),
        ("who is registered", tries::registry(plan).line("")),
    ] {
        said += &format!("  {what:<20} {line}\n");
    }
    said += &heading("Change it while it runs");
    said += &format!("  {toml}\n      save another value, ask again: no connection was cut\n");
    said += &format!(
        "  {source}\n      add a line such as `let _ = resp.headers().set(\"x-hello\", \"wasm\");`\n"
    );
    said += "      then, in another terminal: cargo xtask plugins\n";
    said += "\nCtrl-C stops everything. What follows is the gateway's log.\n";
    eprintln!("{said}");
}

fn bold(text: &str) -> String {
    match std::io::stderr().is_terminal() {
        true => format!("\x1b[1m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}
