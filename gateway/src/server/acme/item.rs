//! One certificate that is ordered: what it is for, what there is of it, and when the next order is due.

use crate::{
    acme::{back_off, renewal},
    tls::Certificate,
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

/// How long an order that nobody needs now is put off: at most this, at least the other, and in between a
/// part of what its certificate has left.
const LATER: Duration = Duration::from_secs(24 * 3600);
const SOON: Duration = Duration::from_secs(60);

/// Failures in a row after which a name that somebody asked for is forgotten, until somebody does again.
/// The last of their pauses is of two hours.
const MOST_FAILURES: u32 = 8;

/// How long after an order that failed a restart, or another configuration, may be followed by the next: four
/// an hour are fewer than any authority objects to.
const PAUSE_OF_RESTART: Duration = Duration::from_secs(15 * 60);

/// What becomes of a certificate whose order is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is ordered.
    Order,
    /// It is put off: nobody needs it now.
    Wait,
    /// It is forgotten.
    Forget,
}

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
    /// When the last order began that brought nothing; none where the last one did.
    tried: Option<SystemTime>,
    failures: u32,
}

impl Item {
    /// What the configuration asks for. It is ordered at once where there is nothing yet.
    pub(super) fn fixed(desk: usize, names: &[String], now: SystemTime) -> Self {
        let names = names.to_vec();
        Self { desk, names, is_on_demand: false, certificate: None, due: now, tried: None, failures: 0 }
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

    /// The name that somebody asked for, where that is why it is there.
    pub(super) fn asked_name(&self) -> Option<&str> {
        self.names.first().filter(|_| self.is_on_demand).map(String::as_str)
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
        (self.tried, self.failures) = (None, 0);
    }

    /// An order begins. Until there is a certificate, it has failed: nobody may be left to say so.
    ///
    /// Returns what is to be said where it has not begun after all.
    pub(super) fn begins(&mut self, now: SystemTime) -> (Option<SystemTime>, u32) {
        let before = (self.tried, self.failures);
        self.tried = Some(now);
        self.failures = self.failures.saturating_add(1);
        before
    }

    /// Nobody was asked.
    pub(super) fn has_not_begun(&mut self, before: (Option<SystemTime>, u32)) {
        (self.tried, self.failures) = before;
    }

    /// An order failed. Returns how long the next one has to wait.
    pub(super) fn failed(&mut self, now: SystemTime) -> Duration {
        let pause = pause_after(self.failures);
        self.due = now + pause;
        pause
    }

    /// When the last order began, and how many in a row have failed, where any has.
    pub(super) fn failing(&self) -> Option<(SystemTime, u32)> {
        Some((self.tried?, self.failures))
    }

    /// What [`Self::failing`] said before a restart or another configuration. Either may be what mends it, so
    /// it waits for a quarter of an hour at most.
    pub(super) fn remembers(&mut self, tried: SystemTime, failures: u32, now: SystemTime) {
        // A clock that was set back must not make it wait for ever.
        let tried = tried.min(now);
        (self.tried, self.failures) = (Some(tried), failures);
        self.due = self.due.max(tried + pause_after(failures).min(PAUSE_OF_RESTART));
    }

    /// What is ordered first of what may be ordered: what is shown already, and then what has failed least.
    pub(super) fn rank(&self) -> (bool, u32) {
        (self.is_on_demand && self.certificate.is_none(), self.failures)
    }

    /// What is to be done now that its order is due. One that somebody asked for is ordered where its
    /// name `is_allowed` still, and once more only where it `was_used`.
    pub(super) fn fate(&self, is_allowed: bool, was_used: bool, now: SystemTime) -> Fate {
        if !self.is_on_demand {
            return Fate::Order;
        }
        match &self.certificate {
            None if is_allowed && self.failures < MOST_FAILURES => Fate::Order,
            Some(_) if is_allowed && was_used => Fate::Order,
            Some(certificate) if certificate.not_after() > now => Fate::Wait,
            _ => Fate::Forget,
        }
    }

    /// Puts the next order off, and not until the certificate has expired in somebody's hands: whether it
    /// is used may not be known yet, nor whether its name is allowed.
    pub(super) fn postpone(&mut self, now: SystemTime) {
        let end = self.certificate.as_ref().map(|certificate| certificate.not_after());
        let left = end.and_then(|end| end.duration_since(now).ok()).unwrap_or_default();
        self.due = now + (left / 4).clamp(SOON, LATER);
    }
}

/// A random number from 0 to 1.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}

/// How long to wait after so many failures.
fn pause_after(failures: u32) -> Duration {
    back_off(failures, chance())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Authority;

    fn fail(item: &mut Item, now: SystemTime) -> Duration {
        item.begins(now);
        item.failed(now)
    }

    fn certificate(name: &str) -> Certificate {
        let authority = Authority::generate().expect("an authority");
        authority.issue(&[name.into()]).expect("a certificate")
    }

    #[test]
    fn what_the_file_names_is_always_ordered() {
        let now = SystemTime::now();
        let mut item = Item::fixed(0, &["a.test".to_owned()], now);
        (0..2 * MOST_FAILURES).for_each(|_| _ = fail(&mut item, now));
        assert_eq!(item.fate(false, false, now), Fate::Order);
        assert_eq!(item.kept(certificate("a.test")).fate(false, false, now), Fate::Order);
    }

    #[test]
    fn what_somebody_asked_for_is_ordered_while_there_is_use_for_it() {
        let now = SystemTime::now();
        let mut item = Item::on_demand(0, "a.test", now);
        assert_eq!(item.fate(true, false, now), Fate::Order);
        assert_eq!(item.fate(false, false, now), Fate::Forget, "its VM is gone");
        (0..MOST_FAILURES).for_each(|_| _ = fail(&mut item, now));
        assert_eq!(item.fate(true, false, now), Fate::Forget, "it never comes");
        let item = item.kept(certificate("a.test"));
        let expired = item.certificate.as_ref().expect("a certificate").not_after() + LATER;
        for (is_allowed, was_used, at, fate) in [
            (true, true, now, Fate::Order),
            (true, false, now, Fate::Wait),
            (false, true, now, Fate::Wait),
            (true, true, expired, Fate::Order),
            (true, false, expired, Fate::Forget),
            (false, true, expired, Fate::Forget),
        ] {
            assert_eq!(item.fate(is_allowed, was_used, at), fate, "{is_allowed} {was_used}");
        }
    }

    #[test]
    fn what_is_put_off_is_looked_at_again_before_it_expires() {
        let now = SystemTime::now();
        let mut item = Item::on_demand(0, "a.test", now).kept(certificate("a.test"));
        let end = item.certificate.as_ref().expect("a certificate").not_after();
        let hours = |hours: u32| Duration::from_secs(3600) * hours;
        for (left, expected) in [(hours(8), hours(2)), (hours(1000), LATER), (SOON, SOON)] {
            item.postpone(end - left);
            assert_eq!(item.due, end - left + expected, "with {left:?} left");
        }
        item.postpone(end + SOON);
        assert_eq!(item.due, end + SOON + SOON, "when it has expired");
    }

    #[test]
    fn a_failure_is_forgotten_with_the_next_certificate() {
        let now = SystemTime::now();
        let mut item = Item::fixed(0, &["a.test".to_owned()], now);
        let (first, second) = (fail(&mut item, now), fail(&mut item, now));
        assert!(second > first && item.due == now + second);
        item.renewed(certificate("a.test"));
        assert!(item.due > now + second, "when it is renewed");
        assert_eq!(item.failing(), None);
        assert!(fail(&mut item, now) < second);
    }

    #[test]
    fn a_certificate_for_fewer_names_is_shown_and_ordered_again() {
        let now = SystemTime::now();
        let names = ["a.test".to_owned(), "b.test".to_owned()];
        let item = Item::fixed(0, &names, now).kept(certificate("a.test"));
        assert_eq!((item.due, item.shown_names()), (now, vec!["a.test".into()]));
    }

    #[test]
    fn a_restart_waits_like_a_failure_but_not_for_hours() {
        let now = SystemTime::now();
        let minutes = |minutes: u32| Duration::from_secs(60) * minutes;
        for (since, failures, least, most) in [(0, 1, 60, 75), (0, 9, 900, 900), (14, 9, 60, 60)] {
            let mut item = Item::fixed(0, &["a.test".to_owned()], now);
            item.remembers(now - minutes(since), failures, now);
            let waits = item.due.duration_since(now).expect("later").as_secs();
            assert!((least..=most).contains(&waits), "{waits} s, {failures} failures {since} min ago");
            assert_eq!(item.failing(), Some((now - minutes(since), failures)));
        }
        let mut item = Item::fixed(0, &["a.test".to_owned()], now);
        item.remembers(now + minutes(600), 9, now);
        assert_eq!(item.due, now + PAUSE_OF_RESTART, "a clock that was set back");
    }

    #[test]
    fn what_is_shown_already_is_renewed_before_anything_new() {
        let now = SystemTime::now();
        let fixed = Item::fixed(0, &["f.test".to_owned()], now);
        let shown = Item::on_demand(0, "a.test", now).kept(certificate("a.test"));
        let new = Item::on_demand(0, "b.test", now);
        let mut failing = Item::on_demand(0, "c.test", now);
        failing.begins(now);
        assert_eq!(fixed.rank(), shown.rank());
        assert!(shown.rank() < new.rank() && new.rank() < failing.rank());
    }
}
