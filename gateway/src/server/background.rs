//! Plugins' background work: one supervised task for each plugin that has any.

use crate::{
    metrics::Metrics,
    plugins::{Background, Fault, Host, Plugin, PluginMetrics, Ran},
    snapshot::{Outbound, Snapshot},
};
use futures_util::{
    FutureExt as _,
    future::{LocalBoxFuture, Shared},
};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_local},
    time::sleep,
};

/// Pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// All background work of a gateway, on the control thread.
pub(super) struct BackgroundWork {
    host: Arc<Host>,
    metrics: Arc<Metrics>,
    outbound: Outbound,
    running: Vec<Task>,
    states: States,
}

/// What each plugin's background work did last, by plugin name.
pub(super) type States = Rc<RefCell<BTreeMap<String, String>>>;

/// The end of a task. Several may wait for it: two tables of one plugin come after each that was before.
type Ended = Shared<LocalBoxFuture<'static, ()>>;

struct Task {
    plugin: Arc<Plugin>,
    stop: watch::Sender<Option<End>>,
    task: JoinHandle<()>,
}

/// That work ends, and who goes on with it: the plugin of its name, where there is one.
#[derive(Debug, Clone)]
struct End(Option<Arc<Plugin>>);

impl BackgroundWork {
    pub(super) fn new(host: Arc<Host>, metrics: Arc<Metrics>, outbound: Outbound) -> Self {
        Self { host, metrics, outbound, running: Vec::new(), states: States::default() }
    }

    /// What each did last.
    pub(super) fn states(&self) -> States {
        Rc::clone(&self.states)
    }

    /// Stops the work of plugins that are gone or changed, and starts that of new ones; a changed
    /// plugin starts when its predecessor has stopped. Work of unchanged plugins goes on.
    pub(super) fn apply(&mut self, snapshot: &Snapshot) {
        let is_wanted = |task: &Task| snapshot.plugins.iter().any(|plugin| Arc::ptr_eq(plugin, &task.plugin));
        let (kept, gone): (Vec<Task>, Vec<Task>) = self.running.drain(..).partition(is_wanted);
        self.running = kept;
        let end = |task: Task| {
            let mut plugins = snapshot.plugins.iter();
            let next = plugins.find(|it| it.name() == task.plugin.name() && it.hooks().background);
            let end = End(next.cloned());
            task.end(end)
        };
        let ending: Vec<(Arc<Plugin>, Ended)> = gone.into_iter().map(end).collect();
        for plugin in &snapshot.plugins {
            let runs = self.running.iter().any(|task| Arc::ptr_eq(plugin, &task.plugin));
            if plugin.hooks().background && !runs {
                let before = ending.iter().filter(|(gone, _)| gone.name() == plugin.name());
                self.start(plugin, before.map(|(_, ended)| ended.clone()).collect());
            }
        }
    }

    /// Stops all work, and waits for it. Each call in it is bounded by its plugin's limits.
    pub(super) async fn stop(&mut self) {
        let ending: Vec<_> = self.running.drain(..).map(|task| task.end(End(None))).collect();
        for (_, ended) in ending {
            ended.await;
        }
    }

    fn start(&mut self, plugin: &Arc<Plugin>, before: Vec<Ended>) {
        let metrics = PluginMetrics::new(&self.metrics, plugin.name());
        let services = Arc::new(self.outbound.clone());
        let background = Background::new(&self.host, Arc::clone(plugin), services, metrics);
        let (stop, stopped) = watch::channel(None);
        let states = self.states();
        let task = spawn_local(async move {
            for ended in before {
                ended.await;
            }
            supervise(background, stopped, &states).await;
        });
        self.running.push(Task { plugin: Arc::clone(plugin), stop, task });
    }
}

impl Task {
    fn end(self, end: End) -> (Arc<Plugin>, Ended) {
        // A task that is over already needs no telling.
        let _ = self.stop.send(Some(end));
        (self.plugin, self.task.map(drop).boxed_local().shared())
    }
}

async fn supervise(mut background: Background, mut stopped: watch::Receiver<Option<End>>, states: &States) {
    let name = background.name().to_owned();
    let mut failures = 0;
    while stopped.borrow_and_update().is_none() {
        let ran = background.run().await;
        let (state, pause) = judge(&name, &ran, &mut failures);
        states.borrow_mut().insert(name.clone(), state);
        tokio::select! {
            _ = stopped.changed() => break,
            () = wait(pause) => {}
        }
    }
    let successor = stopped.borrow().as_ref().and_then(|End(successor)| successor.clone());
    if let Err(fault) = background.stop(successor).await {
        report(&name, &fault);
    }
    states.borrow_mut().remove(&name);
}

/// What to say about a run, and how long to wait for the next; none is for ever.
fn judge(name: &str, ran: &Result<Ran, Fault>, failures: &mut u32) -> (String, Option<Duration>) {
    let failed = |failures: &mut u32| {
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(6)).min(LONGEST_PAUSE);
        *failures = failures.saturating_add(1);
        pause
    };
    match ran {
        Ok(Ran::After(pause)) => {
            *failures = 0;
            ("ok".to_owned(), Some(*pause))
        }
        Ok(Ran::Done) => ("done".to_owned(), None),
        Ok(Ran::Failed(message)) => {
            let pause = failed(failures);
            tracing::warn!(plugin = name, "background work failed: {message}; again in {pause:?}");
            (format!("failed: {message}"), Some(pause))
        }
        Err(fault) => {
            let pause = failed(failures);
            report(name, fault);
            (format!("fault: {}", fault.kind), Some(pause))
        }
    }
}

fn report(plugin: &str, fault: &Fault) {
    tracing::error!(
        plugin,
        fault = fault.kind.as_str(),
        detail = fault.detail,
        "background work failed: {}",
        fault.kind
    );
}

async fn wait(pause: Option<Duration>) {
    match pause {
        Some(pause) => sleep(pause).await,
        None => std::future::pending().await,
    }
}
