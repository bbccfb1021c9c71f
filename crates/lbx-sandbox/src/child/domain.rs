//! The Landlock domain of the command: what it may write, and whom it may reach, whatever else allows it.
//!
//! Each part is either enforced whole or absent, and the result says which: the kernel has had one since 6.2 (files)
//! and the other since 6.12 (signals and abstract sockets).

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
    path_beneath_rules,
};

use crate::spec;

/// What a domain enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Enforced {
    /// Only the writable places of the specification can be written.
    pub(super) files: bool,
    /// Processes and abstract sockets outside are out of reach.
    pub(super) scope: bool,
}

/// The first one that lets files be truncated and moved between directories by rule: before it, builds would fail.
const FILES: ABI = ABI::V3;

/// Puts this process, which must have `no_new_privs`, and all that it becomes into a domain.
///
/// One domain for both parts: any domain forbids moving files between directories unless it says where that is allowed.
pub(super) fn enter(spec: &spec::Spec) -> Enforced {
    if restrict(spec, true).is_ok() {
        return Enforced { files: true, scope: true };
    }
    Enforced { files: restrict(spec, false).is_ok(), scope: false }
}

fn restrict(spec: &spec::Spec, scope: bool) -> Result<(), landlock::RulesetError> {
    let (everything, reading) = (AccessFs::from_all(FILES), AccessFs::from_read(FILES));
    let binds = spec.binds.iter().filter(|bind| bind.access == spec::Access::ReadWrite);
    let writable = binds.map(|bind| &bind.target).chain(spec.tmpfs.iter().map(|tmpfs| &tmpfs.target));
    let ruleset = ruleset().handle_access(everything)?;
    let ruleset = if scope { ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal)? } else { ruleset };
    ruleset
        .create()?
        .add_rules(path_beneath_rules(["/"], reading))?
        // The devices that hold nothing, and shared memory.
        .add_rules(path_beneath_rules(["/dev"], everything))?
        .add_rules(path_beneath_rules(writable, everything))?
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
