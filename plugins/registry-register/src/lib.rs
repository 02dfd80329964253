//! Registers this VM and its services, renews the registration, and takes it back at the end.

mod config;

use config::{Entry, RegistryRegister};
use std::time::Duration;
use vers_plugin::prelude::*;

impl Background for RegistryRegister {
    fn run(&self, _why: Reason) -> Result<Next, String> {
        let id = self.id()?;
        let outcome = if self.state.is_registered.get() { self.renew(&id) } else { self.register(&id) };
        Ok(match outcome {
            Ok(()) => {
                self.state.is_registered.set(true);
                self.state.failures.set(0);
                Next::about(self.interval.0)
            }
            Err(error) => {
                log::warn(format!("{}: {error}", self.registry));
                Next::after(self.back_off())
            }
        })
    }

    fn stop(&self) {
        let (true, Ok(id)) = (self.state.is_registered.get(), self.id()) else { return };
        match self.call("DELETE", &format!("/{id}"), None).and_then(success) {
            Ok(()) => log::info(format!("{id} deregistered")),
            Err(error) => log::warn(format!("{id} not deregistered: {error}")),
        }
    }

    fn validate(&self, problems: &mut Problems) {
        config::validate(self, problems);
    }
}
vers_plugin::export!(RegistryRegister: background);

impl RegistryRegister {
    /// A registry that lost its data, or was replaced, knows nobody: the fleet comes back by itself.
    fn renew(&self, id: &str) -> Result<(), String> {
        let answer = self.call("POST", &format!("/{id}/heartbeat"), None)?;
        if answer.status() == 404 { self.register(id) } else { success(answer) }
    }

    /// A restarted VM may be known still. Its entry is brought up to date, and the renewal makes it
    /// seen again, which a change alone does not in every registry.
    fn register(&self, id: &str) -> Result<(), String> {
        let entry = self.entry(id);
        let answer = self.call("POST", "", Some(&entry))?;
        if answer.status() == 409 {
            success(self.call("PATCH", &format!("/{id}"), Some(&entry))?)?;
            success(self.call("POST", &format!("/{id}/heartbeat"), None)?)?;
        } else {
            success(answer)?;
        }
        log::info(format!("{id} registered at {} as {}", self.registry, self.role));
        Ok(())
    }

    fn call(&self, method: &str, path: &str, entry: Option<&Entry<'_>>) -> Result<http::Response, String> {
        let mut request = http::request(method, &format!("{}/registry/vms{path}", self.registry));
        if let Some(entry) = entry {
            request = request.json(entry);
        }
        // A fleet without a token has none on either side.
        if let Some(token) = self.secret.as_deref().and_then(secrets::get) {
            request = request.bearer(&token);
        }
        request.send().map_err(|error| error.to_string())
    }

    /// 1 to 2 s after the first failure in a row, doubling up to 15 to 30 s.
    fn back_off(&self) -> Duration {
        let failures = self.state.failures.get();
        self.state.failures.set(failures.saturating_add(1));
        let ceiling = (2_000 << failures.min(4)).min(30_000);
        Duration::from_millis(ceiling / 2 + random::u64() % (ceiling / 2))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "to stand in chains")]
fn success(answer: http::Response) -> Result<(), String> {
    if answer.is_success() {
        return Ok(());
    }
    let body = String::from_utf8_lossy(answer.body());
    Err(format!("answered {} {:.200}", answer.status(), body.trim()))
}

#[cfg(test)]
mod tests;
