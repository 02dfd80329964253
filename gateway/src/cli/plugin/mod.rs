//! `plugin`: what plugin authors do.

mod bench;
mod build;
mod check;
mod dev;
mod fetch;
mod inspect;
mod login;
mod new;
mod oci;
mod stage;
mod test;

use super::Exit;
use clap::Subcommand;
use std::{
    fmt::Display,
    io::Write as _,
    path::{Path, PathBuf},
};

/// `plugin …`.
#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    /// Make a folder with a new plugin: it builds, and passes its tests
    New(new::New),
    /// Build the plugin in this folder, and say what it has become
    Build(build::Build),
    /// Say what a component is, without running it: hooks, imports, settings, version, size
    Inspect(inspect::Inspect),
    /// Find what a gateway would find wrong with a component, and with its settings
    Check(check::Check),
    /// Build whenever the sources change, and let a gateway take the component over
    Dev(dev::Dev),
    /// Fetch components from registries (`oci://…`) into the store that a gateway reads them from
    Fetch(fetch::Fetch),
    /// Run cases: requests through the compiled component in the gateway's own sandbox
    Test(test::Test),
    /// Measure what calls and instances of the component cost here
    Bench(bench::Bench),
}

impl Plugin {
    pub(super) fn run(self) -> Exit {
        match self {
            Self::New(new) => new.run(),
            Self::Build(build) => build.run(),
            Self::Inspect(inspect) => inspect.run(),
            Self::Check(check) => check.run(),
            Self::Dev(dev) => dev.run(),
            Self::Fetch(fetch) => fetch.run(),
            Self::Test(test) => test.run(),
            Self::Bench(bench) => bench.run(),
        }
    }
}

/// Writes what was asked for. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes what a person should know. Standard error that is closed leaves the exit code to say it.
fn tell(text: &dyn Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says why the answer is no.
fn no(why: &dyn Display) -> Exit {
    tell(&format_args!("error: {why}"));
    Exit::No
}

/// The component that is meant: this file, or what the folder's crate becomes.
fn component(named: Option<&Path>) -> Result<PathBuf, String> {
    match named {
        Some(file) => Ok(file.to_owned()),
        None => build::component(Path::new(".")),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// `1 case`, `2 cases`.
fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
