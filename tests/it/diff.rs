//! `lbx diff`: what is said of two zips, of ours and of others, and what is no zip.

use std::path::PathBuf;

use lbx_testkit::command::{Home, Ran, files_below, run, succeed};

use crate::commands::events;
use crate::support::{HEAD, lbx, same};

/// Makes a zip of a list of (name, content, mode, method, year) with Python's zipfile.
const MAKE: &str = "\
import json, sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as archive:
    for name, content, mode, method, year in json.loads(sys.argv[2]):
        info = zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0))
        info.external_attr = mode << 16
        info.compress_type = method
        archive.writestr(info, content)
";

/// A file of a zip.
#[derive(Clone)]
struct File {
    name: String,
    content: String,
    mode: u32,
    stored: bool,
    year: u16,
}

fn file(name: &str, content: &str) -> File {
    File { name: name.to_owned(), content: content.to_owned(), mode: 0o644, stored: false, year: 1980 }
}

fn metadata(name: &str, version: &str) -> File {
    let text = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
    file(&format!("{name}-{version}.dist-info/METADATA"), &text)
}

/// A project with zips in it.
struct Zips(Home);

impl Zips {
    /// `before.zip` and `after.zip`.
    fn new(before: &[File], after: &[File]) -> Self {
        let zips = Self(Home::new());
        zips.make("before.zip", before);
        zips.make("after.zip", after);
        zips
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.project().join(name)
    }

    fn make(&self, name: &str, files: &[File]) {
        let list: Vec<_> = files
            .iter()
            .map(|file| {
                let method = if file.stored { 0 } else { 8 };
                serde_json::json!([file.name, file.content, file.mode | 0o100_000, method, file.year])
            })
            .collect();
        let list = serde_json::Value::from(list).to_string();
        succeed(self.0.command("/usr/bin/python3").args(["-c", MAKE, name, &list]));
    }

    fn diff(&self, options: &[&str]) -> Ran {
        run(&mut lbx(&self.0, &[&["diff", "before.zip", "after.zip"], options].concat()))
    }

    /// Compares them, which differ.
    #[track_caller]
    fn differ(&self) -> String {
        let ran = self.diff(&[]);
        assert_eq!((ran.code, ran.stderr.as_str()), (9, ""), "{}", ran.stdout);
        ran.stdout
    }

    /// What is said of the files, without what is said of the zips as a whole.
    #[track_caller]
    fn said(&self) -> String {
        let said = self.differ();
        said.split_inclusive('\n').take_while(|line| !line.starts_with("size: ")).collect()
    }

    /// Compares them, of which one cannot be read.
    #[track_caller]
    fn refused(&self, stderr: &str) {
        let ran = self.diff(&[]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
        same(&self.0.redact(&ran.stderr), stderr);
    }
}

#[test]
fn the_same_zips_are_the_same_and_that_is_success() {
    let files = [file("lambda.py", "import os\n"), metadata("six", "1.17.0")];
    let zips = Zips::new(&files, &files);
    let ran = zips.diff(&[]);
    let size = fs_err::metadata(zips.path("after.zip")).unwrap().len();
    assert_eq!((ran.code, ran.stdout), (0, format!("the zips are the same: 2 files, {size} B\n")));
    let told = zips.diff(&["--message-format", "json"]);
    let [one] = &events(&told.stdout)[..] else { panic!("{}", told.stdout) };
    assert_eq!((told.code, &one["difference"]["same"]), (0, &true.into()));
    assert_eq!(fs_err::read_dir(zips.0.cache()).unwrap().count(), 0, "it makes no store");
}

#[test]
fn what_differs_is_told_packages_first_and_then_the_biggest_change() {
    let tool = File { mode: 0o755, ..file("tool", "#!/bin/sh\n") };
    let before = [
        metadata("chardet", "5.2.0"),
        metadata("requests", "2.31.0"),
        file("gone.py", "x = 1\n"),
        file("lambda.py", "import os\nimport re\n"),
        file("tool", "#!/bin/sh\n"),
    ];
    let after = [
        metadata("requests", "2.32.5"),
        file("come.py", &"y = 2\n".repeat(1000)),
        file("lambda.py", "import os\nimport sys\n"),
        tool,
    ];
    let zips = Zips::new(&before, &after);
    let said = zips.differ();
    let expected = "\
        packages: 1 changed, 1 removed\n  \
          requests 2.31.0 → 2.32.5\n  \
          - chardet 5.2.0\n\
        files: 2 changed, 2 added, 3 removed\n  \
          + come.py: 6.0 kB\n  \
          - requests-2.31.0.dist-info/METADATA: 53 B\n  \
          + requests-2.32.5.dist-info/METADATA: 53 B\n  \
          - chardet-5.2.0.dist-info/METADATA: 51 B\n  \
          - gone.py: 6 B\n  \
          lambda.py: 20 B → 21 B (+1 B), from byte 17 on\n  \
          tool: mode 0644 → 0755\n\
        size: ";
    assert!(said.starts_with(expected), "{said}\nexpected:\n{expected}");
    let told = zips.diff(&["--message-format", "json"]);
    let [one] = &events(&told.stdout)[..] else { panic!("{}", told.stdout) };
    assert_eq!((told.code, told.stderr.as_str()), (9, ""));
    assert_eq!((&one["reason"], &one["before"]), (&"diff".into(), &"before.zip".into()));
    let files = &one["difference"]["files"];
    assert_eq!(files["changed"][0]["first_byte"], 17);
    assert_eq!(files["changed"][1]["mode"], serde_json::json!({"before": "0644", "after": "0755"}));
    assert_eq!(one["difference"]["packages"]["removed"][0]["name"], "chardet");
}

#[test]
fn another_order_other_times_and_another_compressor_are_told_as_such() {
    let (a, b) = (file("a.py", &"import os\n".repeat(9)), file("b.py", "1\n"));
    let zips = Zips::new(&[a.clone(), b.clone()], &[b.clone(), a.clone()]);
    assert_eq!(zips.said(), "order: other\n");
    let later = |file: &File| File { year: 2024, ..file.clone() };
    zips.make("after.zip", &[later(&a), later(&b)]);
    assert_eq!(zips.said(), "times: other in 2 files: 1980-01-01 00:00:00 → 2024-01-01 00:00:00\n");
    zips.make("after.zip", &[File { stored: true, ..a }, b]);
    let said = zips.said();
    let expected = "files: 1 compressed differently\n  a.py: compressed differently, ";
    assert!(said.starts_with(expected) && said.contains(" → 90 B "), "{said}");
}

#[test]
fn long_lists_are_cut_unless_all_is_asked_for() {
    let files: Vec<File> = (0..70).map(|number| file(&format!("{number:02}.py"), "x")).collect();
    let zips = Zips::new(&[], &files);
    let said = zips.said();
    assert_eq!(said.lines().count(), 52, "{said}");
    assert!(said.ends_with("  + 49.py: 1 B\n  and 20 more (--all lists them)\n"), "{said}");
    let all = zips.diff(&["--all"]);
    assert!(all.code == 9 && all.stdout.contains("\n  + 69.py: 1 B\n"), "{}", all.stdout);
    let told = zips.diff(&["--message-format", "json"]);
    assert_eq!(events(&told.stdout)[0]["difference"]["files"]["added"].as_array().unwrap().len(), 70);
}

#[test]
fn what_is_no_zip_or_is_not_there_is_refused_with_its_name() {
    let zips = Zips::new(&[file("a", "a")], &[]);
    fs_err::write(zips.path("after.zip"), "garbage").unwrap();
    zips.refused(
        "error: cannot read the zip `[ROOT]/project/after.zip`: not a zip archive: no end of central directory record\n",
    );
    let whole = fs_err::read(zips.path("before.zip")).unwrap();
    fs_err::write(zips.path("after.zip"), [b"MZ", &whole[..]].concat()).unwrap();
    let ran = zips.diff(&[]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("hint: lbx reads only zips that all unzippers read alike"), "{}", ran.stderr);
    fs_err::remove_file(zips.path("after.zip")).unwrap();
    zips.refused(
        "error: failed to open file `[ROOT]/project/after.zip`: No such file or directory (os error 2)\n",
    );
    fs_err::create_dir(zips.path("after.zip")).unwrap();
    zips.refused(
        "error: `[ROOT]/project/after.zip` is not a file\nhint: two zips are compared: name files\n",
    );
    let told = zips.diff(&["--message-format", "json"]);
    let last = events(&told.stdout).pop().unwrap();
    assert_eq!((told.code, &last["reason"], &last["exit_code"]), (1, &"error".into(), &1.into()));
}

#[test]
fn one_zip_is_compared_with_the_one_that_it_has_replaced() {
    let home = Home::new();
    let build = |content: &str, options: &[&str]| {
        home.write("src/app.py", content);
        succeed(lbx(&home, &["build", "--image", "127.0.0.1:1/none:1"]).args(options));
    };
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\n"));
    let diff = |asked: &str| run(&mut lbx(&home, &["diff", asked]));
    let nothing = diff("app");
    let expected = "error: there is no zip `app`, and no function or layer of that name was built\n";
    assert_eq!((nothing.code, nothing.stderr.as_str()), (2, expected));
    build("A = 1\n", &[]);
    let first = diff("app");
    let expected = "error: no other zip was built before `dist/app.zip`\n\
        hint: builds into a folder keep the zip that they replace, if it is another one; or name two zips\n";
    assert_eq!((first.code, first.stderr.as_str()), (2, expected));
    // The same bytes replace nothing.
    for (content, size) in [("A = 1\nB = 2\n", "+6 B"), ("A = 1\nB = 2\n", "+6 B"), ("A = 1\n", "-6 B")] {
        build(content, &[]);
        for asked in ["app", "dist/app.zip"] {
            let ran = diff(asked);
            assert_eq!(ran.code, 9, "{}", ran.stderr);
            assert!(ran.stdout.contains("  app.py: ") && ran.stdout.contains(size), "{}", ran.stdout);
        }
    }
    // Where the folder of zips is the project itself, what is kept is no source; and one file asked for keeps nothing.
    for content in ["A = 3\n", "A = 4\n"] {
        build(content, &["--out-dir", "src"]);
        build(content, &["-o", "one/app.zip"]);
    }
    let names = files_below(&home.project().join("src"));
    assert_eq!(names, [".previous/app.zip", "app.py", "app.zip", "app.zip.sha256", "report.json"]);
    assert_eq!(files_below(&home.project().join("one")), ["app.report.json", "app.zip", "app.zip.sha256"]);
    assert_eq!(run(&mut lbx(&home, &["diff"])).code, 2);
}

#[test]
fn what_is_replaced_is_not_put_where_a_link_of_the_checkout_leads() {
    let home = Home::new();
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\n"));
    let elsewhere = home.root().join("elsewhere");
    fs_err::create_dir_all(&elsewhere).unwrap();
    fs_err::write(elsewhere.join("app.zip"), "precious").unwrap();
    fs_err::create_dir_all(home.project().join("dist")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, home.project().join("dist/.previous")).unwrap();
    for content in ["A = 1\n", "A = 2\n"] {
        home.write("src/app.py", content);
        succeed(&mut lbx(&home, &["build", "--image", "127.0.0.1:1/none:1"]));
    }
    assert_eq!(files_below(&elsewhere), ["app.zip"]);
    assert_eq!(fs_err::read_to_string(elsewhere.join("app.zip")).unwrap(), "precious");
}

#[test]
fn hostile_names_are_refused_or_shown_without_control_characters() {
    let zips = Zips::new(&[file("a", "a")], &[file("../a", "a")]);
    let ran = zips.diff(&[]);
    assert!(ran.code == 1 && ran.stderr.contains("member name \"../a\" refused"), "{}", ran.stderr);
    zips.make("after.zip", &[file("a\u{1b}[2J", "a")]);
    let ran = zips.diff(&[]);
    assert!(ran.code == 1 && ran.stderr.contains("\"a\\u{1b}[2J\" refused"), "{}", ran.stderr);
    // What passes as a name of a file, but is a command to some terminals; and a name of a package with lines in it.
    let package = file("x-1.dist-info/METADATA", "Name: x\u{1b}[2J\n  + requests 1\nVersion: 1\n");
    zips.make("after.zip", &[file("a\u{9b}2J", "a"), package]);
    let said = zips.differ();
    assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
    assert!(said.contains("\n  + a\\u{9b}2J: 1 B\n"), "{said}");
    assert!(said.starts_with("packages: 1 added\n  + x\\u{1b}[2J\\n+ requests 1 1\nfiles: "), "{said}");
}

#[test]
fn a_damaged_file_is_an_error_and_no_difference() {
    let content = "some text that is long enough to be found again";
    let whole = File { stored: true, ..file("a", content) };
    let zips = Zips::new(std::slice::from_ref(&whole), std::slice::from_ref(&whole));
    let mut bytes = fs_err::read(zips.path("after.zip")).unwrap();
    let at = bytes.windows(content.len()).position(|window| window == content.as_bytes()).unwrap();
    bytes[at] = b'S';
    fs_err::write(zips.path("after.zip"), bytes).unwrap();
    let ran = zips.diff(&[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    let start = "error: cannot read \"a\" of `[ROOT]/project/after.zip`: the content has CRC ";
    let said = zips.0.redact(&ran.stderr);
    assert!(said.starts_with(start) && said.ends_with("hint: the zip is damaged: make it anew\n"), "{said}");
}
