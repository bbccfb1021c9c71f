//! What can be wrong with a wheel, or with keeping it.

use std::io;
use std::path::PathBuf;

use lbx_archive::{NameError, ReadError};

/// Why a wheel was refused, or could not be stored or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WheelError {
    /// The wheel itself is refused.
    #[error("wheel {path} refused")]
    Refused {
        /// The wheel as the caller named it.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        reason: Box<WheelError>,
    },
    /// A file operation failed; the message names the file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is larger than any wheel that is of use.
    #[error("it has {size} bytes, expected at most {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The stored wheel does not have the bytes any more that it had.
    #[error("the bytes of {member:?} are not what they were when the wheel was stored")]
    Damaged {
        /// The member.
        member: String,
    },
    /// The path leads to something else than a regular file.
    #[error("it is not a regular file")]
    NotAFile,
    /// The caller of [`WheelStore::add_with`](crate::WheelStore::add_with) said to stop. It is never inside
    /// [`WheelError::Refused`]: there is nothing wrong with the wheel.
    #[error("interrupted")]
    Interrupted,
    /// The archive is not one that every reader understands alike.
    #[error("it is not an acceptable zip archive")]
    Archive(#[from] ReadError),
    /// The file's name is not a wheel's (PEP 427).
    #[error("{name:?} is not a wheel file name: {what}")]
    Filename {
        /// The name.
        name: String,
        /// What does not fit.
        what: &'static str,
    },
    /// There is no `.dist-info` directory, or not exactly one, or another distribution's.
    #[error("expected one .dist-info directory, of {expected}, found {found:?}")]
    DistInfo {
        /// Name and version by the file name.
        expected: String,
        /// The `.dist-info` directories at the root.
        found: Vec<String>,
    },
    /// A file that every wheel has is not there.
    #[error("{member:?} is missing")]
    Missing {
        /// The member that should be there.
        member: String,
    },
    /// METADATA, WHEEL or entry_points.txt cannot be read.
    #[error("{member:?} is malformed: {what}")]
    Malformed {
        /// The member.
        member: String,
        /// What does not fit.
        what: String,
    },
    /// METADATA says another name or version than the file name.
    #[error("the file name says {field} {expected:?}, METADATA says {found:?}")]
    Mismatch {
        /// `name` or `version`.
        field: &'static str,
        /// By the file name.
        expected: String,
        /// By METADATA.
        found: String,
    },
    /// The wheel format has another major version.
    #[error("Wheel-Version is {found:?}, expected 1.x")]
    WheelVersion {
        /// The version.
        found: String,
    },
    /// A line of RECORD cannot be read.
    #[error("RECORD line {line}: {what}")]
    Record {
        /// Line number from 1.
        line: usize,
        /// What does not fit.
        what: String,
    },
    /// A member has no line in RECORD.
    #[error("{member:?} is not in RECORD")]
    NotRecorded {
        /// The member.
        member: String,
    },
    /// RECORD has a line for a member that is not there.
    #[error("RECORD lists {member:?}, which is not in the wheel")]
    RecordedButMissing {
        /// The path in RECORD.
        member: String,
    },
    /// RECORD has a line for a member, but no digest that counts.
    #[error("RECORD has no sha256, sha384 or sha512 for {member:?}")]
    NoDigest {
        /// The member.
        member: String,
    },
    /// A member's content is not what RECORD says.
    #[error("{member:?} does not match RECORD: {what} differs")]
    RecordMismatch {
        /// The member.
        member: String,
        /// `size` or the digest's name.
        what: &'static str,
    },
    /// A member cannot be inflated, or is not what its own header says.
    #[error("{member:?} is damaged")]
    Content {
        /// The member.
        member: String,
        /// The cause.
        source: io::Error,
    },
    /// A member of a `.data` directory that pip has no place for.
    #[error("{member:?} is not under a known scheme ({known})")]
    Scheme {
        /// The member.
        member: String,
        /// The schemes there are.
        known: &'static str,
    },
    /// Two members would be installed as the same path.
    #[error("{member:?} cannot be installed as {path:?}: {reason}")]
    Collision {
        /// The second member.
        member: String,
        /// Where both go.
        path: String,
        /// Duplicate, or file and directory.
        reason: NameError,
    },
    /// The file changed while it was read.
    #[error("{path} changed while it was read")]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

/// Why a wheel cannot be used on a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no tag of {tags} fits Python 3.{python_minor} on {arch} with glibc {}.{}: {reason}", .glibc.0, .glibc.1)]
pub struct TagMismatch {
    /// The wheel's tags as in its file name.
    pub tags: String,
    /// The target's Python minor version.
    pub python_minor: u8,
    /// The target's glibc.
    pub glibc: (u16, u16),
    /// The target's machine.
    pub arch: String,
    /// Which part does not fit: the interpreter, the ABI or the platform.
    pub reason: &'static str,
}
