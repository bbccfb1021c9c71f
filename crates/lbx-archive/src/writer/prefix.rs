//! Archives that begin with the same entries begin with the same bytes, at the same offsets. So these are written and
//! hashed once, and copied as a whole, by the kernel where it can, into each archive that begins so.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Seek, Write};

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};

use super::headers::{central_headers, make_executable};
use super::{Directory, Entry, Member, Source, WriteError, Written, check, check_next, check_sizes, hashed};
use crate::format::Packed;
use crate::name::NameSet;
use crate::timestamp::Timestamp;

/// What is known of bytes that archives begin with: all that follows from them and stands behind them, and how far
/// their SHA-256 has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// Bytes.
    size: u64,
    /// Entries.
    count: u64,
    /// Their part of the central directory.
    directory: Vec<u8>,
    /// The hash of the bytes, as it goes on.
    sha256: Vec<u8>,
}

impl Prefix {
    /// The prefix without entries.
    pub fn empty() -> Self {
        Self::new(0, Directory::default(), &Sha256::new())
    }

    fn new(size: u64, directory: Directory, sha256: &Sha256) -> Self {
        let Directory { headers, count, .. } = directory;
        Self { size, count, directory: headers, sha256: sha256.serialize().to_vec() }
    }

    /// How many bytes there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// SHA-256 of the bytes.
    pub fn sha256(&self) -> [u8; 32] {
        self.state().unwrap_or_default().finalize().into()
    }

    fn state(&self) -> Option<Sha256> {
        let state: &SerializedState<Sha256> = self.sha256.as_slice().try_into().ok()?;
        Sha256::deserialize(state).ok()
    }

    /// The same with these files executable. Modes are in the central directory alone.
    pub fn with_executable(&self, names: &[String]) -> Cow<'_, Self> {
        if names.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut prefix = self.clone();
        let mut at = 0;
        let lengths: Vec<(usize, bool)> = central_headers(&self.directory)
            .map(|(name, length)| (length, names.iter().any(|executable| executable == name)))
            .collect();
        for (length, executable) in lengths {
            if executable {
                make_executable(&mut prefix.directory[at..at + length]);
            }
            at += length;
        }
        Cow::Owned(prefix)
    }

    /// As bytes, for keeping. What they mean may change with every version of this crate.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24 + self.sha256.len() + self.directory.len());
        for number in [self.size, self.count, self.sha256.len() as u64] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.sha256);
        bytes.extend_from_slice(&self.directory);
        bytes
    }

    /// What [`Prefix::to_bytes`] gave. Whether these are the same bytes is the caller's to know; none for what cannot be.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.split_at_checked(24)?;
        let number = |at: usize| Some(u64::from_le_bytes(numbers[at * 8..at * 8 + 8].try_into().ok()?));
        let (sha256, directory) = rest.split_at_checked(usize::try_from(number(2)?).ok()?)?;
        let prefix = Self {
            size: number(0)?,
            count: number(1)?,
            directory: directory.to_vec(),
            sha256: sha256.to_vec(),
        };
        let is_whole = central_headers(directory).count() as u64 == prefix.count;
        (is_whole && prefix.state().is_some()).then_some(prefix)
    }
}

/// Writes the bytes that archives of `entries` and more begin with.
pub fn write_prefix<W: Write>(
    out: &mut W,
    entries: &[Entry],
    stamp: Timestamp,
) -> Result<Prefix, WriteError> {
    check(entries)?;
    let (directory, size, sha256) = hashed(out, Sha256::new(), 0, |pipe| {
        let mut directory = Directory::with_capacity(entries.iter().map(|entry| entry.name.len()));
        entries.iter().try_for_each(|entry| directory.write(pipe, entry, stamp).map(drop))?;
        Ok::<_, WriteError>(directory)
    })?;
    Ok(Prefix::new(size, directory, &sha256))
}

/// One file that comes after a prefix. Its content is asked for when it is written.
#[derive(Debug, Clone, Copy)]
pub struct After<'n> {
    /// The path in the archive, as [`Entry::name`].
    pub name: &'n str,
    /// Mode 0755 instead of 0644.
    pub executable: bool,
}

/// What came after a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The whole archive.
    pub written: Written,
    /// For each file, where its compressed bytes begin, and what its headers say.
    pub entries: Vec<(u64, Packed)>,
}

/// Writes an archive that begins with `prefix` and goes on with `names`. `out` has the bytes of the prefix and nothing else,
/// as [`copy_prefix`] leaves it. `content` is asked for one file after the other, by its index; the sizes that it gives are
/// trusted.
///
/// The result is the same as that of [`write`](super::write()) for all entries.
pub fn write_after<E: From<WriteError>>(
    out: &mut File,
    prefix: &Prefix,
    names: &[After<'_>],
    stamp: Timestamp,
    mut content: impl FnMut(usize) -> Result<(Packed, Source), E>,
) -> Result<Tail, E> {
    check_names(prefix, names)?;
    let damaged = || WriteError::Copy(io::Error::from(io::ErrorKind::InvalidData));
    let state = prefix.state().ok_or_else(damaged)?;
    if out.stream_position().map_err(WriteError::Write)? != prefix.size {
        return Err(damaged().into());
    }
    let (entries, size, sha256) = hashed(out, state, prefix.size, |pipe| {
        let mut directory =
            Directory { headers: prefix.directory.clone(), count: prefix.count, ..Directory::default() };
        let mut entries = Vec::with_capacity(names.len());
        for (index, &After { name, executable }) in names.iter().enumerate() {
            let (packed, source) = content(index)?;
            check_sizes(name, packed, &source)?;
            let member = Member { name, executable, packed };
            entries.push((directory.put(pipe, member, &source, stamp)?, packed));
        }
        directory.finish(pipe)?;
        Ok::<_, E>(entries)
    })?;
    Ok(Tail { written: Written { size, sha256: sha256.finalize().into() }, entries })
}

/// Refuses names that cannot be, and those that contradict others. The prefix's own were checked when it was written: of
/// these, only such have to be known to the others that begin with the same folder.
fn check_names(prefix: &Prefix, names: &[After<'_>]) -> Result<(), WriteError> {
    let top = |name: &str| name.find('/').unwrap_or(name.len());
    let tops: HashSet<&str> = names.iter().map(|after| &after.name[..top(after.name)]).collect();
    let mut seen = NameSet::with_capacity(names.len());
    for (name, _) in central_headers(&prefix.directory) {
        if tops.contains(&name[..top(name)]) {
            check_next(&mut seen, name)?;
        }
    }
    names.iter().try_for_each(|after| check_next(&mut seen, after.name))
}

/// Makes `out`, an empty file, a copy of `source`, which has `size` bytes, and puts its position at the end. The position of
/// `source` is nobody else's. The standard library lets the kernel do it, which shares blocks where the file system can, and
/// reads and writes where the kernel cannot.
pub fn copy_prefix(mut source: &File, out: &mut File, size: u64) -> Result<(), WriteError> {
    let wrong =
        |found: u64| io::Error::new(io::ErrorKind::InvalidData, format!("{found} bytes, expected {size}"));
    let found = source.metadata().map_err(WriteError::Copy)?.len();
    if found != size {
        return Err(WriteError::Copy(wrong(found)));
    }
    source.rewind().map_err(WriteError::Copy)?;
    let copied = io::copy(&mut source, out).map_err(WriteError::Copy)?;
    if copied == size { Ok(()) } else { Err(WriteError::Copy(wrong(copied))) }
}
