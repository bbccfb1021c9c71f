//! `lbx vendor`, and machines that have never been online.

use std::path::Path;
use std::process::Command;

use lbx_testkit::command::{Home, files_below, run};
use lbx_testkit::git::{self, Repository};
use lbx_testkit::index;
use lbx_testkit::restrict::{self, Calls, Restriction};
use lbx_testkit::wheels::sdist;

use crate::locks::{command, fails, project, succeeds, wheel, wheels, zip};
use crate::sources::{BACKEND, pyproject};
use crate::support::{image, lbx, same};

/// The exit code when the configuration, or what it names, is at fault.
const PROJECT: i32 = 3;

/// `lbx build` where there is nothing but what was vendored: an empty store, and no index.
fn from(home: &Home, image: &str, path: &Path) -> Command {
    let mut command = lbx(home, &["build", "--offline", "--locked", "--image", image, "--from"]);
    command.arg(path);
    command
}

#[test]
fn what_is_vendored_is_the_same_each_time_and_builds_the_same_without_a_network() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    wheel("one", "1.0").write(folder.path());
    let pyproject = pyproject("two", "1.0", "");
    let files = [("pyproject.toml", pyproject.as_str()), ("backend.py", BACKEND), ("two.py", "# vendored\n")];
    sdist(folder.path(), "two", "1.0", &files);
    let index = index::serve(folder.path());
    let repositories = tempfile::tempdir().unwrap();
    let repository = Repository::new(&repositories.path().join("three"));
    let three = crate::sources::pyproject("three", "1.0", "");
    repository.commit(&[("pyproject.toml", &three), ("backend.py", BACKEND), ("three.py", "# vendored\n")]);
    let server = git::serve(repositories.path(), None);
    let home = project(&format!("one\ntwo\nthree @ git+http://{}/three\n", server.address()));
    succeeds(&mut command(&home, "lock", &image, &index));
    succeeds(&mut command(&home, "build", &image, &index));
    let expected = zip(&home);
    let out = tempfile::tempdir().unwrap();
    let vendor = |name: &str| {
        let path = out.path().join(name);
        succeeds(command(&home, "vendor", &image, &index).arg(&path));
        path
    };
    let tars = [vendor("a.tar"), vendor("b.tar")].map(|path| fs_err::read(path).unwrap());
    assert!(tars[0] == tars[1], "two of the same differ");
    let folder = vendor("folder");
    // Written again where it is.
    vendor("folder");
    assert_eq!(files_below(out.path()).iter().filter(|path| path.starts_with('.')).count(), 0);
    drop((index, server));
    let lock = fs_err::read(home.project().join("pylock.r.toml")).unwrap();
    let requirements = fs_err::read(home.project().join("r.txt")).unwrap();
    for path in [out.path().join("a.tar"), folder] {
        let elsewhere = project("");
        elsewhere.write("r.txt", &requirements);
        elsewhere.write("pylock.r.toml", &lock);
        succeeds(&mut from(&elsewhere, &image, &path));
        assert!(zip(&elsewhere) == expected, "{}", path.display());
        // The store has it all from then on.
        succeeds(lbx(&elsewhere, &["build", "--offline", "--image", &image]).env("PIP_NO_INDEX", "1"));
        assert!(zip(&elsewhere) == expected);
    }
}

#[test]
fn a_locked_build_without_a_network_asks_for_no_socket_or_it_is_killed() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0").requires("two"), wheel("two", "2.0")]);
    let home = project("one\n");
    succeeds(&mut command(&home, "lock", &image, &index));
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("all.tar");
    succeeds(command(&home, "vendor", &image, &index).arg(&path));
    let guarded = |command: &Command| {
        let restrictions = [Restriction::NewPrivileges, Restriction::Calls(Calls::Sockets)];
        run(&mut restrict::wrap(&restrictions, command, "host::helper_restricted"))
    };
    // Somebody who asks is killed: lbx itself, when it is told to ask an index.
    let mut online = command(&home, "build", &image, &index);
    online.env("LBX_CACHE_DIR", home.root().join("empty"));
    assert_ne!(guarded(&online).code, 0);
    let ran = guarded(&from(&home, &image, &path));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = guarded(&lbx(&home, &["build", "--offline", "--locked", "--image", &image]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn what_was_changed_on_the_way_is_refused_and_nothing_else_is_overwritten() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0")]);
    let home = project("one\n");
    let hint = "\nhint: `lbx lock` writes one that can";
    let out = home.root().join("out");
    same(
        &fails(&home, command(&home, "vendor", &image, &index).arg(&out), PROJECT),
        &format!("error: pylock.r.toml cannot be used: there is none{hint}"),
    );
    succeeds(&mut command(&home, "lock", &image, &index));
    fs_err::create_dir(&out).unwrap();
    fs_err::write(out.join("precious"), "").unwrap();
    same(
        &fails(&home, command(&home, "vendor", &image, &index).arg(&out), PROJECT),
        "error: [ROOT]/out is a folder with something else in it\nhint: name one that does not exist yet",
    );
    fs_err::remove_file(out.join("precious")).unwrap();
    succeeds(command(&home, "vendor", &image, &index).arg(&out));
    let refused = |problem: &str| {
        let hint = "hint: `lbx vendor` writes it anew, where there is a network";
        let said = fails(&home, &mut from(&home, &image, &out), PROJECT);
        same(&said, &format!("error: [ROOT]/out cannot be used: {problem}\n{hint}"));
    };
    let wheel = files_below(&out).into_iter().find(|path| path.starts_with("wheels/")).unwrap();
    let good = fs_err::read(out.join(&wheel)).unwrap();
    fs_err::write(out.join(&wheel), [&good[..], b"x"].concat()).unwrap();
    refused(&format!("{} has other bytes than are listed", home.redact(&wheel)));
    fs_err::remove_file(out.join(&wheel)).unwrap();
    refused(&format!("it lacks {}", home.redact(&wheel)));
    fs_err::write(out.join(&wheel), good).unwrap();
    let manifest = fs_err::read_to_string(out.join("vendor.json")).unwrap();
    fs_err::write(out.join("vendor.json"), manifest.replace("locks/pylock.r.toml", "../../etc/passwd"))
        .unwrap();
    refused("`../../etc/passwd` leads out of it");
    fs_err::write(out.join("vendor.json"), manifest.replace("\"version\": 1", "\"version\": 9")).unwrap();
    refused("its format is 9, and this lbx knows 1");
    fs_err::remove_file(out.join("vendor.json")).unwrap();
    refused("there is no vendor.json in it");
    fs_err::remove_dir_all(&out).unwrap();
    refused("it does not exist");
}
