//! Building for another CPU than this host's, and for two at once: what is chosen, what is built, and what cannot be.

use std::process::Command;

use lbx_testkit::command::{Home, run, stable_report};
use lbx_testkit::images::sha256;
use lbx_testkit::stub::Stub;
use lbx_testkit::wheels::{Wheel, sdist};
use lbx_testkit::{index, standin};

use crate::sources::{BACKEND, pyproject};
use crate::support::{image, lbx, lbx_shared, nothing_left, same};

/// The exit code when the command line makes no sense.
const USAGE: i32 = 2;
/// The exit code when requirements do not resolve or build.
const REQUIREMENTS: i32 = 6;

const BOTH: &str = "[\"x86_64\", \"arm64\"]";

/// The CPU that this host has not got, in Lambda's words and in those of wheels.
fn other() -> (&'static str, &'static str) {
    if std::env::consts::ARCH == "x86_64" { ("arm64", "aarch64") } else { ("x86_64", "x86_64") }
}

fn project(arch: &str, requirements: &str) -> Home {
    let home = Home::new();
    home.write("app.py", "");
    home.write("r.txt", requirements);
    let functions = "[functions.app]\nsource = \".\"\nrequirements = [\"r.txt\"]\n";
    home.write("lbx.toml", format!("[project]\nruntime = \"python3.11\"\narch = {arch}\n{functions}"));
    home
}

fn command(home: &Home, name: &str, image: &str, index: &Stub) -> Command {
    let mut command = lbx_shared(home, &[name, "--image", image]);
    command.env("PIP_INDEX_URL", format!("http://{}/simple", index.address()));
    command
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let ran = run(command);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stderr
}

/// The wheels of a zip, from the report in a folder of `dist`.
fn wheels(home: &Home, folder: &str) -> Vec<String> {
    let path = home.project().join("dist").join(folder).join("report.json");
    let report = stable_report(&path);
    let wheels = report["artifacts"][0]["wheels"].as_array().expect("wheels");
    wheels.iter().map(|wheel| wheel["file"].as_str().expect("a name").to_owned()).collect()
}

/// An index with a package that has code for each CPU, one that only one of them needs, and one that is built.
fn index_of_both() -> (tempfile::TempDir, Stub) {
    let folder = tempfile::tempdir().expect("a directory");
    for machine in ["x86_64", "aarch64"] {
        let tag = format!("cp311-cp311-manylinux2014_{machine}");
        Wheel::new("fast", "1.0").tag(&tag).file("fast.py", machine.as_bytes()).write(folder.path());
    }
    Wheel::new("only_arm", "1.0").file("only_arm.py", b"").write(folder.path());
    let text = pyproject("pure", "1.0", "");
    let files = [("pyproject.toml", text.as_str()), ("backend.py", BACKEND), ("pure.py", "# for both\n")];
    sdist(folder.path(), "pure", "1.0", &files);
    let index = index::serve(folder.path());
    (folder, index)
}

const REQUIRED: &str = "fast\npure\nonly_arm; platform_machine == 'aarch64'\n";

const ON_X86: [&str; 2] = ["fast-1.0-cp311-cp311-manylinux2014_x86_64.whl", "pure-1.0-py3-none-any.whl"];
const ON_ARM: [&str; 3] = [
    "fast-1.0-cp311-cp311-manylinux2014_aarch64.whl",
    "only_arm-1.0-py3-none-any.whl",
    "pure-1.0-py3-none-any.whl",
];

#[test]
fn one_run_builds_for_both_with_the_tags_and_markers_of_each() {
    let Some(image) = image() else { return };
    let (_folder, index) = index_of_both();
    let home = project(BOTH, REQUIRED);
    for _ in 0..2 {
        // The second time, what was built the first time is no source.
        succeeds(&mut command(&home, "build", &image, &index));
        assert_eq!(
            (wheels(&home, "x86_64"), wheels(&home, "arm64")),
            (ON_X86.map(String::from).into(), ON_ARM.map(String::from).into())
        );
    }
    let zip = fs_err::File::open(home.project().join("dist/arm64/app.zip")).unwrap();
    let zip = zip::ZipArchive::new(zip).unwrap();
    assert!(zip.file_names().all(|name| !name.expect("UTF-8").starts_with("dist/")));
    // One of them alone is where it always is.
    let said = succeeds(command(&home, "build", &image, &index).args(["--arch", other().0]));
    assert!(said.starts_with(&format!("lbx: building app for {} in ", other().0)), "{said}");
    assert_eq!(wheels(&home, "").len(), if other().0 == "arm64" { 3 } else { 2 });
    let ran = run(command(&home, "build", &image, &index).args(["-o", "one.zip"]));
    assert_eq!(ran.code, USAGE, "{}", ran.stderr);
    assert!(ran.stderr.contains("-o names one file, but the project is for several CPUs"), "{}", ran.stderr);
}

#[test]
fn one_lock_is_for_both() {
    let Some(image) = image() else { return };
    let (_folder, index) = index_of_both();
    let home = project(BOTH, REQUIRED);
    let said = succeeds(&mut command(&home, "lock", &image, &index));
    assert!(said.contains("lbx: locked pylock.r.toml: 3 packages\n"), "{said}");
    let first = fs_err::read_to_string(home.project().join("pylock.r.toml")).unwrap();
    assert_eq!(first.matches("\nmarker = ").count(), 1, "{first}");
    succeeds(command(&home, "build", &image, &index).arg("--locked"));
    assert_eq!(
        (wheels(&home, "x86_64"), wheels(&home, "arm64")),
        (ON_X86.map(String::from).into(), ON_ARM.map(String::from).into())
    );
    succeeds(&mut command(&home, "lock", &image, &index));
    assert_eq!(fs_err::read_to_string(home.project().join("pylock.r.toml")).unwrap(), first);
}

#[test]
fn what_has_code_for_this_cpu_says_that_it_must_be_built_on_the_other() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let machine = std::env::consts::ARCH;
    let backend = BACKEND.replace("py3-none-any", &format!("cp311-cp311-linux_{machine}"));
    let text = pyproject("native", "1.0", "");
    let files = [("pyproject.toml", text.as_str()), ("backend.py", &backend), ("native.py", "")];
    sdist(folder.path(), "native", "1.0", &files);
    let index = index::serve(folder.path());
    let (arch, _) = other();
    let home = project(&format!("\"{arch}\""), "native\n");
    let ran = run(&mut command(&home, "build", &image, &index));
    assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
    nothing_left(&home);
    let last: Vec<&str> = ran.stderr.lines().rev().take(2).collect();
    let expected = format!("error: native-1.0.tar.gz must be built on {arch}: cannot get the image ");
    assert!(last[1].starts_with(&expected), "{}", ran.stderr);
    same(
        last[0],
        &format!("hint: here it comes to native-1.0-cp311-cp311-linux_{machine}.whl; {}", advice(arch)),
    );
}

/// What to do, after what came of it here.
fn advice(arch: &str) -> String {
    format!(
        "pin versions that have a wheel for {arch}, build on such a host, or install qemu-user-static: from Linux 6.7 \
         on, with the backend namespaces, that is all, and otherwise it must be registered with the host (binfmt)"
    )
}

/// A build backend whose wheel has code for the CPU that it runs on.
fn native_backend() -> String {
    let tag = "Tag: py3-none-any";
    BACKEND
        .replace("import base64", "import platform, base64")
        .replace("{version}-py3-none-any.whl", "{version}-cp311-cp311-linux_{platform.machine()}.whl")
        .replace(&format!("b\"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n{tag}\\n\""), WHEEL_OF_MACHINE)
}

const WHEEL_OF_MACHINE: &str = "f\"Wheel-Version: 1.0\\nRoot-Is-Purelib: false\\nTag: cp311-cp311-linux_{platform.machine()}\\n\".encode()";

/// A project with a local package, and an index with another one, both with code.
fn natives() -> (tempfile::TempDir, Stub, Home) {
    let folder = tempfile::tempdir().expect("a directory");
    let (backend, text) = (native_backend(), pyproject("indexed", "1.0", ""));
    assert_eq!(backend.matches("platform.machine()").count(), 2, "{backend}");
    let files = [("pyproject.toml", text.as_str()), ("backend.py", &backend), ("indexed.py", "")];
    sdist(folder.path(), "indexed", "1.0", &files);
    let index = index::serve(folder.path());
    let home = project(BOTH, "./local\nindexed\n");
    home.write("local/backend.py", &backend);
    home.write("local/pyproject.toml", pyproject("local", "1.0", ""));
    home.write("local/local.py", "");
    (folder, index, home)
}

/// Only on Linux 6.7 and newer, which every machine of the tests has, can a sandbox have an emulator of its own.
#[test]
fn what_has_code_is_built_on_an_emulated_cpu_of_the_sandbox_alone() {
    let Some(image) = standin::for_both().filter(|_| std::env::consts::ARCH == "x86_64") else { return };
    let (_folder, index, home) = natives();
    let registered = || fs_err::read_dir("/proc/sys/fs/binfmt_misc").map_or(0, Iterator::count);
    let before = registered();
    succeeds(&mut command(&home, "build", &image, &index));
    let of = |machine: &str| {
        ["indexed", "local"].map(|name| format!("{name}-1.0-cp311-cp311-linux_{machine}.whl")).to_vec()
    };
    assert_eq!((wheels(&home, "x86_64"), wheels(&home, "arm64")), (of("x86_64"), of("aarch64")));
    let ran = run(command(&home, "run", &image, &index).args(["--arch", "arm64", "--", "uname", "-m"]));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "aarch64\n"), "{}", ran.stderr);
    assert_eq!(registered(), before, "nothing of it is seen on the host");
    // What leaves for another machine has what both need, and no need of an emulator there.
    succeeds(&mut command(&home, "lock", &image, &index));
    let vendored = home.root().join("both.tar");
    succeeds(command(&home, "vendor", &image, &index).arg(&vendored));
    let elsewhere = project(BOTH, "./local\nindexed\n");
    for path in ["pylock.r.toml", "local/backend.py", "local/pyproject.toml", "local/local.py"] {
        elsewhere.write(path, fs_err::read(home.project().join(path)).expect("a file"));
    }
    let mut build = lbx(&elsewhere, &["build", "--offline", "--image", &image, "--from"]);
    succeeds(build.arg(&vendored).env("PATH", "/nonexistent"));
    assert_eq!((wheels(&elsewhere, "x86_64"), wheels(&elsewhere, "arm64")), (of("x86_64"), of("aarch64")));
    // What is kept needs no emulator.
    succeeds(command(&home, "build", &image, &index).env("PATH", "/nonexistent"));
    assert_eq!(wheels(&home, "arm64"), of("aarch64"));
}

#[test]
fn without_an_emulator_all_that_must_be_built_elsewhere_is_named() {
    let Some(image) = standin::for_both().filter(|_| std::env::consts::ARCH == "x86_64") else { return };
    let (folder, index, home) = natives();
    let expected = |first: &str, second: &str| {
        let wheel = |name: &str| format!("{name}-1.0-cp311-cp311-linux_x86_64.whl");
        let is_archive = |name: &str| name == "indexed" || first == "indexed";
        let names =
            |name: &str| if is_archive(name) { format!("{name}-1.0.tar.gz") } else { name.to_owned() };
        format!(
            "error: {} and {} must be built on arm64: this host (x86_64) cannot run the programs of the image `{image}`, \
             which are for arm64: there is no qemu-aarch64-static on the PATH\n\
             hint: here it comes to {} and {}; {}\n",
            names(first),
            names(second),
            wheel(first),
            wheel(second),
            advice("arm64")
        )
    };
    let mut build = command(&home, "build", &image, &index);
    build.env("PATH", "/nonexistent");
    let ran = run(build.args(["--arch", "arm64"]));
    assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
    nothing_left(&home);
    same(&ran.stderr[ran.stderr.find("error: ").expect("an error")..], &expected("local", "indexed"));
    // The same of what is locked.
    let bytes = fs_err::read(folder.path().join("indexed-1.0.tar.gz")).expect("a source distribution");
    let renamed = sdist(
        folder.path(),
        "local",
        "1.0",
        &[("pyproject.toml", pyproject("local", "1.0", "").as_str()), ("backend.py", &native_backend())],
    );
    let line = |name: &str, bytes: &[u8]| format!("{name}==1.0 --hash={}\n", sha256(bytes));
    let lines = [line("indexed", &bytes), line("local", &fs_err::read(renamed).expect("another"))].concat();
    home.write("r.txt", lines);
    let index = index::serve(folder.path());
    let mut build = command(&home, "build", &image, &index);
    build.env("PATH", "/nonexistent");
    let ran = run(build.args(["--arch", "arm64", "--locked"]));
    assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
    same(&ran.stderr[ran.stderr.find("error: ").expect("an error")..], &expected("indexed", "local"));
}
