//! Several gateways, one registry: what they show of it, and what becomes of it while members of etcd come and go.

use super::{HERE, call, ids, register, text, vm};
use gateway_tests::{Client, Etcd, Namespace, TestGateway, eventually, in_namespace, must_run, within};
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// The configuration of a gateway whose registry is there, with further keys of `[registry]`.
fn toml(etcd: &Etcd, more: &str) -> String {
    text(&format!("store = \"{}\"\n{HERE}\n{more}", etcd.store()))
}

pub(super) fn gateway(etcd: &Etcd, more: &str) -> TestGateway {
    TestGateway::start(&toml(etcd, more))
}

/// Who is discovered, and what that answer says of its age.
pub(super) async fn discovered(client: &Client) -> (BTreeSet<String>, Value) {
    let (status, found) = call(client, "GET", "/registry/discover/worker", &Value::Null).await;
    assert_eq!(status, 200, "{found}");
    (ids(&found).into_iter().map(str::to_owned).collect(), found["age"].clone())
}

pub(super) async fn finds(client: &Client, expected: &[&str]) {
    let what = format!("{expected:?} and nobody else");
    let expected: BTreeSet<String> = expected.iter().map(|id| (*id).to_owned()).collect();
    eventually(&what, async || (discovered(client).await.0 == expected).then_some(())).await;
}

pub(super) async fn heartbeat(client: &Client, id: &str) -> (u16, Value) {
    call(client, "POST", &format!("/registry/vms/{id}/heartbeat"), &Value::Null).await
}

pub(super) fn with_ttl(id: &str, seconds: u64) -> Value {
    let mut vm = vm(id);
    vm["ttl"] = seconds.into();
    vm
}

pub(super) async fn passes(time: Duration) {
    let begun = Instant::now();
    eventually("a moment", async || (begun.elapsed() >= time).then_some(())).await;
}

#[tokio::test]
async fn what_one_gateway_is_told_all_of_them_know() {
    let Some(etcd) = Etcd::start("what_one_gateway_is_told_all_of_them_know").await else { return };
    let (one, other) = (gateway(&etcd, ""), gateway(&etcd, ""));
    let (to_one, to_other) = (one.client(), other.client());
    register(&to_one, &vm("a")).await;
    finds(&to_one, &["a"]).await;
    finds(&to_other, &["a"]).await;
    let entry = async |client: &Client| call(client, "GET", "/registry/vms/a", &Value::Null).await.1;
    let (here, there) = (entry(&to_one).await, entry(&to_other).await);
    assert_eq!((&here["revision"], &here["registeredAt"]), (&there["revision"], &there["registeredAt"]));
    // Who watched one goes on at the other.
    let path = format!("/registry/watch?since={}", here["revision"]);
    let waiting = tokio::spawn({
        let (client, path) = (to_other.clone(), path.clone());
        async move { call(&client, "GET", &path, &Value::Null).await }
    });
    register(&to_one, &vm("b")).await;
    let (status, changes) = within("the change", waiting).await.expect("no panic");
    assert_eq!((status, &changes["changes"][0]["vm"]["id"]), (200, &json!("b")), "{changes}");
    // At once, and nobody has to have heard of it before.
    register(&to_one, &vm("c")).await;
    assert_eq!(heartbeat(&to_other, "c").await.0, 200);
    assert_eq!(call(&to_other, "PATCH", "/registry/vms/c", &json!({ "name": "d" })).await.0, 200);
    assert_eq!(call(&to_one, "DELETE", "/registry/vms/c", &Value::Null).await.0, 200);
    let (status, refused) = heartbeat(&to_other, "c").await;
    assert_eq!((status, &refused["deleted"]), (404, &json!(true)), "{refused}");
    finds(&to_other, &["a", "b"]).await;
    // A prefix of its own is a registry of its own.
    let apart = gateway(&etcd, "etcd = { prefix = \"/another\" }");
    assert_eq!(discovered(&apart.client()).await.0, BTreeSet::new());
    // Whoever comes later knows as much.
    let late = gateway(&etcd, "");
    finds(&late.client(), &["a", "b"]).await;
    let status = late.status().await["registry"].clone();
    assert_eq!(
        (&status["lost"], &status["trouble"], &status["prefix"]),
        (&json!(false), &Value::Null, &json!("/vers/registry"))
    );
    assert!(status["age_seconds"].as_f64().is_some_and(|age| age < 3.0), "{status}");
}

#[tokio::test]
async fn a_lease_is_renewed_at_any_gateway_and_ends_at_all_of_them() {
    let Some(etcd) = Etcd::start("a_lease_is_renewed_at_any_gateway").await else { return };
    let (one, other) = (gateway(&etcd, ""), gateway(&etcd, ""));
    let (to_one, to_other) = (one.client(), other.client());
    for id in ["renewed", "silent", "steady"] {
        register(&to_one, &with_ttl(id, if id == "steady" { 600 } else { 5 })).await;
    }
    let begun = Instant::now();
    let mut seen = [false; 2];
    let mut turn = 0_u32;
    while begun.elapsed() < Duration::from_secs(9) {
        for (client, seen) in [&to_one, &to_other].into_iter().zip(&mut seen) {
            let asked = begun.elapsed();
            let (found, _) = discovered(client).await;
            assert!(found.contains("renewed") && found.contains("steady"), "{found:?} at {asked:?}");
            let is_there = found.contains("silent");
            *seen |= is_there;
            assert!(
                is_there || !*seen || begun.elapsed() > Duration::from_secs(5),
                "gone at {:?}",
                begun.elapsed()
            );
            assert!(!is_there || asked < Duration::from_secs(6), "there at {asked:?}");
        }
        turn += 1;
        let client = if turn.is_multiple_of(2) { &to_one } else { &to_other };
        assert_eq!(heartbeat(client, "renewed").await.0, 200);
        passes(Duration::from_millis(300)).await;
    }
    let (_, silent) = call(&to_other, "GET", "/registry/vms/silent", &Value::Null).await;
    assert_eq!(silent["state"], "expired", "{silent}");
    // It comes back by a heartbeat, at whichever gateway: with a lease that is another.
    assert_eq!(heartbeat(&to_other, "silent").await.0, 200);
    finds(&to_one, &["renewed", "silent", "steady"]).await;
}

#[tokio::test]
async fn a_lease_that_is_gone_is_granted_anew_and_put_anew() {
    let Some(etcd) = Etcd::start("a_lease_that_is_gone_is_granted_anew").await else { return };
    let gateway = gateway(&etcd, "retention = \"3s\"");
    let client = gateway.client();
    register(&client, &vm("a")).await;
    register(&client, &vm("b")).await;
    let leases = etcd.must_ctl(&["lease", "list"]).await;
    for lease in leases.lines().filter(|line| !line.contains(' ')) {
        etcd.must_ctl(&["lease", "revoke", lease]).await;
    }
    finds(&client, &[]).await;
    let (_, a) = call(&client, "GET", "/registry/vms/a", &Value::Null).await;
    assert_eq!(a["state"], "expired", "{a}");
    assert_eq!(heartbeat(&client, "a").await.0, 200);
    finds(&client, &["a"]).await;
    // What nobody renews is removed, and from etcd as well.
    eventually("its removal", async || {
        (call(&client, "GET", "/registry/vms/b", &Value::Null).await.0 == 404).then_some(())
    })
    .await;
    let keys = etcd.must_ctl(&["get", "--prefix", "--keys-only", "/vers/registry/"]).await;
    assert!(keys.contains("entries/a") && keys.contains("alive/a") && !keys.contains("/b"), "{keys}");
}

#[tokio::test]
async fn of_many_who_write_the_same_at_once_one_wins_and_all_agree() {
    let Some(etcd) = Etcd::start("of_many_who_write_the_same_at_once").await else { return };
    let (one, other) = (gateway(&etcd, ""), gateway(&etcd, ""));
    for round in 0..5 {
        let id = format!("vm-{round}");
        let mut running = tokio::task::JoinSet::new();
        for n in 0..8 {
            let gateway = if n % 2 == 0 { &one } else { &other };
            let key = format!("the key of clone number {n}");
            let client = gateway.client().with("x-lease-key", &key);
            let mut vm = vm(&id);
            vm["name"] = format!("clone-{n}").into();
            running.spawn(async move { (n, call(&client, "POST", "/registry/vms", &vm).await.0) });
        }
        let answers = within("all answers", running.join_all()).await;
        let won: Vec<usize> = answers.iter().filter(|(_, status)| *status == 201).map(|(n, _)| *n).collect();
        assert_eq!(won.len(), 1, "one lease key has it: {answers:?}");
        assert!(answers.iter().all(|(_, status)| matches!(status, 201 | 403)), "{answers:?}");
        let name = format!("clone-{}", won[0]);
        for gateway in [&one, &other] {
            let client = gateway.client();
            let path = format!("/registry/vms/{id}");
            let agrees =
                async || (call(&client, "GET", &path, &Value::Null).await.1["name"] == *name).then_some(());
            eventually("the same at both", agrees).await;
        }
    }
    // Without a key, the last one has it; and older generations never win.
    let mut running = tokio::task::JoinSet::new();
    for generation in 0..16 {
        let client = if generation % 2 == 0 { one.client() } else { other.client() };
        let mut vm = vm("generations");
        vm["generation"] = generation.into();
        running.spawn(async move { call(&client, "POST", "/registry/vms", &vm).await.0 });
    }
    let answers = within("all answers", running.join_all()).await;
    assert!(answers.iter().all(|status| matches!(status, 201 | 409)), "{answers:?}");
    let path = "/registry/vms/generations";
    for gateway in [&one, &other] {
        let client = gateway.client();
        let newest =
            async || (call(&client, "GET", path, &Value::Null).await.1["generation"] == 15).then_some(());
        eventually("the newest", newest).await;
    }
}

#[tokio::test]
async fn a_start_without_etcd_says_so_and_goes_on_when_it_comes() {
    let Some(mut etcd) = Etcd::start("a_start_without_etcd_says_so").await else { return };
    {
        let before = gateway(&etcd, "");
        register(&before.client(), &with_ttl("a", 3600)).await;
    }
    etcd.kill(0).await;
    let gateway = gateway(&etcd, "");
    let client = gateway.client();
    for (method, path, body) in [
        ("GET", "/registry/discover/worker", Value::Null),
        ("GET", "/registry/vms", Value::Null),
        ("POST", "/registry/vms", vm("b")),
    ] {
        let (status, answer) = call(&client, method, path, &body).await;
        assert_eq!((status, &answer["code"]), (503, &json!("store-lost")), "{method} {path}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|why| why.contains(&etcd.url(0))), "{answer}");
    }
    assert_eq!(client.get("/health").await.status, 200, "the gateway itself works");
    let status = gateway.status().await["registry"].clone();
    assert_eq!((&status["lost"], &status["age_seconds"]), (&json!(true), &Value::Null), "{status}");
    assert!(status["trouble"].as_str().is_some_and(|why| why.contains("refused")), "{status}");
    eventually("the metric", async || {
        (gateway.metric("vers_registry_store_problem", &[]).await == 1.0).then_some(())
    })
    .await;
    assert!(gateway.metric("vers_registry_store_failures_total", &[]).await >= 1.0);
    eventually("an age that an alert can see", async || {
        (gateway.metric("vers_registry_store_age_seconds", &[]).await >= 1.0).then_some(())
    })
    .await;
    etcd.revive(0);
    let known = async || {
        (call(&client, "GET", "/registry/discover/worker", &Value::Null).await.1["count"] == 1).then_some(())
    };
    eventually("what was kept", known).await;
    register(&client, &vm("b")).await;
    eventually("the metric", async || {
        (gateway.metric("vers_registry_store_problem", &[]).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_etcd_is_lost_what_is_known_is_shown_with_its_age_and_nothing_is_written() {
    let Some(mut etcd) = Etcd::start("while_etcd_is_lost").await else { return };
    let gateway = gateway(&etcd, "");
    let client = gateway.client();
    register(&client, &with_ttl("a", 5)).await;
    etcd.kill(0).await;
    let lost = Instant::now();
    let aged = async || discovered(&client).await.1.as_u64().filter(|age| *age >= 6);
    eventually("its age", aged).await;
    let (found, _) = discovered(&client).await;
    assert_eq!(found, BTreeSet::from(["a".to_owned()]), "nobody can renew, and nobody expires");
    let answer = client.get("/registry/vms/a").await;
    let age: u64 = answer.header("age").parse().expect("an age");
    assert!((5..=lost.elapsed().as_secs() + 2).contains(&age), "{age} s");
    // That somebody is not there, or that nothing changes, is no more certain.
    let (_, known) = call(&client, "GET", "/registry/vms", &Value::Null).await;
    let watch = format!("/registry/watch?since={}&wait=1", known["revision"]);
    for (path, status) in [("/registry/vms/nobody", 404), ("/registry/resolve/nobody", 404), (&*watch, 200)] {
        let answer = client.get(path).await;
        let age = answer.header("age").parse::<u64>();
        assert!(answer.status == status && age.is_ok(), "{path}: {} {age:?}", answer.status);
    }
    let listed = client.get("/registry/vms").await;
    assert_eq!(listed.header("etag"), "", "nothing of that is certain");
    assert!(listed.text().contains("\"stale\":true"), "{}", listed.text());
    for (method, path, body) in [
        ("POST", "/registry/vms", vm("b")),
        ("POST", "/registry/vms/a/heartbeat", Value::Null),
        ("PATCH", "/registry/vms/a", json!({ "name": "x" })),
        ("DELETE", "/registry/vms/a", Value::Null),
    ] {
        let begun = Instant::now();
        let (status, answer) = call(&client, method, path, &body).await;
        assert_eq!((status, &answer["code"]), (503, &json!("store-lost")), "{method}: {answer}");
        assert!(begun.elapsed() < Duration::from_secs(2), "nobody waits for it: {:?}", begun.elapsed());
    }
    assert!(gateway.metric("vers_registry_store_age_seconds", &[]).await >= 5.0);
    etcd.revive(0);
    // It had its time to live once more, when etcd came back; and then it is over.
    let begun = Instant::now();
    let fresh = async || discovered(&client).await.1.is_null().then_some(());
    eventually("what is certain again", fresh).await;
    finds(&client, &[]).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    register(&client, &vm("b")).await;
    finds(&client, &["b"]).await;
}

#[tokio::test]
async fn a_registry_that_forgot_everything_is_told_again() {
    let Some(mut etcd) = Etcd::start("a_registry_that_forgot_everything").await else { return };
    let gateway = gateway(&etcd, "");
    let client = gateway.client();
    for n in 0..5 {
        register(&client, &vm(&format!("vm-{n}"))).await;
    }
    let (_, before) = call(&client, "GET", "/registry/vms", &Value::Null).await;
    etcd.forget_all().await;
    etcd.revive(0);
    etcd.answers().await;
    eventually("that it is heard", async || {
        (discovered(&client).await == (BTreeSet::new(), Value::Null)).then_some(())
    })
    .await;
    assert_eq!(heartbeat(&client, "vm-1").await.0, 404, "its client registers then");
    register(&client, &vm("vm-1")).await;
    finds(&client, &["vm-1"]).await;
    // Who watched is told that it has missed something.
    let path = format!("/registry/watch?since={}", before["revision"]);
    assert_eq!(call(&client, "GET", &path, &Value::Null).await.0, 410);
}

#[tokio::test]
async fn an_edge_finds_vms_and_servers_in_etcd() {
    let Some(etcd) = Etcd::start("an_edge_finds_vms_and_servers_in_etcd").await else { return };
    let infra = gateway(&etcd, "");
    let backend = gateway_tests::Backend::named_v6("the VM").await;
    let port = backend.addr().port();
    // No route leads to the registry here: VMs register at the other gateway.
    let edge = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n\
         [[route]]\nname = \"vms\"\nhost = \"{{vm}}.vm.test\"\nto = \"vm:{{vm}}:{port}\"\n\
         [[route]]\nname = \"work\"\nto = \"workers\"\n\
         [backend.workers]\ndiscover = {{ role = \"worker\", service = \"api\" }}\n\
         [vms]\nresolve = \"registry\"\nnegative_ttl = \"1s\"\n[registry]\nstore = \"{}\"\n{HERE}\n",
        etcd.store()
    ));
    let client = edge.client();
    assert_eq!(client.get("/").await.header("x-gateway-error"), "upstream-none-registered");
    let mut entry = vm("a1");
    entry["address"] = "::1".into();
    entry["services"] = json!([{ "name": "api", "port": port }]);
    register(&infra.client(), &entry).await;
    let named = client.clone().with("host", "a1.vm.test");
    eventually("the VM", async || (named.get("/x").await.text() == "the VM").then_some(())).await;
    eventually("the server", async || (client.get("/").await.text() == "the VM").then_some(())).await;
    call(&infra.client(), "DELETE", "/registry/vms/a1", &Value::Null).await;
    let is_gone = async || {
        (client.get("/").await.header("x-gateway-error") == "upstream-none-registered").then_some(())
    };
    eventually("its end", is_gone).await;
}

#[tokio::test]
async fn a_reload_moves_to_other_members_and_loses_nothing() {
    let Some(etcd) = Etcd::cluster("a_reload_moves_to_other_members", 3).await else { return };
    let only = |index: usize| text(&format!("store = \"etcd:{}\"\n{HERE}", etcd.url(index)));
    let gateway = TestGateway::start(&only(0));
    let client = gateway.client();
    register(&client, &vm("a")).await;
    let mut stream = gateway_tests::Raw::connect(gateway.addr()).await;
    stream.send("GET /registry/watch HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n").await;
    stream.until(": changes of the registry\n\n").await;
    gateway.write(&only(1));
    gateway.reload().await.expect("a reload");
    assert_eq!(discovered(&client).await.0, BTreeSet::from(["a".to_owned()]));
    register(&client, &vm("b")).await;
    let event = stream.until("\n\n").await;
    assert!(event.contains("\"id\":\"b\""), "who watches goes on: {event}");
    assert_eq!(gateway.status().await["registry"]["store"], format!("etcd:{}", etcd.url(1)));
}

/// Has etcd ask for users, of whom one may read and write what a registry does.
async fn ask_for_users(etcd: &Etcd, tls: &[&str]) {
    for arguments in [
        "user add root:r00t",
        "user grant-role root root",
        "user add vers:s3cret",
        "role add registry",
        "role grant-permission registry --prefix=true readwrite /vers/registry/",
        "user grant-role vers registry",
        "auth enable",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        etcd.must_ctl(&[tls, &arguments].concat()).await;
    }
}

#[tokio::test]
async fn etcd_asks_who_we_are_and_shows_who_it_is() {
    let test = "etcd_asks_who_we_are_and_shows_who_it_is";
    let pki = gateway_tests::Pki::new();
    let folder = tempfile::tempdir().expect("a folder");
    pki.issue(&["localhost", "127.0.0.1"]).write(folder.path(), "etcd");
    // With a common name, etcd would not let it in while it asks for users.
    let own = pki.issue_with(&["gateway.test"], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
    });
    std::fs::write(folder.path().join("ca.pem"), pki.certificate()).expect("a file");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key, ca) = (path("etcd.pem"), path("etcd-key.pem"), path("ca.pem"));
    let arguments =
        ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"];
    let Some(mut etcd) = Etcd::over_tls(test, &arguments).await else { return };
    own.write(folder.path(), "own");
    let (own_cert, own_key) = (path("own.pem"), path("own-key.pem"));
    ask_for_users(&etcd, &["--cacert", &*ca, "--cert", &*own_cert, "--key", &*own_key]).await;
    let store = etcd.store();
    let with = |user: &str, tls: &str| {
        let access = format!("etcd = {{ {user} {tls} }}\n[secret.etcd]\nfile = \"password\"");
        text(&format!("store = \"{store}\"\n{HERE}\n{access}"))
    };
    let (user, tls) = (
        "user = \"vers\", password = \"etcd\",",
        "ca = \"ca.pem\", cert = \"own.pem\", key = \"own-key.pem\"",
    );
    let files = [
        ("ca.pem", pki.certificate()),
        ("own.pem", own.cert.as_str()),
        ("own-key.pem", own.key.as_str()),
        ("password", "s3cret\n"),
    ];
    let gateway = TestGateway::with_files(&with(user, tls), &files);
    let client = gateway.client();
    register(&client, &vm("a")).await;
    assert_eq!(heartbeat(&client, "a").await.0, 200);
    finds(&client, &["a"]).await;
    let shown = gateway.status().await.to_string();
    assert!(!shown.contains("s3cret"), "{shown}");
    // A member that starts anew knows no tokens any more.
    etcd.kill(0).await;
    etcd.revive(0);
    eventually("who we are", async || (heartbeat(&client, "a").await.0 == 200).then_some(())).await;
    // Who is not believed, or does not believe, says why, and nobody's password.
    let trouble = async |toml: &str, files: &[(&str, &str)], expected: &str| {
        let gateway = TestGateway::with_files(toml, files);
        let (status, answer) = call(&gateway.client(), "POST", "/registry/vms", &vm("b")).await;
        let said = answer.to_string();
        assert_eq!(status, 503, "{said}");
        assert!(said.contains(expected) && !said.contains("wr0ng"), "{expected}: {said}");
    };
    trouble(&with("", tls), &files, "permission denied").await;
    let wrong = [files[0], files[1], files[2], ("password", "wr0ng")];
    trouble(&with(user, tls), &wrong, "authentication failed").await;
    trouble(&with(user, "ca = \"ca.pem\""), &files, "received fatal alert").await;
    trouble(&with(user, ""), &files, "UnknownIssuer").await;
}

/// How often etcd was asked who somebody is.
async fn authentications(etcd: &Etcd) -> u64 {
    let metrics = Client::new(etcd.addr(0)).get("/metrics").await.text();
    let line = metrics.lines().find(|line| {
        line.starts_with("grpc_server_handled_total")
            && line.contains("Authenticate")
            && line.contains("\"OK\"")
    });
    let count = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("no count of authentications:\n{metrics}"))
}

#[tokio::test]
async fn tokens_that_end_are_asked_for_anew_and_nobody_notices() {
    let test = "tokens_that_end_are_asked_for_anew_and_nobody_notices";
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (key, public) = (path("key.pem"), path("public.pem"));
    let signed = format!("jwt,pub-key={public},priv-key={key},sign-method=RS256,ttl=2s");
    for arguments in [["--auth-token-ttl", "1"], ["--auth-token", &signed]] {
        if arguments[1] == signed {
            if !gateway_tests::has(test, &["openssl"]) {
                return;
            }
            for made in [
                ["genrsa", "-out", &*key, "2048"].as_slice(),
                &["rsa", "-in", &key, "-pubout", "-out", &public],
            ] {
                let output = tokio::process::Command::new("openssl").args(made).output().await;
                assert!(output.expect("it starts").status.success(), "openssl {made:?}");
            }
        }
        let Some(etcd) = Etcd::with(test, &arguments).await else { return };
        ask_for_users(&etcd, &[]).await;
        let access = "etcd = { user = \"vers\", password = \"etcd\" }\n[secret.etcd]\nfile = \"password\"";
        let toml = text(&format!("store = \"{}\"\n{HERE}\n{access}", etcd.store()));
        let gateway = TestGateway::with_files(&toml, &[("password", "s3cret\n")]);
        let client = gateway.client();
        register(&client, &vm("a")).await;
        let before = authentications(&etcd).await;
        // Writes, renewals and what is followed, over the ends of several tokens.
        for n in 0..12 {
            assert_eq!(heartbeat(&client, "a").await.0, 200, "{arguments:?} {n}");
            register(&client, &vm(&format!("vm-{n}"))).await;
            passes(Duration::from_millis(if n == 6 { 3_500 } else { 400 })).await;
        }
        let (found, answer) = discovered(&client).await;
        assert_eq!((found.len(), &answer["stale"]), (13, &Value::Null), "{arguments:?}: {answer}");
        let anew = authentications(&etcd).await - before;
        // Signed ones end by the clock; the others live on while they are used.
        let least = if arguments[1] == signed { 2 } else { 0 };
        assert!((least..30).contains(&anew), "{arguments:?}: {anew} times asked who we are");
    }
}

/// A fleet on two gateways: VMs that register, renew and leave, and what each of them was told last.
struct Fleet {
    clients: [Client; 2],
    /// What was acknowledged last of each VM, by the number that it registered with; none where that it is gone.
    told: Mutex<BTreeMap<String, Option<u64>>>,
    is_over: AtomicBool,
    writes: AtomicU64,
    refused: AtomicU64,
}

impl Fleet {
    fn new(clients: [Client; 2]) -> Arc<Self> {
        Arc::new(Self {
            clients,
            told: Mutex::default(),
            is_over: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Writes until it is over, at one gateway and the other in turn. What is asked and not answered is not certain.
    async fn write(self: Arc<Self>, writer: usize) {
        let mut number = 0_u64;
        // Refused at once, it would ask thousands of times.
        let mut pace = tokio::time::interval(Duration::from_secs(1));
        while !self.is_over.load(SeqCst) {
            pace.tick().await;
            number += 1;
            let id = format!("vm-{writer}-{}", number % 10);
            let client = &self.clients[usize::try_from(number % 2).expect("0 or 1")];
            let before = self.told.lock().expect("no panic").remove(&id);
            let is_delete = before.flatten().is_some() && number.is_multiple_of(3);
            let path = format!("/registry/vms/{id}");
            let asked = if is_delete {
                client.try_send(Method::DELETE, &path, "".into())
            } else {
                let vm = json!({ "id": id, "name": "n", "role": "worker", "address": "a.test", "ttl": 3600,
                    "metadata": { "number": number } });
                client.try_send(Method::POST, "/registry/vms", vm.to_string().into())
            };
            let answer = within("an answer", asked).await.expect("a gateway that answers");
            match answer.status.as_u16() {
                200 | 201 => {
                    self.writes.fetch_add(1, SeqCst);
                    self.told.lock().expect("no panic").insert(id, (!is_delete).then_some(number));
                }
                // It was acknowledged that it is there, and nobody else writes it.
                404 => panic!("{id} is lost: {}", answer.text()),
                503 => {
                    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
                    assert!(
                        answer["code"].as_str().is_some_and(|code| code.starts_with("store-")),
                        "{answer}"
                    );
                    self.refused.fetch_add(1, SeqCst);
                }
                status => panic!("{status}: {}", answer.text()),
            }
        }
    }

    /// Waits until so many more writes are acknowledged than now.
    async fn goes_on(&self, more: u64) {
        let from = self.writes.load(SeqCst);
        let begun = Instant::now();
        while self.writes.load(SeqCst) < from + more {
            assert!(begun.elapsed() < Duration::from_secs(40), "nothing is written any more");
            passes(Duration::from_millis(10)).await;
        }
    }

    /// Takes in a VM that says nothing any more.
    async fn brief(&self, id: &str) -> Instant {
        let mut vm = with_ttl(id, 5);
        vm["role"] = "custom".into();
        register(&self.clients[0], &vm).await;
        Instant::now()
    }

    /// Who says nothing any more leaves both gateways, and soon after they know etcd again; none comes back.
    async fn leave(&self, known: &[&str]) {
        for client in &self.clients {
            let left = async || {
                let (status, found) = call(client, "GET", "/registry/discover/custom", &Value::Null).await;
                assert_eq!(status, 200, "{found}");
                (found["age"].is_null() && !ids(&found).iter().any(|id| known.contains(id))).then_some(())
            };
            eventually(&format!("that {known:?} have left"), left).await;
        }
    }

    /// Everything that was acknowledged is there at both gateways, and nothing that was deleted.
    async fn agrees(&self) -> usize {
        let told = self.told.lock().expect("no panic").clone();
        for client in &self.clients {
            eventually("all that was acknowledged", async || {
                let (status, listed) = call(client, "GET", "/registry/vms", &Value::Null).await;
                assert_eq!(status, 200, "{listed}");
                let found: BTreeMap<&str, u64> = listed["vms"]
                    .as_array()?
                    .iter()
                    .filter_map(|vm| Some((vm["id"].as_str()?, vm["metadata"]["number"].as_u64()?)))
                    .collect();
                told.iter().all(|(id, number)| found.get(&**id) == number.as_ref()).then_some(())
            })
            .await;
        }
        told.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_while_members_of_etcd_come_and_go() {
    let Some(mut etcd) = Etcd::cluster("nothing_acknowledged_is_lost_while_members", 3).await else { return };
    let (one, other) = (gateway(&etcd, ""), gateway(&etcd, ""));
    let fleet = Fleet::new([one.client(), other.client()]);
    // More than are served at a time, where one waits for etcd.
    let writers: Vec<_> = (0..150).map(|n| tokio::spawn(Arc::clone(&fleet).write(n))).collect();
    fleet.goes_on(20).await;

    // A member that does not lead: nobody needs to notice.
    let follower = (etcd.leader().await + 1) % 3;
    let begun = fleet.brief("brief-1").await;
    etcd.kill(follower).await;
    fleet.goes_on(20).await;
    fleet.leave(&["brief-1"]).await;
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    etcd.revive(follower);
    etcd.answers().await;

    // The leader: an election takes a moment.
    let leader = etcd.leader().await;
    fleet.brief("brief-2").await;
    etcd.kill(leader).await;
    fleet.goes_on(20).await;
    etcd.revive(leader);
    etcd.answers().await;
    fleet.goes_on(5).await;

    fleet.leave(&["brief-1", "brief-2"]).await;

    // All of them.
    fleet.brief("brief-3").await;
    for index in 0..3 {
        etcd.kill(index).await;
    }
    for client in &fleet.clients {
        let aged = async || discovered(client).await.1.is_u64().then_some(());
        eventually("an age", aged).await;
    }
    let (_, known) = call(&fleet.clients[0], "GET", "/registry/vms", &Value::Null).await;
    assert!(known["count"].as_u64().is_some_and(|count| count > 10), "what is known is shown: {known}");
    eventually("a refusal", async || (fleet.refused.load(SeqCst) > 0).then_some(())).await;
    (0..3).for_each(|index| etcd.revive(index));
    etcd.answers().await;
    fleet.goes_on(20).await;

    fleet.is_over.store(true, SeqCst);
    for writer in writers {
        within("its end", writer).await.expect("no panic");
    }
    let checked = fleet.agrees().await;
    assert!(checked >= 20, "{checked}");
    fleet.leave(&["brief-1", "brief-2", "brief-3"]).await;
    println!(
        "{} writes, {} refused, {checked} answers held",
        fleet.writes.load(SeqCst),
        fleet.refused.load(SeqCst)
    );
    // And who starts now knows the same.
    let late = gateway(&etcd, "");
    let of_late = Fleet::new([late.client(), late.client()]);
    of_late.told.lock().expect("no panic").clone_from(&fleet.told.lock().expect("no panic"));
    of_late.agrees().await;
}

/// Each member of etcd and each gateway in a network of its own, on one bridge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_cut_off_says_so_and_no_other_hands_out_who_has_expired() {
    let test = "registry::etcd::a_gateway_cut_off_says_so_and_no_other_hands_out_who_has_expired";
    if !in_namespace(test, &["etcd", "etcdctl", "ip", "nft"]) {
        return;
    }
    let places = places();
    let Some(etcd) = Etcd::spread(test, places[..3].to_vec()).await else { return };
    let (cut, to_cut) = gateway_at(&places[3], &etcd);
    let (whole, to_whole) = gateway_at(&places[4], &etcd);
    register(&to_cut, &with_ttl("renewed", 5)).await;
    register(&to_cut, &with_ttl("silent", 5)).await;
    register(&to_cut, &with_ttl("steady", 3600)).await;
    finds(&to_whole, &["renewed", "silent", "steady"]).await;

    // One gateway hears nothing of etcd any more, and one member hears nothing of the others.
    let cut_off = Instant::now();
    cut_off_from_all(&places[3].1);
    cut_off_from_all(&places[0].1);
    let mut was_renewed = cut_off;
    let mut until_gone = None;
    while cut_off.elapsed() < Duration::from_secs(14) {
        // The others elect a leader where they lose theirs; what was acknowledged then, counts.
        if heartbeat(&to_whole, "renewed").await.0 == 200 {
            was_renewed = Instant::now();
        }
        let asked = Instant::now();
        let (found, age) = discovered(&to_whole).await;
        if age.is_null() {
            assert!(found.contains("renewed") || was_renewed.elapsed() > Duration::from_secs(5), "{found:?}");
            match found.contains("silent") {
                false => drop(until_gone.get_or_insert(asked)),
                true => assert!(until_gone.is_none(), "it came back"),
            }
        }
        let (found, age) = discovered(&to_cut).await;
        if asked.duration_since(cut_off) > Duration::from_secs(8) {
            assert!(age.is_u64(), "it says how old that is: {found:?}");
        }
        passes(Duration::from_millis(200)).await;
    }
    let gone = until_gone.expect("the end of its lease").duration_since(cut_off);
    // A leader that is elected gives each lease its time once more.
    assert!(gone > Duration::from_secs(4) && gone < Duration::from_secs(13), "{gone:?}");
    let (status, refused) = call(&to_cut, "POST", "/registry/vms", &vm("b")).await;
    assert_eq!((status, &refused["code"]), (503, &json!("store-lost")), "{refused}");
    register(&to_whole, &with_ttl("late", 3600)).await;

    for place in [&places[3].1, &places[0].1] {
        place.must_run("nft delete table inet cut");
    }
    let healed = Instant::now();
    eventually("what is certain again", async || discovered(&to_cut).await.1.is_null().then_some(())).await;
    let (found, _) = discovered(&to_cut).await;
    assert!(!found.contains("silent"), "nothing expired is handed out as certain: {found:?}");
    assert!(found.contains("steady") && found.contains("late"), "{found:?}");
    println!("gone after {gone:?}; certain again {:?} after the cut was healed", healed.elapsed());
    drop((cut, whole));
}

/// Nothing of the others is heard there any more, but of this network.
pub(super) fn cut_off_from_all(place: &Namespace) {
    place.must_run(
        "nft add table inet cut; nft 'add chain inet cut in { type filter hook input priority 0; }'; \
         nft add rule inet cut in ip saddr 10.9.0.1-10.9.0.5 drop",
    );
}

/// Five networks on a bridge that this one has an address on, too.
pub(super) fn places() -> Vec<(IpAddr, Namespace)> {
    must_run("ip", &["link", "add", "fleet", "type", "bridge"]);
    must_run("ip", &["address", "add", "10.9.0.254/24", "dev", "fleet"]);
    must_run("ip", &["link", "set", "fleet", "up"]);
    (1..=5).map(place).collect()
}

/// A network with an address on the bridge.
fn place(number: u8) -> (IpAddr, Namespace) {
    let place = Namespace::new();
    let (here, address) = (format!("fleet{number}"), format!("10.9.0.{number}"));
    must_run("ip", &["link", "add", &here, "type", "veth", "peer", "name", "up0", "netns", &place.id()]);
    must_run("ip", &["link", "set", &here, "master", "fleet", "up"]);
    place.must_run(&format!("ip address add {address}/24 dev up0; ip link set up0 up"));
    (address.parse().expect("an address"), place)
}

/// A gateway in one of them, and who asks it.
pub(super) fn gateway_at((address, place): &(IpAddr, Namespace), etcd: &Etcd) -> (TestGateway, Client) {
    let gateway = place.act(|| gateway(etcd, ""));
    let client = Client::new(SocketAddr::new(*address, gateway.addr().port()));
    (gateway, client)
}
