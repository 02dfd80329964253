//! Who goes to the canary.

use super::*;
use vers_plugin::testing;

fn goes(canary: &Canary, headers: &[(&str, &str)], client: &str) -> bool {
    let request = headers
        .iter()
        .fold(testing::request("GET", "/"), |request, (name, value)| request.header(name, *value));
    canary.on_request(&mut request.client(client).build()) == Verdict::route_to("next")
}

#[test]
fn a_header_leads_there() {
    let any: Canary =
        testing::configure("to = 'next'\nheader = { name = 'x-canary' }").expect("a good table");
    assert!(goes(&any, &[("x-canary", "")], "192.0.2.1"));
    assert!(!goes(&any, &[], "192.0.2.1"));
    let one: Canary =
        testing::configure("to = 'next'\nheader = { name = 'x-canary', value = 'yes' }").expect("a table");
    assert!(goes(&one, &[("X-Canary", "yes")], "192.0.2.1"));
    assert!(!goes(&one, &[("x-canary", "no")], "192.0.2.1"));
}

#[test]
fn a_part_of_the_clients_goes_there_and_stays_when_it_grows() {
    let of = |percent: f64| -> Canary {
        testing::configure(&format!("to = 'next'\npercent = {percent:.1}")).expect("a table")
    };
    let (few, many) = (of(5.0), of(30.0));
    let clients: Vec<String> = (0..4000).map(|n| format!("10.0.{}.{}", n / 250, n % 250)).collect();
    let going = |canary: &Canary| {
        clients.iter().filter(|client| goes(canary, &[], client)).cloned().collect::<Vec<_>>()
    };
    let (few, many) = (going(&few), going(&many));
    assert!((140..260).contains(&few.len()), "{} of 4000 are 5 %", few.len());
    assert!((1080..1320).contains(&many.len()), "{} of 4000 are 30 %", many.len());
    assert!(few.iter().all(|client| many.contains(client)), "nobody goes back");
    assert_eq!(going(&of(100.0)).len(), 4000);
}

#[test]
fn clients_may_be_told_apart_by_a_header() {
    let canary: Canary =
        testing::configure("to = 'next'\npercent = 50.0\nby = 'x-user'").expect("a good table");
    let by_user = |user: &str, client: &str| goes(&canary, &[("x-user", user)], client);
    let (mut there, mut here) = (0, 0);
    for user in 0..200 {
        let user = user.to_string();
        let first = by_user(&user, "192.0.2.1");
        assert_eq!(first, by_user(&user, "2001:db8::7"), "wherever the user is");
        if first { there += 1 } else { here += 1 }
    }
    assert!(there > 60 && here > 60, "{there} and {here}");
}

#[test]
fn the_other_backend_may_be_asked_for_another_host() {
    let canary: Canary =
        testing::configure("to = 'next'\npercent = 100\nhost = 'next.internal'").expect("a table");
    let mut req = testing::request("GET", "/").build();
    assert_eq!(canary.on_request(&mut req), Verdict::route_to("next"));
    assert_eq!(req.authority(), "next.internal");
}

#[test]
fn mistakes() {
    for (table, path) in [
        ("to = 'a'", ""),
        ("to = 'a'\npercent = 101", "percent"),
        ("to = 'a'\npercent = -1", "percent"),
        ("to = 'a'\npercent = 1\nby = 'x user'", "by"),
        ("to = 'a'\nheader = { name = '' }", "header.name"),
        ("percent = 1", ""),
    ] {
        let problems = testing::configure::<Canary>(table).expect_err(table);
        assert_eq!(problems[0].path, path, "{table}: {problems:?}");
    }
}
