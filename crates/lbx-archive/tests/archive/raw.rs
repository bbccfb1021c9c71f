//! Archives assembled field by field, so that each field can be wrong.

use lbx_archive::{Packed, compress};

/// The fields of a header that a test may want to change.
#[derive(Clone)]
pub(crate) struct Header {
    pub(crate) name: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) crc32: u32,
    pub(crate) compressed_size: u32,
    pub(crate) size: u32,
    pub(crate) extra: Vec<u8>,
}

/// One member: two headers and what lies after the local one.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) local: Header,
    pub(crate) central: Header,
    pub(crate) data: Vec<u8>,
    /// A data descriptor, or bytes that have no business there.
    pub(crate) after: Vec<u8>,
    pub(crate) attributes: u32,
    pub(crate) comment: Vec<u8>,
    pub(crate) disk: u16,
    /// Where the central header says that the local one is, instead of where it is.
    pub(crate) offset: Option<u32>,
}

impl Raw {
    /// A well-formed member; a name that ends in `/` makes a directory.
    pub(crate) fn new(name: &str, content: &[u8]) -> Self {
        let (packed, data) = compress(content);
        Self::of(name, packed, data)
    }

    pub(crate) fn of(name: &str, packed: Packed, data: Vec<u8>) -> Self {
        let header = Header {
            name: name.into(),
            flags: if name.is_ascii() { 0 } else { 1 << 11 },
            method: packed.method.id(),
            crc32: packed.crc32,
            compressed_size: packed.compressed_size.try_into().unwrap(),
            size: packed.size.try_into().unwrap(),
            extra: Vec::new(),
        };
        Self {
            local: header.clone(),
            central: header,
            data,
            after: Vec::new(),
            attributes: 0o100_644 << 16,
            comment: Vec::new(),
            disk: 0,
            offset: None,
        }
        .with(|raw| {
            if name.ends_with('/') {
                raw.attributes = 0o040_755 << 16 | 0x10;
            }
        })
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Changes both headers alike.
    pub(crate) fn both(mut self, change: impl Fn(&mut Header)) -> Self {
        change(&mut self.local);
        change(&mut self.central);
        self
    }

    /// Moves CRC and sizes behind the data, as writers to pipes do.
    pub(crate) fn deferred(mut self, signature: bool) -> Self {
        let Header { crc32, compressed_size, size, .. } = self.central;
        if signature {
            self.after.extend(0x0807_4b50u32.to_le_bytes());
        }
        for value in [crc32, compressed_size, size] {
            self.after.extend(value.to_le_bytes());
        }
        self.local.crc32 = 0;
        self.local.compressed_size = 0;
        self.local.size = 0;
        self.both(|header| header.flags |= 1 << 3)
    }
}

/// The end of an archive.
#[derive(Default)]
pub(crate) struct Tail {
    pub(crate) before_directory: Vec<u8>,
    pub(crate) after_directory: Vec<u8>,
    pub(crate) comment: Vec<u8>,
    pub(crate) after_end: Vec<u8>,
    pub(crate) disk: u16,
    /// Added to the number of members.
    pub(crate) extra_members: u16,
    /// Writes the zip64 records, then lets the test change them.
    pub(crate) zip64: Option<fn(&mut Vec<u8>)>,
    /// Saturates the end record's fields.
    pub(crate) saturated: bool,
}

fn put(out: &mut Vec<u8>, header: &Header) {
    out.extend(header.flags.to_le_bytes());
    out.extend(header.method.to_le_bytes());
    out.extend([0, 0, 0x21, 0]); // 1980-01-01
    out.extend(header.crc32.to_le_bytes());
    out.extend(header.compressed_size.to_le_bytes());
    out.extend(header.size.to_le_bytes());
    out.extend(u16::try_from(header.name.len()).unwrap().to_le_bytes());
    out.extend(u16::try_from(header.extra.len()).unwrap().to_le_bytes());
}

/// An archive of these members.
pub(crate) fn archive(members: &[Raw]) -> Vec<u8> {
    archive_with(members, &Tail::default())
}

/// An archive of these members with another end.
pub(crate) fn archive_with(members: &[Raw], tail: &Tail) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for raw in members {
        let offset = raw.offset.unwrap_or_else(|| u32::try_from(out.len()).unwrap());
        out.extend(0x0403_4b50u32.to_le_bytes());
        out.extend([20, 0]);
        put(&mut out, &raw.local);
        out.extend(&raw.local.name);
        out.extend(&raw.local.extra);
        out.extend(&raw.data);
        out.extend(&raw.after);

        directory.extend(0x0201_4b50u32.to_le_bytes());
        directory.extend([20, 3, 20, 0]);
        put(&mut directory, &raw.central);
        directory.extend(u16::try_from(raw.comment.len()).unwrap().to_le_bytes());
        directory.extend(raw.disk.to_le_bytes());
        directory.extend([0, 0]);
        directory.extend(raw.attributes.to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(&raw.central.name);
        directory.extend(&raw.central.extra);
        directory.extend(&raw.comment);
    }
    out.extend(&tail.before_directory);
    let offset = out.len();
    out.extend(&directory);
    out.extend(&tail.after_directory);
    end(&mut out, offset, directory.len(), members.len(), tail);
    out
}

fn end(out: &mut Vec<u8>, offset: usize, size: usize, members: usize, tail: &Tail) {
    if let Some(change) = tail.zip64 {
        let mut records = Vec::new();
        records.extend(0x0606_4b50u32.to_le_bytes());
        records.extend(44u64.to_le_bytes());
        records.extend([45, 3, 45, 0]);
        records.extend([0; 8]);
        for value in [members, members, size, offset] {
            records.extend((value as u64).to_le_bytes());
        }
        records.extend(0x0706_4b50u32.to_le_bytes());
        records.extend(0u32.to_le_bytes());
        records.extend((out.len() as u64).to_le_bytes());
        records.extend(1u32.to_le_bytes());
        change(&mut records);
        out.extend(records);
    }
    let (count, size, offset) = if tail.saturated {
        (u16::MAX, u32::MAX, u32::MAX)
    } else {
        let count = u16::try_from(members).unwrap() + tail.extra_members;
        (count, u32::try_from(size).unwrap(), u32::try_from(offset).unwrap())
    };
    out.extend(0x0605_4b50u32.to_le_bytes());
    out.extend(tail.disk.to_le_bytes());
    out.extend(tail.disk.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend(u16::try_from(tail.comment.len()).unwrap().to_le_bytes());
    out.extend(&tail.comment);
    out.extend(&tail.after_end);
}
