//! Start, reload, stop: the control thread, and the handle to it.

use super::{
    Generation, Options,
    acme::AcmeWork,
    admin::{Admin, AdminServer},
    background::BackgroundWork,
    certificates::{self, CertificateReports},
    health::HealthChecks,
    load::{self, Refused},
    registry::{self, Discovery, Followers},
    status::{self, LastReload},
    watch::FileWatch,
    worker::{Orders, WorkerThread},
};
use crate::{
    config::{self, AdminAddress},
    listen::{self, BindError, Bound, Terms},
    metrics::{Counter, Gauge, Metrics, names},
    plugins::{Host, HostError},
    ports::ListenAddress,
    registry::StoreError,
    snapshot::{Files, Listener, Outbound, Snapshot},
};
use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};
use tokio::{
    runtime::{Builder, LocalOptions, RuntimeMetrics},
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval_at},
};

/// How long plugins may take to say that this gateway is going away, before it stops accepting.
const FAREWELL: Duration = Duration::from_secs(3);

/// Commands that may wait for the control thread; whoever sends one more waits.
const COMMANDS: usize = 16;

/// A running gateway. Dropped, it stops at once and cuts what runs; see [`Running::stop`].
#[derive(Debug)]
pub struct Running {
    listeners: Vec<(String, SocketAddr)>,
    admin: Option<AdminAddress>,
    metrics: Arc<Metrics>,
    commands: mpsc::Sender<Command>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Why a gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be run; the text shows every error at its place.
    #[error("{0}")]
    Config(Refused),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// As configured.
        address: String,
        /// Why not.
        #[source]
        cause: BindError,
    },
    /// The registry cannot be opened.
    #[error("the registry cannot be opened: {0}")]
    Registry(#[source] StoreError),
    /// The sandbox could not be set up.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A thread could not be started, or ended before it was ready.
    #[error("a thread could not be started: {0}")]
    Thread(String),
}

/// What a reload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The new configuration runs; this is its number.
    Swapped(u64),
    /// Nothing had changed.
    Unchanged(u64),
}

pub(super) enum Command {
    Reload(oneshot::Sender<Result<Reloaded, Refused>>),
    Stop(Option<Duration>),
}

/// Starts a gateway, and returns once its listeners accept connections.
///
/// # Errors
/// Fails where the configuration cannot be run, and where the machine refuses an address or a
/// thread. Nothing is left behind then.
pub fn start(options: Options) -> Result<Running, StartError> {
    let (ready, started) = std::sync::mpsc::channel();
    let (commands, received) = mpsc::channel(COMMANDS);
    let own_commands = commands.clone();
    let metrics = Arc::new(Metrics::new());
    let of_thread = Arc::clone(&metrics);
    let failed = |error: &dyn std::fmt::Display| StartError::Thread(error.to_string());
    let thread = thread::Builder::new().name("vers-control".to_owned()).spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("vers-blocking")
            .build_local(LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(StartError::Thread(error.to_string())))),
        };
        runtime.block_on(async move {
            match Control::start(options, of_thread, own_commands).await {
                Ok(control) => {
                    let _ = ready.send(Ok(control.addresses()));
                    control.run(received).await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    });
    let thread = thread.map_err(|error| failed(&error))?;
    match started.recv() {
        Ok(Ok((listeners, admin))) => {
            Ok(Running { listeners, admin, metrics, commands, thread: Some(thread) })
        }
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(error) => Err(failed(&error)),
    }
}

impl Running {
    /// Names and real addresses of the listeners that it started with.
    pub fn listeners(&self) -> &[(String, SocketAddr)] {
        &self.listeners
    }

    /// Where operators look, unless that is off.
    pub fn admin(&self) -> Option<&AdminAddress> {
        self.admin.as_ref()
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Reads the configuration again. What cannot be run changes nothing.
    ///
    /// # Errors
    /// Fails with every error of the new configuration.
    pub async fn reload(&self) -> Result<Reloaded, Refused> {
        let (reply, answer) = oneshot::channel();
        let gone = |()| Refused { text: "the gateway is stopping".to_owned(), errors: 1 };
        self.commands.send(Command::Reload(reply)).await.map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))?
    }

    /// Stops accepting, waits for what runs until `grace` is over (by default the configured
    /// `shutdown_grace`), and cuts what is left.
    pub async fn stop(mut self, grace: Option<Duration>) {
        let _ = self.commands.send(Command::Stop(grace)).await;
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A full queue means that it is busy; it sees the closed channel then.
            let _ = self.commands.try_send(Command::Stop(Some(Duration::ZERO)));
            let _ = thread.join();
        }
    }
}

/// The control thread's state.
struct Control {
    options: Options,
    host: Arc<Host>,
    metrics: Arc<Metrics>,
    outbound: Outbound,
    generation: watch::Sender<Arc<Generation>>,
    stop: watch::Sender<Option<Instant>>,
    workers: Vec<WorkerThread>,
    background: BackgroundWork,
    health: HealthChecks,
    discovery: Discovery,
    followers: Followers,
    certificates: CertificateReports,
    acme: AcmeWork,
    admin: AdminServer,
    watch: Option<FileWatch>,
    /// The files of the last attempt, good or bad.
    files: Files,
    last_reload: Option<LastReload>,
    draining: bool,
    counts: Counts,
}

struct Counts {
    /// Held, because a series is gone when nobody owns it.
    _build_info: Gauge,
    reloads: Counter,
    failures: Counter,
    generation: Gauge,
    /// Of each worker: its gauge, and what the gauge is set by when somebody asks.
    tasks: Rc<[(Gauge, RuntimeMetrics)]>,
}

impl Control {
    async fn start(
        options: Options,
        metrics: Arc<Metrics>,
        commands: mpsc::Sender<Command>,
    ) -> Result<Self, StartError> {
        let host = Arc::new(Host::new(&metrics)?);
        let outbound = Outbound::default();
        let loaded =
            load::load(&options.source, None, &host, Arc::new(outbound.clone()), (false, true)).await;
        warn(&loaded.warnings);
        let snapshot = Arc::new(loaded.result.map_err(StartError::Config)?);
        let mut followers = Followers::default();
        registry::open(&snapshot, &mut followers, &metrics).await?;
        let sockets = bind(&snapshot, None)?;
        registry::look(&snapshot);
        let generation = Arc::new(Generation { number: 1, snapshot: Arc::clone(&snapshot), sockets });
        let admin = AdminServer::start(Admin::of(&snapshot), commands).await?;
        // What is kept of certificates is there before the first connection.
        let mut acme = AcmeWork::new(Arc::clone(&metrics));
        acme.apply(&snapshot);
        let (generation, orders) = watch::channel(generation);
        let (stop, stopped) = watch::channel(None);
        let orders = Orders { generation: orders, stop: stopped };
        let workers = (0..snapshot.workers)
            .map(|index| WorkerThread::start(index, orders.clone(), Arc::clone(&host), Arc::clone(&metrics)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| StartError::Thread(error.to_string()))?;
        let mut background = BackgroundWork::new(Arc::clone(&host), Arc::clone(&metrics), outbound.clone());
        background.apply(&snapshot);
        let mut health = HealthChecks::new(Arc::clone(&metrics));
        health.apply(&snapshot);
        let discovery =
            Discovery::start(&snapshot, &metrics).map_err(|error| StartError::Thread(error.to_string()))?;
        let mut certificates = CertificateReports::new(Arc::clone(&metrics));
        certificates.apply(&snapshot);
        let mut watch = if options.watch { FileWatch::new() } else { None };
        if let Some(watch) = &mut watch {
            watch.set(loaded.files.paths());
        }
        let counts = Counts::new(&metrics, &workers);
        let control = Self {
            options,
            host,
            metrics,
            outbound,
            generation,
            stop,
            workers,
            background,
            health,
            discovery,
            followers,
            certificates,
            acme,
            admin,
            watch,
            files: loaded.files,
            last_reload: None,
            draining: false,
            counts,
        };
        control.publish();
        Ok(control)
    }

    fn addresses(&self) -> (Vec<(String, SocketAddr)>, Option<AdminAddress>) {
        let generation = self.generation.borrow();
        let listeners = generation.snapshot.listeners.iter().zip(&generation.sockets);
        (
            listeners.map(|(listener, bound)| (listener.name.clone(), bound.first())).collect(),
            self.admin.address(),
        )
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut look = interval_at(Instant::now() + certificates::INTERVAL, certificates::INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let grace = loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Reload(reply)) => {
                        let result = self.reload(Trigger::Asked).await;
                        // Whoever asked may have gone away meanwhile.
                        let _ = reply.send(result);
                    }
                    Some(Command::Stop(grace)) => break grace,
                    None => break Some(Duration::ZERO),
                },
                _ = look.tick() => {
                    if self.certificates.look(SystemTime::now()) {
                        // It is logged, counted and shown; nobody waits for it.
                        let _ = self.reload(Trigger::Renewal).await;
                    }
                }
                () = self.discovery.told() => {
                    let snapshot = Arc::clone(&self.generation.borrow().snapshot);
                    self.health.apply(&snapshot);
                }
                () = files_changed(self.watch.as_ref()) => {
                    if self.files.changed() {
                        // It is logged, counted and shown; nobody waits for it.
                        let _ = self.reload(Trigger::Noticed).await;
                    }
                }
            }
        };
        self.shut_down(grace).await;
    }

    /// The one way to a new configuration, whoever asked for it: build all of it, bind what is new,
    /// then swap. Any failure before the swap leaves everything as it was.
    async fn reload(&mut self, trigger: Trigger) -> Result<Reloaded, Refused> {
        let current = Arc::clone(&self.generation.borrow());
        let services = Arc::new(self.outbound.clone());
        let loaded =
            load::load(&self.options.source, Some(&current.snapshot), &self.host, services, (false, true))
                .await;
        self.files = loaded.files;
        if let Some(watch) = &mut self.watch {
            watch.set(self.files.paths());
        }
        warn(&loaded.warnings);
        let result = match loaded.result {
            // Asked or not: the same files make the same snapshot, and swapping would only cost.
            Ok(snapshot)
                if snapshot.files == current.snapshot.files && !matches!(trigger, Trigger::Renewal) =>
            {
                Ok(Reloaded::Unchanged(current.number))
            }
            Ok(snapshot) => self.swap(&current, snapshot).await,
            Err(refused) => Err(refused),
        };
        self.note(trigger, &result);
        // What the generation before this one counted with; nobody may ever ask for the metrics.
        self.metrics.prune();
        result
    }

    async fn swap(&mut self, current: &Generation, snapshot: Snapshot) -> Result<Reloaded, Refused> {
        let refused = |error: StartError| Refused { text: format!("error: {error}"), errors: 1 };
        if snapshot.workers != current.snapshot.workers {
            tracing::warn!(
                now = current.snapshot.workers,
                configured = snapshot.workers,
                "a new number of workers takes effect at the next start"
            );
        }
        if (snapshot.log.format, snapshot.log.level)
            != (current.snapshot.log.format, current.snapshot.log.level)
        {
            tracing::warn!("a new log format or level takes effect at the next start");
        }
        let snapshot = Arc::new(snapshot);
        registry::open(&snapshot, &mut self.followers, &self.metrics).await.map_err(refused)?;
        let sockets = bind(&snapshot, Some(current)).map_err(refused)?;
        self.admin.apply(Admin::of(&snapshot)).await.map_err(refused)?;
        // Backends that stay are told of servers, too: from here on, nothing can fail.
        registry::look(&snapshot);
        let number = current.number + 1;
        self.acme.apply(&snapshot);
        self.generation.send_replace(Arc::new(Generation {
            number,
            snapshot: Arc::clone(&snapshot),
            sockets,
        }));
        snapshot.plugins.iter().for_each(|plugin| plugin.enact());
        registry::apply(&snapshot, &current.snapshot, &mut self.followers);
        self.discovery.apply(&snapshot);
        self.background.apply(&snapshot);
        self.health.apply(&snapshot);
        self.certificates.apply(&snapshot);
        Ok(Reloaded::Swapped(number))
    }

    fn note(&mut self, trigger: Trigger, result: &Result<Reloaded, Refused>) {
        let error = match result {
            Ok(Reloaded::Swapped(generation)) => {
                self.counts.reloads.inc();
                tracing::info!(generation, ?trigger, "reloaded");
                None
            }
            Ok(Reloaded::Unchanged(generation)) => {
                tracing::info!(generation, ?trigger, "nothing to reload: no file has changed");
                None
            }
            Err(refused) => {
                self.counts.failures.inc();
                tracing::error!(
                    generation = self.generation.borrow().number,
                    ?trigger,
                    "the reload was refused, and the configuration that runs stays:\n{refused}"
                );
                Some(refused.text.clone())
            }
        };
        self.last_reload = Some(LastReload { at: SystemTime::now(), error });
        self.publish();
    }

    /// Gives the admin server what it answers with.
    fn publish(&self) {
        let (generation, last) = (Arc::clone(&self.generation.borrow()), self.last_reload.clone());
        self.counts.generation.set(generation.number);
        let (metrics, states) = (Arc::clone(&self.metrics), self.background.states());
        let acme = self.acme.states();
        let reports = self.health.reports();
        let draining = self.draining;
        let (for_status, tasks) = (Arc::clone(&metrics), Rc::clone(&self.counts.tasks));
        self.admin.publish(
            Rc::new(move || {
                let running = (&states, &reports, &acme);
                status::status(&generation, last.as_ref(), running, &for_status, draining)
            }),
            Rc::new(move || {
                tasks.iter().for_each(|(gauge, runtime)| gauge.set(runtime.num_alive_tasks() as u64));
                metrics.render()
            }),
            draining,
        );
    }

    async fn shut_down(mut self, grace: Option<Duration>) {
        let grace = grace.unwrap_or(self.generation.borrow().snapshot.shutdown_grace);
        let deadline = Instant::now() + grace;
        tracing::info!(
            ?grace,
            "stopping: plugins say so, then no new connections, and waiting for those that are open"
        );
        self.draining = true;
        self.publish();
        // Others learn first that this gateway is going away, but not at the cost of the connections
        // that are open.
        let _ =
            tokio::time::timeout_at(deadline.min(Instant::now() + FAREWELL), self.background.stop()).await;
        self.stop.send_replace(Some(deadline));
        let workers = std::mem::take(&mut self.workers);
        let _ = tokio::task::spawn_blocking(move || workers.into_iter().for_each(WorkerThread::join)).await;
        self.health.stop();
        tracing::info!("stopped");
    }
}

impl Counts {
    fn new(metrics: &Metrics, workers: &[WorkerThread]) -> Self {
        let tasks = workers.iter().enumerate().map(|(index, worker)| {
            let gauge = metrics.gauge(&names::TASKS_ACTIVE, &[("worker", &index.to_string())]);
            (gauge, worker.runtime().clone())
        });
        let build_info = metrics.gauge(&names::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]);
        build_info.set(1);
        Self {
            _build_info: build_info,
            reloads: metrics.counter(&names::RELOADS, &[]),
            failures: metrics.counter(&names::RELOAD_FAILURES, &[]),
            generation: metrics.gauge(&names::GENERATION, &[]),
            tasks: tasks.collect(),
        }
    }
}

/// Why a reload happens.
#[derive(Debug, Clone, Copy)]
enum Trigger {
    /// A signal or the admin address.
    Asked,
    /// A file changed.
    Noticed,
    /// A certificate of the gateway's own comes to its end.
    Renewal,
}

async fn files_changed(watch: Option<&FileWatch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// The sockets of each listener: those that listen already go on.
fn bind(snapshot: &Snapshot, current: Option<&Generation>) -> Result<Vec<Arc<Bound>>, StartError> {
    let failed = |listener: &Listener| {
        let address = listener.address.to_string();
        move |cause| StartError::Bind { address, cause }
    };
    let ranges = snapshot.listeners.iter().map(|listener| &listener.address);
    let ranges = ranges.filter(|address| address.single().is_none()).map(ListenAddress::ports);
    if let Some(warning) = listen::few_ports_left(ranges) {
        tracing::warn!("{warning}");
    }
    let present = current.map_or(&[][..], |current| &current.sockets);
    let known = |listener: &Listener| {
        let mut listeners = current?.snapshot.listeners.iter().zip(present);
        listeners.find(|(known, _)| known.address == listener.address).map(|(_, bound)| Arc::clone(bound))
    };
    let workers = current.map_or(snapshot.workers, |current| current.snapshot.workers);
    let mut sockets = Vec::with_capacity(snapshot.listeners.len());
    for listener in &snapshot.listeners {
        let bound = match known(listener) {
            Some(bound) => bound,
            None => {
                let transparent = listener.original_destination;
                let terms = Terms { workers, transparent, present };
                let bound = listen::bind(&listener.address, terms).map_err(failed(listener))?;
                if let Some(warning) = &bound.warning {
                    tracing::warn!("{warning}");
                }
                tracing::info!(listener = listener.name, address = %bound.address, "listening");
                Arc::new(bound)
            }
        };
        sockets.push(bound);
    }
    Ok(sockets)
}

fn warn(warnings: &str) {
    if !warnings.is_empty() {
        tracing::warn!("the configuration runs, but look at this:\n{warnings}");
    }
}

impl Admin {
    fn of(snapshot: &Snapshot) -> Self {
        Self {
            address: snapshot.admin.clone().unwrap_or(AdminAddress::Socket(config::Admin::DEFAULT_ADDRESS)),
            is_default: snapshot.admin.is_none(),
            token: snapshot.admin_token.clone(),
        }
    }
}
