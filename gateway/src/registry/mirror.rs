//! What is known of another registry: its entries as it told them last, and since when it is silent. Pure: who
//! asks it is somebody else.

use super::{ENTRIES, Endpoint};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
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

/// Entries as another registry lists them, page by page.
#[derive(Debug, Default)]
pub struct Listing(BTreeMap<String, Vm>);

/// An entry, as far as anybody here asks for it. Other fields are ignored.
#[derive(Debug, Deserialize)]
struct Vm {
    id: String,
    role: String,
    status: Option<String>,
    state: Option<String>,
    address: String,
    #[serde(default, deserialize_with = "sound")]
    services: Vec<Service>,
    #[serde(default)]
    revision: u64,
}

#[derive(Debug, Deserialize)]
struct Service {
    name: String,
    port: u16,
    state: Option<String>,
}

/// Those that make sense: nobody else's depend on one that does not.
fn sound<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<Service>, D::Error> {
    let list: Option<Vec<Box<RawValue>>> = Option::deserialize(list)?;
    Ok(list.iter().flatten().filter_map(|service| serde_json::from_str(service.get()).ok()).collect())
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    vms: Vec<&'a RawValue>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct News<'a> {
    revision: u64,
    #[serde(borrow)]
    changes: Vec<Change<'a>>,
}

#[derive(Deserialize)]
struct Change<'a> {
    kind: String,
    id: Option<String>,
    #[serde(borrow)]
    vm: Option<&'a RawValue>,
}

/// Whose entry it is, whatever else is wrong with it.
#[derive(Deserialize)]
struct Whose {
    id: String,
}

impl Listing {
    /// Takes up the answer to `GET /registry/vms`, but for entries that make no sense. Returns where the next page
    /// begins, where there is one.
    ///
    /// # Errors
    /// Fails where it is no such answer, and changes nothing.
    pub fn read(&mut self, page: &[u8]) -> Result<Option<String>, NoRegistry> {
        let Page { vms, next } = serde_json::from_slice(page)?;
        let room = ENTRIES.saturating_sub(self.0.len());
        let sound = vms.into_iter().filter_map(|vm| serde_json::from_str(vm.get()).ok());
        self.0.extend(sound.take(room).map(|vm: Vm| (vm.id.clone(), vm)));
        Ok(next.filter(|_| self.0.len() < ENTRIES))
    }
}

impl Default for Mirror {
    /// Nothing is known.
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Mirror {
    /// These are all there are.
    pub fn replace(&self, listing: Listing) {
        self.hear().vms = listing.0;
        self.announce();
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
            match (&*change.kind, change.vm, change.id) {
                ("put", Some(vm), _) => state.put(vm.get()),
                ("gone", _, Some(id)) => drop(state.vms.remove(&id)),
                // Whatever that is, it is of a later version.
                _ => {}
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
            let service = vm.services.iter().find(|known| known.name == service)?;
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

impl State {
    fn put(&mut self, vm: &str) {
        match serde_json::from_str::<Vm>(vm) {
            // What was listed may be newer than a change from before.
            Ok(vm) if self.vms.get(&vm.id).is_some_and(|known| known.revision > vm.revision) => {}
            // It has no more itself.
            Ok(vm) if self.vms.len() >= ENTRIES && !self.vms.contains_key(&vm.id) => {}
            Ok(vm) => drop(self.vms.insert(vm.id.clone(), vm)),
            // What it was is not true any more.
            Err(_) => {
                if let Ok(Whose { id }) = serde_json::from_str(vm) {
                    self.vms.remove(&id);
                }
            }
        }
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

    fn replace(mirror: &Mirror, list: &[u8]) -> Result<(), NoRegistry> {
        let mut listing = Listing::default();
        assert_eq!(listing.read(list)?, None);
        mirror.replace(listing);
        Ok(())
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
        let list = format!(r#"{{"vms":[{}],"count":4}}"#, list.join(","));
        replace(&mirror, list.as_bytes()).expect("a list");
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
        let list = format!(r#"{{"vms":[{}]}}"#, vm("a", "running", "", 1));
        replace(&mirror, list.as_bytes()).expect("a list");
        for bad in ["", "<html>", "[]", r#"{"vms":1}"#, r#"{"vms":[{"id":"x"}"#] {
            assert!(
                replace(&mirror, bad.as_bytes()).is_err() && mirror.apply(bad.as_bytes()).is_err(),
                "{bad}"
            );
        }
        assert_eq!(addresses(&mirror).len(), 1);
    }

    /// Of a registry that checks less than this one.
    #[test]
    fn one_odd_entry_hides_no_other() {
        let mirror = Mirror::default();
        let good = vm("a", "running", "registered", 1);
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        let odd = [
            r#"{"id":"x"}"#.to_owned(),
            "7".to_owned(),
            good.replace("\"port\":3000", "\"port\":70000").replace("\"a\"", "\"b\""),
            good.replace("[1]", &deep).replace("\"a\"", "\"c\""),
            good.replace("[1]", r#"[1e999,"\ud800"]"#).replace("\"a\"", "\"d\""),
        ];
        let list = format!(r#"{{"vms":[{},{good}]}}"#, odd.join(","));
        replace(&mirror, list.as_bytes()).expect("a list");
        let one = |id: &str| ("a.test".to_owned(), 3000, id.to_owned());
        let found = |mirror: &Mirror| -> Vec<_> {
            let found = mirror.endpoints("worker", "api").into_iter();
            found.map(|endpoint| (endpoint.address, endpoint.port, endpoint.id)).collect()
        };
        assert_eq!(found(&mirror), [one("a"), one("c"), one("d")]);
        assert!(mirror.address("b").is_some(), "it is there, without the service that makes no sense");
        let other = Mirror::default();
        for odd in &odd {
            other.apply(put(odd).as_bytes()).expect("news");
        }
        assert_eq!(found(&other), [one("c"), one("d")]);
        other.apply(put(r#"{"id":"c","role":7}"#).as_bytes()).expect("news");
        assert_eq!(found(&other), [one("d")], "what it was is not true any more");
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_how_old_it_is() {
        let mirror = Mirror::default();
        mirror.lost("refused".to_owned());
        let state = mirror.report();
        assert_eq!((state.age, state.trouble.as_deref()), (None, Some("refused")));
        replace(&mirror, br#"{"vms":[]}"#).expect("a list");
        tokio::time::advance(Duration::from_secs(7)).await;
        let state = mirror.report();
        assert_eq!((state.age, state.trouble), (Some(Duration::from_secs(7)), None));
    }
}
