//! What a hostile build tries (`attacks.c`), and that each of it is refused, in the way it should be: by the filter
//! before anything else can say no, or because there is nothing to reach.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use lbx_sandbox::{End, Network};

use crate::support::{Output, Rootfs, roots, run, skip};

/// The attacks, compiled once, with no library that a root would have to hold.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();
    let directory = PROGRAM.get_or_init(|| {
        let directory = tempfile::TempDir::with_prefix("lbx-attacks-").expect("a directory");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/sandbox/attacks.c");
        let compiled = Command::new("cc")
            .args(["-static", "-O1", "-Wno-unused-result", "-o"])
            .arg(directory.path().join("attack"))
            .arg(source)
            .output();
        match compiled {
            Ok(compiled) if compiled.status.success() => Some(directory),
            other => {
                skip(&format!("cc cannot make a static program: {other:?}"));
                None
            }
        }
    });
    directory.as_ref().map(tempfile::TempDir::path)
}

/// The roots of this host, each with the attacks in it.
fn armed() -> Vec<Rootfs> {
    let Some(program) = program() else { return Vec::new() };
    let roots = roots();
    for root in &roots {
        fs_err::copy(program.join("attack"), root.base().join("bin/attack")).expect("the attacks");
    }
    roots
}

fn attack(root: &Rootfs, name: &str, network: Network) -> Output {
    let mut spec = root.shell("");
    spec.argv = vec!["/bin/attack".to_owned(), name.to_owned()];
    spec.network = network;
    run(&spec)
}

/// Every attack that must be refused, with the error that says who refused it.
const REFUSED: &[(&str, &str)] = &[
    // The filter: EPERM where one more attempt is made of it, ENOSYS where libraries fall back.
    ("user_namespace", "EPERM"),
    ("user_namespace_by_clone", "EPERM"),
    ("user_namespace_by_clone3", "ENOSYS"),
    ("chroot_escape", "EPERM"),
    ("mount_tmpfs", "EPERM"),
    ("unmount_tmp", "EPERM"),
    ("open_a_file_system", "EPERM"),
    ("open_a_tree", "EPERM"),
    ("enter_a_namespace", "EPERM"),
    ("trace_process_1", "EPERM"),
    ("trace_own_child", "EPERM"),
    ("read_memory_of_process_1", "EPERM"),
    ("type_on_the_terminal", "EPERM"),
    ("type_with_high_bits", "EPERM"),
    ("paste_on_the_console", "EPERM"),
    ("setuid_file", "EPERM"),
    ("setgid_by_name", "EPERM"),
    ("device_node", "EPERM"),
    ("add_a_key", "EPERM"),
    ("crypto_socket", "EACCES"),
    ("vm_socket", "EACCES"),
    ("packet_socket", "EACCES"),
    ("audit_socket", "EACCES"),
    ("io_uring", "ENOSYS"),
    ("fault_handler", "EPERM"),
    ("performance_events", "EPERM"),
    ("bpf_map", "EPERM"),
    ("call_of_the_future", "ENOSYS"),
    // The kernel: process 1 has capabilities that the command lacks.
    ("write_program_of_process_1", "EACCES"),
    ("root_of_process_1", "EACCES"),
];

#[test]
fn every_attack_is_refused() {
    for root in armed() {
        for (name, error) in REFUSED {
            for network in [Network::None, Network::Host] {
                let output = attack(&root, name, network);
                assert_eq!((output.code(), output.stdout.trim()), (1, *error), "{name}, {:?}", root.kind);
            }
        }
    }
}

#[test]
fn a_program_that_runs_cannot_be_written() {
    for root in armed() {
        let output = attack(&root, "write_own_program", Network::None);
        // It runs, and its file system is read-only: either may be looked at first.
        assert!(output.code() == 1 && ["ETXTBSY\n", "EROFS\n"].contains(&&*output.stdout), "{output:?}");
    }
}

#[test]
fn process_1_cannot_be_killed() {
    for root in armed() {
        let output = attack(&root, "kill_process_1", Network::None);
        assert_eq!((output.code(), output.stdout.as_str()), (1, "ignored\n"));
    }
}

#[test]
fn the_internet_is_there_only_with_the_hosts_network() {
    for root in armed() {
        for name in ["internet_socket", "internet6_socket", "socket_with_high_bits"] {
            let output = attack(&root, name, Network::None);
            assert_eq!((output.code(), output.stdout.as_str()), (1, "EACCES\n"), "{name}");
            assert_eq!(attack(&root, name, Network::Host).code(), 0, "{name}");
        }
        for name in ["unix_socket", "route_socket"] {
            for network in [Network::None, Network::Host] {
                assert_eq!(attack(&root, name, network).code(), 0, "{name}");
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_through_another_table_kill() {
    for root in armed() {
        for name in ["x32_call", "call_of_32_bits"] {
            let output = attack(&root, name, Network::None);
            assert_eq!(output.exit.end, End::Signal(nix::libc::SIGSYS), "{name}");
        }
    }
}

/// Without the sandbox many of these work here, so the refusals above are the sandbox's.
#[test]
fn outside_the_attacks_work() {
    let Some(program) = program() else { return };
    let works = |name: &str| {
        let output = Command::new(program.join("attack")).arg(name).output().expect("the attacks run");
        output.status.code() == Some(0)
    };
    for name in ["trace_own_child", "setuid_file", "internet_socket", "unix_socket", "user_namespace"] {
        assert!(works(name), "{name}");
    }
    let output = Command::new(program.join("attack")).arg("nothing").output().expect("the attacks run");
    assert_eq!(output.status.code(), Some(2), "an attack that does not exist is not one that was refused");
}
