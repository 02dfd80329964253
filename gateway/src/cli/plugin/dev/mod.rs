//! `plugin dev`: the plugin in this folder on a gateway, as its sources stand now.

mod alone;
mod place;
mod remote;
mod sources;

use super::{
    super::{
        logging,
        run::{self, Ends},
    },
    Exit, build, no, tell,
};
use crate::server::FileWatch;
use clap::Args;
use place::Place;
use sources::Sources;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Instant,
};

/// `plugin dev [FOLDER] [-c FILE | --to PORT | --admin ADDRESS]`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Dev {
    /// The folder of the crate
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// Run a gateway with this configuration; by default `gateway.toml` of the folder
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["to", "admin"])]
    config: Option<PathBuf>,
    /// Run a gateway with nothing but the plugin, in front of this local port, or of HOST:PORT. Its settings and grants
    /// are those of `tests/cases.toml`
    #[arg(long, value_name = "PORT", value_parser = run::target, conflicts_with = "admin")]
    to: Option<String>,
    /// Where `--to` listens: a port, for IPv6 and IPv4, or ADDRESS:PORT
    #[arg(long, value_name = "PORT", default_value = "8080", value_parser = run::address)]
    listen: SocketAddr,
    /// Run no gateway: let the one with this admin address, ADDRESS:PORT or unix:PATH, take each component over. Its
    /// token, where it has one, is in VERS_ADMIN_TOKEN
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

impl Dev {
    pub(super) fn run(self) -> Exit {
        let _log = logging::start_for_a_terminal();
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return no(&error),
        };
        let exit = runtime.block_on(async {
            let place = match self.place() {
                Ok(place) => place,
                Err(why) => return no(&why),
            };
            match (Ends::catch(), FileWatch::new()) {
                (Ok(ends), Some(watch)) => follow(&self.folder, place, watch, ends).await,
                (Err(error), _) => no(&error),
                (Ok(_), None) => no(&"changes of files cannot be noticed here"),
            }
        });
        // A build that still runs is nobody's any more.
        runtime.shutdown_background();
        exit
    }

    fn place(&self) -> Result<Place, String> {
        if let Some(address) = &self.admin {
            return Ok(Place::Remote(remote::Remote::new(address)?));
        }
        if let Some(to) = &self.to {
            return Ok(Place::alone(&self.folder, to, self.listen));
        }
        let file = self.config.clone().unwrap_or_else(|| self.folder.join("gateway.toml"));
        if !file.is_file() {
            let file = file.display();
            return Err(format!("there is no {file}; name one (-c), or what is behind the plugin (--to)"));
        }
        Ok(Place::configured(file))
    }
}

/// Builds, lets the gateway take the component over, and waits for the next change, until it is told to stop.
async fn follow(folder: &Path, mut place: Place, mut watch: FileWatch, mut ends: Ends) -> Exit {
    let mut sources = Sources::new(folder, place.files());
    loop {
        // Read before they are built: what changes meanwhile is a reason to build again.
        let mut seen = sources.read();
        watch.set(seen.paths());
        let round = async {
            match round(folder, &mut place).await {
                Ok(component) => {
                    sources.learn(&component, &mut seen);
                    watch.set(seen.paths());
                }
                Err(why) => tell(&format_args!("error: {why}; waiting for a change")),
            }
            loop {
                watch.changed().await;
                let now = sources.read();
                watch.set(now.paths());
                if now != seen {
                    return;
                }
            }
        };
        tokio::select! {
            () = round => {}
            () = ends.recv() => break,
        }
    }
    place.stop().await;
    Exit::Fine
}

/// Builds once, and lets the gateway take over what was built.
async fn round(folder: &Path, place: &mut Place) -> Result<PathBuf, String> {
    let began = Instant::now();
    let of_thread = folder.to_owned();
    let built = tokio::task::spawn_blocking(move || build::component_quietly(&of_thread)).await;
    let component = built.map_err(|error| error.to_string())??;
    let built = began.elapsed();
    let outcome = place.take(&component).await?;
    let size = std::fs::metadata(&component).map_or(0, |file| file.len().div_ceil(1024));
    let name = component.file_name().unwrap_or_default().to_string_lossy();
    tell(&format_args!("{name}: {size} KiB, built in {:.1} s: {outcome}", built.as_secs_f64()));
    Ok(component)
}
