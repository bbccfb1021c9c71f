//! What is said of two zips, held against how they were made.

use std::collections::BTreeMap;

use lbx_archive::{Compressor, Effort, Entry, Method, Packed, ReadError, Source, compress, write};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType};
use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;

/// A file of a zip, 0644 and compressed as all are.
fn file(name: &str, content: &[u8]) -> Entry {
    let (packed, bytes) = compress(content);
    Entry { name: name.to_owned(), executable: false, packed, source: Source::Memory(bytes.into()) }
}

fn executable(entry: Entry) -> Entry {
    Entry { executable: true, ..entry }
}

/// The same content, as it is.
fn stored(name: &str, content: &[u8]) -> Entry {
    let packed =
        Packed { method: Method::Stored, compressed_size: content.len() as u64, ..compress(content).0 };
    let source = Source::Memory(content.to_vec().into());
    Entry { name: name.to_owned(), executable: false, packed, source }
}

fn metadata(folder: &str, name: &str, version: &str) -> Entry {
    let text = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: not this\n");
    file(&format!("{folder}.dist-info/METADATA"), text.as_bytes())
}

fn zip_at(entries: &[Entry], stamp: Timestamp) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, entries, stamp).unwrap();
    bytes
}

fn zip(entries: &[Entry]) -> Vec<u8> {
    zip_at(entries, Timestamp::default())
}

fn diff_within(before: &[u8], after: &[u8], limits: &Limits) -> Result<Difference, Error> {
    let folder = TempDir::new().unwrap();
    let (one, other) = (folder.path().join("one.zip"), folder.path().join("other.zip"));
    fs_err::write(&one, before).unwrap();
    fs_err::write(&other, after).unwrap();
    diff(&one, &other, limits)
}

fn diff_bytes(before: &[u8], after: &[u8]) -> Result<Difference, Error> {
    diff_within(before, after, &Limits::default())
}

fn diff_of(before: &[Entry], after: &[Entry]) -> Difference {
    diff_bytes(&zip(before), &zip(after)).unwrap()
}

fn paths(files: &[ZipFile]) -> Vec<&str> {
    files.iter().map(|file| file.path.as_str()).collect()
}

/// What refuses the second of these zips.
fn refusal(bytes: &[u8]) -> ZipError {
    match diff_bytes(&zip(&[file("a", b"a")]), bytes) {
        Err(Error::Zip(error)) => *error,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[test]
fn the_same_bytes_are_the_same() {
    let entries = [file("a.py", b"import os\n"), metadata("six-1", "six", "1")];
    let difference = diff_of(&entries, &entries);
    assert!(difference.same && difference.first_byte.is_none());
    assert_eq!(difference.files, FileChanges::default());
    assert_eq!(difference.packages, PackageChanges::default());
    let facts = &difference.zips.after;
    assert_eq!((facts.size, facts.files), (zip(&entries).len() as u64, 2));
    assert_eq!(facts.time.as_deref(), Some("1980-01-01 00:00:00"));
    let nothing = diff_of(&[], &[]);
    assert!(nothing.same && nothing.zips.after.time.is_none());
}

#[test]
fn files_that_come_go_and_change_are_told_with_their_first_differing_byte() {
    let before = [file("gone", b"12345"), file("same", b"x"), file("text", b"hello world")];
    let after =
        [executable(file("come", b"123")), file("same", b"x"), file("text", b"hello wurld, and more")];
    let (one, other) = (zip(&before), zip(&after));
    let difference = diff_bytes(&one, &other).unwrap();
    assert!(!difference.same);
    let first = one.iter().zip(&other).position(|(one, other)| one != other).unwrap();
    assert_eq!(difference.first_byte, Some(first as u64));
    let file = |path: &str, size, mode| ZipFile {
        path: path.into(),
        size,
        packed_size: size,
        mode: Some(Mode(mode)),
    };
    assert_eq!(difference.files.added, [file("come", 3, 0o755)]);
    assert_eq!(difference.files.removed, [file("gone", 5, 0o644)]);
    let [text] = &difference.files.changed[..] else { panic!("{difference:?}") };
    assert_eq!((text.path.as_str(), text.content), ("text", Content::Changed { first_byte: 7 }));
    assert_eq!(text.size, Pair { before: 11, after: 21 });
    assert!(!text.mode.differs());
    assert!(!difference.order_differs);
    assert_eq!(difference.times_differ, 0);
    assert_eq!(difference.zips.before.unpacked_size, 17);
}

#[test]
fn a_file_that_begins_with_all_of_the_other_differs_where_that_one_ends() {
    for (before, after) in [(&b"abc"[..], &b"abcd"[..]), (b"abcd", b"abc"), (b"", b"abc")] {
        let difference = diff_of(&[file("a", before)], &[file("a", after)]);
        let first_byte = before.len().min(after.len()) as u64;
        assert_eq!(difference.files.changed[0].content, Content::Changed { first_byte });
    }
}

#[test]
fn differences_are_found_at_and_beyond_the_borders_of_pieces() {
    const PIECE: usize = 64 << 10;
    let content: Vec<u8> = (0..3 * PIECE).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
    for at in [0, PIECE - 1, PIECE, 2 * PIECE, 3 * PIECE - 1] {
        let mut other = content.clone();
        other[at] ^= 1;
        let difference = diff_of(&[file("a", &content)], &[file("a", &other)]);
        assert_eq!(difference.files.changed[0].content, Content::Changed { first_byte: at as u64 });
    }
    let shorter = diff_of(&[file("a", &content)], &[file("a", &content[..PIECE])]);
    assert_eq!(shorter.files.changed[0].content, Content::Changed { first_byte: PIECE as u64 });
    let other_form = diff_of(&[file("a", &content)], &[stored("a", &content)]);
    assert_eq!(other_form.files.changed[0].content, Content::Recompressed);
}

#[test]
fn a_mode_alone_is_a_change() {
    let difference = diff_of(&[file("run", b"#!")], &[executable(file("run", b"#!"))]);
    let [run] = &difference.files.changed[..] else { panic!("{difference:?}") };
    assert_eq!(run.content, Content::Same);
    assert_eq!(run.mode, Pair { before: Some(Mode(0o644)), after: Some(Mode(0o755)) });
}

#[test]
fn another_compressed_form_is_no_other_content() {
    let line = |at: usize| format!("line {at} says {}\n", at.wrapping_mul(2_654_435_761) % 1013);
    let content: Vec<u8> = (0..1000).map(line).flat_map(String::into_bytes).collect();
    let (packed, bytes) = Compressor::new(Effort::Max).compress(&content);
    let harder = Entry { name: "a".into(), executable: false, packed, source: Source::Memory(bytes.into()) };
    for other in [harder, stored("a", &content)] {
        let difference = diff_of(&[file("a", &content)], &[other]);
        assert_eq!(difference.files.changed[0].content, Content::Recompressed);
        assert!(difference.files.changed[0].packed_size.differs());
        assert!(!difference.files.changed[0].size.differs());
    }
}

#[test]
fn another_compressed_form_of_the_same_size_is_no_other_content() {
    // The same three bytes in two blocks that are not compressed, cut here and there.
    let block = |is_last: bool, content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap();
        [&[u8::from(is_last)][..], &length.to_le_bytes(), &(!length).to_le_bytes(), content].concat()
    };
    let entry = |cut: usize| {
        let bytes = [block(false, &b"abc"[..cut]), block(true, &b"abc"[cut..])].concat();
        let packed = Packed { method: Method::Deflated, compressed_size: 13, ..compress(b"abc").0 };
        Entry { name: "a".into(), executable: false, packed, source: Source::Memory(bytes.into()) }
    };
    let difference = diff_of(&[entry(1)], &[entry(2)]);
    assert_eq!(difference.files.changed[0].content, Content::Recompressed);
    assert!(!difference.files.changed[0].packed_size.differs());
}

#[test]
fn what_is_in_the_same_compressed_form_is_not_inflated() {
    // No content has such a CRC: looking at it would be an error.
    let mut damaged = file("a", b"some text that is here and here and here and here");
    damaged.packed.crc32 ^= 1;
    let difference = diff_of(&[damaged.clone()], &[damaged, file("b", b"")]);
    assert_eq!(paths(&difference.files.added), ["b"]);
    assert!(difference.files.changed.is_empty());
}

#[test]
fn a_content_that_is_not_what_its_header_says_is_an_error_and_no_change() {
    let content = b"def handler(event, context): return event\n".repeat(5000);
    let mut damaged = content.clone();
    damaged[100] ^= 1;
    let sound = stored("a", &content);
    let lying = Entry { source: Source::Memory(damaged.into()), ..sound.clone() };
    for other in [sound, file("a", &content)] {
        let error = diff_bytes(&zip(&[other]), &zip(std::slice::from_ref(&lying))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::System);
        let Error::Zip(error) = error else { panic!("{error:?}") };
        let ZipError::Member { path, member, source } = *error else { panic!("{error:?}") };
        assert!(
            path.ends_with("other.zip") && member == "a" && source.to_string().contains("CRC"),
            "{source}"
        );
    }
}

#[test]
fn packages_are_compared_by_name_and_version_wherever_python_finds_them() {
    let before = [
        metadata("Foo_Bar-1.0", "Foo.Bar", "1.0"),
        metadata("gone-2", "gone", "2"),
        metadata("python/layer-1", "layer", "1"),
        metadata("python/lib/python3.11/site-packages/deep-1", "deep", "1"),
        metadata("same-1", "same", "1"),
        metadata("vendored/hidden-1", "hidden", "1"),
    ];
    let after = [
        metadata("come-3", "come", "3"),
        metadata("foo_bar-1.1", "foo-bar", "1.1"),
        metadata("python/layer-2", "layer", "2"),
        metadata("python/lib/python3.12/site-packages/deep-1", "deep", "1"),
        metadata("same-1", "same", "1"),
        metadata("vendored/hidden-2", "hidden", "2"),
    ];
    let PackageChanges { added, removed, changed } = diff_of(&before, &after).packages;
    let version = |name: &str, version: &str| PackageVersion { name: name.into(), version: version.into() };
    assert_eq!(added, [version("come", "3")]);
    assert_eq!(removed, [version("gone", "2")]);
    let moved = |name: &str, before: &str, after: &str| ChangedPackage {
        name: name.into(),
        version: Pair { before: before.into(), after: after.into() },
    };
    assert_eq!(changed, [moved("foo-bar", "1.0", "1.1"), moved("layer", "1", "2")]);
}

#[test]
fn a_package_that_is_there_twice_is_paired_version_by_version() {
    let before = [metadata("a-1", "a", "1"), metadata("python/a-2", "a", "2")];
    let after = [metadata("python/a-2", "a", "2"), metadata("a-3", "a", "3"), metadata("a-4", "a", "4")];
    let PackageChanges { added, removed, changed } = diff_of(&before, &after).packages;
    assert_eq!(changed[0].version, Pair { before: "1".into(), after: "3".into() });
    assert_eq!((changed.len(), added.len(), removed.len()), (1, 1, 0));
    assert_eq!(added[0].version, "4");
}

#[test]
fn metadata_that_says_nothing_leaves_what_its_folder_says() {
    let long = "x".repeat(256);
    let texts = ["", "no field", "Name: six\n", &format!("Name: {long}\nVersion: 1\n")];
    for text in texts {
        let after = [file("six-1.17.0.dist-info/METADATA", text.as_bytes())];
        let added = diff_of(&[], &after).packages.added;
        assert_eq!(added, [PackageVersion { name: "six".into(), version: "1.17.0".into() }], "{text}");
    }
    assert!(diff_of(&[], &[file("six.dist-info/METADATA", b"")]).packages.added.is_empty());
}

#[test]
fn a_description_of_any_length_does_not_hide_a_version() {
    let text = format!("Name: six\nVersion: 1\n\n{}", "long ".repeat(1 << 20));
    let after = [file("other-2.dist-info/METADATA", text.as_bytes())];
    assert_eq!(diff_of(&[], &after).packages.added[0].name, "six");
}

#[test]
fn order_and_times_are_told_apart_from_content() {
    let (a, b, c) = (file("a", b"1"), file("b", b"2"), file("c", b"3"));
    let difference = diff_of(&[a.clone(), b.clone()], &[b.clone(), a.clone()]);
    assert!(difference.order_differs && difference.files == FileChanges::default());
    // What comes between is no other order.
    assert!(!diff_of(&[a.clone(), b.clone()], &[a.clone(), c, b.clone()]).order_differs);
    let later = zip_at(&[a.clone(), b.clone()], Timestamp::from_unix(1_700_000_000));
    let difference = diff_bytes(&zip(&[a, b]), &later).unwrap();
    assert_eq!((difference.times_differ, difference.order_differs), (2, false));
    let Pair { before, after } = difference.zips;
    assert_eq!(before.time.as_deref(), Some("1980-01-01 00:00:00"));
    assert_eq!(after.time.as_deref(), Some("2023-11-14 22:13:20"));
}

#[test]
fn zips_that_are_only_written_differently_differ_in_bytes_alone() {
    let plain = zip(&[file("a", b"1")]);
    let mut commented = plain.clone();
    let length = commented.len() - 2;
    commented[length..].copy_from_slice(&4u16.to_le_bytes());
    commented.extend(b"note");
    let difference = diff_bytes(&plain, &commented).unwrap();
    assert_eq!((difference.same, difference.first_byte), (false, Some(length as u64)));
    assert_eq!(difference.files, FileChanges::default());
}

#[test]
fn what_is_no_zip_is_refused_with_its_name() {
    let good = zip(&[file("a", b"a")]);
    let cases: [&[u8]; 4] = [b"", b"garbage", &good[..good.len() - 1], &good[1..]];
    for bytes in cases {
        let ZipError::Archive { path, .. } = refusal(bytes) else { panic!("{bytes:?}") };
        assert!(path.ends_with("other.zip"));
    }
}

#[test]
fn limits_hold_for_both_zips() {
    let (small, large) = (zip(&[file("a", b"a")]), zip(&[file("a", &[0; 1000])]));
    let limits = Limits { member_size: 999, ..Limits::default() };
    assert!(diff_within(&small, &small, &limits).is_ok());
    for (before, after) in [(&small, &large), (&large, &small)] {
        let Err(Error::Zip(error)) = diff_within(before, after, &limits) else { panic!("too large") };
        assert!(matches!(*error, ZipError::Archive { source: ReadError::MemberTooLarge { .. }, .. }));
    }
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let folder = TempDir::new().unwrap();
    let zip_path = folder.path().join("a.zip");
    fs_err::write(&zip_path, zip(&[])).unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    for path in [folder.path(), Path::new("/dev/zero"), &pipe] {
        let Err(Error::Zip(error)) = diff(&zip_path, path, &Limits::default()) else { panic!("{path:?}") };
        assert!(matches!(*error, ZipError::NotAFile { .. }));
    }
    let missing = diff(&zip_path, &folder.path().join("none"), &Limits::default()).unwrap_err();
    assert!(matches!(missing, Error::Io(_)) && missing.to_string().contains("none"), "{missing}");
}

#[test]
fn json_has_modes_in_octal_and_the_kind_of_each_change() {
    let before = [file("a", b"one")];
    let after = [executable(file("a", b"other"))];
    let json = serde_json::to_value(diff_of(&before, &after)).unwrap();
    let expected = serde_json::json!({
        "path": "a", "size": {"before": 3, "after": 5}, "packed_size": {"before": 3, "after": 5},
        "mode": {"before": "0644", "after": "0755"}, "content": "changed", "first_byte": 1,
    });
    assert_eq!(json["files"]["changed"][0], expected);
}

/// What a file is in a model of a zip: its content, whether it is executable, and whether it is stored.
type Model = BTreeMap<String, (Vec<u8>, bool, bool)>;

fn model() -> impl Strategy<Value = Model> {
    let content = (prop::sample::select(vec![1usize, 40, 70_000]), prop::collection::vec(0u8..3, 0..6))
        .prop_map(|(times, bytes)| bytes.repeat(times));
    prop::collection::btree_map("[a-d](/[a-c])?", (content, any::<bool>(), any::<bool>()), 0..6).prop_map(
        |mut all| {
            // A path is a file or a folder.
            let folders: Vec<String> =
                all.keys().filter_map(|path| Some(path.split_once('/')?.0.to_owned())).collect();
            for folder in &folders {
                all.remove(folder);
            }
            all
        },
    )
}

fn zip_of(model: &Model) -> Vec<u8> {
    let entry = |(path, (content, is_executable, is_stored)): (&String, &(Vec<u8>, bool, bool))| {
        let entry = if *is_stored { stored(path, content) } else { file(path, content) };
        Entry { executable: *is_executable, ..entry }
    };
    zip(&model.iter().map(entry).collect::<Vec<_>>())
}

fn content_of(one: &[u8], other: &[u8]) -> Option<u64> {
    let common = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    (one != other).then_some(common as u64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_is_what_was_done(before in model(), after in model()) {
        let (one, other) = (zip_of(&before), zip_of(&after));
        let difference = diff_bytes(&one, &other).unwrap();
        prop_assert_eq!(difference.first_byte, content_of(&one, &other));
        prop_assert_eq!(difference.same, one == other);
        let only = |these: &Model, those: &Model| -> Vec<String> {
            these.keys().filter(|path| !those.contains_key(*path)).cloned().collect()
        };
        prop_assert_eq!(paths(&difference.files.added), only(&after, &before));
        prop_assert_eq!(paths(&difference.files.removed), only(&before, &after));
        let mut changed = difference.files.changed.iter();
        for (path, (content, is_executable, _)) in &before {
            let Some((new, new_executable, _)) = after.get(path) else { continue };
            let first = content_of(content, new);
            let is_same_form = first.is_none() && is_executable == new_executable;
            match changed.clone().next().filter(|file| &file.path == path) {
                Some(file) => {
                    changed.next();
                    prop_assert_eq!(file.mode.differs(), is_executable != new_executable);
                    let found = match file.content { Content::Changed { first_byte } => Some(first_byte), _ => None };
                    prop_assert_eq!(found, first);
                }
                None => prop_assert!(is_same_form),
            }
        }
        prop_assert!(changed.next().is_none());
        prop_assert!(diff_bytes(&one, &one).unwrap().same);
        // The other way round, all is the other way round.
        let back = diff_bytes(&other, &one).unwrap();
        prop_assert_eq!(back.files.added, difference.files.removed);
        prop_assert_eq!(back.files.changed.len(), difference.files.changed.len());
    }

    /// A few bytes of a zip are others: whatever that is, it is said or refused.
    #[test]
    fn damage_is_refused_or_compared(
        original in model(), places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let whole = zip_of(&original);
        let mut damaged = whole.clone();
        for (place, byte) in places {
            let at = place.index(damaged.len());
            damaged[at] = byte;
        }
        if let Ok(difference) = diff_bytes(&whole, &damaged) {
            prop_assert_eq!(difference.same, whole == damaged);
        }
    }

    #[test]
    fn metadata_of_strangers_is_taken_or_passed_over(text in prop::collection::vec(any::<u8>(), 0..300)) {
        let difference = diff_of(&[], &[file("a-1.dist-info/METADATA", &text)]);
        prop_assert_eq!(difference.packages.added.len(), 1);
    }
}
