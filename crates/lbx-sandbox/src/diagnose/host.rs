//! What the host says about itself. Looked at only to explain a denial that was met, never to predict one.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::statfs;
use nix::unistd::{geteuid, getpid};

/// Namespaces that the kernel counts, each with a setting of its own.
pub(super) const LIMITS: [&str; 6] = [
    "user.max_user_namespaces",
    "user.max_pid_namespaces",
    "user.max_ipc_namespaces",
    "user.max_uts_namespaces",
    "user.max_mnt_namespaces",
    "user.max_net_namespaces",
];

/// What it says.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// `kernel.unprivileged_userns_clone`, which only some distributions have.
    pub(super) userns_clone: Option<u64>,
    /// The limits that can be read.
    pub(super) limits: BTreeMap<&'static str, u64>,
    /// Yama's `ptrace_scope`.
    pub(super) ptrace_scope: Option<u64>,
    /// This process does not have the root directory of its mount namespace.
    pub(super) in_chroot: bool,
    /// There is a user namespace around this process already.
    pub(super) is_nested: bool,
    /// The user id of this process has no name in that namespace.
    pub(super) is_unmapped: bool,
    /// This is a root user who may not give files capabilities, and so, since Linux 5.12, not map its own id either.
    pub(super) is_weak_root: bool,
    /// Where the layers are, when stacking them was tried.
    pub(super) store: Option<FileSystem>,
}

/// A file system, as people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub(super) kind: String,
    pub(super) path: PathBuf,
}

impl Host {
    pub(super) fn read() -> Self {
        let setting = |name: &str| {
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            fs_err::read_to_string(path).ok()?.trim().parse().ok()
        };
        let limits = LIMITS.iter().filter_map(|name| Some((*name, setting(name)?)));
        let map = fs_err::read_to_string("/proc/self/uid_map").ok();
        Self {
            userns_clone: setting("kernel.unprivileged_userns_clone"),
            limits: limits.collect(),
            ptrace_scope: setting("kernel.yama.ptrace_scope"),
            in_chroot: in_chroot(),
            is_nested: map.as_deref().is_some_and(|map| !is_everything(map)),
            is_unmapped: map.is_some_and(|map| !holds(&map, geteuid().as_raw())),
            is_weak_root: geteuid().is_root() && !may_set_file_capabilities(),
            store: None,
        }
    }
}

fn may_set_file_capabilities() -> bool {
    caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SETFCAP).unwrap_or(true)
}

/// The lines of a map of ids: the first inside, the first outside, how many.
fn ranges(map: &str) -> impl Iterator<Item = [u64; 3]> {
    map.lines().filter_map(|line| {
        let numbers: Vec<_> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        numbers.try_into().ok()
    })
}

/// Whether this is the map of the namespace that the machine started with.
fn is_everything(map: &str) -> bool {
    ranges(map).eq([[0, 0, u64::from(u32::MAX)]])
}

fn holds(map: &str, id: u32) -> bool {
    ranges(map).any(|[first, _, count]| (first..first + count).contains(&u64::from(id)))
}

/// Found by comparing: a process sees only the mounts below its root, and its root is one unless it was changed; and
/// other processes of the same mount namespace have the root that this one would have.
fn in_chroot() -> bool {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let no_root = !mounts.is_empty() && !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"));
    no_root || ancestors().iter().any(|pid| other_root(*pid).unwrap_or(false))
}

/// Whether a process of this mount namespace has another root. Nothing is known of those that cannot be looked at.
fn other_root(pid: i32) -> Option<bool> {
    let namespace = |who: &str| fs_err::read_link(format!("/proc/{who}/ns/mnt")).ok();
    let root = |path: &str| fs_err::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    if namespace(&pid.to_string())? != namespace("self")? {
        return None;
    }
    Some(root(&format!("/proc/{pid}/root"))? != root("/")?)
}

/// The processes that led to this one, up to the first of the namespace.
fn ancestors() -> Vec<i32> {
    let mut found = Vec::new();
    let mut pid = getpid().as_raw();
    while let Some(parent) = parent(pid).filter(|parent| *parent > 0 && !found.contains(parent)) {
        found.push(parent);
        pid = parent;
    }
    found
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

impl FileSystem {
    /// The one that holds `path`.
    pub(super) fn of(path: &Path) -> Option<Self> {
        // The type of the number is not the same everywhere, and some make it negative.
        let magic = i128::from(statfs(path).ok()?.filesystem_type().0) & 0xffff_ffff;
        let kind = name(magic);
        Some(Self { kind, path: path.to_owned() })
    }
}

/// The name of a file system by the number that `statfs` gives. The kernel has it in `linux/magic.h`.
fn name(magic: i128) -> String {
    let name = match magic {
        0xef53 => "ext4",
        0x5846_5342 => "XFS",
        0x9123_683e => "btrfs",
        0xca45_1a4e => "bcachefs",
        0x2fc1_2fc1 => "ZFS",
        0xf2f5_2010 => "F2FS",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlayfs",
        0x6175_6673 => "aufs",
        0x6969 => "NFS",
        0x6573_5546 => "FUSE",
        0x0102_1997 => "9p",
        0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x00c3_6400 => "Ceph",
        0x5346_414f => "AFS",
        0xf15f => "eCryptfs",
        0x4d44 => "FAT",
        0x2011_bab0 => "exFAT",
        0x9fa0 => "proc",
        0x6265_6572 => "sysfs",
        other => return format!("a file system of the type {other:#x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_says_whether_there_is_a_namespace_around_and_whom_it_knows() {
        let first = "         0          0 4294967295\n";
        assert!(is_everything(first) && holds(first, 1000));
        let single = "      1000          0          1\n";
        assert!(!is_everything(single) && holds(single, 1000) && !holds(single, 0) && !holds(single, 1001));
        assert!(!is_everything("") && !holds("", 65_534), "nobody is in a map that was never written");
    }

    #[test]
    fn file_systems_have_names() {
        assert_eq!((name(0xef53), name(0x6969)), ("ext4".to_owned(), "NFS".to_owned()));
        assert_eq!(name(0x1234), "a file system of the type 0x1234");
        let proc = FileSystem::of(Path::new("/proc")).expect("a file system");
        assert_eq!(proc, FileSystem { kind: "proc".to_owned(), path: "/proc".into() });
        assert_eq!(FileSystem::of(Path::new("/there is no such path")), None);
    }

    #[test]
    fn this_process_has_ancestors_and_its_own_root() {
        assert_ne!(ancestors(), Vec::<i32>::new());
        assert_eq!(other_root(getpid().as_raw()), Some(false));
    }
}
