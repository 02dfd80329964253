//! How OpenSSH gets to a VM: as options, and as a stanza for its configuration, with which scp, rsync,
//! git and ansible get there too.

use super::super::{Exit, trust::Trust};
use super::place::Folder;
use clap::Args;
use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
};

/// `ssh-config`.
#[derive(Debug, Args)]
pub(in super::super) struct SshConfig {
    /// What VMs are named below
    #[arg(long, value_name = "DOMAIN", env = "VERS_DOMAIN")]
    domain: String,
    #[command(flatten)]
    trust: Trust,
}

impl SshConfig {
    pub(in super::super) fn print(&self) -> Exit {
        match self.stanza() {
            Ok(stanza) => match std::io::stdout().write_all(stanza.as_bytes()) {
                Ok(()) => Exit::Fine,
                Err(_) => Exit::No,
            },
            Err(message) => {
                // Standard error that is closed leaves the exit code to say it.
                let _ = writeln!(std::io::stderr(), "vers-gateway: {message}");
                Exit::No
            }
        }
    }

    fn stanza(&self) -> Result<String, String> {
        let folder = Folder::open()?;
        let domain = self.domain.trim_matches('.');
        let gateway = for_shell(&executable()?)?.replace('%', "%%");
        let mut text = format!(
            "# Into ~/.ssh/config: ssh, scp, rsync, git and ansible reach VMs inside TLS, by their names.\n\
             # The first line gets a VM's key from the platform, where VERS_API_URL and VERS_API_KEY are set.\n\
             Match host *.{domain} exec \"{} ssh --key '%h' >/dev/null 2>&1\"\n    IdentityFile {}\n    \
             IdentitiesOnly yes\nHost *.{domain}\n    User root\n",
            gateway.replace('"', "\\\""),
            // What ssh puts the host's name in for.
            quoted(&folder.key_of("HOST")).replace("HOST.key", "%h.key"),
        );
        for option in options(&folder, &self.trust)? {
            let (name, value) = option.split_once('=').unwrap_or((&option, ""));
            text.push_str(&format!("    {name} {value}\n"));
        }
        Ok(text)
    }
}

/// What ssh must be told about VMs.
pub(super) fn options(folder: &Folder, trust: &Trust) -> Result<[String; 3], String> {
    let mut proxy = for_shell(&executable()?)?;
    proxy.push_str(" connect");
    if let Some(ca) = &trust.ca {
        let ca = std::path::absolute(ca).map_err(|error| format!("{}: {error}", ca.display()))?;
        proxy = format!("{proxy} --ca {}", for_shell(&ca)?);
    }
    Ok([
        // ssh replaces what follows a percent sign. In quotes: some versions take host names of any
        // characters, and git takes them from others.
        format!("ProxyCommand={} '%h':443", proxy.replace('%', "%%")),
        // The first key that a VM shows is written down; from then on no other one is taken.
        "StrictHostKeyChecking=accept-new".to_owned(),
        format!("UserKnownHostsFile={}", quoted(&folder.known_hosts())),
    ])
}

/// A path as a word of a shell's command.
pub(super) fn for_shell(path: &Path) -> Result<String, String> {
    let text = path.to_str().ok_or_else(|| format!("{}: not a path that ssh can be told", path.display()))?;
    shlex::try_quote(text).map(Into::into).map_err(|error| format!("{text:?}: {error}"))
}

/// A path as a value of ssh's configuration.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

fn executable() -> Result<PathBuf, String> {
    env::current_exe().map_err(|error| format!("where is this program? {error}"))
}
