//! Wheels that must be refused, one rule at a time, and nothing of them left in the store.

use lbx_wheel::{WheelError, WheelStore};

use crate::craft::{Craft, DIST_INFO, line};

/// Adds the wheel to a new store, which must refuse it and stay empty.
fn refused(craft: &Craft) -> WheelError {
    refused_bytes(&craft.filename, &craft.bytes())
}

fn refused_bytes(filename: &str, bytes: &[u8]) -> WheelError {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(filename);
    fs_err::write(&path, bytes).unwrap();
    let root = directory.path().join("store");
    let store = WheelStore::open(&root).unwrap();
    let error = store.add(&path).expect_err("the wheel is refused");
    let left: Vec<_> = fs_err::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != ".lock")
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    match error {
        WheelError::Refused { reason, path: named } => {
            assert_eq!(named, path);
            *reason
        }
        other => panic!("{other:?}"),
    }
}

fn good() -> Craft {
    Craft::new().file("foo/__init__.py", "x = 1\n")
}

macro_rules! assert_refused {
    ($craft:expr, $pattern:pat $(if $guard:expr)?) => {
        match refused(&$craft) {
            $pattern $(if $guard)? => {}
            other => panic!("expected {}, found {other:?}", stringify!($pattern)),
        }
    };
}

#[test]
fn the_wheel_that_the_others_are_made_from_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let store = WheelStore::open(&directory.path().join("store")).unwrap();
    let wheel = store.add(&good().write(directory.path())).unwrap();
    assert_eq!(wheel.metadata.name, "Foo.Bar");
    assert_eq!(wheel.dist_info, DIST_INFO);
}

#[test]
fn content_that_differs_from_record_is_refused() {
    let other = good().lying(|record| {
        record.replace(&line("foo/__init__.py", b"x = 1\n"), &line("foo/__init__.py", b"x = 2\n"))
    });
    assert_refused!(other, WheelError::RecordMismatch { what: "sha256", .. });
    let size = good().lying(|record| record.replace(",6\n", ",7\n"));
    assert_refused!(size, WheelError::RecordMismatch { what: "size", .. });
}

#[test]
fn longer_digests_are_checked() {
    let with = |digest: &str| {
        let digest = digest.to_owned();
        Craft::new().file("e.py", "").lying(move |record| {
            record.replace("sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", &digest)
        })
    };
    let sha384 = "sha384=OLBgp1GsljhM2TJ-sbHjaiH9txEUvgdDTAzHv2P24donTt6_529l-9Ua0vFImLlb";
    let sha512 =
        "sha512=z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg_SpIdNs6c5H0NE8XYXysP-DGNKHfuwvY7kxvUdBeoGlODJ6-SfaPg";
    let directory = tempfile::tempdir().unwrap();
    let store = WheelStore::open(&directory.path().join("store")).unwrap();
    for digest in [sha384, sha512] {
        store.add(&with(digest).write(directory.path())).unwrap();
    }
    assert_refused!(with(&sha384.replace("OLB", "OLC")), WheelError::RecordMismatch { what: "sha384", .. });
    assert_refused!(with(&sha512.replace("z4P", "z4Q")), WheelError::RecordMismatch { what: "sha512", .. });
}

#[test]
fn weak_and_missing_digests_are_refused() {
    let md5 = Craft::new().file("e.py", "").lying(|record| {
        record.replace("sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", "md5=1B2M2Y8AsgTpgAmY7PhCfg")
    });
    assert_refused!(md5, WheelError::Record { line: 3, .. });
    let none =
        good().lying(|record| record.replace(&line("foo/__init__.py", b"x = 1\n"), "foo/__init__.py,,\n"));
    assert_refused!(none, WheelError::NoDigest { .. });
}

#[test]
fn members_and_record_must_list_the_same() {
    let missing_line = good().lying(|record| record.replace(&line("foo/__init__.py", b"x = 1\n"), ""));
    assert_refused!(missing_line, WheelError::NotRecorded { .. });
    let missing_member = good().lying(|record| record + &line("foo/more.py", b""));
    assert_refused!(missing_member, WheelError::RecordedButMissing { .. });
    let only_in_dist_info = good()
        .file(&format!("{DIST_INFO}/evil.py"), "x")
        .lying(|record| record.replace(&line(&format!("{DIST_INFO}/evil.py"), b"x"), ""));
    assert_refused!(only_in_dist_info, WheelError::NotRecorded { .. });
}

#[test]
fn signatures_of_record_need_no_line() {
    let name = format!("{DIST_INFO}/RECORD.jws");
    let signed = good().file(&name, "{}").lying(|record| record.replace(&line(&name, b"{}"), ""));
    let directory = tempfile::tempdir().unwrap();
    let store = WheelStore::open(&directory.path().join("store")).unwrap();
    store.add(&signed.write(directory.path())).unwrap();
}

#[test]
fn record_paths_that_leave_the_wheel_are_refused() {
    for path in ["../evil.py", "/evil.py", "foo/../../evil.py", "foo\\evil.py"] {
        let evil = good().lying(|record| record + &line(path, b""));
        assert_refused!(evil, WheelError::Record { line: 5, .. });
    }
}

#[test]
fn members_that_leave_the_wheel_are_refused() {
    for name in ["../evil.py", "foo_bar-1.0.data/data/../../evil.py", "foo_bar-1.0.data/scripts/../evil"] {
        // The `zip` crate would write it, and RECORD's own rule is not the one under test.
        let evil = good().file("placeholder-of-same-length-or-so", "x");
        let mut bytes = evil.bytes();
        let padded = format!("{name:x<32}");
        let padded = &padded.as_bytes()[..32];
        for at in 0..bytes.len() - 32 {
            if bytes[at..].starts_with(b"placeholder-of-same-length-or-so") {
                bytes[at..at + 32].copy_from_slice(padded);
            }
        }
        let error = refused_bytes(&evil.filename, &bytes);
        assert!(
            matches!(error, WheelError::Archive(lbx_archive::ReadError::Name { .. })),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn data_without_a_known_scheme_is_refused() {
    for name in ["foo_bar-1.0.data/evil/x", "foo_bar-1.0.data/x", "other.data/include/x"] {
        assert_refused!(good().file(name, "x"), WheelError::Scheme { .. });
    }
}

#[test]
fn another_name_or_version_is_refused() {
    let metadata = |text: &str| good().file(&format!("{DIST_INFO}/METADATA"), text);
    assert_refused!(metadata("Name: other\nVersion: 1.0\n"), WheelError::Mismatch { field: "name", .. });
    assert_refused!(metadata("Name: foo-bar\nVersion: 1.1\n"), WheelError::Mismatch { field: "version", .. });
    assert_refused!(metadata("Name: foo-bar\n"), WheelError::Malformed { .. });
    let mut renamed = good();
    renamed.filename = "foo_bar-2.0-py3-none-any.whl".into();
    assert_refused!(renamed, WheelError::DistInfo { .. });
    renamed.filename = "other-1.0-py3-none-any.whl".into();
    assert_refused!(renamed, WheelError::DistInfo { .. });
}

#[test]
fn one_dist_info_directory_is_expected() {
    let two = good().file("foo_bar-1.1.dist-info/METADATA", "");
    assert_refused!(two, WheelError::DistInfo { ref found, .. } if found.len() == 2);
    let other_case = good().file("evil-1.0.DIST-INFO/METADATA", "");
    assert_refused!(other_case, WheelError::DistInfo { .. });
}

#[test]
fn the_metadata_files_must_be_there() {
    for name in ["METADATA", "WHEEL"] {
        let name = format!("{DIST_INFO}/{name}");
        assert_refused!(good().without(&name), WheelError::Missing { ref member } if *member == name);
    }
    let future = good().file(&format!("{DIST_INFO}/WHEEL"), "Wheel-Version: 2.0\nRoot-Is-Purelib: true\n");
    assert_refused!(future, WheelError::WheelVersion { .. });
}

#[test]
fn two_members_for_one_path_are_refused() {
    for name in ["purelib", "platlib", "data/lib/python"] {
        let twice = good().file(&format!("foo_bar-1.0.data/{name}/foo/__init__.py"), "x = 2\n");
        assert_refused!(twice, WheelError::Collision { ref path, .. } if path == "foo/__init__.py");
    }
    let nested = good().file("foo_bar-1.0.data/purelib/foo", "a file");
    assert_refused!(nested, WheelError::Collision { .. });
}

#[test]
fn bombs_are_refused() {
    let bomb = good().file("foo/zeros", vec![0; 80 << 20]);
    assert_refused!(bomb, WheelError::Archive(lbx_archive::ReadError::Ratio { .. }));
}

#[test]
fn damaged_content_is_refused() {
    let mut bytes = good().file_with("foo/big.py", vec![b'x'; 5000], 0o100_644, true).bytes();
    let at = bytes.windows(100).position(|window| window == [b'x'; 100]).unwrap();
    bytes[at] = b'y';
    let error = refused_bytes(&good().filename, &bytes);
    assert!(matches!(error, WheelError::Content { ref member, .. } if member == "foo/big.py"), "{error:?}");
}

#[test]
fn what_is_not_a_wheel_is_refused() {
    assert!(matches!(refused_bytes("a-1.0-py3-none-any.whl", b"no"), WheelError::Archive(_)));
    assert!(matches!(refused_bytes("a.zip", b"no"), WheelError::Filename { .. }));
}

#[test]
fn the_refusal_names_the_wheel_and_chains_the_cause() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a-1.0-py3-none-any.whl");
    fs_err::write(&path, "no").unwrap();
    let store = WheelStore::open(&directory.path().join("store")).unwrap();
    let error = store.add(&path).unwrap_err();
    let mut chain = vec![error.to_string()];
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        chain.push(error.to_string());
        cause = error.source();
    }
    assert_eq!(chain[0], format!("wheel {} refused", path.display()));
    assert_eq!(
        chain[1..],
        ["it is not an acceptable zip archive", "not a zip archive: no end of central directory record"]
    );
}

#[test]
fn a_file_that_is_far_too_large_is_refused_without_being_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse-1-py3-none-any.whl");
    fs_err::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let store = WheelStore::open(&directory.path().join("store")).unwrap();
    let start = std::time::Instant::now();
    let error = store.add(&path).unwrap_err();
    let WheelError::Refused { reason, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*reason, WheelError::TooLarge { size: 0x100_0000_0000, .. }), "{reason:?}");
    // Reading a terabyte takes minutes on any machine; this is no measurement.
    assert!(start.elapsed().as_secs() < 30);
}

#[test]
fn a_sparse_file_below_the_limit_is_refused_without_being_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse-1-py3-none-any.whl");
    fs_err::File::create(&path).unwrap().set_len(2 << 30).unwrap();
    let root = directory.path().join("store");
    let store = WheelStore::open(&root).unwrap();
    let asked = std::sync::atomic::AtomicU32::new(0);
    let go_on = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < u32::MAX;
    let error = store.add_with(&path, &go_on).unwrap_err();
    let WheelError::Refused { reason, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*reason, WheelError::Archive(lbx_archive::ReadError::NoEnd)), "{reason:?}");
    // It is asked once for every read.
    assert_eq!(asked.into_inner(), 0);
}

#[test]
fn what_is_not_a_file_is_refused_without_being_opened() {
    let directory = tempfile::tempdir().unwrap();
    let store = WheelStore::open(&directory.path().join("store")).unwrap();
    // Reading it would never end.
    let path = directory.path().join("zero-1-py3-none-any.whl");
    fs_err::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    let error = store.add(&path).unwrap_err();
    let WheelError::Refused { reason, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*reason, WheelError::NotAFile), "{reason:?}");
}
