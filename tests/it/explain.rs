//! `lbx explain`: packages, files and folders of zips, kept and left out, and what is none.

use lbx_testkit::command::{Home, Ran, run};
use lbx_testkit::wheels::Wheel;

use crate::locks::{command, succeeds, wheel, wheels};
use crate::support::{HEAD, image, lbx_shared};

struct Project(Home);

impl Project {
    fn explain(&self, asked: &[&str]) -> Ran {
        run(lbx_shared(&self.0, &["explain"]).args(asked))
    }

    #[track_caller]
    fn says(&self, asked: &str, expected: &str) {
        let ran = self.explain(&[asked]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, expected), "{}", ran.stderr);
    }

    #[track_caller]
    fn fails(&self, asked: &[&str], code: i32, expected: &str) {
        let ran = self.explain(asked);
        assert_eq!((ran.code, self.0.redact(ran.stderr.trim_end()).as_str()), (code, expected));
    }
}

#[test]
fn what_is_in_a_zip_and_what_is_not_is_explained() {
    let Some(image) = image() else { return };
    let two = Wheel::new("two", "2.0")
        .file("two/__init__.py", b"TWO = 2\n")
        .file("two/py.typed", b"")
        .file("two/tests/__init__.py", b"")
        .file("two/tests/test_two.py", b"import two\n")
        .file("two/docs/page.rst", b"page")
        .file("two/docs/notes.rst", b"notes");
    let (_folder, index) = wheels(&[wheel("one", "1.0").requires("two"), two]);
    let project = Project(Home::new());
    let home = &project.0;
    home.write("src/app.py", "import one\n");
    home.write("src/secret.txt", "text");
    home.write("r.txt", "one>=1\n");
    home.write(
        "lbx.toml",
        format!(
            "{HEAD}bytecode = true\n[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n[prune]\n\
             sets = [\"docs\"]\nexclude = [\"*.txt\"]\nkeep = [\"notes.rst\"]\n"
        ),
    );
    let not_built = "error: `[ROOT]/project/dist/report.json` is not there, or not as a build left it\n\
                     hint: build first: lbx build";
    project.fails(&["one"], 3, not_built);
    succeeds(&mut command(home, "build", &image, &index));

    // The report has the same numbers.
    let report = fs_err::read(home.project().join("dist/report.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["version"], 1);
    let app = &report["stable"]["artifacts"][0];
    let docs = serde_json::json!({"files": 1, "size": 4});
    assert_eq!(
        (&app["left_out_by_rule"]["docs"], &app["left_out_by_rule"]["tests"]),
        (&docs, &serde_json::Value::Null)
    );
    let sum = |key: &str| -> u64 {
        app["wheels"].as_array().expect("wheels").iter().filter_map(|wheel| wheel["kept"][key].as_u64()).sum()
    };
    // Of own files there are a module and its bytecode.
    assert_eq!(Some(sum("files") + 2), app["files"].as_u64());
    assert!(sum("size") > 500 && Some(sum("size")) < app["unpacked_size"].as_u64());

    let ran = project.explain(&["Two"]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("two 2.0 in app: 10 files, "), "{}", ran.stdout);
    assert_eq!(lines[1], "  for one 1.0");
    let sums =
        ["  left out by `installer-metadata`: 1 file, ", "  left out by `docs`: 1 file, 4 B: people read it"];
    assert!(sums.iter().all(|sum| ran.stdout.contains(sum)), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("  `[prune] sets = [\"tests\"]` would leave out 1 file, 11 B\n"),
        "{}",
        ran.stdout
    );
    let ran = project.explain(&["one"]);
    assert!(ran.stdout.contains("\n  for one>=1\n"), "{}", ran.stdout);

    let kept = "two/py.typed is in app: of two 2.0, 0 B, 2 B in the zip\n  `[prune] sets = [\"typing\"]` would leave it out\n";
    project.says("two/py.typed", kept);
    let left_out =
        "two/docs/page.rst is not in app: of two 2.0, 4 B\n  left out by `docs`, because people read it\n";
    let ran = project.explain(&["two/docs/page.rst"]);
    assert!(ran.stdout.starts_with(left_out), "{}", ran.stdout);
    let spared = "two/docs/notes.rst is in app: of two 2.0, 5 B, 7 B in the zip\n  \
                  `docs` is about it, and spares it: `keep` has `notes.rst`\n";
    project.says("two/docs/notes.rst", spared);
    let excluded =
        "secret.txt is not in app: of src, 4 B\n  left out by `excluded`: your own `exclude` has `*.txt`\n";
    project.says("secret.txt", excluded);
    project.says("src/secret.txt", excluded);
    project.says("./src/app.py", "app.py is in app: of src, 11 B, 11 B in the zip\n");
    let ran = project.explain(&["__pycache__/app.cpython-311.pyc"]);
    assert!(ran.stdout.ends_with("  compiled from app.py\n"), "{}", ran.stdout);
    let ran = project.explain(&["two/tests/"]);
    assert!(ran.stdout.starts_with("two/tests/ in app: 4 files, "), "{}", ran.stdout);

    let unknown = "error: app has no package and no file `tow`\nhint: did you mean `two`?";
    project.fails(&["tow"], 2, unknown);
    let unknown = "error: app has no package and no file `a/b/c.py`\n\
                   hint: paths are those of the zip, such as pkg/module.py, or of the project";
    project.fails(&["a/b/c.py"], 2, unknown);
    let ran = project.explain(&["two", "--message-format", "json"]);
    let said: serde_json::Value = serde_json::from_str(ran.stdout.trim()).expect("one line");
    assert_eq!(said["found"][0]["what"]["package"]["files"]["kept"]["files"], 10);
}
