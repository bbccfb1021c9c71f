//! The last steps before the command: gives up everything that PID 1 has and the command must not have.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::fstat;
use nix::unistd::{
    Gid, Uid, chdir, dup2_stderr, dup2_stdin, execve, fchown, setgroups, setresgid, setresuid, setsid,
};

use super::calls::{Internet, Reach};
use super::domain::{Enforced, Rules};
use super::inside::Channel;
use super::selftest::{self, Paths};
use super::{Job, calls, domain, rlimits};
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{Network, Spec};
use crate::syscalls;
use crate::wire::{self, Outside, Report};

/// Where a program without a slash is looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What comes in the end, when nothing is left to be given up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The command.
    Command,
    /// A self-test, which tries to reach this process.
    Test(Outside),
}

/// Where a command is to run: what the namespaces around it leave to be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    /// The user and the group to become, where no user namespace shows the caller's own as another one.
    pub(super) user: Option<(u32, u32)>,
    /// Whether everything ends with the first process of a process id namespace.
    pub(super) own_processes: bool,
    /// Whether there is a network namespace, unless the host's network is wanted.
    pub(super) own_network: bool,
}

impl Situation {
    /// In namespaces of a user.
    pub(super) const NAMESPACES: Self = Self { user: None, own_processes: true, own_network: true };
    /// Of the caller's own user and among its processes.
    pub(super) const BARE: Self = Self { user: None, own_processes: false, own_network: false };
}

/// What is executed, and with what: the command as the specification has it, or as it is called where paths of the
/// host stand for those of the sandbox.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) situation: Situation,
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) rules: Rules,
    /// The directory for temporary files, where paths are those of the host.
    pub(super) temporary: Option<PathBuf>,
    /// Whether it is a program that traces others.
    pub(super) traces: bool,
}

impl Order {
    /// The command, in a root of its own.
    pub(super) fn in_root(spec: &Spec, situation: Situation) -> Self {
        Self {
            situation,
            argv: spec.argv.clone(),
            env: spec.env.clone(),
            cwd: spec.cwd.clone(),
            rules: Rules::in_root(spec),
            temporary: None,
            traces: false,
        }
    }

    /// What the paths of a self-test in its place mean.
    fn paths(&self) -> Paths<'_> {
        self.temporary.as_deref().map_or(Paths::OwnRoot, Paths::Host)
    }
}

/// Becomes the command; returns only when that failed. A self-test returns in any case.
pub(super) fn become_command(job: &Job<'_>, order: &Order) -> Report {
    let end = || {
        let enforced = give_up(job, order)?;
        match job.purpose {
            Purpose::Command => Err(exec(order)),
            Purpose::Test(outside) => selftest::run(job.spec, enforced, outside, order.paths()),
        }
    };
    end().map_or_else(Report::Failed, Report::Tested)
}

/// Becomes a program that starts this one again, with the job; a self-test is made here too. Returns when that failed.
pub(super) fn become_tracer(job: &Job<'_>, order: &Order, channel: &Channel, stderr: &OwnedFd) -> Report {
    let end = || {
        let enforced = give_up(job, order)?;
        if let Purpose::Test(outside) = job.purpose {
            selftest::run(job.spec, enforced, outside, order.paths())?;
        }
        channel.send(job, Some(enforced))?;
        // What the tracer says goes elsewhere than what the command does.
        dup2_stderr(stderr).or_fail(Stage::Exec, || "dup2(stderr, 2)".to_owned())?;
        dup2_stdin(&channel.theirs).or_fail(Stage::Exec, || "dup2(inbox, 0)".to_owned())?;
        Err(exec(order))
    };
    Report::Failed(end().unwrap_or_else(|failure| failure))
}

/// Becomes the command where all but tracing is given up already; returns only when that failed.
pub(super) fn resume_command(job: &Job<'_>, order: &Order) -> Report {
    let end = || {
        leave_session(&job.stdin, job.spec.terminal)?;
        unblock_signals()?;
        enter_working_directory(order)?;
        filter_calls(job, order)?;
        Err(exec(order))
    };
    Report::Failed(end().unwrap_or_else(|failure| failure))
}

/// Gives up everything that the command must not have.
fn give_up(job: &Job<'_>, order: &Order) -> Result<Enforced, Failure> {
    // A tracer leaves the terminal to the session of the command.
    leave_session(&job.stdin, job.spec.terminal && !order.traces)?;
    give_up_privileges(order.situation, &kept(job.spec, order.situation))?;
    enter_working_directory(order)?;
    // A kernel without it, or without a part of it, is one where less is claimed.
    let enforced = domain::enter(&order.rules);
    rlimits::apply(&job.spec.limits, order.situation.own_processes)?;
    // Last, because it denies some of the above.
    let network = filter_calls(job, order)?;
    Ok(Enforced { network, ..enforced })
}

/// What stays with a command: with the root user's files come modes that the root user alone can pass. It is a capability
/// over what the user namespace has, which is the caller's.
fn kept(spec: &Spec, situation: Situation) -> CapsHashSet {
    let keeps = spec.administers() && situation.user.is_none() && situation.own_processes;
    if keeps { CapsHashSet::from([Capability::CAP_DAC_OVERRIDE]) } else { CapsHashSet::new() }
}

fn give_up_privileges(situation: Situation, kept: &CapsHashSet) -> Result<(), Failure> {
    let stage = Stage::Privileges;
    let keep = |set: CapSet, kept: &CapsHashSet| {
        caps::set(None, set, kept)
            .map_err(|_| Failure::new(stage, format!("set {set:?} capabilities"), Errno::EPERM))
    };
    // While there is a right to hand anything on.
    keep(CapSet::Inheritable, kept)?;
    keep(CapSet::Ambient, kept)?;
    // Who lacks the capability for it, in a container or under another sandbox, can gain none either: exec gives none
    // with `no_new_privs`, and the sets are emptied below.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(true) {
        syscalls::lock_securebits().or_fail(stage, || "prctl(PR_SET_SECUREBITS)".to_owned())?;
        syscalls::drop_bounding_set().or_fail(stage, || "prctl(PR_CAPBSET_DROP)".to_owned())?;
    }
    if let Some((uid, gid)) = situation.user {
        become_user(uid, gid)?;
    }
    keep(CapSet::Effective, kept)?;
    keep(CapSet::Permitted, kept)?;
    if !situation.own_processes {
        // Where no namespace ends with its first process, at least the command ends with the one that watches it.
        prctl::set_pdeathsig(Signal::SIGKILL).or_fail(stage, || "prctl(PR_SET_PDEATHSIG)".to_owned())?;
    }
    prctl::set_no_new_privs().or_fail(stage, || "prctl(PR_SET_NO_NEW_PRIVS)".to_owned())?;
    unblock_signals()
}

fn leave_session(stdin: &OwnedFd, takes_terminal: bool) -> Result<(), Failure> {
    let stage = Stage::Privileges;
    // A session of its own has no terminal whose input could be forged, or one that is made for it.
    setsid().or_fail(stage, || "setsid()".to_owned())?;
    dup2_stdin(stdin).or_fail(stage, || "dup2(stdin, 0)".to_owned())?;
    if takes_terminal {
        syscalls::take_terminal(stdin.as_fd()).or_fail(stage, || "ioctl(0, TIOCSCTTY, 0)".to_owned())?;
    }
    // Every descriptor above was opened to be closed on exec; this covers a mistake in that.
    syscalls::close_on_exec_from(3);
    Ok(())
}

fn unblock_signals() -> Result<(), Failure> {
    SigSet::empty().thread_set_mask().or_fail(Stage::Privileges, || "sigprocmask(SIG_SETMASK)".to_owned())
}

/// Becomes another user for good. Capabilities stay until they are cleared, because the securebits say so.
fn become_user(uid: u32, gid: u32) -> Result<(), Failure> {
    let stage = Stage::Privileges;
    give_pipes(uid, gid);
    setgroups(&[]).or_fail(stage, || "setgroups(0, NULL)".to_owned())?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(group, group, group).or_fail(stage, || format!("setresgid({gid}, {gid}, {gid})"))?;
    setresuid(user, user, user).or_fail(stage, || format!("setresuid({uid}, {uid}, {uid})"))
}

/// Gives the pipes among the standard streams to the command, which may open them by name in /dev. What else they are
/// stays as it is.
fn give_pipes(uid: u32, gid: u32) {
    let streams: [&dyn AsFd; 3] = [&std::io::stdin(), &std::io::stdout(), &std::io::stderr()];
    for stream in streams {
        let is_pipe = fstat(stream).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFIFO);
        if is_pipe {
            // Without it the streams themselves work all the same.
            let _ = fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
    }
}

/// Filters the system calls. Whether nothing can be connected to but what the caller serves.
fn filter_calls(job: &Job<'_>, order: &Order) -> Result<bool, Failure> {
    let own_root = job.spec.backend.changes_root();
    let administers = job.spec.administers();
    let pretends = order.situation.user.is_some_and(|(uid, _)| uid != 0);
    let filter =
        |internet| calls::filter(Reach { internet, traces: order.traces, own_root, administers, pretends });
    let (internet, holds) = match job.spec.network {
        Network::None => (Internet::None, true),
        Network::Host => (Internet::All, false),
        Network::Served(_) if order.situation.own_network => (Internet::All, true),
        Network::Served(_) => {
            let asks = |door: &OwnedFd| {
                let listener = filter(Internet::Given).install_and_listen().ok()?;
                wire::send(door.as_fd(), &(), &[listener.as_fd()]).ok()
            };
            if job.door.as_ref().and_then(asks).is_some() {
                return Ok(true);
            }
            // An old kernel, or another sandbox around this one that answers questions; or what is inside of the
            // filter that asks.
            (Internet::Streams, false)
        }
    };
    let installed = filter(internet).install();
    installed.or_fail(Stage::Privileges, || "seccomp(SECCOMP_SET_MODE_FILTER)".to_owned())?;
    Ok(holds)
}

fn enter_working_directory(order: &Order) -> Result<(), Failure> {
    chdir(order.cwd.as_str()).or_fail(Stage::WorkingDirectory, || format!("chdir({:?})", order.cwd))
}

/// Executes the program, looked up like `execvp` does, but in the command's own PATH.
fn exec(order: &Order) -> Failure {
    let program = order.argv[0].as_str();
    let call = |path: &str| format!("execve({path:?})");
    let Ok(argv) = strings(order.argv.iter().cloned()) else {
        return Failure::new(Stage::Exec, call(program), Errno::EINVAL);
    };
    let Ok(environment) = strings(order.env.iter().map(|(name, value)| format!("{name}={value}"))) else {
        return Failure::new(Stage::Exec, call(program), Errno::EINVAL);
    };
    let mut worst = Failure::new(Stage::Exec, call(program), Errno::ENOENT);
    for path in candidates(program, &order.env) {
        let Ok(c_path) = CString::new(path.as_str()) else { continue };
        let Err(errno) = execve(&c_path, &argv, &environment);
        // A script whose interpreter is missing gives ENOENT too, but the program is there.
        let missing_interpreter = errno == Errno::ENOENT
            && nix::unistd::access(c_path.as_c_str(), nix::unistd::AccessFlags::F_OK).is_ok();
        if missing_interpreter {
            return Failure::new(Stage::Exec, format!("execve({path:?}), its interpreter"), Errno::ENOEXEC);
        }
        if !matches!(errno, Errno::ENOENT | Errno::ENOTDIR) {
            worst = Failure::new(Stage::Exec, call(&path), errno);
            if errno != Errno::EACCES {
                break;
            }
        }
    }
    worst
}

fn strings(texts: impl Iterator<Item = String>) -> Result<Vec<CString>, std::ffi::NulError> {
    texts.map(CString::new).collect()
}

/// Where a program may be.
pub(super) fn candidates(program: &str, env: &[(String, String)]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = env.iter().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    path.split(':').filter(|d| d.starts_with('/')).map(|d| format!("{d}/{program}")).collect()
}
