//! Writing our own archives: every byte follows from the entries, in the caller's order, and one timestamp.
//!
//! Compressed bytes are copied as they are; headers are made anew. The calling thread reads and writes, another
//! one hashes, and a fixed set of buffers goes round between them. The destination, its name and its durability
//! are the caller's.

mod headers;
mod pipe;
mod prefix;

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use self::prefix::{After, Prefix, Tail, copy_prefix, write_after, write_prefix};

use self::headers::{central_header, end_records, local_header};
use self::pipe::{Pipe, hash};
use crate::format::{CENTRAL_LEN, Method, Packed};
use crate::name::{NameError, NameSet, check_name};
use crate::timestamp::Timestamp;

/// One file of the archive to be.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The path in the archive: relative, normal, `/` between components. Directories are not written.
    pub name: String,
    /// Mode 0755 instead of 0644.
    pub executable: bool,
    /// Method, sizes and CRC of what `source` holds. They are trusted.
    pub packed: Packed,
    /// The compressed bytes.
    pub source: Source,
}

impl Entry {
    fn member(&self) -> Member<'_> {
        Member { name: &self.name, executable: self.executable, packed: self.packed }
    }
}

/// Where the compressed bytes of an entry are.
#[derive(Debug, Clone)]
pub enum Source {
    /// In a file, `compressed_size` bytes from `offset`.
    Range {
        /// The file; read by position, so it can be shared.
        file: Arc<File>,
        /// The first byte.
        offset: u64,
    },
    /// In memory, exactly `compressed_size` bytes.
    Memory(Arc<[u8]>),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the archive.
    pub size: u64,
    /// SHA-256 of the archive. Its base64 is what Lambda calls `CodeSha256`.
    pub sha256: [u8; 32],
}

/// Why an archive could not be written. What was written until then is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// An entry's name is not acceptable, or not together with the others.
    #[error("entry name {name:?} refused: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: NameError,
    },
    /// An entry's name is that of a directory.
    #[error("entry {name:?} is a directory, expected a file")]
    Directory {
        /// The name.
        name: String,
    },
    /// An entry's sizes contradict its method or its bytes.
    #[error("entry {name:?} has inconsistent sizes")]
    Sizes {
        /// The name.
        name: String,
    },
    /// An entry's bytes could not be read.
    #[error("failed to read the bytes of entry {name:?}")]
    Read {
        /// The name.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// The bytes that the archive begins with could not be copied.
    #[error("failed to copy the beginning of the archive")]
    Copy(#[source] io::Error),
    /// The archive could not be written.
    #[error("failed to write the archive")]
    Write(#[source] io::Error),
    /// The hashing thread could not be started or ended early.
    #[error("failed to hash the archive")]
    Hash(#[source] io::Error),
}

/// What headers say of a file.
#[derive(Clone, Copy)]
struct Member<'e> {
    name: &'e str,
    executable: bool,
    packed: Packed,
}

/// Writes an archive of `entries`, in their order, to `out`, and hashes it meanwhile.
///
/// `out` gets large writes and needs no buffering. Names are checked before anything is written. The result
/// depends on the arguments alone.
pub fn write<W: Write>(out: &mut W, entries: &[Entry], stamp: Timestamp) -> Result<Written, WriteError> {
    check(entries)?;
    let ((), size, sha256) = hashed(out, Sha256::new(), 0, |pipe| {
        let mut directory = Directory::with_capacity(entries.iter().map(|entry| entry.name.len()));
        entries.iter().try_for_each(|entry| directory.write(pipe, entry, stamp).map(drop))?;
        directory.finish(pipe)
    })?;
    Ok(Written { size, sha256: sha256.finalize().into() })
}

/// Runs `write`, which fills the pipe to `out` while another thread hashes, and returns what it returns, the position
/// that the pipe came to, and the hash of all until there.
fn hashed<W: Write, T, E: From<WriteError>>(
    out: &mut W,
    sha256: Sha256,
    position: u64,
    write: impl FnOnce(&mut Pipe<'_, W>) -> Result<T, E>,
) -> Result<(T, u64, Sha256), E> {
    std::thread::scope(|scope| {
        let (mut pipe, filled, drained) = Pipe::new(out, position);
        let hasher = std::thread::Builder::new()
            .name("lbx-sha256".into())
            .spawn_scoped(scope, move || hash(sha256, &filled, &drained))
            .map_err(WriteError::Hash)?;
        let written = write(&mut pipe).and_then(|value| {
            pipe.flush()?;
            Ok(value)
        });
        let size = pipe.position();
        // Closing the channel is what ends the hashing thread.
        drop(pipe);
        let sha256 = hasher.join().map_err(|_| WriteError::Hash(io::Error::other("the thread panicked")))?;
        written.map(|value| (value, size, sha256))
    })
}

fn check(entries: &[Entry]) -> Result<(), WriteError> {
    let mut names = NameSet::with_capacity(entries.len());
    entries.iter().try_for_each(|entry| {
        check_next(&mut names, &entry.name)?;
        check_sizes(&entry.name, entry.packed, &entry.source)
    })
}

fn check_next<'n>(names: &mut NameSet<'n>, name: &'n str) -> Result<(), WriteError> {
    check_name(name)
        .and_then(|()| names.insert(name))
        .map_err(|reason| WriteError::Name { name: name.to_owned(), reason })?;
    if name.ends_with('/') {
        return Err(WriteError::Directory { name: name.to_owned() });
    }
    Ok(())
}

fn check_sizes(name: &str, packed: Packed, source: &Source) -> Result<(), WriteError> {
    let stored_alike = packed.method != Method::Stored || packed.compressed_size == packed.size;
    let all_there = match source {
        Source::Memory(bytes) => bytes.len() as u64 == packed.compressed_size,
        Source::Range { .. } => true,
    };
    if stored_alike && all_there { Ok(()) } else { Err(WriteError::Sizes { name: name.to_owned() }) }
}

/// The central directory of what has been written.
#[derive(Default)]
struct Directory {
    headers: Vec<u8>,
    count: u64,
    scratch: Vec<u8>,
}

impl Directory {
    /// With room for entries whose names have these lengths.
    fn with_capacity(names: impl ExactSizeIterator<Item = usize>) -> Self {
        let (count, bytes) = (names.len(), names.sum::<usize>());
        Self { headers: Vec::with_capacity(count * CENTRAL_LEN + bytes), ..Self::default() }
    }

    /// Writes an entry, and returns where its compressed bytes begin.
    fn write<W: Write>(
        &mut self,
        pipe: &mut Pipe<'_, W>,
        entry: &Entry,
        stamp: Timestamp,
    ) -> Result<u64, WriteError> {
        self.put(pipe, entry.member(), &entry.source, stamp)
    }

    fn put<W: Write>(
        &mut self,
        pipe: &mut Pipe<'_, W>,
        member: Member<'_>,
        source: &Source,
        stamp: Timestamp,
    ) -> Result<u64, WriteError> {
        let offset = pipe.position();
        self.scratch.clear();
        local_header(&mut self.scratch, member, stamp);
        pipe.put(&self.scratch)?;
        let data = pipe.position();
        pipe.copy(member.name, source, member.packed.compressed_size)?;
        central_header(&mut self.headers, member, stamp, offset);
        self.count += 1;
        Ok(data)
    }

    /// Writes itself, and what comes after it.
    fn finish<W: Write>(mut self, pipe: &mut Pipe<'_, W>) -> Result<(), WriteError> {
        let offset = pipe.position();
        pipe.put(&self.headers)?;
        self.scratch.clear();
        end_records(&mut self.scratch, self.count, offset, self.headers.len() as u64);
        pipe.put(&self.scratch)
    }
}
