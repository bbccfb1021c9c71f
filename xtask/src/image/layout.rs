//! An image on disk in the OCI layout: blobs by digest, a config, a manifest and an index.

use std::path::Path;

use serde_json::{Value, json};

use super::layer::{self, Blob};
use super::recipe::Recipe;
use crate::Result;

/// One moment for every image: no byte depends on when it was assembled.
const CREATED: &str = "1980-01-01T00:00:00Z";

/// What a layer is called in the config's history, and its bytes.
pub(crate) struct NamedLayer {
    pub(crate) name: String,
    pub(crate) blob: Blob,
}

/// Writes the image into the empty folder and returns the digest of its manifest.
pub(crate) fn write(folder: &Path, recipe: &Recipe, layers: &[NamedLayer], labels: &Value) -> Result<String> {
    fs_err::create_dir_all(folder.join("blobs/sha256"))?;
    for layer in layers {
        layer::store(folder, &layer.blob.digest, &layer.blob.gzip)?;
    }
    let config = serde_json::to_vec(&config(recipe, layers, labels))?;
    let config_digest = layer::sha256(&config);
    layer::store(folder, &config_digest, &config)?;
    let descriptors: Vec<Value> = layers.iter().map(descriptor).collect();
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest,
            "size": config.len(),
        },
        "layers": descriptors,
    }))?;
    let manifest_digest = layer::sha256(&manifest);
    layer::store(folder, &manifest_digest, &manifest)?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest_digest,
            "size": manifest.len(),
            "platform": { "architecture": recipe.architecture.name(), "os": "linux" },
            "annotations": { "org.opencontainers.image.ref.name": recipe.python },
        }],
    });
    fs_err::write(folder.join("index.json"), serde_json::to_vec(&index)?)?;
    fs_err::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(manifest_digest)
}

/// The labels of the image in the folder.
pub(crate) fn labels(folder: &Path) -> Result<Value> {
    let index: Value = serde_json::from_slice(&fs_err::read(folder.join("index.json"))?)?;
    let blob = |descriptor: &Value| -> Result<Value> {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        let name = digest.strip_prefix("sha256:").unwrap_or(digest);
        Ok(serde_json::from_slice(&fs_err::read(folder.join("blobs/sha256").join(name))?)?)
    };
    let manifest = blob(&index["manifests"][0])?;
    Ok(blob(&manifest["config"])?["config"]["Labels"].take())
}

fn descriptor(layer: &NamedLayer) -> Value {
    json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": layer.blob.digest,
        "size": layer.blob.gzip.len(),
    })
}

fn config(recipe: &Recipe, layers: &[NamedLayer], labels: &Value) -> Value {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.blob.diff_id.as_str()).collect();
    let history: Vec<Value> =
        layers.iter().map(|layer| json!({ "created": CREATED, "created_by": layer.name })).collect();
    json!({
        "created": CREATED,
        "architecture": recipe.architecture.name(),
        "os": "linux",
        "config": {
            "Env": recipe.config.env,
            "Entrypoint": recipe.config.entrypoint,
            "WorkingDir": recipe.config.working_dir,
            "Labels": labels,
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    })
}
