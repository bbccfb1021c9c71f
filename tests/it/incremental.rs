//! Building again: what did not change is not done again, what did is, and what must not matter does not.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use lbx_testkit::command::{Home, run, stable_part};
use lbx_testkit::stub::Stub;
use lbx_testkit::wheels::Wheel;

use crate::locks::{command, succeeds, wheel, wheels};
use crate::support::{HEAD, image, lbx};

/// What is said when there is nothing to do.
const UNCHANGED: &str = "lbx: nothing has changed since the last build\n";
/// An image that nobody has: what is locked needs none.
const NO_IMAGE: &str = "127.0.0.1:1/none:1";

/// A change of a project, by what it is.
type Change = (&'static str, fn(&Project));
/// Damage to a part that is kept, by what it is.
type Damage = (&'static str, fn(&Path));

/// Waits until what happens from then on shows in the times of files.
fn wait() {
    std::thread::sleep(Duration::from_millis(2100));
}

/// A locked project of two functions, with a store of its own, and all of it too old to have changed unseen.
struct Project {
    home: Home,
    index: Stub,
    _folder: tempfile::TempDir,
}

impl Project {
    fn new(image: &str) -> Self {
        let (folder, index) = wheels(&[wheel("one", "1.0").requires("two"), wheel("two", "2.0")]);
        let home = Home::new();
        home.write("a/app.py", "A = 1\n");
        home.write("a/deep/er.py", "B = 2\n");
        home.write("b/app.py", "C = 3\n");
        home.write("r.txt", "one\n");
        let function =
            |name: &str| format!("[functions.{name}]\nsource = \"{name}\"\nrequirements = [\"r.txt\"]\n");
        home.write("lbx.toml", format!("{HEAD}{}{}", function("a"), function("b")));
        succeeds(&mut command(&home, "lock", image, &index));
        let project = Self { home, index, _folder: folder };
        wait();
        project
    }

    fn build(&self) -> Command {
        let mut command = lbx(&self.home, &["build", "--image", NO_IMAGE]);
        command.env("PIP_INDEX_URL", format!("http://{}/simple", self.index.address()));
        command
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.project().join(name)
    }

    /// Everything in the output folder: inode, times, bytes.
    fn output(&self) -> BTreeMap<String, (u64, i64, Vec<u8>)> {
        let entries = fs_err::read_dir(self.path("dist")).expect("a folder");
        let look = |entry: std::io::Result<fs_err::DirEntry>| {
            let entry = entry.expect("an entry");
            let metadata = entry.metadata().expect("metadata");
            let name = entry.file_name().into_string().expect("a name");
            (name, (metadata.ino(), metadata.ctime_nsec(), fs_err::read(entry.path()).expect("bytes")))
        };
        entries.map(look).collect()
    }

    /// Builds, and says whether there was anything to do.
    #[track_caller]
    fn builds(command: &mut Command) -> bool {
        let ran = run(command);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
        ran.stderr != UNCHANGED
    }

    /// Builds until there is nothing to do.
    #[track_caller]
    fn settle(&self) {
        Self::builds(&mut self.build());
        assert!(!Self::builds(&mut self.build()));
    }

    /// What a build into a new store, of a copy of this project, comes to.
    fn built_from_nothing(&self) -> BTreeMap<String, Vec<u8>> {
        let out = tempfile::tempdir().expect("a directory");
        let mut command = self.build();
        command.env("LBX_CACHE_DIR", out.path().join("store")).arg("--out-dir").arg(out.path().join("dist"));
        succeeds(&mut command);
        let read =
            |name: &str| (name.to_owned(), fs_err::read(out.path().join("dist").join(name)).expect("a zip"));
        ["a.zip", "b.zip"].map(read).into()
    }

    #[track_caller]
    fn is_as_from_nothing(&self) {
        for (name, bytes) in self.built_from_nothing() {
            assert!(fs_err::read(self.path("dist").join(&name)).expect("a zip") == bytes, "{name} differs");
        }
    }
}

#[test]
fn with_nothing_changed_nothing_is_done() {
    let Some(image) = image() else { return };
    let project = Project::new(&image);
    assert!(Project::builds(&mut project.build()));
    let before = project.output();
    assert!(!Project::builds(&mut project.build()));
    assert_eq!(project.output(), before);
    // As JSON, the report is the same.
    let ran = run(project.build().arg("--message-format=json"));
    let said: serde_json::Value = serde_json::from_str(ran.stdout.trim()).expect("one line");
    assert_eq!((said["reason"].as_str(), said["unchanged"].as_bool()), (Some("finished"), Some(true)));
    let report: serde_json::Value = serde_json::from_slice(&before["report.json"].2).expect("JSON");
    assert_eq!(said["report"], report);
}

#[test]
fn what_must_not_matter_does_not() {
    let Some(image) = image() else { return };
    let project = Project::new(&image);
    project.settle();
    assert!(!Project::builds(project.build().current_dir(project.path("a/deep"))), "the current folder");
    assert!(!Project::builds(project.build().env("TZ", "Pacific/Kiritimati").env("LANG", "tr_TR.UTF-8")));
    assert!(!Project::builds(project.build().env("PIP_INDEX_URL", "https://me:secret@127.0.0.1:1/simple")));
    let mut umask = project.home.command("/bin/sh");
    umask.args(["-c", "umask 077; exec \"$0\" build --image \"$1\"", crate::support::LBX, NO_IMAGE]);
    assert!(!Project::builds(&mut umask), "the umask");
    // Times alone are looked into, and found to be nothing.
    let before = project.output();
    let file = fs_err::OpenOptions::new().append(true).open(project.path("a/app.py")).expect("a file");
    file.file().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("a time");
    assert!(Project::builds(&mut project.build()));
    let bytes = |output: BTreeMap<String, (u64, i64, Vec<u8>)>| -> Vec<Vec<u8>> {
        let stable = |(name, (_, _, bytes)): (String, (u64, i64, Vec<u8>))| match name.as_str() {
            "report.json" => stable_part(&bytes).to_vec(),
            _ => bytes,
        };
        output.into_iter().map(stable).collect()
    };
    assert!(bytes(project.output()) == bytes(before));
}

#[test]
fn every_change_of_an_input_is_seen() {
    let Some(image) = image() else { return };
    let project = Project::new(&image);
    let changes: [Change; 10] = [
        ("a file is edited", |project| project.home.write("a/app.py", "A = 2\n")),
        ("a file is edited to the same size, with its old time", |project| {
            let file = project.path("a/app.py");
            let time = fs_err::metadata(&file).and_then(|old| old.modified()).expect("a time");
            project.home.write("a/app.py", "A = 3\n");
            let file = fs_err::OpenOptions::new().append(true).open(file).expect("a file");
            file.file().set_modified(time).expect("a time");
        }),
        ("a file is new", |project| project.home.write("a/deep/new.py", "N = 1\n")),
        ("a file is gone", |project| fs_err::remove_file(project.path("a/deep/er.py")).expect("removed")),
        ("a file has another name", |project| {
            fs_err::rename(project.path("a/deep/new.py"), project.path("a/deep/newer.py")).expect("renamed");
        }),
        ("a file is executable", |project| {
            let mode = PermissionsExt::from_mode(0o755);
            fs_err::set_permissions(project.path("b/app.py"), mode).expect("a mode");
        }),
        ("the configuration has another line", |project| {
            let text = fs_err::read_to_string(project.path("lbx.toml")).expect("text");
            project
                .home
                .write("lbx.toml", text.replace("[functions.b]", "[functions.b]\ninclude = [\"a/deep\"]"));
        }),
        ("a zip is gone", |project| fs_err::remove_file(project.path("dist/b.zip")).expect("removed")),
        ("a zip is another one", |project| {
            let zip = project.path("dist/a.zip");
            let mut bytes = fs_err::read(&zip).expect("bytes");
            let last = bytes.len() - 30;
            bytes[last] ^= 1;
            fs_err::write(&zip, bytes).expect("written");
        }),
        ("a sidecar is another one", |project| project.home.write("dist/a.zip.sha256", "no")),
    ];
    for (what, change) in changes {
        wait();
        project.settle();
        change(&project);
        assert!(Project::builds(&mut project.build()), "{what}");
        project.is_as_from_nothing();
    }
    wait();
    project.settle();
    assert!(Project::builds(project.build().env("SOURCE_DATE_EPOCH", "1700000000")), "the time of entries");
    assert!(Project::builds(project.build().arg("--rebuild")), "by demand");
}

#[test]
fn without_a_lock_indexes_are_asked_again() {
    let Some(image) = image() else { return };
    let project = Project::new(&image);
    fs_err::remove_file(project.path("pylock.r.toml")).expect("removed");
    wait();
    let build = || command(&project.home, "build", &image, &project.index);
    assert!(Project::builds(&mut build()));
    assert!(Project::builds(&mut build()));
}

#[test]
fn builds_at_once_remember_nothing_of_each_other_that_is_wrong() {
    let Some(image) = image() else { return };
    let project = Project::new(&image);
    project.settle();
    let mut running = Vec::new();
    for round in 0..16 {
        // Sizes differ, so that no offset fits another zip.
        project.home.write("a/app.py", format!("A = '{}'\n", "x".repeat(round * 37)));
        let mut build = project.build();
        running.push(build.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("lbx"));
    }
    for mut child in running {
        assert!(child.wait().expect("an end").success());
    }
    succeeds(&mut project.build());
    project.is_as_from_nothing();
    wait();
    project.home.write("b/app.py", "C = 'changed'\n");
    succeeds(&mut project.build());
    project.is_as_from_nothing();
}

/// The files that a command opens below a folder.
fn opened(command: &mut Command, below: &Path) -> Vec<String> {
    let trace = tempfile::NamedTempFile::new().expect("a file");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", "trace=openat", "-e", "signal=none", "-o"]).arg(trace.path());
    traced.arg(command.get_program()).args(command.get_args());
    traced.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        traced.current_dir(folder);
    }
    let ran = run(&mut traced);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let text = fs_err::read_to_string(trace.path()).expect("text");
    let below = format!("\"{}/", below.display());
    let name = |line: &str| Some(line.split_once(&below)?.1.split_once('"')?.0.to_owned());
    text.lines().filter(|line| !line.contains("O_DIRECTORY")).filter_map(name).collect()
}

#[test]
fn with_one_file_changed_only_that_is_read() {
    let Some(image) = image() else { return };
    let project = Project::new(&image);
    Project::builds(&mut project.build());
    project.home.write("a/app.py", "A = 'changed'\n");
    let sources = |root: &str| opened(&mut project.build(), &project.path(root));
    assert_eq!(sources("a"), ["app.py"]);
    project.is_as_from_nothing();
    // With no zip to take them from, all of them are.
    fs_err::remove_file(project.path("dist/a.zip")).expect("removed");
    let mut all = sources("a");
    all.sort();
    assert_eq!(all, ["app.py", "deep/er.py"]);
    project.is_as_from_nothing();
}

#[test]
fn a_dependency_part_that_was_damaged_is_found_said_and_made_anew() {
    let Some(image) = image() else { return };
    let project = Project::new(&image);
    Project::builds(&mut project.build());
    let parts = project.home.cache().join("lbx/parts/v1");
    let part = fs_err::read_dir(&parts).expect("parts").next().expect("a part").expect("a part").path();
    let damages: [Damage; 4] = [
        ("a bit", |part| flip(&part.join("bytes"))),
        ("an end", |part| cut(&part.join("bytes"))),
        ("what is beside it", |part| flip(&part.join("about"))),
        ("half of what is beside it", |part| cut(&part.join("about"))),
    ];
    for (what, damage) in damages {
        damage(&part);
        project.home.write("a/app.py", format!("A = '{what}'\n"));
        let ran = run(&mut project.build());
        assert_eq!(ran.code, 0, "{what}: {}", ran.stderr);
        assert!(ran.stderr.contains("is not as it was stored: making it anew"), "{what}: {}", ran.stderr);
        project.is_as_from_nothing();
    }
    // A store that was copied has other times, and the same bytes.
    let copy = part.with_file_name("copy");
    lbx_testkit::command::succeed(Command::new("cp").arg("-r").arg(&part).arg(&copy));
    fs_err::remove_dir_all(&part).expect("removed");
    fs_err::rename(&copy, &part).expect("renamed");
    project.home.write("a/app.py", "A = 'copied'\n");
    let ran = run(&mut project.build());
    assert!(ran.code == 0 && !ran.stderr.contains("is not as it was"), "{}", ran.stderr);
    project.is_as_from_nothing();
}

fn flip(path: &Path) {
    let mut bytes = fs_err::read(path).expect("bytes");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs_err::write(path, bytes).expect("written");
}

fn cut(path: &Path) {
    let bytes = fs_err::read(path).expect("bytes");
    fs_err::write(path, &bytes[..bytes.len() / 2]).expect("written");
}

#[test]
fn a_file_that_both_have_is_the_dependencies_and_its_mode_is_both() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[Wheel::new("one", "1.0").file("tool.py", b"T = 1\n").file("z.py", b"")]);
    let home = Home::new();
    home.write("src/tool.py", "T = 1\n");
    home.write("r.txt", "one\n");
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n"));
    fs_err::set_permissions(home.project().join("src/tool.py"), PermissionsExt::from_mode(0o755))
        .expect("a mode");
    succeeds(&mut command(&home, "build", &image, &index));
    let listing = Command::new("python3")
        .args(["-c", "import sys, zipfile\nfor one in zipfile.ZipFile(sys.argv[1]).infolist(): print(one.filename, oct(one.external_attr >> 16))"])
        .arg(home.project().join("dist/app.zip"))
        .output()
        .expect("python3");
    let text = String::from_utf8(listing.stdout).expect("text");
    assert!(text.contains("tool.py 0o100755\n") && text.contains("z.py 0o100644\n"), "{text}");
    assert_eq!(text.matches("tool.py").count(), 1, "{text}");
    // Other bytes are a conflict, whoever was first.
    home.write("src/tool.py", "T = 2\n");
    let ran = run(&mut command(&home, "build", &image, &index));
    assert!(
        ran.code != 0 && ran.stderr.contains("tool.py") && ran.stderr.contains("one 1.0"),
        "{}",
        ran.stderr
    );
}

#[test]
fn max_compression_gives_smaller_zips_of_the_same_files() {
    let Some(image) = image() else { return };
    let text = "the quick brown fox jumps over the lazy dog, and over it again\n".repeat(500);
    let (_folder, index) = wheels(&[Wheel::new("one", "1.0").file("data.txt", text.as_bytes())]);
    let home = Home::new();
    home.write("src/app.py", text.replace("fox", "cat"));
    home.write("r.txt", "one\n");
    let build = |compression: &str| {
        home.write("lbx.toml", format!("{HEAD}compression = \"{compression}\"\n[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n"));
        succeeds(&mut command(&home, "build", &image, &index));
        fs_err::read(home.project().join("dist/app.zip")).expect("a zip")
    };
    let (fast, max, again) = (build("fast"), build("max"), build("max"));
    assert!(max.len() < fast.len(), "{} and {}", max.len(), fast.len());
    assert!(max == again && build("fast") == fast);
    let contents = |zip: &[u8]| {
        let out = tempfile::NamedTempFile::new().expect("a file");
        fs_err::write(out.path(), zip).expect("written");
        let script = "import sys, zipfile, hashlib\nz = zipfile.ZipFile(sys.argv[1])\nfor n in z.namelist(): print(n, hashlib.sha256(z.read(n)).hexdigest())";
        let ran = Command::new("python3").args(["-c", script]).arg(out.path()).output().expect("python3");
        String::from_utf8(ran.stdout).expect("text")
    };
    assert_eq!(contents(&fast), contents(&max));
}
