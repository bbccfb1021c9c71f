//! A file without its symbol table and debug data.
//!
//! What the kernel and the loader see stays where it is: nothing before the end of the last byte that a
//! program header covers is touched, but for three fields of the file header (where the section headers are,
//! how many, and which one has the names). What follows is written again without what nobody needs at run
//! time. That is less than other tools do, which lay the whole file out anew, and it cannot break a file that
//! worked: no address, no offset of a segment, no byte of a segment changes.
//!
//! `image` reads a file and checks that its layout is the usual one, `choice` says what goes and checks that
//! what stays does not need it, and `write` makes the new file.

mod choice;
mod image;
mod write;

use object::LittleEndian;
use object::elf::{FileHeader32, FileHeader64};

use crate::error::StripRefused;
use crate::headers::{self, Class};
use image::Image;

/// A file that was made smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stripped {
    /// The new file.
    pub bytes: Vec<u8>,
    /// The names of the sections that it no longer has, in the order of their headers.
    pub removed: Vec<String>,
}

/// Removes the symbol table, debug data and the compiler's comments from a program or a shared library.
///
/// The same bytes give the same bytes, and what comes out is refused as [`StripRefused::NotSmaller`].
///
/// # Errors
///
/// Wherever the file is not laid out as linkers do it. The file works as it is then, and should be left so.
pub fn strip(data: &[u8]) -> Result<Stripped, StripRefused> {
    let image = match headers::class(data)? {
        Class::Elf32 => Image::read::<FileHeader32<LittleEndian>>(data, Class::Elf32)?,
        Class::Elf64 => Image::read::<FileHeader64<LittleEndian>>(data, Class::Elf64)?,
    };
    let removed = choice::removed(&image)?;
    if !removed.contains(&true) {
        return Err(StripRefused::NotSmaller);
    }
    let bytes = write::write(&image, &removed);
    if bytes.len() >= data.len() {
        return Err(StripRefused::NotSmaller);
    }
    let names = image.sections.iter().zip(&removed).filter(|(_, removed)| **removed);
    Ok(Stripped { bytes, removed: names.map(|(section, _)| section.to_string()).collect() })
}
