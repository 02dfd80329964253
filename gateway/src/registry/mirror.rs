//! What is known of another registry: its entries as it told them last, and since when it is silent. Pure: who
//! asks it is somebody else.

use super::{ENTRIES, Endpoint};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Entries of another registry. They stay while it is silent: what was there a moment ago is better than nothing.
#[derive(Debug)]
pub struct Mirror {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    vms: BTreeMap<String, Vm>,
    heard: Option<Instant>,
    trouble: Option<String>,
}

/// How it is with another registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorState {
    /// Entries that are known of it.
    pub entries: usize,
    /// How old what is known is at most; none where it was never heard of.
    pub age: Option<Duration>,
    /// Why it is silent, where it is.
    pub trouble: Option<String>,
}

/// What was told is not what a registry tells.
#[derive(Debug, thiserror::Error)]
#[error("no registry answers there: {0}")]
pub struct NoRegistry(#[from] serde_json::Error);

/// An entry, as far as anybody here asks for it. Other fields are ignored, and so is what makes no sense.
#[derive(Debug, Deserialize)]
struct Vm {
    id: String,
    role: String,
    status: Option<String>,
    state: Option<String>,
    address: String,
    #[serde(default)]
    services: Option<Vec<Service>>,
    #[serde(default)]
    revision: u64,
}

#[derive(Debug, Deserialize)]
struct Service {
    name: String,
    port: u16,
    state: Option<String>,
}

#[derive(Deserialize)]
struct List {
    vms: Vec<Vm>,
}

#[derive(Deserialize)]
struct News {
    revision: u64,
    changes: Vec<Change>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Change {
    Put { vm: Vm },
    Gone { id: String },
}

impl Default for Mirror {
    /// Nothing is known.
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Mirror {
    /// Takes up the answer to `GET /registry/vms`: all there are.
    ///
    /// # Errors
    /// Fails where it is no such answer, and changes nothing.
    pub fn replace(&self, list: &[u8]) -> Result<(), NoRegistry> {
        let List { vms } = serde_json::from_slice(list)?;
        let mut state = self.hear();
        state.vms = vms.into_iter().take(ENTRIES).map(|vm| (vm.id.clone(), vm)).collect();
        drop(state);
        self.announce();
        Ok(())
    }

    /// Takes up the answer to `GET /registry/watch`. Returns where it goes on.
    ///
    /// # Errors
    /// Fails where it is no such answer, and changes nothing.
    pub fn apply(&self, news: &[u8]) -> Result<u64, NoRegistry> {
        let News { revision, changes } = serde_json::from_slice(news)?;
        let mut state = self.hear();
        let is_news = !changes.is_empty();
        for change in changes {
            match change {
                // What was listed may be newer than a change from before.
                Change::Put { vm } if state.vms.get(&vm.id).is_some_and(|it| it.revision > vm.revision) => {}
                // It has no more itself.
                Change::Put { vm } if state.vms.len() >= ENTRIES && !state.vms.contains_key(&vm.id) => {}
                Change::Put { vm } => drop(state.vms.insert(vm.id.clone(), vm)),
                Change::Gone { id } => drop(state.vms.remove(&id)),
            }
        }
        drop(state);
        if is_news {
            self.announce();
        }
        Ok(revision)
    }

    /// It does not answer, for this reason.
    pub fn lost(&self, why: String) {
        self.state().trouble = Some(why);
    }

    /// How it is.
    pub fn report(&self) -> MirrorState {
        let state = self.state();
        MirrorState {
            entries: state.vms.len(),
            age: state.heard.map(|heard| heard.elapsed()),
            trouble: state.trouble.clone(),
        }
    }

    pub(super) fn endpoints(&self, role: &str, service: &str) -> Vec<Endpoint> {
        let state = self.state();
        let found = state.vms.values().filter(|vm| vm.role == role && vm.is_discoverable());
        let endpoint = |vm: &Vm| {
            let service = vm.services.iter().flatten().find(|known| known.name == service)?;
            let is_good = service.state.as_deref() != Some("unhealthy");
            Some(Endpoint { id: vm.id.clone(), address: vm.address.clone(), port: service.port, is_good })
        };
        found.filter_map(endpoint).collect()
    }

    pub(super) fn address(&self, id: &str) -> Option<String> {
        let state = self.state();
        let vm = state.vms.get(id).filter(|vm| vm.state.as_deref() != Some("expired"))?;
        Some(vm.address.clone())
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn announce(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn hear(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        (state.heard, state.trouble) = (Some(Instant::now()), None);
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vm {
    /// A registry without leases has no state, but leaves out itself what it has not heard of.
    fn is_discoverable(&self) -> bool {
        self.status.as_deref().is_none_or(|status| status == "running")
            && self.state.as_deref() != Some("expired")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(mirror: &Mirror) -> Vec<(String, u16)> {
        let found = mirror.endpoints("worker", "api");
        found.into_iter().map(|endpoint| (endpoint.address, endpoint.port)).collect()
    }

    fn vm(id: &str, status: &str, state: &str, revision: u64) -> String {
        format!(
            r#"{{"id":"{id}","name":"n","role":"worker","status":"{status}","state":"{state}","address":"{id}.test",
                "services":[{{"name":"api","port":3000,"url":"-"}}],"revision":{revision},"more":[1]}}"#
        )
    }

    fn put(vm: &str) -> String {
        format!(r#"{{"revision":9,"changes":[{{"kind":"put","revision":9,"vm":{vm}}}]}}"#)
    }

    #[test]
    fn it_has_what_the_registry_has() {
        let mirror = Mirror::default();
        let list = [
            vm("b", "running", "registered", 5),
            vm("a", "running", "registered", 6),
            vm("c", "running", "expired", 7),
            vm("d", "draining", "draining", 8),
        ];
        mirror.replace(format!(r#"{{"vms":[{}],"count":4}}"#, list.join(",")).as_bytes()).expect("a list");
        let one = |id: &str| (format!("{id}.test"), 3000);
        assert_eq!(addresses(&mirror), [one("a"), one("b")]);
        assert_eq!(mirror.address("d").as_deref(), Some("d.test"));
        assert_eq!(mirror.address("c"), None);
        let mut changed = mirror.subscribe();
        assert_eq!(mirror.apply(put(&vm("c", "running", "registered", 9)).as_bytes()).expect("news"), 9);
        assert!(changed.has_changed().expect("it is there"));
        changed.mark_unchanged();
        assert_eq!(addresses(&mirror), [one("a"), one("b"), one("c")]);
        let late = put(&vm("c", "stopped", "stopped", 2));
        mirror.apply(late.as_bytes()).expect("news");
        assert_eq!(addresses(&mirror).len(), 3, "it was listed with a later revision");
        let gone = br#"{"revision":10,"changes":[{"kind":"gone","revision":10,"id":"a"}]}"#;
        assert_eq!(mirror.apply(gone).expect("news"), 10);
        assert_eq!(addresses(&mirror), [one("b"), one("c")]);
        assert!(mirror.endpoints("worker", "db").is_empty() && mirror.endpoints("infra", "api").is_empty());
        changed.mark_unchanged();
        mirror.apply(br#"{"revision":10,"changes":[]}"#).expect("none");
        assert!(!changed.has_changed().expect("it is there"), "nothing has changed");
    }

    #[test]
    fn what_is_no_answer_of_a_registry_changes_nothing() {
        let mirror = Mirror::default();
        mirror.replace(format!(r#"{{"vms":[{}]}}"#, vm("a", "running", "", 1)).as_bytes()).expect("a list");
        for bad in ["", "<html>", "[]", r#"{"vms":1}"#, r#"{"vms":[{"id":"x"}]}"#] {
            assert!(
                mirror.replace(bad.as_bytes()).is_err() && mirror.apply(bad.as_bytes()).is_err(),
                "{bad}"
            );
        }
        assert_eq!(addresses(&mirror).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_how_old_it_is() {
        let mirror = Mirror::default();
        mirror.lost("refused".to_owned());
        let state = mirror.report();
        assert_eq!((state.age, state.trouble.as_deref()), (None, Some("refused")));
        mirror.replace(br#"{"vms":[]}"#).expect("a list");
        tokio::time::advance(Duration::from_secs(7)).await;
        let state = mirror.report();
        assert_eq!((state.age, state.trouble), (Some(Duration::from_secs(7)), None));
    }
}
