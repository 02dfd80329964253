//! From `to = "wasm:…"` and `[origin.NAME]` to components that are compiled, linked and tried out.

use super::{
    Files, Inputs, Snapshot,
    compiled::{Named, compiled},
};
use crate::{
    config::{Config, Diagnostic, Duration, Origin, OriginGrants, OriginLimits, Spanned},
    plugins::{
        Handler, HandlerFaultKind, HandlerGrants, HandlerLimits, HandlerSpec, Host, LoadError, Secret,
    },
};
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// Builds the components of a snapshot that answer requests; one that two routes go to is built once.
pub(super) struct Origins<'a> {
    inputs: &'a Inputs<'a>,
    config: &'a Config,
    previous: Option<&'a Snapshot>,
    built: Vec<Arc<Handler>>,
    /// Those that were tried to be built: once is enough for a problem.
    known: BTreeMap<String, Option<usize>>,
    problems: Vec<Diagnostic>,
}

impl<'a> Origins<'a> {
    pub(super) fn new(inputs: &'a Inputs<'a>, config: &'a Config, previous: Option<&'a Snapshot>) -> Self {
        let (built, known, problems) = Default::default();
        Self { inputs, config, previous, built, known, problems }
    }

    /// The number of the component that a route goes to, by the name of its origin or by its file; none where
    /// there is something wrong with it.
    pub(super) async fn attach(
        &mut self,
        (name, span): (&str, Range<usize>),
        files: &mut Files,
        secret: impl Fn(&str) -> Secret,
    ) -> Option<usize> {
        if let Some(known) = self.known.get(name) {
            return *known;
        }
        let built = self.build((name, span), files, secret).await;
        let number = built.map(|handler| {
            self.built.push(handler);
            self.built.len() - 1
        });
        self.known.insert(name.to_owned(), number);
        number
    }

    async fn build(
        &mut self,
        (name, span): (&str, Range<usize>),
        files: &mut Files,
        secret: impl Fn(&str) -> Secret,
    ) -> Option<Arc<Handler>> {
        let declared = self.config.origins.get(name);
        let file = Spanned::new(span, name.to_owned());
        let component = declared.map_or(&file, |origin| &origin.component);
        let named = Named { component, sha256: declared.and_then(|origin| origin.sha256.as_ref()) };
        let compiled = compiled(self.config, self.inputs, (named, Host::handler_component), files).await;
        let compiled = compiled.map_err(|problem| self.problems.push(*problem)).ok()?;
        let limits = declared.map_or_else(OriginLimits::default, |origin| origin.limits.clone());
        let spec = HandlerSpec {
            name: name.into(),
            component: compiled,
            grants: declared.map_or_else(HandlerGrants::default, |origin| grants(origin, secret)),
            limits: self::limits(&limits),
        };
        if let Some(same) =
            self.previous.and_then(|previous| previous.origins.iter().find(|it| it.is_same(&spec)))
        {
            return Some(Arc::clone(same));
        }
        let handler = match self.inputs.host.link_handler(spec) {
            Ok(handler) => Arc::new(handler),
            Err(error) => {
                self.problems.push(unlinked(name, component.span(), &error));
                return None;
            }
        };
        let tried = handler.try_out(&self.inputs.host, Arc::clone(&self.inputs.services)).await;
        // What traffic takes up now says nothing of this one.
        if let Err(fault) = tried
            && fault.kind != HandlerFaultKind::Full
        {
            self.problems.push(
                Diagnostic::error(component.span(), format!("origin `{name}`: {}", fault.kind))
                    .label("no instance of it can be made")
                    .help(fault.detail),
            );
            return None;
        }
        Some(handler)
    }

    /// The components that were attached, and what is wrong with others.
    pub(super) fn finish(self) -> (Vec<Arc<Handler>>, Vec<Diagnostic>) {
        (self.built, self.problems)
    }
}

fn grants(origin: &Origin, secret: impl Fn(&str) -> Secret) -> HandlerGrants {
    let OriginGrants { http } = &origin.grants;
    let value = |(name, value): (&String, &Spanned<String>)| (name.clone(), value.get_ref().clone());
    HandlerGrants {
        // The configuration was checked: every origin parses.
        http: http.iter().filter_map(|origin| origin.get_ref().parse().ok()).collect(),
        env: origin.env.iter().map(value).collect(),
        secret_env: origin.secret_env.iter().map(|(name, of)| (name.clone(), secret(of.get_ref()))).collect(),
    }
}

fn limits(limits: &OriginLimits) -> HandlerLimits {
    HandlerLimits {
        memory: usize::try_from(limits.memory.get()).unwrap_or(usize::MAX),
        cpu: limits.cpu.get(),
        wall: limits.wall.map(Duration::get),
        instances: limits.instances as usize,
        concurrency: limits.concurrency.map(|most| most as usize),
        queue: limits.queue as usize,
        queue_timeout: limits.queue_timeout.get(),
    }
}

fn unlinked(name: &str, span: Range<usize>, error: &LoadError) -> Diagnostic {
    let problem = Diagnostic::error(span, format!("origin `{name}`: {error}"));
    match error {
        LoadError::UnknownImport { .. } => problem
            .label("made for another host")
            .help("a component that answers requests finds WASI 0.2 here: `wasi:http`, `wasi:io`, `wasi:clocks`, `wasi:random` and `wasi:cli`, and `wasi:filesystem` and `wasi:sockets` with nothing in them"),
        _ => problem.label("cannot be used"),
    }
}
