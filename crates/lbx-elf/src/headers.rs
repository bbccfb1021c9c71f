//! File, program and section headers, in one form for both word sizes.

use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

use crate::error::ElfError;

/// The size of a file's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// 32-bit words.
    Elf32,
    /// 64-bit words.
    Elf64,
}

/// The CPU that a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit x86. With [`Class::Elf32`], its x32 ABI.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
    /// Another, by its number in the ELF registry.
    Other(u16),
}

/// What a file is, by its header's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A program at fixed addresses (EXEC).
    Executable,
    /// A shared library or a position-independent program (DYN).
    Shared,
    /// What a linker still has to work on (REL).
    Relocatable,
    /// A core dump (CORE).
    Core,
    /// Another, by its number.
    Other(u16),
}

/// A program header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) kind: elf::ProgramType,
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) file_size: u64,
}

/// A section header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section {
    pub(crate) name: u32,
    pub(crate) kind: elf::SectionType,
    pub(crate) flags: u64,
    pub(crate) address: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) link: u32,
    pub(crate) info: u32,
    pub(crate) alignment: u64,
    pub(crate) entry_size: u64,
}

/// A header of little endian, of either class.
pub(crate) trait Header: FileHeader<Endian = LittleEndian> {}

impl Header for elf::FileHeader32<LittleEndian> {}
impl Header for elf::FileHeader64<LittleEndian> {}

/// The class of a file that can be read here.
pub(crate) fn class(data: &[u8]) -> Result<Class, ElfError> {
    if !data.starts_with(&elf::ELFMAG) {
        return Err(ElfError::NotElf);
    }
    let &[_, _, _, _, class, order, ..] = data else {
        return Err(ElfError::Truncated { what: "file header" });
    };
    match order {
        1 => {}
        2 => return Err(ElfError::BigEndian),
        found => return Err(ElfError::ByteOrder { found }),
    }
    match class {
        1 => Ok(Class::Elf32),
        2 => Ok(Class::Elf64),
        found => Err(ElfError::Class { found }),
    }
}

/// The file header, with its version checked.
pub(crate) fn header<H: Header>(data: &[u8]) -> Result<&H, ElfError> {
    H::parse(data).map_err(|error| ElfError::Header { what: "file header", reason: error.to_string() })
}

pub(crate) fn machine<H: Header>(header: &H) -> Machine {
    match header.e_machine(LittleEndian) {
        elf::EM_X86_64 => Machine::X86_64,
        elf::EM_AARCH64 => Machine::Aarch64,
        other => Machine::Other(other.0),
    }
}

pub(crate) fn kind<H: Header>(header: &H) -> Kind {
    match header.e_type(LittleEndian) {
        elf::ET_EXEC => Kind::Executable,
        elf::ET_DYN => Kind::Shared,
        elf::ET_REL => Kind::Relocatable,
        elf::ET_CORE => Kind::Core,
        other => Kind::Other(other.0),
    }
}

/// The program headers. They are a part of the file, which bounds their number.
pub(crate) fn segments<H: Header>(header: &H, data: &[u8]) -> Result<Vec<Segment>, ElfError> {
    let headers = header
        .program_headers(LittleEndian, data)
        .map_err(|error| ElfError::Header { what: "program headers", reason: error.to_string() })?;
    let segment = |header: &H::ProgramHeader| Segment {
        kind: header.p_type(LittleEndian),
        offset: header.p_offset(LittleEndian).into(),
        address: header.p_vaddr(LittleEndian).into(),
        file_size: header.p_filesz(LittleEndian).into(),
    };
    Ok(headers.iter().map(segment).collect())
}

/// The section headers. They are a part of the file, which bounds their number.
pub(crate) fn sections<H: Header>(header: &H, data: &[u8]) -> Result<Vec<Section>, ElfError> {
    let headers = header
        .section_headers(LittleEndian, data)
        .map_err(|error| ElfError::Header { what: "section headers", reason: error.to_string() })?;
    let section = |header: &H::SectionHeader| Section {
        name: header.sh_name(LittleEndian),
        kind: header.sh_type(LittleEndian),
        flags: header.sh_flags(LittleEndian).0,
        address: header.sh_addr(LittleEndian).into(),
        offset: header.sh_offset(LittleEndian).into(),
        size: header.sh_size(LittleEndian).into(),
        link: header.sh_link(LittleEndian),
        info: header.sh_info(LittleEndian),
        alignment: header.sh_addralign(LittleEndian).into(),
        entry_size: header.sh_entsize(LittleEndian).into(),
    };
    Ok(headers.iter().map(section).collect())
}
