//! Archives that begin with a prefix have the bytes that they would have had without.

use std::fs::File;
use std::io::{Seek, Write};
use std::sync::Arc;

use lbx_archive::{
    After, Entry, NameError, Packed, Prefix, Source, Tail, Timestamp, WriteError, compress, copy_prefix,
    write, write_after, write_prefix,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn entry(name: &str, content: &[u8]) -> Entry {
    let (packed, bytes) = compress(content);
    Entry {
        name: name.into(),
        executable: content.len().is_multiple_of(2),
        packed,
        source: Source::Memory(bytes.into()),
    }
}

/// A prefix and the file with its bytes.
fn prefix_of(entries: &[Entry]) -> (Prefix, File) {
    let mut file = tempfile::tempfile().unwrap();
    let prefix = write_prefix(&mut file, entries, Timestamp::default()).unwrap();
    (prefix, file)
}

fn after(prefix: &Prefix, bytes: Option<&File>, tail: &[Entry]) -> Result<(Vec<u8>, Tail), WriteError> {
    let names: Vec<After<'_>> =
        tail.iter().map(|entry| After { name: &entry.name, executable: entry.executable }).collect();
    let mut out = tempfile::NamedTempFile::new().unwrap();
    if let Some(bytes) = bytes {
        copy_prefix(bytes, out.as_file_mut(), prefix.size())?;
    }
    let written = write_after(out.as_file_mut(), prefix, &names, Timestamp::default(), |at| {
        Ok::<_, WriteError>((tail[at].packed, tail[at].source.clone()))
    })?;
    Ok((fs_err::read(out.path()).unwrap(), written))
}

fn whole(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, entries, Timestamp::default()).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_prefix_and_what_comes_after_are_the_archive_of_both(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..12),
        split in 0_usize..12,
    ) {
        let entries: Vec<Entry> =
            contents.iter().enumerate().map(|(at, content)| entry(&format!("p/ä{at}.py"), content)).collect();
        let (first, rest) = entries.split_at(split.min(entries.len()));
        let (prefix, file) = prefix_of(first);
        // Kept and loaded, as a store does it.
        let prefix = Prefix::from_bytes(&prefix.to_bytes()).unwrap();
        let (bytes, tail) = after(&prefix, Some(&file), rest).unwrap();
        prop_assert_eq!(&bytes, &whole(&entries));
        prop_assert_eq!(tail.written.size, bytes.len() as u64);
        prop_assert_eq!(&tail.written.sha256[..], &Sha256::digest(&bytes)[..]);
        for ((offset, packed), entry) in tail.entries.iter().zip(rest) {
            let at = usize::try_from(*offset).unwrap();
            let Source::Memory(compressed) = &entry.source else { unreachable!() };
            prop_assert_eq!(&bytes[at..at + compressed.len()], &compressed[..]);
            prop_assert_eq!(packed, &entry.packed);
        }
    }

    #[test]
    fn kept_bytes_that_were_changed_never_panic(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let (prefix, _) = prefix_of(&[entry("a.py", b"a"), entry("b.py", b"b")]);
        let mut bytes = prefix.to_bytes();
        let index = at.index(bytes.len());
        bytes[index] = to;
        Prefix::from_bytes(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(Prefix::from_bytes(&bytes).is_none_or(|read| read != prefix));
    }
}

#[test]
fn without_a_prefix_the_archive_is_the_same() {
    let entries = [entry("a.py", b"a"), entry("b/c.py", b"import os\n")];
    assert_eq!(after(&Prefix::empty(), None, &entries).unwrap().0, whole(&entries));
    assert_eq!(after(&Prefix::empty(), None, &[]).unwrap().0, whole(&[]));
}

#[test]
fn a_file_of_the_prefix_can_become_executable() {
    let mut entries = [entry("a.py", b"odd"), entry("b/größe.sh", b"odd"), entry("c.py", b"odd")];
    let (prefix, file) = prefix_of(&entries);
    assert_eq!(prefix.with_executable(&[]).as_ref(), &prefix);
    let changed = prefix.with_executable(&["b/größe.sh".to_owned(), "nobody".to_owned()]);
    entries[1].executable = true;
    assert_eq!(after(&changed, Some(&file), &[]).unwrap().0, whole(&entries));
}

#[test]
fn a_name_of_the_prefix_is_taken() {
    let (prefix, file) = prefix_of(&[entry("a/b.py", b"a"), entry("c", b"c")]);
    for (name, expected) in [
        ("a/b.py", NameError::Duplicate),
        ("a", NameError::FileAndDirectory),
        ("c/d.py", NameError::FileAndDirectory),
    ] {
        match after(&prefix, Some(&file), &[entry(name, b"x")]).unwrap_err() {
            WriteError::Name { reason, .. } => assert_eq!(reason, expected, "{name}"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn bytes_that_were_cut_or_grew_or_are_missing_are_refused() {
    let (prefix, mut file) = prefix_of(&[entry("a.py", b"a")]);
    assert!(matches!(after(&prefix, None, &[]), Err(WriteError::Copy(_))));
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"more").unwrap();
    assert!(matches!(after(&prefix, Some(&file), &[]), Err(WriteError::Copy(_))));
    file.set_len(prefix.size() - 1).unwrap();
    assert!(matches!(after(&prefix, Some(&file), &[]), Err(WriteError::Copy(_))));
}

#[test]
fn the_hash_of_a_prefix_is_that_of_its_bytes() {
    let (prefix, mut file) = prefix_of(&[entry("a.py", &vec![7; 100_000])]);
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    assert_eq!(prefix.sha256()[..], Sha256::digest(&bytes)[..]);
    assert_eq!(prefix.size(), bytes.len() as u64);
}

#[test]
fn content_that_cannot_be_had_is_the_callers_error() {
    let names = [After { name: "a.py", executable: false }];
    let mut out = tempfile::tempfile().unwrap();
    let sizes: Result<Tail, WriteError> =
        write_after(&mut out, &Prefix::empty(), &names, Timestamp::default(), |_| {
            let (packed, _) = compress(b"abc");
            Ok((Packed { compressed_size: 7, ..packed }, Source::Memory(Arc::from(&b"abc"[..]))))
        });
    assert!(matches!(sizes, Err(WriteError::Sizes { .. })));
}
