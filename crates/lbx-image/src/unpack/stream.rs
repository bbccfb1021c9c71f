//! A strict reader of tar streams: headers and extensions to entries, data to its reader.
//!
//! Fields are decoded by the tar crate. The iteration is ours, because it decides what two readers of one stream
//! could disagree on: extended headers are bounded, may come once per entry, and a PAX size counts for the data
//! and for the place of the next header alike (RUSTSEC-2025-0111, GHSA-3cv2-h65g-fgmm). What an entry does is
//! left to `apply`.

use std::io::{self, BufRead};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::names::printable;
use super::{Limits, UnpackError};

const BLOCK: u64 = 512;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// A file with holes: pieces of data as (offset, length), in order, and the file's length.
    Sparse {
        pieces: Vec<(u64, u64)>,
        length: u64,
    },
    Directory,
    Symlink,
    HardLink,
    /// Devices and FIFOs.
    Special,
}

/// One entry, before its data.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    /// Seconds since 1970, and nanoseconds.
    pub(super) modified: (i64, u32),
}

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<(i64, u32)>,
    pax: bool,
}

pub(super) struct Stream<'a, R> {
    reader: R,
    limits: &'a Limits,
    offset: u64,
    /// Bytes of the current entry that were not read yet, and the padding after them.
    data: u64,
    padding: u64,
}

impl<'a, R: BufRead> Stream<'a, R> {
    pub(super) fn new(reader: R, limits: &'a Limits) -> Self {
        Self { reader, limits, offset: 0, data: 0, padding: 0 }
    }

    /// The next entry; `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extension = Extension::default();
        let mut extended = false;
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                // An extension that nothing follows is an archive that was cut off.
                return if extended {
                    Err(self.broken("an extended header without its entry"))
                } else {
                    Ok(None)
                };
            };
            let size = header.entry_size().map_err(|error| self.broken(&error.to_string()))?;
            match header.entry_type() {
                EntryType::XHeader => self.pax(size, &mut extension)?,
                EntryType::XGlobalHeader => self.global(size)?,
                EntryType::GNULongName => {
                    let name = self.long_name(size)?;
                    self.once(extension.path.replace(name).is_none())?;
                }
                EntryType::GNULongLink => {
                    let name = self.long_name(size)?;
                    self.once(extension.target.replace(name).is_none())?;
                }
                kind => return self.entry(&header, kind, size, extension).map(Some),
            }
            extended |= !header.entry_type().is_pax_global_extensions();
        }
    }

    /// The next bytes of the current entry's data; empty when there are no more.
    pub(super) fn data(&mut self) -> Result<&[u8], UnpackError> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let offset = self.offset;
        let buffer = self.reader.fill_buf().map_err(|error| broken(offset, &error.to_string()))?;
        if buffer.is_empty() {
            return Err(broken(offset, "it ends in the middle of an entry"));
        }
        let count = buffer.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        Ok(&buffer[..count])
    }

    /// Marks bytes of [`Stream::data`] as read.
    pub(super) fn consume(&mut self, count: usize) {
        self.reader.consume(count);
        self.data -= count as u64;
        self.offset += count as u64;
    }

    /// Reads what comes after the end of the archive: it counts for the digest.
    pub(super) fn drain(mut self) -> Result<(), UnpackError> {
        loop {
            let buffer = self.reader.fill_buf().map_err(|error| broken(self.offset, &error.to_string()))?;
            match buffer.len() {
                0 => return Ok(()),
                count => self.reader.consume(count),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        extension: Extension,
    ) -> Result<Entry, UnpackError> {
        let path = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let target = extension
            .target
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        let size = extension.size.unwrap_or(size);
        let kind = match kind {
            // Before there was a type for directories, a slash at the end made one.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::GNUSparse => self.sparse(header)?,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Special,
            other => {
                let problem = format!("entries of type {:?} are not supported", char::from(other.as_byte()));
                return Err(UnpackError::Entry { entry: printable(&path), problem });
            }
        };
        // Other kinds have no data, whatever their size field says: some writers put the target's size there.
        let has_data = matches!(kind, Kind::File | Kind::Sparse { .. });
        self.expect(if has_data { size } else { 0 });
        if let Kind::Sparse { pieces, .. } = &kind
            && pieces.iter().map(|(_, length)| length).sum::<u64>() != self.data
        {
            return Err(self.broken("a sparse file's pieces are not as long as its data"));
        }
        let mode = header.mode().map_err(|error| self.broken(&error.to_string()))?;
        // A time that can't be read is no reason to refuse a layer.
        let plain = header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0);
        Ok(Entry { path, target, kind, mode, modified: extension.modified.unwrap_or((plain, 0)) })
    }

    fn expect(&mut self, size: u64) {
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
    }

    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let Some(block) = self.block(true)? else { return Ok(None) };
        if block.iter().all(|byte| *byte == 0) {
            // Two blocks of zeros end an archive; one alone is damage that readers disagree on.
            let end = self.block(true)?.is_none_or(|second| second.iter().all(|byte| *byte == 0));
            return if end { Ok(None) } else { Err(self.broken("a block of zeros between entries")) };
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum = block.iter().enumerate().map(|(index, byte)| match index {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        });
        let expected = header.cksum().map_err(|error| self.broken(&error.to_string()))?;
        if sum.sum::<u32>() != expected {
            return Err(self.broken("a header with a wrong checksum"));
        }
        Ok(Some(header))
    }

    fn block(&mut self, may_end: bool) -> Result<Option<[u8; 512]>, UnpackError> {
        let mut block = [0; 512];
        let mut count = 0;
        while count < block.len() {
            match self.reader.read(&mut block[count..]) {
                Ok(0) if count == 0 && may_end => return Ok(None),
                Ok(0) => return Err(self.broken("it ends in the middle of a header")),
                Ok(more) => count += more,
                Err(error) => return Err(self.broken(&error.to_string())),
            }
        }
        self.offset += BLOCK;
        Ok(Some(block))
    }

    /// Skips what is left of the current entry.
    fn skip(&mut self) -> Result<(), UnpackError> {
        self.data += std::mem::take(&mut self.padding);
        loop {
            let count = self.data()?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count);
        }
    }

    /// The data of an extended header.
    fn small(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        if size > self.limits.header_bytes {
            let entry = "(an extended header)".to_owned();
            return Err(UnpackError::Limit { entry, what: "bytes", limit: self.limits.header_bytes });
        }
        self.expect(size);
        let mut bytes = Vec::new();
        loop {
            let part = self.data()?;
            if part.is_empty() {
                return Ok(bytes);
            }
            let count = part.len();
            bytes.extend_from_slice(part);
            self.consume(count);
        }
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        let mut name = self.small(size)?;
        // The terminator is part of the data; what follows it is not part of the name.
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        Ok(name)
    }

    fn global(&mut self, size: u64) -> Result<(), UnpackError> {
        let mut extension = Extension::default();
        self.pax(size, &mut extension)?;
        let harmless = extension.path.is_none() && extension.target.is_none() && extension.size.is_none();
        if harmless { Ok(()) } else { Err(self.broken("a global header that renames or resizes entries")) }
    }

    fn pax(&mut self, size: u64, extension: &mut Extension) -> Result<(), UnpackError> {
        self.once(!std::mem::replace(&mut extension.pax, true))?;
        let body = self.small(size)?;
        let mut rest = body.as_slice();
        while !rest.is_empty() {
            let (key, value, after) =
                pax_record(rest).ok_or_else(|| self.broken("a PAX record that is not `length key=value`"))?;
            rest = after;
            match key {
                b"path" => self.once(extension.path.replace(value.to_vec()).is_none())?,
                b"linkpath" => self.once(extension.target.replace(value.to_vec()).is_none())?,
                b"size" => {
                    let size = decimal(value).ok_or_else(|| self.broken("a PAX size that is no number"))?;
                    self.once(extension.size.replace(size).is_none())?;
                }
                b"mtime" => extension.modified = pax_time(value),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(self.broken("sparse files in PAX form are not supported"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The map of an old GNU sparse file: four pieces in the header, the rest in blocks after it.
    fn sparse(&mut self, header: &Header) -> Result<Kind, UnpackError> {
        let Some(gnu) = header.as_gnu() else {
            return Err(self.broken("a sparse file without a GNU header"));
        };
        let length = gnu.real_size().map_err(|error| self.broken(&error.to_string()))?;
        let mut pieces = Vec::new();
        let mut end = 0;
        self.pieces(&gnu.sparse, length, &mut end, &mut pieces)?;
        let mut more = gnu.is_extended();
        while more {
            let mut next = GnuExtSparseHeader::new();
            let block = self.block(false)?.unwrap_or([0; 512]);
            next.as_mut_bytes().copy_from_slice(&block);
            self.pieces(&next.sparse, length, &mut end, &mut pieces)?;
            more = next.is_extended();
        }
        Ok(Kind::Sparse { pieces, length })
    }

    fn pieces(
        &self,
        raw: &[tar::GnuSparseHeader],
        length: u64,
        end: &mut u64,
        pieces: &mut Vec<(u64, u64)>,
    ) -> Result<(), UnpackError> {
        for piece in raw.iter().filter(|piece| !piece.is_empty()) {
            let field = |value: io::Result<u64>| value.map_err(|error| self.broken(&error.to_string()));
            let (offset, size) = (field(piece.offset())?, field(piece.length())?);
            let stop = offset.checked_add(size).filter(|stop| *stop <= length && offset >= *end);
            *end = stop.ok_or_else(|| self.broken("a sparse file's pieces overlap or leave the file"))?;
            pieces.push((offset, size));
            if pieces.len() as u64 > self.limits.entries {
                return Err(self.broken("a sparse file of too many pieces"));
            }
        }
        Ok(())
    }

    fn once(&self, first: bool) -> Result<(), UnpackError> {
        if first { Ok(()) } else { Err(self.broken("an entry with two extended headers of one kind")) }
    }

    fn broken(&self, problem: &str) -> UnpackError {
        broken(self.offset, problem)
    }
}

fn broken(offset: u64, problem: &str) -> UnpackError {
    UnpackError::Archive { offset, problem: problem.to_owned() }
}

/// Splits `length key=value\n` off; the length counts itself.
fn pax_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty()).then_some((key, value, &bytes[length..]))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    // A time before 1970 counts its fraction downwards.
    match (text.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use lbx_testkit::images::{Tar, header};

    use super::*;

    /// Paths with their data.
    type Entries = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(bytes: &[u8]) -> Result<Entries, UnpackError> {
        let limits = Limits::default();
        let mut stream = Stream::new(bytes, &limits);
        let mut entries = Vec::new();
        while let Some(entry) = stream.next()? {
            let mut data = Vec::new();
            loop {
                let part = stream.data()?.to_vec();
                if part.is_empty() {
                    break;
                }
                stream.consume(part.len());
                data.extend(part);
            }
            entries.push((entry.path, data));
        }
        Ok(entries)
    }

    #[test]
    fn a_pax_size_decides_where_the_next_header_is() {
        // The header says 0, PAX says 512: the block that looks like an entry is data.
        let smuggled = header(b'0', b"smuggled", b"", 0o644, 0);
        let tar = Tar::new().pax(&[("size", b"512")]).raw(&header(b'0', b"a", b"", 0o644, 0)).raw(&smuggled);
        assert_eq!(read(&tar.finish()).expect("one entry"), [(b"a".to_vec(), smuggled.to_vec())]);
    }

    #[test]
    fn long_names_come_from_pax_or_gnu_but_not_twice() {
        let long = [b'x'; 200];
        let gnu = Tar::new().file(long, 0o644, b"1");
        assert_eq!(read(&gnu.clone().finish()).expect("an entry")[0].0, long);
        let pax = Tar::new().pax(&[("path", &long)]).file("a", 0o644, b"1");
        assert_eq!(read(&pax.finish()).expect("an entry")[0].0, long);
        let both = Tar::new().pax(&[("path", b"a")]).file(long, 0o644, b"1");
        assert!(read(&both.finish()).is_err());
        let twice = Tar::new().pax(&[("path", b"a")]).pax(&[("mtime", b"1")]).file("b", 0o644, b"1");
        assert!(read(&twice.finish()).is_err());
        let repeated = Tar::new().pax(&[("path", b"a"), ("path", b"b")]).file("b", 0o644, b"1");
        assert!(read(&repeated.finish()).is_err());
    }

    #[test]
    fn malformed_pax_records_are_refused() {
        for body in [&b"6 a=b"[..], b"99 a=b\n", b"a=b\n", b"6 =ab\n", b"6 abc\n", b"-6 a=b\n", b"5 a=b\n"] {
            let tar = Tar::new().entry(b'x', b"p", b"", 0o644, body).file("f", 0o644, b"");
            assert!(read(&tar.finish()).is_err(), "{body:?}");
        }
        let sparse = Tar::new().pax(&[("GNU.sparse.major", b"1")]).file("f", 0o644, b"");
        assert!(read(&sparse.finish()).is_err());
        let global = Tar::new().entry(b'g', b"p", b"", 0o644, b"9 path=b\n").file("f", 0o644, b"");
        assert!(read(&global.finish()).is_err());
        let comment = Tar::new().entry(b'g', b"p", b"", 0o644, b"13 comment=x\n").file("f", 0o644, b"");
        assert_eq!(read(&comment.finish()).expect("an entry").len(), 1);
    }

    #[test]
    fn cut_off_and_damaged_archives_are_refused() {
        let whole = Tar::new().file("a", 0o644, &[7; 1000]).finish();
        assert!(read(&whole[..600]).is_err(), "in the data");
        assert!(read(&whole[..100]).is_err(), "in the header");
        assert!(read(&whole[..1536]).is_ok(), "an archive may end without its end marker");
        let mut flipped = whole.clone();
        flipped[3] ^= 1;
        assert!(read(&flipped).is_err(), "checksum");
        let lone = Tar::new().raw(&[0; 512]).file("a", 0o644, b"");
        assert!(read(&lone.finish()).is_err(), "a lone block of zeros");
        let dangling = Tar::new().pax(&[("path", b"a")]);
        assert!(read(&dangling.finish()).is_err(), "an extension of nothing");
    }

    #[test]
    fn an_extended_header_has_a_limit() {
        let huge = header(b'L', b"././@LongLink", b"", 0o644, 1 << 30);
        assert!(matches!(read(&huge), Err(UnpackError::Limit { .. })));
    }

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        assert_eq!(pax_time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(pax_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(pax_time(b"7"), Some((7, 0)));
        assert_eq!(pax_time(b"x"), None);
    }
}
