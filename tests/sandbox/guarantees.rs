//! What the command is and is not allowed to do.

use std::os::fd::AsRawFd;

use lbx_sandbox::{Access, Backend, Bind, Network};

use crate::support::{fails, namespaced, output, run};

#[test]
fn a_command_runs_as_the_inside_user() {
    for root in namespaced() {
        assert_eq!(output(&root, "id -u; id -g; id -un"), "1000\n1000\nlbx\n");
        let mut spec = root.shell("id -u; id -g");
        (spec.uid, spec.gid) = (0, 7);
        assert_eq!(run(&spec).stdout, "0\n7\n");
    }
}

#[test]
fn all_capability_sets_are_empty() {
    for root in namespaced() {
        for uid in [1000, 0] {
            let mut spec = root.shell("cat /proc/self/status");
            spec.uid = uid;
            let status = run(&spec).stdout;
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{set} as {uid}: {status}");
            }
        }
    }
}

#[test]
fn no_new_privileges_is_set() {
    for root in namespaced() {
        assert!(output(&root, "cat /proc/self/status").contains("NoNewPrivs:\t1\n"));
    }
}

#[test]
fn setgroups_is_denied_for_good() {
    for root in namespaced() {
        // Where no user namespace has the file, the command has no group to drop and no capability to drop it with.
        let own = root.backend != Backend::RootNamespaces;
        assert_eq!(output(&root, "cat /proc/self/setgroups"), if own { "deny\n" } else { "allow\n" });
        assert_eq!(output(&root, "grep Groups: /proc/self/status").trim_end(), "Groups:");
        fails(&root, "echo allow > /proc/self/setgroups");
    }
}

#[test]
fn pid_1_cannot_be_looked_into() {
    for root in namespaced() {
        for file in ["environ", "maps", "mem"] {
            fails(&root, &format!("cat /proc/1/{file}"));
        }
        for link in ["exe", "root", "cwd"] {
            fails(&root, &format!("ls -d /proc/1/{link}/. || cat /proc/1/{link}"));
        }
        // The negative control: the same paths of an own process are open.
        output(&root, "cat /proc/self/environ /proc/self/exe > /dev/null");
    }
}

#[test]
fn no_descriptor_is_inherited() {
    // One that the caller forgot to mark: descriptors of a C library are like that.
    let leak = fs_err::File::open("/etc/hostname").expect("a file");
    let raw = nix::fcntl::fcntl(&leak, nix::fcntl::FcntlArg::F_DUPFD(77)).expect("a descriptor");
    assert!(raw > leak.as_raw_fd());
    for root in namespaced() {
        // The shell's own listing of the directory is the fourth.
        let listed = output(&root, "cd /proc/self/fd && echo *");
        assert!(["0 1 2\n", "0 1 2 3\n"].contains(&listed.as_str()), "{listed}");
        let listed = output(&root, "ls -l /proc/self/fd");
        assert!(!listed.contains("hostname") && !listed.contains("socket:"), "{listed}");
    }
    nix::unistd::close(raw).expect("closed");
}

#[test]
fn the_environment_is_exactly_what_was_passed() {
    for root in namespaced() {
        let mut spec = root.shell("");
        spec.argv = vec!["/bin/env".into()];
        spec.env = vec![("B".into(), "2 ü".into()), ("A".into(), "x=y".into())];
        assert_eq!(run(&spec).stdout, "B=2 ü\nA=x=y\n");
        spec.env.clear();
        assert_eq!(run(&spec).stdout, "");
    }
}

#[test]
fn the_root_cannot_be_written() {
    for root in namespaced() {
        for path in ["/x", "/etc/x", "/etc/passwd", "/bin/x", "/usr/lib/x", "/dev/x", "/sys/x", "/home/x"] {
            let said = fails(&root, &format!("echo x > {path}"));
            assert!(said.contains("Read-only file system"), "{path}: {said}");
        }
        fails(&root, "rm /bin/busybox || mv /etc/image /tmp/");
        assert!(!root.base().join("etc/x").exists());
    }
}

#[test]
fn kernel_settings_cannot_be_written() {
    for root in namespaced() {
        for path in ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/self/comm"] {
            let said = fails(&root, &format!("echo x > {path}"));
            assert!(said.contains("Read-only file system"), "{path}: {said}");
        }
    }
}

#[test]
fn writable_directories_are_writable_and_run_programs() {
    for root in namespaced() {
        for path in ["/tmp", "/var/tmp", "/run", "/home/lbx", "/dev/shm"] {
            let script = format!("cd {path} && cp /bin/busybox true && ./true && echo fine");
            assert_eq!(output(&root, &script), "fine\n", "{path}");
        }
        assert_eq!(
            output(&root, "stat -c '%a %u' /tmp /var/tmp /home/lbx"),
            "1777 1000\n1777 1000\n700 1000\n"
        );
    }
}

#[test]
fn mounting_and_nested_namespaces_are_worthless() {
    for root in namespaced() {
        fails(&root, "mount -t tmpfs x /tmp");
        fails(&root, "umount /proc");
        fails(&root, "mount -o remount,rw /");
        fails(&root, "chroot /tmp /bin/true");
        fails(&root, "mknod /tmp/null c 1 3");
    }
}

#[test]
fn host_processes_are_invisible() {
    for root in namespaced() {
        let pids = output(&root, "cd /proc && echo [0-9]*");
        assert!(pids.split_whitespace().all(|p| p.parse::<u32>().expect("a pid") < 10), "{pids}");
        let me = std::process::id();
        fails(&root, &format!("kill -0 {me}"));
    }
}

#[test]
fn host_files_are_invisible() {
    for root in namespaced() {
        let names = output(&root, "cd / && echo * && cat /proc/self/mountinfo");
        let (names, mounts) = names.split_once('\n').expect("two parts");
        // Where another program makes the sandbox, this one comes along.
        let names = if root.backend == Backend::Bwrap { names.replace(" lbx", "") } else { names.to_owned() };
        assert_eq!(names, "bin dev etc home proc run sys tmp usr var");
        let work = root.dir.path().to_str().expect("UTF-8");
        fails(&root, &format!("ls -d {work}"));
        assert!(!mounts.contains("/run/user"), "{mounts}");
        assert!(mounts.lines().all(|m| m.split(' ').nth(4) != Some("/mnt")), "{mounts}");
    }
}

#[test]
fn the_parent_of_the_root_is_the_root() {
    for root in namespaced() {
        let script = "cd / && cd ../../../.. && pwd && ls -di / /.. /../../.. | sort -u";
        let inodes = output(&root, script);
        assert!(inodes.starts_with("/\n"), "{inodes}");
        let numbers: std::collections::BTreeSet<_> =
            inodes.lines().skip(1).filter_map(|l| l.split_whitespace().next()).collect();
        assert_eq!(numbers.len(), 1, "{inodes}");
        // The working directory of the run was entered inside, too.
        assert_eq!(output(&root, "cat /proc/self/cwd/etc/image"), "from the image\n");
    }
}

#[test]
fn the_session_has_no_terminal() {
    for root in namespaced() {
        let stat = output(&root, "cat /proc/self/stat");
        let fields: Vec<_> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        // State, parent, group, session, terminal; the shell executes cat as itself, so all are one.
        assert_eq!(fields[4], "0", "{stat}");
        assert_eq!(fields[2], fields[3], "{stat}");
        // Zero is how a session of the host looks from here.
        assert_ne!(fields[3], "0", "{stat}");
        fails(&root, "cat < /dev/tty");
    }
}

#[test]
fn signals_umask_and_core_limit_are_fresh() {
    for root in namespaced() {
        assert_eq!(output(&root, "umask; ulimit -c"), "0022\n0\n");
        // Not through a shell, which has its own mind about some signals.
        let mut spec = root.shell("");
        spec.argv = vec!["/bin/cat".into(), "/proc/self/status".into()];
        let status = run(&spec).stdout;
        for mask in ["SigBlk", "SigIgn"] {
            assert!(status.contains(&format!("{mask}:\t0000000000000000\n")), "{mask}: {status}");
        }
    }
}

#[test]
fn network_none_has_loopback_and_no_route() {
    for root in namespaced() {
        let devices = output(&root, "cat /proc/net/dev /proc/net/route; ip link show lo");
        assert!(!devices.contains("eth") && !devices.contains("00000000"), "{devices}");
        assert!(devices.contains("LOOPBACK,UP"), "{devices}");
        assert!(fails(&root, "nc -w 2 1.1.1.1 80 < /dev/null").contains("ermission denied"));
    }
}

#[test]
fn network_host_is_the_network_of_the_host() {
    let here = fs_err::read_link("/proc/self/ns/net").expect("a link");
    for root in namespaced() {
        let mut spec = root.shell("readlink /proc/self/ns/net; cat /etc/resolv.conf");
        spec.network = Network::Host;
        let said = run(&spec).stdout;
        let (namespace, resolver) = said.split_once('\n').expect("two parts");
        assert_eq!(namespace, here.to_str().expect("UTF-8"));
        assert_eq!(resolver, fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default());
        assert_ne!(output(&root, "readlink /proc/self/ns/net").trim(), here.to_str().expect("UTF-8"));
    }
}

#[test]
fn abstract_sockets_of_the_host_are_out_of_reach() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("lbx-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("an address");
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).expect("a listener");
    for root in namespaced() {
        assert!(!output(&root, "cat /proc/net/unix").contains(&name));
    }
}

#[test]
fn a_read_only_bind_cannot_be_written_and_a_writable_one_can() {
    for root in namespaced() {
        let shared = root.layer(9);
        fs_err::write(shared.join("input"), "in").expect("a file");
        for (access, works) in [(Access::ReadOnly, false), (Access::ReadWrite, true)] {
            let mut spec = root.shell("cat /lbx/in/input; echo out > /lbx/in/output");
            spec.binds.push(Bind { source: shared.clone(), target: "/lbx/in".into(), access });
            let output = run(&spec);
            assert_eq!(output.stdout, "in");
            assert_eq!((output.exit.success(), shared.join("output").exists()), (works, works));
        }
        // Written by the caller's own id, so that the caller can delete it.
        fs_err::remove_file(shared.join("output")).expect("deletable");
    }
}

#[test]
fn binds_have_no_setuid_bits_and_no_devices() {
    for root in namespaced() {
        let mut spec = root.shell("grep ' /lbx/in ' /proc/self/mountinfo; grep ' / ro' /proc/self/mountinfo");
        spec.binds.push(Bind { source: root.layer(9), target: "/lbx/in".into(), access: Access::ReadWrite });
        let mounts = run(&spec).stdout;
        let lines: Vec<_> = mounts.lines().collect();
        assert!(lines.len() == 2, "{mounts}");
        assert!(lines.iter().all(|m| m.contains("nosuid,nodev")), "{mounts}");
        assert!(lines[1].contains(" ro,"), "{mounts}");
    }
}
