//! The dynamic symbols that a file leaves to others.

use object::LittleEndian;
use object::elf;
use object::pod;
use object::read::elf::{GnuHashTable, HashTable, Sym};

use crate::dynamic::{Dynamic, Memory, Strings, record};
use crate::error::ElfError;
use crate::headers::{self, Header};
use crate::versions::Needs;

/// A dynamic symbol that another library has to define.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndefinedSymbol {
    /// The symbol's name, mangled if it is one of C++.
    pub name: String,
    /// The version it must have, such as `GLIBC_2.34`.
    pub version: Option<String>,
    /// The soname of the library that has this version.
    pub library: Option<String>,
    /// Whether the file can do without it.
    pub weak: bool,
}

const SYMBOLS: &str = "dynamic symbol table";
const NAME: &str = "name of a symbol";

/// Reads the undefined symbols of the table at DT_SYMTAB.
pub(crate) fn undefined<H: Header>(
    data: &[u8],
    dynamic: &Dynamic,
    memory: &Memory<'_>,
    needs: &Needs,
    strings: &mut Strings<'_>,
) -> Result<Vec<UndefinedSymbol>, ElfError> {
    let Some(table) = dynamic.table(memory, elf::DT_SYMTAB, SYMBOLS)? else { return Ok(Vec::new()) };
    let (symbols, _) = pod::slice_from_bytes::<H::Sym>(table, count::<H>(data, dynamic, memory)?)
        .map_err(|()| ElfError::Truncated { what: SYMBOLS })?;
    let versions = dynamic.table(memory, elf::DT_VERSYM, "table of symbol versions")?;
    let mut undefined = Vec::new();
    for (at, symbol) in symbols.iter().enumerate() {
        if !symbol.is_undefined(LittleEndian) || symbol.is_local() {
            continue;
        }
        let need = versions.and_then(|versions| version_number(versions, at));
        let need = need.and_then(|number| needs.by_number(number));
        undefined.push(UndefinedSymbol {
            name: strings.get(NAME, symbol.st_name(LittleEndian).into())?,
            version: need.map(|need| strings.copy(&need.version)).transpose()?,
            library: need.map(|need| strings.copy(&need.library)).transpose()?,
            weak: symbol.st_bind() == elf::STB_WEAK,
        });
    }
    Ok(undefined)
}

fn version_number(versions: &[u8], symbol: usize) -> Option<elf::VersymIndex> {
    let size = size_of::<elf::Versym<LittleEndian>>();
    let number: &elf::Versym<LittleEndian> = record(versions, symbol.checked_mul(size)?)?;
    Some(number.0.get(LittleEndian))
}

/// How many dynamic symbols there are. Nothing says so, so that it has to be seen from the hash tables.
fn count<H: Header>(data: &[u8], dynamic: &Dynamic, memory: &Memory<'_>) -> Result<usize, ElfError> {
    if let Some(table) = dynamic.table(memory, elf::DT_HASH, "hash table")? {
        let table = HashTable::<H>::parse(LittleEndian, table)
            .map_err(|_| ElfError::Truncated { what: "hash table" })?;
        return Ok(usize::try_from(table.symbol_table_length()).unwrap_or(usize::MAX));
    }
    let Some(table) = dynamic.table(memory, elf::DT_GNU_HASH, "GNU hash table")? else {
        return Ok(count_by_section::<H>(data, dynamic).unwrap_or(0));
    };
    let table = GnuHashTable::<H>::parse(LittleEndian, table)
        .map_err(|_| ElfError::Truncated { what: "GNU hash table" })?;
    // A file that defines nothing has an empty table. The first symbol that would be in it is then the best
    // guess, and GNU ld writes 1 there, whatever is true: that is, it says nothing.
    let length = table.symbol_table_length(LittleEndian).and_then(|length| usize::try_from(length).ok());
    let guess = usize::try_from(table.symbol_base()).unwrap_or(0);
    Ok(length.or_else(|| count_by_section::<H>(data, dynamic)).unwrap_or(guess))
}

/// The same by the section header of the table, if there is one.
fn count_by_section<H: Header>(data: &[u8], dynamic: &Dynamic) -> Option<usize> {
    let address = dynamic.get(elf::DT_SYMTAB)?;
    let sections = headers::sections(headers::header::<H>(data).ok()?, data).ok()?;
    let section =
        sections.iter().find(|section| section.kind == elf::SHT_DYNSYM && section.address == address)?;
    usize::try_from(section.size).ok().map(|size| size / size_of::<H::Sym>())
}
