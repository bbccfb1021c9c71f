//! The headers of an archive as bytes: local, central, and the records at the end.

use super::Member;
use crate::format::{
    CENTRAL, CENTRAL_LEN, END, END64, END64_LEN, EXTRA_ZIP64, FLAG_UTF8, LOCAL, LOCAL_LEN, LOCATOR64, Method,
    Packed, u16_at,
};
use crate::timestamp::Timestamp;

/// The upper byte of "version made by" (4.4.2): the attributes are Unix modes.
const MADE_BY_UNIX: u16 = 3 << 8;
/// The version of the format that has zip64, times ten.
const VERSION_ZIP64: u16 = 45;
/// Where a central header has the external attributes.
const ATTRIBUTES: usize = 38;

/// 4.5 with zip64, 2.0 with deflate, 1.0 otherwise (4.4.3.2).
fn version_needed(packed: Packed, zip64: bool) -> u16 {
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
fn common_fields(out: &mut Vec<u8>, entry: Member<'_>, stamp: Timestamp, sizes: (u32, u32)) {
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
pub(super) fn local_header(out: &mut Vec<u8>, entry: Member<'_>, stamp: Timestamp) {
    let Packed { compressed_size, size, .. } = entry.packed;
    let zip64 = is_wide(compressed_size) || is_wide(size);
    let sizes = if zip64 { (u32::MAX, u32::MAX) } else { (narrow(compressed_size), narrow(size)) };
    let start = out.len();
    put32(out, LOCAL);
    put16(out, version_needed(entry.packed, zip64));
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
pub(super) fn central_header(out: &mut Vec<u8>, entry: Member<'_>, stamp: Timestamp, offset: u64) {
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
    let version = version_needed(entry.packed, !wide.is_empty());
    put32(out, CENTRAL);
    put16(out, MADE_BY_UNIX | version.max(20));
    put16(out, version);
    common_fields(out, entry, stamp, sizes);
    put16(out, u16::try_from(extra_len).unwrap_or(u16::MAX));
    put16(out, 0); // comment
    put16(out, 0); // disk
    put16(out, 0); // internal attributes
    put32(out, attributes(entry.executable));
    put32(out, narrow(offset));
    out.extend_from_slice(entry.name.as_bytes());
    if !wide.is_empty() {
        put16(out, EXTRA_ZIP64);
        put16(out, u16::try_from(wide.len()).unwrap_or(u16::MAX));
        out.extend_from_slice(&wide);
    }
}

/// The zip64 end record and its locator when a value needs them (4.3.14, 4.3.15), and the end record (4.3.16).
pub(super) fn end_records(out: &mut Vec<u8>, count: u64, offset: u64, size: u64) {
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

/// The external attributes of a file with this mode (4.4.15).
fn attributes(executable: bool) -> u32 {
    const REGULAR: u32 = 0o100_000;
    (REGULAR | if executable { 0o755 } else { 0o644 }) << 16
}

/// Makes the file of a central header executable.
pub(super) fn make_executable(header: &mut [u8]) {
    header[ATTRIBUTES..ATTRIBUTES + 4].copy_from_slice(&attributes(true).to_le_bytes());
}

/// The names in central headers that [`central_header`] made, each with the length of its header; nothing after the first
/// that it did not make.
pub(super) fn central_headers(directory: &[u8]) -> impl Iterator<Item = (&str, usize)> {
    let mut rest = directory;
    std::iter::from_fn(move || {
        let header = rest.get(..CENTRAL_LEN)?;
        let name = usize::from(u16_at(header, 28));
        let extra = usize::from(u16_at(header, 30));
        let text = std::str::from_utf8(rest.get(CENTRAL_LEN..CENTRAL_LEN + name)?).ok()?;
        let length = CENTRAL_LEN + name + extra;
        rest = rest.get(length..)?;
        Some((text, length))
    })
}
