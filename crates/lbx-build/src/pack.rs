//! Compressing files, many at once, for a writer that takes them one after the other: in order, with as much in memory as
//! is under way, and no more.
//!
//! What is small goes through libdeflate in one piece, because its output must not depend on how bytes come. What is large
//! is compressed piece by piece into a file without a name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use lbx_archive::{Compressor, Effort, LARGE, Method, Packed, Source, compress_large};

use crate::cancel::Cancel;
use crate::check::{Facts, Known, LARGEST, look};
use crate::dependencies::stripped;
use crate::error::Error;

/// A file to be compressed.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Where it is.
    pub(crate) location: PathBuf,
    /// How large it was when it was looked at. Bytes.
    pub(crate) size: u64,
    /// What it was compiled from: what the checks have to know is in there.
    pub(crate) source: Option<PathBuf>,
}

/// Where and how.
#[derive(Clone, Debug)]
pub(crate) struct Means<'m> {
    pub(crate) effort: Effort,
    /// Whether symbols are taken out of machine code.
    pub(crate) strip: bool,
    /// What must not be in a file.
    pub(crate) secrets: &'m Known,
    /// A folder for large files, until they are written.
    pub(crate) scratch: &'m Path,
    pub(crate) cancel: &'m Cancel,
    /// How many at once.
    pub(crate) threads: usize,
}

/// The bytes of one file, and what the checks have to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) packed: Packed,
    pub(crate) source: Source,
    pub(crate) facts: Option<Facts>,
}

/// How many bytes of files may be under way, beside the one that is waited for.
const UNDER_WAY: u64 = 8 << 20;
/// A thread takes so many bytes or files at once: less, and it would spend its time on taking.
const BATCH: u64 = 256 << 10;
const BATCH_FILES: usize = 64;
/// What is so little is not worth a thread.
const LITTLE: u64 = 128 << 10;

/// Compresses `wanted`, and gives `take` a function that waits for the next one, in their order.
pub(crate) fn pack<T>(
    wanted: &[Wanted],
    means: &Means<'_>,
    take: impl FnOnce(&mut dyn FnMut() -> Result<Content, Error>) -> T,
) -> T {
    let total: u64 = wanted.iter().map(|wanted| wanted.size).sum();
    if means.threads < 2 || total < LITTLE {
        let mut compressor = Compressor::new(means.effort);
        let mut files = wanted.iter();
        // Never asked more often than there are files.
        return take(&mut || {
            let next = files.next().ok_or(Error::Interrupted)?;
            compress(next, &mut compressor, means)
        });
    }
    let batches = batches(wanted);
    let line = Line { batches: &batches, wanted, means, state: Mutex::default(), moved: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 0..means.threads.min(batches.len()) {
            scope.spawn(|| line.work());
        }
        // Whatever happens to the writer, nobody may wait for it.
        let _close = Close(&line);
        let mut at = 0;
        let mut batch = Vec::new().into_iter();
        take(&mut || {
            loop {
                if let Some(content) = batch.next() {
                    return content;
                }
                batch = line.next(at).into_iter();
                at += 1;
            }
        })
    })
}

/// Ranges of files that are taken together.
fn batches(wanted: &[Wanted]) -> Vec<std::ops::Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, file) in wanted.iter().enumerate() {
        bytes += file.size;
        if bytes >= BATCH || at + 1 - start >= BATCH_FILES {
            batches.push(start..at + 1);
            (start, bytes) = (at + 1, 0);
        }
    }
    if start < wanted.len() {
        batches.push(start..wanted.len());
    }
    batches
}

/// What threads have in common that compress, and the one that writes.
struct Line<'l> {
    batches: &'l [std::ops::Range<usize>],
    wanted: &'l [Wanted],
    means: &'l Means<'l>,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// The next batch that nobody has taken.
    next: usize,
    /// The batch that is waited for, or will be.
    written: usize,
    /// Bytes of files that were taken and not yet written.
    under_way: u64,
    done: BTreeMap<usize, Vec<Result<Content, Error>>>,
    closed: bool,
}

struct Close<'c, 'l>(&'c Line<'l>);

impl Drop for Close<'_, '_> {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.moved.notify_all();
    }
}

/// A thread that panics does not finish what it has taken, and nobody may wait for that.
struct CloseInPanic<'c, 'l>(&'c Line<'l>);

impl Drop for CloseInPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(Close(self.0));
        }
    }
}

impl Line<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, state: MutexGuard<'g, State>) -> MutexGuard<'g, State> {
        self.moved.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of a batch that are in memory: of large files, hardly any are.
    fn bytes(&self, batch: usize) -> u64 {
        let files = &self.wanted[self.batches[batch].clone()];
        files.iter().map(|file| if file.size < LARGE { file.size } else { 2 << 20 }).sum()
    }

    /// Takes one batch after the other until there are no more.
    fn work(&self) {
        let mut compressor = Compressor::new(self.means.effort);
        let _close = CloseInPanic(self);
        while let Some(batch) = self.take() {
            let files = &self.wanted[self.batches[batch].clone()];
            let done = files.iter().map(|file| compress(file, &mut compressor, self.means)).collect();
            self.state().done.insert(batch, done);
            self.moved.notify_all();
        }
    }

    fn take(&self) -> Option<usize> {
        let mut state = self.state();
        loop {
            let batch = state.next;
            if state.closed || batch == self.batches.len() {
                return None;
            }
            let bytes = self.bytes(batch);
            if batch == state.written || state.under_way + bytes <= UNDER_WAY {
                state.next += 1;
                state.under_way += bytes;
                return Some(batch);
            }
            state = self.wait(state);
        }
    }

    /// Waits for a batch.
    fn next(&self, batch: usize) -> Vec<Result<Content, Error>> {
        if batch == self.batches.len() {
            return vec![Err(Error::Interrupted)];
        }
        let mut state = self.state();
        state.written = batch;
        self.moved.notify_all();
        loop {
            if let Some(done) = state.done.remove(&batch) {
                state.under_way -= self.bytes(batch);
                state.written = batch + 1;
                self.moved.notify_all();
                return done;
            }
            // The panic is passed on when all threads have ended.
            if state.closed {
                return vec![Err(Error::Interrupted)];
            }
            state = self.wait(state);
        }
    }
}

/// Reads and compresses a file.
fn compress(wanted: &Wanted, compressor: &mut Compressor, means: &Means<'_>) -> Result<Content, Error> {
    means.cancel.check()?;
    if wanted.size >= LARGE {
        return compress_by_pieces(&wanted.location, means);
    }
    let mut bytes = fs_err::read(&wanted.location)?;
    if means.strip
        && let Some(stripped) = stripped(&wanted.location.to_string_lossy(), &bytes)
    {
        bytes = stripped;
    }
    let (packed, compressed) = compressor.compress(&bytes);
    let facts = match &wanted.source {
        Some(source) => look(&fs_err::read(source)?, Some(means.secrets)),
        None => look(&bytes, Some(means.secrets)),
    };
    Ok(Content { packed, source: Source::Memory(compressed.into()), facts })
}

fn compress_by_pieces(location: &Path, means: &Means<'_>) -> Result<Content, Error> {
    let mut input = fs_err::File::open(location)?;
    let facts = facts_of_large(input.file(), means.secrets)?;
    let mut out = tempfile::tempfile_in(means.scratch)?;
    let packed = compress_large(Cancelled(input.file(), means.cancel), &mut out, means.effort);
    let packed = packed.map_err(|error| means.cancel.check().err().unwrap_or_else(|| error.into()))?;
    if packed.compressed_size < packed.size {
        return Ok(Content { packed, source: Source::Range { file: Arc::new(out), offset: 0 }, facts });
    }
    // As it is, then; and as it is now, whatever it was when it was read first.
    out.seek(SeekFrom::Start(0))?;
    out.set_len(0)?;
    input.seek(SeekFrom::Start(0))?;
    let mut read = flate2::CrcReader::new(Cancelled(input.file(), means.cancel));
    let size = std::io::copy(&mut read, &mut out)
        .map_err(|error| means.cancel.check().err().unwrap_or_else(|| error.into()))?;
    let packed = Packed { method: Method::Stored, crc32: read.crc().sum(), compressed_size: size, size };
    Ok(Content { packed, source: Source::Range { file: Arc::new(out), offset: 0 }, facts })
}

/// What is large is data, and not searched, unless it is machine code.
fn facts_of_large(file: &File, secrets: &Known) -> Result<Option<Facts>, Error> {
    let mut start = [0; 4];
    let count = file.read_at(&mut start, 0)?;
    let size = file.metadata()?.len();
    if !lbx_elf::is_elf(&start[..count]) || size > LARGEST {
        return Ok(None);
    }
    let mut content = vec![0; usize::try_from(size).unwrap_or_default()];
    file.read_exact_at(&mut content, 0)?;
    Ok(look(&content, Some(secrets)))
}

/// A file that is read until the build is given up.
struct Cancelled<'c>(&'c File, &'c Cancel);

impl Read for Cancelled<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.1.is_cancelled() {
            return Err(std::io::Error::other("given up"));
        }
        self.0.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NONE: std::sync::LazyLock<Known> = std::sync::LazyLock::new(Known::default);

    fn means<'m>(scratch: &'m Path, cancel: &'m Cancel, threads: usize) -> Means<'m> {
        Means { effort: Effort::Fast, strip: false, secrets: &NONE, scratch, cancel, threads }
    }

    fn wanted(folder: &Path, contents: &[Vec<u8>]) -> Vec<Wanted> {
        let write = |(at, content): (usize, &Vec<u8>)| {
            let location = folder.join(at.to_string());
            fs_err::write(&location, content).unwrap();
            Wanted { location, size: content.len() as u64, source: None }
        };
        contents.iter().enumerate().map(write).collect()
    }

    fn all(wanted: &[Wanted], means: &Means<'_>) -> Vec<Result<Vec<u8>, String>> {
        pack(wanted, means, |next| {
            let one =
                |_: &Wanted| next().map(|content| bytes_of(&content)).map_err(|error| error.to_string());
            wanted.iter().map(one).collect()
        })
    }

    fn bytes_of(Content { packed, source, .. }: &Content) -> Vec<u8> {
        match source {
            Source::Memory(bytes) => bytes.to_vec(),
            Source::Range { file, offset } => {
                let mut bytes = vec![0; usize::try_from(packed.compressed_size).unwrap()];
                std::os::unix::fs::FileExt::read_exact_at(&**file, &mut bytes, *offset).unwrap();
                bytes
            }
        }
    }

    #[test]
    fn the_order_and_the_bytes_are_the_same_with_any_number_of_threads() {
        let folder = tempfile::tempdir().unwrap();
        let content = |at: usize| format!("{at} ").repeat(at * 97 % 30_000).into_bytes();
        let wanted = wanted(folder.path(), &(0..300).map(content).collect::<Vec<_>>());
        let cancel = Cancel::new();
        let with = |threads| means(folder.path(), &cancel, threads);
        let one = all(&wanted, &with(1));
        assert_eq!(one, all(&wanted, &with(2)));
        assert_eq!(one, all(&wanted, &with(7)));
        assert_eq!(one[5].as_ref().unwrap(), &lbx_archive::compress(&content(5)).1);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_in_its_place_and_nobody_waits_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let mut wanted = wanted(folder.path(), &vec![b"x".repeat(10_000); 200]);
        wanted[150].location = folder.path().join("gone");
        let cancel = Cancel::new();
        let means = means(folder.path(), &cancel, 3);
        let all = all(&wanted, &means);
        assert!(all[150].as_ref().unwrap_err().contains("gone"));
        assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 199);
        // A writer that gives up after the first.
        assert!(pack(&wanted, &means, |next| next().is_ok()));
    }

    #[test]
    fn a_thread_that_panics_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (wanted, cancel) = (wanted(folder.path(), &[b"x".to_vec()]), Cancel::new());
        let means = means(folder.path(), &cancel, 2);
        let batches = batches(&wanted);
        let line = Line {
            batches: &batches,
            wanted: &wanted,
            means: &means,
            state: Mutex::default(),
            moved: Condvar::new(),
        };
        std::thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _close = CloseInPanic(&line);
                assert_eq!(line.take(), None, "on purpose: there is one, and nobody will finish it");
            });
            assert!(line.next(0)[0].is_err());
            assert!(panics.join().is_err());
        });
    }

    #[test]
    fn large_files_that_do_not_shrink_are_stored_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = 1_u64;
        let noise = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        let noise: Vec<u8> = (0..=LARGE).map(noise).collect();
        let text = b"import os\n".repeat(usize::try_from(LARGE / 10).unwrap() + 1);
        let wanted = wanted(folder.path(), &[noise.clone(), text.clone()]);
        let cancel = Cancel::new();
        let means = means(folder.path(), &cancel, 2);
        let contents = pack(&wanted, &means, |next| [next().unwrap(), next().unwrap()]);
        assert_eq!(contents[0].packed.method, Method::Stored);
        assert_eq!(bytes_of(&contents[0]), noise);
        let mut crc = flate2::Crc::new();
        crc.update(&noise);
        assert_eq!(contents[0].packed.crc32, crc.sum());
        assert_eq!(contents[1].packed.method, Method::Deflated);
        assert_eq!(contents[1].packed.size, text.len() as u64);
    }
}
