//! Writable places where nothing can be bound: what is there is copied in before the command, and what the command has
//! changed is put back after its last process is dead. What it left alone is not touched.
//!
//! What comes back is a stranger's: names are moved, not what they lead to, and only files, directories and symlinks that
//! the command made are.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmodat, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, symlinkat, unlinkat};

use super::farm::{DEEPEST, change_owner, copy, each};
use super::mounts::PLACE;
use crate::error::{Failure, Stage};

/// The stage of all of this.
const STAGE: Stage = Stage::Binds;
/// Under which name a file lies beside its place until it is whole. Nobody else may be called so there.
const NEW: &CStr = c".lbx-sandbox-new";

/// A writable place in a root without mounts.
pub(super) struct Loan {
    place: OwnedFd,
    /// What was copied in.
    entries: Entries,
}

/// The entries of a directory, and of those in it.
type Entries = BTreeMap<CString, Entry>;

struct Entry {
    /// Which file it was, and when it was last changed: nobody can set that back.
    stamp: Stamp,
    below: Entries,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(stat: &FileStat) -> Self {
        Self { inode: stat.st_ino, changed: (stat.st_ctime, stat.st_ctime_nsec) }
    }
}

impl Loan {
    /// Copies a directory into an empty one, and gives all of it to the command.
    pub(super) fn make(source: &OwnedFd, place: OwnedFd, command: (Uid, Gid)) -> Result<Self, Failure> {
        copy_all(source, &place, 0)?;
        super::farm::give_all(&place, Uid::effective(), command, STAGE)?;
        let entries = entries(&place, 0)?;
        Ok(Self { place, entries })
    }

    /// Puts back what has changed.
    pub(super) fn end(&self, to: &OwnedFd, command: Uid) -> Result<(), Failure> {
        let returned = Return { command };
        returned.directory(&self.place, to, &self.entries, 0)
    }
}

fn failure(call: &str, name: &CStr, errno: Errno) -> Failure {
    Failure::new(STAGE, format!("{call}(output, {name:?})"), errno)
}

fn too_deep(depth: usize) -> Result<(), Failure> {
    if depth > DEEPEST { Err(Failure::new(STAGE, "openat(output)", Errno::ENAMETOOLONG)) } else { Ok(()) }
}

/// Opens a directory among the entries of another one.
fn below(at: &OwnedFd, name: &CStr) -> Result<OwnedFd, Failure> {
    openat(at, name, PLACE | OFlag::O_DIRECTORY, Mode::empty())
        .map_err(|errno| failure("openat", name, errno))
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Copies files, directories and symlinks, with their permissions.
fn copy_all(from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<(), Failure> {
    too_deep(depth)?;
    each(from, STAGE, &mut |name, place, stat| copy_one(from, name, &place, stat, to, depth))
}

fn copy_one(
    from: &OwnedFd,
    name: &CStr,
    place: &OwnedFd,
    stat: &FileStat,
    to: &OwnedFd,
    depth: usize,
) -> Result<(), Failure> {
    let failed = |call: &'static str| move |errno| failure(call, name, errno);
    match kind(stat) {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::from_bits_truncate(stat.st_mode & 0o777 | 0o700))
                .map_err(failed("mkdirat"))?;
            copy_all(place, &below(to, name)?, depth + 1)
        }
        SFlag::S_IFREG => {
            copy(place, to, name, STAGE)?;
            let mode = Mode::from_bits_truncate(stat.st_mode & 0o777 | 0o600);
            // Just made by this process, so that it is what it was.
            fchmodat(to, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink).map_err(failed("fchmodat"))
        }
        SFlag::S_IFLNK => {
            let destination = readlinkat(from, name).map_err(failed("readlinkat"))?;
            symlinkat(destination.as_os_str(), to, name).map_err(failed("symlinkat"))
        }
        _ => Ok(()),
    }
}

fn entries(directory: &OwnedFd, depth: usize) -> Result<Entries, Failure> {
    too_deep(depth)?;
    let mut found = Entries::new();
    each(directory, STAGE, &mut |name, place, stat| {
        let below = if kind(stat) == SFlag::S_IFDIR { entries(&place, depth + 1)? } else { Entries::new() };
        found.insert(name.to_owned(), Entry { stamp: Stamp::of(stat), below });
        Ok(())
    })?;
    Ok(found)
}

/// What goes back, and to whom it belonged.
struct Return {
    command: Uid,
}

impl Return {
    /// Brings a directory to the state of its copy, as far as the command changed that.
    fn directory(&self, from: &OwnedFd, to: &OwnedFd, before: &Entries, depth: usize) -> Result<(), Failure> {
        too_deep(depth)?;
        let mut left = std::collections::BTreeSet::new();
        each(from, STAGE, &mut |name, place, stat| {
            left.insert(name.to_owned());
            self.entry(from, name, &place, stat, to, before.get(name), depth)
        })?;
        let gone = before.keys().filter(|name| !left.contains(*name));
        gone.for_each(|name| {
            // Somebody else may have been faster.
            let _ = remove(to, name);
        });
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "two directories and one entry, seen before and after")]
    fn entry(
        &self,
        from: &OwnedFd,
        name: &CStr,
        place: &OwnedFd,
        stat: &FileStat,
        to: &OwnedFd,
        before: Option<&Entry>,
        depth: usize,
    ) -> Result<(), Failure> {
        let made = stat.st_uid == self.command.as_raw();
        match kind(stat) {
            SFlag::S_IFDIR if made => {
                // A directory that the command closed to itself is open to its owner.
                let there = make_directory(to, name, stat)?;
                let nothing = Entries::new();
                self.directory(place, &there, before.map_or(&nothing, |entry| &entry.below), depth + 1)
            }
            SFlag::S_IFREG | SFlag::S_IFLNK if made => {
                if before.is_some_and(|entry| entry.stamp == Stamp::of(stat)) {
                    return Ok(());
                }
                put(from, name, place, stat, to)
            }
            // A pipe, a device, a socket, or another name for a file of the image.
            _ => Ok(()),
        }
    }
}

fn make_directory(to: &OwnedFd, name: &CStr, stat: &FileStat) -> Result<OwnedFd, Failure> {
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o777);
    match mkdirat(to, name, mode) {
        Ok(()) => below(to, name),
        Err(Errno::EEXIST) => below(to, name).or_else(|_| {
            remove(to, name)?;
            mkdirat(to, name, mode).map_err(|errno| failure("mkdirat", name, errno))?;
            below(to, name)
        }),
        Err(errno) => Err(failure("mkdirat", name, errno)),
    }
}

/// Puts a file or a symlink in its place at once, whatever is there.
fn put(from: &OwnedFd, name: &CStr, place: &OwnedFd, stat: &FileStat, to: &OwnedFd) -> Result<(), Failure> {
    change_owner(place, Uid::effective(), Gid::effective())
        .map_err(|errno| failure("fchownat", name, errno))?;
    let there = openat(to, name, PLACE, Mode::empty()).and_then(fstat);
    if there.is_ok_and(|there| kind(&there) == SFlag::S_IFDIR) {
        remove(to, name)?;
    }
    match renameat(from, name, to, name) {
        Err(Errno::EXDEV) => {}
        other => return other.map_err(|errno| failure("renameat", name, errno)),
    }
    // Left by one that was killed.
    let _ = unlinkat(to, NEW, UnlinkatFlags::NoRemoveDir);
    let failed = |call: &'static str| move |errno| failure(call, name, errno);
    if kind(stat) == SFlag::S_IFLNK {
        let destination = readlinkat(from, name).map_err(failed("readlinkat"))?;
        symlinkat(destination.as_os_str(), to, NEW).map_err(failed("symlinkat"))?;
    } else {
        copy(place, to, NEW, STAGE)?;
    }
    renameat(to, NEW, to, name).map_err(failed("renameat"))
}

/// Removes an entry with all that is in it.
fn remove(at: &OwnedFd, name: &CStr) -> Result<(), Failure> {
    match unlinkat(at, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(failure("unlinkat", name, errno)),
    }
    let directory = below(at, name)?;
    each(&directory, STAGE, &mut |name, _, _| remove(&directory, name))?;
    unlinkat(at, name, UnlinkatFlags::RemoveDir).map_err(|errno| failure("unlinkat", name, errno))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        nix::fcntl::open(path, PLACE | OFlag::O_DIRECTORY, Mode::empty()).expect("a directory")
    }

    #[test]
    fn what_was_changed_goes_back_and_what_was_not_stays_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let (from, copy) = (directory.path().join("from"), directory.path().join("copy"));
        for path in ["kept", "removed/deep", "becomes-file", "grows"] {
            fs_err::create_dir_all(from.join(path)).expect("a directory");
        }
        for path in ["kept/a", "changed", "removed/deep/x", "gone", "becomes-directory", "same"] {
            fs_err::write(from.join(path), "before").expect("a file");
        }
        symlink("same", from.join("link")).expect("a link");
        fs_err::create_dir(&copy).expect("a directory");
        let own = (Uid::effective(), Gid::effective());
        let loan = Loan::make(&open(&from), open(&copy), own).expect("copied in");
        assert_eq!(fs_err::read_to_string(copy.join("link")).expect("a file"), "before");
        // The command's part.
        fs_err::write(copy.join("changed"), "after!").expect("a file");
        fs_err::remove_dir_all(copy.join("removed")).expect("removed");
        fs_err::remove_file(copy.join("gone")).expect("removed");
        fs_err::remove_dir(copy.join("becomes-file")).expect("removed");
        fs_err::write(copy.join("becomes-file"), "a file").expect("a file");
        fs_err::remove_file(copy.join("becomes-directory")).expect("removed");
        fs_err::create_dir(copy.join("becomes-directory")).expect("a directory");
        fs_err::write(copy.join("grows/new"), "new").expect("a file");
        nix::unistd::mkfifo(&copy.join("pipe"), Mode::S_IRWXU).expect("a pipe");
        symlink("/etc/passwd", copy.join("trap")).expect("a link");
        // And somebody else's, meanwhile.
        fs_err::write(from.join("same"), "edited meanwhile").expect("a file");
        fs_err::write(from.join("kept/b"), "made meanwhile").expect("a file");
        loan.end(&open(&from), own.0).expect("put back");
        let read = |path: &str| fs_err::read_to_string(from.join(path)).expect(path);
        assert_eq!(read("changed"), "after!");
        assert_eq!(read("becomes-file"), "a file");
        assert_eq!(read("grows/new"), "new");
        assert_eq!((read("same").as_str(), read("kept/b").as_str()), ("edited meanwhile", "made meanwhile"));
        assert!(from.join("becomes-directory").is_dir());
        for path in ["removed", "gone", "pipe"] {
            assert!(from.join(path).symlink_metadata().is_err(), "{path}");
        }
        assert_eq!(fs_err::read_link(from.join("trap")).expect("a link"), Path::new("/etc/passwd"));
    }
}
