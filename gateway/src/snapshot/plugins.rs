//! From `[plugin.NAME]` and its uses to plugins that are compiled, linked and tried out.

use super::{Files, Inputs, Snapshot, components::ComponentStore, identity, state_dir::state_dir};
use crate::{
    config::{
        Breaker, Config, Diagnostic, OciReference, OnError as OnErrorConfig, Plugin as PluginConfig,
        PluginConfig as Table, PluginLimits, PluginUse, RouteProtocol, SecretSource,
    },
    plugins::{
        Component, Grants, Hooks, Host, Limits, LoadError, OnError, Plugin, PluginSpec, Secret, Services,
    },
};
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// Builds the plugins of a snapshot; a plugin that two routes use alike is built once.
pub(super) struct Plugins<'a> {
    inputs: &'a Inputs<'a>,
    config: &'a Config,
    previous: Option<&'a Snapshot>,
    components: BTreeMap<&'a str, Option<Arc<Component>>>,
    secrets: BTreeMap<&'a str, Secret>,
    vm_id: Option<String>,
    built: Vec<Arc<Plugin>>,
    problems: Vec<Diagnostic>,
}

impl<'a> Plugins<'a> {
    /// Reads and compiles every component, and reads every secret.
    pub(super) async fn load(
        inputs: &'a Inputs<'a>,
        config: &'a Config,
        previous: Option<&'a Snapshot>,
        files: &mut Files,
    ) -> Self {
        let vm_id = config.gateway.vm_id.as_deref();
        let vm_id = vm_id.and_then(|written| identity::vm_id(written, inputs.base, files));
        let mut plugins = Self {
            vm_id,
            inputs,
            config,
            previous,
            components: BTreeMap::new(),
            secrets: BTreeMap::new(),
            built: Vec::new(),
            problems: Vec::new(),
        };
        for (name, secret) in &config.secrets {
            let value = match &secret.source {
                SecretSource::Env(variable) => (inputs.env)(variable),
                SecretSource::File(file) => {
                    // A file that is not there is an unset secret: what then happens is for its
                    // users to decide, and its appearance is a reason to reload.
                    let content = files.read(&inputs.base.join(file)).ok();
                    content
                        .and_then(|content| String::from_utf8(content).ok())
                        .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                }
            };
            plugins.secrets.insert(name, Secret::new(value));
        }
        for (name, plugin) in &config.plugins {
            let component = plugins.component(plugin, files).await;
            plugins.components.insert(name, component);
        }
        plugins
    }

    /// The value of a secret, set or not.
    pub(super) fn secret(&self, name: &str) -> Secret {
        self.secrets.get(name).cloned().unwrap_or(Secret::new(None))
    }

    /// The number of the plugin for one use of it on a route of this protocol, where there is nothing wrong
    /// with it.
    pub(super) async fn attach(
        &mut self,
        used: &PluginUse,
        protocol: RouteProtocol,
    ) -> Option<(usize, OnError)> {
        let name = used.name.get_ref().as_str();
        let declared = self.config.plugins.get(name)?;
        let component = self.components.get(name)?.clone()?;
        if let Some(problem) = out_of_place(used, component.hooks(), protocol) {
            self.problems.push(problem);
            return None;
        }
        let table = used.config.as_ref().or(declared.config.as_ref());
        let spec = self.spec(declared, component, table);
        let on_error = match used.on_error.unwrap_or(declared.on_error) {
            OnErrorConfig::Deny => OnError::Deny,
            OnErrorConfig::Skip => OnError::Skip,
        };
        if let Some(known) = self.built.iter().position(|plugin| plugin.is_same(&spec)) {
            return Some((known, on_error));
        }
        let span = used.config.as_ref().map_or_else(|| used.name.span(), Table::span);
        let plugin = match self.unchanged(&spec) {
            Some(plugin) => plugin,
            None => match link(&self.inputs.host, spec, &self.inputs.services).await {
                Ok(plugin) => plugin,
                Err(error) => {
                    for problem in explain(name, declared, table, span, error) {
                        // Each route that uses the plugin finds it, and once is enough.
                        if !self.problems.contains(&problem) {
                            self.problems.push(problem);
                        }
                    }
                    return None;
                }
            },
        };
        self.built.push(plugin);
        Some((self.built.len() - 1, on_error))
    }

    /// The plugins that were attached, and what is wrong with others.
    pub(super) fn finish(self) -> (Vec<Arc<Plugin>>, Vec<Diagnostic>) {
        (self.built, self.problems)
    }

    fn unchanged(&self, spec: &PluginSpec) -> Option<Arc<Plugin>> {
        self.previous?.plugins.iter().find(|plugin| plugin.is_same(spec)).cloned()
    }

    /// The bytes of a component, from its file or from the store.
    fn bytes(&self, plugin: &PluginConfig, files: &mut Files) -> Result<Vec<u8>, Box<Diagnostic>> {
        let (written, span) = (plugin.component.get_ref(), plugin.component.span());
        if !OciReference::is_meant(written) {
            let path = self.inputs.base.join(written);
            return files.read(&path).map_err(|error| {
                let problem = Diagnostic::error(span, format!("cannot read `{}`: {error}", path.display()))
                    .label("no such component")
                    .help("the path is relative to the folder of this file; `cargo build --release --target wasm32-wasip2` makes a component");
                Box::new(problem)
            });
        }
        let failed = |error: &dyn std::fmt::Display| {
            Diagnostic::error(span.clone(), format!("`{written}` cannot be used: {error}"))
        };
        let reference: OciReference = written.parse().map_err(|error| Box::new(failed(&error)))?;
        let state_dir = state_dir(self.config, self.inputs.base, self.inputs.env);
        ComponentStore::below(&state_dir).read(&reference, files).map_err(|error| {
            let problem = failed(&error).label("not fetched yet, or not as it was fetched").help(
                "`vers-gateway plugin fetch -c FILE` fetches it; a gateway asks no registry for components",
            );
            Box::new(problem)
        })
    }

    async fn component(&mut self, plugin: &PluginConfig, files: &mut Files) -> Option<Arc<Component>> {
        let span = plugin.component.span();
        let bytes = match self.bytes(plugin, files) {
            Ok(bytes) => bytes,
            Err(problem) => {
                self.problems.push(*problem);
                return None;
            }
        };
        let (host, file) = (Arc::clone(&self.inputs.host), plugin.component.get_ref().clone());
        // Compiling takes its time, and this thread answers operators meanwhile.
        let compiled = tokio::task::spawn_blocking(move || host.component(&file, &bytes)).await;
        let component = match compiled {
            Ok(Ok(component)) => component,
            Ok(Err(error)) => {
                self.problems.push(Diagnostic::error(span, error.to_string()).label("cannot be used"));
                return None;
            }
            Err(error) => {
                self.problems.push(
                    Diagnostic::error(span, format!("the compiler failed: {error}")).label("cannot be used"),
                );
                return None;
            }
        };
        if let Some(expected) = &plugin.sha256
            && !expected.get_ref().eq_ignore_ascii_case(&component.hash().to_string())
        {
            self.problems.push(
                Diagnostic::error(expected.span(), "the component has another hash")
                    .label(format!("it is {}", component.hash()))
                    .help("the file was changed; if that was meant to be, write the new hash here"),
            );
            return None;
        }
        Some(component)
    }

    fn spec(&self, plugin: &PluginConfig, component: Arc<Component>, table: Option<&Table>) -> PluginSpec {
        let secrets = plugin
            .grants
            .secrets
            .iter()
            .map(|name| (name.get_ref().clone(), self.secret(name.get_ref())))
            .collect();
        // The configuration was checked: every origin parses.
        let http = plugin.grants.http.iter().filter_map(|origin| origin.get_ref().parse().ok()).collect();
        PluginSpec {
            name: plugin.name.get_ref().clone(),
            component,
            config: table.map_or_else(|| "{}".to_owned(), Table::to_json),
            grants: Grants {
                http,
                secrets,
                kv: usize::try_from(plugin.grants.kv.get()).unwrap_or(usize::MAX),
                backends: plugin.grants.backends.iter().map(|backend| backend.get_ref().clone()).collect(),
            },
            limits: plugin_limits(&plugin.limits, &plugin.breaker),
            vm_id: self.vm_id.clone(),
        }
    }
}

/// What a plugin may use that has these tables.
pub fn plugin_limits(limits: &PluginLimits, breaker: &Breaker) -> Limits {
    Limits {
        memory: usize::try_from(limits.memory.get()).unwrap_or(usize::MAX),
        cpu: limits.cpu.get(),
        wall: limits.wall.get(),
        instances: limits.instances as usize,
        concurrency: limits.concurrency.map(|most| most as usize),
        queue: limits.queue as usize,
        queue_timeout: limits.queue_timeout.get(),
        body: limits.body.get(),
        transforms: limits.transforms() as usize,
        peek: usize::try_from(limits.peek.get()).unwrap_or(usize::MAX),
        log_queue: limits.log_queue as usize,
        series: limits.series as usize,
        recycle_calls: limits.recycle_calls,
        recycle_memory: usize::try_from(limits.recycle_memory.get()).unwrap_or(usize::MAX),
        breaker_faults: breaker.faults,
        breaker_open: breaker.open.get(),
    }
}

async fn link(host: &Host, spec: PluginSpec, services: &Arc<dyn Services>) -> Result<Arc<Plugin>, LoadError> {
    let plugin = Arc::new(host.link(spec)?);
    plugin.try_out(host, Arc::clone(services)).await?;
    Ok(plugin)
}

/// A plugin of which nothing would ever be called on its route.
fn out_of_place(used: &PluginUse, hooks: Hooks, protocol: RouteProtocol) -> Option<Diagnostic> {
    let (is_of_use, what, wanted) = match protocol.is_bytes() {
        true => (hooks.is_for_connections(), "connections", "`tcp-filter`, `tcp-log` or `background`"),
        false => (
            hooks.is_for_requests(),
            "requests",
            "`request-filter`, `request-body-transform`, `response-filter`, `response-body-transform`, `exchange-log` or \
             `background`",
        ),
    };
    if is_of_use {
        return None;
    }
    let message = format!("plugin `{}` has no hook for {what}", used.name.get_ref());
    let has = hooks.names().join("`, `");
    Some(
        Diagnostic::error(used.name.span(), message)
            .label(format!("it would never be called on {}", protocol.describe()))
            .help(format!("it exports `{has}`; a plugin of this route exports {wanted}")),
    )
}

fn explain(
    name: &str,
    plugin: &PluginConfig,
    table: Option<&Table>,
    used: Range<usize>,
    error: LoadError,
) -> Vec<Diagnostic> {
    let component = plugin.component.span();
    match error {
        LoadError::Config(problems) => problems
            .into_iter()
            .map(|problem| {
                let span = table.map_or_else(
                    || plugin.name.span(),
                    |table| table.span_of(&problem.path).unwrap_or_else(|| table.span()),
                );
                let message = if problem.path.is_empty() {
                    format!("plugin `{name}`: {}", problem.message)
                } else {
                    format!("plugin `{name}`: `{}`: {}", problem.path, problem.message)
                };
                Diagnostic::error(span, message).label("refused by the plugin")
            })
            .collect(),
        LoadError::NotGranted { grant, .. } => {
            vec![
                Diagnostic::error(component, format!("plugin `{name}`: {error}"))
                    .label("needs a grant")
                    .help(format!("add `{grant}` to [plugin.{name}]")),
            ]
        }
        LoadError::UnknownImport { .. } => vec![
            Diagnostic::error(component, format!("plugin `{name}`: {error}"))
                .label("made for another gateway, or another version")
                .help("this gateway offers the interfaces of vers:gateway@0.1.0 and WASI 0.2"),
        ],
        LoadError::Fault(fault) => {
            let detail = said(&fault.detail).to_owned();
            let problem = Diagnostic::error(
                used,
                format!("plugin `{name}` failed while being configured: {}", fault.kind),
            );
            vec![if detail.is_empty() { problem } else { problem.help(format!("it said: {detail}")) }]
        }
        LoadError::Compile { .. } | LoadError::NotAPlugin { .. } | LoadError::Mismatch { .. } => {
            vec![Diagnostic::error(component, format!("plugin `{name}`: {error}")).label("cannot be used")]
        }
    }
}

/// What a guest said when it failed: the words of a panic, without the line that tells where it was.
fn said(detail: &str) -> &str {
    let words = detail.lines().find(|line| !line.is_empty() && !line.starts_with("thread '"));
    words.filter(|line| !line.starts_with("error while executing")).unwrap_or_default()
}
