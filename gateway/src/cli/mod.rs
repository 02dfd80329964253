//! The command line: arguments, messages, exit codes. Only this floor prints.

mod check;
mod connect;
mod explain;
mod logging;
mod plugin;
mod registry;
mod run;
mod schema;
mod ssh;
mod trust;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A gateway for fleets of VMs, extended by WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "vers-gateway", version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Run(run::Run),
    /// Find everything that is wrong with a configuration, without opening a port
    Check(check::Check),
    /// Say which listener, route, plugins and backend a request would meet, and why no others
    Explain(explain::Explain),
    /// Print the JSON Schema of the configuration; editors complete and validate with it
    Schema,
    /// What plugin authors do: begin, build, look at, test and measure one
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    /// Run a shell or a command on a VM: OpenSSH inside verified TLS
    Ssh(ssh::Ssh),
    /// Print what OpenSSH's configuration needs, for ssh, scp, rsync, git and ansible to reach VMs
    SshConfig(ssh::SshConfig),
    /// Connect standard input and output to a server inside verified TLS; a ProxyCommand of ssh
    Connect(connect::Connect),
    /// Ask a registry who is there, register with it, or watch it
    Registry(registry::Registry),
}

/// What a command ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Fine,
    /// The answer is no.
    No,
    /// It could not start: the configuration (78 of sysexits.h).
    BadConfig,
    /// It could not start: the machine refused something (71 of sysexits.h).
    Machine,
    /// It could not start: an address is taken or forbidden (69 of sysexits.h).
    Unavailable,
    /// What another program ended with, in whose place this one ran.
    Code(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::No => 1,
            Exit::Unavailable => 69,
            Exit::Machine => 71,
            Exit::BadConfig => 78,
            Exit::Code(code) => code,
        })
    }
}

/// Does what the arguments say. Usage errors end the process with 2.
pub fn main() -> ExitCode {
    let exit = match Args::parse().command {
        Command::Run(run) => run.run(),
        Command::Check(check) => check.run(),
        Command::Explain(explain) => explain.run(),
        Command::Schema => schema::print(),
        Command::Plugin(plugin) => plugin.run(),
        Command::Ssh(ssh) => ssh.run(),
        Command::SshConfig(config) => config.print(),
        Command::Connect(connect) => connect.run(),
        Command::Registry(registry) => registry.run(),
    };
    exit.into()
}

/// An error and what caused it: the outermost one often says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
