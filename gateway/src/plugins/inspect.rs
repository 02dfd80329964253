//! What a component is, read from its bytes: nothing of it is compiled, and nothing runs.

use super::{
    LoadError,
    component::{Hash, Offer, PACKAGE, answers, compile_reason, interface, offer},
};
use serde::{Deserialize, Serialize};
use wasmparser::{ComponentExternalKind, ComponentTypeRef, Encoding, Parser, Payload};

/// The custom section in which the SDK says what a plugin is.
const SECTION: &str = "vers:plugin";

/// What a component is.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// Bytes of the file.
    pub size: usize,
    /// SHA-256 of the file, as `sha256` pins it.
    pub sha256: String,
    /// The version of `vers:gateway` that it was built against; none where it has nothing of it.
    pub interface: Option<String>,
    /// The hooks that it exports.
    pub hooks: Vec<String>,
    /// What it imports, but for WASI, which is an empty sandbox.
    pub imports: Vec<Import>,
    /// What it says of itself, where it was built with an SDK that says it.
    pub manifest: Option<Manifest>,
}

/// An interface that a component imports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Import {
    /// Its name and version.
    pub name: String,
    /// Whether this gateway has it.
    pub is_offered: bool,
    /// The TOML that grants it, where it must be granted.
    pub grant: Option<&'static str>,
}

/// What a component says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub struct Manifest {
    /// The name of its package.
    pub name: String,
    /// The version of its package.
    pub version: String,
    /// What its package is for.
    pub description: String,
    /// What it was built with.
    pub sdk: String,
    /// JSON Schema of its `config` table; `{}` where it does not say.
    pub config: serde_json::Value,
}

/// Reads what a component is.
///
/// # Errors
/// Fails where the bytes are no component, or no plugin.
pub fn inspect(file: &str, bytes: &[u8]) -> Result<Inspection, LoadError> {
    match read(file, bytes)? {
        (found, Roles { is_plugin: true, .. }) => Ok(found),
        _ => {
            let missing = format!("{PACKAGE}lifecycle");
            Err(LoadError::NotAPlugin { component: file.to_owned(), missing })
        }
    }
}

/// Whether a component is one that a configuration can name: a plugin, or one that answers requests.
///
/// # Errors
/// Fails as [`inspect`] does where it is neither.
pub fn check_usable(file: &str, bytes: &[u8]) -> Result<(), LoadError> {
    match read(file, bytes)? {
        (_, Roles { is_handler: true, .. }) => Ok(()),
        _ => inspect(file, bytes).map(drop),
    }
}

/// What a component can be used for.
#[derive(Default)]
struct Roles {
    is_plugin: bool,
    is_handler: bool,
}

fn read(file: &str, bytes: &[u8]) -> Result<(Inspection, Roles), LoadError> {
    let broken = |error: &dyn std::fmt::Display| LoadError::Compile {
        component: file.to_owned(),
        reason: compile_reason(bytes, error),
    };
    let mut found = Inspection {
        size: bytes.len(),
        sha256: Hash::of(bytes).to_string(),
        interface: None,
        hooks: Vec::new(),
        imports: Vec::new(),
        manifest: None,
    };
    let mut roles = Roles::default();
    // What is inside of the component has sections of its own.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| broken(&error))? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(broken(&"a core module"));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(|error| broken(&error))?;
                    if matches!(import.ty, ComponentTypeRef::Instance(_) | ComponentTypeRef::Func(_)) {
                        found.note_import(import.name.name);
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(|error| broken(&error))?;
                    if export.kind == ComponentExternalKind::Instance {
                        roles.is_handler |= answers(export.name.name);
                        roles.is_plugin |= found.note_export(export.name.name);
                    }
                }
            }
            Payload::CustomSection(section) if section.name() == SECTION && found.manifest.is_none() => {
                // What no SDK of ours has written says nothing.
                found.manifest = serde_json::from_slice(section.data()).ok();
            }
            _ => {}
        }
    }
    // A component has them in the order in which its linker met them, which no source says.
    found.hooks.sort_unstable();
    found.imports.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok((found, roles))
}

impl Inspection {
    fn note_import(&mut self, name: &str) {
        self.note_version(name);
        if name.starts_with("wasi:") {
            return;
        }
        let offer = offer(name);
        let grant = match offer {
            Some(Offer::Granted(grant)) => Some(grant.example()),
            Some(Offer::Always) | None => None,
        };
        self.imports.push(Import { name: name.to_owned(), is_offered: offer.is_some(), grant });
    }

    /// Whether it is what every plugin exports.
    fn note_export(&mut self, name: &str) -> bool {
        self.note_version(name);
        match interface(name) {
            Some("lifecycle") => return true,
            Some(hook) => self.hooks.push(hook.to_owned()),
            None => {}
        }
        false
    }

    fn note_version(&mut self, name: &str) {
        if interface(name).is_some()
            && let Some((_, version)) = name.rsplit_once('@')
        {
            self.interface.get_or_insert_with(|| version.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component that exports an empty instance under each of these names.
    fn component(exports: &[&str]) -> Vec<u8> {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("a short section");
        let mut section = vec![length(&vec![0; exports.len()])];
        for name in exports {
            section.extend([0, length(name.as_bytes())]);
            section.extend(name.as_bytes());
            // The instance of this number, with its own type.
            section.extend([5, 0, 0]);
        }
        let size = section.len();
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        bytes.extend([5, 3, 1, 1, 0]);
        bytes.push(11);
        bytes.extend([
            u8::try_from(size & 127).expect("seven bits") | 128,
            u8::try_from(size >> 7).expect("short"),
        ]);
        bytes.extend(section);
        bytes
    }

    #[test]
    fn hooks_are_told_in_one_order_however_they_were_linked() {
        let names = ["response-filter", "lifecycle", "request-filter"];
        let names = names.map(|name| format!("vers:gateway/{name}@0.1.0"));
        let mut names = names.each_ref().map(String::as_str);
        for _ in 0..2 {
            let found = inspect("a.wasm", &component(&names)).expect("a plugin");
            assert_eq!(found.hooks, ["request-filter", "response-filter"]);
            assert_eq!(found.interface.as_deref(), Some("0.1.0"));
            names.reverse();
        }
    }

    #[test]
    fn what_is_no_component_is_told_so() {
        for (bytes, words) in [
            (&b"\0asm\x01\0\0\0"[..], "it is a core module"),
            (b"hello", "it does not start like one"),
            (b"\0asm\x0d\0\x01\0\xff", "malformed section"),
        ] {
            let error = inspect("a.wasm", bytes).expect_err("no component").to_string();
            assert!(error.contains(words), "{error}");
        }
        // What answers requests may be fetched, though it is no plugin.
        let handler = component(&["wasi:http/incoming-handler@0.2.3"]);
        assert!(check_usable("a.wasm", &handler).is_ok() && inspect("a.wasm", &handler).is_err());
        assert!(check_usable("a.wasm", &component(&["wasi:http/incoming-handler@0.3.0"])).is_err());
        // A component with nothing in it.
        let error = inspect("a.wasm", b"\0asm\x0d\0\x01\0").expect_err("no plugin").to_string();
        assert!(error.contains("does not export `vers:gateway/lifecycle`"), "{error}");
    }
}
