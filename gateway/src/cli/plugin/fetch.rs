//! `plugin fetch`: components from registries into the store that a gateway reads from. A gateway itself asks no
//! registry, ever.

use super::{super::trust::Trust, Exit, login::Logins, no, oci::Registry, print, tell};
use crate::{
    config::{self, OciReference, Source},
    plugins::{self, Hash},
    snapshot::{self, ComponentStore, Files, Layer, write_private},
};
use clap::Args;
use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
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
    /// The gateway's `[gateway] state_dir`; by default that of this configuration, or of a service or user
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
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
        let logins = Logins::of_environment()?;
        let of_config = self.config.as_deref().map(of_config).transpose()?;
        let (of_config, named) = of_config.unwrap_or_default();
        let store = ComponentStore::below(&self.state_dir(of_config));
        let references = if self.references.is_empty() { named } else { self.references.clone() };
        if references.is_empty() {
            tell(&"nothing to fetch: no component of this configuration is an oci:// reference");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        tell(&format_args!("components are kept in {}", store.folder().display()));
        for reference in references {
            let fetched = runtime.block_on(self.fetch_one(&store, &logins, &reference));
            let (digest, is_new) = fetched.map_err(|why| format!("{reference}: {why}"))?;
            let verb = if is_new { "fetched" } else { "was there" };
            print(&format!("{}  {verb}\n", reference.pinned(&digest)));
        }
        Ok(())
    }

    /// Where the gateway keeps things: it reads components from there.
    fn state_dir(&self, of_config: Option<PathBuf>) -> PathBuf {
        self.state_dir.clone().or(of_config).unwrap_or_else(|| {
            if variable("STATE_DIRECTORY").is_none() {
                // systemd tells a service only.
                tell(
                    &"warning: nothing names the gateway's `state_dir`, and a service has one of its own: \
                      --state-dir, or `[gateway] state_dir`, says which",
                );
            }
            snapshot::default_state_dir(&variable)
        })
    }

    /// Returns the manifest's digest, and whether anything was fetched.
    async fn fetch_one(
        &self,
        store: &ComponentStore,
        logins: &Logins,
        reference: &OciReference,
    ) -> Result<(String, bool), String> {
        if let Some(digest) = &reference.digest
            && store.read(reference, &mut Files::default()).is_ok()
        {
            return Ok((digest.clone(), false));
        }
        let mut registry = Registry::new(reference, logins, &self.trust.roots()?)?;
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
        plugins::check_usable(&reference.to_string(), &component).map_err(|error| error.to_string())?;
        keep(&store.component(&layer.digest), &component)?;
        // Last: where it is, the component is.
        keep(&store.manifest(&digest), &manifest)?;
        Ok((digest, true))
    }
}

/// The `state_dir` of a configuration, where it says one, and the components that it names.
fn of_config(file: &Path) -> Result<(Option<PathBuf>, Vec<OciReference>), String> {
    let source = Source::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let config = config::parse(&source, &variable)
        .map_err(|errors| config::render(&source, &errors, false).trim_end().to_owned())?;
    let base = file.parent().unwrap_or(Path::new("."));
    let state_dir = config.gateway.state_dir.as_ref().map(|path| base.join(path));
    let of_plugins = config.plugins.values().map(|plugin| plugin.component.get_ref());
    let of_origins = config.origins.values().map(|origin| origin.component.get_ref());
    let of_routes = config.routes.iter().filter_map(|route| match route.to.get_ref() {
        config::Target::Wasm(component) => Some(component),
        _ => None,
    });
    let components = of_plugins.chain(of_origins).chain(of_routes);
    // The configuration was checked: what wants to be a reference is one.
    let references = components.filter_map(|component| component.parse().ok()).collect();
    Ok((state_dir, references))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Keeps a file for the gateway, which must be able to read it.
fn keep(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let kept = write_private(path, bytes).and_then(|()| is_neighbours(path));
    match kept.map_err(|error| format!("cannot write {}: {error}", path.display()))? {
        true => Ok(()),
        false => Err(format!(
            "{} belongs to another user than its folder's, who cannot read it: run this as the gateway's user",
            path.display()
        )),
    }
}

/// Whether a file and the folder of what the gateway keeps are one user's.
fn is_neighbours(path: &Path) -> io::Result<bool> {
    let state_dir = path.parent().and_then(Path::parent).unwrap_or(path);
    Ok(fs::metadata(path)?.uid() == fs::metadata(state_dir)?.uid())
}
