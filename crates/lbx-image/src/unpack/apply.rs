//! The second half of unpacking: entries to files, below one descriptor and nowhere else.
//!
//! Parents are resolved by `resolve`; every operation on a name is relative to its parent and follows nothing.
//! Removals are collected and put into the tree at the end, so their place in the archive doesn't matter: they
//! remove what is in the layers below, never what this layer brings.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::names::{Marker, components, marker, printable};
use super::resolve::{Resolver, Root};
use super::stream::{Entry, Kind, Stream};
use super::{LayerRecord, Limits, PathBytes, UnpackError};
use crate::remove::remove_directory;

/// What marks a directory opaque for an overlay mounted with `userxattr`.
pub(crate) const OPAQUE_ATTRIBUTE: &str = "user.overlay.opaque";

const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One layer being written.
pub(super) struct Applier<'a> {
    limits: &'a Limits,
    root: Root,
    /// Mode bits that the process's umask takes from what it creates.
    masked: u32,
    record: LayerRecord,
    /// Made without an entry so far; an entry may follow.
    implicit: BTreeSet<Vec<u8>>,
    whiteouts: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    /// Directories' times, set when nothing changes them any more.
    times: Vec<(Vec<u8>, (i64, u32))>,
}

/// The name an operation is about: its parent's descriptor, and the entry for messages.
struct Place<'a> {
    parent: Rc<OwnedFd>,
    name: &'a [u8],
    entry: &'a [u8],
}

impl<'a> Applier<'a> {
    pub(super) fn create(tree: &Path, limits: &'a Limits, resolver: Resolver) -> Result<Self, UnpackError> {
        let at_root = |call| system(call, b"/");
        rustix::fs::mkdir(tree, Mode::from_raw_mode(0o777)).map_err(at_root("mkdir"))?;
        let root = rustix::fs::open(tree, OPEN_DIRECTORY, Mode::empty()).map_err(at_root("open"))?;
        let made = rustix::fs::fstat(&root).map_err(at_root("fstat"))?;
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)).map_err(at_root("fchmod"))?;
        Ok(Self {
            limits,
            root: Root::new(root, resolver),
            masked: 0o777 & !made.st_mode,
            record: LayerRecord::default(),
            implicit: BTreeSet::new(),
            whiteouts: BTreeSet::new(),
            opaque: BTreeSet::new(),
            times: Vec::new(),
        })
    }

    pub(super) fn run(mut self, reader: impl BufRead) -> Result<LayerRecord, UnpackError> {
        let mut stream = Stream::new(reader, self.limits);
        while let Some(entry) = stream.next()? {
            self.record.entries += 1;
            if self.record.entries > self.limits.entries {
                return Err(limit(&entry.path, "entries", self.limits.entries));
            }
            self.entry(&entry, &mut stream)?;
        }
        stream.drain()?;
        self.finish()
    }

    fn entry(&mut self, entry: &Entry, stream: &mut Stream<'_, impl BufRead>) -> Result<(), UnpackError> {
        let parts = components(&entry.path, self.limits)?;
        let Some((name, parents)) = parts.split_last() else { return self.root_entry(entry) };
        if parents.iter().any(|part| part.starts_with(b".wh.")) {
            return Err(refuse(&entry.path, "a marker is no directory"));
        }
        match marker(name).map_err(|problem| refuse(&entry.path, problem))? {
            Marker::None => {}
            other => return self.marker(entry, parents, &other),
        }
        let path = parts.join(&b'/');
        if entry.kind == Kind::Special {
            self.record.skipped.push(PathBytes(path));
            return Ok(());
        }
        let place = Place { parent: self.parent(parents, &entry.path)?, name, entry: &entry.path };
        if entry.mode & 0o6000 != 0 && entry.kind == Kind::File {
            self.record.privileged.push(PathBytes(path.clone()));
        }
        match &entry.kind {
            Kind::File => self.file(&place, entry, stream, None),
            Kind::Sparse { pieces, length } => self.file(&place, entry, stream, Some((pieces, *length))),
            Kind::Directory => self.directory(&place, entry, path),
            Kind::Symlink => self.symlink(&place, entry),
            Kind::HardLink => self.hard_link(&place, entry),
            Kind::Special => Ok(()),
        }
    }

    /// The tree's own root may have an entry, but only as what it is.
    fn root_entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Directory {
            return Err(refuse(&entry.path, "the root must stay a directory"));
        }
        self.times.push((Vec::new(), entry.modified));
        rustix::fs::fchmod(self.root.fd(), directory_mode(entry.mode)).map_err(system("fchmod", &entry.path))
    }

    fn marker(&mut self, entry: &Entry, parents: &[&[u8]], marker: &Marker<'_>) -> Result<(), UnpackError> {
        if !matches!(entry.kind, Kind::File | Kind::HardLink | Kind::Special) {
            return Err(refuse(&entry.path, "a marker must be an empty file"));
        }
        match marker {
            Marker::Whiteout(name) => {
                let path = [parents, &[name]].concat().join(&b'/');
                self.whiteouts.insert(path);
            }
            Marker::Opaque => {
                self.opaque.insert(parents.join(&b'/'));
            }
            Marker::Foreign | Marker::None => {
                self.record.skipped.push(PathBytes(entry.path.clone()));
            }
        }
        Ok(())
    }

    fn parent(&mut self, parents: &[&[u8]], entry: &[u8]) -> Result<Rc<OwnedFd>, UnpackError> {
        let mut created = Vec::new();
        let opened = self.root.create(parents, &mut created).map_err(|errno| match errno {
            Errno::NOTDIR => refuse(entry, "one of its parents is no directory"),
            Errno::LOOP => refuse(entry, "its parents are a loop of links"),
            errno => system("openat", entry)(errno),
        })?;
        self.implicit.extend(created);
        Ok(opened)
    }

    fn file(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        stream: &mut Stream<'_, impl BufRead>,
        sparse: Option<(&[(u64, u64)], u64)>,
    ) -> Result<(), UnpackError> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777 | 0o600);
        let create = || rustix::fs::openat(&place.parent, place.name, NEW_FILE, mode);
        let file = self.replacing("openat", place, create)?;
        let bytes = match sparse {
            Some((pieces, length)) => {
                self.count(length, place.entry)?;
                write_pieces(&file, pieces, length, stream, place.entry)?;
                length
            }
            None => write_all(&file, stream, place.entry)?,
        };
        if sparse.is_none() {
            self.count(bytes, place.entry)?;
        }
        if mode.as_raw_mode() & self.masked != 0 {
            rustix::fs::fchmod(&file, mode).map_err(system("fchmod", place.entry))?;
        }
        rustix::fs::futimens(&file, &timestamps(entry.modified)).map_err(system("futimens", place.entry))
    }

    fn count(&mut self, bytes: u64, entry: &[u8]) -> Result<(), UnpackError> {
        self.record.bytes = self.record.bytes.saturating_add(bytes);
        if self.record.bytes > self.limits.total_bytes {
            return Err(limit(entry, "bytes of files", self.limits.total_bytes));
        }
        Ok(())
    }

    fn directory(&mut self, place: &Place<'_>, entry: &Entry, path: Vec<u8>) -> Result<(), UnpackError> {
        let mode = directory_mode(entry.mode);
        let make = || rustix::fs::mkdirat(&place.parent, place.name, mode);
        let kept = match make() {
            Ok(()) => false,
            // Over a directory, an entry changes only its mode; over anything else, links included, it replaces.
            Err(Errno::EXIST) if kind(place)? == Some(FileType::Directory) => true,
            Err(Errno::EXIST) => {
                self.remove(place)?;
                make().map_err(system("mkdirat", place.entry))?;
                false
            }
            Err(errno) => return Err(system("mkdirat", place.entry)(errno)),
        };
        if kept || mode.as_raw_mode() & self.masked != 0 {
            let opened = rustix::fs::openat(&place.parent, place.name, OPEN_DIRECTORY, Mode::empty())
                .map_err(system("openat", place.entry))?;
            rustix::fs::fchmod(&opened, mode).map_err(system("fchmod", place.entry))?;
        }
        self.implicit.remove(&path);
        self.times.push((path, entry.modified));
        Ok(())
    }

    fn symlink(&mut self, place: &Place<'_>, entry: &Entry) -> Result<(), UnpackError> {
        let target = entry.target.as_slice();
        if target.is_empty() || target.contains(&0) {
            return Err(refuse(place.entry, "its target is empty or contains NUL"));
        }
        if target.len() > self.limits.path_length.min(4095) {
            return Err(limit(place.entry, "bytes of a link's target", self.limits.path_length as u64));
        }
        // The target is kept as it is: inside the image it means what it says, and lbx never follows it.
        let link = || rustix::fs::symlinkat(target, &place.parent, place.name);
        self.replacing("symlinkat", place, link)?;
        let times = timestamps(entry.modified);
        rustix::fs::utimensat(&place.parent, place.name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(system("utimensat", place.entry))
    }

    fn hard_link(&mut self, place: &Place<'_>, entry: &Entry) -> Result<(), UnpackError> {
        // Layers are unpacked alone, and overlayfs has no links between them either: builders on overlayfs copy a
        // file up before they link to it.
        let missing =
            || UnpackError::LowerLink { entry: printable(place.entry), target: printable(&entry.target) };
        let parts = components(&entry.target, self.limits)?;
        let Some((name, parents)) = parts.split_last() else {
            return Err(refuse(place.entry, "it is a hard link to the root"));
        };
        let parent = self.root.open(parents).map_err(|_| missing())?;
        let target = Place { parent, name, entry: place.entry };
        let found = stat(&target)?.ok_or_else(missing)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(refuse(place.entry, "it is a hard link to a directory"));
        }
        // A link to itself must not remove itself first.
        if stat(place)?.is_some_and(|here| (here.st_dev, here.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(());
        }
        let link =
            || rustix::fs::linkat(&target.parent, target.name, &place.parent, place.name, AtFlags::empty());
        self.replacing("linkat", place, link)
    }

    /// Creates something under a name, removing first what has that name.
    fn replacing<T>(
        &mut self,
        call: &'static str,
        place: &Place<'_>,
        create: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        match create() {
            Err(Errno::EXIST) => {
                self.remove(place)?;
                create().map_err(system(call, place.entry))
            }
            result => result.map_err(system(call, place.entry)),
        }
    }

    fn remove(&mut self, place: &Place<'_>) -> Result<(), UnpackError> {
        let found = kind(place)?;
        if !matches!(found, Some(FileType::RegularFile)) {
            self.root.forget();
        }
        if found != Some(FileType::Directory) {
            return rustix::fs::unlinkat(&place.parent, place.name, AtFlags::empty())
                .map_err(system("unlinkat", place.entry));
        }
        remove_directory(place.parent.as_fd(), place.name).map_err(system("unlinkat", place.entry))
    }

    fn finish(mut self) -> Result<LayerRecord, UnpackError> {
        let mut ready = true;
        for path in std::mem::take(&mut self.whiteouts) {
            ready &= self.write_whiteout(&path)?;
        }
        for path in std::mem::take(&mut self.opaque) {
            ready &= self.write_opaque(&path)?;
        }
        for (path, modified) in std::mem::take(&mut self.times) {
            let parts = components_of(&path);
            // Something else may have taken its place since.
            let Ok(directory) = self.root.open(&parts) else { continue };
            let opened = rustix::fs::openat(&directory, ".", OPEN_DIRECTORY, Mode::empty());
            let opened = opened.map_err(system("openat", &path))?;
            rustix::fs::futimens(&opened, &timestamps(modified)).map_err(system("futimens", &path))?;
        }
        self.record.implicit = self.implicit.into_iter().map(PathBytes).collect();
        self.record.overlay_ready = ready;
        Ok(self.record)
    }

    /// Puts a removal into the tree; `false` when the file system can't hold one.
    fn write_whiteout(&mut self, path: &[u8]) -> Result<bool, UnpackError> {
        let parts = components_of(path);
        let Some((name, parents)) = parts.split_last() else { return Ok(true) };
        let place = Place { parent: self.parent(parents, path)?, name, entry: path };
        match kind(&place)? {
            // The layer brings a directory of that name: what is below must not show through it.
            Some(FileType::Directory) => {
                self.opaque.insert(path.to_vec());
                Ok(true)
            }
            // The layer brings a file of that name, which hides the one below anyhow.
            Some(_) => Ok(true),
            None => {
                self.record.whiteouts.push(PathBytes(path.to_vec()));
                let kind = FileType::CharacterDevice;
                let made = rustix::fs::mknodat(&place.parent, *name, kind, Mode::empty(), 0);
                supported("mknodat", path, made)
            }
        }
    }

    fn write_opaque(&mut self, path: &[u8]) -> Result<bool, UnpackError> {
        let parts = components_of(path);
        let directory = self.parent(&parts, path)?;
        self.record.opaque.push(PathBytes(path.to_vec()));
        if parts.is_empty() {
            // overlayfs always merges the roots of its layers.
            return Ok(false);
        }
        let opened = rustix::fs::openat(&directory, ".", OPEN_DIRECTORY, Mode::empty());
        let opened = opened.map_err(system("openat", path))?;
        let set = rustix::fs::fsetxattr(&opened, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty());
        supported("fsetxattr", path, set)
    }
}

fn components_of(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect()
}

fn stat(place: &Place<'_>) -> Result<Option<Stat>, UnpackError> {
    match rustix::fs::statat(&place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(system("fstatat", place.entry)(errno)),
    }
}

fn kind(place: &Place<'_>) -> Result<Option<FileType>, UnpackError> {
    Ok(stat(place)?.map(|found| FileType::from_raw_mode(found.st_mode)))
}

fn directory_mode(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o1777 | 0o700)
}

fn timestamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn write_all(
    file: &OwnedFd,
    stream: &mut Stream<'_, impl BufRead>,
    entry: &[u8],
) -> Result<u64, UnpackError> {
    let mut total = 0;
    loop {
        let data = stream.data()?;
        if data.is_empty() {
            return Ok(total);
        }
        let count = retry(|| rustix::io::write(file, data)).map_err(system("write", entry))?;
        stream.consume(count);
        total += count as u64;
    }
}

fn write_pieces(
    file: &OwnedFd,
    pieces: &[(u64, u64)],
    length: u64,
    stream: &mut Stream<'_, impl BufRead>,
    entry: &[u8],
) -> Result<(), UnpackError> {
    rustix::fs::ftruncate(file, length).map_err(system("ftruncate", entry))?;
    for (offset, size) in pieces {
        let mut done = 0;
        while done < *size {
            let data = stream.data()?;
            if data.is_empty() {
                return Err(refuse(entry, "its data is shorter than its pieces"));
            }
            let data = &data[..data.len().min(usize::try_from(size - done).unwrap_or(usize::MAX))];
            let count = retry(|| rustix::io::pwritev(file, &[IoSlice::new(data)], offset + done))
                .map_err(system("pwritev", entry))?;
            stream.consume(count);
            done += count as u64;
        }
    }
    Ok(())
}

fn retry<T>(call: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    rustix::io::retry_on_intr(call)
}

fn supported(call: &'static str, path: &[u8], result: Result<(), Errno>) -> Result<bool, UnpackError> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(system(call, path)(errno)),
    }
}

fn system<'e>(call: &'static str, entry: &'e [u8]) -> impl Fn(Errno) -> UnpackError + 'e {
    move |errno| UnpackError::System { call, entry: printable(entry), source: io::Error::from(errno) }
}

fn refuse(entry: &[u8], problem: &str) -> UnpackError {
    UnpackError::Entry { entry: printable(entry), problem: problem.to_owned() }
}

fn limit(entry: &[u8], what: &'static str, limit: u64) -> UnpackError {
    UnpackError::Limit { entry: printable(entry), what, limit }
}
