//! `lbx cache`: how much there is, what goes, what is damaged, and that builds come to the same afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// A name that some bytes could have as their digest.
fn hex(number: u32) -> String {
    format!("{number:064}")
}

#[test]
fn an_image_is_kept_with_what_leads_to_it_and_what_was_left_behind_goes() {
    let home = Home::new();
    let store = home.cache().join("lbx");
    let gc = |arguments: &[&str]| {
        let ran = run(lbx(&home, &["cache", "gc", "--message-format", "json"]).args(arguments));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        serde_json::from_str::<Value>(ran.stdout.trim()).expect("one line")
    };
    gc(&[]);
    let write = |path: String, text: &str| {
        let path = store.join(path);
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs_err::write(&path, text).expect("written");
        age(&path, 40);
        path
    };
    let (shared, own) = (hex(1), hex(2));
    let blobs = [&shared, &own].map(|name| write(format!("blobs/sha256/{name}"), "a blob"));
    let tag = write(format!("refs/{}.json", hex(3)), &format!("{{\"digest\":\"sha256:{own}\"}}"));
    let note = |number: u32, blobs: &[&String]| {
        let text = serde_json::json!({"blobs": blobs, "layers": [], "flat": hex(8)}).to_string();
        write(format!("used/image-{}", hex(number)), &text)
    };
    let (new, _old) = (note(4, &[&own, &shared]), note(5, &[&shared]));
    let stale = write(format!("used/wheel-{}", hex(6)), "");
    let unfinished = write("parts/v1/.new-a/bytes".to_owned(), "half");
    let generation = |number: u32| write(format!("packages/v1/{}/{number}/tree/file", hex(7)), "installed");
    let generations = [generation(0), generation(1)];
    for path in &generations {
        write(
            path.with_file_name("../packages.json")
                .strip_prefix(&store)
                .expect("inside")
                .display()
                .to_string(),
            PACKAGES,
        );
    }
    // Used today, and everything of it was written long ago.
    fs_err::write(&new, fs_err::read(&new).expect("a note")).expect("written");
    let gone = gc(&["--older-than", "30d"])["gone"].clone();
    assert!(blobs.iter().all(|path| path.exists()) && tag.exists(), "{gone}");
    assert_eq!(
        (gone["images"]["entries"].as_u64(), gone["temporary"]["entries"].as_u64()),
        (Some(1), Some(1)),
        "{gone}"
    );
    assert!(!unfinished.exists() && !stale.exists());
    assert_eq!(generations.map(|path| path.exists()), [false, true], "{gone}");
    age(&new, 40);
    gc(&[]);
    assert!(blobs.iter().all(|path| !path.exists()) && !tag.exists() && !new.exists());
    for bad in ["", "d", "-1", "1w", "99999999999999999999"] {
        assert_eq!(run(&mut lbx(&home, &["cache", "gc", &format!("--older-than={bad}")])).code, 2, "{bad}");
    }
}

/// A record of packages.
const PACKAGES: &str =
    "{\"layer\":true,\"image\":\"i\",\"wanted\":[],\"manager\":\"apt\",\"installed\":{},\"hosts\":[]}";

/// Says that it is over, also after a panic: a scope waits for its threads.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn builds_come_to_the_same_while_everything_is_removed_again_and_again() {
    let project = Project::new();
    let first = project.built();
    let (is_over, collected) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let ran = run(&mut lbx(&project.home, &["cache", "gc", "--quiet", "--max-size", "1kB"]));
                assert!(ran.code == 0 || ran.stderr.contains(" is in use"), "{}", ran.stderr);
                collected.fetch_add(usize::from(ran.code == 0), Ordering::Relaxed);
            }
        });
        let _over = Over(&is_over);
        let mut builds = (0..200).take_while(|number| *number < 20 || collected.load(Ordering::Relaxed) < 5);
        assert!(builds.all(|_| project.built() == first));
    });
    assert!(collected.into_inner() >= 5, "it had hardly a chance");
}

/// What leads out of the store, or says what is a build's own, is no entry of it.
#[test]
fn nothing_outside_of_the_store_goes_and_no_folder_of_a_build_becomes_a_strangers() {
    let project = Project::new();
    let victim = project.home.root().join("victim");
    fs_err::create_dir(&victim).expect("a folder");
    let store = project.store();
    let note = |name: &str, text: String| {
        let path = store.join("used").join(name);
        fs_err::write(&path, text).expect("written");
        age(&path, 40);
    };
    let far = victim.display().to_string();
    note("image-1", format!(r#"{{"blobs": [], "layers": ["../../../../victim"], "flat": "{}"}}"#, hex(1)));
    note("image-2", format!(r#"{{"blobs": ["{far}"], "layers": [], "flat": "{far}"}}"#));
    succeeds(project.build().args(["--dir", "tree"]));
    project.said(&["gc", "--max-size", "1kB"], 0);
    assert!(victim.exists());
    succeeds(project.build().args(["--dir", "tree"]));
    assert!(project.home.project().join("tree/app.py").exists());
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

#[test]
fn a_store_that_was_copied_or_is_another_versions_too_is_not_damaged() {
    let project = Project::new();
    let (wheel, part) = (only(&project.store().join("wheels")), only(&project.store().join("parts/v1")));
    let data = |index: &Path| PathBuf::from(index.display().to_string().trim_end_matches(".index"));
    let files = fs_err::read_dir(&wheel).expect("a folder").flatten().map(|entry| entry.path());
    let indexes: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "index")).collect();
    assert!(!indexes.is_empty());
    // With other times, as after a copy.
    for path in indexes.iter().map(|index| data(index)).chain([part.join("bytes")]) {
        age(&path, 3);
    }
    assert_eq!(project.said(&["verify"], 0)["damaged"], Value::Array(Vec::new()));
    // Forms of another version, and half of what a process was making that was killed.
    fs_err::write(part.join("about"), "lbx part 999\nsomething").expect("written");
    fs_err::write(&indexes[0], "lbx derived 999\nsomething").expect("written");
    fs_err::remove_file(&indexes[1]).expect("removed");
    assert_eq!(project.said(&["verify"], 0)["damaged"], Value::Array(Vec::new()));
}

#[test]
fn documents_and_layers_that_cannot_be_read_are_damaged_and_so_is_what_the_disk_does_not_give() {
    let home = Home::new();
    let store = home.cache().join("lbx");
    let verify = |code: i32| {
        let ran = run(&mut lbx(&home, &["cache", "verify", "--message-format", "json"]));
        assert_eq!(ran.code, code, "{}", ran.stderr);
        serde_json::from_str::<Value>(ran.stdout.trim()).expect("one line")
    };
    verify(0);
    let bad = [
        format!("refs/{}.json", hex(1)),
        format!("built/{}.json", hex(1)),
        format!("index/pages/{}.json", hex(1)),
        format!("layers/v1/{}", hex(1)),
        // A folder can be read as little as a file with a bad block.
        format!("blobs/sha256/{}", hex(1)),
    ];
    for path in &bad[..3] {
        fs_err::create_dir_all(store.join(path).parent().expect("a folder")).expect("a folder");
        fs_err::write(store.join(path), if path.contains("pages") { "{}" } else { "{\"cut" })
            .expect("written");
    }
    for path in &bad[3..] {
        fs_err::create_dir_all(store.join(path)).expect("a folder");
    }
    let damaged = verify(1)["damaged"].as_array().expect("a list").len();
    assert_eq!(damaged, bad.len());
    assert!(bad.iter().all(|path| !store.join(path).exists()));
    verify(0);
}
