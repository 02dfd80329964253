//! Proofs by a file on port 80 (RFC 8555 §8.3), while there are any.

use std::{
    collections::HashMap,
    sync::{
        RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Where an authority looks.
const FOLDER: &str = "/.well-known/acme-challenge/";

/// What authorities find on port 80.
///
/// A lock, but one that nobody takes while no order is under way, and then only who asks below one path.
#[derive(Debug, Default)]
pub struct Tokens {
    count: AtomicUsize,
    contents: RwLock<HashMap<Box<str>, Box<str>>>,
}

impl Tokens {
    /// What an authority is answered that asks for this path; none where no order has to do with it.
    pub fn answer(&self, path: &str) -> Option<Box<str>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let token = path.strip_prefix(FOLDER)?;
        self.contents.read().ok()?.get(token).cloned()
    }

    /// Shows a proof.
    pub fn put(&self, token: &str, content: &str) {
        if let Ok(mut contents) = self.contents.write() {
            contents.insert(token.into(), content.into());
            self.count.store(contents.len(), Ordering::Release);
        }
    }

    /// Does not show it any more.
    pub fn remove(&self, token: &str) {
        if let Ok(mut contents) = self.contents.write() {
            contents.remove(token);
            self.count.store(contents.len(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_shown_at_its_path_and_for_its_time() {
        let tokens = Tokens::default();
        let path = "/.well-known/acme-challenge/abc";
        assert_eq!(tokens.answer(path), None);
        tokens.put("abc", "abc.thumb");
        assert_eq!(tokens.answer(path).as_deref(), Some("abc.thumb"));
        for other in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/ab", "/abc", "abc"] {
            assert_eq!(tokens.answer(other), None, "{other}");
        }
        tokens.remove("abc");
        assert_eq!(tokens.answer(path), None);
    }
}
