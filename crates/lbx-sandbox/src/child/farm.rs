//! A root without mounts: a copy of a tree made of directories of ours and hard links to its files, with the additions
//! of a specification in it.
//!
//! A link is another name for a file of the store, so only files that the command has no right to write are linked; the
//! others are copied. Where the file system makes no links, everything is.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};

use super::mounts::{PLACE, fd_path};
use crate::error::{Failure, OrFail, Stage};

/// Deeper than any image; what is deeper was made to hurt.
pub(super) const DEEPEST: usize = 200;

/// Whether an entry is left to somebody else.
pub(super) type Skip<'a> = &'a dyn Fn(&str) -> bool;

/// Fills `to` with what `from` has: directories made, files linked or copied, symlinks made anew. Devices, FIFOs and
/// sockets are left out. `skip` decides about the names at the top.
///
/// The command may read all of it, as it may where everything appears as its own.
pub(super) fn grow(from: &OwnedFd, to: &OwnedFd, stage: Stage, skip: Skip<'_>) -> Result<(), Failure> {
    let plot = Plot { from, to, stage, depth: 0 };
    each(from, stage, &mut |name, source, stat| {
        if name.to_str().is_ok_and(skip) { Ok(()) } else { plot.entry(name, &source, stat) }
    })
}

/// A directory, and what it grows into.
struct Plot<'a> {
    from: &'a OwnedFd,
    to: &'a OwnedFd,
    stage: Stage,
    depth: usize,
}

impl Plot<'_> {
    fn entry(&self, name: &CStr, source: &OwnedFd, stat: &FileStat) -> Result<(), Failure> {
        let Self { from, to, stage, depth } = *self;
        let call = |what: &str| format!("{what}(root, {name:?})");
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR if depth > DEEPEST => {
                Err(Failure::new(stage, call("mkdirat"), Errno::ENAMETOOLONG))
            }
            libc::S_IFDIR => {
                // Also where everybody may write to it in the image: the root is read-only.
                let mode = Mode::from_bits_truncate(0o755);
                mkdirat(to, name, mode).or_fail(stage, || call("mkdirat"))?;
                let below = openat(to, name, PLACE | OFlag::O_DIRECTORY, Mode::empty())
                    .or_fail(stage, || call("openat"))?;
                let below = Plot { from: source, to: &below, stage, depth: depth + 1 };
                each(source, stage, &mut |name, inner, stat| below.entry(name, &inner, stat))
            }
            libc::S_IFREG => self.file(name, source, stat),
            libc::S_IFLNK => {
                let destination = readlinkat(from, name).or_fail(stage, || call("readlinkat"))?;
                symlinkat(destination.as_os_str(), to, name).or_fail(stage, || call("symlinkat"))
            }
            _ => Ok(()),
        }
    }

    fn file(&self, name: &CStr, source: &OwnedFd, stat: &FileStat) -> Result<(), Failure> {
        // Ours, and nobody else's to write: a command with another id cannot change it through its new name.
        let ours = stat.st_uid == Uid::effective().as_raw() && stat.st_mode & 0o6022 == 0;
        let readable = stat.st_mode & 0o004 != 0;
        if ours && readable && linkat(self.from, name, self.to, name, AtFlags::empty()).is_ok() {
            return Ok(());
        }
        // Any failure above has the same remedy: another file system, too many links, a policy against them.
        copy(source, self.to, name, self.stage)
    }
}

/// Copies a file.
pub(super) fn copy<N: nix::NixPath + std::fmt::Debug + ?Sized>(
    source: &OwnedFd,
    to: &OwnedFd,
    name: &N,
    stage: Stage,
) -> Result<(), Failure> {
    let call = |what: &str| format!("{what}(root, {name:?})");
    let stat = fstat(source).or_fail(stage, || call("fstat"))?;
    let reader = open(fd_path(source).as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .or_fail(stage, || call("open"))?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let executable = if stat.st_mode & 0o111 == 0 { 0 } else { 0o111 };
    let mode = Mode::from_bits_truncate(0o644 | executable);
    let writer = openat(to, name, flags, mode).or_fail(stage, || call("openat"))?;
    let (mut reader, mut writer) = (std::fs::File::from(reader), std::fs::File::from(writer));
    std::io::copy(&mut reader, &mut writer).map(drop).or_fail(stage, || call("copy_file_range"))
}

/// Gives a directory to the command.
pub(super) fn give(directory: &OwnedFd, uid: u32, gid: u32, stage: Stage) -> Result<(), Failure> {
    change_owner(directory, Uid::from_raw(uid), Gid::from_raw(gid))
        .or_fail(stage, || format!("fchownat({uid}, {gid})"))
}

/// Gives a place, and all below it that one user has, to another user.
pub(super) fn give_all(place: &OwnedFd, from: Uid, to: (Uid, Gid), stage: Stage) -> Result<(), Failure> {
    let stat = fstat(place).or_fail(stage, || "fstat(output)".to_owned())?;
    give_below(place, &stat, from, to, stage, 0)
}

fn give_below(
    place: &OwnedFd,
    stat: &FileStat,
    from: Uid,
    to: (Uid, Gid),
    stage: Stage,
    depth: usize,
) -> Result<(), Failure> {
    if depth > DEEPEST {
        return Err(Failure::new(stage, "fchownat(output)", Errno::ENAMETOOLONG));
    }
    if stat.st_uid == from.as_raw() {
        change_owner(place, to.0, to.1).or_fail(stage, || format!("fchownat({}, {})", to.0, to.1))?;
    }
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        each(place, stage, &mut |_, inner, stat| give_below(&inner, stat, from, to, stage, depth + 1))?;
    }
    Ok(())
}

/// Whether everybody may read a file, or enter and list a directory, by its mode.
pub(super) fn is_readable(stat: &FileStat) -> bool {
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => stat.st_mode & 0o005 == 0o005,
        libc::S_IFREG => {
            // What its owner may execute, the command may.
            let executable = stat.st_mode & 0o100 == 0 || stat.st_mode & 0o001 != 0;
            stat.st_mode & 0o004 != 0 && executable
        }
        _ => true,
    }
}

/// Whether everybody may read all that there is from a place down.
pub(super) fn all_readable(place: &OwnedFd, stat: &FileStat, stage: Stage) -> Result<bool, Failure> {
    let mut all = is_readable(stat);
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        each(place, stage, &mut |_, inner, stat| {
            all = all && all_readable(&inner, stat, stage)?;
            Ok(())
        })?;
    }
    Ok(all)
}

/// Changes who owns a place.
pub(super) fn change_owner(place: &OwnedFd, uid: Uid, gid: Gid) -> nix::Result<()> {
    fchownat(place, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)
}

/// Shows each entry of a directory with its place, which is opened without following anything.
pub(super) fn each(
    directory: &OwnedFd,
    stage: Stage,
    show: &mut dyn FnMut(&CStr, OwnedFd, &FileStat) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut entries = Dir::openat(directory, ".", flags, Mode::empty())
        .or_fail(stage, || "openat(\".\", O_DIRECTORY)".to_owned())?;
    // All names first: some are about to be moved or removed.
    let names = entries.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    let names: Vec<_> =
        names.collect::<nix::Result<_>>().or_fail(stage, || "getdents(directory)".to_owned())?;
    for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
        let call = || format!("openat({name:?})");
        let place = openat(directory, name.as_c_str(), PLACE, Mode::empty()).or_fail(stage, call)?;
        let stat = fstat(&place).or_fail(stage, call)?;
        show(name, place, &stat)?;
    }
    Ok(())
}
