//! Why an archive was refused. Which archive it was, the caller knows and adds.

use std::io;

use crate::name::NameError;

/// Why [`Archive::open`](crate::Archive::open) refused an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file could not be read.
    #[error("failed to read the archive")]
    Io(#[from] io::Error),
    /// There is no end of central directory record where it can be.
    #[error("not a zip archive: no end of central directory record")]
    NoEnd,
    /// The end record is not the last thing in the file: something follows it or its comment.
    #[error("{extra} bytes after the end of central directory record")]
    TrailingData {
        /// Bytes that follow.
        extra: u64,
    },
    /// The end record's comment goes beyond the end of the file.
    #[error("the end of central directory record is truncated")]
    TruncatedEnd,
    /// A second end record fits as well, so that readers may choose differently.
    #[error("two end of central directory records")]
    AmbiguousEnd,
    /// The archive says it is a part of several.
    #[error("the archive spans several disks")]
    MultiDisk,
    /// The zip64 records contradict the others or themselves.
    #[error("inconsistent zip64 data: {what}")]
    Zip64 {
        /// What does not fit.
        what: &'static str,
    },
    /// The central directory does not end where the end record begins.
    #[error("the central directory (at {offset}, {size} bytes) does not end at the end record (at {end})")]
    DirectoryPlace {
        /// Where the directory starts, by the end record.
        offset: u64,
        /// Bytes of the directory, by the end record.
        size: u64,
        /// Where the end record (zip64's if there is one) starts.
        end: u64,
    },
    /// The central directory's bytes are not the headers that the end record promises.
    #[error("malformed central directory: {what}")]
    Directory {
        /// What does not fit.
        what: &'static str,
    },
    /// A name is not acceptable.
    #[error("member name {name:?} refused: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: NameError,
    },
    /// A name is not UTF-8, or not ASCII without saying that it is UTF-8.
    #[error("member name {name:?} is not marked as UTF-8 or is not UTF-8")]
    NameEncoding {
        /// The name, with replacement characters.
        name: String,
    },
    /// The member is encrypted.
    #[error("{name:?} is encrypted")]
    Encrypted {
        /// The member.
        name: String,
    },
    /// The member has general purpose flags that are not understood.
    #[error("{name:?} has unsupported flags {flags:#06x}")]
    Flags {
        /// The member.
        name: String,
        /// All its flags.
        flags: u16,
    },
    /// The member's compression method is neither stored nor deflate.
    #[error("{name:?} has compression method {method}, expected 0 (stored) or 8 (deflate)")]
    Method {
        /// The member.
        name: String,
        /// The method's number.
        method: u16,
    },
    /// The member is a link, a device, a socket or a pipe, or a directory under a file's name.
    #[error("{name:?} has file type {mode:#o}, expected a regular file or a directory")]
    FileType {
        /// The member.
        name: String,
        /// The Unix mode it has.
        mode: u32,
    },
    /// An extra field is malformed, or gives the member a second name.
    #[error("{name:?} has a bad extra field: {what}")]
    Extra {
        /// The member.
        name: String,
        /// What does not fit.
        what: &'static str,
    },
    /// The sizes cannot be true: a stored member that changes size, or a directory with content.
    #[error("{name:?} has impossible sizes: {compressed} bytes compressed, {size} inflated")]
    Sizes {
        /// The member.
        name: String,
        /// Bytes in the archive.
        compressed: u64,
        /// Bytes after inflating.
        size: u64,
    },
    /// The local header says something else than the central directory.
    #[error("{name:?}: {field} differs between local header and central directory")]
    LocalMismatch {
        /// The member.
        name: String,
        /// Which field.
        field: &'static str,
    },
    /// There is no local header where the central directory says.
    #[error("{name:?} has no local header at {offset}")]
    NoLocal {
        /// The member.
        name: String,
        /// Where it should be.
        offset: u64,
    },
    /// The data descriptor after the member is missing or says something else.
    #[error("{name:?} has a bad data descriptor")]
    Descriptor {
        /// The member.
        name: String,
    },
    /// The member starts before the previous one ends, or reaches into the central directory.
    #[error("{name:?} overlaps what follows it")]
    Overlap {
        /// The member.
        name: String,
    },
    /// Bytes before the first member, or between a member and what follows it.
    #[error("{size} bytes at {offset} belong to no member")]
    Gap {
        /// Where they start.
        offset: u64,
        /// How many.
        size: u64,
    },
    /// More members than the limit.
    #[error("{found} members, the limit is {limit}")]
    TooManyMembers {
        /// How many.
        found: u64,
        /// How many may be.
        limit: u64,
    },
    /// A central directory above the limit.
    #[error("a central directory of {found} bytes, the limit is {limit}")]
    DirectoryTooLarge {
        /// Its bytes.
        found: u64,
        /// How many may be.
        limit: u64,
    },
    /// A member above the limit.
    #[error("{name:?} has {found} bytes, the limit is {limit}")]
    MemberTooLarge {
        /// The member.
        name: String,
        /// Its bytes.
        found: u64,
        /// How many may be.
        limit: u64,
    },
    /// All members together are above the limit.
    #[error("the members have {found} bytes, the limit is {limit}")]
    TooLarge {
        /// Their bytes.
        found: u64,
        /// How many may be.
        limit: u64,
    },
    /// A bomb: far more bytes come out than went in.
    #[error("{archive} bytes of archive inflate to {size}, the limit is {limit} to 1")]
    Ratio {
        /// Bytes after inflating.
        size: u64,
        /// Bytes of archive.
        archive: u64,
        /// The most that may come out per byte.
        limit: u64,
    },
}
