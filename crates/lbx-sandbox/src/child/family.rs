//! The descendants of a command, without a process id namespace that would end with it.
//!
//! This process is their subreaper: whoever loses its parent becomes its child, so that nobody gets out of sight.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Job, door, init, supervised_signals};
use crate::error::{Failure, OrFail, Stage};
use crate::syscalls;
use crate::wire::{self, Report};

/// Runs a command that no namespace ends; `after` it and all its descendants are dead comes what is left to do, and
/// then the report.
pub(super) fn run(
    mut job: Job<'_>,
    become_command: impl FnOnce(&Job<'_>) -> Report,
    after: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let socket = job.socket;
    let signals = supervised_signals();
    signals.thread_block().or_fail(Stage::Prepare, || "sigprocmask(SIG_BLOCK)".to_owned())?;
    adopt()?;
    let door = door::open(&mut job, false)?;
    let ended = init::start(job, door, become_command);
    end().or_fail(Stage::Wait, || "waitpid(-1)".to_owned())?;
    let exit = ended?;
    after()?;
    if let Some(exit) = exit {
        // When the caller is gone there is nobody left to tell.
        let _ = wire::send(socket.as_fd(), &Report::Exited(exit), &[]);
    }
    Ok(())
}

/// Makes this process the parent of all orphans among its descendants.
pub(super) fn adopt() -> Result<(), Failure> {
    prctl::set_child_subreaper(true).or_fail(Stage::Prepare, || "prctl(PR_SET_CHILD_SUBREAPER)".to_owned())
}

/// Ends all descendants, however fast they make new ones, and waits for them.
pub(super) fn end() -> nix::Result<()> {
    loop {
        for child in children() {
            // One that can start no more processes cannot run away from its signal.
            syscalls::forbid_processes(child);
            let _ = kill(child, Signal::SIGKILL);
        }
        match syscalls::wait_blocking() {
            // Its children are ours by now.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// The processes whose parent this one is, from the kernel's list, or from all of /proc where there is none.
fn children() -> Vec<Pid> {
    let own = nix::unistd::getpid();
    if let Ok(list) = fs_err::read_to_string(format!("/proc/{own}/task/{own}/children")) {
        return list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect();
    }
    let Ok(processes) = fs_err::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| parent_of(*pid) == Some(own.as_raw())).map(Pid::from_raw).collect()
}

/// The fourth field of `stat`, counted from the end of the name, which may hold anything.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
