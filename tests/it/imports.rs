//! The import of handlers: what the runtime would refuse, what only fails here, and what a hostile module comes to.

use lbx_testkit::command::{Home, run};
use lbx_testkit::wheels::Wheel;
use serde_json::Value;

use crate::locks::{command, succeeds, wheel, wheels};
use crate::support::{HEAD, image};

/// The exit code when the checks find that something will not work.
const CHECKS: i32 = 8;

/// A project with one function for each module, named as it is, and with a requirement.
fn project(modules: &[(&str, &str)], more: &str) -> Home {
    let home = Home::new();
    let mut config = HEAD.to_owned();
    for (name, text) in modules {
        home.write(&format!("{name}/{name}.py"), text);
        let function = format!("[functions.{name}]\nsource = \"{name}\"\nhandler = \"{name}.handler\"\n");
        config.push_str(&function);
    }
    home.write("r.txt", "one\n");
    config.push_str("[defaults]\nrequirements = [\"r.txt\"]\n");
    home.write("lbx.toml", config + more);
    home
}

/// What was said of one function, without what follows.
fn said<'s>(stderr: &'s str, name: &str) -> Vec<&'s str> {
    let about = [format!("lbx: error: {name}: "), format!("lbx: warning: {name}: ")];
    let mut lines = stderr.lines().skip_while(|line| !about.iter().any(|start| line.starts_with(start)));
    let first = lines.next().into_iter();
    first.chain(lines.take_while(|line| line.starts_with("lbx:   "))).collect()
}

fn findings(home: &Home) -> Vec<Value> {
    let text = fs_err::read_to_string(home.project().join("dist/report.json")).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let artifacts = report["stable"]["artifacts"].as_array().expect("artifacts");
    artifacts.iter().flat_map(|one| one["findings"].as_array().expect("findings")).cloned().collect()
}

#[test]
fn a_handler_that_lambda_could_not_import_is_an_error_with_pythons_traceback() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0")]);
    let modules = [
        ("calls", "import one\nhandler = 3\n"),
        ("fine", "import boto3, one\nassert one.VERSION\ndef handler(event, context): ...\n"),
        (
            "gone",
            "import one\n\ndef use():\n    import not_there\n\nuse()\ndef handler(event, context): ...\n",
        ),
        ("leaves", "import os\nos._exit(3)\n"),
        ("nothing", "import one\n"),
        ("syntax", "def handler(event, context)\n"),
    ];
    let home = project(&modules, "");
    let ran = run(&mut command(&home, "build", &image, &index));
    assert_eq!(ran.code, CHECKS, "{}", ran.stderr);
    let expected: [(&str, &[&str]); 6] = [
        ("calls", &["lbx: error: calls: `handler` of `calls`, its handler, cannot be called"]),
        ("fine", &[]),
        (
            "gone",
            &[
                "lbx: error: gone: `gone.handler` cannot be imported: ModuleNotFoundError: No module named 'not_there'",
                "lbx:   Traceback (most recent call last):",
                "lbx:     File \"/var/task/gone.py\", line 6, in <module>",
                "lbx:       use()",
                "lbx:     File \"/var/task/gone.py\", line 4, in use",
                "lbx:       import not_there",
                "lbx:   ModuleNotFoundError: No module named 'not_there'",
                "lbx:   neither the function, nor its layers, nor the runtime have `not_there`: add a requirement that has it",
            ],
        ),
        ("leaves", &["lbx: error: leaves: importing `leaves.handler` ends Python: exit status 3"]),
        ("nothing", &["lbx: error: nothing: `nothing` has no `handler`, its handler"]),
        (
            "syntax",
            &[
                "lbx: error: syntax: `syntax.handler` cannot be imported: SyntaxError: expected ':'",
                "lbx:     File \"/var/task/syntax.py\", line 1",
                "lbx:       def handler(event, context)",
                "lbx:                                  ^",
                "lbx:   SyntaxError: expected ':'",
            ],
        ),
    ];
    for (name, lines) in expected {
        assert_eq!(said(&ran.stderr, name), lines, "{}", ran.stderr);
    }
    let end = "error: calls, gone, leaves, nothing and syntax not published: see above\n";
    assert!(ran.stderr.ends_with(end), "{}", ran.stderr);
}

/// A module that has what a function has in Lambda, and nothing of the user's.
const PLACES: &str = "import os, socket, sys
import layered
assert sys.path[:4] == ['/var/task', '/opt/python/lib/python3.11/site-packages', '/opt/python', '/var/runtime'], sys.path
assert os.environ['AWS_LAMBDA_FUNCTION_NAME'] == 'places' and os.environ['_HANDLER'] == 'sub/places.handler'
assert '/opt/lib' in os.environ['LD_LIBRARY_PATH'] and os.environ['TZ'] == ':UTC'
assert not [name for name in os.environ if 'SECRET' in name or 'TOKEN' in name or name == 'HOME']
assert os.stat('/var/task/sub/run.sh').st_mode & 0o7777 == 0o755
assert os.stat(__file__).st_mode & 0o7777 == 0o644
try:
    open('/var/task/new', 'w')
except OSError:
    pass
else:
    raise AssertionError('it can be written to')
try:
    socket.create_connection(('127.0.0.1', 1), 1)
except OSError:
    pass
def handler(event, context): ...
";

#[test]
fn what_fails_for_want_of_a_variable_is_a_warning_and_no_byte_depends_on_it() {
    let Some(image) = image() else { return };
    let layered = Wheel::new("layered", "1.0").file("layered.py", b"VALUE = 1\n");
    let (_folder, index) = wheels(&[wheel("one", "1.0"), layered]);
    let modules = [
        ("table", "import os\nTABLE = os.environ['TABLE']\ndef handler(event, context): ...\n"),
        ("shows", "raise RuntimeError('a\\x1b[2Jb\\nmore of it')\n"),
        ("forges", "import os\nopen('/lbx/import/result.json', 'w').write('{}')\nos._exit(0)\n"),
    ];
    let places = "[functions.places]\nsource = \"places\"\nhandler = \"sub/places.handler\"\nlayers = [\"more\"]\n\
        [layers.more]\nrequirements = [\"l.txt\"]\n";
    let home = project(&modules, places);
    home.write("places/sub/places.py", PLACES);
    home.write("places/sub/run.sh", "");
    let script = home.project().join("places/sub/run.sh");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(script, executable).expect("made executable");
    home.write("l.txt", "layered\n");
    let build = |more: &[&str]| run(command(&home, "build", &image, &index).args(more));
    let ran = build(&["shows", "table", "places"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(said(&ran.stderr, "places"), [""; 0], "{}", ran.stderr);
    let table = said(&ran.stderr, "table");
    assert_eq!(table[0], "lbx: warning: table: importing `table.handler` fails here: KeyError: 'TABLE'");
    let hint = "lbx:   the function's own variables are not known here, and it may have this one";
    assert_eq!(table.last(), Some(&hint));
    assert!(said(&ran.stderr, "shows")[0].ends_with("RuntimeError: a\\u{1b}[2Jb"), "{}", ran.stderr);
    let found = findings(&home);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[1]["details"].as_str().is_some_and(|text| text.contains("/var/task/table.py")),
        "{found:?}"
    );
    // What a module writes in the place of the result is not believed to be one.
    let forged = build(&["forges"]);
    assert_eq!((forged.code, said(&forged.stderr, "forges").len()), (CHECKS, 1), "{}", forged.stderr);

    let zip = |name: &str| fs_err::read(home.project().join(format!("dist/{name}.zip"))).expect("a zip");
    let before = [zip("table"), zip("places")];
    let text = fs_err::read_to_string(home.project().join("lbx.toml")).expect("text");
    home.write("lbx.toml", format!("{text}[check]\nimport = false\n"));
    let silent = succeeds(command(&home, "build", &image, &index).args(["shows", "table", "places"]));
    assert!(!silent.contains("warning") && findings(&home).is_empty(), "{silent}");
    assert_eq!([zip("table"), zip("places")], before);
}

#[test]
fn a_build_that_needs_no_image_opens_one_only_where_it_is_told_to() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0")]);
    let home = project(&[("gone", "import not_there\n")], "");
    succeeds(&mut command(&home, "lock", &image, &index));
    let build = || run(command(&home, "build", &image, &index).arg("--locked"));
    let ran = build();
    assert!(ran.code == 0 && !ran.stderr.contains("image ready"), "{}", ran.stderr);
    let text = fs_err::read_to_string(home.project().join("lbx.toml")).expect("text");
    home.write("lbx.toml", format!("{text}[check]\nimport = true\n"));
    let ran = build();
    assert!(ran.code == CHECKS && ran.stderr.contains("No module named 'not_there'"), "{}", ran.stderr);
    let unchecked = run(command(&home, "build", &image, &index).args(["--locked", "--no-check"]));
    assert!(unchecked.code == 0 && !unchecked.stderr.contains("not_there"), "{}", unchecked.stderr);
}
