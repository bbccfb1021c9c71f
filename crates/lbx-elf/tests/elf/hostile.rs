//! Strangers' bytes: never a panic, never memory or time without bound, and never a change to what is loaded.

use std::process::Command;
use std::sync::LazyLock;

use lbx_elf::{Elf, ElfError, strip};
use proptest::prelude::*;

use crate::raw::{BODY, get, library, put, put_word};
use crate::refusing::sample;
use crate::tools::{Workshop, environment, have};

/// What a program header covers, as (offset, end), read apart from the crate.
fn covered(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (table, count) = (get(bytes, 32, 8), get(bytes, 56, 2));
    let range = |number: usize| {
        let at = table + 56 * number;
        let (offset, size) = (get(bytes, at + 8, 8), get(bytes, at + 32, 8));
        (offset, offset + size)
    };
    let segments = (0..count).map(range).filter(|(offset, end)| end > offset);
    segments.chain([(0, 64), (table, table + 56 * count)]).collect()
}

/// Holds against a file, whatever it is, what must be true of every one.
fn check(bytes: &[u8]) {
    let parsed = Elf::parse(bytes);
    let Ok(stripped) = strip(bytes) else { return };
    assert!(stripped.bytes.len() < bytes.len() && !stripped.removed.is_empty());
    if bytes[4] == 2 {
        let (mut old, mut new) = (bytes.to_vec(), stripped.bytes.clone());
        // Where the section headers are, how many, and which has the names.
        for (at, size) in [(40, 8), (60, 4)] {
            old[at..at + size].fill(0);
            new[at..at + size].fill(0);
        }
        for (start, end) in covered(bytes) {
            assert!(old[start..end] == new[start..end], "{start}..{end} was changed");
        }
    }
    assert_eq!(strip(&stripped.bytes), Err(lbx_elf::StripRefused::NotSmaller));
    // Without section headers to look at, it is the same to the loader. With them, a number of symbols may
    // come from a section that was removed.
    if let (Ok(before), Ok(after)) = (parsed, Elf::parse(&stripped.bytes)) {
        assert_eq!((before.needs, before.needed, before.soname), (after.needs, after.needed, after.soname));
    }
}

/// Small libraries and a program, of both classes where the compiler has both.
fn seeds() -> Vec<Vec<u8>> {
    if !have(&["cc"]) {
        return Vec::new();
    }
    let shop = Workshop::new();
    shop.write("versions", "OLD_1.0 { global: one; };\nNEW_1.2 { global: two; } OLD_1.0;\n");
    shop.write("below.c", "int one(void) { return 1; }\nint two(void) { return 2; }\n");
    shop.write("above.c", "int one(void); int two(void);\nint both(void) { return one() + two(); }\n");
    let mut seeds = Vec::new();
    for word in ["-m64", "-m32"] {
        let shared = [word, "-shared", "-fPIC", "-nostdlib", "-g1", "-Wl,-z,noseparate-code"];
        let below = [&shared[..], &["-Wl,--version-script=versions", "-Wl,-soname,b.so"]].concat();
        let Ok(below) = shop.try_compile("cc", "below.c", "libbelow.so", &below) else { continue };
        let both = [&shared[..], &["-L.", "-lbelow", "-Wl,--hash-style=both", "-Wl,-rpath,/x"]].concat();
        let above = shop.compile("cc", "above.c", "libabove.so", &both);
        seeds.extend([below, above].map(|path| fs_err::read(path).unwrap()));
    }
    seeds
}

#[test]
fn the_seeds_are_read_and_stripped() {
    for seed in SEEDS.iter() {
        assert!(Elf::parse(seed).is_ok() && strip(seed).is_ok());
        check(seed);
    }
}

/// Every byte of headers, tables of the loader, and section headers, with the changes that matter most.
#[test]
fn no_single_byte_makes_it_panic_or_change_what_is_loaded() {
    for seed in SEEDS.iter() {
        let end = seed.len() - 0x800;
        for at in (0..seed.len()).filter(|at| *at < 0x600 || *at > end) {
            for value in [0x00, 0x01, 0x80, 0xff] {
                let mut bytes = seed.clone();
                bytes[at] = value;
                check(&bytes);
            }
        }
    }
}

#[test]
fn no_length_makes_it_panic() {
    for seed in SEEDS.iter() {
        for length in (0..0x600).chain((0x600..seed.len()).step_by(7)) {
            check(&seed[..length]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// One compilation a case would be slow: each case makes many changes to the same seeds.
    #[test]
    fn several_changes_neither_panic_nor_change_what_is_loaded(
        changes in prop::collection::vec(
            prop::collection::vec((any::<prop::sample::Index>(), interesting()), 1..5),
            64,
        ),
    ) {
        for seed in SEEDS.iter() {
            for changes in &changes {
                let mut bytes = seed.clone();
                for (at, value) in changes {
                    let at = at.index(bytes.len());
                    let end = (at + value.len()).min(bytes.len());
                    bytes[at..end].copy_from_slice(&value[..end - at]);
                }
                check(&bytes);
            }
        }
    }

    /// The same where it matters most: in the file header, the other headers and the dynamic section.
    #[test]
    fn several_changed_headers_neither_panic_nor_change_what_is_loaded(
        changes in prop::collection::vec(
            prop::collection::vec((any::<prop::sample::Index>(), interesting()), 1..4),
            64,
        ),
    ) {
        for seed in SEEDS.iter() {
            let fields = header_fields(seed);
            for changes in &changes {
                let mut bytes = seed.clone();
                for (at, value) in changes {
                    let at = *at.get(&fields);
                    let end = (at + value.len()).min(bytes.len());
                    bytes[at..end].copy_from_slice(&value[..end - at]);
                }
                check(&bytes);
            }
        }
    }

    #[test]
    fn bytes_after_a_magic_number_do_not_make_it_panic(
        class in 1u8..3,
        rest in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut bytes = b"\x7fELF".to_vec();
        bytes.extend([class, 1, 1]);
        bytes.extend(rest);
        check(&bytes);
    }
}

static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(seeds);

/// Bytes that are a small number, a large one, one of a width's greatest, or anything.
fn interesting() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        (0u64..0x4000).prop_map(|number| number.to_le_bytes().to_vec()),
        (0u32..0x4000).prop_map(|number| number.to_le_bytes().to_vec()),
        (0u64..64).prop_map(|back| (u64::MAX - back).to_le_bytes().to_vec()),
        (0u32..64).prop_map(|back| (u32::MAX - back).to_le_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..9),
    ]
}

/// Where the fields of headers are: every fourth byte of the file header, and of both tables.
fn header_fields(seed: &[u8]) -> Vec<usize> {
    let wide = seed[4] == 2;
    let (table, entry, counts) = if wide { (get(seed, 40, 8), 64, 60) } else { (get(seed, 32, 4), 40, 48) };
    let sections = table..table + entry * get(seed, counts, 2);
    (16..0x400).step_by(4).chain(sections.step_by(4)).collect()
}

/// The numbers in the dynamic section, as in elf.h.
mod tag {
    pub(super) const NEEDED: u64 = 1;
    pub(super) const HASH: u64 = 4;
    pub(super) const STRTAB: u64 = 5;
    pub(super) const SYMTAB: u64 = 6;
    pub(super) const GNU_HASH: u64 = 0x6fff_fef5;
    pub(super) const VERSYM: u64 = 0x6fff_fff0;
    pub(super) const VERDEF: u64 = 0x6fff_fffc;
    pub(super) const VERNEED: u64 = 0x6fff_fffe;
}

/// A symbol table in which every one of many symbols has the same name, of a megabyte.
fn symbols_with_one_long_name() -> Vec<u8> {
    let count: u32 = 40_000;
    let mut body = Vec::new();
    body.extend([1, count].map(u32::to_le_bytes).concat());
    body.resize(8 + 4 + 4 * usize::try_from(count).unwrap(), 0);
    body.resize(body.len().next_multiple_of(8), 0);
    let symbols = BODY + u64::try_from(body.len()).unwrap();
    for _ in 0..count {
        body.extend([0, 0, 0, 0, 0x10]);
        body.resize(body.len() + 19, 0);
    }
    let strings = BODY + u64::try_from(body.len()).unwrap();
    body.extend(vec![b'x'; 1 << 20]);
    body.push(0);
    library(&[(tag::HASH, BODY), (tag::SYMTAB, symbols), (tag::STRTAB, strings)], &body)
}

/// Versions that overlap: every four bytes, a record begins that leads to the next, and to a list of the rest.
fn versions_that_overlap(tag: u64) -> Vec<u8> {
    let body = 4u32.to_le_bytes().repeat(1 << 18);
    library(&[(tag, BODY), (tag::STRTAB, BODY), (tag::VERSYM, BODY)], &body)
}

fn refused(dynamic: &[(u64, u64)], body: &[u8]) -> ElfError {
    Elf::parse(&library(dynamic, body)).expect_err("it was read")
}

#[test]
fn counts_that_the_file_cannot_hold_are_refused() {
    let strings = (tag::STRTAB, BODY);
    let far = [(tag::SYMTAB, BODY), strings];
    let huge_hash = [u32::to_le_bytes(1), u32::to_le_bytes(u32::MAX)].concat();
    for body in [&huge_hash[..], &[0xff; 8], &[0xff; 7], b""] {
        let error = refused(&[&far[..], &[(tag::HASH, BODY)]].concat(), body);
        assert!(matches!(error, ElfError::Truncated { .. } | ElfError::Address { .. }), "{error}");
    }
    let huge_gnu_hash = [1, 1, u32::MAX, 0].map(u32::to_le_bytes).concat();
    let error = refused(&[&far[..], &[(tag::GNU_HASH, BODY)]].concat(), &huge_gnu_hash);
    assert_eq!(error, ElfError::Truncated { what: "GNU hash table" });
    // The table says that its first symbol is number four thousand million.
    let first = [1, u32::MAX, 0, 0, 0].map(u32::to_le_bytes).concat();
    let error = refused(&[&far[..], &[(tag::GNU_HASH, BODY)]].concat(), &first);
    assert_eq!(error, ElfError::Truncated { what: "dynamic symbol table" });
    // More program headers than the file header can count: their number is in the first section header.
    for (table, body) in [(0, &[0; 64]), (BODY, &[0xff; 64])] {
        let mut file = library(&[], body);
        put(&mut file, 56, &[0xff; 2]);
        put_word(&mut file, 40, table);
        assert!(matches!(Elf::parse(&file), Err(ElfError::Header { what: "program headers", .. })));
    }
}

#[test]
fn addresses_outside_of_the_file_are_refused() {
    for address in [BODY - 0x1000 + 0x10_0000, u64::MAX, u64::MAX - 8] {
        let error = refused(&[(tag::VERNEED, address)], b"");
        assert_eq!(error, ElfError::Address { what: "table of needed versions", address });
    }
    let error = refused(&[(tag::STRTAB, BODY), (tag::NEEDED, u64::MAX)], b"x");
    assert_eq!(error, ElfError::Text { what: "needed library", offset: u64::MAX });
    let error = refused(&[(tag::STRTAB, BODY), (tag::NEEDED, 0)], b"without an end");
    assert_eq!(error, ElfError::Text { what: "needed library", offset: 0 });
    assert_eq!(refused(&[(tag::NEEDED, 0)], b"x"), ElfError::NoStrings { what: "needed library" });
}

/// As the loader has it, which maps one after the other.
#[test]
fn of_two_segments_at_one_address_the_later_counts() {
    let mut body = vec![0; 0x2000];
    put(&mut body, 0, b"first");
    put(&mut body, 0x1000, b"second");
    let mut file = library(&[(tag::STRTAB, BODY), (tag::NEEDED, 0)], &body);
    let needed = |file: &[u8]| Elf::parse(file).unwrap().needed;
    assert_eq!(needed(&file), ["first"]);
    put(&mut file, 56, &[3]);
    put(&mut file, 64 + 2 * 56, &[1]);
    for (field, value) in [(8, BODY + 0x1000), (16, BODY), (32, 0x1000)] {
        put_word(&mut file, 64 + 2 * 56 + field, value);
    }
    assert_eq!(needed(&file), ["second"]);
}

#[test]
fn names_that_are_together_far_longer_than_the_file_are_refused() {
    assert_eq!(Elf::parse(&symbols_with_one_long_name()), Err(ElfError::TooMuchText));
    // The same string as the needed library, a hundred times.
    let needed: Vec<(u64, u64)> = (0..100).map(|_| (tag::NEEDED, 0)).chain([(tag::STRTAB, BODY)]).collect();
    let mut body = vec![b'x'; 1 << 16];
    body.push(0);
    assert_eq!(Elf::parse(&library(&needed, &body)), Err(ElfError::TooMuchText));
    assert_eq!(Elf::parse(&library(&needed, b"short\0")).unwrap().needed.len(), 100);
}

#[test]
fn versions_that_go_in_circles_are_refused() {
    for tag in [tag::VERNEED, tag::VERDEF] {
        assert_eq!(Elf::parse(&versions_that_overlap(tag)), Err(ElfError::TooManyVersions));
    }
}

/// The worst files, read again with little memory: an allocation that follows their counts would end the
/// program.
#[test]
fn the_worst_files_need_little_memory() {
    let shop = Workshop::new();
    let mut files = vec![
        symbols_with_one_long_name(),
        versions_that_overlap(tag::VERNEED),
        versions_that_overlap(tag::VERDEF),
    ];
    if let Some(sample) = sample() {
        // Section and program headers without number, and a section of all there is.
        for (at, bytes) in [(56, &[0xff; 2][..]), (60, &[0xff; 2]), (60, &[0; 2]), (40, &[0xff; 8])] {
            let mut file = sample.clone();
            put(&mut file, at, bytes);
            files.push(file);
        }
    }
    let program = std::env::current_exe().unwrap();
    for (number, file) in files.into_iter().enumerate() {
        let path = shop.write(&number.to_string(), file);
        let output = Command::new("sh")
            .args(["-c", "ulimit -v 400000 && exec \"$@\"", "sh", program.to_str().unwrap()])
            .args(["--exact", "hostile::one_file_is_read_by_itself", "--ignored"])
            .env(FILE, path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{number}: {text}{complaints}");
    }
}

/// Names the file for the test below.
const FILE: &str = "LBX_TEST_ELF_FILE";

#[test]
#[ignore = "another test runs it, with little memory"]
fn one_file_is_read_by_itself() {
    let Some(path) = environment(FILE) else { return };
    let bytes = fs_err::read(path).unwrap();
    let _ = Elf::parse(&bytes);
    let _ = strip(&bytes);
}
