//! One registry, and how it stands with it.

use super::RegistryRegister;
use std::time::Duration;
use vers_plugin::prelude::*;

/// For one answer; three of them stay below the plugin's limit.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Between renewals, where neither the file nor the registry says.
const INTERVAL: Duration = Duration::from_secs(15);

/// A registration at one registry.
#[derive(Debug)]
pub(super) struct Registration {
    registry: BaseUrl,
    /// The status that it is registered with.
    registered: Option<&'static str>,
    interval: Duration,
    due: Duration,
    is_over: bool,
    /// When it answered last; none while it does not.
    answered: Option<Duration>,
    back_off: BackOff,
}

/// What a registry with leases answers, beyond what all do.
#[derive(Debug, Default, Deserialize)]
struct Granted {
    ttl: Option<f64>,
    generation: Option<u64>,
    #[serde(default)]
    deleted: bool,
}

impl Registration {
    pub(super) fn new(registry: BaseUrl) -> Self {
        Self {
            registry,
            registered: None,
            interval: INTERVAL,
            due: Duration::ZERO,
            is_over: false,
            answered: None,
            back_off: BackOff::default(),
        }
    }

    /// When it is its turn.
    pub(super) fn due(&self) -> Duration {
        self.due
    }

    /// Whether a newer life of this VM has taken over.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether it is a registration there.
    pub(super) fn is_at(&self, place: &BaseUrl) -> bool {
        self.registry == *place
    }

    /// When it answered last, where it does.
    pub(super) fn answered(&self) -> Option<Duration> {
        self.answered
    }

    /// Registers, or renews; what fails is tried again, for ever.
    pub(super) fn turn(&mut self, plugin: &RegistryRegister, id: &PathSegment, now: Duration) {
        let is_news = self.registered != Some(plugin.status());
        let outcome = if is_news { self.register(plugin, id) } else { self.renew(plugin, id) };
        let pause = match outcome {
            Ok(()) => {
                self.back_off.succeeded();
                self.answered = Some(now);
                Next::about(plugin.interval.unwrap_or(self.interval)).delay().unwrap_or(INTERVAL)
            }
            Err(error) => {
                log::warn(format!("{}: {error}", self.registry));
                self.answered = None;
                self.back_off.failed()
            }
        };
        self.due = now + pause;
    }

    /// Finishes what it has, and leaves. Not everybody knows `draining`; whoever does sends nothing new meanwhile.
    /// A registry that does not answer finds out by itself: others wait for their turn.
    pub(super) fn leave(&self, plugin: &RegistryRegister, id: &PathSegment) {
        if self.registered.is_none() || self.is_over {
            return;
        }
        let failed =
            |error: http::Error| log::warn(format!("{id} not deregistered at {}: {error}", self.registry));
        if let Err(error) = self.say(plugin, id, "draining") {
            return failed(error);
        }
        let whose = plugin.generation.map(|generation| format!("?generation={generation}"));
        let left = self.request(plugin, "DELETE", &format!("/{id}{}", whose.unwrap_or_default())).send();
        match left.and_then(http::Response::error_for_status) {
            Ok(_) => log::info(format!("{id} deregistered at {}", self.registry)),
            Err(error) => failed(error),
        }
    }

    /// A restarted VM may be known still. Its entry is brought up to date, and the renewal makes it
    /// seen again, which a change alone does not in every registry.
    fn register(&mut self, plugin: &RegistryRegister, id: &PathSegment) -> Result<(), http::Error> {
        let entry = plugin.entry(id, &self.registry);
        let mut answer = self.request(plugin, "POST", "").json(&entry).send()?;
        if self.is_superseded(plugin, id, &answer) {
            return Ok(());
        }
        if answer.status() == 409 && !granted(&answer).deleted {
            answer = self.request(plugin, "PATCH", &format!("/{id}")).json(&entry).send()?;
            if self.is_superseded(plugin, id, &answer) {
                return Ok(());
            }
            answer.error_for_status()?;
            answer = self.say(plugin, id, plugin.status())?;
        }
        let answer = answer.error_for_status()?;
        if let Some(ttl) = granted(&answer).ttl.filter(|ttl| (3.0..=86_400.0).contains(ttl)) {
            self.interval = Duration::from_secs_f64(ttl / 3.0);
        }
        log::info(format!("{id} registered at {} as {}, {}", self.registry, plugin.role, plugin.status()));
        self.registered = Some(plugin.status());
        Ok(())
    }

    /// A registry that lost its data, or was replaced, knows nobody: the fleet comes back by itself.
    fn renew(&mut self, plugin: &RegistryRegister, id: &PathSegment) -> Result<(), http::Error> {
        let answer = self.say(plugin, id, plugin.status())?;
        match answer.status() {
            404 => self.register(plugin, id),
            _ if self.is_superseded(plugin, id, &answer) => Ok(()),
            _ => answer.error_for_status().map(drop),
        }
    }

    /// A sign of life, and which life it is of.
    fn say(
        &self,
        plugin: &RegistryRegister,
        id: &PathSegment,
        status: &str,
    ) -> Result<http::Response, http::Error> {
        let mut said = serde_json::json!({ "status": status });
        if let Some(generation) = plugin.generation {
            said["generation"] = generation.into();
        }
        self.request(plugin, "POST", &format!("/{id}/heartbeat")).json(&said).send()
    }

    /// Whether a newer life of this VM has the entry: there is nothing left to do then.
    fn is_superseded(
        &mut self,
        plugin: &RegistryRegister,
        id: &PathSegment,
        answer: &http::Response,
    ) -> bool {
        let newer = granted(answer).generation.filter(|_| answer.status() == 409);
        let newer = newer.zip(plugin.generation).filter(|(newer, own)| newer > own);
        if let Some((newer, _)) = newer {
            log::error(format!(
                "{}: generation {newer} of {id} has registered: this one is superseded",
                self.registry
            ));
            self.is_over = true;
        }
        newer.is_some()
    }

    fn request(&self, plugin: &RegistryRegister, method: &str, path: &str) -> http::Request {
        let request =
            http::request(method, &format!("{}/registry/vms{path}", self.registry)).timeout(PATIENCE);
        // A fleet without a token has none on either side.
        let token = plugin.secret.as_deref().and_then(secrets::get);
        let request = if let Some(token) = token { request.bearer(&token) } else { request };
        match plugin.lease_key.as_deref().and_then(secrets::get) {
            Some(key) => request.header("x-lease-key", key),
            None => request,
        }
    }
}

/// What a registry without leases does not say is nothing.
fn granted(answer: &http::Response) -> Granted {
    answer.json().unwrap_or_default()
}
