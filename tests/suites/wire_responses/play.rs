//! How a table is run: every case with a backend of its own, all of them behind one gateway.

use super::{
    case::{Backend, Case, Verdict, WORDS},
    judge,
    stage::{Delivery, Met, Stage},
};
use futures_util::future::join_all;
use gateway_tests::{
    PATIENCE, TestGateway, eventually,
    wire::{Connection, End, Message, Parsed, Pulse, answer, answers, closes, expand},
};
use std::{fmt::Write as _, net::SocketAddr};
use tokio::time::{Instant, timeout_at};

/// One case, and what became of it.
#[derive(Debug)]
pub(super) struct Play {
    pub(super) case: Case,
    pub(super) delivery: Delivery,
    /// All that the backend sends.
    pub(super) text: Vec<u8>,
    /// All that came to the client, and how its connection ended, if it did before the next request.
    pub(super) came: Vec<u8>,
    pub(super) end: Option<End>,
    /// What the next request was answered.
    pub(super) next: Vec<u8>,
    /// Whether that came on the client's first connection.
    pub(super) same: bool,
    /// What came to the backend.
    pub(super) met: Vec<Met>,
}

/// How many cases are run at a time: each one takes a few file descriptors.
const BATCH: usize = 50;

/// Runs all cases, and returns what is wrong with each that fails.
pub(super) async fn failures(cases: &[Case], delivery: Delivery) -> Vec<String> {
    let mut stages = Vec::new();
    let mut config =
        "[limits]\nheader_size = \"8KiB\"\nheaders = 100\n[[listener]]\naddress = \"[::]:0\"\n".to_owned();
    for (index, case) in cases.iter().enumerate() {
        let stage = Stage::set(expand(case.play, &WORDS), delivery).await;
        let route = format!("[[route]]\nhost = \"h{index}\"\nto = \"{}\"\n", stage.addr());
        config.write_str(&route).expect("a string takes all");
        stages.push(stage);
    }
    let gateway = TestGateway::start(&(config + Pulse::ROUTE));
    let mut failures = Vec::new();
    let all: Vec<_> = cases.iter().zip(&stages).enumerate().collect();
    for batch in all.chunks(BATCH) {
        let plays = batch.iter().map(|(index, (case, stage))| {
            stage.open(gateway.addr());
            Client { case, stage, host: format!("h{index}"), gateway: gateway.addr() }.play(delivery)
        });
        failures.extend(join_all(plays).await.iter().filter_map(judge::case));
    }
    failures
}

/// The client's side of a case.
struct Client<'a> {
    case: &'a Case,
    stage: &'a Stage,
    host: String,
    gateway: SocketAddr,
}

impl Client<'_> {
    async fn play(self, delivery: Delivery) -> Play {
        let deadline = Instant::now() + PATIENCE;
        let mut connection = Connection::connect(self.gateway).await;
        let ask = expand(self.case.ask.as_bytes(), &[("HOST", &self.host)]);
        connection.send(&ask).await;
        // What has come by the deadline is judged.
        let _ = timeout_at(deadline, self.listen(&mut connection)).await;
        let _ = timeout_at(deadline, self.stage.played()).await;
        let (came, end) = (std::mem::take(&mut connection.came), connection.end);
        let (all, rest) = answers(&came, &[self.method()], end.is_some());
        let same = end.is_none() && rest.is_none() && !all.last().is_some_and(closes);
        let mut next = if same { connection } else { Connection::connect(self.gateway).await };
        let question = format!("GET /next HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
        if !matches!(self.case.verdict, Verdict::Tunnel(..)) {
            next.send(question.as_bytes()).await;
            let _ = timeout_at(deadline, until_whole(&mut next)).await;
        }
        let _ = timeout_at(deadline, self.settle()).await;
        let (case, text) = (*self.case, expand(self.case.play, &WORDS));
        Play { case, delivery, text, came, end, next: next.came, same, met: self.stage.met() }
    }

    fn method(&self) -> &'static str {
        self.case.ask.split(' ').next().unwrap_or_default()
    }

    /// Reads the answer, and lets the backend know.
    async fn listen(&self, connection: &mut Connection) {
        if let Verdict::Tunnel(interim, early) = self.case.verdict {
            return through_tunnel(connection, interim.len(), early.len()).await;
        }
        while connection.end.is_none() {
            connection.more().await;
            let (all, rest) = answers(&connection.came, &[self.method()], connection.end.is_some());
            let is_final = |message: &Message| message.status() >= 200;
            let begun = matches!(&rest, Some(Parsed::Unfinished(Some(head))) if is_final(head));
            let whole = all.last().is_some_and(is_final);
            self.stage.tell(|progress| {
                progress.client_has_head |= begun || whole;
                progress.client_has_all |= whole;
            });
            let leaves = self.case.ends() || all.last().is_some_and(closes);
            if whole && !leaves || matches!(rest, Some(Parsed::Wrong(_))) {
                return;
            }
        }
    }

    /// Waits until the gateway has closed what it has to close, or has used it again.
    async fn settle(&self) {
        if self.case.backend() != Backend::Closed {
            return;
        }
        eventually("the end of the backend's connection", async || {
            let over = |met: &Met| met.ended || met.lines.len() > 1;
            self.stage.met().first().is_some_and(over).then_some(())
        })
        .await;
    }
}

/// What a client of a tunnel says.
pub(super) const ECHO: &[u8] = b"\0ping\r\n\r\n\xff";

/// Reads the 101, says something, and reads until it must have come back.
async fn through_tunnel(connection: &mut Connection, interim: usize, early: usize) {
    let mut spoken = false;
    while connection.end.is_none() {
        connection.more().await;
        let (all, _) = answers(&connection.came, &[], false);
        match after_switch(&connection.came, interim).map(<[u8]>::len) {
            None if all.iter().any(|answer| answer.status() >= 200) => return,
            Some(after) if after >= early + ECHO.len() => return,
            Some(_) if !spoken => {
                spoken = true;
                connection.send(ECHO).await;
            }
            _ => {}
        }
    }
}

/// What came behind the 101, where it has come after so many interim answers.
pub(super) fn after_switch(mut came: &[u8], interim: usize) -> Option<&[u8]> {
    for _ in 0..=interim {
        let Parsed::Whole(message, used) = answer(came, "GET", false) else { return None };
        came = &came[used..];
        if message.status() == 101 {
            return Some(came);
        }
    }
    None
}

async fn until_whole(connection: &mut Connection) {
    loop {
        match answer(&connection.came, "GET", connection.end.is_some()) {
            Parsed::Unfinished(_) if connection.end.is_none() => connection.more().await,
            _ => return,
        }
    }
}
