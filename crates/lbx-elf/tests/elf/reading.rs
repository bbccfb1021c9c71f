//! What is read of real files, against what readelf reads of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lbx_elf::{Class, Elf, ElfError, Kind, Machine, VersionName, is_elf};

use crate::raw::{put, put_word};
use crate::tools::{LIBRARY, LIBRARY_CPP, PROGRAM, Workshop, have, output, readelf, skip};

fn parse(path: &Path) -> Elf {
    Elf::parse(&fs_err::read(path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn library(shop: &Workshop, flags: &[&str]) -> PathBuf {
    shop.write("library.c", LIBRARY);
    let flags: Vec<&str> =
        ["-shared", "-fPIC", "-g", "-Wl,--no-as-needed"].iter().chain(flags).copied().collect();
    shop.compile("cc", "library.c", "library.so", &flags)
}

/// The libraries of this machine that have the most in them, and some programs.
fn systems_own() -> Vec<PathBuf> {
    let libraries = ["libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libpthread.so.0"];
    let found = libraries.map(|name| output("cc", &[&format!("-print-file-name={name}")]));
    let found = found.iter().map(|path| PathBuf::from(path.trim()));
    found.chain(["/bin/sh".into(), "/usr/bin/env".into()]).filter(|path| path.is_file()).collect()
}

/// What readelf prints of needed versions: library, version and whether it is weak.
fn needs_by_readelf(text: &str) -> Vec<(String, String, bool)> {
    let mut needs = Vec::new();
    let mut library = String::new();
    for line in text.lines() {
        let word = |label: &str| {
            line.split_once(label)
                .map(|(_, rest)| rest.trim_start().split([' ', '\t']).next().unwrap().to_owned())
        };
        if let Some(file) = word("File:") {
            library = file;
        } else if line.contains("Flags:") && line.contains("Version:") && !line.contains("Rev:") {
            needs.push((library.clone(), word("Name:").unwrap(), line.contains("WEAK")));
        }
    }
    needs
}

/// What it prints of defined versions, without the base definition.
fn provides_by_readelf(text: &str) -> Vec<String> {
    let definitions = text.lines().filter(|line| line.contains("Rev:") && !line.contains("BASE"));
    let name = |line: &str| line.split_once("Name: ").unwrap().1.trim().to_owned();
    definitions.map(name).collect()
}

/// The undefined symbols: name, version, and whether weak.
fn undefined_by_readelf(text: &str) -> BTreeSet<(String, Option<String>, bool)> {
    let symbol = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, _, binding, _, "UND", name, ..] = fields[..] else { return None };
        let (name, version) =
            name.split_once('@').map_or((name, None), |(name, version)| (name, Some(version)));
        (binding != "LOCAL").then(|| (name.to_owned(), version.map(str::to_owned), binding == "WEAK"))
    };
    text.lines().filter_map(symbol).collect()
}

fn needed_by_readelf(text: &str) -> Vec<String> {
    let value = |line: &str| line.split_once('[')?.1.split_once(']').map(|(name, _)| name.to_owned());
    text.lines().filter(|line| line.contains("(NEEDED)")).filter_map(value).collect()
}

fn assert_same_as_readelf(path: &Path) {
    let elf = parse(path);
    let label = path.display();
    let versions = readelf("-V", path);
    let needs: Vec<_> =
        elf.needs.iter().cloned().map(|need| (need.library, need.version, need.weak)).collect();
    assert_eq!(needs, needs_by_readelf(&versions), "{label}");
    assert_eq!(elf.provides, provides_by_readelf(&versions), "{label}");
    assert_eq!(elf.needed, needed_by_readelf(&readelf("-d", path)), "{label}");
    let undefined = elf.undefined.iter().cloned();
    let undefined: BTreeSet<_> = undefined.map(|symbol| (symbol.name, symbol.version, symbol.weak)).collect();
    assert_eq!(undefined, undefined_by_readelf(&readelf("--dyn-syms", path)), "{label}");
    for symbol in &elf.undefined {
        let need = elf.needs.iter().find(|need| symbol.version.as_ref() == Some(&need.version));
        assert_eq!(symbol.version.is_some(), symbol.library.is_some(), "{label}: {symbol:?}");
        assert_eq!(symbol.version.is_some(), need.is_some(), "{label}: {symbol:?}");
    }
}

#[test]
fn a_library_says_what_it_is_and_what_it_needs() {
    if !have(&["cc"]) {
        return;
    }
    let shop = Workshop::new();
    let elf =
        parse(&library(&shop, &["-lm", "-Wl,-soname,libtest.so.3", "-Wl,-rpath,$ORIGIN/../lib:/opt/x"]));
    assert_eq!((elf.class, elf.kind), (Class::Elf64, Kind::Shared));
    let machine = match std::env::consts::ARCH {
        "x86_64" => Machine::X86_64,
        "aarch64" => Machine::Aarch64,
        other => panic!("no test for {other}"),
    };
    assert_eq!((elf.machine, elf.interpreter), (machine, None));
    assert_eq!(elf.soname.as_deref(), Some("libtest.so.3"));
    assert_eq!(elf.needed[..2], ["libm.so.6", "libc.so.6"]);
    let glibc = |need: &&lbx_elf::VersionNeed| need.library == "libc.so.6";
    let versions: Vec<_> =
        elf.needs.iter().filter(glibc).map(|need| VersionName::parse(&need.version)).collect();
    assert!(!versions.is_empty() && versions.iter().flatten().all(|version| version.family == "GLIBC"));
    let symbol = |name: &str| elf.undefined.iter().find(|symbol| symbol.name == name);
    let malloc = symbol("malloc").unwrap();
    assert_eq!((malloc.library.as_deref(), malloc.weak), (Some("libc.so.6"), false));
    let perhaps = symbol("perhaps").unwrap();
    assert_eq!((&perhaps.version, perhaps.weak), (&None, true));
    assert_eq!(symbol("seven"), None);
}

#[test]
fn rpath_and_runpath_are_told_apart() {
    if !have(&["cc"]) {
        return;
    }
    let shop = Workshop::new();
    let path = "-Wl,-rpath,$ORIGIN::/opt/x";
    let new = parse(&library(&shop, &[path, "-Wl,--enable-new-dtags"]));
    assert_eq!(
        (new.rpath.len(), new.runpath),
        (0, vec!["$ORIGIN".to_owned(), String::new(), "/opt/x".to_owned()])
    );
    let old = parse(&library(&shop, &[path, "-Wl,--disable-new-dtags"]));
    assert_eq!(
        (old.runpath.len(), old.rpath),
        (0, vec!["$ORIGIN".to_owned(), String::new(), "/opt/x".to_owned()])
    );
}

#[test]
fn programs_and_objects_are_told_apart() {
    if !have(&["cc"]) {
        return;
    }
    let shop = Workshop::new();
    shop.write("program.c", PROGRAM);
    let pie = parse(&shop.compile("cc", "program.c", "pie", &["-pie", "-fPIE"]));
    assert_eq!(pie.kind, Kind::Shared);
    assert!(pie.interpreter.is_some_and(|path| path.contains("/ld-linux")));
    let fixed = parse(&shop.compile("cc", "program.c", "fixed", &["-no-pie"]));
    assert_eq!((fixed.kind, fixed.needed), (Kind::Executable, vec!["libc.so.6".to_owned()]));
    let object = parse(&shop.compile("cc", "program.c", "program.o", &["-c"]));
    assert_eq!((object.kind, object.needed.len(), object.undefined.len()), (Kind::Relocatable, 0, 0));
    match shop.try_compile("cc", "program.c", "static", &["-static"]) {
        Ok(path) => {
            let program = parse(&path);
            assert_eq!((program.kind, program.interpreter), (Kind::Executable, None));
            assert!(program.needed.is_empty() && program.needs.is_empty() && program.undefined.is_empty());
        }
        Err(error) => skip(&format!("no static libc: {error}")),
    }
}

#[test]
fn versions_and_symbols_are_those_that_readelf_sees() {
    if !have(&["cc", "c++", "readelf"]) {
        return;
    }
    let shop = Workshop::new();
    assert_same_as_readelf(&library(&shop, &["-lm"]));
    shop.write("library.cc", LIBRARY_CPP);
    assert_same_as_readelf(&shop.compile("c++", "library.cc", "cpp.so", &["-shared", "-fPIC", "-pthread"]));
    for path in systems_own() {
        assert_same_as_readelf(&path);
    }
}

#[test]
fn every_kind_of_hash_table_leads_to_the_symbols() {
    if !have(&["cc", "readelf"]) {
        return;
    }
    let shop = Workshop::new();
    for style in ["gnu", "sysv", "both"] {
        assert_same_as_readelf(&library(&shop, &["-lm", &format!("-Wl,--hash-style={style}")]));
    }
    // It defines nothing, so that its hash table is empty.
    shop.write("program.c", PROGRAM);
    assert_same_as_readelf(&shop.compile("cc", "program.c", "program", &["-Wl,--hash-style=gnu"]));
}

#[test]
fn section_headers_are_not_needed() {
    if !have(&["cc"]) {
        return;
    }
    let shop = Workshop::new();
    for style in ["gnu", "sysv"] {
        let path = library(&shop, &["-lm", &format!("-Wl,--hash-style={style}")]);
        let mut bytes = fs_err::read(&path).unwrap();
        let before = Elf::parse(&bytes).unwrap();
        put_word(&mut bytes, 40, 0);
        put(&mut bytes, 60, &[0; 4]);
        assert!(before.undefined.len() > 5);
        assert_eq!(Elf::parse(&bytes).unwrap(), before, "{style}");
    }
}

/// Two libraries of 32 bits, one of which needs versions of the other. They need no libc, which is often not
/// there for this class.
#[test]
fn libraries_of_32_bits_are_read_as_well() {
    if !have(&["cc", "readelf"]) {
        return;
    }
    let shop = Workshop::new();
    shop.write("versions", "OLD_1.0 { global: old; };\nNEW_1.2 { global: new; } OLD_1.0;\n");
    shop.write("below.c", "int old(void) { return 1; }\nint new(void) { return 2; }\n");
    shop.write("above.c", "int old(void); int new(void);\nint both(void) { return old() + new(); }\n");
    for word in ["-m32", "-m64"] {
        let flags = [word, "-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libbelow.so"];
        let below = [&flags[..], &["-Wl,--version-script=versions"]].concat();
        if let Err(error) = shop.try_compile("cc", "below.c", "libbelow.so", &below) {
            skip(&format!("no {word}: {error}"));
            continue;
        }
        let above = [&flags[..4], &["-L.", "-lbelow"]].concat();
        let above = shop.compile("cc", "above.c", "libabove.so", &above);
        assert_same_as_readelf(&shop.path("libbelow.so"));
        assert_same_as_readelf(&above);
        assert_eq!(parse(&shop.path("libbelow.so")).provides, ["OLD_1.0", "NEW_1.2"]);
        let elf = parse(&above);
        assert_eq!(elf.class, if word == "-m32" { Class::Elf32 } else { Class::Elf64 });
        let mut versions: Vec<_> =
            elf.needs.iter().map(|need| format!("{} {}", need.library, need.version)).collect();
        versions.sort();
        assert_eq!(versions, ["libbelow.so NEW_1.2", "libbelow.so OLD_1.0"]);
    }
}

#[test]
fn bytes_need_no_alignment() {
    if !have(&["cc"]) {
        return;
    }
    let bytes = fs_err::read(library(&Workshop::new(), &[])).unwrap();
    let expected = Elf::parse(&bytes).unwrap();
    for shift in 1..8 {
        let shifted = [&vec![0; shift], &bytes[..]].concat();
        assert_eq!(Elf::parse(&shifted[shift..]).unwrap(), expected);
    }
}

#[test]
fn what_is_not_a_little_endian_elf_file_is_refused_by_name() {
    let header = |class: u8, order: u8| {
        let mut bytes = b"\x7fELF".to_vec();
        bytes.extend([class, order, 1]);
        bytes.resize(64, 0);
        bytes
    };
    assert!(is_elf(&header(2, 1)) && !is_elf(b"\x7fEL") && !is_elf(b""));
    assert_eq!(Elf::parse(b"#!/bin/sh\n"), Err(ElfError::NotElf));
    assert_eq!(Elf::parse(b""), Err(ElfError::NotElf));
    assert_eq!(Elf::parse(b"\x7fELF"), Err(ElfError::Truncated { what: "file header" }));
    assert_eq!(Elf::parse(&header(2, 2)), Err(ElfError::BigEndian));
    assert_eq!(Elf::parse(&header(1, 2)), Err(ElfError::BigEndian));
    assert_eq!(Elf::parse(&header(2, 3)), Err(ElfError::ByteOrder { found: 3 }));
    assert_eq!(Elf::parse(&header(3, 1)), Err(ElfError::Class { found: 3 }));
    assert!(matches!(Elf::parse(&header(2, 1)[..63]), Err(ElfError::Header { what: "file header", .. })));
}
