//! `plugin new`: a crate that builds and passes its tests as it is.

use super::{Exit, no, tell};
use clap::Args;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files of a new crate; `{{…}}` in them is filled in.
const FILES: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("src/lib.rs", include_str!("template/lib.rs.in")),
    ("tests/cases.toml", include_str!("template/cases.toml.in")),
    ("gateway.toml", include_str!("template/gateway.toml.in")),
    ("README.md", include_str!("template/README.md.in")),
    (".gitignore", "/target\n"),
];

/// `plugin new NAME`.
#[derive(Debug, Args)]
pub(in crate::cli) struct New {
    /// Name of the crate: lower-case letters, digits and hyphens
    #[arg(value_parser = name)]
    name: String,
    /// The folder to make; by default the name, in this folder
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The SDK is this folder: `plugin-sdk` of a checkout of the gateway; by default the one around this folder,
    /// or in `vers-gateway` beside it
    #[arg(long, value_name = "FOLDER", conflicts_with = "sdk_version")]
    sdk_path: Option<PathBuf>,
    /// The SDK is this version of the crate `vers-plugin`, where a registry of yours has it
    #[arg(long, value_name = "VERSION")]
    sdk_version: Option<String>,
}

/// What cargo, Rust and file systems all take for a name.
fn name(text: &str) -> Result<String, String> {
    let is_part = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
    let is_name = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.ends_with(|last: char| last != '-')
        && text.chars().all(is_part)
        && !text.contains("--");
    // Names that cargo refuses, and that of the SDK.
    let is_taken = ["test", "std", "core", "alloc", "proc-macro", "vers-plugin", "build", "deps", "examples"];
    match is_name && !is_taken.contains(&text) && !is_keyword(text) {
        true => Ok(text.to_owned()),
        false => Err("expected lower-case letters, digits and hyphens, such as `team-check`".to_owned()),
    }
}

/// Whether it is a word of the language.
fn is_keyword(text: &str) -> bool {
    const WORDS: [&str; 38] = [
        "as", "async", "await", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern",
        "false", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub",
        "ref", "return", "self", "static", "struct", "super", "trait", "true", "type", "unsafe", "use",
        "where", "while",
    ];
    WORDS.contains(&text)
}

impl New {
    pub(super) fn run(&self) -> Exit {
        let folder = self.folder.clone().unwrap_or_else(|| PathBuf::from(&self.name));
        match self.write(&folder) {
            Ok(()) => {
                tell(&format_args!(
                    "{}: a plugin. In it: vers-gateway plugin dev --to PORT; vers-gateway plugin test; cargo test",
                    folder.display()
                ));
                Exit::Fine
            }
            Err(why) => no(&why),
        }
    }

    fn write(&self, folder: &Path) -> Result<(), String> {
        let failed = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(format!("{} is there already, and not empty", folder.display()));
        }
        let sdk = self.sdk()?;
        for (name, text) in FILES {
            let path = folder.join(name);
            let parent = path.parent().unwrap_or(folder);
            fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
            let text = text
                .replace("{{name}}", &self.name)
                .replace("{{file}}", &self.name.replace('-', "_"))
                .replace("{{Type}}", &type_name(&self.name))
                .replace("{{sdk}}", &sdk);
            fs::write(&path, text).map_err(|error| failed(&path, &error))?;
        }
        Ok(())
    }

    /// Where cargo finds the SDK.
    fn sdk(&self) -> Result<String, String> {
        if let Some(version) = &self.sdk_version {
            return Ok(serde_json::Value::from(version.as_str()).to_string());
        }
        let path = self.sdk_path.clone().or_else(nearby).ok_or(NO_SDK)?;
        // The crate may be made anywhere, and moved.
        let path = path
            .canonicalize()
            .ok()
            .filter(|path| path.join("Cargo.toml").is_file())
            .ok_or_else(|| format!("{} is not the folder of a crate", path.display()))?;
        let text = path.to_str().ok_or("the path of the SDK is no text")?;
        Ok(format!("{{ path = {} }}", serde_json::Value::from(text)))
    }
}

/// What is said where there is no SDK: a crate that names one which nobody has would not build.
const NO_SDK: &str = "there is no checkout of the gateway here, and its SDK is in no public registry yet: name the \
    folder `plugin-sdk` of a checkout (--sdk-path FOLDER), or the version that a registry of yours has \
    (--sdk-version VERSION)";

/// The SDK of the checkout that this folder is in, or is beside.
fn nearby() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let folders = here
        .ancestors()
        .flat_map(|folder| [folder.join("plugin-sdk"), folder.join("vers-gateway/plugin-sdk")]);
    folders.into_iter().find(|folder| {
        let manifest = fs::read_to_string(folder.join("Cargo.toml"));
        manifest.is_ok_and(|text| text.contains("name = \"vers-plugin\""))
    })
}

/// `team-check` → `TeamCheck`.
fn type_name(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut chars = word.chars();
        chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "team-check", "v2"] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "2a", "a_b", "a--b", "a-", "../a", "test", "fn", "vers-plugin", "é"] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert_eq!(type_name("team-check-2"), "TeamCheck2");
    }
}
