//! Runs one command in an image's root under Linux namespaces, as an unprivileged user.
//!
//! The calling process, which may have any number of threads, never enters a namespace. It
//! re-executes itself (or another [`Launcher`]) and sends the new process a [`Spec`]. That process
//! makes the namespaces, assembles the root, becomes PID 1 for the command and sends back either the
//! call that failed or how the command ended. The child decides nothing: all policy is in the `Spec`.
//!
//! * [`init_if_child`] must be the first statement of `main`.
//! * [`Spec`] says what the command sees, [`Streams`] where its output goes.
//! * [`Launcher::spawn`] starts it, [`Running`] waits for it or kills it.
//! * [`Launcher::attach`] starts it in the foreground, with the caller's own streams or a terminal like the caller's.
//! * [`Launcher::overlay_supported`] says whether layers can be stacked without copying.
//! * [`Launcher::survey`] says which backends work here.
//! * [`Launcher::diagnose`] says which part of this host denies a sandbox, and what to do about it: a [`Remedy`], when
//!   it is a change to the machine.
//!
//! ```no_run
//! use lbx_sandbox::{Launcher, Root, Spec, Streams};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     lbx_sandbox::init_if_child();
//!     let spec = Spec::new(Root::Tree("/srv/rootfs".into()), ["/bin/true"]);
//!     let exit = Launcher::current_exe().spawn(&spec, Streams::inherit())?.wait()?;
//!     assert!(exit.success());
//!     Ok(())
//! }
//! ```
#![expect(
    clippy::unnecessary_debug_formatting,
    reason = "a failed call shows its arguments as one would write them, quoted and escaped"
)]

mod backend;
mod child;
mod diagnose;
mod emulation;
mod error;
pub mod filter;
mod group;
mod launch;
mod limits;
mod outputs;
mod relay;
mod remedy;
mod session;
mod spec;
mod survey;
mod syscalls;
mod terminal;
mod usage;
mod wire;

pub use backend::{Backend, Claims, Level};
pub use child::init_if_child;
pub use diagnose::{Diagnosis, Finding, Layer, Outcome, Overlay};
pub use emulation::{Emulator, Machine, NoEmulation};
pub use error::{Error, Failure, Stage};
pub use launch::{Chosen, End, Exit, KillHandle, Launcher, Running, Stream, Streams, Usage};
pub use limits::{Keeper, Limits, Reached};
pub use outputs::{Output, OutputError, outputs};
pub use remedy::{Remedy, Steps};
pub use session::{Remote, Session};
pub use spec::{Access, Bind, Changes, File, Network, Root, Spec, Tmpfs};
pub use usage::{bytes_in, room_in};

/// Has large memory be given back to the kernel as soon as it is freed, for the rest of this process. Without it, glibc keeps
/// as much as was freed at once in each thread, which with files of tens of megabytes is half of all that lbx needs.
pub fn give_back_large_memory() {
    syscalls::set_mmap_threshold(2 << 20);
}
