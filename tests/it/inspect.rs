//! `lbx check`: zips and folders of strangers and of the project, by path and by name, and what hostile ones come to.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use lbx_testkit::command::{Home, Ran, run, succeed};
use lbx_testkit::wheels::Wheel;
use serde_json::Value;

use crate::locks::{command, succeeds, wheel, wheels};
use crate::support::{HEAD, image, lbx, lbx_shared};

/// The exit codes: the command line, the image, what cannot be read, and what is found.
const USAGE: i32 = 2;
const IMAGE: i32 = 4;
const UNREADABLE: i32 = 1;
const CHECKS: i32 = 8;
/// An image that there is not.
const NONE: &str = "127.0.0.1:1/none:1";

/// Writes a zip with Python: each line of `members` is a name, a mode in octal with its type, and a content.
fn zip(home: &Home, name: &str, members: &[(&str, u32, &[u8])]) {
    let script = "import json, sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as out:
    for name, mode, content in json.loads(sys.argv[2]):
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        out.writestr(info, bytes(content))
";
    let path = home.project().join(name);
    fs_err::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    let text = serde_json::to_string(members).expect("JSON");
    succeed(Command::new("python3").args(["-c", script]).arg(path).arg(text));
}

fn check(home: &Home, arguments: &[&str]) -> Ran {
    run(lbx(home, &["check", "--runtime", "python3.11", "--image", NONE]).args(arguments))
}

/// Whether one line begins like this.
fn says(ran: &Ran, start: &str) -> bool {
    ran.stdout.lines().any(|line| line.starts_with(start))
}

#[test]
fn a_zip_of_a_stranger_is_judged_by_what_is_in_it_without_an_image() {
    let home = Home::new();
    let key = format!("-----BEGIN RSA {} KEY-----\nMIIEpAIBAAKCAQEA\n", "PRIVATE");
    let metadata = b"Metadata-Version: 2.1\nName: theirs\nVersion: 2.0\n";
    zip(
        &home,
        "f.zip",
        &[
            ("app.py", 0o100_600, b"def handler(event, context): ...\n"),
            ("logging.py", 0o100_644, b""),
            (".env", 0o100_644, b"A=1\n"),
            ("keys.py", 0o100_644, key.as_bytes()),
            ("theirs/tests/key.pem", 0o100_644, key.as_bytes()),
            ("theirs-2.0.dist-info/METADATA", 0o100_644, metadata),
            (
                "theirs-2.0.dist-info/RECORD",
                0o100_644,
                b"theirs/tests/key.pem,,\ntheirs/_m.cpython-311-x86_64-linux-gnu.so,,\n",
            ),
            ("theirs/_m.cpython-311-x86_64-linux-gnu.so", 0o100_755, b"\x7fELF and no more"),
            ("theirs/other.py", 0o100_644, b"\n"),
            ("closed/", 0o040_700, b""),
            ("lib/a.so", 0o120_777, b"a.so.1"),
            ("lib/a.so.1", 0o100_755, b"x"),
            ("lib/out", 0o120_777, b"../../etc/passwd"),
            ("lib/gone", 0o120_777, b"nowhere"),
        ],
    );
    let ran = check(&home, &["f.zip"]);
    assert_eq!(ran.code, CHECKS, "{}{}", ran.stdout, ran.stderr);
    for said in [
        "error: f.zip: app.py (own code) mode 0600, so Lambda's user cannot read it",
        "error: f.zip: .env (own code) its name is one of files with credentials",
        "error: f.zip: keys.py (own code) line 1 looks like a private key",
        "error: f.zip: closed (own code) mode 0700, so Lambda's user cannot look into it",
        "error: f.zip: lib/out (own code) a symbolic link out of the artifact, or in a circle, to ../../etc/passwd",
        "error: f.zip: lib/gone (own code) a symbolic link to nowhere, which is not there",
        "warning: f.zip: lib/a.so (own code) a symbolic link to a.so.1, which some tools unpack as a file",
        "warning: f.zip: logging.py (own code) `logging` hides the module of that name of Python's",
        "warning: f.zip: theirs/_m.cpython-311-x86_64-linux-gnu.so (theirs 2.0) cannot be read as machine code",
        "f.zip: 6 errors, 3 warnings: 13 files, ",
    ] {
        assert!(says(&ran, said), "{said}\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("key.pem"), "a package is everybody's: {}", ran.stdout);
    assert_eq!(ran.stderr, "");
    // The same words as JSON, one object.
    let json = check(&home, &["f.zip", "--message-format", "json"]);
    let value: Value = serde_json::from_str(json.stdout.trim()).expect("one object");
    assert_eq!((value["reason"].as_str(), value["checked"]["files"].as_u64()), (Some("checked"), Some(13)));
    assert_eq!(value["checked"]["findings"].as_array().map(Vec::len), Some(9));
    // What is meant to be there is said to be.
    home.write("lbx.toml", format!("{HEAD}[check]\naccept = [\"*\"]\n"));
    let accepted = check(&home, &["f.zip"]);
    assert_eq!(accepted.code, 0, "{}{}", accepted.stdout, accepted.stderr);
    assert!(says(&accepted, "f.zip: nothing wrong: 13 files, "), "{}", accepted.stdout);
}

#[test]
fn what_a_project_has_built_is_known_by_name_with_its_handler_and_layers() {
    let Some(image) = image() else { return };
    let layered = Wheel::new("layered", "1.0").file("layered.py", b"VALUE = 1\n");
    let (_folder, index) = wheels(&[wheel("one", "1.0"), layered]);
    let home = Home::new();
    home.write("app/app.py", "import layered\ndef handler(event, context): ...\n");
    home.write("r.txt", "layered\n");
    let function = "[functions.app]\nsource = \"app\"\nhandler = \"app.handler\"\nlayers = [\"more\"]\n";
    home.write("lbx.toml", format!("{HEAD}{function}[layers.more]\nrequirements = [\"r.txt\"]\n"));
    succeeds(&mut command(&home, "build", &image, &index));
    let check = |more: &[&str]| run(command(&home, "check", &image, &index).args(more));
    let all = check(&[]);
    assert_eq!(all.code, 0, "{}{}", all.stdout, all.stderr);
    assert!(
        says(&all, "app: nothing wrong: 1 file, ") && says(&all, "more: nothing wrong: "),
        "{}",
        all.stdout
    );
    assert!(all.stdout.lines().next().is_some_and(|line| line.ends_with("; its handler was imported")));
    // Its zip is known to be it; any other is no more than a zip.
    assert!(check(&["dist/app.zip"]).stdout.ends_with("its handler was imported\n"));
    fs_err::copy(home.project().join("dist/app.zip"), home.project().join("copy.zip")).expect("a copy");
    assert!(!check(&["copy.zip"]).stdout.contains("imported"));
    let alone = check(&["copy.zip", "--handler", "app.handler"]);
    assert_eq!(alone.code, CHECKS);
    for said in [
        "error: copy.zip: `app.handler` cannot be imported: ModuleNotFoundError",
        "    import layered",
        "Traceback",
    ] {
        assert!(alone.stdout.contains(said), "{}", alone.stdout);
    }
    for (handler, said) in [
        (
            "nowhere.handler",
            "  there is no `nowhere.py` and no `nowhere/`: the handler's module is looked for from the root",
        ),
        ("./app.handler", "error: copy.zip: `./app.handler` is no handler, which is `module.function`"),
    ] {
        let ran = check(&["copy.zip", "--handler", handler]);
        assert!(ran.code == CHECKS && ran.stdout.contains(said), "{}", ran.stdout);
    }
    let with = check(&["copy.zip", "--handler", "app.handler", "--layer", "dist/more.zip"]);
    assert_eq!(with.code, 0, "{}{}", with.stdout, with.stderr);
    // A folder is as good as its zip.
    succeeds(command(&home, "build", &image, &index).args(["app", "more", "--out-dir", "other"]));
    let script = "import sys, zipfile\nzipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])";
    for name in ["app", "more"] {
        let (zip, folder) =
            (home.project().join(format!("dist/{name}.zip")), home.project().join(format!("un/{name}")));
        succeed(Command::new("python3").args(["-c", script]).arg(zip).arg(folder));
    }
    let folders = check(&["un/app", "--layer", "un/more", "--handler", "app.handler"]);
    assert_eq!(folders.code, 0, "{}{}", folders.stdout, folders.stderr);
    assert!(
        says(&folders, "un/app: nothing wrong: 1 file, 48 B unpacked; its handler was imported"),
        "{}",
        folders.stdout
    );
    // Without its layer, nothing can be said of what is in there.
    fs_err::remove_file(home.project().join("dist/more.zip")).expect("removed");
    let without = check(&["app"]);
    assert_eq!((without.code, without.stdout.contains("imported")), (0, false), "{}", without.stdout);
    assert!(without.stderr.contains("lbx: app: the layer more is not built"), "{}", without.stderr);
    let gone = check(&["more"]);
    assert_eq!(gone.code, USAGE);
    assert!(
        gone.stderr
            .ends_with("error: more was not built: there is no zip of it in dist\nhint: lbx build more\n")
    );
}

#[test]
fn an_image_that_cannot_be_had_keeps_nothing_back_that_needs_none() {
    let home = Home::new();
    zip(&home, "f.zip", &[("app.py", 0o100_600, b"def handler(event, context): ...\n")]);
    let ran = check(&home, &["f.zip", "--handler", "app.handler"]);
    assert_eq!(ran.code, IMAGE, "{}{}", ran.stdout, ran.stderr);
    assert!(says(&ran, "error: f.zip: app.py (own code) mode 0600"), "{}", ran.stdout);
    assert!(ran.stderr.contains("error: f.zip: the handler was not imported: "), "{}", ran.stderr);
}

#[test]
fn mistakes_are_told_from_artifacts() {
    let home = Home::new();
    home.write("text.zip", "no zip");
    fs_err::create_dir(home.project().join("empty")).expect("a folder");
    let cases: [(&[&str], i32, &str); 5] = [
        (
            &[],
            USAGE,
            "error: there is no lbx.toml here, and no zip and no folder is named\nhint: lbx check function.zip\n",
        ),
        (
            &["nothing"],
            USAGE,
            "error: there is no zip and no folder `nothing`, and no function or layer of that name\n",
        ),
        (&["text.zip"], UNREADABLE, "error: cannot read the zip `"),
        (
            &["text.zip", "empty", "--handler", "a.b"],
            USAGE,
            "error: --handler is that of one function, but there are 2",
        ),
        (&["empty", "--layer", "nothing"], UNREADABLE, "nothing"),
    ];
    for (arguments, code, said) in cases {
        let ran = check(&home, arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(said), "{arguments:?}: {}", ran.stderr);
    }
    let empty = check(&home, &["empty"]);
    assert_eq!((empty.code, empty.stdout.as_str()), (0, "empty: nothing wrong: 0 files, 0 B unpacked\n"));
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"empty\"\n"));
    let unbuilt = check(&home, &[]);
    assert_eq!(unbuilt.code, USAGE);
    assert!(
        unbuilt.stderr.ends_with("error: nothing is built here\nhint: lbx build\n"),
        "{}",
        unbuilt.stderr
    );
    assert!(check(&home, &["ap"]).stderr.ends_with("hint: did you mean `app`?\n"));
}

#[test]
fn the_same_about_many_files_is_said_once() {
    let home = Home::new();
    let names: Vec<String> = (0..20).map(|at| format!("m{at:02}.py")).collect();
    let members: Vec<(&str, u32, &[u8])> =
        names.iter().map(|name| (name.as_str(), 0o100_600, b"\n".as_slice())).collect();
    zip(&home, "f.zip", &members);
    let ran = check(&home, &["f.zip"]);
    let said = "error: f.zip: m00.py, m01.py and 18 more: mode 0600, so Lambda's user cannot read it\n  \
        give files the mode 0644, and folders and programs 0755, before they are packed\nf.zip: 20 errors: 20 files, ";
    assert!(ran.code == CHECKS && ran.stdout.starts_with(said), "{}", ran.stdout);
    let json = check(&home, &["f.zip", "--message-format", "json"]);
    let value: Value = serde_json::from_str(json.stdout.trim()).expect("one object");
    assert_eq!(value["checked"]["findings"].as_array().map(Vec::len), Some(20), "{}", json.stdout);
}

#[test]
fn damage_in_a_zip_shows() {
    let home = Home::new();
    zip(
        &home,
        "f.zip",
        &[("a.txt", 0o100_644, b"some text that is stored somehow"), ("b.py", 0o100_644, b"\n")],
    );
    let path = home.project().join("f.zip");
    let mut bytes = fs_err::read(&path).expect("a zip");
    bytes[40] ^= 0x10;
    fs_err::write(&path, bytes).expect("written");
    let ran = check(&home, &["f.zip"]);
    assert_eq!(ran.code, UNREADABLE, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("cannot read \"a.txt\" of `"), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("hint: the zip is damaged: make it anew\n"), "{}", ran.stderr);
}

/// What is looked at is a stranger's, and so is what is imported.
#[test]
fn nothing_outside_of_an_artifact_is_read_or_written() {
    let Some(image) = image() else { return };
    let home = Home::new();
    let outside = home.root().join("outside");
    fs_err::create_dir(&outside).expect("a folder");
    fs_err::write(
        outside.join("secret.py"),
        format!("-----BEGIN RSA {} KEY-----\nMIIEpAIBAAKCAQEA\n", "PRIVATE"),
    )
    .expect("written");
    let far = outside.display().to_string();
    let module = b"import os\ndef handler(event, context): ...\nfor name in ('far', 'near', 'up'):\n    assert not os.path.exists('/var/task/' + name + '/secret.py'), name\n";
    zip(
        &home,
        "f.zip",
        &[
            ("app.py", 0o100_644, module),
            ("far", 0o120_777, far.as_bytes()),
            ("up", 0o120_777, b"../../../../../../../../outside"),
        ],
    );
    let check = |arguments: &[&str]| {
        run(lbx_shared(&home, &["check", "--runtime", "python3.11", "--image", &image]).args(arguments))
    };
    let ran = check(&["f.zip", "--handler", "app.handler"]);
    assert_eq!(ran.code, CHECKS);
    assert!(ran.stdout.contains(": 3 files") && ran.stdout.ends_with("imported\n"), "{}", ran.stdout);
    // A member below a link, or one that climbs, is refused as a whole.
    zip(&home, "slip.zip", &[("a", 0o120_777, far.as_bytes()), ("a/b.py", 0o100_644, b"")]);
    zip(&home, "climb.zip", &[("../b.py", 0o100_644, b"")]);
    for name in ["slip.zip", "climb.zip"] {
        assert_eq!(check(&[name]).code, UNREADABLE);
    }
    // A folder with ways out of it.
    home.write("tree/app.py", module);
    symlink(&outside, home.project().join("tree/near")).expect("a link");
    succeed(Command::new("mkfifo").arg(home.project().join("tree/pipe")));
    let tree = check(&["tree", "--handler", "app.handler"]);
    assert_eq!(tree.code, CHECKS);
    assert!(
        says(&tree, "error: tree: pipe (own code) neither a file nor a folder nor a link"),
        "{}",
        tree.stdout
    );
    assert!(!tree.stdout.contains("looks like a private key"), "{}", tree.stdout);
    assert!(tree.stdout.ends_with("its handler was imported\n"), "{}", tree.stdout);
    // Nor is a name a line of its own.
    home.write("forged/.env\nnothing wrong", "");
    home.write("forged/.env.x\u{1b}[2J", "");
    let forged = check(&["forged"]);
    assert!(forged.stdout.contains("forged: .env.x\\u{1b}[2J (own code) its name"), "{}", forged.stdout);
    // What cannot be waited for is not waited for.
    assert_eq!(check(&["tree/pipe"]).code, UNREADABLE);
    let left: Vec<_> = fs_err::read_dir(&outside).expect("a folder").collect();
    assert_eq!(left.len(), 1);
    let mode = fs_err::metadata(&outside).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o755 & mode, "nothing has changed it");
}

#[test]
fn libraries_behind_links_and_code_for_another_python_are_seen_for_what_they_are() {
    let home = Home::new();
    let folder = tempfile::tempdir().expect("a directory");
    let build = |name: &str, options: &[&str]| {
        let (source, out) = (folder.path().join("x.c"), folder.path().join(name));
        fs_err::write(&source, "int answer(void) { return 42; }\n").expect("written");
        succeed(
            Command::new("gcc").args(["-shared", "-fPIC"]).arg("-o").arg(&out).arg(&source).args(options),
        );
        fs_err::read(out).expect("a library")
    };
    let library = build("libfoo.so", &[]);
    let path = folder.path().display().to_string();
    let module = build("m.so", &["-L", &path, "-Wl,--no-as-needed", "-lfoo"]);
    let other = "old/_m.cpython-39-x86_64-linux-gnu.so";
    let members: [(&str, u32, &[u8]); 6] = [
        ("pkg/_m.cpython-311-x86_64-linux-gnu.so", 0o100_755, &module),
        ("lib/libfoo-1.2.3.so", 0o100_755, &library),
        ("lib/libfoo.so", 0o120_777, b"libfoo-1.2.3.so"),
        ("lib64", 0o120_777, b"lib"),
        ("opt", 0o120_777, b"/opt/lib"),
        (other, 0o100_755, &library),
    ];
    zip(&home, "f.zip", &members);
    let ran = check(&home, &["f.zip"]);
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    assert!(says(&ran, "warning: f.zip: opt (own code) a symbolic link to /opt/lib, which is not looked at"));
    let said = format!(
        "warning: f.zip: {other} (own code) is for `cpython-39-x86_64-linux-gnu.so`, which python3.11 passes over"
    );
    assert!(says(&ran, &said), "{}", ran.stdout);
    // Without the link, the library is not there.
    zip(&home, "g.zip", &members[..2]);
    assert!(says(
        &check(&home, &["g.zip"]),
        "error: g.zip: pkg/_m.cpython-311-x86_64-linux-gnu.so (own code) needs libfoo.so"
    ));
}

#[test]
fn a_name_that_is_not_built_is_not_the_folder_of_that_name_and_one_failure_is_not_the_end() {
    let home = Home::new();
    home.write("lbx.toml", format!("{HEAD}[functions.g]\nsource = \"g\"\n"));
    home.write("g/app.py", "");
    let name = check(&home, &["g"]);
    assert_eq!(name.code, USAGE, "{}", name.stdout);
    assert!(name.stderr.ends_with("hint: lbx build g; or ./g for the folder\n"), "{}", name.stderr);
    assert_eq!(check(&home, &["./g"]).code, 0);
    home.write("bad.zip", "none");
    let both = check(&home, &["bad.zip", "./g"]);
    assert!(both.code == UNREADABLE && both.stdout.starts_with("./g: nothing wrong"), "{}", both.stdout);
    // A file that nobody may read is found, and not an end.
    let closed = home.project().join("g/closed.py");
    fs_err::write(&closed, "").expect("written");
    fs_err::set_permissions(&closed, PermissionsExt::from_mode(0o000)).expect("closed");
    let ran = check(&home, &["./g"]);
    assert!(
        ran.code == CHECKS && says(&ran, "error: ./g: closed.py (own code) mode 0000"),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
}
