//! Tests that this machine cannot run, and how that is said.

use std::{
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// Whether these programs are here, without which a test cannot be run. Where one is not, that is said.
///
/// # Panics
/// Panics where continuous integration runs, and could have had it.
pub fn has(test: &str, programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| !is_there(program));
    missing.inspect(|program| lacks(test, program)).is_none()
}

/// Says that a test was not run, for want of a program.
///
/// # Panics
/// Panics where continuous integration runs, and could have had it: `.ci/run` installs what tests need
/// where it is root and there is an apt-get.
pub fn lacks(test: &str, program: &str) {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    let could_have = is_root && is_there("apt-get");
    assert!(std::env::var_os("CI").is_none() || !could_have, "{test} needs {program} where CI is set");
    skipped(test, &format!("there is no `{program}`"));
}

/// Says that a test was not run, where nobody can overlook it: not by a macro, whose words nobody sees of
/// a test that passes.
pub fn skipped(test: &str, why: &str) {
    // Standard error that is closed has no reader.
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
}

/// By its path, or where programs are.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Path::new(program).is_absolute() && Path::new(program).exists()
        || std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
