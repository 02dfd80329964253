//! From a configuration file to a snapshot, or to the text that says why not.

use super::StartError;
use crate::{
    config::{self, Diagnostic, Source},
    metrics::Metrics,
    plugins::{Host, Services},
    snapshot::{self, Files, Inputs, Outbound, Snapshot},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where a configuration is.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    /// In this file.
    File(PathBuf),
    /// Here; relative paths start from the working folder.
    Text {
        /// The name in messages.
        name: String,
        /// The TOML.
        text: String,
    },
}

/// A configuration that cannot be run.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// Everything that is wrong, each with its place, ready to print.
    pub text: String,
    /// How many errors there are.
    pub errors: usize,
}

/// What loading ended with, and the files that were looked at on the way.
pub(super) struct Loaded {
    pub(super) result: Result<Snapshot, Refused>,
    /// What is probably not as it was meant, ready to print; empty where there is nothing.
    pub(super) warnings: String,
    pub(super) files: Files,
}

/// Reads and builds a configuration. Unchanged parts of the previous snapshot are used again.
pub(super) async fn load(
    source: &ConfigSource,
    previous: Option<&Snapshot>,
    host: &Arc<Host>,
    services: Arc<dyn Services>,
    (color, keep_state): (bool, bool),
) -> Loaded {
    let mut files = Files::default();
    let (source, base) = match read(source, &mut files) {
        Ok(read) => read,
        Err(refused) => return Loaded { result: Err(refused), warnings: String::new(), files },
    };
    let refused = |diagnostics: &[Diagnostic]| Refused {
        text: config::render(&source, diagnostics, color),
        errors: diagnostics.len(),
    };
    let env = |name: &str| std::env::var(name).ok();
    let config = match config::parse(&source, &env) {
        Ok(config) => config,
        Err(diagnostics) => {
            return Loaded { result: Err(refused(&diagnostics)), warnings: String::new(), files };
        }
    };
    let rendered = |warnings: &[Diagnostic]| match warnings {
        [] => String::new(),
        warnings => config::render(&source, warnings, color),
    };
    let default_workers = std::thread::available_parallelism().map_or(1, usize::from);
    let inputs =
        Inputs { base: &base, env: &env, host: Arc::clone(host), services, keep_state, default_workers };
    match snapshot::build(&config, previous, files, &inputs).await {
        Ok(snapshot) => Loaded {
            files: snapshot.files.clone(),
            warnings: rendered(&[&*config.warnings, &*snapshot.warnings].concat()),
            result: Ok(snapshot),
        },
        Err(problems) => Loaded {
            result: Err(refused(&problems.diagnostics)),
            warnings: rendered(&config.warnings),
            files: problems.files,
        },
    }
}

fn read(source: &ConfigSource, files: &mut Files) -> Result<(Source, PathBuf), Refused> {
    match source {
        ConfigSource::Text { name, text } => Ok((Source::new(name, text), PathBuf::new())),
        ConfigSource::File(path) => {
            let read = Source::read(path);
            files.note(path, read.as_ref().ok().map(|source| source.text.as_bytes()));
            let source = read.map_err(|error| Refused {
                text: format!("error: cannot read {}: {error}", path.display()),
                errors: 1,
            })?;
            Ok((source, path.parent().unwrap_or(Path::new("")).to_owned()))
        }
    }
}

/// A configuration that can be run, and is not: for whoever only has a question.
#[derive(Debug)]
pub struct Prepared {
    /// What a gateway would run on.
    pub snapshot: Snapshot,
    /// The sandbox of its plugins.
    pub host: Arc<Host>,
    /// What is probably not as it was meant, ready to print; empty where there is nothing.
    pub warnings: String,
}

/// Does everything that a start would do before it opens a port.
///
/// # Errors
/// Fails with everything that is wrong, and where the sandbox cannot be set up.
pub fn prepare(path: &Path, color: bool) -> Result<Prepared, StartError> {
    let host = Arc::new(Host::new(&Arc::new(Metrics::new()))?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| StartError::Thread(error.to_string()))?;
    let source = ConfigSource::File(path.to_owned());
    let loaded = runtime
        .block_on(async { load(&source, None, &host, Arc::new(Outbound::default()), (color, false)).await });
    let snapshot = loaded.result.map_err(StartError::Config)?;
    Ok(Prepared { snapshot, host, warnings: loaded.warnings })
}

/// What [`check`] found in a configuration that can be run.
#[derive(Debug)]
pub struct Checked {
    /// What is probably not as it was meant, ready to print; empty where there is nothing.
    pub warnings: String,
    /// What the configuration consists of, in a line.
    pub summary: String,
}

/// Does everything that a start would do before it opens a port.
///
/// # Errors
/// Fails with everything that is wrong, and where the sandbox cannot be set up.
pub fn check(path: &Path, color: bool) -> Result<Checked, StartError> {
    let Prepared { snapshot, warnings, .. } = prepare(path, color)?;
    let count =
        |number: usize, thing: &str| format!("{number} {thing}{}", if number == 1 { "" } else { "s" });
    let parts = [
        count(snapshot.listeners.len(), "listener"),
        count(snapshot.routes.len(), "route"),
        count(snapshot.plugins.len(), "plugin"),
    ];
    Ok(Checked { warnings, summary: parts.join(", ") })
}
