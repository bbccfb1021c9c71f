//! How a sandbox ends: exit codes, signals, kills, and that nothing of it is left.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lbx_sandbox::{Backend, End, Error, Running, Stream, Streams};

use crate::support::{Rootfs, everywhere, launcher, namespaced, run, try_run};

/// A number of seconds that no other process sleeps, so that a survivor can be found by its arguments.
fn unique_sleep(salt: u32) -> String {
    format!("sleep {}", 100_000 + salt * 1_000_000 + std::process::id())
}

/// A process of the host that has these arguments.
fn process(arguments: &str) -> Option<i32> {
    let wanted: Vec<u8> = arguments.bytes().map(|b| if b == b' ' { 0 } else { b }).collect();
    let processes = fs_err::read_dir("/proc").expect("processes").flatten();
    let mut found = processes.filter(|entry| {
        let arguments = fs_err::read(entry.path().join("cmdline")).unwrap_or_default();
        arguments.strip_suffix(&[0]).is_some_and(|a| a == wanted)
    });
    found.find_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn alive(arguments: &str) -> bool {
    process(arguments).is_some()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        // An emulated machine on a busy one is slow.
        assert!(start.elapsed() < Duration::from_mins(1), "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a script and returns when it has written its first line.
fn started(root: &Rootfs, script: &str) -> Running {
    // Not a pipe for messages, which `wait` would close: the shell writes there what ended its children.
    let streams = Streams { stdout: Stream::Pipe, ..Streams::default() };
    let mut running = launcher().spawn(&root.shell(script), streams).expect("started");
    let mut line = String::new();
    let mut stdout = BufReader::new(running.take_stdout().expect("stdout"));
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    // Kept open, so that the command can go on writing.
    std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
    running
}

#[test]
fn exit_codes_and_signals_are_reported() {
    for root in namespaced() {
        for code in [0, 1, 2, 101, 126, 127, 255] {
            assert_eq!(run(&root.shell(&format!("exit {code}"))).exit.end, End::Code(code));
        }
        // The last is a real-time signal, which has no name.
        for signal in [1, 6, 9, 11, 15, 40] {
            let exit = run(&root.shell(&format!("kill -{signal} $$"))).exit;
            assert_eq!(exit.end, End::Signal(signal));
            assert!(!exit.success());
        }
    }
}

#[test]
fn an_orphan_that_a_real_time_signal_ends_changes_nothing() {
    for root in namespaced() {
        let script = "(sh -c 'kill -40 $$' &) ; sleep 0.1; exit 3";
        assert_eq!(run(&root.shell(script)).code(), 3);
    }
}

#[test]
fn a_missing_program_is_its_own_error() {
    for root in namespaced() {
        for program in ["/bin/nothing", "nothing", "/nowhere/x"] {
            let mut spec = root.shell("");
            spec.argv = vec![program.into()];
            let error = try_run(&spec).expect_err("no program");
            assert!(matches!(&error, Error::ProgramNotFound { program: p } if p == program), "{error:?}");
            assert_eq!(error.to_string(), format!("no program `{program}` in the sandbox"));
        }
        let mut spec = root.shell("");
        spec.argv = vec!["/etc/image".into()];
        let error = try_run(&spec).expect_err("not executable").to_string();
        assert!(error.ends_with(r#"execve("/etc/image"): EACCES"#), "{error}");
    }
}

#[test]
fn a_missing_interpreter_is_not_a_missing_program() {
    for root in namespaced() {
        let mut spec = root.shell("");
        let contents = b"#!/bin/python\n".to_vec();
        spec.files.push(lbx_sandbox::File { target: "/opt/x".into(), contents, executable: true });
        spec.argv = vec!["/opt/x".into()];
        let error = try_run(&spec).expect_err("no interpreter").to_string();
        assert!(error.contains("its interpreter"), "{error}");
    }
}

#[test]
fn a_missing_working_directory_is_a_setup_error() {
    for root in namespaced() {
        let mut spec = root.shell("true");
        spec.cwd = "/nowhere".into();
        let error = try_run(&spec).expect_err("no directory");
        let text = error.to_string();
        assert_eq!(text, r#"cannot enter the working directory: chdir("/nowhere"): ENOENT"#);
        assert!(matches!(error, Error::Setup { diagnosis: None, .. }));
        spec.cwd = "/var/tmp".into();
        spec.argv = vec!["/bin/sh".into(), "-c".into(), "pwd".into()];
        assert_eq!(run(&spec).stdout, "/var/tmp\n");
    }
}

#[test]
fn programs_are_found_in_the_path_of_the_run() {
    for root in namespaced() {
        let mut spec = root.shell("");
        spec.argv = vec!["true".into()];
        assert_eq!(run(&spec).code(), 0);
        spec.env = vec![("PATH".into(), "/usr:/etc".into())];
        assert!(matches!(try_run(&spec), Err(Error::ProgramNotFound { .. })));
    }
}

#[test]
fn term_is_forwarded_and_the_second_kills() {
    for root in namespaced() {
        let polite = started(&root, "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done");
        polite.signal(15).expect("sent");
        assert_eq!(polite.wait().expect("ended").end, End::Code(7));

        let stubborn = started(&root, "trap '' TERM INT; echo ready; while :; do sleep 0.05; done");
        let handle = stubborn.kill_handle();
        handle.signal(15).expect("sent");
        std::thread::sleep(Duration::from_millis(100));
        handle.signal(2).expect("sent");
        assert_eq!(stubborn.wait().expect("ended").end, End::Signal(9));
        handle.signal(15).expect("harmless when it is over");
        handle.kill();
    }
}

#[test]
fn a_signal_to_the_child_process_is_forwarded() {
    // Signals come to the child process when it is told to stop by its own caller; bubblewrap dies of them.
    for root in namespaced().iter().filter(|root| root.backend != Backend::Bwrap) {
        let sleep = unique_sleep(5);
        let running = started(root, &format!("trap 'exit 8' TERM; echo ready; {sleep} & wait"));
        eventually("the command sleeps", || alive(&sleep));
        // Upwards from the sleeping process: the shell, PID 1 of the sandbox, the child.
        let child = parent(parent(parent(process(&sleep).expect("alive"))));
        assert_eq!(parent(child), i32::try_from(std::process::id()).expect("a pid"));
        let child = nix::unistd::Pid::from_raw(child);
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGTERM).expect("sent");
        assert_eq!(running.wait().expect("ended").end, End::Code(8));
        assert!(!alive(&sleep));
    }
}

#[test]
fn killing_the_child_process_kills_the_sandbox() {
    for root in namespaced() {
        let sleep = unique_sleep(6);
        let running = started(&root, &format!("trap '' TERM; echo ready; (setsid {sleep} &); {sleep}"));
        eventually("the command sleeps", || alive(&sleep));
        let child = parent_in_this_process(process(&sleep).expect("alive"));
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).expect("sent");
        assert!(matches!(running.wait(), Err(Error::Killed { .. })));
        eventually("nothing is left", || !alive(&sleep));
    }
}

/// Whoever kills the process that watches over a command sets its children free, in a root that nobody else may get.
#[test]
fn a_root_that_somebody_may_still_be_in_is_not_kept() {
    for root in everywhere().iter().filter(|root| root.backend == Backend::Chroot) {
        let kept = root.dir.path().join("kept");
        let sleep = unique_sleep(9);
        let mut spec = root.shell(&format!("(setsid {sleep} &); {sleep}"));
        (spec.kept, spec.scratch) = (Some(kept.clone()), Some(root.layer(1)));
        let running = launcher().spawn(&spec, Streams::default()).expect("started");
        eventually("the command sleeps", || alive(&sleep));
        let watching = parent_in_this_process(process(&sleep).expect("alive"));
        nix::sys::signal::kill(watching, nix::sys::signal::Signal::SIGKILL).expect("sent");
        assert!(matches!(running.wait(), Err(Error::Killed { .. })));
        assert!(!kept.exists());
        while let Some(left) = process(&sleep) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(left), nix::sys::signal::Signal::SIGKILL)
                .expect("our own");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // And from one that has ended well, it is.
        spec.argv = vec!["/bin/true".into()];
        assert!(run(&spec).exit.success());
        assert!(kept.exists());
    }
}

/// The one of a process's ancestors that this process started.
fn parent_in_this_process(mut child: i32) -> nix::unistd::Pid {
    while parent(child) != i32::try_from(std::process::id()).expect("a pid") {
        child = parent(child);
    }
    nix::unistd::Pid::from_raw(child)
}

fn parent(process: i32) -> i32 {
    let status = fs_err::read_to_string(format!("/proc/{process}/status")).expect("a status");
    let line = status.lines().find_map(|l| l.strip_prefix("PPid:")).expect("a parent");
    line.trim().parse().expect("a pid")
}

#[test]
fn a_handle_kills_from_another_thread() {
    for root in namespaced() {
        let sleep = unique_sleep(1);
        let running = started(&root, &format!("trap '' TERM; echo ready; {sleep}"));
        eventually("the command sleeps", || alive(&sleep));
        let handle = running.kill_handle();
        let killer = std::thread::spawn(move || handle.kill());
        let error = running.wait().expect_err("killed");
        assert!(matches!(error, Error::Killed { .. }), "{error}");
        assert!(!alive(&sleep), "wait returned before the last process was gone");
        killer.join().expect("the killer");
    }
}

#[test]
fn dropping_kills_everything() {
    for root in namespaced() {
        let sleep = unique_sleep(2);
        let running = started(&root, &format!("(setsid {sleep} &); echo ready; {sleep}"));
        eventually("the command sleeps", || alive(&sleep));
        drop(running);
        assert!(!alive(&sleep));
    }
}

#[test]
fn a_daemon_that_forks_twice_does_not_survive() {
    for root in namespaced() {
        let sleep = unique_sleep(3);
        let script = format!("(setsid sh -c '(trap \"\" HUP TERM; exec {sleep}) &' &) ; sleep 0.2; exit 5");
        let mut spec = root.shell(&script);
        spec.env.push(("X".into(), "1".into()));
        assert_eq!(run(&spec).code(), 5);
        assert!(!alive(&sleep));
    }
}

#[test]
fn orphans_are_reaped() {
    for root in namespaced() {
        let script =
            "for i in 1 2 3 4 5; do (true &); done; sleep 0.2; grep -l '^State:.Z' /proc/[0-9]*/status";
        assert_eq!(run(&root.shell(script)).stdout, "");
    }
}

#[test]
fn the_command_survives_the_thread_that_started_it() {
    for root in namespaced() {
        let spec = root.shell("sleep 0.3; echo done");
        let mut running =
            std::thread::spawn(move || launcher().spawn(&spec, Streams::piped()).expect("started"))
                .join()
                .expect("the thread");
        let mut said = String::new();
        running.take_stdout().expect("stdout").read_to_string(&mut said).expect("output");
        assert_eq!((said.as_str(), running.wait().expect("ended").end), ("done\n", End::Code(0)));
    }
}

#[test]
fn input_goes_in_and_usage_comes_out() {
    for root in namespaced() {
        let streams = Streams { stdin: Stream::Pipe, stdout: Stream::Pipe, stderr: Stream::Null };
        let spec = root.shell("cat; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done");
        let mut running = launcher().spawn(&spec, streams).expect("started");
        running.take_stdin().expect("stdin").write_all(b"through").expect("written");
        let mut said = String::new();
        running.take_stdout().expect("stdout").read_to_string(&mut said).expect("output");
        let usage = running.wait().expect("ended").usage;
        assert_eq!(said, "through");
        assert!(usage.user > Duration::from_millis(5) && usage.user < Duration::from_secs(30), "{usage:?}");
        assert!(usage.max_rss > 100_000 && usage.max_rss < 1 << 30, "{usage:?}");
    }
}

#[test]
fn streams_can_be_files() {
    for root in namespaced() {
        let path = root.dir.path().join("log");
        let file = || Stream::To(fs_err::File::create(&path).expect("a file").into_parts().0.into());
        let streams = Streams { stdin: Stream::Null, stdout: file(), stderr: Stream::Null };
        let exit = launcher().spawn(&root.shell("cat; echo logged"), streams).expect("started").wait();
        assert!(exit.expect("ended").success());
        assert_eq!(fs_err::read_to_string(&path).expect("the log"), "logged\n");
    }
}

#[test]
fn many_sandboxes_run_side_by_side() {
    for root in namespaced() {
        let runs: Vec<_> = (0..24)
            .map(|i| {
                launcher().spawn(&root.shell(&format!("exit {i}")), Streams::default()).expect("started")
            })
            .collect();
        for (i, running) in runs.into_iter().enumerate() {
            assert_eq!(running.wait().expect("ended").end, End::Code(i32::try_from(i).expect("small")));
        }
    }
}

#[test]
fn killing_the_caller_leaves_nothing() {
    if namespaced().is_empty() {
        return;
    }
    let directory = tempfile::TempDir::with_prefix("lbx-sandbox-").expect("a directory");
    let sleep = unique_sleep(4);
    let mut caller = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "lifetime::helper_that_sleeps", "--ignored", "--nocapture"])
        .env("LBX_TEST_SLEEP", &sleep)
        // It has no chance to tidy up.
        .env("TMPDIR", directory.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("a caller");
    eventually("the command sleeps", || alive(&sleep));
    caller.kill().expect("killed");
    caller.wait().expect("reaped");
    eventually("nothing is left", || !alive(&sleep));
}

/// Not a test: the caller that `killing_the_caller_leaves_nothing` kills.
#[test]
#[ignore = "run by killing_the_caller_leaves_nothing"]
#[expect(clippy::disallowed_methods, reason = "how the test that runs this passes its argument")]
fn helper_that_sleeps() {
    let sleep = std::env::var("LBX_TEST_SLEEP").expect("LBX_TEST_SLEEP");
    let roots = namespaced();
    let runs: Vec<_> = roots
        .iter()
        .map(|r| {
            let script = format!("trap '' HUP TERM; (setsid {sleep} &); {sleep}");
            launcher().spawn(&r.shell(&script), Streams::default()).expect("started")
        })
        .collect();
    let ends: Vec<_> = runs.into_iter().map(lbx_sandbox::Running::wait).collect();
    panic!("ended before the caller was killed: {ends:?}");
}
