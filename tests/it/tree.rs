//! `lbx build --dir`: the tree of a zip as a folder, and what is not touched for it.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use lbx_testkit::command::{Home, run};
use lbx_testkit::wheels::Wheel;

use crate::locks::wheels;
use crate::support::{HEAD, lbx};

/// Path, mode, time and content of all files, and the modes of all folders.
fn tree(root: &Path) -> BTreeMap<String, (u32, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        assert_eq!(fs_err::metadata(&folder).expect("metadata").permissions().mode() & 0o7777, 0o755);
        for entry in fs_err::read_dir(folder).expect("a folder").flatten() {
            let metadata = entry.metadata().expect("metadata");
            if metadata.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let path = entry.path().strip_prefix(root).expect("inside").display().to_string();
            all.insert(path, (metadata.mode(), metadata.mtime(), fs_err::read(entry.path()).expect("bytes")));
        }
    }
    all
}

fn of_zip(zip: &Path) -> BTreeMap<String, (u32, i64, Vec<u8>)> {
    let mut zip = zip::ZipArchive::new(fs_err::File::open(zip).expect("a zip")).expect("a zip");
    let mut all = BTreeMap::new();
    for at in 0..zip.len() {
        let mut file = zip.by_index(at).expect("an entry");
        let (name, mode) = (file.name().expect("a name").into_owned(), file.unix_mode().expect("a mode"));
        let mut bytes = Vec::new();
        std::io::copy(&mut file, &mut bytes).expect("its bytes");
        all.insert(name, (mode, 315_532_800, bytes));
    }
    all
}

/// How much is there that builds have not finished.
fn unfinished(home: &Home) -> usize {
    let of = |folder: &str| fs_err::read_dir(home.project().join(folder)).expect("a folder").flatten();
    let names = [of("."), of("src"), of("dist")].into_iter().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".lbx-")).count()
}

#[test]
fn a_folder_has_what_the_zip_has_and_nothing_of_anybody_else_is_touched() {
    let (folder, index) = wheels(&[Wheel::new("one", "1.0").file("one/__init__.py", b"ONE = 1\n")]);
    let home = Home::new();
    let wheel = folder.path().join("one-1.0-py3-none-any.whl");
    let hash = lbx_testkit::images::sha256(&fs_err::read(wheel).expect("a wheel"));
    home.write("r.txt", format!("one==1.0 --hash={hash}\n"));
    home.write("src/app.py", "import one\n");
    home.write("src/bin/run.sh", "#!/bin/sh\n");
    let script = home.project().join("src/bin/run.sh");
    fs_err::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).expect("made executable");
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n"));
    let out = home.project().join("src/out");
    let build = |dir: &str| {
        let mut umask = home.command("/bin/sh");
        let command = "umask 077; exec \"$0\" build --image 127.0.0.1:1/none:1 --dir \"$1\"";
        umask.args(["-c", command, crate::support::LBX, dir]);
        run(umask.env("PIP_INDEX_URL", format!("http://{}/simple", index.address())))
    };
    let zip = home.project().join("dist/app.zip");

    // Inside of the source, even: what is built is no source.
    for content in ["import one\n", "import one\nNEW = 1\n", "import one\nNEW = 1\n"] {
        home.write("src/app.py", content);
        let ran = build("src/out");
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let found = tree(&out);
        assert_eq!(found, of_zip(&zip));
        assert_eq!((found["app.py"].2.as_slice(), found["bin/run.sh"].0), (content.as_bytes(), 0o100_755));
        assert!(!found.contains_key("out/app.py"));
        assert_eq!(unfinished(&home), 0);
    }
    // One that is there and empty is taken.
    fs_err::create_dir(home.project().join("empty")).expect("a folder");
    assert_eq!(build("empty").code, 0);
    assert_eq!(tree(&home.project().join("empty")), of_zip(&zip));
    // What is somebody else's is not, nor what has taken the place of what was made.
    fs_err::remove_dir_all(&out).expect("removed");
    for place in ["src/out", "src"] {
        home.write("src/out/precious.txt", "precious");
        let before = fs_err::metadata(&zip).expect("the zip").ino();
        let ran = build(place);
        assert_eq!(ran.code, 3, "{}", ran.stderr);
        let expected = format!(
            "error: there are files in `[ROOT]/project/{place}` that lbx has not made\n\
             hint: name a folder that is empty or not there"
        );
        assert_eq!(home.redact(ran.stderr.trim_end()), expected);
        assert_eq!(fs_err::metadata(&zip).expect("the zip").ino(), before);
        assert!(out.join("precious.txt").exists());
    }
    let ran = build("r.txt");
    assert_eq!(
        (ran.code, home.redact(ran.stderr.trim_end()).as_str()),
        (3, "error: `[ROOT]/project/r.txt` is not a folder")
    );
    assert_eq!(unfinished(&home), 0);
}

#[test]
fn one_folder_is_for_one_artifact() {
    let home = Home::new();
    home.write("src/app.py", "");
    home.write(
        "lbx.toml",
        format!("{HEAD}[functions.a]\nsource = \"src\"\n[functions.b]\nsource = \"src\"\n"),
    );
    let ran = run(&mut lbx(&home, &["build", "--dir", "out"]));
    let expected =
        "error: --dir names one folder, but there are 2 artifacts\nhint: name the artifact to build\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (2, expected));
}

#[test]
fn what_somebody_has_put_into_the_folder_is_not_lost() {
    let home = Home::new();
    home.write("src/app.py", "A = 1\n");
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\n"));
    let build = || run(&mut lbx(&home, &["build", "--image", "127.0.0.1:1/none:1", "--dir", "out"]));
    assert_eq!(build().code, 0);
    // Python leaves this where it imports from.
    home.write("out/__pycache__/app.cpython-311.pyc", "");
    home.write("src/app.py", "A = 2\n");
    assert_eq!(build().code, 0);
    assert!(!home.project().join("out/__pycache__").exists());
    home.write("out/notes.txt", "mine");
    home.write("src/app.py", "A = 3\n");
    let ran = build();
    assert!(ran.code == 3 && ran.stderr.contains("there are files in `"), "{}: {}", ran.code, ran.stderr);
    assert_eq!(fs_err::read_to_string(home.project().join("out/notes.txt")).expect("text"), "mine");
}
