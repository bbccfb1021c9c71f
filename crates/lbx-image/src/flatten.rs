//! An image's layers merged into one tree, for hosts where overlayfs is refused.
//!
//! Removals come from the layers' records, not from markers in their trees, so this also works where the file
//! system can't hold the markers. Files are cloned where the file system can (FICLONE), copied otherwise; never
//! linked, because the merged tree is given to programs and the layers are shared.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::remove::remove_directory;
use crate::store::{Store, StoredLayer};
use crate::unpack::{LayerRecord, PathBytes, Resolver, Root};
use crate::{Digest, Error, Image};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Merges the layers of an image into one tree and returns its path. It is kept in the store by the layers'
/// diffIDs, so the second call for the same layers returns at once. Read-only by agreement, like the layers.
///
/// This reads and writes files on the calling thread: call it off the async runtime.
pub fn flatten(store: &Store, image: &Image) -> Result<PathBuf, Error> {
    flatten_into(store, image).map_err(|error| error.in_store(store.root()))
}

/// The name of an image's merged tree in the store's `flat/v1`, whether it is there or not.
pub fn flat_name(image: &Image) -> String {
    key(image).hex().to_owned()
}

fn key(image: &Image) -> Digest {
    let ids: Vec<&str> = image.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    Digest::of(ids.join("\n").as_bytes())
}

fn flatten_into(store: &Store, image: &Image) -> Result<PathBuf, Error> {
    let key = key(image);
    let finished = store.flat_path(&key).join("tree");
    if finished.is_dir() {
        return Ok(finished);
    }
    let scratch = store.scratch()?;
    let work = scratch.path("flat");
    let tree = work.join("tree");
    fs_err::create_dir_all(&tree)?;
    for layer in &image.layers {
        let missing = || Error::Offline { what: format!("layer {}", layer.diff_id) };
        let stored = store.layer(&layer.diff_id)?.ok_or_else(missing)?;
        merge(&stored, &tree, Resolver::detect())?;
    }
    store.commit_flat(&work, &key)?;
    Ok(finished)
}

/// Copies a complete tree to a path that does not exist yet, whose owner may then change it. Files are cloned where the file
/// system can.
pub fn copy_tree(tree: &Path, target: &Path) -> Result<(), Error> {
    fs_err::create_dir_all(target)?;
    let layer = StoredLayer { tree: tree.to_path_buf(), record: LayerRecord::default() };
    merge(&layer, target, Resolver::detect())
}

/// Puts one layer on top of a tree.
pub(crate) fn merge(layer: &StoredLayer, tree: &Path, resolver: Resolver) -> Result<(), Error> {
    let failed = |path: &Path, errno: Errno| {
        let error = io::Error::from(errno);
        Error::Io(io::Error::new(error.kind(), format!("merge into {}: {error}", path.display())))
    };
    let open =
        |path: &Path| rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(|errno| failed(path, errno));
    let (from, to) = (open(&layer.tree)?, open(tree)?);
    let mut merger = Merger {
        root: Root::new(open(tree)?, resolver),
        implicit: layer.record.implicit.iter().collect(),
        links: HashMap::new(),
        path: Vec::new(),
    };
    merger.remove(&layer.record.whiteouts, &layer.record.opaque).map_err(|errno| failed(tree, errno))?;
    merger.directory(&from, &to).map_err(|errno| {
        let path = layer.tree.join(PathBytes(merger.path.clone()).as_path());
        failed(&path, errno)
    })
}

struct Merger<'a> {
    root: Root,
    implicit: HashSet<&'a PathBytes>,
    /// Files with several names: where the first one went.
    links: HashMap<u64, Vec<u8>>,
    /// Where we are, for messages and to know implicit directories.
    path: Vec<u8>,
}

impl Merger<'_> {
    fn remove(&mut self, whiteouts: &[PathBytes], opaque: &[PathBytes]) -> Result<(), Errno> {
        for PathBytes(path) in whiteouts {
            let (parents, name) = split(path);
            match self.root.open(&parents) {
                Ok(parent) => discard(parent.as_fd(), name)?,
                // What isn't there needs no removal.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(errno),
            }
            self.root.forget();
        }
        for PathBytes(path) in opaque {
            let parts: Vec<&[u8]> =
                path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
            let Ok(directory) = self.root.open(&parts) else { continue };
            let directory = rustix::fs::openat(&directory, ".", DIRECTORY, Mode::empty())?;
            for name in names(&directory)? {
                discard(directory.as_fd(), &name)?;
            }
            self.root.forget();
        }
        Ok(())
    }

    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
        let length = self.path.len();
        let mut names = names(from)?;
        names.sort();
        for name in names {
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            self.entry(from, to, &name)?;
            self.path.truncate(length);
        }
        let attributes = rustix::fs::fstat(from)?;
        if !self.implicit.contains(&PathBytes(self.path.clone())) {
            rustix::fs::fchmod(to, Mode::from_raw_mode(attributes.st_mode))?;
        }
        rustix::fs::futimens(to, &times(&attributes))
    }

    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let source = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(source.st_mode) {
            FileType::Directory => {
                let inside = rustix::fs::openat(from, name, DIRECTORY, Mode::empty())?;
                let target = self.open_or_make(to, name, &source)?;
                self.directory(&inside, &target)
            }
            FileType::RegularFile => {
                discard(to.as_fd(), name)?;
                self.file(from, to, name, &source)
            }
            FileType::Symlink => {
                discard(to.as_fd(), name)?;
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                rustix::fs::utimensat(to, name, &times(&source), AtFlags::SYMLINK_NOFOLLOW)
            }
            // Only a removal's marker can be here, and removals are done.
            _ => Ok(()),
        }
    }

    fn open_or_make(&mut self, to: &OwnedFd, name: &[u8], source: &Stat) -> Result<OwnedFd, Errno> {
        match rustix::fs::openat(to, name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => {}
            // The layer has no entry for this directory, so it means the one that is there: behind a link too.
            Err(Errno::NOTDIR | Errno::LOOP) if self.implicit.contains(&PathBytes(self.path.clone())) => {
                let path = self.path.clone();
                let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
                if let Ok(behind) = self.root.open(&parts) {
                    return rustix::fs::openat(&behind, ".", DIRECTORY, Mode::empty());
                }
                discard(to.as_fd(), name)?;
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {
                discard(to.as_fd(), name)?;
                self.root.forget();
            }
            result => return result,
        }
        rustix::fs::mkdirat(to, name, Mode::RWXU)?;
        let made = rustix::fs::openat(to, name, DIRECTORY, Mode::empty())?;
        // Also a directory without an entry needs a mode when there is none below to take it from.
        rustix::fs::fchmod(&made, Mode::from_raw_mode(source.st_mode))?;
        Ok(made)
    }

    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &[u8], source: &Stat) -> Result<(), Errno> {
        if let Some(first) = self.links.get(&source.st_ino) {
            let (parents, first) = split(first);
            let directory = self.root.open(&parents)?;
            return rustix::fs::linkat(&directory, first, to, name, AtFlags::empty());
        }
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let input = rustix::fs::openat(from, name, read, Mode::empty())?;
        let output = rustix::fs::openat(to, name, write, Mode::RWXU)?;
        if rustix::fs::ioctl_ficlone(&output, &input).is_err() {
            copy(&input, &output)?;
        }
        rustix::fs::fchmod(&output, Mode::from_raw_mode(source.st_mode))?;
        rustix::fs::futimens(&output, &times(source))?;
        if source.st_nlink > 1 {
            self.links.insert(source.st_ino, self.path.clone());
        }
        Ok(())
    }
}

fn split(path: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let name = parts.pop().unwrap_or_default();
    (parts, name)
}

fn names(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes whatever has a name, if anything has it.
fn discard(parent: std::os::fd::BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => remove_directory(parent, name),
        Err(errno) => Err(errno),
    }
}

fn copy(input: &OwnedFd, output: &OwnedFd) -> Result<(), Errno> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        // In the kernel where it can be; a file system that can't says so at the first call.
        match rustix::fs::copy_file_range(input, None, output, None, 1 << 30) {
            Ok(0) => return Ok(()),
            Ok(_) => continue,
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
        let count = rustix::io::read(input, &mut buffer)?;
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(output, rest)?..];
        }
        if count == 0 {
            return Ok(());
        }
    }
}

fn times(attributes: &Stat) -> Timestamps {
    let time =
        Timespec { tv_sec: attributes.st_mtime, tv_nsec: attributes.st_mtime_nsec.try_into().unwrap_or(0) };
    Timestamps { last_access: time, last_modification: time }
}
