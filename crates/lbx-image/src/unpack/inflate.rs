//! The first half of unpacking: a thread that reads the blob, inflates and hashes it, and hands on buffers.
//!
//! What the bytes mean is left to `stream`. A few buffers go around in a circle, so memory stays bounded.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::{Limits, Source, UnpackError};
use crate::Digest;

/// Bytes per buffer: large enough to make handing over cheap, small enough to stay in the cache.
const BUFFER: usize = 128 << 10;
/// Buffers on their way from one thread to the other.
const BUFFERS: usize = 6;

/// The sending half.
pub(super) struct BufferSender {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

/// The receiving half: a reader over the inflated bytes.
pub(super) struct BufferReader {
    full: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

pub(super) fn channel() -> (BufferSender, BufferReader) {
    let (full, filled) = sync_channel(BUFFERS);
    let (empty, emptied) = sync_channel(BUFFERS);
    let reader = BufferReader { full: filled, empty, current: Vec::new(), position: 0 };
    (BufferSender { full, empty: emptied }, reader)
}

impl BufRead for BufferReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len() {
            // The sender is gone at the end, and after a failure that it reports itself.
            let next = self.full.recv().unwrap_or_default();
            let used = std::mem::replace(&mut self.current, next);
            self.position = 0;
            let _ = self.empty.try_send(used);
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
    }
}

impl Read for BufferReader {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(target.len());
        target[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// How inflating ended.
pub(super) enum Inflated {
    /// All bytes were read; their digest.
    Complete(Digest),
    /// The other half went away; it knows why.
    Stopped,
}

pub(super) struct Job<'a> {
    pub(super) source: Source<'a>,
    pub(super) limits: &'a Limits,
    pub(super) progress: &'a (dyn Fn(u64) + Send + Sync),
    pub(super) cancelled: &'a AtomicBool,
}

impl Job<'_> {
    pub(super) fn run(&self, sender: &BufferSender) -> Result<Inflated, UnpackError> {
        let open = |source| UnpackError::System { call: "open", entry: "the blob".to_owned(), source };
        let file = fs_err::File::open(self.source.blob).map_err(open)?;
        let input = Counted { inner: BufReader::with_capacity(BUFFER, file), consumed: 0 };
        if self.source.gzip {
            // The decoder goes on over further members, and refuses anything else after the last one.
            self.pump(&mut MultiGzDecoder::new(input), |decoder| decoder.get_ref().consumed, sender)
        } else {
            self.pump(&mut { input }, |input| input.consumed, sender)
        }
    }

    fn pump<R: Read>(
        &self,
        reader: &mut R,
        consumed: impl Fn(&R) -> u64,
        sender: &BufferSender,
    ) -> Result<Inflated, UnpackError> {
        let mut hasher = Sha256::new();
        let mut total = 0;
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return Ok(Inflated::Stopped);
            }
            let mut buffer = sender.empty.try_recv().unwrap_or_default();
            // Only a fresh buffer is filled with zeros here.
            buffer.resize(BUFFER, 0);
            let count = fill(reader, &mut buffer)?;
            if count == 0 {
                return Ok(Inflated::Complete(Digest::from_hash(&hasher.finalize())));
            }
            buffer.truncate(count);
            hasher.update(&buffer);
            total += count as u64;
            self.check(total, consumed(reader))?;
            if sender.full.send(buffer).is_err() {
                return Ok(Inflated::Stopped);
            }
            (self.progress)(consumed(reader));
        }
    }

    fn check(&self, total: u64, consumed: u64) -> Result<(), UnpackError> {
        let limit = |what, limit| UnpackError::Limit { entry: "(the whole layer)".to_owned(), what, limit };
        if total > self.limits.total_bytes {
            return Err(limit("uncompressed bytes", self.limits.total_bytes));
        }
        if total > self.limits.ratio_after && total / consumed.max(1) > self.limits.ratio {
            return Err(limit("uncompressed bytes per compressed byte", self.limits.ratio));
        }
        Ok(())
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, UnpackError> {
    let mut count = 0;
    while count < buffer.len() {
        match reader.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(UnpackError::Compression { source }),
        }
    }
    Ok(count)
}

/// Counts what was taken from the file.
struct Counted<R> {
    inner: R,
    consumed: u64,
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.consumed += amount as u64;
        self.inner.consume(amount);
    }
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(target)?;
        self.consumed += count as u64;
        Ok(count)
    }
}
