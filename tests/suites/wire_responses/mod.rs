//! Raw answers of backends, each with its verdict: what the client gets, and which connections are
//! used again.

mod case;
mod chunks;
mod close;
mod fields;
mod interim;
mod judge;
mod length;
mod play;
mod stage;
mod status_line;
mod upgrade;

use case::{
    ASK_HEAD, Case, OLD, Verdict, WEBSOCKET, aborted, bad_gateway, broken, delivered, spoiled, tunnel,
};
use play::failures;
use stage::Delivery;
use std::collections::BTreeSet;

const TABLES: [&[Case]; 7] = [
    status_line::CASES,
    fields::CASES,
    length::CASES,
    chunks::CASES,
    close::CASES,
    interim::CASES,
    upgrade::CASES,
];

fn all() -> Vec<Case> {
    TABLES.into_iter().flatten().copied().collect()
}

#[track_caller]
fn none(failures: &[String], of: usize) {
    assert!(failures.is_empty(), "{} of {of} cases:\n\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test]
async fn every_answer_gets_its_verdict() {
    let cases = all();
    none(&failures(&cases, Delivery::Whole).await, cases.len());
}

#[tokio::test]
async fn every_answer_gets_its_verdict_byte_by_byte() {
    let cases = all();
    none(&failures(&cases, Delivery::Split).await, cases.len());
}

#[test]
fn the_tables_are_large_and_their_cases_differ() {
    let cases = all();
    assert!(cases.len() >= 300, "only {} cases", cases.len());
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "names are used twice");
    let texts: BTreeSet<_> = cases.iter().map(|case| (case.ask, case.play)).collect();
    assert_eq!(texts.len(), cases.len(), "answers are there twice");
    let delivered = cases.iter().filter(|case| matches!(case.verdict, Verdict::Delivered(_))).count();
    assert!(delivered >= 80 && cases.len() - delivered >= 100, "{delivered} are delivered");
}

#[tokio::test]
async fn a_wrong_verdict_is_noticed() {
    const PLAIN: &[u8] = b"<OK>x: y\r\ncontent-length: 2\r\n\r\nok";
    const CHUNKS: &[u8] = b"<OK>trailer: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: 1\r\n\r\n";
    const TO_THE_END: &[u8] = b"<OK>\r\nok<FIN>";
    const BAD: &[u8] = b"hello\r\n\r\n";
    const HALF: &[u8] = b"<OK>content-length: 10\r\n\r\nhello<HEAD><FIN>";
    const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\n\r\n<OK>content-length: 2\r\n\r\nok";
    const RIGHT: &[Case] = &[
        delivered("right", PLAIN, "ok").has(&[("x", "y")]).lacks(&["y"]),
        delivered("right", PLAIN, "ok").to(OLD).last(),
        delivered("right", TO_THE_END, "ok").unused(),
        bad_gateway("right", BAD),
        broken("right", BAD),
        aborted("right", HALF),
        tunnel("right", b"<SWITCH>early", "early"),
    ];
    const WRONG: &[Case] = &[
        delivered("another status", PLAIN, "ok").status(201),
        delivered("another body", PLAIN, "OK"),
        delivered("another value", PLAIN, "ok").has(&[("x", "Y")]),
        delivered("a header twice", PLAIN, "ok").has(&[("x", "y"), ("x", "y")]),
        delivered("no header, and there is one", PLAIN, "ok").lacks(&["X"]),
        delivered("another trailer", CHUNKS, "ok").trailers(&[("x", "2")]),
        delivered("an interim answer, and there is none", PLAIN, "ok").after(&[103]),
        delivered("other interim answers", HINTS, "ok").after(&[100, 103]),
        delivered("used again, and is closed", TO_THE_END, "ok"),
        delivered("kept, and is closed", PLAIN, "ok").to(OLD),
        delivered("delivered, and is bad", BAD, ""),
        delivered("delivered, and is broken off", HALF, "hello"),
        delivered("a body, and there is none", PLAIN, "ok").to(ASK_HEAD),
        bad_gateway("bad, and is delivered", PLAIN),
        bad_gateway("bad, and is broken off", HALF),
        aborted("aborted, and is whole", TO_THE_END),
        broken("broken, and is whole", TO_THE_END),
        spoiled("spoiled, and is broken off later", HALF),
        tunnel("a tunnel, and is refused", PLAIN, "").to(WEBSOCKET),
        tunnel("another first byte", b"<SWITCH>early", "Early"),
    ];
    let right = failures(RIGHT, Delivery::Whole).await;
    assert!(right.is_empty(), "{}", right.join("\n"));
    let noticed = failures(WRONG, Delivery::Whole).await;
    for case in WRONG {
        let found = noticed.iter().filter(|failure| failure.starts_with(&format!("{} (", case.name))).count();
        assert_eq!(found, 1, "{} in {}", case.name, noticed.join("\n"));
    }
}
