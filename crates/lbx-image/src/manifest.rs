//! Manifests, indexes and configurations: bytes to values, strictly where it matters.
//!
//! The bytes' digest is checked by the caller before anything here believes them. An index and a manifest are
//! distinct types, and a document that could be read as both is refused (CVE-2021-41190).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Digest, Error, ImageConfig, Platform};

/// The largest manifest or index accepted, in bytes; the least a registry must accept.
pub(crate) const MANIFEST_LIMIT: u64 = 4 << 20;
/// The largest configuration accepted, in bytes.
pub(crate) const CONFIG_LIMIT: u64 = 8 << 20;
/// What is asked of a registry.
pub(crate) const ACCEPT: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// A verified document.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Vec<IndexEntry>),
    Manifest(Manifest),
}

#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<LayerDescriptor>,
}

#[derive(Debug, Clone)]
pub(crate) struct LayerDescriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) compression: Compression,
}

/// How a layer's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
}

/// A descriptor's `urls` are not read: they let an image send its reader to any host (CVE-2020-15157).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct IndexEntry {
    #[serde(flatten)]
    pub(crate) descriptor: Descriptor,
    #[serde(default)]
    platform: Option<RawPlatform>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<IndexEntry>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

/// Reads a document. `media_type` is what the registry or the parent said it is, if either did.
pub(crate) fn parse(what: &str, bytes: &[u8], media_type: Option<&str>) -> Result<Document, Error> {
    let malformed = |problem: String| Error::Malformed { what: what.to_owned(), problem };
    // A schema 1 manifest has none of the fields below, so it is recognised by its version first.
    let raw: RawDocument = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    if raw.schema_version == 1 {
        return Err(Error::Unsupported { what: format!("{what}: a schema 1 manifest") });
    }
    if raw.schema_version != 2 {
        return Err(malformed(format!("its schema version is {}, expected 2", raw.schema_version)));
    }
    let outer = media_type.map(essence).filter(|outer| is_known(outer));
    if let (Some(outer), Some(inner)) = (outer, raw.media_type.as_deref())
        && outer != inner
    {
        return Err(malformed(format!("it says it is {inner:?}, but was announced as {outer:?}")));
    }
    let declared = raw.media_type.as_deref().or(outer);
    let mismatch = |shape: &str| {
        let declared = declared.unwrap_or_default();
        malformed(format!("it has the shape of {shape}, but its type is {declared:?}"))
    };
    match (raw.manifests, raw.config, raw.layers) {
        (Some(entries), None, None) if declared.is_none_or(|kind| INDEX_TYPES.contains(&kind)) => {
            Ok(Document::Index(entries))
        }
        (Some(_), None, None) => Err(mismatch("an index")),
        (None, Some(config), Some(layers)) if declared.is_none_or(|kind| MANIFEST_TYPES.contains(&kind)) => {
            let layers =
                layers.into_iter().map(|layer| layer_descriptor(what, layer)).collect::<Result<_, _>>()?;
            Ok(Document::Manifest(Manifest { config, layers }))
        }
        (None, Some(_), Some(_)) => Err(mismatch("a manifest")),
        (Some(_), _, _) => Err(malformed("it is an index and a manifest at once".to_owned())),
        _ => Err(malformed("it is neither an index nor a manifest".to_owned())),
    }
}

fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

fn is_known(media_type: &str) -> bool {
    // A registry behind a plain file server says `application/json`, which contradicts nothing.
    !matches!(media_type, "" | "application/json" | "application/octet-stream" | "text/plain")
}

fn layer_descriptor(what: &str, layer: Descriptor) -> Result<LayerDescriptor, Error> {
    let compression = match layer.media_type.as_str() {
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
            Compression::None
        }
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
        other => return Err(Error::Unsupported { what: format!("{what}: a layer of type {other:?}") }),
    };
    Ok(LayerDescriptor { digest: layer.digest, size: layer.size, compression })
}

impl IndexEntry {
    fn platform(&self) -> Option<Platform> {
        let raw = self.platform.as_ref()?;
        // buildx lists attestations this way; they are no images.
        let attestation = raw.os == "unknown" && raw.architecture == "unknown";
        let is_image = MANIFEST_TYPES.contains(&self.descriptor.media_type.as_str());
        (is_image && !attestation).then(|| Platform {
            os: raw.os.clone(),
            architecture: raw.architecture.clone(),
            variant: raw.variant.clone(),
        })
    }
}

/// The first image of an index for a platform; otherwise the platforms there are.
pub(crate) fn choose<'a>(
    entries: &'a [IndexEntry],
    wanted: &Platform,
) -> Result<&'a Descriptor, Vec<String>> {
    let fits = |entry: &&IndexEntry| entry.platform().is_some_and(|platform| wanted.accepts(&platform));
    entries.iter().find(fits).map(|entry| &entry.descriptor).ok_or_else(|| {
        let mut available: Vec<String> =
            entries.iter().filter_map(IndexEntry::platform).map(|platform| platform.to_string()).collect();
        available.sort();
        available.dedup();
        available
    })
}

/// A configuration, and the diffIDs of the layers it goes with.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) image: ImageConfig,
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(flatten)]
    platform: RawPlatform,
    #[serde(default)]
    config: Option<RawRun>,
    rootfs: RawRootfs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawRun {
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    entrypoint: Option<Vec<String>>,
    user: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Vec<Digest>,
}

/// Reads a configuration and checks that it goes with the manifest's layers.
pub(crate) fn parse_config(what: &str, bytes: &[u8], layers: usize) -> Result<Config, Error> {
    let malformed = |problem: String| Error::Malformed { what: what.to_owned(), problem };
    let raw: RawConfig = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    let diff_ids = raw.rootfs.diff_ids;
    if diff_ids.len() != layers {
        return Err(malformed(format!(
            "it lists {} diff_ids, expected {layers}, one per layer",
            diff_ids.len()
        )));
    }
    let run = raw.config.unwrap_or_default();
    let pair = |entry: String| match entry.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (entry, String::new()),
    };
    let image = ImageConfig {
        os: raw.platform.os,
        architecture: raw.platform.architecture,
        variant: raw.platform.variant,
        env: run.env.unwrap_or_default().into_iter().map(pair).collect(),
        working_dir: run.working_dir.unwrap_or_default(),
        entrypoint: run.entrypoint.unwrap_or_default(),
        user: run.user.unwrap_or_default(),
        labels: run.labels.unwrap_or_default().into_iter().collect(),
    };
    Ok(Config { image, diff_ids })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEX: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn descriptor(media_type: &str) -> serde_json::Value {
        json!({"mediaType": media_type, "digest": HEX, "size": 1, "urls": ["http://169.254.169.254/"]})
    }

    fn manifest(layer: &str) -> serde_json::Value {
        json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPES[0], "config": descriptor("x"),
               "layers": [descriptor(layer)]})
    }

    fn read(document: &serde_json::Value, media_type: Option<&str>) -> Result<Document, Error> {
        parse("the manifest", document.to_string().as_bytes(), media_type)
    }

    #[test]
    fn a_document_that_is_an_index_and_a_manifest_is_refused() {
        let mut both = manifest("application/vnd.oci.image.layer.v1.tar");
        assert!(matches!(read(&both, None), Ok(Document::Manifest(_))));
        both["manifests"] = json!([]);
        assert!(matches!(read(&both, None), Err(Error::Malformed { .. })));
    }

    #[test]
    fn the_announced_type_the_written_type_and_the_shape_must_agree() {
        let image = manifest("application/vnd.oci.image.layer.v1.tar+gzip");
        assert!(read(&image, Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")).is_ok());
        assert!(read(&image, Some("application/json")).is_ok());
        assert!(read(&image, Some(INDEX_TYPES[0])).is_err());
        assert!(read(&image, Some("text/html")).is_err());
        let mut liar = image.clone();
        liar["mediaType"] = json!(INDEX_TYPES[0]);
        assert!(read(&liar, None).is_err());
    }

    #[test]
    fn schema_1_unknown_layers_and_bad_descriptors_are_refused() {
        assert!(matches!(
            read(&json!({"schemaVersion": 1, "fsLayers": []}), None),
            Err(Error::Unsupported { .. })
        ));
        let zstd = manifest("application/vnd.oci.image.layer.v1.tar+zstd");
        assert!(matches!(read(&zstd, None), Err(Error::Unsupported { .. })));
        for (key, value) in [("digest", json!("sha256:../../x")), ("size", json!(-1)), ("size", json!("1"))] {
            let mut bad = manifest("application/vnd.oci.image.layer.v1.tar");
            bad["layers"][0][key] = value;
            assert!(matches!(read(&bad, None), Err(Error::Malformed { .. })), "{bad}");
        }
    }

    #[test]
    fn the_platform_is_chosen_and_attestations_are_no_images() {
        let entry = |os: &str, architecture: &str, variant: Option<&str>| {
            let mut entry = descriptor(MANIFEST_TYPES[0]);
            entry["platform"] = json!({"os": os, "architecture": architecture, "variant": variant});
            entry
        };
        let index = json!({"schemaVersion": 2, "manifests": [
            entry("unknown", "unknown", None), entry("linux", "arm64", Some("v9")), entry("linux", "arm64", Some("v8")),
            descriptor(MANIFEST_TYPES[0]),
        ]});
        let Ok(Document::Index(entries)) = read(&index, None) else { panic!("an index") };
        let chosen = choose(&entries, &Platform::linux("arm64")).expect("arm64 is there");
        assert!(std::ptr::eq(chosen, &raw const entries[2].descriptor));
        let available = choose(&entries, &Platform::linux("amd64")).expect_err("amd64 is not");
        assert_eq!(available, ["linux/arm64/v8", "linux/arm64/v9"]);
    }

    #[test]
    fn a_configuration_needs_one_diff_id_per_layer() {
        let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [HEX]},
                            "config": {"Env": ["A=b=c", "D"], "Labels": null, "Entrypoint": null}});
        let bytes = config.to_string().into_bytes();
        let parsed = parse_config("the configuration", &bytes, 1).expect("a configuration");
        assert_eq!(parsed.image.env, [("A".into(), "b=c".into()), ("D".into(), String::new())]);
        assert!(parse_config("the configuration", &bytes, 2).is_err());
    }
}
