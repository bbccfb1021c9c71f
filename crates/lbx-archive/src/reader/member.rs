//! One member, and its content: inflated, counted and held against the CRC while it is read.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::headers::{LINK, TYPE};
use crate::format::{Method, Packed};
use crate::timestamp::Timestamp;

/// Bytes read from the file at a time.
const BUFFER: usize = 64 << 10;

/// One member of an archive that [`Archive::open`](crate::Archive::open) accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name as stored: relative, normal, `/` between components and at the end of a directory.
    pub name: String,
    /// Method, sizes and CRC.
    pub packed: Packed,
    /// Where the compressed bytes start in the file.
    pub data_offset: u64,
    /// When it was changed last, by the central directory.
    pub modified: Timestamp,
    /// The upper half of the external attributes, whatever the host is said to be; `None` when it is zero. May
    /// lack the file type bits.
    pub unix_mode: Option<u32>,
    /// Whether this is a directory entry.
    pub is_dir: bool,
}

/// Why a member's content is not what its header says. Comes as the source of an [`io::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// More or fewer bytes come out than the header says.
    #[error("the content does not have the {expected} bytes that the header says")]
    Size {
        /// The header's size.
        expected: u64,
    },
    /// The content has another CRC.
    #[error("the content has CRC {found:08x}, the header says {expected:08x}")]
    Crc {
        /// The header's CRC.
        expected: u32,
        /// The content's CRC.
        found: u32,
    },
    /// The deflate stream ends before the compressed bytes do: something is hidden behind it.
    #[error("{extra} bytes after the end of the deflate stream")]
    TrailingBytes {
        /// Bytes not used.
        extra: u64,
    },
}

impl Member {
    /// Whether this is a symbolic link: its content is where it leads.
    pub fn is_link(&self) -> bool {
        self.unix_mode.is_some_and(|mode| mode & TYPE == LINK)
    }

    /// The content, inflated. An error of kind [`io::ErrorKind::InvalidData`] says that it is not what the header
    /// says; only a reader that returned `Ok(0)` has vouched for all of it.
    pub fn open<'f>(&self, file: &'f File) -> MemberReader<'f> {
        let range = Range { file, position: self.data_offset, left: self.packed.compressed_size };
        let content = match self.packed.method {
            Method::Stored => Content::Stored(range),
            Method::Deflated => {
                Content::Deflated(DeflateDecoder::new(BufReader::with_capacity(BUFFER, range)))
            }
        };
        MemberReader { content, packed: self.packed, seen: 0, crc: Crc::new() }
    }

    /// All of the content at once, verified. The header's size has been checked against the limits.
    pub fn read(&self, file: &File) -> io::Result<Vec<u8>> {
        let mut content = Vec::with_capacity(usize::try_from(self.packed.size.min(1 << 24)).unwrap_or(0));
        self.open(file).read_to_end(&mut content)?;
        Ok(content)
    }
}

/// A part of a file, by positioned reads, so that several readers can share one descriptor.
struct Range<'f> {
    file: &'f File,
    position: u64,
    left: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

enum Content<'f> {
    Stored(Range<'f>),
    Deflated(DeflateDecoder<BufReader<Range<'f>>>),
}

/// Reads a member's content; made by [`Member::open`].
pub struct MemberReader<'f> {
    content: Content<'f>,
    packed: Packed,
    seen: u64,
    crc: Crc,
}

impl MemberReader<'_> {
    /// What must hold when the content has ended.
    fn check_end(&self) -> Result<(), MemberError> {
        if self.seen != self.packed.size {
            return Err(MemberError::Size { expected: self.packed.size });
        }
        if self.crc.sum() != self.packed.crc32 {
            return Err(MemberError::Crc { expected: self.packed.crc32, found: self.crc.sum() });
        }
        if let Content::Deflated(stream) = &self.content {
            let extra = self.packed.compressed_size - stream.total_in();
            if extra > 0 {
                return Err(MemberError::TrailingBytes { extra });
            }
        }
        Ok(())
    }
}

impl Read for MemberReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = match &mut self.content {
            Content::Stored(range) => range.read(buffer)?,
            Content::Deflated(stream) => stream.read(buffer)?,
        };
        self.crc.update(&buffer[..count]);
        self.seen += count as u64;
        if self.seen > self.packed.size {
            return Err(invalid(MemberError::Size { expected: self.packed.size }));
        }
        if count == 0 {
            self.check_end().map_err(invalid)?;
        }
        Ok(count)
    }
}

fn invalid(error: MemberError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
