//! `plugin fetch`: components from registries into the store that a gateway reads from. A gateway itself asks no
//! registry, ever.

use super::{super::trust::Trust, Exit, no, oci::Registry, print, tell};
use crate::{
    config::{self, OciReference, Source},
    plugins::{self, Hash},
    snapshot::{self, ComponentStore, Layer},
};
use clap::Args;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// `plugin fetch [-c FILE] [REFERENCE]…`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Fetch {
    /// Components such as `oci://registry.example.com/team/auth:1.2`
    #[arg(value_name = "REFERENCE", required_unless_present = "config")]
    references: Vec<OciReference>,
    /// Into the store of this configuration; without REFERENCE all components that it names by `oci://`
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

impl Fetch {
    pub(super) fn run(&self) -> Exit {
        match self.fetch() {
            Ok(()) => Exit::Fine,
            Err(why) => no(&why),
        }
    }

    fn fetch(&self) -> Result<(), String> {
        let (store, named) = match &self.config {
            Some(file) => of_config(file)?,
            None => (ComponentStore::below(&snapshot::default_state_dir(&variable)), Vec::new()),
        };
        let references = if self.references.is_empty() { named } else { self.references.clone() };
        if references.is_empty() {
            tell(&"nothing to fetch: no component of this configuration is an oci:// reference");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        for reference in references {
            let fetched = runtime.block_on(self.fetch_one(&store, &reference));
            let (digest, is_new) = fetched.map_err(|why| format!("{reference}: {why}"))?;
            let verb = if is_new { "fetched" } else { "was there" };
            print(&format!("{}  {verb}\n", reference.pinned(&digest)));
        }
        Ok(())
    }

    /// Returns the manifest's digest, and whether anything was fetched.
    async fn fetch_one(
        &self,
        store: &ComponentStore,
        reference: &OciReference,
    ) -> Result<(String, bool), String> {
        if let Some(digest) = &reference.digest
            && is_there(store, digest)
        {
            return Ok((digest.clone(), false));
        }
        let mut registry = Registry::new(reference, &self.trust.roots()?)?;
        let manifest = registry.manifest().await?;
        let digest = Hash::of(&manifest).to_string();
        if reference.digest.as_ref().is_some_and(|pinned| *pinned != digest) {
            return Err(format!("the registry has sent a manifest of another SHA-256: {digest}"));
        }
        let layer = Layer::of_manifest(&manifest).map_err(|error| error.to_string())?;
        let component = registry.blob(&layer).await?;
        if Hash::of(&component).to_string() != layer.digest {
            return Err(
                "the registry has sent a component of another SHA-256 than its manifest says".to_owned()
            );
        }
        // What no gateway could use is told now, and not kept.
        plugins::inspect(&reference.to_string(), &component).map_err(|error| error.to_string())?;
        keep(&store.component(&layer.digest), &component)?;
        // Last: where it is, the component is.
        keep(&store.manifest(&digest), &manifest)?;
        Ok((digest, true))
    }
}

/// The store of a configuration, and the components that it names.
fn of_config(file: &Path) -> Result<(ComponentStore, Vec<OciReference>), String> {
    let source = Source::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let config = config::parse(&source, &variable)
        .map_err(|errors| config::render(&source, &errors, false).trim_end().to_owned())?;
    let base = file.parent().unwrap_or(Path::new("."));
    let state_dir = snapshot::state_dir(&config, base, &variable);
    let components = config.plugins.values().map(|plugin| plugin.component.get_ref());
    // The configuration was checked: what wants to be a reference is one.
    let references = components.filter_map(|component| component.parse().ok()).collect();
    Ok((ComponentStore::below(&state_dir), references))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether a manifest and its component are there, and are what they should be.
fn is_there(store: &ComponentStore, digest: &str) -> bool {
    let has = |path: PathBuf, digest: &str| {
        fs::read(path).ok().filter(|bytes| Hash::of(bytes).to_string() == digest)
    };
    let manifest = has(store.manifest(digest), digest);
    let layer = manifest.and_then(|manifest| Layer::of_manifest(&manifest).ok());
    layer.is_some_and(|layer| has(store.component(&layer.digest), &layer.digest).is_some())
}

/// Writes a file as a whole or not at all.
fn keep(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let folder = path.parent().unwrap_or(path);
    let written = fs::create_dir_all(folder).and_then(|()| {
        let unfinished = path.with_extension(format!("{}.new", std::process::id()));
        fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path))
    });
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))
}
