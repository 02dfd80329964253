//! What others than its owner found out about a VM's services: those who ask them, and those who use them.

use std::{sync::Arc, time::SystemTime};

/// What is thought of a service, or of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Somebody asked, and it works.
    Healthy,
    /// Nobody has found out anything.
    Unknown,
    /// It does not work.
    Unhealthy,
}

impl Verdict {
    /// As clients see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unknown => "registered",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Who found something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// Who asks for its `healthPath`.
    Probe,
    /// This gateway's own requests.
    Traffic,
}

/// What a witness found out about a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which VM.
    pub id: Arc<str>,
    /// Which service of it.
    pub service: Arc<str>,
    /// Who says so.
    pub witness: Witness,
    /// That it works, or why it does not; none where the witness has nothing to say any more.
    pub works: Option<Result<(), String>>,
}

/// What was found out about the services of a VM. Never changed, but replaced.
#[derive(Debug, Clone, Default)]
pub struct Health(Option<Arc<[Known]>>);

#[derive(Debug, Clone)]
struct Known {
    service: Arc<str>,
    probe: Option<Said>,
    traffic: Option<Said>,
}

#[derive(Debug, Clone)]
struct Said {
    works: Result<(), Arc<str>>,
    since: SystemTime,
}

impl Known {
    fn verdict(&self) -> Verdict {
        let fails = |said: &Option<Said>| said.as_ref().is_some_and(|said| said.works.is_err());
        match &self.probe {
            _ if fails(&self.probe) || fails(&self.traffic) => Verdict::Unhealthy,
            Some(_) => Verdict::Healthy,
            None => Verdict::Unknown,
        }
    }

    fn why(&self) -> Option<String> {
        let said = [&self.probe, &self.traffic].into_iter().flatten();
        let mut failed = said.filter_map(|said| Some((said.works.as_ref().err()?, said.since)));
        let (why, since) = failed.next()?;
        Some(format!("{why}, since {}", humantime::format_rfc3339_seconds(since)))
    }
}

impl Health {
    /// What is thought of a service.
    pub fn of(&self, service: &str) -> Verdict {
        self.known(service).map_or(Verdict::Unknown, Known::verdict)
    }

    /// What is thought of the VM: one service that works is enough.
    pub(super) fn of_all(&self) -> Verdict {
        self.0
            .iter()
            .flat_map(|known| known.iter())
            .map(Known::verdict)
            .filter(|it| *it != Verdict::Unknown)
            .min()
            .unwrap_or(Verdict::Unknown)
    }

    /// Whether the one who asks says that a service does not work: this gateway's own requests find out
    /// themselves when it works again.
    pub(super) fn fails_probe(&self, service: &str) -> bool {
        let probe = self.known(service).and_then(|known| known.probe.as_ref());
        probe.is_some_and(|said| said.works.is_err())
    }

    /// Why a service does not work.
    pub(super) fn why_of(&self, service: &str) -> Option<String> {
        self.known(service)?.why()
    }

    /// Why requests to a service fail, where they do.
    pub fn met(&self, service: &str) -> Option<&str> {
        self.known(service)?.traffic.as_ref()?.works.as_ref().err().map(|why| &**why)
    }

    /// Which services do not work, and why.
    pub(super) fn why(&self) -> Option<String> {
        let failed = self.0.iter().flat_map(|known| known.iter());
        let failed: Vec<String> =
            failed.filter_map(|known| Some(format!("{}: {}", known.service, known.why()?))).collect();
        (!failed.is_empty()).then(|| failed.join("; "))
    }

    /// What is known once a witness has said this; none where that is nothing new. Another reason of who asks for the
    /// same is nothing new: one that does not work says so in many ways. Requests say whose they are.
    pub(super) fn with(&self, finding: &Finding, now: SystemTime) -> Option<Self> {
        let mut all: Vec<Known> = self.0.iter().flat_map(|known| known.iter()).cloned().collect();
        let at = all.iter().position(|known| known.service == finding.service);
        let at = at.unwrap_or_else(|| {
            all.push(Known { service: Arc::clone(&finding.service), probe: None, traffic: None });
            all.len() - 1
        });
        let known = all.get_mut(at)?;
        let place = match finding.witness {
            Witness::Probe => &mut known.probe,
            Witness::Traffic => &mut known.traffic,
        };
        let before = place.as_ref().map(|said| said.works.is_ok());
        let reason = place.as_ref().and_then(|said| said.works.as_ref().err());
        let is_other = finding.witness == Witness::Traffic
            && finding.works.as_ref().and_then(|works| works.as_ref().err().map(String::as_str))
                != reason.map(|it| &**it);
        if before == finding.works.as_ref().map(Result::is_ok) && !is_other {
            return None;
        }
        *place =
            finding.works.as_ref().map(|works| Said { works: works.clone().map_err(Into::into), since: now });
        all.retain(|known| known.probe.is_some() || known.traffic.is_some());
        Some(Self((!all.is_empty()).then(|| all.into())))
    }

    /// What is still true where only these services are as they were.
    pub(super) fn only(&self, stays: impl Fn(&str) -> bool) -> Self {
        let Some(known) = &self.0 else { return Self(None) };
        let kept: Vec<Known> = known.iter().filter(|known| stays(&known.service)).cloned().collect();
        Self((!kept.is_empty()).then(|| kept.into()))
    }

    /// Services of which this witness has said something.
    pub fn said_by(&self, witness: Witness) -> impl Iterator<Item = &Arc<str>> {
        let known = self.0.iter().flat_map(|known| known.iter());
        let has_said = move |known: &&Known| match witness {
            Witness::Probe => known.probe.is_some(),
            Witness::Traffic => known.traffic.is_some(),
        };
        known.filter(has_said).map(|known| &known.service)
    }

    fn known(&self, service: &str) -> Option<&Known> {
        self.0.iter().flat_map(|known| known.iter()).find(|known| &*known.service == service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(
        health: &Health,
        witness: Witness,
        service: &str,
        works: Option<Result<(), &str>>,
    ) -> Option<Health> {
        let works = works.map(|works| works.map_err(str::to_owned));
        let finding = Finding { id: "a".into(), service: service.into(), witness, works };
        health.with(&finding, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn one_witness_against_it_is_enough() {
        use Verdict::*;
        let none = Health::default();
        assert_eq!((none.of("api"), none.of_all()), (Unknown, Unknown));
        let probed = said(&none, Witness::Probe, "api", Some(Ok(()))).expect("news");
        assert_eq!((probed.of("api"), probed.of("db"), probed.of_all()), (Healthy, Unknown, Healthy));
        assert!(said(&probed, Witness::Probe, "api", Some(Ok(()))).is_none(), "the same once more");
        let used = said(&probed, Witness::Traffic, "api", Some(Err("refused"))).expect("news");
        assert_eq!((used.of("api"), used.of_all(), used.fails_probe("api")), (Unhealthy, Unhealthy, false));
        assert_eq!(used.why().as_deref(), Some("api: refused, since 1970-01-01T00:00:00Z"));
        assert!(said(&used, Witness::Traffic, "api", Some(Err("refused"))).is_none(), "the same once more");
        let others = said(&used, Witness::Traffic, "api", Some(Err("of another"))).expect("news");
        assert_eq!((others.met("api"), others.met("db")), (Some("of another"), None));
        let other = said(&used, Witness::Probe, "db", Some(Ok(()))).expect("news");
        assert_eq!((other.of_all(), other.of("api")), (Healthy, Unhealthy), "one that works is enough");
        let over = said(&used, Witness::Traffic, "api", None).expect("news");
        assert_eq!((over.of("api"), over.why()), (Healthy, None));
        let failed = said(&over, Witness::Probe, "api", Some(Err("it answered 500"))).expect("news");
        assert!(failed.fails_probe("api") && failed.why_of("api").is_some());
        assert!(said(&failed, Witness::Probe, "api", Some(Err("late"))).is_none(), "another reason");
        assert_eq!(failed.only(|service| service != "api").of("api"), Unknown);
    }
}
