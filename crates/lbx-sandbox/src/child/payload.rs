//! The last steps before the command: gives up everything that PID 1 has and the command must not have.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Pid, Uid, chdir, dup2_stdin, execve, setgroups, setresgid, setresuid, setsid};

use super::{calls, domain, selftest};
use crate::error::{Failure, OrFail, Stage};
use crate::spec::Spec;
use crate::syscalls;
use crate::wire::Report;

/// Where a program without a slash is looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How many processes and threads the user of a command may have where no namespace counts them: on a node of many
/// containers, all those with the same id together.
const MOST_PROCESSES: u64 = 16_384;

/// What comes in the end, when nothing is left to be given up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The command.
    Command,
    /// A self-test, which tries to reach this process.
    Test(Pid),
}

/// Where a command is to run: what the namespaces around it leave to be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    /// The user and the group to become, where no user namespace shows the caller's own as another one.
    pub(super) user: Option<(u32, u32)>,
    /// Whether everything ends with the first process of a process id namespace.
    pub(super) own_processes: bool,
}

impl Situation {
    /// In namespaces of a user.
    pub(super) const NAMESPACES: Self = Self { user: None, own_processes: true };
}

/// Becomes the command; returns only when that failed. A self-test returns in any case.
pub(super) fn become_command(spec: &Spec, stdin: &OwnedFd, situation: Situation, purpose: Purpose) -> Report {
    let end = || {
        give_up_privileges(stdin, situation)?;
        enter_working_directory(spec)?;
        // A kernel without it, or without a part of it, is one where less is claimed.
        let enforced = domain::enter(spec);
        // Last, because it denies some of the above.
        filter_calls(spec)?;
        match purpose {
            Purpose::Command => Err(exec(spec)),
            Purpose::Test(outside) => selftest::run(spec, enforced, outside),
        }
    };
    end().map_or_else(Report::Failed, Report::Tested)
}

fn give_up_privileges(stdin: &OwnedFd, situation: Situation) -> Result<(), Failure> {
    let stage = Stage::Privileges;
    // A session of its own has no terminal whose input could be forged.
    setsid().or_fail(stage, || "setsid()".to_owned())?;
    dup2_stdin(stdin).or_fail(stage, || "dup2(stdin, 0)".to_owned())?;
    // Every descriptor above was opened to be closed on exec; this covers a mistake in that.
    syscalls::close_on_exec_from(3);
    // Who lacks the capability for it, in a container or under another sandbox, can gain none either: exec gives none
    // with `no_new_privs`, and the sets are emptied below.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(true) {
        syscalls::lock_securebits().or_fail(stage, || "prctl(PR_SET_SECUREBITS)".to_owned())?;
        syscalls::drop_bounding_set().or_fail(stage, || "prctl(PR_CAPBSET_DROP)".to_owned())?;
    }
    if let Some((uid, gid)) = situation.user {
        become_user(uid, gid)?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set)
            .map_err(|_| Failure::new(stage, format!("clear {set:?} capabilities"), Errno::EPERM))?;
    }
    if !situation.own_processes {
        // Where no namespace ends them all at once, there must be an end to them.
        setrlimit(Resource::RLIMIT_NPROC, MOST_PROCESSES, MOST_PROCESSES)
            .or_fail(stage, || format!("setrlimit(RLIMIT_NPROC, {MOST_PROCESSES})"))?;
        // Where no namespace ends with its first process, at least the command ends with the one that watches it.
        prctl::set_pdeathsig(Signal::SIGKILL).or_fail(stage, || "prctl(PR_SET_PDEATHSIG)".to_owned())?;
    }
    prctl::set_no_new_privs().or_fail(stage, || "prctl(PR_SET_NO_NEW_PRIVS)".to_owned())?;
    SigSet::empty().thread_set_mask().or_fail(stage, || "sigprocmask(SIG_SETMASK)".to_owned())
}

/// Becomes another user for good. Capabilities stay until they are cleared, because the securebits say so.
fn become_user(uid: u32, gid: u32) -> Result<(), Failure> {
    let stage = Stage::Privileges;
    setgroups(&[]).or_fail(stage, || "setgroups(0, NULL)".to_owned())?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(group, group, group).or_fail(stage, || format!("setresgid({gid}, {gid}, {gid})"))?;
    setresuid(user, user, user).or_fail(stage, || format!("setresuid({uid}, {uid}, {uid})"))
}

fn filter_calls(spec: &Spec) -> Result<(), Failure> {
    calls::filter(spec.network)
        .install()
        .or_fail(Stage::Privileges, || "seccomp(SECCOMP_SET_MODE_FILTER)".to_owned())
}

fn enter_working_directory(spec: &Spec) -> Result<(), Failure> {
    chdir(spec.cwd.as_str()).or_fail(Stage::WorkingDirectory, || format!("chdir({:?})", spec.cwd))
}

/// Executes the program, looked up like `execvp` does, but in the command's own PATH.
fn exec(spec: &Spec) -> Failure {
    let program = spec.argv[0].as_str();
    let call = |path: &str| format!("execve({path:?})");
    let Ok(argv) = strings(spec.argv.iter().cloned()) else {
        return Failure::new(Stage::Exec, call(program), Errno::EINVAL);
    };
    let Ok(environment) = strings(spec.env.iter().map(|(name, value)| format!("{name}={value}"))) else {
        return Failure::new(Stage::Exec, call(program), Errno::EINVAL);
    };
    let mut worst = Failure::new(Stage::Exec, call(program), Errno::ENOENT);
    for path in candidates(program, spec) {
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

fn candidates(program: &str, spec: &Spec) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = spec.env.iter().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    path.split(':').filter(|d| d.starts_with('/')).map(|d| format!("{d}/{program}")).collect()
}
