//! A map that forgets what was not asked for longest.

use std::{collections::HashMap, hash::Hash};

/// A map of bounded size. It has two halves: what is asked for moves to the young one, and when that is
/// full, the old one is forgotten as a whole. Nothing is counted, linked or timed for each entry.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// At most so many entries, two at least.
    pub(super) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: (most / 2).max(1) }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(found) = self.young.get(key) {
            return Some(found.clone());
        }
        let (key, found) = self.old.remove_entry(key)?;
        self.insert(key, found.clone());
        Some(found)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_is_asked_for_and_never_more_than_it_may() {
        let mut cache = Cache::new(10);
        for n in 0..1000 {
            cache.insert(n, n);
            assert_eq!(cache.get(&0), Some(0), "asked for all the time");
            assert!(cache.len() <= 10, "{}", cache.len());
        }
        assert_eq!(cache.get(&999), Some(999));
        assert_eq!(cache.get(&500), None);
    }
}
