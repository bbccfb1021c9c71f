//! What the writer writes, everyone reads back alike: our reader, the `zip` crate, Info-ZIP, libarchive, Python.

use std::io::{Cursor, Read};
use std::sync::Arc;

use lbx_archive::{Entry, NameError, Packed, Source, Timestamp, WriteError, compress, write};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::support::{assert_accepted_by_all, file_of, open};

fn entry(name: &str, executable: bool, content: &[u8]) -> Entry {
    let (packed, bytes) = compress(content);
    Entry { name: name.into(), executable, packed, source: Source::Memory(bytes.into()) }
}

fn write_vec(entries: &[Entry], stamp: Timestamp) -> Vec<u8> {
    let mut out = Vec::new();
    let written = write(&mut out, entries, stamp).unwrap();
    assert_eq!(written.size, out.len() as u64);
    assert_eq!(written.sha256[..], Sha256::digest(&out)[..]);
    out
}

/// The archive that the golden digest is of.
fn golden() -> Vec<Entry> {
    vec![
        entry("lambda.py", false, b"def handler(event, context):\n    return event\n"),
        entry("bin/tool", true, b"#!/bin/sh\nexit 0\n"),
        entry("data/größe.txt", false, "ä".repeat(500).as_bytes()),
        entry("empty", false, b""),
        entry("pkg/__init__.py", false, b"import os\nimport sys\nimport os\nimport sys\n"),
    ]
}

/// These bytes are a promise: a change here changes every artifact's digest and needs a line in the changelog.
#[test]
fn the_golden_archive_has_its_digest() {
    let digest = |stamp| hex_of(&Sha256::digest(write_vec(&golden(), stamp)));
    assert_eq!(
        digest(Timestamp::default()),
        "6b2309690ffb3c5cb4bbe20853a0a4d4d5a96b7ecf9e5a3ed7804b5b5f2c2b8e"
    );
    assert_eq!(
        digest(Timestamp::from_unix(1_700_000_000)),
        "3f695f090f49aaaf768d2c17b3b2239b9b47b1dcaf73beadb29569d759b9a1cf"
    );
}

fn hex_of(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn headers_are_as_documented() {
    let bytes = write_vec(&golden(), Timestamp::default());
    let mut archive = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
    for (at, entry) in golden().iter().enumerate() {
        let member = archive.by_index(at).unwrap();
        assert_eq!(member.name().unwrap(), entry.name.as_str());
        assert_eq!(member.unix_mode(), Some(if entry.executable { 0o100_755 } else { 0o100_644 }));
        assert_eq!(member.extra_data().unwrap_or_default(), b"");
        let time = member.last_modified().unwrap();
        assert_eq!((time.year(), time.month(), time.day(), time.hour(), time.second()), (1980, 1, 1, 0, 0));
        // The UTF-8 flag is in the local header's seventh and eighth byte.
        let flags = usize::try_from(member.header_start()).unwrap() + 6;
        assert_eq!(bytes[flags..flags + 2], if entry.name.is_ascii() { [0, 0] } else { [0, 8] });
    }
}

#[test]
fn other_unzippers_accept_the_golden_archive() {
    let file = tempfile::Builder::new().suffix(".zip").tempfile().unwrap();
    std::io::Write::write_all(&mut file.as_file(), &write_vec(&golden(), Timestamp::default())).unwrap();
    assert_accepted_by_all(file.path());
}

#[test]
fn names_that_cannot_be_together_are_refused() {
    let refused = |names: &[&str]| {
        let entries: Vec<Entry> = names.iter().map(|name| entry(name, false, b"x")).collect();
        let mut out = Vec::new();
        let error = write(&mut out, &entries, Timestamp::default()).unwrap_err();
        assert!(out.is_empty(), "nothing is written before the names are checked");
        error
    };
    assert!(matches!(refused(&["a", "a"]), WriteError::Name { reason: NameError::Duplicate, .. }));
    assert!(matches!(refused(&["a", "a/b"]), WriteError::Name { reason: NameError::FileAndDirectory, .. }));
    assert!(matches!(refused(&["../a"]), WriteError::Name { reason: NameError::Traversal, .. }));
    assert!(matches!(refused(&["/a"]), WriteError::Name { reason: NameError::Absolute, .. }));
    assert!(matches!(refused(&["a/"]), WriteError::Directory { .. }));
}

#[test]
fn sizes_that_contradict_the_bytes_are_refused() {
    let good = entry("a", false, b"x");
    let short = Entry { packed: Packed { compressed_size: 2, size: 2, ..good.packed }, ..good.clone() };
    let stored = Entry { packed: Packed { size: 2, ..good.packed }, ..good };
    for bad in [short, stored] {
        let error = write(&mut Vec::new(), &[bad], Timestamp::default()).unwrap_err();
        assert!(matches!(error, WriteError::Sizes { .. }));
    }
}

#[test]
fn a_source_that_is_too_short_is_an_error() {
    let mut entry = entry("a", false, &[7; 5000]);
    entry.source = Source::Range { file: Arc::new(file_of(b"short")), offset: 0 };
    let error = write(&mut Vec::new(), &[entry], Timestamp::default()).unwrap_err();
    assert!(matches!(error, WriteError::Read { ref name, .. } if name == "a"), "{error}");
}

/// Fails after some bytes, as a full disk does.
struct Full(usize);

impl std::io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0 < bytes.len() {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0 -= bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_and_no_deadlock() {
    let content: Vec<u8> = noise(20 << 20);
    for room in [0, 3 << 20, 12 << 20] {
        let entries = [entry("a", false, &content)];
        let error = write(&mut Full(room), &entries, Timestamp::default()).unwrap_err();
        assert!(
            matches!(error, WriteError::Write(ref cause) if cause.kind() == std::io::ErrorKind::StorageFull)
        );
    }
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

#[test]
fn entries_larger_than_the_buffers_come_out_whole() {
    let content = noise(9 << 20);
    let file = Arc::new(file_of(&content));
    let (packed, _) = compress(&content);
    let from_file = |name: &str| Entry {
        name: name.into(),
        executable: false,
        packed,
        source: Source::Range { file: Arc::clone(&file), offset: 0 },
    };
    let bytes = write_vec(&[entry("0", false, b"x"), from_file("a"), from_file("b")], Timestamp::default());
    let archive = open(&bytes).unwrap();
    let copy = file_of(&bytes);
    for member in &archive.members()[1..] {
        assert_eq!(member.read(&copy).unwrap(), content);
    }
}

fn names() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set("[a-zA-Z0-9_ äß雪.-]{1,12}(/[a-z]{1,8}){0,3}", 0..20).prop_map(|names| {
        let mut set = lbx_archive::NameSet::default();
        let names: Vec<String> =
            names.into_iter().filter(|name| lbx_archive::check_name(name).is_ok()).collect();
        names.iter().filter(|name| set.insert(name).is_ok()).cloned().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(
        names in names(),
        contents in prop::collection::vec(prop::collection::vec(0u8..4, 0..600), 20),
        executable in prop::collection::vec(any::<bool>(), 20),
        seconds in any::<i64>(),
    ) {
        let entries: Vec<Entry> = names
            .iter()
            .zip(&contents)
            .zip(&executable)
            .map(|((name, content), &executable)| entry(name, executable, content))
            .collect();
        let bytes = write_vec(&entries, Timestamp::from_unix(seconds));
        prop_assert_eq!(&bytes, &write_vec(&entries, Timestamp::from_unix(seconds)));
        let archive = open(&bytes).unwrap();
        let file = file_of(&bytes);
        let mut theirs = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
        prop_assert_eq!(archive.members().len(), entries.len());
        prop_assert_eq!(theirs.len(), entries.len());
        for (at, entry) in entries.iter().enumerate() {
            let member = &archive.members()[at];
            prop_assert_eq!(&member.name, &entry.name);
            prop_assert_eq!(member.packed, entry.packed);
            prop_assert_eq!(member.modified, Timestamp::from_unix(seconds));
            prop_assert_eq!(&member.read(&file).unwrap(), &contents[at]);
            let mut their_member = theirs.by_index(at).unwrap();
            prop_assert_eq!(their_member.name().unwrap(), entry.name.as_str());
            prop_assert_eq!(their_member.data_start(), Some(member.data_offset));
            let mut content = Vec::new();
            their_member.read_to_end(&mut content).unwrap();
            prop_assert_eq!(&content, &contents[at]);
        }
        // Copied from the archive instead of from memory, the members give the same archive.
        let file = Arc::new(file);
        let copies: Vec<Entry> = archive
            .members()
            .iter()
            .map(|member| Entry {
                name: member.name.clone(),
                executable: member.unix_mode == Some(0o100_755),
                packed: member.packed,
                source: Source::Range { file: Arc::clone(&file), offset: member.data_offset },
            })
            .collect();
        prop_assert_eq!(write_vec(&copies, Timestamp::from_unix(seconds)), bytes);
    }
}
