//! What a process finds around it, changed by mounts in a mount namespace of its own. It goes with the last process in
//! it; nothing has to be undone.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::docker;

/// Where the new root and the new `/dev` are put together: a folder that every system has and no test needs.
const WORKBENCH: &str = "/mnt";
/// Devices without which nothing runs.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Mounts are this process's own affair from here on.
pub(super) fn enter_mount_namespace() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("mounts can be private");
}

/// The limit of this user namespace, which only processes in it have.
pub(super) fn forbid_user_namespaces() {
    fs_err::write("/proc/sys/user/max_user_namespaces", "0").expect("a limit that is this namespace's own");
}

/// An empty read-only file system.
pub(super) fn read_only(place: &Path) {
    memory(place, MsFlags::MS_RDONLY, "mode=0755");
}

/// An empty file system from which nothing can be executed.
pub(super) fn no_programs(place: &Path) {
    memory(place, MsFlags::MS_NOEXEC, "mode=1777");
}

fn memory(place: &Path, flags: MsFlags, options: &str) {
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options))
        .unwrap_or_else(|error| panic!("mounting on {}: {error}", place.display()));
}

/// Puts an overlay on a folder. What is written goes to folders beside it.
pub(super) fn put_on_overlay(place: &Path) {
    let beside = |suffix: &str| {
        let path = PathBuf::from(format!("{}{suffix}", place.display()));
        fs_err::create_dir_all(&path).expect("a directory");
        path
    };
    let (lower, upper, work) = (beside(".lower"), beside(".upper"), beside(".work"));
    fs_err::create_dir_all(place).expect("a directory");
    let options = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        lower.display(),
        upper.display(),
        work.display()
    );
    mount(Some("overlay"), place, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .unwrap_or_else(|error| panic!("an overlay on {}: {error}", place.display()));
}

/// A `/dev` with the devices, and no `shm`.
pub(super) fn no_shared_memory() {
    let new = Path::new(WORKBENCH);
    memory(new, MsFlags::empty(), "mode=0755");
    for name in DEVICES {
        let place = new.join(name);
        fs_err::write(&place, "").expect("a place for a device");
        bind(&Path::new("/dev").join(name), &place);
    }
    nix::unistd::symlinkat("/proc/self/fd", nix::fcntl::AT_FDCWD, &new.join("fd")).expect("a link");
    mount(Some(new), "/dev", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .expect("the new /dev takes its place");
    assert!(!Path::new("/dev/shm").exists(), "/dev/shm is still there");
}

/// Hides what Docker hides, and protects what it protects, as its runtime does.
pub(super) fn mask_as_docker() {
    for path in docker::MASKED.map(Path::new).into_iter().filter(|path| path.exists()) {
        mask(path);
    }
    for path in docker::READ_ONLY.map(Path::new).into_iter().filter(|path| path.exists()) {
        bind(path, path);
        remount_read_only(path);
    }
}

/// Hides what is there: a folder becomes empty, a file `/dev/null`.
fn mask(path: &Path) {
    if path.is_dir() {
        memory(path, MsFlags::MS_RDONLY, "size=0k");
    } else {
        bind(Path::new("/dev/null"), path);
    }
}

/// A file without anything in it.
pub(super) fn empty(path: &Path) {
    let workbench = Path::new(WORKBENCH);
    memory(workbench, MsFlags::empty(), "mode=0755");
    let file = workbench.join("empty");
    fs_err::write(&file, "").expect("a file");
    bind(&file, path);
    remount_read_only(path);
    umount2(workbench, MntFlags::MNT_DETACH).expect("our own");
}

/// A root directory that is not the one of the mount namespace, with everything in it.
pub(super) fn change_root() {
    let new = Path::new(WORKBENCH);
    memory(new, MsFlags::empty(), "mode=0755");
    // Not its top: the root of a mount is what a changed root is told by.
    let root = new.join("root");
    fs_err::create_dir(&root).expect("a directory");
    for entry in fs_err::read_dir("/").expect("a listing") {
        let entry = entry.expect("an entry");
        let (source, place) = (entry.path(), root.join(entry.file_name()));
        let kind = entry.file_type().expect("a type");
        if kind.is_symlink() {
            let target = fs_err::read_link(&source).expect("a link");
            std::os::unix::fs::symlink(target, place).expect("a link");
        } else if kind.is_dir() {
            fs_err::create_dir(&place).expect("a directory");
            // What it is made in stays empty.
            if source != new {
                bind(&source, &place);
            }
        }
    }
    nix::unistd::chroot(&root).expect("a root directory");
    nix::unistd::chdir("/").expect("the new root");
}

/// Shows what is at `source`, with all that is mounted below it, at `place` too.
fn bind(source: &Path, place: &Path) {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), place, None::<&str>, flags, None::<&str>)
        .unwrap_or_else(|error| panic!("binding {} on {}: {error}", source.display(), place.display()));
}

/// A user namespace may add flags, but must repeat those that it inherited.
fn remount_read_only(place: &Path) {
    let held = statvfs(place).expect("flags").flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (had, repeated) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        flags.set(repeated, held.contains(had));
    }
    mount(None::<&str>, place, None::<&str>, flags, None::<&str>)
        .unwrap_or_else(|error| panic!("protecting {}: {error}", place.display()));
}
