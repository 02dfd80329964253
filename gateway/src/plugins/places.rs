//! The places of instances, which all plugins and workers share: no plugin can take those of all others.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// All places of a gateway.
///
/// Half of them are kept apart: each plugin has its equal part of these, and so has one that is not there yet. The
/// other half is for who comes first. The lock is held for an addition, when an instance is made.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    shares: Mutex<Vec<Weak<Share>>>,
}

/// What the plugins of one name have taken.
#[derive(Debug)]
pub(super) struct Share {
    name: String,
    places: Arc<Places>,
    /// Written under the lock, but for what is given back.
    taken: AtomicUsize,
}

/// A place of an instance, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Share>);

impl Places {
    /// So many.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, shares: Mutex::default() })
    }

    /// Those of the plugins of this name.
    pub(super) fn share(self: &Arc<Self>, name: &str) -> Arc<Share> {
        let mut shares = self.shares();
        shares.retain(|share| share.strong_count() > 0);
        if let Some(known) = shares.iter().filter_map(Weak::upgrade).find(|share| share.name == name) {
            return known;
        }
        let (name, places) = (name.to_owned(), Arc::clone(self));
        let share = Arc::new(Share { name, places, taken: AtomicUsize::new(0) });
        shares.push(Arc::downgrade(&share));
        share
    }

    fn shares(&self) -> MutexGuard<'_, Vec<Weak<Share>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// A place, unless there is none, or the rest is others'.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let shares = self.places.shares();
        let taken: Vec<usize> =
            shares.iter().filter_map(Weak::upgrade).map(|share| share.taken.load(Relaxed)).collect();
        let kept = self.places.most / 2 / (taken.len() + 1);
        let own = self.taken.load(Relaxed);
        // What others would still find, one that is not there yet among them. It itself is one of all.
        let owed: usize = taken.iter().map(|taken| kept.saturating_sub(*taken)).sum();
        let owed = kept + owed - kept.saturating_sub(own);
        let free = self.places.most.saturating_sub(taken.iter().sum());
        let may = if own < kept { free > 0 } else { free > owed };
        may.then(|| {
            self.taken.fetch_add(1, Relaxed);
            Place(Arc::clone(self))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(share: &Arc<Share>) -> Vec<Place> {
        std::iter::from_fn(|| share.take()).collect()
    }

    #[test]
    fn a_plugin_leaves_others_their_part() {
        let places = Places::new(100);
        let (greedy, modest) = (places.share("greedy"), places.share("modest"));
        assert!(Arc::ptr_eq(&modest, &places.share("modest")), "one of its name");
        // 50 are kept apart, for the two and for one that is not there yet.
        let taken = all(&greedy);
        assert_eq!(taken.len(), 100 - 2 * 16);
        assert_eq!(all(&modest).len(), 16, "as many as if the other one were not there");
        let late = places.share("late");
        assert_eq!(all(&late).len(), 12, "an eighth of all");
        drop(taken);
        assert_eq!(all(&modest).len(), 100 - 3 * 12);
        assert_eq!(all(&modest).len(), 100 - 3 * 12, "those were given back");
    }

    #[test]
    fn one_alone_has_nearly_all() {
        let places = Places::new(100);
        assert_eq!(all(&places.share("only")).len(), 75);
        assert_eq!(all(&places.share("other")).len(), 75, "the first one is gone");
    }
}
