//! Real pips as clients: the one of `python3`, and every pip wheel in `LBX_TEST_WHEELS`. Without them, the tests are
//! skipped with a line on stderr; with `wheels` in `LBX_MUST_RUN`, that is a failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lbx_testkit::index;
use lbx_testkit::standin::must_run;
use lbx_testkit::wheels::Wheel;

use crate::support::Site;

/// Runs the pip at the first argument, which is a wheel, or the interpreter's own.
const RUN_PIP: &str = "import sys, runpy; p = sys.argv.pop(1); p and sys.path.insert(0, p); \
    sys.argv[0] = 'pip'; runpy.run_module('pip', run_name='__main__', alter_sys=True)";

#[expect(clippy::print_stderr, reason = "a skip must be loud")]
fn skip(why: &str) {
    assert!(!must_run("wheels"), "must run, but {why}");
    eprintln!("SKIPPED: {why}");
}

/// The pips; an empty path is the interpreter's own.
#[expect(clippy::disallowed_methods, reason = "a test has no other way to be told")]
fn pips() -> Vec<PathBuf> {
    let Some(folder) = std::env::var_os("LBX_TEST_WHEELS") else {
        skip("LBX_TEST_WHEELS names no folder of wheels");
        return Vec::new();
    };
    let entries = fs_err::read_dir(PathBuf::from(folder)).expect("a listing").flatten();
    let is_pip =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pip-"));
    let found: Vec<_> = entries.map(|entry| entry.path()).filter(is_pip).collect();
    assert!(found.len() >= 2, "{found:?}");
    let own = Command::new("python3").args(["-I", "-m", "pip", "--version"]).output();
    let own = own.is_ok_and(|ran| ran.status.success()).then(PathBuf::new);
    found.into_iter().chain(own).collect()
}

fn download(pip: &Path, home: &Path, url: &str, requirements: &[&str]) -> Output {
    let mut command = Command::new("python3");
    command.args(["-I", "-c", RUN_PIP]).arg(pip).args(["--isolated", "download", "--no-input"]);
    command.args(["--no-cache-dir", "--disable-pip-version-check", "--retries", "0", "--index-url", url]);
    command.args(["--only-binary", ":all:", "--dest"]).arg(home.join("out")).args(requirements);
    // Nothing of this machine's own configuration, its proxies above all.
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", home);
    command.output().expect("python3 runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pip_finds_and_takes_what_it_needs_and_what_it_took_is_written_down() {
    let folder = tempfile::tempdir().expect("a directory");
    Wheel::new("first", "1.0").requires("Second.Project>=2").write(folder.path());
    for version in ["1.0", "2.5"] {
        Wheel::new("second_project", version).write(folder.path());
    }
    let upstream = index::serve(folder.path());
    for pip in pips() {
        let site = Site::before(&upstream);
        let (url, home) = (site.url(), site.home.path().to_owned());
        let ran = tokio::task::spawn_blocking(move || (download(&pip, &home, &url, &["first"]), pip));
        let (ran, pip) = ran.await.expect("it ends");
        assert!(ran.status.success(), "{} {ran:?}", pip.display());
        let names = fs_err::read_dir(site.home.path().join("out")).expect("a listing").flatten();
        let mut names: Vec<_> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        let wanted = ["first-1.0-py3-none-any.whl", "second_project-2.5-py3-none-any.whl"];
        assert_eq!(names, wanted, "{}", pip.display());
        let mut taken: Vec<_> = site.session.taken().files.into_iter().map(|file| file.name).collect();
        taken.sort();
        taken.dedup();
        assert_eq!(taken, wanted, "{}", pip.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_by_every_pip_in_its_own_words() {
    let folder = tempfile::tempdir().expect("a directory");
    Wheel::new("first", "1.0").write(folder.path());
    let upstream = index::serve(folder.path());
    for pip in pips() {
        let site = Site::before(&upstream);
        let (url, home) = (site.url(), site.home.path().to_owned());
        let ran = tokio::task::spawn_blocking(move || download(&pip, &home, &url, &["first==2", "nope"]));
        let ran = ran.await.expect("it ends");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!ran.status.success() && said.contains("No matching distribution found"), "{said}");
        assert!(site.session.taken().files.is_empty());
    }
}
