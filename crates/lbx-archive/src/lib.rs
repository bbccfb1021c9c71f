//! Zip bytes: a strict reader of strangers' archives and a deterministic writer of our own.
//!
//! The reader ([`Archive::open`]) accepts only archives that every unzipper reads the same way; what it
//! returns is enough to copy a member's compressed bytes without looking at the archive again. The writer
//! ([`write()`]) puts such bytes into a new archive whose every other byte follows from the list of entries
//! and one [`Timestamp`]. What has no compressed bytes yet goes through [`compress()`] first.
//!
//! This crate knows files only as open descriptors: it walks no directory, reads no clock, and sees neither
//! host paths nor user ids.
//!
//! ```
//! use std::sync::Arc;
//! use lbx_archive::{Entry, Source, Timestamp, compress, write};
//!
//! let (packed, bytes) = compress(b"print('hello')\n");
//! let entry = Entry {
//!     name: "lambda.py".into(),
//!     executable: false,
//!     packed,
//!     source: Source::Memory(bytes.into()),
//! };
//! let mut zip = Vec::new();
//! let written = write(&mut zip, &[entry], Timestamp::default())?;
//! assert_eq!(written.size, zip.len() as u64);
//! # Ok::<(), lbx_archive::WriteError>(())
//! ```
//!
//! The format is PKWARE's APPNOTE.TXT 6.3.10; section numbers in the comments refer to it.

mod compress;
mod format;
mod name;
mod reader;
mod timestamp;
mod writer;

pub use compress::{COMPRESSOR, Compressor, Effort, LARGE, compress, compress_large, decompress};
pub use format::{Method, Packed};
pub use name::{NameError, NameSet, check_name};
pub use reader::{Archive, Limits, Member, MemberError, MemberReader, ReadError};
pub use timestamp::Timestamp;
pub use writer::{
    After, Entry, Prefix, Source, Tail, WriteError, Written, copy_prefix, write, write_after, write_prefix,
};
