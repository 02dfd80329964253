//! What was done, by kind of traffic, and what was wrong with it.

use crate::{Wrong, random::Random};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};
use tokio::{
    task::{JoinHandle, spawn_local},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// Longer than everything that may take its time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Wrong answers that are told in full.
const TOLD: usize = 10;

/// Clients that go on until they are told to stop.
pub(crate) struct Load {
    over: Rc<Cell<bool>>,
    random: Random,
    only: String,
    kinds: Vec<Rc<Kind>>,
    clients: Vec<JoinHandle<()>>,
}

/// One kind of traffic.
struct Kind {
    name: &'static str,
    clients: Cell<usize>,
    bytes: Cell<u64>,
    /// Microseconds that each took.
    times: RefCell<Vec<u32>>,
    wrong: RefCell<Vec<String>>,
}

/// What a client takes part in.
pub(crate) struct Turn {
    over: Rc<Cell<bool>>,
    random: Random,
    kind: Rc<Kind>,
}

impl Load {
    /// Of the kinds whose names hold `only`.
    pub(crate) fn new(seed: u64, only: &str) -> Self {
        let (random, only) = (Random::new(seed), only.to_owned());
        Self { over: Rc::default(), random, only, kinds: Vec::new(), clients: Vec::new() }
    }

    /// Starts so many clients of a kind.
    pub(crate) fn add<F>(&mut self, name: &'static str, clients: usize, client: impl Fn(Turn) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        if !name.contains(&self.only) {
            return;
        }
        let kind = Rc::new(Kind {
            name,
            clients: clients.into(),
            bytes: Cell::new(0),
            times: RefCell::default(),
            wrong: RefCell::default(),
        });
        for _ in 0..clients {
            let random = Random::new(self.random.next());
            let turn = Turn { over: Rc::clone(&self.over), random, kind: Rc::clone(&kind) };
            self.clients.push(spawn_local(client(turn)));
        }
        self.kinds.push(kind);
    }

    /// Ends all clients, prints what they did, and returns what was wrong.
    pub(crate) async fn end(self) -> Vec<String> {
        self.over.set(true);
        for client in self.clients {
            client.await.expect("no client panics");
        }
        println!(
            "\n{:<34} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6}",
            "traffic", "clients", "done", "MiB", "p50 ms", "p99 ms", "max ms", "wrong"
        );
        self.kinds.iter().for_each(|kind| kind.print());
        println!();
        self.kinds.iter().flat_map(|kind| kind.faults()).collect()
    }
}

impl Turn {
    /// Does a thing over and over; it returns how many bytes it checked.
    pub(crate) async fn repeat(
        mut self,
        pace: Duration,
        mut once: impl AsyncFnMut(&mut Random) -> Result<usize, Wrong>,
    ) {
        let mut ticks = interval(pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.over.get() {
                return;
            }
            let began = Instant::now();
            match timeout(PATIENCE, once(&mut self.random)).await {
                Ok(Ok(bytes)) => self.kind.done(bytes, began.elapsed()),
                Ok(Err(wrong)) => self.kind.wrong.borrow_mut().push(wrong.to_string()),
                Err(_) => self.kind.wrong.borrow_mut().push(format!("nothing for {PATIENCE:?}")),
            }
        }
    }
}

impl Kind {
    fn done(&self, bytes: usize, time: Duration) {
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.times.borrow_mut().push(time.as_micros().try_into().unwrap_or(u32::MAX));
    }

    fn print(&self) {
        let mut times = self.times.borrow_mut();
        times.sort_unstable();
        let at = |share: f64| {
            let place = (times.len() as f64 * share) as usize;
            times.get(place.min(times.len().saturating_sub(1))).map_or(0.0, |time| f64::from(*time) / 1000.0)
        };
        let mebibytes = self.bytes.get() as f64 / f64::from(1 << 20);
        println!(
            "{:<34} {:>7} {:>9} {:>9.1} {:>9.2} {:>9.2} {:>9.2} {:>6}",
            self.name,
            self.clients.get(),
            times.len(),
            mebibytes,
            at(0.5),
            at(0.99),
            at(1.0),
            self.wrong.borrow().len()
        );
    }

    fn faults(&self) -> Vec<String> {
        let wrong = self.wrong.borrow();
        let mut faults: Vec<String> =
            wrong.iter().take(TOLD).map(|what| format!("{}: {what}", self.name)).collect();
        if wrong.len() > TOLD {
            faults.push(format!("{}: {} more", self.name, wrong.len() - TOLD));
        }
        if self.times.borrow().is_empty() {
            faults.push(format!("{}: it was never done", self.name));
        }
        faults
    }
}
