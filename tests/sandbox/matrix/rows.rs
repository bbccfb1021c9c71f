//! The table: hosts that lack something, and what lbx does on each.
//!
//! An expectation is a plain value, to be changed here when there are other backends.

use lbx_testkit::restrict::{Calls, Kept, Restriction};

use Restriction::{
    Capabilities, DockerCalls, ExecutableTmp, HostIds, NewPrivileges, Overlays, RealRoot, SharedMemory, User,
    UserNames, UserNamespaces, WholeProc, WritableHome,
};

/// A host.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) lacks: &'static [Restriction],
    /// What is in PATH; nothing else is.
    pub(crate) tool: Option<Tool>,
    /// Options of `lbx build`.
    pub(crate) options: &'static [&'static str],
    /// Where the store is.
    pub(crate) store: Store,
    seat: Seat,
}

/// A program that a backend may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// The system's own.
    Proot,
    /// The system's own.
    Bwrap,
    /// A copy that runs with root's rights.
    SetuidBwrap,
}

/// Where the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// Where `LBX_CACHE_DIR` says, in a place that rows share.
    Shared,
    /// The same, in a place of this row's own.
    Own,
    /// Below the home, because no variable says anything else.
    Default,
}

/// Who sits a row, and what comes of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seat {
    /// Root and others, with the same result.
    Both(Expected),
    /// Root and others.
    Each { root: Expected, user: Expected },
    /// Only root can lack this.
    Root(Expected),
    /// Root would take it from the whole host.
    User(Expected),
}

/// What comes of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The same zips as everywhere, in this backend with this level.
    Built { backend: &'static str, level: &'static str },
    /// This exit code, and words that name the cause.
    Refused { code: i32, because: &'static str },
}

impl Row {
    const fn new(name: &'static str, lacks: &'static [Restriction], seat: Seat) -> Self {
        Self { name, lacks, tool: None, options: &[], store: Store::Shared, seat }
    }

    const fn with(self, tool: Tool) -> Self {
        Self { tool: Some(tool), ..self }
    }

    const fn store(self, store: Store) -> Self {
        Self { store, ..self }
    }

    const fn options(self, options: &'static [&'static str]) -> Self {
        Self { options, ..self }
    }

    pub(crate) fn seat(&self) -> Seat {
        self.seat
    }
}

const fn built(backend: &'static str, level: &'static str) -> Expected {
    Expected::Built { backend, level }
}

/// Exit code 5: no sandbox.
const fn refused(because: &'static str) -> Expected {
    Expected::Refused { code: 5, because }
}

/// Namespaces, with everything that is promised of them.
const FULL: Expected = built("namespaces", "full");
/// Namespaces, with the processes of the container to be seen.
const SHARED_PROC: Expected = built("namespaces", "partial");
/// Namespaces made by root, where users have none.
const BY_ROOT: Expected = built("root-namespaces", "full");
/// Namespaces made by bubblewrap.
const BWRAP: Expected = built("bwrap", "full");
/// A container's root.
const CHROOT: Expected = built("chroot", "partial");
/// Tracing, held by Landlock.
const PROOT: Expected = built("proot", "partial");
/// The image's loader, held by Landlock.
const LOADER: Expected = built("loader", "partial");

const CLONE3: Restriction = Restriction::Calls(Calls::Clone3);
const OPENAT2: Restriction = Restriction::Calls(Calls::Openat2);
const LANDLOCK: Restriction = Restriction::Calls(Calls::Landlock);
const MOUNTS: Restriction = Restriction::Calls(Calls::Mount);
const ANY_USER_NAMESPACE: Restriction = Restriction::Calls(Calls::UserNamespaces);
const DOCKER: Restriction = Capabilities(Kept::Docker);
const ADMINISTRATOR: Restriction = Capabilities(Kept::Administrator);
const BARE: Restriction = Capabilities(Kept::None);
/// A user who has no name.
const OTHER: Restriction = User(62_001);

/// What a pod of the restricted standard lacks that forbids whatever it can.
const RESTRICTED_POD: &[Restriction] =
    &[NewPrivileges, DockerCalls, BARE, WholeProc, UserNames, WritableHome, SharedMemory, ExecutableTmp];

const DOCKER_FILTER: &str = "Docker's or containerd's default";

/// The hosts.
pub(crate) const ROWS: &[Row] = &[
    Row::new("nothing is missing", &[], Seat::Both(FULL)),
    // Older kernels, and filters that do not know newer calls.
    Row::new("no clone3", &[NewPrivileges, CLONE3], Seat::Both(FULL)),
    Row::new("no openat2", &[NewPrivileges, OPENAT2], Seat::Both(FULL)),
    Row::new("no Landlock", &[NewPrivileges, LANDLOCK], Seat::Both(FULL)),
    Row::new("none of the three", &[NewPrivileges, CLONE3, OPENAT2, LANDLOCK], Seat::Both(FULL)),
    // Privileges and ids.
    Row::new("no new privileges", &[NewPrivileges], Seat::Both(FULL)),
    // The first id of a user namespace's parent can be mapped only by who may give files capabilities (Linux 5.12).
    Row::new("no capabilities", &[BARE], Seat::Each { root: LOADER, user: FULL }),
    Row::new("another user", &[OTHER], Seat::Root(FULL)),
    Row::new("another user without a name", &[OTHER, UserNames], Seat::Root(FULL)),
    Row::new("no names of users", &[UserNames], Seat::Both(FULL)),
    Row::new("root of a user namespace", &[HostIds], Seat::Both(FULL)),
    // Namespaces and mounts.
    Row::new("no more user namespaces, as root of one", &[HostIds, UserNamespaces], Seat::Both(LOADER)),
    Row::new("no more user namespaces, as a user of one", &[UserNamespaces], Seat::User(LOADER)),
    Row::new(
        "no room for user namespaces",
        &[NewPrivileges, ANY_USER_NAMESPACE],
        Seat::Each { root: BY_ROOT, user: LOADER },
    ),
    Row::new("no room for user namespaces, and bwrap", &[ANY_USER_NAMESPACE, OTHER], Seat::Root(BWRAP))
        .with(Tool::SetuidBwrap),
    Row::new("no mounts", &[NewPrivileges, MOUNTS], Seat::Each { root: CHROOT, user: LOADER }),
    Row::new("no overlays", &[Overlays], Seat::Both(FULL)).store(Store::Own),
    Row::new("a chroot", &[RealRoot], Seat::Each { root: CHROOT, user: LOADER }),
    // Files.
    Row::new("a masked /proc", &[WholeProc], Seat::Both(SHARED_PROC)),
    Row::new("no /dev/shm", &[SharedMemory], Seat::Both(FULL)),
    Row::new("no programs in /tmp", &[ExecutableTmp], Seat::Both(FULL)),
    Row::new("a home that cannot be written to", &[WritableHome], Seat::Both(FULL)),
    Row::new(
        "the same, and no other place for the store",
        &[WritableHome],
        Seat::Both(Expected::Refused { code: 1, because: "let LBX_CACHE_DIR name a directory" }),
    )
    .store(Store::Default),
    // Containers.
    Row::new("Docker, root", &[DockerCalls, DOCKER, WholeProc], Seat::Root(CHROOT)),
    Row::new(
        "Docker, root, an old kernel and little else",
        &[DockerCalls, DOCKER, WholeProc, OPENAT2, LANDLOCK, SharedMemory, ExecutableTmp, UserNames],
        Seat::Root(CHROOT),
    ),
    Row::new(
        "Docker, root with SYS_ADMIN",
        &[DockerCalls, ADMINISTRATOR, WholeProc],
        Seat::Root(SHARED_PROC),
    ),
    Row::new(
        "Docker, root with SYS_ADMIN, no room for user namespaces",
        &[DockerCalls, ADMINISTRATOR, WholeProc, ANY_USER_NAMESPACE],
        Seat::Root(BY_ROOT),
    ),
    Row::new(
        "Docker without capabilities",
        &[NewPrivileges, DockerCalls, BARE, WholeProc],
        Seat::Both(LOADER),
    ),
    Row::new(
        "Docker without capabilities, and proot",
        &[NewPrivileges, DockerCalls, BARE, WholeProc],
        Seat::Both(PROOT),
    )
    .with(Tool::Proot),
    Row::new("Kubernetes, restricted", RESTRICTED_POD, Seat::Both(LOADER)),
    Row::new("Kubernetes, restricted, and proot", RESTRICTED_POD, Seat::Both(PROOT)).with(Tool::Proot),
    // Where nothing would hold the command, nothing is built unless that is asked for.
    Row::new(
        "Docker without capabilities on an old kernel",
        &[NewPrivileges, DockerCalls, BARE, WholeProc, LANDLOCK],
        Seat::Both(refused(DOCKER_FILTER)),
    ),
    Row::new(
        "Docker without capabilities on an old kernel, and whatever there is will do",
        &[NewPrivileges, DockerCalls, BARE, WholeProc, LANDLOCK],
        Seat::Both(built("loader", "none")),
    )
    .options(&["--require", "none"]),
];

/// Each backend by name, on a host that lacks nothing.
pub(crate) const FORCED: &[Row] = &[
    Row::new("namespaces", &[], Seat::Both(FULL)).options(&["--backend", "namespaces"]),
    Row::new("root-namespaces", &[], Seat::Each { root: BY_ROOT, user: refused("as the user") })
        .options(&["--backend", "root-namespaces"]),
    Row::new("bwrap", &[], Seat::Both(BWRAP)).options(&["--backend", "bwrap"]).with(Tool::Bwrap),
    Row::new("chroot", &[], Seat::Each { root: CHROOT, user: refused("as the user") })
        .options(&["--backend", "chroot"]),
    Row::new("proot", &[], Seat::Both(PROOT)).options(&["--backend", "proot"]).with(Tool::Proot),
    Row::new("loader", &[], Seat::Both(LOADER)).options(&["--backend", "loader"]),
];

/// A container of podman and runc.
pub(crate) struct Container {
    pub(crate) name: &'static str,
    pub(crate) profile: Profile,
    /// A user without capabilities and without a way to more privileges; else root.
    pub(crate) user: Option<u32>,
    pub(crate) expected: Expected,
}

/// What a container is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// podman's defaults.
    Podman,
    /// Docker's profile of system calls, and for root its capabilities.
    Docker,
    /// What `lbx doctor --docker` prints.
    Doctor,
}

/// The containers.
pub(crate) const CONTAINERS: &[Container] = &[
    Container { name: "podman, root", profile: Profile::Podman, user: None, expected: SHARED_PROC },
    Container { name: "podman, a user", profile: Profile::Podman, user: Some(1000), expected: SHARED_PROC },
    Container { name: "Docker, root", profile: Profile::Docker, user: None, expected: CHROOT },
    Container { name: "Docker, a user", profile: Profile::Docker, user: Some(1000), expected: LOADER },
    Container { name: "doctor, root", profile: Profile::Doctor, user: None, expected: FULL },
    Container { name: "doctor, a user", profile: Profile::Doctor, user: Some(1000), expected: FULL },
];
