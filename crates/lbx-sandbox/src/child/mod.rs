//! The re-executed process: receives the request and has a backend carry it out. How is left to the backends, which
//! are one file and one row of a table each.

mod bwrap;
mod calls;
mod chroot;
mod devices;
mod domain;
mod door;
mod elf;
mod emulator;
mod family;
mod farm;
mod house;
mod init;
mod inside;
mod loader;
mod loan;
mod mounts;
mod namespaces;
mod payload;
mod probe;
mod programs;
mod proot;
mod rlimits;
mod root;
mod root_namespaces;
mod selftest;
mod view;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

pub(crate) use self::domain::Enforced;
use self::payload::Purpose;
use crate::backend::Backend;
use crate::error::{Failure, OrFail, Stage};
use crate::filter::Filter;
use crate::spec::Spec;
use crate::syscalls;
use crate::wire::{self, Report, Request};

/// Whether a file is a program that runs without any other file.
pub(crate) fn is_static(program: &[u8]) -> bool {
    elf::Program::is_static(program)
}

/// The filter of a command in a root of its own.
pub(crate) fn command_filter() -> Filter {
    calls::filter(calls::Reach {
        internet: calls::Internet::None,
        traces: false,
        own_root: true,
        administers: false,
        pretends: false,
    })
}

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
    let mut arguments = std::env::args_os();
    let (name, first) = (arguments.next(), arguments.next());
    let main = if name.as_deref() == Some(OsStr::new(wire::MARKER)) {
        main
    } else if first.as_deref() == Some(OsStr::new(wire::INSIDE)) {
        inside::main
    } else {
        return;
    };
    // A panic must not unwind into the program's own main.
    let code = catch_unwind(AssertUnwindSafe(main)).unwrap_or(101);
    syscalls::exit_now(code);
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
        Request::Run { spec, .. } => {
            run(Job { socket: &socket, spec: &spec, stdin, purpose: Purpose::Command, door: None })
        }
        Request::Test { spec, outside, .. } => {
            let purpose = Purpose::Test(outside);
            run(Job { socket: &socket, spec: &spec, stdin, purpose, door: None })
        }
        // For the process inside, which is started in another way.
        Request::Inside { .. } => 2,
    }
}

/// A command to run, or a self-test in the place of one.
struct Job<'a> {
    /// Where reports go and commands come from.
    socket: &'a OwnedFd,
    spec: &'a Spec,
    stdin: OwnedFd,
    purpose: Purpose,
    /// Where the filter's questions about sockets are handed to whoever answers them.
    door: Option<OwnedFd>,
}

/// A way to isolate commands.
trait Isolate {
    /// Which one it is.
    fn backend(&self) -> Backend;

    /// Looks for what it needs before anything is made; a self-test finds out the rest. Whoever has nothing to look
    /// for is tried at once.
    fn probe(&self, spec: &Spec) -> Result<(), Failure>;

    /// Isolates the command, runs it, and reports how it ended; returns when nothing of it is left.
    fn run(&self, job: Job<'_>) -> Result<(), Failure>;
}

/// What does the work of each row of [`Backend::all`].
const ISOLATORS: [&dyn Isolate; 6] = [
    &namespaces::Namespaces,
    &root_namespaces::RootNamespaces,
    &bwrap::Bwrap,
    &chroot::Chroot,
    &proot::Proot,
    &loader::Loader,
];

fn run(job: Job<'_>) -> i32 {
    let Job { socket, spec, .. } = job;
    let isolator = ISOLATORS.iter().find(|isolator| isolator.backend() == spec.backend);
    let missing =
        || Failure::new(Stage::Prepare, format!("find the backend {}", spec.backend), Errno::ENOSYS);
    let done = isolator.ok_or_else(missing).and_then(|isolator| {
        if spec.administers() && !spec.backend.lends_root() {
            let call = format!("change the root under the backend {}", spec.backend);
            return Err(Failure::new(Stage::Root, call, Errno::EOPNOTSUPP));
        }
        isolator.probe(spec)?;
        isolator.run(job)
    });
    done.map_or_else(|failure| report_failure(socket, failure), |()| 0)
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

/// What PID 1 and its parent wait for.
fn supervised_signals() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

/// Waits for PID 1, forwards signals to it, and kills it when the caller is gone.
///
/// This process must outlive PID 1: only its parent's wait returns after the last process of the
/// namespace has died.
fn supervise(socket: &OwnedFd, init: Pid, signals: &SigSet) -> nix::Result<WaitStatus> {
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
            match waitpid(init, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::StillAlive => {}
                ended => return Ok(ended),
            }
        }
    }
}

/// The next pending signal of a descriptor that is readable.
fn signal_of(events: &SignalFd) -> nix::Result<Option<Signal>> {
    let info = events.read_signal()?;
    Ok(info.and_then(|i| Signal::try_from(i.ssi_signo.cast_signed()).ok()))
}
