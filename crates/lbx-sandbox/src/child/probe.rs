//! Tries one thing of the sandbox in this process, which is thrown away afterwards. Draws no conclusions.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};

use super::{mounts, namespaces};
use crate::error::{Failure, OrFail, Stage};
use crate::syscalls;
use crate::wire::{self, Probe, Report, Setting};

const USER_AND_MOUNTS: CloneFlags = CloneFlags::CLONE_NEWUSER.union(CloneFlags::CLONE_NEWNS);

/// Tries it and reports.
pub(super) fn run(socket: &OwnedFd, probe: &Probe) -> i32 {
    let failure = attempt(probe).err();
    let report = Report::Probed { failure, setting: setting() };
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
            in_child(|| fresh("proc", "/proc", None))
        }
        Probe::OtherNamespaces => {
            let others = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
            enter(CloneFlags::CLONE_NEWUSER | others)
        }
        Probe::Network => {
            enter(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
            syscalls::loopback_up().or_fail(Stage::Network, || "ioctl(SIOCSIFFLAGS, \"lo\")".to_owned())
        }
        Probe::Overlay(directory) => overlay(directory),
    }
}

fn enter(flags: CloneFlags) -> Result<(), Failure> {
    namespaces::enter(flags, 1000, 1000)
}

fn fresh(kind: &str, target: &str, options: Option<&str>) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
    mount(Some(kind), target, Some(kind), flags, options)
        .or_fail(Stage::Root, || mounts::mount_call(kind, target, flags, options))
}

/// Runs `attempt` in a new process, the first of a new process id namespace; only its errno comes back.
fn in_child(attempt: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    match syscalls::fork().or_fail(Stage::Namespaces, || "fork()".to_owned())? {
        None => syscalls::exit_now(attempt().err().map_or(0, |f| f.errno)),
        Some(child) => match waitpid(child, None).or_fail(Stage::Wait, || format!("waitpid({child})"))? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, errno) => {
                let call = "mount(\"proc\", \"/proc\", \"proc\")";
                Err(Failure::new(Stage::Proc, call, Errno::from_raw(errno)))
            }
            status => Err(Failure::new(Stage::Proc, format!("{status:?}"), Errno::ECHILD)),
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
    Setting { seccomp, label, clone3: format!("{:?}", syscalls::clone3_answer()) }
}
