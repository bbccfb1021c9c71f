//! Running a program as a user with nothing: an empty environment, an empty home, a place to make a project.
//!
//! What a program then says is compared with what it should say, so paths, ports and digests that differ from
//! run to run have names here.

use std::ffi::OsStr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Variables without which some hosts reach no package index; everything else stays outside. Those that lbx reads:
/// the CA bundles and then what pip is to see, in the same order, which a test of `lbx` holds on to.
pub const PASSED: [&str; 16] = [
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_RETRIES",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// A user's surroundings in a temporary directory: `home`, `cache` and `project`, all empty.
#[derive(Debug)]
pub struct Home {
    root: PathBuf,
    _dir: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// Fresh ones.
    pub fn new() -> Self {
        Self::new_in(&std::env::temp_dir())
    }

    /// The same below a directory of the caller's choice.
    pub fn new_in(parent: &Path) -> Self {
        let dir = TempDir::with_prefix_in("lbx-test-", parent).expect("a temporary directory");
        let root = fs_err::canonicalize(dir.path()).expect("a real path");
        for name in ["home", "cache", "project"] {
            fs_err::create_dir(root.join(name)).expect("a directory");
        }
        Self { root, _dir: dir }
    }

    /// The directory that holds everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The empty directory that `XDG_CACHE_HOME` names.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// The project's directory, where commands start.
    pub fn project(&self) -> PathBuf {
        self.root.join("project")
    }

    /// Writes a file of the project, and the folders that it needs.
    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.project().join(path);
        fs_err::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs_err::write(path, contents).expect("a file");
    }

    /// A command that starts in the project and knows nothing of the host but how to reach indexes.
    #[expect(
        clippy::disallowed_methods,
        reason = "what the host needs to reach package indexes is passed on"
    )]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(self.project()).stdin(Stdio::null());
        command.env("HOME", self.root.join("home")).env("XDG_CACHE_HOME", self.cache());
        command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command.envs(PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
    }

    /// `text` with what differs from run to run replaced: this directory, digests, ports of
    /// loopback, a process's own folder in a store.
    pub fn redact(&self, text: &str) -> String {
        let text = text.replace(&self.root.display().to_string(), "[ROOT]");
        let text = redact_run(&text, "/lbx/tmp/", "[WORK]", |c| c.is_ascii_digit() || c == '-');
        let text = redact_run(&text, "127.0.0.1:", "[PORT]", |c| c.is_ascii_digit());
        redact_run(&text, "sha256:", "[DIGEST]", |c| c.is_ascii_hexdigit())
    }
}

/// Replaces the longest run of fitting characters after each `marker`.
fn redact_run(text: &str, marker: &str, with: &str, fits: fn(char) -> bool) -> String {
    let mut parts = text.split(marker);
    let mut redacted = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(fits);
        redacted.push_str(marker);
        redacted.push_str(if rest.len() == part.len() { "" } else { with });
        redacted.push_str(rest);
    }
    redacted
}

/// How a program ended, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The exit code; a signal's number below zero when one ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let signal = output.status.signal().unwrap_or_default();
        Self {
            code: output.status.code().unwrap_or(-signal),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ran {
    command.output().unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display())).into()
}

/// Runs a command that must succeed, and returns what it wrote to standard output.
pub fn succeed(command: &mut Command) -> String {
    let ran = run(command);
    assert_eq!(ran.code, 0, "{command:?}\n{}\n{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// The text of a `report.json` up to what was measured, which is all that is the same bytes each time.
pub fn stable_part(report: &[u8]) -> &[u8] {
    let measured = b"\n  \"measured\": {\n";
    let end = report.windows(measured.len()).position(|window| window == measured);
    &report[..end.expect("something that was measured")]
}

/// What follows from the inputs alone, in the `report.json` at a path.
pub fn stable_report(path: &Path) -> serde_json::Value {
    let text = fs_err::read(path).expect("a report");
    let mut report: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    report["stable"].take()
}

/// A directory that many tests share. It goes when the test's process ends, however it ends: statics are never
/// dropped, so a shell waits for the end of a pipe that only this process holds.
pub fn shared_directory() -> PathBuf {
    shared_directory_in(&std::env::temp_dir())
}

/// The same below a directory of the caller's choice.
pub fn shared_directory_in(parent: &Path) -> PathBuf {
    let root = fs_err::canonicalize(parent).expect("a real path");
    let path = TempDir::with_prefix_in("lbx-shared-", root).expect("a temporary directory").keep();
    let script = r#"read -r _; chmod -R u+rwX "$0"; rm -rf "$0""#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Its own group: a ^C that ends the tests must not end it.
    let child = command.process_group(0).spawn().expect("a shell");
    std::mem::forget(child);
    path
}

/// Copies a tree of folders and files. With `reversed`, entries are made in the reverse order, so that the
/// copy's directories and inodes are in another order than the original's.
pub fn copy_tree(from: &Path, to: &Path, reversed: bool) {
    fs_err::create_dir_all(to).expect("a directory");
    let entries = fs_err::read_dir(from).expect("a listing");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    if reversed {
        names.reverse();
    }
    for name in names.iter().filter(|name| *name != "dist" && *name != "__pycache__") {
        let (source, target) = (from.join(name), to.join(name));
        if source.is_dir() {
            copy_tree(&source, &target, reversed);
        } else {
            fs_err::copy(source, target).expect("a copy");
        }
    }
}

/// The files below a folder, as sorted relative paths. Folders are not listed; links are not followed.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs_err::read_dir(&directory).expect("a listing") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_dir() {
                open.push(entry.path());
            } else {
                let path = entry.path();
                let path = path.strip_prefix(folder).expect("below the folder");
                found.push(path.to_str().expect("UTF-8").to_owned());
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_inherits_nothing_and_its_words_lose_what_varies() {
        let home = Home::new();
        let environment = succeed(home.command("/usr/bin/env").env("PIP_INDEX_URL", ""));
        assert!(!environment.contains("CARGO"), "{environment}");
        let text = format!("{}/project 127.0.0.1:80/a@sha256:{}.", home.root().display(), "ab".repeat(32));
        assert_eq!(home.redact(&text), "[ROOT]/project 127.0.0.1:[PORT]/a@sha256:[DIGEST].");
    }
}
