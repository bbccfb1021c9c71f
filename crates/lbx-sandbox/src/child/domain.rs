//! The Landlock domain of the command: what it may write, and whom it may reach, whatever else allows it.
//!
//! Each part is either enforced whole or absent, and the result says which: the kernel has had one since 6.2 (files)
//! and the other since 6.12 (signals and abstract sockets).

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope, path_beneath_rules,
};

use serde::{Deserialize, Serialize};

use crate::spec::{Access, Network, Spec};

/// What a domain enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enforced {
    /// Only the writable places of the specification can be written.
    pub(super) files: bool,
    /// Processes and abstract sockets outside are out of reach.
    pub(super) scope: bool,
    /// Nothing but what the caller serves can be connected to. The filter's part, or that of a network of its own.
    pub(super) network: bool,
}

/// The first one that lets files be truncated and moved between directories by rule: before it, builds would fail.
const FILES: ABI = ABI::V3;

/// What a domain leaves: everything below these paths, as they are called where the domain is entered. Paths that do
/// not exist are passed over.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// What may be read and executed.
    pub(super) read: Vec<PathBuf>,
    /// What may be written too.
    pub(super) write: Vec<PathBuf>,
    /// What may be connected to.
    pub(super) network: Network,
}

impl Rules {
    /// In a root of its own, all of it may be read.
    pub(super) fn in_root(spec: &Spec) -> Self {
        let binds = spec.binds.iter().filter(|bind| bind.access == Access::ReadWrite);
        let writable = binds.map(|bind| &bind.target).chain(spec.tmpfs.iter().map(|tmpfs| &tmpfs.target));
        if spec.administers() {
            // What is not to be written is mounted so.
            return Self { read: vec!["/".into()], write: vec!["/".into()], network: spec.network };
        }
        // The devices that hold nothing, and shared memory.
        let write = std::iter::once("/dev".into()).chain(writable.map(PathBuf::from)).collect();
        Self { read: vec!["/".into()], write, network: spec.network }
    }
}

/// Puts this process, which must have `no_new_privs`, and all that it becomes into a domain.
///
/// One domain for all parts: any domain forbids moving files between directories unless it says where that is allowed.
pub(super) fn enter(rules: &Rules) -> Enforced {
    if restrict(rules, true).is_ok() {
        return Enforced { files: true, scope: true, network: false };
    }
    Enforced { files: restrict(rules, false).is_ok(), scope: false, network: false }
}

/// What is asked of the kernel for a whole domain, as the numbers of the call: files, network and scopes.
pub(super) fn everything() -> [u64; 3] {
    let scopes = Scope::AbstractUnixSocket | Scope::Signal;
    [AccessFs::from_all(FILES).bits(), AccessNet::from_all(ABI::V4).bits(), scopes.bits()]
}

/// With `scope`, also what came with and before it: the network, which the kernel has had since 6.7.
fn restrict(rules: &Rules, scope: bool) -> Result<(), landlock::RulesetError> {
    let (everything, reading) = (AccessFs::from_all(FILES), AccessFs::from_read(FILES));
    let mut ruleset = ruleset().handle_access(everything)?;
    if scope {
        ruleset = ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal)?;
        if rules.network != Network::Host {
            ruleset = ruleset.handle_access(AccessNet::from_all(ABI::V4))?;
        }
    }
    let mut ruleset = ruleset.create()?;
    if let (Network::Served(port), true) = (rules.network, scope) {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    ruleset
        .add_rules(path_beneath_rules(&rules.read, reading))?
        .add_rules(path_beneath_rules(&rules.write, everything))?
        .restrict_self()
        .map(drop)
}

fn ruleset() -> Ruleset {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_can_be_moved_and_truncated_in_what_is_handled() {
        let handled = AccessFs::from_all(FILES);
        assert!(handled.contains(AccessFs::Refer | AccessFs::Truncate));
    }
}
