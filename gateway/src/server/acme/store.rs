//! Where ordered certificates and accounts are kept: `[gateway] state_dir`.
//!
//! Each certificate is one file, with its key: there is never one without the other.

use super::{attempts::Attempts, item::Item};
use crate::{
    acme::Obtained,
    snapshot::{Demand, Ordered, try_private, write_private},
    tls::Certificate,
};
use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

/// What is kept for one `[certificate.NAME]`.
pub(super) struct Store<'a>(&'a Ordered);

impl<'a> Store<'a> {
    pub(super) fn of(ordered: &'a Ordered) -> Self {
        Self(ordered)
    }

    /// Sees whether all that an order of this brings could be kept: whoever finds out afterwards has used up
    /// an account, or a certificate, of those that the authority gives.
    pub(super) fn is_ready(&self) -> Result<(), String> {
        [self.account(), self.attempts()].iter().try_for_each(|path| try_place(path))
    }

    /// Whether the certificate of this order can be kept.
    pub(super) fn has_place_for(&self, item: &Item) -> Result<(), String> {
        try_place(&self.path(item))
    }

    /// Keeps a certificate, if it is what was ordered.
    pub(super) fn keep(&self, item: &Item, obtained: &Obtained) -> Result<Certificate, String> {
        let certificate = Certificate::from_pem(obtained.chain.as_bytes(), obtained.key.as_bytes())
            .map_err(|error| format!("what the authority sent cannot be used: {error}"))?;
        if !covers(&certificate, &item.names) {
            return Err("the authority's certificate is for other names".to_owned());
        }
        let path = self.path(item);
        let text = format!("{}{}", obtained.key, obtained.chain);
        // One that cannot be kept can still be shown, until the next start.
        if let Err(error) = write_private(&path, &text) {
            tracing::error!(file = %path.display(), %error, "an issued certificate cannot be kept");
        }
        Ok(certificate)
    }

    /// Forgets a certificate.
    pub(super) fn remove(&self, item: &Item) {
        // What is not there need not be removed.
        let _ = fs::remove_file(self.path(item));
    }

    /// The account, of whoever is written to: another address is another account.
    pub(super) fn account(&self) -> PathBuf {
        let name = format!("{}.json", as_file(self.0.account.email.as_deref().unwrap_or_default()));
        self.0.folder.join("accounts").join(name)
    }

    /// The record of orders.
    pub(super) fn attempts(&self) -> PathBuf {
        self.0.folder.join("attempts").join(format!("{}.json", as_file(&self.0.name)))
    }

    fn path(&self, item: &Item) -> PathBuf {
        match item.names.first() {
            Some(name) if item.is_on_demand => self.on_demand().join(file_name(name)),
            _ => self.0.folder.join("certificates").join(file_name(&self.0.name)),
        }
    }

    fn on_demand(&self) -> PathBuf {
        self.0.folder.join("on-demand")
    }
}

/// All that is kept and still wanted of one certificate, and what is not there yet.
pub(super) fn load(all: &[Arc<Ordered>], desk: usize, attempts: &Attempts, now: SystemTime) -> Vec<Item> {
    let Some(ordered) = all.get(desk) else { return Vec::new() };
    // Of several that a name may be ordered by, it is the first that does.
    let is_mine = |name: &str| first_of(all, name) == Some(desk);
    let store = Store::of(ordered);
    let mut items = Vec::new();
    if !ordered.domains.is_empty() {
        let item = Item::fixed(desk, &ordered.domains, now);
        items.push(match read(&store.path(&item)) {
            Some(kept) => item.kept(kept),
            None => item,
        });
    }
    if !ordered.on_demand.is_empty() {
        items.extend(
            on_demand(&store, is_mine).map(|(name, kept)| Item::on_demand(desk, &name, now).kept(kept)),
        );
        let known: HashSet<String> = items.iter().flat_map(|item| item.names.iter().cloned()).collect();
        let is_new = |name: &&str| !known.contains(*name) && is_mine(name);
        let room = super::MOST_ON_DEMAND.saturating_sub(known.len());
        let new = attempts.on_demand().filter(is_new).take(room);
        items.extend(new.map(|name| Item::on_demand(desk, name, now)));
    }
    attempts.remind(&mut items, now);
    items
}

/// Which of several certificates a name is ordered by, where it is on demand.
pub(super) fn first_of(all: &[Arc<Ordered>], name: &str) -> Option<usize> {
    all.iter().position(|ordered| ordered.demand(name) != Demand::None)
}

fn on_demand(
    store: &Store<'_>,
    is_wanted: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (String, Certificate)> {
    let entries = fs::read_dir(store.on_demand()).into_iter().flatten().flatten();
    let kept = entries.filter_map(move |entry| {
        let file = entry.file_name();
        let name = file.to_str()?.strip_suffix(SUFFIX).filter(|name| is_wanted(name))?.to_owned();
        let kept = read(&entry.path()).filter(|kept| covers(kept, std::slice::from_ref(&name)))?;
        Some((name, kept))
    });
    kept.take(super::MOST_ON_DEMAND)
}

const SUFFIX: &str = ".pem";

fn read(path: &Path) -> Option<Certificate> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "a certificate that was kept cannot be read");
            return None;
        }
    };
    match Certificate::from_pem(&text, &text) {
        Ok(certificate) => Some(certificate),
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "a certificate that was kept cannot be used");
            None
        }
    }
}

fn covers(certificate: &Certificate, names: &[String]) -> bool {
    names.iter().all(|name| certificate.names().iter().any(|known| **known == **name))
}

fn file_name(name: &str) -> String {
    format!("{}{SUFFIX}", as_file(name))
}

/// A name as that of a file, whatever it holds: two names never have the same, and none leads elsewhere.
fn as_file(name: &str) -> String {
    let mut file = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => file.push(char::from(byte)),
            b'.' if at > 0 => file.push('.'),
            _ => file.push_str(&format!("%{byte:02X}")),
        }
    }
    file
}

fn try_place(path: &Path) -> Result<(), String> {
    try_private(path)
        .map_err(|error| format!("what the authority gives could not be kept in {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_in_its_folder() {
        for (name, file) in [
            ("web", "web.pem"),
            ("app.example.com", "app.example.com.pem"),
            ("../../etc/x", "%2E.%2F..%2Fetc%2Fx.pem"),
            ("Web 1", "%57eb%201.pem"),
            ("", ".pem"),
        ] {
            assert_eq!(file_name(name), file);
        }
    }
}
