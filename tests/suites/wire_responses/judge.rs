//! What came of a case, against its verdict.

use super::{
    case::{Backend, Client, Delivered, Verdict},
    play::{ECHO, Play, after_switch},
    stage::{Delivery, Met},
};
use gateway_tests::wire::{End, Framing, Message, Parsed, answers, escape, expand, latin};

/// What is wrong with a case, if anything.
pub(super) fn case(play: &Play) -> Option<String> {
    let method = play.case.ask.split(' ').next().unwrap_or_default();
    let (answers, rest) = answers(&play.came, &[method], play.end.is_some());
    let told = Told { play, answers, rest };
    let mut wrong = Vec::new();
    match play.case.verdict {
        Verdict::Delivered(delivered) => told.delivered(&delivered, &mut wrong),
        Verdict::BadGateway(interim) => told.bad_gateway(interim, &mut wrong),
        Verdict::Aborted(status) => told.aborted(status, &mut wrong),
        Verdict::Spoiled(_) if play.delivery == Delivery::Whole => told.bad_gateway(&[], &mut wrong),
        Verdict::Spoiled(status) | Verdict::Broken(status) => told.broken(status, &mut wrong),
        Verdict::Tunnel(interim, early) => {
            told.tunnel(interim, early, &mut wrong);
            return (!wrong.is_empty()).then(|| report(play, &wrong));
        }
    }
    next(play, &mut wrong);
    connections(play, &mut wrong);
    (!wrong.is_empty()).then(|| report(play, &wrong))
}

/// What the client was told.
struct Told<'a> {
    play: &'a Play,
    answers: Vec<Message>,
    /// What came behind the whole answers.
    rest: Option<Parsed>,
}

impl Told<'_> {
    fn statuses(&self) -> Vec<u16> {
        self.answers.iter().map(Message::status).collect()
    }

    fn delivered(&self, delivered: &Delivered, wrong: &mut Vec<String>) {
        let expected = [delivered.interim, &[delivered.status]].concat();
        if self.statuses() != expected || self.rest.is_some() {
            wrong.push(format!("the client is answered {:?} and {:?}", self.statuses(), self.rest));
        }
        let Some(answer) = self.answers.last() else { return };
        for (name, _) in delivered.has {
            let values = delivered.has.iter().filter(|(other, _)| other == name);
            let values: Vec<_> = values.map(|(_, value)| *value).collect();
            if answer.values(name) != values {
                wrong.push(format!("the client gets {name} as {:?}, not {values:?}", answer.values(name)));
            }
        }
        for name in delivered.lacks {
            if !answer.values(name).is_empty() {
                wrong.push(format!("the client gets {name} as {:?}", answer.values(name)));
            }
        }
        if answer.body != expand(delivered.body.as_bytes(), &[]) && latin(&answer.body) != delivered.body {
            wrong.push(format!("the client gets the body {}", escape(&answer.body)));
        }
        let trailers = delivered.trailers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        if answer.trailers != trailers.collect::<Vec<(String, String)>>() {
            wrong.push(format!("the client gets the trailers {:?}", answer.trailers));
        }
        match (delivered.client, self.play.end) {
            (Client::Kept, _) if self.play.same => {}
            (Client::Closed, Some(End::Closed)) => {}
            (expected, got) => {
                wrong.push(format!("the client's connection ends by {got:?}, not {expected:?}"))
            }
        }
    }

    fn bad_gateway(&self, interim: &[u16], wrong: &mut Vec<String>) {
        if self.statuses() != [interim, &[502]].concat() || self.rest.is_some() {
            wrong.push(format!("the client is answered {:?} and {:?}", self.statuses(), self.rest));
        }
        if let Some(answer) = self.answers.last()
            && answer.values("x-gateway-error") != ["upstream-bad-answer"]
        {
            wrong.push(format!("the error is {:?}", answer.values("x-gateway-error")));
        }
    }

    /// RFC 9112 §8: whoever gets less than was announced, or no end, knows that it is not all.
    fn aborted(&self, status: u16, wrong: &mut Vec<String>) {
        let ends_well = match (&self.answers[..], &self.rest) {
            ([], Some(Parsed::Unfinished(Some(head)))) => head.status() != status,
            // What ends with its connection can only be broken by a reset.
            ([answer], None) => answer.framing != Framing::Close || self.play.end != Some(End::Reset),
            _ => true,
        };
        if ends_well || self.play.end.is_none() {
            wrong.push(format!(
                "the client is answered {:?} and {:?}, and its connection ends by {:?}",
                self.statuses(),
                self.rest,
                self.play.end
            ));
        }
    }

    fn broken(&self, status: u16, wrong: &mut Vec<String>) {
        let is_answered = self.statuses() == [502];
        if is_answered { self.bad_gateway(&[], wrong) } else { self.aborted(status, wrong) }
    }

    fn tunnel(&self, interim: &[u16], early: &str, wrong: &mut Vec<String>) {
        let switched = self.answers.iter().position(|answer| answer.status() == 101);
        let Some(switch) = switched.and_then(|at| self.answers.get(at)) else {
            wrong.push(format!("the client is answered {:?} and {:?}", self.statuses(), self.rest));
            return;
        };
        if self.statuses().get(..interim.len()) != Some(interim) || switched != Some(interim.len()) {
            wrong.push(format!("the client is answered {:?}", self.statuses()));
        }
        if switch.values("upgrade").len() != 1 || switch.values("connection") != ["upgrade"] {
            wrong.push("the 101 is incomplete".to_owned());
        }
        let after = after_switch(&self.play.came, interim.len()).unwrap_or_default();
        if after != [early.as_bytes(), ECHO].concat() {
            wrong.push(format!("the client gets {} through the tunnel", escape(after)));
        }
        if !self.play.met.iter().any(|met| met.rest == ECHO) {
            wrong.push("the backend does not get what the client says".to_owned());
        }
    }
}

/// A next request is served as if nothing had been.
fn next(play: &Play, wrong: &mut Vec<String>) {
    let (answers, rest) = answers(&play.next, &["GET"], false);
    let good = matches!(&answers[..], [answer] if answer.status() == 200 && answer.body == b"next");
    if !good || rest.is_some() {
        wrong.push(format!("the next request is answered {}", escape(&play.next)));
    }
}

/// What the backend's connections carried, and which of them were used again.
fn connections(play: &Play, wrong: &mut Vec<String>) {
    let on = |path: &str| -> Vec<usize> {
        let asks = |met: &Met| met.lines.iter().filter(|line| line.contains(path)).count();
        play.met.iter().enumerate().flat_map(|(index, met)| vec![index; asks(met)]).collect()
    };
    let (first, second) = (on(" /it "), on(" /next "));
    let ([first], [second]) = (&first[..], &second[..]) else {
        wrong.push(format!("the backend is asked on connections {first:?}, and next on {second:?}"));
        return;
    };
    let is_reused = first == second;
    match play.case.backend() {
        Backend::Reused if !is_reused => wrong.push("the backend's connection is not used again".to_owned()),
        Backend::Closed if is_reused => wrong.push("the backend's connection is used again".to_owned()),
        Backend::Closed if !play.met[*first].ended => {
            wrong.push("the backend's connection stays open".to_owned());
        }
        _ => {}
    }
    if play.met.iter().any(|met| !met.rest.is_empty()) {
        wrong.push("the backend gets what is no request".to_owned());
    }
}

fn report(play: &Play, wrong: &[String]) -> String {
    let (case, met) = (&play.case, &play.met);
    let mut lines = vec![
        format!("{} ({:?})", case.name, play.delivery),
        format!("  asked: {}", case.ask.lines().next().unwrap_or_default()),
        format!("  the backend sent: {}", escape(&play.text)),
        format!("  expected: {:?}", case.verdict),
    ];
    lines.extend(wrong.iter().map(|wrong| format!("  but: {wrong}")));
    lines.push(format!("  the client got: {} ({:?})", escape(&play.came), play.end));
    lines.push(format!("  and next (on the same connection: {}): {}", play.same, escape(&play.next)));
    lines.extend(met.iter().map(|met| {
        format!("  the backend got: {:?}, {} (ended: {})", met.lines, escape(&met.rest), met.ended)
    }));
    lines.join("\n") + "\n"
}
