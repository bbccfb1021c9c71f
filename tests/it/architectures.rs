//! Building for another CPU than this host's, and for two at once: what is chosen, what is built, and what cannot be.

use std::process::Command;

use lbx_testkit::command::{Home, run};
use lbx_testkit::index;
use lbx_testkit::stub::Stub;
use lbx_testkit::wheels::{Wheel, sdist};
use serde_json::Value;

use crate::sources::{BACKEND, pyproject};
use crate::support::{image, lbx_shared, nothing_left, same};

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
    let report: Value = serde_json::from_str(&fs_err::read_to_string(path).expect("a report")).expect("JSON");
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
        &format!(
            "hint: it came to native-1.0-cp311-cp311-linux_{machine}.whl here; pin a version that has a wheel for {arch}, \
             build on such a host, or install emulation for it (qemu-user-static with binfmt)"
        ),
    );
}
