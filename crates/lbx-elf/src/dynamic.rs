//! The dynamic section and what it points to, found as the loader finds it: by address, through the segments.

use object::LittleEndian;
use object::elf;
use object::pod::{self, Pod};
use object::read::elf::Dyn;

use crate::error::ElfError;
use crate::headers::{Header, Segment};

/// The parts of a file that are loaded, by address.
pub(crate) struct Memory<'data> {
    data: &'data [u8],
    loads: Vec<Segment>,
}

impl<'data> Memory<'data> {
    pub(crate) fn new(data: &'data [u8], segments: &[Segment]) -> Self {
        let loads = segments.iter().filter(|segment| segment.kind == elf::PT_LOAD).copied().collect();
        Self { data, loads }
    }

    /// What is loaded at an address, up to the end of what its segment has of the file.
    pub(crate) fn at(&self, what: &'static str, address: u64) -> Result<&'data [u8], ElfError> {
        // Of two segments at one address, the later is mapped over the earlier.
        let load =
            self.loads.iter().rev().find(|load| {
                address.checked_sub(load.address).is_some_and(|distance| distance < load.file_size)
            });
        let load = load.ok_or(ElfError::Address { what, address })?;
        let bytes = bytes(self.data, load.offset, load.file_size).ok_or(ElfError::Truncated { what })?;
        usize::try_from(address - load.address)
            .ok()
            .and_then(|distance| bytes.get(distance..))
            .ok_or(ElfError::Truncated { what })
    }
}

/// A range of a file.
pub(crate) fn bytes(data: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = usize::try_from(offset.checked_add(size)?).ok()?;
    data.get(start..end)
}

/// A structure at an offset.
pub(crate) fn record<T: Pod>(data: &[u8], offset: usize) -> Option<&T> {
    pod::from_bytes(data.get(offset..)?).ok().map(|(record, _)| record)
}

/// The entries of the dynamic section, in the file's order, up to the first null entry.
pub(crate) struct Dynamic(Vec<(elf::DynamicTag, u64)>);

impl Dynamic {
    /// Reads the dynamic section, which is empty in a static program.
    pub(crate) fn read<H: Header>(segments: &[Segment], memory: &Memory<'_>) -> Result<Self, ElfError> {
        const WHAT: &str = "dynamic section";
        let Some(segment) = segments.iter().find(|segment| segment.kind == elf::PT_DYNAMIC) else {
            return Ok(Self(Vec::new()));
        };
        // A file of debug data alone has the headers of a library, and nothing behind them.
        if segment.file_size == 0 {
            return Ok(Self(Vec::new()));
        }
        let data = memory.at(WHAT, segment.address)?;
        let data = bytes(data, 0, segment.file_size).ok_or(ElfError::Truncated { what: WHAT })?;
        let (entries, _) = pod::slice_from_bytes::<H::Dyn>(data, data.len() / size_of::<H::Dyn>())
            .map_err(|()| ElfError::Truncated { what: WHAT })?;
        let entries =
            entries.iter().map(|entry| (entry.d_tag(LittleEndian), entry.d_val(LittleEndian).into()));
        Ok(Self(entries.take_while(|(tag, _)| *tag != elf::DT_NULL).collect()))
    }

    /// The values of every entry with a tag.
    pub(crate) fn all(&self, tag: elf::DynamicTag) -> impl Iterator<Item = u64> {
        self.0.iter().filter(move |(other, _)| *other == tag).map(|(_, value)| *value)
    }

    /// The value that counts. Of several entries, that is the last: the loader writes each over the other.
    pub(crate) fn get(&self, tag: elf::DynamicTag) -> Option<u64> {
        self.all(tag).last()
    }

    /// What the address in an entry points to, if there is such an entry.
    pub(crate) fn table<'data>(
        &self,
        memory: &Memory<'data>,
        tag: elf::DynamicTag,
        what: &'static str,
    ) -> Result<Option<&'data [u8]>, ElfError> {
        self.get(tag).map(|address| memory.at(what, address)).transpose()
    }
}

/// The dynamic strings, and how much text may still be taken from them.
///
/// A few bytes can name a long string, over and over: without a limit, a small file would fill the memory.
pub(crate) struct Strings<'data> {
    table: Option<&'data [u8]>,
    left: usize,
}

impl<'data> Strings<'data> {
    /// Takes the table that the dynamic section names. Like the loader, it does not look at DT_STRSZ.
    pub(crate) fn new(dynamic: &Dynamic, memory: &Memory<'data>) -> Result<Self, ElfError> {
        let table = dynamic.table(memory, elf::DT_STRTAB, "dynamic string table")?;
        Ok(Self { table, left: memory.data.len().saturating_mul(2).saturating_add(1 << 16) })
    }

    /// The string at an offset.
    pub(crate) fn get(&mut self, what: &'static str, offset: u64) -> Result<String, ElfError> {
        let table = self.table.ok_or(ElfError::NoStrings { what })?;
        let rest = usize::try_from(offset).ok().and_then(|offset| table.get(offset..));
        let rest = rest.ok_or(ElfError::Text { what, offset })?;
        let affordable = &rest[..rest.len().min(self.left)];
        let Some(length) = affordable.iter().position(|&byte| byte == 0) else {
            let unaffordable = affordable.len() < rest.len();
            return Err(if unaffordable { ElfError::TooMuchText } else { ElfError::Text { what, offset } });
        };
        self.pay(length + 1)?;
        Ok(String::from_utf8_lossy(&affordable[..length]).into_owned())
    }

    /// A second copy of a string.
    pub(crate) fn copy(&mut self, text: &str) -> Result<String, ElfError> {
        self.pay(text.len())?;
        Ok(text.to_owned())
    }

    fn pay(&mut self, length: usize) -> Result<(), ElfError> {
        self.left = self.left.checked_sub(length).ok_or(ElfError::TooMuchText)?;
        Ok(())
    }
}
