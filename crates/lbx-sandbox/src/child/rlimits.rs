//! Limits of each process, for what no control group counts.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::wait::waitpid;

use crate::error::{Failure, OrFail, Stage};
use crate::limits::Limits;
use crate::syscalls;

/// How many processes the command may have where no namespace ends them all at once, when nothing else is said.
const MOST_PROCESSES: u64 = 16_384;

/// More processes than there are so far in a namespace where they are counted from nothing.
const FEW: u64 = 8;

/// The kernel gives out no process id below this one a second time.
const RESERVED_IDS: u64 = 300;

/// The largest `pid_max`.
const MOST_IDS: u64 = 4 << 20;

/// Limits this process and all that it becomes. It must be the user that the command will be. `own_processes` is whether
/// a namespace ends them all at once.
pub(super) fn apply(limits: &Limits, own_processes: bool) -> Result<(), Failure> {
    if let Some(wanted) = limits.processes.or((!own_processes).then_some(MOST_PROCESSES)) {
        limit(Resource::RLIMIT_NPROC, wanted.saturating_add(others()?))?;
    }
    // What a process can write to, and not the addresses that it reserves: those cost nothing, and the runtimes of Go
    // and JavaScript reserve more than any machine has.
    for (resource, wanted) in [
        (Resource::RLIMIT_DATA, limits.memory),
        (Resource::RLIMIT_FSIZE, limits.file_size),
        (Resource::RLIMIT_NOFILE, limits.open_files),
    ] {
        if let Some(wanted) = wanted {
            limit(resource, wanted)?;
        }
    }
    Ok(())
}

/// Lowers a limit for good.
fn limit(resource: Resource, wanted: u64) -> Result<(), Failure> {
    let call = || format!("setrlimit({resource:?}, {wanted})");
    let (_, hard) = getrlimit(resource).or_fail(Stage::Privileges, call)?;
    let wanted = wanted.min(hard);
    setrlimit(resource, wanted, wanted).or_fail(Stage::Privileges, call)
}

/// How many processes the kernel counts for this user that are none of the command's.
///
/// Since Linux 5.14 it counts those in a user namespace apart, and there are next to none. Before, and where there is no
/// such namespace, all of the same user on the whole machine count, and nothing tells how many that is but trying.
fn others() -> Result<u64, Failure> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC)
        .or_fail(Stage::Privileges, || "getrlimit(RLIMIT_NPROC)".to_owned())?;
    let call = || "setrlimit(RLIMIT_NPROC)".to_owned();
    let allow = |count: u64| {
        setrlimit(Resource::RLIMIT_NPROC, count.min(hard), hard).or_fail(Stage::Privileges, call)
    };
    allow(0)?;
    let asks = match syscalls::clone3_impossible() {
        Errno::EAGAIN => true,
        // It has looked at the id, though there may be no process at all: this is a user whom it does not limit.
        Errno::EINVAL => return Ok(0),
        // Too old for the question, or filtered.
        _ => false,
    };
    let fits = |count: u64| {
        allow(count)?;
        if asks { Ok(syscalls::clone3_impossible() != Errno::EAGAIN) } else { one_more() }
    };
    if fits(FEW)? {
        return Ok(0);
    }
    let (mut too_few, mut enough) = (FEW, hard.min(MOST_IDS));
    while enough - too_few > 1 {
        let middle = u64::midpoint(too_few, enough);
        if fits(middle)? { enough = middle } else { too_few = middle }
    }
    Ok(enough)
}

/// Whether one more process can be started.
fn one_more() -> Result<bool, Failure> {
    match syscalls::fork() {
        Ok(None) => syscalls::exit_now(0),
        Ok(Some(child)) => {
            waitpid(child, None).or_fail(Stage::Privileges, || format!("waitpid({child})"))?;
            Ok(true)
        }
        Err(Errno::EAGAIN) => Ok(false),
        Err(errno) => Err(Failure::new(Stage::Privileges, "fork()", errno)),
    }
}

/// Limits how many ids there are in the process id namespace that this process is the first of, since Linux 6.14: where
/// the user is the machine's root, no other limit of a process holds.
pub(super) fn bound_ids(limits: &Limits) {
    let Some(processes) = limits.processes else { return };
    let release = fs_err::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // Before, the same file is the whole machine's, and root could write it: this cannot be found out by trying.
    if nix::unistd::getpid().as_raw() == 1 && is_since(&release, (6, 14)) {
        let most = processes.saturating_add(RESERVED_IDS + 2).min(MOST_IDS);
        // Where /proc is read-only, as in most containers, the other limit has to do.
        let _ = fs_err::write("/proc/sys/kernel/pid_max", most.to_string());
    }
}

/// Whether a kernel's release is this version or later. What is no version is none.
fn is_since(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= version,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_since;

    #[test]
    fn only_kernels_that_are_known_to_be_new_are_new() {
        for new in ["6.14.0", "6.18.44-fc-v657\n", "7.0-rc1", "10.2.3"] {
            assert!(is_since(new, (6, 14)), "{new}");
        }
        for old in ["6.13.9", "5.14.0-427.el9.x86_64", "4.4.0", "", "six.fourteen", "6", "6.x"] {
            assert!(!is_since(old, (6, 14)), "{old}");
        }
    }
}
