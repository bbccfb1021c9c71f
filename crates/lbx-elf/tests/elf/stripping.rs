//! What stripping leaves of real files: all that is loaded, a file that works, and no more than GNU strip leaves.

use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_elf::{Elf, StripRefused, Stripped, strip};

use crate::raw::{get, put, put_word, section};
use crate::tools::{LIBRARY, LIBRARY_CPP, PROGRAM, Workshop, have, output, readelf, run, skip};

/// Strips a file next to itself. Holds what must always be true of that against it.
pub(crate) fn stripped(path: &Path) -> (PathBuf, Stripped) {
    let before = fs_err::read(path).unwrap();
    let stripped = strip(&before).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(strip(&before), Ok(stripped.clone()), "the same bytes give the same bytes");
    assert_eq!(strip(&stripped.bytes), Err(StripRefused::NotSmaller));
    assert_eq!(Elf::parse(&stripped.bytes), Elf::parse(&before));
    let new = path.with_extension("stripped");
    fs_err::copy(path, &new).unwrap();
    fs_err::write(&new, &stripped.bytes).unwrap();
    (new, stripped)
}

/// Whether binutils see the same in both files, and nothing odd in the new one.
fn assert_same_to_binutils(old: &Path, new: &Path) {
    for option in ["-d", "-V", "-r", "--dyn-syms"] {
        assert_eq!(readelf(option, old), readelf(option, new), "{option}");
    }
    // Which sections a segment has is in the same table, and some of them are gone.
    let segments = |path: &Path| {
        let text = readelf("-l", path);
        text.split("Section to Segment").next().unwrap().to_owned()
    };
    assert_eq!(segments(old), segments(new));
    // `output` fails if there is a warning.
    readelf("-a", new);
    output("objdump", &["-h", new.to_str().unwrap()]);
}

/// GNU strip lays the file out anew, and so may save some alignment that we keep; it keeps comments.
fn assert_no_larger_than_gnu(old: &Path, ours: &Stripped) {
    let theirs = old.with_extension("gnu");
    output("strip", &["-s", "-o", theirs.to_str().unwrap(), old.to_str().unwrap()]);
    let theirs = fs_err::metadata(theirs).unwrap().len();
    let ours = u64::try_from(ours.bytes.len()).unwrap();
    assert!(ours <= theirs + 512, "{}: {ours} bytes, GNU strip has {theirs}", old.display());
}

/// The word in front of the colon is what Python has to find when it loads the library and calls it.
fn assert_python(path: &Path, code: &str) {
    let code = format!("import ctypes, sys; library = ctypes.CDLL(sys.argv[1]); {code}");
    output("python3", &["-I", "-c", &code, path.to_str().unwrap()]);
}

const USE_LIBRARY: &str = "\
    library.root.restype = ctypes.c_double; \
    library.root.argtypes = [ctypes.c_double]; \
    assert library.root(16.0) == 9.5; \
    assert (library.seven(), library.count(), library.count(), library.maybe()) == (7, 41, 42, -1); \
    to = ctypes.create_string_buffer(32); \
    library.text(to, 32, ctypes.c_double(2.5)); \
    assert to.value == b'2.500'";
const USE_LIBRARY_CPP: &str =
    "assert (library.caught(5), library.caught(0), library.dynamic()) == (5, 0, 44)";

const TOOLS: [&str; 6] = ["cc", "c++", "readelf", "objdump", "strip", "python3"];

#[test]
fn a_stripped_library_works_and_is_loaded_the_same() {
    if !have(&TOOLS) {
        return;
    }
    let shop = Workshop::new();
    shop.write("library.c", LIBRARY);
    let flags = ["-shared", "-fPIC", "-g", "-lm", "-Wl,-rpath,$ORIGIN"];
    let path = shop.compile("cc", "library.c", "library.so", &flags);
    assert_python(&path, USE_LIBRARY);
    let (new, stripped) = stripped(&path);
    for name in [".debug_info", ".debug_line", ".symtab", ".strtab", ".comment"] {
        assert!(stripped.removed.iter().any(|removed| removed == name), "{name} is still there");
        assert!(!readelf("-S", &new).contains(name), "{name} is still there");
    }
    assert_python(&new, USE_LIBRARY);
    assert_same_to_binutils(&path, &new);
    assert_no_larger_than_gnu(&path, &stripped);
}

#[test]
fn a_stripped_library_in_cpp_still_throws_and_catches() {
    if !have(&TOOLS) {
        return;
    }
    let shop = Workshop::new();
    shop.write("library.cc", LIBRARY_CPP);
    for (name, flags) in [("debug", &["-g", "-O0"][..]), ("optimised", &["-O2"]), ("small", &["-g1", "-Os"])]
    {
        let flags = [&["-shared", "-fPIC", "-pthread"], flags].concat();
        let path = shop.compile("c++", "library.cc", &format!("{name}.so"), &flags);
        let (new, stripped) = stripped(&path);
        assert_python(&new, USE_LIBRARY_CPP);
        assert_same_to_binutils(&path, &new);
        assert_no_larger_than_gnu(&path, &stripped);
    }
}

#[test]
fn stripped_programs_run() {
    if !have(&TOOLS) {
        return;
    }
    let shop = Workshop::new();
    shop.write("program.c", PROGRAM);
    for flags in [&["-pie", "-fPIE"][..], &["-no-pie"], &["-static-pie"]] {
        let name = format!("program{}", flags[0]);
        let path = match shop.try_compile("cc", "program.c", &name, &[flags, &["-g"]].concat()) {
            Ok(path) => path,
            Err(error) => {
                skip(&format!("{flags:?}: {error}"));
                continue;
            }
        };
        let (new, stripped) = stripped(&path);
        let result = Command::new(&new).arg("hello").output().unwrap();
        assert_eq!((result.status.code(), &result.stdout[..]), (Some(3), &b"2 hello\n"[..]), "{flags:?}");
        assert_same_to_binutils(&path, &new);
        assert_no_larger_than_gnu(&path, &stripped);
    }
}

/// GNU ld says of the relocations that a static program applies to itself that they need its symbol table.
#[test]
fn a_static_program_works_or_is_refused() {
    if !have(&TOOLS) {
        return;
    }
    let shop = Workshop::new();
    shop.write("program.c", PROGRAM);
    let path = match shop.try_compile("cc", "program.c", "program", &["-static", "-g"]) {
        Ok(path) => path,
        Err(error) => return skip(&format!("no static libc: {error}")),
    };
    match strip(&fs_err::read(&path).unwrap()) {
        Ok(_) => assert_eq!(Command::new(stripped(&path).0).status().unwrap().code(), Some(3)),
        Err(refused) => {
            let removed = ".symtab".to_owned();
            assert_eq!(refused, StripRefused::Needed { name: ".rela.plt".into(), removed });
        }
    }
}

/// Each linker has its own order of sections and its own padding. Those that are not installed are left out:
/// they are many.
#[test]
fn what_other_linkers_make_is_stripped_as_well() {
    if !have(&TOOLS) {
        return;
    }
    let shop = Workshop::new();
    shop.write("library.c", LIBRARY);
    for linker in ["bfd", "gold", "lld", "mold"] {
        for extra in ["-Wl,-z,separate-code", "-Wl,-z,noseparate-code", "-Wl,--build-id", "-gz=zlib"] {
            let linker = format!("-fuse-ld={linker}");
            let flags = ["-shared", "-fPIC", "-g", "-lm", &linker, extra];
            let Ok(path) = shop.try_compile("cc", "library.c", "library.so", &flags) else {
                eprintln!("SKIPPED: no {linker} with {extra}");
                continue;
            };
            let (new, stripped) = stripped(&path);
            assert_python(&new, USE_LIBRARY);
            assert_same_to_binutils(&path, &new);
            assert_no_larger_than_gnu(&path, &stripped);
        }
    }
}

/// A library with sections that no rule names: `.mine`, `.gnu_debuglink`, and `.empty`.
fn library_with_unknown_sections(shop: &Workshop) -> Option<PathBuf> {
    if !have(&[&TOOLS[..], &["objcopy"]].concat()) {
        return None;
    }
    let text = r#"
        asm(".section .mine,\"\"\n.balign 64\n.ascii \"all of it\"\n.previous");
        int seven(void) { return 7; }"#;
    shop.write("library.c", text);
    let path = shop.compile("cc", "library.c", "library.so", &["-shared", "-fPIC", "-g"]);
    let debug = shop.write("library.debug", "something");
    let link = format!("--add-gnu-debuglink={}", debug.display());
    let empty = format!("--add-section=.empty={}", shop.write("nothing", "").display());
    output("objcopy", &[&link, &empty, path.to_str().unwrap()]);
    Some(path)
}

#[test]
fn sections_that_stay_refer_to_the_same_sections() {
    let shop = Workshop::new();
    let Some(path) = library_with_unknown_sections(&shop) else { return };
    let mut bytes = fs_err::read(path).unwrap();
    let (_, mine) = section(&bytes, ".mine");
    let (link, _) = section(&bytes, ".gnu_debuglink");
    let (info, _) = section(&bytes, ".text");
    put_word(&mut bytes, mine + 8, 0x40);
    put(
        &mut bytes,
        mine + 40,
        &[link, info].map(|number| u32::try_from(number).unwrap().to_le_bytes()).concat(),
    );
    let bytes = strip(&bytes).unwrap().bytes;
    let (_, mine) = section(&bytes, ".mine");
    let (new_link, _) = section(&bytes, ".gnu_debuglink");
    assert_ne!(new_link, link);
    assert_eq!((get(&bytes, mine + 40, 4), get(&bytes, mine + 44, 4)), (new_link, info));
}

#[test]
fn sections_that_nobody_knows_are_kept() {
    let shop = Workshop::new();
    let Some(path) = library_with_unknown_sections(&shop) else { return };
    let (new, _) = stripped(&path);
    let (old_bytes, bytes) = (fs_err::read(&path).unwrap(), fs_err::read(&new).unwrap());
    for (name, alignment) in [(".mine", 64), (".gnu_debuglink", 4)] {
        let (_, old_header) = section(&old_bytes, name);
        let (_, header) = section(&bytes, name);
        let content = |bytes: &[u8], header: usize| {
            let (offset, size) = (get(bytes, header + 24, 8), get(bytes, header + 32, 8));
            bytes[offset..offset + size].to_vec()
        };
        assert_eq!(content(&bytes, header), content(&old_bytes, old_header), "{name}");
        assert_eq!(get(&bytes, header + 24, 8) % alignment, 0, "{name}");
    }
    assert_eq!(get(&bytes, section(&bytes, ".empty").1 + 32, 8), 0);
    assert_same_to_binutils(&path, &new);
    assert_python(&new, "assert library.seven() == 7");
}

/// The loader takes no 32-bit library into a 64-bit Python, so that a program says whether it still runs.
#[test]
fn files_of_32_bits_are_stripped_as_well() {
    if !have(&TOOLS) {
        return;
    }
    let shop = Workshop::new();
    shop.write("library.c", "int one(void) { return 1; }\nint two(void) { return one() + 1; }\n");
    let flags = ["-m32", "-shared", "-fPIC", "-g", "-nostdlib"];
    match shop.try_compile("cc", "library.c", "library.so", &flags) {
        Ok(path) => {
            let (new, stripped) = stripped(&path);
            assert_same_to_binutils(&path, &new);
            assert_no_larger_than_gnu(&path, &stripped);
        }
        Err(error) => return skip(&format!("no -m32: {error}")),
    }
    let exit = r#"void _start(void) { asm("movl $1, %eax\nmovl $42, %ebx\nint $0x80"); }"#;
    shop.write("exit.c", exit);
    let path = shop.compile("cc", "exit.c", "exit", &["-m32", "-static", "-g", "-nostdlib"]);
    let (new, _) = stripped(&path);
    assert_same_to_binutils(&path, &new);
    let code = |path: &Path| run(path.to_str().unwrap(), []).and_then(|output| output.status.code());
    // Some kernels run no 32-bit programs.
    if code(&path) == Some(42) {
        assert_eq!(code(&new), Some(42));
    } else {
        eprintln!("SKIPPED: no 32-bit program runs here");
    }
}

/// What both do in turns comes out the same as what both do.
#[test]
fn gnu_strip_finds_nothing_more_and_leaves_little() {
    if !have(&TOOLS) {
        return;
    }
    let shop = Workshop::new();
    shop.write("library.c", LIBRARY);
    let path = shop.compile("cc", "library.c", "library.so", &["-shared", "-fPIC", "-g", "-lm"]);
    let (new, ours) = stripped(&path);
    let after_us = shop.path("after.so");
    output("strip", &["-s", "-o", after_us.to_str().unwrap(), new.to_str().unwrap()]);
    assert_python(&after_us, USE_LIBRARY);
    let theirs = shop.path("theirs.so");
    output("strip", &["-s", "-o", theirs.to_str().unwrap(), path.to_str().unwrap()]);
    let after_them = strip(&fs_err::read(&theirs).unwrap()).unwrap();
    assert_eq!(after_them.removed, [".comment"]);
    assert!(after_them.bytes.len().abs_diff(ours.bytes.len()) < 512);
}
