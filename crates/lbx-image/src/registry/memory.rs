//! Images in memory, with a count of the requests made: for tests of the stages above, without sockets.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Blob, Body, Failure};
use crate::{Digest, Error, Reference};

/// A registry that holds what it was given, under any host name and in every repository.
#[derive(Debug, Default)]
pub struct MemoryRegistry {
    manifests: HashMap<String, Vec<u8>>,
    blobs: HashMap<Digest, Vec<u8>>,
    requests: AtomicU64,
}

impl MemoryRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a manifest or an index under its digest, and under a tag.
    #[must_use]
    pub fn with_manifest(mut self, tag: &str, bytes: &[u8]) -> Self {
        for name in [tag, Digest::of(bytes).as_str()] {
            self.manifests.insert(name.to_owned(), bytes.to_vec());
        }
        self
    }

    /// Adds a configuration or a layer.
    #[must_use]
    pub fn with_blob(mut self, bytes: &[u8]) -> Self {
        self.blobs.insert(Digest::of(bytes), bytes.to_vec());
        self
    }

    /// How many requests were made so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn manifest(&self, reference: &Reference, name: &str) -> Result<Vec<u8>, Failure> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.manifests.get(name).cloned().ok_or_else(|| not_found(reference, name))
    }

    pub(super) fn blob(&self, reference: &Reference, digest: &Digest, from: u64) -> Result<Blob, Failure> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let bytes = self.blobs.get(digest).ok_or_else(|| not_found(reference, digest.as_str()))?;
        let start = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
        Ok(Blob { start: start as u64, body: Body::Memory(Some(bytes[start..].to_vec())) })
    }
}

fn not_found(reference: &Reference, name: &str) -> Failure {
    let what = format!("{}:{name}", reference.repository());
    Failure::final_(Error::NotFound { registry: reference.registry().to_owned(), what })
}
