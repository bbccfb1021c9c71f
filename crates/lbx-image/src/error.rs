//! Everything that can go wrong between a reference and a tree, with what was expected, what was found, and
//! what to do about it.
//!
//! Messages are fragments that chain; printing the chain and the hint is left to the caller.

use std::io;
use std::path::{Path, PathBuf};

use crate::unpack::UnpackError;
use crate::{Digest, Platform};

/// Any error's cause, from a library whose types are not part of this crate's promises.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why an image could not be pulled, stored or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A reference that can't be read.
    #[error("{given:?} is not an image reference: {problem}")]
    Reference {
        /// What was given.
        given: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A reference without a registry.
    #[error("{given:?} does not say which registry the image is in")]
    ShortReference {
        /// What was given.
        given: String,
        /// What may have been meant.
        candidates: Vec<String>,
    },
    /// Text that should be a digest and is not.
    #[error("{given:?} is not a digest: expected sha256: and 64 lower-case hexadecimal digits")]
    Digest {
        /// What was given.
        given: String,
    },
    /// The client could not be set up: a bad certificate, a bad proxy address.
    #[error("cannot set up the connection to {registry}")]
    Setup {
        /// The registry's host and port.
        registry: String,
        /// The cause.
        source: Cause,
    },
    /// No answer, or one that broke off.
    #[error("cannot reach {registry}")]
    Unreachable {
        /// The registry's host and port.
        registry: String,
        /// The cause.
        source: Cause,
    },
    /// An answer that is neither success nor one of the cases below.
    #[error("{registry} answered {status} to a request for {what}")]
    Status {
        /// The registry's host and port.
        registry: String,
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
    },
    /// The registry wants other credentials, or none would do.
    #[error("{registry} refused access to {repository}: {reason}")]
    Denied {
        /// The registry's host and port.
        registry: String,
        /// The repository.
        repository: String,
        /// In the registry's words, or the status.
        reason: String,
    },
    /// The registry has no such repository, tag or digest.
    #[error("{registry} has no {what}")]
    NotFound {
        /// The registry's host and port.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// Bytes that are not the ones they should be.
    #[error("{what} has the digest {found}, expected {expected}")]
    DigestMismatch {
        /// What was verified.
        what: String,
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// More or fewer bytes than declared.
    #[error("{what} has {found} bytes, expected {expected}")]
    SizeMismatch {
        /// What was measured.
        what: String,
        /// The declared size in bytes.
        expected: u64,
        /// The bytes that came; reading stops soon after the declared size.
        found: u64,
    },
    /// A document over its limit.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What was read.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A document that doesn't say what it must.
    #[error("{what} is malformed: {problem}")]
    Malformed {
        /// Which document.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A well-formed thing that lbx does not read.
    #[error("{what} is not supported")]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// The image exists, but not for the wanted platform.
    #[error("{reference} has no image for {wanted}")]
    Platform {
        /// The image.
        reference: String,
        /// What was wanted.
        wanted: Platform,
        /// What there is.
        available: Vec<String>,
    },
    /// The network is off, and the store lacks something.
    #[error("{what} is not in the store, and the network is off")]
    Offline {
        /// What is missing.
        what: String,
    },
    /// The store's directory can't be trusted.
    #[error("{} cannot hold the store: {problem}", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of the store that no longer is what it was.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No space left.
    #[error("no space left for {}", path.display())]
    DiskFull {
        /// Where the bytes should have gone.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A layer that can't be unpacked.
    #[error("cannot unpack layer {layer}")]
    Unpack {
        /// The layer's digest.
        layer: Digest,
        /// Which entry, and why.
        source: UnpackError,
    },
    /// A file operation that failed; the message names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The pull was given up by its caller.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// What the user can do about it, as a full sentence; `None` when the message says it all.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ShortReference { candidates, .. } => match candidates.as_slice() {
                [] => Some("Write registry/repository:tag.".to_owned()),
                list => Some(format!("Write the registry too, for example {}.", list.join(" or "))),
            },
            Self::Unreachable { .. } => {
                Some("Check the network, the proxy and the registry's name; an image that was pulled before can be used offline.".to_owned())
            }
            Self::Setup { .. } => {
                Some("Check the CA certificates and the proxy's address; ca-certificates must be installed for https.".to_owned())
            }
            Self::Status { status: 429, .. } => {
                Some("The registry limits how often it may be asked; wait, or log in.".to_owned())
            }
            Self::Denied { .. } => Some("Log in to the registry, or check the repository's name.".to_owned()),
            Self::NotFound { .. } => Some("Check the repository and the tag.".to_owned()),
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => Some(
                "The registry, a mirror or a proxy sent other bytes than the image was published with; nothing of it was kept.".to_owned(),
            ),
            Self::Platform { available, .. } => Some(match available.as_slice() {
                [] => "The image names no platform at all.".to_owned(),
                list => format!("It has {}.", list.join(", ")),
            }),
            Self::Offline { .. } => Some("Pull the image once with the network on.".to_owned()),
            Self::Store { .. } => {
                Some("Use a directory that belongs to you, that is no symbolic link, and that nobody else can write to.".to_owned())
            }
            Self::Damaged { path, .. } => Some(format!("Remove {} and pull again.", path.display())),
            Self::DiskFull { path, .. } => {
                Some(format!("Free some space on the file system of {}; nothing half-written was kept.", path.display()))
            }
            Self::Unpack { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// Wraps an I/O error that happened while something was written to `path`.
    pub(crate) fn writing(path: &Path, source: io::Error) -> Self {
        if is_disk_full(&source) {
            Self::DiskFull { path: path.to_path_buf(), source }
        } else {
            Self::Io(source)
        }
    }
}

pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
