//! In what two zips differ, as values: bytes, packages, files, order, times, sizes. Says nothing and decides nothing;
//! `content` compares bytes, `packages` finds what is installed.
//!
//! Zips are strangers' bytes, whoever made them: they are read by the strict reader of `lbx-archive`, within limits, and
//! contents are never held in memory.

mod content;
mod packages;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use lbx_archive::{Archive, Limits, Member, Timestamp};
use rustix::fs::OFlags;
use serde::{Serialize, Serializer};

use self::content::Comparison;
use crate::error::{Error, ZipError};

/// In what two zips differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Whether they are the same bytes.
    pub same: bool,
    /// The offset of the first byte that differs, in the zips themselves; where one begins with all of the other, that
    /// one's size.
    pub first_byte: Option<u64>,
    /// What each is as a whole.
    pub zips: Pair<ZipFacts>,
    /// What is installed in one and not in the other.
    pub packages: PackageChanges,
    /// The files in one and not in the other, and those that differ.
    pub files: FileChanges,
    /// The same of entries for folders. lbx writes none.
    pub folders: FileChanges,
    /// Whether the files that both have come in another order, of their bytes or of the zip's directory.
    pub order_differs: bool,
    /// How many of the files that both have carry another time.
    pub times_differ: usize,
}

/// The value of one zip, and of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pair<T> {
    /// The first zip's.
    pub before: T,
    /// The second zip's.
    pub after: T,
}

impl<T: PartialEq> Pair<T> {
    /// Whether the values differ.
    pub fn differs(&self) -> bool {
        self.before != self.after
    }
}

/// A zip as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ZipFacts {
    /// Its size in bytes.
    pub size: u64,
    /// How many files it holds.
    pub files: usize,
    /// Their size in bytes once unpacked.
    pub unpacked_size: u64,
    /// The time that all its files carry, as `1980-01-01 00:00:00`; none where they carry several.
    pub time: Option<String>,
}

/// What is installed, by the METADATA of packages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PackageChanges {
    /// In the second zip only, by name.
    pub added: Vec<PackageVersion>,
    /// In the first zip only, by name.
    pub removed: Vec<PackageVersion>,
    /// In both, in different versions, by name.
    pub changed: Vec<ChangedPackage>,
}

/// A package in one of the zips.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackageVersion {
    /// The name as the package writes it.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A package in both zips.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedPackage {
    /// The name as the package writes it in the second zip.
    pub name: String,
    /// Its versions.
    pub version: Pair<String>,
}

/// Entries of zips, each list sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileChanges {
    /// In the second zip only.
    pub added: Vec<ZipFile>,
    /// In the first zip only.
    pub removed: Vec<ZipFile>,
    /// In both, with another content, mode or compressed form.
    pub changed: Vec<ChangedFile>,
}

/// A file in one of the zips.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ZipFile {
    /// Its path; a folder's ends in `/`.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its size in the zip, in bytes.
    pub packed_size: u64,
    /// Its mode; none where the zip says nothing of it.
    pub mode: Option<Mode>,
}

/// A file in both zips, with what differs and what does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedFile {
    /// Its path; a folder's ends in `/`.
    pub path: String,
    /// Its size in bytes.
    pub size: Pair<u64>,
    /// Its size in the zip, in bytes.
    pub packed_size: Pair<u64>,
    /// Its mode; none where the zip says nothing of it.
    pub mode: Pair<Option<Mode>>,
    /// Its bytes.
    #[serde(flatten)]
    pub content: Content,
}

/// How the bytes of a file in one zip are to those in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "content", rename_all = "kebab-case")]
pub enum Content {
    /// The same, also as they are in the zip.
    Same,
    /// The same, compressed in another way.
    Recompressed,
    /// Others.
    Changed {
        /// The offset of the first one that differs; where one file begins with all of the other, that one's size.
        first_byte: u64,
    },
}

/// The permissions of a file: the lower twelve bits of its mode. Shown in octal: `0644`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Compares two zips. It is an error when one of them is not a zip that the strict reader accepts within `limits`, and when
/// a content that has to be looked at is not what its header says. Contents that the zips have in the same compressed form
/// are not looked at.
pub fn diff(before: &Path, after: &Path, limits: &Limits) -> Result<Difference, Error> {
    let (before, after) = (Zip::open(before, limits)?, Zip::open(after, limits)?);
    Ok(compare(&before, &after)?)
}

/// A zip, open and found consistent.
struct Zip {
    path: PathBuf,
    file: File,
    size: u64,
    archive: Archive,
}

impl Zip {
    fn open(path: &Path, limits: &Limits) -> Result<Self, Error> {
        // Otherwise opening a pipe waits for its other end.
        let no_wait = OFlags::NONBLOCK.bits().cast_signed();
        let file = fs_err::OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(ZipError::NotAFile { path: path.to_owned() }.into());
        }
        let (file, size) = (file.into_file(), about.len());
        let archive = Archive::open(&file, limits)
            .map_err(|source| ZipError::Archive { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, size, archive })
    }

    fn members(&self, folders: bool) -> impl Iterator<Item = &Member> {
        self.archive.members().iter().filter(move |member| member.is_dir == folders)
    }

    fn by_path(&self, folders: bool) -> BTreeMap<&str, &Member> {
        self.members(folders).map(|member| (member.name.as_str(), member)).collect()
    }

    fn facts(&self) -> ZipFacts {
        let mut times = self.members(false).map(|member| member.modified);
        let first = times.next();
        ZipFacts {
            size: self.size,
            files: self.members(false).count(),
            unpacked_size: self.members(false).map(|member| member.packed.size).sum(),
            time: first.filter(|first| times.all(|time| time == *first)).map(|time| time.to_string()),
        }
    }
}

fn compare(before: &Zip, after: &Zip) -> Result<Difference, ZipError> {
    let mut comparison = Comparison::new(before, after);
    let first_byte = comparison.whole()?;
    let mut difference = Difference {
        same: first_byte.is_none(),
        first_byte,
        zips: Pair { before: before.facts(), after: after.facts() },
        packages: PackageChanges::default(),
        files: FileChanges::default(),
        folders: FileChanges::default(),
        order_differs: false,
        times_differ: 0,
    };
    if !difference.same {
        difference.packages = packages::compare(before, after)?;
        difference.files = changes(&mut comparison, false)?;
        difference.folders = changes(&mut comparison, true)?;
        difference.order_differs = order_differs(before, after);
        difference.times_differ = times_differ(before, after);
    }
    Ok(difference)
}

/// What differs of the files, or else of the entries for folders.
fn changes(comparison: &mut Comparison<'_>, folders: bool) -> Result<FileChanges, ZipError> {
    let (before, after) = (comparison.before.by_path(folders), comparison.after.by_path(folders));
    let only = |members: &BTreeMap<&str, &Member>, others: &BTreeMap<&str, &Member>| {
        let only = members.iter().filter(|(path, _)| !others.contains_key(*path));
        only.map(|(_, member)| ZipFile::of(member)).collect()
    };
    let mut changed = Vec::new();
    for (path, one) in &before {
        let Some(other) = after.get(path) else { continue };
        let content = comparison.members(one, other)?;
        let mode = Pair { before: mode(one), after: mode(other) };
        if content != Content::Same || mode.differs() {
            changed.push(ChangedFile {
                path: (*path).to_owned(),
                size: Pair { before: one.packed.size, after: other.packed.size },
                packed_size: Pair { before: one.packed.compressed_size, after: other.packed.compressed_size },
                mode,
                content,
            });
        }
    }
    Ok(FileChanges { added: only(&after, &before), removed: only(&before, &after), changed })
}

impl ZipFile {
    fn of(member: &Member) -> Self {
        Self {
            path: member.name.clone(),
            size: member.packed.size,
            packed_size: member.packed.compressed_size,
            mode: mode(member),
        }
    }
}

fn mode(member: &Member) -> Option<Mode> {
    member.unix_mode.map(|mode| Mode(mode & 0o7777))
}

/// The directory of a zip may name files in another order than their bytes lie in.
fn order_differs(before: &Zip, after: &Zip) -> bool {
    let names: HashSet<&str> = before.members(false).map(|member| member.name.as_str()).collect();
    let both: HashSet<&str> =
        after.members(false).map(|member| member.name.as_str()).filter(|name| names.contains(name)).collect();
    let differ =
        |one: &[&Member], other: &[&Member]| one.iter().zip(other).any(|(one, other)| one.name != other.name);
    let (mut one, mut other) = (those(before, &both), those(after, &both));
    if differ(&one, &other) {
        return true;
    }
    one.sort_by_key(|member| member.data_offset);
    other.sort_by_key(|member| member.data_offset);
    differ(&one, &other)
}

fn those<'z>(zip: &'z Zip, names: &HashSet<&str>) -> Vec<&'z Member> {
    zip.members(false).filter(|member| names.contains(member.name.as_str())).collect()
}

fn times_differ(before: &Zip, after: &Zip) -> usize {
    let times: BTreeMap<&str, Timestamp> =
        before.members(false).map(|member| (member.name.as_str(), member.modified)).collect();
    let others = after
        .members(false)
        .filter(|member| times.get(member.name.as_str()).is_some_and(|time| *time != member.modified));
    others.count()
}
