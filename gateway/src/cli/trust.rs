//! `--ca`: whom the command line believes.

use crate::tls::{DialError, Roots};
use clap::Args;
use std::path::PathBuf;

/// Whom to believe, besides the certificate authorities of this machine.
#[derive(Debug, Clone, Args)]
pub(super) struct Trust {
    /// A certificate authority that is believed as well, in PEM
    #[arg(long, value_name = "FILE", env = "VERS_CA_FILE")]
    pub(super) ca: Option<PathBuf>,
}

impl Trust {
    /// The machine's authorities, and the one of the option.
    pub(super) fn roots(&self) -> Result<Roots, String> {
        let (pem, place) = match &self.ca {
            Some(file) => {
                let pem = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
                (pem, format!("{}: ", file.display()))
            }
            None => (Vec::new(), String::new()),
        };
        Roots::with(&pem).map_err(|error| format!("{place}{error}"))
    }

    /// What could help where nobody vouches for a server.
    pub(super) fn hint(&self, error: &DialError) -> &'static str {
        let is_unknown =
            matches!(error, DialError::Handshake(error) if error.to_string().contains("UnknownIssuer"));
        if is_unknown { "; if it is your own authority, name its certificate with --ca FILE" } else { "" }
    }
}
