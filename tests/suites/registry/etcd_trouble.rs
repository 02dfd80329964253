//! What etcd does that is not simply an end: it hangs, forgets old revisions, is full, has what is nobody's, and is not
//! to be reached by one gateway while another writes the same.

use super::{
    call,
    etcd::{cut_off_from_all, discovered, finds, gateway, gateway_at, heartbeat, passes, places, with_ttl},
    register, vm,
};
use gateway_tests::{Etcd, eventually, in_namespace, within};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hangs_is_left_for_one_that_answers() {
    let Some(etcd) = Etcd::cluster("a_member_that_hangs_is_left", 3).await else { return };
    let running = gateway(&etcd, "");
    let client = running.client();
    register(&client, &with_ttl("a", 3600)).await;
    for index in 0..3 {
        etcd.stop(index).await;
        let stopped = Instant::now();
        // Where it leads, another is elected.
        eventually("a write", async || {
            let written =
                call(&client, "POST", "/registry/vms", &with_ttl(&format!("vm-{index}"), 3600)).await.0;
            let certain = discovered(&client).await.1.is_null();
            (written == 201 && certain).then_some(())
        })
        .await;
        assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
        // And who starts now does so, whichever it asks first.
        let begun = Instant::now();
        let late = gateway(&etcd, "");
        finds(
            &late.client(),
            &(["a"].into_iter().chain(["vm-0", "vm-1", "vm-2"].into_iter().take(index + 1)))
                .collect::<Vec<_>>(),
        )
        .await;
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        etcd.go_on(index).await;
        etcd.answers().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_is_no_matter_under_a_watch_and_over_several_pages() {
    let Some(mut etcd) = Etcd::start("compaction_is_no_matter_under_a_watch").await else { return };
    let one = gateway(&etcd, "");
    let client = one.client();
    let mut running = JoinSet::new();
    for n in 0..600 {
        let client = client.clone();
        running.spawn(async move { register(&client, &with_ttl(&format!("vm-{n}"), 3600)).await });
        if running.len() >= 32 {
            running.join_next().await.expect("one").expect("no panic");
        }
    }
    within("all", running.join_all()).await;
    let compact = async || {
        let got = etcd.must_ctl(&["get", "nothing", "--write-out", "json"]).await;
        let got: Value = serde_json::from_str(&got).expect("JSON");
        let revision = got["header"]["revision"].as_u64().expect("a number").to_string();
        etcd.must_ctl(&["compact", &revision]).await;
    };
    compact().await;
    register(&client, &with_ttl("after", 3600)).await;
    let (_, listed) = call(&client, "GET", "/registry/vms", &Value::Null).await;
    assert_eq!(listed["count"], 601);
    // Who starts now reads page by page.
    let late = gateway(&etcd, "");
    let all = async || {
        let (_, listed) = call(&late.client(), "GET", "/registry/vms", &Value::Null).await;
        (listed["count"] == 601).then_some(())
    };
    eventually("all of them", all).await;
    // And who was away meanwhile, whose revision is forgotten: one has gone, and one comes.
    etcd.must_ctl(&["del", "/vers/registry/entries/vm-7"]).await;
    compact().await;
    etcd.kill(0).await;
    etcd.revive(0);
    etcd.answers().await;
    register(&late.client(), &with_ttl("later", 3600)).await;
    eventually("the same at both", async || {
        let (_, listed) = call(&client, "GET", "/registry/vms", &Value::Null).await;
        (listed["count"] == 601).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_etcd_says_what_to_do_and_is_seen_before_anybody_writes() {
    let quota = ["--quota-backend-bytes", "2000000"];
    let Some(etcd) = Etcd::with("a_full_etcd_says_what_to_do", &quota).await else { return };
    let gateway = gateway(&etcd, "");
    let client = gateway.client();
    register(&client, &with_ttl("a", 3600)).await;
    let large = "x".repeat(100_000);
    let mut puts = 0;
    while etcd.ctl(&["put", "/elsewhere", &large]).await.is_ok() {
        puts += 1;
        assert!(puts < 100, "it is never full");
    }
    eventually("the metric", async || {
        (gateway.metric("vers_registry_store_problem", &[]).await == 1.0).then_some(())
    })
    .await;
    let trouble = gateway.status().await["registry"]["trouble"].clone();
    assert!(trouble.as_str().is_some_and(|why| why.contains("etcdctl alarm disarm")), "{trouble}");
    let (status, refused) = call(&client, "POST", "/registry/vms", &vm("b")).await;
    assert_eq!((status, &refused["code"]), (503, &json!("store-refuses")), "{refused}");
    assert!(
        refused["error"].as_str().is_some_and(|why| why.contains("--auto-compaction-retention")),
        "{refused}"
    );
    assert_eq!(heartbeat(&client, "a").await.0, 200, "a heartbeat takes no room");
    let got: Value =
        serde_json::from_str(&etcd.must_ctl(&["get", "/elsewhere", "--write-out", "json"]).await)
            .expect("JSON");
    let revision = got["header"]["revision"].as_u64().expect("a number").to_string();
    etcd.must_ctl(&["compact", "--physical", &revision]).await;
    etcd.must_ctl(&["defrag"]).await;
    etcd.must_ctl(&["alarm", "disarm"]).await;
    eventually("that it goes on", async || {
        (call(&client, "POST", "/registry/vms", &vm("b")).await.0 == 201).then_some(())
    })
    .await;
    eventually("the metric", async || {
        (gateway.metric("vers_registry_store_problem", &[]).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_somebody_else_put_there_is_ignored_where_it_makes_no_sense() {
    let Some(etcd) = Etcd::start("what_somebody_else_put_there_is_ignored").await else { return };
    let gateway = gateway(&etcd, "");
    let client = gateway.client();
    register(&client, &with_ttl("a", 3600)).await;
    let copied = etcd.must_ctl(&["get", "/vers/registry/entries/a", "--print-value-only"]).await;
    let mut far: Value = serde_json::from_str(&copied).expect("JSON");
    far["kept"]["what"]["id"] = "c".into();
    far["kept"]["registeredAt"]["secs_since_epoch"] = 300_000_000_000_u64.into();
    far["kept"]["ttl"]["secs"] = u64::MAX.into();
    for (key, value) in
        [("b", copied.trim()), ("c", &far.to_string()), ("d", "{}"), ("entries/e", copied.trim())]
    {
        etcd.must_ctl(&["put", &format!("/vers/registry/entries/{key}"), value]).await;
        etcd.must_ctl(&["put", &format!("/vers/registry/alive/{key}"), ""]).await;
    }
    // What comes after that is heard of, and nothing was made of it.
    register(&client, &with_ttl("z", 3600)).await;
    finds(&client, &["a", "z"]).await;
    let (_, listed) = call(&client, "GET", "/registry/vms", &Value::Null).await;
    assert_eq!(listed["count"], 2, "{listed}");
    register(&client, &with_ttl("c", 3600)).await;
    finds(&client, &["a", "c", "z"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cut_gateway_refused_does_not_come_later() {
    let test = "registry::etcd_trouble::what_a_cut_gateway_refused_does_not_come_later";
    if !in_namespace(test, &["etcd", "etcdctl", "ip", "nft"]) {
        return;
    }
    let places = places();
    let Some(etcd) = Etcd::spread(test, places[..1].to_vec()).await else { return };
    let (cut, to_cut) = gateway_at(&places[3], &etcd);
    let (whole, to_whole) = gateway_at(&places[4], &etcd);
    let named = |n: u32, name: &str| {
        let mut vm = with_ttl(&format!("vm-{n}"), 3600);
        vm["name"] = name.into();
        vm
    };
    register(&to_cut, &named(0, "first")).await;
    cut_off_from_all(&places[3].1);
    // More than are served at a time.
    let mut asked = JoinSet::new();
    for n in 0..300 {
        let (client, vm) = (to_cut.clone(), named(n, "refused"));
        asked.spawn(async move { call(&client, "POST", "/registry/vms", &vm).await });
    }
    let begun = Instant::now();
    for (status, answer) in within("all answers", asked.join_all()).await {
        assert_eq!(status, 503, "{answer}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // Their clients turn to the other gateway.
    for n in 0..300 {
        register(&to_whole, &named(n, "acknowledged")).await;
    }
    places[3].1.must_run("nft delete table inet cut");
    eventually("what is certain again", async || discovered(&to_cut).await.1.is_null().then_some(())).await;
    passes(Duration::from_secs(4)).await;
    for client in [&to_cut, &to_whole] {
        let (_, listed) = call(client, "GET", "/registry/vms", &Value::Null).await;
        let vms = listed["vms"].as_array().expect("a list");
        assert_eq!(vms.len(), 300);
        let others: Vec<&Value> = vms.iter().filter(|vm| vm["name"] != "acknowledged").collect();
        assert!(others.is_empty(), "what was refused came later: {others:?}");
    }
    drop((cut, whole));
}
