//! What an authority is not asked for: what could not be kept, what failed just now, what strangers make up.

use futures_util::future::join_all;
use gateway_tests::{Backend, GatewayProcess, NameServer, Pki, Says, TestGateway, eventually, settled};
use rustix::process::Signal;
use serde_json::Value;
use std::{net::SocketAddr, path::Path, time::Duration};

/// A gateway that orders from this authority. Its keys of `acme`, and what else the file has.
fn toml(authority: SocketAddr, acme: &str, more: &str) -> String {
    format!(
        "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\ntls = true\n\
         [[route]]\nhost = \"{{vm}}.vm.example.com\"\nto = \"127.0.0.1:9\"\n\
         [certificate.web]\nacme = {{ directory = \"https://{authority}/\", terms_agreed = true, {acme} }}\n{more}"
    )
}

/// An authority that closes every connection: each order has one, and then fails.
async fn closing() -> Backend {
    Backend::tcp(|_| async {}).await
}

fn keeping(state: &Path) -> String {
    format!("[gateway]\nworkers = 1\nstate_dir = \"{}\"\n", state.display())
}

async fn orders(gateway: &TestGateway, outcome: &str) -> f64 {
    gateway.metric("vers_acme_orders_total", &[&format!("outcome=\"{outcome}\"")]).await
}

async fn failed(gateway: &TestGateway, count: f64) {
    eventually("a failure", async || (orders(gateway, "failed").await == count).then_some(())).await;
}

/// Orders that the authority has seen, when no more come.
async fn seen(authority: &Backend) -> usize {
    settled("orders", async || authority.connections()).await
}

/// Whether the next order waits for so many minutes, up to a quarter more by chance; what has passed of that
/// since is less than half a minute.
async fn waits_for(gateway: &TestGateway, minutes: u64) -> bool {
    let status = gateway.status().await;
    let text = status["certificates"][0]["next_order"].as_str().expect("a time").to_owned();
    let next = humantime::parse_rfc3339(&text).expect("a time");
    let left = next.duration_since(std::time::SystemTime::now()).unwrap_or_default().as_secs();
    let whole = 60 * minutes;
    (whole - 30..=whole * 5 / 4).contains(&left)
}

#[tokio::test]
async fn nothing_is_asked_for_that_could_not_be_kept() {
    let authority = closing().await;
    // Where the folder should be, or one in it, there is a file.
    for spoiled in ["state", "state/acme"] {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        let file = folder.path().join(spoiled);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder is made");
        std::fs::write(&file, "").expect("a file is written");
        let before = authority.connections();
        let names = "domains = [\"a.example.com\"]";
        let gateway = TestGateway::start(&toml(authority.addr(), names, &keeping(&state)));
        eventually("a problem", async || (orders(&gateway, "withheld").await == 1.0).then_some(())).await;
        assert_eq!(seen(&authority).await, before, "{spoiled}");
        assert_eq!(orders(&gateway, "withheld").await, 1.0, "and it is not looked at again at once");
        assert_eq!(orders(&gateway, "failed").await, 0.0);
        assert_eq!(gateway.metric("vers_certificate_problem", &["certificate=\"web\""]).await, 1.0);
        let problem =
            gateway.status().await["certificates"][0]["problem"].as_str().unwrap_or_default().to_owned();
        assert!(problem.contains("could not be kept in") && problem.contains("state"), "{problem}");
        assert!(waits_for(&gateway, 1).await);
        // It is looked at again with the next configuration.
        std::fs::remove_file(&file).expect("a file is removed");
        let more = format!("{names}, orders_per_hour = 7");
        gateway.write(&toml(authority.addr(), &more, &keeping(&state)));
        gateway.reload().await.expect("a reload");
        failed(&gateway, 1.0).await;
        gateway.stop(Duration::ZERO).await;
    }
}

/// A name may be longer than that of a file.
#[tokio::test]
async fn a_name_that_cannot_be_kept_keeps_nobody_waiting() {
    let authority = closing().await;
    let acme = "on_demand = [\"*.vm.example.com\"]";
    let gateway = TestGateway::start(&toml(authority.addr(), acme, ""));
    let label = "x".repeat(60);
    let long = [label.as_str(); 3].join(".") + &".y".repeat(26);
    for vm in [&*long, "known"] {
        ask_for(gateway.addr_of("tls"), vm).await;
    }
    failed(&gateway, 1.0).await;
    assert_eq!(orders(&gateway, "withheld").await, 0.0);
    assert_eq!(seen(&authority).await, 1);
}

/// The folder of this name, wherever it is below.
fn folder_below(above: &Path, name: &str) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(above).ok()?.flatten().map(|entry| entry.path());
    let folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    let here = folders.iter().find(|path| path.ends_with(name)).cloned();
    here.or_else(|| folders.iter().find_map(|folder| folder_below(folder, name)))
}

#[tokio::test]
async fn a_name_that_has_no_place_holds_up_no_other() {
    let authority = closing().await;
    let state = tempfile::tempdir().expect("a folder");
    let acme = "on_demand = [\"*.vm.example.com\"]";
    let gateway = TestGateway::start(&toml(authority.addr(), acme, &keeping(state.path())));
    ask_for(gateway.addr_of("tls"), "first").await;
    failed(&gateway, 1.0).await;
    let kept = folder_below(state.path(), "on-demand").expect("the folder of names");
    std::fs::create_dir(kept.join("blocked.vm.example.com.pem")).expect("a folder in its place");
    ask_for(gateway.addr_of("tls"), "blocked").await;
    eventually("a problem", async || (orders(&gateway, "withheld").await == 1.0).then_some(())).await;
    ask_for(gateway.addr_of("tls"), "another").await;
    failed(&gateway, 2.0).await;
    assert_eq!(seen(&authority).await, 2);
}

#[tokio::test]
async fn neither_a_restart_nor_another_configuration_shortens_the_pause_after_a_failure() {
    let authority = closing().await;
    let folder = tempfile::tempdir().expect("a folder");
    let more = keeping(folder.path());
    let one = "domains = [\"a.example.com\"], on_demand = [\"*.vm.example.com\"]";
    let gateway = TestGateway::start(&toml(authority.addr(), one, &more));
    failed(&gateway, 1.0).await;
    let client = Pki::new().client("b.vm.example.com");
    client.connect(gateway.addr_of("tls")).await.expect_err("no certificate");
    failed(&gateway, 2.0).await;
    gateway.stop(Duration::ZERO).await;
    let gateway = TestGateway::start(&toml(authority.addr(), one, &more));
    client.connect(gateway.addr_of("tls")).await.expect_err("no certificate");
    assert_eq!(seen(&authority).await, 2, "after a restart");
    assert!(waits_for(&gateway, 1).await);
    gateway.write(&toml(authority.addr(), &format!("{one}, email = \"a@example.com\""), &more));
    gateway.reload().await.expect("a reload");
    assert_eq!(seen(&authority).await, 2, "after a change");
    // Other names are another matter, but for the rate.
    let another = |name: &str| format!("domains = [\"{name}.example.com\"], orders_per_hour = 3");
    gateway.write(&toml(authority.addr(), &another("c"), &more));
    gateway.reload().await.expect("a reload");
    eventually("another order", async || (authority.connections() == 3).then_some(())).await;
    gateway.stop(Duration::ZERO).await;
    let gateway = TestGateway::start(&toml(authority.addr(), &another("d"), &more));
    assert_eq!(seen(&authority).await, 3, "beyond the rate");
    assert!(waits_for(&gateway, 60).await, "{}", gateway.status().await);
}

#[tokio::test]
async fn an_order_in_which_the_gateway_dies_has_failed() {
    let (authority, mut visitors) = Backend::by_hand().await;
    let folder = tempfile::tempdir().expect("a folder");
    let toml = toml(authority.addr(), "domains = [\"a.example.com\"]", &keeping(folder.path()));
    let mut gateway = GatewayProcess::start(crate::DAEMON, &toml).await;
    let _order = visitors.next().await;
    gateway.signal(Signal::KILL);
    gateway.ended().await;
    let _gateway = GatewayProcess::start(crate::DAEMON, &toml).await;
    assert_eq!(seen(&authority).await, 1);
}

/// A fleet in DNS that says nothing of VMs that there are not.
async fn fleet() -> (NameServer, String) {
    let dns = NameServer::start().await;
    dns.knows("known.internal", &["::1"], 60);
    dns.says(Says::OnlyWhatItKnows);
    let servers = format!("nameservers = [\"{}\"]\ntimeouts = {{ lookup = \"60s\" }}\n", dns.addr());
    (dns, format!("[vms]\nnetworks = [\"::1/128\"]\ndns = \"{{vm}}.internal\"\n{servers}"))
}

/// Certificates for VMs, from this authority.
fn of_vms(authority: &Backend, fleet: &str) -> String {
    let acme = "on_demand = [\"{vm}.vm.example.com\"]";
    toml(authority.addr(), acme, fleet).replace("127.0.0.1:9", "vm:{vm}:80")
}

async fn ask_for(address: SocketAddr, vm: &str) {
    let client = Pki::new().client(&format!("{vm}.vm.example.com"));
    client.connect(address).await.expect_err("no certificate");
}

#[tokio::test]
async fn names_that_somebody_makes_up_do_not_hold_up_that_of_a_vm() {
    let (authority, (dns, fleet)) = (closing().await, fleet().await);
    let gateway = TestGateway::start(&of_vms(&authority, &fleet));
    for number in 0..40 {
        ask_for(gateway.addr_of("tls"), &format!("made-up-{number}")).await;
    }
    ask_for(gateway.addr_of("tls"), "known").await;
    failed(&gateway, 1.0).await;
    assert_eq!(seen(&authority).await, 1);
    dns.says(Says::WhatItKnows);
    ask_for(gateway.addr_of("tls"), "unknown").await;
    let refused = async || gateway.metric("vers_acme_names_refused_total", &["reason=\"unknown\""]).await;
    eventually("a refusal", async || (refused().await == 1.0).then_some(())).await;
}

#[tokio::test]
async fn more_names_than_can_be_looked_at_are_counted_and_told_of() {
    let (authority, (_dns, fleet)) = (closing().await, fleet().await);
    let gateway = GatewayProcess::start(crate::DAEMON, &of_vms(&authority, &fleet)).await;
    let address = gateway.addr_of("tls").await;
    // 256 are looked at, and 1024 wait.
    for hundred in 0..14 {
        join_all((0..100).map(async |number| ask_for(address, &format!("made-up-{hundred}-{number}")).await))
            .await;
    }
    let refused =
        async || gateway.admin().metric("vers_acme_names_refused_total", &["reason=\"busy\""]).await;
    eventually("refusals", async || (refused().await >= 120.0).then_some(())).await;
    let is_told =
        |line: &Value| line["message"].as_str().unwrap_or_default().contains("faster than their names");
    eventually("a line of the log", async || gateway.log().iter().any(is_told).then_some(())).await;
    assert_eq!(authority.connections(), 0);
}
