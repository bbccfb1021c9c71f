//! The backend of an unprivileged user: user, mount, process id, IPC and host name namespaces, and one for the network.
//!
//! This process makes them, starts the first process in them, and waits for it. Assembling the root is left to `root`,
//! running the command to `init`.

use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::payload::Situation;
use super::{Isolate, Job, emulator, init, supervise, supervised_signals};
use crate::backend::Backend;
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{Network, Spec};
use crate::syscalls;

/// See the module.
pub(super) struct Namespaces;

impl Isolate for Namespaces {
    fn backend(&self) -> Backend {
        Backend::Namespaces
    }

    fn probe(&self, _: &Spec) -> Result<(), Failure> {
        Ok(())
    }

    fn run(&self, job: Job<'_>) -> Result<(), Failure> {
        // Held for as long as anything runs.
        let _registered = job.spec.emulator.as_ref().map(emulator::enter).transpose()?;
        let flags = flags(job.spec) | CloneFlags::CLONE_NEWUSER;
        enter(flags, job.spec.uid, job.spec.gid)?;
        start(job, Situation::NAMESPACES)
    }
}

/// All namespaces but that of users.
pub(super) fn flags(spec: &Spec) -> CloneFlags {
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    flags.set(CloneFlags::CLONE_NEWNET, spec.network != Network::Host);
    flags
}

/// Starts the first process of the new process id namespace, and waits for its end.
pub(super) fn start(job: Job<'_>, situation: Situation) -> Result<(), Failure> {
    // Blocked before the fork, so that no signal is lost between it and the loops.
    let signals = supervised_signals();
    signals.thread_block().or_fail(Stage::Prepare, || "sigprocmask(SIG_BLOCK)".to_owned())?;
    let socket: &OwnedFd = job.socket;
    match syscalls::fork().or_fail(Stage::Namespaces, || "fork()".to_owned())? {
        None => syscalls::exit_now(init::main(job, situation)),
        Some(init) => {
            drop(job);
            supervise(socket, init, &signals).map(drop).or_fail(Stage::Wait, || format!("waitpid({init})"))
        }
    }
}

/// Enters new namespaces, one of users among them; the next child is PID 1 of the new process id namespace.
///
/// `unshare` in place of `clone3`: this process is single-threaded and needs nothing that only the newer
/// call has, and it can write its own maps, which saves a round trip to its parent.
pub(super) fn enter(flags: CloneFlags, uid: u32, gid: u32) -> Result<(), Failure> {
    let (outer_uid, outer_gid) = (geteuid(), getegid());
    make(flags)?;
    // The order is the kernel's: without "deny" an unprivileged process may not write the group map.
    write_proc("/proc/self/setgroups", "deny")?;
    write_proc("/proc/self/gid_map", &format!("{gid} {outer_gid} 1"))?;
    write_proc("/proc/self/uid_map", &format!("{uid} {outer_uid} 1"))
}

/// Makes new namespaces.
pub(super) fn make(flags: CloneFlags) -> Result<(), Failure> {
    unshare(flags).or_fail(Stage::Namespaces, || format!("unshare({})", flag_names(flags)))
}

fn write_proc(path: &str, line: &str) -> Result<(), Failure> {
    use std::io::Write;
    let call = || format!("write({path:?}, {line:?})");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .or_fail(Stage::IdMap, || format!("open({path:?})"))?;
    file.write_all(line.as_bytes()).or_fail(Stage::IdMap, call)
}

fn flag_names(flags: CloneFlags) -> String {
    flags.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join("|")
}
