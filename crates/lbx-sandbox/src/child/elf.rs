//! Which loader a program asks the kernel for, and how it asks for another one. Knows no more of the format than that.

use std::ops::Range;

/// A 64-bit little-endian file of the format.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// `PT_INTERP`: the path of the loader.
const INTERPRETER: u32 = 3;
/// Where a program header says where its contents are, and how many bytes of the file they take.
const OFFSET: usize = 8;
const SIZE: usize = 32;
/// No path is longer.
const LONGEST_PATH: usize = 4096;

/// A 64-bit little-endian program that asks for a loader.
pub(super) struct Program<'a> {
    bytes: &'a [u8],
    /// Where the program header of the loader is.
    header: usize,
    path: Range<usize>,
}

impl<'a> Program<'a> {
    /// Whether it is one that asks for none, and is a program all the same.
    pub(super) fn is_static(bytes: &'a [u8]) -> bool {
        bytes.starts_with(MAGIC) && Self::parse(bytes).is_none()
    }

    /// `None` for everything else: scripts, libraries, static programs, what is damaged.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(MAGIC) {
            return None;
        }
        let start = usize::try_from(number::<8>(bytes, 32)?).ok()?;
        let (size, count) = (number::<2>(bytes, 54)?, number::<2>(bytes, 56)?);
        let (size, count) = (usize::try_from(size).ok()?, usize::try_from(count).ok()?);
        for index in 0..count {
            let header = start.checked_add(index.checked_mul(size)?)?;
            if number::<4>(bytes, header)? == u64::from(INTERPRETER) {
                let from = usize::try_from(number::<8>(bytes, header.checked_add(OFFSET)?)?).ok()?;
                let length = usize::try_from(number::<8>(bytes, header.checked_add(SIZE)?)?).ok()?;
                let path = from..from.checked_add(length)?;
                bytes.get(path.clone())?;
                return (length <= LONGEST_PATH).then_some(Self { bytes, header, path });
            }
        }
        None
    }

    /// The path of the loader.
    pub(super) fn loader(&self) -> Option<&'a str> {
        let path = self.bytes.get(self.path.clone())?;
        std::str::from_utf8(path.strip_suffix(&[0])?).ok()
    }

    /// The program with another loader. Its path goes to the end of the file, where the kernel reads it; nothing that
    /// is loaded moves.
    pub(super) fn with_loader(&self, loader: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        let (from, length) = (bytes.len() as u64, loader.len() as u64 + 1);
        bytes.extend_from_slice(loader);
        bytes.push(0);
        // Both fields were read, so they are there to be written.
        for (field, value) in [(OFFSET, from), (SIZE, length), (SIZE + 8, length)] {
            let at = self.header + field;
            if let Some(place) = bytes.get_mut(at..at + 8) {
                place.copy_from_slice(&value.to_le_bytes());
            }
        }
        bytes
    }
}

/// A program that another one carries in its data, whole.
pub(super) fn embedded(bytes: &[u8]) -> Option<&[u8]> {
    let starts = (1..bytes.len().saturating_sub(MAGIC.len())).filter(|at| bytes[*at..].starts_with(MAGIC));
    let whole = |start: usize| {
        let program = &bytes[start..];
        // The table of sections comes last.
        let from = usize::try_from(number::<8>(program, 40)?).ok()?;
        let size = usize::try_from(number::<2>(program, 58)?.checked_mul(number::<2>(program, 60)?)?).ok()?;
        let end = from.checked_add(size)?;
        // 2: a program at fixed addresses, which is what such a loader is.
        (from >= 64 && number::<2>(program, 16)? == 2).then(|| program.get(..end))?
    };
    starts.into_iter().find_map(whole)
}

/// The little-endian number of `N` bytes, at most 8, at an offset.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn this() -> Vec<u8> {
        fs_err::read("/proc/self/exe").expect("this program")
    }

    #[test]
    fn a_program_names_its_loader_and_runs_with_another_name_of_it() {
        let bytes = this();
        let program = Program::parse(&bytes).expect("a dynamic program");
        let loader = program.loader().expect("a path");
        let directory = tempfile::tempdir().expect("a directory");
        let link = directory.path().join("another-name-of-the-loader");
        std::os::unix::fs::symlink(loader, &link).expect("a link");
        let changed = program.with_loader(link.to_str().expect("UTF-8").as_bytes());
        assert_eq!(Program::parse(&changed).expect("still one").loader(), link.to_str());
        let path = directory.path().join("program");
        fs_err::write(&path, &changed).expect("a file");
        fs_err::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
        let list = || std::process::Command::new(&path).arg("--list").output();
        assert!(list().expect("it runs").status.success());
        // The negative: it is the new name that the kernel asks for.
        fs_err::remove_file(&link).expect("removed");
        assert_eq!(list().expect_err("no loader").kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn a_program_in_a_programs_data_is_found_whole() {
        let mut inner = MAGIC.to_vec();
        inner.resize(64, 0);
        (inner[16], inner[40], inner[58], inner[60]) = (2, 80, 8, 2);
        inner.resize(96, 7);
        let carrier = |inner: &[u8]| [MAGIC, &[9; 100], inner, &[5; 30]].concat();
        assert_eq!(embedded(&carrier(&inner)), Some(inner.as_slice()));
        assert_eq!(embedded(&carrier(&inner[..90])[..190]), None, "cut off");
        inner[16] = 3;
        assert_eq!(embedded(&carrier(&inner)), None, "a library");
    }

    #[test]
    fn what_is_no_program_is_none() {
        let bytes = this();
        assert!(Program::parse(b"").is_none());
        assert!(Program::parse(b"#!/bin/sh\n").is_none());
        for length in [4, 16, 40, 57, 64, 100, 300] {
            assert!(Program::parse(&bytes[..length]).is_none(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(at in 0_usize..1024, byte in any::<u8>(), cut in 0_usize..4096) {
            let mut bytes = this();
            bytes[at] = byte;
            bytes.truncate(bytes.len().min(cut.max(64)));
            if let Some(program) = Program::parse(&bytes) {
                let _ = program.loader();
                program.with_loader(b"/x");
            }
        }
    }
}
