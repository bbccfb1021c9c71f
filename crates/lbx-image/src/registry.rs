//! Where manifests and blobs come from: a registry over HTTP, or one in memory for tests of the stages above.
//!
//! What comes from here is not believed: digests, sizes and types are checked in [`crate::pull()`].

mod http;
mod memory;

use std::time::Duration;

pub use self::http::Outlet;
pub use self::memory::MemoryRegistry;

use self::http::{HttpBody, HttpRegistry};
use crate::{Digest, Error, PullOptions, Reference};

/// A source of images. The set is closed: what a pull does when a source misbehaves is decided in one place.
#[derive(Debug)]
pub enum Registry {
    /// A registry that speaks the OCI distribution protocol.
    Http(Box<Remote>),
    /// Images in memory.
    Memory(MemoryRegistry),
}

/// A registry over HTTP. Clients are set up when they are first needed: a pull from the store opens no socket and
/// reads no certificates.
#[derive(Debug)]
pub struct Remote(HttpRegistry);

/// A failed request, and whether another one may do better.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Box<Error>,
    pub(crate) again: Again,
}

/// Whether to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Never,
    Later,
    /// The registry said when.
    After(Duration),
}

impl Failure {
    pub(crate) fn final_(error: Error) -> Self {
        Self { error: Box::new(error), again: Again::Never }
    }

    pub(crate) fn passing(error: Error) -> Self {
        Self { error: Box::new(error), again: Again::Later }
    }
}

/// A blob on its way.
#[derive(Debug)]
pub(crate) struct Blob {
    /// The offset of the first byte that comes: what was asked for, or 0 when ranges are not honoured.
    pub(crate) start: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Http(Box<HttpBody>),
    Memory(Option<Vec<u8>>),
}

impl Blob {
    /// The next bytes; `None` at the end, be it the right one or not.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        match &mut self.body {
            Body::Http(body) => body.chunk().await,
            Body::Memory(bytes) => Ok(bytes.take()),
        }
    }
}

impl Registry {
    /// The registry a reference names.
    pub fn remote(reference: &Reference, options: &PullOptions) -> Self {
        Self::Http(Box::new(Remote(HttpRegistry::new(reference, options))))
    }

    /// Fetches a manifest or an index by tag or digest, of at most 4 MiB.
    pub(crate) async fn manifest(&self, reference: &Reference, name: &str) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Http(remote) => remote.0.manifest(name).await,
            Self::Memory(memory) => memory.manifest(reference, name),
        }
    }

    /// Begins to fetch a blob at an offset.
    pub(crate) async fn blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        from: u64,
    ) -> Result<Blob, Failure> {
        match self {
            Self::Http(remote) => remote.0.blob(digest, from).await,
            Self::Memory(memory) => memory.blob(reference, digest, from),
        }
    }
}
