//! A root directory without mounts, in the scratch space of a run: the image as a tree of hard links, and places in it
//! that are the run's own, whatever the image has there. What the places are for is left to the backends.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{UnlinkatFlags, mkdtemp, unlinkat};

use super::farm;
use super::mounts::PLACE;
use super::root::write_file;
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{File, Root, Spec};

/// See the module. It goes away with this value.
pub(super) struct House {
    pub(super) path: PathBuf,
    pub(super) root: OwnedFd,
}

impl House {
    /// A house of the image's files, without its /proc, /dev and /sys, of which the command sees its own.
    pub(super) fn build(spec: &Spec) -> Result<Self, Failure> {
        let stage = Stage::Root;
        let refused = |what: &str| Failure::new(stage, what.to_owned(), Errno::EOPNOTSUPP);
        let Root::Tree(tree) = &spec.root else { return Err(refused("a root of layers without mounts")) };
        let scratch = spec
            .scratch
            .as_ref()
            .ok_or_else(|| refused("a root without mounts and without scratch space"))?;
        let call = |path: &std::path::Path| format!("open({path:?}, O_DIRECTORY)");
        let tree = open(tree, PLACE | OFlag::O_DIRECTORY, Mode::empty()).or_fail(stage, || call(tree))?;
        let template = scratch.join("root-XXXXXX");
        let path = mkdtemp(&template).or_fail(stage, || format!("mkdtemp({template:?})"))?;
        let root = open(&path, PLACE | OFlag::O_DIRECTORY, Mode::empty()).or_fail(stage, || call(&path))?;
        let house = Self { path, root };
        let open_to_all = Mode::from_bits_truncate(0o755);
        fchmodat(&house.root, ".", open_to_all, FchmodatFlags::FollowSymlink)
            .or_fail(stage, || "fchmodat(root, 0755)".to_owned())?;
        farm::grow(&tree, &house.root, stage, &|name| matches!(name, "proc" | "dev" | "sys"))?;
        for name in ["proc", "dev", "sys"] {
            mkdirat(&house.root, name, open_to_all).or_fail(stage, || format!("mkdirat({name:?})"))?;
        }
        Ok(house)
    }

    /// An empty directory of ours at a target, whatever the image has there.
    pub(super) fn directory(&self, target: &str, stage: Stage) -> Result<OwnedFd, Failure> {
        let (at, name) = self.free(target, stage)?;
        let call = || format!("mkdirat({target:?})");
        mkdirat(&at, name, Mode::from_bits_truncate(0o755)).or_fail(stage, call)?;
        openat(&at, name, PLACE | OFlag::O_DIRECTORY, Mode::empty()).or_fail(stage, call)
    }

    /// Writes a file of the run, whatever the image has there.
    pub(super) fn write(&self, file: &File) -> Result<(), Failure> {
        let (at, name) = self.free(&file.target, Stage::Files)?;
        write_file(&at, name, file)
    }

    /// Where a target is to be made: its directory, and its name there, which is free.
    pub(super) fn free<'target>(
        &self,
        target: &'target str,
        stage: Stage,
    ) -> Result<(OwnedFd, &'target str), Failure> {
        let (directory, name) = target.rsplit_once('/').unwrap_or(("", target));
        let at = self.enter(directory, stage)?;
        remove(&at, name, stage)?;
        Ok((at, name))
    }

    /// The directory of a path. What is no directory on the way gives way to one.
    fn enter(&self, path: &str, stage: Stage) -> Result<OwnedFd, Failure> {
        let call = || format!("openat(root, {path:?}, O_NOFOLLOW)");
        let mut here = self.root.try_clone().or_fail(stage, call)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let flags = PLACE | OFlag::O_DIRECTORY;
            here = match openat(&here, name, flags, Mode::empty()) {
                Ok(below) => below,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                    remove(&here, name, stage)?;
                    mkdirat(&here, name, Mode::from_bits_truncate(0o755)).or_fail(stage, call)?;
                    openat(&here, name, flags, Mode::empty()).or_fail(stage, call)?
                }
                Err(errno) => return Err(Failure::new(stage, call(), errno)),
            };
        }
        Ok(here)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // The scratch directory is the caller's, who removes it in any case.
        let _ = fs_err::remove_dir_all(&self.path);
    }
}

/// Makes a name free.
fn remove(at: &OwnedFd, name: &str, stage: Stage) -> Result<(), Failure> {
    match unlinkat(at, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // The image's own directory, with all that is in it: names of this run only.
        Err(Errno::EISDIR | Errno::EPERM) => {
            let path = format!("/proc/self/fd/{}/{name}", at.as_raw_fd());
            fs_err::remove_dir_all(&path).or_fail(stage, || format!("unlinkat({name:?}, AT_REMOVEDIR)"))
        }
        Err(errno) => Err(Failure::new(stage, format!("unlinkat({name:?})"), errno)),
    }
}
