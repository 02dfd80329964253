//! The thread that keeps what has changed, and says when it is kept.
//!
//! What comes while the disk works waits for the next commit, together: the busier the registry, the
//! fewer commits for each change.

use super::{Store, StoreError, Write};
use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};
use tokio::sync::oneshot;

/// Jobs in one commit.
const MOST: usize = 2_000;

/// How soon what could not be kept is tried once more.
const RETRY: Duration = Duration::from_secs(1);

/// What somebody wants to be kept.
#[derive(Debug)]
struct Job {
    writes: Vec<Write>,
    done: Option<oneshot::Sender<Result<(), StoreError>>>,
}

/// The way to the thread. Dropped, it waits until all is kept that was asked for.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    progress: Arc<Progress>,
}

/// How it goes.
#[derive(Debug, Default)]
pub(super) struct Progress {
    waiting: AtomicUsize,
    /// Whether the last commit failed.
    pub(super) has_failed: AtomicBool,
    /// Commits so far.
    pub(super) commits: AtomicU64,
}

impl Writer {
    pub(super) fn start(store: Box<dyn Store>) -> io::Result<Self> {
        let (jobs, received) = channel();
        let progress = Arc::new(Progress::default());
        let of_thread = Arc::clone(&progress);
        let thread = Builder::new()
            .name("vers-reg-store".to_owned())
            .spawn(move || Loop { store, received, progress: of_thread, unkept: HashMap::new() }.run())?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), progress })
    }

    /// Hands over what is to be kept. Who wants to know waits for the answer.
    pub(super) fn keep(&self, writes: Vec<Write>) -> oneshot::Receiver<Result<(), StoreError>> {
        let (done, kept) = oneshot::channel();
        self.progress.waiting.fetch_add(1, Relaxed);
        if let Some(jobs) = &self.jobs {
            // A thread that is gone has dropped the sender of the answer, which says it.
            let _ = jobs.send(Job { writes, done: Some(done) });
        }
        kept
    }

    /// Jobs that wait.
    pub(super) fn waiting(&self) -> usize {
        self.progress.waiting.load(Relaxed)
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Loop {
    store: Box<dyn Store>,
    received: Receiver<Job>,
    progress: Arc<Progress>,
    /// What a failed commit left, by id: only the last state of each counts.
    unkept: HashMap<Arc<str>, Write>,
}

impl Loop {
    fn run(mut self) {
        loop {
            let first = if self.unkept.is_empty() {
                self.received.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.received.recv_timeout(RETRY)
            };
            match first {
                Ok(first) => self.commit(Some(first)),
                Err(RecvTimeoutError::Timeout) => self.commit(None),
                Err(RecvTimeoutError::Disconnected) if self.unkept.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => return self.commit(None),
            }
        }
    }

    fn commit(&mut self, first: Option<Job>) {
        let mut writes: Vec<Write> = self.unkept.values().cloned().collect();
        let mut waiting = Vec::new();
        let mut next = first;
        for _ in 0..MOST {
            let job = match next.take() {
                Some(job) => job,
                None => match self.received.try_recv() {
                    Ok(job) => job,
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                },
            };
            self.progress.waiting.fetch_sub(1, Relaxed);
            writes.extend(job.writes);
            waiting.extend(job.done);
        }
        let result = if writes.is_empty() { Ok(()) } else { self.store.commit(&writes) };
        self.progress.commits.fetch_add(u64::from(!writes.is_empty()), Relaxed);
        match &result {
            Ok(()) => {
                self.unkept.clear();
                if self.progress.has_failed.swap(false, Relaxed) {
                    tracing::info!("the registry's entries are kept again");
                }
            }
            Err(error) => {
                if !self.progress.has_failed.swap(true, Relaxed) {
                    tracing::error!(%error, "the registry's entries are not kept; it is tried again");
                }
                self.unkept = writes.into_iter().map(|write| (Arc::clone(write.id()), write)).collect();
            }
        }
        for done in waiting {
            // Whoever asked may have gone away meanwhile.
            let _ = done.send(result.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A disk that is full, until it is not.
    #[derive(Debug, Default, Clone)]
    struct Full(Arc<Mutex<(bool, Vec<Arc<str>>)>>);

    impl Store for Full {
        fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
            let mut state = self.0.lock().expect("no panic");
            if state.0 {
                return Err(StoreError("no space left".to_owned()));
            }
            state.1.extend(writes.iter().map(|write| Arc::clone(write.id())));
            Ok(())
        }
    }

    #[test]
    fn what_could_not_be_kept_is_kept_later_and_nobody_is_told_otherwise() {
        let disk = Full::default();
        disk.0.lock().expect("no panic").0 = true;
        let writer = Writer::start(Box::new(disk.clone())).expect("a thread");
        let gone = |id: &str| vec![Write::Remove(id.into(), 1)];
        assert!(writer.keep(gone("a")).blocking_recv().expect("an answer").is_err());
        assert!(writer.keep(Vec::new()).blocking_recv().expect("an answer").is_err(), "it is not there yet");
        assert!(writer.progress().has_failed.load(Relaxed));
        disk.0.lock().expect("no panic").0 = false;
        assert_eq!(writer.keep(gone("b")).blocking_recv().expect("an answer"), Ok(()));
        assert!(!writer.progress().has_failed.load(Relaxed));
        drop(writer);
        let kept: Vec<String> = disk.0.lock().expect("no panic").1.iter().map(ToString::to_string).collect();
        assert_eq!(kept, ["a", "b"]);
    }
}
