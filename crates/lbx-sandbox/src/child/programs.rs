//! Programs of the host that make a sandbox in this one's place: where they are, and how they are watched over.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{AccessFlags, Pid, access};

use super::door::{self, Door};
use super::inside::Channel;
use super::{
    CALLER_GONE, Job, family, inside, readable, send_report, signal_of, supervise, supervised_signals,
};
use crate::error::{Failure, NO_ERROR, OrFail, Stage};
use crate::spec::Spec;
use crate::syscalls;
use crate::wire::Report;

/// The most of a program's complaints that is kept. Bytes.
const COMPLAINT: u64 = 2048;

/// The program of this name, in the folders of the specification.
pub(super) fn find(spec: &Spec, name: &str) -> Result<PathBuf, Failure> {
    let candidates = spec.path.iter().filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
    let is_program = |path: &PathBuf| path.is_file() && access(path.as_path(), AccessFlags::X_OK).is_ok();
    candidates.into_iter().find(is_program).ok_or_else(|| {
        Failure::new(Stage::Prepare, format!("find the program `{name}` in PATH"), Errno::ENOENT)
    })
}

/// Has a descriptor stay open in the programs that this process starts from now on.
pub(super) fn pass_on(descriptor: &OwnedFd) -> Result<i32, Failure> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))
        .or_fail(Stage::Prepare, || "fcntl(F_SETFD, 0)".to_owned())?;
    Ok(descriptor.as_raw_fd())
}

/// Runs a program with this process inside it, until all that it started has ended. When the process inside has not
/// reported, the error holds what the program said.
pub(super) fn run(
    program: &Path,
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
    socket: &OwnedFd,
    inbox: OwnedFd,
) -> Result<(), Failure> {
    let stage = Stage::Namespaces;
    // Blocked before it starts, so that its end is not missed; what is started has nothing blocked.
    let signals = supervised_signals();
    signals.thread_block().or_fail(Stage::Prepare, || "sigprocmask(SIG_BLOCK)".to_owned())?;
    family::adopt()?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .stdin(inbox)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .or_fail(stage, || format!("execve({program:?})"))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let ended = supervise(socket, pid, &signals);
    family::end().or_fail(Stage::Wait, || "waitpid(-1)".to_owned())?;
    let ended = ended.or_fail(Stage::Wait, || format!("waitpid({pid})"))?;
    if matches!(ended, WaitStatus::Exited(_, inside::REPORTED) | WaitStatus::Signaled(..)) {
        return Ok(());
    }
    Err(Failure::new(stage, complaint(child.stderr.take(), program, ended), NO_ERROR))
}

/// What a program said, in a line, or else how it ended.
fn complaint(stderr: Option<impl Read>, program: &Path, ended: WaitStatus) -> String {
    let mut complaint = String::new();
    if let Some(stderr) = stderr {
        // Nobody holds the other end any more. What is no UTF-8 ends it.
        let _ = stderr.take(COMPLAINT).read_to_string(&mut complaint);
    }
    let words = complaint.trim().replace('\n', "; ");
    if words.is_empty() { format!("{}: {ended:?}", program.display()) } else { words }
}

/// Starts a process that becomes a tracer with this process inside it, and waits until that one is done: the tracer
/// goes on for as long as anything runs that it started. All of it ends here.
pub(super) fn trace(
    mut job: Job<'_>,
    program: &Path,
    channel: &Channel,
    become_tracer: impl FnOnce(&Job<'_>, &OwnedFd) -> Report,
) -> Result<(), Failure> {
    let socket = job.socket;
    let (complaints, stderr) = std::io::pipe().or_fail(Stage::Prepare, || "pipe2(O_CLOEXEC)".to_owned())?;
    let stderr = OwnedFd::from(stderr);
    supervised_signals().thread_block().or_fail(Stage::Prepare, || "sigprocmask(SIG_BLOCK)".to_owned())?;
    family::adopt()?;
    let door = door::open(&mut job, false)?;
    let stage = Stage::Namespaces;
    let ended = match syscalls::fork().or_fail(stage, || "fork()".to_owned())? {
        None => {
            send_report(socket, &become_tracer(&job, &stderr));
            syscalls::exit_now(inside::REPORTED)
        }
        Some(tracer) => {
            drop((job, stderr));
            wait(socket, channel, tracer, door)
        }
    };
    family::end().or_fail(Stage::Wait, || "waitpid(-1)".to_owned())?;
    match ended.or_fail(Stage::Wait, || "poll()".to_owned())? {
        // It has reported, or the caller is gone, or what was to become the tracer has said why it did not.
        None | Some(WaitStatus::Exited(_, inside::REPORTED) | WaitStatus::Signaled(..)) => Ok(()),
        Some(ended) => Err(Failure::new(stage, complaint(Some(complaints), program, ended), NO_ERROR)),
    }
}

/// Waits until the process inside is done or the caller gone (`None`), or the tracer ends.
fn wait(
    socket: &OwnedFd,
    channel: &Channel,
    tracer: Pid,
    mut door: Option<Door>,
) -> nix::Result<Option<WaitStatus>> {
    let events = SignalFd::with_flags(&supervised_signals(), SfdFlags::SFD_CLOEXEC)?;
    loop {
        let mut fds = vec![
            PollFd::new(events.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.as_fd(), CALLER_GONE),
            PollFd::new(channel.ours.as_fd(), PollFlags::POLLIN),
        ];
        let bell = door.as_ref().and_then(Door::bell);
        fds.extend(bell.map(|bell| PollFd::new(bell, PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        if readable(&fds[1]) || readable(&fds[2]) {
            return Ok(None);
        }
        let signalled = readable(&fds[0]);
        let rung = fds.get(3).and_then(PollFd::revents).filter(|events| !events.is_empty());
        if let (Some(door), Some(events)) = (&mut door, rung) {
            door.attend(events);
        }
        if !signalled {
            continue;
        }
        match signal_of(&events)? {
            Some(Signal::SIGCHLD) | None => {}
            Some(signal) => drop(kill(tracer, signal)),
        }
        match waitpid(tracer, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => {}
            ended => return Ok(Some(ended)),
        }
    }
}
