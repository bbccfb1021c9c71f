//! A file as it is laid out, read only if that is the usual way: headers, all that is loaded, and then the
//! sections that are not, with the section headers among them and nothing else.

use std::fmt;

use object::LittleEndian;
use object::elf;

use crate::dynamic::bytes;
use crate::error::{ElfError, StripRefused};
use crate::headers::{self, Class, Header, Kind, Section, Segment};

/// Linkers make about ten.
const MOST_SEGMENTS: usize = 256;
/// The longest name of a section, in bytes.
const LONGEST_NAME: usize = 256;
/// The greatest alignment of a section that is not loaded.
const GREATEST_ALIGNMENT: u64 = 4096;
/// Flags that say nothing of where a section is, or of what would have to change with it.
const UNDERSTOOD: u64 = elf::SHF_WRITE.0
    | elf::SHF_EXECINSTR.0
    | elf::SHF_MERGE.0
    | elf::SHF_STRINGS.0
    | elf::SHF_INFO_LINK.0
    | elf::SHF_LINK_ORDER.0
    | elf::SHF_COMPRESSED.0
    | elf::SHF_GNU_RETAIN.0
    | elf::SHF_EXCLUDE.0;

/// A section with its name.
pub(super) struct Named<'data> {
    pub(super) name: &'data [u8],
    pub(super) section: Section,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", String::from_utf8_lossy(self.name))
    }
}

impl Named<'_> {
    pub(super) fn has(&self, flag: elf::SectionFlags) -> bool {
        self.section.flags & flag.0 != 0
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.has(elf::SHF_ALLOC)
    }

    /// Whether it has a part of the file.
    pub(super) fn has_bytes(&self) -> bool {
        self.section.size > 0 && !matches!(self.section.kind, elf::SHT_NULL | elf::SHT_NOBITS)
    }

    /// Whether `sh_info` is another section's number.
    pub(super) fn info_is_section(&self) -> bool {
        self.has(elf::SHF_INFO_LINK) || matches!(self.section.kind, elf::SHT_REL | elf::SHT_RELA)
    }
}

/// A file whose layout is understood.
pub(super) struct Image<'data> {
    pub(super) data: &'data [u8],
    pub(super) class: Class,
    /// Where the last byte that must not move ends.
    pub(super) loaded_end: u64,
    pub(super) sections: Vec<Named<'data>>,
    /// The number of the section with the names.
    pub(super) names: usize,
}

impl<'data> Image<'data> {
    pub(super) fn read<H: Header>(data: &'data [u8], class: Class) -> Result<Self, StripRefused> {
        let header: &H = headers::header(data)?;
        let kind = headers::kind(header);
        if !matches!(kind, Kind::Executable | Kind::Shared) {
            return Err(StripRefused::Kind { found: kind });
        }
        check_numbering(header)?;
        let segments = headers::segments(header, data)?;
        let loaded_end = loaded_end(header, data, &segments)?;
        let sections = headers::sections(header, data)?;
        let names = header.e_shstrndx(LittleEndian).0;
        let (names, sections) = named(data, sections, names)?;
        let table_size = sections.len() * size_of::<H::SectionHeader>();
        let image = Self { data, class, loaded_end, sections, names };
        image.check_sections()?;
        image.check_loaded(&segments)?;
        image
            .check_rest(header.e_shoff(LittleEndian).into(), u64::try_from(table_size).unwrap_or(u64::MAX))?;
        Ok(image)
    }

    /// The bytes of a section, if it has any.
    pub(super) fn content(&self, section: &Named<'_>) -> &'data [u8] {
        if !section.has_bytes() {
            return &[];
        }
        bytes(self.data, section.section.offset, section.section.size).unwrap_or_default()
    }

    /// Each section for itself.
    fn check_sections(&self) -> Result<(), StripRefused> {
        for (number, section) in self.sections.iter().enumerate().skip(1) {
            let name = || section.to_string();
            let Section { kind, flags, alignment, offset, size, .. } = section.section;
            let understood = if section.is_loaded() {
                flags & (elf::SHF_GROUP.0 | elf::SHF_COMPRESSED.0) == 0
            } else {
                flags & !UNDERSTOOD == 0
            };
            if !understood {
                return Err(StripRefused::Flags { name: name(), flags });
            }
            let loaded_symbols = section.is_loaded() && kind == elf::SHT_SYMTAB;
            // A number that means we do not know what: it could be that of a section.
            let unknown_info = section.section.info != 0
                && !section.info_is_section()
                && !matches!(
                    kind,
                    elf::SHT_SYMTAB | elf::SHT_DYNSYM | elf::SHT_GNU_VERDEF | elf::SHT_GNU_VERNEED
                );
            if kind == elf::SHT_GROUP || loaded_symbols || unknown_info {
                return Err(StripRefused::SectionType { name: name(), kind: kind.0 });
            }
            let can_move = alignment <= GREATEST_ALIGNMENT && alignment.count_ones() <= 1;
            if !section.is_loaded() && !can_move {
                return Err(StripRefused::Alignment { name: name(), alignment, limit: GREATEST_ALIGNMENT });
            }
            if section.has_bytes() && bytes(self.data, offset, size).is_none() {
                return Err(StripRefused::SectionOutside { name: name() });
            }
            let fits_names =
                kind == elf::SHT_STRTAB && !section.is_loaded() && !section.has(elf::SHF_COMPRESSED);
            if number == self.names && !fits_names {
                return Err(StripRefused::Names { number: u16::try_from(number).unwrap_or(u16::MAX) });
            }
        }
        Ok(())
    }

    /// Whether what sections say of what is loaded is what segments say of it.
    fn check_loaded(&self, segments: &[Segment]) -> Result<(), StripRefused> {
        let mut loaded: Vec<&Named<'_>> = Vec::new();
        for section in self.sections.iter().filter(|section| section.is_loaded() && section.has_bytes()) {
            let Section { offset, size, address, .. } = section.section;
            let loads = |segment: &&Segment| {
                segment.kind == elf::PT_LOAD
                    && offset >= segment.offset
                    && offset + size <= segment.offset + segment.file_size
                    && address.checked_sub(segment.address) == Some(offset - segment.offset)
            };
            if segments.iter().find(loads).is_none() {
                return Err(StripRefused::NotLoaded { name: section.to_string() });
            }
            loaded.push(section);
        }
        loaded.sort_by_key(|section| section.section.offset);
        for pair in loaded.windows(2) {
            if pair[0].section.offset + pair[0].section.size > pair[1].section.offset {
                return Err(overlap(&pair[0].to_string(), &pair[1].to_string()));
            }
        }
        Ok(())
    }

    /// Whether all that follows what is loaded belongs to a section or is a section header.
    fn check_rest(&self, table_offset: u64, table_size: u64) -> Result<(), StripRefused> {
        if table_offset < self.loaded_end {
            return Err(StripRefused::HeadersInside);
        }
        let mut claims = vec![(table_offset, table_size, None)];
        for section in self.sections.iter().filter(|section| !section.is_loaded() && section.has_bytes()) {
            if section.section.offset < self.loaded_end {
                return Err(StripRefused::Inside { name: section.to_string() });
            }
            claims.push((section.section.offset, section.section.size, Some(section)));
        }
        claims.sort_by_key(|(offset, ..)| *offset);
        let name = |section: Option<&Named<'_>>| {
            section.map_or_else(|| "the section header table".to_owned(), ToString::to_string)
        };
        let (mut end, mut last) = (self.loaded_end, None);
        for (offset, size, section) in claims {
            if offset < end {
                return Err(overlap(&name(last), &name(section)));
            }
            self.check_padding(end, offset)?;
            (end, last) = (offset + size, section);
        }
        let length = u64::try_from(self.data.len()).unwrap_or(u64::MAX);
        if end == length { Ok(()) } else { Err(StripRefused::Unclaimed { offset: end, size: length - end }) }
    }

    /// What is between sections may only be there for alignment.
    fn check_padding(&self, start: u64, end: u64) -> Result<(), StripRefused> {
        let size = end - start;
        let padding = bytes(self.data, start, size).unwrap_or_default();
        let is_padding = size < GREATEST_ALIGNMENT && padding.iter().all(|&byte| byte == 0);
        if is_padding { Ok(()) } else { Err(StripRefused::Unclaimed { offset: start, size }) }
    }
}

fn overlap(first: &str, second: &str) -> StripRefused {
    StripRefused::Overlap { first: first.to_owned(), second: second.to_owned() }
}

/// Whether every count and number is in the file header itself.
fn check_numbering<H: Header>(header: &H) -> Result<(), StripRefused> {
    if header.e_shoff(LittleEndian).into() == 0 {
        return Err(StripRefused::NoSections);
    }
    let names = header.e_shstrndx(LittleEndian).0;
    let segments = header.e_phnum(LittleEndian);
    if header.e_shnum(LittleEndian) == 0 || names >= elf::SHN_LORESERVE || segments == elf::PN_XNUM {
        return Err(StripRefused::ExtendedNumbering);
    }
    if names == 0 || names >= header.e_shnum(LittleEndian) {
        return Err(StripRefused::Names { number: names });
    }
    if usize::from(header.e_ehsize(LittleEndian)) != size_of::<H>() {
        return Err(ElfError::Header { what: "file header", reason: "unusual size".to_owned() }.into());
    }
    Ok(())
}

/// The end of the last byte that a program header covers, or that is one.
fn loaded_end<H: Header>(header: &H, data: &[u8], segments: &[Segment]) -> Result<u64, StripRefused> {
    if segments.is_empty() {
        return Err(StripRefused::NoSegments);
    }
    if segments.len() > MOST_SEGMENTS {
        return Err(StripRefused::TooManySegments { found: segments.len(), limit: MOST_SEGMENTS });
    }
    let header_size = u64::from(header.e_ehsize(LittleEndian));
    let table_size = u64::try_from(segments.len() * size_of::<H::ProgramHeader>()).unwrap_or(u64::MAX);
    let mut end = header_size.max(header.e_phoff(LittleEndian).into().saturating_add(table_size));
    for (number, segment) in segments.iter().enumerate() {
        if bytes(data, segment.offset, segment.file_size).is_none() {
            // An empty one may be anywhere: it covers nothing.
            if segment.file_size == 0 {
                continue;
            }
            return Err(StripRefused::SegmentOutside { number });
        }
        if segment.file_size > 0 {
            end = end.max(segment.offset + segment.file_size);
        }
    }
    Ok(end)
}

/// The sections with their names, and the number of the section that has these.
fn named(data: &[u8], sections: Vec<Section>, names: u16) -> Result<(usize, Vec<Named<'_>>), StripRefused> {
    let refused = StripRefused::Names { number: names };
    let Some(table) = sections.get(usize::from(names)) else { return Err(refused) };
    let table = bytes(data, table.offset, table.size).ok_or(refused)?;
    let first = sections.first().map(|first| (first.kind, first.size, first.link, first.info));
    if first != Some((elf::SHT_NULL, 0, 0, 0)) {
        return Err(StripRefused::FirstSection);
    }
    let with_name = |(number, section): (usize, Section)| -> Result<Named<'_>, StripRefused> {
        let rest = usize::try_from(section.name).ok().and_then(|at| table.get(at..)).unwrap_or_default();
        let end = rest.iter().take(LONGEST_NAME + 1).position(|&byte| byte == 0);
        let end = end.ok_or(StripRefused::Name { number, limit: LONGEST_NAME })?;
        Ok(Named { name: &rest[..end], section })
    };
    let sections = sections.into_iter().enumerate().map(with_name).collect::<Result<_, _>>()?;
    Ok((usize::from(names), sections))
}
