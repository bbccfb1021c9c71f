//! Same packages, same bytes: every stand-in image assembled again, in surroundings that differ in all they can,
//! and compared with the kept one as a whole: index, manifest, config and each layer.
//!
//! | axis | kept image | image assembled again |
//! |---|---|---|
//! | place | `target/standin` | a temporary directory, given as a relative path |
//! | working directory | the caller's | that directory |
//! | umask | 022 | 077 |
//! | user | the caller | another one, when `cargo xtask test` runs as root |
//! | environment, home | the caller's | empty, but for what a careless compiler or archiver would heed |
//! | time zone, locale | the caller's | `Pacific/Kiritimati`, `tr_TR.UTF-8` |
//! | packages, wheels | as they were fetched | copies in reverse order, with times of 2001 |
//! | network | used | none |
//!
//! The kept image may be of another day and another build of xtask, so this also finds a change to what assembles
//! that came without a new `ASSEMBLER`, which would leave everyone with stale images.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use lbx_testkit::command::{Home, copy_tree, files_below, run};
use lbx_testkit::standin::must_run;

use self::layout::Layout;

mod compare;
mod layout;

/// The program.
const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// The variable that holds the folder with the kept images and what they were made from.
const IMAGES: &str = "LBX_TEST_STANDIN";

/// What changes the output of interpreters and archivers that are not kept from it.
const TEMPTATIONS: [(&str, &str); 9] = [
    ("LANG", "tr_TR.UTF-8"),
    ("LC_ALL", "tr_TR.UTF-8"),
    ("PYTHONHASHSEED", "4711"),
    ("PYTHONOPTIMIZE", "2"),
    ("PYTHONPYCACHEPREFIX", "/nonexistent"),
    ("SOURCE_DATE_EPOCH", "1700000000"),
    ("TAR_OPTIONS", "--numeric-owner"),
    ("TZ", "Pacific/Kiritimati"),
    ("http_proxy", "http://127.0.0.1:1"),
];

/// The folder of the kept images; none, with a loud word, when nobody made them.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests are told this way, and skip loudly"
)]
fn images() -> Option<PathBuf> {
    let folder = std::env::var_os(IMAGES).map(PathBuf::from);
    if folder.is_none() {
        assert!(!must_run("standin"), "{IMAGES} is not set, and LBX_MUST_RUN forbids skipping");
        eprintln!("SKIP: {IMAGES} is not set; run `cargo xtask test`");
    }
    folder
}

/// Copies what was fetched, in another order and with other times.
fn copy_fetched(from: &Path, to: &Path) {
    copy_tree(from, to, true);
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for name in files_below(to) {
        let file = fs_err::OpenOptions::new().append(true).open(to.join(name)).expect("a file");
        file.file().set_modified(then).expect("a time");
    }
}

/// Assembles the image in other surroundings, and returns its folder.
fn assemble(home: &Home, runtime: &str, suite: &str, kept: &Path) -> PathBuf {
    let out = home.project().join("deeper/than/the/other/one");
    copy_fetched(&kept.join("packages").join(suite), &out.join("packages").join(suite));
    copy_fetched(&kept.join("wheels").join(runtime), &out.join("wheels").join(runtime));
    let mut command: Command = home.command("/bin/sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\"", XTASK, "image", "--offline", "--runtime", runtime]);
    command.args(["--out", "one"]).current_dir(out.parent().expect("a parent")).envs(TEMPTATIONS);
    let ran = run(&mut command);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    out.join(runtime)
}

/// Assembles the kept image again, and compares.
fn again(runtime: &str, suite: &str) {
    let Some(kept) = images() else { return };
    let home = Home::new();
    let again = Layout::read(&assemble(&home, runtime, suite, &kept));
    // Index, layout version, manifest, config, and six layers.
    assert_eq!(again.len(), 10, "{again:?}");
    let difference = compare::first_difference(&Layout::read(&kept.join(runtime)), &again);
    assert!(
        difference.is_none(),
        "{runtime}: the kept image (first) and the same assembled again (second) differ: {}\n\
         hint: if what assembles was changed since, raise ASSEMBLER in xtask/src/image/recipe.rs, or, if that was\n\
         only an attempt, run `cargo xtask image --offline`",
        difference.unwrap_or_default()
    );
}

#[test]
fn python3_9_is_the_same_bytes_each_time_it_is_assembled() {
    again("python3.9", "bullseye");
}

#[test]
fn python3_11_is_the_same_bytes_each_time_it_is_assembled() {
    again("python3.11", "bookworm");
}

#[test]
fn python3_13_is_the_same_bytes_each_time_it_is_assembled() {
    again("python3.13", "trixie");
}
