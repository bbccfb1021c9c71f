//! The central directory and the local headers: each parsed by itself, then held against the other. Where the
//! directory is comes from `end`; limits are the caller's.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{Member, ReadError};
use crate::format::{
    CENTRAL, CENTRAL_LEN, DESCRIPTOR, EXTRA_UNICODE_PATH, EXTRA_ZIP64, FLAG_DESCRIPTOR, FLAG_EFFORT,
    FLAG_UTF8, LOCAL, LOCAL_LEN, Method, Packed, u16_at, u32_at, u64_at,
};
use crate::name::check_name;
use crate::timestamp::Timestamp;

/// One entry of the central directory.
#[derive(Debug)]
pub(super) struct Central {
    /// The member; `data_offset` is not known yet.
    pub(super) member: Member,
    flags: u16,
    header_offset: u64,
}

/// The file type bits of a Unix mode, and the two types that are accepted.
pub(super) const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
pub(super) const LINK: u32 = 0o120_000;
/// The directory bit of a DOS attribute byte.
const DOS_DIRECTORY: u32 = 0x10;

/// Deflate's best: a match of 258 bytes in two bits, with room for the first bytes.
const MAX_RATIO: u64 = 1032;

/// What is made of symbolic links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    Refused,
    Taken,
}

/// Parses the whole central directory, which must hold `count` headers and nothing else.
pub(super) fn central(directory: &[u8], count: u64, links: Links) -> Result<Vec<Central>, ReadError> {
    if count > (directory.len() / CENTRAL_LEN) as u64 {
        return Err(ReadError::Directory { what: "it is too small for its number of members" });
    }
    let mut rest = directory;
    let mut entries = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    for _ in 0..count {
        let Some((header, after)) = rest.split_at_checked(CENTRAL_LEN) else {
            return Err(ReadError::Directory { what: "a header is truncated" });
        };
        if u32_at(header, 0) != CENTRAL {
            return Err(ReadError::Directory { what: "no header where one is expected" });
        }
        let name_len = usize::from(u16_at(header, 28));
        let extra_len = usize::from(u16_at(header, 30));
        let comment_len = usize::from(u16_at(header, 32));
        let Some((variable, after)) = after.split_at_checked(name_len + extra_len + comment_len) else {
            return Err(ReadError::Directory { what: "a header is truncated" });
        };
        let (name, variable) = variable.split_at(name_len);
        entries.push(parse_central(header, (name, &variable[..extra_len]), links)?);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(ReadError::Directory { what: "it holds more than its members" });
    }
    Ok(entries)
}

fn parse_central(header: &[u8], (name, extra): (&[u8], &[u8]), links: Links) -> Result<Central, ReadError> {
    let flags = u16_at(header, 8);
    let name = parse_name(name, flags)?;
    check_flags(&name, flags)?;
    let method_id = u16_at(header, 10);
    let Some(method) = Method::from_id(method_id) else {
        return Err(ReadError::Method { name, method: method_id });
    };
    let mut wide = Wide::find(&name, extra)?;
    let size = wide.resolve(u32_at(header, 24));
    let compressed_size = wide.resolve(u32_at(header, 20));
    let header_offset = wide.resolve(u32_at(header, 42));
    if !wide.used_up() {
        return Err(ReadError::Extra { name, what: "the zip64 field does not hold just what is missing" });
    }
    if u16_at(header, 34) != 0 {
        return Err(ReadError::MultiDisk);
    }
    let packed = Packed { method, crc32: u32_at(header, 16), compressed_size, size };
    let attributes = u32_at(header, 38);
    let is_dir = name.ends_with('/');
    check_type(&name, attributes, is_dir, links)?;
    check_packed(&name, &packed, is_dir)?;
    let unix_mode = Some(attributes >> 16).filter(|&mode| mode != 0);
    let modified = Timestamp { time: u16_at(header, 12), date: u16_at(header, 14) };
    let member = Member { name, packed, data_offset: 0, modified, unix_mode, is_dir };
    Ok(Central { member, flags, header_offset })
}

/// Decodes and checks a name. Without the UTF-8 flag a name is in whatever the reader believes, so it must be
/// ASCII.
fn parse_name(bytes: &[u8], flags: u16) -> Result<String, ReadError> {
    let lossy = || String::from_utf8_lossy(bytes).into_owned();
    if !bytes.is_ascii() && flags & FLAG_UTF8 == 0 {
        return Err(ReadError::NameEncoding { name: lossy() });
    }
    let Ok(name) = str::from_utf8(bytes) else { return Err(ReadError::NameEncoding { name: lossy() }) };
    check_name(name).map_err(|reason| ReadError::Name { name: name.to_owned(), reason })?;
    Ok(name.to_owned())
}

/// Accepts the flags that change nothing about what a member is.
fn check_flags(name: &str, flags: u16) -> Result<(), ReadError> {
    // Bit 0: encrypted; 6: strongly; 13: the central directory too.
    if flags & (1 | 1 << 6 | 1 << 13) != 0 {
        return Err(ReadError::Encrypted { name: name.to_owned() });
    }
    if flags & !(FLAG_EFFORT | FLAG_DESCRIPTOR | FLAG_UTF8) != 0 {
        return Err(ReadError::Flags { name: name.to_owned(), flags });
    }
    Ok(())
}

/// Refuses special files, links unless they are taken, and files and directories that look like the other.
///
/// The mode is looked at whatever the host is said to be, as Python's `zipfile` and pip do.
fn check_type(name: &str, attributes: u32, is_dir: bool, links: Links) -> Result<(), ReadError> {
    let mode = attributes >> 16;
    let fits = match mode & TYPE {
        0 => true,
        REGULAR => !is_dir,
        LINK => !is_dir && links == Links::Taken,
        DIRECTORY => is_dir,
        _ => false,
    };
    if !fits || (attributes & DOS_DIRECTORY != 0 && !is_dir) {
        return Err(ReadError::FileType { name: name.to_owned(), mode });
    }
    Ok(())
}

/// Refuses sizes that no content can have.
fn check_packed(name: &str, packed: &Packed, is_dir: bool) -> Result<(), ReadError> {
    let Packed { method, compressed_size: compressed, size, .. } = *packed;
    let possible = match method {
        _ if is_dir && (size != 0 || packed.crc32 != 0) => false,
        Method::Stored => compressed == size,
        Method::Deflated => size / MAX_RATIO <= compressed,
    };
    if possible { Ok(()) } else { Err(ReadError::Sizes { name: name.to_owned(), compressed, size }) }
}

/// The zip64 extra field of a header, from which values are taken in order (4.5.3).
struct Wide<'e> {
    all: &'e [u8],
    rest: &'e [u8],
    truncated: bool,
    present: bool,
}

impl<'e> Wide<'e> {
    /// Walks all extra fields, and keeps the zip64 one.
    fn find(name: &str, extra: &'e [u8]) -> Result<Self, ReadError> {
        let bad = |what| ReadError::Extra { name: name.to_owned(), what };
        let mut wide = None;
        let mut rest = extra;
        while !rest.is_empty() {
            let Some((head, after)) = rest.split_at_checked(4) else { return Err(bad("it is truncated")) };
            let Some((body, after)) = after.split_at_checked(usize::from(u16_at(head, 2))) else {
                return Err(bad("it is truncated"));
            };
            match u16_at(head, 0) {
                EXTRA_ZIP64 if wide.is_some() => return Err(bad("there are two zip64 fields")),
                EXTRA_ZIP64 => wide = Some(body),
                EXTRA_UNICODE_PATH => return Err(bad("it gives the member a second name")),
                _ => {}
            }
            rest = after;
        }
        let all = wide.unwrap_or_default();
        Ok(Self { all, rest: all, truncated: false, present: wide.is_some() })
    }

    /// The value of a 32-bit field, which the extra field holds when the field itself is saturated.
    fn resolve(&mut self, field: u32) -> u64 {
        if field != u32::MAX || !self.present {
            return u64::from(field);
        }
        let Some((value, rest)) = self.rest.split_at_checked(8) else {
            self.truncated = true;
            return 0;
        };
        self.rest = rest;
        u64_at(value, 0)
    }

    fn used_up(&self) -> bool {
        self.rest.is_empty() && !self.truncated
    }

    /// Whether it is both sizes and nothing else, as a local header's has to be (4.5.3), whatever the old fields say.
    fn is_both(&self, size: u64, compressed_size: u64) -> bool {
        self.all.len() == 16 && u64_at(self.all, 0) == size && u64_at(self.all, 8) == compressed_size
    }
}

/// Reads the local header of every entry, holds it against the entry, and fills in where the data is.
///
/// Headers and data must follow each other from the file's first byte to the central directory, in whatever
/// order, without overlap and without a byte left over.
pub(super) fn locals(
    file: &File,
    mut entries: Vec<Central>,
    directory_offset: u64,
) -> Result<Vec<Member>, ReadError> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|&at| entries[at].header_offset);
    let mut position = 0;
    for (rank, &at) in order.iter().enumerate() {
        let next = order.get(rank + 1).map_or(directory_offset, |&next| entries[next].header_offset);
        let entry = &mut entries[at];
        if entry.header_offset > position {
            return Err(ReadError::Gap { offset: position, size: entry.header_offset - position });
        }
        if next < entry.header_offset {
            return Err(ReadError::Overlap { name: entry.member.name.clone() });
        }
        read_local(file, entry, next)?;
        position = next;
    }
    if position != directory_offset {
        return Err(ReadError::Gap { offset: position, size: directory_offset.saturating_sub(position) });
    }
    Ok(entries.into_iter().map(|entry| entry.member).collect())
}

/// Reads one local header; `next` is where the next one or the central directory starts.
fn read_local(file: &File, entry: &mut Central, next: u64) -> Result<(), ReadError> {
    let name = &entry.member.name;
    let overlap = || ReadError::Overlap { name: name.clone() };
    let no_local = || ReadError::NoLocal { name: name.clone(), offset: entry.header_offset };
    let available = usize::try_from(next - entry.header_offset).unwrap_or(usize::MAX);
    if available < LOCAL_LEN + name.len() {
        return Err(overlap());
    }
    // Most headers have no extra field, so one read gets all of it.
    let mut header = vec![0; LOCAL_LEN + name.len()];
    file.read_exact_at(&mut header, entry.header_offset)?;
    if u32_at(&header, 0) != LOCAL {
        return Err(no_local());
    }
    if usize::from(u16_at(&header, 26)) != name.len() || &header[LOCAL_LEN..] != name.as_bytes() {
        return Err(ReadError::LocalMismatch { name: name.clone(), field: "name" });
    }
    let mut extra = vec![0; usize::from(u16_at(&header, 28))];
    if available - header.len() < extra.len() {
        return Err(overlap());
    }
    let extra_offset = entry.header_offset + header.len() as u64;
    if !extra.is_empty() {
        file.read_exact_at(&mut extra, extra_offset)?;
    }
    let wide = Wide::find(name, &extra)?;
    let is_wide = wide.present;
    compare(entry, &header, wide)?;
    let data_offset = extra_offset + extra.len() as u64;
    let after = data_offset
        .checked_add(entry.member.packed.compressed_size)
        .and_then(|data_end| next.checked_sub(data_end))
        .ok_or_else(overlap)?;
    check_after(file, entry, is_wide, next - after, after)?;
    entry.member.data_offset = data_offset;
    Ok(())
}

/// Holds a local header against its entry in the central directory.
fn compare(entry: &Central, header: &[u8], mut wide: Wide<'_>) -> Result<(), ReadError> {
    let Member { name, packed, .. } = &entry.member;
    let differs = |field| Err(ReadError::LocalMismatch { name: name.clone(), field });
    let flags = u16_at(header, 6);
    if flags != entry.flags {
        return differs("flags");
    }
    if u16_at(header, 8) != packed.method.id() {
        return differs("method");
    }
    // With a data descriptor these fields may be zero, and then the descriptor is held against the entry.
    let deferred = flags & FLAG_DESCRIPTOR != 0;
    let fits = |found: u64, expected: u64| found == expected || (deferred && found == 0);
    if !fits(u64::from(u32_at(header, 14)), u64::from(packed.crc32)) {
        return differs("CRC");
    }
    let size = wide.resolve(u32_at(header, 22));
    let compressed_size = wide.resolve(u32_at(header, 18));
    if !fits(size, packed.size) {
        return differs("size");
    }
    if !fits(compressed_size, packed.compressed_size) {
        return differs("compressed size");
    }
    // Older versions of Python's zipfile leave room for large sizes and say the small ones there, too. That is the same to
    // whoever reads either; but with a data descriptor it would decide how long that is.
    let repeated = !deferred && wide.is_both(packed.size, packed.compressed_size);
    if !wide.used_up() && !repeated {
        return Err(ReadError::Extra {
            name: name.clone(),
            what: "the zip64 field does not hold just what is missing",
        });
    }
    Ok(())
}

/// Checks the bytes between the end of the data and what follows: nothing, or a data descriptor (4.3.9).
fn check_after(file: &File, entry: &Central, wide: bool, offset: u64, len: u64) -> Result<(), ReadError> {
    let Member { name, packed, .. } = &entry.member;
    if entry.flags & FLAG_DESCRIPTOR == 0 {
        return if len == 0 { Ok(()) } else { Err(ReadError::Gap { offset, size: len }) };
    }
    let bad = || ReadError::Descriptor { name: name.clone() };
    // A reader of streams cannot know where stored data ends, so it may see another member than others do.
    if packed.method == Method::Stored && packed.size > 0 {
        return Err(bad());
    }
    let mut bytes = [0; 24];
    let len = usize::try_from(len).ok().filter(|&len| len <= bytes.len()).ok_or_else(bad)?;
    let bytes = &mut bytes[..len];
    file.read_exact_at(bytes, offset)?;
    let body = match (len, wide) {
        (12, false) | (20, true) => &bytes[..],
        (16, false) | (24, true) if u32_at(bytes, 0) == DESCRIPTOR => &bytes[4..],
        _ => return Err(bad()),
    };
    let (compressed_size, size) = if wide {
        (u64_at(body, 4), u64_at(body, 12))
    } else {
        (u64::from(u32_at(body, 4)), u64::from(u32_at(body, 8)))
    };
    if u32_at(body, 0) != packed.crc32 || compressed_size != packed.compressed_size || size != packed.size {
        return Err(bad());
    }
    Ok(())
}
