//! Registers this VM and its services, keeps the registration alive, and takes it back at the end.

mod entry;
mod local;
mod registry;

use registry::Registration;
use serde_json::{Map, Value};
use std::{
    cell::{Cell, RefCell},
    num::NonZeroU16,
    time::Duration,
};
use vers_plugin::prelude::*;

#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(deny_unknown_fields)]
struct RegistryRegister {
    /// Where the registry is, such as `https://infra.vm.example.com:3000`.
    registry: Option<BaseUrl>,
    /// Several of them instead: it registers in each, and each is enough.
    #[serde(default)]
    registries: Vec<BaseUrl>,
    name: String,
    #[serde(default = "worker")]
    role: String,
    /// This VM's id; the gateway's own, where the environment tells.
    id: Option<PathSegment>,
    /// Where others reach it; `{id}` stands for the id.
    address: Option<String>,
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default)]
    metadata: Map<String, Value>,
    /// Counts the lives of this VM: an older one leaves the registry to a newer one.
    generation: Option<u64>,
    /// How long the registry believes it without a renewal; three times `interval` where that is set.
    #[serde(default, with = "optional::duration")]
    ttl: Option<Duration>,
    /// Between renewals; a third of what the registry grants, or 15 s where it does not say.
    #[serde(default, with = "optional::duration")]
    interval: Option<Duration>,
    /// How long it waits for services to work before it registers as stopped.
    #[serde(default = "duration::seconds::<60>", with = "duration")]
    grace: Duration,
    /// Name of the secret to show to the registry.
    secret: Option<String>,
    /// Name of the secret that only this VM has: who does not show it cannot change the entry, a copy of this VM
    /// among them.
    lease_key: Option<String>,
    // What follows lasts from call to call: a background plugin has one instance.
    #[serde(skip)]
    registrations: RefCell<Vec<Registration>>,
    #[serde(skip)]
    works: Works,
}

#[derive(Debug, Deserialize, Serialize, ConfigSchema)]
#[serde(deny_unknown_fields, rename_all(serialize = "camelCase"))]
struct Service {
    name: String,
    port: NonZeroU16,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_path: Option<String>,
}

/// Whether the services work, as far as that was looked at.
#[derive(Debug, Default)]
struct Works {
    since: Cell<Option<Duration>>,
    /// How many of them do, in their order.
    checked: Cell<usize>,
    failed: RefCell<Option<String>>,
}

/// Between looks at services that do not work yet.
const LOOK: Duration = Duration::from_secs(1);

impl Background for RegistryRegister {
    /// One registry at a time: what one call may take is bounded.
    fn run(&self, _why: Reason) -> Result<Next, String> {
        let id = self.id()?;
        let patient = self.look_at_services();
        if patient {
            return Ok(Next::after(LOOK));
        }
        let mut registrations = self.registrations.borrow_mut();
        if registrations.is_empty() {
            registrations.extend(self.places().cloned().map(Registration::new));
        }
        let now = clock::monotonic();
        if let Some(next) = registrations.iter_mut().filter(|it| !it.is_over()).min_by_key(|it| it.due()) {
            next.turn(self, &id, now);
        }
        let due = registrations.iter().filter(|it| !it.is_over()).map(Registration::due).min();
        let Some(due) = due else { return Ok(Next::never()) };
        let pause = due.saturating_sub(now);
        // A service that comes up after all is worth a look before the next renewal.
        Ok(Next::after(if self.works.failed.borrow().is_some() { pause.min(LOOK) } else { pause }))
    }

    fn stop(&self) {
        let Ok(id) = self.id() else { return };
        // Whoever goes on here registers again, and the VM is there meanwhile.
        let next: Option<Self> = identity::successor_config().and_then(|it| serde_json::from_str(&it).ok());
        let next = next.filter(|next| next.id() == Ok(id.clone()));
        let goes_on = |registration: &Registration| {
            next.as_ref().is_some_and(|next| next.places().any(|place| registration.is_at(place)))
        };
        // What one call may take is bounded: those come first that are the most likely to answer.
        let registrations = self.registrations.borrow();
        let mut answering: Vec<&Registration> =
            registrations.iter().filter(|it| it.answered().is_some() && !goes_on(it)).collect();
        answering.sort_by_key(|registration| std::cmp::Reverse(registration.answered()));
        answering.into_iter().for_each(|registration| registration.leave(self, &id));
    }

    fn validate(&self, problems: &mut Problems) {
        match (&self.registry, self.registries.as_slice()) {
            (None, []) => {
                problems.add("registry", "missing field `registry`: where to register, or `registries`")
            }
            (Some(_), [_, ..]) => problems.add("registries", "either `registry` or `registries`"),
            _ => {}
        }
        for (i, service) in self.services.iter().enumerate() {
            if service.health_path.as_deref().is_some_and(|path| !path.starts_with('/')) {
                problems.add(format!("services.{i}.health_path"), "expected a path that starts with \"/\"");
            }
        }
    }
}
vers_plugin::export!(RegistryRegister: background);

impl RegistryRegister {
    /// Looks whether the services work, until they do. Returns whether that is worth waiting for.
    fn look_at_services(&self) -> bool {
        let now = clock::monotonic();
        let works = &self.works;
        let since = works.since.get().unwrap_or(now);
        works.since.set(Some(since));
        let left = local::check(&self.services, works.checked.get(), now);
        works.checked.set(left.working);
        let is_first = works.failed.borrow().is_none();
        match left.failed {
            None => {
                if works.failed.replace(None).is_some() {
                    log::info("all services work");
                }
                false
            }
            Some(why) => {
                if is_first {
                    log::info(format!("waiting for services: {why}"));
                }
                works.failed.replace(Some(why));
                now.saturating_sub(since) < self.grace
            }
        }
    }

    /// Where it registers.
    fn places(&self) -> impl Iterator<Item = &BaseUrl> {
        self.registry.iter().chain(&self.registries)
    }

    fn id(&self) -> Result<PathSegment, &'static str> {
        let id = self.id.clone().or_else(|| identity::vm_id()?.parse().ok());
        id.ok_or("this VM has no usable id: set `id` here, or VERS_VM_ID in the gateway's environment")
    }
}

fn worker() -> String {
    "worker".into()
}

/// What may be absent.
mod optional {
    pub(super) mod duration {
        use std::time::Duration;
        use vers_plugin::prelude::*;

        pub(in super::super) fn deserialize<'de, D: serde::Deserializer<'de>>(
            value: D,
        ) -> Result<Option<Duration>, D::Error> {
            #[derive(Deserialize)]
            struct Written(#[serde(with = "duration")] Duration);
            Ok(Option::<Written>::deserialize(value)?.map(|Written(duration)| duration))
        }
    }
}

#[cfg(test)]
mod tests;
