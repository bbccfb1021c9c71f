//! What a file says of itself to the kernel and to the dynamic loader.

use object::LittleEndian;
use object::elf;
use object::elf::{FileHeader32, FileHeader64};

use crate::dynamic::{Dynamic, Memory, Strings, bytes};
use crate::error::ElfError;
use crate::headers::{self, Class, Header, Kind, Machine, Segment};
use crate::symbols::{self, UndefinedSymbol};
use crate::versions::{self, VersionNeed};

/// Whether a file is ELF, by its first four bytes.
pub fn is_elf(data: &[u8]) -> bool {
    data.starts_with(&elf::ELFMAG)
}

/// What a file says of itself, and what it needs of others. The byte order is always little endian.
///
/// Text that is not UTF-8 has replacement characters. A static program and a file that is still to be linked
/// need nothing of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// The size of its words.
    pub class: Class,
    /// The CPU it is for.
    pub machine: Machine,
    /// What it is.
    pub kind: Kind,
    /// The path of the program that loads it (PT_INTERP). Libraries usually have none.
    pub interpreter: Option<String>,
    /// The name that others need it by (DT_SONAME).
    pub soname: Option<String>,
    /// The libraries it needs (DT_NEEDED), in the file's order.
    pub needed: Vec<String>,
    /// The directories of DT_RPATH, as they are written: `$ORIGIN` and empty ones are left alone.
    pub rpath: Vec<String>,
    /// The directories of DT_RUNPATH, likewise. If there are any, the loader ignores `rpath`.
    pub runpath: Vec<String>,
    /// The versions it needs of other libraries.
    pub needs: Vec<VersionNeed>,
    /// The names of the versions that it defines, without the one that is its own name.
    pub provides: Vec<String>,
    /// The dynamic symbols that others have to define.
    ///
    /// Empty as well where their number cannot be known: the file has no section headers, and no hash
    /// table with symbols in it.
    pub undefined: Vec<UndefinedSymbol>,
}

impl Elf {
    /// Reads a file. Its bytes need no alignment.
    ///
    /// Everything is found by program headers and addresses, as the loader finds it; of section headers, only
    /// the number of symbols is taken, and only where there is no hash table to see it from.
    ///
    /// # Errors
    ///
    /// If it is not ELF, is big endian, or says things that cannot be. What the loader would not look at is
    /// not checked.
    pub fn parse(data: &[u8]) -> Result<Self, ElfError> {
        match headers::class(data)? {
            Class::Elf32 => read::<FileHeader32<LittleEndian>>(data, Class::Elf32),
            Class::Elf64 => read::<FileHeader64<LittleEndian>>(data, Class::Elf64),
        }
    }
}

fn read<H: Header>(data: &[u8], class: Class) -> Result<Elf, ElfError> {
    let header: &H = headers::header(data)?;
    let segments = headers::segments(header, data)?;
    let memory = Memory::new(data, &segments);
    let dynamic = Dynamic::read::<H>(&segments, &memory)?;
    let mut strings = Strings::new(&dynamic, &memory)?;
    let needed = dynamic.all(elf::DT_NEEDED).map(|offset| strings.get("needed library", offset));
    let needed = needed.collect::<Result<_, _>>()?;
    let soname = dynamic.get(elf::DT_SONAME).map(|offset| strings.get("soname", offset)).transpose()?;
    let rpath = directories(&dynamic, &mut strings, elf::DT_RPATH, "rpath")?;
    let runpath = directories(&dynamic, &mut strings, elf::DT_RUNPATH, "runpath")?;
    let needs = versions::needs(&dynamic, &memory, &mut strings)?;
    Ok(Elf {
        class,
        machine: headers::machine(header),
        kind: headers::kind(header),
        interpreter: interpreter(data, &segments)?,
        soname,
        needed,
        rpath,
        runpath,
        provides: versions::definitions(&dynamic, &memory, &mut strings)?,
        undefined: symbols::undefined::<H>(data, &dynamic, &memory, &needs, &mut strings)?,
        needs: needs.list,
    })
}

fn interpreter(data: &[u8], segments: &[Segment]) -> Result<Option<String>, ElfError> {
    const WHAT: &str = "path of the interpreter";
    let segment = segments.iter().find(|segment| segment.kind == elf::PT_INTERP);
    // Nothing of it is in a file of debug data alone.
    let Some(segment) = segment.filter(|segment| segment.file_size > 0) else { return Ok(None) };
    let path = bytes(data, segment.offset, segment.file_size).ok_or(ElfError::Truncated { what: WHAT })?;
    let path = path.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(path).into_owned()))
}

/// A search path, split. One that is empty is none.
fn directories(
    dynamic: &Dynamic,
    strings: &mut Strings<'_>,
    tag: elf::DynamicTag,
    what: &'static str,
) -> Result<Vec<String>, ElfError> {
    let Some(offset) = dynamic.get(tag) else { return Ok(Vec::new()) };
    let path = strings.get(what, offset)?;
    Ok(if path.is_empty() { Vec::new() } else { path.split(':').map(str::to_owned).collect() })
}
