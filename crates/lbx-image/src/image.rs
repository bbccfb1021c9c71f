//! A pulled image as a value: what it is, how it wants to be run, and where its layers' trees are.
//!
//! Mounting the trees is left to the sandbox.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Digest, Reference};

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    /// The operating system, as Go names it: `linux`.
    pub os: String,
    /// The processor, as Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// The processor's variant, if it matters: `v8`.
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on a processor, in its base variant.
    pub fn linux(architecture: &str) -> Self {
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// Whether an image for `other` is one for this platform. No variant and the base variant are the same.
    pub fn accepts(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && self.variant_or_base() == other.variant_or_base()
    }

    fn variant_or_base(&self) -> &str {
        self.variant.as_deref().filter(|variant| !variant.is_empty()).unwrap_or(
            match self.architecture.as_str() {
                "arm64" => "v8",
                "amd64" => "v1",
                _ => "",
            },
        )
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// An image whose layers are all in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What was asked for.
    pub reference: Reference,
    /// The digest of the image's manifest.
    pub manifest_digest: Digest,
    /// The digest of the index the manifest was chosen from, if there was one. A lock pins this one: it holds
    /// for every platform.
    pub index_digest: Option<Digest>,
    /// The digest of the configuration.
    pub config_digest: Digest,
    /// What the image says about itself.
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// The layers' trees, lowest first.
    pub fn layer_trees(&self) -> Vec<&Path> {
        self.layers.iter().map(|layer| layer.tree.as_path()).collect()
    }

    /// Whether the trees can be stacked by overlayfs as they are; otherwise see [`crate::flatten()`].
    pub fn overlay_ready(&self) -> bool {
        self.layers.iter().all(|layer| layer.overlay_ready)
    }
}

/// The part of an image's configuration that decides how it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// The operating system.
    pub os: String,
    /// The processor.
    pub architecture: String,
    /// The processor's variant.
    pub variant: Option<String>,
    /// The environment, in the image's order.
    pub env: Vec<(String, String)>,
    /// The working directory; empty when the image has none.
    pub working_dir: String,
    /// The entry point; empty when the image has none.
    pub entrypoint: Vec<String>,
    /// The user, as written in the image; lbx runs everything as the caller.
    pub user: String,
    /// The labels, sorted by key.
    pub labels: Vec<(String, String)>,
}

/// One layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the compressed bytes.
    pub digest: Digest,
    /// The digest of the uncompressed bytes.
    pub diff_id: Digest,
    /// The layer's own files, owned by the caller. Read-only by agreement: other images share it.
    pub tree: PathBuf,
    /// Whether overlayfs shows what the layer means when its tree is put on top of those of the layers below.
    pub overlay_ready: bool,
    /// Compressed bytes.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_variant_and_no_variant_are_one_platform_and_others_are_not() {
        let arm = |variant: Option<&str>| Platform {
            variant: variant.map(str::to_owned),
            ..Platform::linux("arm64")
        };
        assert!(Platform::linux("arm64").accepts(&arm(Some("v8"))));
        assert!(!Platform::linux("arm64").accepts(&arm(Some("v9"))));
        assert!(arm(Some("v9")).accepts(&arm(Some("v9"))));
        assert!(!Platform::linux("amd64").accepts(&arm(None)));
    }
}
