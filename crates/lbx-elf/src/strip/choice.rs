//! Which sections go, and whether those that stay can do without them.

use object::elf;

use super::image::{Image, Named};
use crate::error::StripRefused;

/// Sections that only a debugger, a linker or a curious person reads, by the start of their names.
const NEEDLESS: [&[u8]; 9] = [
    b".debug_",
    b".zdebug_",
    b".stab",
    b".gnu.debuglto_",
    b".gnu.build.attributes",
    b".gnu.linkonce.wi.",
    b".comment",
    b".gdb_index",
    b".note.gnu.gold-version",
];
/// The same, by their whole names.
const NEEDLESS_NAMES: [&[u8]; 2] = [b".debug", b".line"];

/// For each section, whether it goes.
pub(super) fn removed(image: &Image<'_>) -> Result<Vec<bool>, StripRefused> {
    let mut removed: Vec<bool> = image.sections.iter().map(is_needless).collect();
    mark_strings_of_symbols(image, &mut removed);
    mark_relocations_of_removed(image, &mut removed);
    // Whatever their names are.
    removed[0] = false;
    removed[image.names] = false;
    check_links(image, &removed)?;
    check_numbers(image, &removed)?;
    Ok(removed)
}

fn is_needless(section: &Named<'_>) -> bool {
    if section.is_loaded() {
        return false;
    }
    let by_name = NEEDLESS.iter().any(|start| section.name.starts_with(start))
        || NEEDLESS_NAMES.contains(&section.name);
    by_name || matches!(section.section.kind, elf::SHT_SYMTAB | elf::SHT_SYMTAB_SHNDX)
}

/// The names of symbols go with the symbols. If somebody else needs them, that is found later.
fn mark_strings_of_symbols(image: &Image<'_>, removed: &mut [bool]) {
    for symbols in image.sections.iter().filter(|section| section.section.kind == elf::SHT_SYMTAB) {
        let number = usize::try_from(symbols.section.link).unwrap_or(usize::MAX);
        let strings = image.sections.get(number);
        if strings.is_some_and(|strings| !strings.is_loaded() && strings.section.kind == elf::SHT_STRTAB) {
            removed[number] = true;
        }
    }
}

/// What would be done to debug data when linking again goes with that data.
fn mark_relocations_of_removed(image: &Image<'_>, removed: &mut [bool]) {
    for (number, section) in image.sections.iter().enumerate() {
        let relocates = matches!(section.section.kind, elf::SHT_REL | elf::SHT_RELA);
        let target = usize::try_from(section.section.info).unwrap_or(usize::MAX);
        if relocates && !section.is_loaded() && removed.get(target) == Some(&true) {
            removed[number] = true;
        }
    }
}

/// Whether every section that stays refers to such as stay.
fn check_links(image: &Image<'_>, removed: &[bool]) -> Result<(), StripRefused> {
    for (section, _) in image.sections.iter().zip(removed).filter(|(_, removed)| !**removed) {
        let info = section.info_is_section().then_some(section.section.info);
        for number in [Some(section.section.link), info].into_iter().flatten() {
            let at = usize::try_from(number).unwrap_or(usize::MAX);
            let Some(target) = image.sections.get(at) else {
                return Err(StripRefused::Link { name: section.to_string(), number });
            };
            // The section with the names is written anew: who takes other strings from it would lose them.
            if removed[at] || at == image.names {
                return Err(StripRefused::Needed { name: section.to_string(), removed: target.to_string() });
            }
        }
    }
    Ok(())
}

/// Dynamic symbols name sections by number, and are loaded: their sections must keep their numbers.
fn check_numbers(image: &Image<'_>, removed: &[bool]) -> Result<(), StripRefused> {
    let after_removed = image.sections.iter().zip(removed).skip_while(|(_, removed)| !**removed);
    match after_removed.map(|(section, _)| section).find(|section| section.is_loaded()) {
        Some(section) => Err(StripRefused::Renumbered { name: section.to_string() }),
        None => Ok(()),
    }
}
