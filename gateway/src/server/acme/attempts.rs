//! What is kept of orders that failed, and of how many there were: neither a restart nor another
//! configuration is a reason to ask an authority more often. A gateway that dies and comes back all the time
//! would else use up what the authority gives.

use super::{MOST_ON_DEMAND, item::Item, store::Store};
use crate::{acme::Rate, snapshot::write_private};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs, io,
    time::{Duration, SystemTime},
};

/// What is kept for one `[certificate.NAME]`. Times are in seconds since 1970.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Attempts {
    /// When the orders of the last hour began.
    begun: Vec<u64>,
    /// What its last order did not get.
    failing: Vec<Failing>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Failing {
    names: Vec<String>,
    is_on_demand: bool,
    tried: u64,
    failures: u32,
}

impl Attempts {
    /// What is kept; nothing where that cannot be read.
    pub(super) fn load(store: &Store<'_>) -> Self {
        let path = store.attempts();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "the record of orders cannot be read");
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::error!(file = %path.display(), %error, "the record of orders cannot be used");
            Self::default()
        })
    }

    /// What there is to keep of these, which are of one certificate.
    pub(super) fn of<'i>(rate: &Rate, items: impl Iterator<Item = &'i Item>, now: SystemTime) -> Self {
        let failing = items.filter_map(|item| {
            let (tried, failures) = item.failing()?;
            let (names, is_on_demand) = (item.names.clone(), item.is_on_demand);
            Some(Failing { names, is_on_demand, tried: seconds(tried), failures })
        });
        Self { begun: rate.begun(now).map(seconds).collect(), failing: failing.collect() }
    }

    /// Keeps it.
    pub(super) fn keep(&self, store: &Store<'_>) -> Result<(), String> {
        let path = store.attempts();
        let text = serde_json::to_string(self).map_err(|error| error.to_string())?;
        write_private(&path, &text)
            .map_err(|error| format!("the record of orders could not be kept in {}: {error}", path.display()))
    }

    /// When orders began, of which only so many an hour may.
    pub(super) fn begun(&self) -> impl Iterator<Item = SystemTime> {
        self.begun.iter().copied().map(time)
    }

    /// Tells what is known of orders for the same names.
    pub(super) fn remind(&self, items: &mut [Item], now: SystemTime) {
        let failing = self.failing.iter().map(|known| ((known.names.as_slice(), known.is_on_demand), known));
        let failing: HashMap<_, _> = failing.collect();
        for item in items {
            if let Some(known) = failing.get(&(item.names.as_slice(), item.is_on_demand)) {
                item.remembers(time(known.tried), known.failures, now);
            }
        }
    }

    /// Names that somebody asked for.
    pub(super) fn on_demand(&self) -> impl Iterator<Item = &str> {
        let asked = self.failing.iter().filter(|known| known.is_on_demand).take(MOST_ON_DEMAND);
        asked.filter_map(|known| known.names.first()).map(String::as_str)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A time that no clock can show is long ago.
fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_remembered_and_what_did_not_is_not() {
        let now = time(1_000_000);
        let mut rate = Rate::new(5, [time(10), now - Duration::from_secs(60)]);
        rate.begin(now);
        let mut failing = Item::on_demand(0, "a.test", now);
        failing.begins(now);
        let fine = Item::fixed(0, &["b.test".to_owned()], now);
        let attempts = Attempts::of(&rate, [&failing, &fine].into_iter(), now);
        let text = serde_json::to_string(&attempts).expect("text");
        let attempts: Attempts = serde_json::from_str(&text).expect("the same");
        assert_eq!(attempts.begun().collect::<Vec<_>>(), [now - Duration::from_secs(60), now]);
        assert_eq!(attempts.on_demand().collect::<Vec<_>>(), ["a.test"]);
        let mut items = [
            Item::on_demand(0, "a.test", now),
            Item::fixed(0, &["a.test".to_owned()], now),
            Item::fixed(0, &["b.test".to_owned()], now),
        ];
        attempts.remind(&mut items, now);
        assert_eq!(items.map(|item| item.due > now), [true, false, false]);
    }

    #[test]
    fn a_record_from_elsewhere_is_read_as_far_as_it_goes() {
        for text in ["{}", "{\"begun\":[18446744073709551615],\"new\":1}"] {
            let attempts: Attempts = serde_json::from_str(text).expect(text);
            assert!(attempts.begun().all(|begun| begun == SystemTime::UNIX_EPOCH), "{text}");
        }
    }
}
