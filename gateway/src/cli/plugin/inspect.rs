//! `plugin inspect`: what a component is, read from its bytes.

use super::{Exit, no, print};
use crate::plugins::{self, Inspection};
use clap::Args;
use serde_json::Value;
use std::{fmt::Write as _, path::PathBuf};

/// `plugin inspect FILE`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Inspect {
    /// The component
    #[arg(value_name = "FILE")]
    component: PathBuf,
    /// Print JSON, with the schema of the settings
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(super) fn run(&self) -> Exit {
        let inspected = super::read(&self.component).and_then(|bytes| {
            plugins::inspect(&self.component.display().to_string(), &bytes).map_err(|error| error.to_string())
        });
        match inspected {
            Ok(found) if self.json => {
                let json = serde_json::to_value(&found).unwrap_or_default();
                print(&format!("{json:#}\n"));
                Exit::Fine
            }
            Ok(found) => {
                print(&describe(&found));
                Exit::Fine
            }
            Err(why) => no(&why),
        }
    }
}

/// What a component is, for a person.
pub(super) fn describe(found: &Inspection) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{name:<10} {value}");
    };
    if let Some(manifest) = &found.manifest {
        row("plugin", &format!("{} {}", manifest.name, manifest.version));
        if !manifest.description.is_empty() {
            row("", &manifest.description);
        }
        row("built with", &manifest.sdk);
    }
    let interface = found.interface.as_deref().unwrap_or("unknown");
    row("interface", &format!("vers:gateway@{interface}"));
    row("hooks", &list(&found.hooks));
    let mut name = "imports";
    for import in &found.imports {
        let short = import.name.strip_prefix("vers:gateway/").unwrap_or(&import.name);
        let short = short.split_once('@').map_or(short, |(short, _)| short);
        match (import.grant, import.is_offered) {
            _ if short == "types" => continue,
            (Some(grant), _) => row(name, &format!("{short:<14} needs {grant}")),
            (None, true) => row(name, short),
            (None, false) => row(name, &format!("{:<14} which this gateway does not offer", import.name)),
        }
        name = "";
    }
    row("size", &format!("{} KiB", found.size.div_ceil(1024)));
    row("sha256", &found.sha256);
    match &found.manifest {
        Some(manifest) => settings(&manifest.config, &mut text),
        None => text.push_str("It does not say what its settings are: no `vers:plugin` section.\n"),
    }
    text
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The keys of the `config` table.
fn settings(schema: &Value, text: &mut String) {
    let Some(keys) = schema["properties"].as_object() else {
        text.push_str("config     any table\n");
        return;
    };
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let width = keys.keys().map(String::len).max().unwrap_or_default();
    let mut title = "config";
    for (key, value) in keys {
        let kind = kind(value);
        let need = if required.contains(&key.as_str()) { ", required" } else { "" };
        let about = value["description"].as_str().unwrap_or_default();
        let line = format!("{title:<10} {key:<width$}  {kind}{need}  {about}");
        text.push_str(line.trim_end());
        text.push('\n');
        title = "";
    }
}

/// What stands at a key, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(Value::to_string).collect::<Vec<_>>().join(" or ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("table of {}", kind(&schema["additionalProperties"]))
        }
        Some("object") => "table".to_owned(),
        Some("integer") => format!("{} to {}", schema["minimum"], schema["maximum"]),
        Some("string") => schema["title"].as_str().unwrap_or("string").to_owned(),
        Some(other) => other.to_owned(),
        None => "anything".to_owned(),
    }
}
