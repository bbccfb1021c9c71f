//! Everything that can go wrong between a reference and a tree, with what was expected, what was found, and
//! what to do about it.
//!
//! Messages are fragments that chain; printing the chain and the hint is left to the caller.

use std::io;
use std::path::{Path, PathBuf};

use lbx_net::CertificateProblem;
use rustix::io::Errno;

use crate::unpack::UnpackError;
use crate::{Digest, Platform};

/// Any error's cause, from a library whose types are not part of this crate's promises.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// How many platforms a hint lists: more than any real image has.
const SHOWN: usize = 20;

/// Why an image could not be pulled, stored or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A reference that can't be read.
    #[error("`{}` is not an image reference: {problem}", given.escape_debug())]
    Reference {
        /// What was given.
        given: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A reference without a registry.
    #[error("`{}` does not say which registry the image is in", given.escape_debug())]
    ShortReference {
        /// What was given.
        given: String,
        /// What may have been meant.
        candidates: Vec<String>,
    },
    /// Text that should be a digest and is not.
    #[error("`{}` is not a digest: expected sha256: and 64 lower-case hexadecimal digits", given.escape_debug())]
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
    /// The proxy in between can't be reached, or refuses.
    #[error("cannot reach {registry} through the proxy {proxy}")]
    Proxy {
        /// The host and port behind the proxy.
        registry: String,
        /// The proxy, without user name and password.
        proxy: String,
        /// The cause.
        source: Cause,
    },
    /// A certificate that doesn't show who answers.
    #[error("the certificate of {registry} is not trusted: {problem}")]
    Certificate {
        /// The host and port.
        registry: String,
        /// What is wrong with it.
        problem: CertificateProblem,
    },
    /// The registry sends its clients where they must not go.
    #[error("{registry} sends its clients to {target}, {problem}")]
    Misdirected {
        /// The registry's host and port.
        registry: String,
        /// The host it names.
        target: String,
        /// Why that is refused.
        problem: &'static str,
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
    #[error("no space left for the store {}", path.display())]
    DiskFull {
        /// The store's root.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The store's file system or its permissions let nobody write.
    #[error("cannot write to the store {}", path.display())]
    Unwritable {
        /// The store's root.
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
    /// What the user can do about it, as a phrase; `None` when the message says it all.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::ShortReference { candidates, .. } => match candidates.as_slice() {
                [] => "write it as registry/repository:tag",
                [first, rest @ ..] => {
                    let rest = rest.iter().fold(String::new(), |text, other| text + " or `" + other + "`");
                    return Some(format!("did you mean `{first}`{rest}?"));
                }
            },
            Self::Unreachable { .. } => {
                "check the network and the registry's name; an image that was pulled before can be used offline"
            }
            Self::Proxy { .. } => {
                "check http_proxy and https_proxy; no_proxy lists the hosts that are reached without a proxy"
            }
            Self::Certificate { problem, .. } => return Some(problem.hint("registry")),
            Self::Misdirected { .. } => "do not trust this registry, or whatever answers in its name",
            Self::Setup { .. } => {
                "check the CA certificates (SSL_CERT_FILE names their file, the package ca-certificates brings \
                 them) and the addresses of the proxies"
            }
            Self::Status { status: 500.., .. } => "the registry has a problem of its own: try again later",
            Self::Status { status: 429, .. } => "the registry limits how often it may be asked: wait a while",
            Self::Denied { .. } => {
                "check the repository's name; lbx has no way to log in yet, so the image must be public"
            }
            Self::NotFound { .. } => "check the repository and the tag",
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => {
                "the registry, a mirror or a proxy sent other bytes than were published; nothing of it was kept"
            }
            Self::Platform { available, .. } => match available.as_slice() {
                [] => "the image names no platform at all",
                list if list.len() > SHOWN => {
                    let (shown, more) = (list[..SHOWN].join(", "), list.len() - SHOWN);
                    return Some(format!("there is one for {shown}, and {more} more"));
                }
                list => return Some(format!("there is one for {}", list.join(", "))),
            },
            Self::Offline { .. } => "pull the image once with the network on",
            Self::Store { .. } => {
                "use a directory that belongs to you, is no symbolic link, and that nobody else can write to"
            }
            Self::Damaged { path, .. } => return Some(format!("remove {} and pull again", path.display())),
            Self::DiskFull { .. } => "free some space on its file system; nothing half-written was kept",
            Self::Unwritable { .. } => "let LBX_CACHE_DIR name a directory that you can write to",
            Self::Unpack { source, .. } => return source.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Names the store where there is no space left, or where nothing can be written. Which file it was tells nobody
    /// anything: it is gone by then, or never was.
    pub(crate) fn in_store(self, root: &Path) -> Self {
        let kind = match &self {
            Self::Io(source) | Self::Unpack { source: UnpackError::System { source, .. }, .. } => {
                source.kind()
            }
            _ => return self,
        };
        let path = root.to_path_buf();
        // As the system says it, without the file.
        match kind {
            io::ErrorKind::QuotaExceeded => Self::DiskFull { path, source: Errno::DQUOT.into() },
            io::ErrorKind::StorageFull => Self::DiskFull { path, source: Errno::NOSPC.into() },
            io::ErrorKind::ReadOnlyFilesystem => Self::Unwritable { path, source: Errno::ROFS.into() },
            _ => self,
        }
    }

    /// The same where the store's own folders are made: a refusal there is about the store, too.
    pub(crate) fn making_store(self, root: &Path) -> Self {
        match self {
            Self::Io(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Self::Unwritable { path: root.to_path_buf(), source: Errno::ACCESS.into() }
            }
            other => other.in_store(root),
        }
    }
}
