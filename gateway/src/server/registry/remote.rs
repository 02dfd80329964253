//! Asks a registry that is elsewhere: once for all there is, then for changes as they come. One that knows no
//! changes is asked for all of it now and then.

use crate::{
    metrics::{Counter, Gauge, Metrics, names},
    registry::{Listing, NoRegistry},
    snapshot::RemotePlan,
    tls,
};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use serde::Deserialize;
use std::{error::Error as _, sync::Arc, time::Duration};
use tokio::time::{Instant, interval, sleep, timeout};

const CONNECTING: Duration = Duration::from_secs(5);

/// How long a question for changes waits there, in seconds: as old may be what is known without anything being
/// wrong.
const PATIENCE: u64 = 10;

/// For a whole answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of an answer: twenty thousand entries of 3 KiB.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Pages of a list: many more than entries would fill.
const PAGES: usize = 1_000;

/// Between questions to a registry that knows no changes.
const POLL: Duration = Duration::from_secs(5);

/// The first pause after a failure; each one in a row doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The registry that is asked, where there is one.
#[derive(Default)]
pub(super) struct Asking(Option<Follower>);

impl Asking {
    /// Asks this one from now on.
    pub(super) fn apply(&mut self, plan: Option<&Arc<RemotePlan>>, metrics: &Metrics) {
        match (&mut self.0, plan) {
            // What it was told last goes on where it is the same.
            (Some(follower), Some(plan)) if Arc::ptr_eq(&follower.plan.mirror, &plan.mirror) => {
                follower.plan = Arc::clone(plan);
            }
            (follower, plan) => *follower = plan.map(|plan| Follower::new(plan, metrics)),
        }
    }

    /// Never ends. May be dropped at any time, and goes on where it was.
    pub(super) async fn ask(&mut self) {
        match &mut self.0 {
            Some(follower) => follower.run().await,
            None => std::future::pending().await,
        }
    }
}

struct Follower {
    plan: Arc<RemotePlan>,
    client: Client<tls::Connector, Full<Bytes>>,
    /// Up to where it has heard everything; none before it has heard anything.
    since: Option<u64>,
    failures: u32,
    /// Questions in a row that were answered at once, and told nothing.
    fruitless: u32,
    counts: Counts,
}

/// What an answer told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// What there is.
    All,
    /// What has changed, or after a while that nothing has.
    News,
    /// Nothing, and at once.
    Nothing,
}

/// Why there is nothing new.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Transport(String),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Late,
    #[error(transparent)]
    NoRegistry(#[from] NoRegistry),
}

impl Follower {
    fn new(plan: &Arc<RemotePlan>, metrics: &Metrics) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build(tls::connector(CONNECTING));
        Self {
            plan: Arc::clone(plan),
            client,
            since: None,
            failures: 0,
            fruitless: 0,
            counts: Counts::new(metrics),
        }
    }

    async fn run(&mut self) {
        let mut look = interval(Duration::from_secs(1));
        let mirror = Arc::clone(&self.plan.mirror);
        let age = self.counts.age.clone();
        let showing = async {
            loop {
                look.tick().await;
                age.set(mirror.report().age.map_or(0, |age| age.as_secs()));
            }
        };
        tokio::select! {
            () = self.follow() => {}
            () = showing => {}
        }
    }

    async fn follow(&mut self) {
        loop {
            match self.step().await {
                Ok(told) => {
                    if std::mem::take(&mut self.failures) > 0 {
                        tracing::info!(url = self.plan.url, "the registry answers again");
                    }
                    self.rest(told).await;
                }
                Err(error) => {
                    if self.failures == 0 {
                        tracing::warn!(
                            url = self.plan.url,
                            "the registry is not heard: {error}; what it said last holds"
                        );
                    }
                    self.plan.mirror.lost(error.to_string());
                    self.counts.failures.inc();
                    sleep(pause(self.failures)).await;
                    self.failures = self.failures.saturating_add(1);
                }
            }
        }
    }

    /// Who answers at once, and tells nothing, is not asked at once again.
    async fn rest(&mut self, told: Told) {
        match told {
            Told::All => {}
            Told::News => self.fruitless = 0,
            Told::Nothing => {
                let pause = pause(self.fruitless);
                self.fruitless = self.fruitless.saturating_add(1);
                sleep(pause).await;
            }
        }
    }

    /// One question, or those that it begins with.
    async fn step(&mut self) -> Result<Told, Failed> {
        let Some(since) = self.since else { return self.begin().await.map(|()| Told::All) };
        let asked = Instant::now();
        let (status, body) = self.ask(&format!("/registry/watch?since={since}&wait={PATIENCE}")).await?;
        match status {
            StatusCode::OK => {
                // What cannot be read will not be the next time: all there is may be.
                self.since = None;
                let now = self.plan.mirror.apply(&body)?;
                self.since = Some(now);
                let has_waited = asked.elapsed() >= Duration::from_secs(PATIENCE) / 2;
                Ok(if now != since || has_waited { Told::News } else { Told::Nothing })
            }
            // It was started anew, or too much has changed since.
            StatusCode::GONE | StatusCode::NOT_FOUND => {
                self.since = None;
                Ok(Told::Nothing)
            }
            status => Err(Failed::Status(status)),
        }
    }

    /// Where changes begin comes first: what is listed has them already then, or they come again.
    async fn begin(&mut self) -> Result<(), Failed> {
        #[derive(Deserialize)]
        struct At {
            revision: u64,
        }
        let (status, body) = self.ask("/registry/watch?wait=0").await?;
        match status {
            StatusCode::OK => {
                let At { revision } = serde_json::from_slice(&body).map_err(NoRegistry::from)?;
                self.list("").await?;
                self.since = Some(revision);
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                // Those that it has not heard of for long, it leaves out of these.
                self.list("?status=running").await?;
                sleep(POLL).await;
            }
            status => return Err(Failed::Status(status)),
        }
        Ok(())
    }

    async fn list(&self, query: &str) -> Result<(), Failed> {
        let mut listing = Listing::default();
        let mut query = query.to_owned();
        for _ in 0..PAGES {
            let (status, body) = self.ask(&format!("/registry/vms{query}")).await?;
            if status != StatusCode::OK {
                return Err(Failed::Status(status));
            }
            match listing.read(&body)? {
                Some(next) => query = format!("?after={next}"),
                None => break,
            }
        }
        self.plan.mirror.replace(listing);
        Ok(())
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, Bytes), Failed> {
        let mut request = Request::get(format!("{}{path}", self.plan.url));
        if let Some(token) = self.plan.token.as_ref().and_then(|token| token.reveal()) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::default()).map_err(|error| Failed::Transport(error.to_string()))?;
        let asking = async {
            let answer = self.client.request(request).await.map_err(|error| {
                // The causes say what happened; the error itself only that something did.
                let mut text = error.to_string();
                let mut cause = error.source();
                while let Some(error) = cause {
                    text = error.to_string();
                    cause = error.source();
                }
                Failed::Transport(text)
            })?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
            let body = body.map_err(|error| Failed::Transport(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        timeout(DEADLINE, asking).await.unwrap_or(Err(Failed::Late))
    }
}

/// Before the next attempt: a fleet must not come back all at once.
fn pause(failures: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
    let chance = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    longest.mul_f64(0.5 + 0.5 * chance)
}

struct Counts {
    age: Gauge,
    failures: Counter,
}

impl Counts {
    fn new(metrics: &Metrics) -> Self {
        Self {
            age: metrics.gauge(&names::REGISTRY_REMOTE_AGE, &[]),
            failures: metrics.counter(&names::REGISTRY_REMOTE_FAILURES, &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        for (failures, longest) in [(0, 250), (1, 500), (3, 2000), (6, 15_000), (100, 15_000)] {
            let pause = pause(failures).as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{failures}: {pause} ms");
        }
    }
}
