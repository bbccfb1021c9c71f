//! System calls that kernels and containers do not have, or deny: one filter for each set of them.

use lbx_sandbox::filter::{Action, Compare, Condition, Filter, Rule};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

use super::docker::numbers;

/// A set of calls, and how they fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Calls {
    /// `clone3`: not there, as before Linux 5.3 and under Docker's filter.
    Clone3,
    /// `openat2`: not there, as before Linux 5.6.
    Openat2,
    /// Landlock: not there, as before Linux 5.13.
    Landlock,
    /// Mounts of every kind: denied, as by filters and security modules.
    Mount,
    /// Sockets of every kind but those of this machine's processes among themselves: whoever asks for one is killed, so
    /// that nobody can say afterwards that nothing was asked.
    Sockets,
    /// New user namespaces: no room for any, as where `user.max_user_namespaces` is 0, but for one process.
    UserNamespaces,
}

impl Calls {
    /// The filter that takes them away.
    pub(super) fn filter(self) -> Filter {
        let numbers = numbers();
        let rule = |name: &str, errno: Errno, conditions: &[Condition]| {
            let number = *numbers.get(name).unwrap_or_else(|| panic!("no call has the name {name}"));
            let errno = u16::try_from(errno as i32).expect("error numbers are small");
            Rule { call: number, conditions: conditions.to_vec(), action: Action::Errno(errno) }
        };
        let all = |names: &[&str], errno| names.iter().map(|name| rule(name, errno, &[])).collect();
        let rules = match self {
            Self::Clone3 => all(&["clone3"], Errno::ENOSYS),
            Self::Openat2 => all(&["openat2"], Errno::ENOSYS),
            Self::Landlock => all(
                &["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"],
                Errno::ENOSYS,
            ),
            Self::Mount => all(
                &[
                    "mount",
                    "open_tree",
                    "move_mount",
                    "fsopen",
                    "fsconfig",
                    "fsmount",
                    "fspick",
                    "mount_setattr",
                ],
                Errno::EPERM,
            ),
            Self::Sockets => {
                let local = u64::from(nix::libc::AF_UNIX.unsigned_abs());
                let others = Condition::new(0, u64::from(u32::MAX), Compare::NotEqual, local);
                vec![Rule { action: Action::Kill, ..rule("socket", Errno::EPERM, &[others]) }]
            }
            Self::UserNamespaces => {
                let flag = u64::try_from(CloneFlags::CLONE_NEWUSER.bits()).expect("a flag");
                let wanted = [Condition::new(0, flag, Compare::Equal, flag)];
                vec![
                    rule("unshare", Errno::ENOSPC, &wanted),
                    rule("clone", Errno::ENOSPC, &wanted),
                    // Its flags are in memory, where no filter looks.
                    rule("clone3", Errno::ENOSYS, &[]),
                ]
            }
        };
        Filter { rules, otherwise: Action::Allow, beyond: None, foreign: Action::Allow }
    }
}
