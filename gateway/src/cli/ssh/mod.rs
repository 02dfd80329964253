//! `ssh` and `ssh-config`: OpenSSH to a VM, inside verified TLS, with the key that the platform keeps.

mod key;
mod place;
mod stanza;

pub(super) use stanza::SshConfig;

use super::{Exit, trust::Trust};
use clap::Args;
use key::{Found, Keys, Platform};
use place::{Folder, Vm};
use std::{
    ffi::OsString,
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, ExitStatus},
};

/// `ssh VM [COMMAND…]`.
#[derive(Debug, Args)]
pub(super) struct Ssh {
    /// Get the VM's key, where it is not there yet, and print the file that it is in
    #[arg(long)]
    key: bool,
    /// The VM's id, or its whole host name; USER@ before it for another user than root
    #[arg(value_name = "VM")]
    vm: String,
    /// What to run there; a shell by default
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, conflicts_with = "key")]
    command: Vec<OsString>,
    /// What VMs are named below
    #[arg(long, value_name = "DOMAIN", env = "VERS_DOMAIN")]
    domain: Option<String>,
    #[command(flatten)]
    platform: Platform,
    #[command(flatten)]
    trust: Trust,
}

impl Ssh {
    pub(super) fn run(&self) -> Exit {
        self.go().unwrap_or_else(|message| {
            // Standard error that is closed leaves the exit code to say it.
            let _ = writeln!(std::io::stderr(), "vers-gateway: {message}");
            Exit::No
        })
    }

    fn go(&self) -> Result<Exit, String> {
        let vm = Vm::parse(&self.vm, self.domain.as_deref())?;
        let folder = Folder::open()?;
        let keys = Keys { folder: &folder, platform: &self.platform, trust: &self.trust };
        if self.key {
            let found = keys.find(&vm)?.ok_or_else(|| self.platform.missing())?;
            let printed = writeln!(std::io::stdout(), "{}", found.file().display());
            return printed.map(|()| Exit::Fine).map_err(|error| error.to_string());
        }
        let key = keys.find(&vm)?;
        let session = self.session(&vm, &folder, key.as_ref().map(Found::file))?;
        if session.was_let_in || session.status.code() != Some(REFUSED) {
            return Ok(session.exit());
        }
        // The VM let nobody in. Where its key is another one now, that is why.
        match key {
            Some(Found::Kept(_)) if let Some(file) = keys.renew(&vm)? => {
                self.session(&vm, &folder, Some(&file)).map(|session| session.exit())
            }
            _ => Ok(session.exit()),
        }
    }

    fn session(&self, vm: &Vm, folder: &Folder, key: Option<&Path>) -> Result<Session, String> {
        let let_in = folder.mark();
        let mut ssh = Command::new("ssh");
        for option in stanza::options(folder, &self.trust)? {
            ssh.arg("-o").arg(option);
        }
        // Run by ssh once it is in, and not before.
        ssh.args(["-o", "PermitLocalCommand=yes", "-o"]);
        // ssh replaces what follows a percent sign.
        ssh.arg(format!("LocalCommand=: > {}", stanza::for_shell(let_in.path())?.replace('%', "%%")));
        if let Some(key) = key {
            ssh.args(["-o", "IdentitiesOnly=yes"]).arg("-i").arg(key);
        }
        // ssh looks for options behind the host, too: what is to be run there must not be one.
        ssh.arg("--").arg(format!("{}@{}", vm.user, vm.host)).args(&self.command);
        let status = ssh.status().map_err(|error| format!("ssh cannot be run: {error}"))?;
        Ok(Session { status, was_let_in: let_in.is_set() })
    }
}

/// What ssh ends with where the session itself failed.
const REFUSED: i32 = 255;

/// A session that is over.
struct Session {
    status: ExitStatus,
    was_let_in: bool,
}

impl Session {
    /// What the command ended with, as a shell would say it.
    fn exit(&self) -> Exit {
        let code = self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal));
        Exit::Code(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
    }
}
