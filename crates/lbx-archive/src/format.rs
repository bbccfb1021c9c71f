//! The constants and field accessors that reader and writer share. Rules about values are theirs.

/// Local file header signature (4.3.7).
pub(crate) const LOCAL: u32 = 0x0403_4b50;
/// Data descriptor signature (4.3.9.3).
pub(crate) const DESCRIPTOR: u32 = 0x0807_4b50;
/// Central directory header signature (4.3.12).
pub(crate) const CENTRAL: u32 = 0x0201_4b50;
/// Zip64 end of central directory record signature (4.3.14).
pub(crate) const END64: u32 = 0x0606_4b50;
/// Zip64 end of central directory locator signature (4.3.15).
pub(crate) const LOCATOR64: u32 = 0x0706_4b50;
/// End of central directory record signature (4.3.16).
pub(crate) const END: u32 = 0x0605_4b50;

/// Bytes of a local file header before the name.
pub(crate) const LOCAL_LEN: usize = 30;
/// Bytes of a central directory header before the name.
pub(crate) const CENTRAL_LEN: usize = 46;
/// Bytes of the zip64 end of central directory record without the extensible sector.
pub(crate) const END64_LEN: usize = 56;
/// Bytes of the zip64 locator.
pub(crate) const LOCATOR64_LEN: usize = 20;
/// Bytes of the end of central directory record before the comment.
pub(crate) const END_LEN: usize = 22;

/// General purpose bit 3: sizes and CRC follow the data (4.4.4).
pub(crate) const FLAG_DESCRIPTOR: u16 = 1 << 3;
/// General purpose bit 11: the name is UTF-8 (4.4.4, appendix D).
pub(crate) const FLAG_UTF8: u16 = 1 << 11;
/// General purpose bits 1 and 2: how hard deflate tried (4.4.4). They say nothing about the content.
pub(crate) const FLAG_EFFORT: u16 = 0b110;

/// Header id of the zip64 extra field (4.5.3).
pub(crate) const EXTRA_ZIP64: u16 = 0x0001;
/// Header id of Info-ZIP's Unicode path extra field (4.6.9): a second name for the same member.
pub(crate) const EXTRA_UNICODE_PATH: u16 = 0x7075;

/// How the bytes of a member are kept (4.4.5). Other methods are not read and not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// As they are (method 0).
    Stored,
    /// A raw deflate stream (method 8).
    Deflated,
}

impl Method {
    /// The method's number in the format.
    pub const fn id(self) -> u16 {
        match self {
            Self::Stored => 0,
            Self::Deflated => 8,
        }
    }

    /// The method with this number, if it is one of the two.
    pub const fn from_id(id: u16) -> Option<Self> {
        match id {
            0 => Some(Self::Stored),
            8 => Some(Self::Deflated),
            _ => None,
        }
    }
}

/// What a header says about a member's bytes: all that is needed to copy them unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packed {
    /// How the bytes are kept.
    pub method: Method,
    /// CRC-32 of the uncompressed bytes.
    pub crc32: u32,
    /// Bytes in the archive.
    pub compressed_size: u64,
    /// Bytes after inflating.
    pub size: u64,
}

/// Little-endian `u16` at `at`. The caller has checked the length.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Little-endian `u32` at `at`. The caller has checked the length.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Little-endian `u64` at `at`. The caller has checked the length.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
