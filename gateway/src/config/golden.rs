//! Runs the files of `tests/config`: every one in `valid` is accepted, every one in `invalid` is
//! refused in exactly the words of the `.stderr` beside it. `BLESS=1` writes the words down.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{Config, Diagnostic, Source, parse, render};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/config").join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no files in {}", folder.display());
    files
}

/// The only variable that is set for these files.
fn vars(name: &str) -> Option<String> {
    (name == "VERS_VM_ID").then(|| "vm-1".to_owned())
}

fn parsed(path: &Path) -> (Source, Result<Config, Vec<Diagnostic>>) {
    let mut source = Source::read(path).expect("a readable file");
    source.name = path.file_name().expect("a file").to_string_lossy().into_owned();
    let result = parse(&source, &vars);
    (source, result)
}

/// Compares with the `.stderr` beside a file; where there is none, nothing must be said.
fn compare(path: &Path, said: &str) {
    let golden = path.with_extension("stderr");
    if env::var_os("BLESS").is_some() && (!said.is_empty() || golden.exists()) {
        fs::write(&golden, said).expect("a writable file");
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(said, expected, "{}: to accept, run again with BLESS=1", path.display());
}

#[test]
fn valid_files_are_accepted() {
    for path in files("valid") {
        let (source, result) = parsed(&path);
        match result {
            Ok(config) => compare(&path, &render(&source, &config.warnings, false)),
            Err(errors) => panic!("{}", render(&source, &errors, false)),
        }
    }
}

#[test]
fn invalid_files_are_refused_in_these_words() {
    for path in files("invalid") {
        let (source, result) = parsed(&path);
        let errors = result.err().unwrap_or_else(|| panic!("{} was accepted", path.display()));
        assert!(!errors.is_empty(), "{} was refused without a word", path.display());
        compare(&path, &render(&source, &errors, false));
    }
}
