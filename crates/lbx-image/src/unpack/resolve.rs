//! Paths below a root: no component, link or race leads out of it.
//!
//! `openat2` does it in the kernel (5.6). Where that is missing or forbidden (old seccomp profiles answer EPERM to
//! calls they don't know), a walk does: one component at a time, never following a link but reading it and going
//! on from there, as if the root were `/`. Both give the same answers, and tests hold them to it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Directories kept open. Archives go through one directory after the other, so a few are enough.
const CACHED: usize = 64;
/// Links followed on one path, as many as the kernel follows.
const LINKS: usize = 40;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How paths are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// By the kernel.
    Openat2,
    /// Component by component.
    Walk,
}

impl Resolver {
    /// The kernel's, where it can be used.
    pub fn detect() -> Self {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let probe = rustix::fs::openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::IN_ROOT);
        if probe.is_ok() { Self::Openat2 } else { Self::Walk }
    }
}

/// A directory that paths are resolved below.
#[derive(Debug)]
pub(crate) struct Root {
    top: Rc<OwnedFd>,
    resolver: Resolver,
    cache: HashMap<Vec<u8>, Rc<OwnedFd>>,
}

/// What [`Root::create`] made on its way.
pub(crate) type Created = Vec<Vec<u8>>;

impl Root {
    pub(crate) fn new(root: OwnedFd, resolver: Resolver) -> Self {
        Self { top: Rc::new(root), resolver, cache: HashMap::new() }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// Opens an existing directory.
    pub(crate) fn open(&mut self, path: &[&[u8]]) -> Result<Rc<OwnedFd>, Errno> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.top));
        }
        let key = path.join(&b'/');
        if let Some(found) = self.cache.get(&key) {
            return Ok(Rc::clone(found));
        }
        let opened = match self.resolver {
            Resolver::Openat2 => {
                let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                Rc::new(rustix::fs::openat2(&self.top, key.as_slice(), DIRECTORY, Mode::empty(), inside)?)
            }
            Resolver::Walk => self.walk(path, None)?,
        };
        Ok(self.remember(key, opened))
    }

    /// Opens a directory, making what is missing; the paths made, links resolved, are added to `created`.
    pub(crate) fn create(&mut self, path: &[&[u8]], created: &mut Created) -> Result<Rc<OwnedFd>, Errno> {
        match self.open(path) {
            Err(Errno::NOENT) => {
                let opened = self.walk(path, Some(created))?;
                Ok(self.remember(path.join(&b'/'), opened))
            }
            result => result,
        }
    }

    /// Forgets what is open: a directory or a link was removed, so paths may lead elsewhere now.
    pub(crate) fn forget(&mut self) {
        self.cache.clear();
    }

    fn remember(&mut self, key: Vec<u8>, fd: Rc<OwnedFd>) -> Rc<OwnedFd> {
        if self.cache.len() >= CACHED {
            self.cache.clear();
        }
        self.cache.insert(key, Rc::clone(&fd));
        fd
    }

    fn walk(&self, path: &[&[u8]], mut created: Option<&mut Created>) -> Result<Rc<OwnedFd>, Errno> {
        // The directories from the root to here, with their names: `..` in a link's target goes back in it.
        let mut stack: Vec<(Vec<u8>, Rc<OwnedFd>)> = Vec::new();
        let mut todo: Vec<Vec<u8>> = path.iter().rev().map(|part| part.to_vec()).collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    stack.pop();
                    continue;
                }
                _ => {}
            }
            let here = Rc::clone(stack.last().map_or(&self.top, |(_, fd)| fd));
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat(&here, name.as_slice(), flags, Mode::empty()) {
                Err(Errno::NOENT) if created.is_some() => {
                    rustix::fs::mkdirat(&here, name.as_slice(), Mode::from_raw_mode(0o755))?;
                    if let Some(created) = created.as_deref_mut() {
                        let parents = stack.iter().map(|(part, _)| part.as_slice());
                        created.push(parents.chain([name.as_slice()]).collect::<Vec<_>>().join(&b'/'));
                    }
                    rustix::fs::openat(&here, name.as_slice(), flags, Mode::empty())?
                }
                result => result?,
            };
            match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
                FileType::Directory => stack.push((name, Rc::new(fd))),
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes();
                    if target.first() == Some(&b'/') {
                        stack.clear();
                    }
                    todo.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                }
                _ => return Err(Errno::NOTDIR),
            }
        }
        Ok(stack.pop().map_or_else(|| Rc::clone(&self.top), |(_, fd)| fd))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn root(path: &std::path::Path, resolver: Resolver) -> Root {
        Root::new(rustix::fs::open(path, DIRECTORY, Mode::empty()).expect("a directory"), resolver)
    }

    fn split(path: &str) -> Vec<&[u8]> {
        path.split('/').map(str::as_bytes).collect()
    }

    #[test]
    fn both_resolvers_agree_and_neither_leaves_the_root() {
        let outside = tempfile::tempdir().expect("a temporary directory");
        let inside = outside.path().join("root");
        fs_err::create_dir_all(inside.join("a/b")).expect("directories");
        fs_err::create_dir_all(outside.path().join("victim")).expect("a directory");
        fs_err::write(inside.join("file"), b"").expect("a file");
        for (name, target) in [
            ("up", "../../../.."),
            ("absolute", "/a"),
            ("outside", "/victim"),
            ("climb", "../victim"),
            ("a/back", "../a/b"),
            ("chain", "absolute/back"),
            ("loop", "loop"),
            ("magic", "/proc/self/cwd"),
            ("tofile", "file"),
        ] {
            symlink(target, inside.join(name)).expect("a link");
        }
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).expect("a descriptor").st_ino;
        let expected = |path: &str| fs_err::metadata(inside.join(path)).expect("a directory").ino();
        for (path, result) in [
            ("a", Ok("a")),
            ("up", Ok(".")),
            ("up/a", Ok("a")),
            ("absolute/b", Ok("a/b")),
            ("chain", Ok("a/b")),
            ("a/back", Ok("a/b")),
            ("outside", Err(Errno::NOENT)),
            ("climb", Err(Errno::NOENT)),
            ("loop", Err(Errno::LOOP)),
            ("magic", Err(Errno::NOENT)),
            ("file", Err(Errno::NOTDIR)),
            ("tofile", Err(Errno::NOTDIR)),
            ("missing", Err(Errno::NOENT)),
        ] {
            for resolver in [Resolver::Openat2, Resolver::Walk] {
                let found = root(&inside, resolver).open(&split(path)).map(|fd| inode(&fd));
                assert_eq!(found, result.map(expected), "{path} by {resolver:?}");
            }
        }
    }

    #[test]
    fn missing_directories_are_made_inside_also_behind_dangling_links() {
        for resolver in [Resolver::Openat2, Resolver::Walk] {
            let outside = tempfile::tempdir().expect("a temporary directory");
            let inside = outside.path().join("root");
            fs_err::create_dir(&inside).expect("a directory");
            symlink("/run/../../later", inside.join("dangling")).expect("a link");
            let mut created = Vec::new();
            root(&inside, resolver).create(&split("dangling/x"), &mut created).expect("made");
            assert_eq!(created, [b"run".to_vec(), b"later".to_vec(), b"later/x".to_vec()]);
            assert!(inside.join("later/x").is_dir());
            assert_eq!(fs_err::read_dir(outside.path()).expect("a directory").count(), 1);
        }
    }
}
