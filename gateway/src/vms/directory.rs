//! Where VMs are, as one worker remembers it.

use super::{Known, Lookup, SourceError, VmId, Vms, cache::Cache};
use crate::metrics::Counter;
use smallvec::{SmallVec, smallvec};
use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::spawn_local,
    time::{Instant, timeout},
};

/// How long a failure counts, before it is tried again.
const FAILED: Duration = Duration::from_secs(1);

/// How long an answer counts at least, whatever its source says: requests come by the thousand.
const SHORTEST: Duration = Duration::from_secs(1);

/// Questions of one worker at a time. Names of VMs are the client's words, and questions are not free.
const ASKING: usize = 256;

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
    remembered: RefCell<Cache<VmId, Rc<Entry>>>,
    asking: Rc<Cell<usize>>,
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
    asking: Rc<Cell<usize>>,
}

impl Directory {
    /// Remembers nothing yet.
    pub fn new(vms: Arc<Vms>, metrics: DirectoryMetrics) -> Self {
        let asked = match &vms.known {
            Known::Table(_) => None,
            Known::Asked(source) => Some(Asked {
                lookup: source.open().into(),
                remembered: RefCell::new(Cache::new(vms.terms.remembered)),
                asking: Rc::default(),
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
            (_, Some(asked)) => self.ask(asked, vm).await,
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
        let entry = asked.entry(vm);
        loop {
            let looked_up = entry.looked_up.notified();
            if let Some(known) = entry.fresh() {
                return known;
            }
            if !entry.state.borrow().is_running {
                if asked.asking.get() >= ASKING {
                    let too_many: Arc<str> = "too many questions are open".into();
                    return entry.last().unwrap_or(Err(NoVm::Failed(too_many)));
                }
                self.start(asked, vm, &entry);
            }
            looked_up.await;
        }
    }

    /// Asks in a task of its own: whoever asked first may leave before the others.
    fn start(&self, asked: &Asked, vm: &VmId, entry: &Rc<Entry>) {
        self.metrics.asked.inc();
        entry.state.borrow_mut().is_running = true;
        asked.asking.set(asked.asking.get() + 1);
        let flight = Flight { entry: Rc::clone(entry), asking: Rc::clone(&asked.asking) };
        let (lookup, vm, vms) = (Rc::clone(&asked.lookup), vm.clone(), Arc::clone(&self.vms));
        spawn_local(async move {
            let answer = timeout(vms.terms.timeout, lookup.find(&vm)).await;
            let answer = answer.unwrap_or_else(|_| Err(SourceError("no answer in time".to_owned())));
            flight.entry.learn(&vm, answer, &vms);
        });
    }
}

impl Asked {
    fn entry(&self, vm: &VmId) -> Rc<Entry> {
        let mut remembered = self.remembered.borrow_mut();
        remembered.get(vm).unwrap_or_else(|| {
            let entry = Rc::<Entry>::default();
            remembered.insert(vm.clone(), Rc::clone(&entry));
            entry
        })
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

    fn learn(&self, vm: &VmId, answer: super::Answer, vms: &Vms) {
        let terms = &vms.terms;
        let mut state = self.state.borrow_mut();
        let (known, lasts) = match answer {
            Ok((addresses, ttl)) => {
                let any = !addresses.is_empty();
                let usable: Addresses = addresses.into_iter().filter(|ip| terms.allow(*ip)).collect();
                if usable.is_empty() {
                    if any {
                        tracing::warn!(%vm, "a VM has no IPv6 address; `allow_ipv4` of `[vms]` would let it have another");
                    }
                    (Err(NoVm::Unknown), terms.negative_ttl)
                } else {
                    (Ok(usable), ttl.unwrap_or(terms.ttl).clamp(SHORTEST, terms.ttl.max(SHORTEST)))
                }
            }
            Err(error) => match state.known.take() {
                Some(Ok(old)) => {
                    tracing::warn!(%vm, %error, "a VM could not be looked up: its last address is used");
                    (Ok(old), FAILED)
                }
                _ => (Err(NoVm::Failed(error.0.into())), FAILED),
            },
        };
        (state.known, state.until) = (Some(known), Some(Instant::now() + lasts));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.asking.set(self.asking.get() - 1);
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
        };
        let metrics = Metrics::new();
        let counter = || metrics.counter(&names::VM_LOOKUPS, &[]);
        let metrics =
            DirectoryMetrics { found: counter(), unknown: counter(), failed: counter(), asked: counter() };
        Directory::new(Arc::new(Vms { known: Known::Asked(Box::new(source.clone())), terms }), metrics)
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
            source.says(Err(SourceError("on fire".to_owned())));
            advance(Duration::from_secs(10)).await;
            assert_eq!((directory.find(&vm).await, source.asked()), (found("2001:db8::1"), 3));
            source.says(Ok((Vec::new(), None)));
            advance(FAILED).await;
            assert_eq!(directory.find(&vm).await, Err(NoVm::Unknown), "this one knows");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_too_many_questions() {
        let source = Slow::default();
        let directory = directory(&source);
        on_a_worker(async {
            let names: Vec<VmId> =
                (0..ASKING + 1).map(|n| format!("vm-{n}").parse().expect("a name")).collect();
            let mut asking: Vec<_> = names.iter().map(|vm| Box::pin(directory.find(vm))).collect();
            let mut last = asking.pop().expect("one");
            for one in &mut asking {
                assert!(futures(one.as_mut()).is_none());
            }
            assert!(matches!(futures(last.as_mut()), Some(Err(NoVm::Failed(_)))), "not even asked");
            for one in asking {
                assert!(matches!(one.await, Err(NoVm::Failed(_))));
            }
            assert_eq!(directory.asked.as_ref().map(|asked| asked.asking.get()), Some(0));
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
