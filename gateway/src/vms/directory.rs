//! Where VMs are, as one worker remembers it.

use super::{Known, Lookup, SourceError, Terms, VmId, Vms, cache::Cache};
use crate::{io::Seldom, metrics::Counter};
use smallvec::{SmallVec, smallvec};
use std::{cell::RefCell, net::IpAddr, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::spawn_local,
    time::{Instant, timeout},
};

/// How long a failure counts, before it is tried again.
const FAILED: Duration = Duration::from_secs(1);

/// How long an answer counts at least, whatever its source says: requests come by the thousand.
const SHORTEST: Duration = Duration::from_secs(1);

/// Questions of one worker at a time. Names of VMs are the client's words, and questions are not free.
const ASKING: usize = 256;

/// How many of them are for VMs that are known, however many strangers are asked for.
const ASKING_KNOWN: usize = 64;

/// Names that a worker remembers without knowing an address: clients make them up. Those of VMs are kept
/// apart, and are not forgotten for them.
const STRANGERS: usize = 4096;

/// The addresses of a VM, the preferred one first; mostly one.
pub type Addresses = SmallVec<[IpAddr; 1]>;

/// Where VMs are, as one worker remembers it.
#[derive(Debug)]
pub struct Directory {
    vms: Arc<Vms>,
    /// Where somebody must be asked.
    asked: Option<Asked>,
    metrics: DirectoryMetrics,
}

#[derive(Debug)]
struct Asked {
    lookup: Rc<dyn Lookup>,
    remembered: Rc<Remembered>,
    /// Permits for questions about VMs that are known, and about others.
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

/// What is remembered of each name, by whether it has led to an address.
#[derive(Debug)]
struct Remembered {
    known: RefCell<Cache<VmId, Rc<Entry>>>,
    strangers: RefCell<Cache<VmId, Rc<Entry>>>,
    /// Of addresses that no VM may have, and of questions that failed.
    told: [Seldom; 2],
}

/// What a worker counts of its lookups.
#[derive(Debug)]
pub struct DirectoryMetrics {
    /// Those that found a VM.
    pub found: Counter,
    /// Those that found that there is none.
    pub unknown: Counter,
    /// Those that found nothing out.
    pub failed: Counter,
    /// Questions to where VMs are known.
    pub asked: Counter,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoVm {
    /// There is no such VM.
    #[error("there is no such VM")]
    Unknown,
    /// Whether there is one could not be found out.
    #[error("VMs cannot be looked up: {0}")]
    Failed(Arc<str>),
}

/// What is remembered of one VM. Whoever asks while it is looked up waits for the same answer.
#[derive(Debug, Default)]
struct Entry {
    state: RefCell<State>,
    looked_up: Notify,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Result<Addresses, NoVm>>,
    until: Option<Instant>,
    is_running: bool,
}

/// A question under way; its end, whatever it is, is the end of waiting for it.
struct Flight {
    entry: Rc<Entry>,
    _permit: OwnedSemaphorePermit,
}

impl Directory {
    /// Remembers nothing yet, or what the one did that asked the same, of other servers.
    pub fn new(vms: Arc<Vms>, previous: Option<&Self>, metrics: DirectoryMetrics) -> Self {
        let before = previous.and_then(|previous| previous.asked.as_ref());
        let asked = match &vms.known {
            Known::Table(_) => None,
            Known::Asked(source) => Some(Asked {
                lookup: source.open().into(),
                remembered: before.map(|before| Rc::clone(&before.remembered)).unwrap_or_else(|| {
                    Rc::new(Remembered {
                        known: RefCell::new(Cache::new(vms.terms.remembered)),
                        strangers: RefCell::new(Cache::new(STRANGERS)),
                        told: Default::default(),
                    })
                }),
                known: Arc::new(Semaphore::new(ASKING_KNOWN)),
                strangers: Arc::new(Semaphore::new(ASKING - ASKING_KNOWN)),
            }),
        };
        Self { vms, asked, metrics }
    }

    /// What it looks in.
    pub fn vms(&self) -> &Arc<Vms> {
        &self.vms
    }

    /// Where a VM is.
    ///
    /// # Errors
    /// Fails where there is none, and where that cannot be found out in time.
    pub async fn find(&self, vm: &VmId) -> Result<Addresses, NoVm> {
        let found = match (&self.vms.known, &self.asked) {
            (Known::Table(table), _) => table.get(vm).map(|ip| smallvec![ip]).ok_or(NoVm::Unknown),
            (_, Some(asked)) => match asked.remembered.fresh(vm) {
                Some(known) => known,
                // In a place of its own: most are remembered.
                None => Box::pin(self.ask(asked, vm)).await,
            },
            (Known::Asked(_), None) => Err(NoVm::Unknown),
        };
        match &found {
            Ok(_) => self.metrics.found.inc(),
            Err(NoVm::Unknown) => self.metrics.unknown.inc(),
            Err(NoVm::Failed(_)) => self.metrics.failed.inc(),
        }
        found
    }

    async fn ask(&self, asked: &Asked, vm: &VmId) -> Result<Addresses, NoVm> {
        let entry = asked.remembered.entry(vm);
        let mut permit = None;
        loop {
            let looked_up = entry.looked_up.notified();
            if let Some(known) = entry.fresh() {
                return known;
            }
            if entry.state.borrow().is_running {
                drop(permit.take());
                looked_up.await;
                continue;
            }
            let last = entry.last();
            let permits = if last.is_some() { &asked.known } else { &asked.strangers };
            if let Some(permit) = permit.take().or_else(|| Arc::clone(permits).try_acquire_owned().ok()) {
                self.start(asked, vm, &entry, permit);
                looked_up.await;
                continue;
            }
            if let Some(last) = last {
                return last;
            }
            permit = tokio::select! {
                biased;
                // Somebody who came before has got to ask for the same.
                () = looked_up => None,
                turn = timeout(self.vms.terms.timeout, Arc::clone(permits).acquire_owned()) => match turn {
                    Ok(Ok(permit)) => Some(permit),
                    Ok(Err(_)) | Err(_) => return Err(NoVm::Failed("too many questions are open".into())),
                },
            };
        }
    }

    /// Asks in a task of its own: whoever asked first may leave before the others.
    fn start(&self, asked: &Asked, vm: &VmId, entry: &Rc<Entry>, permit: OwnedSemaphorePermit) {
        self.metrics.asked.inc();
        entry.state.borrow_mut().is_running = true;
        let flight = Flight { entry: Rc::clone(entry), _permit: permit };
        let remembered = Rc::clone(&asked.remembered);
        let (lookup, vm, vms) = (Rc::clone(&asked.lookup), vm.clone(), Arc::clone(&self.vms));
        spawn_local(async move {
            let answer = timeout(vms.terms.timeout, lookup.find(&vm)).await;
            let answer = answer.unwrap_or_else(|_| Err(SourceError::Silent("no answer in time".to_owned())));
            flight.entry.learn(&vm, answer, &vms.terms, &remembered.told);
            if flight.entry.last().is_some() {
                remembered.keep(vm, &flight.entry);
            }
        });
    }
}

impl Remembered {
    fn entry(&self, vm: &VmId) -> Rc<Entry> {
        if let Some(entry) = self.known.borrow_mut().get(vm) {
            return entry;
        }
        let mut strangers = self.strangers.borrow_mut();
        strangers.get(vm).unwrap_or_else(|| {
            let entry = Rc::<Entry>::default();
            strangers.insert(vm.clone(), Rc::clone(&entry));
            entry
        })
    }

    /// What is known of one that was asked for a short time ago.
    fn fresh(&self, vm: &VmId) -> Option<Result<Addresses, NoVm>> {
        let known = self.known.borrow_mut().get(vm);
        known.or_else(|| self.strangers.borrow_mut().get(vm))?.fresh()
    }

    /// There is such a VM.
    fn keep(&self, vm: VmId, entry: &Rc<Entry>) {
        self.known.borrow_mut().insert(vm, Rc::clone(entry));
    }
}

impl Entry {
    fn fresh(&self) -> Option<Result<Addresses, NoVm>> {
        let state = self.state.borrow();
        state.until.filter(|until| Instant::now() < *until)?;
        state.known.clone()
    }

    fn last(&self) -> Option<Result<Addresses, NoVm>> {
        self.state.borrow().known.clone().filter(Result::is_ok)
    }

    fn learn(&self, vm: &VmId, answer: super::Answer, terms: &Terms, told: &[Seldom; 2]) {
        let [of_networks, of_failures] = told;
        let is_told = |told: &Seldom| told.happened(std::time::Instant::now());
        let mut state = self.state.borrow_mut();
        let (known, lasts) = match answer {
            Ok((addresses, ttl)) => {
                let usable: Addresses = addresses.iter().copied().filter(|ip| terms.allow(*ip)).collect();
                if usable.is_empty() {
                    if let Some(address) = addresses.first()
                        && let Some(times) = is_told(of_networks)
                    {
                        tracing::warn!(
                            %vm, %address, times,
                            "a VM has no address that it may have: see `networks` and `allow_ipv4` of `[vms]`"
                        );
                    }
                    (Err(NoVm::Unknown), terms.negative_ttl)
                } else {
                    (Ok(usable), ttl.unwrap_or(terms.ttl).clamp(SHORTEST, terms.ttl.max(SHORTEST)))
                }
            }
            Err(error @ SourceError::Nowhere(_)) => (Err(NoVm::Failed(error.to_string().into())), FAILED),
            Err(error) => match state.known.take() {
                Some(Ok(old)) => {
                    if let Some(times) = is_told(of_failures) {
                        tracing::warn!(%vm, %error, times, "a VM could not be looked up: its last address is used");
                    }
                    (Ok(old), FAILED)
                }
                _ => (Err(NoVm::Failed(error.to_string().into())), FAILED),
            },
        };
        (state.known, state.until) = (Some(known), Some(Instant::now() + lasts));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.entry.state.borrow_mut().is_running = false;
        self.entry.looked_up.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Source, Terms};
    use super::*;
    use crate::metrics::{Metrics, names};
    use std::{future::Future, pin::Pin, sync::Mutex};
    use tokio::{
        task::LocalSet,
        time::{advance, sleep},
    };

    /// Takes a second for each answer, and says what it was told to.
    #[derive(Debug, Clone, Default)]
    struct Slow(Arc<Mutex<(usize, Option<Answer>)>>);

    impl Slow {
        fn says(&self, answer: Answer) {
            self.0.lock().expect("no panic").1 = Some(answer);
        }

        fn asked(&self) -> usize {
            self.0.lock().expect("no panic").0
        }
    }

    impl Source for Slow {
        fn open(&self) -> Box<dyn Lookup> {
            Box::new(self.clone())
        }
    }

    impl Lookup for Slow {
        fn find<'a>(&'a self, _: &'a VmId) -> Pin<Box<dyn Future<Output = Answer> + 'a>> {
            Box::pin(async {
                self.0.lock().expect("no panic").0 += 1;
                sleep(Duration::from_secs(1)).await;
                let answer = self.0.lock().expect("no panic").1.clone();
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        }
    }

    fn directory(source: &Slow) -> Directory {
        let terms = Terms {
            ttl: Duration::from_secs(30),
            negative_ttl: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
            remembered: 100,
            allow_ipv4: false,
            networks: crate::networks::Networks::All,
        };
        let metrics = Metrics::new();
        let counter = || metrics.counter(&names::VM_LOOKUPS, &[]);
        let metrics =
            DirectoryMetrics { found: counter(), unknown: counter(), failed: counter(), asked: counter() };
        Directory::new(Arc::new(Vms { known: Known::Asked(Box::new(source.clone())), terms }), None, metrics)
    }

    fn at(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn found(text: &str) -> Result<Addresses, NoVm> {
        Ok(smallvec![at(text)])
    }

    fn is_at(text: &str, ttl: u64) -> Answer {
        Ok((vec![at(text)], Some(Duration::from_secs(ttl))))
    }

    async fn on_a_worker(test: impl Future<Output = ()>) {
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_vm_is_asked_for_once_at_a_time_and_as_long_as_its_answer_counts() {
        let source = Slow::default();
        let directory = directory(&source);
        let vm: VmId = "web".parse().expect("a name");
        on_a_worker(async {
            source.says(is_at("2001:db8::1", 10));
            let (a, b) = tokio::join!(directory.find(&vm), directory.find(&vm));
            assert_eq!((a, b), (found("2001:db8::1"), found("2001:db8::1")));
            assert_eq!(source.asked(), 1);
            source.says(is_at("2001:db8::2", 1000));
            advance(Duration::from_millis(9990)).await;
            assert_eq!((directory.find(&vm).await, source.asked()), (found("2001:db8::1"), 1));
            advance(Duration::from_millis(10)).await;
            assert_eq!((directory.find(&vm).await, source.asked()), (found("2001:db8::2"), 2));
            advance(Duration::from_secs(29)).await;
            assert_eq!(directory.find(&vm).await, found("2001:db8::2"));
            advance(Duration::from_secs(1)).await;
            assert_eq!(
                (directory.find(&vm).await, source.asked()),
                (found("2001:db8::2"), 3),
                "30 s at most"
            );
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn that_there_is_none_is_remembered_and_does_not_hide_a_new_one_for_long() {
        let source = Slow::default();
        let directory = directory(&source);
        let vm: VmId = "web".parse().expect("a name");
        on_a_worker(async {
            source.says(Ok((Vec::new(), None)));
            for _ in 0..5 {
                assert_eq!(directory.find(&vm).await, Err(NoVm::Unknown));
            }
            assert_eq!(source.asked(), 1);
            source.says(is_at("192.0.2.1", 10));
            advance(Duration::from_secs(2)).await;
            assert_eq!(directory.find(&vm).await, Err(NoVm::Unknown), "IPv4 is not wanted");
            source.says(is_at("2001:db8::1", 10));
            advance(Duration::from_secs(2)).await;
            assert_eq!((directory.find(&vm).await, source.asked()), (found("2001:db8::1"), 3));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_address_is_better_than_none() {
        let source = Slow::default();
        let directory = directory(&source);
        let vm: VmId = "web".parse().expect("a name");
        on_a_worker(async {
            let begun = Instant::now();
            let failed = directory.find(&vm).await;
            assert!(matches!(&failed, Err(NoVm::Failed(why)) if why.contains("in time")), "{failed:?}");
            assert_eq!(begun.elapsed(), Duration::from_secs(5));
            assert_eq!((directory.find(&vm).await, source.asked()), (failed, 1), "not at each request");
            source.says(is_at("2001:db8::1", 10));
            advance(FAILED).await;
            assert_eq!(directory.find(&vm).await, found("2001:db8::1"));
            source.says(Err(SourceError::Silent("on fire".to_owned())));
            advance(Duration::from_secs(10)).await;
            assert_eq!((directory.find(&vm).await, source.asked()), (found("2001:db8::1"), 3));
            source.says(Ok((Vec::new(), None)));
            advance(FAILED).await;
            assert_eq!(directory.find(&vm).await, Err(NoVm::Unknown), "this one knows");
        })
        .await;
    }

    fn names(what: &str, number: usize) -> Vec<VmId> {
        (0..number).map(|n| format!("{what}-{n}").parse().expect("a name")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_too_many_questions_and_others_wait_their_turn() {
        let source = Slow::default();
        let directory = directory(&source);
        on_a_worker(async {
            source.says(is_at("2001:db8::1", 10));
            let most = ASKING - ASKING_KNOWN;
            let names = names("vm", 7 * most);
            let begun = Instant::now();
            // One of them twice, which takes no turn of its own.
            let asking = names.iter().chain([&names[most]]).map(async |vm| {
                let answer = directory.find(vm).await;
                (answer, begun.elapsed().as_secs())
            });
            let mut answers = futures_util::future::join_all(asking).await;
            assert_eq!(answers.pop(), Some((found("2001:db8::1"), 2)));
            let mut late = 0;
            for (number, (answer, seconds)) in answers.into_iter().enumerate() {
                match (number / most, answer) {
                    (turn @ ..5, answer) => {
                        assert_eq!((answer, seconds), (found("2001:db8::1"), turn as u64 + 1));
                    }
                    // Its turn came just when its time was over.
                    (_, Ok(_)) => assert_eq!(seconds, 6),
                    (_, Err(error)) => {
                        assert!(error.to_string().contains("too many questions") && seconds == 5, "{error}");
                        late += 1;
                    }
                }
            }
            assert!(late >= most, "{late}");
            let asked = directory.asked.as_ref().expect("it asks");
            assert!(source.asked() <= 6 * most, "{}", source.asked());
            sleep(Duration::from_secs(1)).await;
            assert_eq!(asked.strangers.available_permits(), most);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_clients_make_up_do_not_get_in_the_way_of_vms() {
        let source = Slow::default();
        let directory = directory(&source);
        let vm: VmId = "web".parse().expect("a name");
        on_a_worker(async {
            source.says(is_at("2001:db8::1", 10));
            assert_eq!(directory.find(&vm).await, found("2001:db8::1"));
            source.says(Ok((Vec::new(), None)));
            let some = names("nonsense", 3 * STRANGERS / 2);
            for some in some.chunks(ASKING / 2) {
                let all: Vec<_> = some.iter().map(|vm| Box::pin(directory.find(vm))).collect();
                for one in all {
                    assert_eq!(one.await, Err(NoVm::Unknown));
                }
            }
            // Nobody answers, and the line of nonsense is long.
            source.0.lock().expect("no panic").1 = None;
            let mut more: Vec<_> = some.iter().take(ASKING).map(|vm| Box::pin(directory.find(vm))).collect();
            advance(Duration::from_secs(2)).await;
            for one in &mut more {
                assert!(futures(one.as_mut()).is_none());
            }
            let asked = source.asked();
            assert_eq!(directory.find(&vm).await, found("2001:db8::1"), "its last address is still known");
            assert_eq!(source.asked(), asked + 1 + (ASKING - ASKING_KNOWN), "and it was asked for again");
        })
        .await;
    }

    fn futures<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
