//! `explain`: which listener, route, plugins and backend a request would meet, and why no others.

mod answers;
mod plugins;
mod request;
mod show;
mod story;
mod vm;

use super::Exit;
use crate::{ids::ClientAddr, server};
use clap::Args;
use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
};

/// `explain -c FILE METHOD URL [-H 'NAME: VALUE']…`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// The request's method
    method: String,
    /// What is asked for: a URL as clients have it, or only a path
    url: String,
    /// A header of the request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The listener that the request comes to, by name or address; by default one with the port of the URL
    #[arg(long, value_name = "LISTENER")]
    listener: Option<String>,
    /// The address that the request comes from
    #[arg(long, value_name = "ADDRESS", default_value = "::1")]
    client: ClientAddr,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(&self) -> Exit {
        let mut stderr = std::io::stderr();
        let color = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        // Standard error that is closed leaves the exit code to say it.
        let prepared = match server::prepare(&self.config, color) {
            Ok(prepared) => prepared,
            Err(error) => {
                let _ = writeln!(stderr, "{error}");
                return Exit::No;
            }
        };
        let _ = write!(stderr, "{}", prepared.warnings);
        let told = request::Asked::new(&self.method, &self.url, &self.headers, self.client)
            .and_then(|asked| story::tell(&prepared, &asked, self.listener.as_deref()));
        match told {
            Ok(story) => {
                let text = if self.json {
                    format!("{:#}\n", serde_json::to_value(&story).unwrap_or_default())
                } else {
                    show::text(&story)
                };
                // A reader that has seen enough is no failure.
                let _ = std::io::stdout().write_all(text.as_bytes());
                if story.leads_somewhere() { Exit::Fine } else { Exit::No }
            }
            Err(why) => {
                let _ = writeln!(stderr, "error: {why}");
                Exit::No
            }
        }
    }
}
