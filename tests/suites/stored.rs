//! Components that were built for older versions of the interface: they run, as they did.

use gateway_tests::{
    Backend, Raw, TestGateway, assert_told, eventually, one_route, pages::checkout, plugin_table,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn folder() -> PathBuf {
    checkout().join("tests/components")
}

/// What each of them is tried by.
const TRIED: [&str; 9] = [
    "0.1.0/audit.wasm",
    "0.1.0/body_edit.wasm",
    "0.1.0/canary.wasm",
    "0.1.0/echo.wasm",
    "0.1.0/heartbeat.wasm",
    "0.1.0/rate_limit.wasm",
    "0.1.0/tcp_audit.wasm",
    "0.1.0/tcp_gate.wasm",
    "0.1.0/transform.wasm",
];

fn gateway(backend: &Backend, component: &str, more: &str, files: &[(&str, &str)]) -> TestGateway {
    let table = plugin_table("it", &folder().join(component), more);
    TestGateway::with_files(&one_route(backend.addr(), &format!("plugins = [\"it\"]\n{table}")), files)
}

/// A TCP route with it.
fn tcp_gateway(backend: &Backend, component: &str, more: &str) -> TestGateway {
    TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"raw\"\nprotocol = \"tcp\"\nto = \"{}\"\n\
         plugins = [\"it\"]\n{}",
        backend.addr(),
        plugin_table("it", &folder().join(component), more)
    ))
}

/// The version in a component's own words.
fn version(component: &Path) -> String {
    let output = Command::new(crate::DAEMON).args(["plugin", "inspect", "--json"]).arg(component).output();
    let output = output.expect("it starts");
    assert!(output.status.success(), "{}: {output:?}", component.display());
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    said["interface"].as_str().expect("a version").to_owned()
}

#[test]
fn each_stored_component_has_a_trial_and_is_of_its_folders_version() {
    let mut found = BTreeSet::new();
    for folder in fs::read_dir(folder()).expect("the folder").flatten().filter(|entry| entry.path().is_dir())
    {
        let name = folder.file_name().to_string_lossy().into_owned();
        for file in fs::read_dir(folder.path()).expect("a folder").flatten() {
            assert_eq!(version(&file.path()), name, "{}", file.path().display());
            found.insert(format!("{name}/{}", file.file_name().to_string_lossy()));
        }
    }
    assert_eq!(found, TRIED.map(str::to_owned).into());
}

#[tokio::test]
async fn filters_of_0_1_0_see_requests_and_answers() {
    let backend = Backend::hello().await;
    let gateway = gateway(&backend, "0.1.0/echo.wasm", "", &[]);
    assert_eq!(gateway.client().with("x-tag", "a tag").get("/").await.header("x-tag"), "a tag");
    assert_eq!(gateway.client().get("/").await.header("x-tag"), "");
}

#[tokio::test]
async fn background_work_of_0_1_0_sends_requests_with_secrets() {
    let (backend, listener) = (Backend::hello().await, Backend::hello().await);
    let more = format!(
        "grants = {{ http = [\"http://{0}\"], secrets = [\"beat\"] }}\n\
         config = {{ url = \"http://{0}/beat\", seconds = 1, secret = \"beat\" }}\n\
         [secret.beat]\nfile = \"beat.txt\"\n",
        listener.addr()
    );
    let _gateway = gateway(&backend, "0.1.0/heartbeat.wasm", &more, &[("beat.txt", "s3cret")]);
    eventually("two heartbeats", async || (listener.heard().len() >= 2).then_some(())).await;
    assert_eq!(listener.last().header("authorization"), "Bearer s3cret");
}

#[tokio::test]
async fn filters_of_0_1_0_keep_values_from_request_to_request() {
    let backend = Backend::hello().await;
    let more = "grants = { kv = \"64KiB\" }\nconfig = { requests = 2, per = \"60m\" }\n";
    let gateway = gateway(&backend, "0.1.0/rate_limit.wasm", more, &[]);
    for expected in [200, 200, 429] {
        assert_eq!(gateway.client().get("/").await.status.as_u16(), expected);
    }
    assert_ne!(gateway.client().get("/").await.header("retry-after"), "");
}

#[tokio::test]
async fn filters_of_0_1_0_see_bodies_replace_them_and_answer() {
    let (backend, other) = (Backend::echo().await, Backend::named("the other one").await);
    let more = format!("grants = {{ backends = [\"{0}\"] }}\nconfig = {{ to = \"{0}\" }}\n", other.addr());
    let gateway = gateway(&backend, "0.1.0/body_edit.wasm", &more, &[]);
    let client = gateway.client().with("x-body", "100");
    assert_eq!(client.post("/", "abc").await.text(), "cba");
    assert_eq!(backend.last().header("x-bytes"), "3");
    assert_eq!(client.post("/", "refuse").await.status, 422);
    assert_eq!(client.post("/", "route").await.text(), "the other one");
    assert_eq!(gateway.client().post("/", "abc").await.text(), "abc", "nobody asks for this one");
}

#[tokio::test]
async fn filters_of_0_1_0_choose_backends() {
    let (backend, other) = (Backend::hello().await, Backend::named("the other one").await);
    let to = other.addr();
    let more = format!(
        "grants = {{ backends = [\"{to}\"] }}\nconfig = {{ to = \"{to}\", header = {{ name = \"x-canary\" }} }}\n"
    );
    let gateway = gateway(&backend, "0.1.0/canary.wasm", &more, &[]);
    assert_eq!(gateway.client().with("x-canary", "1").get("/").await.text(), "the other one");
    assert_eq!(gateway.client().get("/").await.text(), "hello");
}

#[tokio::test]
async fn what_is_over_is_shown_to_logs_of_0_1_0_and_counted_in_their_metrics() {
    let (backend, collector) = (Backend::hello().await, Backend::hello().await);
    let url = format!("http://{}", collector.addr());
    let more = format!("grants = {{ http = [\"{url}\"] }}\nconfig = {{ url = \"{url}/\" }}\n");
    let gateway = gateway(&backend, "0.1.0/audit.wasm", &more, &[]);
    assert_eq!(gateway.client().with("x-tag", "t1").post("/up", "12345").await.status, 200);
    let told = eventually("what is over", async || collector.heard().first().cloned()).await;
    let told = String::from_utf8(told.body.to_vec()).expect("text");
    for line in ["tag: t1", "path: /up", "status: 200", "request-bytes: 5", "response-bytes: 5"] {
        assert!(told.lines().any(|said| said == line), "{line:?} is missing in\n{told}");
    }
    let labels = ["plugin=\"it\"", "status=\"200\"", "path=\"/up\""];
    assert_eq!(gateway.metric("vers_plugin_custom_exchanges_total", &labels).await, 1.0);
}

#[tokio::test]
async fn bodies_are_transformed_both_ways_by_those_of_0_1_0() {
    let backend = Backend::echo().await;
    let gateway =
        gateway(&backend, "0.1.0/transform.wasm", "config = { how = \"upper\", tail = \"!\" }\n", &[]);
    assert_eq!(gateway.client().post("/", "one two").await.text(), "ONE TWO!!");
    assert_eq!(backend.last().body, "ONE TWO!");
    // What becomes more than can be returned at once, and what is broken off.
    let burst = gateway.client().with("x-transform", "burst").post("/", "x").await;
    assert_eq!((burst.status.as_u16(), burst.text().len()), (200, (10 << 20) + 2));
    assert_eq!(
        gateway.client().with("x-transform", "refuse").post("/", "x".repeat(200_000)).await.status,
        503
    );
}

#[tokio::test]
async fn connections_are_let_in_and_looked_at_by_filters_of_0_1_0() {
    let (backend, other) = (Backend::tcp_echo().await, Backend::canned("the other one").await);
    let more = format!(
        "grants = {{ backends = [\"{0}\"] }}\nconfig = {{ accept = \"peek\", least = 3, to = \"{0}\" }}\n",
        other.addr()
    );
    let gateway = tcp_gateway(&backend, "0.1.0/tcp_gate.wasm", &more);
    for (bytes, expected) in [
        ("hello there", "hello there"),
        ("ALT\r\n\r\n", "the other one"),
        ("BAD", ""),
        ("N\u{3}abc", "N\u{3}abc"),
    ] {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(bytes).await;
        client.finish().await;
        assert_eq!(client.to_end().await, expected, "{bytes:?}");
    }
}

#[tokio::test]
async fn logs_of_0_1_0_are_told_of_connections() {
    let (backend, collector) = (Backend::tcp_echo().await, Backend::hello().await);
    let url = format!("http://{}", collector.addr());
    let more = format!("config = {{ url = \"{url}/\" }}\ngrants = {{ http = [\"{url}\"] }}\n");
    let gateway = tcp_gateway(&backend, "0.1.0/tcp_audit.wasm", &more);
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("question").await;
    client.finish().await;
    assert_eq!(client.to_end().await, "question");
    let lines = ["tls: false", "route: raw", "sent: 8", "received: 8", "why: closed"];
    assert_told(&collector.told(0).await, &lines);
}
