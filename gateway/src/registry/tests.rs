//! Leases by a clock that only these tests move.

use super::*;

mod json;
mod lists;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

const TTL: Duration = Duration::from_secs(45);
const TICK: Duration = Duration::from_millis(200);

#[derive(Debug, Clone)]
struct FakeClock(Arc<Mutex<(Moment, Duration)>>);

impl FakeClock {
    fn new() -> Self {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Self(Arc::new(Mutex::new((Moment { mono: Duration::ZERO, wall }, Duration::ZERO))))
    }

    fn shift(&self, mono: Duration, wall: Duration, boot: Duration) {
        let mut clocks = self.0.lock().expect("no panic");
        clocks.0.mono += mono;
        clocks.0.wall += wall;
        clocks.1 += boot;
    }

    fn set_back(&self, by: Duration) {
        self.0.lock().expect("no panic").0.wall -= by;
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Moment {
        self.0.lock().expect("no panic").0
    }

    fn since_boot(&self) -> Option<Duration> {
        Some(self.0.lock().expect("no panic").1)
    }
}

struct Bench {
    clock: FakeClock,
    registry: Registry,
}

impl Bench {
    fn new() -> Self {
        Self::at(Place::Memory, FakeClock::new())
    }

    fn at(place: Place, clock: FakeClock) -> Self {
        let terms = Terms { ttl: TTL, retention: Duration::from_secs(24 * 3600), strict_conflict: false };
        let registry = Registry::with_clock(place, terms, Box::new(clock.clone()));
        assert_eq!(registry.open(), Ok(true));
        registry.tick();
        Self { clock, registry }
    }

    /// Time passes as it does, and the registry looks at it.
    fn pass(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(TICK);
            self.clock.shift(step, step, step);
            self.registry.tick();
            left -= step;
        }
    }

    fn register(&self, body: &str) -> Result<Arc<Record>, Refusal> {
        let registered = self.registry.register(Registration::read(body.as_bytes())?);
        registered.map(|(record, committed)| {
            kept(committed);
            record
        })
    }

    fn vm(&self, id: &str, more: &str) -> Arc<Record> {
        self.register(&vm(id, more)).expect("a registration")
    }

    fn renew(&self, id: &str) -> Result<Arc<Record>, Refusal> {
        let renewed = self.registry.renew(id, &Renewal::default());
        renewed.map(|(record, committed)| {
            kept(committed);
            record
        })
    }

    fn found(&self) -> Vec<String> {
        let mut found: Vec<String> = self
            .registry
            .all(Some(Role::Worker))
            .iter()
            .filter(|record| record.is_discoverable())
            .map(|record| record.what.id.to_string())
            .collect();
        found.sort();
        found
    }

    fn state(&self, id: &str) -> &'static str {
        self.registry.get(id).map_or("none", |record| record.state())
    }
}

fn kept(committed: Committed) {
    if let Some(committed) = committed {
        committed.blocking_recv().expect("a writer").expect("kept");
    }
}

fn vm(id: &str, more: &str) -> String {
    format!("{{\"id\":\"{id}\",\"name\":\"n\",\"role\":\"worker\",\"address\":\"{id}.test\"{more}}}")
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_thousand_leases_end_when_they_do_and_never_before() {
    let bench = Bench::new();
    // Most go on, so that nothing looks like a fault of the network.
    for n in 0..1500 {
        bench.vm(&format!("steady-{n}"), r#","ttl":3600"#);
    }
    let mut until = std::collections::HashMap::new();
    for n in 0..1000_u64 {
        let ttl = 5 + n % 60;
        let id = format!("vm-{n}");
        bench.vm(&id, &format!(r#","ttl":{ttl}"#));
        until.insert(id, bench.registry.now().mono + secs(ttl));
        if n % 10 == 0 {
            bench.pass(Duration::from_millis(70));
        }
    }
    while !until.is_empty() {
        bench.pass(TICK);
        let now = bench.registry.now().mono;
        until.retain(|id, until| {
            let is_found = bench.registry.get(id).is_some_and(|record| record.is_discoverable());
            assert!(is_found || now >= *until, "{id} was left out before its time");
            assert!(!is_found || now < *until + secs(1), "{id} is found after its time");
            is_found
        });
    }
    assert_eq!(bench.found().len(), 1500);
}

#[test]
fn renewing_goes_on_and_expired_entries_are_shown_until_they_are_removed() {
    let bench = Bench::new();
    bench.vm("a", "");
    for _ in 0..10 {
        bench.pass(secs(30));
        assert_eq!(bench.renew("a").map(|record| record.state()), Ok("registered"));
    }
    bench.pass(secs(45));
    assert_eq!((bench.state("a"), bench.found().len()), ("expired", 0));
    let why = bench.registry.get("a").and_then(|record| record.why()).unwrap_or_default();
    assert!(why.starts_with("not renewed within 45 s, last seen at 20"), "{why}");
    bench.pass(secs(3600));
    assert_eq!(bench.renew("a").map(|record| record.state()), Ok("registered"), "it was only silent");
    bench.pass(secs(45));
    bench.pass(secs(24 * 3600 - 1));
    assert_eq!(bench.state("a"), "expired");
    bench.pass(secs(2));
    assert_eq!((bench.state("a"), bench.renew("a").err()), ("none", Some(Refusal::Unknown)));
}

/// Clients of the service before this one say nothing of a time to live, and renew each minute or two.
#[test]
fn old_clients_are_granted_what_fits_them() {
    let bench = Bench::new();
    assert_eq!(bench.vm("old", r#","registeredBy":"agent""#).ttl, secs(300));
    assert_eq!(bench.vm("new", r#","registeredBy":"agent","ttl":"20s""#).ttl, secs(20));
    assert_eq!(bench.vm("plain", "").ttl, TTL);
    assert_eq!(bench.vm("long", r#","ttl":86400"#).ttl, LONGEST_TTL);
    assert_eq!(bench.vm("short", r#","ttl":0.5"#).ttl, SHORTEST_TTL);
    for _ in 0..20 {
        bench.pass(secs(120));
        assert!(bench.found().contains(&"old".to_owned()));
        bench.renew("old").expect("it is known");
    }
    bench.vm("curl", "");
    bench.pass(secs(60));
    bench.renew("curl").expect("it is listed still");
    bench.pass(secs(60));
    assert!(bench.found().contains(&"curl".to_owned()), "its pauses are known by now");
    assert_eq!(bench.registry.get("curl").map(|record| record.ttl), Some(secs(180)));
    let revision = bench.renew("curl").expect("it is known").revision;
    for pause in [59_800, 60_900, 58_000, 62_300, 30_000, 70_000] {
        bench.pass(Duration::from_millis(pause));
        let renewed = bench.renew("curl").expect("it is known");
        assert_eq!((renewed.ttl, renewed.revision), (secs(180), revision), "{pause} ms are nothing new");
    }
    bench.pass(secs(15));
    assert_eq!(bench.renew("curl").map(|record| record.ttl), Ok(TTL), "and forgotten where they are no more");
}

#[test]
fn registering_again_replaces_and_an_older_life_never_does() {
    let bench = Bench::new();
    let first = bench.vm("a", r#","generation":3"#);
    bench.pass(secs(10));
    let second = bench.vm("a", r#","generation":4,"services":[{"name":"api","port":80}]"#);
    assert!(second.revision > first.revision);
    assert_eq!((second.registered_at, second.what.generation), (first.registered_at, Some(4)));
    assert_eq!(bench.register(&vm("a", r#","generation":3"#)).err(), Some(Refusal::Superseded(4)));
    let again = bench.vm("a", r#","generation":4,"services":[{"name":"api","port":80}]"#);
    assert_eq!(again.revision, second.revision, "the same once more is a renewal");
    assert_eq!(bench.registry.all(None).len(), 1);
    for part in ["metadata", "more"] {
        let large = format!(r#"{{"metadata":{{"{part}":"{}"}},"name":"n"}}"#, "x".repeat(ENTRY - 100));
        let large = Change::read(large.as_bytes()).expect("a change");
        assert_eq!(
            bench.registry.change("a", large).err(),
            Some(Refusal::TooLarge),
            "together with the rest"
        );
    }
    let moved = Change::read(br#"{"role":"infra"}"#).expect("a change");
    bench.registry.change("a", moved).expect("it is known");
    assert_eq!((bench.found().len(), bench.registry.all(Some(Role::Infra)).len()), (0, 1));
}

#[test]
fn what_was_deleted_does_not_come_back_by_a_late_renewal() {
    let bench = Bench::new();
    bench.vm("a", r#","generation":3"#);
    bench.registry.remove("a", &Caller::default()).expect("it is known");
    assert_eq!(bench.renew("a").err(), Some(Refusal::Deleted));
    assert_eq!(bench.register(&vm("a", r#","generation":2"#)).err(), Some(Refusal::Outlived));
    assert_eq!(bench.vm("a", r#","generation":3"#).state(), "registered", "it was restarted");
    let last = format!(r#","generation":{}"#, u64::MAX);
    for generation in [r#","generation":4"#, &last, &last] {
        assert_eq!(bench.vm("a", generation).state(), "registered", "a new life is another matter");
        bench.registry.remove("a", &Caller::default()).expect("it is known");
    }
    bench.pass(TTL + secs(1));
    assert_eq!(bench.renew("a").err(), Some(Refusal::Unknown), "and it is forgotten after a while");
}

#[test]
fn who_renews_is_running_unless_it_says_otherwise() {
    let bench = Bench::new();
    bench.vm("a", "");
    let say = |status: &str| {
        let change = Change::read(format!("{{\"status\":\"{status}\"}}").as_bytes()).expect("a change");
        bench.registry.change("a", change).expect("it is known");
    };
    say("stopped");
    assert_eq!((bench.state("a"), bench.found().len()), ("stopped", 0));
    bench.renew("a").expect("it is known");
    assert_eq!(bench.state("a"), "registered");
    say("paused");
    bench.pass(secs(24 * 3600 - 1));
    assert_eq!(bench.state("a"), "paused", "it cannot renew");
    bench.renew("a").expect("it is known");
    assert_eq!(bench.state("a"), "registered", "it goes on");
    say("draining");
    bench.renew("a").expect("it is known");
    assert_eq!((bench.state("a"), bench.found().len()), ("draining", 0));
    say("paused");
    bench.pass(secs(24 * 3600 + 1));
    assert_eq!(bench.state("a"), "expired", "it is paused for longer than anybody remembers");
    let why = bench.registry.get("a").and_then(|record| record.why()).unwrap_or_default();
    assert!(why.starts_with("paused, last seen at 20"), "{why}");
    bench.pass(secs(24 * 3600 + 1));
    assert_eq!(bench.state("a"), "none");
}

#[test]
fn an_entry_of_the_largest_kind_can_be_changed() {
    let bench = Bench::new();
    let body = |length: usize| vm("a", &format!(r#","metadata":{{"x":"{}"}}"#, "x".repeat(length)));
    let body = body(ENTRY - body(0).len());
    assert_eq!(body.len(), ENTRY);
    bench.register(&body).expect("it is not too large");
    let change = |text: &str| {
        let change = Change::read(text.as_bytes()).expect("a change");
        bench.registry.change("a", change).map(|(record, _)| record.state())
    };
    assert_eq!(change(r#"{"status":"draining"}"#), Ok("draining"));
    assert_eq!(change(r#"{"name":"longer"}"#), Err(Refusal::TooLarge));
}

/// More than half of them at once say more of the network than of themselves.
#[test]
fn a_wave_is_held_once_and_seen() {
    let bench = Bench::new();
    (0..10).for_each(|n| drop(bench.vm(&format!("vm-{n}"), "")));
    bench.pass(secs(30));
    for id in ["vm-0", "vm-1"] {
        bench.renew(id).expect("it is known");
    }
    bench.pass(secs(16));
    assert_eq!(bench.found().len(), 10, "eight of ten at once are believed only later");
    let held = bench.registry.get("vm-5").expect("it is there");
    assert!(held.is_held() && held.why().is_some_and(|why| why.contains("at once")), "{held:?}");
    bench.renew("vm-5").expect("it is known");
    for id in ["vm-0", "vm-1"] {
        bench.renew(id).expect("it is known");
    }
    assert!(bench.registry.get("vm-5").is_some_and(|record| !record.is_held()));
    bench.pass(TTL + secs(1));
    let left = bench.found();
    assert!(!left.contains(&"vm-7".to_owned()), "once, and no longer: {left:?}");
    bench.pass(TTL * 3);
    assert_eq!(bench.found(), Vec::<String>::new());
}

#[test]
fn a_small_fleet_is_not_guarded() {
    let bench = Bench::new();
    (0..5).for_each(|n| drop(bench.vm(&format!("vm-{n}"), "")));
    bench.pass(TTL + secs(1));
    assert_eq!(bench.found().len(), 0);
}

#[test]
fn time_in_which_nobody_could_be_heard_does_not_count() {
    type Gap = fn(&FakeClock);
    let gaps: [(&str, Gap); 3] = [
        ("stopped", |clock| clock.shift(secs(90), secs(90), secs(90))),
        ("suspended", |clock| clock.shift(TICK, TICK, secs(7200))),
        ("restored", |clock| clock.shift(TICK, secs(86_400), TICK)),
    ];
    for (name, gap) in gaps {
        let bench = Bench::new();
        bench.vm("a", "");
        bench.pass(secs(40));
        gap(&bench.clock);
        bench.registry.tick();
        bench.pass(secs(44));
        assert_eq!(bench.state("a"), "registered", "{name}");
        bench.pass(secs(2));
        assert_eq!(bench.state("a"), "expired", "{name}: for its time to live, and no longer");
    }
    let bench = Bench::new();
    bench.vm("a", "");
    bench.clock.set_back(secs(3600));
    bench.pass(secs(44));
    assert_eq!(bench.state("a"), "registered", "a clock that was set back");
    bench.pass(secs(1));
    assert_eq!(bench.state("a"), "expired", "ends no lease later");
}

#[test]
fn a_restart_forgets_nothing_and_grants_one_time_to_live() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = || Place::File(folder.path().join("deep/registry.redb"));
    let clock = FakeClock::new();
    let bench = Bench::at(file(), clock.clone());
    for id in ["kept", "expired", "deleted", "paused"] {
        bench.vm(id, r#","metadata":{"z":1,"a":[true,null]},"generation":2"#);
    }
    kept(bench.registry.remove("deleted", &Caller::default()).expect("it is known"));
    let again =
        Registration::read(vm("kept", r#","metadata":{"z":1,"a":[true,null]},"generation":2"#).as_bytes());
    let (_, committed) = bench.registry.register(again.expect("a registration")).expect("it is the same");
    assert!(committed.is_some(), "it may not be kept yet, whoever said it first");
    kept(committed);
    let paused = Change::read(br#"{"status":"paused"}"#).expect("a change");
    kept(bench.registry.change("paused", paused).expect("it is known").1);
    bench.pass(secs(30));
    bench.renew("kept").expect("it is known");
    bench.pass(secs(20));
    assert_eq!((bench.state("kept"), bench.state("expired")), ("registered", "expired"));
    let revision = bench.registry.revision(None);
    drop(bench);

    let bench = Bench::at(file(), clock.clone());
    let found = bench.registry.get("kept").expect("it was kept");
    assert_eq!(found.what.metadata.as_ref().map(|it| it.get()), Some(r#"{"z":1,"a":[true,null]}"#));
    assert!(found.why().is_some_and(|why| why.starts_with("recovered")), "{found:?}");
    assert_eq!((bench.state("expired"), bench.state("deleted")), ("expired", "none"));
    assert_eq!(bench.state("paused"), "paused");
    assert!(bench.registry.revision(None) > revision);
    bench.pass(secs(30));
    drop(bench);
    let bench = Bench::at(file(), clock.clone());
    bench.pass(secs(14));
    assert_eq!(bench.state("kept"), "registered");
    bench.pass(secs(2));
    assert_eq!(bench.state("kept"), "expired", "two starts in a row grant it no more than one");
    bench.renew("kept").expect("it is known");
    drop(bench);
    let bench = Bench::at(file(), clock);
    bench.pass(secs(44));
    assert_eq!(bench.state("kept"), "registered", "it was renewed since");
}

#[test]
fn of_a_damaged_file_what_can_be_read_is_kept() {
    type Damage = fn(&Path);
    let damages: [(&str, std::ops::RangeInclusive<usize>, Damage); 3] = [
        ("cut", 30..=48, |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("the file");
            let length = file.metadata().expect("its length").len();
            file.set_len(length * 3 / 4).expect("it is cut");
        }),
        ("overwritten at the front", 49..=49, |path| {
            let mut bytes = std::fs::read(path).expect("the file");
            bytes[..512].fill(0x55);
            std::fs::write(path, bytes).expect("it is written");
        }),
        ("a flipped bit in each copy of an entry", 48..=48, |path| {
            let mut bytes = std::fs::read(path).expect("the file");
            let copies: Vec<usize> = memchr::memmem::find_iter(&bytes, b"vm-17.test").collect();
            assert!(!copies.is_empty());
            copies.into_iter().for_each(|at| bytes[at] ^= 1);
            std::fs::write(path, bytes).expect("it is written");
        }),
    ];
    for (name, left, damage) in damages {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.redb");
        let bench = Bench::at(Place::File(path.clone()), FakeClock::new());
        (0..50).for_each(|n| drop(bench.vm(&format!("vm-{n}"), "")));
        kept(bench.registry.remove("vm-3", &Caller::default()).expect("it is known"));
        drop(bench);
        damage(&path);
        let bench = Bench::at(Place::File(path.clone()), FakeClock::new());
        let count = bench.registry.all(None).len();
        assert!(left.contains(&count), "{name}: {count} of 49 entries");
        let files = std::fs::read_dir(folder.path()).expect("the folder").count();
        assert_eq!(files, 2, "{name}: what was damaged is put aside");
        assert_eq!(bench.state("vm-3"), "none", "{name}: what was deleted stays so");
        bench.vm("new", "");
        drop(bench);
        let bench = Bench::at(Place::File(path.clone()), FakeClock::new());
        assert_eq!(bench.registry.all(None).len(), count + 1, "{name}: and goes on");
        assert_eq!(bench.state("vm-3"), "none", "{name}: and after the next start as well");
    }
}

#[test]
fn what_is_no_file_of_a_registry_is_put_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("registry.redb");
    std::fs::write(&path, "vms: []\n".repeat(1000)).expect("a file");
    let bench = Bench::at(Place::File(path), FakeClock::new());
    assert_eq!(bench.registry.all(None).len(), 0);
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 2, "nothing is thrown away");
}

#[test]
fn one_file_has_one_registry() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::File(folder.path().join("registry.redb"));
    let _first = Bench::at(place.clone(), FakeClock::new());
    let terms = Terms { ttl: TTL, retention: TTL, strict_conflict: false };
    let second = Registry::new(place, terms);
    assert!(second.open().is_err_and(|error| error.0.contains("another process")));
}

#[test]
fn there_is_room_for_so_many_and_what_has_expired_makes_some() {
    let bench = Bench::new();
    for n in 0..ENTRIES {
        bench.vm(&format!("vm-{n}"), if n == 7 { r#","ttl":5"# } else { r#","ttl":3600"# });
    }
    assert_eq!(bench.register(&vm("more", "")).err(), Some(Refusal::Full));
    bench.pass(secs(6));
    assert_eq!(bench.state("vm-7"), "expired");
    assert_eq!(bench.vm("more", "").state(), "registered");
    assert_eq!(bench.state("vm-7"), "none");
}

#[test]
fn so_many_of_those_that_were_deleted_are_remembered_and_for_so_long() {
    let bench = Bench::new();
    let remove = |id: &str| bench.registry.remove(id, &Caller::default()).map(kept);
    for n in 0..=ENTRIES {
        let id = format!("vm-{n}");
        bench.vm(&id, "");
        remove(&id).expect("it leaves");
    }
    assert_eq!(bench.renew("vm-0").err(), Some(Refusal::Deleted));
    assert_eq!(
        bench.renew(&format!("vm-{ENTRIES}")).err(),
        Some(Refusal::Unknown),
        "one more than are remembered"
    );
    bench.pass(TTL + secs(1));
    assert_eq!(bench.renew("vm-0").err(), Some(Refusal::Unknown), "for one time to live");
    bench.vm("again", "");
    remove("again").expect("it leaves");
    assert_eq!(bench.renew("again").err(), Some(Refusal::Deleted), "there is room again");
}

#[test]
fn who_watches_hears_of_each_change_and_of_no_renewal() {
    let bench = Bench::new();
    let mut watcher = bench.registry.watch(None);
    bench.vm("a", "");
    bench.renew("a").expect("it is known");
    bench.pass(TTL + secs(1));
    bench.registry.remove("a", &Caller::default()).expect("it is listed");
    let heard = bench.registry.changes(&mut watcher, 100).expect("all of it");
    let texts: Vec<String> =
        heard.iter().map(|(_, change)| String::from_utf8_lossy(change).into_owned()).collect();
    assert_eq!(texts.len(), 3, "{texts:#?}");
    assert!(texts[0].contains("\"state\":\"registered\"") && texts[0].starts_with("{\"kind\":\"put\""));
    assert!(texts[1].contains("\"state\":\"expired\"") && texts[1].contains("\"why\""));
    assert!(texts[2].contains("\"kind\":\"gone\"") && texts[2].contains("\"id\":\"a\""));
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let long = format!("{{\"id\":\"{}\"}}", "a".repeat(ENTRY));
    for (body, expected) in [
        ("", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("{}", "id is required"),
        (r#"{"id":" "}"#, "id is required"),
        (r#"{"id":"a/b"}"#, "id may have"),
        (r#"{"id":"a"}"#, "name is required"),
        (r#"{"id":"a","name":"n"}"#, "invalid role: undefined"),
        (r#"{"id":"a","name":"n","role":"boss"}"#, "invalid role: boss"),
        (r#"{"id":"a","name":"n","role":"worker"}"#, "address is required"),
        (r#"{"id":"a","name":"n","role":"worker","address":"http://x"}"#, "address must be"),
        (r#"{"id":"a","name":"n","role":"worker","address":"2130706433"}"#, "address must be"),
        (r#"{"id":"a","name":"n","role":"worker","address":"0x7f000001"}"#, "address must be"),
        (r#"{"id":"a","name":"n","role":"worker","address":"a.127.1."}"#, "address must be"),
        (r#"{"id":"a","name":"n","role":"worker","address":"127.0.0.01"}"#, "address must be"),
        (&vm("a", r#","status":"asleep""#), "invalid status: asleep"),
        (&vm("a", r#","services":{}"#), "services must be a list"),
        (&vm("a", r#","services":[{"name":"api","port":0}]"#), "services[0]"),
        (&vm("a", r#","services":[{"name":"api","port":99999}]"#), "services[0]"),
        (&vm("a", r#","metadata":[]"#), "metadata must be an object"),
        (&vm("a", r#","ttl":"soon""#), "ttl must be"),
        (&vm("a", r#","ttl":-1"#), "ttl must be"),
        (&vm("a", r#","generation":-1"#), "generation must be"),
        (&vm("a", r#","registeredBy":7"#), "registeredBy is required"),
        (&long, "8192 bytes"),
    ] {
        let refused = Registration::read(body.as_bytes()).expect_err(body).to_string();
        assert!(refused.contains(expected), "{body}: {refused}");
    }
    let services = format!(",\"services\":[{}]", vec![r#"{"name":"s","port":1}"#; 65].join(","));
    assert!(Registration::read(vm("a", &services).as_bytes()).is_err());
}

#[test]
fn a_lease_key_holds_as_long_as_its_lease() {
    let bench = Bench::new();
    let key = |text: &str| Caller { key: LeaseKey::read(text.as_bytes()).ok(), ..Caller::default() };
    let body = r#"{"id":"a","name":"n","role":"worker","address":"a.test","ttl":5,"generation":7}"#;
    let register = |caller: &Caller| {
        let asked = Registration::read(body.as_bytes()).expect("a registration");
        bench.registry.register(Registration { caller: caller.clone(), ..asked }).map(drop)
    };
    let (own, other) = (key("0123456789abcdef"), key("fedcba9876543210"));
    assert_eq!(register(&own), Ok(()));
    assert_eq!(register(&other), Err(Refusal::Bound), "a copy of the VM, or somebody else");
    assert_eq!(register(&Caller::default()), Err(Refusal::Bound));
    assert_eq!(register(&own), Ok(()));
    bench.pass(Duration::from_secs(6));
    for caller in [&other, &Caller::default()] {
        let renewal = Renewal { caller: caller.clone(), ..Renewal::default() };
        assert_eq!(bench.registry.renew("a", &renewal).map(drop), Err(Refusal::Bound), "{caller:?}");
        let change = Change { caller: caller.clone(), ..Change::default() };
        assert_eq!(bench.registry.change("a", change).map(drop), Err(Refusal::Bound), "{caller:?}");
    }
    assert_eq!(bench.state("a"), "expired", "nobody else brings it back");
    assert_eq!(register(&other), Ok(()), "whoever comes first after its end");
    assert_eq!(register(&own), Err(Refusal::Bound));
}

/// A restored copy's original, which goes on with what it did.
#[test]
fn an_older_life_has_no_say_in_what_a_newer_one_registered() {
    let bench = Bench::new();
    bench.vm("a", r#","generation":3"#);
    let of = |generation: u64| Caller { generation: Some(generation), ..Caller::default() };
    let changes = |generation: u64| {
        let renewal = format!(r#"{{"generation":{generation},"status":"draining"}}"#);
        let renewal = Renewal::read(renewal.as_bytes()).expect("a renewal");
        let change = format!(r#"{{"generation":{generation},"name":"of {generation}"}}"#);
        let change = Change::read(change.as_bytes()).expect("a change");
        [
            bench.registry.renew("a", &renewal).map(drop),
            bench.registry.change("a", change).map(drop),
            bench.registry.remove("a", &of(generation)).map(drop),
        ]
    };
    let refused = || Err(Refusal::Superseded(3));
    assert_eq!(changes(2), [refused(), refused(), refused()]);
    assert_eq!(bench.state("a"), "registered");
    bench.pass(TTL + secs(1));
    assert_eq!(changes(2), [refused(), refused(), refused()], "and not when it is silent");
    bench.renew("a").expect("who says nothing of a life is let in, as ever");
    let change = Change::read(br#"{"generation":4}"#).expect("a change");
    bench.registry.change("a", change).expect("a newer life");
    assert_eq!(bench.register(&vm("a", r#","generation":3"#)).err(), Some(Refusal::Superseded(4)));
    assert_eq!(changes(4), [Ok(()), Ok(()), Ok(())]);
}

#[test]
fn what_was_found_out_ends_with_the_lease() {
    let bench = Bench::new();
    let body = r#","ttl":45,"services":[{"name":"api","port":80,"healthPath":"/"}]"#;
    bench.vm("a", body);
    for witness in [Witness::Traffic, Witness::Probe] {
        let finding = Finding {
            id: "a".into(),
            service: "api".into(),
            witness,
            works: Some(Err("connection refused".to_owned())),
        };
        bench.registry.judge(&[finding]);
        assert_eq!(bench.state("a"), "unhealthy");
        bench.pass(TTL);
        assert_eq!(bench.state("a"), "expired");
        assert_eq!(bench.vm("a", body).state(), "registered", "{witness:?}: it may work by now");
    }
}

/// One whose store several gateways share, without anybody who asks it.
#[test]
fn what_a_store_said_before_a_suspension_is_not_certain() {
    let clock = FakeClock::new();
    let terms = Terms { ttl: TTL, retention: TTL, strict_conflict: false };
    let registry = Registry::with_clock(Place::Etcd("/r".to_owned()), terms, Box::new(clock.clone()));
    let asked = Registration::read(vm("a", "").as_bytes()).expect("a registration");
    let refused = registry.wish(Wish::Register(asked)).expect_err("nobody has answered yet");
    assert_eq!((refused.code(), registry.is_open()), (Some("store-lost"), false));
    registry.begin_shared(Vec::new(), 7);
    registry.hear_of_store();
    registry.tick();
    assert_eq!((registry.lost_for(), registry.revision(None)), (None, 7 << 16));
    let pass = |time: Duration| {
        for _ in 0..time.as_millis() / TICK.as_millis() {
            clock.shift(TICK, TICK, TICK);
            registry.tick();
        }
    };
    pass(secs(4));
    assert_eq!(registry.lost_for(), None, "an election takes as long");
    pass(secs(2));
    assert_eq!(registry.lost_for(), Some(secs(6)));
    registry.hear_of_store();
    registry.tick();
    assert_eq!(registry.lost_for(), None);
    clock.shift(TICK, TICK, secs(7200));
    registry.tick();
    assert!(registry.lost_for().is_some(), "whatever it said then is two hours old");
    registry.hear_of_store();
    assert!(registry.lost_for().is_some(), "until everything is asked anew");
}
