//! `run`: the daemon.

use super::{Exit, logging};
use crate::{
    config::{self, LogFormat, LogLevel, Source},
    metrics::names,
    server::{self, ConfigSource, Options, Running, StartError},
};
use clap::Args;
use std::{
    io::Write as _,
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::interval,
};
use tracing_appender::non_blocking::ErrorCounter;

/// `run -c FILE`, or `run --to PORT`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["config", "to"]))]
pub(super) struct Run {
    /// The configuration file; it is followed while the gateway runs
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// No file: pass everything on to this local port, or to HOST:PORT
    #[arg(long, value_name = "PORT", value_parser = target)]
    to: Option<String>,
    /// Where `--to` listens: a port, for IPv6 and IPv4, or ADDRESS:PORT
    #[arg(long, value_name = "PORT", default_value = "8080", conflicts_with = "config", value_parser = address)]
    listen: SocketAddr,
}

/// A port on every address of this machine, or `address:port`.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<u16>() {
        Ok(port) => Ok((Ipv6Addr::UNSPECIFIED, port).into()),
        Err(_) => text.parse().map_err(|_| "expected a port, or an address such as [::1]:8080".to_owned()),
    }
}

/// A port of this machine, or `host:port`.
pub(super) fn target(text: &str) -> Result<String, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(format!("127.0.0.1:{port}")),
        _ if config::host_port(text).is_some() => Ok(text.to_owned()),
        _ => Err("expected a port, or HOST:PORT".to_owned()),
    }
}

impl Run {
    pub(super) fn run(self) -> Exit {
        let options = self.options();
        let (format, level) = log_settings(&options.source);
        let (_flush, lost) = logging::start(format, level);
        raise_file_limit();
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return cannot_start(&error, Exit::Machine),
        };
        // The signals are caught before anything is there that a signal could cut.
        let signals = runtime.block_on(async { Signals::catch() });
        let signals = match signals {
            Ok(signals) => signals,
            Err(error) => return cannot_start(&error, Exit::Machine),
        };
        match server::start(options) {
            Ok(running) => {
                runtime.block_on(follow(running, signals, &lost));
                // Where nobody waits any longer, a thread still does.
                runtime.shutdown_background();
                Exit::Fine
            }
            Err(error @ StartError::Config(_)) => cannot_start(&error, Exit::BadConfig),
            Err(error @ StartError::Bind { .. }) => cannot_start(&error, Exit::Unavailable),
            Err(error @ (StartError::Registry(_) | StartError::Host(_) | StartError::Thread(_))) => {
                cannot_start(&error, Exit::Machine)
            }
        }
    }

    fn options(&self) -> Options {
        match (&self.config, &self.to) {
            (Some(path), _) => Options::file(path),
            (None, to) => {
                let to = to.as_deref().unwrap_or_default();
                let text = format!(
                    "[[listener]]\naddress = \"{}\"\n[[route]]\nname = \"bridge\"\nto = \"{to}\"\n",
                    self.listen
                );
                Options { source: ConfigSource::Text { name: "--to".to_owned(), text }, watch: false }
            }
        }
    }
}

/// The file says how to log, but what is wrong with it must be said too: a file that cannot be read
/// logs as one that says nothing.
fn log_settings(source: &ConfigSource) -> (LogFormat, LogLevel) {
    let source = match source {
        ConfigSource::File(path) => Source::read(path).ok(),
        ConfigSource::Text { name, text } => Some(Source::new(name, text)),
    };
    let config = source.and_then(|source| config::parse(&source, &|name| std::env::var(name).ok()).ok());
    config.map_or_else(Default::default, |config| (config.log.format, config.log.level))
}

/// Every connection is a file, and the limit that a login shell gives is one for people.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

struct Signals {
    hang_up: Signal,
    ends: Ends,
}

/// The signals that say stop.
pub(super) struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        let ends = Ends::catch()?;
        Ok(Self { hang_up: signal(SignalKind::hangup())?, ends })
    }
}

impl Ends {
    pub(super) fn catch() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How often lost lines of the log are counted.
const COUNT: Duration = Duration::from_secs(1);

/// Does what signals say, until one says stop. A second one ends the wait.
async fn follow(running: Running, signals: Signals, lost: &ErrorCounter) {
    let Signals { mut hang_up, mut ends } = signals;
    let dropped = running.metrics().counter(&names::LOG_LINES_DROPPED, &[]);
    let mut counted = 0;
    let mut tick = interval(COUNT);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let now = lost.dropped_lines() as u64;
                dropped.add(now - counted);
                counted = now;
            }
            // The outcome is logged where it happens.
            _ = hang_up.recv() => drop(running.reload().await),
            () = ends.recv() => break,
        }
    }
    tokio::select! {
        () = running.stop(None) => {}
        () = ends.recv() => tracing::warn!("told twice to stop: not waiting any longer"),
    }
}

fn cannot_start(error: &dyn std::fmt::Display, exit: Exit) -> Exit {
    let mut stderr = std::io::stderr();
    let text = error.to_string();
    let _ =
        if text.contains("error:") { writeln!(stderr, "{text}") } else { writeln!(stderr, "error: {text}") };
    exit
}
