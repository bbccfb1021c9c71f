//! The new file: all that is loaded as it was, and then what stays of the rest.

use std::mem::offset_of;

use object::LittleEndian;
use object::elf::{FileHeader32, FileHeader64};

use super::image::{Image, Named};
use crate::headers::{Class, Section};

/// Writes the file without some of its sections.
pub(super) fn write(image: &Image<'_>, removed: &[bool]) -> Vec<u8> {
    let (names, name_offsets) = names(image, removed);
    let loaded_end = usize::try_from(image.loaded_end).unwrap_or(usize::MAX);
    let mut out = image.data[..loaded_end].to_vec();
    let offsets = contents(image, removed, &names, &mut out);
    let numbers = numbers(removed);
    let new_number = |old: u32| usize::try_from(old).ok().and_then(|old| numbers.get(old)).copied();
    let word = match image.class {
        Class::Elf32 => 4,
        Class::Elf64 => 8,
    };
    align(&mut out, word);
    let table = out.len();
    for (number, named) in image.sections.iter().enumerate().filter(|(number, _)| !removed[*number]) {
        let mut section = named.section;
        section.name = name_offsets[number];
        section.offset = offsets[number].map_or(section.offset, to_u64);
        section.link = new_number(section.link).unwrap_or(section.link);
        if named.info_is_section() {
            section.info = new_number(section.info).unwrap_or(section.info);
        }
        if number == image.names {
            section.size = to_u64(names.len());
        }
        push_header(&section, word, &mut out);
    }
    let count = removed.iter().filter(|removed| !**removed).count();
    patch_file_header(
        &mut out,
        image.class,
        word,
        [to_u64(table), to_u64(count), numbers[image.names].into()],
    );
    out
}

/// A table of the names that are left, and where each section's name is in it.
fn names(image: &Image<'_>, removed: &[bool]) -> (Vec<u8>, Vec<u32>) {
    let mut table = vec![0];
    let offset = |(section, removed): (&Named<'_>, &bool)| {
        if *removed || section.name.is_empty() {
            return 0;
        }
        let at = table.len();
        table.extend_from_slice(section.name);
        table.push(0);
        u32::try_from(at).unwrap_or(u32::MAX)
    };
    let offsets = image.sections.iter().zip(removed).map(offset).collect();
    (table, offsets)
}

/// Appends what is left of the sections that are not loaded, in the file's order. Returns the new offset of
/// each that has one.
fn contents(image: &Image<'_>, removed: &[bool], names: &[u8], out: &mut Vec<u8>) -> Vec<Option<usize>> {
    let mut offsets = vec![None; image.sections.len()];
    let is_moved = |number: &usize| {
        let section = &image.sections[*number];
        !removed[*number] && !section.is_loaded() && section.section.offset >= image.loaded_end
    };
    let mut moved: Vec<usize> = (0..image.sections.len()).filter(is_moved).collect();
    moved.sort_by_key(|number| image.sections[*number].section.offset);
    for number in moved {
        let section = &image.sections[number];
        let content = if number == image.names { names } else { image.content(section) };
        if !content.is_empty() {
            align(out, usize::try_from(section.section.alignment).unwrap_or(1));
        }
        offsets[number] = Some(out.len());
        out.extend_from_slice(content);
    }
    offsets
}

/// The new number of each section that stays.
fn numbers(removed: &[bool]) -> Vec<u32> {
    let mut next = 0;
    let number = |removed: &bool| {
        let own = next;
        next += u32::from(!*removed);
        own
    };
    removed.iter().map(number).collect()
}

fn align(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment.max(1)), 0);
}

/// Both classes have the same fields in the same order; only the words have another size.
fn push_header(section: &Section, word: usize, out: &mut Vec<u8>) {
    let fields = [
        (section.name.into(), 4),
        (section.kind.0.into(), 4),
        (section.flags, word),
        (section.address, word),
        (section.offset, word),
        (section.size, word),
        (section.link.into(), 4),
        (section.info.into(), 4),
        (section.alignment, word),
        (section.entry_size, word),
    ];
    for (value, width) in fields {
        out.extend_from_slice(&u64::to_le_bytes(value)[..width]);
    }
}

/// Says in the file header where the section headers are, how many, and which one has the names.
fn patch_file_header(out: &mut [u8], class: Class, word: usize, values: [u64; 3]) {
    type Header32 = FileHeader32<LittleEndian>;
    type Header64 = FileHeader64<LittleEndian>;
    let offsets = match class {
        Class::Elf32 => {
            [offset_of!(Header32, e_shoff), offset_of!(Header32, e_shnum), offset_of!(Header32, e_shstrndx)]
        }
        Class::Elf64 => {
            [offset_of!(Header64, e_shoff), offset_of!(Header64, e_shnum), offset_of!(Header64, e_shstrndx)]
        }
    };
    for ((at, value), width) in offsets.into_iter().zip(values).zip([word, 2, 2]) {
        out[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
