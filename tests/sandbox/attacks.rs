//! What a hostile build tries (`attacks.c`), and that each of it is refused, in the way it should be: by the filter
//! before anything else can say no, or because there is nothing to reach.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lbx_sandbox::{Access, Backend, Bind, End, Error, Network};

use crate::support::{Output, Rootfs, everywhere, run, skip};

/// Names the folder with the attacks where they have been compiled before.
pub(crate) const ATTACKS_VARIABLE: &str = "LBX_TEST_ATTACKS";

/// The folder with the attacks, compiled once, with no library that a root would have to hold.
#[expect(clippy::disallowed_methods, reason = "set by a test that starts this program again")]
pub(crate) fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let given = || std::env::var_os(ATTACKS_VARIABLE).map(PathBuf::from);
    PROGRAM.get_or_init(|| given().or_else(compile)).as_deref()
}

fn compile() -> Option<PathBuf> {
    let directory = tempfile::TempDir::with_prefix("lbx-attacks-").expect("a directory");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/sandbox/attacks.c");
    let compiled = Command::new("cc")
        .args(["-static", "-O1", "-Wno-unused-result", "-o"])
        .arg(directory.path().join("attack"))
        .arg(source)
        .output();
    match compiled {
        // For all tests of this process.
        Ok(compiled) if compiled.status.success() => Some(directory.keep()),
        other => {
            skip(&format!("cc cannot make a static program: {other:?}"));
            None
        }
    }
}

/// The roots of this host, each with the attacks in it.
pub(crate) fn armed() -> Vec<Rootfs> {
    let Some(program) = program() else { return Vec::new() };
    let roots = everywhere();
    for root in &roots {
        fs_err::copy(program.join("attack"), root.base().join("bin/attack")).expect("the attacks");
    }
    roots
}

fn attack(root: &Rootfs, name: &str, network: Network) -> Output {
    attack_on(root, &[name], network)
}

/// The same with what the attack is told.
pub(crate) fn attack_on(root: &Rootfs, words: &[&str], network: Network) -> Output {
    let mut spec = root.shell("");
    spec.argv = std::iter::once(&"/bin/attack").chain(words).map(|word| (*word).to_owned()).collect();
    spec.network = network;
    run(&spec)
}

/// Whether an attack works on this host, outside of every sandbox.
pub(crate) fn works_outside(words: &[&str]) -> bool {
    let Some(program) = program() else { return true };
    let output = Command::new(program.join("attack")).args(words).output().expect("the attacks run");
    output.status.code() == Some(0)
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
    ("write_program_of_process_1", NO_ACCESS),
    ("root_of_process_1", NO_ACCESS),
];

/// EACCES, and ENOENT where there is no /proc.
const NO_ACCESS: &str = "";

#[test]
fn every_attack_is_refused() {
    for root in armed() {
        for (name, error) in REFUSED {
            let error = match (*error, root.backend) {
                (NO_ACCESS, Backend::Chroot) => "ENOENT",
                (NO_ACCESS, _) => "EACCES",
                (error, _) => error,
            };
            for network in [Network::None, Network::Host] {
                let output = attack(&root, name, network);
                let mut found = (output.code(), output.stdout.trim());
                // proot answers for the kernel there: it knows of no process but its own, and looks where links lead.
                if root.backend == Backend::Proot {
                    found.1 = match (found.1, error) {
                        ("ESRCH", "EPERM") if name.starts_with("trace_") => "EPERM",
                        ("EPERM", "EACCES") => "EACCES",
                        _ => found.1,
                    };
                }
                assert_eq!(found, (1, error), "{name}, {} {:?}", root.backend, root.kind);
            }
        }
    }
}

/// Root's user id gives nothing, and neither does a change of ids, and none of that can be undone. Where bubblewrap made
/// the sandbox, or nobody has privileges, there is nothing to lock.
#[test]
fn securebits_are_locked() {
    for root in armed() {
        let output = attack(&root, "clear_securebits", Network::None);
        assert_eq!((output.code(), output.stdout.as_str()), (1, "EPERM\n"), "{}", root.backend);
        if matches!(root.backend, Backend::Namespaces | Backend::RootNamespaces | Backend::Chroot) {
            // Set and locked: NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE; locked: KEEP_CAPS.
            let said = attack(&root, "show_securebits", Network::None).stdout;
            assert_eq!(said, format!("{}\n", 0b1110_1111), "{}", root.backend);
        }
    }
}

#[test]
fn a_program_that_runs_cannot_be_written() {
    for root in armed() {
        let output = attack(&root, "write_own_program", Network::None);
        // It runs, and its file system is read-only: either may be looked at first.
        let refusals = ["ETXTBSY\n", "EROFS\n", "EACCES\n", "ENOENT\n"];
        assert!(output.code() == 1 && refusals.contains(&&*output.stdout), "{output:?}");
    }
}

#[test]
fn no_program_that_watches_over_the_command_can_be_written() {
    for root in armed() {
        let output = attack(&root, "write_programs_that_watch", Network::None);
        assert_eq!(output.code(), 1, "{} {output:?}", root.backend);
        // Where this program is inside, it was tried.
        let inside: u32 = output.stdout.trim().parse().expect("how many of its files are inside");
        assert_eq!(
            inside > 0,
            matches!(root.backend, Backend::Bwrap | Backend::Proot),
            "{} {output:?}",
            root.backend
        );
    }
}

/// An image whose program is whatever executes it: with a loader of the image's own, code of the image would run as
/// the program that makes sandboxes, and could wait for a chance to write it.
#[test]
fn a_link_of_the_image_does_not_execute_the_program_that_makes_the_sandbox() {
    for root in armed() {
        std::os::unix::fs::symlink("/proc/self/exe", root.base().join("bin/self")).expect("a link");
        let mut spec = root.shell("");
        // If it did, this program would do no more than this.
        spec.argv = vec!["/bin/self".to_owned(), "--list".to_owned()];
        match crate::support::try_run(&spec) {
            Ok(output) => assert!(!output.exit.success(), "{} {output:?}", root.backend),
            Err(error) => {
                let refused = matches!(error, Error::Exec { .. } | Error::ProgramNotFound { .. });
                assert!(refused, "{} {error:?}", root.backend);
            }
        }
    }
}

#[test]
fn process_1_cannot_be_killed() {
    for root in armed() {
        let output = attack(&root, "kill_process_1", Network::None);
        // It is out of reach; and where it is not, it ignores what its own namespace sends.
        let refused = ["EPERM\n", "ignored\n"].contains(&&*output.stdout);
        assert!(output.code() == 1 && refused, "{} {output:?}", root.backend);
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
        for network in [Network::None, Network::Host] {
            assert_eq!(attack(&root, "route_socket", network).code(), 0, "{network:?}");
            // Sockets have paths, which a Landlock domain leaves open: where those are the host's, there are none.
            let output = attack(&root, "unix_socket", network);
            let expected = if root.backend.changes_root() { (0, "") } else { (1, "EACCES\n") };
            assert_eq!((output.code(), output.stdout.as_str()), expected, "{} {network:?}", root.backend);
            assert_eq!(attack(&root, "unix_pair", network).code(), 0, "{network:?}");
        }
    }
}

/// The files of an image belong to root there, and some are for root alone; in namespaces they appear as the command's.
#[test]
fn files_for_the_owner_alone_can_be_read_like_in_namespaces() {
    use std::os::unix::fs::PermissionsExt;
    for root in armed().iter().filter(|root| root.backend != Backend::Loader) {
        let secret = root.base().join("etc/owner");
        fs_err::write(&secret, "of the image\n").expect("a file");
        fs_err::set_permissions(&secret, PermissionsExt::from_mode(0o600)).expect("mode");
        let output = run(&root.shell("cat /etc/owner"));
        assert_eq!(output.stdout, "of the image\n", "{}", root.backend);
        let mode = fs_err::metadata(&secret).expect("the image's").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "and stays as it was");
    }
}

/// What every build does, and a domain that is too narrow forbids.
#[test]
fn files_can_be_moved_and_linked_wherever_they_can_be_written() {
    for root in armed().iter().filter(|root| root.backend != Backend::Loader) {
        let script = "cd /tmp && mkdir -p a b && echo x > a/x && busybox mv a/x b/x && busybox ln b/x a/y &&
            busybox truncate -s 0 b/x && busybox mkdir -p /dev/shm/c && cat a/y";
        let output = run(&root.shell(script));
        assert!(output.exit.success(), "{} {output:?}", root.backend);
    }
}

#[test]
fn abstract_sockets_of_the_host_cannot_be_reached() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("lbx-attack-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("an address");
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).expect("a listener");
    assert!(works_outside(&["abstract_socket", &name]), "outside it can");
    for root in armed() {
        for network in [Network::None, Network::Host] {
            let output = attack_on(&root, &["abstract_socket", &name], network);
            assert_eq!(output.code(), 1, "{} {network:?}: {output:?}", root.backend);
        }
    }
}

/// Hands a directory of the host to whoever connects.
fn accomplice(name: &str) -> (tempfile::TempDir, std::os::unix::net::UnixListener) {
    use std::os::linux::net::SocketAddrExt;
    let directory = tempfile::TempDir::with_prefix("lbx-attacks-").expect("a directory");
    fs_err::write(directory.path().join("secret"), "of the host").expect("a file");
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).expect("an address");
    let listener = std::os::unix::net::UnixListener::bind_addr(&address).expect("a listener");
    let (accepting, path) = (listener.try_clone().expect("a copy"), directory.path().to_owned());
    std::thread::spawn(move || {
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        use std::os::fd::AsRawFd;
        let folder = fs_err::File::open(path).expect("our own");
        for connection in accepting.incoming().flatten() {
            let handed = [folder.as_raw_fd()];
            let control = [ControlMessage::ScmRights(&handed)];
            let bytes = [std::io::IoSlice::new(b"x")];
            // Whoever goes away before it is handed anything gets nothing.
            let _ = sendmsg::<()>(connection.as_raw_fd(), &bytes, &control, MsgFlags::empty(), None);
        }
    });
    (directory, listener)
}

#[test]
fn no_descriptor_can_be_smuggled_in_through_an_abstract_socket() {
    let name = format!("lbx-smuggler-{}", std::process::id());
    let _accomplice = accomplice(&name);
    assert!(works_outside(&["smuggle_in", &name]), "outside it works");
    for root in armed() {
        for network in [Network::None, Network::Host] {
            let output = attack_on(&root, &["smuggle_in", &name], network);
            assert_eq!(output.code(), 1, "{} {network:?}: {output:?}", root.backend);
        }
    }
}

#[test]
fn a_process_of_the_same_user_cannot_be_signalled() {
    for root in armed() {
        let mut spec = root.shell("");
        let mut victim = Command::new("sleep");
        victim.arg("100");
        if nix::unistd::geteuid().is_root() {
            std::os::unix::process::CommandExt::uid(&mut victim, spec.uid);
        }
        let mut victim = victim.spawn().expect("sleep runs");
        spec.argv = vec!["/bin/attack".to_owned(), "signal_process".to_owned(), victim.id().to_string()];
        let output = run(&spec);
        let alive = victim.try_wait().expect("a child").is_none();
        victim.kill().expect("killed");
        victim.wait().expect("reaped");
        assert_eq!((output.code(), alive), (1, true), "{} {output:?}", root.backend);
    }
}

#[test]
fn nothing_that_was_left_runs_on() {
    for root in armed() {
        let output = attack(&root, "leave_processes", Network::None);
        assert_eq!(output.code(), 0);
        let program = root.base().join("bin/attack");
        let inode = |path: &Path| {
            use std::os::unix::fs::MetadataExt;
            fs_err::metadata(path).ok().map(|found| (found.dev(), found.ino()))
        };
        let processes = fs_err::read_dir("/proc").expect("/proc").flatten();
        let left = processes
            .filter(|entry| inode(&entry.path().join("exe")).is_some_and(|exe| Some(exe) == inode(&program)));
        assert_eq!(left.count(), 0, "{}", root.backend);
    }
}

#[test]
fn what_is_collected_is_the_callers_and_leads_nowhere() {
    use std::os::unix::fs::MetadataExt;
    for root in armed() {
        let out = root.dir.path().join("out");
        fs_err::create_dir(&out).expect("a folder");
        let mut spec = root.shell("");
        spec.argv = ["/bin/attack", "leave_traps", "/out"].map(str::to_owned).into();
        spec.binds.push(Bind { source: out.clone(), target: "/out".into(), access: Access::ReadWrite });
        assert_eq!(run(&spec).code(), 0);
        assert_eq!(fs_err::read_to_string(out.join("file")).expect("the output"), "made\n");
        let own = nix::unistd::geteuid().as_raw();
        for name in ["file", "link", "folder", "folder/closed"] {
            let found = fs_err::symlink_metadata(out.join(name)).expect(name);
            assert_eq!(found.uid(), own, "{name}");
            assert_eq!(found.mode() & 0o6000, 0, "{name}");
        }
        assert!(fs_err::symlink_metadata(out.join("link")).expect("a link").is_symlink());
        if root.backend == Backend::Chroot {
            // The last one is another name of the image's own file, where the kernel lets anybody make one.
            for name in ["fifo", "socket", "folder/fifo", "hard"] {
                assert!(fs_err::symlink_metadata(out.join(name)).is_err(), "{name}");
            }
            let program = fs_err::metadata(root.base().join("bin/busybox")).expect("the image's");
            assert_eq!(program.uid(), own, "the image's files stay the caller's");
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
    for name in ["trace_own_child", "setuid_file", "internet_socket", "unix_socket", "user_namespace"] {
        assert!(works_outside(&[name]), "{name}");
    }
    let output = Command::new(program.join("attack")).arg("nothing").output().expect("the attacks run");
    assert_eq!(output.status.code(), Some(2), "an attack that does not exist is not one that was refused");
}
