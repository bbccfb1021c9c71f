//! Removes trees that a build's code has made: as deep, and with as few permissions, as it liked.
//!
//! The standard library's `remove_dir_all` holds a descriptor per level and stops at a directory it may not list.
//! This one walks up by `..`, so it never holds more than three descriptors and never a long path, and gives each
//! directory's owner its permissions back. Nothing is renamed: overlayfs refuses to rename some directories.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a directory and everything in it, whatever its depth and its directories' permissions. Symbolic links
/// are removed, not followed, also when `path` is one itself; so is a file there.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let result = match remove_directory(CWD, path) {
        Err(Errno::NOTDIR | Errno::LOOP) => rustix::fs::unlink(path),
        result => result,
    };
    result.map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("failed to remove directory `{}`: {error}", path.display()))
    })
}

/// A directory between the top and where we are.
struct Level {
    /// Device and inode, to know it again.
    identity: (u64, u64),
    /// Its directories that are still there. The last one is being emptied.
    directories: Vec<CString>,
}

/// [`remove_tree`] of a directory below an open one.
pub(crate) fn remove_directory<P: Arg + Copy>(parent: BorrowedFd<'_>, name: P) -> Result<(), Errno> {
    let mut here = open(parent, name)?;
    let mut levels = vec![empty(&here)?];
    while let Some(level) = levels.last_mut() {
        if let Some(child) = level.directories.last() {
            match open(here.as_fd(), child.as_c_str()) {
                Ok(inside) => {
                    levels.push(empty(&inside)?);
                    here = inside;
                }
                Err(Errno::NOENT) => drop(level.directories.pop()),
                Err(errno) => return Err(errno),
            }
            continue;
        }
        levels.pop();
        let Some(above) = levels.last_mut() else { break };
        let up = rustix::fs::openat(&here, "..", DIRECTORY, Mode::empty())?;
        // Somebody has moved the directory, and `..` may be anywhere.
        if identity(&rustix::fs::fstat(&up)?) != above.identity {
            return Err(Errno::STALE);
        }
        here = up;
        if let Some(child) = above.directories.pop() {
            unless_gone(rustix::fs::unlinkat(&here, child, AtFlags::REMOVEDIR))?;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Opens a directory, also one that its owner may not list.
fn open<P: Arg + Copy>(parent: BorrowedFd<'_>, name: P) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {}
        result => return result,
    }
    // A descriptor that needs no permission, because chmod by name would follow a link; by /proc, because fchmod
    // refuses such descriptors.
    let flags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    let handle = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    rustix::fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU)
        .map_err(|_| Errno::ACCESS)?;
    rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
}

/// Removes all that is no directory, and lists the directories.
fn empty(directory: &OwnedFd) -> Result<Level, Errno> {
    let found = rustix::fs::fstat(directory)?;
    if !Mode::from_raw_mode(found.st_mode).contains(Mode::RWXU) {
        // Where this fails, what follows says so, or has permissions from elsewhere.
        let _ = rustix::fs::fchmod(directory, Mode::RWXU);
    }
    // Listed first: some file systems leave entries out of a listing during which others are removed.
    let entries = Dir::read_from(directory)?.collect::<Result<Vec<_>, _>>()?;
    let mut directories = Vec::new();
    for entry in entries {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // Not every file system says what an entry is.
        let is_directory = entry.file_type() == FileType::Directory
            || match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => true,
                result => {
                    unless_gone(result)?;
                    false
                }
            };
        if is_directory {
            directories.push(name.to_owned());
        }
    }
    Ok(Level { identity: identity(&found), directories })
}

fn identity(found: &rustix::fs::Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

fn unless_gone(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::NOENT) { Ok(()) } else { result }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use fs_err as fs;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

    use super::*;

    /// Runs something as a user without privileges, also where the tests run as root.
    pub(crate) fn unprivileged<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        std::thread::scope(|scope| {
            // Capabilities belong to a thread.
            let thread = scope.spawn(|| {
                set_capabilities(None, sets).expect("capabilities can be dropped");
                work()
            });
            thread.join().expect("no panic")
        })
    }

    /// A directory with directories that nobody may list, enter or change.
    pub(crate) fn make_locked(top: &Path) {
        for (name, mode) in [("none", 0o000), ("read", 0o555), ("list", 0o400), ("enter", 0o100)] {
            let path = top.join(name);
            fs::create_dir_all(path.join("inner/inmost")).expect("directories");
            fs::write(path.join("inner/file"), b"x").expect("a file");
            for path in [path.join("inner"), path] {
                fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
            }
        }
    }

    /// A directory deeper than a process with the usual limit can have descriptors. Sets that limit: it is the
    /// process's, and no test needs more.
    pub(crate) fn make_deep(top: &Path) {
        let current = Some(1024);
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("a lower limit");
        fs::create_dir_all(top).expect("a directory");
        let mut here = open(CWD, top).expect("the top");
        for _ in 0..6000 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).expect("a directory");
            here = open(here.as_fd(), "d").expect("a directory");
        }
    }

    #[test]
    fn directories_without_permissions_are_removed_by_their_unprivileged_owner() {
        let home = tempfile::tempdir().expect("a directory");
        let top = home.path().join("top");
        make_locked(&top);
        fs::set_permissions(&top, PermissionsExt::from_mode(0o000)).expect("a mode");
        unprivileged(|| remove_tree(&top)).expect("removed");
        assert!(!top.exists());
    }

    #[test]
    fn a_directory_deeper_than_there_are_descriptors_is_removed() {
        let home = tempfile::tempdir().expect("a directory");
        let top = home.path().join("top");
        make_deep(&top);
        remove_tree(&top).expect("removed");
        assert!(!top.exists());
    }

    #[test]
    fn links_to_the_outside_are_removed_and_not_followed() {
        let home = tempfile::tempdir().expect("a directory");
        let (outside, top) = (home.path().join("outside"), home.path().join("top"));
        fs::create_dir(&outside).expect("a directory");
        fs::write(outside.join("kept"), b"x").expect("a file");
        fs::set_permissions(&outside, PermissionsExt::from_mode(0o750)).expect("a mode");
        fs::create_dir_all(top.join("inner")).expect("directories");
        symlink(&outside, top.join("link")).expect("a link");
        symlink("../../outside", top.join("inner/link")).expect("a link");
        symlink(outside.join("kept"), top.join("inner/file")).expect("a link");
        remove_tree(&top).expect("removed");
        assert!(!top.exists());
        symlink(&outside, &top).expect("a link");
        remove_tree(&top).expect("the link itself");
        assert!(fs::symlink_metadata(&top).is_err());
        assert!(outside.join("kept").exists());
        assert_eq!(fs::metadata(&outside).expect("metadata").permissions().mode() & 0o777, 0o750);
    }

    #[test]
    fn wide_trees_go_and_what_is_not_there_is_told() {
        let home = tempfile::tempdir().expect("a directory");
        let top = home.path().join("top");
        for number in 0..300 {
            fs::create_dir_all(top.join(format!("{number}/a/b"))).expect("directories");
            fs::write(top.join(format!("{number}/a/file")), b"x").expect("a file");
        }
        remove_tree(&top).expect("removed");
        let error = remove_tree(&top).expect_err("nothing there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains(&top.display().to_string()), "{error}");
    }
}
