//! The promise: hundreds of reloads while traffic flows, and no client notices.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use gateway_tests::{
    Backend, Client, GatewayProcess, Raw, eventually, guest, plugin, plugin_table, replace, within,
};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use std::{
    cell::{Cell, RefCell},
    fmt::Display,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};
use tokio::{
    task::{JoinHandle, LocalSet, spawn_local},
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_tungstenite::tungstenite::Message;

/// Ten steps each, of which each does something else to one of the two files: six good ones, four that are
/// refused. `VERS_TEST_RELOADS` says how many steps there are in all, ten times this.
const ROUNDS: usize = 30;
const GOOD: usize = 6;
const BAD: usize = 4;

/// What the process may grow between the second round and the last.
const MOST: u64 = 30 << 20;

/// How often each client does its thing: often enough that each of the short moments in which
/// something could go wrong meets several of them.
const PACE: Duration = Duration::from_millis(4);

/// Clients that go on until they are told to stop, and what went wrong for any of them.
#[derive(Default)]
struct Load {
    over: Rc<Cell<bool>>,
    failures: Rc<RefCell<Vec<String>>>,
    clients: Vec<(&'static str, JoinHandle<usize>)>,
}

/// A client's view of it.
struct Turn {
    over: Rc<Cell<bool>>,
    failures: Rc<RefCell<Vec<String>>>,
    name: &'static str,
    pace: Interval,
    done: usize,
}

impl Load {
    /// Starts a client; it returns how often it did its thing.
    fn add<F: Future<Output = usize> + 'static>(
        &mut self,
        name: &'static str,
        client: impl FnOnce(Turn) -> F,
    ) {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (over, failures) = (Rc::clone(&self.over), Rc::clone(&self.failures));
        self.clients.push((name, spawn_local(client(Turn { over, failures, name, pace, done: 0 }))));
    }

    /// Ends all of them.
    ///
    /// # Panics
    /// Panics with what went wrong, and where one did next to nothing.
    async fn end(self) {
        self.over.set(true);
        for (name, client) in self.clients {
            let done = within(name, client).await.expect("no panic");
            println!("{name}: {done}");
            assert!(done > 100, "{name} did its thing {done} times only");
        }
        let failures = self.failures.borrow();
        assert!(
            failures.is_empty(),
            "{} failures, such as\n{}",
            failures.len(),
            failures[..failures.len().min(5)].join("\n")
        );
    }
}

impl Turn {
    /// Waits for the next turn; false at the end.
    async fn next(&mut self) -> bool {
        self.pace.tick().await;
        self.done += 1;
        !self.over.get()
    }

    fn failed(&self, error: impl Display) {
        self.failures.borrow_mut().push(format!("{} at its {}th turn: {error}", self.name, self.done));
    }
}

/// Requests on one connection; each answer comes from a configuration that is no older than the last.
async fn keeps_its_connection(web: SocketAddr, mut turn: Turn) -> usize {
    let mut kept = Client::new(web).connect().await.expect("a connection");
    let mut newest = 0;
    while turn.next().await {
        match kept.try_send(Method::POST, "/", Bytes::from("ping")).await {
            Ok(answer) => newest = check(&turn, &answer, newest),
            Err(error) => {
                turn.failed(error);
                // One failure is told once, and the others are worth knowing.
                kept = Client::new(web).connect().await.expect("a connection");
            }
        }
    }
    turn.done
}

async fn opens_a_connection_each_time(web: SocketAddr, mut turn: Turn) -> usize {
    let client = Client::new(web);
    let mut newest = 0;
    while turn.next().await {
        match client.try_send(Method::POST, "/", Bytes::from("ping")).await {
            Ok(answer) => newest = check(&turn, &answer, newest),
            Err(error) => turn.failed(error),
        }
    }
    turn.done
}

fn check(turn: &Turn, answer: &gateway_tests::Answer, newest: usize) -> usize {
    let mark = answer.header("x-mark").parse().unwrap_or_default();
    if answer.status != 200 || answer.text() != "ping" || mark < newest {
        turn.failed(format!("after mark {newest} came {answer:?}"));
    }
    mark
}

async fn talks_over_a_websocket(web: SocketAddr, mut turn: Turn) -> usize {
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("ws://{web}/ws")).await.expect("a WebSocket");
    while turn.next().await {
        let message = Message::text(format!("message {}", turn.done));
        if let Err(error) = socket.send(message.clone()).await {
            turn.failed(error);
            return turn.done;
        }
        match socket.next().await {
            Some(Ok(echoed)) if echoed == message => {}
            other => {
                turn.failed(format!("{message} was answered {other:?}"));
                return turn.done;
            }
        }
    }
    turn.done
}

async fn streams(raw: SocketAddr, mut turn: Turn) -> usize {
    let mut stream = Raw::connect(raw).await;
    while turn.next().await {
        let line = format!("line {};", turn.done);
        stream.send(&line).await;
        let echoed = stream.until(";").await;
        if echoed != line {
            turn.failed(format!("{line} was answered {echoed}"));
        }
    }
    turn.done
}

/// One answer that takes as long as all reloads together; every byte of it must come.
async fn downloads(web: SocketAddr, mut turn: Turn) -> usize {
    let mut raw = Raw::connect(web).await;
    raw.send("GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    raw.head().await;
    while turn.next().await {
        // A gateway may put what comes together into one chunk.
        let expected = format!("chunk {};", turn.done);
        let chunk = raw.until(";").await;
        if !chunk.ends_with(&expected) {
            turn.failed(format!("not {expected:?} but {chunk:?}"));
        }
    }
    turn.done
}

/// Answers with the request's body; `/ws` is a WebSocket that echoes, and `/slow` goes on for ever.
async fn application() -> Backend {
    Backend::streaming(|request: Request<Incoming>| async move {
        match request.uri().path() {
            "/slow" => Response::new(BoxBody::new(StreamBody::new(futures_util::stream::unfold(
                (interval(PACE), 0),
                |(mut pace, number)| async move {
                    pace.tick().await;
                    let number = number + 1;
                    let chunk = Frame::data(Bytes::from(format!("chunk {number};")));
                    Some((Ok(chunk), (pace, number)))
                },
            )))),
            _ => Response::new(request.into_body().map_err(std::io::Error::other).boxed()),
        }
    })
    .await
}

/// The two files that change, and how.
struct Files {
    gateway: GatewayProcess,
    component: PathBuf,
    text: Box<dyn Fn(usize) -> String>,
    /// Number of the last good configuration.
    mark: usize,
    stamp: u32,
    /// Refusals of what was asked for when it had been noticed, and refused, already.
    again: usize,
}

impl Files {
    fn good_text(&mut self) {
        self.mark += 1;
        self.gateway.write(&(self.text)(self.mark));
    }

    fn good_component(&mut self) {
        self.stamp += 1;
        let mut bytes = std::fs::read(plugin("header_inject")).expect("a component");
        // A custom section of six bytes: other content, same meaning.
        bytes.extend([0, 6, 1, b's']);
        bytes.extend(self.stamp.to_le_bytes());
        replace(&self.component, &bytes);
    }

    /// Asks for a reload, and returns whether it was refused.
    async fn post(&self) -> bool {
        let answer = self.gateway.admin().client().post("/reload", "").await;
        assert!([200, 422].contains(&answer.status.as_u16()), "{answer:?}");
        answer.status == 422
    }

    /// Asks for a reload that is refused. On a busy machine, its files may have been noticed before that.
    async fn refused(&mut self, bad: usize, why: &str) {
        assert!(self.post().await, "{why}");
        let (_, refused) = self.counts().await;
        let again = refused - (bad + self.again);
        assert!(again <= 1, "{why}: refused {again} times more than it was asked for");
        self.again += again;
    }

    /// Reloads, and those that were refused.
    async fn counts(&self) -> (usize, usize) {
        let text = self.gateway.admin().client().get("/metrics").await.text();
        let count = |name: &str| -> usize {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|value| value.parse().ok()).expect("a number")
        };
        (count("vers_reloads_total"), count("vers_reload_failures_total"))
    }

    /// So many reloads have come about, so many were refused, and no more than that.
    async fn told(&self, good: usize, bad: usize) {
        let bad = bad + self.again;
        let what = format!("{good} reloads and {bad} refusals");
        eventually(&what, async || {
            let now = self.counts().await;
            let log = || self.gateway.log().into_iter().rev().take(5).collect::<Vec<_>>();
            assert!(now.0 <= good && now.1 <= bad, "{now:?} instead of {what}: {:#?}", log());
            (now == (good, bad)).then_some(())
        })
        .await;
    }

    /// Ten changes: of the text and of the component in turn, good and bad, noticed and asked for.
    async fn round(&mut self, round: usize) {
        let (good, bad) = (round * GOOD, round * BAD);
        self.good_text();
        assert!(!self.post().await, "a good text");
        self.good_component();
        self.told(good + 2, bad).await;
        self.gateway.write("[[listener]\n");
        self.refused(bad + 1, "no TOML").await;
        self.good_text();
        self.told(good + 3, bad + 1).await;
        replace(&self.component, b"not yet");
        self.told(good + 3, bad + 2).await;
        self.good_component();
        assert!(!self.post().await, "a good component");
        self.gateway.write(&(self.text)(self.mark).replace("x-mark", "te"));
        self.told(good + 4, bad + 3).await;
        self.good_text();
        assert!(!self.post().await, "a good text");
        replace(&self.component, std::fs::read(guest("missing_import")).expect("a component"));
        self.refused(bad + 4, "a component of another gateway").await;
        self.good_component();
        self.told(good + 6, bad + 4).await;
        assert_eq!(self.gateway.admin().client().get("/readyz").await.status, 200);
    }
}

/// In a process of its own, so that its memory is its own.
#[tokio::test]
async fn hundreds_of_reloads_under_load_are_noticed_by_nobody() {
    LocalSet::new()
        .run_until(async {
            let (app, sockets, lines) =
                (application().await, Backend::websocket().await, Backend::tcp_echo().await);
            let folder = tempfile::tempdir().expect("a temporary folder");
            let component = folder.path().join("mark.wasm");
            std::fs::copy(plugin("header_inject"), &component).expect("a component");
            let text = configuration(app.addr(), sockets.addr(), lines.addr(), &component);
            let gateway = GatewayProcess::start(crate::DAEMON, &text(1)).await;
            let (web, raw) = (gateway.addr_of("web").await, gateway.addr_of("raw").await);

            let mut load = Load::default();
            for _ in 0..3 {
                load.add("requests on a kept connection", |turn| keeps_its_connection(web, turn));
            }
            for _ in 0..2 {
                load.add("requests on new connections", |turn| opens_a_connection_each_time(web, turn));
                load.add("messages on a WebSocket", |turn| talks_over_a_websocket(web, turn));
                load.add("lines on a TCP stream", |turn| streams(raw, turn));
                load.add("chunks of a download", |turn| downloads(web, turn));
            }
            let mut files = Files { gateway, component, text: Box::new(text), mark: 1, stamp: 0, again: 0 };
            let mut warm = 0;
            let steps = std::env::var("VERS_TEST_RELOADS").ok().and_then(|steps| steps.parse().ok());
            let rounds = steps.map_or(ROUNDS, |steps: usize| steps / 10);
            let began = std::time::Instant::now();
            for round in 0..rounds {
                files.round(round).await;
                if round == 1 {
                    warm = files.gateway.rss();
                }
            }
            let end = files.gateway.rss();
            load.end().await;
            println!(
                "RSS after 20 reloads {} KiB, after {} {} KiB, in {:?}",
                warm >> 10,
                10 * rounds,
                end >> 10,
                began.elapsed()
            );
            assert!(end < warm + MOST, "it grew by {} KiB", (end - warm) >> 10);
            let status = files.gateway.admin().status().await;
            assert_eq!(status["generation"], 1 + rounds * GOOD, "one for each good reload: {status}");
        })
        .await;
}

fn configuration(
    app: SocketAddr,
    sockets: SocketAddr,
    lines: SocketAddr,
    component: &Path,
) -> impl Fn(usize) -> String + use<> {
    let component = component.to_owned();
    move |mark| {
        let config = format!("config = {{ response = {{ x-mark = \"{mark}\" }} }}");
        let values = plugin_table("values", &guest("exchange_values"), "");
        format!(
            "[[listener]]\nname = \"web\"\naddress = \"[::]:0\"\n\
             [[listener]]\nname = \"raw\"\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"app\"\nlisteners = [\"web\"]\nto = \"{app}\"\nplugins = [\"values\", \"mark\"]\n\
             [[route]]\nname = \"ws\"\nlisteners = [\"web\"]\npath = \"/ws\"\nto = \"{sockets}\"\nplugins = [\"mark\"]\n\
             [[route]]\nname = \"raw\"\nlisteners = [\"raw\"]\nprotocol = \"tcp\"\nto = \"{lines}\"\n\
             {values}{}[gateway]\nworkers = 2\n[log]\nformat = \"json\"\naccess = false\n",
            plugin_table("mark", &component, &config)
        )
    }
}
