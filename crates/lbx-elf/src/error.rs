//! Why a file cannot be read, and why it is not stripped. Which file it was, the caller knows and adds.

use crate::headers::Kind;

/// Why [`Elf::parse`](crate::Elf::parse) refused a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// The file does not start as ELF files do.
    #[error("not an ELF file")]
    NotElf,
    /// The file is big endian, which nothing is that runs on Lambda.
    #[error("the file is big endian, expected little endian")]
    BigEndian,
    /// The byte order is none of the two.
    #[error("unknown byte order {found}, expected 1 (little endian)")]
    ByteOrder {
        /// The byte in the file.
        found: u8,
    },
    /// The words have a size that is neither 32 nor 64 bits.
    #[error("unknown class {found}, expected 1 (32-bit) or 2 (64-bit)")]
    Class {
        /// The byte in the file.
        found: u8,
    },
    /// Headers that are not in the file, or have another size than they must have.
    #[error("bad {what}: {reason}")]
    Header {
        /// Which headers.
        what: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// Something is at an address that no part of the file is loaded to.
    #[error("the {what} is at address {address:#x}, where nothing of the file is loaded")]
    Address {
        /// What.
        what: &'static str,
        /// Where the file says it is.
        address: u64,
    },
    /// Something goes beyond the end of the file or of its segment.
    #[error("the {what} is truncated")]
    Truncated {
        /// What.
        what: &'static str,
    },
    /// Something has a name, and there is no string table.
    #[error("the {what} is a string, and there is no dynamic string table")]
    NoStrings {
        /// What.
        what: &'static str,
    },
    /// A string that starts or ends outside of its segment.
    #[error("the {what}, at {offset} in the dynamic string table, is not in the file")]
    Text {
        /// What the string is.
        what: &'static str,
        /// Where it starts in the table.
        offset: u64,
    },
    /// Tables of versions that have more records than there is place for.
    #[error("the tables of versions go in circles")]
    TooManyVersions,
    /// Names that are together much longer than the file.
    #[error("the names in the file are far longer than the file, all together")]
    TooMuchText,
}

/// Why [`strip()`](crate::strip()) left a file as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StripRefused {
    /// The headers cannot be read.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The file is neither a program nor a shared library.
    #[error("the file is {found:?}, expected a program or a shared library")]
    Kind {
        /// What it is.
        found: Kind,
    },
    /// There are no section headers, so that it is not known what could be removed.
    #[error("no section headers")]
    NoSections,
    /// Nothing is loaded, so that it is not known what must stay.
    #[error("no program headers")]
    NoSegments,
    /// So many headers that their number is not in the file header.
    #[error("more headers than the file header can count")]
    ExtendedNumbering,
    /// More program headers than any linker makes.
    #[error("{found} program headers, the limit is {limit}")]
    TooManySegments {
        /// How many.
        found: usize,
        /// How many may be.
        limit: usize,
    },
    /// A program header covers what is not in the file.
    #[error("program header {number} goes beyond the end of the file")]
    SegmentOutside {
        /// The header's place among its kind, from 0.
        number: usize,
    },
    /// The first section header is not empty, as it must be.
    #[error("the first section header is not empty")]
    FirstSection,
    /// The section with the sections' names is not a string table of its own, after all that is loaded.
    #[error("section {number} cannot be the one with the names")]
    Names {
        /// Its number.
        number: u16,
    },
    /// A section has no name that can be read.
    #[error("the name of section {number} is not in the file, or has more than {limit} bytes")]
    Name {
        /// The section's number.
        number: usize,
        /// How long a name may be, in bytes.
        limit: usize,
    },
    /// A section has bytes that are not in the file.
    #[error("section {name} goes beyond the end of the file")]
    SectionOutside {
        /// The section.
        name: String,
    },
    /// A section that is loaded by its flags, and not by any program header.
    #[error("section {name} is to be loaded, and no segment loads it")]
    NotLoaded {
        /// The section.
        name: String,
    },
    /// A section that is not loaded lies before the end of what is, as after patchelf. Removing it would move
    /// what is loaded.
    #[error("section {name} is not loaded, and lies among what is")]
    Inside {
        /// The section.
        name: String,
    },
    /// The section headers lie before the end of what is loaded, as after patchelf.
    #[error("the section headers lie among what is loaded")]
    HeadersInside,
    /// Two things are at one place.
    #[error("{first} and {second} overlap")]
    Overlap {
        /// A section, or the section headers.
        first: String,
        /// The other.
        second: String,
    },
    /// Bytes after what is loaded that belong to nothing: perhaps an appended archive, which would be lost.
    #[error("{size} bytes at {offset} belong to no section")]
    Unclaimed {
        /// Where they start.
        offset: u64,
        /// How many.
        size: u64,
    },
    /// A section of a type that must not be in such a file, or whose fields have no known meaning.
    #[error("section {name} has type {kind:#x}, which is not understood here")]
    SectionType {
        /// The section.
        name: String,
        /// The type's number.
        kind: u32,
    },
    /// A section with flags that are not understood.
    #[error("section {name} has flags {flags:#x}, which are not understood together")]
    Flags {
        /// The section.
        name: String,
        /// All its flags.
        flags: u64,
    },
    /// A section that would be moved has an alignment that is no power of two, or above the limit.
    #[error("section {name} has alignment {alignment}, expected a power of two up to {limit}")]
    Alignment {
        /// The section.
        name: String,
        /// Its alignment in bytes.
        alignment: u64,
        /// The greatest that may be.
        limit: u64,
    },
    /// A section refers to one that does not exist.
    #[error("section {name} refers to section {number}, which does not exist")]
    Link {
        /// The section.
        name: String,
        /// What it refers to.
        number: u32,
    },
    /// A section that stays refers to one that would be removed.
    #[error("section {name} needs {removed}, which would be removed")]
    Needed {
        /// The section that stays.
        name: String,
        /// The section that it refers to.
        removed: String,
    },
    /// A loaded section would have another number, by which dynamic symbols may name it.
    #[error("section {name} is loaded, and would have another number")]
    Renumbered {
        /// The section.
        name: String,
    },
    /// There is nothing to remove, or the file would not get smaller by it.
    #[error("the file would not get smaller")]
    NotSmaller,
}
