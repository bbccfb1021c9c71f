//! One crafted archive, or a few, per rule of the reader; and what is odd but unambiguous, which is accepted.

use std::io::Read;

use lbx_archive::{Archive, Limits, Member, MemberError, Method, NameError, Packed, ReadError};

use crate::raw::{Raw, Tail, archive, archive_with};
use crate::support::{file_of, open};

const TEXT: &[u8] = b"import os, os, os, os, os, os, os, os, os, os, os, os\n";

fn one() -> Raw {
    Raw::new("a.py", TEXT)
}

macro_rules! assert_refused {
    ($bytes:expr, $pattern:pat) => {
        match open(&$bytes) {
            Err($pattern) => {}
            other => panic!("expected {}, found {other:?}", stringify!($pattern)),
        }
    };
}

#[test]
fn a_plain_archive_is_accepted() {
    let bytes = archive(&[one(), Raw::new("d/", b""), Raw::new("d/ä.py", b"x"), Raw::new("e", b"")]);
    let archive = open(&bytes).unwrap();
    let names: Vec<_> =
        archive.members().iter().map(|member| (member.name.as_str(), member.is_dir)).collect();
    assert_eq!(names, [("a.py", false), ("d/", true), ("d/ä.py", false), ("e", false)]);
    let file = file_of(&bytes);
    assert_eq!(archive.members()[0].read(&file).unwrap(), TEXT);
    assert_eq!(archive.members()[2].read(&file).unwrap(), b"x");
    assert_eq!(archive.members()[0].unix_mode, Some(0o100_644));
}

#[test]
fn an_empty_archive_is_accepted() {
    assert!(open(&archive(&[])).unwrap().members().is_empty());
}

#[test]
fn members_in_another_order_than_the_directory_are_accepted() {
    let first = one();
    let second_at = u32::try_from(archive(&[one()]).len() - 22 - 46 - 4).unwrap();
    let bytes = archive(&[
        first.clone().with(|raw| {
            raw.central = Raw::new("b.py", TEXT).central;
            raw.offset = Some(second_at);
        }),
        Raw::new("b.py", TEXT).with(|raw| {
            raw.central = first.central.clone();
            raw.offset = Some(0);
        }),
    ]);
    assert_eq!(open(&bytes).unwrap().members()[0].name, "b.py");
}

#[test]
fn comments_and_foreign_extra_fields_are_accepted() {
    let tail = Tail { comment: b"hello".to_vec(), ..Tail::default() };
    let raw = one().with(|raw| {
        raw.comment = b"note".to_vec();
        raw.local.extra = vec![0x55, 0x54, 1, 0, 9];
        raw.central.extra = vec![0x55, 0x54, 2, 0, 9, 9];
    });
    assert!(open(&archive_with(&[raw], &tail)).is_ok());
}

#[test]
fn data_descriptors_are_accepted_when_they_agree() {
    for signature in [false, true] {
        let raw = one().deferred(signature);
        assert!(open(&archive(&[raw.clone(), Raw::new("b", TEXT).deferred(signature)])).is_ok());
        // Some writers fill in the local header as well.
        let filled = raw.with(|raw| {
            raw.local = raw.central.clone();
        });
        assert!(open(&archive(&[filled])).is_ok());
    }
}

#[test]
fn data_descriptors_that_disagree_are_refused() {
    for at in [0, 4, 8, 12] {
        let raw = one().deferred(true).with(|raw| raw.after[at] ^= 1);
        assert_refused!(archive(&[raw]), ReadError::Descriptor { .. });
    }
    for len in [0, 4, 11, 13, 15] {
        let raw = one().deferred(true).with(|raw| raw.after.resize(len, 0));
        assert_refused!(archive(&[raw]), ReadError::Descriptor { .. });
    }
    let long = one().deferred(true).with(|raw| raw.after.resize(24, 0));
    assert_refused!(archive(&[long]), ReadError::Descriptor { .. });
    let hidden = one().deferred(true).with(|raw| raw.after.resize(300, 0));
    assert_refused!(archive(&[hidden]), ReadError::Descriptor { .. });
}

#[test]
fn stored_members_with_a_data_descriptor_are_refused() {
    assert_refused!(archive(&[Raw::new("a", b"x").deferred(true)]), ReadError::Descriptor { .. });
    assert!(open(&archive(&[Raw::new("d/", b"").deferred(true)])).is_ok());
}

#[test]
fn what_is_not_an_archive_is_refused() {
    assert_refused!([], ReadError::NoEnd);
    assert_refused!(*b"PK\x05\x06", ReadError::NoEnd);
    assert_refused!([0; 1000], ReadError::NoEnd);
    let bytes = archive(&[one()]);
    assert_refused!(bytes[..bytes.len() - 1], ReadError::NoEnd);
    assert_refused!(bytes[4..], ReadError::DirectoryPlace { .. });
}

#[test]
fn data_after_the_end_is_refused() {
    let tail = Tail { after_end: vec![0], ..Tail::default() };
    assert_refused!(archive_with(&[one()], &tail), ReadError::TrailingData { extra: 1 });
    let tail = Tail { after_end: archive(&[one()]), ..Tail::default() };
    assert_refused!(archive_with(&[one()], &tail), ReadError::DirectoryPlace { .. });
}

#[test]
fn a_comment_beyond_the_file_is_refused() {
    let mut bytes = archive(&[one()]);
    let len = bytes.len();
    bytes[len - 2] = 9;
    assert_refused!(bytes, ReadError::TruncatedEnd);
}

#[test]
fn two_end_records_are_refused() {
    // The inner one is the last, and the outer one's comment ends with the file as well.
    let tail = Tail { comment: archive(&[]), ..Tail::default() };
    assert_refused!(archive_with(&[one()], &tail), ReadError::AmbiguousEnd);
}

#[test]
fn data_before_the_first_member_is_refused() {
    let mut bytes = b"#!/bin/sh\n".to_vec();
    bytes.extend(archive(&[one()]));
    assert_refused!(bytes, ReadError::DirectoryPlace { .. });
    // The same with offsets that account for it.
    let shim = one().with(|raw| raw.after = b"0123456789".to_vec());
    let mut bytes = archive(&[shim, Raw::new("b", TEXT)]);
    assert_refused!(bytes, ReadError::Gap { size: 10, .. });
    bytes = archive(&[one(), Raw::new("b", TEXT)]);
    let len = bytes.len();
    // Only the second member is listed; the first one's bytes are left over.
    let first = bytes.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    bytes.drain(first..first + 50);
    let size = u32::try_from(len - 22 - first - 50).unwrap();
    let end = bytes.len() - 22;
    bytes[end + 8..end + 12].copy_from_slice(&[1, 0, 1, 0]);
    bytes[end + 12..end + 16].copy_from_slice(&size.to_le_bytes());
    assert_refused!(bytes, ReadError::Gap { offset: 0, .. });
}

#[test]
fn data_between_members_and_before_the_directory_is_refused() {
    let gap = one().with(|raw| raw.after = b"hidden".to_vec());
    assert_refused!(archive(&[gap.clone(), Raw::new("b", TEXT)]), ReadError::Gap { size: 6, .. });
    assert_refused!(archive(&[gap]), ReadError::Gap { size: 6, .. });
    let tail = Tail { before_directory: b"hidden".to_vec(), ..Tail::default() };
    assert_refused!(archive_with(&[one()], &tail), ReadError::Gap { size: 6, .. });
    assert_refused!(archive_with(&[], &tail), ReadError::Gap { size: 6, .. });
}

#[test]
fn data_after_the_directory_is_refused() {
    let tail = Tail { after_directory: b"hidden".to_vec(), ..Tail::default() };
    assert_refused!(archive_with(&[one()], &tail), ReadError::DirectoryPlace { .. });
}

#[test]
fn overlapping_members_are_refused() {
    let same = [one(), Raw::new("b.py", TEXT).with(|raw| raw.offset = Some(0))];
    assert_refused!(archive(&same), ReadError::Overlap { .. });
    let into_directory = one().with(|raw| raw.data.truncate(10));
    assert_refused!(archive(std::slice::from_ref(&into_directory)), ReadError::Overlap { .. });
    assert_refused!(archive(&[into_directory, Raw::new("b", TEXT)]), ReadError::Overlap { .. });
    let beyond = one().with(|raw| raw.offset = Some(u32::MAX));
    assert_refused!(archive(&[beyond]), ReadError::Gap { .. });
}

#[test]
fn an_offset_without_a_local_header_is_refused() {
    let mut bytes = archive(&[one()]);
    bytes[0] = 0;
    assert_refused!(bytes, ReadError::NoLocal { offset: 0, .. });
}

#[test]
fn duplicate_names_are_refused() {
    let duplicate =
        |names: &[&str]| archive(&names.iter().map(|name| Raw::new(name, b"")).collect::<Vec<_>>());
    assert_refused!(duplicate(&["a", "a"]), ReadError::Name { reason: NameError::Duplicate, .. });
    assert_refused!(duplicate(&["d/", "d/"]), ReadError::Name { reason: NameError::Duplicate, .. });
    // These are duplicates once normalised, and refused for not being normal.
    assert_refused!(duplicate(&["d/a", "d//a"]), ReadError::Name { reason: NameError::NotNormal, .. });
    assert_refused!(duplicate(&["a", "./a"]), ReadError::Name { reason: NameError::NotNormal, .. });
    for names in [["a", "a/"], ["a", "a/b"], ["a/b", "a"], ["a/b/c", "a/b"]] {
        assert_refused!(duplicate(&names), ReadError::Name { reason: NameError::FileAndDirectory, .. });
    }
}

#[test]
fn names_that_leave_the_root_or_read_differently_are_refused() {
    let cases = [
        ("../a", NameError::Traversal),
        ("a/../../b", NameError::Traversal),
        ("/a", NameError::Absolute),
        ("C:/a", NameError::Drive),
        ("a\\b", NameError::Backslash),
        ("a.py\0.txt", NameError::Control),
        ("a\nb", NameError::Control),
        ("", NameError::Empty),
        ("a/./b", NameError::NotNormal),
    ];
    for (name, expected) in cases {
        match open(&archive(&[Raw::new(name, TEXT)])) {
            Err(ReadError::Name { reason, .. }) => assert_eq!(reason, expected, "{name:?}"),
            other => panic!("{name:?}: {other:?}"),
        }
    }
}

#[test]
fn names_in_an_unknown_encoding_are_refused() {
    let unflagged = Raw::new("ä", TEXT).both(|header| header.flags = 0);
    assert_refused!(archive(&[unflagged]), ReadError::NameEncoding { .. });
    let not_utf8 = Raw::new("ä", TEXT).both(|header| header.name = vec![b'a', 0xff]);
    assert_refused!(archive(&[not_utf8]), ReadError::NameEncoding { .. });
    let ascii_flagged = one().both(|header| header.flags = 1 << 11);
    assert!(open(&archive(&[ascii_flagged])).is_ok());
}

#[test]
fn a_second_name_in_an_extra_field_is_refused() {
    let mut extra = vec![0x75, 0x70, 9, 0, 1, 0, 0, 0, 0];
    extra.extend(b"b.py");
    for local in [false, true] {
        let raw =
            one().with(|raw| if local { &mut raw.local } else { &mut raw.central }.extra = extra.clone());
        assert_refused!(archive(&[raw]), ReadError::Extra { .. });
    }
}

#[test]
fn malformed_extra_fields_are_refused() {
    for extra in [vec![1], vec![0x55, 0x54, 9, 0, 1], vec![1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        for local in [false, true] {
            let raw =
                one().with(|raw| if local { &mut raw.local } else { &mut raw.central }.extra = extra.clone());
            assert_refused!(archive(&[raw]), ReadError::Extra { .. });
        }
    }
}

#[test]
fn local_headers_that_differ_are_refused() {
    type Change = fn(&mut Raw);
    let cases: [(&str, Change); 7] = [
        ("name", |raw| raw.local.name = b"b.py".to_vec()),
        ("name", |raw| raw.local.name = b"a.pyc".to_vec()),
        ("flags", |raw| raw.local.flags ^= 1 << 11),
        ("method", |raw| raw.local.method = 0),
        ("CRC", |raw| raw.local.crc32 ^= 1),
        ("size", |raw| raw.local.size += 1),
        ("compressed size", |raw| raw.local.compressed_size -= 1),
    ];
    for (expected, change) in cases {
        match open(&archive(&[one().with(change)])) {
            Err(ReadError::LocalMismatch { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    // Zero is allowed only where a descriptor follows.
    let zero = one().with(|raw| raw.local.crc32 = 0);
    assert_refused!(archive(&[zero]), ReadError::LocalMismatch { field: "CRC", .. });
}

#[test]
fn encryption_and_unknown_flags_are_refused() {
    for flag in [0, 6, 13] {
        let raw = one().both(|header| header.flags |= 1 << flag);
        assert_refused!(archive(&[raw]), ReadError::Encrypted { .. });
    }
    for flag in [4, 5, 7, 8, 9, 10, 12, 14, 15] {
        let raw = one().both(|header| header.flags |= 1 << flag);
        assert_refused!(archive(&[raw]), ReadError::Flags { .. });
    }
    assert!(open(&archive(&[one().both(|header| header.flags = 6)])).is_ok());
}

#[test]
fn other_methods_are_refused() {
    for method in [1, 9, 12, 14, 93, 99] {
        let raw = one().both(|header| header.method = method);
        assert_refused!(archive(&[raw]), ReadError::Method { .. });
    }
}

#[test]
fn links_and_special_files_are_refused() {
    for mode in [0o120_777, 0o060_644, 0o020_644, 0o010_644, 0o140_644, 0o040_755] {
        let raw = one().with(|raw| raw.attributes = mode << 16);
        assert_refused!(archive(&[raw]), ReadError::FileType { .. });
    }
    let dos_directory = one().with(|raw| raw.attributes = 0x10);
    assert_refused!(archive(&[dos_directory]), ReadError::FileType { .. });
    let named_directory = Raw::new("d/", b"").with(|raw| raw.attributes = 0o100_644 << 16);
    assert_refused!(archive(&[named_directory]), ReadError::FileType { .. });
    for attributes in [0, 0o644 << 16, 0x20] {
        assert!(open(&archive(&[one().with(|raw| raw.attributes = attributes)])).is_ok());
    }
}

#[test]
fn links_are_taken_by_whoever_asks_for_them_and_nothing_is_below_one() {
    let link = |name: &str| Raw::new(name, b"../target").with(|raw| raw.attributes = 0o120_777 << 16);
    let taken = |members: &[Raw]| {
        let file = file_of(&archive(members));
        let archive = Archive::open_with_links(&file, &Limits::default())?;
        let content = |member: &Member| (member.is_link(), member.read(&file).unwrap());
        Ok::<_, ReadError>(archive.members().iter().map(content).collect::<Vec<_>>())
    };
    assert_eq!(taken(&[link("a")]).unwrap(), [(true, b"../target".to_vec())]);
    assert!(!taken(&[one()]).unwrap()[0].0);
    for below in [[link("a"), Raw::new("a/b", b"x")], [Raw::new("a/b", b"x"), link("a")]] {
        assert!(matches!(taken(&below), Err(ReadError::Name { .. })));
    }
    for mode in [0o060_644, 0o020_644, 0o010_644, 0o140_644, 0o040_755] {
        let special = one().with(|raw| raw.attributes = mode << 16);
        assert!(matches!(taken(&[special]), Err(ReadError::FileType { .. })));
    }
    assert!(matches!(taken(&[link("d/")]), Err(ReadError::FileType { .. })));
}

#[test]
fn impossible_sizes_are_refused() {
    assert_refused!(archive(&[Raw::new("d/", TEXT)]), ReadError::Sizes { .. });
    let stored = Raw::new("a", b"x").both(|header| header.size = 2);
    assert_refused!(archive(&[stored]), ReadError::Sizes { .. });
    let boasting = one().both(|header| header.size = 100 << 20);
    assert_refused!(archive(&[boasting]), ReadError::Sizes { .. });
}

#[test]
fn several_disks_are_refused() {
    let tail = Tail { disk: 1, ..Tail::default() };
    assert_refused!(archive_with(&[one()], &tail), ReadError::MultiDisk);
    assert_refused!(archive(&[one().with(|raw| raw.disk = 1)]), ReadError::MultiDisk);
    let mut bytes = archive(&[one()]);
    let end = bytes.len() - 22;
    bytes[end + 8] = 2;
    assert_refused!(bytes, ReadError::MultiDisk);
}

#[test]
fn a_directory_with_other_than_its_members_is_refused() {
    let more = Tail { extra_members: 1, ..Tail::default() };
    assert_refused!(archive_with(&[one()], &more), ReadError::Directory { .. });
    let mut fewer = archive(&[one(), Raw::new("b", TEXT)]);
    let end = fewer.len() - 22;
    fewer[end + 8..end + 12].copy_from_slice(&[1, 0, 1, 0]);
    assert_refused!(fewer, ReadError::Directory { .. });
    let long_name = {
        let mut bytes = archive(&[one()]);
        let header = bytes.len() - 22 - 50;
        bytes[header + 28] = 200;
        bytes
    };
    assert_refused!(long_name, ReadError::Directory { .. });
    let bad_signature = {
        let mut bytes = archive(&[one()]);
        let header = bytes.len() - 22 - 50;
        bytes[header] = 0;
        bytes
    };
    assert_refused!(bad_signature, ReadError::Directory { .. });
}

#[test]
fn zip64_records_are_accepted_when_they_agree() {
    for saturated in [false, true] {
        let tail = Tail { zip64: Some(|_| {}), saturated, ..Tail::default() };
        assert_eq!(open(&archive_with(&[one()], &tail)).unwrap().members().len(), 1);
    }
}

#[test]
fn zip64_records_that_disagree_are_refused() {
    let refused = |change: fn(&mut Vec<u8>), saturated| {
        let tail = Tail { zip64: Some(change), saturated, ..Tail::default() };
        open(&archive_with(&[one()], &tail)).unwrap_err()
    };
    assert!(matches!(refused(|r| r[40] ^= 1, false), ReadError::Zip64 { .. }), "directory size");
    assert!(matches!(refused(|r| r[48] ^= 1, false), ReadError::Zip64 { .. }), "directory offset");
    assert!(
        matches!(
            refused(
                |r| {
                    r[24] = 2;
                    r[32] = 2;
                },
                false
            ),
            ReadError::Zip64 { .. }
        ),
        "members"
    );
    assert!(matches!(refused(|r| r[24] = 2, true), ReadError::MultiDisk), "members on this disk");
    assert!(matches!(refused(|r| r[0] = 0, true), ReadError::Zip64 { .. }), "signature");
    assert!(matches!(refused(|r| r[4] = 45, true), ReadError::Zip64 { .. }), "record size");
    assert!(matches!(refused(|r| r[16] = 1, true), ReadError::MultiDisk), "disk");
    assert!(matches!(refused(|r| r[64] ^= 1, true), ReadError::Zip64 { .. }), "locator offset");
    assert!(matches!(refused(|r| r[72] = 2, true), ReadError::MultiDisk), "disks");
    assert!(
        matches!(refused(|r| r[48] ^= 1, true), ReadError::DirectoryPlace { .. }),
        "directory offset only"
    );
    assert!(
        matches!(
            refused(
                |r| {
                    r.splice(56..56, [0; 4]);
                },
                true
            ),
            ReadError::Zip64 { .. }
        ),
        "hidden bytes"
    );
    // Saturated, and no zip64 record.
    let tail = Tail { saturated: true, ..Tail::default() };
    assert_refused!(archive_with(&[one()], &tail), ReadError::DirectoryPlace { .. });
}

fn zip64_extra(values: &[u64]) -> Vec<u8> {
    let mut extra = vec![1, 0, u8::try_from(values.len() * 8).unwrap(), 0];
    extra.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    extra
}

#[test]
fn zip64_fields_hold_just_what_is_missing() {
    let size = TEXT.len() as u64;
    let compressed = u64::from(one().central.compressed_size);
    let wide = |values: &[u64]| {
        archive(&[one().both(|header| {
            header.size = u32::MAX;
            header.compressed_size = u32::MAX;
            header.extra = zip64_extra(values);
        })])
    };
    assert_eq!(open(&wide(&[size, compressed])).unwrap().members()[0].packed.size, size);
    assert_refused!(wide(&[size]), ReadError::Extra { .. });
    assert_refused!(wide(&[size, compressed, 0]), ReadError::Extra { .. });
    let two = one().both(|header| {
        header.size = u32::MAX;
        header.extra = [zip64_extra(&[size]), zip64_extra(&[size + 1])].concat();
    });
    assert_refused!(archive(&[two]), ReadError::Extra { .. });
    let local_differs = one().both(|header| {
        header.size = u32::MAX;
        header.extra = zip64_extra(&[size]);
    });
    let local_differs = local_differs.with(|raw| raw.local.extra = zip64_extra(&[size + 1]));
    assert_refused!(archive(&[local_differs]), ReadError::LocalMismatch { field: "size", .. });
}

/// Python's `zipfile` up to 3.11 writes it so where it was told to leave room for more, as in the wheels of protobuf and
/// selenium. Whoever reads either sees the same.
#[test]
fn a_local_zip64_field_may_say_both_sizes_again_and_nothing_else() {
    let size = TEXT.len() as u64;
    let compressed = u64::from(one().central.compressed_size);
    let local = |values: &[u64]| one().with(|raw| raw.local.extra = zip64_extra(values));
    assert_eq!(open(&archive(&[local(&[size, compressed])])).unwrap().members()[0].packed.size, size);
    for wrong in [
        &[size + 1, compressed][..],
        &[size, compressed + 1],
        &[compressed, size],
        &[0, 0],
        &[size],
        &[compressed],
        &[size, compressed, 0],
    ] {
        assert_refused!(archive(&[local(wrong)]), ReadError::Extra { .. });
    }
    // Nobody else writes it into the central directory, and behind a data descriptor it would say how long that is.
    let central = one().with(|raw| raw.central.extra = zip64_extra(&[size, compressed]));
    assert_refused!(archive(&[central]), ReadError::Extra { .. });
    let deferred = local(&[size, compressed]).deferred(true);
    assert_refused!(archive(&[deferred]), ReadError::Extra { .. });
}

#[test]
fn limits_are_kept() {
    let bytes = archive(&[one(), Raw::new("b", &vec![0; 100_000])]);
    let file = file_of(&bytes);
    let defaults = Limits::default;
    let open = |limits: Limits| Archive::open(&file, &limits).unwrap_err();
    assert!(matches!(open(Limits { members: 1, ..defaults() }), ReadError::TooManyMembers { found: 2, .. }));
    assert!(matches!(open(Limits { directory_size: 90, ..defaults() }), ReadError::DirectoryTooLarge { .. }));
    assert!(matches!(open(Limits { member_size: 99_999, ..defaults() }), ReadError::MemberTooLarge { .. }));
    assert!(matches!(open(Limits { total_size: 100_000, ..defaults() }), ReadError::TooLarge { .. }));
    assert!(matches!(open(Limits { ratio_from: 0, ..defaults() }), ReadError::Ratio { .. }));
    assert!(Archive::open(&file, &defaults()).is_ok());
}

#[test]
fn a_bomb_is_refused_by_its_ratio() {
    let (packed, data) = lbx_archive::compress(&vec![0; 10 << 20]);
    let members: Vec<Raw> = (0..10).map(|at| Raw::of(&format!("{at}"), packed, data.clone())).collect();
    assert_refused!(archive(&members), ReadError::Ratio { .. });
}

fn read_error(packed: Packed, data: Vec<u8>) -> std::io::Error {
    let bytes = archive(&[Raw::of("a", packed, data)]);
    let file = file_of(&bytes);
    open(&bytes).unwrap().members()[0].read(&file).unwrap_err()
}

fn member_error(packed: Packed, data: Vec<u8>) -> MemberError {
    *read_error(packed, data).into_inner().unwrap().downcast().unwrap()
}

#[test]
fn content_that_is_not_what_the_header_says_is_refused() {
    let (packed, data) = lbx_archive::compress(TEXT);
    assert_eq!(packed.method, Method::Deflated);
    let size = packed.size;
    let longer = Packed { size: size + 1, ..packed };
    assert!(matches!(member_error(longer, data.clone()), MemberError::Size { .. }));
    let shorter = Packed { size: size - 1, ..packed };
    assert!(matches!(member_error(shorter, data.clone()), MemberError::Size { .. }));
    let crc = Packed { crc32: packed.crc32 ^ 1, ..packed };
    assert!(matches!(member_error(crc, data.clone()), MemberError::Crc { .. }));
    let trailing = Packed { compressed_size: packed.compressed_size + 3, ..packed };
    let with_trailing = [&data[..], b"abc"].concat();
    assert_eq!(member_error(trailing, with_trailing), MemberError::TrailingBytes { extra: 3 });
    let truncated = Packed { compressed_size: packed.compressed_size - 1, ..packed };
    read_error(truncated, data[..data.len() - 1].to_vec());
    read_error(packed, vec![0xff; data.len()]);
    let stored = Packed { method: Method::Stored, crc32: 1, compressed_size: 3, size: 3 };
    assert!(matches!(member_error(stored, b"abc".to_vec()), MemberError::Crc { .. }));
}

#[test]
fn a_member_can_be_read_in_small_pieces() {
    let bytes = archive(&[one()]);
    let file = file_of(&bytes);
    let archive = open(&bytes).unwrap();
    let mut reader = archive.members()[0].open(&file);
    let mut content = Vec::<u8>::new();
    let mut piece = [0; 7];
    loop {
        match reader.read(&mut piece).unwrap() {
            0 => break,
            count => content.extend(&piece[..count]),
        }
    }
    assert_eq!(content, TEXT);
    assert_eq!(reader.read(&mut piece).unwrap(), 0);
}
