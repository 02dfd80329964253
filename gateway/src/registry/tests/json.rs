//! What clients may write: whatever is taken, is read by everybody who comes later.

use super::*;

/// So many lists around a number, or objects.
fn nested(levels: usize, open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(levels), close.repeat(levels))
}

/// Bodies that nest so deep, each in another place.
fn deep(levels: usize) -> [String; 4] {
    let in_metadata = |value: String| vm("a", &format!(r#","metadata":{{"x":{value}}}"#));
    let in_service =
        |value: String| vm("a", &format!(r#","services":[{{"name":"s","port":1,"x":{value}}}]"#));
    [
        in_metadata(nested(levels - 2, "[", "]")),
        in_metadata(nested(levels - 2, r#"{"y":"#, "}")),
        in_service(nested(levels - 3, "[", "]")),
        in_service(nested(levels - 3, r#"{"y":"#, "}")),
    ]
}

#[test]
fn what_others_could_not_read_is_refused() {
    let odd = [r#"{"x":1e999}"#, r#"{"x":"\ud800"}"#, r#"{"x":"\udc00\ud800"}"#, r#"{"x":-1e400}"#];
    let odd = odd.map(|metadata| vm("a", &format!(",\"metadata\":{metadata}")));
    for body in odd.iter().chain(&deep(DEPTH + 1)).chain(&deep(125)) {
        let refused = Registration::read(body.as_bytes());
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{body}: {refused:?}");
        assert!(matches!(Change::read(body.as_bytes()), Err(Refusal::Invalid(_))), "{body}");
    }
}

#[test]
fn whatever_is_taken_is_there_after_a_restart_and_heard_of_elsewhere() {
    let unusual = r#","metadata":{"":null,"x":[1e300,-0.0,18446744073709551616,"\ud83d\ude00\u0000"]}"#;
    for body in deep(DEPTH).into_iter().chain([vm("a", unusual)]) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = || Place::File(folder.path().join("registry.redb"));
        let bench = Bench::at(file(), FakeClock::new());
        let mut watcher = bench.registry.watch(None);
        bench.register(&body).expect("it is taken");
        let heard = bench.registry.changes(&mut watcher, 1).expect("a change");
        let news = heard.iter().map(|(_, change)| String::from_utf8_lossy(change).into_owned());
        let news = format!(r#"{{"revision":1,"changes":[{}]}}"#, news.collect::<String>());
        serde_json::from_str::<serde_json::Value>(&news).expect("JSON that everybody reads");
        let mirror = Mirror::default();
        mirror.apply(news.as_bytes()).expect("news");
        assert_eq!(mirror.address("a").as_deref(), Some("a.test"), "{body}");
        drop(bench);
        let bench = Bench::at(file(), FakeClock::new());
        assert_eq!(bench.state("a"), "registered", "{body}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1, "nothing is put aside");
    }
}
