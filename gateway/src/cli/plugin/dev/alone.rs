//! The configuration of a gateway with nothing but one plugin, made of the plugin's own cases.

use super::super::test;
use crate::{config::PluginCases, plugins, snapshot::write_private};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// One plugin in front of a server.
pub(super) struct Alone {
    folder: PathBuf,
    to: String,
    listen: SocketAddr,
}

impl Alone {
    pub(super) fn new(folder: &Path, to: &str, listen: SocketAddr) -> Self {
        Self { folder: folder.to_owned(), to: to.to_owned(), listen }
    }

    /// The plugin's cases, which say what its settings and grants are.
    pub(super) fn cases(&self) -> PathBuf {
        self.folder.join(test::CASES)
    }

    /// Writes a configuration, and the secrets that it names, for nobody else to read.
    ///
    /// # Errors
    /// Says which file cannot be written, or read.
    pub(super) fn write(&self, component: &Path) -> Result<PathBuf, String> {
        let cases = self.cases();
        let cases = if cases.is_file() { test::cases(&cases)?.1 } else { PluginCases::default() };
        let folder = component.with_extension("dev");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            write_private(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>(path)
        };
        for (number, value) in cases.secrets.values().enumerate() {
            write(&secret(number), value)?;
        }
        let bytes = super::super::read(component)?;
        let found = plugins::inspect("it", &bytes).map_err(|error| error.to_string())?;
        let keeps = found.imports.iter().any(|import| import.name.contains("/kv@"));
        write("gateway.toml", &self.text(component, &cases, keeps))
    }

    fn text(&self, component: &Path, cases: &PluginCases, keeps: bool) -> String {
        let mut text = format!(
            "[[listener]]\naddress = \"{}\"\n[[route]]\nname = \"dev\"\nto = {}\nplugins = [\"it\"]\n\
             [admin]\naddress = \"off\"\n[log]\naccess = true\n[plugin.it]\ncomponent = {}\n",
            self.listen,
            toml(&json!(self.to)),
            toml(&json!(component)),
        );
        let settings = cases.config.as_ref().map(|config| config.to_json());
        let settings: Value =
            settings.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_else(|| json!({}));
        let mut grants = serde_json::Map::new();
        if !cases.secrets.is_empty() {
            grants.insert("secrets".to_owned(), cases.secrets.keys().cloned().collect());
        }
        if !cases.http.is_empty() {
            grants.insert(
                "http".to_owned(),
                cases.http.iter().map(|origin| origin.get_ref().clone()).collect(),
            );
        }
        if !cases.backends.is_empty() {
            grants.insert("backends".to_owned(), cases.backends.iter().cloned().collect());
        }
        if keeps {
            grants.insert("kv".to_owned(), json!("1MiB"));
        }
        // Writing to a text cannot fail.
        let _ = writeln!(text, "config = {}\ngrants = {}", toml(&settings), toml(&Value::Object(grants)));
        for (number, name) in cases.secrets.keys().enumerate() {
            let _ = writeln!(text, "[secret.{}]\nfile = \"{}\"", toml(&json!(name)), secret(number));
        }
        text
    }
}

/// The file of a secret. Its name may be anything.
fn secret(number: usize) -> String {
    format!("secret-{number}")
}

/// A value in TOML, on one line. `${` means what it says.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let text = |text: &String| Value::from(text.as_str()).to_string();
            let fields = fields.iter().map(|(name, value)| format!("{} = {}", text(name), toml(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        // JSON escapes what TOML does, but for one character.
        Value::String(text) => {
            Value::from(text.replace("${", "$${")).to_string().replace('\u{7f}', "\\u007f")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Source};

    #[test]
    fn what_is_made_of_cases_is_a_configuration() {
        let source = Source::new(
            "cases.toml",
            r#"
                config = { "a b" = ["x\"\n${HOME}", 1, 1.5, true], t = { u = "\u007f" } }
                secrets = { fleet = "s3cret" }
                http = ["http://[::1]:1"]
                backends = ["127.0.0.1:3001"]
            "#,
        );
        let cases = config::plugin_cases(&source).expect("cases");
        let alone = Alone::new(Path::new("."), "127.0.0.1:3000", ([127, 0, 0, 1], 0).into());
        let text = alone.text(Path::new("/a \"b\".wasm"), &cases, true);
        let source = Source::new("gateway.toml", &text);
        let parsed = config::parse(&source, &|_| None);
        let parsed = parsed.unwrap_or_else(|wrong| panic!("{}", config::render(&source, &wrong, false)));
        let plugin = parsed.plugins.get("it").expect("the plugin");
        let settings = plugin.config.as_ref().expect("settings").to_json();
        assert_eq!(settings, cases.config.as_ref().expect("settings").to_json(), "{text}");
        let nothing = alone.text(Path::new("/a.wasm"), &PluginCases::default(), false);
        let source = Source::new("gateway.toml", &nothing);
        assert!(config::parse(&source, &|_| None).is_ok(), "{nothing}");
    }
}
