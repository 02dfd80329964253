//! The files that a component is made from.

use crate::snapshot::Files;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Files below `src` that are looked at: a tree with more is no plugin's.
const MOST: usize = 2_000;

/// Which files a component is made from: those of its crate, and those that cargo says it has read.
#[derive(Debug)]
pub(super) struct Sources {
    folder: PathBuf,
    others: BTreeSet<PathBuf>,
}

impl Sources {
    /// Those of the crate in this folder, and these.
    pub(super) fn new(folder: &Path, others: Vec<PathBuf>) -> Self {
        Self { folder: folder.to_owned(), others: others.into_iter().collect() }
    }

    /// What they hold now.
    pub(super) fn read(&self) -> Files {
        let mut paths = self.others.clone();
        paths.extend(["Cargo.toml", "build.rs"].map(|name| self.folder.join(name)));
        below(&self.folder.join("src"), &mut paths);
        let mut files = Files::default();
        note(&paths, &mut files);
        files
    }

    /// Adds what cargo has read for this component, which it says beside it: sources of other crates, such as the SDK
    /// in a checkout, and files that are included.
    pub(super) fn learn(&mut self, component: &Path, seen: &mut Files) {
        let said = fs::read_to_string(component.with_extension("d")).unwrap_or_default();
        let is_known = |path: &PathBuf| seen.paths().any(|known| known == path);
        let new: BTreeSet<PathBuf> = read_files(&said).filter(|path| !is_known(path)).collect();
        note(&new, seen);
        self.others.extend(new);
    }
}

fn note(paths: &BTreeSet<PathBuf>, files: &mut Files) {
    for path in paths {
        // One that is not there is remembered, too.
        let _ = files.read(path);
    }
}

/// All files below a folder, and in each folder one that may not be there: by it, an empty folder is watched.
fn below(folder: &Path, paths: &mut BTreeSet<PathBuf>) {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop().filter(|_| paths.len() < MOST) {
        paths.insert(folder.join("mod.rs"));
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            // A link may lead back here.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => drop(paths.insert(entry.path())),
                Err(_) => {}
            }
        }
    }
}

/// The files in a rule for make: `target: file file\ with\ blanks`.
fn read_files(rules: &str) -> impl Iterator<Item = PathBuf> {
    let files = rules.lines().filter_map(|rule| rule.split_once(": ")).map(|(_, files)| files);
    files.flat_map(|files| {
        let marked = files.replace("\\ ", "\0");
        let names = marked.split(' ').filter(|name| !name.is_empty());
        names.map(|name| PathBuf::from(name.replace('\0', " "))).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_has_read_is_read() {
        let files: Vec<_> =
            read_files("/t/a.wasm: /s/lib.rs /my\\ sdk/lib.rs\n\n/t/b.wasm: /s/b.rs\n").collect();
        assert_eq!(files, ["/s/lib.rs", "/my sdk/lib.rs", "/s/b.rs"].map(PathBuf::from));
    }

    #[test]
    fn new_and_changed_files_are_noticed_and_others_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        write("crate/src/lib.rs", "one");
        write("crate/target/a.d", &format!("a.wasm: {}\n", folder.path().join("sdk.rs").display()));
        write("sdk.rs", "one");
        let mut sources = Sources::new(&folder.path().join("crate"), Vec::new());
        let mut seen = sources.read();
        sources.learn(&folder.path().join("crate/target/a.wasm"), &mut seen);
        assert_eq!(sources.read(), seen, "nothing has changed");
        write("crate/target/other", "");
        assert_eq!(sources.read(), seen, "what is built is no source");
        for (name, text) in [("crate/src/deep/new.rs", ""), ("crate/Cargo.toml", ""), ("sdk.rs", "two")] {
            write(name, text);
            let now = sources.read();
            assert_ne!(now, seen, "{name}");
            seen = now;
        }
    }
}
