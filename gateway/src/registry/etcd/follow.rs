//! Follows what etcd says: everything once, then changes as they come, and again where that breaks off. Beside that,
//! does what clients wish, and removes what expired long ago.

use super::{
    super::{Refusal, Registry, book::News, chance},
    client::{Answer, Changes, Client, Failed},
    keys::{Keys, Kind},
    queue::{Asked, Line},
    transport::Access,
    view::{MOST, View},
    wire,
    write::{ECHO, Writer},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{
    cell::{Cell, RefCell},
    ops::ControlFlow,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};

/// How often it is asked whether most members are there.
const BEAT: Duration = Duration::from_secs(1);

/// Leases that end at about the same time are looked at together: many at once say more of the network than of those
/// that had them.
const TOGETHER: Duration = Duration::from_millis(100);

/// The first pause after all members have failed; each further round doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Before everything is read: many gateways may want to at the same moment.
const SCATTER: Duration = Duration::from_millis(100);

/// For all that it takes to read everything, however slowly its pages come.
const READING: Duration = Duration::from_secs(30);

/// Entries in a page: of 8 KiB each, they are less than what etcd's own gateway takes, 4 MiB in older versions.
const PAGE: usize = 250;

/// Keys without values in a page.
const BARE_PAGE: usize = 2_000;

/// Keys of a kind that are read.
const MOST_KEYS: usize = 4 * MOST;

/// How often one of the gateways puts a key, so that all of them find out whether changes still come to them.
const PULSE: Duration = Duration::from_secs(5);

/// For that.
const PULSING: Duration = Duration::from_secs(2);

/// Writes that are on their way at a time.
const WRITES: usize = 128;

/// Heartbeats that are on their way at a time.
const RENEWALS: usize = 64;

/// Wishes that are done, but for what follows of them.
const FINISHING: usize = 2_000;

/// How often it is looked who waits in vain.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often it is said that keys make no sense.
const SENSELESS: Duration = Duration::from_secs(10);

/// How often it is looked who expired long ago, and who has no mark of when.
const LOOK: Duration = Duration::from_secs(1);

/// Entries that are marked or removed at each look.
const PER_LOOK: usize = 200;

/// Follows etcd for a registry until that is gone. `access` says where etcd is, and may come to say otherwise.
pub async fn run(registry: Weak<Registry>, access: watch::Receiver<Arc<Access>>) {
    let Some(keys) = registry.upgrade().and_then(|registry| Some(Keys::new(registry.prefix()?))) else {
        return;
    };
    let follower = Follower {
        registry,
        client: Client::new(access),
        view: RefCell::new(View::new(keys.clone())),
        keys,
        cluster: Cell::default(),
        begun: Cell::default(),
        reached: watch::Sender::new(0),
        missed: watch::Sender::new(0),
        pulse: Cell::new((0, Instant::now())),
        untold: RefCell::default(),
        complained: Cell::default(),
    };
    tokio::select! {
        // Ends with the registry.
        () = follower.serve() => {}
        () = follower.follow() => {}
        () = follower.look_after() => {}
    }
}

struct Follower {
    registry: Weak<Registry>,
    client: Client,
    keys: Keys,
    view: RefCell<View>,
    /// Of which cluster it is, and how far that was.
    cluster: Cell<(u64, u64)>,
    /// Since when the member that is followed works.
    begun: Cell<Option<Instant>>,
    /// Up to which revision changes have come.
    reached: watch::Sender<u64>,
    /// The last change of our own that did not come back in time.
    missed: watch::Sender<u64>,
    /// The revision of the key that is put now and then, and when it was met.
    pulse: Cell<(u64, Instant)>,
    /// Changes that are in the view, and not told yet: whoever turns away from a member meanwhile must not lose them.
    untold: RefCell<Vec<News>>,
    /// When it was said last that keys make no sense.
    complained: Cell<Option<Instant>>,
}

/// Why a member is not followed any more.
enum Ended {
    /// It does not do what it has to.
    Failed(Failed),
    /// It is not to blame, but everything has to be read anew.
    Anew(&'static str),
}

impl From<Failed> for Ended {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

fn lost(why: &str) -> Failed {
    Failed::Lost(why.to_owned())
}

impl Follower {
    /// Does what clients wish, many at a time, until the registry is gone.
    async fn serve(&self) {
        let (writes, renewals) = (Semaphore::new(WRITES), Semaphore::new(RENEWALS));
        let mut running = FuturesUnordered::new();
        let mut due = interval(PATIENCE);
        loop {
            let has_room = running.len() < FINISHING;
            let next = tokio::select! {
                next = self.next_of(Line::Writes, &writes), if has_room => next,
                next = self.next_of(Line::Renewals, &renewals), if has_room => next,
                Some(()) = running.next(), if !running.is_empty() => continue,
                _ = due.tick() => {
                    let Some(registry) = self.registry.upgrade() else { return };
                    let Some(link) = registry.link() else { return };
                    link.queue.refuse_late(Instant::now());
                    if let Err(refusal) = link.reachable(registry.now().mono) {
                        link.queue.refuse_all(&refusal);
                    }
                    continue;
                }
            };
            let Some((turn, asked)) = next else { return };
            running.push(self.fulfil(turn, asked));
        }
    }

    /// Waits for a turn, and for who is to have it. None where the registry is gone.
    async fn next_of<'t>(&self, line: Line, turns: &'t Semaphore) -> Option<(SemaphorePermit<'t>, Asked)> {
        let turn = turns.acquire().await.ok()?;
        loop {
            // The registry is not held meanwhile: it is not to live on because nobody wants anything of it.
            let asked = match self.registry.upgrade()?.link()?.queue.try_next(line) {
                Ok(asked) => return Some((turn, asked)),
                Err(came) => came,
            };
            asked.notified().await;
        }
    }

    /// Does a wish, unless it is too late for it: what is done then may undo what others were promised since.
    async fn fulfil(&self, turn: SemaphorePermit<'_>, asked: Asked) {
        let Some(registry) = self.registry.upgrade() else { return };
        let Some(link) = registry.link() else { return };
        let Asked { wish, done, until } = asked;
        let refusal = match link.reachable(registry.now().mono) {
            Err(refusal) => Some(refusal),
            Ok(()) => (until <= Instant::now()).then_some(Refusal::Busy),
        };
        if let Some(refusal) = refusal {
            return drop(done.send(Err(refusal)));
        }
        let mut errand = self.writer().errand(&registry, &wish, until, Some(turn));
        // Whoever asked may have gone away meanwhile.
        drop(done.send(errand.run().await));
        errand.tidy_up().await;
    }

    fn writer(&self) -> Writer<'_> {
        let Self { client, view, keys, reached, missed, .. } = self;
        Writer { client, view, keys, reached, missed }
    }

    /// Never ends, but with the registry.
    async fn follow(&self) {
        let mut failures = 0_usize;
        while self.registry.strong_count() > 0 {
            let member = self.client.member();
            let ended = tokio::select! {
                ended = self.stay(member) => ended,
                () = self.client.moved() => {
                    Ended::Anew("it is somewhere else, or known otherwise")
                }
            };
            self.count();
            let Some(registry) = self.registry.upgrade() else { return };
            let Some(link) = registry.link() else { return };
            let has_worked = self.begun.take().is_some_and(|begun| begun.elapsed() > 2 * BEAT);
            let address = self.client.address_of(member);
            let failed = match ended {
                Ended::Anew(why) => {
                    tracing::info!(address, "the registry's etcd is asked for everything anew: {why}");
                    failures = 0;
                    continue;
                }
                Ended::Failed(failed) => failed,
            };
            // It has worked for a while, so this is the first failure.
            failures = if has_worked { 1 } else { failures + 1 };
            let trouble = format!("{address}: {failed}");
            // Less and less often while it lasts; the reason of now is in `/status`.
            if failures.is_power_of_two() {
                let age = link.silence(registry.now().mono).as_secs();
                let is_lost = link.is_lost(registry.now().mono);
                tracing::warn!(
                    age,
                    is_lost,
                    failures,
                    "the registry leaves a member of etcd, and turns to another: {trouble}"
                );
            }
            link.lose(trouble);
            drop(registry);
            self.client.leave(member);
            sleep(pause(failures, self.client.members())).await;
        }
    }

    /// Follows what one member says, until it fails.
    async fn stay(&self, member: usize) -> Ended {
        let changes = match timeout(READING, self.begin(member)).await {
            Ok(Ok(changes)) => changes,
            Ok(Err(failed)) => return failed.into(),
            Err(_) => return lost("to read everything from it takes too long").into(),
        };
        tokio::select! {
            ended = self.hear(changes) => ended,
            failed = self.beat(member) => failed.into(),
            failed = self.miss() => failed.into(),
            () = self.doubted() => Ended::Anew("time has passed that nobody here saw"),
            () = self.keep_pulse() => lost("nobody asks").into(),
        }
    }

    /// Waits until a change of our own does not come though there was time enough since this member is followed.
    async fn miss(&self) -> Failed {
        let (mut missed, mut reached) = (self.missed.subscribe(), self.reached.subscribe());
        loop {
            let revision = *missed.borrow_and_update();
            let came = reached.wait_for(|reached| *reached >= revision);
            if timeout(ECHO, came).await.is_err() {
                return lost("a change did not come back from it");
            }
            if missed.changed().await.is_err() {
                return lost("nobody asks");
            }
        }
    }

    /// Waits until time has passed that nobody here saw.
    async fn doubted(&self) {
        let mut due = interval(BEAT);
        loop {
            due.tick().await;
            let Some(registry) = self.registry.upgrade() else { return };
            let is_doubtful = registry.link().is_some_and(|link| link.take_doubt());
            if is_doubtful {
                return;
            }
        }
    }

    /// When it is begun to ask for everything, which ends all doubt from before.
    fn begin_to_ask(&self) -> Option<Duration> {
        let registry = self.registry.upgrade()?;
        registry.link()?.take_doubt();
        Some(registry.now().mono)
    }

    /// Takes up everything that there is, and watches from there.
    async fn begin(&self, member: usize) -> Result<Changes, Failed> {
        // One that does not speak for most of them, or not at all, is found out sooner by a small question.
        self.client.beat(member, &self.keys.pulse()).await?;
        let asked = self.begin_to_ask();
        let (header, all) = self.load(member).await?;
        let (first, end) = self.keys.all();
        let changes = self.client.watch(member, &first, &end, header.revision + 1).await?;
        let Some(registry) = self.registry.upgrade() else { return Ok(changes) };
        self.tell(&registry);
        let (cluster, reached) = self.cluster.get();
        // Whoever was put back to what was before counts again what was counted.
        let is_same = cluster == header.cluster_id && header.revision >= reached;
        if !is_same {
            *self.view.borrow_mut() = View::new(self.keys.clone());
            self.missed.send_replace(0);
        }
        let news = self.view.borrow_mut().replace(all, header.revision);
        match is_same {
            true => registry.catch_up(news),
            false => registry.begin_shared(news, header.revision),
        }
        self.complain();
        self.cluster.set((header.cluster_id, header.revision));
        self.reached.send_replace(header.revision);
        if let (Some(link), Some(asked)) = (registry.link(), asked) {
            link.hear(asked);
        }
        self.begun.set(Some(Instant::now()));
        let (address, entries) = (self.client.address_of(member), registry.len());
        tracing::info!(address, entries, revision = header.revision, "the registry follows etcd");
        Ok(changes)
    }

    /// Reads everything, as it is at one moment.
    async fn load(&self, member: usize) -> Result<(wire::Header, View), Failed> {
        let mut all = View::new(self.keys.clone());
        // Somebody else's do not get into the view, and there may be any number of them.
        let mut keys = 0;
        let mut take = |kvs: &[wire::KeyValue]| {
            all.load(kvs);
            keys += kvs.len();
            if keys > MOST_KEYS || all.is_overfull() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let (first, end) = self.keys.all_of(Kind::Entry);
        let header = self.client.load(member, (&first, &end), (PAGE, 0), &mut take).await?;
        let mut keys = 0;
        let mut take = |kvs: &[wire::KeyValue]| {
            all.load(kvs);
            keys += kvs.len();
            if keys > MOST_KEYS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let (first, end) = self.keys.all_of(Kind::Alive);
        self.client.load(member, (&first, &end), (BARE_PAGE, header.revision), &mut take).await?;
        // Who was left out here would have expired.
        if keys > MOST_KEYS {
            return Err(lost("it has more leases below the prefix than a registry has"));
        }
        Ok((header, all))
    }

    /// Takes up changes as they come.
    async fn hear(&self, mut changes: Changes) -> Ended {
        loop {
            if let Err(failed) = self.next(&mut changes).await {
                return failed.into();
            }
            let mut heard = Ok(());
            if self.untold.borrow().iter().any(News::is_end) {
                let until = Instant::now() + TOGETHER;
                while let Ok(next) = timeout_at(until, self.next(&mut changes)).await {
                    heard = next;
                    if heard.is_err() {
                        break;
                    }
                }
            }
            let Some(registry) = self.registry.upgrade() else {
                return lost("nobody asks").into();
            };
            self.tell(&registry);
            self.complain();
            if let Err(failed) = heard {
                return failed.into();
            }
            if self.view.borrow().has_room_again() {
                return Ended::Anew("there were too many entries, and there is room again");
            }
        }
    }

    /// Says that keys make no sense: all that do not in one line, and not again and again.
    fn complain(&self) {
        if self.complained.get().is_some_and(|at| at.elapsed() < SENSELESS) {
            return;
        }
        if let Some((keys, first)) = self.view.borrow_mut().take_senseless() {
            self.complained.set(Some(Instant::now()));
            tracing::warn!(keys, "etcd has keys that are nothing of a registry: {first}");
        }
    }

    /// Takes up the next changes in the view.
    async fn next(&self, changes: &mut Changes) -> Result<(), Failed> {
        let watched = changes.next().await?;
        if watched.canceled {
            return Err(Failed::Lost(watched.why()));
        }
        let news = self.view.borrow_mut().apply(&watched.events);
        self.untold.borrow_mut().extend(news);
        let last = watched.events.last().map(|event| event.kv.mod_revision);
        let (cluster, seen) = self.cluster.get();
        self.cluster.set((cluster, seen.max(last.unwrap_or_default())));
        Ok(())
    }

    /// Tells the registry what has changed.
    fn tell(&self, registry: &Registry) {
        let news = self.untold.take();
        if !news.is_empty() {
            registry.follow(news);
        }
        let (_, seen) = self.cluster.get();
        self.reached.send_if_modified(|reached| std::mem::replace(reached, seen.max(*reached)) < seen);
    }

    /// Finds out whether the member still speaks for most of them, and whether its changes still come.
    async fn beat(&self, member: usize) -> Failed {
        let mut due = interval(BEAT);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            // What is answered is at least as new as the question; what comes meanwhile may be newer.
            let (cluster, reached) = self.cluster.get();
            let Some(asked) = self.registry.upgrade().map(|registry| registry.now().mono) else {
                return lost("nobody asks");
            };
            let (header, pulse) = match self.client.beat(member, &self.keys.pulse()).await {
                Ok(answer) => answer,
                Err(failed) => return failed,
            };
            if header.cluster_id != cluster || header.revision < reached {
                return lost("it has other data than before");
            }
            if self.pulse.get().0 != pulse {
                self.pulse.set((pulse, Instant::now()));
            }
            // What was put before has to come: it may be that questions are answered, and changes are not told.
            let mut reached = self.reached.subscribe();
            let came = reached.wait_for(|reached| *reached >= pulse);
            if timeout(ECHO, came).await.is_err() {
                return lost("it answers, but its changes do not come any more");
            }
            let Some(registry) = self.registry.upgrade() else {
                return lost("nobody asks");
            };
            if let Some(link) = registry.link() {
                link.hear(asked);
            }
            self.count();
        }
    }

    /// Puts a key where no gateway has done so for a while. Who may not write leaves it to the others.
    async fn keep_pulse(&self) {
        loop {
            sleep(PULSE.mul_f64(0.2 + 0.2 * chance())).await;
            let (pulse, met) = self.pulse.get();
            if met.elapsed() < PULSE {
                continue;
            }
            let key = self.keys.pulse();
            let body = wire::transaction(&[(key.clone(), pulse)], &[wire::put(&key, b"", 0)]);
            let answer = self.client.transact(&body, Instant::now() + PULSING).await;
            let Some(registry) = self.registry.upgrade() else { return };
            let Some(link) = registry.link() else { return };
            let why = match answer {
                Answer::Given(_) => None,
                Answer::Without(failed) | Answer::Unknown(failed) if failed.is_full() => {
                    Some(failed.to_string())
                }
                // Whether it answers is for others to find out.
                Answer::Without(_) | Answer::Unknown(_) => continue,
            };
            if link.refuses(why.clone()) {
                match why {
                    Some(why) => tracing::error!("the registry's etcd takes no writes: {why}"),
                    None => tracing::info!("the registry's etcd takes writes again"),
                }
            }
        }
    }

    fn count(&self) {
        if let Some(registry) = self.registry.upgrade()
            && let Some(link) = registry.link()
        {
            link.failures.fetch_add(self.client.take_failures(), Relaxed);
        }
    }

    /// Marks who has expired with when that was, so that all gateways know, and removes who did so long ago. All
    /// gateways try; a transaction lets one of them.
    async fn look_after(&self) {
        let mut due = interval(LOOK);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            // Not all gateways at the same time: mostly, one of them has done it then.
            sleep(LOOK.mul_f64(chance())).await;
            let Some(registry) = self.registry.upgrade() else { return };
            if registry.lost_for().is_some() || !registry.is_open() {
                continue;
            }
            for id in registry.long_expired().into_iter().take(PER_LOOK) {
                self.writer().forget(&registry, id).await;
            }
            let unmarked: Vec<Arc<str>> = {
                let view = self.view.borrow();
                let unmarked = view.all().filter(|(_, seen)| seen.is_unmarked());
                unmarked.take(PER_LOOK).map(|(id, _)| Arc::clone(id)).collect()
            };
            for id in unmarked {
                self.writer().mark(&registry, &id).await;
            }
        }
    }
}

/// Before the next attempt: members are asked one after the other, and all of them then less and less often.
fn pause(failures: usize, members: usize) -> Duration {
    let rounds = failures.checked_div(members.max(1)).unwrap_or_default();
    let longest = match u32::try_from(rounds) {
        Ok(0) => return SCATTER.mul_f64(chance()),
        Ok(rounds) => FIRST_PAUSE.saturating_mul(1 << (rounds - 1).min(10)).min(LONGEST_PAUSE),
        Err(_) => LONGEST_PAUSE,
    };
    longest.mul_f64(0.5 + 0.5 * chance())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_members_are_asked_before_anybody_waits() {
        assert!(pause(1, 3) <= SCATTER && pause(2, 3) <= SCATTER);
        for (failures, members, longest) in
            [(3, 3, 100), (6, 3, 200), (1, 1, 100), (4, 1, 800), (1000, 1, 1000)]
        {
            let pause = pause(failures, members).as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{failures}: {pause} ms");
        }
    }
}
