//! A test in a network of its own: its ports are nobody else's, and rules of the kernel can be set. What it
//! mounts is its own, too.

use std::process::Command;

/// Set in the process that is in the namespace.
const INSIDE: &str = "VERS_TEST_NAMESPACE";

/// Runs this test in a namespace of networks and mounts: returns true there, and false here once it has passed there.
/// `needs` are programs without which it cannot be run, and is skipped with a word about that.
///
/// # Panics
/// Panics where it fails there.
pub fn in_namespace(test: &str, needs: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let missing = |program: &&&str| {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        !found.is_ok_and(|output| output.status.success())
    };
    if let Some(program) = needs.iter().chain(&["unshare", "ip"]).find(missing) {
        skipped(test, &format!("there is no `{program}`"));
        return false;
    }
    let may = Command::new("unshare").args(["--net", "--mount", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        skipped(test, "there is no right to a namespace");
        return false;
    }
    let program = std::env::current_exe().expect("this program");
    let script = format!("ip link set lo up && exec '{}' --exact '{test}' --nocapture", program.display());
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", &script])
        .env(INSIDE, "1")
        .output()
        .expect("a process in a namespace");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "in a namespace:\n{said}\n{complained}");
    assert!(said.contains("1 passed"), "`{test}` is not the name of this test:\n{said}");
    false
}

/// Runs a program that must succeed.
///
/// # Panics
/// Panics with what it said where it does not.
pub fn must_run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("the program starts");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {complained}");
}

fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
}
