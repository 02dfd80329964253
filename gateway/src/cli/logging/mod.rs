//! Where log lines go: to standard error, written by a thread of its own.

mod terminal;

use crate::config::{LogFormat, LogLevel};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging. Lines are lost rather than waited for when standard error is slower than the
/// traffic, and counted. Dropping the guard writes what is left.
pub(super) fn start(format: LogFormat, level: LogLevel) -> (WorkerGuard, ErrorCounter) {
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).thread_name("vers-log").finish(std::io::stderr());
    let lost = writer.error_counter();
    // VERS_LOG takes the finer directives of tracing, for whoever debugs the gateway itself.
    let filter = EnvFilter::try_from_env("VERS_LOG").unwrap_or_else(|_| EnvFilter::new(level.as_str()));
    match format {
        LogFormat::Json => json(writer, filter),
        LogFormat::Human => human(writer, filter),
    }
    (guard, lost)
}

/// Starts logging for somebody who works on a plugin: requests, and what goes wrong, without time and place. Dropping the
/// guard writes what is left.
pub(super) fn start_for_a_terminal() -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default().thread_name("vers-log").finish(std::io::stderr());
    let filter = EnvFilter::try_from_env("VERS_LOG").unwrap_or_else(|_| EnvFilter::new("warn,access=info"));
    let log = fmt().with_ansi(is_coloured()).without_time().with_target(false).fmt_fields(terminal::Lines);
    let _ = log.with_env_filter(filter).with_writer(writer).try_init();
    guard
}

fn json(writer: NonBlocking, filter: EnvFilter) {
    // Started twice only in tests, where the first one stays.
    let _ = fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(writer)
        .try_init();
}

fn human(writer: NonBlocking, filter: EnvFilter) {
    let _ = fmt().with_ansi(is_coloured()).with_env_filter(filter).with_writer(writer).try_init();
}

fn is_coloured() -> bool {
    use std::io::IsTerminal as _;
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
