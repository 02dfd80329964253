//! `check`: everything that a start would find wrong, plugins included, without opening a port.

use super::Exit;
use crate::server;
use clap::Args;
use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
};

/// `check -c FILE`.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

impl Check {
    pub(super) fn run(&self) -> Exit {
        let mut stderr = std::io::stderr();
        let color = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        // Standard error that is closed leaves the exit code to say it.
        match server::check(&self.config, color) {
            Ok(checked) => {
                let _ = write!(stderr, "{}", checked.warnings);
                let _ = writeln!(stderr, "{}: fine: {}", self.config.display(), checked.summary);
                Exit::Fine
            }
            Err(error) => {
                let _ = writeln!(stderr, "{error}");
                Exit::No
            }
        }
    }
}
