//! A root directory without mounts, in the scratch space of a run: the image as a tree of hard links, and places in it
//! that are the run's own, whatever the image has there. What the places are for is left to the backends.
//!
//! Thousands of links take longer than many a command. A root that no command could write to but in the run's own places
//! is kept: these are taken out again, what the image had there is put back, and the next run begins with it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{UnlinkatFlags, mkdtemp, unlinkat};

use super::farm;
use super::mounts::PLACE;
use super::root::write_file;
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{File, Root, Spec};

/// See the module. It goes away with this value, or to where it is kept.
pub(super) struct House {
    pub(super) path: PathBuf,
    pub(super) root: OwnedFd,
    keeping: Option<Keeping>,
}

/// What it takes to have a root as it was before the run.
struct Keeping {
    /// Where it goes then.
    place: PathBuf,
    /// What the image has where places of the run are; afterwards also these.
    aside: OwnedFd,
    changes: Vec<Change>,
    /// Whether nobody is in it any more.
    vacant: bool,
}

/// A place of the run.
struct Change {
    at: OwnedFd,
    name: String,
    /// Whether the image has something there.
    hides: bool,
}

impl House {
    /// A house of the image's files, without its /proc, /dev and /sys, of which the command sees its own. With `keep`,
    /// the one that an earlier run has left there, if there is one; and it is left there again.
    pub(super) fn build(spec: &Spec, keep: Option<&Path>) -> Result<Self, Failure> {
        let stage = Stage::Root;
        let refused = |what: &str| Failure::new(stage, what.to_owned(), Errno::EOPNOTSUPP);
        let Root::Tree(tree) = &spec.root else { return Err(refused("a root of layers without mounts")) };
        let scratch = spec
            .scratch
            .as_ref()
            .ok_or_else(|| refused("a root without mounts and without scratch space"))?;
        let path = made(&scratch.join("root-XXXXXX"))?;
        // In place of the empty directory. Whatever keeps it from coming, another one can be built.
        let is_built = keep.is_some_and(|keep| fs_err::rename(keep, &path).is_ok());
        let keeping = keep.map(|keep| Keeping::new(keep, scratch)).transpose()?;
        let house = Self { root: directory(&path)?, path, keeping };
        if !is_built {
            house.furnish(&directory(tree)?)?;
        }
        Ok(house)
    }

    /// A house of the tree itself, which may be changed. It is where it was when this value goes, if nobody is in it any
    /// more, without the places of the run.
    pub(super) fn lend(spec: &Spec) -> Result<Self, Failure> {
        let stage = Stage::Root;
        let (Root::Tree(tree), Some(scratch)) = (&spec.root, &spec.scratch) else {
            return Err(Failure::new(stage, "change a root without mounts", Errno::EOPNOTSUPP));
        };
        let path = made(&scratch.join("root-XXXXXX"))?;
        // In place of the empty directory.
        fs_err::rename(tree, &path).or_fail(stage, || format!("rename({tree:?}, {path:?})"))?;
        Ok(Self { root: directory(&path)?, keeping: Some(Keeping::new(tree, scratch)?), path })
    }

    fn furnish(&self, tree: &OwnedFd) -> Result<(), Failure> {
        let stage = Stage::Root;
        let open_to_all = Mode::from_bits_truncate(0o755);
        fchmodat(&self.root, ".", open_to_all, FchmodatFlags::FollowSymlink)
            .or_fail(stage, || "fchmodat(root, 0755)".to_owned())?;
        farm::grow(tree, &self.root, stage, &|name| matches!(name, "proc" | "dev" | "sys"))?;
        for name in ["proc", "dev", "sys"] {
            mkdirat(&self.root, name, open_to_all).or_fail(stage, || format!("mkdirat({name:?})"))?;
        }
        Ok(())
    }

    /// An empty directory of ours at a target, whatever the image has there.
    pub(super) fn directory(&mut self, target: &str, stage: Stage) -> Result<OwnedFd, Failure> {
        let (at, name) = self.free(target, stage)?;
        let call = || format!("mkdirat({target:?})");
        let mode = Mode::from_bits_truncate(0o755);
        match &self.keeping {
            // ext4 makes files near their directory, and takes its time where many have been removed lately. What is in
            // this one goes with this run, so it is made where the run's scratch space is, and not near the others.
            Some(keeping) => {
                let new = format!("new-{}", keeping.changes.len());
                let made = mkdirat(&keeping.aside, new.as_str(), mode);
                made.and_then(|()| renameat(&keeping.aside, new.as_str(), &at, name)).or_fail(stage, call)?;
            }
            None => mkdirat(&at, name, mode).or_fail(stage, call)?,
        }
        openat(&at, name, PLACE | OFlag::O_DIRECTORY, Mode::empty()).or_fail(stage, call)
    }

    /// Writes a file of the run, whatever the image has there.
    pub(super) fn write(&mut self, file: &File) -> Result<(), Failure> {
        let (at, name) = self.free(&file.target, Stage::Files)?;
        write_file(&at, name, file)
    }

    /// Where a target is to be made: its directory, and its name there, which is free.
    pub(super) fn free<'target>(
        &mut self,
        target: &'target str,
        stage: Stage,
    ) -> Result<(OwnedFd, &'target str), Failure> {
        let (directory, name) = target.rsplit_once('/').unwrap_or(("", target));
        let at = self.enter(directory, stage)?;
        self.clear(&at, name, stage)?;
        Ok((at, name))
    }

    /// The directory of a path. What is no directory on the way gives way to one.
    fn enter(&mut self, path: &str, stage: Stage) -> Result<OwnedFd, Failure> {
        let call = || format!("openat(root, {path:?}, O_NOFOLLOW)");
        let mut here = self.root.try_clone().or_fail(stage, call)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let flags = PLACE | OFlag::O_DIRECTORY;
            here = match openat(&here, name, flags, Mode::empty()) {
                Ok(below) => below,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                    self.clear(&here, name, stage)?;
                    mkdirat(&here, name, Mode::from_bits_truncate(0o755)).or_fail(stage, call)?;
                    openat(&here, name, flags, Mode::empty()).or_fail(stage, call)?
                }
                Err(errno) => return Err(Failure::new(stage, call(), errno)),
            };
        }
        Ok(here)
    }
}

impl House {
    /// Says that whoever was in it is dead. Only then it is kept.
    pub(super) fn vacate(&mut self) {
        if let Some(keeping) = &mut self.keeping {
            keeping.vacant = true;
        }
    }

    /// What the image has where places of the run are.
    pub(super) fn aside(&self) -> Option<&OwnedFd> {
        self.keeping.as_ref().map(|keeping| &keeping.aside)
    }

    /// Makes a name free.
    fn clear(&mut self, at: &OwnedFd, name: &str, stage: Stage) -> Result<(), Failure> {
        match &mut self.keeping {
            Some(keeping) => keeping.hide(at, name).or_fail(stage, || format!("renameat({name:?})")),
            None => remove(at, name, stage),
        }
    }
}

impl Keeping {
    fn new(place: &Path, scratch: &Path) -> Result<Self, Failure> {
        let aside = directory(&made(&scratch.join("aside-XXXXXX"))?)?;
        Ok(Self { place: place.to_owned(), aside, changes: Vec::new(), vacant: false })
    }

    fn hide(&mut self, at: &OwnedFd, name: &str) -> nix::Result<()> {
        let own = at.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        let hides = match renameat(at, name, &self.aside, hidden(self.changes.len()).as_str()) {
            Ok(()) => true,
            Err(Errno::ENOENT) => false,
            Err(errno) => return Err(errno),
        };
        self.changes.push(Change { at: own, name: name.to_owned(), hides });
        Ok(())
    }

    /// Takes out what the run had, last first, and puts back what the image has. What is taken out goes nowhere: only
    /// who removes the scratch directory looks into it.
    fn restore(&self) -> nix::Result<()> {
        for (number, change) in self.changes.iter().enumerate().rev() {
            match renameat(&change.at, change.name.as_str(), &self.aside, format!("run-{number}").as_str()) {
                // Of some places, the run had no use.
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            if change.hides {
                renameat(&self.aside, hidden(number).as_str(), &change.at, change.name.as_str())?;
            }
        }
        Ok(())
    }
}

fn hidden(number: usize) -> String {
    format!("image-{number}")
}

impl Drop for House {
    fn drop(&mut self) {
        let is_kept = self.keeping.as_ref().is_some_and(|keeping| {
            // Where another run has left one, that one will do.
            keeping.vacant && keeping.restore().is_ok() && fs_err::rename(&self.path, &keeping.place).is_ok()
        });
        if !is_kept {
            // The scratch directory is the caller's, who removes it in any case.
            let _ = fs_err::remove_dir_all(&self.path);
        }
    }
}

/// A directory with a new name.
fn made(template: &Path) -> Result<PathBuf, Failure> {
    mkdtemp(template).or_fail(Stage::Root, || format!("mkdtemp({template:?})"))
}

fn directory(path: &Path) -> Result<OwnedFd, Failure> {
    open(path, PLACE | OFlag::O_DIRECTORY, Mode::empty())
        .or_fail(Stage::Root, || format!("open({path:?}, O_DIRECTORY)"))
}

/// Removes what has a name.
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
