//! From what a configuration names to a compiled component: its bytes, its hash, the compiler's verdict.

use super::{Files, Inputs, components::ComponentStore, state_dir::state_dir};
use crate::{
    config::{Config, Diagnostic, OciReference, Spanned},
    plugins::{Component, Host, LoadError},
};
use std::sync::Arc;

/// A component as a configuration names it.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    /// Its file, or where it was fetched from.
    pub(super) component: &'a Spanned<String>,
    /// The SHA-256 that it must have.
    pub(super) sha256: Option<&'a Spanned<String>>,
}

/// What a host makes of a component's bytes.
type Load = fn(&Host, &str, &[u8]) -> Result<Arc<Component>, LoadError>;

/// Reads a component and compiles it.
///
/// # Errors
/// Fails with what is wrong, at its place.
pub(super) async fn compiled(
    config: &Config,
    inputs: &Inputs<'_>,
    (named, load): (Named<'_>, Load),
    files: &mut Files,
) -> Result<Arc<Component>, Box<Diagnostic>> {
    let span = named.component.span();
    let bytes = bytes(config, inputs, named.component, files)?;
    let (host, file) = (Arc::clone(&inputs.host), named.component.get_ref().clone());
    // Compiling takes its time, and this thread answers operators meanwhile.
    let compiled = tokio::task::spawn_blocking(move || load(&host, &file, &bytes)).await;
    let unusable = |message: String| Diagnostic::error(span.clone(), message).label("cannot be used");
    let component = match compiled {
        Ok(Ok(component)) => component,
        Ok(Err(error)) => {
            let problem = unusable(error.to_string());
            return Err(Box::new(match instead(&error) {
                Some(instead) => problem.help(instead),
                None => problem,
            }));
        }
        Err(error) => return Err(Box::new(unusable(format!("the compiler failed: {error}")))),
    };
    if let Some(expected) = named.sha256
        && !expected.get_ref().eq_ignore_ascii_case(&component.hash().to_string())
    {
        return Err(Box::new(
            Diagnostic::error(expected.span(), "the component has another hash")
                .label(format!("it is {}", component.hash()))
                .help("the file was changed; if that was meant to be, write the new hash here"),
        ));
    }
    Ok(component)
}

/// What a component of the other kind is for.
fn instead(error: &LoadError) -> Option<&'static str> {
    match error {
        LoadError::NotAHandler { is_plugin: true, .. } => {
            Some("it is a plugin: name it in `[plugin.NAME]`, and that in a route's `plugins`")
        }
        LoadError::NotAHandler { is_plugin: false, .. } => {
            Some("what answers requests is a component of the world `wasi:http/proxy` 0.2")
        }
        _ => None,
    }
}

/// The bytes of a component, from its file or from the store.
fn bytes(
    config: &Config,
    inputs: &Inputs<'_>,
    component: &Spanned<String>,
    files: &mut Files,
) -> Result<Vec<u8>, Box<Diagnostic>> {
    let (written, span) = (component.get_ref(), component.span());
    if !OciReference::is_meant(written) {
        let path = inputs.base.join(written);
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
    let state_dir = state_dir(config, inputs.base, inputs.env);
    ComponentStore::below(&state_dir).read(&reference, files).map_err(|error| {
        let problem = failed(&error).label("not fetched yet, or not as it was fetched").help(
            "`vers-gateway plugin fetch -c FILE` fetches it; a gateway asks no registry for components",
        );
        Box::new(problem)
    })
}
