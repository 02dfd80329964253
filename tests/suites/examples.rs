//! Every file in `examples/` starts as it stands there; only its ports are others.

use gateway_tests::{Etcd, TestGateway, eventually, plugin};
use std::{
    fs,
    path::{Path, PathBuf},
};
use vers_gateway::server;

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let entries = fs::read_dir(folder).expect("the examples");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() > 3, "the examples are somewhere else: {files:?}");
    files
}

/// The registry that an example names stands outside; here nobody answers, which is no reason not to
/// start.
const REGISTRY: &str = "https://infra.vm.example.com:3000";

/// Nor does the authority that an example orders certificates from.
const AUTHORITY: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Nor does the etcd that an example keeps its registry in.
const ETCD: [&str; 3] =
    ["http://etcd-a.internal:2379", "http://etcd-b.internal:2379", "http://etcd-c.internal:2379"];

#[tokio::test]
async fn every_example_starts() {
    let components = plugin("auth_token").parent().expect("a folder").display().to_string();
    for path in examples() {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("the example");
        let text = text
            .replace("../target/wasm32-wasip2/release", &components)
            .replace(REGISTRY, "http://127.0.0.1:1")
            .replace(AUTHORITY, "https://127.0.0.1:1");
        let text = ETCD
            .iter()
            .zip(1..)
            .fold(text, |text, (member, port)| text.replace(member, &format!("http://127.0.0.1:{port}")));
        let listeners = text.matches("[[listener]]").count();
        let gateway = TestGateway::start(&on_free_ports(&text));
        assert_eq!(gateway.admin().get("/readyz").await.status, 200, "{name}");
        let status = gateway.status().await;
        assert_eq!(status["listeners"].as_array().map(Vec::len), Some(listeners), "{name}: {status}");
        assert_eq!(
            status["routes"].as_array().map(Vec::len),
            Some(text.matches("[[route]]").count()),
            "{name}"
        );
    }
}

/// Without its etcd it starts all the same, says so, and is the registry once that is there.
#[tokio::test]
async fn the_example_of_a_registry_in_etcd_says_what_is_missing_and_recovers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/registry-etcd.toml");
    let text = fs::read_to_string(path).expect("the example");
    let with = |members: [String; 3]| {
        ETCD.iter().zip(members).fold(on_free_ports(&text), |text, (member, url)| text.replace(member, &url))
    };
    // Its token has no value here, so whoever asks is told so only by `/health` and by operators.
    let gateway = TestGateway::start(&with([1, 2, 3].map(|port| format!("http://127.0.0.1:{port}"))));
    assert_eq!(gateway.client().get("/health").await.status, 200);
    let registry = gateway.status().await["registry"].clone();
    assert_eq!(registry["lost"], true, "{registry}");
    assert!(registry["trouble"].as_str().is_some_and(|why| why.contains("127.0.0.1")), "{registry}");
    let Some(etcd) = Etcd::cluster("the_example_of_a_registry_in_etcd", 3).await else { return };
    gateway.write(&with([0, 1, 2].map(|index| etcd.url(index))));
    gateway.reload().await.expect("a reload");
    let found = async || (gateway.status().await["registry"]["lost"] == false).then_some(());
    eventually("the registry", found).await;
}

#[test]
fn no_example_gives_a_warning() {
    // Components are built for it; where it expects them, beside the checkout, they need not be.
    let components = plugin("auth_token").parent().expect("a folder").display().to_string();
    for path in examples() {
        let text = fs::read_to_string(&path).expect("the example");
        let folder = tempfile::tempdir().expect("a folder");
        let copy = folder.path().join("example.toml");
        fs::write(&copy, text.replace("../target/wasm32-wasip2/release", &components)).expect("a copy");
        match server::check(&copy, false) {
            Ok(checked) => assert_eq!(checked.warnings, "", "{}", path.display()),
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

/// Gives every listener a free port, on an address of loopback of its own.
fn on_free_ports(text: &str) -> String {
    let mut next = 0;
    let lines = text.lines().map(|line| {
        if !line.starts_with("address = ") {
            return line.to_owned();
        }
        next += 1;
        format!("address = \"127.0.0.{next}:0\"")
    });
    lines.collect::<Vec<_>>().join("\n")
}
