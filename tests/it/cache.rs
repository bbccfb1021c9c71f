//! `lbx cache`: how much there is, what goes, what is damaged, and that builds come to the same afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lbx_testkit::command::{Home, run};
use lbx_testkit::images::sha256;
use lbx_testkit::index;
use lbx_testkit::stub::Stub;
use lbx_testkit::wheels::Wheel;
use serde_json::Value;

use crate::locks::succeeds;
use crate::support::{HEAD, image, lbx};

/// A project that needs no image, and has been built.
struct Project {
    home: Home,
    index: Stub,
    _folder: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let text = format!("ONE = 1\n{}", "value = [1, 2, 3]\n".repeat(1000));
        let path = Wheel::new("one", "1.0").file("one/__init__.py", text.as_bytes()).write(folder.path());
        let home = Home::new();
        home.write("r.txt", format!("one==1.0 --hash={}\n", sha256(&fs_err::read(path).expect("a wheel"))));
        home.write("src/app.py", "import one\n");
        let project =
            "compression = \"max\"\n[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n";
        home.write("lbx.toml", format!("{HEAD}{project}"));
        let project = Self { home, index: index::serve(folder.path()), _folder: folder };
        succeeds(&mut project.build());
        project
    }

    fn build(&self) -> Command {
        let mut command = lbx(&self.home, &["build", "--image", "127.0.0.1:1/none:1"]);
        command.env("PIP_INDEX_URL", format!("http://{}/simple", self.index.address()));
        command
    }

    /// What a build comes to that makes its zip anew.
    #[track_caller]
    fn built(&self) -> Vec<u8> {
        let zip = self.home.project().join("dist/app.zip");
        fs_err::remove_file(&zip).expect("removed");
        succeeds(&mut self.build());
        fs_err::read(zip).expect("a zip")
    }

    fn store(&self) -> PathBuf {
        self.home.cache().join("lbx")
    }

    fn said(&self, arguments: &[&str], code: i32) -> Value {
        let ran = run(lbx(&self.home, &["cache", "--message-format", "json"]).args(arguments));
        assert_eq!(ran.code, code, "{} {}", ran.stdout, ran.stderr);
        serde_json::from_str(ran.stdout.trim()).expect("one line")
    }
}

/// The one entry of a folder that is named by a digest.
fn only(folder: &Path) -> PathBuf {
    let entries = fs_err::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.len() == 64)).last().expect("an entry")
}

fn age(path: &Path, days: u64) {
    let now = tempfile::tempfile().and_then(|file| file.metadata()?.modified()).expect("a time");
    let time = now - Duration::from_secs(days * 24 * 60 * 60);
    fs_err::File::open(path).expect("a file").file().set_modified(time).expect("a time");
}

#[test]
fn what_is_in_the_store_is_counted_and_what_is_old_goes() {
    let project = Project::new();
    let (first, store) = (project.built(), project.store());
    let all = project.said(&["du"], 0);
    for kind in ["wheels", "parts"] {
        assert_eq!(all["kinds"][kind]["entries"], 1, "{all}");
        assert!(all["kinds"][kind]["bytes"].as_u64() > Some(4000), "{all}");
    }
    assert_eq!(project.said(&["gc"], 0)["bytes"], 0);
    // What was made long ago and is used stays; what was used long ago goes.
    for folder in ["wheels", "parts/v1"] {
        age(&only(&store.join(folder)), 40);
    }
    assert_eq!(project.said(&["gc"], 0)["bytes"], 0);
    let used = |name: &str| {
        let notes = fs_err::read_dir(store.join("used")).expect("notes").flatten().map(|entry| entry.path());
        let is_it =
            |path: &PathBuf| path.file_name().is_some_and(|note| note.to_string_lossy().starts_with(name));
        notes.into_iter().find(is_it).expect("a note")
    };
    age(&used("part-"), 40);
    let dry = project.said(&["gc", "--dry-run"], 0);
    assert_eq!((dry["gone"]["parts"]["entries"].as_u64(), &dry["gone"]["wheels"]), (Some(1), &Value::Null));
    assert!(only(&store.join("parts/v1")).exists());
    assert_eq!(project.said(&["gc"], 0)["gone"], dry["gone"]);
    assert_eq!(fs_err::read_dir(store.join("parts/v1")).expect("a folder").count(), 0);
    assert!(project.built() == first);
    // Nothing is to be left.
    assert_eq!(project.said(&["gc", "--max-size", "1kB"], 0)["left"], 0);
    assert_eq!(fs_err::read_dir(store.join("tmp")).expect("a folder").count(), 0);
    assert!(project.built() == first);
}

#[test]
fn nothing_goes_while_a_build_runs() {
    let Some(image) = image() else { return };
    let home = Home::new();
    let mut command = lbx(&home, &["run", "--runtime", "python3.11", "--image", &image, "--", "sleep", "30"]);
    let mut running = command.stdin(std::process::Stdio::null()).spawn().expect("lbx");
    let noted =
        || fs_err::read_dir(home.cache().join("lbx/used")).is_ok_and(|mut notes| notes.next().is_some());
    for _ in 0..600 {
        if noted() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let gc = || run(&mut lbx(&home, &["cache", "gc", "--max-size", "1kB"]));
    let ran = gc();
    let expected = "error: the store [ROOT]/cache/lbx is in use\n\
                    hint: wait until builds, `lbx run` and `lbx shell` have ended";
    assert_eq!((ran.code, home.redact(ran.stderr.trim_end()).as_str()), (1, expected));
    running.kill().expect("killed");
    running.wait().expect("an end");
    let ran = gc();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("  images\n"), "{}", ran.stdout);
    assert_eq!(fs_err::read_dir(home.cache().join("lbx/layers/v1")).expect("a folder").count(), 0);
}

#[test]
fn damage_is_found_and_made_good_by_the_next_build() {
    let project = Project::new();
    let (first, store) = (project.built(), project.store());
    assert_eq!(project.said(&["verify"], 0)["damaged"], Value::Array(Vec::new()));
    let wheel = only(&store.join("wheels"));
    let named = |name: &str| {
        let files = fs_err::read_dir(&wheel).expect("a folder").flatten().map(|entry| entry.path());
        let is_it = |path: &PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            file.contains(name) && !file.contains(".index")
        };
        files.into_iter().find(is_it).expect("a file")
    };
    let part = || only(&store.join("parts/v1")).join("bytes");
    for path in [part(), named("derived-smaller"), named(".whl")] {
        // Its time stays, so that only reading it tells.
        let time = fs_err::metadata(&path).and_then(|found| found.modified()).expect("a time");
        let mut bytes = fs_err::read(&path).expect("bytes");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        fs_err::write(&path, bytes).expect("written");
        fs_err::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("a file")
            .file()
            .set_modified(time)
            .expect("a time");
        let dry = project.said(&["verify", "--dry-run"], 1);
        let found = dry["damaged"].as_array().expect("a list");
        assert!(!found.is_empty(), "{}", path.display());
        assert!(path.exists());
        assert_eq!(project.said(&["verify"], 1)["damaged"], dry["damaged"]);
        assert!(!path.exists());
        assert_eq!(project.said(&["verify"], 0)["damaged"], Value::Array(Vec::new()));
        assert!(project.built() == first, "{}", path.display());
    }
}
