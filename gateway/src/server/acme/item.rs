//! One certificate that is ordered: what it is for, what there is of it, and when the next order is due.

use super::{chance, pause_after};
use crate::{
    acme::renewal,
    tls::{Certificate, Issued},
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

/// How long an order that nobody needs now is put off.
const LATER: Duration = Duration::from_secs(24 * 3600);

/// Failures in a row after which a name that somebody asked for is forgotten, until somebody does again.
const MOST_FAILURES: u32 = 5;

/// One certificate that is ordered.
pub(super) struct Item {
    /// Which `[certificate.NAME]` it belongs to.
    pub(super) desk: usize,
    /// What it is for.
    pub(super) names: Vec<String>,
    /// Whether it is for one name that somebody asked for.
    pub(super) is_on_demand: bool,
    pub(super) certificate: Option<Arc<Certificate>>,
    /// When the next order is due.
    pub(super) due: SystemTime,
    failures: u32,
}

impl Item {
    /// What the configuration asks for. It is ordered at once where there is nothing yet.
    pub(super) fn fixed(desk: usize, names: &[String], now: SystemTime) -> Self {
        let names = names.to_vec();
        Self { desk, names, is_on_demand: false, certificate: None, due: now, failures: 0 }
    }

    /// What somebody has asked for.
    pub(super) fn on_demand(desk: usize, name: &str, now: SystemTime) -> Self {
        Self { is_on_demand: true, ..Self::fixed(desk, &[name.to_owned()], now) }
    }

    /// The same, where a certificate is there already. One that is not for all of its names is shown
    /// until there is another.
    pub(super) fn kept(mut self, certificate: Certificate) -> Self {
        let is_for_all =
            self.names.iter().all(|name| certificate.names().iter().any(|known| **known == **name));
        let due = self.due;
        self.renewed(certificate);
        if !is_for_all {
            self.due = due;
        }
        self
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// Those of its names that are in its certificate: it may be from before there were more.
    pub(super) fn shown_names(&self) -> Vec<Box<str>> {
        let of_certificate = self.certificate.iter().flat_map(|certificate| certificate.names());
        of_certificate.filter(|name| self.has(name)).cloned().collect()
    }

    /// There is a new certificate.
    pub(super) fn renewed(&mut self, certificate: Certificate) {
        self.due = renewal(certificate.not_before(), certificate.not_after(), chance());
        self.certificate = Some(Arc::new(certificate));
        self.failures = 0;
    }

    /// An order failed. Returns how long the next one has to wait.
    pub(super) fn failed(&mut self, now: SystemTime) -> Duration {
        self.failures += 1;
        let pause = pause_after(self.failures);
        self.due = now + pause;
        pause
    }

    /// Whether nobody wants it any more: somebody did, and it has expired or never came.
    pub(super) fn is_unwanted(&self, issued: &Issued, now: SystemTime) -> bool {
        let is_used = || self.names.iter().any(|name| issued.was_used(name));
        self.is_on_demand
            && match &self.certificate {
                Some(certificate) => certificate.not_after() < now && !is_used(),
                None => self.failures >= MOST_FAILURES,
            }
    }

    /// Whether nobody has asked for it since it was issued.
    pub(super) fn can_wait(&self, issued: &Issued, now: SystemTime) -> bool {
        let is_valid = self.certificate.as_ref().is_some_and(|certificate| certificate.not_after() > now);
        self.is_on_demand && is_valid && !self.names.iter().any(|name| issued.was_used(name))
    }

    /// Puts the next order off.
    pub(super) fn postpone(&mut self, now: SystemTime) {
        self.due = now + LATER;
    }
}
