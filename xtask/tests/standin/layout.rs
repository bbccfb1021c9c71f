//! An image in the OCI layout, read whole and independently of what wrote it: every file, and what the documents
//! say of each other.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use lbx_testkit::command::files_below;
use serde_json::Value;

/// Every file of an image's folder by its path there.
#[derive(PartialEq, Eq)]
pub(crate) struct Layout {
    files: BTreeMap<String, Vec<u8>>,
}

/// The names alone: the bytes are millions.
impl fmt::Debug for Layout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.files.keys()).finish()
    }
}

impl Layout {
    /// Reads the folder.
    pub(crate) fn read(folder: &Path) -> Self {
        let read = |name: String| (name.clone(), fs_err::read(folder.join(name)).expect("a file"));
        Self { files: files_below(folder).into_iter().map(read).collect() }
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Their paths, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The bytes of a file; none at all, if it is not there.
    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        self.files.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Where the manifest is.
    pub(crate) fn manifest(&self) -> String {
        blob(&self.json("index.json")["manifests"][0])
    }

    /// Where the config is.
    pub(crate) fn config(&self) -> String {
        blob(&self.json(&self.manifest())["config"])
    }

    /// What each layer is called in the history, and where it is; the lowest is first.
    pub(crate) fn layers(&self) -> Vec<(String, String)> {
        let (manifest, config) = (self.json(&self.manifest()), self.json(&self.config()));
        let layers = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let name = |index: usize| config["history"][index]["created_by"].as_str().unwrap_or("?").to_owned();
        layers.iter().enumerate().map(|(index, layer)| (name(index), blob(layer))).collect()
    }

    /// The file as a document; null, if it is none.
    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(self.bytes(name)).unwrap_or_default()
    }
}

/// The path of what a descriptor describes.
fn blob(descriptor: &Value) -> String {
    format!("blobs/{}", descriptor["digest"].as_str().unwrap_or_default().replace(':', "/"))
}
