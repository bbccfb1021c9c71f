//! By what things are kept: each input that can change one makes another, and what must not matter makes none. The rows are
//! those of the table in ARCHITECTURE.md ("Building again"); records of builds are in `incremental`, what was built from
//! source in `sources`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_testkit::command::Home;
use lbx_testkit::images::sha256;
use lbx_testkit::stub::Stub;
use lbx_testkit::wheels::Wheel;
use lbx_testkit::{index, standin};

use crate::locks::succeeds;
use crate::support::{HEAD, LBX, image, lbx, shared_store};

/// A project whose requirements have hashes, so that it needs no image, with the wheels in an index.
struct Project {
    home: Home,
    index: Stub,
    folder: tempfile::TempDir,
}

impl Project {
    fn new(content: &str) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        for name in ["one", "two"] {
            wheel(name, content).write(folder.path());
        }
        let index = index::serve(folder.path());
        let home = Home::new();
        home.write("src/app.py", "import one\n");
        let project = Self { home, index, folder };
        project.require(&["one", "two"]);
        project.configure("", "");
        project
    }

    fn require(&self, names: &[&str]) {
        let line = |name: &&str| format!("{name}==1.0 --hash={}\n", self.digest(name));
        self.home.write("r.txt", names.iter().map(line).collect::<String>());
    }

    fn digest(&self, name: &str) -> String {
        sha256(
            &fs_err::read(self.folder.path().join(format!("{name}-1.0-py3-none-any.whl"))).expect("a wheel"),
        )
    }

    /// `project` goes to `[project]`, and `more` to the end.
    fn configure(&self, project: &str, more: &str) {
        let function = "[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n";
        self.home.write("lbx.toml", format!("{HEAD}{project}\n{function}{more}"));
    }

    fn command(&self) -> Command {
        let mut command = lbx(&self.home, &["build", "--image", "127.0.0.1:1/none:1"]);
        command.env("PIP_INDEX_URL", format!("http://{}/simple", self.index.address()));
        command
    }

    fn store(&self) -> PathBuf {
        self.home.cache().join("lbx")
    }

    /// What is kept of parts and of wheels, by its keys.
    fn kept(&self) -> BTreeSet<String> {
        let parts = names(&self.store().join("parts/v1")).into_iter().filter(|name| !name.starts_with('.'));
        let derived = names(&self.store().join("wheels")).into_iter().flat_map(|wheel| {
            let of_it = names(&self.store().join("wheels").join(&wheel));
            of_it.into_iter().filter(|name| !name.contains(".whl")).map(move |name| format!("{wheel}/{name}"))
        });
        parts.chain(derived).collect()
    }

    /// What a build has added: how many parts, and the files beside wheels, without the wheels' digests.
    #[track_caller]
    fn adds(&self, command: &mut Command) -> (usize, BTreeSet<String>) {
        let before = self.kept();
        succeeds(command);
        let new: Vec<String> = self.kept().difference(&before).cloned().collect();
        let parts = new.iter().filter(|name| !name.contains('/')).count();
        let derived = new.iter().filter_map(|name| Some(name.split_once('/')?.1.to_owned()));
        (parts, derived.filter(|name| !name.contains(".index")).collect())
    }
}

fn wheel(name: &str, content: &str) -> Wheel {
    let module = format!("NAME = '{name}'\n# {content}\n{}", "value = [1, 2, 3]\n".repeat(50));
    Wheel::new(name, "1.0")
        .file(&format!("{name}/__init__.py"), module.as_bytes())
        .file(&format!("{name}/tests/__init__.py"), b"")
        .file(&format!("{name}/tests/test_one.py"), b"")
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[test]
fn each_input_of_a_dependency_part_and_of_derived_files_makes_another() {
    let mut project = Project::new("1");
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    let (parts, derived) = project.adds(&mut project.command());
    assert_eq!((parts, derived.len()), (1, 2), "an index, and what checks have to know: {derived:?}");
    // The rules, by all that chooses them.
    for more in ["sets = [\"tests\"]", "exclude = [\"*.txt\"]", "keep = [\"*.txt\"]", "botocore = [\"s3\"]"] {
        project.configure("", &format!("[prune]\n{more}\n"));
        assert_eq!(project.adds(&mut project.command()), (1, of(&[])), "{more}");
    }
    // Compressors and what strips.
    project.configure("compression = \"max\"", "");
    let (parts, derived) = project.adds(&mut project.command());
    assert!(
        parts == 1 && derived.len() == 1 && derived.iter().all(|name| name.contains("smaller-as-is")),
        "{derived:?}"
    );
    project.configure("", "[prune]\nstrip = true\n");
    let (parts, derived) = project.adds(&mut project.command());
    assert!(
        parts == 1 && derived.len() == 1 && derived.iter().all(|name| name.contains("smaller-strip")),
        "{derived:?}"
    );
    project.configure("", "");
    // The time of entries, and where the packages land.
    assert_eq!(project.adds(project.command().env("SOURCE_DATE_EPOCH", "1700000000")), (1, of(&[])));
    project.configure("", "[layers.deps]\nrequirements = [\"r.txt\"]\n");
    assert_eq!(project.adds(&mut project.command()), (1, of(&[])));
    // The wheels: fewer, and others.
    project.configure("", "");
    project.require(&["one"]);
    assert_eq!(project.adds(&mut project.command()), (1, of(&[])));
    wheel("two", "2").write(project.folder.path());
    project.index = index::serve(project.folder.path());
    project.require(&["one", "two"]);
    let (parts, derived) = project.adds(&mut project.command());
    assert_eq!((parts, derived.len()), (1, 2));
}

#[test]
fn what_must_not_matter_makes_nothing_new() {
    let project = Project::new("1");
    succeeds(&mut project.command());
    assert!(!project.kept().is_empty());
    let nothing = (0, BTreeSet::new());
    let fresh = || {
        fs_err::remove_dir_all(project.home.project().join("dist")).expect("removed");
        project.command()
    };
    assert_eq!(project.adds(fresh().current_dir(project.home.project().join("src"))), nothing, "the folder");
    assert_eq!(project.adds(fresh().env("TZ", "Pacific/Kiritimati").env("LANG", "tr_TR.UTF-8")), nothing);
    let login = format!("http://me:secret@{}/simple", project.index.address());
    assert_eq!(project.adds(fresh().env("PIP_INDEX_URL", login)), nothing, "a login");
    project.require(&["two", "one"]);
    assert_eq!(project.adds(&mut fresh()), nothing, "the order of lines");
    let mut umask = project.home.command("/bin/sh");
    umask.args(["-c", "umask 077; exec \"$0\" build --image 127.0.0.1:1/none:1 --out-dir other", LBX]);
    umask.env("PIP_INDEX_URL", format!("http://{}/simple", project.index.address()));
    assert_eq!(project.adds(&mut umask), nothing, "the umask, and another output");
    // Another project in another folder, with other own code, and its files' times.
    let elsewhere = project.home.root().join("elsewhere");
    lbx_testkit::command::copy_tree(&project.home.project(), &elsewhere, false);
    fs_err::write(elsewhere.join("src/app.py"), "import two\n").expect("written");
    assert_eq!(project.adds(fresh().current_dir(&elsewhere)), nothing, "another project");
}

#[test]
fn bytecode_is_kept_by_image_place_and_compressor() {
    let Some(image) = image() else { return };
    let Some(other) = standin::reference("build-python3.11") else { return };
    // In the store that has the images; no other test has these wheels.
    let project = Project::new("for the test of keys");
    let digest = project.digest("one").replace("sha256:", "");
    let bytecode = || -> BTreeSet<String> {
        let all = names(&shared_store().join("wheels").join(&digest)).into_iter();
        all.filter(|name| name.starts_with("derived-bytecode") && !name.contains(".index")).collect()
    };
    let build = |image: &str| {
        let mut command = lbx(&project.home, &["build", "--image", image]);
        command.env("PIP_INDEX_URL", format!("http://{}/simple", project.index.address()));
        succeeds(command.env("LBX_CACHE_DIR", shared_store()));
        bytecode().len()
    };
    project.configure("bytecode = true", "");
    assert_eq!(build(&image), 1);
    project.configure("bytecode = \"only\"", "");
    assert_eq!(build(&image), 1, "the same, in another place of the zip");
    project.configure("bytecode = true", "[prune]\nsets = [\"tests\"]\n");
    assert_eq!(build(&image), 1, "whatever is left out");
    project.configure("bytecode = true", "[layers.deps]\nrequirements = [\"r.txt\"]\n");
    assert_eq!(build(&image), 2, "where layers are");
    project.configure("bytecode = true\ncompression = \"max\"", "");
    assert_eq!(build(&image), 3, "the compressor");
    project.configure("bytecode = true", "");
    assert_eq!(build(&other), 4, "the image");
}
