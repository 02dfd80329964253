//! What came of a case, against its verdict.

use super::{
    case::{After, Forwarded, Verdict, WORDS, Want},
    play::{Delivery, Play},
    record::{Heard, Record, marks},
};
use gateway_tests::wire::{End, Message, answers, closes, escape, expand, latin};

/// What is wrong with a case, if anything.
pub(super) fn case(play: &Play, record: &Record) -> Option<String> {
    let record = record.of(&play.mark);
    let (answers, rest) = answers(&play.came, &play.methods(), play.end.is_some());
    let mut wrong = Vec::new();
    if let Some(rest) = rest {
        wrong.push(format!("after {} answers the client gets {rest:?}", answers.len()));
    }
    match play.case.verdict {
        Verdict::Refused(status) => {
            refused(play, status, &answers, &mut wrong);
            unheard(&record, &mut wrong);
        }
        Verdict::Spoiled(status) => {
            refused(play, status, &answers, &mut wrong);
            match play.delivery {
                Delivery::Alone | Delivery::Followed => unheard(&record, &mut wrong),
                Delivery::Split => broken_off(&record, &mut wrong),
            }
        }
        Verdict::Aborted(status) => {
            refused(play, status, &answers, &mut wrong);
            broken_off(&record, &mut wrong);
            if record.rests.is_empty() {
                wrong.push("the backend heard no beginning of it".to_owned());
            }
        }
        Verdict::Unfinished => unfinished(play, &answers, &record, &mut wrong),
        Verdict::Forwarded(forwarded) => {
            served(play, &forwarded, &answers, &mut wrong);
            heard(play, &forwarded, &record, &mut wrong);
        }
    }
    (!wrong.is_empty()).then(|| report(play, &record, &wrong))
}

/// What the backend heard that belongs to no case.
pub(super) fn strays(record: &Record) -> Vec<String> {
    let heard = record.heard.iter().map(|heard| &heard.bytes);
    let rests = record.rests.iter().map(|rest| &rest.bytes).filter(|bytes| !bytes.is_empty());
    let strays = heard.chain(rests).filter(|bytes| marks(bytes).is_empty() && !bytes.starts_with(GOOD));
    strays.map(|bytes| format!("the backend heard, of no case: {}", escape(bytes))).collect()
}

/// The request that is sent when all cases are over.
const GOOD: &[u8] = b"GET /good ";

/// One answer of the gateway's own, and then the end.
fn refused(play: &Play, status: u16, answers: &[Message], wrong: &mut Vec<String>) {
    let statuses: Vec<u16> = answers.iter().map(Message::status).collect();
    if statuses != [status] {
        wrong.push(format!("the client is answered {statuses:?}"));
    }
    if let Some(answer) = answers.last() {
        if answer.values("x-gateway-error").len() != 1 {
            wrong.push("the answer has no x-gateway-error".to_owned());
        }
        if !closes(answer) {
            wrong.push("the answer does not say `connection: close`".to_owned());
        }
        // RFC 6455 §4.4, RFC 9110 §15.5.22.
        let better = ["sec-websocket-version", "upgrade"].map(|name| answer.values(name));
        if status == 426 && better != [vec!["13"], vec!["websocket"]] {
            wrong.push(format!("the answer says that {better:?} is spoken"));
        }
    }
    ended(play, wrong);
}

/// RFC 9112 §9.6: a connection that is closed in order lets the client read its last answer.
fn ended(play: &Play, wrong: &mut Vec<String>) {
    match play.end {
        Some(End::Closed) => {}
        Some(End::Reset) => wrong.push("the client's connection is reset".to_owned()),
        None => wrong.push("the client's connection stays open".to_owned()),
    }
}

fn unheard(record: &Record, wrong: &mut Vec<String>) {
    if record.bytes() > 0 {
        wrong.push("the backend heard of it".to_owned());
    }
}

fn broken_off(record: &Record, wrong: &mut Vec<String>) {
    if !record.heard.is_empty() {
        wrong.push("the backend heard a whole request".to_owned());
    }
    if record.rests.iter().any(|rest| !rest.ended) {
        wrong.push("the backend's connection stays open".to_owned());
    }
}

fn unfinished(play: &Play, answers: &[Message], record: &Record, wrong: &mut Vec<String>) {
    let statuses: Vec<u16> = answers.iter().map(Message::status).collect();
    if !matches!(statuses[..], [] | [400 | 408]) {
        wrong.push(format!("the client is answered {statuses:?}"));
    }
    if play.end.is_none() {
        wrong.push("the client's connection stays open".to_owned());
    }
    broken_off(record, wrong);
}

fn served(play: &Play, forwarded: &Forwarded, answers: &[Message], wrong: &mut Vec<String>) {
    let mut expected = play.statuses();
    if forwarded.after == After::Kept {
        expected.push(200);
    } else {
        ended(play, wrong);
    }
    let statuses: Vec<u16> = answers.iter().map(Message::status).collect();
    if statuses != expected {
        wrong.push(format!("the client is answered {statuses:?}, not {expected:?}"));
    }
    let Some(last) = answers.get(play.statuses().len().saturating_sub(1)) else { return };
    for (name, value) in forwarded.told {
        if last.values(name) != [*value] {
            wrong.push(format!("the answer's {name} is {:?}", last.values(name)));
        }
    }
    if forwarded.after == After::Closed && last.status() >= 400 && last.values("x-gateway-error").len() != 1 {
        wrong.push("the last answer has no x-gateway-error".to_owned());
    }
}

fn heard(play: &Play, forwarded: &Forwarded, record: &Record, wrong: &mut Vec<String>) {
    let again = Want { method: "GET", target: "/again/MARK", has: &[], lacks: &[], body: "", trailers: &[] };
    let mut wants = forwarded.wants.to_vec();
    if forwarded.after == After::Kept {
        wants.push(again);
    }
    if record.heard.len() != wants.len() {
        let lines: Vec<_> = record.heard.iter().map(|heard| &heard.message.start).collect();
        wrong.push(format!("the backend heard {lines:?}"));
    }
    if !record.rests.is_empty() {
        wrong.push("the backend heard what is no request".to_owned());
    }
    for (want, heard) in wants.iter().zip(&record.heard) {
        wanted(play, want, heard, wrong);
    }
}

fn wanted(play: &Play, want: &Want, heard: &Heard, wrong: &mut Vec<String>) {
    let message = &heard.message;
    let expanded =
        |text: &str| latin(&expand(&unlatin(text), &[WORDS.as_slice(), &[("MARK", &play.mark)]].concat()));
    let start = format!("{} {} HTTP/1.1", want.method, expanded(want.target));
    if message.start != start {
        wrong.push(format!("the backend heard {:?}, not {start:?}", message.start));
    }
    for (name, _) in want.has {
        let values = want.has.iter().filter(|(other, _)| other == name);
        let values: Vec<_> = values.map(|(_, value)| expanded(value)).collect();
        let heard = message.values(&expanded(name));
        if heard != values {
            wrong.push(format!("the backend heard {name} as {heard:?}, not {values:?}"));
        }
    }
    for name in want.lacks {
        if !message.values(name).is_empty() {
            wrong.push(format!("the backend heard {name} as {:?}", message.values(name)));
        }
    }
    if latin(&message.body) != expanded(want.body) {
        wrong.push(format!("the backend heard the body {}", escape(&message.body)));
    }
    let trailers: Vec<_> =
        want.trailers.iter().map(|(name, value)| ((*name).to_owned(), expanded(value))).collect();
    if message.trailers != trailers {
        wrong.push(format!("the backend heard the trailers {:?}", message.trailers));
    }
    of_a_proxy(heard, wrong);
}

/// What holds for everything that the gateway forwards.
fn of_a_proxy(heard: &Heard, wrong: &mut Vec<String>) {
    let message = &heard.message;
    if message.values("host").len() != 1 {
        wrong.push(format!("the backend heard hosts {:?}", message.values("host")));
    }
    if !message.values("via").last().is_some_and(|last| last.ends_with(" vers-gateway")) {
        wrong.push(format!("the backend heard via {:?}", message.values("via")));
    }
    if heard.crowded {
        wrong.push("the backend heard a second request before it answered the first".to_owned());
    }
}

/// The bytes that a table's text stands for: a character is a byte.
fn unlatin(text: &str) -> Vec<u8> {
    text.chars().map(|char| u8::try_from(char).expect("a character of Latin-1")).collect()
}

fn report(play: &Play, record: &Record, wrong: &[String]) -> String {
    let mut text = format!("{} ({:?})\n  sent: {}\n", play.case.name, play.delivery, escape(&play.sent));
    text.push_str(&format!("  expected: {:?}\n", play.case.verdict));
    for wrong in wrong {
        text.push_str(&format!("  but: {wrong}\n"));
    }
    text.push_str(&format!("  the client got: {} ({:?})\n", escape(&play.came), play.end));
    for heard in &record.heard {
        text.push_str(&format!("  the backend got: {}\n", escape(&heard.bytes)));
    }
    for rest in &record.rests {
        text.push_str(&format!("  the backend got: {} (ended: {})\n", escape(&rest.bytes), rest.ended));
    }
    text
}
