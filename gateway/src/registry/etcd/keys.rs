//! Which key of etcd says what. Of each VM there are up to three: what is known of it, which outlasts its lease;
//! that it lives, which is under the lease; and that it was deleted, for a while.

use std::sync::Arc;

/// What a key says of its VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// It lives.
    Alive,
    /// It was deleted.
    Deleted,
    /// What is known of it.
    Entry,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Alive, Self::Deleted, Self::Entry];

    fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Deleted => "deleted",
            Self::Entry => "entries",
        }
    }
}

/// Keys below a prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Ends with a slash.
    prefix: Arc<str>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{}/", prefix.trim_end_matches('/')).into() }
    }

    /// The first of all, and the first behind them.
    pub(super) fn all(&self) -> (Vec<u8>, Vec<u8>) {
        below(&self.prefix)
    }

    /// The same of one kind.
    pub(super) fn all_of(&self, kind: Kind) -> (Vec<u8>, Vec<u8>) {
        below(&format!("{}{}/", self.prefix, kind.name()))
    }

    /// The one that gateways put now and then, to find out whether they hear of it.
    pub(super) fn pulse(&self) -> Vec<u8> {
        format!("{}beat", self.prefix).into_bytes()
    }

    pub(super) fn of(&self, kind: Kind, id: &str) -> Vec<u8> {
        format!("{}{}/{id}", self.prefix, kind.name()).into_bytes()
    }

    /// What a key says, and of whom; none where it is somebody else's.
    pub(super) fn read<'k>(&self, key: &'k [u8]) -> Option<(Kind, &'k str)> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&*self.prefix)?;
        let (name, id) = rest.split_once('/')?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
        (!id.is_empty()).then_some((kind, id))
    }
}

/// The first key below this one, which ends with a slash, and the first behind them.
fn below(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let mut end = prefix.as_bytes().to_vec();
    // Behind a slash comes a zero.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (prefix.as_bytes().to_vec(), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        for prefix in ["/vers/registry", "/vers/registry/", "fleet"] {
            let keys = Keys::new(prefix);
            let (first, end) = keys.all();
            for kind in Kind::ALL {
                let key = keys.of(kind, "vm-1:a");
                assert_eq!(keys.read(&key), Some((kind, "vm-1:a")));
                assert!(first < key && key < end, "{prefix}");
                let (first, end) = keys.all_of(kind);
                assert!(first < key && key < end, "{prefix}");
            }
            assert_eq!(keys.read(&keys.pulse()), None);
        }
        let keys = Keys::new("/a");
        for other in ["/a/entries/", "/a/other/x", "/ab/entries/x", "/a", ""] {
            assert_eq!(keys.read(other.as_bytes()), None, "{other}");
        }
        assert_eq!(keys.read(b"/a/entries/\xff"), None);
    }
}
