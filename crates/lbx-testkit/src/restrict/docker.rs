//! Docker's defaults: the profile of system calls, compiled by the sandbox's own compiler, the capabilities of a
//! container's root, and the parts of `/proc` and `/sys` that are hidden or read-only.

use std::collections::HashMap;
use std::path::Path;

use caps::Capability;
use lbx_sandbox::filter::{Action, Compare, Condition, Filter, Rule};
use serde::Deserialize;

/// Docker's default profile, from <https://github.com/moby/profiles>.
pub(super) const PROFILE: &str = include_str!("../../data/docker-seccomp-default.json");
/// What Docker leaves to the root user of a container.
pub(super) const CAPABILITIES: [Capability; 14] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_KILL,
    Capability::CAP_AUDIT_WRITE,
];
/// What a container does not see: `DefaultSpec` of moby's `oci` package. A folder is empty, a file is `/dev/null`.
pub(super) const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What it does not change, from the same place.
pub(super) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Where the names of calls have their numbers.
const NUMBERS: [&str; 3] = [
    "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "/usr/include/asm-generic/unistd.h",
    "/usr/include/asm/unistd_64.h",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Option<Scope>,
    #[serde(default)]
    excludes: Option<Scope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
struct Scope {
    #[serde(default)]
    arches: Vec<String>,
    #[serde(default)]
    caps: Vec<String>,
}

/// Docker's profile for a container with these capabilities.
pub(super) fn filter(kept: &[Capability]) -> Filter {
    let profile: Profile = serde_json::from_str(PROFILE).expect("the profile");
    let numbers = numbers();
    let mut rules = Vec::new();
    for entry in profile.syscalls.iter().filter(|entry| entry.applies(kept)) {
        for number in entry.names.iter().filter_map(|name| numbers.get(name)) {
            rules.push(Rule { call: *number, conditions: entry.conditions(), action: entry.action() });
        }
    }
    assert!(rules.len() > 300, "the profile and the numbers of the calls fit together");
    let denied = Action::Errno(1);
    Filter { rules, otherwise: denied, beyond: None, foreign: denied }
}

impl Entry {
    fn applies(&self, kept: &[Capability]) -> bool {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let holds = |scope: &Scope| {
            (scope.arches.is_empty() || scope.arches.iter().any(|one| one == arch))
                && scope.caps.iter().all(|name| kept.iter().any(|one| one.to_string() == *name))
        };
        self.includes.as_ref().is_none_or(holds)
            && !self.excludes.as_ref().is_some_and(|scope| {
                !(scope.caps.is_empty() && scope.arches.is_empty()) && excluded(scope, arch, kept)
            })
    }

    fn action(&self) -> Action {
        match self.action.as_str() {
            "SCMP_ACT_ALLOW" => Action::Allow,
            "SCMP_ACT_ERRNO" => Action::Errno(self.errno_ret.unwrap_or(1)),
            other => panic!("an action that is not known: {other}"),
        }
    }

    fn conditions(&self) -> Vec<Condition> {
        self.args.iter().flatten().map(Argument::condition).collect()
    }
}

/// One reason is enough to be excluded.
fn excluded(scope: &Scope, arch: &str, kept: &[Capability]) -> bool {
    scope.arches.iter().any(|one| one == arch)
        || scope.caps.iter().any(|name| kept.iter().any(|one| one.to_string() == *name))
}

impl Argument {
    fn condition(&self) -> Condition {
        let (mask, compare, value) = match self.op.as_str() {
            "SCMP_CMP_EQ" => (u64::MAX, Compare::Equal, self.value),
            "SCMP_CMP_NE" => (u64::MAX, Compare::NotEqual, self.value),
            "SCMP_CMP_LT" => (u64::MAX, Compare::Less, self.value),
            "SCMP_CMP_LE" => (u64::MAX, Compare::LessOrEqual, self.value),
            "SCMP_CMP_GT" => (u64::MAX, Compare::Greater, self.value),
            "SCMP_CMP_GE" => (u64::MAX, Compare::GreaterOrEqual, self.value),
            "SCMP_CMP_MASKED_EQ" => (self.value, Compare::Equal, self.value_two),
            other => panic!("a comparison that is not known: {other}"),
        };
        Condition::new(self.index, mask, compare, value)
    }
}

/// The numbers of this architecture's calls, from the C library's headers.
pub(super) fn numbers() -> HashMap<String, u32> {
    let header = NUMBERS.iter().find(|path| Path::new(path).exists());
    let header = header.expect("the headers of the C library; `apt-get install libc6-dev` brings them");
    let text = fs_err::read_to_string(header).expect("a header");
    let define = |line: &str| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    };
    text.lines().filter_map(define).collect()
}
