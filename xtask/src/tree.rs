//! Where things are: the checkout and what is built from it.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    // Cargo says where this crate is now; the path at compile time is for a program started by hand.
    let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&xtask).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => here.join(dir),
        None => root().join("target"),
    }
}

/// Where the components are.
pub(crate) fn components() -> PathBuf {
    target().join("wasm32-wasip2/release")
}

/// The gateway as the demo and the tests build it.
pub(crate) fn gateway() -> PathBuf {
    target().join("debug/vers-gateway")
}

/// A path as a person at the current folder would write it.
pub(crate) fn shown(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
