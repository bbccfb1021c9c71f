//! Takes things away from a process before it becomes another program, as containers and hardened hosts do.
//!
//! A [`Restriction`] is one thing that is gone. Any set of them composes: they are applied in the order of the enum,
//! so that none takes away what a later one needs. A restriction is for the thread that applies it and all that it
//! becomes, so tests apply them in a process of their own: the test program executed again, for one ignored test that
//! calls [`become_planned_program`].
//!
//! | module | takes away |
//! |---|---|
//! | `calls` | system calls, by filters |
//! | `docker` | what Docker does not leave to a container |
//! | `surroundings` | files, folders and devices, by mounts in a mount namespace |

mod calls;
mod docker;
mod surroundings;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use caps::{CapSet, Capability};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use serde::{Deserialize, Serialize};

pub use calls::Calls;

/// One thing that is gone. The order of these is the order in which they are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Restriction {
    /// The host's ids and capabilities: a user namespace with one id, whose user holds all capabilities in it.
    HostIds,
    /// Further user namespaces: `user.max_user_namespaces` is 0. The limit is that of a user namespace; root must ask for
    /// one of its own too, with [`HostIds`](Self::HostIds), or it would be the host's.
    UserNamespaces,
    /// A home that can be written to: `HOME` is an empty read-only file system.
    WritableHome,
    /// A place for overlays: the store, `LBX_CACHE_DIR`, is on one itself. There the kernel makes no whiteouts, which is
    /// how overlays are refused in containers. (A filter of system calls could refuse all mounts, but not those of one
    /// kind, because it does not see the words that arguments point to.)
    Overlays,
    /// Programs in `/tmp`: it is mounted with `noexec`, and empty.
    ExecutableTmp,
    /// Shared memory: there is no `/dev/shm`.
    SharedMemory,
    /// The names of users: `/etc/passwd` is empty.
    UserNames,
    /// What Docker masks in `/proc` and `/sys`, and the right to write to what it makes read-only.
    WholeProc,
    /// The real root directory: a chroot in a copy of it, made of binds.
    RealRoot,
    /// The way to privileges by executing: `no_new_privs`.
    NewPrivileges,
    /// The system calls that Docker's default profile denies to a process with its capabilities.
    DockerCalls,
    /// Some system calls.
    Calls(Calls),
    /// The user: it becomes another one, without groups.
    User(u32),
    /// Capabilities, all but these.
    Capabilities(Kept),
}

/// Which capabilities stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kept {
    /// Those of a container's root.
    Docker,
    /// Those of a container's root, and the one to administer: `docker run --cap-add=SYS_ADMIN`.
    Administrator,
    /// None.
    None,
}

/// `docker run`, as root, but for its masked `/proc`.
pub const DOCKER_ROOT: &[Restriction] = &[Restriction::DockerCalls, Restriction::Capabilities(Kept::Docker)];

/// `docker run --cap-drop=ALL --security-opt no-new-privileges`, as whatever user, but for its masked `/proc`.
pub const DOCKER_BARE: &[Restriction] =
    &[Restriction::NewPrivileges, Restriction::DockerCalls, Restriction::Capabilities(Kept::None)];

/// Docker's default profile of system calls, as container runtimes read it.
pub const DOCKER_PROFILE: &str = docker::PROFILE;

/// Docker's default capabilities, by name.
pub fn docker_capabilities() -> Vec<String> {
    docker::CAPABILITIES.iter().map(ToString::to_string).collect()
}

/// The variable that carries the plan to the process that carries it out.
const PLAN: &str = "LBX_TEST_RESTRICTED";

/// What is to be taken away, and what to become then.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    restrictions: Vec<Restriction>,
    program: Vec<String>,
    home: Option<PathBuf>,
    store: Option<PathBuf>,
    /// Whether this runs in a user namespace that was made only for what follows, in which the user is itself.
    borrowed_namespace: bool,
}

/// `command` under restrictions: the running test program again, for the ignored test `helper`, which must call
/// [`become_planned_program`].
///
/// Root makes mounts in a mount namespace. Another user needs a user namespace for that, in which it keeps its id, and
/// has no capabilities left when it becomes the command.
pub fn wrap(restrictions: &[Restriction], command: &Command, helper: &str) -> Command {
    let text = |text: &OsStr| text.to_str().expect("UTF-8").to_owned();
    let variable = |wanted: &str| {
        let mut all = command.get_envs();
        all.find(|(name, _)| *name == wanted).and_then(|(_, value)| value).map(PathBuf::from)
    };
    let mut restrictions = restrictions.to_vec();
    restrictions.sort_unstable();
    let own_ids = restrictions.contains(&Restriction::HostIds);
    let namespace = restrictions.iter().any(|one| one.needs_namespace());
    let plan = Plan {
        borrowed_namespace: namespace && !own_ids && !Uid::effective().is_root(),
        restrictions,
        program: std::iter::once(command.get_program()).chain(command.get_args()).map(text).collect(),
        home: variable("HOME"),
        store: variable("LBX_CACHE_DIR"),
    };
    let own = std::env::current_exe().expect("this program has a path");
    // A process with threads, as every test is, cannot enter a user namespace.
    let mut wrapped = match (own_ids, plan.borrowed_namespace) {
        (true, _) => unshare(&["--map-root-user"], &own),
        (_, true) => unshare(&["--map-current-user", "--keep-caps"], &own),
        (false, false) => Command::new(own),
    };
    wrapped.args(["--exact", helper, "--ignored", "--nocapture", "--quiet"]).env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    wrapped.env(PLAN, serde_json::to_string(&plan).expect("JSON"));
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}

/// A program in a user namespace with one id.
fn unshare(map: &[&str], program: &Path) -> Command {
    let mut command = Command::new("/usr/bin/unshare");
    command.arg("--user").args(map).arg("--").arg(program);
    command
}

/// Becomes the program that [`wrap`] planned; returns when there is no plan.
#[expect(
    clippy::disallowed_methods,
    reason = "the environment is how the plan comes, and the directory stays"
)]
pub fn become_planned_program() {
    use std::os::unix::process::CommandExt;
    let Ok(plan) = std::env::var(PLAN) else { return };
    let plan: Plan = serde_json::from_str(&plan).expect("a plan");
    let directory = std::env::current_dir().expect("a directory");
    plan.carry_out();
    let mut command = Command::new(&plan.program[0]);
    // Entered by its name again: it may be another one below a new root and new mounts.
    command.args(&plan.program[1..]).env_remove(PLAN).current_dir(directory);
    let error = command.exec();
    panic!("cannot execute {}: {error}", plan.program[0]);
}

impl Restriction {
    fn needs_namespace(self) -> bool {
        Self::UserNamespaces <= self && self <= Self::RealRoot
    }
}

impl Plan {
    fn carry_out(&self) {
        if self.restrictions.iter().any(|one| one.needs_namespace()) {
            surroundings::enter_mount_namespace();
        }
        for restriction in &self.restrictions {
            self.apply(*restriction);
        }
        if self.borrowed_namespace {
            // They were kept through one execution, for the mounts, and would be kept through the next.
            keep_capabilities(&[]);
        }
    }

    fn apply(&self, restriction: Restriction) {
        let needed = |path: &Option<PathBuf>, name: &str| {
            path.clone().unwrap_or_else(|| panic!("the command has no {name}"))
        };
        match restriction {
            // Made by `unshare`, before this process.
            Restriction::HostIds => {}
            Restriction::UserNamespaces => {
                let own = self.borrowed_namespace || self.restrictions.contains(&Restriction::HostIds);
                assert!(own, "this would be the limit of the host");
                surroundings::forbid_user_namespaces();
            }
            Restriction::WritableHome => surroundings::read_only(&needed(&self.home, "HOME")),
            Restriction::Overlays => surroundings::put_on_overlay(&needed(&self.store, "LBX_CACHE_DIR")),
            Restriction::ExecutableTmp => surroundings::no_programs(Path::new("/tmp")),
            Restriction::SharedMemory => surroundings::no_shared_memory(),
            Restriction::UserNames => surroundings::empty(Path::new("/etc/passwd")),
            Restriction::WholeProc => surroundings::mask_as_docker(),
            Restriction::RealRoot => surroundings::change_root(),
            Restriction::NewPrivileges => {
                nix::sys::prctl::set_no_new_privs().expect("allowed to everybody");
            }
            Restriction::DockerCalls => {
                docker::filter(&self.kept()).install().expect("the kernel takes the filter");
            }
            Restriction::Calls(calls) => calls.filter().install().expect("the kernel takes the filter"),
            Restriction::User(id) => become_user(id),
            Restriction::Capabilities(_) => keep_capabilities(&self.kept()),
        }
    }

    /// The capabilities that are left in the end.
    fn kept(&self) -> Vec<Capability> {
        let left = self.restrictions.iter().find_map(|one| match one {
            Restriction::Capabilities(kept) => Some(*kept),
            _ => None,
        });
        match left {
            None => caps::all().into_iter().collect(),
            Some(Kept::Docker) => docker::CAPABILITIES.to_vec(),
            Some(Kept::Administrator) => [&docker::CAPABILITIES[..], &[Capability::CAP_SYS_ADMIN]].concat(),
            Some(Kept::None) => Vec::new(),
        }
    }
}

/// Becomes a user without groups. The first user's capabilities go with it.
fn become_user(id: u32) {
    setgroups(&[]).expect("root has no groups");
    setgid(Gid::from_raw(id)).expect("root may have any group");
    setuid(Uid::from_raw(id)).expect("root may be anybody");
}

/// Gives up all capabilities but these, also those that programs could give back.
fn keep_capabilities(kept: &[Capability]) {
    let held = caps::read(None, CapSet::Effective).expect("capabilities");
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::all().into_iter().filter(|one| !kept.contains(one)) {
            // One that this kernel does not know.
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    caps::clear(None, CapSet::Ambient).expect("giving up is allowed");
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        let now = caps::read(None, set).expect("capabilities");
        let left = now.into_iter().filter(|one| kept.contains(one)).collect();
        caps::set(None, set, &left).expect("giving up is allowed");
    }
}
