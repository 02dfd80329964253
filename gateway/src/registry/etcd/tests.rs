//! What becomes of wishes and of what is known while an etcd does wrong, by a clock that tests stop.

use super::{
    super::{Caller, Done, ENTRIES, Refusal, Registration, Registry, Renewal, Wish, Wished, api},
    fake::{Fake, Faulty},
    run,
    view::MOST,
};
use http::Method;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    sync::oneshot,
    task::LocalSet,
    time::{Instant, sleep, timeout},
};

type Answer = oneshot::Receiver<Result<Done, Refusal>>;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn registration(id: &str, more: &str) -> Wish {
    let text = format!(r#"{{"id":"{id}","name":"n","role":"worker","address":"{id}.test"{more}}}"#);
    Wish::Register(Registration::read(text.as_bytes()).expect("a registration"))
}

fn ask(registry: &Registry, wish: Wish) -> Result<Answer, Refusal> {
    match registry.wish(wish)? {
        Wished::Asked(answer) => Ok(answer),
        Wished::Done(..) => panic!("nobody decides but the store"),
    }
}

async fn done(registry: &Registry, wish: Wish) -> Result<Done, Refusal> {
    timeout(secs(20), ask(registry, wish)?).await.expect("an answer in time").expect("an answer")
}

/// A gateway that follows this etcd; it ends with the test.
async fn follow(etcd: &Fake) -> Arc<Registry> {
    let registry = Fake::registry();
    tokio::task::spawn_local(run(Arc::downgrade(&registry), etcd.access()));
    until("it is open", || registry.is_open()).await;
    registry
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < secs(60), "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a test with a clock that goes by itself where all wait.
fn stopped(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), test);
}

fn reads(asked: &[(String, Value)]) -> usize {
    asked.iter().filter(|(path, _)| path == "watch").count()
}

#[test]
fn what_waited_too_long_is_not_done_any_more() {
    stopped(async {
        let etcd = Fake::new();
        let one = follow(&etcd).await;
        // It is cut off, and more want something than have their turn at once.
        etcd.fails(|_, _, _| Faulty::Hangs);
        let waiting: Vec<Answer> = (0..300)
            .map(|n| ask(&one, registration(&format!("vm-{n}"), r#","ttl":60"#)).expect("it is not lost yet"))
            .collect();
        let begun = Instant::now();
        let mut refused = 0;
        for answer in waiting {
            let said = timeout(secs(9), answer).await.expect("nobody waits for longer").expect("an answer");
            refused += usize::from(said.is_err());
        }
        assert_eq!(refused, 300);
        assert!(begun.elapsed() <= secs(9), "{:?}", begun.elapsed());
        etcd.fails(|_, _, _| Faulty::Not);
        etcd.take_asked();
        until("it is followed again", || one.lost_for().is_none()).await;
        sleep(secs(30)).await;
        let puts =
            etcd.take_asked().iter().filter(|(_, body)| body.to_string().contains("request_put")).count();
        let pulses = 12;
        assert!(puts <= pulses, "{puts} transactions of wishes that were refused");
        assert!((0..300).all(|n| etcd.value(&format!("/r/entries/vm-{n}")).is_none()));
    });
}

#[test]
fn a_change_while_the_beat_is_on_its_way_is_no_reason_to_leave() {
    stopped(async {
        let etcd = Fake::new();
        let registry = follow(&etcd).await;
        etcd.take_asked();
        // Each beat is answered with what was true when it was asked, after changes that came since.
        etcd.fails(|_, path, body| match path == "kv/range" && body.get("range_end").is_none() {
            true => Faulty::Late(Duration::from_millis(500)),
            false => Faulty::Not,
        });
        for n in 0..100 {
            etcd.put(&format!("/r/other/{n}"), "", 0);
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(reads(&etcd.take_asked()), 0, "nothing is read anew");
        assert_eq!(registry.lost_for(), None);
    });
}

#[test]
fn a_change_that_was_missed_before_is_no_reason_to_leave_later() {
    stopped(async {
        let etcd = Fake::new();
        let registry = follow(&etcd).await;
        // Its changes do not come any more, and to read everything takes longer than one waits for one's own.
        etcd.stall();
        let answer = ask(&registry, registration("a", "")).expect("it is not lost");
        sleep(secs(1)).await;
        etcd.fails(|_, _, body| match body.get("range_end").is_some() {
            true => Faulty::Late(Duration::from_millis(2_500)),
            false => Faulty::Not,
        });
        answer.await.expect("an answer").expect("it is written");
        // Others write meanwhile.
        for n in 0..3 {
            let _ = ask(&registry, registration(&format!("more-{n}"), ""));
            sleep(secs(1)).await;
        }
        until("it is followed again", || registry.get("a").is_some()).await;
        sleep(secs(6)).await;
        etcd.take_asked();
        sleep(secs(20)).await;
        assert_eq!(reads(&etcd.take_asked()), 0, "it is read once");
        assert_eq!(registry.lost_for(), None);
    });
}

#[test]
fn a_watch_that_is_silent_is_noticed_by_who_does_not_write() {
    stopped(async {
        let etcd = Fake::new();
        let (writer, reader) = (follow(&etcd).await, follow(&etcd).await);
        done(&writer, registration("a", r#","ttl":5"#)).await.expect("it is written");
        until("it is known", || reader.get("a").is_some()).await;
        // Questions are answered, but changes are told to nobody who watches by now.
        etcd.stall();
        let lease = etcd.lease("/r/alive/a").expect("a lease");
        etcd.end(lease);
        let begun = Instant::now();
        until("it has expired", || reader.get("a").is_some_and(|record| record.is_expired())).await;
        assert!(begun.elapsed() < secs(12), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_lease_that_may_be_in_use_is_not_ended() {
    stopped(async {
        let etcd = Fake::new();
        let registry = follow(&etcd).await;
        done(&registry, registration("a", r#","ttl":60"#)).await.expect("it is written");
        // The transaction is done, and nobody hears so.
        etcd.fails(|_, path, _| if path == "kv/txn" { Faulty::Loses } else { Faulty::Not });
        let renewal = Renewal::read(br#"{"ttl":120}"#).expect("a renewal");
        let refused = done(&registry, Wish::Renew("a".into(), renewal)).await.expect_err("nobody answered");
        assert_eq!(refused.code(), Some("store-uncertain"));
        etcd.fails(|_, _, _| Faulty::Not);
        sleep(secs(10)).await;
        assert!(etcd.value("/r/alive/a").is_some(), "it lives");
        assert!(registry.get("a").is_some_and(|record| !record.is_expired()));
    });
}

#[test]
fn a_member_that_hangs_does_not_keep_a_start_from_the_others() {
    stopped(async {
        // Whom it asks first is chance.
        for hangs in ["a", "b"].into_iter().cycle().take(20) {
            let etcd = Fake::new();
            etcd.fails(move |member, _, _| if member == hangs { Faulty::Hangs } else { Faulty::Not });
            let begun = Instant::now();
            follow(&etcd).await;
            assert!(begun.elapsed() < secs(3), "{:?}", begun.elapsed());
        }
    });
}

#[test]
fn an_answer_comes_in_time_however_slow_etcd_is() {
    stopped(async {
        let etcd = Fake::new();
        let registry = follow(&etcd).await;
        etcd.fails(|_, path, _| match path {
            "kv/range" => Faulty::Not,
            _ => Faulty::Late(Duration::from_millis(1_900)),
        });
        for (id, more) in [("a", ""), ("b", ""), ("a", r#","ttl":100"#)] {
            let begun = Instant::now();
            let _ = done(&registry, registration(id, more)).await;
            assert!(begun.elapsed() <= super::DEADLINE, "{:?}", begun.elapsed());
        }
        etcd.fails(|_, path, _| if path == "kv/txn" { Faulty::Hangs } else { Faulty::Not });
        let begun = Instant::now();
        let refused = done(&registry, registration("c", "")).await.expect_err("nobody answers");
        assert_eq!(refused.code(), Some("store-uncertain"));
        assert!(begun.elapsed() <= super::DEADLINE, "{:?}", begun.elapsed());
    });
}

#[test]
fn only_what_was_sent_may_be_written() {
    stopped(async {
        let etcd = Fake::new();
        let registry = follow(&etcd).await;
        etcd.fails(|_, path, _| if path == "lease/grant" { Faulty::Hangs } else { Faulty::Not });
        let refused = done(&registry, registration("a", "")).await.expect_err("nobody answers");
        assert_eq!(refused.code(), Some("store-lost"), "nothing of the entry was sent: {refused}");
        let has_refused = Arc::new(AtomicBool::new(false));
        let once = Arc::clone(&has_refused);
        etcd.fails(move |_, path, _| match path == "kv/txn" && !once.swap(true, SeqCst) {
            true => Faulty::Says(8, "etcdserver: too many requests"),
            false => Faulty::Not,
        });
        done(&registry, registration("a", "")).await.expect("it passes");
        assert!(has_refused.load(SeqCst));
        etcd.fails(|_, path, _| match path == "kv/txn" {
            true => Faulty::Says(8, "etcdserver: mvcc: database space exceeded"),
            false => Faulty::Not,
        });
        let refused = done(&registry, registration("b", "")).await.expect_err("it is full");
        assert_eq!(refused.code(), Some("store-refuses"));
        assert!(refused.to_string().contains("etcdctl alarm disarm"), "{refused}");
        until("it is seen without anybody who writes", || {
            registry
                .store_state()
                .and_then(|state| state.trouble)
                .is_some_and(|why| why.contains("alarm disarm"))
        })
        .await;
        etcd.fails(|_, _, _| Faulty::Not);
        until("that is over", || registry.store_state().is_some_and(|state| state.trouble.is_none())).await;
    });
}

#[test]
fn a_grant_whose_answer_was_lost_is_no_other_lease() {
    stopped(async {
        let etcd = Fake::new();
        let registry = follow(&etcd).await;
        let once = AtomicBool::new(false);
        etcd.fails(move |_, path, _| match path == "lease/grant" && !once.swap(true, SeqCst) {
            true => Faulty::Loses,
            false => Faulty::Not,
        });
        done(&registry, registration("a", "")).await.expect("it is written");
        let grants: Vec<Value> = etcd
            .take_asked()
            .into_iter()
            .filter(|(path, _)| path == "lease/grant")
            .map(|(_, body)| body)
            .collect();
        assert_eq!(grants.len(), 2);
        assert_eq!(grants[0], grants[1], "the same is asked for again");
    });
}

#[test]
fn what_makes_no_sense_is_nobodys_entry_and_ends_nothing() {
    stopped(async {
        let etcd = Fake::new();
        let registry = follow(&etcd).await;
        done(&registry, registration("a", "")).await.expect("it is written");
        let good = etcd.value("/r/entries/a").expect("an entry");
        let longest = format!("{{\"secs\":{},\"nanos\":0}}", u64::MAX);
        let value: Value = serde_json::from_str(&good).expect("JSON");
        let with = |key: &str, to: Value| {
            let mut value = value.clone();
            value["kept"]["what"]["id"] = "b".into();
            value["kept"][key] = to;
            value.to_string()
        };
        let far = json!({ "secs_since_epoch": 300_000_000_000_u64, "nanos_since_epoch": 0 });
        let bad = [
            good.clone(),
            with("lastSeen", far.clone()),
            with("expiredAt", far),
            "{".to_owned(),
            String::new(),
        ];
        for text in bad {
            etcd.put("/r/entries/b", &text, 0);
            etcd.put("/r/alive/b", "", 7);
            sleep(secs(3)).await;
            assert!(registry.get("b").is_none(), "{text}");
            assert_eq!(registry.len(), 1, "{text}");
        }
        etcd.put("/r/entries/b", &with("ttl", serde_json::from_str(&longest).expect("JSON")), 0);
        until("it is there", || registry.get("b").is_some()).await;
        etcd.put("/r/entries/b", &with("granted", serde_json::from_str(&longest).expect("JSON")), 0);
        done(&registry, Wish::Renew("b".into(), Renewal::default())).await.expect("it can be renewed");
        assert!(registry.get("b").is_some_and(|record| record.ttl <= secs(3600)));
    });
}

#[test]
fn what_a_later_version_wrote_is_kept_or_left_alone() {
    stopped(async {
        let etcd = Fake::new();
        let registry = follow(&etcd).await;
        done(&registry, registration("a", "")).await.expect("it is written");
        let mut value: Value =
            serde_json::from_str(&etcd.value("/r/entries/a").expect("an entry")).expect("JSON");
        assert_eq!(value["version"], 1);
        value["kept"]["what"]["colour"] = "red".into();
        etcd.put("/r/entries/a", &value.to_string(), 0);
        sleep(secs(1)).await;
        done(&registry, registration("a", r#","ttl":100"#)).await.expect("it is written");
        let kept = etcd.value("/r/entries/a").expect("an entry");
        assert!(kept.contains(r#""colour":"red""#) && kept.contains("100"), "{kept}");
        for (version, role) in [(2, "worker"), (2, "gardener")] {
            value["version"] = version.into();
            value["kept"]["what"]["role"] = role.into();
            etcd.put("/r/entries/a", &value.to_string(), 0);
            sleep(secs(1)).await;
            for wish in [registration("a", r#","ttl":200"#), Wish::Remove("a".into(), Caller::default())] {
                let refused = done(&registry, wish).await.expect_err("it is not undone");
                assert_eq!(refused.code(), Some("store-refuses"), "{refused}");
            }
            assert_eq!(etcd.value("/r/entries/a"), Some(value.to_string()));
        }
    });
}

#[test]
fn deleted_vms_take_no_room() {
    stopped(async {
        let etcd = Fake::new();
        for n in 0..MOST {
            etcd.put(&format!("/r/deleted/vm-{n}"), "{}", 0);
        }
        let registry = follow(&etcd).await;
        done(&registry, registration("a", "")).await.expect("it is written");
        assert!(registry.get("a").is_some());
        let tomb = json!({ "write": 1, "generation": 3 }).to_string();
        etcd.put("/r/deleted/vm-1", &tomb, 0);
        let refused =
            done(&registry, Wish::Renew("vm-1".into(), Renewal::default())).await.expect_err("gone");
        assert_eq!(refused, Refusal::Deleted);
        let refused =
            done(&registry, registration("vm-1", r#","generation":2"#)).await.expect_err("an older life");
        assert_eq!(refused, Refusal::Outlived);
    });
}

/// What is said to who wants all that have expired removed.
async fn purge(registry: &Registry) -> Value {
    let request = api::Request {
        method: &Method::DELETE,
        path: "/registry/stale",
        query: None,
        body: b"",
        authorization: None,
        accept: None,
        if_none_match: None,
        last_event_id: None,
        lease_key: None,
        peer: None,
    };
    let (door, addresses) = (api::Door::Open, api::Addresses::Any);
    let rules = api::Rules { door, admin: None, addresses, changes: None };
    let answer = match api::answer(registry, &request, rules) {
        api::Reply::Decided(decided) => decided.answer(registry).await,
        api::Reply::Answer(answer, _) => answer,
        other => panic!("{other:?}"),
    };
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[test]
fn what_a_removal_of_many_does_not_get_done_is_left_and_said() {
    const EXPIRED: u64 = 400;
    stopped(async {
        let etcd = Fake::new();
        let registry = follow(&etcd).await;
        done(&registry, registration("keeper", "")).await.expect("it is written");
        fill(&etcd, numbered(0..400));
        etcd.put("/r/entries/alive", "", 0);
        done(&registry, registration("alive", "")).await.expect("it is written");
        etcd.end(etcd.lease("/r/alive/keeper").expect("it lives"));
        let expired = || registry.all(None).iter().filter(|record| record.is_expired()).count() as u64;
        // Many at once are held first.
        until("they have expired", || expired() == EXPIRED + 1).await;
        etcd.fails(|_, path, _| match path {
            "kv/txn" => Faulty::Late(Duration::from_millis(900)),
            _ => Faulty::Not,
        });
        let begun = Instant::now();
        let said = purge(&registry).await;
        assert!(begun.elapsed() < secs(8), "{:?}", begun.elapsed());
        let (purged, left) = (said["purged"].as_u64(), said["left"].as_u64());
        let (purged, left) = (purged.expect("a number"), left.expect("some are left"));
        assert!(purged > 0 && purged + left == EXPIRED + 1, "{said}");
        // Others write meanwhile, and what is left is for the next calls.
        etcd.fails(|_, _, _| Faulty::Not);
        let said = purge(&registry).await;
        assert_eq!(said, json!({ "purged": left }), "and nothing is left");
        assert_eq!((expired(), registry.len()), (0, 1));
        assert_eq!(purge(&registry).await, json!({ "purged": 0 }));
    });
}

/// Puts entries like that of `keeper` that live by its lease, as another gateway would.
fn fill(etcd: &Fake, ids: impl Iterator<Item = String>) {
    let value = etcd.value("/r/entries/keeper").expect("an entry");
    let lease = etcd.lease("/r/alive/keeper").expect("it lives");
    for id in ids {
        etcd.put(&format!("/r/entries/{id}"), &value.replace("\"keeper\"", &format!("\"{id}\"")), 0);
        etcd.put(&format!("/r/alive/{id}"), "", lease);
    }
}

fn numbered(numbers: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(|n| format!("vm-{n}"))
}

#[test]
fn a_registry_that_is_full_is_so_by_what_etcd_counts() {
    stopped(async {
        let etcd = Fake::new();
        let registry = follow(&etcd).await;
        done(&registry, registration("keeper", "")).await.expect("it is written");
        done(&registry, registration("vm-0", "")).await.expect("it is written");
        fill(&etcd, numbered(1..ENTRIES - 501));
        until("they are known", || registry.len() == ENTRIES - 500).await;
        // Another gateway takes in many, and nobody here hears of it yet.
        etcd.stall();
        fill(&etcd, numbered(ENTRIES - 501..ENTRIES - 2));
        done(&registry, registration("last", "")).await.expect("there is room for one");
        let refused = done(&registry, registration("more", "")).await.expect_err("it is full");
        assert_eq!((refused, etcd.value("/r/entries/more")), (Refusal::Full, None));
        assert!(registry.len() < ENTRIES, "though this gateway has not heard of all");
        done(&registry, registration("vm-0", "")).await.expect("who is there may say so again");
        done(&registry, Wish::Renew("vm-1".into(), Renewal::default())).await.expect("and renew");
        // Who leaves makes room.
        done(&registry, Wish::Remove("vm-0".into(), Caller::default())).await.expect("it leaves");
        done(&registry, registration("more", "")).await.expect("there is room");
    });
}

#[test]
fn who_could_not_be_found_here_is_told_so() {
    stopped(async {
        let etcd = Fake::new();
        let registry = follow(&etcd).await;
        done(&registry, registration("keeper", "")).await.expect("it is written");
        // More than any gateway lets in: those of an earlier version did.
        fill(&etcd, numbered(1..MOST));
        until("they are known", || registry.len() == MOST).await;
        let revision = registry.revision(None);
        fill(&etcd, std::iter::once("left-out".to_owned()));
        let behind = etcd.value("/r/entries/vm-1").expect("an entry").replace("\"n\"", "\"m\"");
        etcd.put("/r/entries/vm-1", &behind, 0);
        until("what was put behind it is heard of", || registry.revision(None) > revision).await;
        assert!(registry.get("left-out").is_none(), "there is no room for it");
        let renewal = || Wish::Renew("left-out".into(), Renewal::default());
        assert_eq!(done(&registry, renewal()).await.expect_err("nobody would find it"), Refusal::Full);
        let again = done(&registry, registration("left-out", "")).await;
        assert_eq!(again.expect_err("nor then"), Refusal::Full);
        done(&registry, Wish::Renew("vm-1".into(), Renewal::default())).await.expect("others renew");
        etcd.put("/r/alive/left-out", "", 8);
        done(&registry, Wish::Remove("left-out".into(), Caller::default())).await.expect("it may leave");
        assert_eq!(etcd.value("/r/entries/left-out"), None);
    });
}

#[test]
fn everything_is_read_page_by_page() {
    stopped(async {
        let etcd = Fake::new();
        let registry = follow(&etcd).await;
        done(&registry, registration("vm-0", "")).await.expect("it is written");
        let value = etcd.value("/r/entries/vm-0").expect("an entry");
        for n in 0..700 {
            etcd.put(&format!("/r/entries/vm-{n}"), &value.replace("\"vm-0\"", &format!("\"vm-{n}\"")), 0);
            etcd.put(&format!("/r/alive/vm-{n}"), "", 7);
            etcd.put(&format!("/r/other/{n}"), "", 0);
        }
        etcd.take_asked();
        let late = follow(&etcd).await;
        assert_eq!(late.len(), 700);
        assert!(late.all(None).iter().all(|record| !record.is_expired()));
        let pages = etcd.take_asked().iter().filter(|(_, body)| body.get("range_end").is_some()).count();
        assert_eq!(pages, 3 + 1, "entries, and who lives");
    });
}
