//! `[gateway] state_dir`: what the gateway keeps from one start to the next.

use super::Inputs;
use super::private::write_private;
use crate::{config::Config, tls::Authority};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folder of what the gateway keeps, and whether it may be written to.
pub(super) struct StateDir {
    path: PathBuf,
    keep: bool,
}

impl StateDir {
    pub(super) fn of(config: &Config, inputs: &Inputs<'_>) -> Self {
        Self { path: state_dir(config, inputs.base, inputs.env), keep: inputs.keep_state }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The authority of self-signed certificates: the one that is there, or a new one.
    pub(super) fn authority(&self) -> Result<Authority, String> {
        let folder = self.path.join("authority");
        let (certificate, key) = (folder.join("ca.pem"), folder.join("ca-key.pem"));
        match (fs::read_to_string(&certificate), fs::read_to_string(&key)) {
            (Ok(certificate), Ok(key)) => Authority::from_pem(&certificate, &key)
                .map_err(|error| format!("the authority in {} cannot be used: {error}", folder.display())),
            (Err(error), _) | (_, Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("the authority in {} cannot be read: {error}", folder.display()))
            }
            _ => {
                let authority = Authority::generate().map_err(|error| error.to_string())?;
                if self.keep {
                    // The certificate last: where it is, the key is.
                    write_private(&key, &authority.key())
                        .and_then(|()| write_private(&certificate, authority.certificate()))
                        .map_err(|error| {
                            format!("the authority cannot be kept in {}: {error}", folder.display())
                        })?;
                    tracing::info!(
                        file = %certificate.display(),
                        "made an authority for self-signed certificates: tell browsers and clients to trust this file"
                    );
                }
                Ok(authority)
            }
        }
    }
}

/// The folder of what a gateway with this configuration keeps, which is in the folder `base`.
pub fn state_dir(config: &Config, base: &Path, env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    config.gateway.state_dir.as_ref().map_or_else(|| default_state_dir(env), |path| base.join(path))
}

/// The one of a gateway whose configuration names none.
pub fn default_state_dir(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd lists several with colons; the first is as good as any.
    let of_service = set("STATE_DIRECTORY").map(|list| match list.to_string_lossy().split_once(':') {
        Some((first, _)) => PathBuf::from(first),
        None => list,
    });
    let of_user = || set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    of_service.unwrap_or_else(|| of_user().unwrap_or_default().join("vers-gateway"))
}
