//! An artifact as a folder: the files of its zip with their modes and times, in the place of what an earlier build has left
//! there. A folder with anything else in it is never touched.

use std::fs::{File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fs_err::os::unix::fs::OpenOptionsExt;
use lbx_archive::{Archive, Limits, Member};
use lbx_plan::prune;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::cancel::Cancel;
use crate::engine::{Context, parallel};
use crate::error::Error;
use crate::publish::Staging;
use crate::record;

/// The earliest time that a zip can have, in seconds since 1970.
const EARLIEST: u64 = 315_532_800;

/// A zip of our own may be as large as it is.
pub(crate) const OWN: Limits = Limits {
    members: u64::MAX,
    directory_size: u64::MAX,
    member_size: u64::MAX,
    total_size: u64::MAX,
    ratio: u64::MAX,
    ratio_from: u64::MAX,
};

/// By what a folder is known to be the one that a build has made: no two have all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    device: u64,
    inode: u64,
    /// When it was made, where the file system knows. Seconds and nanoseconds since 1970.
    born: Option<(u64, u32)>,
    /// The time that all its files have, in seconds since 1970: whatever has another one is somebody else's.
    #[serde(default)]
    time: Option<i64>,
}

/// A folder that is complete, and not in its place yet.
pub(crate) struct Tree {
    new: TempDir,
    place: PathBuf,
    record: PathBuf,
    /// The time of its files, in seconds since 1970.
    time: i64,
}

impl Tree {
    /// Whether a tree can go there: nothing is there, or a folder that is empty or was made by a build.
    pub(crate) fn check(cache_dir: &Path, place: &Path) -> Result<(), Error> {
        let metadata = match fs_err::symlink_metadata(place) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if !metadata.is_dir() {
            return Err(Error::TreeNotAFolder { path: place.to_owned() });
        }
        let is_empty = fs_err::read_dir(place)?.next().is_none();
        if is_empty {
            return Ok(());
        }
        let made = record::read::<Made>(&record(cache_dir, place));
        let is_whole = |made: &Made| made.time.is_none_or(|time| has_nothing_else(place, time));
        match made.filter(|made| *made == Made { time: made.time, ..Made::of(&metadata) }) {
            Some(made) if is_whole(&made) => Ok(()),
            _ => Err(Error::TreeNotOurs { path: place.to_owned() }),
        }
    }

    /// Makes the tree of an artifact whose zip is written, beside its place.
    pub(crate) fn make(
        context: &Context,
        staging: &Staging,
        name: &str,
        place: &Path,
    ) -> Result<Self, Error> {
        let cache_dir = &context.ground.host.cache_dir;
        Self::check(cache_dir, place)?;
        let beside = place.parent().unwrap_or(Path::new("/"));
        fs_err::create_dir_all(beside)?;
        let new = tempfile::Builder::new().prefix(prune::UNFINISHED).tempdir_in(beside)?;
        let root = new.path().join("tree");
        if let Some(zip) = staging.read_zip(name)? {
            let archive = Archive::open(&zip, &OWN)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let members: Vec<&Member> = archive.members().iter().collect();
            folders(&root, &members)?;
            let time = time(context);
            parallel(context, &members, |_, member| file(&zip, &root, member, time)).map(drop)?;
        }
        let time = time(context).duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let time = i64::try_from(time).unwrap_or_default();
        Ok(Self { new, place: place.to_owned(), record: record(cache_dir, place), time })
    }

    /// Puts it into its place. What was there goes.
    pub(crate) fn publish(self) -> Result<(), Error> {
        let root = self.new.path().join("tree");
        let made = Made { time: Some(self.time), ..Made::of(&fs_err::symlink_metadata(&root)?) };
        // Of a folder that is there, its name is taken in the same moment; an empty one needs no care.
        if renameat_with(CWD, &root, CWD, &self.place, RenameFlags::EXCHANGE).is_err() {
            if fs_err::read_dir(&self.place).is_ok_and(|mut inside| inside.next().is_some()) {
                fs_err::rename(&self.place, self.new.path().join("before"))?;
            }
            fs_err::rename(&root, &self.place)?;
        }
        record::write(&self.record, &made);
        Ok(())
    }
}

impl Made {
    fn of(metadata: &std::fs::Metadata) -> Self {
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born = born.map(|born| (born.as_secs(), born.subsec_nanos()));
        Self { device: metadata.dev(), inode: metadata.ino(), born, time: None }
    }
}

/// Whether all that is in a folder is what a build has put there: its files have a time of long ago. What Python leaves
/// beside modules that it has imported is nobody's work.
fn has_nothing_else(folder: &Path, time: i64) -> bool {
    let Ok(entries) = fs_err::read_dir(folder) else { return false };
    entries.into_iter().all(|entry| {
        let Ok(entry) = entry else { return false };
        let Ok(metadata) = entry.metadata() else { return false };
        if metadata.is_dir() {
            return entry.file_name() == "__pycache__" || has_nothing_else(&entry.path(), time);
        }
        metadata.is_file() && metadata.mtime() == time
    })
}

fn record(cache_dir: &Path, place: &Path) -> PathBuf {
    record::path_of(cache_dir, &place.to_string_lossy(), record::TREE)
}

/// Unpacks a zip with the modes that its files have in Lambda. What is there already stays, and so does what a file is in
/// the way of.
pub(crate) fn unpack(zip: &File, limits: &Limits, root: &Path, cancel: &Cancel) -> Result<(), Error> {
    let archive =
        Archive::open(zip, limits).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    unpack_files(zip, &archive, root, cancel)
}

/// The same for one that is open. Links are left out.
pub(crate) fn unpack_files(zip: &File, archive: &Archive, root: &Path, cancel: &Cancel) -> Result<(), Error> {
    let is_new = |member: &&Member| {
        let found = fs_err::symlink_metadata(root.join(&member.name));
        !member.is_dir
            && !member.is_link()
            && found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let members: Vec<&Member> = archive.members().iter().filter(is_new).collect();
    folders(root, &members)?;
    for member in members {
        cancel.check()?;
        file(zip, root, member, UNIX_EPOCH + Duration::from_secs(EARLIEST))?;
    }
    Ok(())
}

/// Makes all folders, with the modes that they have in Lambda.
fn folders(root: &Path, members: &[&Member]) -> Result<(), Error> {
    let mut last = PathBuf::new();
    for folder in [""].into_iter().chain(members.iter().map(|member| member.name.as_str())) {
        let folder = root.join(Path::new(folder).parent().unwrap_or(Path::new("")));
        if folder == last {
            continue;
        }
        fs_err::create_dir_all(&folder)?;
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(root)) {
            fs_err::set_permissions(folder, Permissions::from_mode(0o755))?;
        }
        last = folder;
    }
    Ok(())
}

fn file(zip: &File, root: &Path, member: &Member, time: SystemTime) -> Result<(), Error> {
    let mode = if member.unix_mode.is_some_and(|mode| mode & 0o111 != 0) { 0o755 } else { 0o644 };
    let path = root.join(&member.name);
    let mut file = fs_err::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    io::copy(&mut member.open(zip), &mut file)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.file().set_times(FileTimes::new().set_modified(time))?;
    Ok(())
}

/// The time that every file has.
fn time(context: &Context) -> SystemTime {
    let epoch = context.options.source_date_epoch.and_then(|epoch| u64::try_from(epoch).ok());
    UNIX_EPOCH + Duration::from_secs(epoch.unwrap_or(EARLIEST).max(EARLIEST))
}
