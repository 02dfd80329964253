//! Many entries in answers: page by page, and what watchers go on from.

use super::*;
use crate::registry::api::{self, Addresses, Door, Reply, Request, Rules};
use http::Method;
use serde_json::Value;

fn get(bench: &Bench, path: &str) -> (u16, bytes::Bytes) {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let request = Request {
        method: &Method::GET,
        path,
        query,
        body: b"",
        authorization: None,
        accept: None,
        if_none_match: None,
        last_event_id: None,
        lease_key: None,
        peer: None,
    };
    let rules = Rules { door: Door::Open, admin: None, addresses: Addresses::Any, changes: None };
    match api::answer(&bench.registry, &request, rules) {
        Reply::Answer(answer, _) => (answer.status.as_u16(), answer.body),
        other => panic!("{other:?}"),
    }
}

/// The ids of each page, as far as there are any.
fn pages(bench: &Bench, query: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let (status, body) = get(bench, &format!("/registry/vms?{query}{after}"));
        assert_eq!(status, 200);
        let page: Value = serde_json::from_slice(&body).expect("JSON");
        let ids = page["vms"].as_array().expect("VMs").iter().filter_map(|vm| vm["id"].as_str());
        pages.push(ids.map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(page["count"], pages.last().map_or(0, Vec::len));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return pages,
        }
        assert!(pages.len() < 100, "there is no end");
    }
}

#[test]
fn pages_follow_each_other_and_miss_nobody() {
    let bench = Bench::new();
    for (n, id) in ["e", "d", "c-1", "b", "a"].into_iter().enumerate() {
        bench.vm(id, r#","ttl":3600"#);
        // Two that come at the same time have an order, too.
        bench.pass(if n == 1 { Duration::ZERO } else { TICK });
    }
    let all = ["a", "b", "c-1", "d", "e"];
    assert_eq!(pages(&bench, ""), [all.to_vec()]);
    assert_eq!(pages(&bench, "limit=5"), [all.to_vec()]);
    assert_eq!(pages(&bench, "limit=2"), [vec!["a", "b"], vec!["c-1", "d"], vec!["e"]]);
    assert_eq!(pages(&bench, "role=worker&limit=4"), [vec!["a", "b", "c-1", "d"], vec!["e"]]);
    assert_eq!(pages(&bench, "limit=0"), [Vec::<&str>::new()]);
    let (_, first) = get(&bench, "/registry/vms?limit=3");
    let first: Value = serde_json::from_slice(&first).expect("JSON");
    bench.registry.remove("c-1", &Caller::default()).expect("it is known");
    let next = format!("after={}&", first["next"].as_str().expect("a next page"));
    assert_eq!(pages(&bench, &next), [vec!["d", "e"]], "though where it begins is gone");
    assert_eq!(get(&bench, "/registry/vms?after=x").0, 400);
}

#[test]
fn an_answer_has_an_end_and_whoever_follows_reads_on() {
    let bench = Bench::new();
    let large = format!(r#","ttl":3600,"metadata":{{"x":"{}"}}"#, "x".repeat(ENTRY - 200));
    let count = 2_500;
    (0..count).for_each(|n| drop(bench.vm(&format!("vm-{n:04}"), &large)));
    let (mut listing, mut path, mut sizes) = (Listing::default(), "/registry/vms".to_owned(), Vec::new());
    loop {
        let (_, body) = get(&bench, &path);
        sizes.push(body.len());
        match listing.read(&body).expect("a list") {
            Some(next) => path = format!("/registry/vms?after={next}"),
            None => break,
        }
    }
    assert!(sizes.len() == 2 && sizes.iter().all(|size| *size <= 17 << 20), "{sizes:?}");
    let mirror = Mirror::default();
    mirror.replace(listing);
    assert_eq!(mirror.report().entries, count);
    for path in ["/registry/discover/worker", "/registry/discover/worker?pick=random&limit=9999"] {
        let (_, body) = get(&bench, path);
        assert!(body.len() <= 17 << 20, "{path}: {} bytes", body.len());
    }
    let mut watcher = bench.registry.watch(Some(bench.registry.revision(None) - 100));
    let told = api::changes(&bench.registry, &mut watcher).expect("changes");
    assert!(told.body.len() <= 300 << 10, "{} bytes", told.body.len());
    let stream = api::events(&bench.registry, &mut watcher);
    assert!((1..=300 << 10).contains(&stream.len()), "{} bytes", stream.len());
}

/// Of another role, there is nothing new for long.
#[test]
fn changes_go_on_from_any_list() {
    let bench = Bench::new();
    bench.vm("a", r#","ttl":3600"#);
    let infra = vm("b", "").replace("worker", "infra");
    for n in 0..20_000 {
        let infra = infra.replace("\"n\"", &format!("\"{n}\""));
        bench.register(&infra).expect("a registration");
    }
    for path in
        ["/registry/vms?role=worker", "/registry/discover/worker", "/registry/discover/worker?pick=random"]
    {
        let (_, list) = get(&bench, path);
        let list: Value = serde_json::from_slice(&list).expect("JSON");
        let since = list["revision"].as_u64().expect("a revision");
        let mut watcher = bench.registry.watch(Some(since));
        assert!(bench.registry.changes(&mut watcher, 1).is_ok(), "{path}: {since} is known");
    }
}
