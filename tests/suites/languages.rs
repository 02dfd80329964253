//! The same plugin in JavaScript and in Python, built by its own language's tools as the guide says.

use crate::guide::target;
use gateway_tests::{
    Backend, TestGateway, has, one_route,
    pages::{block, blocks, checkout, with},
    plugin_table, skipped,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What tools say that cannot reach where their packages are.
const UNREACHABLE: [&str; 7] = [
    "ENOTFOUND",
    "ECONNREFUSED",
    "ETIMEDOUT",
    "EAI_AGAIN",
    "Temporary failure in name resolution",
    "Failed to establish a new connection",
    "Read timed out",
];

/// Follows the guide in a folder that keeps the language's tools from run to run. Returns the component, or none where
/// its tools cannot be had.
fn built(test: &str, language: &str, programs: &[&str]) -> Option<PathBuf> {
    if !has(test, programs) {
        return None;
    }
    let all = target().join("languages");
    let folder = all.join(language.to_lowercase());
    fs::create_dir_all(&folder).expect("a folder");
    let _ = fs::remove_dir_all(folder.join("wit"));
    let examples = checkout().join("examples/plugins");
    copy_files(&examples, &all);
    copy_files(&examples.join(language.to_lowercase()), &folder);
    let guide = blocks("docs/plugins.md");
    let commands = with(
        block(&guide, "sh", &format!("# {language}")),
        "../../../wit",
        &checkout().join("wit").display().to_string(),
    );
    let commands = with(&commands, "vers-gateway plugin", &format!("{} plugin", crate::DAEMON));
    let mut shell = Command::new("timeout");
    let output =
        shell.args(["300", "bash", "-euc", &commands]).current_dir(&folder).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if !output.status.success() && UNREACHABLE.iter().any(|words| said.contains(words)) {
        skipped(test, "the packages of its tools cannot be reached");
        return None;
    }
    assert!(output.status.success(), "{said}");
    assert!(said.contains("3 cases: 3 passed, 0 failed"), "{said}");
    Some(folder.join("team_gate.wasm"))
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("a file").path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
        }
    }
}

/// It stands on a route as any other one does.
async fn stands_on_a_route(component: &Path) {
    let backend = Backend::hello().await;
    let toml = |config: &str| {
        let table = plugin_table("gate", component, &format!("config = {{ {config} }}\n"));
        one_route(backend.addr(), &format!("plugins = [\"gate\"]\n{table}"))
    };
    let gateway = TestGateway::start(&toml("allowed = [\"red\"]"));
    let client = gateway.client();
    assert_eq!(client.clone().with("x-team", "red").get("/").await.text(), "hello");
    let refused = client.with("x-team", "blue").get("/").await;
    assert_eq!((refused.status.as_u16(), &*refused.text()), (403, "unknown team\n"));
    gateway.write(&toml("alowed = [\"red\"]"));
    let error = gateway.reload().await.expect_err("a wrong key").to_string();
    assert!(error.contains("no such key; expected `allowed`"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javascript() {
    if let Some(component) = built("languages::javascript", "JavaScript", &["npm", "node"]) {
        stands_on_a_route(&component).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python() {
    if let Some(component) = built("languages::python", "Python", &["python3", "pip3"]) {
        stands_on_a_route(&component).await;
    }
}
