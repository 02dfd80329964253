//! Which VM is meant, and where on this machine is kept what is known of VMs.

use std::{
    env, fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// A VM that was named.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Vm {
    pub(super) user: String,
    /// As the platform knows it.
    pub(super) id: String,
    /// As the network knows it.
    pub(super) host: String,
}

impl Vm {
    /// Reads `[USER@]ID` or `[USER@]HOST`.
    pub(super) fn parse(text: &str, domain: Option<&str>) -> Result<Self, String> {
        let (user, name) = text.rsplit_once('@').unwrap_or(("root", text));
        let host = match (name.contains('.'), domain) {
            (true, _) => name.to_owned(),
            (false, Some(domain)) => format!("{name}.{}", domain.trim_matches('.')),
            (false, None) => {
                return Err(format!(
                    "which `{name}`? Say what VMs are named below: --domain vm.example.com, or VERS_DOMAIN"
                ));
            }
        }
        .to_ascii_lowercase();
        // Both become arguments of ssh, and the host the name of a file.
        let is_user = !user.is_empty()
            && !user.starts_with('-')
            && user.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !is_user {
            return Err(format!("`{user}` is no user's name"));
        }
        if host.len() > 253 || !host.split('.').all(is_label) {
            return Err(format!("`{host}` is no host's name"));
        }
        let id = host.split('.').next().unwrap_or_default().to_owned();
        Ok(Self { user: user.to_owned(), id, host })
    }
}

/// RFC 1123 §2.1.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Where keys and host keys are kept; nobody else may read there.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// `$XDG_STATE_HOME/vers-gateway/ssh`, which is `~/.local/state/…` by default.
    pub(super) fn path() -> Result<PathBuf, String> {
        let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let state = state.or_else(|| Some(env::home_dir()?.join(".local/state")));
        let state = state.ok_or("there is no home directory: set XDG_STATE_HOME")?;
        Ok(state.join("vers-gateway").join("ssh"))
    }

    pub(super) fn open() -> Result<Self, String> {
        let path = Self::path()?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn known_hosts(&self) -> PathBuf {
        self.0.join("known_hosts")
    }

    pub(super) fn key_of(&self, host: &str) -> PathBuf {
        self.0.join(format!("{host}.key"))
    }

    /// A file that is not there until somebody makes it.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.0.join(format!("in-{}", std::process::id())))
    }
}

/// A file whose being there says something. It goes with this.
pub(super) struct Mark(PathBuf);

impl Mark {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.exists()
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // Mostly it is not there.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vms() {
        let vm = Vm::parse("45A68069", Some("vm.example.com")).expect("an id");
        assert_eq!((&*vm.user, &*vm.id, &*vm.host), ("root", "45a68069", "45a68069.vm.example.com"));
        let vm = Vm::parse("deploy@a.vm.example.com", None).expect("a host");
        assert_eq!((&*vm.user, &*vm.id, &*vm.host), ("deploy", "a", "a.vm.example.com"));
        for bad in ["a", "-oProxyCommand=x.y", "a.b/../c", "@a.b", "-l@a.b", "a..b", "a b.c"] {
            assert!(Vm::parse(bad, None).is_err(), "{bad}");
        }
    }
}
