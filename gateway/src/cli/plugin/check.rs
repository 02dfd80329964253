//! `plugin check`: what a gateway would find wrong with a component, and with its settings.

use super::{Exit, no, stage::Stage, tell};
use crate::{
    config::{self, Diagnostic, PluginCases, Source},
    plugins::LoadError,
};
use clap::Args;
use std::{io::IsTerminal as _, path::PathBuf};

/// `plugin check [FILE] [-c TABLE]`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    /// The component; by default the crate in this folder is built
    #[arg(value_name = "FILE")]
    component: Option<PathBuf>,
    /// A TOML file that is what stands in the plugin's `config` table
    #[arg(short, long, value_name = "TABLE")]
    config: Option<PathBuf>,
}

impl Check {
    pub(super) fn run(&self) -> Exit {
        match self.check() {
            Ok(words) => {
                tell(&words);
                Exit::Fine
            }
            Err(why) => no(&why),
        }
    }

    fn check(&self) -> Result<String, String> {
        let file = super::component(self.component.as_deref())?;
        let stage = Stage::open(&file)?;
        let found = stage.inspection();
        let what = format!("{}: fine: {}", file.display(), super::count(found.hooks.len(), "hook"));
        let grants: Vec<&str> = found.imports.iter().filter_map(|import| import.grant).collect();
        let needs = match grants.as_slice() {
            [] => String::new(),
            grants => format!(", needs {}", grants.join(" and ")),
        };
        let Some(table) = &self.config else {
            // Linked, but not configured: what its settings are, only their author knows.
            stage.link("{}", &PluginCases::default(), &[]).map_err(|error| error.to_string())?;
            return Ok(format!("{what}{needs}; its settings were not tried (-c TABLE)"));
        };
        let source =
            Source::read(table).map_err(|error| format!("cannot read {}: {error}", table.display()))?;
        let shown = |diagnostics: &[Diagnostic]| {
            let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let text = config::render(&source, diagnostics, color);
            format!("the settings are refused\n{}", text.trim_end())
        };
        let settings = config::plugin_table(&source).map_err(|error| shown(&[*error]))?;
        match stage.start(&settings.to_json(), &PluginCases::default(), &[]) {
            Ok(_) => Ok(format!("{what}{needs}; its settings are accepted")),
            Err(LoadError::Config(problems)) => {
                let diagnostics: Vec<_> = problems
                    .into_iter()
                    .map(|problem| {
                        let span = settings.span_of(&problem.path).unwrap_or(0..source.text.len().min(1));
                        let at = if problem.path.is_empty() { "" } else { ": " };
                        Diagnostic::error(span, format!("{}{at}{}", problem.path, problem.message))
                            .label("refused by the plugin")
                    })
                    .collect();
                Err(shown(&diagnostics))
            }
            Err(error) => Err(super::stage::words(&error)),
        }
    }
}
