//! Running the binary, with a store of one's own or the one that all tests share.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lbx_testkit::command::{Home, copy_tree, run, shared_directory, succeed};
use lbx_testkit::standin;

/// The binary.
pub(crate) const LBX: &str = env!("CARGO_BIN_EXE_lbx");

/// The runtime of most tests.
pub(crate) const RUNTIME: &str = "python3.11";

/// A configuration that says no more than it must.
pub(crate) const HEAD: &str = "[project]\nruntime = \"python3.11\"\n";

/// `lbx` in a project, with a store of the home's own.
pub(crate) fn lbx(home: &Home, arguments: &[&str]) -> Command {
    let mut command = home.command(LBX);
    command.args(arguments);
    command
}

/// `lbx` with the store that all tests share, which holds the stand-in image.
pub(crate) fn lbx_shared(home: &Home, arguments: &[&str]) -> Command {
    let mut command = lbx(home, arguments);
    command.env("LBX_CACHE_DIR", shared_store());
    command
}

/// A store that holds the stand-in image of [`RUNTIME`], pulled once.
pub(crate) fn shared_store() -> &'static Path {
    static STORE: OnceLock<PathBuf> = OnceLock::new();
    STORE.get_or_init(|| {
        let store = shared_directory().join("store");
        if let Some(image) = standin::reference(RUNTIME) {
            succeed(lbx(&Home::new(), &["pull", "--quiet", &image]).env("LBX_CACHE_DIR", &store));
        }
        store
    })
}

/// The stand-in image of [`RUNTIME`], or a loud skip.
pub(crate) fn image() -> Option<String> {
    standin::reference(RUNTIME)
}

/// A copy of a project of `examples/`, under its own name.
pub(crate) fn example(name: &str) -> (Home, PathBuf) {
    let home = Home::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let project = home.project().join(name);
    copy_tree(&from, &project, false);
    (home, project)
}

/// Runs and compares the exit code and what is said on stderr after the progress: all of it. Nothing is left.
#[track_caller]
pub(crate) fn fails(home: &Home, command: &mut Command, code: i32, stderr: &str) {
    let ran = run(command);
    let said = home.redact(after_progress(&ran.stderr));
    assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{}", ran.stderr);
    same(&said, stderr);
    nothing_left(home);
}

/// Compares what was said with what should have been said, so that both can be read.
#[track_caller]
pub(crate) fn same(said: &str, expected: &str) {
    assert!(said == expected, "said:\n{said}\nexpected:\n{expected}");
}

/// What follows the lines that tell of progress.
pub(crate) fn after_progress(text: &str) -> &str {
    let progress = text.split_inclusive('\n').take_while(|line| line.starts_with("lbx: "));
    &text[progress.map(str::len).sum::<usize>()..]
}

/// No output folder, and nothing in progress in the home's own store.
#[track_caller]
pub(crate) fn nothing_left(home: &Home) {
    assert!(!home.project().join("dist").exists(), "dist was made");
    in_progress(&home.cache().join("lbx"), &[]);
}

/// A store's `tmp` holds these and nothing else.
#[track_caller]
pub(crate) fn in_progress(store: &Path, expected: &[&str]) {
    let tmp = store.join("tmp");
    let mut found = Vec::new();
    if tmp.exists() {
        let entries = fs_err::read_dir(tmp).expect("a listing");
        found.extend(entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")));
    }
    assert_eq!(found, expected);
}
