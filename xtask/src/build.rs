//! What is built, and how: plugins for wasm32-wasip2, everything else for this machine.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Result, tree};

const PLUGINS: [&str; 9] = [
    "auth-token",
    "basic-auth",
    "canary",
    "cors",
    "header-inject",
    "ip-allow",
    "jwt",
    "rate-limit",
    "registry-register",
];
const COMPONENTS: [&str; 4] = ["build", "--release", "--target", "wasm32-wasip2"];
/// Components travel: line numbers would be two thirds of them. Function names stay.
const SMALL: [(&str, &str); 2] =
    [("CARGO_PROFILE_RELEASE_DEBUG", "false"), ("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")];
/// The tests' misbehaving plugins mean something only in a sandbox.
const NATIVE: [&str; 5] = ["--workspace", "--exclude", "guests", "--exclude", "origins"];

/// Makes the toolchain able to build plugins, and says how where that takes another compiler.
pub(crate) fn wasm() -> Result {
    let compiler = wasm_target()?.map(|compiler| format!("RUSTC='{}' ", compiler.display()));
    println!("{}cargo build --release --target wasm32-wasip2", compiler.unwrap_or_default());
    Ok(())
}

/// Names the compiler for plugins, if it is not the usual one.
fn wasm_target() -> Result<Option<PathBuf>> {
    let script = tree::root().join("xtask/ensure-wasm.sh");
    let said = Command::new("bash").arg(script).current_dir(tree::root()).stderr(Stdio::inherit()).output();
    let said = said.map_err(|error| format!("bash does not start: {error}"))?;
    if !said.status.success() {
        return Err("there is no way to build plugins here (see above)".into());
    }
    let compiler = String::from_utf8(said.stdout)?;
    Ok(Some(compiler.trim()).filter(|path| !path.is_empty()).map(PathBuf::from))
}

pub(crate) fn plugins() -> Result {
    first_party(wasm_target()?.as_deref())
}

pub(crate) fn plugins_and_guests() -> Result {
    let compiler = wasm_target()?;
    first_party(compiler.as_deref())?;
    // Apart from the others: what guests need must not change how the plugins are compiled.
    components(compiler.as_deref(), &["--package", "guests", "--examples"])?;
    components(compiler.as_deref(), &["--package", "origins", "--examples"])
}

pub(crate) fn test(arguments: &[&str]) -> Result {
    plugins_and_guests()?;
    let for_cargo = arguments.iter().take_while(|it| **it != "--");
    let names_packages = for_cargo.into_iter().any(|it| it.starts_with("-p") || it.starts_with("--package"));
    let packages: &[&str] = if names_packages { &[] } else { &NATIVE };
    run(cargo().arg("test").args(packages).args(arguments))
}

pub(crate) fn gateway() -> Result {
    // Selected like the tests, so that both share what is compiled.
    run(cargo().arg("build").args(NATIVE).args(["--bin", "vers-gateway"]))
}

/// The gateway for counting instructions: optimised itself, over the dependencies that the tests have
/// compiled. In one unit, so that a change here does not move what is inlined there.
pub(crate) fn counted() -> Result<PathBuf> {
    const SETTINGS: [&str; 4] =
        ["opt-level=3", "codegen-units=1", "debug-assertions=false", "overflow-checks=false"];
    let mut build = cargo();
    build.arg("build").args(NATIVE).args(["--bin", "vers-gateway"]).env("CARGO_INCREMENTAL", "0");
    for setting in SETTINGS {
        build.arg("--config").arg(format!("profile.dev.package.vers-gateway.{setting}"));
    }
    run(&mut build)?;
    // The next build of the gateway takes its place.
    let kept = tree::target().join("instructions/vers-gateway");
    fs::create_dir_all(tree::target().join("instructions"))?;
    fs::copy(tree::gateway(), &kept)?;
    Ok(kept)
}

/// The soak against the release build, where somebody made one; else against the tests' daemon.
pub(crate) fn soak(arguments: &[&str]) -> Result {
    plugins()?;
    let mut soak = cargo();
    soak.args(["test", "--package", "gateway-tests", "--test", "soak", "--"]).args(arguments);
    let release = tree::target().join("release/vers-gateway");
    if release.is_file() {
        soak.arg("--daemon").arg(release);
    }
    run(&mut soak)
}

fn first_party(compiler: Option<&Path>) -> Result {
    let packages = PLUGINS.iter().flat_map(|name| ["--package", name]);
    components(compiler, &packages.collect::<Vec<_>>())?;
    for name in PLUGINS {
        let file = tree::components().join(name.replace('-', "_")).with_extension("wasm");
        let size = fs::metadata(&file).map_err(|error| format!("{}: {error}", file.display()))?.len();
        eprintln!("  component  {} ({} KiB)", tree::shown(&file), size.div_ceil(1024));
    }
    Ok(())
}

fn components(compiler: Option<&Path>, what: &[&str]) -> Result {
    forget_another_std(compiler)?;
    let mut cargo = cargo();
    cargo.args(COMPONENTS).args(what).envs(SMALL);
    if let Some(compiler) = compiler {
        cargo.env("RUSTC", compiler);
    }
    run(&mut cargo)
}

/// Removes what was compiled against another standard library. Cargo does not notice when the
/// target's library comes from elsewhere, and the compiler then refuses what is there.
fn forget_another_std(compiler: Option<&Path>) -> Result {
    let rustc =
        compiler.map_or_else(|| env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()), OsString::from);
    let asked = ["--print", "target-libdir", "--target", "wasm32-wasip2"];
    let said = Command::new(rustc).args(asked).current_dir(tree::root()).output()?;
    let libraries = fs::read_dir(String::from_utf8(said.stdout)?.trim())?.flatten();
    let names = libraries.map(|file| file.file_name().to_string_lossy().into_owned());
    let core: String = names.filter(|name| name.starts_with("libcore-")).collect();
    let built = tree::target().join("wasm32-wasip2");
    let stamp = built.join("standard-library");
    if fs::read_to_string(&stamp).is_ok_and(|known| known == core) {
        return Ok(());
    }
    if built.exists() {
        eprintln!("the standard library for wasm32-wasip2 is another one now: building all anew");
        fs::remove_dir_all(&built)?;
    }
    fs::create_dir_all(&built)?;
    Ok(fs::write(stamp, core)?)
}

/// Cargo in the workspace, as if typed at a terminal: without what the cargo that runs this program
/// set for it, which would make some build scripts run again and again.
fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_this_crate = |name: &OsString| {
        let name = name.to_string_lossy();
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix))
    };
    for (name, _) in env::vars_os().filter(|(name, _)| of_this_crate(name)) {
        cargo.env_remove(name);
    }
    cargo.current_dir(tree::root()).env("CARGO_TARGET_DIR", tree::target());
    cargo
}

fn run(command: &mut Command) -> Result {
    let status = command.status().map_err(|error| format!("cargo does not start: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    Err(format!("`cargo {}` failed", arguments.join(" ")).into())
}
