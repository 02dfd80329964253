//! Raw requests, each with its verdict: what is refused, what is forwarded, and how.

mod case;
mod chunks;
mod connection;
mod expect;
mod fields;
mod host;
mod judge;
mod length;
mod play;
mod record;
mod request_line;
mod size;
mod target;
mod transfer_coding;
mod upgrade;
mod valid;

use case::{Case, Verdict, aborted, forwarded, get, post, refused, spoiled, unfinished, want};
use play::{Delivery, failures};
use std::collections::BTreeSet;

const TABLES: [&[Case]; 12] = [
    request_line::CASES,
    target::CASES,
    host::CASES,
    fields::CASES,
    size::CASES,
    length::CASES,
    transfer_coding::CASES,
    chunks::CASES,
    expect::CASES,
    upgrade::CASES,
    connection::CASES,
    valid::CASES,
];

fn all() -> Vec<Case> {
    TABLES.into_iter().flatten().copied().collect()
}

#[track_caller]
fn none(failures: &[String], of: usize) {
    assert!(failures.is_empty(), "{} of {of} cases:\n\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test]
async fn every_request_gets_its_verdict() {
    let cases = all();
    none(&failures(&cases, Delivery::Alone).await, cases.len());
}

#[tokio::test]
async fn what_follows_a_refused_request_is_neither_answered_nor_forwarded() {
    let cases = all();
    none(&failures(&cases, Delivery::Followed).await, cases.len());
}

#[tokio::test]
async fn every_request_gets_its_verdict_byte_by_byte() {
    let cases = all();
    none(&failures(&cases, Delivery::Split).await, cases.len());
}

#[test]
fn the_tables_are_large_and_their_cases_differ() {
    let cases = all();
    assert!(cases.len() >= 500, "only {} cases", cases.len());
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "names are used twice");
    let texts: BTreeSet<_> = cases.iter().map(|case| case.raw).collect();
    assert_eq!(texts.len(), cases.len(), "requests are there twice");
    let served = cases.iter().filter(|case| matches!(case.verdict, Verdict::Forwarded(_))).count();
    assert!(served >= 100 && cases.len() - served >= 200, "{served} are served");
}

#[tokio::test]
async fn a_wrong_verdict_is_noticed() {
    const PLAIN: &[u8] = b"<GET>x: y\r\n\r\n";
    const CHUNKS: &[u8] =
        b"<POST>trailer: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: 1\r\n\r\n";
    const LATER: &[u8] = b"<POST>content-length: 5\r\n\r\n<LATER>hello";
    const TWO: &[u8] = b"<GET>\r\n<GET>\r\n";
    const CLOSED: &[u8] = b"<GET>connection: close\r\n\r\n";
    const BAD: &[u8] = b"GET /MARK HTTP/1.1\r\nconnection: close\r\n\r\n";
    const RIGHT: &[Case] = &[
        forwarded("right", PLAIN, &[get().has(&[("x", "y")]).lacks(&["y"])]),
        forwarded("right", CHUNKS, &[post("hello").trailers(&[("x", "1")])]),
        forwarded("right", LATER, &[post("hello")]),
        forwarded("right", TWO, &[get(), get()]),
        forwarded("right", CLOSED, &[get()]).closed().told(&[("connection", "close")]),
        refused(400, "right", BAD),
    ];
    const WRONG: &[Case] = &[
        refused(400, "refused, and is forwarded", PLAIN),
        refused(200, "refused with the status of what is forwarded", CLOSED),
        refused(404, "refused with another status", BAD),
        spoiled(400, "spoiled, and is forwarded", CHUNKS),
        aborted(400, "aborted, and is forwarded", LATER),
        aborted(400, "aborted, and was never begun", BAD),
        unfinished("unfinished, and is whole", PLAIN),
        forwarded("forwarded, and is refused", BAD, &[get()]).closed(),
        forwarded("another method", PLAIN, &[want("HEAD", "/MARK")]),
        forwarded("another target", PLAIN, &[want("GET", "/MARK?")]),
        forwarded("a header that is not there", PLAIN, &[get().has(&[("z", "")])]),
        forwarded("another value", PLAIN, &[get().has(&[("x", "Y")])]),
        forwarded("a header twice", PLAIN, &[get().has(&[("x", "y"), ("x", "y")])]),
        forwarded("no header, and there is one", PLAIN, &[get().lacks(&["X"])]),
        forwarded("another body", CHUNKS, &[post("hello!").trailers(&[("x", "1")])]),
        forwarded("no trailers, and there is one", CHUNKS, &[post("hello")]),
        forwarded("another trailer", CHUNKS, &[post("hello").trailers(&[("x", "2")])]),
        forwarded("one request, and there are two", TWO, &[get()]),
        forwarded("kept, and is closed", CLOSED, &[get()]),
        forwarded("another answer", PLAIN, &[get()]).answered(&[201]),
        forwarded("a header of the answer", PLAIN, &[get()]).told(&[("content-length", "3")]),
    ];
    let right = failures(RIGHT, Delivery::Alone).await;
    assert!(right.is_empty(), "{}", right.join("\n"));
    let noticed = failures(WRONG, Delivery::Alone).await;
    for case in WRONG {
        let found = noticed.iter().filter(|failure| failure.starts_with(&format!("{} (", case.name))).count();
        assert_eq!(found, 1, "{} in {}", case.name, noticed.join("\n"));
    }
}
