//! What has to be built: source distributions, local projects, what their builds need, and what is kept of it.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use lbx_testkit::command::{Home, run, stable_report};
use lbx_testkit::images::{Layer, Tar};
use lbx_testkit::stub::Stub;
use lbx_testkit::wheels::{Wheel, sdist};
use lbx_testkit::{index, standin};
use serde_json::Value;

use crate::support::{HEAD, image, lbx_shared, nothing_left};

/// The exit code when requirements do not build.
const REQUIREMENTS: i32 = 6;

/// A build backend (PEP 517) that packs the modules that lie beside it, under the name that pyproject.toml has.
pub(crate) const BACKEND: &str = r#"
import base64, glob, hashlib, os, re, zipfile

def digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")

def build_wheel(folder, config_settings=None, metadata_directory=None):
    print("the backend runs in " + os.getcwd())
    text = open("pyproject.toml").read()
    name, version = (re.search(f'^{key} = "(.*)"', text, re.M).group(1) for key in ("name", "version"))
    info = f"{name}-{version}.dist-info"
    files = {path: open(path, "rb").read() for path in sorted(glob.glob("*.py")) if path != "backend.py"}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{path},sha256={digest(data)},{len(data)}\n" for path, data in files.items()]
    files[f"{info}/RECORD"] = ("".join(record) + f"{info}/RECORD,,\n").encode()
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, wheel), "w") as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data)
    return wheel
"#;

/// A `pyproject.toml` of a project that brings its backend with it.
pub(crate) fn pyproject(name: &str, version: &str, requires: &str) -> String {
    format!(
        "[build-system]\nrequires = [{requires}]\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n\
         [project]\nname = \"{name}\"\nversion = \"{version}\"\n"
    )
}

/// A source distribution of one module.
fn source(folder: &Path, name: &str, requires: &str, module: &str) {
    let pyproject = pyproject(name, "1.0", requires);
    let files =
        [("pyproject.toml", pyproject.as_str()), ("backend.py", BACKEND), (&format!("{name}.py"), module)];
    sdist(folder, name, "1.0", &files);
}

/// A project with these requirements and nothing else.
fn project(requirements: &str) -> Home {
    let home = Home::new();
    home.write("app/src/app.py", "");
    home.write("app/r.txt", requirements);
    let functions = "[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n";
    home.write("app/lbx.toml", format!("{HEAD}{functions}"));
    home
}

fn build(home: &Home, image: &str, index: &Stub) -> Command {
    let mut command = lbx_shared(home, &["build", "-v", "--image", image]);
    command.current_dir(home.project().join("app"));
    command.env("PIP_INDEX_URL", format!("http://{}/simple", index.address()));
    command
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let ran = run(command);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stderr
}

#[track_caller]
fn fails(command: &mut Command) -> String {
    let ran = run(command);
    assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
    ran.stderr
}

fn report(home: &Home) -> Value {
    stable_report(&home.project().join("app/dist/report.json"))
}

/// What was built for the one set.
fn built(home: &Home) -> Vec<Value> {
    report(home)["dependencies"][0]["built"].as_array().expect("a list").clone()
}

/// How often the backend was run.
fn runs(said: &str) -> usize {
    said.matches("the backend runs in").count()
}

/// A word that no other test has, so that nothing of it is in the shared store, which goes with this process.
fn unique(word: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("# {word} {}\n", COUNT.fetch_add(1, Ordering::Relaxed))
}

#[test]
fn a_source_distribution_is_built_once_and_says_so() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    source(folder.path(), "one", "", &unique("once"));
    let index = index::serve(folder.path());
    let first = project("one\n");
    let said = succeeds(&mut build(&first, &image, &index));
    assert_eq!(runs(&said), 1, "{said}");
    let all = built(&first);
    assert_eq!((all.len(), &all[0]["source"]), (1, &"one-1.0.tar.gz".into()), "{all:?}");
    assert_eq!(all[0]["sha256"], report(&first)["artifacts"][0]["wheels"][0]["sha256"]);
    // Another project, and the same bytes.
    let second = project("one\n");
    let said = succeeds(&mut build(&second, &image, &index));
    assert_eq!((runs(&said), built(&second)), (0, all), "{said}");
    let zip = |home: &Home| fs_err::read(home.project().join("app/dist/app.zip")).unwrap();
    assert!(zip(&first) == zip(&second));
    // What has changed is built anew.
    source(folder.path(), "one", "", &unique("changed"));
    let index = index::serve(folder.path());
    let third = project("one\n");
    assert_eq!(runs(&succeeds(&mut build(&third, &image, &index))), 1);
}

#[test]
fn a_build_reaches_nothing_at_all_not_even_the_index() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let backend = format!(
        "import json, os, socket, urllib.parse\nproxy = urllib.parse.urlsplit(os.environ['http_proxy'])\n\
         def outcome(do):\n    try:\n        return str(do())\n    except OSError as error:\n        \
         return type(error).__name__\n\
         seen = [outcome(lambda: socket.create_connection((host, port), 5)) for host, port in\n    \
         (('127.0.0.1', int(open('port').read())), ('::1', 80), ('192.0.2.1', 80), ('index.example', 80))]\n\
         udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         seen.append(outcome(lambda: udp.sendto(b'x', ('192.0.2.1', 53))))\n\
         unix = socket.socket(socket.AF_UNIX)\nseen.append(outcome(lambda: unix.connect('\\0lbx-test')))\n\
         page = socket.create_connection((proxy.hostname, proxy.port), 5)\n\
         page.sendall(b'GET /' + (proxy.password or '').encode() + b'/simple/two/ HTTP/1.0\\r\\n\\r\\n')\n\
         seen.append(page.recv(100).split(b'\\r\\n')[0].decode())\n\
         open('seen.py', 'w').write('seen = ' + json.dumps(seen) + '\\n'){BACKEND}"
    );
    Wheel::new("two", "1.0").write(folder.path());
    // Something that listens on the host.
    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port().to_string();
    let pyproject = pyproject("one", "1.0", "");
    let files = [("pyproject.toml", pyproject.as_str()), ("backend.py", &backend), ("port", &port)];
    sdist(folder.path(), "one", "1.0", &files);
    let index = index::serve(folder.path());
    let home = project("one\n");
    let said = succeeds(&mut build(&home, &image, &index));
    let zip = fs_err::File::open(home.project().join("app/dist/app.zip")).unwrap();
    let mut zip = zip::ZipArchive::new(zip).unwrap();
    let seen = std::io::read_to_string(zip.by_name("seen.py").unwrap()).unwrap();
    let seen: Vec<String> = serde_json::from_str(seen.trim().trim_start_matches("seen = ")).unwrap();
    // Which error it is is the kernel's choice.
    let failed = |one: &String| one.ends_with("Error") || one == "gaierror";
    assert!(seen.len() == 7 && seen[..6].iter().all(failed), "{seen:?}\n{said}");
    assert!(seen[6].starts_with("HTTP/1.0 4") || seen[6].starts_with("HTTP/1.1 4"), "{seen:?}");
}

#[test]
fn what_a_build_needs_comes_as_wheels_from_the_index_or_is_built_itself() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let module = format!("{}WORD = 'from the maker'\n", unique("maker"));
    source(folder.path(), "maker", "\"tool\"", &module);
    Wheel::new("tool", "1.0").file("tool.py", b"").write(folder.path());
    // Its backend uses what the build of it needs.
    let pyproject = pyproject("one", "1.0", "\"maker>=1\", \"tool\"");
    let backend = format!("import maker, tool\nopen('made.py', 'w').write(maker.WORD){BACKEND}");
    let files = [("pyproject.toml", pyproject.as_str()), ("backend.py", &backend)];
    sdist(folder.path(), "one", "1.0", &files);
    let index = index::serve(folder.path());
    let home = project("one\n");
    let said = succeeds(&mut build(&home, &image, &index));
    assert_eq!(runs(&said), 2, "{said}");
    let all = built(&home);
    let requires: Vec<&String> = all[0]["requires"].as_object().expect("wheels").keys().collect();
    assert_eq!(requires, ["maker-1.0-py3-none-any.whl", "tool-1.0-py3-none-any.whl"], "{all:?}");
    // Neither is in the zip.
    let zip = fs_err::File::open(home.project().join("app/dist/app.zip")).unwrap();
    let zip = zip::ZipArchive::new(zip).unwrap();
    let names: Vec<String> = zip.file_names().map(|name| name.expect("UTF-8").into_owned()).collect();
    assert!(names.iter().any(|name| name == "made.py"), "{names:?}");
    assert!(names.iter().all(|name| !name.starts_with("maker") && !name.starts_with("tool")), "{names:?}");
}

#[test]
fn a_build_that_needs_itself_or_what_is_nowhere_says_what_needs_what() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    source(folder.path(), "hen", "\"egg\"", &unique("hen"));
    source(folder.path(), "egg", "\"hen\"", &unique("egg"));
    source(folder.path(), "lost", "\"nowhere==7\"", &unique("lost"));
    let index = index::serve(folder.path());
    for (requirement, expected) in [
        ("hen", "hen-1.0.tar.gz, which needs egg-1.0.tar.gz, which needs hen-1.0.tar.gz"),
        ("lost", "the build of lost-1.0.tar.gz"),
    ] {
        let home = project(requirement);
        let said = fails(&mut build(&home, &image, &index));
        let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains(expected), "{said}");
        nothing_left(&home);
    }
}

#[test]
fn local_projects_are_built_beside_the_project_too_and_only_when_they_change() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let index = index::serve(folder.path());
    let home = project("../lib # ours\n-e ./inner\n");
    for (place, name) in [("lib", "lib"), ("app/inner", "inner")] {
        home.write(&format!("{place}/pyproject.toml"), pyproject(name, "2.0", ""));
        home.write(&format!("{place}/backend.py"), BACKEND);
        home.write(&format!("{place}/{name}.py"), unique(name));
    }
    let said = succeeds(&mut build(&home, &image, &index));
    assert_eq!(runs(&said), 2, "{said}");
    let sources: Vec<Value> = built(&home).iter().map(|one| one["source"].clone()).collect();
    assert_eq!(sources, ["../lib", "inner"]);
    assert_eq!(runs(&succeeds(&mut build(&home, &image, &index))), 0);
    // A time is no content; a byte is.
    home.write("lib/lib.py", fs_err::read(home.project().join("lib/lib.py")).unwrap());
    assert_eq!(runs(&succeeds(&mut build(&home, &image, &index))), 0);
    home.write("lib/lib.py", unique("changed"));
    let said = succeeds(&mut build(&home, &image, &index));
    assert_eq!(runs(&said), 1, "{said}");
    // The builds have left nothing in the projects.
    for place in ["lib", "app/inner"] {
        let left = fs_err::read_dir(home.project().join(place)).unwrap().count();
        assert_eq!(left, 3, "{place}");
    }
    let missing = project("../nowhere\n");
    let ran = run(&mut build(&missing, &image, &index));
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("error: `../nowhere`, which the requirements name, does not exist"));
}

#[test]
fn what_is_built_twice_is_the_same_or_the_difference_is_named() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    source(folder.path(), "steady", "", &unique("steady"));
    let pyproject = pyproject("drifting", "1.0", "");
    let backend = format!("import uuid\nopen('word.py', 'w').write(repr(uuid.uuid4()))\n{BACKEND}");
    let files = [("pyproject.toml", pyproject.as_str()), ("backend.py", &backend), ("a.py", "")];
    sdist(folder.path(), "drifting", "1.0", &files);
    let index = index::serve(folder.path());
    let home = project("steady\ndrifting\n");
    assert_eq!(runs(&succeeds(&mut build(&home, &image, &index))), 2);
    assert!(built(&home).iter().all(|one| one["reproducible"].is_null()));
    let said = succeeds(build(&home, &image, &index).arg("--rebuild"));
    assert_eq!(runs(&said), 4, "{said}");
    assert!(said.contains("lbx: not reproducible: drifting-1.0.tar.gz: word.py has other bytes\n"), "{said}");
    let seen = |all: &[Value]| -> Vec<(Value, Value)> {
        all.iter().map(|one| (one["reproducible"].clone(), one["difference"].clone())).collect()
    };
    let expected = [(false.into(), "word.py has other bytes".into()), (true.into(), Value::Null)];
    assert_eq!(seen(&built(&home)), expected);
    // It is remembered.
    assert_eq!(runs(&succeeds(&mut build(&home, &image, &index))), 0);
    assert_eq!(seen(&built(&home)), expected);
}

#[test]
fn sources_are_built_in_the_image_that_is_named_for_them_and_nothing_else_is() {
    let Some(image) = image() else { return };
    let layer = Layer::gzip(&Tar::new().file("opt/compiler", 0o644, b"a compiler").finish());
    let Some(with_compiler) = standin::with_layer("python3.11", "with-compiler", &layer) else { return };
    let folder = tempfile::tempdir().unwrap();
    let backend =
        format!("import os\nopen('seen.py', 'w').write(str(os.path.exists('/opt/compiler'))){BACKEND}");
    let backend = backend.replace("seen.py", "NAME_seen.py");
    for name in ["c_ext", "plain"] {
        let pyproject = pyproject(name, "1.0", "");
        let backend = backend.replace("NAME", name);
        let files = [("pyproject.toml", pyproject.as_str()), ("backend.py", &backend), ("a", &unique(name))];
        sdist(folder.path(), name, "1.0", &files);
    }
    let index = index::serve(folder.path());
    let seen = |home: &Home, name: &str| {
        let zip = fs_err::File::open(home.project().join("app/dist/app.zip")).unwrap();
        let mut zip = zip::ZipArchive::new(zip).unwrap();
        std::io::read_to_string(zip.by_name(&format!("{name}_seen.py")).unwrap()).unwrap()
    };
    let functions = "[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n";
    for (setting, expected) in [
        (format!("[build.C-Ext]\nimage = \"{with_compiler}\"\n"), ["True", "False"]),
        (format!("build-image = \"{with_compiler}\"\n"), ["True", "True"]),
        (String::new(), ["False", "False"]),
    ] {
        let home = project("c_ext\nplain\n");
        home.write("app/lbx.toml", format!("{HEAD}{setting}{functions}"));
        succeeds(&mut build(&home, &image, &index));
        assert_eq!(["c_ext", "plain"].map(|name| seen(&home, name)), expected, "{setting}");
        let report = report(&home);
        assert_eq!(report["image"]["reference"], image, "the image is the runtime's");
    }
}

#[test]
fn a_source_that_is_none_is_told_in_words() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    sdist(folder.path(), "empty", "1.0", &[]);
    sdist(
        folder.path(),
        "silent",
        "1.0",
        &[
            (
                "pyproject.toml",
                "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n",
            ),
            ("backend.py", "def build_wheel(*others):\n    return 'nothing.whl'\n"),
        ],
    );
    let index = index::serve(folder.path());
    for (requirement, words) in [
        ("empty", "error: there is neither a pyproject.toml nor a setup.py in its folder"),
        ("silent", "silent-1.0.tar.gz"),
    ] {
        let home = project(requirement);
        let said = fails(&mut build(&home, &image, &index));
        assert!(said.contains(words), "{said}");
        nothing_left(&home);
    }
}

#[test]
fn what_a_build_needed_from_another_projects_index_is_not_in_this_ones_wheel() {
    let Some(image) = image() else { return };
    let backend = BACKEND.replace(
        "    files[f\"{info}/METADATA\"]",
        "    import helper_of_indexes\n    files[\"made.py\"] = helper_of_indexes.WHO.encode()\n    files[f\"{info}/METADATA\"]",
    );
    assert_ne!(backend, BACKEND);
    let made = |who: &str, more: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let module = format!("WHO = '{who}'\n");
        let helper = Wheel::new("helper_of_indexes", "1.0").file("helper_of_indexes.py", module.as_bytes());
        helper.write(folder.path());
        let home = project("./shared\n");
        home.write("app/shared/backend.py", &backend);
        home.write("app/shared/pyproject.toml", pyproject("shared", "1.0", "\"helper-of-indexes\""));
        let index = index::serve(folder.path());
        succeeds(build(&home, &image, &index).args(more));
        let zip = fs_err::File::open(home.project().join("app/dist/app.zip")).unwrap();
        let mut zip = zip::ZipArchive::new(zip).unwrap();
        std::io::read_to_string(zip.by_name("made.py").unwrap()).unwrap()
    };
    assert_eq!(made("one", &[]), "one");
    assert_eq!(made("two", &[]), "two");
    // Without a network, what is there is all that there is.
    assert_eq!(made("three", &["--offline"]), "two");
}
