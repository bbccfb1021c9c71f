//! Locks: what `lbx lock` writes, what `lbx build` makes of it and of other tools' locks, and what it refuses.

use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_testkit::command::{Home, run, stable_report};
use lbx_testkit::git::{self, Repository};
use lbx_testkit::index;
use lbx_testkit::stub::Stub;
use lbx_testkit::wheels::{Wheel, sdist};
use serde_json::Value;

use crate::sources::{BACKEND, pyproject};
use crate::support::{HEAD, image, lbx, lbx_shared, nothing_left, same};

/// The exit code when the configuration, or what it names, is at fault.
const PROJECT: i32 = 3;
/// The exit code when requirements do not resolve or build.
const REQUIREMENTS: i32 = 6;

/// An image that nobody has.
const NO_IMAGE: &str = "127.0.0.1:1/none:1";

/// An index with these wheels.
pub(crate) fn wheels(all: &[Wheel]) -> (tempfile::TempDir, Stub) {
    let folder = tempfile::tempdir().expect("a directory");
    for wheel in all {
        wheel.write(folder.path());
    }
    let index = index::serve(folder.path());
    (folder, index)
}

pub(crate) fn wheel(name: &str, version: &str) -> Wheel {
    Wheel::new(name, version).file(&format!("{name}.py"), format!("VERSION = '{version}'\n").as_bytes())
}

pub(crate) fn project(requirements: &str) -> Home {
    let home = Home::new();
    home.write("src/app.py", "");
    home.write("r.txt", requirements);
    let functions = "[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n";
    home.write("lbx.toml", format!("{HEAD}{functions}"));
    home
}

/// The same, installing from another file.
fn project_of(file: &str, text: &str) -> Home {
    let home = project("");
    home.write(file, text);
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\nrequirements = [\"{file}\"]\n"));
    home
}

pub(crate) fn command(home: &Home, name: &str, image: &str, index: &Stub) -> Command {
    let mut command = lbx_shared(home, &[name, "--image", image]);
    command.env("PIP_INDEX_URL", format!("http://{}/simple", index.address()));
    command
}

/// `lbx build` with a store of its own, in which there is no image, and none to be had.
fn without_image(home: &Home, index: &Stub) -> Command {
    let mut command = lbx(home, &["build", "--image", NO_IMAGE]);
    command.env("PIP_INDEX_URL", format!("http://{}/simple", index.address()));
    command
}

#[track_caller]
pub(crate) fn succeeds(command: &mut Command) -> String {
    let ran = run(command);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stderr
}

/// What is said from the error on.
#[track_caller]
pub(crate) fn fails(home: &Home, command: &mut Command, code: i32) -> String {
    let ran = run(command);
    assert_eq!(ran.code, code, "{}", ran.stderr);
    nothing_left(home);
    let from = ran.stderr.find("error: ").unwrap_or_default();
    home.redact(ran.stderr[from..].trim_end())
}

fn lock(home: &Home) -> String {
    fs_err::read_to_string(home.project().join("pylock.r.toml")).expect("a lock")
}

fn report(home: &Home) -> Value {
    stable_report(&home.project().join("dist/report.json"))
}

pub(crate) fn zip(home: &Home) -> Vec<u8> {
    fs_err::read(home.project().join("dist/app.zip")).expect("a zip")
}

/// The versions in the zip, by name.
fn versions(home: &Home) -> String {
    let report = report(home);
    let wheels = report["artifacts"][0]["wheels"].as_array().expect("wheels");
    let text = |one: &Value, key: &str| one[key].as_str().expect("text").to_owned();
    let all = wheels.iter().map(|one| format!("{} {} ", text(one, "name"), text(one, "version")));
    all.collect::<Vec<_>>().concat()
}

#[test]
fn a_locked_build_asks_nobody_has_no_image_and_gives_the_same_bytes() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0").requires("two"), wheel("two", "2.0")]);
    let home = project("one\n");
    let said = succeeds(&mut command(&home, "build", &image, &index));
    assert!(said.contains("lbx: lock: app: there is none; `lbx lock` writes pylock.r.toml\n"), "{said}");
    assert_eq!(report(&home)["dependencies"][0]["lock"], Value::Null);
    let resolved = zip(&home);
    let ran = run(&mut command(&home, "lock", &image, &index));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "pylock.r.toml\n"), "{}", ran.stderr);
    let changes = "lbx: locked pylock.r.toml: 2 packages\nlbx:   + one 1.0\nlbx:   + two 2.0\n";
    assert!(ran.stderr.ends_with(changes), "{}", ran.stderr);
    // In another store, files are fetched by their addresses and nothing else is asked.
    let asked = index.seen().len();
    let said = succeeds(without_image(&home, &index).arg("--locked"));
    same(
        said.rsplit_once("lbx: built").expect("a zip").0,
        "lbx: building app\nlbx: lock: app: pylock.r.toml\nlbx: lock: app: 2 wheels\n",
    );
    let seen: Vec<String> = index.seen()[asked..].iter().map(|request| request.path.clone()).collect();
    assert!(seen.len() == 2 && seen.iter().all(|path| path.starts_with("/files/")), "{seen:?}");
    assert!(zip(&home) == resolved);
    let found = report(&home);
    assert_eq!(found["image"], Value::Null);
    assert_eq!(found["dependencies"][0]["lock"], "pylock.r.toml");
    assert_eq!(found["dependencies"][0]["taken"].as_array().map(Vec::len), Some(2));
    // The second time, nothing at all.
    let asked = index.seen().len();
    succeeds(without_image(&home, &index).arg("--offline"));
    assert_eq!((index.seen().len(), zip(&home) == resolved), (asked, true));
}

#[test]
fn versions_stay_where_they_are_until_they_are_told_to_move() {
    let Some(image) = image() else { return };
    let (folder, index) = wheels(&[wheel("one", "1.0"), wheel("two", "1.0")]);
    let home = project("one\ntwo\n");
    succeeds(&mut command(&home, "lock", &image, &index));
    let first = lock(&home);
    drop(index);
    for name in ["one", "two"] {
        wheel(name, "2.0").write(folder.path());
    }
    let index = index::serve(folder.path());
    let locked = |arguments: &[&str]| {
        let said = succeeds(command(&home, "lock", &image, &index).args(arguments));
        said.rsplit_once("packages\n").expect("a lock").1.to_owned()
    };
    assert_eq!(locked(&[]), "");
    let ports = |text: &str| text.lines().filter(|line| !line.contains("http://")).collect::<String>();
    assert_eq!(ports(&lock(&home)), ports(&first));
    assert_eq!(locked(&["--upgrade=One"]), "lbx:   one 1.0 → 2.0\n");
    assert_eq!(locked(&["--upgrade"]), "lbx:   two 1.0 → 2.0\n");
    let said = fails(&home, command(&home, "lock", &image, &index).arg("--upgrade=three"), PROJECT);
    same(&said, "error: there is no package `three` to upgrade");
    // What the requirements say comes first.
    home.write("r.txt", "one<2\ntwo\n");
    assert_eq!(locked(&[]), "lbx:   one 2.0 → 1.0\n");
    home.write("r.txt", "one<2\n");
    let said = succeeds(&mut command(&home, "lock", &image, &index));
    assert!(said.ends_with("1 package\nlbx:   - two 2.0\n"), "{said}");
}

#[test]
fn a_lock_that_does_not_cover_is_not_used_and_is_an_error_where_one_is_demanded() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0"), wheel("two", "1.0")]);
    let home = project("one\n");
    let hint = "\nhint: `lbx lock` writes one that can";
    same(
        &fails(&home, command(&home, "build", NO_IMAGE, &index).arg("--locked"), PROJECT),
        &format!("error: pylock.r.toml cannot be used: there is none{hint}"),
    );
    succeeds(&mut command(&home, "lock", &image, &index));
    home.write("r.txt", "one\ntwo\n");
    same(
        &fails(&home, command(&home, "build", NO_IMAGE, &index).arg("--locked"), PROJECT),
        &format!("error: pylock.r.toml cannot be used: it was made from other requirements{hint}"),
    );
    let said = succeeds(&mut command(&home, "build", &image, &index));
    let unused = "lbx: lock: app: pylock.r.toml is not used: it was made from other requirements; `lbx lock` makes it anew\n";
    assert!(said.contains(unused), "{said}");
    assert_eq!(versions(&home), "one 1.0 two 1.0 ");
    fs_err::remove_dir_all(home.project().join("dist")).unwrap();
    // One for another target, and one of another tool, which says nothing of what it was made from.
    home.write("r.txt", "one\n");
    let arm = ["--locked", "--arch", "arm64"];
    same(
        &fails(&home, command(&home, "build", NO_IMAGE, &index).args(arm), PROJECT),
        &format!(
            "error: pylock.r.toml cannot be used: the lock is for another target than Python 3.11 on aarch64{hint}"
        ),
    );
    let foreign = lock(&home).split("[tool.lbx]").next().unwrap_or_default().to_owned();
    home.write("pylock.r.toml", &foreign);
    succeeds(without_image(&home, &index).arg("--locked"));
    fs_err::remove_dir_all(home.project().join("dist")).unwrap();
    home.write("r.txt", "one>=2\n");
    same(
        &fails(&home, command(&home, "build", NO_IMAGE, &index).arg("--locked"), PROJECT),
        &format!("error: pylock.r.toml cannot be used: it has 1.0 for `one>=2`{hint}"),
    );
    home.write("pylock.r.toml", "lock-version = \"1.0\"\npackages = 7\n");
    let said = fails(&home, command(&home, "build", NO_IMAGE, &index).arg("--locked"), PROJECT);
    assert!(said.starts_with("error: pylock.r.toml cannot be used: invalid type: integer `7`"), "{said}");
}

#[test]
fn files_that_are_not_what_the_lock_says_are_refused_by_name() {
    let Some(image) = image() else { return };
    let (folder, index) = wheels(&[wheel("one", "1.0"), wheel("two", "1.0")]);
    let home = project("one\n");
    succeeds(&mut command(&home, "lock", &image, &index));
    let good = lock(&home);
    // Sizes are looked at first.
    let size =
        good.split("size = ").nth(1).and_then(|rest| rest.split(',').next()).expect("a size").to_owned();
    let good = good.replace(&format!("size = {size}, "), "");
    // Other bytes than were locked.
    drop(index);
    wheel("one", "1.0").file("evil.py", b"").write(folder.path());
    let index = index::serve(folder.path());
    let moved = |text: &str| {
        let from = text.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
        text.replace(from, index.address())
    };
    home.write("pylock.r.toml", moved(&good));
    let said = fails(&home, &mut without_image(&home, &index), REQUIREMENTS);
    let expected = "error: cannot get the requirements of pylock.r.toml: one-1.0-py3-none-any.whl from 127.0.0.1:[PORT] has the sha256 ";
    assert!(said.starts_with(expected), "{said}");
    // A package that says that it is another one.
    let two = folder.path().join("two-1.0-py3-none-any.whl");
    let sha256 = lbx_testkit::images::sha256(&fs_err::read(&two).unwrap()).replace("sha256:", "");
    let text = format!(
        "lock-version = \"1.0\"\ncreated-by = \"x\"\n[[packages]]\nname = \"one\"\nversion = \"1.0\"\n\
         wheels = [{{ url = \"http://{}/files/two/two-1.0-py3-none-any.whl\", hashes = {{ sha256 = \"{sha256}\" }} }}]\n",
        index.address()
    );
    home.write("pylock.r.toml", &text);
    let said = fails(&home, &mut without_image(&home, &index), REQUIREMENTS);
    let expected = "error: two-1.0-py3-none-any.whl, which pylock.r.toml has for one 1.0, is two 1.0\n";
    assert!(said.starts_with(expected), "{said}");
    // Nothing for this CPU.
    home.write(
        "pylock.r.toml",
        text.replace("two-1.0-py3-none-any.whl", "one-1.0-cp311-cp311-win_amd64.whl"),
    );
    same(
        &fails(&home, &mut without_image(&home, &index), REQUIREMENTS),
        "error: no file of one 1.0 in pylock.r.toml is for python3.11 on x86_64\n\
         hint: there are one-1.0-cp311-cp311-win_amd64.whl; lock for this runtime and CPU, or a version that has a wheel for them",
    );
}

#[test]
fn what_is_built_is_locked_by_what_it_is_built_from() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = |folder: &Path, name: &str| {
        let pyproject = pyproject(name, "1.0", "");
        let module = format!("{name}.py");
        let files = [("pyproject.toml", pyproject.as_str()), ("backend.py", BACKEND), (module.as_str(), "")];
        sdist(folder, name, "1.0", &files)
    };
    source(folder.path(), "distributed");
    let index = index::serve(folder.path());
    let repositories = tempfile::tempdir().unwrap();
    let repository = Repository::new(&repositories.path().join("cloned"));
    let files = |module: &str| {
        let all = [("pyproject.toml", pyproject("cloned", "1.0", "")), ("backend.py", BACKEND.into())];
        let all = all.into_iter().chain([("cloned.py", module.to_owned())]);
        all.collect::<Vec<_>>()
    };
    let commit = |module: &str| {
        let files = files(module);
        repository.commit(&files.iter().map(|(path, text)| (*path, text.as_str())).collect::<Vec<_>>())
    };
    let first = commit("# first");
    let server = git::serve(repositories.path(), None);
    let git = format!("git+http://{}/cloned@main", server.address());
    let home = project(&format!(
        "distributed\n./local\n./archived-1.0.tar.gz\n./wheel-1.0-py3-none-any.whl\ncloned @ {git}\n"
    ));
    home.write("local/pyproject.toml", pyproject("local", "1.0", ""));
    home.write("local/backend.py", BACKEND);
    home.write("local/local.py", "");
    source(&home.project(), "archived");
    wheel("wheel", "1.0").write(&home.project());
    let said = succeeds(&mut command(&home, "lock", &image, &index));
    assert!(said.contains("locked pylock.r.toml: 5 packages\n"), "{said}");
    let text = lock(&home);
    for words in [
        "archive = { path = \"archived-1.0.tar.gz\", hashes",
        "archive = { path = \"wheel-1.0-py3-none-any.whl\", hashes",
        "directory = { path = \"local\" }",
        "sdist = { name = \"distributed-1.0.tar.gz\", url = \"http://",
        &format!("requested-revision = \"main\", commit-id = \"{first}\""),
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // The branch moves, and the lock does not.
    commit("# second");
    succeeds(command(&home, "build", &image, &index).arg("--locked"));
    assert_eq!(versions(&home), "archived 1.0 cloned 1.0 distributed 1.0 local 1.0 wheel 1.0 ");
    let built = report(&home)["dependencies"][0]["built"].to_string();
    assert!(built.contains(&format!("cloned@{first}")), "{built}");
    let first = zip(&home);
    succeeds(command(&home, "build", &image, &index).args(["--locked", "--offline"]));
    assert!(zip(&home) == first);
}

#[test]
fn locks_without_addresses_are_found_in_the_index_by_their_hashes() {
    let Some(image) = image() else { return };
    let (folder, index) = wheels(&[
        wheel("one", "1.0"),
        wheel("one", "1.0").tag("cp311-cp311-manylinux2014_x86_64").file("fast.py", b""),
        wheel("one", "1.0").tag("cp311-cp311-win_amd64"),
        wheel("two", "2.0"),
    ]);
    let hash = |name: &str| {
        lbx_testkit::images::sha256(&fs_err::read(folder.path().join(name)).unwrap()).replace("sha256:", "")
    };
    let (any, fast, other) = (
        hash("one-1.0-py3-none-any.whl"),
        hash("one-1.0-cp311-cp311-manylinux2014_x86_64.whl"),
        hash("one-1.0-cp311-cp311-win_amd64.whl"),
    );
    let two = hash("two-2.0-py3-none-any.whl");
    let pipfile = format!(
        r#"{{"_meta": {{}}, "default": {{
            "one": {{"version": "==1.0", "hashes": ["sha256:{any}", "sha256:{fast}", "sha256:{other}"]}},
            "two": {{"version": "==2.0", "hashes": ["sha256:{two}"], "markers": "python_version >= '3'"}},
            "old": {{"version": "==1", "hashes": ["sha256:{two}"], "markers": "python_version < '3'"}}
        }}, "develop": {{}}}}"#
    );
    let requirements = format!(
        "one==1.0 --hash=sha256:{any} \\\n  --hash=sha256:{fast} --hash=sha256:{other}\ntwo==2.0 --hash=sha256:{two}\n"
    );
    let poetry = format!(
        "[[package]]\nname = \"one\"\nversion = \"1.0\"\noptional = false\npython-versions = \"*\"\ngroups = [\"main\"]\n\
         files = [{{file = \"one-1.0-py3-none-any.whl\", hash = \"sha256:{any}\"}}, \
         {{file = \"one-1.0-cp311-cp311-manylinux2014_x86_64.whl\", hash = \"sha256:{fast}\"}}]\n\
         [[package]]\nname = \"two\"\nversion = \"2.0\"\noptional = false\npython-versions = \"*\"\ngroups = [\"main\"]\n\
         files = [{{file = \"two-2.0-py3-none-any.whl\", hash = \"sha256:{two}\"}}]\n\
         [metadata]\nlock-version = \"2.1\"\npython-versions = \">=3.9\"\ncontent-hash = \"0\"\n"
    );
    let mut zips = Vec::new();
    for (file, text) in [("Pipfile.lock", &pipfile), ("hashed.txt", &requirements), ("poetry.lock", &poetry)]
    {
        let home = project_of(file, text);
        succeeds(without_image(&home, &index).arg("--locked"));
        let wheels = report(&home)["artifacts"][0]["wheels"].to_string();
        assert!(
            wheels.contains(&fast) && wheels.contains(&two) && !wheels.contains(&any),
            "{file}: {wheels}"
        );
        assert_eq!(report(&home)["dependencies"][0]["lock"], file);
        zips.push(zip(&home));
        let ran = run(&mut command(&home, "lock", &image, &index));
        assert_eq!(ran.code, PROJECT, "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("nothing to lock: {file} is locked already")), "{}", ran.stderr);
    }
    assert!(zips.windows(2).all(|pair| pair[0] == pair[1]));
    // A hash that no file has.
    let home = project_of("Pipfile.lock", &pipfile.replace(&two, &"0".repeat(64)));
    let said = fails(&home, &mut without_image(&home, &index), REQUIREMENTS);
    same(
        &said,
        "error: no file of two 2.0 in Pipfile.lock is for python3.11 on x86_64\n\
         hint: no index has a file with one of its hashes: lock again",
    );
}

#[test]
fn a_requirement_file_with_hashes_must_have_all_that_its_packages_require() {
    let (folder, index) = wheels(&[
        wheel("one", "1.0").requires("two>=2 ; python_version >= '3'").requires("gone ; extra == 'more'"),
        wheel("two", "2.0"),
    ]);
    let line = |name: &str, version: &str| {
        let path = folder.path().join(format!("{name}-{version}-py3-none-any.whl"));
        let hash = lbx_testkit::images::sha256(&fs_err::read(path).unwrap());
        format!("{name}=={version} --hash={hash}\n")
    };
    let home = project(&line("one", "1.0"));
    same(
        &fails(&home, &mut without_image(&home, &index), REQUIREMENTS),
        "error: r.txt has nothing for `two>=2 ; python_version >= '3'`, which one 1.0 requires\n\
         hint: where lines have hashes, all packages must stand there: `pip-compile --generate-hashes` writes them",
    );
    home.write("r.txt", line("one", "1.0") + &line("two", "2.0"));
    succeeds(&mut without_image(&home, &index));
    assert_eq!(versions(&home), "one 1.0 two 2.0 ");
}

#[test]
fn without_requirements_there_is_nothing_to_lock() {
    let home = Home::new();
    home.write("app.py", "");
    let mut locking = lbx_shared(&home, &["lock", "--runtime", "python3.11", "--image", NO_IMAGE]);
    same(
        &fails(&home, &mut locking, PROJECT),
        "error: there is nothing to lock: the project has no requirements\n\
         hint: name requirement files in lbx.toml, or with -r",
    );
}

#[test]
fn a_login_is_in_no_lock() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0")]);
    let home = project("one\n");
    let mut locking = command(&home, "lock", &image, &index);
    locking.env("PIP_INDEX_URL", format!("http://mallory:hush-Zq83@{}/simple", index.address()));
    succeeds(&mut locking);
    let text = lock(&home);
    assert!(
        !text.contains("hush-Zq83") && !text.contains("mallory") && text.contains("index = \"http://127"),
        "{text}"
    );
}

#[test]
fn a_project_file_says_what_is_needed_and_a_lock_stands_alone() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0")]);
    let home =
        project_of("pyproject.toml", "[project]\nname = \"x\"\nversion = \"1\"\ndependencies = [\"one\"]\n");
    succeeds(&mut command(&home, "build", &image, &index));
    assert_eq!(versions(&home), "one 1.0 ");
    succeeds(&mut command(&home, "lock", &image, &index));
    succeeds(without_image(&home, &index).arg("--locked"));
    assert_eq!(report(&home)["dependencies"][0]["lock"], "pylock.toml");
    let home = project("one\n");
    home.write("uv.lock", "version = 1\n");
    home.write(
        "lbx.toml",
        format!("{HEAD}[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\", \"uv.lock\"]\n"),
    );
    same(
        &fails(&home, &mut without_image(&home, &index), PROJECT),
        "error: uv.lock: a lock has all that is installed, and cannot be one of several requirement files\n\
         hint: name the lock alone, or none: `[defaults] requirements` count, too",
    );
}

#[test]
fn extras_and_groups_are_installed_when_they_are_named() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0"), wheel("two", "2.0"), wheel("three", "3.0")]);
    let text = "[project]\nname = \"x\"\nversion = \"1\"\ndependencies = [\"one\"]\noptional-dependencies.more = [\"two\"]\n\
                [dependency-groups]\ndev = [\"three\"]\n";
    let home = project_of("pyproject.toml", text);
    let functions = "[functions.app]\nsource = \"src\"\nrequirements = [\"pyproject.toml[more]:dev\"]\n";
    home.write("lbx.toml", format!("{HEAD}{functions}"));
    succeeds(&mut command(&home, "build", &image, &index));
    assert_eq!(versions(&home), "one 1.0 three 3.0 two 2.0 ");
    succeeds(&mut command(&home, "lock", &image, &index));
    assert!(home.project().join("pylock.more-dev.toml").is_file());
    succeeds(without_image(&home, &index).arg("--locked"));
    assert_eq!(versions(&home), "one 1.0 three 3.0 two 2.0 ");
    fs_err::remove_dir_all(home.project().join("dist")).unwrap();
    home.write("lbx.toml", format!("{HEAD}{}", functions.replace("more", "no")));
    same(
        &fails(&home, &mut without_image(&home, &index), PROJECT),
        "error: pyproject.toml[no]:dev: it has no extra `no`\nhint: there are more",
    );
}

/// pip and uv install from a lock what lbx packs.
#[test]
fn other_tools_read_what_is_written() {
    let Some(image) = image() else { return };
    let Some(tools) = tools() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0").requires("two"), wheel("two", "2.0")]);
    let home = project("one\n");
    succeeds(&mut command(&home, "lock", &image, &index));
    for (name, mut tool) in tools {
        let target = home.root().join(name);
        tool.env("PATH", "/usr/bin:/bin").env("HOME", home.root().join("home")).current_dir(home.project());
        let output = tool.arg("--target").arg(&target).args(["-r", "pylock.r.toml"]).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        for (file, version) in [("one.py", "1.0"), ("two.py", "2.0")] {
            let text = fs_err::read_to_string(target.join(file)).unwrap();
            assert_eq!(text, format!("VERSION = '{version}'\n"), "{name}");
        }
    }
}

/// The newest pip, and uv, as commands that install.
#[expect(clippy::disallowed_methods, reason = "a test has no other way to be told")]
fn tools() -> Option<Vec<(&'static str, Command)>> {
    let folder = PathBuf::from(std::env::var_os("LBX_TEST_WHEELS")?);
    let find = |start: &str| {
        let entries = fs_err::read_dir(&folder).expect("a listing").flatten().map(|entry| entry.path());
        let mut found: Vec<PathBuf> = entries
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)))
            .collect();
        found.sort();
        found.pop().unwrap_or_else(|| panic!("no wheel of {start}"))
    };
    let run = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('pip', run_name='__main__', alter_sys=True)";
    let mut pip = Command::new("python3");
    pip.env_clear().args(["-I", "-c", run]).arg(find("pip-26"));
    pip.args([
        "--isolated",
        "install",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
    ]);
    let program = unpacked(&find("uv-"), "uv");
    let mut uv = Command::new(program);
    uv.env_clear().args([
        "pip",
        "install",
        "--quiet",
        "--no-cache",
        "--no-config",
        "--python",
        "/usr/bin/python3",
    ]);
    Some(vec![("pip", pip), ("uv", uv)])
}

/// A program that is in a wheel, for the length of this process.
fn unpacked(wheel: &Path, name: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let mut zip = zip::ZipArchive::new(fs_err::File::open(wheel).expect("a wheel")).expect("a zip");
    let names: Vec<String> = zip.file_names().map(|name| name.expect("UTF-8").into_owned()).collect();
    let inside =
        names.iter().find(|path| path.ends_with(&format!(".data/scripts/{name}"))).expect("the program");
    let path = lbx_testkit::command::shared_directory().join(name);
    let mut program = fs_err::File::create(&path).expect("a file");
    std::io::copy(&mut zip.by_name(inside).expect("the program"), &mut program).expect("its bytes");
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    path
}

#[test]
fn an_address_in_a_lock_that_must_not_be_asked_is_not() {
    let (_folder, index) = wheels(&[wheel("one", "1.0")]);
    let hash = "0".repeat(64);
    for (url, words) in [
        (
            "http://169.254.169.254/one-1.0-py3-none-any.whl",
            "169.254.169.254 is not asked: it is an address of this machine, or one that only its cloud answers",
        ),
        (
            "http://files.example.org/one-1.0-py3-none-any.whl",
            "http://files.example.org/one-1.0-py3-none-any.whl is plain HTTP",
        ),
    ] {
        let text = format!(
            "lock-version = \"1.0\"\ncreated-by = \"x\"\n[[packages]]\nname = \"one\"\nversion = \"1.0\"\n\
             wheels = [{{ url = \"{url}\", hashes = {{ sha256 = \"{hash}\" }} }}]\n"
        );
        let home = project_of("pylock.toml", &text);
        let said = fails(&home, &mut without_image(&home, &index), REQUIREMENTS);
        assert!(
            said.starts_with(&format!("error: cannot get the requirements of pylock.toml: {words}")),
            "{said}"
        );
    }
}

#[test]
fn a_lock_cannot_show_a_build_the_folder_that_the_project_is_in() {
    let (_folder, index) = wheels(&[]);
    let lock = "lock-version = \"1.0\"\ncreated-by = \"x\"\n[[packages]]\nname = \"evil\"\n\
                directory = { path = \"..\", subdirectory = \"project/evil\" }\n";
    let home = project_of("pylock.toml", lock);
    let said = fails(&home, &mut without_image(&home, &index), PROJECT);
    same(
        &said,
        "error: pylock.toml: `..` is outside the project: it leads to `[ROOT]`\n\
         hint: move it into the project, or put lbx.toml in a folder above both",
    );
}
