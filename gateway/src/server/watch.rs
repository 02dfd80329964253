//! Notices that files may have changed. Whether they did is decided by their content, elsewhere.

use notify::{
    Config, EventKind, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

/// How long files must have been quiet: editors and compilers write in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// How long is waited for quiet at most.
const LONGEST: Duration = Duration::from_secs(2);

/// How often files are looked at where the system does not tell.
const POLL: Duration = Duration::from_secs(2);

/// Watches the folders of files: a file that is replaced is another file, but in the same folder.
pub(crate) struct FileWatch {
    watcher: Box<dyn Watcher>,
    folders: BTreeSet<PathBuf>,
    happened: Arc<Notify>,
}

impl FileWatch {
    pub(crate) fn new() -> Option<Self> {
        let happened = Arc::new(Notify::new());
        let notify = Arc::clone(&happened);
        let on_event = move |event: notify::Result<notify::Event>| {
            // Looking at the files is an event too; taken for a change, it would go on for ever.
            if event.is_ok_and(|event| !is_look(event.kind)) {
                notify.notify_one();
            }
        };
        let watcher: Option<Box<dyn Watcher>> = match RecommendedWatcher::new(
            on_event.clone(),
            Config::default(),
        ) {
            Ok(watcher) => Some(Box::new(watcher)),
            Err(error) => {
                tracing::warn!(%error, "the system does not report changes of files: looking every {POLL:?} instead");
                let polling = PollWatcher::new(
                    on_event,
                    Config::default().with_poll_interval(POLL).with_compare_contents(true),
                );
                polling.ok().map(|watcher| Box::new(watcher) as Box<dyn Watcher>)
            }
        };
        Some(Self { watcher: watcher?, folders: BTreeSet::new(), happened })
    }

    /// Watches these files, and no others.
    pub(crate) fn set<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        let folders: BTreeSet<PathBuf> = files.flat_map(folders).collect();
        for known in &self.folders {
            // All of them: one that was removed and made again is another folder of the same name.
            // A folder that does not exist any more cannot be unwatched, and need not be.
            let _ = self.watcher.unwatch(known);
        }
        let mut watched = BTreeSet::new();
        for folder in folders {
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    watched.insert(folder);
                    // What happened in it since its files were read was not reported.
                    self.happened.notify_one();
                }
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "changes in this folder will not be noticed")
                }
            }
        }
        self.folders = watched;
    }

    /// Waits until something happened in the folders and all is quiet again.
    pub(crate) async fn changed(&self) {
        self.happened.notified().await;
        let latest = Instant::now() + LONGEST;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            if timeout_at(quiet, self.happened.notified()).await.is_err() || Instant::now() >= latest {
                return sleep_until(quiet).await;
            }
        }
    }
}

fn is_look(kind: EventKind) -> bool {
    kind.is_access() && kind != EventKind::Access(AccessKind::Close(AccessMode::Write))
}

/// Where something happens when a file becomes another: the folder that it is in, and that of each
/// link on the way to it. Without links in them: a link may lead to another folder tomorrow.
fn folders(file: &Path) -> Vec<PathBuf> {
    let links = file.ancestors().filter(|path| path.is_symlink());
    let target = file.canonicalize().ok();
    let paths = std::iter::once(file).chain(links).chain(target.as_deref());
    // A folder that is not there cannot be watched, but the nearest one above it, in which it can
    // appear.
    let existing = |path: &Path| path.ancestors().find_map(|folder| folder.canonicalize().ok());
    paths.filter_map(|path| existing(std::path::absolute(path).ok()?.parent()?)).collect()
}
