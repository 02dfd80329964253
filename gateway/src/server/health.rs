//! Active health checks: one task for each server that is asked, on the control thread.

use crate::{
    http1::{HeadLimits, parse_response},
    http2,
    message::ResponseHead,
    metrics::{Counter, Gauge, Metrics, names},
    snapshot::{HealthCheck, Question, Snapshot},
    upstream::{self, Io, Member, Server, Speaks},
};
use http::StatusCode;
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    task::{JoinHandle, spawn_local},
    time::{sleep, timeout},
};

/// What an answer to a check may have.
const HEADS: HeadLimits = HeadLimits { size: 16 * 1024, headers: 100 };

/// The checks of all servers.
pub(super) struct HealthChecks {
    metrics: Arc<Metrics>,
    running: Vec<Task>,
    reports: Reports,
}

/// What each check said last.
#[derive(Debug, Clone, Default)]
pub(super) struct Reports(Rc<RefCell<BTreeMap<(String, String), String>>>);

/// A check that runs. Dropped, it ends at once, in the midst of a question as well.
struct Task {
    check: HealthCheck,
    handle: JoinHandle<()>,
}

impl HealthChecks {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, running: Vec::new(), reports: Reports::default() }
    }

    /// What each said last.
    pub(super) fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// Ends checks that are gone or changed, and starts new ones; the others go on. What a changed one
    /// had found out holds until its successor says otherwise; a server that is not asked any more is
    /// taken to work.
    pub(super) fn apply(&mut self, snapshot: &Snapshot) {
        let checks = snapshot.checks();
        // There may be as many servers as there are VMs.
        let wanted: HashMap<*const Member, &HealthCheck> =
            checks.iter().map(|check| (Arc::as_ptr(&check.member), check)).collect();
        let is_wanted = |task: &Task| {
            let wanted = wanted.get(&Arc::as_ptr(&task.check.member));
            wanted.is_some_and(|check| check.question == task.check.question)
        };
        let (kept, gone): (Vec<Task>, Vec<Task>) = self.running.drain(..).partition(is_wanted);
        self.running = kept;
        for task in gone {
            if !wanted.contains_key(&Arc::as_ptr(&task.check.member)) {
                task.check.member.checked(true);
                self.reports.forget(&task.check);
            }
        }
        let running: HashSet<*const Member> =
            self.running.iter().map(|task| Arc::as_ptr(&task.check.member)).collect();
        for check in &checks {
            if !running.contains(&Arc::as_ptr(&check.member)) {
                self.start(check);
            }
        }
    }

    /// Ends all of them.
    pub(super) fn stop(&mut self) {
        self.running.clear();
    }

    fn start(&mut self, check: &HealthCheck) {
        let counts = Counts::new(&self.metrics, check);
        let handle = spawn_local(supervise(check.clone(), counts, self.reports.clone()));
        self.running.push(Task { check: check.clone(), handle });
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Reports {
    /// What the check of this server said last, where it is asked.
    pub(super) fn of(&self, backend: &str, server: &str) -> Option<String> {
        self.0.borrow().get(&(backend.to_owned(), server.to_owned())).cloned()
    }

    fn note(&self, check: &HealthCheck, report: String) {
        self.0.borrow_mut().insert((check.backend.clone(), check.server.to_string()), report);
    }

    fn forget(&self, check: &HealthCheck) {
        self.0.borrow_mut().remove(&(check.backend.clone(), check.server.to_string()));
    }
}

struct Counts {
    passed: Counter,
    failed: Counter,
    healthy: Gauge,
}

impl Counts {
    fn new(metrics: &Metrics, check: &HealthCheck) -> Self {
        let server = check.server.to_string();
        let labels = [("backend", &*check.backend), ("server", &*server)];
        let [backend, server] = labels;
        let asked =
            |outcome| metrics.counter(&names::HEALTH_CHECKS, &[backend, server, ("outcome", outcome)]);
        let healthy = metrics.gauge(&names::SERVER_HEALTHY, &labels);
        Self { passed: asked("passed"), failed: asked("failed"), healthy }
    }
}

/// Asks one server, again and again.
async fn supervise(check: HealthCheck, counts: Counts, reports: Reports) {
    let mut verdict = Verdict { healthy: check.member.is_healthy(), passed: 0, failed: 0 };
    loop {
        counts.healthy.set(u64::from(verdict.healthy));
        let (server, question) = (check.server.clone(), check.question.clone());
        // A task of its own: should asking panic, the server has failed, and is asked again.
        let asked = spawn_local(async move { ask(&server, &question).await });
        let answer = asked.await.unwrap_or_else(|_| Err("the check itself failed".to_owned()));
        let (counter, report) = match &answer {
            Ok(()) => (&counts.passed, "passed".to_owned()),
            Err(reason) => (&counts.failed, format!("failed: {reason}")),
        };
        counter.inc();
        reports.note(&check, report);
        if verdict.changes(answer.is_ok(), &check.question) {
            check.member.checked(verdict.healthy);
            let (backend, server) = (&*check.backend, &check.server);
            match answer {
                Ok(()) => tracing::info!(backend, %server, "a server works again, says its check"),
                Err(reason) => tracing::warn!(backend, %server, "a server is out of order: {reason}"),
            }
        }
        counts.healthy.set(u64::from(verdict.healthy));
        sleep(check.question.interval).await;
    }
}

/// What is thought of a server, and how often in a row it contradicted that.
#[derive(Debug)]
struct Verdict {
    healthy: bool,
    passed: u32,
    failed: u32,
}

impl Verdict {
    /// Takes one more answer into account, and says whether that changes anything.
    fn changes(&mut self, passed: bool, question: &Question) -> bool {
        (self.passed, self.failed) = if passed { (self.passed + 1, 0) } else { (0, self.failed + 1) };
        let healthy =
            if self.healthy { self.failed < question.unhealthy } else { self.passed >= question.healthy };
        let changes = healthy != self.healthy;
        if changes {
            *self = Self { healthy, passed: 0, failed: 0 };
        }
        changes
    }
}

/// Asks a server once. The reason says what an operator needs to know.
async fn ask(server: &Server, question: &Question) -> Result<(), String> {
    let asking = async {
        let stream = upstream::connect(server, question.proxy_protocol, question.timeout)
            .await
            .map_err(|cause| cause.to_string())?;
        let speaks = match question.path {
            None => Speaks::Anything,
            Some(_) if question.over_http2 => Speaks::Http2,
            Some(_) => Speaks::Http1,
        };
        let stream = match &question.tls {
            None => Io::Tcp(stream),
            Some(tls) => tls.over(stream, server, speaks).await.map_err(|cause| cause.to_string())?,
        };
        match &question.path {
            Some(path) if question.over_http2 => {
                let head = http2::get(stream, &question.host, path, HEADS).await;
                verdict(head.map_err(|error| format!("the exchange broke off: {error}"))?.status)
            }
            Some(path) => verdict(get(stream, path, &question.host).await?.status),
            None => Ok(()),
        }
    };
    timeout(question.timeout, asking).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

/// What an answer says of a server.
pub(super) fn verdict(status: StatusCode) -> Result<(), String> {
    let works = status.is_success() || status.is_redirection();
    if works { Ok(()) } else { Err(format!("it answered {status}")) }
}

/// Asks over a connection that is there already.
pub(super) async fn get(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    host: &str,
) -> Result<ResponseHead, String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: vers-gateway (health check)\r\nconnection: close\r\n\r\n"
    );
    let broke_off = |error: std::io::Error| format!("the connection broke off: {error}");
    stream.write_all(request.as_bytes()).await.map_err(broke_off)?;
    let mut answer = Vec::new();
    loop {
        match parse_response(&answer, HEADS) {
            Ok(Some((head, length))) if head.status.is_informational() => drop(answer.drain(..length)),
            Ok(Some((head, _))) => return Ok(head),
            Ok(None) => {
                if stream.read_buf(&mut answer).await.map_err(broke_off)? == 0 {
                    return Err("the connection was closed without an answer".to_owned());
                }
            }
            Err(error) => return Err(format!("its answer is malformed: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_verdict_changes_after_so_many_in_a_row() {
        let question = Question {
            path: None,
            host: String::new(),
            over_http2: false,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
            proxy_protocol: None,
            tls: None,
        };
        let mut verdict = Verdict { healthy: true, passed: 0, failed: 0 };
        let said: String = "..xx.xxx.x..xxx"
            .chars()
            .map(|answer| match (verdict.changes(answer == '.', &question), verdict.healthy) {
                (true, true) => 'U',
                (true, false) => 'D',
                (false, _) => '-',
            })
            .collect();
        assert_eq!(said, "-------D---U--D");
    }
}
