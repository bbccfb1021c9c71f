//! Writing our own archives: every byte follows from the entries, in the caller's order, and one timestamp.
//!
//! Compressed bytes are copied as they are; headers are made anew. The calling thread reads and writes, another
//! one hashes, and a fixed set of buffers goes round between them. The destination, its name and its durability
//! are the caller's.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest, Sha256};

use crate::format::{
    CENTRAL, CENTRAL_LEN, END, END64, END64_LEN, EXTRA_ZIP64, FLAG_UTF8, LOCAL, LOCAL_LEN, LOCATOR64, Method,
    Packed,
};
use crate::name::{NameError, NameSet, check_name};
use crate::timestamp::Timestamp;

/// The upper byte of "version made by" (4.4.2): the attributes are Unix modes.
const MADE_BY_UNIX: u16 = 3 << 8;
/// The version of the format that has zip64, times ten.
const VERSION_ZIP64: u16 = 45;
/// Bytes of one buffer, and of one write.
const BUFFER: usize = 1 << 20;
/// Buffers that go round.
const BUFFERS: usize = 6;

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
    /// The archive could not be written.
    #[error("failed to write the archive")]
    Write(#[source] io::Error),
    /// The hashing thread could not be started or ended early.
    #[error("failed to hash the archive")]
    Hash(#[source] io::Error),
}

/// Writes an archive of `entries`, in their order, to `out`, and hashes it meanwhile.
///
/// `out` gets large writes and needs no buffering. Names are checked before anything is written. The result
/// depends on the arguments alone.
pub fn write<W: Write>(out: &mut W, entries: &[Entry], stamp: Timestamp) -> Result<Written, WriteError> {
    check(entries)?;
    std::thread::scope(|scope| {
        let (mut pipe, filled, drained) = Pipe::new(out);
        let hasher = std::thread::Builder::new()
            .name("lbx-sha256".into())
            .spawn_scoped(scope, move || hash(&filled, &drained))
            .map_err(WriteError::Hash)?;
        let written = write_all(&mut pipe, entries, stamp);
        let size = pipe.position;
        // Closing the channel is what ends the hashing thread.
        drop(pipe);
        let sha256 = hasher.join().map_err(|_| WriteError::Hash(io::Error::other("the thread panicked")))?;
        written.map(|()| Written { size, sha256 })
    })
}

fn check(entries: &[Entry]) -> Result<(), WriteError> {
    let mut names = NameSet::with_capacity(entries.len());
    for Entry { name, packed, source, .. } in entries {
        check_name(name)
            .and_then(|()| names.insert(name))
            .map_err(|reason| WriteError::Name { name: name.clone(), reason })?;
        if name.ends_with('/') {
            return Err(WriteError::Directory { name: name.clone() });
        }
        let stored_alike = packed.method != Method::Stored || packed.compressed_size == packed.size;
        let all_there = match source {
            Source::Memory(bytes) => bytes.len() as u64 == packed.compressed_size,
            Source::Range { .. } => true,
        };
        if !(stored_alike && all_there) {
            return Err(WriteError::Sizes { name: name.clone() });
        }
    }
    Ok(())
}

fn write_all<W: Write>(
    pipe: &mut Pipe<'_, W>,
    entries: &[Entry],
    stamp: Timestamp,
) -> Result<(), WriteError> {
    let name_bytes: usize = entries.iter().map(|entry| entry.name.len()).sum();
    let mut directory = Vec::with_capacity(entries.len() * CENTRAL_LEN + name_bytes);
    let mut header = Vec::with_capacity(256);
    for entry in entries {
        let offset = pipe.position;
        header.clear();
        local_header(&mut header, entry, stamp);
        pipe.put(&header)?;
        pipe.copy(entry)?;
        central_header(&mut directory, entry, stamp, offset);
    }
    let directory_offset = pipe.position;
    pipe.put(&directory)?;
    header.clear();
    end_records(&mut header, entries.len() as u64, directory_offset, directory.len() as u64);
    pipe.put(&header)?;
    pipe.flush()
}

/// 4.5 with zip64, 2.0 with deflate, 1.0 otherwise (4.4.3.2).
fn version_needed(packed: &Packed, zip64: bool) -> u16 {
    match packed.method {
        _ if zip64 => VERSION_ZIP64,
        Method::Deflated => 20,
        Method::Stored => 10,
    }
}

/// The value of a 32-bit field: saturated when it does not fit, and its place taken by the zip64 field. The
/// saturated value itself does not fit.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn is_wide(value: u64) -> bool {
    value >= u64::from(u32::MAX)
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// The fields that local and central header have in common, from flags to the length of the name.
fn common_fields(out: &mut Vec<u8>, entry: &Entry, stamp: Timestamp, sizes: (u32, u32)) {
    put16(out, if entry.name.is_ascii() { 0 } else { FLAG_UTF8 });
    put16(out, entry.packed.method.id());
    put16(out, stamp.time);
    put16(out, stamp.date);
    put32(out, entry.packed.crc32);
    put32(out, sizes.0);
    put32(out, sizes.1);
    // `check_name` keeps it far below 2^16.
    put16(out, u16::try_from(entry.name.len()).unwrap_or(u16::MAX));
}

/// 4.3.7. With zip64 a local header holds both sizes in the extra field, even if one would fit (4.5.3).
fn local_header(out: &mut Vec<u8>, entry: &Entry, stamp: Timestamp) {
    let Packed { compressed_size, size, .. } = entry.packed;
    let zip64 = is_wide(compressed_size) || is_wide(size);
    let sizes = if zip64 { (u32::MAX, u32::MAX) } else { (narrow(compressed_size), narrow(size)) };
    let start = out.len();
    put32(out, LOCAL);
    put16(out, version_needed(&entry.packed, zip64));
    common_fields(out, entry, stamp, sizes);
    put16(out, if zip64 { 20 } else { 0 });
    debug_assert_eq!(out.len() - start, LOCAL_LEN);
    out.extend_from_slice(entry.name.as_bytes());
    if zip64 {
        put16(out, EXTRA_ZIP64);
        put16(out, 16);
        put64(out, size);
        put64(out, compressed_size);
    }
}

/// 4.3.12.
fn central_header(out: &mut Vec<u8>, entry: &Entry, stamp: Timestamp, offset: u64) {
    const REGULAR: u32 = 0o100_000;
    let Packed { compressed_size, size, .. } = entry.packed;
    let both = is_wide(compressed_size) || is_wide(size);
    let sizes = if both { (u32::MAX, u32::MAX) } else { (narrow(compressed_size), narrow(size)) };
    let mut wide = Vec::new();
    if both {
        put64(&mut wide, size);
        put64(&mut wide, compressed_size);
    }
    if is_wide(offset) {
        put64(&mut wide, offset);
    }
    let extra_len = if wide.is_empty() { 0 } else { 4 + wide.len() };
    let version = version_needed(&entry.packed, !wide.is_empty());
    let mode = REGULAR | if entry.executable { 0o755 } else { 0o644 };
    put32(out, CENTRAL);
    put16(out, MADE_BY_UNIX | version.max(20));
    put16(out, version);
    common_fields(out, entry, stamp, sizes);
    put16(out, u16::try_from(extra_len).unwrap_or(u16::MAX));
    put16(out, 0); // comment
    put16(out, 0); // disk
    put16(out, 0); // internal attributes
    put32(out, mode << 16);
    put32(out, narrow(offset));
    out.extend_from_slice(entry.name.as_bytes());
    if !wide.is_empty() {
        put16(out, EXTRA_ZIP64);
        put16(out, u16::try_from(wide.len()).unwrap_or(u16::MAX));
        out.extend_from_slice(&wide);
    }
}

/// The zip64 end record and its locator when a value needs them (4.3.14, 4.3.15), and the end record (4.3.16).
fn end_records(out: &mut Vec<u8>, count: u64, offset: u64, size: u64) {
    let short_count = u16::try_from(count).unwrap_or(u16::MAX);
    if short_count == u16::MAX || is_wide(offset) || is_wide(size) {
        put32(out, END64);
        put64(out, END64_LEN as u64 - 12);
        put16(out, MADE_BY_UNIX | VERSION_ZIP64);
        put16(out, VERSION_ZIP64);
        put32(out, 0);
        put32(out, 0);
        put64(out, count);
        put64(out, count);
        put64(out, size);
        put64(out, offset);
        put32(out, LOCATOR64);
        put32(out, 0);
        put64(out, offset + size);
        put32(out, 1);
    }
    put32(out, END);
    put16(out, 0);
    put16(out, 0);
    put16(out, short_count);
    put16(out, short_count);
    put32(out, narrow(size));
    put32(out, narrow(offset));
    put16(out, 0);
}

/// A buffer that the writing and the hashing thread look at together.
struct Chunk {
    bytes: Box<[u8]>,
    len: usize,
}

/// Collects bytes in buffers, and gives each full one to the hashing thread and to `out`.
struct Pipe<'w, W> {
    out: &'w mut W,
    current: Arc<Chunk>,
    /// Bytes of the archive so far.
    position: u64,
    to_hash: SyncSender<Arc<Chunk>>,
    hashed: Receiver<Arc<Chunk>>,
    /// Buffers that may still be made.
    unmade: usize,
}

impl<'w, W: Write> Pipe<'w, W> {
    fn new(out: &'w mut W) -> (Self, Receiver<Arc<Chunk>>, SyncSender<Arc<Chunk>>) {
        let (to_hash, filled) = sync_channel(BUFFERS);
        let (drained, hashed) = sync_channel(BUFFERS);
        let pipe = Self { out, current: new_chunk(), position: 0, to_hash, hashed, unmade: BUFFERS - 1 };
        (pipe, filled, drained)
    }

    /// The free part of the current buffer; a full one is sent off first.
    fn room(&mut self) -> Result<(&mut [u8], &mut usize), WriteError> {
        if self.current.len == BUFFER {
            self.send()?;
            self.current = self.next_chunk()?;
        }
        // The hashing thread gives a buffer back when it has let go of it, so there is no other holder.
        let chunk = Arc::get_mut(&mut self.current).ok_or_else(hash_ended)?;
        Ok((&mut chunk.bytes[chunk.len..], &mut chunk.len))
    }

    /// A buffer to fill: one that was hashed, or a new one, or the next that will have been hashed.
    fn next_chunk(&mut self) -> Result<Arc<Chunk>, WriteError> {
        let mut chunk = match self.hashed.try_recv() {
            Ok(chunk) => chunk,
            Err(_) if self.unmade > 0 => {
                self.unmade -= 1;
                return Ok(new_chunk());
            }
            Err(_) => self.hashed.recv().map_err(|_| hash_ended())?,
        };
        if Arc::ptr_eq(&chunk, &self.current) {
            // It came back before it was let go of here.
            self.current = Arc::new(Chunk { bytes: Box::default(), len: 0 });
        }
        Arc::get_mut(&mut chunk).ok_or_else(hash_ended)?.len = 0;
        Ok(chunk)
    }

    /// Appends bytes at hand.
    fn put(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        self.position += bytes.len() as u64;
        while !bytes.is_empty() {
            let (room, len) = self.room()?;
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            *len += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Appends an entry's compressed bytes, read straight into the buffers.
    fn copy(&mut self, entry: &Entry) -> Result<(), WriteError> {
        let (file, mut offset) = match &entry.source {
            Source::Memory(bytes) => return self.put(bytes),
            Source::Range { file, offset } => (file, *offset),
        };
        let mut left = entry.packed.compressed_size;
        self.position += left;
        while left > 0 {
            let (room, len) = self.room()?;
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
            file.read_exact_at(&mut room[..count], offset)
                .map_err(|source| WriteError::Read { name: entry.name.clone(), source })?;
            *len += count;
            offset += count as u64;
            left -= count as u64;
        }
        Ok(())
    }

    /// Hashes and writes the current buffer at the same time.
    fn send(&mut self) -> Result<(), WriteError> {
        self.to_hash.send(Arc::clone(&self.current)).map_err(|_| hash_ended())?;
        let chunk = &self.current;
        self.out.write_all(&chunk.bytes[..chunk.len]).map_err(WriteError::Write)
    }

    /// Sends off what is left.
    fn flush(&mut self) -> Result<(), WriteError> {
        self.send()?;
        self.out.flush().map_err(WriteError::Write)
    }
}

fn new_chunk() -> Arc<Chunk> {
    Arc::new(Chunk { bytes: vec![0; BUFFER].into_boxed_slice(), len: 0 })
}

fn hash_ended() -> WriteError {
    WriteError::Hash(io::Error::other("the hashing thread ended early"))
}

/// The hashing thread: takes filled buffers, gives them back empty, and ends when there are no more.
fn hash(filled: &Receiver<Arc<Chunk>>, drained: &SyncSender<Arc<Chunk>>) -> [u8; 32] {
    let mut sha256 = Sha256::new();
    while let Ok(chunk) = filled.recv() {
        sha256.update(&chunk.bytes[..chunk.len]);
        // No one takes it when the writing thread has ended; what is still on its way is hashed all the same.
        drained.send(chunk).ok();
    }
    sha256.finalize().into()
}
