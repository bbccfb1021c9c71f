//! PID 1 of the sandbox: has the root assembled, starts the command, reaps every orphan, forwards signals,
//! reports how the command ended. It keeps its capabilities, which makes it untouchable for the command:
//! the kernel denies a process without them to look into `/proc/1`.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeVal;
use nix::unistd::{Pid, sethostname};

use super::door::{self, Door};
use super::payload::{Order, Situation};
use super::{
    CALLER_GONE, Job, devices, mounts, payload, readable, report_failure, rlimits, root, send_report,
    signal_of, supervised_signals,
};
use crate::error::{Failure, OrFail, Stage};
use crate::launch::{End, Exit, Usage};
use crate::spec::{Network, Spec};
use crate::syscalls;
use crate::wire::{self, Command, Report};

/// Runs the command. The exit of this process kills all others of the namespace.
pub(super) fn main(job: Job<'_>, situation: Situation) -> i32 {
    let socket = job.socket;
    match run(job, situation) {
        Ok(Some(exit)) => {
            // When the caller is gone there is nobody left to tell.
            let _ = wire::send(socket.as_fd(), &Report::Exited(exit), &[]);
            0
        }
        Ok(None) => 0,
        Err(failure) => report_failure(socket, failure),
    }
}

fn run(mut job: Job<'_>, situation: Situation) -> Result<Option<Exit>, Failure> {
    let spec = job.spec;
    // Its parent, not this process, watches the caller while the root is assembled; if the parent is
    // killed, the kernel kills this one.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .or_fail(Stage::Prepare, || "prctl(PR_SET_PDEATHSIG, SIGKILL)".to_owned())?;
    match sethostname(&spec.hostname) {
        // Podman's filter allows namespaces and denies this. The host's name is no secret worth a build.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => {
            return Err(Failure::new(Stage::Namespaces, format!("sethostname({:?})", spec.hostname), errno));
        }
    }
    if spec.network != Network::Host && situation.own_network {
        match syscalls::loopback_up() {
            Ok(()) => {}
            // A container's root who may administer, but not networks. The filter allows the command no socket that could
            // miss it.
            Err(Errno::EPERM) if spec.network == Network::None => {}
            Err(errno) => {
                return Err(Failure::new(Stage::Network, "ioctl(SIOCSIFFLAGS, \"lo\")", errno));
            }
        }
    }
    rlimits::bound_ids(&spec.limits);
    assemble(spec, &situation)?;
    let order = Order::in_root(spec, situation);
    let door = door::open(&mut job, situation.own_network)?;
    start(job, door, |job| payload::become_command(job, &order))
}

/// Starts a process that becomes the command, and waits until it ends, or until it is told to die (`None`).
pub(super) fn start(
    job: Job<'_>,
    door: Option<Door>,
    become_command: impl FnOnce(&Job<'_>) -> Report,
) -> Result<Option<Exit>, Failure> {
    let socket = job.socket;
    match syscalls::fork().or_fail(Stage::Exec, || "fork()".to_owned())? {
        None => {
            let report = become_command(&job);
            syscalls::exit_now(send_report(socket, &report));
        }
        Some(command) => {
            drop(job);
            serve(socket, command, door).or_fail(Stage::Wait, || "poll()".to_owned())
        }
    }
}

/// Builds everything the command sees, and leaves the host's file systems.
fn assemble(spec: &Spec, situation: &Situation) -> Result<(), Failure> {
    mounts::make_private()?;
    let sources = root::Sources::open(spec)?;
    let root = root::build(spec, &sources, situation.user)?;
    mounts::proc(&root)?;
    devices::populate(&root, spec.limits.tmp)?;
    root::fill(spec, &root, &sources, situation.user)?;
    root::enter(&root)
}

/// Waits until the command ends, or until it is told to die (`None`).
fn serve(socket: &OwnedFd, command: Pid, mut door: Option<Door>) -> nix::Result<Option<Exit>> {
    let events = SignalFd::with_flags(&supervised_signals(), SfdFlags::SFD_CLOEXEC)?;
    let mut stops = Stops::default();
    loop {
        let mut fds = vec![
            PollFd::new(events.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.as_fd(), PollFlags::POLLIN | CALLER_GONE),
        ];
        let bell = door.as_ref().and_then(Door::bell);
        fds.extend(bell.map(|bell| PollFd::new(bell, PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let (signalled, told) = (readable(&fds[0]), readable(&fds[1]));
        let rung = fds.get(2).and_then(PollFd::revents).filter(|events| !events.is_empty());
        if let (Some(door), Some(events)) = (&mut door, rung) {
            door.attend(events);
        }
        if signalled {
            match signal_of(&events)? {
                Some(Signal::SIGCHLD) | None => {}
                Some(signal) => stops.forward(command, signal as i32),
            }
            if let Some(end) = reap(command)? {
                return Ok(Some(Exit::new(end, usage())));
            }
        }
        if told {
            match wire::receive::<Command>(socket.as_fd()) {
                Ok(Some((Command::Signal(signal), _))) => stops.forward(command, signal),
                Ok(None) | Err(_) => return Ok(None),
            }
        }
        if stops.kill {
            return Ok(Some(Exit::new(End::Signal(libc::SIGKILL), usage())));
        }
    }
}

/// How often the command was asked to stop.
#[derive(Default)]
struct Stops {
    asked: bool,
    kill: bool,
}

impl Stops {
    fn forward(&mut self, command: Pid, signal: i32) {
        let stop = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP].contains(&signal);
        self.kill |= (stop && self.asked) || signal == libc::SIGKILL;
        self.asked |= stop;
        if let Ok(signal) = Signal::try_from(signal) {
            // The command leads a process group since its `setsid`. Before that, or when it has just
            // ended, there is no such group, and the process itself is the best address.
            if nix::sys::signal::killpg(command, signal).is_err() {
                let _ = kill(command, signal);
            }
        }
    }
}

/// Reaps all that has ended; the command's end, when it is among them.
///
/// A command that could not start has already reported why, and the caller reads the first report only.
fn reap(command: Pid) -> nix::Result<Option<End>> {
    while let Some((pid, status)) = syscalls::wait_any()? {
        if pid == command && libc::WIFEXITED(status) {
            return Ok(Some(End::Code(libc::WEXITSTATUS(status))));
        }
        if pid == command && libc::WIFSIGNALED(status) {
            return Ok(Some(End::Signal(libc::WTERMSIG(status))));
        }
    }
    Ok(None)
}

fn usage() -> Usage {
    let duration = |t: TimeVal| {
        let micros =
            u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000 + u64::try_from(t.tv_usec()).unwrap_or(0);
        Duration::from_micros(micros)
    };
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or_else(
        |_| Usage::default(),
        |u| Usage {
            user: duration(u.user_time()),
            system: duration(u.system_time()),
            max_rss: u64::try_from(u.max_rss()).unwrap_or(0) * 1024,
            peak: None,
        },
    )
}
