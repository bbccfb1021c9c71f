//! Tries one thing of the sandbox in this process, which is thrown away afterwards. Draws no conclusions.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::wait::{WaitStatus, waitpid};

use super::calls::{Internet, Reach};
use super::{calls, domain, emulator, mounts, namespaces};
use crate::error::{Failure, OrFail, Stage};
use crate::syscalls;
use crate::wire::{self, Probe, Report, Setting};

/// A Landlock access that nothing here needs, and that every kernel with Landlock knows.
const MAKE_BLOCK_DEVICES: u64 = 1 << 11;
/// How many Landlock domains a process can be in: now, and before Linux 5.19.
const MOST_DOMAINS: std::ops::RangeInclusive<usize> = 16..=64;

const USER_AND_MOUNTS: CloneFlags = CloneFlags::CLONE_NEWUSER.union(CloneFlags::CLONE_NEWNS);

/// Tries it and reports.
pub(super) fn run(socket: &OwnedFd, probe: &Probe) -> i32 {
    let failure = attempt(probe).err();
    // Nobody asks for the setting of what went well.
    let setting = failure.as_ref().map(|_| setting()).unwrap_or_default();
    let report = Report::Probed { failure, setting };
    i32::from(wire::send(socket.as_fd(), &report, &[]).is_err())
}

fn attempt(probe: &Probe) -> Result<(), Failure> {
    match probe {
        Probe::UserNamespace => unshare(CloneFlags::CLONE_NEWUSER)
            .or_fail(Stage::Namespaces, || "unshare(CLONE_NEWUSER)".to_owned()),
        Probe::IdMap => enter(CloneFlags::CLONE_NEWUSER),
        Probe::Mount => {
            enter(USER_AND_MOUNTS)?;
            mounts::make_private()?;
            fresh("tmpfs", "/proc", None)
        }
        Probe::Proc => {
            enter(USER_AND_MOUNTS | CloneFlags::CLONE_NEWPID)?;
            mounts::make_private()?;
            let call = "mount(\"proc\", \"/proc\", \"proc\")";
            in_child(Stage::Proc, call, || fresh("proc", "/proc", None).map_err(|failure| failure.errno))
        }
        Probe::OtherNamespaces => {
            let others = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
            enter(CloneFlags::CLONE_NEWUSER | others)
        }
        Probe::Network => {
            enter(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
            syscalls::loopback_up().or_fail(Stage::Network, || "ioctl(SIOCSIFFLAGS, \"lo\")".to_owned())
        }
        Probe::Filter => {
            no_new_privileges()?;
            let call = || "seccomp(SECCOMP_SET_MODE_FILTER)".to_owned();
            let reach = Reach {
                internet: Internet::None,
                traces: false,
                own_root: false,
                administers: false,
                pretends: false,
            };
            calls::filter(reach).install().or_fail(Stage::Privileges, call)
        }
        Probe::Landlock => landlock(),
        Probe::Tracing => in_child(Stage::Prepare, "ptrace(PTRACE_TRACEME)", || {
            syscalls::trace_me().map_err(|errno| errno as i32)
        }),
        Probe::Overlay(directory) => overlay(directory),
        Probe::Emulator(emulator) => emulator::enter(emulator).map(drop),
    }
}

fn no_new_privileges() -> Result<(), Failure> {
    prctl::set_no_new_privs().or_fail(Stage::Privileges, || "prctl(PR_SET_NO_NEW_PRIVS)".to_owned())
}

/// Asks for all the rules that commands get, and enters a domain with one that nobody here will miss.
fn landlock() -> Result<(), Failure> {
    let stage = Stage::Privileges;
    let [files, network, scopes] = domain::everything();
    let call = || format!("landlock_create_ruleset({{{files:#x}, {network:#x}, {scopes:#x}}})");
    drop(syscalls::landlock_ruleset([files, network, scopes]).or_fail(stage, call)?);
    no_new_privileges()?;
    let harmless = syscalls::landlock_ruleset([MAKE_BLOCK_DEVICES, 0, 0]).or_fail(stage, call)?;
    syscalls::landlock_restrict(&harmless).or_fail(stage, || "landlock_restrict_self()".to_owned())
}

/// How many Landlock domains this process is in already, found by entering more until the kernel has had enough.
fn landlock_domains() -> usize {
    let Ok(ruleset) = syscalls::landlock_ruleset([MAKE_BLOCK_DEVICES, 0, 0]) else { return 0 };
    if no_new_privileges().is_err() {
        return 0;
    }
    for entered in 0..=*MOST_DOMAINS.end() {
        match syscalls::landlock_restrict(&ruleset) {
            Ok(()) => {}
            Err(Errno::E2BIG) => {
                let most =
                    if entered <= *MOST_DOMAINS.start() { MOST_DOMAINS.start() } else { MOST_DOMAINS.end() };
                return most - entered;
            }
            Err(_) => return 0,
        }
    }
    0
}

fn enter(flags: CloneFlags) -> Result<(), Failure> {
    namespaces::enter(flags, 1000, 1000)
}

fn fresh(kind: &str, target: &str, options: Option<&str>) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
    mount(Some(kind), target, Some(kind), flags, options)
        .or_fail(Stage::Root, || mounts::mount_call(kind, target, flags, options))
}

/// Runs `attempt` in a new process; only its errno comes back.
fn in_child(stage: Stage, call: &str, attempt: impl FnOnce() -> Result<(), i32>) -> Result<(), Failure> {
    match syscalls::fork().or_fail(Stage::Namespaces, || "fork()".to_owned())? {
        None => syscalls::exit_now(attempt().err().unwrap_or(0)),
        Some(child) => match waitpid(child, None).or_fail(Stage::Wait, || format!("waitpid({child})"))? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, errno) => Err(Failure::new(stage, call, Errno::from_raw(errno))),
            status => Err(Failure::new(stage, format!("{status:?}"), Errno::ECHILD)),
        },
    }
}

/// Stacks two layers that the caller has prepared, and looks whether the upper one hides what it should.
fn overlay(directory: &Path) -> Result<(), Failure> {
    enter(USER_AND_MOUNTS)?;
    mounts::make_private()?;
    let stage = Stage::Root;
    nix::unistd::chdir(directory).or_fail(stage, || format!("chdir({directory:?})"))?;
    let options = Some("lowerdir=upper:lower,userxattr");
    fresh("overlay", "merged", options)?;
    let expect = |path: &str, present: bool| {
        let wrong = std::path::Path::new(path).exists() != present;
        let call = format!("stat({path:?}), which must be {}", if present { "there" } else { "hidden" });
        if wrong { Err(Failure::new(stage, call, Errno::EOPNOTSUPP)) } else { Ok(()) }
    };
    expect("merged/kept", true)?;
    expect("merged/removed", false)?;
    expect("merged/opaque/old", false)?;
    expect("merged/opaque/new", true)
}

/// Who may have restricted this process. Read after the attempt: AppArmor changes the label of a process
/// that makes a user namespace.
fn setting() -> Setting {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let seccomp = status.lines().find_map(|l| l.strip_prefix("Seccomp:")?.trim().parse().ok());
    let label = fs_err::read_to_string("/proc/self/attr/current").ok();
    let label = label.map(|l| l.trim_end_matches(['\0', '\n']).to_owned()).filter(|l| !l.is_empty());
    let clone3 = format!("{:?}", syscalls::clone3_answer());
    Setting { seccomp, label, clone3, landlock_domains: landlock_domains() }
}
