//! Bytes held against bytes, a piece at a time: of whole zips, of members as they are compressed, and of what they inflate
//! to.

use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use lbx_archive::{Member, MemberReader};

use super::{Content, Zip};
use crate::error::ZipError;

/// Bytes that are compared at a time.
const PIECE: usize = 64 << 10;

/// Two zips, and room for a piece of each.
pub(super) struct Comparison<'z> {
    pub(super) before: &'z Zip,
    pub(super) after: &'z Zip,
    pieces: [Vec<u8>; 2],
}

impl<'z> Comparison<'z> {
    pub(super) fn new(before: &'z Zip, after: &'z Zip) -> Self {
        Self { before, after, pieces: [vec![0; PIECE], vec![0; PIECE]] }
    }

    /// Where the zips themselves differ first.
    pub(super) fn whole(&mut self) -> Result<Option<u64>, ZipError> {
        let (before, after) = (self.before, self.after);
        self.first_difference(range(before, 0, before.size), range(after, 0, after.size))
    }

    /// Compares a member of each. Nothing is inflated when both have the same compressed bytes.
    pub(super) fn members(&mut self, one: &Member, other: &Member) -> Result<Content, ZipError> {
        let (before, after) = (self.before, self.after);
        if one.packed == other.packed {
            let length = one.packed.compressed_size;
            let (one, other) =
                (range(before, one.data_offset, length), range(after, other.data_offset, length));
            if self.first_difference(one, other)?.is_none() {
                return Ok(Content::Same);
            }
        }
        let (mut one_content, mut other_content) = (Inflated::of(before, one), Inflated::of(after, other));
        let difference =
            self.first_difference(|piece| one_content.fill(piece), |piece| other_content.fill(piece))?;
        let Some(first_byte) = difference else { return Ok(Content::Recompressed) };
        // Headers that agree on other bytes: most likely one of the two is damaged, which shows at its end.
        if one.packed.crc32 == other.packed.crc32 && one.packed.size == other.packed.size {
            one_content.finish()?;
            other_content.finish()?;
        }
        Ok(Content::Changed { first_byte })
    }

    /// The offset of the first difference of two streams of bytes. Each is a function that fills a piece as far as it can:
    /// a piece that is not full is its last.
    fn first_difference(
        &mut self,
        mut one: impl FnMut(&mut [u8]) -> Result<usize, ZipError>,
        mut other: impl FnMut(&mut [u8]) -> Result<usize, ZipError>,
    ) -> Result<Option<u64>, ZipError> {
        let [one_piece, other_piece] = &mut self.pieces;
        let mut offset = 0;
        loop {
            let (one, other) = (one(one_piece)?, other(other_piece)?);
            let (one, other) = (&one_piece[..one], &other_piece[..other]);
            if one != other {
                let common = one.iter().zip(other).take_while(|(one, other)| one == other).count();
                return Ok(Some(offset + common as u64));
            }
            if one.len() < PIECE {
                return Ok(None);
            }
            offset += PIECE as u64;
        }
    }
}

/// The bytes of a zip from `position` on.
fn range(
    zip: &Zip,
    mut position: u64,
    mut left: u64,
) -> impl FnMut(&mut [u8]) -> Result<usize, ZipError> + '_ {
    move |piece| {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        zip.file
            .read_exact_at(&mut piece[..count], position)
            .map_err(|source| ZipError::Bytes { path: zip.path.clone(), source })?;
        position += count as u64;
        left -= count as u64;
        Ok(count)
    }
}

/// What a member inflates to.
struct Inflated<'z> {
    zip: &'z Zip,
    member: &'z Member,
    reader: MemberReader<'z>,
}

impl<'z> Inflated<'z> {
    fn of(zip: &'z Zip, member: &'z Member) -> Self {
        Self { zip, member, reader: member.open(&zip.file) }
    }

    fn fill(&mut self, piece: &mut [u8]) -> Result<usize, ZipError> {
        let mut filled = 0;
        while filled < piece.len() {
            match self.reader.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.zip.damaged(self.member, source)),
            }
        }
        Ok(filled)
    }

    /// Reads on to the end, where it is known whether it is what the header says.
    fn finish(mut self) -> Result<(), ZipError> {
        io::copy(&mut self.reader, &mut io::sink())
            .map_err(|source| self.zip.damaged(self.member, source))?;
        Ok(())
    }
}

impl Zip {
    /// A member's content is not to be had.
    pub(super) fn damaged(&self, member: &Member, source: io::Error) -> ZipError {
        ZipError::Member { path: self.path.clone(), member: member.name.clone(), source }
    }
}
