//! `vers-gateway registry`: what people read, what scripts read, and what it ends with.

use super::{gateway, register, text, vm};
use gateway_tests::{TestGateway, within};
use serde_json::Value;
use std::process::Stdio;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

fn command(gateway: &TestGateway, token: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(crate::DAEMON);
    command
        .arg("registry")
        .args(arguments)
        .env("VERS_REGISTRY_URL", format!("http://{}", gateway.addr_v4()))
        .env("FLEET", token)
        .env_remove("VERS_AUTH_TOKEN")
        .env_remove("VERS_VM_ID")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn says(gateway: &TestGateway, token: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let what = format!("the end of {arguments:?}");
    let output = within(&what, command(gateway, token, arguments).output()).await.expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_registered_listed_and_found() {
    let gateway = gateway("");
    let entry =
        ["register", "--id", "a", "--name", "n", "--address", "a.test", "--service", "api:3000/health"];
    let (code, out, err) = says(&gateway, "", &entry).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("ID") && out.contains("a.test") && out.contains("api:3000"), "{out}");
    let (code, out, _) = says(&gateway, "", &["discover", "worker", "--service", "api", "--json"]).await;
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &found["vms"][0]["services"][0]["healthPath"]), (Some(0), &"/health".into()));
    let (code, out, _) = says(&gateway, "", &["list", "--role", "infra"]).await;
    assert_eq!((code, out.lines().count()), (Some(0), 1), "{out}");
    assert!(!out.contains("WHY"), "{out}");
    let (code, out, err) = says(&gateway, "", &["get", "none"]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("404 Not Found: VM not found"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_stands_in_the_environment() {
    let toml = text("store = \"memory\"\ntoken = \"fleet\"\n[secret.fleet]\nfile = \"token\"");
    let gateway = TestGateway::with_files(&toml, &[("token", "s3cret")]);
    let (code, _, err) = says(&gateway, "wrong", &["list", "--token-env", "FLEET"]).await;
    assert!(code == Some(1) && err.contains("401 Unauthorized") && !err.contains("wrong"), "{err}");
    assert!(err.contains("the token in FLEET is not one of this registry"), "{err}");
    let (code, _, err) = says(&gateway, "", &["list", "--token-env", "FLEET"]).await;
    assert!(code == Some(1) && err.contains("it asks for a token, and FLEET has none"), "{err}");
    let (code, out, err) = says(&gateway, "s3cret", &["list", "--token-env", "FLEET"]).await;
    assert_eq!((code, err.as_str()), (Some(0), "vers-gateway: no such VM\n"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_way_is_said_in_words() {
    let gateway = gateway("");
    let nobody = format!("http://{}", gateway_tests::Backend::nobody().await);
    let no_tls = format!("https://{}", gateway.addr_v4());
    for (arguments, code, expected) in [
        (&["list", "--url", &*nobody][..], 1, "nobody listens there: connection refused"),
        (&["list", "--url", &no_tls], 1, "is it http:// and not https://?"),
        (&["list", "--url", "infra.vm.example.com"], 1, "is not a URL such as https://"),
        (&["list", "--url", &format!("http://{}/other", gateway.addr_v4())], 1, "404 Not Found"),
        (&["list", "--url", ""], 1, "which registry? --url URL, or VERS_REGISTRY_URL"),
        (&["discover", "wrker"], 2, "'worker'"),
        (&["list", "--status", "runing"], 2, "'running'"),
        (&["discover", "worker", "--pick", "best"], 2, "first, random"),
        (
            &["register", "--id", "a b", "--name", "n", "--address", "a.test"],
            1,
            "400 Bad Request: id may have",
        ),
        (
            &["register", "--id", "a", "--name", "n", "--address", "a.test", "--service", "api"],
            2,
            "api:3000/health",
        ),
        (
            &["register", "--id", "a", "--name", "n", "--address", "a.test", "--ttl", "soon"],
            1,
            "400 Bad Request: ttl",
        ),
        (&["discover", "golden"], 0, "no such VM"),
    ] {
        let (ended, _, err) = says(&gateway, "", arguments).await;
        assert!(ended == Some(code) && err.contains(expected), "{arguments:?}: {ended:?} {err}");
    }
    // Scripts read that there is none.
    let (code, out, err) = says(&gateway, "", &["discover", "golden", "--json"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_shown_as_they_come() {
    let gateway = gateway("");
    let mut watching =
        command(&gateway, "", &["watch", "--json"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(watching.stdout.take().expect("its output")).lines();
    gateway_tests::eventually("a watcher", async || {
        (gateway.metric("vers_registry_watchers", &[]).await == 1.0).then_some(())
    })
    .await;
    for id in ["a", "b"] {
        register(&gateway.client(), &vm(id)).await;
        let line = within("the change", lines.next_line()).await.expect("text").expect("a line");
        let change: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&change["kind"], &change["vm"]["id"]), (&"put".into(), &id.into()));
    }
}
