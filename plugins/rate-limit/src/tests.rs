//! Who may pass, and when again.

use super::*;
use vers_plugin::testing::{self, MockHost};

fn limit(table: &str) -> RateLimit {
    testing::configure(table).expect("a good table")
}

/// 200, or the status with its `retry-after`.
fn ask(limit: &RateLimit, client: &str, header: Option<&str>) -> (u16, String) {
    let mut request = testing::request("GET", "/").client(client);
    if let Some(value) = header {
        request = request.header("x-user", value);
    }
    let verdict = limit.on_request(&mut request.build());
    verdict.reply().map_or((200, String::new()), |reply| {
        (reply.status, reply.header_str("retry-after").unwrap_or_default().to_owned())
    })
}

#[test]
fn a_burst_passes_and_then_one_after_another() {
    let host = MockHost::new();
    let limit = limit("requests = 10\nper = '10s'\nburst = 3");
    let passed = |n: usize| (0..n).filter(|_| ask(&limit, "192.0.2.1", None).0 == 200).count();
    assert_eq!(passed(10), 3);
    assert_eq!(ask(&limit, "192.0.2.1", None), (429, "1".to_owned()));
    assert_eq!(ask(&limit, "192.0.2.2", None).0, 200, "another client");
    host.advance(Duration::from_millis(999));
    assert_eq!(passed(1), 0);
    host.advance(Duration::from_millis(1));
    assert_eq!(passed(5), 1, "one token a second");
    host.advance(Duration::from_secs(60));
    assert_eq!(passed(10), 3, "no more than a full bucket");
}

#[test]
fn a_client_over_ipv6_is_a_network() {
    let _host = MockHost::new();
    let limit = limit("requests = 1\nper = '1m'");
    assert_eq!(ask(&limit, "2001:db8:1:2::1", None).0, 200);
    assert_eq!(ask(&limit, "2001:db8:1:2:ffff::7", None).0, 429, "another address of the same one");
    assert_eq!(ask(&limit, "2001:db8:1:3::1", None).0, 200);
    assert_eq!(ask(&limit, "192.0.2.1", None).0, 200);
    assert_eq!(ask(&limit, "192.0.2.2", None).0, 200);
}

#[test]
fn in_the_long_run_as_many_pass_as_the_limit_says() {
    let host = MockHost::new();
    let limit = limit("requests = 5");
    let mut passed = 0;
    for _ in 0..1000 {
        host.advance(Duration::from_millis(10));
        passed += u32::from(ask(&limit, "192.0.2.1", None).0 == 200);
    }
    assert!((50..=55).contains(&passed), "{passed} in 10 s");
}

#[test]
fn a_header_tells_clients_apart_where_there_is_one() {
    let _host = MockHost::new();
    let limit = limit("requests = 1\nper = '1m'\nby = 'x-user'");
    assert_eq!(ask(&limit, "192.0.2.1", Some("ann")).0, 200);
    assert_eq!(ask(&limit, "192.0.2.2", Some("ann")), (429, "60".to_owned()), "wherever she is");
    assert_eq!(ask(&limit, "192.0.2.1", Some("bob")).0, 200);
    assert_eq!(ask(&limit, "192.0.2.1", None).0, 200);
    assert_eq!(ask(&limit, "192.0.2.1", Some("")).0, 429, "an empty value is none");
}

#[test]
fn mistakes() {
    for (table, path) in [
        ("requests = 0", "requests"),
        ("requests = 1\nburst = 0", "burst"),
        ("requests = 1\nby = 'x user'", "by"),
        ("requests = 1\nper = '0s'", "per"),
        ("requests = 1\nwhen_full = 'maybe'", "when_full"),
    ] {
        let problems = testing::configure::<RateLimit>(table).expect_err(table);
        assert_eq!(problems[0].path, path, "{table}: {problems:?}");
    }
}
