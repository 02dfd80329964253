//! Follows what etcd says: everything once, then changes as they come, and again where that breaks off. Beside that,
//! does what clients wish, and removes what expired long ago.

use super::{
    super::{Registry, Wish, book::News},
    client::{Changes, Client, Failed},
    keys::Keys,
    link::Asked,
    transport::Access,
    view::View,
    write::Writer,
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{
    cell::{Cell, RefCell},
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};

/// How often it is asked whether most members are there.
const BEAT: Duration = Duration::from_secs(1);

/// Leases that end at about the same time are looked at together: many at once say more of the network than of those
/// that had them.
const TOGETHER: Duration = Duration::from_millis(100);

/// The first pause after all members have failed; each further round doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Wishes that are on their way at a time.
const AT_ONCE: usize = 128;

/// How often it is looked who expired long ago, and who has no mark of when.
const LOOK: Duration = Duration::from_secs(1);

/// Entries that are marked or removed at each look.
const PER_LOOK: usize = 200;

/// Follows etcd for a registry until that is gone. `access` says where etcd is, and may come to say otherwise.
pub async fn run(registry: Weak<Registry>, access: watch::Receiver<Arc<Access>>) {
    let Some(wishes) = registry.upgrade().and_then(|registry| registry.link()?.take()) else { return };
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
        untold: RefCell::default(),
        is_deaf: Notify::new(),
    };
    tokio::select! {
        // Ends with the registry.
        () = follower.serve(wishes) => {}
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
    /// Changes that are in the view, and not told yet: whoever turns away from a member meanwhile must not lose them.
    untold: RefCell<Vec<News>>,
    /// A change of our own did not come back.
    is_deaf: Notify,
}

/// What is told to who stays with a member that is not to be trusted any more.
const DOUBTFUL: &str = "what is known may be old: everything is asked anew";

impl Follower {
    /// Does what clients wish, many at a time, until nobody can wish any more.
    async fn serve(&self, mut wishes: mpsc::Receiver<Asked>) {
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                asked = wishes.recv(), if running.len() < AT_ONCE => match asked {
                    Some((wish, done)) => running.push(async move {
                        let Some(registry) = self.registry.upgrade() else { return };
                        // Whoever asked may have gone away meanwhile.
                        let _ = done.send(self.writer().fulfil(&registry, &wish).await);
                    }),
                    None => return,
                },
                Some(()) = running.next(), if !running.is_empty() => {}
            }
        }
    }

    fn writer(&self) -> Writer<'_> {
        let Self { client, view, keys, reached, is_deaf, .. } = self;
        Writer { client, view, keys, reached, is_deaf }
    }

    /// Never ends, but with the registry.
    async fn follow(&self) {
        let mut failures = 0_usize;
        while self.registry.strong_count() > 0 {
            let member = self.client.member();
            let failed = tokio::select! {
                failed = self.stay(member) => failed,
                () = self.client.moved() => {
                    tracing::info!("the registry's etcd is asked anew: it is somewhere else, or known otherwise");
                    failures = 0;
                    continue;
                }
            };
            self.count();
            let Some(registry) = self.registry.upgrade() else { return };
            let Some(link) = registry.link() else { return };
            // It has worked for a while, so this is the first failure.
            let has_worked = self.begun.take().is_some_and(|begun| begun.elapsed() > 2 * BEAT);
            failures = if has_worked { 1 } else { failures + 1 };
            let address = self.client.address_of(member);
            if failures == 1 {
                tracing::warn!(address, "the registry's etcd does not answer: {failed}");
            }
            link.lose(format!("{address}: {failed}"));
            drop(registry);
            self.client.leave(member);
            sleep(pause(failures, self.client.members())).await;
        }
    }

    /// Follows what one member says, until it fails.
    async fn stay(&self, member: usize) -> Failed {
        match self.begin(member).await {
            Ok(changes) => {
                tokio::select! {
                    failed = self.hear(changes) => failed,
                    failed = self.beat(member) => failed,
                    () = self.is_deaf.notified() => Failed::Lost("a change did not come back from it".to_owned()),
                    () = self.doubted() => Failed::Lost(DOUBTFUL.to_owned()),
                }
            }
            Err(failed) => failed,
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
        let (first, end) = self.keys.all();
        let asked = self.begin_to_ask();
        let (header, kvs) = self.client.load(member, &first, &end).await?;
        let changes = self.client.watch(member, &first, &end, header.revision + 1).await?;
        let Some(registry) = self.registry.upgrade() else { return Ok(changes) };
        self.tell(&registry);
        let (cluster, reached) = self.cluster.get();
        // Whoever was put back to what was before counts again what was counted.
        let is_same = cluster == header.cluster_id && header.revision >= reached;
        if !is_same {
            *self.view.borrow_mut() = View::new(self.keys.clone());
        }
        let news = self.view.borrow_mut().replace(&kvs, header.revision);
        match is_same {
            true => registry.catch_up(news),
            false => registry.begin_shared(news, header.revision),
        }
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

    /// Takes up changes as they come.
    async fn hear(&self, mut changes: Changes) -> Failed {
        loop {
            if let Err(failed) = self.next(&mut changes).await {
                return failed;
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
                return Failed::Lost("nobody asks".to_owned());
            };
            self.tell(&registry);
            if let Err(failed) = heard {
                return failed;
            }
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

    /// Finds out whether the member still speaks for most of them.
    async fn beat(&self, member: usize) -> Failed {
        let mut due = interval(BEAT);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            // What is answered is at least as new as the question.
            let Some(asked) = self.registry.upgrade().map(|registry| registry.now().mono) else {
                return Failed::Lost("nobody asks".to_owned());
            };
            let header = match self.client.beat(member, &self.keys.nothing()).await {
                Ok(header) => header,
                Err(failed) => return failed,
            };
            let (cluster, reached) = self.cluster.get();
            if header.cluster_id != cluster || header.revision < reached {
                return Failed::Lost("it has other data than before".to_owned());
            }
            let Some(registry) = self.registry.upgrade() else {
                return Failed::Lost("nobody asks".to_owned());
            };
            if let Some(link) = registry.link() {
                link.hear(asked);
            }
            self.count();
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
                // Nobody waits for it; who could not be removed now is so later.
                let _ = self.writer().fulfil(&registry, &Wish::Purge(id)).await;
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
        Ok(0) => return Duration::ZERO,
        Ok(rounds) => FIRST_PAUSE.saturating_mul(1 << (rounds - 1).min(10)).min(LONGEST_PAUSE),
        Err(_) => LONGEST_PAUSE,
    };
    longest.mul_f64(0.5 + 0.5 * chance())
}

/// Anything from 0 to 1.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_members_are_asked_before_anybody_waits() {
        assert_eq!((pause(1, 3), pause(2, 3)), (Duration::ZERO, Duration::ZERO));
        for (failures, members, longest) in
            [(3, 3, 100), (6, 3, 200), (1, 1, 100), (4, 1, 800), (1000, 1, 1000)]
        {
            let pause = pause(failures, members).as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{failures}: {pause} ms");
        }
    }
}
