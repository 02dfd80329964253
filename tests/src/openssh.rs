//! An account on a VM, for OpenSSH's own server and client.

use crate::{
    namespace::must_run,
    skip::{has, skipped},
};
use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

/// OpenSSH's server, where Debian and most others have it.
pub const SSHD: &str = "/usr/sbin/sshd";

/// The account of whoever runs the test, which a key opens.
#[derive(Debug)]
pub struct Account(tempfile::TempDir);

impl Account {
    /// Makes the keys of both sides. None, with a word about it, where the server cannot be run.
    ///
    /// # Panics
    /// Panics where there is no `ssh-keygen`.
    pub fn new(test: &str) -> Option<Self> {
        if !has(test, &[SSHD]) {
            return None;
        }
        // The server gives up its rights in there, and wants it.
        if fs::create_dir_all("/run/sshd").is_err() {
            skipped(test, "only root can run sshd");
            return None;
        }
        let account = Self(tempfile::tempdir().expect("a folder"));
        for name in ["host", "user"] {
            let file = account.at(name).display().to_string();
            must_run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &file]);
        }
        fs::copy(account.at("user.pub"), account.at("authorized")).expect("a key that is let in");
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(account.at("authorized"), private).expect("it is private");
        let config = format!(
            "HostKey {host}\nAuthorizedKeysFile {keys}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
             PidFile none\nSubsystem sftp internal-sftp\n",
            host = account.at("host").display(),
            keys = account.at("authorized").display()
        );
        fs::write(account.server_config(), config).expect("its configuration");
        Some(account)
    }

    /// A file or folder of this account.
    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The server's configuration.
    pub fn server_config(&self) -> PathBuf {
        self.at("sshd_config")
    }

    /// The key that opens the account.
    pub fn key(&self) -> PathBuf {
        self.at("user")
    }

    /// What a client must be told to log in, and to ask nobody, as lines of its configuration.
    pub fn client_options(&self) -> [String; 5] {
        [
            format!("UserKnownHostsFile={}", self.at("known_hosts").display()),
            format!("IdentityFile={}", self.key().display()),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=accept-new".to_owned(),
            "BatchMode=yes".to_owned(),
        ]
    }
}
