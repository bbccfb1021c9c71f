//! What the tests share: a store in a temporary directory, options that fail fast, trees as values.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fs_err as fs;
use lbx_image::unpack::{self, LayerRecord, Limits, Resolver, UnpackError};
use lbx_image::{Digest, Error, Image, Platform, PullOptions, Reference, Store};
use lbx_testkit::images::Layer;

pub(crate) const RESOLVERS: [Resolver; 2] = [Resolver::Openat2, Resolver::Walk];

/// A store that goes with the test.
pub(crate) struct Home {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Home {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&directory.path().join("store")).expect("a store");
        Self { directory, store }
    }

    pub(crate) async fn pull(&self, reference: &str, options: &PullOptions) -> Result<Image, Error> {
        lbx_image::pull(&self.store, &Reference::parse(reference)?, options, &|_| ()).await
    }

    /// What has a final name in the store, and what is under way.
    pub(crate) fn contents(&self) -> (usize, usize, usize) {
        let count =
            |part: &str| fs::read_dir(self.store.root().join(part)).expect("a part of the store").count();
        (count("blobs/sha256"), count("layers/v1"), count("tmp"))
    }
}

/// Options that don't wait.
pub(crate) fn options() -> PullOptions {
    let mut options = PullOptions::new(Platform::linux("amd64"));
    options.backoff = Duration::from_millis(1);
    options.attempts = 3;
    options
}

/// Unpacks a layer into a new directory below `parent`.
pub(crate) fn unpack_layer(
    parent: &Path,
    layer: &Layer,
    limits: &Limits,
    resolver: Resolver,
) -> Result<LayerRecord, UnpackError> {
    let blob = parent.join("blob");
    fs::write(&blob, &layer.blob).expect("a blob");
    let diff_id = Digest::parse(&layer.diff_id).expect("a digest");
    let gzip = layer.media_type.ends_with("gzip");
    let source = unpack::Source { blob: &blob, gzip, diff_id: &diff_id };
    unpack::unpack_with(&source, &parent.join("tree"), limits, resolver, &|_| (), &AtomicBool::new(false))
}

/// One file of a tree: its kind, permission bits, and data, target or device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File(u32, Vec<u8>),
    Directory(u32),
    Link(Vec<u8>),
    Other(u64),
}

/// Everything below a directory, by path.
pub(crate) fn tree(root: &Path) -> BTreeMap<Vec<u8>, Node> {
    let mut nodes = BTreeMap::new();
    collect(root, root, &mut nodes);
    nodes
}

fn collect(root: &Path, directory: &Path, nodes: &mut BTreeMap<Vec<u8>, Node>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let found = fs::symlink_metadata(&path).expect("metadata");
        let mode = found.mode() & 0o7777;
        let node = if found.is_dir() {
            collect(root, &path, nodes);
            Node::Directory(mode)
        } else if found.is_symlink() {
            Node::Link(fs::read_link(&path).expect("a link").as_os_str().as_bytes().to_vec())
        } else if found.file_type().is_char_device() {
            Node::Other(found.rdev())
        } else {
            Node::File(mode, fs::read(&path).expect("a file"))
        };
        let name = path.strip_prefix(root).expect("below the root").as_os_str().as_bytes().to_vec();
        nodes.insert(name, node);
    }
}

/// Bytes that don't compress, the same for the same seed.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(count).collect()
}
