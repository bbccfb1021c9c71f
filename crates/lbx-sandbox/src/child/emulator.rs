//! The registry of who runs programs of other CPUs, one for a user namespace of ours alone. Nothing of it is mounted
//! anywhere: it is there for as long as its descriptor is open.

use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, openat};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::write;

use super::namespaces;
use crate::emulation::Emulator;
use crate::error::{Failure, OrFail, Stage};
use crate::syscalls;

/// Enters a user namespace in which the kernel runs programs of a CPU by an emulator, until what is returned is dropped.
///
/// The registry is the root user's, and the command is none: so this is one namespace around that of the command, which
/// has no registry and goes by this one.
pub(super) fn enter(emulator: &Emulator) -> Result<OwnedFd, Failure> {
    let stage = Stage::Prepare;
    namespaces::enter(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS, 0, 0)?;
    let mounted = syscalls::detached_mount(c"binfmt_misc")
        .or_fail(stage, || "fsmount(fsopen(\"binfmt_misc\"))".to_owned())?;
    let register = openat(&mounted, "register", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
        .or_fail(stage, || "openat(binfmt_misc, \"register\")".to_owned())?;
    let call = || format!("write(binfmt_misc/register, {:?})", emulator.program);
    write(&register, &emulator.registration()).or_fail(stage, call)?;
    Ok(mounted)
}
