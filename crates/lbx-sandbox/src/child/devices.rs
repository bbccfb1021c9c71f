//! A minimal /dev: five devices that hold nothing, the usual links, shared memory. Nothing else is reachable.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{open, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, makedev};
use nix::unistd::symlinkat;

use super::mounts::{self, Kind, PLACE, fd_path};
use crate::error::{Failure, OrFail, Stage};

/// Name, major and minor number.
pub(super) const DEVICES: [(&str, u64, u64); 5] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9)];

pub(super) const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Mounts and fills /dev. `size` is the most that shared memory can hold.
pub(super) fn populate(root: &OwnedFd, size: Option<u64>) -> Result<(), Failure> {
    let stage = Stage::Devices;
    let spot = mounts::spot(root.as_fd(), "/dev", Kind::Directory, false, stage)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mounts::fresh("tmpfs", &spot.place, "/dev", flags, Some("mode=0755,size=64k"), stage)?;
    let dev = spot.mounted(stage)?;
    for (name, major, minor) in DEVICES {
        bind_device(&dev, name, makedev(major, minor))?;
    }
    for (name, destination) in LINKS {
        symlinkat(destination, &dev, name)
            .or_fail(stage, || format!("symlinkat({destination:?}, {name:?})"))?;
    }
    let shm = mounts::spot(dev.as_fd(), "/shm", Kind::Directory, true, stage)?;
    let options = size.map_or_else(|| "mode=1777".to_owned(), |size| format!("mode=1777,size={size}"));
    let shm_flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mounts::fresh("tmpfs", &shm.place, "/dev/shm", shm_flags, Some(&options), stage)?;
    let sealed = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | flags;
    mount(None::<&str>, fd_path(&dev).as_str(), None::<&str>, sealed, None::<&str>)
        .or_fail(stage, || "mount(NULL, \"/dev\", NULL, MS_REMOUNT|MS_BIND|MS_RDONLY, NULL)".to_owned())
}

/// Binds a device of the host after a look at its numbers: a name in the host's /dev proves nothing.
fn bind_device(dev: &OwnedFd, name: &str, number: nix::libc::dev_t) -> Result<(), Failure> {
    let stage = Stage::Devices;
    let path = format!("/dev/{name}");
    let source = open(path.as_str(), PLACE, Mode::empty()).or_fail(stage, || format!("open({path:?})"))?;
    let stat = fstat(&source).or_fail(stage, || format!("fstat({path:?})"))?;
    let is_device = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    if !is_device || stat.st_rdev != number {
        return Err(Failure::new(stage, format!("open({path:?}) as device {number:#x}"), Errno::ENODEV));
    }
    mounts::make(dev, name, Kind::File).or_fail(stage, || format!("mknodat({path:?})"))?;
    let place = openat(dev, name, PLACE, Mode::empty()).or_fail(stage, || format!("openat({path:?})"))?;
    mounts::bind(&source, &place, &path, stage)
}
