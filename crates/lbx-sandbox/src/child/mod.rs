//! The re-executed process outside the namespaces it makes: receives the request, makes the namespaces,
//! starts PID 1 and waits for it. Assembling the root is left to `root`, running the command to `init`.

mod calls;
mod chroot;
mod devices;
mod domain;
mod family;
mod farm;
mod init;
mod mounts;
mod payload;
mod probe;
mod root;
mod selftest;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid};

use self::payload::Purpose;
use crate::backend::Backend;
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{Network, Spec};
use crate::syscalls;
use crate::wire::{self, Report, Request};

/// The caller has closed its end, or its writing side as the order to die. `nix` has no name for it.
const CALLER_GONE: PollFlags = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);

/// Whether anything happened; `nix` has no answer when flags that it does not know are set.
fn readable(fd: &PollFd<'_>) -> bool {
    fd.any() != Some(false)
}

/// Turns this process into the sandbox child, and never returns, when it was started as one.
///
/// Must be the first statement of `main` of every program that starts sandboxes: a process that has a
/// second thread cannot enter a user namespace.
pub fn init_if_child() {
    if std::env::args_os().next().as_deref() == Some(OsStr::new(wire::MARKER)) {
        // A panic must not unwind into the program's own main.
        let code = catch_unwind(AssertUnwindSafe(main)).unwrap_or(101);
        syscalls::exit_now(code);
    }
}

/// Exit codes of this process carry no meaning for the caller, who has the report; they help a reader
/// of `strace`.
fn main() -> i32 {
    // Whatever the caller leaked ends here, before this process owns any descriptor but the first three.
    syscalls::close_from(3);
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return 2 };
    let (request, stdin) = match receive_request(&socket) {
        Ok(request) => request,
        Err(failure) => return report_failure(&socket, failure),
    };
    prepare();
    match request {
        Request::Probe(probe) => probe::run(&socket, &probe),
        Request::Run { spec, .. } => run(&socket, &spec, stdin, Purpose::Command),
        Request::Test { spec, outside, .. } => {
            run(&socket, &spec, stdin, Purpose::Test(Pid::from_raw(outside)))
        }
    }
}

fn report_failure(socket: &OwnedFd, failure: Failure) -> i32 {
    send_report(socket, &Report::Failed(failure));
    1
}

/// Tells the caller, and is the exit code: the command itself would have had another one.
fn send_report(socket: &OwnedFd, report: &Report) -> i32 {
    // When the caller is gone there is nobody left to tell.
    let _ = wire::send(socket.as_fd(), report, &[]);
    1
}

fn receive_request(socket: &OwnedFd) -> Result<(Request, OwnedFd), Failure> {
    let packet = wire::receive::<()>(socket.as_fd()).or_fail(Stage::Prepare, || "recvmsg(0)".to_owned())?;
    let protocol = |call: &str| Failure::new(Stage::Prepare, call, Errno::EPROTO);
    let ((), descriptors) = packet.ok_or_else(|| protocol("recvmsg(0)"))?;
    let [request, stdin] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| protocol("recvmsg(0)"))?;
    let request = wire::unpack(request).map_err(|e| protocol(&format!("parse request ({e})")))?;
    Ok((request, stdin))
}

/// Forgets what was inherited from the caller and would reach the command.
fn prepare() {
    syscalls::reset_signal_actions();
    syscalls::leave_session_keyring();
    // Unblocks everything; the loops below block what they wait for.
    let _ = SigSet::empty().thread_set_mask();
    umask(Mode::from_bits_truncate(0o022));
    // A program file without read permission leaves its process undumpable, and the id maps root's.
    let _ = prctl::set_dumpable(true);
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
}

fn run(socket: &OwnedFd, spec: &Spec, stdin: OwnedFd, purpose: Purpose) -> i32 {
    let result = match spec.backend {
        Backend::Namespaces => run_in_namespaces(socket, spec, stdin, purpose),
        Backend::Chroot => chroot::run(socket, spec, stdin, purpose),
    };
    result.map_or_else(|failure| report_failure(socket, failure), |()| 0)
}

fn run_in_namespaces(socket: &OwnedFd, spec: &Spec, stdin: OwnedFd, purpose: Purpose) -> Result<(), Failure> {
    let mut flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    flags.set(CloneFlags::CLONE_NEWNET, spec.network == Network::None);
    enter_namespaces(flags, spec.uid, spec.gid)?;
    // Blocked before the fork, so that no signal is lost between it and the loops.
    let signals = supervised_signals();
    signals.thread_block().or_fail(Stage::Prepare, || "sigprocmask(SIG_BLOCK)".to_owned())?;
    match syscalls::fork().or_fail(Stage::Namespaces, || "fork()".to_owned())? {
        None => syscalls::exit_now(init::main(socket, spec, stdin, purpose)),
        Some(init) => {
            drop(stdin);
            supervise(socket, init, &signals).or_fail(Stage::Wait, || format!("waitpid({init})"))
        }
    }
}

/// What PID 1 and its parent wait for.
fn supervised_signals() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

/// Enters new namespaces; the next child is PID 1 of the new process id namespace.
///
/// `unshare` in place of `clone3`: this process is single-threaded and needs nothing that only the newer
/// call has, and it can write its own maps, which saves a round trip to its parent.
fn enter_namespaces(flags: CloneFlags, uid: u32, gid: u32) -> Result<(), Failure> {
    let (outer_uid, outer_gid) = (geteuid(), getegid());
    unshare(flags).or_fail(Stage::Namespaces, || format!("unshare({})", flag_names(flags)))?;
    // The order is the kernel's: without "deny" an unprivileged process may not write the group map.
    write_proc("/proc/self/setgroups", "deny")?;
    write_proc("/proc/self/gid_map", &format!("{gid} {outer_gid} 1"))?;
    write_proc("/proc/self/uid_map", &format!("{uid} {outer_uid} 1"))
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

/// Waits for PID 1, forwards signals to it, and kills it when the caller is gone.
///
/// This process must outlive PID 1: only its parent's wait returns after the last process of the
/// namespace has died.
fn supervise(socket: &OwnedFd, init: Pid, signals: &SigSet) -> nix::Result<()> {
    let events = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC)?;
    let mut watch_caller = true;
    loop {
        let mut fds =
            [PollFd::new(events.as_fd(), PollFlags::POLLIN), PollFd::new(socket.as_fd(), CALLER_GONE)];
        let watched = if watch_caller { &mut fds[..] } else { &mut fds[..1] };
        match poll(watched, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        if watch_caller && readable(&fds[1]) {
            watch_caller = false;
            let _ = kill(init, Signal::SIGKILL);
        }
        if readable(&fds[0]) {
            match signal_of(&events)? {
                Some(Signal::SIGCHLD) | None => {}
                // It fails when PID 1 has just ended, which the next round sees.
                Some(signal) => drop(kill(init, signal)),
            }
            if !matches!(waitpid(init, Some(WaitPidFlag::WNOHANG))?, WaitStatus::StillAlive) {
                return Ok(());
            }
        }
    }
}

/// The next pending signal of a descriptor that is readable.
fn signal_of(events: &SignalFd) -> nix::Result<Option<Signal>> {
    let info = events.read_signal()?;
    Ok(info.and_then(|i| Signal::try_from(i.ssi_signo.cast_signed()).ok()))
}
