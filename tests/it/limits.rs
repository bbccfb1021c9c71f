//! Builds that use up what they may use: each is told by the limit, its value and the option that raises it, and leaves
//! nothing behind.

use lbx_testkit::command::{Home, run};
use lbx_testkit::wheels::sdist;

use crate::requirements::project;
use crate::support::{image, lbx_shared, nothing_left, same};

/// The exit code when requirements do not build.
const REQUIREMENTS: i32 = 6;

/// A project whose one requirement is a source distribution with this `setup.py`, as old as they come: it is run by its
/// own build backend, so that no index is asked for one.
fn built_by(code: &str) -> Home {
    let home = project("one", &[]);
    let build = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n";
    let backend = "def build_wheel(folder, *others):\n    exec(open('setup.py').read())\n";
    let files = [("pyproject.toml", build), ("backend.py", backend), ("setup.py", code)];
    sdist(&home.project().join("wheels"), "one", "1.0", &files);
    home
}

/// Builds with an option, and fails with these last two lines.
#[track_caller]
fn meets(code: &str, options: &[&str], how: &str, hint: &str) {
    let Some(image) = image() else { return };
    let home = built_by(code);
    let ran = run(&mut lbx_shared(&home, &[&["build", "--image", &image], options].concat()));
    assert_eq!((ran.code, ran.stdout.as_str()), (REQUIREMENTS, ""), "{}", ran.stderr);
    let last: Vec<&str> = ran.stderr.lines().rev().take(2).collect();
    same(last[1], &format!("error: cannot build one-1.0.tar.gz ({how})"));
    same(last[0], &format!("hint: {hint}"));
    nothing_left(&home);
}

#[test]
fn a_build_that_wants_too_much_memory_is_told_the_limit() {
    meets(
        "all = bytearray(900_000_000)\n",
        &["--memory-limit", "800MB"],
        "exit status 1",
        "this was probably the limit of 800.0 MB on the memory of a process: raise it with --memory-limit",
    );
}

#[test]
fn a_build_that_starts_too_many_processes_is_told_the_limit() {
    // They end before the build does: they hold a pipe that pip waits for.
    let bomb = "import os, signal\nall = []\ntry:\n    for _ in range(2000):\n        all.append(os.fork())\n\
                \x20       if all[-1] == 0:\n            signal.pause()\nfinally:\n    for one in all:\n\
                \x20       os.kill(one, signal.SIGKILL)\n";
    meets(
        bomb,
        &["--process-limit", "100"],
        "exit status 1",
        "this was probably the limit of 100 processes: raise it with --process-limit",
    );
}

#[test]
fn a_build_that_opens_too_many_files_is_told_the_limit() {
    meets(
        "files = [open('/dev/null') for _ in range(300)]\n",
        &["--open-file-limit", "200"],
        "exit status 1",
        "this was probably the limit of 200 open files: raise it with --open-file-limit",
    );
}

#[test]
fn a_build_that_writes_too_large_a_file_is_told_the_limit() {
    meets(
        "open('large', 'wb').write(bytes(30_000_000))\n",
        &["--file-size-limit", "20MB"],
        "exit status 1",
        "this was probably the limit of 20.0 MB for one file: raise it with --file-size-limit",
    );
}

#[test]
fn a_build_that_fills_the_folder_for_temporary_files_is_told_the_limit() {
    meets(
        "open('large', 'wb').write(bytes(30_000_000))\n",
        &["--tmp-limit", "20MB"],
        "exit status 1",
        "this was probably the limit of 20.0 MB for a folder of temporary files: raise it with --tmp-limit",
    );
}

#[test]
fn a_build_that_leaves_too_much_on_the_disk_is_stopped_and_told_the_limit() {
    meets(
        "import time\nopen('/lbx/out/large', 'wb').write(bytes(30_000_000))\ntime.sleep(1000)\n",
        &["--disk-limit", "20MB"],
        "stopped: the limit of 20.0 MB for what is written was reached",
        "raise the limit with --disk-limit",
    );
}

#[test]
fn temporary_files_on_a_disk_are_limited_too() {
    if !nix::unistd::geteuid().is_root() {
        // The backend is for root; the tests run as root too.
        return;
    }
    meets(
        "import time\nopen('large', 'wb').write(bytes(30_000_000))\ntime.sleep(1000)\n",
        &["--tmp-limit", "20MB", "--backend", "chroot"],
        "stopped: the limit of 20.0 MB for temporary files was reached",
        "raise the limit with --tmp-limit",
    );
}

#[test]
fn a_limit_that_is_no_size_is_a_mistake_on_the_command_line() {
    let home = Home::new();
    let ran = run(&mut lbx_shared(&home, &["build", "--memory-limit", "2 gigabytes"]));
    assert_eq!(ran.code, 2);
    let said = "invalid value '2 gigabytes' for '--memory-limit <SIZE>': \
                expected a number with kB, MB, GB or TB behind it, such as 2GB\n";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
}
