//! The backend of a container's root user, who may change the root directory and the user id, and nothing else: no
//! namespaces, no mounts.
//!
//! The root is a tree of hard links in the scratch directory of the run. The command has a user id of its own there and
//! no capabilities, so that the image's files are not its to write and the old root is out of its reach. What it leaves
//! in writable binds is moved out when its last process is dead.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, makedev, mkdirat, mknodat};
use nix::unistd::{chdir, chroot, fchdir, mkdtemp, symlinkat};

use super::devices::{DEVICES, LINKS};
use super::mounts::{Kind, PLACE};
use super::payload::Situation;
use super::{Isolate, Job, family, farm};
use crate::backend::Backend;
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{Access, Bind, Root, Spec};

/// See the module.
pub(super) struct Chroot;

impl Isolate for Chroot {
    fn backend(&self) -> Backend {
        Backend::Chroot
    }

    fn probe(&self, _: &Spec) -> Result<(), Failure> {
        let user = nix::unistd::geteuid();
        if user.is_root() {
            Ok(())
        } else {
            Err(Failure::new(Stage::Prepare, format!("chroot as the user {user}"), Errno::EPERM))
        }
    }

    fn run(&self, job: Job<'_>) -> Result<(), Failure> {
        let spec = job.spec;
        let house = House::build(spec)?;
        let situation = Situation { user: Some((spec.uid, spec.gid)), own_processes: false };
        let root = house.root.try_clone().or_fail(Stage::Root, || "dup(root)".to_owned())?;
        family::run(job, situation, || move_in(&root), || house.harvest(spec))
    }
}

/// Changes the root directory of this process. The working directory goes with it, and nothing is open below the old
/// one but what closes at exec.
fn move_in(root: &OwnedFd) -> Result<(), Failure> {
    let stage = Stage::Pivot;
    fchdir(root).or_fail(stage, || "fchdir(root)".to_owned())?;
    chroot(".").or_fail(stage, || "chroot(\".\")".to_owned())?;
    chdir("/").or_fail(stage, || "chdir(\"/\")".to_owned())
}

/// The root directory of one run, in the scratch directory. It goes away with this value.
struct House {
    path: PathBuf,
    root: OwnedFd,
    outputs: Vec<OwnedFd>,
}

impl House {
    fn build(spec: &Spec) -> Result<Self, Failure> {
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
        let mut house = Self { path, root, outputs: Vec::new() };
        house.furnish(spec, &tree)?;
        Ok(house)
    }

    fn furnish(&mut self, spec: &Spec, tree: &OwnedFd) -> Result<(), Failure> {
        let stage = Stage::Root;
        let open_to_all = Mode::from_bits_truncate(0o755);
        fchmodat(&self.root, ".", open_to_all, FchmodatFlags::FollowSymlink)
            .or_fail(stage, || "fchmodat(root, 0755)".to_owned())?;
        // Of these the command sees its own.
        farm::grow(tree, &self.root, stage, &|name| matches!(name, "proc" | "dev" | "sys"))?;
        for name in ["proc", "sys"] {
            mkdirat(&self.root, name, open_to_all).or_fail(stage, || format!("mkdirat({name:?})"))?;
        }
        devices(&self.root)?;
        for tmpfs in &spec.tmpfs {
            let place = self.directory(&tmpfs.target, Stage::Tmpfs)?;
            give(&place, &tmpfs.target, tmpfs.mode, spec, Stage::Tmpfs)?;
        }
        for bind in &spec.binds {
            self.bring(bind, spec)?;
        }
        for file in &spec.files {
            let (directory, name) = file.target.rsplit_once('/').unwrap_or(("", &file.target));
            let at = self.enter(directory, Stage::Files)?;
            remove(&at, name, Stage::Files)?;
            super::root::write_file(&at, name, file)?;
        }
        Ok(())
    }

    /// Copies what may be read, and makes an empty place for what may be written.
    fn bring(&mut self, bind: &Bind, spec: &Spec) -> Result<(), Failure> {
        let stage = Stage::Binds;
        let call = || format!("open({:?}, O_PATH|O_NOFOLLOW)", bind.source);
        let source = open(&bind.source, PLACE, Mode::empty()).or_fail(stage, call)?;
        let kind = Kind::of(&fstat(&source).or_fail(stage, call)?);
        match (kind, bind.access) {
            (Some(Kind::Directory), Access::ReadOnly) => {
                let place = self.directory(&bind.target, stage)?;
                farm::grow(&source, &place, stage, &|_| false)
            }
            (Some(Kind::Directory), Access::ReadWrite) => {
                if !farm::is_empty(&source, stage)? {
                    let call = format!("move {:?} into a root without mounts", bind.source);
                    return Err(Failure::new(stage, call, Errno::ENOTEMPTY));
                }
                let place = self.directory(&bind.target, stage)?;
                give(&place, &bind.target, 0o755, spec, stage)?;
                self.outputs.push(place);
                Ok(())
            }
            (Some(Kind::File), Access::ReadOnly) => {
                let (directory, name) = bind.target.rsplit_once('/').unwrap_or(("", &bind.target));
                let at = self.enter(directory, stage)?;
                remove(&at, name, stage)?;
                farm::copy(&source, &at, name, stage)
            }
            (Some(Kind::File), Access::ReadWrite) => Err(Failure::new(
                stage,
                format!("write {:?} from a root without mounts", bind.source),
                Errno::EOPNOTSUPP,
            )),
            (None, _) => Err(Failure::new(stage, call(), Errno::ELOOP)),
        }
    }

    /// An empty directory of ours at a target, whatever the image has there.
    fn directory(&self, target: &str, stage: Stage) -> Result<OwnedFd, Failure> {
        let (parent, name) = target.rsplit_once('/').unwrap_or(("", target));
        let at = self.enter(parent, stage)?;
        let call = || format!("mkdirat({target:?})");
        remove(&at, name, stage)?;
        mkdirat(&at, name, Mode::from_bits_truncate(0o755)).or_fail(stage, call)?;
        openat(&at, name, PLACE | OFlag::O_DIRECTORY, Mode::empty()).or_fail(stage, call)
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

    /// Moves what the command made to where it was wanted.
    fn harvest(&self, spec: &Spec) -> Result<(), Failure> {
        let stage = Stage::Binds;
        let writable = spec.binds.iter().filter(|bind| bind.access == Access::ReadWrite);
        for (bind, output) in writable.zip(&self.outputs) {
            let call = || format!("open({:?}, O_DIRECTORY)", bind.source);
            let target =
                open(&bind.source, PLACE | OFlag::O_DIRECTORY, Mode::empty()).or_fail(stage, call)?;
            farm::harvest(output, &target, spec.uid, stage)?;
        }
        Ok(())
    }
}

/// Gives a directory to the command, with a mode.
fn give(place: &OwnedFd, target: &str, mode: u32, spec: &Spec, stage: Stage) -> Result<(), Failure> {
    let mode = Mode::from_bits_truncate(mode);
    fchmodat(place, ".", mode, FchmodatFlags::FollowSymlink)
        .or_fail(stage, || format!("fchmodat({target:?}, {:#o})", mode.bits()))?;
    farm::give(place, spec.uid, spec.gid, stage)
}

impl Drop for House {
    fn drop(&mut self) {
        // The scratch directory is the caller's, who removes it in any case.
        let _ = fs_err::remove_dir_all(&self.path);
    }
}

/// Makes a name free.
fn remove(at: &OwnedFd, name: &str, stage: Stage) -> Result<(), Failure> {
    use nix::unistd::{UnlinkatFlags, unlinkat};
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

/// Device nodes of our own, which the root user of a container may make. `/dev/shm` is a directory.
fn devices(root: &OwnedFd) -> Result<(), Failure> {
    let stage = Stage::Devices;
    mkdirat(root, "dev", Mode::from_bits_truncate(0o755)).or_fail(stage, || "mkdirat(\"dev\")".to_owned())?;
    let dev = openat(root, "dev", PLACE | OFlag::O_DIRECTORY, Mode::empty())
        .or_fail(stage, || "openat(\"dev\")".to_owned())?;
    for (name, major, minor) in DEVICES {
        let mode = Mode::from_bits_truncate(0o666);
        mknodat(&dev, name, SFlag::S_IFCHR, mode, makedev(major, minor))
            .or_fail(stage, || format!("mknodat({name:?}, S_IFCHR, {major}:{minor})"))?;
        fchmodat(&dev, name, mode, FchmodatFlags::FollowSymlink)
            .or_fail(stage, || format!("fchmodat({name:?})"))?;
    }
    for (name, destination) in LINKS {
        symlinkat(destination, &dev, name)
            .or_fail(stage, || format!("symlinkat({destination:?}, {name:?})"))?;
    }
    mkdirat(&dev, "shm", Mode::empty()).or_fail(stage, || "mkdirat(\"shm\")".to_owned())?;
    fchmodat(&dev, "shm", Mode::from_bits_truncate(0o1777), FchmodatFlags::FollowSymlink)
        .or_fail(stage, || "fchmodat(\"shm\", 01777)".to_owned())
}
