//! Same inputs, same bytes: every example built twice in surroundings that differ in all they can.
//!
//! | axis | first build | second build |
//! |---|---|---|
//! | place | a temporary directory | another one, of another depth |
//! | working directory | the project | `/`, with `--config` (but for the project without one) |
//! | program | the built one | a copy elsewhere |
//! | umask | 022 | 077 |
//! | user | the caller | another one, when the caller is root |
//! | home, store | empty | empty, others |
//! | time zone, locale | none | `Pacific/Kiritimati`, `tr_TR.UTF-8` |
//! | processors | all | one |
//! | files | made in order, now | made in reverse order, with times of 2001 |
//!
//! The zips, the sidecars and `report.json` must be the same, byte for byte; but for what was measured, which ends the report.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use lbx_testkit::command::{Home, copy_tree, files_below, run, shared_directory, stable_part, succeed};
use lbx_testkit::standin;

/// The binary.
const LBX: &str = env!("CARGO_BIN_EXE_lbx");
/// The user of the second build, who has no name.
const OTHER: &str = "62001";

/// One of the two surroundings: what all builds in it share.
struct Side {
    /// A directory that the user of this side owns: `home`, `store`, `lbx`.
    root: PathBuf,
    second: bool,
}

/// The two sides, each with its own store, which are filled by builds.
fn sides() -> &'static [Side; 2] {
    static SIDES: OnceLock<[Side; 2]> = OnceLock::new();
    SIDES.get_or_init(|| [Side::new(false), Side::new(true)])
}

/// Whether the second build runs as another user.
fn as_other() -> bool {
    let is_root = fs_err::metadata("/proc/self").expect("/proc").uid() == 0;
    #[expect(clippy::print_stderr, reason = "a skip must be loud")]
    if !is_root {
        eprintln!("SKIP: the axis of users: only root can be another one");
    }
    is_root
}

impl Side {
    fn new(second: bool) -> Self {
        let shared = shared_directory();
        let root = if second { shared.join("a/deeper/place") } else { shared.clone() };
        for name in ["home", "projects"] {
            fs_err::create_dir_all(root.join(name)).expect("a directory");
        }
        let program = root.join("lbx");
        fs_err::copy(LBX, &program).expect("a copy");
        let side = Self { root, second };
        side.give(&shared);
        side
    }

    /// Hands a tree to the user of this side.
    fn give(&self, path: &Path) {
        if self.second && as_other() {
            succeed(Command::new("chown").arg("-R").arg(format!("{OTHER}:{OTHER}")).arg(path));
        }
    }

    /// A copy of an example as this side has it.
    fn project(&self, name: &str) -> PathBuf {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        // A project without a configuration is named after its folder, so that stays.
        let parent = tempfile::TempDir::new_in(self.root.join("projects")).expect("a directory").keep();
        let project = parent.join(name);
        copy_tree(&from, &project, self.second);
        if self.second {
            let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            for file in files_below(&project) {
                let path = project.join(file);
                let file = fs_err::OpenOptions::new().append(true).open(&path).expect("a file");
                file.file().set_modified(then).expect("a time");
                fs_err::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("a mode");
            }
        }
        self.give(&parent);
        project
    }

    /// Builds a project, and returns the files of its output folder by name.
    fn build(&self, project: &Path, image: &str, epoch: Option<&str>) -> BTreeMap<String, Vec<u8>> {
        let home = Home::new();
        let (umask, cores) = if self.second { ("077", "taskset 0x1 ") } else { ("022", "") };
        let mut command = if self.second && as_other() {
            let mut command = home.command("setpriv");
            command.args(["--reuid", OTHER, "--regid", OTHER, "--clear-groups", "/bin/sh"]);
            command
        } else {
            home.command("/bin/sh")
        };
        command.arg("-c").arg(format!("umask {umask}; exec {cores}\"$0\" \"$@\"")).arg(self.root.join("lbx"));
        command.args(["build", "--quiet", "--runtime", "python3.11", "--image", image]);
        command.env("HOME", self.root.join("home")).env("LBX_CACHE_DIR", self.root.join("store"));
        command.envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
        let config = project.join("lbx.toml");
        if self.second && config.exists() {
            command.current_dir("/").arg("--config").arg(config);
        } else {
            command.current_dir(project);
        }
        if self.second {
            command.envs([("TZ", "Pacific/Kiritimati"), ("LANG", "tr_TR.UTF-8"), ("LC_ALL", "tr_TR.UTF-8")]);
        }
        let ran = run(&mut command);
        assert_eq!(ran.code, 0, "{ran:?}");
        let dist = project.join("dist");
        let read = |name: String| {
            let bytes = fs_err::read(dist.join(&name)).expect("a file");
            let bytes = if name == "report.json" { stable_part(&bytes).to_vec() } else { bytes };
            (name, bytes)
        };
        files_below(&dist).into_iter().map(read).collect()
    }
}

/// Builds an example on both sides, and compares.
fn twice(name: &str) {
    let Some(image) = standin::reference("python3.11") else { return };
    let [first, second] = sides();
    let (left, right) = (first.project(name), second.project(name));
    let (left, right) = (first.build(&left, &image, None), second.build(&right, &image, None));
    assert!(left.len() >= 3, "{:?}", left.keys());
    same(&left, &right);
}

fn same(left: &BTreeMap<String, Vec<u8>>, right: &BTreeMap<String, Vec<u8>>) {
    // What was replaced is there on the side that has built before.
    let names = |side: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
        side.keys().filter(|name| !name.starts_with(".previous/")).cloned().collect()
    };
    assert_eq!(names(left), names(right));
    let differ: Vec<String> = names(left).into_iter().filter(|name| left[name] != right[name]).collect();
    assert!(differ.is_empty(), "{differ:?} differ");
}

#[test]
fn hello_is_the_same_bytes_everywhere() {
    twice("hello");
}

#[test]
fn a_wheel_built_from_source_is_the_same_bytes_everywhere() {
    twice("sdist-only");
}

#[test]
fn a_service_is_the_same_bytes_everywhere() {
    twice("service");
}

#[test]
fn layers_are_the_same_bytes_everywhere() {
    twice("layers");
}

#[test]
fn compiled_dependencies_are_the_same_bytes_everywhere() {
    twice("data-science");
}

#[test]
fn source_date_epoch_changes_the_bytes_and_they_are_the_same_everywhere() {
    let Some(image) = standin::reference("python3.11") else { return };
    let [first, second] = sides();
    let (left, right) = (first.project("hello"), second.project("hello"));
    let without = first.build(&left, &image, None);
    let with = first.build(&left, &image, Some("1700000000"));
    assert_ne!(without["hello.zip"], with["hello.zip"]);
    same(&with, &second.build(&right, &image, Some("1700000000")));
    let script = "import sys, zipfile; print(zipfile.ZipFile(sys.argv[1]).infolist()[0].date_time)";
    let zip = left.join("dist/hello.zip");
    let stamp = succeed(Command::new("/usr/bin/python3").args(["-c", script]).arg(zip));
    assert_eq!(stamp, "(2023, 11, 14, 22, 13, 20)\n", "the time is UTC's");
}
