//! Where a component is tried: a gateway in this process, or one that runs already.

use super::{alone::Alone, remote::Remote};
use crate::server::{self, ConfigSource, Options, Reloaded, Running};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long requests may take that are on their way at the end.
const GRACE: Duration = Duration::from_secs(2);

/// Where a component is tried.
pub(super) enum Place {
    /// Here.
    Own {
        /// Its configuration: a file, or what is made of the plugin.
        configuration: Configuration,
        /// Once it has started.
        running: Option<Running>,
    },
    /// Elsewhere.
    Remote(Remote),
}

/// What an own gateway is configured by.
pub(super) enum Configuration {
    File(PathBuf),
    Alone(Alone),
}

impl Place {
    /// A gateway with this file.
    pub(super) fn configured(file: PathBuf) -> Self {
        Self::Own { configuration: Configuration::File(file), running: None }
    }

    /// A gateway with nothing but the plugin.
    pub(super) fn alone(folder: &Path, to: &str, listen: SocketAddr) -> Self {
        Self::Own { configuration: Configuration::Alone(Alone::new(folder, to, listen)), running: None }
    }

    /// The files that it is configured by.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Own { configuration: Configuration::File(file), .. } => vec![file.clone()],
            Self::Own { configuration: Configuration::Alone(alone), .. } => vec![alone.cases()],
            Self::Remote(_) => Vec::new(),
        }
    }

    /// Takes a component over, and says what has come of it.
    ///
    /// # Errors
    /// Says why it was not, where the log has not.
    pub(super) async fn take(&mut self, component: &Path) -> Result<String, String> {
        match self {
            Self::Remote(remote) => remote.take(component).await,
            Self::Own { configuration, running } => {
                let file = match configuration {
                    Configuration::File(file) => file.clone(),
                    Configuration::Alone(alone) => alone.write(component)?,
                };
                if let Some(running) = running {
                    return match running.reload().await {
                        Ok(Reloaded::Swapped(_)) => Ok("runs now".to_owned()),
                        Ok(Reloaded::Unchanged(_)) => Ok("the same as before".to_owned()),
                        // The log says why.
                        Err(_) => Err("the one before it goes on".to_owned()),
                    };
                }
                let options = Options { source: ConfigSource::File(file), watch: false };
                let started = tokio::task::spawn_blocking(|| server::start(options)).await;
                let started = started.map_err(|error| error.to_string())?;
                let started = started.map_err(|error| format!("no gateway with it starts\n{error}"))?;
                let said = addresses(&started);
                *running = Some(started);
                Ok(said)
            }
        }
    }

    /// Lets the requests end that are on their way.
    pub(super) async fn stop(self) {
        if let Self::Own { running: Some(running), .. } = self {
            running.stop(Some(GRACE)).await;
        }
    }
}

fn addresses(running: &Running) -> String {
    let listeners: Vec<_> = running.listeners().iter().map(|(_, address)| address.to_string()).collect();
    format!("runs on {}", listeners.join(", "))
}
