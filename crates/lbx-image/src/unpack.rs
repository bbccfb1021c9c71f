//! One layer: from compressed bytes to a tree of files that belong to the caller, or to an error.
//!
//! Layers are unpacked alone, each into an empty tree, so any number of them can be unpacked at once and a tree
//! can be shared by all images that contain the layer. What a layer removes from those below it is recorded,
//! and put into the tree the way overlayfs wants it (`c 0 0`, `user.overlay.opaque`) where the file system can.
//!
//! A layer is hostile until proven otherwise:
//! - every path is resolved below the tree's own descriptor, links of the layer included; `..` is refused;
//! - owners, extended attributes, setuid and setgid bits are dropped; devices, FIFOs and sockets are skipped;
//! - hard links reach only what the same layer made;
//! - the uncompressed bytes, all of them, must have the diffID;
//! - [`Limits`] bound what it can cost.
//!
//! `inflate` is one thread, `apply` over `stream` the other; `resolve` walks paths; `names` reads and prints them.
//! Fetching, storing and merging are left to the rest of the crate.

mod apply;
mod inflate;
mod names;
mod resolve;
mod stream;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

pub use self::names::PathBytes;
pub use self::resolve::Resolver;

pub(crate) use self::resolve::Root;

use self::apply::Applier;
use self::inflate::Inflated;
use crate::{Digest, Error};

/// What one layer may cost. The defaults are far above every image in use and far below what hurts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Uncompressed bytes of the layer, and the sum of its files' sizes, holes included: 10 GiB.
    pub total_bytes: u64,
    /// Uncompressed bytes per compressed byte, once there are [`Limits::ratio_after`] of them: 200. Text
    /// rarely reaches 20.
    pub ratio: u64,
    /// From which uncompressed size the ratio counts: 100 MiB.
    pub ratio_after: u64,
    /// Entries: 1,000,000.
    pub entries: u64,
    /// Bytes of a path or a link's target: 4,096.
    pub path_length: usize,
    /// Components of a path: 256.
    pub depth: usize,
    /// Bytes of one extended header: 1 MiB.
    pub header_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_bytes: 10 << 30,
            ratio: 200,
            ratio_after: 100 << 20,
            entries: 1_000_000,
            path_length: 4096,
            depth: 256,
            header_bytes: 1 << 20,
        }
    }
}

/// What a layer's tree doesn't say about the layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Entries read, markers and skipped ones included.
    pub entries: u64,
    /// The sum of the files' sizes in bytes.
    pub bytes: u64,
    /// Paths removed from the layers below.
    pub whiteouts: Vec<PathBytes>,
    /// Directories that hide what the layers below have in them.
    pub opaque: Vec<PathBytes>,
    /// Directories the layer has no entry for: their mode is made up.
    pub implicit: Vec<PathBytes>,
    /// Entries that were not made: devices, FIFOs, sockets, and markers of other storage drivers.
    pub skipped: Vec<PathBytes>,
    /// Files that had a setuid or setgid bit.
    pub privileged: Vec<PathBytes>,
    /// Whether the tree itself has the removals in overlayfs's form.
    pub overlay_ready: bool,
}

/// Why a layer was refused or could not be written. Entries are escaped: they are safe to print.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A path or a link that a layer must not have.
    #[error("entry {entry}: {problem}")]
    Entry {
        /// The entry's path.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A hard link to what this layer has not made: it is in a layer below, or nowhere.
    #[error("entry {entry}: it is a hard link to {target}, which this layer does not hold before it")]
    LowerLink {
        /// The entry's path.
        entry: String,
        /// The path it links to.
        target: String,
    },
    /// A limit was reached.
    #[error("entry {entry}: {what} exceed the limit of {limit}")]
    Limit {
        /// The entry's path, or where it happened.
        entry: String,
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The tar stream is broken.
    #[error("the archive is broken at byte {offset}: {problem}")]
    Archive {
        /// The offset in the uncompressed stream.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// The compressed stream is broken.
    #[error("the compressed data is broken")]
    Compression {
        /// What the decoder said.
        source: io::Error,
    },
    /// The uncompressed bytes are not the configuration's.
    #[error("the uncompressed bytes have the digest {found}, expected {expected}")]
    DiffId {
        /// What the configuration says.
        expected: Digest,
        /// What was found.
        found: Digest,
    },
    /// A system call that failed.
    #[error("{call} of entry {entry}")]
    System {
        /// The call.
        call: &'static str,
        /// The entry's path.
        entry: String,
        /// The cause.
        source: io::Error,
    },
    /// The pull was given up.
    #[error("cancelled")]
    Cancelled,
}

impl UnpackError {
    pub(crate) fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Limit { .. } => "no image in use is like this: do not trust it",
            Self::LowerLink { .. } => {
                "have the image built or flattened by a tool that puts linked files into one layer"
            }
            Self::DiffId { .. } | Self::Archive { .. } | Self::Compression { .. } => {
                "the image was built or published wrongly; its author must fix it"
            }
            Self::Entry { .. } => "no image needs such an entry: do not trust this one",
            Self::System { .. } | Self::Cancelled => return None,
        };
        Some(text.to_owned())
    }
}

/// A layer's bytes and what they must be.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file with the layer as transferred, verified.
    pub blob: &'a Path,
    /// Whether it is compressed.
    pub gzip: bool,
    /// The digest of the uncompressed bytes.
    pub diff_id: &'a Digest,
}

/// Unpacks a layer into `tree`, which must not exist; its parent must belong to the caller alone.
///
/// `progress` gets the compressed bytes consumed so far. After an error, what is in `tree` is for the caller to
/// remove.
pub fn unpack(
    source: &Source<'_>,
    tree: &Path,
    limits: &Limits,
    progress: &(dyn Fn(u64) + Send + Sync),
    cancelled: &AtomicBool,
) -> Result<LayerRecord, UnpackError> {
    unpack_with(source, tree, limits, Resolver::detect(), progress, cancelled)
}

/// [`unpack()`] with a given way to resolve paths, so that the one for old kernels can be tested on any.
pub fn unpack_with(
    source: &Source<'_>,
    tree: &Path,
    limits: &Limits,
    resolver: Resolver,
    progress: &(dyn Fn(u64) + Send + Sync),
    cancelled: &AtomicBool,
) -> Result<LayerRecord, UnpackError> {
    let (sender, reader) = inflate::channel();
    let job = inflate::Job { source: *source, limits, progress, cancelled };
    std::thread::scope(|scope| {
        let inflating = scope.spawn(move || job.run(&sender));
        let applied = Applier::create(tree, limits, resolver).and_then(|applier| applier.run(reader));
        let inflated = inflating.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if cancelled.load(Ordering::Relaxed) {
            return Err(UnpackError::Cancelled);
        }
        match (inflated, applied) {
            // A broken stream also looks like a broken archive; the first cause is the one to name.
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(Inflated::Complete(found)), Ok(_)) if found != *source.diff_id => {
                Err(UnpackError::DiffId { expected: source.diff_id.clone(), found })
            }
            (Ok(Inflated::Complete(_)), Ok(record)) => Ok(record),
            (Ok(Inflated::Stopped), Ok(_)) => Err(UnpackError::Cancelled),
        }
    })
}

/// Whether a layer's tree has a symbolic link at a path.
pub(crate) fn is_link(tree: &Path, path: &PathBytes) -> Result<bool, Error> {
    use rustix::fs::{AtFlags, FileType, Mode, OFlags};
    let parts: Vec<&[u8]> = path.0.split(|byte| *byte == b'/').collect();
    let Some((name, parents)) = parts.split_last() else { return Ok(false) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(tree, flags, Mode::empty()).map_err(io::Error::from)?;
    // Where the parents don't exist, neither does the link.
    let Ok(parent) = Root::new(top, Resolver::detect()).open(parents) else { return Ok(false) };
    let found = rustix::fs::statat(&parent, *name, AtFlags::SYMLINK_NOFOLLOW);
    Ok(found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Symlink))
}

/// Hashes a file.
pub(crate) fn hash_file(path: &Path) -> Result<Digest, Error> {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha256::new();
    let mut file = fs_err::File::open(path)?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(Digest::from_hash(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}
