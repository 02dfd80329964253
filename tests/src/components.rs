//! Where the compiled components are.

use std::path::{Path, PathBuf};

/// A first-party plugin, a folder of `plugins`: `auth_token`.
pub fn plugin(name: &str) -> PathBuf {
    component(&format!("{name}.wasm"))
}

/// A plugin that misbehaves: a file of `tests/guests/examples`.
pub fn guest(name: &str) -> PathBuf {
    component(&format!("examples/{name}.wasm"))
}

/// A component that answers requests itself: a file of `tests/origins/examples`.
pub fn origin(name: &str) -> PathBuf {
    component(&format!("examples/{name}.wasm"))
}

/// `[plugin.NAME]` with this component. What is added are further keys of it, and tables may follow.
pub fn plugin_table(name: &str, component: &Path, more: &str) -> String {
    format!("[plugin.{name}]\ncomponent = \"{}\"\n{more}\n", component.display())
}

fn component(file: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    let path = target.join("wasm32-wasip2/release").join(file);
    assert!(path.is_file(), "{} is missing; `cargo xtask plugins --guests` builds it", path.display());
    path.canonicalize().expect("the path of a file that is there")
}
