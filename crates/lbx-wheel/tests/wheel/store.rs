//! The store: found again, rebuilt when damaged, complete or absent, shared.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lbx_archive::{Archive, Limits, Method, Timestamp};
use lbx_wheel::{Kind, Location, Wheel, WheelError, WheelStore};

use crate::craft::{Craft, DIST_INFO};

fn sample() -> Craft {
    let noise: Vec<u8> = (0..200u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    Craft::new()
        .file("foo/", "")
        .file("foo/__init__.py", "import os\n".repeat(50))
        .file_with("foo/stored.py", "import sys\n".repeat(50), 0o100_644, true)
        .file_with("foo/noise", noise, 0o100_644, true)
        .file_with("foo/ext.so", "ELF".repeat(100), 0o100_755, false)
        .file_with("foo/typeless", "x", 0o755, false)
        .file("foo_bar-1.0.data/scripts/run", "#!python\nprint(1)\n")
        .file("foo_bar-1.0.data/scripts/plain", "#!/bin/sh\n")
        .file("foo_bar-1.0.data/scripts/tool", "#!python\n")
        .file("foo_bar-1.0.data/data/lib/x", "lost")
        .file(&format!("{DIST_INFO}/entry_points.txt"), "[console_scripts]\ntool = foo:main\n")
}

struct Fixture {
    directory: tempfile::TempDir,
    wheel: PathBuf,
}

impl Fixture {
    fn new(craft: &Craft) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let wheel = craft.write(directory.path());
        Self { directory, wheel }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// A store that remembers nothing, as in a new process.
    fn store(&self) -> WheelStore {
        WheelStore::open(&self.root()).unwrap()
    }

    fn stored(&self, name: &str) -> PathBuf {
        let wheel = self.store().add(&self.wheel).unwrap();
        let parent = wheel.path().parent().unwrap().to_owned();
        let entry = fs_err::read_dir(&parent).unwrap().map(|entry| entry.unwrap().path());
        entry.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with(name)).unwrap()
    }
}

/// The zip of everything that a wheel installs.
fn pack(wheel: &Wheel) -> Vec<u8> {
    let open = wheel.open().unwrap();
    let entries: Vec<_> = wheel.files.iter().map(|file| wheel.entry(file, &open)).collect();
    let mut out = Vec::new();
    lbx_archive::write(&mut out, &entries, Timestamp::default()).unwrap();
    out
}

fn file<'w>(wheel: &'w Wheel, path: &str) -> &'w lbx_wheel::InstalledFile {
    wheel.files.iter().find(|file| file.path == path).unwrap()
}

#[test]
fn a_wheel_is_mapped_and_its_files_can_be_packed() {
    let fixture = Fixture::new(&sample());
    let wheel = fixture.store().add(&fixture.wheel).unwrap();
    let paths: Vec<&str> = wheel.files.iter().map(|file| file.path.as_str()).collect();
    let expected = [
        "bin/plain",
        "bin/run",
        "foo/__init__.py",
        "foo/ext.so",
        "foo/noise",
        "foo/stored.py",
        "foo/typeless",
        "foo_bar-1.0.dist-info/METADATA",
        "foo_bar-1.0.dist-info/RECORD",
        "foo_bar-1.0.dist-info/WHEEL",
        "foo_bar-1.0.dist-info/entry_points.txt",
    ];
    assert_eq!(paths, expected);
    assert_eq!(file(&wheel, "bin/run").kind, Kind::Script { shebang: true });
    assert_eq!(file(&wheel, "bin/plain").kind, Kind::Script { shebang: false });
    assert_eq!(file(&wheel, "foo_bar-1.0.dist-info/RECORD").kind, Kind::Metadata);
    assert!(file(&wheel, "foo/ext.so").executable);
    assert!(!file(&wheel, "foo/typeless").executable);
    assert_eq!(wheel.left_out.len(), 2);
    assert_eq!(wheel.console_scripts[0].name, "tool");

    let bytes = pack(&wheel);
    let path = fixture.directory.path().join("out.zip");
    fs_err::write(&path, &bytes).unwrap();
    let out = fs_err::File::open(&path).unwrap().into_file();
    let archive = Archive::open(&out, &Limits::default()).unwrap();
    for member in archive.members() {
        let original = sample()
            .files
            .into_iter()
            .find(|file| file.name.ends_with(&member.name.replace("bin/", "scripts/")));
        let content = member.read(&out).unwrap();
        if let Some(original) = original {
            assert_eq!(content, original.content, "{}", member.name);
        }
    }
    assert_eq!(archive.members().len(), expected.len());
}

#[test]
fn stored_members_are_compressed_when_that_makes_them_smaller() {
    let fixture = Fixture::new(&sample());
    let wheel = fixture.store().add(&fixture.wheel).unwrap();
    let anew = file(&wheel, "foo/stored.py");
    assert_eq!(anew.packed.method, Method::Deflated);
    assert!(matches!(anew.location, Location::Sidecar { offset: 0 }));
    assert!(anew.packed.compressed_size < anew.packed.size);
    let noise = file(&wheel, "foo/noise");
    assert_eq!(noise.packed.method, Method::Stored);
    assert!(matches!(noise.location, Location::Wheel { .. }));
}

#[test]
fn a_wheel_is_found_again_by_its_digest() {
    let fixture = Fixture::new(&sample());
    let added = fixture.store().add(&fixture.wheel).unwrap();
    fs_err::remove_file(&fixture.wheel).unwrap();
    let store = fixture.store();
    let found = store.get(added.digest).unwrap().unwrap();
    assert_eq!(format!("{added:?}"), format!("{found:?}"));
    assert_eq!(pack(&added), pack(&found));
    assert!(Arc::ptr_eq(&found, &store.get(added.digest).unwrap().unwrap()));
    assert_eq!(added.digest.to_string().parse(), Ok(added.digest));
    let other = lbx_wheel::Digest([0; 32]);
    assert!(store.get(other).unwrap().is_none());
}

/// Damages a file of the store; the next store must give the same wheel again.
fn assert_survives(name: &str, damage: impl Fn(&Path)) {
    let fixture = Fixture::new(&sample());
    let before = fixture.store().add(&fixture.wheel).unwrap();
    let bytes = pack(&before);
    damage(&fixture.stored(name));
    let after = fixture.store().get(before.digest).unwrap().expect("the wheel is still there");
    assert_eq!(pack(&after), bytes);
    assert_eq!(before.files, after.files);
}

#[test]
fn an_index_that_does_not_verify_is_made_anew() {
    let len = fs_err::metadata(Fixture::new(&sample()).stored("index")).unwrap().len();
    for at in [0, 20, 60, 100, usize::try_from(len).unwrap() - 1] {
        assert_survives("index", |path| {
            let mut bytes = fs_err::read(path).unwrap();
            bytes[at] ^= 1;
            fs_err::write(path, bytes).unwrap();
        });
    }
    assert_survives("index", |path| fs_err::write(path, "").unwrap());
    assert_survives("index", |path| fs_err::remove_file(path).unwrap());
    assert_survives("index", |path| {
        let mut bytes = fs_err::read(path).unwrap();
        bytes.push(0);
        fs_err::write(path, bytes).unwrap();
    });
}

#[test]
fn a_sidecar_that_changed_is_made_anew() {
    assert_survives("sidecar", |path| fs_err::remove_file(path).unwrap());
    assert_survives("sidecar", |path| fs_err::write(path, "short").unwrap());
}

#[test]
fn a_stored_wheel_that_changed_counts_as_absent() {
    let fixture = Fixture::new(&sample());
    let digest = fixture.store().add(&fixture.wheel).unwrap().digest;
    let path = fixture.stored("foo_bar");
    let mut bytes = fs_err::read(&path).unwrap();
    bytes[40] ^= 1;
    fs_err::write(&path, bytes).unwrap();
    assert!(fixture.store().get(digest).unwrap().is_none());
    // And it can be added again.
    let again = fixture.store().add(&fixture.wheel).unwrap();
    assert_eq!(again.digest, digest);
    assert!(fixture.store().get(digest).unwrap().is_some());
}

#[test]
fn a_touched_wheel_is_still_the_wheel() {
    assert_survives("foo_bar", |path| {
        let bytes = fs_err::read(path).unwrap();
        fs_err::write(path, bytes).unwrap();
    });
}

#[test]
fn leftovers_of_killed_processes_are_removed() {
    let fixture = Fixture::new(&sample());
    let digest = fixture.store().add(&fixture.wheel).unwrap().digest;
    let leftover = fixture.root().join(".new-killed");
    fs_err::create_dir(&leftover).unwrap();
    fs_err::write(leftover.join("half"), "half").unwrap();
    let store = fixture.store();
    assert!(!leftover.exists());
    assert!(store.get(digest).unwrap().is_some());
}

#[test]
fn leftovers_that_cannot_be_removed_keep_nobody_from_using_the_store() {
    let fixture = Fixture::new(&sample());
    let digest = fixture.store().add(&fixture.wheel).unwrap().digest;
    // Root can remove the one, and nobody takes the other for a directory.
    let closed = fixture.root().join(".new-closed");
    fs_err::create_dir_all(closed.join("inner")).unwrap();
    fs_err::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
    fs_err::write(fixture.root().join(".new-file"), "").unwrap();
    assert!(fixture.store().get(digest).unwrap().is_some());
    if closed.exists() {
        fs_err::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    }
}

#[test]
fn what_another_process_is_making_is_not_removed() {
    let fixture = Fixture::new(&sample());
    drop(fixture.store());
    let lock = fs_err::File::open(fixture.root().join(".lock")).unwrap().into_file();
    lock.lock_shared().unwrap();
    let busy = fixture.root().join(".new-busy");
    fs_err::create_dir(&busy).unwrap();
    fixture.store().add(&fixture.wheel).unwrap();
    assert!(busy.exists());
    drop(lock);
    fixture.store();
    assert!(!busy.exists());
}

#[test]
fn many_adds_at_once_give_one_wheel() {
    let fixture = Fixture::new(&sample());
    let digests: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| fixture.store().add(&fixture.wheel).unwrap().digest)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    let names: Vec<_> =
        fs_err::read_dir(fixture.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "the locks and the wheel: {names:?}");
}

#[test]
fn the_same_bytes_under_another_name_have_the_other_tags() {
    let fixture = Fixture::new(&sample());
    let first = fixture.store().add(&fixture.wheel).unwrap();
    let other = fixture.directory.path().join("foo_bar-1.0-1-py38-none-any.whl");
    fs_err::copy(&fixture.wheel, &other).unwrap();
    let second = fixture.store().add(&other).unwrap();
    assert_eq!(first.digest, second.digest);
    assert_eq!(second.filename.python, ["py38"]);
    assert_eq!(pack(&first), pack(&second));
    let wrong = fixture.directory.path().join("other-1.0-py3-none-any.whl");
    fs_err::copy(&fixture.wheel, &wrong).unwrap();
    assert!(fixture.store().add(&wrong).is_err());
}

#[test]
fn the_mode_of_the_added_file_does_not_matter() {
    let fixture = Fixture::new(&sample());
    fs_err::set_permissions(&fixture.wheel, std::fs::Permissions::from_mode(0o400)).unwrap();
    fixture.store().add(&fixture.wheel).unwrap();
}

/// Flips a bit of every byte in the file's middle, and leaves size and times as they were.
fn flip_unseen(path: &Path) {
    let modified = fs_err::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs_err::read(path).unwrap();
    let len = bytes.len();
    for byte in &mut bytes[len / 4..len / 2] {
        *byte ^= 1;
    }
    fs_err::write(path, bytes).unwrap();
    let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
    file.file().set_modified(modified).unwrap();
}

/// Damage that size and times do not show: `get` does not see it, and the next `add` makes it good.
fn assert_add_repairs(name: &str, same_store: bool) {
    let fixture = Fixture::new(&sample());
    let first = fixture.store();
    let before = first.add(&fixture.wheel).unwrap();
    let bytes = pack(&before);
    flip_unseen(&fixture.stored(name));
    assert_ne!(pack(&fixture.store().get(before.digest).unwrap().unwrap()), bytes, "the damage counts");

    let store = if same_store { first } else { fixture.store() };
    let after = store.add(&fixture.wheel).unwrap();
    assert_eq!(pack(&after), bytes);
    assert_eq!(before.files, after.files);
    // And for everyone: the one who has it in memory, and the next one.
    assert_eq!(pack(&before), bytes);
    assert_eq!(pack(&store.get(before.digest).unwrap().unwrap()), bytes);
    assert_eq!(pack(&fixture.store().get(before.digest).unwrap().unwrap()), bytes);
}

#[test]
fn add_repairs_a_stored_wheel_that_was_changed_unseen() {
    assert_add_repairs("foo_bar", false);
    assert_add_repairs("foo_bar", true);
}

#[test]
fn add_repairs_a_sidecar_that_was_changed_unseen() {
    assert_add_repairs("sidecar", false);
    assert_add_repairs("sidecar", true);
}

#[test]
fn add_repairs_what_was_removed() {
    for name in ["foo_bar", "sidecar", "index"] {
        let fixture = Fixture::new(&sample());
        let store = fixture.store();
        let before = store.add(&fixture.wheel).unwrap();
        let bytes = pack(&before);
        for store in [fixture.store(), store] {
            fs_err::remove_file(fixture.stored(name)).unwrap();
            assert_eq!(pack(&store.add(&fixture.wheel).unwrap()), bytes, "{name}");
        }
        assert_eq!(pack(&fixture.store().get(before.digest).unwrap().unwrap()), bytes, "{name}");
    }
}

#[test]
fn a_repair_under_another_name_keeps_the_stored_name() {
    let fixture = Fixture::new(&sample());
    let first = fixture.store().add(&fixture.wheel).unwrap();
    let bytes = pack(&first);
    flip_unseen(&fixture.stored("foo_bar"));
    let other = fixture.directory.path().join("foo_bar-1.0-1-py38-none-any.whl");
    fs_err::copy(&fixture.wheel, &other).unwrap();
    let second = fixture.store().add(&other).unwrap();
    assert_eq!(second.filename.python, ["py38"]);
    assert_eq!(pack(&second), bytes);
    assert_eq!(pack(&first), bytes);
    assert_eq!(fixture.store().get(first.digest).unwrap().unwrap().filename, first.filename);
}

#[test]
fn many_repairs_at_once_give_one_wheel() {
    let fixture = Fixture::new(&sample());
    let before = fixture.store().add(&fixture.wheel).unwrap();
    let bytes = pack(&before);
    for name in ["foo_bar", "sidecar"] {
        flip_unseen(&fixture.stored(name));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    assert_eq!(pack(&fixture.store().add(&fixture.wheel).unwrap()), bytes);
                    let found = fixture.store().get(before.digest).unwrap().expect("it is never absent");
                    assert_eq!(pack(&found), bytes);
                });
            }
        });
        let names = fs_err::read_dir(before.path().parent().unwrap()).unwrap().count();
        assert_eq!(names, 3, "wheel, sidecar, index");
    }
}

#[test]
fn an_add_can_be_interrupted_anywhere_and_leaves_nothing_behind() {
    // Several reads of the file, and several of the larger member.
    let noise: Vec<u8> = (0..3u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    let fixture = Fixture::new(&sample().file_with("foo/big", noise, 0o100_644, true));
    let asked = AtomicU32::new(0);
    let add = |store: &WheelStore, stop_at: u32| {
        asked.store(0, Ordering::Relaxed);
        store.add_with(&fixture.wheel, &|| asked.fetch_add(1, Ordering::Relaxed) < stop_at)
    };
    let store = fixture.store();
    for stop_at in (0..).step_by(3) {
        match add(&store, stop_at) {
            Err(WheelError::Interrupted) => {}
            Ok(_) => break,
            Err(other) => panic!("{other:?}"),
        }
        let left = fs_err::read_dir(fixture.root()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| !name.to_string_lossy().ends_with("lock")).collect();
        assert!(left.is_empty(), "left behind at {stop_at}: {left:?}");
    }
    let first = asked.load(Ordering::Relaxed);
    assert!(first > 20, "hashing, copying and verifying ask: {first}");
    // A wheel that is there is hashed as well.
    assert!(matches!(add(&store, 4), Err(WheelError::Interrupted)));
    add(&store, u32::MAX).unwrap();
    assert!(asked.load(Ordering::Relaxed) < first);
    // And so is one whose index is made anew.
    fs_err::remove_file(fixture.stored("index")).unwrap();
    let asked_to_hash = 5;
    assert!(matches!(add(&fixture.store(), asked_to_hash + 1), Err(WheelError::Interrupted)));
    assert!(add(&fixture.store(), u32::MAX).is_ok());
}
