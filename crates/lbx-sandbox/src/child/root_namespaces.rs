//! The backend of a root user who may mount, where user namespaces are denied: the namespaces of `namespaces` without
//! one of users, in which the command becomes another user.
//!
//! What the image and the inputs have for their owner alone is shown to the command in copies, because it is no longer
//! the owner; what it writes to is its own for as long as it runs, and the caller's again afterwards.

use std::os::fd::OwnedFd;

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::fcntl::open;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, getegid, geteuid};

use super::mounts::PLACE;
use super::payload::Situation;
use super::{Isolate, Job, farm, namespaces};
use crate::backend::Backend;
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{Access, Bind, Network, Spec};

/// See the module.
pub(super) struct RootNamespaces;

impl Isolate for RootNamespaces {
    fn backend(&self) -> Backend {
        Backend::RootNamespaces
    }

    fn probe(&self, _: &Spec) -> Result<(), Failure> {
        let user = geteuid();
        if user.is_root() {
            Ok(())
        } else {
            let call = format!("make namespaces as the user {user}, without one of users");
            Err(Failure::new(Stage::Prepare, call, Errno::EPERM))
        }
    }

    fn run(&self, job: Job<'_>) -> Result<(), Failure> {
        let spec = job.spec;
        // Without the capability for it, there is no way into a network of its own, not even from inside.
        let own_network = matches!(spec.network, Network::None)
            || caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(false);
        let mut flags = namespaces::flags(spec);
        flags.set(CloneFlags::CLONE_NEWNET, own_network && spec.network != Network::Host);
        namespaces::make(flags)?;
        // Opened now: the first process takes the whole mount namespace, this process's paths included, elsewhere.
        let outputs = outputs(spec)?;
        let command = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
        let caller = (geteuid(), getegid());
        outputs.iter().try_for_each(|place| farm::give_all(place, caller.0, command, Stage::Binds))?;
        let situation = Situation { user: Some((spec.uid, spec.gid)), own_processes: true, own_network };
        let ended = namespaces::start(job, situation);
        outputs.iter().try_for_each(|place| farm::give_all(place, command.0, caller, Stage::Binds))?;
        ended
    }
}

/// The writable places.
fn outputs(spec: &Spec) -> Result<Vec<OwnedFd>, Failure> {
    let writable = spec.binds.iter().filter(|bind| bind.access == Access::ReadWrite);
    let open = |bind: &Bind| {
        let call = || format!("open({:?}, O_PATH|O_NOFOLLOW)", bind.source);
        open(&bind.source, PLACE, Mode::empty()).or_fail(Stage::Binds, call)
    };
    writable.map(open).collect()
}
