//! What is checked before a zip is published, what is left to the runtime, and what is taken out of machine code.

use std::path::Path;
use std::process::Command;

use lbx_testkit::command::{Home, run, stable_report, succeed};
use lbx_testkit::stub::Stub;
use lbx_testkit::wheels::Wheel;
use serde_json::Value;

use crate::locks::{command, succeeds, wheel, wheels};
use crate::support::{HEAD, image};

/// The exit code when the checks find that something will not work.
const CHECKS: i32 = 8;

/// A function with these requirements, and more in its configuration.
fn project(requirements: &str, more: &str) -> Home {
    let home = Home::new();
    home.write("src/app.py", "A = 1\n");
    home.write("r.txt", requirements);
    let function = "[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n";
    home.write("lbx.toml", format!("{HEAD}{function}{more}"));
    home
}

fn report(home: &Home) -> Value {
    stable_report(&home.project().join("dist/report.json"))
}

fn names(home: &Home) -> String {
    let script = "import sys, zipfile\nprint(*zipfile.ZipFile(sys.argv[1]).namelist())";
    succeed(Command::new("python3").args(["-c", script]).arg(home.project().join("dist/app.zip")))
}

/// A key that is nobody's, put together here so that this file has none.
fn key() -> String {
    format!("-----BEGIN RSA {} KEY-----\nMIIEpAIBAAKCAQEA\n", "PRIVATE")
}

#[test]
fn what_nobody_else_should_know_is_not_published() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0")]);
    let home = project("one\n", "");
    home.write("src/.env", "PASSWORD=x\n");
    home.write("src/keys/k.py", format!("KEY = '''\n{}'''\n", key()));
    let ran = run(&mut command(&home, "build", &image, &index));
    assert_eq!(ran.code, CHECKS, "{}", ran.stderr);
    for said in [
        "lbx: error: app: .env (src) its name is one of files with credentials\n",
        "lbx: error: app: keys/k.py (src) line 2 looks like a private key\n",
        "[prune] exclude = [\"keys/k.py\"]",
    ] {
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
    assert!(ran.stderr.ends_with("error: app not published: see above\n"), "{}", ran.stderr);
    assert!(!home.project().join("dist").exists(), "nothing is left");
    // What is meant to be there is said to be.
    let accepted = home.project().join("lbx.toml");
    let text = fs_err::read_to_string(&accepted).expect("text");
    home.write("lbx.toml", format!("{text}[check]\naccept = [\"/keys/\", \".env\"]\n"));
    succeeds(&mut command(&home, "build", &image, &index));
    assert_eq!(report(&home)["artifacts"][0]["findings"], Value::Array(Vec::new()));
    // And whoever does not want to hear of it has it all the same.
    home.write("lbx.toml", text);
    succeeds(command(&home, "build", &image, &index).arg("--no-check"));
    let findings = report(&home)["artifacts"][0]["findings"].as_array().expect("findings").len();
    assert_eq!(findings, 2);
    // With nothing changed but that, it is no longer fine.
    assert_eq!(run(&mut command(&home, "build", &image, &index)).code, CHECKS);
}

#[test]
fn what_is_known_here_to_be_a_password_is_not_published_whatever_it_looks_like() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0")]);
    let home = project("one\n", "");
    fs_err::write(home.root().join("netrc"), "machine index.test login me password tr0ubador-9\n")
        .expect("written");
    home.write("src/settings.py", "A = 1\nINDEX = 'tr0ubador-9'\n");
    home.write("src/data.bin", b"\0\0plain-but-long-enough\0".as_slice());
    let build = || {
        let mut build = command(&home, "build", &image, &index);
        build.env("NETRC", home.root().join("netrc")).env("AWS_SESSION_TOKEN", "plain-but-long-enough");
        build
    };
    let ran = run(&mut build());
    assert_eq!(ran.code, CHECKS, "{}", ran.stderr);
    for said in [
        "lbx: error: app: settings.py (src) line 2 looks like the password for index.test\n",
        "lbx: error: app: data.bin (src) line 1 looks like the value of the variable AWS_SESSION_TOKEN\n",
    ] {
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
    succeeds(build().arg("--no-check"));
    let mut search = Command::new("grep");
    search.args(["-r", "-l", "-e", "tr0ubador-9", "-e", "plain-but-long-enough"]);
    let found = run(search.arg(home.cache()).arg(home.project().join("dist/report.json")));
    assert_eq!((found.code, found.stdout.as_str()), (1, ""), "none of it is kept anywhere");
}

#[test]
fn a_file_that_was_found_fault_with_is_so_again_when_it_is_not_read_again() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0")]);
    let home = project("one\n", "");
    home.write("src/k.py", key());
    std::thread::sleep(std::time::Duration::from_millis(2100));
    succeeds(command(&home, "build", &image, &index).arg("--no-check"));
    home.write("src/app.py", "A = 2\n");
    let ran = run(&mut command(&home, "build", &image, &index));
    assert!(ran.code == CHECKS && ran.stderr.contains("k.py"), "{}", ran.stderr);
}

/// A library of C code, with symbols and what debuggers want.
fn library(folder: &Path, name: &str, options: &[&str]) -> Vec<u8> {
    let (source, out) = (folder.join("x.c"), folder.join(name));
    fs_err::write(&source, "int answer(void) { return 42; }\nstatic int hidden(int x) { return x * 3; }\nint more(int x) { return hidden(x); }\n").expect("written");
    succeed(
        Command::new("gcc")
            .args(["-shared", "-fPIC", "-g", "-O0"])
            .args(options)
            .arg("-o")
            .arg(&out)
            .arg(&source),
    );
    fs_err::read(out).expect("a library")
}

/// A wheel with these libraries, each by its path.
fn with_libraries(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Stub) {
    let wheel = files.iter().fold(wheel("one", "1.0"), |wheel, (path, bytes)| wheel.file(path, bytes));
    wheels(&[wheel])
}

const MODULE: &str = "one_x/_m.cpython-311-x86_64-linux-gnu.so";

#[test]
fn a_library_that_lambda_does_not_have_is_named_with_the_package_that_needs_it() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().expect("a directory");
    library(folder.path(), "libnowhere.so", &["-Wl,-soname,libnowhere.so.1"]);
    let path = folder.path().display().to_string();
    let module = library(folder.path(), "m.so", &["-L", &path, "-Wl,--no-as-needed", "-lnowhere"]);
    let (_folder, index) = with_libraries(&[(MODULE, &module)]);
    let home = project("one\n", "");
    let ran = run(&mut command(&home, "build", &image, &index));
    assert_eq!(ran.code, CHECKS, "{}", ran.stderr);
    let said =
        format!("lbx: error: app: {MODULE} (one 1.0) needs libnowhere.so.1, which is not in the artifact");
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    // In `lib/` of the function, it is there.
    let there = library(folder.path(), "libnowhere.so", &["-Wl,-soname,libnowhere.so.1"]);
    home.write("src/lib/libnowhere.so.1", there);
    succeeds(&mut command(&home, "build", &image, &index));
}

/// A module of machine code that needs a library which the stand-in for the image has, and Lambda is not known to have.
fn needs_sqlite() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a directory");
    library(folder.path(), "libsqlite3.so", &["-Wl,-soname,libsqlite3.so.0"]);
    let path = folder.path().display().to_string();
    library(folder.path(), "m.so", &["-L", &path, "-Wl,--no-as-needed", "-lsqlite3"])
}

#[test]
fn a_library_that_the_image_has_is_no_error_whether_the_image_was_needed_or_not() {
    let Some(image) = image() else { return };
    let (_folder, index) = with_libraries(&[(MODULE, &needs_sqlite())]);
    let home = project("one\n", "");
    let said = format!("lbx: warning: app: {MODULE} (one 1.0) needs libsqlite3.so.0, which {image} has");
    let with_image = run(&mut command(&home, "build", &image, &index));
    assert!(with_image.code == 0 && with_image.stderr.contains(&said), "{}", with_image.stderr);
    let before = report(&home)["artifacts"][0]["findings"].clone();
    // Where all is locked, the image is opened for this alone.
    succeeds(&mut command(&home, "lock", &image, &index));
    home.write("src/app.py", "A = 2\n");
    let locked = run(&mut command(&home, "build", &image, &index));
    assert!(locked.code == 0 && locked.stderr.contains(&said), "{}", locked.stderr);
    assert_eq!(report(&home)["artifacts"][0]["findings"], before);
    // An image that cannot be had is no reason for another error.
    home.write("src/app.py", "A = 3\n");
    let without = run(&mut command(&home, "build", "127.0.0.1:1/none:1", &index));
    assert_eq!(without.code, CHECKS, "{}", without.stderr);
    assert!(
        without.stderr.contains("needs libsqlite3.so.0, which is not in the artifact"),
        "{}",
        without.stderr
    );
    assert!(without.stderr.ends_with("error: app not published: see above\n"), "{}", without.stderr);
}

#[test]
fn the_newest_version_whose_wheels_fit_is_named_where_one_does_not() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let mut module = library(folder.path(), "m.so", &[]);
    // The number of another CPU.
    module[18] = 0xB7;
    let fits = |version: &str| wheel("one", version).file("one_x/__init__.py", b"");
    let (_folder, index) =
        wheels(&[fits("1.2"), fits("1.10"), wheel("one", "2.0").file(MODULE, &module), fits("3.0rc1")]);
    let home = project("one\n", "");
    let hint =
        "lbx:   one 1.10 is the newest version whose wheels fit python3.11 on x86_64: require `one==1.10`";
    let ran = run(&mut command(&home, "build", &image, &index));
    assert!(ran.code == CHECKS && ran.stderr.contains(hint), "{}", ran.stderr);
    // Whoever has no network hears what is wrong all the same.
    let offline = run(command(&home, "build", &image, &index).arg("--offline"));
    assert!(offline.code == CHECKS && offline.stderr.contains("is for aarch64"), "{}", offline.stderr);
    home.write("r.txt", "one==1.10\n");
    succeeds(&mut command(&home, "build", &image, &index));
}

#[test]
fn a_layer_is_judged_with_those_that_functions_have_beside_it() {
    let home = Home::new();
    let folder = tempfile::tempdir().expect("a directory");
    let beside = library(folder.path(), "libbeside.so", &["-Wl,-soname,libbeside.so.1"]);
    let path = folder.path().display().to_string();
    let module = library(folder.path(), "m.so", &["-L", &path, "-Wl,--no-as-needed", "-lbeside"]);
    home.write(&format!("a/python/{MODULE}"), module);
    home.write("b/python/b.py", "");
    home.write("b/lib/libbeside.so.1", beside);
    home.write("f/app.py", "");
    let layers = "[layers.a]\nsource = \"a\"\n[layers.b]\nsource = \"b\"\n";
    let function = |layers: &str| format!("[functions.f]\nsource = \"f\"\nlayers = [{layers}]\n");
    let build = |with: &str| {
        home.write("lbx.toml", format!("{HEAD}{layers}{}", function(with)));
        run(&mut crate::support::lbx(&home, &["build", "--image", "127.0.0.1:1/none:1"]))
    };
    let both = build("\"a\", \"b\"");
    assert_eq!(both.code, 0, "{}", both.stderr);
    let alone = build("\"a\"");
    assert!(alone.code == CHECKS && alone.stderr.contains("needs libbeside.so.1"), "{}", alone.stderr);
}

#[test]
fn stripping_takes_symbols_out_and_the_library_still_works() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let module = library(folder.path(), "m.so", &[]);
    let (_folder, index) = with_libraries(&[(MODULE, &module), ("one.libs/libbeside.so", &module)]);
    let home = project("one\n", "[prune]\nstrip = true\n");
    home.write("src/own.so", &module);
    succeeds(&mut command(&home, "build", &image, &index));
    let script = "import ctypes, os, sys, tempfile, zipfile
folder = tempfile.mkdtemp()
zipfile.ZipFile(sys.argv[1]).extractall(folder)
for path in sys.argv[2:]:
    path = os.path.join(folder, path)
    print(os.path.getsize(path), ctypes.CDLL(path).more(14) + ctypes.CDLL(path).answer())";
    let zip = home.project().join("dist/app.zip");
    let mut load = Command::new("python3");
    load.args(["-c", script]).arg(&zip).args([MODULE, "own.so", "one.libs/libbeside.so"]);
    let said = succeed(&mut load);
    let sizes: Vec<usize> = said
        .lines()
        .map(|line| {
            let (size, answer) = line.split_once(' ').expect("two numbers");
            assert_eq!(answer, "84", "{said}");
            size.parse().expect("a number")
        })
        .collect();
    assert!(sizes[0] < module.len() && sizes[1] == sizes[0], "{sizes:?} of {}", module.len());
    assert_eq!(sizes[2], module.len(), "what was put beside a package is left alone");
    let unpacked = report(&home)["artifacts"][0]["unpacked_size"].as_u64().expect("a number");
    // As it was, without the option.
    home.write(
        "lbx.toml",
        fs_err::read_to_string(home.project().join("lbx.toml"))
            .expect("text")
            .replace("strip = true", "strip = false"),
    );
    succeeds(&mut command(&home, "build", &image, &index));
    let before = report(&home)["artifacts"][0]["unpacked_size"].as_u64().expect("a number");
    assert_eq!(before - unpacked, 2 * (module.len() - sizes[0]) as u64);
}

#[test]
fn the_sdk_is_left_to_the_runtime_where_its_versions_are_accepted() {
    let Some(image) = image() else { return };
    let all = [
        wheel("boto3", "1.0").requires("botocore"),
        wheel("botocore", "1.0"),
        Wheel::new("mine", "1.0").file("mine.py", b"").requires("boto3"),
    ];
    let (_folder, index) = wheels(&all);
    let home = project("mine\nboto3\n", "[prune]\nruntime-provided = \"drop\"\n");
    succeeds(&mut command(&home, "build", &image, &index));
    let listed = names(&home);
    assert!(listed.contains("mine.py") && !listed.contains("boto"), "{listed}");
    let decision = &report(&home)["artifacts"][0]["runtime_provided"]["dropped"];
    assert_eq!(decision[0]["name"], "boto3");
    assert_eq!(decision[0]["ours"], "1.0");
    assert!(decision[0]["theirs"].as_str().is_some_and(|version| version != "1.0"), "{decision}");
    // A version that somebody asks for is not what the runtime has, and all of it stays.
    home.write("r.txt", "mine\nboto3==1.0\n");
    let said = succeeds(&mut command(&home, "build", &image, &index));
    assert!(
        said.contains(
            "lbx: warning: app: the AWS SDK is not left to the runtime: the requirements need boto3==1.0"
        ),
        "{said}"
    );
    let listed = names(&home);
    assert!(listed.contains("boto3.py") && listed.contains("botocore.py"), "{listed}");
    let why = report(&home)["artifacts"][0]["runtime_provided"]["kept"]["why"].to_string();
    assert!(why.contains("boto3") && why.contains("1.0"), "{why}");
}
