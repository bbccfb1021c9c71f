//! The backend of a container's root user, who may change the root directory and the user id, and nothing else: no
//! namespaces, no mounts.
//!
//! The root is a tree of hard links in the scratch directory of the run. The command has a user id of its own there and
//! no capabilities, so that the image's files are not its to write and the old root is out of its reach. What it leaves
//! in writable binds is moved out when its last process is dead. A root that may be changed is the tree itself, which is the
//! command's for as long as it runs; the command, which is told that it is the root user, is none.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, makedev, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, chdir, chroot, fchdir, getegid, geteuid, symlinkat};

use super::devices::{DEVICES, LINKS};
use super::house::House;
use super::loan::Loan;
use super::mounts::{Kind, PLACE};
use super::payload::{self, Order, Situation};
use super::root::User;
use super::{Isolate, Job, family, farm};
use crate::backend::Backend;
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{Access, Bind, Spec};
use crate::wire::Report;

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
        let mut lodging = Lodging::furnish(spec)?;
        let situation = Situation { user: Some(lodging.user), own_processes: false, own_network: false };
        let root = lodging.house.root.try_clone().or_fail(Stage::Root, || "dup(root)".to_owned())?;
        let order = Order::in_root(spec, situation);
        let become_command = |job: &Job<'_>| match move_in(&root) {
            Ok(()) => payload::become_command(job, &order),
            Err(failure) => Report::Failed(failure),
        };
        family::run(job, become_command, || lodging.harvest(spec))
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

/// The house of a run, and the places in it that the command may write to and the caller wants to have.
struct Lodging {
    house: House,
    loans: Vec<Loan>,
    /// Who the command is.
    user: User,
}

/// Who only appears to be the root user, where what is real of that would be the container's. Nobody else has the id, so
/// that nobody else has what belongs to it: the last that a container with 65536 of them has, but for two.
const ADMINISTRATOR: User = (65_533, 65_533);

impl Lodging {
    fn furnish(spec: &Spec) -> Result<Self, Failure> {
        let (house, user) = if spec.administers() {
            (House::lend(spec)?, ADMINISTRATOR)
        } else {
            (House::build(spec, spec.kept.as_deref())?, (spec.uid, spec.gid))
        };
        let mut lodging = Self { house, loans: Vec::new(), user };
        if spec.administers() {
            lodging.pass_on(caller(), user)?;
            for target in ["/proc", "/sys"] {
                lodging.house.directory(target, Stage::Root)?;
            }
        }
        devices(&lodging.house.directory("/dev", Stage::Devices)?)?;
        for tmpfs in &spec.tmpfs {
            let place = lodging.house.directory(&tmpfs.target, Stage::Tmpfs)?;
            give(&place, &tmpfs.target, tmpfs.mode, user, Stage::Tmpfs)?;
        }
        for bind in &spec.binds {
            lodging.bring(bind)?;
        }
        spec.files.iter().try_for_each(|file| lodging.house.write(file))?;
        Ok(lodging)
    }

    /// Copies what is there; what may be written becomes the command's.
    fn bring(&mut self, bind: &Bind) -> Result<(), Failure> {
        let stage = Stage::Binds;
        let call = || format!("open({:?}, O_PATH|O_NOFOLLOW)", bind.source);
        let source = open(&bind.source, PLACE, Mode::empty()).or_fail(stage, call)?;
        let kind = Kind::of(&fstat(&source).or_fail(stage, call)?);
        match (kind, bind.access) {
            (Some(Kind::Directory), access) => {
                let place = self.house.directory(&bind.target, stage)?;
                match access {
                    Access::ReadOnly => farm::grow(&source, &place, stage, &|_| false)?,
                    Access::ReadWrite => {
                        self.loans.push(Loan::make(&source, place, ids(self.user))?);
                    }
                }
                Ok(())
            }
            (Some(Kind::File), Access::ReadOnly) => {
                let (at, name) = self.house.free(&bind.target, stage)?;
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

    /// Moves what the command made to where it was wanted.
    fn harvest(&mut self, spec: &Spec) -> Result<(), Failure> {
        let stage = Stage::Binds;
        self.house.vacate();
        let writable = spec.binds.iter().filter(|bind| bind.access == Access::ReadWrite);
        for (bind, loan) in writable.zip(&self.loans) {
            let call = || format!("open({:?}, O_DIRECTORY)", bind.source);
            let target =
                open(&bind.source, PLACE | OFlag::O_DIRECTORY, Mode::empty()).or_fail(stage, call)?;
            loan.end(&target, ids(self.user).0)?;
        }
        if spec.administers() {
            self.pass_on(self.user, caller())?;
        }
        Ok(())
    }

    /// Gives all that a user has in the house to another one.
    fn pass_on(&self, from: User, to: User) -> Result<(), Failure> {
        let places = [Some(&self.house.root), self.house.aside()];
        places
            .into_iter()
            .flatten()
            .try_for_each(|place| farm::give_all(place, ids(from).0, ids(to), Stage::Root))
    }
}

fn caller() -> User {
    (geteuid().as_raw(), getegid().as_raw())
}

fn ids((uid, gid): User) -> (Uid, Gid) {
    (Uid::from_raw(uid), Gid::from_raw(gid))
}

/// Gives a directory to the command, with a mode.
fn give(place: &OwnedFd, target: &str, mode: u32, user: User, stage: Stage) -> Result<(), Failure> {
    let mode = Mode::from_bits_truncate(mode);
    fchmodat(place, ".", mode, FchmodatFlags::FollowSymlink)
        .or_fail(stage, || format!("fchmodat({target:?}, {:#o})", mode.bits()))?;
    farm::give(place, user.0, user.1, stage)
}

/// Device nodes of our own, which the root user of a container may make. `/dev/shm` is a directory.
fn devices(dev: &OwnedFd) -> Result<(), Failure> {
    let stage = Stage::Devices;
    for (name, major, minor) in DEVICES {
        let mode = Mode::from_bits_truncate(0o666);
        mknodat(dev, name, SFlag::S_IFCHR, mode, makedev(major, minor))
            .or_fail(stage, || format!("mknodat({name:?}, S_IFCHR, {major}:{minor})"))?;
        fchmodat(dev, name, mode, FchmodatFlags::FollowSymlink)
            .or_fail(stage, || format!("fchmodat({name:?})"))?;
    }
    for (name, destination) in LINKS {
        symlinkat(destination, dev, name)
            .or_fail(stage, || format!("symlinkat({destination:?}, {name:?})"))?;
    }
    mkdirat(dev, "shm", Mode::empty()).or_fail(stage, || "mkdirat(\"shm\")".to_owned())?;
    fchmodat(dev, "shm", Mode::from_bits_truncate(0o1777), FchmodatFlags::FollowSymlink)
        .or_fail(stage, || "fchmodat(\"shm\", 01777)".to_owned())
}
