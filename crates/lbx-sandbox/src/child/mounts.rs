//! Mounting onto places that are found without following a symlink. Knows no layout.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlink};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::error::{Failure, OrFail, Stage};
use crate::syscalls::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// Opens a place itself, whatever it is: a symlink is not followed but opened.
pub(super) const PLACE: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// What a mount point must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

impl Kind {
    /// The kind of an open place; `None` for symlinks and whatever else cannot be bound.
    pub(super) fn of(stat: &FileStat) -> Option<Self> {
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => Some(Self::Directory),
            SFlag::S_IFREG => Some(Self::File),
            _ => None,
        }
    }
}

/// A mount point, and the directory it is in, through which the mount on it can be reached.
pub(super) struct Spot {
    parent: OwnedFd,
    name: String,
    pub(super) place: OwnedFd,
}

impl Spot {
    /// Opens the root of what has been mounted here.
    pub(super) fn mounted(&self, stage: Stage) -> Result<OwnedFd, Failure> {
        openat(&self.parent, self.name.as_str(), PLACE, Mode::empty())
            .or_fail(stage, || format!("openat({:?})", self.name))
    }
}

/// A name for an open descriptor that `mount` understands.
pub(super) fn fd_path(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Cuts the propagation of our mounts to the host; those the host unmounts still go away here.
pub(super) fn make_private() -> Result<(), Failure> {
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .or_fail(Stage::Root, || "mount(NULL, \"/\", NULL, MS_REC|MS_SLAVE, NULL)".to_owned())
}

/// Finds the place of `target` in the new root without following any symlink. What is missing is made
/// when `create` says so, that is, where the ground is a memory file system of this run.
pub(super) fn spot(
    root: BorrowedFd<'_>,
    target: &str,
    kind: Kind,
    create: bool,
    stage: Stage,
) -> Result<Spot, Failure> {
    let call = || format!("openat(root, {target:?}, O_NOFOLLOW)");
    let mut parent = root.try_clone_to_owned().or_fail(stage, call)?;
    let (directories, name) = target.rsplit_once('/').unwrap_or(("", target));
    for directory in directories.split('/').filter(|d| !d.is_empty()) {
        if create {
            make(&parent, directory, Kind::Directory).or_fail(stage, call)?;
        }
        parent =
            openat(&parent, directory, PLACE | OFlag::O_DIRECTORY, Mode::empty()).or_fail(stage, call)?;
    }
    if create {
        make(&parent, name, kind).or_fail(stage, call)?;
    }
    let place = openat(&parent, name, PLACE, Mode::empty()).or_fail(stage, call)?;
    let found = Kind::of(&fstat(&place).or_fail(stage, call)?);
    match (found, kind) {
        (Some(found), _) if found == kind => Ok(Spot { parent, name: name.to_owned(), place }),
        (_, Kind::Directory) => Err(Failure::new(stage, call(), Errno::ENOTDIR)),
        (_, Kind::File) => Err(Failure::new(stage, call(), Errno::EISDIR)),
    }
}

/// Makes a mount point, unless something is there; whether it is the right thing shows when it is opened.
pub(super) fn make(parent: &impl AsFd, name: &str, kind: Kind) -> nix::Result<()> {
    let made = match kind {
        Kind::Directory => mkdirat(parent.as_fd(), name, Mode::from_bits_truncate(0o755)),
        Kind::File => mknodat(parent.as_fd(), name, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0),
    };
    match made {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// Mounts a new file system.
pub(super) fn fresh(
    kind: &str,
    place: &OwnedFd,
    shown: &str,
    flags: MsFlags,
    options: Option<&str>,
    stage: Stage,
) -> Result<(), Failure> {
    mount(Some(kind), fd_path(place).as_str(), Some(kind), flags, options)
        .or_fail(stage, || mount_call(kind, shown, flags, options))
}

/// The words for a mount of a new file system.
pub(super) fn mount_call(kind: &str, target: &str, flags: MsFlags, options: Option<&str>) -> String {
    let options = options.map_or_else(|| "NULL".to_owned(), |o| format!("{o:?}"));
    format!("mount({kind:?}, {target:?}, {kind:?}, {:#x}, {options})", flags.bits())
}

/// Binds a place, with all that is mounted below it, without changing any flag.
pub(super) fn bind(source: &OwnedFd, place: &OwnedFd, shown: &str, stage: Stage) -> Result<(), Failure> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(fd_path(source).as_str()), fd_path(place).as_str(), None::<&str>, flags, None::<&str>)
        .or_fail(stage, || format!("mount(source, {shown:?}, NULL, MS_BIND|MS_REC, NULL)"))
}

/// Takes setuid bits and devices, and with `read_only` the right to write, from a mount and all below it.
pub(super) fn restrict(mounted: &OwnedFd, read_only: bool, stage: Stage) -> Result<(), Failure> {
    let writing = if read_only { MOUNT_ATTR_RDONLY } else { 0 };
    let attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | writing;
    match syscalls::mount_setattr(mounted.as_fd(), attributes) {
        // Kernels before 5.12, and filters that do not know the call.
        Err(Errno::ENOSYS | Errno::EPERM) => remount_each(mounted, read_only, stage),
        other => other.or_fail(stage, || format!("mount_setattr(AT_RECURSIVE, {attributes:#x})")),
    }
}

/// `restrict` for kernels without `mount_setattr`: one remount for each mount.
fn remount_each(mounted: &OwnedFd, read_only: bool, stage: Stage) -> Result<(), Failure> {
    let top = readlink(fd_path(mounted).as_str()).or_fail(stage, || "readlink(/proc/self/fd)".to_owned())?;
    let top = top.to_string_lossy().into_owned();
    remount(mounted, read_only, stage)?;
    let table = fs_err::read_to_string("/proc/self/mountinfo")
        .or_fail(stage, || "read(/proc/self/mountinfo)".to_owned())?;
    for point in table.lines().filter_map(mount_point).filter(|p| crate::spec::is_below(p, &top)) {
        let call = || format!("open({point:?})");
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let place = nix::fcntl::open(point.as_str(), flags, Mode::empty()).or_fail(stage, call)?;
        remount(&place, read_only, stage)?;
    }
    Ok(())
}

/// A user namespace may add flags but not take away those it inherited, and a remount states all of them.
fn remount(mounted: &OwnedFd, read_only: bool, stage: Stage) -> Result<(), Failure> {
    let call = |flags: MsFlags| format!("mount(NULL, mounted, NULL, {:#x}, NULL)", flags.bits());
    let held = fstatvfs(mounted).or_fail(stage, || "fstatvfs(mounted)".to_owned())?.flags();
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_RDONLY, read_only || held.contains(FsFlags::ST_RDONLY));
    flags.set(MsFlags::MS_NOEXEC, held.contains(FsFlags::ST_NOEXEC));
    flags.set(MsFlags::MS_NOATIME, held.contains(FsFlags::ST_NOATIME));
    flags.set(MsFlags::MS_NODIRATIME, held.contains(FsFlags::ST_NODIRATIME));
    flags.set(MsFlags::MS_RELATIME, held.contains(FsFlags::ST_RELATIME));
    mount(None::<&str>, fd_path(mounted).as_str(), None::<&str>, flags, None::<&str>)
        .or_fail(stage, || call(flags))
}

/// The mount point of a line of mountinfo, with its escapes resolved.
fn mount_point(line: &str) -> Option<String> {
    let mut rest = line.split(' ').nth(4)?;
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let (digits, tail) = after.split_at_checked(3)?;
        bytes.push(u8::from_str_radix(digits, 8).ok()?);
        rest = tail;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

/// Mounts /proc for the new process id namespace, read-only: a caller who is the host's root would
/// otherwise hand the command write access to the host's sysctls.
///
/// Inside a container that masks parts of /proc the kernel denies a new one. Then the container's own is
/// bound, which shows the container's processes; where that is denied too, /proc stays empty.
pub(super) fn proc(root: &OwnedFd) -> Result<(), Failure> {
    let stage = Stage::Proc;
    let place = spot(root.as_fd(), "/proc", Kind::Directory, false, stage)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    match fresh("proc", &place.place, "/proc", flags, None, stage) {
        Err(failure) if failure.errno == Errno::EPERM as i32 => {}
        other => return other,
    }
    let Ok(outer) = nix::fcntl::open("/proc", PLACE | OFlag::O_DIRECTORY, Mode::empty()) else {
        return Ok(());
    };
    if bind(&outer, &place.place, "/proc", stage).is_ok() {
        let mounted = place.mounted(stage)?;
        if restrict(&mounted, true, stage).is_err() {
            let path = fd_path(&mounted);
            umount2(path.as_str(), MntFlags::MNT_DETACH)
                .or_fail(stage, || "umount2(\"/proc\", MNT_DETACH)".to_owned())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::mount_point;

    #[test]
    fn escapes_of_mount_points_are_resolved() {
        let line = |p: &str| format!("36 35 98:0 /mnt1 {p} rw,noatime master:1 - ext3 /dev/root rw");
        assert_eq!(mount_point(&line("/mnt2")).as_deref(), Some("/mnt2"));
        assert_eq!(mount_point(&line(r"/a\040b\134c\303\251")).as_deref(), Some(r"/a b\cé"));
        assert_eq!(mount_point("short line"), None);
        assert_eq!(mount_point(&line(r"/a\04")), None);
    }
}
