//! From bytes to a compiled component, and from that to a plugin: which hooks does it have, does
//! the gateway offer what it imports?

use super::{Grants, Host, LoadError, Plugin, PluginSpec, exports::Exports};
use sha2::{Digest as _, Sha256};
use std::{fmt, sync::Arc};
use wasmtime::component::types::ComponentItem;

/// The package of our interface.
pub(super) const PACKAGE: &str = "vers:gateway/";

/// A compiled component, shared by all plugins that run it.
pub struct Component {
    /// The file, for messages.
    file: String,
    hash: Hash,
    pub(super) compiled: wasmtime::component::Component,
    hooks: Hooks,
    imports: Vec<String>,
}

/// SHA-256 of a component's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

/// The hooks that a component exports. The host calls nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hooks {
    /// `request-filter`.
    pub request: bool,
    /// `request-body-filter`.
    pub body: bool,
    /// `request-body-transform`.
    pub request_transform: bool,
    /// `response-filter`.
    pub response: bool,
    /// `response-body-transform`.
    pub transform: bool,
    /// `exchange-log`.
    pub log: bool,
    /// `tcp-filter`.
    pub tcp: bool,
    /// `tcp-bytes-filter`.
    pub tcp_bytes: bool,
    /// `tcp-log`.
    pub tcp_log: bool,
    /// `background`.
    pub background: bool,
}

impl Hash {
    /// The hash of a component's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Hooks {
    /// Those whose interface is there.
    fn of(exports: impl Fn(&str) -> bool) -> Self {
        Self {
            request: exports("request-filter"),
            body: exports("request-body-filter"),
            request_transform: exports("request-body-transform"),
            response: exports("response-filter"),
            transform: exports("response-body-transform"),
            log: exports("exchange-log"),
            tcp: exports("tcp-filter"),
            tcp_bytes: exports("tcp-bytes-filter"),
            tcp_log: exports("tcp-log"),
            background: exports("background"),
        }
    }

    /// Those of both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            request: self.request || other.request,
            body: self.body || other.body,
            request_transform: self.request_transform || other.request_transform,
            response: self.response || other.response,
            transform: self.transform || other.transform,
            log: self.log || other.log,
            tcp: self.tcp || other.tcp,
            tcp_bytes: self.tcp_bytes || other.tcp_bytes,
            tcp_log: self.tcp_log || other.tcp_log,
            background: self.background || other.background,
        }
    }

    /// Whether something of it is called on routes of requests.
    pub fn is_for_requests(self) -> bool {
        self.request
            || self.request_transform
            || self.response
            || self.transform
            || self.log
            || self.background
    }

    /// Whether something of it is called on routes of bytes.
    pub fn is_for_connections(self) -> bool {
        self.tcp || self.tcp_log || self.background
    }

    /// Their names in the interface.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.request, "request-filter"),
            (self.body, "request-body-filter"),
            (self.request_transform, "request-body-transform"),
            (self.response, "response-filter"),
            (self.transform, "response-body-transform"),
            (self.log, "exchange-log"),
            (self.tcp, "tcp-filter"),
            (self.tcp_bytes, "tcp-bytes-filter"),
            (self.tcp_log, "tcp-log"),
            (self.background, "background"),
        ];
        all.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
    }
}

impl Component {
    pub(super) fn compile(engine: &wasmtime::Engine, file: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let compiled = wasmtime::component::Component::from_binary(engine, bytes).map_err(|error| {
            LoadError::Compile { component: file.to_owned(), reason: compile_reason(bytes, &error) }
        })?;
        let ty = compiled.component_type();
        let exports = |hook: &str| ty.exports(engine).any(|(name, _)| interface(name) == Some(hook));
        if !exports("lifecycle") {
            return Err(LoadError::NotAPlugin {
                component: file.to_owned(),
                missing: format!("{PACKAGE}lifecycle"),
            });
        }
        let hooks = Hooks::of(exports);
        // Types alone need nobody who implements them.
        let imports = ty
            .imports(engine)
            .filter(|(_, item)| !matches!(item.ty, ComponentItem::Type(_)))
            .map(|(name, _)| name.to_owned())
            .collect();
        Ok(Self { file: file.to_owned(), hash: Hash::of(bytes), compiled, hooks, imports })
    }

    /// SHA-256 of its bytes.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The hooks that it exports.
    pub fn hooks(&self) -> Hooks {
        self.hooks
    }

    /// The file it was read from.
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("file", &self.file)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// Links a component with what it is granted.
    ///
    /// # Errors
    /// Fails where it imports something that is not granted or does not exist, and where its types
    /// are not those of the interface.
    pub fn link(&self, spec: PluginSpec) -> Result<Plugin, LoadError> {
        let linker = self.linker(&spec.grants);
        self.check_imports(&spec)?;
        let mismatch = |error: wasmtime::Error| LoadError::Mismatch { reason: format!("{error:#}") };
        let pre = linker.map_err(mismatch)?.instantiate_pre(&spec.component.compiled).map_err(mismatch)?;
        let exports = Exports::of(spec.component.hooks, &pre).map_err(mismatch)?;
        let PluginSpec { name, component, config, grants, limits, vm_id } = spec;
        let space = (grants.kv > 0).then(|| self.space(&name, grants.kv));
        let gate = limits.concurrency.map(|most| self.gate(&name, most));
        let share = self.places.share(&name);
        let metrics = Arc::clone(&self.metrics);
        let book = metrics.book(&name, limits.series);
        Ok(Plugin {
            metrics,
            book,
            name,
            component,
            config,
            grants,
            limits,
            vm_id,
            space,
            gate,
            share,
            pre,
            exports,
        })
    }

    /// The linker's own words for a missing import name the interface, but not what to do.
    fn check_imports(&self, spec: &PluginSpec) -> Result<(), LoadError> {
        for import in &spec.component.imports {
            let Some(offer) = offer(import) else {
                return Err(LoadError::UnknownImport { import: import.clone() });
            };
            if let Offer::Granted(grant) = offer
                && !grant.is_given(&spec.grants)
            {
                return Err(LoadError::NotGranted { import: import.clone(), grant: grant.example() });
            }
        }
        Ok(())
    }
}

/// What it takes to import an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    Always,
    Granted(Grant),
}

/// What the configuration has to say before an interface can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    Http,
    Secrets,
    Kv,
}

impl Grant {
    fn is_given(self, grants: &Grants) -> bool {
        match self {
            Self::Http => !grants.http.is_empty(),
            Self::Secrets => !grants.secrets.is_empty(),
            Self::Kv => grants.kv > 0,
        }
    }

    /// The TOML that would give it.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Http => r#"grants = { http = ["https://host:port"] }"#,
            Self::Secrets => r#"grants = { secrets = ["name"] }"#,
            Self::Kv => r#"grants = { kv = "64KiB" }"#,
        }
    }
}

/// What it takes to import this; none where this gateway does not have it.
pub(super) fn offer(import: &str) -> Option<Offer> {
    match interface(import) {
        Some("types" | "log" | "metrics" | "identity" | "random" | "clock") => Some(Offer::Always),
        Some("secrets") => Some(Offer::Granted(Grant::Secrets)),
        Some("kv") => Some(Offer::Granted(Grant::Kv)),
        Some("outbound-http") => Some(Offer::Granted(Grant::Http)),
        Some(_) => None,
        None => import.starts_with("wasi:").then_some(Offer::Always),
    }
}

/// `vers:gateway/log@0.1.0` → `log`.
pub(super) fn interface(name: &str) -> Option<&str> {
    let name = name.strip_prefix(PACKAGE)?;
    Some(name.split_once('@').map_or(name, |(interface, _)| interface))
}

/// A core module is what people build by mistake; the compiler's words do not say so.
pub(super) fn compile_reason(bytes: &[u8], error: &dyn std::fmt::Display) -> String {
    const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
    if bytes.starts_with(CORE_MODULE) {
        "it is a core module; build it with `--target wasm32-wasip2`".to_owned()
    } else if bytes.starts_with(b"\0asm") {
        format!("{error:#}")
    } else {
        "it does not start like one".to_owned()
    }
}
