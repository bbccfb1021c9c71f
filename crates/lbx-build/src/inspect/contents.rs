//! What is in an artifact that lies somewhere, be it a zip or a folder. It is anybody's: read within limits, never followed
//! to anywhere else, and never held in memory as a whole.

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

    /// The folder itself, where it is one.
    pub(super) fn folder(&self) -> Option<&Path> {
        match &self.source {
            Source::Folder(root) => Some(root),
            Source::Zip { .. } => None,
        }
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
        let mut reader = self.open(entry)?;
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

    /// Unpacks it into a folder, where what is there already stays. Only links that stay inside of it are made, and after all
    /// else, so that nothing is written through one.
    pub(super) fn unpack(&self, into: &Path, cancel: &Cancel) -> Result<(), Error> {
        match &self.source {
            Source::Zip { file, archive, .. } => tree::unpack_files(file, archive, into, cancel)?,
            Source::Folder(_) => self.copy(into, cancel)?,
        }
        for entry in &self.entries {
            let Kind::Link(target) = &entry.kind else { continue };
            let place = into.join(&entry.path);
            if resolve(&entry.path, target).is_none() || fs_err::symlink_metadata(&place).is_ok() {
                continue;
            }
            if let Some(folder) = place.parent()
                && fs_err::create_dir_all(folder).is_ok()
            {
                // What stands in its way came first.
                let _ = fs_err::os::unix::fs::symlink(target, &place);
            }
        }
        Ok(())
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
            io::copy(&mut self.open(entry)?, &mut new)?;
            let mode = if entry.mode.is_some_and(|mode| mode & 0o111 != 0) { 0o755 } else { 0o644 };
            new.set_permissions(std::fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
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
            for found in fs_err::read_dir(self.root.join(&folder))? {
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
        contents.unpack(&copy, &cancel).unwrap();
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
