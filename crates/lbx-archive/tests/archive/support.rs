//! Files in memory's place, and other people's unzippers.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use lbx_archive::{Archive, Limits, ReadError};

/// An unnamed file with these bytes.
pub(crate) fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Opens an archive of these bytes under the default limits.
pub(crate) fn open(bytes: &[u8]) -> Result<Archive, ReadError> {
    Archive::open(&file_of(bytes), &Limits::default())
}

/// Runs another program's check of the archive at `path`, which must succeed.
///
/// libarchive cannot list names that the locale has no letters for, so the locale is fixed.
///
/// A program that is not there is skipped with a line on stderr; with `peers` in `LBX_MUST_RUN` it is a failure.
pub(crate) fn assert_accepted_by(command: &[&str], path: &Path) {
    #[expect(clippy::disallowed_methods, reason = "a test has no other way to be told")]
    let must_run =
        std::env::var("LBX_MUST_RUN").is_ok_and(|list| list.split(',').any(|name| name == "peers"));
    let output =
        match Command::new(command[0]).args(&command[1..]).arg(path).env("LC_ALL", "C.UTF-8").output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_run => {
                eprintln!("SKIPPED: {} is not installed", command[0]);
                return;
            }
            output => output.unwrap(),
        };
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Info-ZIP's, libarchive's and Python's opinion of an archive.
pub(crate) fn assert_accepted_by_all(path: &Path) {
    assert_accepted_by(&["unzip", "-tqq"], path);
    assert_accepted_by(&["bsdtar", "-tf"], path);
    assert_accepted_by(&["python3", "-c", PYTHON], path);
}

/// Like `python3 -m zipfile -t`, which exits with 0 whatever it finds.
const PYTHON: &str = "import sys, zipfile; bad = zipfile.ZipFile(sys.argv[1]).testzip(); sys.exit(bad and 1)";
