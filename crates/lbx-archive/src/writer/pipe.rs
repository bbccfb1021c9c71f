//! One pass over the bytes: they are collected in large buffers, and each is written and hashed at the same time, by
//! two threads.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest, Sha256};

use super::{Source, WriteError};

/// Bytes of one buffer, and of one write. The first ones are smaller: most archives that begin like others go on with little.
const BUFFER: usize = 1 << 20;
const FIRST_BUFFER: usize = 128 << 10;
/// Buffers that go round.
const BUFFERS: usize = 6;

/// A buffer that the writing and the hashing thread look at together.
pub(super) struct Chunk {
    bytes: Box<[u8]>,
    len: usize,
}

/// Collects bytes in buffers, and gives each full one to the hashing thread and to `out`.
pub(super) struct Pipe<'w, W> {
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
    /// A pipe to `out`, which is at `position` of the archive, and the two ends for the hashing thread.
    pub(super) fn new(out: &'w mut W, position: u64) -> (Self, Receiver<Arc<Chunk>>, SyncSender<Arc<Chunk>>) {
        let (to_hash, filled) = sync_channel(BUFFERS);
        let (drained, hashed) = sync_channel(BUFFERS);
        let pipe =
            Self { out, current: new_chunk(FIRST_BUFFER), position, to_hash, hashed, unmade: BUFFERS - 1 };
        (pipe, filled, drained)
    }

    /// Bytes of the archive so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The free part of the current buffer; a full one is sent off first.
    fn room(&mut self) -> Result<(&mut [u8], &mut usize), WriteError> {
        if self.current.len == self.current.bytes.len() {
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
                return Ok(new_chunk(BUFFER.min(self.current.bytes.len() * 2)));
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
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
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
    pub(super) fn copy(&mut self, name: &str, source: &Source, mut left: u64) -> Result<(), WriteError> {
        let (file, mut offset) = match source {
            Source::Memory(bytes) => return self.put(bytes),
            Source::Range { file, offset } => (file, *offset),
        };
        self.position += left;
        while left > 0 {
            let (room, len) = self.room()?;
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
            file.read_exact_at(&mut room[..count], offset)
                .map_err(|source| WriteError::Read { name: name.to_owned(), source })?;
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
    pub(super) fn flush(&mut self) -> Result<(), WriteError> {
        self.send()?;
        self.out.flush().map_err(WriteError::Write)
    }
}

fn new_chunk(size: usize) -> Arc<Chunk> {
    Arc::new(Chunk { bytes: vec![0; size].into_boxed_slice(), len: 0 })
}

fn hash_ended() -> WriteError {
    WriteError::Hash(io::Error::other("the hashing thread ended early"))
}

/// The hashing thread: takes filled buffers, gives them back empty, and ends when there are no more.
pub(super) fn hash(
    mut sha256: Sha256,
    filled: &Receiver<Arc<Chunk>>,
    drained: &SyncSender<Arc<Chunk>>,
) -> Sha256 {
    while let Ok(chunk) = filled.recv() {
        sha256.update(&chunk.bytes[..chunk.len]);
        // No one takes it when the writing thread has ended; what is still on its way is hashed all the same.
        drained.send(chunk).ok();
    }
    sha256
}
