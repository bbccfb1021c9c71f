//! Symbol versions: which a library needs of others (`.gnu.version_r`), and which it has (`.gnu.version_d`).

use std::collections::BTreeMap;

use object::LittleEndian;
use object::elf;

use crate::dynamic::{Dynamic, Memory, Strings, record};
use crate::error::ElfError;

/// A version that a file needs of a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionNeed {
    /// The library's soname, such as `libc.so.6`.
    pub library: String,
    /// The version's name, such as `GLIBC_2.34`.
    pub version: String,
    /// Whether the loader only warns when the library does not have it.
    pub weak: bool,
}

/// The needed versions, and the numbers by which the symbols name them.
#[derive(Default)]
pub(crate) struct Needs {
    pub(crate) list: Vec<VersionNeed>,
    by_number: BTreeMap<u16, usize>,
}

impl Needs {
    /// The need that a symbol's version number stands for.
    pub(crate) fn by_number(&self, number: elf::VersymIndex) -> Option<&VersionNeed> {
        self.by_number.get(&number.index().0).and_then(|&at| self.list.get(at))
    }
}

/// Follows offsets from record to record, each relative to the last, with an end to the number of steps.
///
/// The counts in the file are ignored, as the loader ignores them: a record whose next is 0 is the last.
struct Steps {
    left: usize,
}

impl Steps {
    /// As many as there is place for records that do not overlap.
    fn new(table: &[u8]) -> Self {
        Self { left: table.len() / size_of::<elf::Verdaux<LittleEndian>>() }
    }

    fn next(&mut self, at: usize, distance: u32) -> Result<Option<usize>, ElfError> {
        if distance == 0 {
            return Ok(None);
        }
        self.left = self.left.checked_sub(1).ok_or(ElfError::TooManyVersions)?;
        forward(at, distance).map(Some)
    }
}

const NEEDS: &str = "table of needed versions";
const DEFINITIONS: &str = "table of version definitions";

fn forward(at: usize, distance: u32) -> Result<usize, ElfError> {
    let distance = usize::try_from(distance).ok();
    distance.and_then(|distance| at.checked_add(distance)).ok_or(ElfError::TooManyVersions)
}

/// Reads the table at DT_VERNEED.
pub(crate) fn needs(
    dynamic: &Dynamic,
    memory: &Memory<'_>,
    strings: &mut Strings<'_>,
) -> Result<Needs, ElfError> {
    let mut needs = Needs::default();
    let Some(table) = dynamic.table(memory, elf::DT_VERNEED, NEEDS)? else { return Ok(needs) };
    let mut steps = Steps::new(table);
    let mut next = Some(0);
    while let Some(at) = next {
        let need: &elf::Verneed<LittleEndian> =
            record(table, at).ok_or(ElfError::Truncated { what: NEEDS })?;
        let library = strings.get("library of a version", need.vn_file.get(LittleEndian).into())?;
        let mut next_version = Some(forward(at, need.vn_aux.get(LittleEndian))?);
        while let Some(at) = next_version {
            let version: &elf::Vernaux<LittleEndian> =
                record(table, at).ok_or(ElfError::Truncated { what: NEEDS })?;
            needs.by_number.insert(version.vna_other(LittleEndian).index().0, needs.list.len());
            needs.list.push(VersionNeed {
                library: strings.copy(&library)?,
                version: strings.get("version", version.vna_name.get(LittleEndian).into())?,
                weak: version.vna_flags.get(LittleEndian).contains(elf::VER_FLG_WEAK),
            });
            next_version = steps.next(at, version.vna_next.get(LittleEndian))?;
        }
        next = steps.next(at, need.vn_next.get(LittleEndian))?;
    }
    Ok(needs)
}

/// Reads the names in the table at DT_VERDEF, without the base definition, which is the library's own name.
pub(crate) fn definitions(
    dynamic: &Dynamic,
    memory: &Memory<'_>,
    strings: &mut Strings<'_>,
) -> Result<Vec<String>, ElfError> {
    let mut names = Vec::new();
    let Some(table) = dynamic.table(memory, elf::DT_VERDEF, DEFINITIONS)? else { return Ok(names) };
    let mut steps = Steps::new(table);
    let mut next = Some(0);
    while let Some(at) = next {
        let definition: &elf::Verdef<LittleEndian> =
            record(table, at).ok_or(ElfError::Truncated { what: DEFINITIONS })?;
        if !definition.vd_flags.get(LittleEndian).contains(elf::VER_FLG_BASE) {
            // The first name is the version's own; the others are those that it follows.
            let name: &elf::Verdaux<LittleEndian> =
                record(table, forward(at, definition.vd_aux.get(LittleEndian))?)
                    .ok_or(ElfError::Truncated { what: DEFINITIONS })?;
            names.push(strings.get("version", name.vda_name.get(LittleEndian).into())?);
        }
        next = steps.next(at, definition.vd_next.get(LittleEndian))?;
    }
    Ok(names)
}
