//! What becomes of heads, without a gateway.

use super::*;
use vers_plugin::testing::{self, MockHost};

fn plugin(table: &str) -> HeaderInject {
    testing::configure(table).unwrap_or_else(|problems| panic!("{table}: {problems:?}"))
}

fn on_request(table: &str, mut req: Request) -> Request {
    assert_eq!(plugin(table).on_request(&mut req), Verdict::Next);
    req
}

#[test]
fn requests_and_answers_are_edited_apart() {
    let table = "request = { x-a = '1' }\nresponse = { x-served-by = 'vers-gateway' }";
    let req = on_request(table, testing::request("GET", "/").build());
    assert_eq!(req.headers().entries(), [("x-a".into(), b"1".to_vec())]);
    let mut resp = testing::response(200).build();
    assert_eq!(plugin(table).on_response(&mut resp), ResponseVerdict::Next);
    assert_eq!(resp.headers().entries(), [("x-served-by".into(), b"vers-gateway".to_vec())]);
}

#[test]
fn set_replaces_append_adds_remove_removes() {
    let table = "request = { X-A = 'new' }\nrequest_append = { x-b = 'new' }\nrequest_remove = ['X-C']";
    let sent = testing::request("GET", "/")
        .header("x-a", "old")
        .header("x-a", "older")
        .header("x-b", "old")
        .header("x-c", "1");
    let req = on_request(table, sent.build());
    let values =
        |name| req.headers().get_all(name).into_iter().map(String::from_utf8).collect::<Result<Vec<_>, _>>();
    assert_eq!(values("x-a"), Ok(vec!["new".into()]));
    assert_eq!(values("x-b"), Ok(vec!["old".into(), "new".into()]));
    assert_eq!(values("x-c"), Ok(vec![]));
}

#[test]
fn templates_name_facts() {
    let _host = MockHost::new().vm_id("a1");
    let check = |template: &str, expected: Option<&str>| {
        let sent = testing::request("GET", "/").header("x", "forged");
        let sent = sent.client("2001:db8::1").route("app").id("r7").local_port(3000).capture("team", "red");
        let req = on_request(&format!("request = {{ x = '{template}' }}"), sent.build());
        assert_eq!(req.header_str("x").as_deref(), expected, "{template}");
    };
    check("plain", Some("plain"));
    check("", Some(""));
    check("{client_address} {local_port}", Some("2001:db8::1 3000"));
    check("{{{route}}}/{vm_id}/{request_id}/{capture.team}", Some("{app}/a1/r7/red"));
    // What is not known is not half said, and the sender's own value does not stand in for it.
    check("a-{capture.other}-b", None);
}

#[test]
fn an_unknown_vm_removes_a_forged_name_and_appends_nothing() {
    let _host = MockHost::new();
    let sent = testing::request("GET", "/").header("x-vm-id", "forged").build();
    let req = on_request("request = { x-vm-id = '{vm_id}' }\nrequest_append = { x-hops = '{vm_id}' }", sent);
    assert_eq!(req.headers().entries(), []);
}

#[test]
fn a_refused_value_removes_a_forged_one_and_is_logged() {
    let host = MockHost::new();
    let sent = testing::request("GET", "/").header("x-team", "forged").capture("team", "a\r\nb").build();
    let req = on_request("request = { x-team = '{capture.team}' }", sent);
    assert_eq!(req.header_str("x-team"), None);
    assert!(host.logged(log::Level::Warn, "header x-team not changed"));
}

#[test]
fn mistakes_are_named() {
    let check = |table: &str, path: &str, message: &str| {
        let problems = testing::configure::<HeaderInject>(table).expect_err(table);
        assert_eq!(problems[0].path, path, "{table}");
        assert!(problems[0].message.contains(message), "{table}: {}", problems[0].message);
    };
    check("requests = {}", "requests", "unknown field `requests`, expected one of `request`");
    check("request = { x = 1 }", "request.x", "expected a string");
    check("request = { x = '{nope}' }", "request.x", "unknown fact \"{nope}\"; there are {client_address}");
    check("request = { x = 'a{' }", "request.x", "single brace");
    check("request = { x = \"a\\nb\" }", "request.x", "control characters");
    check("request = { 'x y' = 'a' }", "request.x y", "not a valid header name");
    check("request = { Connection = 'close' }", "request.Connection", "belongs to the gateway");
    check(
        "request_append = { x-forwarded-for = '::1' }",
        "request_append.x-forwarded-for",
        "belongs to the gateway",
    );
    check("response_remove = ['a', 'content-length']", "response_remove.1", "belongs to the gateway");
}
