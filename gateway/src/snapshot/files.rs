//! The files that a snapshot was made from, and whether one of them has changed since.

use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Files by path, with the hash of what was read; absent where it could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<[u8; 32]>>);

impl Files {
    /// Reads a file and remembers what it held.
    ///
    /// # Errors
    /// Fails as the read does; the file is remembered all the same, so that its appearance counts
    /// as a change.
    pub fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let content = std::fs::read(path);
        self.note(path, content.as_deref().ok());
        content
    }

    /// Remembers what a file held.
    pub fn note(&mut self, path: &Path, content: Option<&[u8]>) {
        self.0.insert(path.to_owned(), content.map(hash));
    }

    /// The hash of what a file held when it was read.
    pub fn hash_of(&self, path: &Path) -> Option<[u8; 32]> {
        self.0.get(path).copied().flatten()
    }

    /// Whether any file holds something else now. Reads them all.
    pub fn changed(&self) -> bool {
        self.0.iter().any(|(path, known)| std::fs::read(path).ok().as_deref().map(hash) != *known)
    }

    /// Their paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}

fn hash(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}
