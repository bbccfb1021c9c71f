//! Layouts that are not the usual one: each is refused by its name, and the file left as it is.

use std::sync::LazyLock;

use lbx_elf::{Kind, StripRefused, strip};

use crate::raw::{get, library, put, put_word, section};
use crate::tools::{LIBRARY, Workshop, have, output};

/// A library that can be stripped, 64-bit. `None` if there is no compiler.
pub(crate) fn sample() -> Option<Vec<u8>> {
    static SAMPLE: LazyLock<Option<Vec<u8>>> = LazyLock::new(compile_sample);
    SAMPLE.clone()
}

fn compile_sample() -> Option<Vec<u8>> {
    if !have(&["cc"]) {
        return None;
    }
    let shop = Workshop::new();
    shop.write("library.c", LIBRARY);
    let path = shop.compile("cc", "library.c", "library.so", &["-shared", "-fPIC", "-g1", "-lm"]);
    let bytes = fs_err::read(path).unwrap();
    assert!(strip(&bytes).is_ok());
    Some(bytes)
}

/// Changes the sample, and returns why it is refused then.
fn refusal(sample: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> StripRefused {
    let mut bytes = sample.to_vec();
    change(&mut bytes);
    strip(&bytes).expect_err("it was stripped")
}

#[test]
fn an_appended_payload_is_not_lost() {
    let Some(sample) = sample() else { return };
    let offset = u64::try_from(sample.len()).unwrap();
    for payload in [&b"PK\x03\x04 an archive"[..], b"\0", &[0; 8192]] {
        let refused = refusal(&sample, |bytes| bytes.extend_from_slice(payload));
        let size = u64::try_from(payload.len()).unwrap();
        assert_eq!(refused, StripRefused::Unclaimed { offset, size });
    }
}

#[test]
fn bytes_between_sections_are_not_lost() {
    let Some(sample) = sample() else { return };
    // The section headers are last: what is put before them is in no section.
    for (gap, stripped) in [(vec![0; 64], true), (vec![0; 8192], false), (b"payload".to_vec(), false)] {
        let mut bytes = sample.clone();
        let table = get(&bytes, 40, 8);
        let size = gap.len();
        bytes.splice(table..table, gap);
        put_word(&mut bytes, 40, u64::try_from(table + size).unwrap());
        let result = strip(&bytes);
        let unclaimed = matches!(result, Err(StripRefused::Unclaimed { .. }));
        assert_eq!((result.is_ok(), unclaimed), (stripped, !stripped), "{size}");
    }
}

#[test]
fn only_programs_and_libraries_are_stripped() {
    let Some(sample) = sample() else { return };
    let kinds = [(1, Kind::Relocatable), (4, Kind::Core), (0xfe00, Kind::Other(0xfe00))];
    for (number, found) in kinds {
        let refused = refusal(&sample, |bytes| put(bytes, 16, &u16::to_le_bytes(number)));
        assert_eq!(refused, StripRefused::Kind { found });
    }
    assert!(matches!(strip(b"#!/bin/sh\n"), Err(StripRefused::Elf(_))));
}

#[test]
fn files_without_headers_are_refused() {
    let Some(sample) = sample() else { return };
    assert_eq!(refusal(&sample, |bytes| put_word(bytes, 40, 0)), StripRefused::NoSections);
    assert_eq!(refusal(&sample, |bytes| put(bytes, 56, &[0; 2])), StripRefused::NoSegments);
    assert_eq!(strip(&library(&[], b"")), Err(StripRefused::NoSections));
}

#[test]
fn counts_beyond_the_file_header_are_refused() {
    let Some(sample) = sample() else { return };
    assert_eq!(refusal(&sample, |bytes| put(bytes, 60, &[0; 2])), StripRefused::ExtendedNumbering);
    assert_eq!(refusal(&sample, |bytes| put(bytes, 62, &[0xff; 2])), StripRefused::ExtendedNumbering);
    assert_eq!(refusal(&sample, |bytes| put(bytes, 56, &[0xff; 2])), StripRefused::ExtendedNumbering);
    assert_eq!(refusal(&sample, |bytes| put(bytes, 62, &[0; 2])), StripRefused::Names { number: 0 });
    assert!(matches!(refusal(&sample, |bytes| put(bytes, 60, &[0, 8])), StripRefused::Elf(_)));
    let many = refusal(&sample, |bytes| put(bytes, 56, &[1, 1]));
    assert_eq!(many, StripRefused::TooManySegments { found: 257, limit: 256 });
}

#[test]
fn what_goes_beyond_the_file_is_refused() {
    let Some(sample) = sample() else { return };
    let far = u64::try_from(sample.len()).unwrap();
    let segment = get(&sample, 32, 8);
    for value in [far + 1, u64::MAX] {
        let refused = refusal(&sample, |bytes| put_word(bytes, segment + 32, value));
        assert_eq!(refused, StripRefused::SegmentOutside { number: 0 });
        for (name, field) in [(".comment", 24), (".comment", 32), (".text", 32)] {
            let (_, header) = section(&sample, name);
            let refused = refusal(&sample, |bytes| put_word(bytes, header + field, value));
            assert_eq!(refused, StripRefused::SectionOutside { name: name.into() });
        }
    }
}

#[test]
fn sections_must_be_where_segments_say() {
    let Some(sample) = sample() else { return };
    let (_, text) = section(&sample, ".text");
    let (_, comment) = section(&sample, ".comment");
    let refused = refusal(&sample, |bytes| put_word(bytes, text + 16, 0x10_0000));
    assert_eq!(refused, StripRefused::NotLoaded { name: ".text".into() });
    // One that says that it is loaded, after all that is.
    let refused = refusal(&sample, |bytes| put_word(bytes, comment + 8, 2));
    assert_eq!(refused, StripRefused::NotLoaded { name: ".comment".into() });
    let at = u64::try_from(get(&sample, text + 24, 8)).unwrap();
    let refused = refusal(&sample, |bytes| put_word(bytes, comment + 24, at));
    assert_eq!(refused, StripRefused::Inside { name: ".comment".into() });
}

#[test]
fn overlaps_are_refused() {
    let Some(sample) = sample() else { return };
    let (_, comment) = section(&sample, ".comment");
    let (_, symbols) = section(&sample, ".symtab");
    let at = u64::try_from(get(&sample, symbols + 24, 8)).unwrap();
    let refused = refusal(&sample, |bytes| put_word(bytes, comment + 24, at + 8));
    assert!(matches!(refused, StripRefused::Overlap { .. } | StripRefused::Unclaimed { .. }), "{refused}");
    let size = u64::try_from(get(&sample, comment + 32, 8)).unwrap();
    let refused = refusal(&sample, |bytes| put_word(bytes, comment + 32, size + 1));
    assert!(matches!(refused, StripRefused::Overlap { .. }), "{refused}");
    let (_, symbols) = section(&sample, ".dynsym");
    let size = u64::try_from(get(&sample, symbols + 32, 8)).unwrap();
    let refused = refusal(&sample, |bytes| put_word(bytes, symbols + 32, size + 1));
    assert_eq!(refused, StripRefused::Overlap { first: ".dynsym".into(), second: ".dynstr".into() });
}

#[test]
fn section_headers_among_what_is_loaded_are_refused() {
    let Some(sample) = sample() else { return };
    let table = get(&sample, 40, 8);
    let count = get(&sample, 60, 2);
    let (_, text) = section(&sample, ".text");
    let place = get(&sample, text + 24, 8);
    let refused = refusal(&sample, |bytes| {
        let headers = bytes[table..table + 64 * count].to_vec();
        put(bytes, place, &headers);
        put_word(bytes, 40, u64::try_from(place).unwrap());
    });
    assert_eq!(refused, StripRefused::HeadersInside);
}

#[test]
fn types_flags_and_alignments_that_are_not_understood_are_refused() {
    let Some(sample) = sample() else { return };
    let (_, comment) = section(&sample, ".comment");
    let group = refusal(&sample, |bytes| put(bytes, comment + 4, &[17]));
    assert_eq!(group, StripRefused::SectionType { name: ".comment".into(), kind: 17 });
    let info = refusal(&sample, |bytes| put(bytes, comment + 44, &[1]));
    assert_eq!(info, StripRefused::SectionType { name: ".comment".into(), kind: 1 });
    for flag in [0x100, 0x200, 0x1_0000, 0x1000_0000] {
        let refused = refusal(&sample, |bytes| put_word(bytes, comment + 8, flag));
        assert_eq!(refused, StripRefused::Flags { name: ".comment".into(), flags: flag });
    }
    let (_, text) = section(&sample, ".text");
    for flag in [0x2 | 0x200, 0x2 | 0x800] {
        let refused = refusal(&sample, |bytes| put_word(bytes, text + 8, flag));
        assert_eq!(refused, StripRefused::Flags { name: ".text".into(), flags: flag });
    }
    for alignment in [3, 8192, 1 << 63, u64::MAX] {
        let refused = refusal(&sample, |bytes| put_word(bytes, comment + 48, alignment));
        assert!(matches!(refused, StripRefused::Alignment { .. }), "{refused}");
    }
}

#[test]
fn what_is_needed_by_what_stays_is_not_removed() {
    let Some(sample) = sample() else { return };
    let (symbols, _) = section(&sample, ".symtab");
    let (names, _) = section(&sample, ".shstrtab");
    let (_, text) = section(&sample, ".text");
    let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    let refused = refusal(&sample, |bytes| put(bytes, text + 40, &number(symbols)));
    assert_eq!(refused, StripRefused::Needed { name: ".text".into(), removed: ".symtab".into() });
    let refused = refusal(&sample, |bytes| put(bytes, text + 40, &number(names)));
    assert_eq!(refused, StripRefused::Needed { name: ".text".into(), removed: ".shstrtab".into() });
    let refused = refusal(&sample, |bytes| put(bytes, text + 40, &number(999)));
    assert_eq!(refused, StripRefused::Link { name: ".text".into(), number: 999 });
}

#[test]
fn relocations_for_another_link_are_not_lost() {
    if !have(&["cc"]) {
        return;
    }
    let shop = Workshop::new();
    shop.write("library.c", LIBRARY);
    let flags = ["-shared", "-fPIC", "-g", "-lm", "-Wl,--emit-relocs"];
    let path = shop.compile("cc", "library.c", "library.so", &flags);
    let refused = strip(&fs_err::read(path).unwrap()).unwrap_err();
    assert!(matches!(&refused, StripRefused::Needed { removed, .. } if removed == ".symtab"), "{refused}");
}

#[test]
fn loaded_sections_keep_their_numbers() {
    let Some(sample) = sample() else { return };
    // The header of .comment changes places with that of .bss, which is the last that is loaded.
    let (_, comment) = section(&sample, ".comment");
    let (_, bss) = section(&sample, ".bss");
    assert_eq!(bss + 64, comment);
    let refused = refusal(&sample, |bytes| bytes[bss..comment + 64].rotate_left(64));
    assert_eq!(refused, StripRefused::Renumbered { name: ".bss".into() });
}

#[test]
fn the_names_of_sections_must_be_readable_and_their_own() {
    let Some(sample) = sample() else { return };
    let (number, names) = section(&sample, ".shstrtab");
    let number = u16::try_from(number).unwrap();
    for (field, value) in [(4, 1), (8, 2), (8, 0x800)] {
        let refused = refusal(&sample, |bytes| put(bytes, names + field, &u32::to_le_bytes(value)));
        let refused_for_names =
            matches!(refused, StripRefused::Names { .. } | StripRefused::NotLoaded { .. });
        assert!(refused_for_names, "{refused}");
    }
    let refused = refusal(&sample, |bytes| put_word(bytes, names + 24, u64::MAX));
    assert_eq!(refused, StripRefused::Names { number });
    let (text_number, text) = section(&sample, ".text");
    let refused = refusal(&sample, |bytes| put(bytes, text, &[0xff; 4]));
    assert_eq!(refused, StripRefused::Name { number: text_number, limit: 256 });
    let table = get(&sample, 40, 8);
    assert_eq!(refusal(&sample, |bytes| put(bytes, table + 4, &[1])), StripRefused::FirstSection);
}

/// The name of the first section is that of nothing, but a table may begin with any.
#[test]
fn the_first_section_stays_whatever_its_name() {
    let Some(sample) = sample() else { return };
    let (_, comment) = section(&sample, ".comment");
    let table = get(&sample, 40, 8);
    let mut bytes = sample.clone();
    let name = sample[comment..comment + 4].to_vec();
    put(&mut bytes, table, &name);
    let stripped = strip(&bytes).unwrap();
    assert_eq!(stripped.removed.iter().filter(|name| *name == ".comment").count(), 1);
    let table = get(&stripped.bytes, 40, 8);
    assert_eq!(stripped.bytes[table + 4..table + 64], [0; 60]);
}

#[test]
fn nothing_to_remove_is_said() {
    let Some(sample) = sample() else { return };
    let stripped = strip(&sample).unwrap();
    assert_eq!(strip(&stripped.bytes), Err(StripRefused::NotSmaller));
}

/// patchelf puts what has grown after everything else, debug data included, and loads it from there.
#[test]
fn a_library_that_was_patched_is_refused_or_still_works() {
    if !have(&["cc", "patchelf", "python3"]) {
        return;
    }
    let shop = Workshop::new();
    shop.write("library.c", LIBRARY);
    let path = shop.compile("cc", "library.c", "library.so", &["-shared", "-fPIC", "-g", "-lm"]);
    let path = path.to_str().unwrap();
    let long = format!("$ORIGIN/{}", "long/".repeat(300));
    for change in
        [&["--set-rpath", &long][..], &["--set-soname", "other.so"], &["--add-needed", "libdl.so.2"]]
    {
        output("patchelf", &[change, &[path]].concat());
        match strip(&fs_err::read(path).unwrap()) {
            Ok(stripped) => {
                let new = shop.write("stripped.so", stripped.bytes);
                let code = "import ctypes, sys; assert ctypes.CDLL(sys.argv[1]).seven() == 7";
                output("python3", &["-I", "-c", code, new.to_str().unwrap()]);
            }
            Err(refused) => assert!(
                matches!(refused, StripRefused::HeadersInside | StripRefused::Inside { .. }),
                "{change:?}: {refused}"
            ),
        }
    }
}
