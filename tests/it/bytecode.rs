//! Bytecode in artifacts: made by the image's Python, found by it in Lambda's places, the same bytes each time.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_testkit::command::{Home, run};
use lbx_testkit::stub::Stub;
use lbx_testkit::wheels::Wheel;
use serde_json::json;

use crate::lambda;
use crate::locks::{command, succeeds, wheel, wheels};
use crate::support::{HEAD, LBX, image, lbx};

/// What a handler says of itself and of what it imports: where its code was compiled to be, and what it was loaded from.
const HANDLER: &str = "import dep.module\nimport one\n\n\
    def handler(event, context):\n    \
        return [[handler.__code__.co_filename, __spec__.cached, __spec__.loader.__class__.__name__],\n            \
                [dep.module.get.__code__.co_filename, dep.module.__spec__.loader.__class__.__name__], dep.module.get(), \
                one.VERSION]\n";

/// A locked project of a function and a layer.
struct Project {
    home: Home,
    image: String,
    index: Stub,
    _folder: tempfile::TempDir,
}

impl Project {
    fn new(image: &str, bytecode: &str) -> Self {
        let dep = Wheel::new("dep", "1.0")
            .file("dep/__init__.py", b"")
            .file("dep/module.py", b"def get():\n    return {'a', 'b'} == {'b', 'a'}\n")
            .file("dep/template.py", b"import {{ name }}\n")
            .file("dep/data.txt", b"data");
        let (folder, index) = wheels(&[wheel("one", "1.0"), dep]);
        let home = Home::new();
        home.write("src/app.py", HANDLER);
        home.write("src/broken.py", "print 'Python 2'\n");
        home.write("r.txt", "one\ndep\n");
        let project = Self { home, image: image.to_owned(), index, _folder: folder };
        project.configure(bytecode);
        succeeds(&mut command(&project.home, "lock", image, &project.index));
        project
    }

    fn configure(&self, bytecode: &str) {
        let function =
            "[functions.app]\nsource = \"src\"\nhandler = \"app.handler\"\nrequirements = [\"r.txt\"]\n";
        let layer = "[layers.deps]\nrequirements = [\"r.txt\"]\n";
        self.home.write("lbx.toml", format!("{HEAD}{bytecode}\n{function}{layer}"));
    }

    fn build(&self) -> Command {
        command(&self.home, "build", &self.image, &self.index)
    }

    fn zip(&self, name: &str) -> PathBuf {
        self.home.project().join(format!("dist/{name}.zip"))
    }

    fn files(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        files(&self.zip(name))
    }

    fn unpacked(&self, name: &str) -> PathBuf {
        let folder = self.home.root().join("unpacked").join(name);
        let _ = fs_err::remove_dir_all(&folder);
        for (path, bytes) in self.files(name) {
            let path = folder.join(path);
            fs_err::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs_err::write(path, bytes).expect("a file");
        }
        folder
    }
}

fn files(zip: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut zip = zip::ZipArchive::new(fs_err::File::open(zip).expect("a zip")).expect("a zip");
    let mut files = BTreeMap::new();
    for at in 0..zip.len() {
        let mut file = zip.by_index(at).expect("an entry");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("its bytes");
        files.insert(file.name().expect("a name").into_owned(), bytes);
    }
    files
}

fn names(files: &BTreeMap<String, Vec<u8>>) -> Vec<&str> {
    files.keys().map(String::as_str).filter(|name| !name.contains(".dist-info/")).collect()
}

#[test]
fn bytecode_is_beside_the_sources_and_is_what_runs() {
    let Some(image) = image() else { return };
    let project = Project::new(&image, "bytecode = true");
    succeeds(&mut project.build());
    let expected = [
        "__pycache__/app.cpython-311.pyc",
        "__pycache__/one.cpython-311.pyc",
        "app.py",
        "broken.py",
        "dep/__init__.py",
        "dep/__pycache__/__init__.cpython-311.pyc",
        "dep/__pycache__/module.cpython-311.pyc",
        "dep/data.txt",
        "dep/module.py",
        "dep/template.py",
        "one.py",
    ];
    assert_eq!(names(&project.files("app")), expected);
    let pyc = &project.files("app")["__pycache__/app.cpython-311.pyc"];
    assert_eq!(pyc[4..8], [1, 0, 0, 0], "unchecked, by hash");
    // Nobody looks at the sources: these would raise.
    let task = project.unpacked("app");
    for name in ["app.py", "dep/module.py", "one.py"] {
        fs_err::write(task.join(name), "raise SystemExit('compiled anew')\n").expect("written");
    }
    let answer = lambda::call(&image, &task, None, "app.handler", Some(&json!({})));
    let app = json!(["/var/task/app.py", "/var/task/__pycache__/app.cpython-311.pyc", "SourceFileLoader"]);
    assert_eq!(answer, json!([app, ["/var/task/dep/module.py", "SourceFileLoader"], true, "1.0"]));
    // A layer's are where layers are.
    let names: Vec<String> =
        project.files("deps").into_keys().filter(|name| name.contains("__pycache__/")).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let opt = project.unpacked("deps");
    for name in ["dep/__init__.py", "dep/template.py", "dep/data.txt", "dep/module.py", "one.py"] {
        fs_err::remove_file(task.join(name)).expect("removed");
    }
    fs_err::remove_dir_all(task.join("dep")).expect("removed");
    fs_err::remove_file(task.join("__pycache__/one.cpython-311.pyc")).expect("removed");
    let answer = lambda::call(&image, &task, Some(&opt), "app.handler", Some(&json!({})));
    assert_eq!(answer[1], json!(["/opt/python/dep/module.py", "SourceFileLoader"]));
}

#[test]
fn bytecode_can_be_there_in_place_of_the_sources() {
    let Some(image) = image() else { return };
    let project = Project::new(&image, "bytecode = \"only\"\n[prune]\nkeep = [\"/one.py\"]");
    succeeds(&mut project.build());
    let expected = [
        "app.pyc",
        "broken.py",
        "dep/__init__.pyc",
        "dep/data.txt",
        "dep/module.pyc",
        "dep/template.py",
        "one.py",
        "one.pyc",
    ];
    assert_eq!(names(&project.files("app")), expected);
    let answer = lambda::call(&image, &project.unpacked("app"), None, "app.handler", Some(&json!({})));
    let app = json!(["/var/task/app.py", "/var/task/app.pyc", "SourcelessFileLoader"]);
    assert_eq!(answer, json!([app, ["/var/task/dep/module.py", "SourcelessFileLoader"], true, "1.0"]));
    let report = fs_err::read(project.home.project().join("dist/report.json")).expect("a report");
    let report = String::from_utf8(report).expect("text");
    for path in ["app.py", "dep/module.py"] {
        assert!(
            report.contains(&format!("\"path\": \"{path}\"")) && report.contains("\"compiled\""),
            "{path}"
        );
    }
}

#[test]
fn bytecode_is_the_same_on_any_number_of_cores_in_any_order_and_however_it_is_kept() {
    let Some(image) = image() else { return };
    let project = Project::new(&image, "bytecode = true");
    succeeds(&mut project.build());
    let first = ["app", "deps"].map(|name| fs_err::read(project.zip(name)).expect("a zip"));
    let is_same = || ["app", "deps"].map(|name| fs_err::read(project.zip(name)).expect("a zip")) == first;
    // In a store that has nothing of it, on one core, the layer first, and isolated in each way.
    let store = project.home.root().join("other-store");
    let user = nix::unistd::geteuid();
    let backends: &[&str] =
        if user.is_root() { &["namespaces", "chroot"] } else { &["namespaces", "bwrap", "proot", "loader"] };
    for backend in backends {
        for name in ["deps", "app"] {
            fs_err::remove_file(project.zip(name)).expect("removed");
            let mut alone = project.home.command("taskset");
            alone.args([
                "-c",
                "0",
                LBX,
                "build",
                "--image",
                &image,
                "--backend",
                backend,
                "--require",
                "none",
            ]);
            alone.arg(name).env("LBX_CACHE_DIR", &store);
            alone.env("PIP_INDEX_URL", format!("http://{}/simple", project.index.address()));
            succeeds(&mut alone);
        }
        assert!(is_same(), "in {backend}");
        forget(&store);
    }
    // Own bytecode comes from the zip that is replaced: nothing is compiled when only a text has changed.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    succeeds(&mut project.build());
    assert!(is_same(), "once more");
    project.home.write("src/text.txt", "new");
    succeeds(&mut project.build());
    let pycs = |files: BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
        files.into_iter().filter(|(name, _)| name.contains("__pycache__/")).collect()
    };
    let before = project.home.root().join("before.zip");
    fs_err::write(&before, &first[0]).expect("written");
    assert_eq!(pycs(project.files("app")), pycs(files(&before)));
    // A module that has changed is compiled anew, and only that.
    project.home.write("src/app.py", format!("{HANDLER}\nNEW = True\n"));
    succeeds(&mut project.build());
    let now = pycs(project.files("app"));
    let differ: Vec<_> =
        pycs(files(&before)).into_iter().filter(|(name, bytes)| now[name] != *bytes).collect();
    assert_eq!(
        differ.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["__pycache__/app.cpython-311.pyc"]
    );
}

#[test]
fn equal_modules_of_own_code_and_a_dependency_have_one_bytecode() {
    let Some(image) = image() else { return };
    for bytecode in ["bytecode = true", "bytecode = \"only\""] {
        let project = Project::new(&image, bytecode);
        project.home.write("src/one.py", "VERSION = '1.0'\n");
        succeeds(&mut project.build());
        let files = project.files("app");
        let of_one: Vec<_> = names(&files).into_iter().filter(|name| name.contains("one.")).collect();
        let both = ["__pycache__/one.cpython-311.pyc", "one.py"];
        assert_eq!(of_one, if bytecode.contains("only") { &["one.pyc"][..] } else { &both });
        project.home.write("src/one.py", "VERSION = '2.0'\n");
        let ran = run(&mut project.build());
        assert_eq!(ran.code, 7, "{}", ran.stderr);
        assert!(ran.stderr.contains("one 1.0") && ran.stderr.contains("src"), "{}", ran.stderr);
    }
}

/// Removes what was made of wheels. They stay, and so does the image.
fn forget(store: &Path) {
    for wheel in fs_err::read_dir(store.join("wheels")).expect("wheels").flatten() {
        let Ok(files) = fs_err::read_dir(wheel.path()) else { continue };
        for file in files.flatten().filter(|file| file.file_name().to_string_lossy().starts_with("derived-"))
        {
            fs_err::remove_file(file.path()).expect("removed");
        }
    }
    fs_err::remove_dir_all(store.join("parts")).expect("removed");
}

/// An image that is not there is missed where there is something to compile, and nowhere else.
#[test]
fn bytecode_needs_the_image() {
    let Some(image) = image() else { return };
    let project = Project::new(&image, "bytecode = true");
    let build = || {
        let mut build = lbx(&project.home, &["build", "--image", "127.0.0.1:1/none:1"]);
        build.env("PIP_INDEX_URL", format!("http://{}/simple", project.index.address()));
        run(&mut build)
    };
    let ran = build();
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    project.configure("");
    let ran = build();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}
