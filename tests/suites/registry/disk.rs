//! A disk that takes nothing for a while: nobody is told otherwise, and all is kept once it takes something again.

use super::{call, register, text, vm};
use gateway_tests::{Client, GatewayProcess, eventually};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use std::{os::unix::fs::PermissionsExt, path::Path};

/// The daemon, which is told of a file that may not grow by an error, and is not killed for it.
fn daemon(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("daemon");
    let script = format!("#!/bin/sh\ntrap '' XFSZ\nexec '{}' \"$@\"\n", crate::DAEMON);
    std::fs::write(&path, script).expect("a script");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it may be run");
    path
}

/// So many bytes may a file of it have; any number where there is none. The disk is full at 0.
fn limit_files(gateway: &GatewayProcess, bytes: Option<u64>) {
    let pid = i32::try_from(gateway.id()).ok().and_then(Pid::from_raw).expect("a process");
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(Some(pid), Resource::Fsize, limit).expect("a limit");
}

async fn ids(client: &Client) -> Vec<String> {
    let (_, listed) = call(client, "GET", "/registry/vms", &Value::Null).await;
    let mut ids: Vec<String> = super::ids(&listed).into_iter().map(str::to_owned).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_full_is_written_to_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("registry.redb");
    let daemon = daemon(folder.path());
    let toml = text(&format!("store = \"file:{}\"", store.display()));
    let mut gateway = GatewayProcess::start(&daemon, &toml).await;
    let client = Client::new(gateway.addr_of("[::]:0").await);
    register(&client, &vm("a")).await;
    register(&client, &vm("b")).await;

    limit_files(&gateway, Some(0));
    assert_eq!(call(&client, "POST", "/registry/vms", &vm("c")).await.0, 503);
    let delete = async || call(&client, "DELETE", "/registry/vms/a", &Value::Null).await;
    for time in ["first", "second", "third"] {
        let (status, said) = delete().await;
        assert_eq!(status, 503, "the {time} time: {said}");
    }
    let heartbeat = call(&client, "POST", "/registry/vms/a/heartbeat", &Value::Null).await;
    assert_eq!(heartbeat.0, 503, "{heartbeat:?}");

    limit_files(&gateway, None);
    let gone = async || Some(delete().await).filter(|(status, _)| *status != 503);
    let (status, said) = eventually("that it is kept", gone).await;
    assert_eq!((status, &said["deleted"]), (404, &json!(true)), "{said}");
    register(&client, &vm("d")).await;
    gateway.signal(rustix::process::Signal::KILL);
    gateway.ended().await;
    let gateway = GatewayProcess::start(&daemon, &toml).await;
    let client = Client::new(gateway.addr_of("[::]:0").await);
    assert_eq!(ids(&client).await, ["b", "c", "d"]);
}
