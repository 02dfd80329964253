//! `plugin build`: from the crate in a folder to a component, by cargo.

use super::{Exit, inspect, no, print};
use crate::plugins;
use clap::Args;
use serde_json::Value;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What components are built for.
const TARGET: &str = "wasm32-wasip2";

/// `plugin build [FOLDER]`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Build {
    /// The folder of the crate
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

impl Build {
    pub(super) fn run(&self) -> Exit {
        let built = component(&self.folder).and_then(|file| {
            let bytes = super::read(&file)?;
            let found = plugins::inspect(&file.display().to_string(), &bytes);
            Ok((file, found.map_err(|error| error.to_string())?))
        });
        match built {
            Ok((file, found)) => {
                print(&format!("{:<10} {}\n{}", "component", file.display(), inspect::describe(&found)));
                Exit::Fine
            }
            Err(why) => no(&why),
        }
    }
}

/// Builds the crate in this folder, and says where the component is.
///
/// # Errors
/// Says what is wrong, where the compiler has not.
pub(super) fn component(folder: &Path) -> Result<PathBuf, String> {
    build(folder, &[])
}

/// The same; nothing is said but what is wrong.
///
/// # Errors
/// Says what is wrong, where the compiler has not.
pub(super) fn component_quietly(folder: &Path) -> Result<PathBuf, String> {
    build(folder, &["--quiet"])
}

fn build(folder: &Path, more: &[&str]) -> Result<PathBuf, String> {
    if !folder.join("Cargo.toml").is_file() {
        return Err(format!(
            "there is no Cargo.toml in {}; `vers-gateway plugin new NAME` makes a crate",
            folder.display()
        ));
    }
    has_target(folder)?;
    let mut cargo = Command::new(tool("CARGO", "cargo"));
    cargo.args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    cargo.args(more);
    // Components travel: line numbers would be two thirds of them. Function names stay.
    for (name, value) in
        [("CARGO_PROFILE_RELEASE_DEBUG", "false"), ("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")]
    {
        if env::var_os(name).is_none() {
            cargo.env(name, value);
        }
    }
    cargo.current_dir(folder).stderr(Stdio::inherit());
    let output = cargo.output().map_err(|error| format!("cargo does not start: {error}"))?;
    if !output.status.success() {
        return Err("it does not compile (see above)".to_owned());
    }
    let components = artifacts(&String::from_utf8_lossy(&output.stdout));
    match components.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err("no component was made; the crate needs `[lib] crate-type = [\"cdylib\"]`".to_owned()),
        several => {
            let names: Vec<_> = several.iter().map(|file| file.display().to_string()).collect();
            Err(format!("several components were made: {}; name a crate's folder", names.join(", ")))
        }
    }
}

/// The components among what cargo says that it has made.
fn artifacts(messages: &str) -> Vec<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let files = messages
        .filter(|message| message.get("reason").is_some_and(|reason| reason == "compiler-artifact"))
        .flat_map(|message| {
            let files = message.get("filenames").and_then(Value::as_array).cloned().unwrap_or_default();
            files.into_iter().filter_map(|file| file.as_str().map(PathBuf::from)).collect::<Vec<_>>()
        });
    files.filter(|file| file.extension().is_some_and(|extension| extension == "wasm")).collect()
}

/// Without the target's standard library, the compiler's words do not say what to do.
fn has_target(folder: &Path) -> Result<(), String> {
    let mut asked = Command::new(tool("RUSTC", "rustc"));
    asked.args(["--print", "target-libdir", "--target", TARGET]).current_dir(folder).stderr(Stdio::inherit());
    let said = asked.output().map_err(|error| format!("rustc does not start: {error}"))?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    if said.status.success() && libraries.is_dir() {
        return Ok(());
    }
    Err(format!(
        "this Rust toolchain cannot build components: run `rustup target add {TARGET}`, or `cargo xtask wasm` \
         in a checkout of the gateway"
    ))
}

/// The tool that the environment names, or the usual one.
fn tool(variable: &str, usual: &str) -> OsString {
    env::var_os(variable).unwrap_or_else(|| usual.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_found_among_what_cargo_says() {
        let said = r#"{"reason":"compiler-artifact","filenames":["/t/libserde.rlib"]}
{"reason":"compiler-artifact","filenames":["/t/teams.wasm","/t/libteams.rlib"]}
{"reason":"compiler-message","filenames":["/t/other.wasm"]}
{"reason":"build-finished","success":true}
no json"#;
        assert_eq!(artifacts(said), [PathBuf::from("/t/teams.wasm")]);
    }
}
