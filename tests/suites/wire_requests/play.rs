//! How a table is run: every case on a client connection of its own, all of them against one gateway
//! and one backend.

use super::{
    case::{After, Case, LATER, Verdict, WORDS},
    judge,
    record::{self, Recorder},
};
use futures_util::future::join_all;
use gateway_tests::{
    PATIENCE, TestGateway, settled,
    wire::{Connection, End, Parsed, Part, Pulse, answers, closes, expand, parts, pieces},
};
use std::net::SocketAddr;
use tokio::time::{Instant, timeout_at};

/// How the bytes of a case are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// In one write, and nothing after them.
    Alone,
    /// In one write, together with a request that has to be ignored if this one is refused.
    Followed,
    /// Byte by byte, each one read before the next is sent; then that request in the same way.
    Split,
}

/// One case, and what the client was told.
#[derive(Debug)]
pub(super) struct Play {
    pub(super) case: Case,
    pub(super) delivery: Delivery,
    pub(super) mark: String,
    /// All that is sent.
    pub(super) sent: Vec<u8>,
    /// All that came.
    pub(super) came: Vec<u8>,
    /// How the connection ended, if it did.
    pub(super) end: Option<End>,
}

/// One case while it is run.
struct Playing {
    play: Play,
    client: Connection,
    /// What is still to be sent, last first.
    steps: Vec<Step>,
}

enum Step {
    Send(Vec<u8>),
    /// Until the backend has heard something of this case.
    Wait,
}

/// How many cases are run at a time: each one takes a few file descriptors.
const BATCH: usize = 100;

/// Runs all cases, and returns what is wrong with each that fails.
pub(super) async fn failures(cases: &[Case], delivery: Delivery) -> Vec<String> {
    let recorder = Recorder::start().await;
    let gateway = TestGateway::start(&format!(
        "[limits]\nheader_size = \"8KiB\"\nheaders = 100\n[[listener]]\naddress = \"[::]:0\"\n\
         [[route]]\nto = \"{}\"\n{}",
        recorder.addr(),
        Pulse::ROUTE
    ));
    let mut plays = Vec::new();
    for (batch, cases) in cases.chunks(BATCH).enumerate() {
        let mut playing = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            playing.push(Playing::new(*case, delivery, batch * BATCH + index, gateway.addr()).await);
        }
        let mut pulse = Pulse::of(gateway.addr()).await;
        send_all(&mut playing, &recorder, &mut pulse).await;
        listen_all(&mut playing, &mut pulse).await;
        plays.extend(playing.into_iter().map(Playing::done));
    }
    // What was forwarded against the rules had its time when this has passed, on the same worker.
    let good = gateway.client().get("/good").await;
    assert_eq!(good.status, 200, "a good request after all of them");
    settled("the backend's record", async || recorder.state()).await;
    let record = recorder.record();
    let mut failures: Vec<String> = plays.iter().filter_map(|play| judge::case(play, &record)).collect();
    failures.extend(judge::strays(&record));
    failures
}

/// Sends a piece of every case, then sees to it that all of them were read, and so on.
async fn send_all(playing: &mut [Playing], recorder: &Recorder, pulse: &mut Pulse) {
    let deadline = Instant::now() + PATIENCE;
    while playing.iter().any(|playing| !playing.steps.is_empty()) && Instant::now() < deadline {
        for Playing { play, client, steps } in &mut *playing {
            match steps.pop() {
                Some(Step::Send(piece)) => client.send(&piece).await,
                Some(Step::Wait) if !recorder.knows(&play.mark) => steps.push(Step::Wait),
                Some(Step::Wait) | None => {}
            }
        }
        pulse.beat().await;
    }
}

/// Listens to all that the clients are told.
async fn listen_all(playing: &mut [Playing], pulse: &mut Pulse) {
    /// What a worker has not done after so many round trips, it would do after some time.
    const AT_ONCE: usize = 500;
    let deadline = Instant::now() + PATIENCE;
    let (refused, others): (Vec<_>, Vec<_>) = playing.iter_mut().partition(|one| one.play.is_refused());
    // Who is refused is told at once, and sees the end at once.
    tokio::select! {
        _ = join_all(refused.into_iter().map(|one| one.listen(deadline))) => {}
        () = async { for _ in 0..AT_ONCE { pulse.beat().await } } => {}
    }
    join_all(others.into_iter().map(|one| one.listen(deadline))).await;
}

impl Playing {
    async fn new(case: Case, delivery: Delivery, index: usize, gateway: SocketAddr) -> Self {
        let mark = record::mark(index);
        let mut play = Play { case, delivery, mark, sent: Vec::new(), came: Vec::new(), end: None };
        let smuggled = match delivery {
            Delivery::Followed | Delivery::Split if play.is_refused() => SMUGGLED,
            _ => "",
        };
        let words = [WORDS.as_slice(), &[("MARK", play.mark.as_str())]].concat();
        let text = expand(&[case.raw, smuggled.as_bytes()].concat(), &words);
        let mut steps = Vec::new();
        for part in parts(&text, &[LATER]) {
            match part {
                Part::Word(_) => steps.push(Step::Wait),
                Part::Bytes(bytes) => {
                    match delivery {
                        Delivery::Split => steps.extend(pieces(bytes).map(|one| Step::Send(one.to_vec()))),
                        Delivery::Alone | Delivery::Followed => steps.push(Step::Send(bytes.to_vec())),
                    }
                    play.sent.extend_from_slice(bytes);
                }
            }
        }
        steps.reverse();
        Self { play, client: Connection::connect(gateway).await, steps }
    }

    /// Listens to all that the client is told, until the deadline at the latest: what has come by then
    /// is judged.
    async fn listen(&mut self, deadline: Instant) {
        let listening = async {
            match self.play.case.verdict {
                Verdict::Forwarded(forwarded) if forwarded.after == After::Kept => {
                    let answers = self.play.statuses().len();
                    self.until(answers).await;
                    // That it is kept is shown by its use.
                    self.client.send(&expand(AGAIN, &[("MARK", &self.play.mark)])).await;
                    self.until(answers + 1).await;
                }
                Verdict::Unfinished => {
                    self.client.finish().await;
                    self.until(usize::MAX).await;
                }
                _ => self.until(usize::MAX).await,
            }
        };
        let _ = timeout_at(deadline, listening).await;
    }

    /// Reads until there are so many answers, or the connection has ended, or no good end can come.
    async fn until(&mut self, count: usize) {
        while self.client.end.is_none() {
            let (all, rest) = answers(&self.client.came, &self.play.methods(), false);
            let stays = self.play.is_refused() && all.last().is_some_and(|last| !closes(last));
            if all.len() >= count || stays || matches!(rest, Some(Parsed::Wrong(_))) {
                return;
            }
            self.client.more().await;
        }
    }

    fn done(self) -> Play {
        Play { came: self.client.came, end: self.client.end, ..self.play }
    }
}

const SMUGGLED: &str = "GET /smuggled/MARK HTTP/1.1\r\nhost: a\r\n\r\n";

const AGAIN: &[u8] = b"GET /again/MARK HTTP/1.1\r\nhost: a\r\n\r\n";

impl Play {
    /// Whether all that is told is that it was wrong.
    fn is_refused(&self) -> bool {
        !matches!(self.case.verdict, Verdict::Forwarded(_) | Verdict::Unfinished)
    }

    /// Statuses of the answers that have to come.
    pub(super) fn statuses(&self) -> Vec<u16> {
        match self.case.verdict {
            Verdict::Refused(status) | Verdict::Spoiled(status) | Verdict::Aborted(status) => vec![status],
            Verdict::Unfinished => Vec::new(),
            Verdict::Forwarded(forwarded) => match forwarded.statuses {
                Some(statuses) => statuses.to_vec(),
                None => vec![200; forwarded.wants.len()],
            },
        }
    }

    /// Methods of the requests that are answered.
    pub(super) fn methods(&self) -> Vec<&'static str> {
        match self.case.verdict {
            Verdict::Forwarded(forwarded) => forwarded.wants.iter().map(|want| want.method).collect(),
            _ => Vec::new(),
        }
    }
}
