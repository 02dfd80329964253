//! Where the bytes of components come from: files, and the store of what was fetched from registries.
//!
//! Nothing here asks a registry: what is not in the store is not there.

use super::Files;
use crate::{
    config::{OciReference, sha256_digest},
    plugins::Hash,
};
use serde::Deserialize;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Where components are read from.
#[derive(Debug, Clone)]
pub struct ComponentStore {
    folder: PathBuf,
}

/// Why there is no component in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It was not fetched.
    #[error("it is not in {0}")]
    Missing(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, io::Error),
    /// A file is not what was fetched.
    #[error("{0} is not what was fetched: its SHA-256 is another")]
    Changed(PathBuf),
    /// The manifest names no component.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
}

/// Why a manifest is not one of a component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its manifest {0}")]
pub struct ManifestError(pub &'static str);

/// What a manifest says of its component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// SHA-256, in hexadecimal.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

/// Of WebAssembly: the one of today, and the one that older tools write.
const MEDIA_TYPES: [&str; 2] = ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"];

impl Layer {
    /// The component of a manifest.
    ///
    /// # Errors
    /// Fails where there is none, or more than one.
    pub fn of_manifest(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|_| ManifestError("is not an OCI image manifest"))?;
        if !manifest.manifests.is_empty() {
            return Err(ManifestError("is an index of several images; name one of them by its digest"));
        }
        let mut layers =
            manifest.layers.iter().filter(|layer| MEDIA_TYPES.contains(&layer.media_type.as_str()));
        let (Some(layer), None) = (layers.next(), layers.next()) else {
            return Err(ManifestError("has not just one layer of the type `application/wasm`"));
        };
        let digest = sha256_digest(&layer.digest)
            .ok_or(ManifestError("names its component by no SHA-256"))?
            .to_owned();
        Ok(Self { digest, size: layer.size })
    }
}

impl ComponentStore {
    /// The one in the folder of what the gateway keeps.
    pub fn below(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("components") }
    }

    /// The folder that it is in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a manifest of this digest is.
    pub fn manifest(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("sha256-{digest}.json"))
    }

    /// Where a component of this digest is.
    pub fn component(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("sha256-{digest}.wasm"))
    }

    /// The bytes of a component that was fetched. They are those that the reference is pinned to, whatever
    /// has become of the files.
    ///
    /// # Errors
    /// Fails where they are not there, or are others.
    pub fn read(&self, reference: &OciReference, files: &mut Files) -> Result<Vec<u8>, StoreError> {
        let digest = reference.digest.as_deref().unwrap_or_default();
        let manifest = verified(self.manifest(digest), digest, files)?;
        let layer = Layer::of_manifest(&manifest)?;
        verified(self.component(&layer.digest), &layer.digest, files)
    }
}

/// A file's bytes, where they are those of this digest.
fn verified(path: PathBuf, digest: &str, files: &mut Files) -> Result<Vec<u8>, StoreError> {
    match files.read(&path) {
        Ok(bytes) if Hash::of(&bytes).to_string() == digest => Ok(bytes),
        Ok(_) => Err(StoreError::Changed(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Missing(path)),
        Err(error) => Err(StoreError::Unreadable(path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_one_component() {
        let digest = "ab".repeat(32);
        let layer = |kind: &str, digest: &str| {
            format!(r#"{{ "mediaType": "{kind}", "digest": "sha256:{digest}", "size": 7 }}"#)
        };
        let manifest = |layers: &[String]| format!(r#"{{ "layers": [{}] }}"#, layers.join(","));
        let (wasm, text) = (layer("application/wasm", &digest), layer("text/plain", &digest));
        let found = Layer::of_manifest(manifest(&[text.clone(), wasm.clone()]).as_bytes());
        assert_eq!(found, Ok(Layer { digest: digest.clone(), size: 7 }));
        let older = layer("application/vnd.wasm.content.layer.v1+wasm", &digest);
        assert!(Layer::of_manifest(manifest(&[older]).as_bytes()).is_ok());
        for bad in [
            manifest(&[]),
            manifest(&[text]),
            manifest(&[wasm.clone(), wasm]),
            manifest(&[layer("application/wasm", "../../etc/passwd")]),
            r#"{ "manifests": [{}] }"#.to_owned(),
            "<html>".to_owned(),
        ] {
            assert!(Layer::of_manifest(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
