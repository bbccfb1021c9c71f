//! What is in an artifact that lies somewhere, be it a zip or a folder. It is anybody's: read within limits, never followed
//! to anywhere else, and never held in memory as a whole.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use lbx_archive::{Archive, LARGE, Limits, Member};
use rustix::fs::OFlags;

use crate::cancel::Cancel;
use crate::check::{Facts, Known, LARGEST, look};
use crate::error::{Error, ZipError};
use crate::tree;

/// The most bytes of the target of a link that are read; no system has longer ones.
const LONGEST_TARGET: u64 = 4096;

/// How many links are followed from one path, as by Linux, and how many parts of paths are looked at for that.
const MOST_LINKS: usize = 40;
const MOST_PARTS: usize = 1024;
/// How many links an artifact may have: each takes its time to be followed.
const MOST_LINKS_OF_ALL: usize = 10_000;

/// The contents of an artifact, by path.
pub(super) struct Contents {
    source: Source,
    /// Bytes of the zip; none for a folder.
    pub(super) zip_size: Option<u64>,
    pub(super) entries: Vec<Entry>,
}

enum Source {
    Zip { path: PathBuf, file: File, archive: Archive },
    Folder(PathBuf),
}

/// One thing in an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its path, with `/` between the parts and none at the end.
    pub(super) path: String,
    pub(super) kind: Kind,
    /// Bytes once unpacked.
    pub(super) size: u64,
    /// The permission bits; none where the zip says nothing of them.
    pub(super) mode: Option<u32>,
    /// Its place in the zip.
    member: usize,
}

/// What something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// A symbolic link, and where it leads.
    Link(String),
    /// A pipe, a socket or a device.
    Special,
}

impl Contents {
    /// Lists what is in a zip or a folder.
    pub(super) fn list(path: &Path, limits: &Limits, cancel: &Cancel) -> Result<Self, Error> {
        // Otherwise opening a pipe waits for its other end.
        let no_wait = OFlags::NONBLOCK.bits().cast_signed();
        let file = fs_err::OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
        let metadata = file.metadata()?;
        let mut contents = if metadata.is_dir() {
            let root = fs_err::canonicalize(path)?;
            let entries = Walk { root: &root, limits, cancel, entries: Vec::new(), size: 0 }.run()?;
            Self { source: Source::Folder(root), zip_size: None, entries }
        } else if metadata.is_file() {
            Self::of_zip(path, file.into_file(), metadata.len(), limits)?
        } else {
            return Err(ZipError::NoArtifact { path: path.to_owned() }.into());
        };
        let links = contents.entries.iter().filter(|entry| matches!(entry.kind, Kind::Link(_)));
        if links.count() > MOST_LINKS_OF_ALL {
            return Err(ZipError::TooManyLinks { path: path.to_owned(), limit: MOST_LINKS_OF_ALL }.into());
        }
        contents.entries.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(contents)
    }

    fn of_zip(path: &Path, file: File, size: u64, limits: &Limits) -> Result<Self, Error> {
        let archive = Archive::open_with_links(&file, limits)
            .map_err(|source| ZipError::Archive { path: path.to_owned(), source })?;
        let mut entries = Vec::with_capacity(archive.members().len());
        for (at, member) in archive.members().iter().enumerate() {
            let kind = if member.is_dir {
                Kind::Folder
            } else if member.is_link() {
                Kind::Link(target(path, &file, member)?)
            } else {
                Kind::File
            };
            entries.push(Entry {
                path: member.name.trim_end_matches('/').to_owned(),
                size: if kind == Kind::File { member.packed.size } else { 0 },
                mode: member.unix_mode.map(|mode| mode & 0o7777),
                kind,
                member: at,
            });
        }
        let source = Source::Zip { path: path.to_owned(), file, archive };
        Ok(Self { source, zip_size: Some(size), entries })
    }

    /// The first bytes of a file, no more than `most`.
    pub(super) fn start(&self, entry: &Entry, most: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let read = self.open(entry)?.take(most).read_to_end(&mut bytes);
        read.map_err(|source| self.damaged(entry, source))?;
        Ok(bytes)
    }

    /// Looks into a file: whatever is machine code, and the user's own for secrets. All of a zip's file is read, so that
    /// damage shows.
    pub(super) fn facts(&self, entry: &Entry, known: Option<&Known>) -> Result<Option<Facts>, Error> {
        let mut reader = match self.open(entry) {
            // Whoever cannot read it is told so by its mode.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            reader => reader?,
        };
        let read = (|| {
            let mut bytes = Vec::new();
            (&mut reader).take(4).read_to_end(&mut bytes)?;
            let most = match known {
                _ if lbx_elf::is_elf(&bytes) && entry.size <= LARGEST => entry.size,
                Some(_) if !lbx_elf::is_elf(&bytes) => LARGE,
                _ => return io::copy(&mut reader, &mut io::sink()).map(|_| None),
            };
            (&mut reader).take(most.saturating_sub(4)).read_to_end(&mut bytes)?;
            io::copy(&mut reader, &mut io::sink())?;
            Ok(Some(bytes))
        })();
        let bytes = read.map_err(|source| self.damaged(entry, source))?;
        Ok(bytes.and_then(|bytes| look(&bytes, known)))
    }

    fn open<'c>(&'c self, entry: &Entry) -> Result<Box<dyn Read + 'c>, Error> {
        Ok(match &self.source {
            Source::Zip { file, archive, .. } => match archive.members().get(entry.member) {
                Some(member) => Box::new(member.open(file)),
                None => Box::new(io::empty()),
            },
            Source::Folder(root) => Box::new(open_file(&root.join(&entry.path))?),
        })
    }

    fn damaged(&self, entry: &Entry, source: io::Error) -> Error {
        let path = match &self.source {
            Source::Zip { path, .. } => path,
            Source::Folder(root) => root,
        };
        ZipError::Member { path: path.clone(), member: entry.path.clone(), source }.into()
    }

    /// Unpacks its files into a folder in which there are no links yet; what is there already stays.
    pub(super) fn unpack(&self, into: &Path, cancel: &Cancel) -> Result<(), Error> {
        match &self.source {
            Source::Zip { file, archive, .. } => tree::unpack_files(file, archive, into, cancel),
            Source::Folder(_) => self.copy(into, cancel),
        }
    }

    /// Makes its links in a folder, after all files are there, of whatever is unpacked into it: a chain of links may lead
    /// out of it, and nothing must be written through one.
    pub(super) fn link(&self, into: &Path) {
        for entry in &self.entries {
            let Kind::Link(target) = &entry.kind else { continue };
            let stays = is_of_lambda(target) || resolve(&entry.path, target).is_some();
            let (folder, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
            if stays && let Some(folder) = real_folder(into, folder) {
                // What stands in its way came first.
                let _ = fs_err::os::unix::fs::symlink(target, folder.join(name));
            }
        }
    }

    /// The entry of a path.
    fn entry(&self, path: &str) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        self.entries.get(at)
    }

    /// Where a path leads through all links; none where that is out of the artifact, or round in a circle.
    pub(super) fn follow(&self, path: &str) -> Option<String> {
        let mut left: VecDeque<&str> = path.split('/').collect();
        let (mut reached, mut links, mut parts) = (String::new(), 0, 0);
        while let Some(part) = left.pop_front() {
            parts += 1;
            if parts > MOST_PARTS {
                return None;
            }
            let above = reached.rfind('/').unwrap_or(0);
            match part {
                "" | "." => {}
                ".." if reached.is_empty() => return None,
                ".." => reached.truncate(above),
                part => {
                    let length = reached.len();
                    reached = if reached.is_empty() { part.to_owned() } else { format!("{reached}/{part}") };
                    let Some(Entry { kind: Kind::Link(target), .. }) = self.entry(&reached) else { continue };
                    links += 1;
                    if target.starts_with('/') || links > MOST_LINKS {
                        return None;
                    }
                    reached.truncate(length);
                    target.rsplit('/').for_each(|part| left.push_front(part));
                }
            }
        }
        Some(reached)
    }

    /// Whether there is something at a path, or below it: folders need no entry of their own.
    pub(super) fn is_there(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let after = self.entries.partition_point(|entry| entry.path.as_str() < below.as_str());
        path.is_empty()
            || self.entry(path).is_some()
            || self.entries.get(after).is_some_and(|entry| entry.path.starts_with(&below))
    }

    fn copy(&self, into: &Path, cancel: &Cancel) -> Result<(), Error> {
        for entry in self.entries.iter().filter(|entry| entry.kind == Kind::File) {
            cancel.check()?;
            let place = into.join(&entry.path);
            if fs_err::symlink_metadata(&place).is_ok() {
                continue;
            }
            if let Some(folder) = place.parent() {
                fs_err::create_dir_all(folder)?;
            }
            let mut new = fs_err::OpenOptions::new().write(true).create_new(true).open(&place)?;
            match self.open(entry) {
                Ok(mut content) => drop(io::copy(&mut content, &mut new)?),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error),
            }
            let mode = if entry.mode.is_some_and(|mode| mode & 0o111 != 0) { 0o755 } else { 0o644 };
            new.set_permissions(std::fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

/// Whether a link leads to where Lambda has something, or lets functions have it.
pub(super) fn is_of_lambda(target: &str) -> bool {
    let is_below = |folder: &str| {
        target.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    ["/opt", "/tmp", "/var/lang", "/var/runtime", "/var/task"].into_iter().any(is_below)
        && !target.split('/').any(|part| part == "..")
}

/// A folder below a root, made where it is not there; none where something else is in its way, such as a link.
fn real_folder(root: &Path, path: &str) -> Option<PathBuf> {
    let mut place = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        place.push(part);
        if fs_err::symlink_metadata(&place).is_err() {
            fs_err::create_dir(&place).ok()?;
        }
        fs_err::symlink_metadata(&place).ok().filter(std::fs::Metadata::is_dir)?;
    }
    Some(place)
}

/// A regular file, whatever has come into its place since it was seen.
fn open_file(path: &Path) -> Result<fs_err::File, Error> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    Ok(fs_err::OpenOptions::new().read(true).custom_flags(flags).open(path)?)
}

fn target(path: &Path, file: &File, member: &Member) -> Result<String, Error> {
    let mut target = Vec::new();
    let read = member.open(file).take(LONGEST_TARGET).read_to_end(&mut target);
    read.map_err(|source| ZipError::Member { path: path.to_owned(), member: member.name.clone(), source })?;
    Ok(String::from_utf8_lossy(&target).into_owned())
}

/// Where a link leads, by the path that it has; none where that is out of the artifact.
pub(super) fn resolve(path: &str, target: &str) -> Option<String> {
    if target.starts_with('/') || target.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The way through a folder.
struct Walk<'w> {
    root: &'w Path,
    limits: &'w Limits,
    cancel: &'w Cancel,
    entries: Vec<Entry>,
    size: u64,
}

impl Walk<'_> {
    fn run(mut self) -> Result<Vec<Entry>, Error> {
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            self.cancel.check()?;
            let found = match fs_err::read_dir(self.root.join(&folder)) {
                Err(error) if !folder.is_empty() && error.kind() == io::ErrorKind::PermissionDenied => {
                    continue;
                }
                found => found?,
            };
            for found in found {
                let found = found?;
                let Ok(name) = found.file_name().into_string() else {
                    return Err(ZipError::Name { path: found.path() }.into());
                };
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                let metadata = fs_err::symlink_metadata(found.path())?;
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                self.add(path, &metadata)?;
            }
        }
        Ok(self.entries)
    }

    fn add(&mut self, path: String, metadata: &std::fs::Metadata) -> Result<(), Error> {
        let kind = if metadata.is_dir() {
            Kind::Folder
        } else if metadata.is_symlink() {
            Kind::Link(fs_err::read_link(self.root.join(&path))?.to_string_lossy().into_owned())
        } else if metadata.is_file() {
            Kind::File
        } else {
            Kind::Special
        };
        let size = if kind == Kind::File { metadata.len() } else { 0 };
        self.size = self.size.saturating_add(size);
        self.entries.push(Entry { path, kind, size, mode: Some(metadata.mode() & 0o7777), member: 0 });
        if self.entries.len() as u64 > self.limits.members || self.size > self.limits.total_size {
            return Err(ZipError::TooLarge { path: self.root.to_owned() }.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_inside_or_nowhere() {
        assert_eq!(resolve("lib/a.so", "a.so.1").as_deref(), Some("lib/a.so.1"));
        assert_eq!(resolve("lib/a.so", "../x/./a").as_deref(), Some("x/a"));
        for outside in ["/etc/passwd", "../../a", "../x/../../a", "a\0b"] {
            assert_eq!(resolve("lib/a.so", outside), None, "{outside:?}");
        }
    }

    #[test]
    fn nothing_is_made_through_a_link_whatever_it_leads_to() {
        let root = tempfile::tempdir().unwrap();
        let (first, second, into) =
            (root.path().join("1"), root.path().join("2"), root.path().join("a/b/into"));
        for folder in [&first.join("x/y/z"), &second.join("l"), &into] {
            fs_err::create_dir_all(folder).unwrap();
        }
        // Inside by its letters, and three folders up by what it leads through.
        std::os::unix::fs::symlink("../../..", first.join("x/y/z/root")).unwrap();
        std::os::unix::fs::symlink("x/y/z/root/../../..", first.join("l")).unwrap();
        std::os::unix::fs::symlink("x", second.join("l/link")).unwrap();
        let cancel = Cancel::new();
        let list = |path: &Path| Contents::list(path, &Limits::default(), &cancel).unwrap();
        for layer in [list(&first), list(&second)] {
            layer.unpack(&into, &cancel).unwrap();
            layer.link(&into);
        }
        assert!(fs_err::symlink_metadata(into.join("l")).unwrap().is_symlink());
        let made = fs_err::read_dir(root.path()).unwrap().count()
            + fs_err::read_dir(root.path().join("a")).unwrap().count();
        assert_eq!(made, 4, "nothing is beside what was there");
        assert_eq!(list(&first).follow("l/x"), None, "and that is seen");
    }

    #[test]
    fn links_are_followed_through_links_and_folders_need_no_entry() {
        let root = tempfile::tempdir().unwrap();
        fs_err::create_dir(root.path().join("lib")).unwrap();
        fs_err::write(root.path().join("lib/a.so"), "x").unwrap();
        for (link, target) in [("lib64", "lib"), ("b", "lib64/a.so"), ("c", "c"), ("d", "/opt/lib")] {
            std::os::unix::fs::symlink(target, root.path().join(link)).unwrap();
        }
        let mut contents = Contents::list(root.path(), &Limits::default(), &Cancel::new()).unwrap();
        contents.entries.retain(|entry| entry.kind != Kind::Folder);
        assert_eq!(contents.follow("b").as_deref(), Some("lib/a.so"));
        assert_eq!(contents.follow("lib64").as_deref(), Some("lib"));
        assert!(contents.is_there("lib") && contents.is_there("lib/a.so") && !contents.is_there("li"));
        assert_eq!((contents.follow("c"), contents.follow("d")), (None, None));
        assert_eq!(contents.follow(&"./".repeat(MOST_PARTS + 1)), None, "not for ever");
        let links = (0..=MOST_LINKS_OF_ALL).map(|at| root.path().join(format!("lib/{at}")));
        links.for_each(|link| std::os::unix::fs::symlink("a.so", link).unwrap());
        let many = Contents::list(root.path(), &Limits::default(), &Cancel::new());
        assert!(many.is_err_and(|error| error.to_string().contains("10000 symbolic links")));
        assert!(is_of_lambda("/opt/lib") && !is_of_lambda("/opt/../etc") && !is_of_lambda("/optional"));
    }

    #[test]
    fn a_folder_is_listed_without_following_anything() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("artifact");
        fs_err::create_dir_all(place.join("b")).unwrap();
        fs_err::write(place.join("b/c.py"), "x").unwrap();
        fs_err::write(root.path().join("secret"), "x").unwrap();
        for (link, target) in [("a", ".."), ("d", "../secret"), ("e", "b/c.py")] {
            std::os::unix::fs::symlink(target, place.join(link)).unwrap();
        }
        rustix::fs::mknodat(rustix::fs::CWD, place.join("f"), rustix::fs::FileType::Fifo, 0o644.into(), 0)
            .unwrap();
        let cancel = Cancel::new();
        let contents = Contents::list(&place, &Limits::default(), &cancel).unwrap();
        let found: Vec<(&str, &Kind)> =
            contents.entries.iter().map(|entry| (entry.path.as_str(), &entry.kind)).collect();
        let link = |target: &str| Kind::Link(target.to_owned());
        assert_eq!(
            found,
            [
                ("a", &link("..")),
                ("b", &Kind::Folder),
                ("b/c.py", &Kind::File),
                ("d", &link("../secret")),
                ("e", &link("b/c.py")),
                ("f", &Kind::Special),
            ]
        );
        let copy = root.path().join("copy");
        fs_err::create_dir(&copy).unwrap();
        contents.unpack(&copy, &cancel).unwrap();
        contents.link(&copy);
        let copied: Vec<_> = Contents::list(&copy, &Limits::default(), &cancel)
            .unwrap()
            .entries
            .into_iter()
            .map(|entry| entry.path)
            .collect();
        assert_eq!(copied, ["b", "b/c.py", "e"], "what leads out is left out, and so is what is no file");
        let few = Limits { members: 3, ..Limits::default() };
        assert!(Contents::list(&place, &few, &cancel).is_err());
    }
}
