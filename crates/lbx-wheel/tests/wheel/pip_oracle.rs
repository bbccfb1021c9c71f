//! The mapping against pip itself: the tree that we would pack, file by file, with modes, against the tree that
//! `pip install --target` makes of the same wheel. Runs with the pip of `python3`, and with every pip wheel in
//! `LBX_TEST_WHEELS`.
//!
//! `LBX_TEST_WHEELS` is a directory of real wheels; without it they are skipped with a line on stderr, and with
//! `wheels` in `LBX_MUST_RUN` that is a failure. The same goes for a `python3` without pip.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_archive::{Archive, Limits, Timestamp};
use lbx_wheel::{Kind, Wheel, WheelFilename, WheelStore};

use crate::craft::{Craft, DIST_INFO};

#[expect(clippy::disallowed_methods, reason = "a test has no other way to be told")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Says that a test does not run, and fails if it must.
fn skip(why: &str) {
    let must_run =
        environment("LBX_MUST_RUN").is_some_and(|list| list.split(',').any(|name| name == "wheels"));
    assert!(!must_run, "must run, but {why}");
    eprintln!("SKIPPED: {why}");
}

/// Path to content and executable bit.
type Tree = BTreeMap<String, (Vec<u8>, bool)>;

/// Files that pip writes or rewrites, and that are not the wheel's.
fn is_pips_own(path: &str) -> bool {
    let own = ["RECORD", "INSTALLER", "REQUESTED", "direct_url.json"];
    path.split_once(".dist-info/").is_some_and(|(_, name)| own.contains(&name))
}

/// The tree that pip makes of a wheel, without the scripts that it generates.
fn pips_tree(pip: &Path, wheel: &Path, generated: &[String]) -> Tree {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let filename: WheelFilename = wheel.file_name().unwrap().to_string_lossy().parse().unwrap();
    let platforms = filename.platform.iter().flat_map(|platform| ["--platform", platform.as_str()]);
    let mut command = Command::new("python3");
    command.args(["-I", "-c", RUN_PIP]).arg(pip).args([
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-compile",
    ]);
    if filename.platform != ["any"] {
        command.args(platforms).args(["--only-binary", ":all:", "--python-version", "3.11", "--abi"]);
        command.args(&filename.abi);
    }
    let output = command.arg("--target").arg(&target).arg(wheel).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut tree = Tree::new();
    read_tree(&target, "", &mut tree);
    tree.retain(|path, _| !is_pips_own(path) && !generated.contains(path));
    tree
}

/// Runs the pip at the first argument, which is a directory or a wheel, or the interpreter's own.
const RUN_PIP: &str = "import sys, runpy; p = sys.argv.pop(1); p and sys.path.insert(0, p); \
    sys.argv[0] = 'pip'; runpy.run_module('pip', run_name='__main__', alter_sys=True)";

fn read_tree(directory: &Path, prefix: &str, tree: &mut Tree) {
    for entry in fs_err::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            read_tree(&entry.path(), &format!("{path}/"), tree);
        } else {
            let executable = metadata.permissions().mode() & 0o111 != 0;
            tree.insert(path, (fs_err::read(entry.path()).unwrap(), executable));
        }
    }
}

/// The tree that we would pack, by way of a real archive.
fn our_tree(wheel: &Wheel, scratch: &Path) -> Tree {
    let open = wheel.open().unwrap();
    let entries: Vec<_> = wheel.files.iter().map(|file| wheel.entry(file, &open)).collect();
    let path = scratch.join("out.zip");
    lbx_archive::write(&mut fs_err::File::create(&path).unwrap(), &entries, Timestamp::default()).unwrap();
    let file = fs_err::File::open(&path).unwrap().into_file();
    let archive = Archive::open(&file, &Limits::default()).unwrap();
    let members = archive.members().iter().filter(|member| !is_pips_own(&member.name));
    members
        .map(|member| {
            (member.name.clone(), (member.read(&file).unwrap(), member.unix_mode == Some(0o100_755)))
        })
        .collect()
}

/// Replaces the first line where pip replaces it.
fn without_shebangs(mut tree: Tree, wheel: &Wheel) -> Tree {
    for file in wheel.files.iter().filter(|file| file.kind == Kind::Script { shebang: true }) {
        let (content, _) = tree.get_mut(&file.path).unwrap_or_else(|| panic!("{} is missing", file.path));
        let end = content.iter().position(|&byte| byte == b'\n').map_or(content.len(), |at| at + 1);
        assert!(content.starts_with(b"#!"));
        content.drain(..end);
    }
    tree
}

fn assert_same_as_pip(pip: &Path, path: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let store = WheelStore::open(&scratch.path().join("store")).unwrap();
    let wheel = store.add(path).unwrap();
    let scripts = wheel.console_scripts.iter().chain(&wheel.gui_scripts);
    let generated: Vec<String> = scripts.map(|script| format!("bin/{}", script.name)).collect();
    let theirs = without_shebangs(pips_tree(pip, path, &generated), &wheel);
    let ours = without_shebangs(our_tree(&wheel, scratch.path()), &wheel);
    let label = format!("{} with pip {}", wheel.filename, pip.display());
    let missing = |from: &Tree, other: &Tree| -> Vec<String> {
        other.keys().filter(|path| !from.contains_key(*path)).cloned().collect()
    };
    let (only_pip, only_we) = (missing(&ours, &theirs), missing(&theirs, &ours));
    assert!(
        only_pip.is_empty() && only_we.is_empty(),
        "{label}: only pip: {only_pip:?}, only we: {only_we:?}"
    );
    for (name, (content, executable)) in &ours {
        assert!(*content == theirs[name].0, "{label}: {name} has another content");
        assert_eq!(*executable, theirs[name].1, "{label}: {name} has another mode");
    }
}

fn real_wheels() -> Vec<PathBuf> {
    let Some(directory) = environment("LBX_TEST_WHEELS") else { return Vec::new() };
    let mut wheels: Vec<PathBuf> = fs_err::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .collect();
    wheels.sort();
    wheels
}

/// The pips to compare with: `python3`'s own, and those that came as wheels. Python runs them from the zip.
fn pips() -> Vec<PathBuf> {
    let own = Command::new("python3").args(["-m", "pip", "--version"]).output();
    let mut pips = Vec::new();
    if own.is_ok_and(|output| output.status.success()) {
        pips.push(PathBuf::new());
    } else {
        skip("python3 has no pip");
    }
    pips.extend(real_wheels().into_iter().filter(|path| is_pip(path)));
    pips
}

fn is_pip(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pip-"))
}

fn assert_crafted(craft: &Craft) {
    let directory = tempfile::tempdir().unwrap();
    let path = craft.write(directory.path());
    for pip in pips() {
        assert_same_as_pip(&pip, &path);
    }
}

#[test]
fn every_scheme_is_mapped_as_pip_maps_it() {
    let craft = Craft::new()
        .file("foo/", "")
        .file("foo/__init__.py", "x = 1\n")
        .file("foo/a b,\"c.py", "")
        .file("foo/größe.txt", "ä")
        .file("foo/inner.data/data/x", "x")
        .file("single.py", "")
        .file("foo_bar-1.0.data/purelib/pure/a.py", "")
        .file("foo_bar-1.0.data/platlib/plat/a.so", "")
        .file("foo_bar-1.0.data/data/share/doc/x", "x")
        .file("foo_bar-1.0.data/data/top", "x")
        .file("foo_bar-1.0.data/data/lib64/x", "x")
        .file("foo_bar-1.0.data/headers/foo.h", "x")
        .file("foo_bar-1.0.data/headers/sub/foo.h", "x")
        .file(&format!("{DIST_INFO}/licenses/LICENSE"), "x")
        .file(&format!("{DIST_INFO}/top_level.txt"), "foo\n");
    assert_crafted(&craft);
}

#[test]
fn scripts_are_mapped_as_pip_maps_them() {
    let craft = Craft::new()
        .file("foo.py", "def main(): pass\n")
        .file("foo_bar-1.0.data/scripts/plain", "#!/bin/sh\n")
        .file_with("foo_bar-1.0.data/scripts/run", "#!python\nprint(1)\n", 0o100_755, false)
        .file("foo_bar-1.0.data/scripts/runw", "#!pythonw -u\nprint(1)\n")
        .file("foo_bar-1.0.data/scripts/tool", "#!python\n")
        .file("foo_bar-1.0.data/scripts/tool-script.py", "#!python\n")
        .file("foo_bar-1.0.data/scripts/toolbox", "#!/bin/sh\n")
        .file("foo_bar-1.0.data/scripts/sub/deep", "#!/bin/sh\n")
        .file("foo_bar-1.0.data/data/bin/other", "#!python\n")
        .file(
            &format!("{DIST_INFO}/entry_points.txt"),
            "[console_scripts]\ntool = foo:main\n[gui_scripts]\nwin = foo:main\n[x]\na = b\n",
        );
    assert_crafted(&craft);
}

#[test]
fn modes_are_as_pip_sets_them() {
    let mut craft = Craft::new();
    for mode in [0o100_644, 0o100_755, 0o100_600, 0o100_700, 0o100_654, 0o100_645, 0o755, 0o644, 0o111] {
        craft = craft.file_with(&format!("foo/m{mode:o}"), "x", mode, false);
    }
    assert_crafted(&craft);
}

#[test]
fn stored_members_come_out_the_same() {
    assert_crafted(&Craft::new().file_with("foo/stored.py", "import sys\n".repeat(50), 0o100_755, true));
}

/// What pip loses with `--target`, we leave out as well, and say so.
#[test]
fn what_pip_loses_is_left_out() {
    let craft = Craft::new()
        .file("share/module.py", "")
        .file("bin/module.py", "")
        .file("foo_bar-1.0.data/data/share/x", "x")
        .file("foo_bar-1.0.data/data/lib/x.so", "x")
        .file("foo_bar-1.0.data/data/lib/python/foo/x.py", "x")
        .file("foo_bar-1.0.data/data/li/x", "x")
        .file("foo_bar-1.0.data/scripts/run", "#!/bin/sh\n");
    assert_crafted(&craft);
    let directory = tempfile::tempdir().unwrap();
    let store = WheelStore::open(&directory.path().join("store")).unwrap();
    let wheel = store.add(&craft.write(directory.path())).unwrap();
    let left_out: Vec<&str> = wheel.left_out.iter().map(|left_out| left_out.member.as_str()).collect();
    let expected = ["data/li/x", "data/lib/x.so", "data/share/x", "scripts/run"];
    assert_eq!(left_out, expected.map(|path| format!("foo_bar-1.0.data/{path}")));
}

#[test]
fn real_wheels_are_mapped_as_pip_maps_them() {
    // A pip is there to compare with. When it installs one, it adds scripts that entry_points.txt does not name.
    let wheels: Vec<PathBuf> = real_wheels().into_iter().filter(|path| !is_pip(path)).collect();
    let Some(pip) = pips().into_iter().next().filter(|_| !wheels.is_empty()) else {
        skip("LBX_TEST_WHEELS names no directory of wheels");
        return;
    };
    for wheel in wheels {
        assert_same_as_pip(&pip, &wheel);
    }
}
