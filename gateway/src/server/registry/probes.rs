//! Asks registered services whether they work, by the way that others take to them: what is said of them is then
//! what others will meet. An address is asked itself; a name leads through the VM's edge, over TLS.

use super::super::health;
use crate::{
    config,
    metrics::{Counter, Gauge, Metrics, names},
    networks::Networks,
    registry::{Finding, Probed, Registry, Witness},
    snapshot::RegistryPlan,
    tls::{Roots, ServerName},
    upstream::{self, Cause, Server},
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::{Id, JoinSet},
    time::{Instant, sleep_until, timeout},
};

/// How long changes of the registry are collected before it is looked who is to be asked: many come at once.
const TOGETHER: Duration = Duration::from_millis(20);

/// The share of its time that may go into looking: one in so many.
const SHARE: u32 = 10;

/// What an answer of an edge says where it is the edge's own.
const X_GATEWAY_ERROR: &[u8] = b"x-gateway-error";

/// The questions to all services.
pub(super) struct Probes {
    registry: Arc<Registry>,
    terms: config::Probe,
    rules: Arc<Rules>,
    known: HashMap<Probed, Verdict>,
    /// Who is asked next, and when.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    /// By the numbers in `due`: whoever is gone is not found.
    waiting: HashMap<u64, Probed>,
    numbers: u64,
    running: JoinSet<Result<(), String>>,
    asked: HashMap<Id, Probed>,
    changes: watch::Receiver<u64>,
    /// When it is looked again who is to be asked.
    look_at: Option<Instant>,
    counts: Counts,
}

/// Where services may be, and whom to believe that they are there.
struct Rules {
    networks: Arc<Networks>,
    roots: Result<Roots, String>,
}

/// What is thought of a service, and how often in a row it contradicted that.
#[derive(Debug, Clone, Copy, Default)]
struct Verdict {
    works: Option<bool>,
    contradicted: u32,
}

impl Verdict {
    /// Takes one more answer into account, and says whether that changes anything.
    fn changes(&mut self, passed: bool, terms: &config::Probe) -> bool {
        if self.works == Some(passed) {
            self.contradicted = 0;
            return false;
        }
        self.contradicted += 1;
        let enough = match (passed, self.works) {
            // Who has just registered is believed at once.
            (true, None) => 1,
            (true, Some(_)) => terms.healthy,
            (false, _) => terms.unhealthy,
        };
        let changes = self.contradicted >= enough;
        if changes {
            *self = Self { works: Some(passed), contradicted: 0 };
        }
        changes
    }
}

impl Probes {
    /// Those of this plan; the ones before, where they are the same.
    pub(super) fn of(
        plan: Option<&Arc<RegistryPlan>>,
        before: Option<Self>,
        metrics: &Metrics,
    ) -> Option<Self> {
        let plan = plan?;
        let terms = plan.probe.clone()?;
        if let Some(mut before) = before
            && Arc::ptr_eq(&before.registry, &plan.registry)
        {
            let is_sooner = terms.interval < before.terms.interval;
            before.terms = terms;
            if is_sooner {
                before.hurry();
            }
            if before.rules.networks != plan.networks {
                let Rules { roots, .. } = &*before.rules;
                before.rules = Arc::new(Rules { networks: Arc::clone(&plan.networks), roots: roots.clone() });
            }
            return Some(before);
        }
        let mut changes = plan.registry.subscribe();
        changes.mark_unchanged();
        Some(Self {
            registry: Arc::clone(&plan.registry),
            terms,
            rules: Arc::new(Rules {
                networks: Arc::clone(&plan.networks),
                roots: Roots::with(&[]).map_err(|error| error.to_string()),
            }),
            known: HashMap::new(),
            due: BinaryHeap::new(),
            waiting: HashMap::new(),
            numbers: 0,
            running: JoinSet::new(),
            asked: HashMap::new(),
            changes,
            look_at: Some(Instant::now()),
            counts: Counts::new(metrics),
        })
    }

    /// Never ends. May be dropped at any time, and goes on where it was.
    pub(super) async fn run(&mut self) {
        loop {
            self.start();
            let is_full = self.running.len() >= self.terms.at_once as usize;
            let next = self.due.peek().map(|Reverse((at, _))| *at).filter(|_| !is_full);
            tokio::select! {
                done = self.running.join_next_with_id(), if !self.running.is_empty() => match done {
                    Some(Ok((id, answer))) => self.answered(id, &answer),
                    // It panicked: the service has failed, and is asked again.
                    Some(Err(error)) => self.answered(error.id(), &Err("the question itself failed".to_owned())),
                    None => {}
                },
                () = until(next) => {}
                () = until(self.look_at) => self.look(),
                changed = self.changes.changed(), if self.look_at.is_none() => match changed {
                    Ok(()) => self.look_at = Some(Instant::now() + TOGETHER),
                    Err(_) => return std::future::pending().await,
                },
            }
        }
    }

    /// Looks who is to be asked.
    fn look(&mut self) {
        let began = Instant::now();
        self.changes.mark_unchanged();
        let wanted: HashSet<Probed> = self.registry.probed().into_iter().collect();
        self.known.retain(|known, _| wanted.contains(known));
        self.waiting.retain(|_, waiting| wanted.contains(waiting));
        for service in wanted {
            if !self.known.contains_key(&service) {
                self.known.insert(service.clone(), Verdict::default());
                // A fleet that registers at once is not asked at once.
                self.plan(service, Duration::from_secs(1).mul_f64(chance()));
            }
        }
        self.counts.probed.set(self.known.len() as u64);
        // Until then, changes are only noticed.
        let busy = began.elapsed() * SHARE;
        self.look_at =
            self.changes.has_changed().is_ok_and(|changed| changed).then(|| began + busy.max(TOGETHER));
    }

    fn plan(&mut self, service: Probed, pause: Duration) {
        self.numbers += 1;
        self.due.push(Reverse((Instant::now() + pause, self.numbers)));
        self.waiting.insert(self.numbers, service);
    }

    /// Asks nobody later than by its pauses of now.
    fn hurry(&mut self) {
        let (now, interval) = (Instant::now(), self.terms.interval.get());
        let due = std::mem::take(&mut self.due);
        let sooner = |Reverse((at, number)): Reverse<(Instant, u64)>| {
            Reverse((at.min(now + interval.mul_f64(chance())), number))
        };
        self.due = due.into_iter().map(sooner).collect();
    }

    /// Asks whoever is due.
    fn start(&mut self) {
        let now = Instant::now();
        while self.running.len() < self.terms.at_once as usize
            && let Some(Reverse((at, number))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            let Some(service) = self.waiting.remove(&number) else { continue };
            let (rules, of_task, deadline) =
                (Arc::clone(&self.rules), service.clone(), self.terms.timeout.get());
            let question = async move {
                let asking = ask(&of_task, &rules, deadline);
                timeout(deadline, asking).await.unwrap_or_else(|_| Err(late(&of_task)))
            };
            let handle = self.running.spawn(question);
            self.asked.insert(handle.id(), service);
        }
    }

    fn answered(&mut self, id: Id, answer: &Result<(), String>) {
        let Some(service) = self.asked.remove(&id) else { return };
        (if answer.is_ok() { &self.counts.passed } else { &self.counts.failed }).inc();
        // Who has left meanwhile is not asked again.
        let Some(verdict) = self.known.get_mut(&service) else { return };
        let changes = verdict.changes(answer.is_ok(), &self.terms);
        // A lease that ran out for a moment took what was known with it.
        let entry = self.registry.get(&service.id);
        let is_forgotten = entry.is_some_and(|entry| {
            !entry.health.said_by(Witness::Probe).any(|known| *known == service.service)
        });
        if changes || (is_forgotten && verdict.works == Some(answer.is_ok())) {
            let (vm, name) = (&*service.id, &*service.service);
            match answer {
                Ok(()) => tracing::info!(vm, service = name, "a registered service works"),
                Err(why) => tracing::warn!(vm, service = name, "a registered service does not work: {why}"),
            }
            self.registry.judge(&[Finding {
                id: Arc::clone(&service.id),
                service: Arc::clone(&service.service),
                witness: Witness::Probe,
                works: Some(answer.clone()),
            }]);
        }
        // Doubts are cleared up sooner.
        let is_doubtful = verdict.works != Some(answer.is_ok());
        let pause = self.terms.interval.get() / if is_doubtful { 5 } else { 1 };
        self.plan(service, pause.mul_f64(0.9 + 0.2 * chance()));
    }
}

impl Drop for Probes {
    /// Nobody finds out any more when that is over.
    fn drop(&mut self) {
        self.registry.forget(Witness::Probe);
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Anything from 0 to 1.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}

/// Asks a service once. The reason says what its owner needs to know.
async fn ask(service: &Probed, rules: &Rules, deadline: Duration) -> Result<(), String> {
    let path =
        if service.path.starts_with('/') { service.path.clone() } else { format!("/{}", service.path) };
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("its healthPath is no path: {}", service.path.escape_debug()));
    }
    let address = service.address.as_str();
    let server = Server::within(address, service.port, &rules.networks);
    let server = server.map_err(|error| format!("{error}: {}", address.escape_debug()))?;
    let connected = upstream::connect(&server, None, deadline).await;
    match address.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(ip) => {
            let stream = connected.map_err(|cause| match (&cause, ip) {
                (Cause::Refused, IpAddr::V6(_)) => format!(
                    "connection refused on {server}: nothing listens there on IPv6; a service on 0.0.0.0 or \
                     127.0.0.1 has to bind `::`, or vers-gateway runs on the VM"
                ),
                (Cause::Refused, IpAddr::V4(_)) => format!("connection refused on {server}"),
                _ => format!("{cause}: {server}"),
            })?;
            let answer = health::get(stream, &path, &server.to_string()).await;
            answer
                .and_then(|head| health::verdict(head.status))
                .map_err(|why| format!("{why}: {server}{path}"))
        }
        Err(_) => {
            let stream = connected.map_err(|cause| match cause {
                Cause::Resolve(error) => format!("{error}: {address}"),
                cause => format!("{cause}: {server}"),
            })?;
            through_edge(service, stream, &path, rules, deadline).await
        }
    }
}

/// By name, a VM is reached through its edge.
async fn through_edge(
    service: &Probed,
    stream: TcpStream,
    path: &str,
    rules: &Rules,
    deadline: Duration,
) -> Result<(), String> {
    let Probed { address, port, .. } = service;
    let url = format!("https://{address}:{port}{path}");
    let roots = rules.roots.as_ref().map_err(Clone::clone)?;
    let stream = roots.handshake(address.parse::<ServerName>()?, stream, deadline).await;
    let stream = stream.map_err(|error| format!("{error}: {url}"))?;
    let head = health::get(stream, path, &format!("{address}:{port}")).await;
    let head = head.map_err(|why| format!("{why}: {url}"))?;
    let of_edge = head.fields.get_named(X_GATEWAY_ERROR).map(String::from_utf8_lossy);
    match of_edge.as_deref() {
        Some("vm-port-closed") => Err(format!(
            "its edge finds nothing on IPv6 port {port}: a service on 0.0.0.0 or 127.0.0.1 has to bind `::`, or \
             vers-gateway runs on the VM"
        )),
        Some(code) => Err(format!("its edge says {}: {url}", code.escape_debug())),
        None => health::verdict(head.status).map_err(|why| format!("{why}: {url}")),
    }
}

fn late(service: &Probed) -> String {
    format!("no answer in time: {} port {}", service.address, service.port)
}

struct Counts {
    passed: Counter,
    failed: Counter,
    probed: Gauge,
}

impl Counts {
    fn new(metrics: &Metrics) -> Self {
        let outcome = |outcome| metrics.counter(&names::REGISTRY_PROBES, &[("outcome", outcome)]);
        let probed = metrics.gauge(&names::REGISTRY_PROBED, &[]);
        Self { passed: outcome("passed"), failed: outcome("failed"), probed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_changes_after_so_many_in_a_row() {
        let terms = config::Probe::default();
        let mut verdict = Verdict::default();
        let said: String = "xx.x.xxx.x..xx.xxx"
            .chars()
            .map(|answer| match (verdict.changes(answer == '.', &terms), verdict.works) {
                (true, Some(true)) => 'U',
                (true, _) => 'D',
                (false, _) => '-',
            })
            .collect();
        assert_eq!(said, "--U----D---U-----D");
        let mut verdict = Verdict::default();
        let said: Vec<bool> = (0..4).map(|_| verdict.changes(false, &terms)).collect();
        assert_eq!(said, [false, false, true, false], "who never worked");
    }
}
