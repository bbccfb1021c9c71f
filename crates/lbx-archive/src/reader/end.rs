//! The end of the archive: the end of central directory record, and its zip64 companions. Finds the central
//! directory, and leaves what is in it to `headers`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::ReadError;
use crate::format::{END, END_LEN, END64, END64_LEN, LOCATOR64, LOCATOR64_LEN, u16_at, u32_at, u64_at};

/// Where the central directory is, and what it holds.
#[derive(Debug)]
pub(super) struct End {
    pub(super) file_size: u64,
    pub(super) members: u64,
    pub(super) directory_offset: u64,
    pub(super) directory_size: u64,
}

impl End {
    /// Finds and checks the records at the end of `file`.
    pub(super) fn read(file: &File) -> Result<Self, ReadError> {
        let file_size = file.metadata()?.len();
        let window = file_size.min((END_LEN + usize::from(u16::MAX)) as u64);
        let mut tail = vec![0; usize::try_from(window).unwrap_or(0)];
        file.read_exact_at(&mut tail, file_size - window)?;
        let at = find(&tail)?;
        let start = file_size - window + at as u64;
        let record = &tail[at..at + END_LEN];
        if u16_at(record, 4) != u16_at(record, 6) || u16_at(record, 8) != u16_at(record, 10) {
            return Err(ReadError::MultiDisk);
        }
        let (end, start) = match Zip64::read(file, start)? {
            Some(zip64) => (zip64.end(record, file_size)?, zip64.start),
            None if u16_at(record, 4) != 0 => return Err(ReadError::MultiDisk),
            None => (
                Self {
                    file_size,
                    members: u64::from(u16_at(record, 10)),
                    directory_size: u64::from(u32_at(record, 12)),
                    directory_offset: u64::from(u32_at(record, 16)),
                },
                start,
            ),
        };
        if end.directory_offset.checked_add(end.directory_size) != Some(start) {
            return Err(ReadError::DirectoryPlace {
                offset: end.directory_offset,
                size: end.directory_size,
                end: start,
            });
        }
        Ok(end)
    }
}

/// The position of the end record in `tail`, the last bytes of the file.
///
/// Readers look for it from the back, from the front, or by the comment's length. It is accepted only when all of
/// them find the same one.
fn find(tail: &[u8]) -> Result<usize, ReadError> {
    let signature = END.to_le_bytes();
    let mut candidates = (0..tail.len().saturating_sub(END_LEN - 1))
        .rev()
        .filter(|&at| tail[at..].starts_with(&signature))
        .map(|at| (at, at + END_LEN + usize::from(u16_at(tail, at + 20))));
    let Some((at, comment_end)) = candidates.next() else { return Err(ReadError::NoEnd) };
    if candidates.any(|(_, comment_end)| comment_end == tail.len()) {
        return Err(ReadError::AmbiguousEnd);
    }
    match comment_end {
        end if end == tail.len() => Ok(at),
        end if end < tail.len() => Err(ReadError::TrailingData { extra: (tail.len() - end) as u64 }),
        _ => Err(ReadError::TruncatedEnd),
    }
}

/// The zip64 end record.
struct Zip64 {
    start: u64,
    members: u64,
    directory_size: u64,
    directory_offset: u64,
}

impl Zip64 {
    /// Reads the locator right before `end`, and the record right before the locator.
    fn read(file: &File, end: u64) -> Result<Option<Self>, ReadError> {
        let Some(locator_at) = end.checked_sub(LOCATOR64_LEN as u64) else { return Ok(None) };
        let mut locator = [0; LOCATOR64_LEN];
        file.read_exact_at(&mut locator, locator_at)?;
        if u32_at(&locator, 0) != LOCATOR64 {
            return Ok(None);
        }
        if u32_at(&locator, 4) != 0 || u32_at(&locator, 16) != 1 {
            return Err(ReadError::MultiDisk);
        }
        let start = u64_at(&locator, 8);
        if start.checked_add(END64_LEN as u64) != Some(locator_at) {
            return Err(ReadError::Zip64 { what: "the end record does not end at its locator" });
        }
        let mut record = [0; END64_LEN];
        file.read_exact_at(&mut record, start)?;
        if u32_at(&record, 0) != END64 {
            return Err(ReadError::Zip64 { what: "no end record where the locator says" });
        }
        if u64_at(&record, 4) != END64_LEN as u64 - 12 {
            return Err(ReadError::Zip64 { what: "the end record's size is wrong" });
        }
        if u32_at(&record, 16) != 0 || u32_at(&record, 20) != 0 || u64_at(&record, 24) != u64_at(&record, 32)
        {
            return Err(ReadError::MultiDisk);
        }
        Ok(Some(Self {
            start,
            members: u64_at(&record, 32),
            directory_size: u64_at(&record, 40),
            directory_offset: u64_at(&record, 48),
        }))
    }

    /// The values of both records, when the smaller one agrees or defers.
    fn end(&self, record: &[u8], file_size: u64) -> Result<End, ReadError> {
        let short = |at, value: u64| match u16_at(record, at) {
            u16::MAX => true,
            found => u64::from(found) == value,
        };
        let long = |at, value: u64| match u32_at(record, at) {
            u32::MAX => true,
            found => u64::from(found) == value,
        };
        if !short(4, 0)
            || !short(10, self.members)
            || !long(12, self.directory_size)
            || !long(16, self.directory_offset)
        {
            return Err(ReadError::Zip64 { what: "the two end records differ" });
        }
        Ok(End {
            file_size,
            members: self.members,
            directory_size: self.directory_size,
            directory_offset: self.directory_offset,
        })
    }
}
