//! What a run may use, by attacks that use it up: each is stopped at its limit, and works without one. Control groups
//! are in `group`.

use std::io::BufRead;

use lbx_sandbox::{Access, Backend, Bind, End, Keeper, Limits, Reached, Spec, Stream, Streams};

use crate::attacks::armed;
use crate::kernel::without;
use crate::support::{Output, Rootfs, launcher, run};

/// No limit at all.
const NONE: Limits = Limits { memory: None, processes: None, open_files: None, file_size: None, tmp: None };

fn spec(root: &Rootfs, attack: &[&str], limits: Limits) -> Spec {
    let mut spec = root.shell("");
    spec.argv = [&["/bin/attack"], attack].concat().into_iter().map(str::to_owned).collect();
    spec.limits = limits;
    spec
}

pub(crate) fn attack(root: &Rootfs, attack: &[&str], limits: Limits) -> Output {
    run(&spec(root, attack, limits))
}

/// Whether its writable directories are in memory, and not on a disk.
pub(crate) fn in_memory(root: &Rootfs) -> bool {
    root.backend.mounts_memory()
}

/// The roots in which the number of processes is limited without a control group, and by which a bomb can be waited for.
fn counted() -> Vec<Rootfs> {
    let root = nix::unistd::geteuid().is_root();
    let counted = |backend: Backend| match backend {
        // The kernel exempts the machine's root from the limit of a user, and there is nothing else.
        Backend::Bwrap | Backend::Loader => !root,
        // Who traces a process that may not start another one waits for that one.
        Backend::Proot => false,
        _ => true,
    };
    armed().into_iter().filter(|root| counted(root.backend)).collect()
}

/// The attack worked.
#[track_caller]
fn works(root: &Rootfs, name: &[&str], limits: Limits) {
    let output = attack(root, name, limits);
    assert_eq!((output.exit.end, output.exit.reached), (End::Code(0), None), "{} {output:?}", root.backend);
}

/// The attack was refused, with this error.
#[track_caller]
fn refused(root: &Rootfs, name: &[&str], limits: Limits, error: &str) -> Output {
    let output = attack(root, name, limits);
    assert_eq!((output.code(), output.stdout.trim()), (1, error), "{} {output:?}", root.backend);
    output
}

#[test]
fn a_fork_bomb_ends_at_the_limit_and_the_host_can_go_on() {
    for root in counted() {
        let limits = Limits { processes: Some(50), ..NONE };
        let output = refused(&root, &["fork_bomb", "1000"], limits, "EAGAIN");
        let processes: u64 = output.stderr.trim().parse().expect("a number");
        // Where the kernel exempts the machine's root from the limit of a user, ids are what runs out, and the kernel
        // keeps 300 of them.
        let exempt = nix::unistd::geteuid().is_root() && root.backend == Backend::Namespaces;
        let most = if exempt { 352 } else { 50 };
        // Those that were about to fail have been counted too, and each process has at most one of these.
        assert!((40..=2 * most).contains(&processes), "{} {processes}", root.backend);
        assert!(std::process::Command::new("true").status().expect("a process").success());
        works(&root, &["fork_bomb", "1000"], Limits { processes: Some(3000), ..NONE });
    }
}

/// Docker's filter lets nobody use `clone3`.
#[test]
fn processes_are_counted_where_a_newer_call_is_missing() {
    for root in counted() {
        let limits = Limits { processes: Some(50), ..NONE };
        let spec = spec(&root, &["fork_bomb", "1000"], limits);
        let output = without(&[(libc::SYS_clone3, libc::ENOSYS)], move || run(&spec));
        assert_eq!((output.code(), &*output.stdout), (1, "EAGAIN\n"), "{} {output:?}", root.backend);
    }
}

#[test]
fn processes_of_other_runs_do_not_count() {
    for root in armed() {
        let limits = Limits { processes: Some(50), ..NONE };
        let mut first = root.shell("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; echo ready; wait");
        first.limits = limits;
        let running: Vec<_> = (0..8)
            .map(|_| {
                let streams = Streams { stdout: Stream::Pipe, ..Streams::default() };
                let mut running = launcher().spawn(&first, streams).expect("started");
                let mut line = String::new();
                let mut stdout = std::io::BufReader::new(running.take_stdout().expect("stdout"));
                stdout.read_line(&mut line).expect("a line");
                assert_eq!(line, "ready\n", "{}", root.backend);
                (running, stdout)
            })
            .collect();
        // Ten times eight are more than fifty, and none of them is this one's.
        let mut second = root.shell("sleep 0.1 & sleep 0.1 & wait; echo done");
        second.limits = limits;
        assert_eq!(run(&second).stdout, "done\n", "{}", root.backend);
        drop(running);
    }
}

#[test]
fn a_process_that_wants_too_much_memory_gets_none() {
    for root in armed() {
        let limits = Limits { memory: Some(64 << 20), ..NONE };
        match Keeper::of_this_process() {
            Keeper::Process => drop(refused(&root, &["memory_hog"], limits, "ENOMEM")),
            Keeper::Group => {
                let reached = attack(&root, &["memory_hog"], limits).exit.reached;
                assert_eq!(reached, Some(Reached::Memory(64 << 20)));
            }
        }
        works(&root, &["memory_hog"], Limits { memory: Some(512 << 20), ..NONE });
    }
}

/// Runtimes of some languages reserve terabytes.
#[test]
fn addresses_that_are_only_reserved_are_no_memory() {
    for root in armed() {
        works(&root, &["reserve_addresses"], Limits { memory: Some(64 << 20), ..NONE });
    }
}

#[test]
fn a_file_ends_at_the_limit_whatever_it_is_on() {
    for root in armed() {
        let out = tempfile::tempdir().expect("a directory");
        let limits = Limits { file_size: Some(1 << 20), ..NONE };
        for folder in ["/tmp", "/out"] {
            let mut spec = spec(&root, &["fill_disk", folder], limits);
            spec.binds.push(Bind {
                source: out.path().into(),
                target: "/out".into(),
                access: Access::ReadWrite,
            });
            let exit = run(&spec).exit;
            assert_eq!(exit.end, End::Signal(libc::SIGXFSZ), "{} {folder}", root.backend);
            assert_eq!(exit.reached, Some(Reached::FileSize(1 << 20)));
        }
        let size = fs_err::metadata(out.path().join("full")).expect("the file").len();
        assert_eq!(size, 1 << 20);
        works(&root, &["fill_disk", "/tmp"], Limits { file_size: Some(64 << 20), ..NONE });
    }
}

#[test]
fn no_process_opens_more_files_than_it_may() {
    for root in armed() {
        refused(&root, &["open_files"], Limits { open_files: Some(64), ..NONE }, "EMFILE");
        works(&root, &["open_files"], Limits { open_files: Some(1000), ..NONE });
    }
}

#[test]
fn every_directory_in_memory_is_full_at_the_limit() {
    for root in armed() {
        let limits = Limits { tmp: Some(4 << 20), ..NONE };
        for folder in ["/tmp", "/var/tmp", "/home/lbx", "/run", "/dev/shm"] {
            if in_memory(&root) {
                refused(&root, &["fill_disk", folder], limits, "ENOSPC");
            }
            // Where paths are those of the host, shared memory is the host's, and denied.
            if (root.backend, folder) != (Backend::Loader, "/dev/shm") {
                works(&root, &["fill_disk", folder], Limits { tmp: Some(64 << 20), ..NONE });
            }
        }
    }
}

#[test]
fn a_directory_with_a_size_of_its_own_keeps_it() {
    for root in armed().iter().filter(|root| in_memory(root)) {
        let mut spec = spec(root, &["fill_disk", "/tmp"], Limits { tmp: Some(1 << 20), ..NONE });
        spec.tmpfs[0].size = Some(64 << 20);
        assert_eq!(run(&spec).code(), 0);
    }
}

#[test]
fn what_a_host_allows_at_most_is_what_holds() {
    for root in armed() {
        let limits = Limits { open_files: Some(u64::MAX), file_size: Some(u64::MAX), ..NONE };
        let mut spec = root.shell("ulimit -n; ulimit -Hn");
        spec.limits = limits;
        let hard = limits.within_the_host().open_files.expect("a limit");
        assert_eq!(run(&spec).stdout, format!("{hard}\n{hard}\n"), "{}", root.backend);
    }
}
