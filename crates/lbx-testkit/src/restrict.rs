//! Takes things away from a process before it becomes another program, as containers do: Docker's real default filter of
//! system calls, capabilities, privileges.
//!
//! A restriction is for the thread that applies it and all that it becomes. Tests apply it in a process of their own:
//! the test program executed again, for one ignored test that calls [`become_planned_program`].

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use caps::{CapSet, Capability};
use lbx_sandbox::filter::{Action, Compare, Condition, Filter, Rule};
use serde::{Deserialize, Serialize};

/// Docker's default profile, from <https://github.com/moby/profiles>.
const DOCKER: &str = include_str!("../data/docker-seccomp-default.json");
/// What Docker leaves to the root user of a container.
const DOCKER_CAPABILITIES: [Capability; 14] = [
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
/// Where the names of calls have their numbers.
const NUMBERS: [&str; 3] = [
    "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "/usr/include/asm-generic/unistd.h",
    "/usr/include/asm/unistd_64.h",
];

/// What a process is left with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restrictions {
    /// Docker's filter of system calls.
    pub docker_filter: bool,
    /// Which capabilities.
    pub capabilities: Kept,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
}

/// Which capabilities stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// All that there are.
    All,
    /// Those of a container's root.
    Docker,
    /// None.
    None,
}

/// The variable that carries the restrictions and the program to the process that becomes it.
pub const PLAN: &str = "LBX_TEST_RESTRICTED";

impl Restrictions {
    /// `docker run`, as root.
    pub const DOCKER_ROOT: Self =
        Self { docker_filter: true, capabilities: Kept::Docker, no_new_privileges: false };
    /// `docker run --cap-drop=ALL --security-opt no-new-privileges`, as whatever user.
    pub const DOCKER_BARE: Self =
        Self { docker_filter: true, capabilities: Kept::None, no_new_privileges: true };

    /// `command` under these restrictions: the running test program again, for the ignored test `helper`, which must
    /// call [`become_planned_program`].
    pub fn wrap(&self, command: &Command, helper: &str) -> Command {
        let text = |text: &std::ffi::OsStr| text.to_str().expect("UTF-8").to_owned();
        let program: Vec<_> =
            std::iter::once(command.get_program()).chain(command.get_args()).map(text).collect();
        let own = std::env::current_exe().expect("this program has a path");
        let mut wrapped = Command::new(own);
        wrapped.args(["--exact", helper, "--ignored", "--nocapture", "--quiet"]).env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                wrapped.env(name, value);
            }
        }
        wrapped.env(PLAN, serde_json::to_string(&(self, program)).expect("JSON"));
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        wrapped
    }

    fn apply(self) {
        let kept: Vec<Capability> = match self.capabilities {
            Kept::All => caps::all().into_iter().collect(),
            Kept::Docker => DOCKER_CAPABILITIES.to_vec(),
            Kept::None => Vec::new(),
        };
        // The filter first, unless it needs what goes: without `no_new_privs`, only who administers may set one.
        if self.no_new_privileges {
            nix::sys::prctl::set_no_new_privs().expect("allowed to everybody");
        }
        let filter = self.docker_filter.then(|| docker_filter(&kept));
        if let Some(filter) = &filter {
            filter.install().expect("the kernel takes the filter");
        }
        if self.capabilities != Kept::All {
            let held = caps::read(None, CapSet::Effective).expect("capabilities");
            if held.contains(&Capability::CAP_SETPCAP) {
                for capability in caps::all().into_iter().filter(|one| !kept.contains(one)) {
                    // One that this kernel does not know.
                    let _ = caps::drop(None, CapSet::Bounding, capability);
                }
            }
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
                let now = caps::read(None, set).expect("capabilities");
                let left = now.into_iter().filter(|one| kept.contains(one)).collect();
                caps::set(None, set, &left).expect("giving up is allowed");
            }
        }
    }
}

/// Becomes the program that [`Restrictions::wrap`] planned; returns when there is no plan.
#[expect(clippy::disallowed_methods, reason = "the environment is how the plan comes")]
pub fn become_planned_program() {
    use std::os::unix::process::CommandExt;
    let Ok(plan) = std::env::var(PLAN) else { return };
    let (restrictions, program): (Restrictions, Vec<String>) = serde_json::from_str(&plan).expect("a plan");
    restrictions.apply();
    let error = Command::new(&program[0]).args(&program[1..]).env_remove(PLAN).exec();
    panic!("cannot execute {}: {error}", program[0]);
}

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
fn docker_filter(kept: &[Capability]) -> Filter {
    let profile: Profile = serde_json::from_str(DOCKER).expect("the profile");
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
fn numbers() -> HashMap<String, u32> {
    let header = NUMBERS.iter().find(|path| Path::new(path).exists());
    let header = header.expect("the headers of the C library; `apt-get install libc6-dev` brings them");
    let text = fs_err::read_to_string(header).expect("a header");
    let define = |line: &str| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    };
    text.lines().filter_map(define).collect()
}
