//! Putting artifacts in their places: written beside them under temporary names, then renamed.
//!
//! A build that fails or is stopped leaves the folder as it was. The renames themselves come last and one
//! after the other; each file is whole at any moment.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use lbx_archive::{Tail, Written};
use lbx_plan::prune;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::NamedTempFile;

use crate::engine::Destination;
use crate::error::Error;
use crate::report::{Report, code_sha256};
use crate::stamp::Stamp;

/// The folder that artifacts go to, and what is being written there.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: PathBuf,
    /// The topmost folder that had to be made, to be removed again if nothing is published.
    made: Option<PathBuf>,
    zips: Mutex<BTreeMap<String, (NamedTempFile, Written)>>,
}

/// What is in its place.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// By what each file is known there.
    pub(crate) stamps: BTreeMap<PathBuf, Stamp>,
    /// What was there before, under temporary names.
    pub(crate) replaced: Vec<NamedTempFile>,
}

impl Published {
    fn put(&mut self, file: NamedTempFile, path: PathBuf) -> Result<(), Error> {
        let (stamp, replaced) = persist(file, &path)?;
        self.replaced.extend(replaced);
        self.stamps.insert(path, stamp);
        Ok(())
    }
}

impl Staging {
    /// Makes the folder if it is not there.
    pub(crate) fn new(folder: &Path) -> Result<Self, Error> {
        let made = folder.ancestors().take_while(|path| !path.exists()).last().map(Path::to_owned);
        fs_err::create_dir_all(folder)?;
        sweep(folder)?;
        Ok(Self { folder: folder.to_owned(), made, zips: Mutex::default() })
    }

    /// Writes the zip of an artifact under a temporary name: into a file that is begun already, or a new one.
    pub(crate) fn write_zip(
        &self,
        name: &str,
        begun: Option<NamedTempFile>,
        write: impl FnOnce(&mut File) -> Result<Tail, Error>,
    ) -> Result<Tail, Error> {
        let mut file = begun.map_or_else(|| self.temporary(), Ok)?;
        let tail = write(file.as_file_mut())?;
        self.zips
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), (file, tail.written));
        Ok(tail)
    }

    /// The zip of an artifact that is written. It is read by places: whoever moves in it moves for all.
    pub(crate) fn read_zip(&self, name: &str) -> Result<Option<File>, Error> {
        let zips = self.zips.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(zips.get(name).map(|(file, _)| file.as_file().try_clone()).transpose()?)
    }

    /// A file that is locked while this process lives, so that whoever finds it knows.
    pub(crate) fn temporary(&self) -> Result<NamedTempFile, Error> {
        let mut builder = tempfile::Builder::new();
        // The usual mode: the umask takes away what the user does not give.
        builder.prefix(prune::UNFINISHED).permissions(Permissions::from_mode(0o666));
        loop {
            let file = builder.tempfile_in(&self.folder)?;
            // Another build may have swept it away before it was locked.
            if lbx_lock::mark(file.as_file()) && file.as_file().metadata()?.nlink() > 0 {
                return Ok(file);
            }
        }
    }

    fn small_file(&self, text: &str) -> Result<NamedTempFile, Error> {
        let mut file = self.temporary()?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    }

    /// Renames everything into place, and returns by what each file is known there. It is asked of the files themselves:
    /// by then, another build may have put others in their places.
    pub(crate) fn publish(self, destination: &Destination, report: &Report) -> Result<Published, Error> {
        let report = self.small_file(&report.to_json())?;
        let zips = std::mem::take(&mut *self.zips.lock().unwrap_or_else(PoisonError::into_inner));
        let mut ready = Vec::new();
        for (name, (file, written)) in zips {
            // Without a newline: Terraform compares what `file()` reads as it is.
            let code_sha256 = code_sha256(&written.sha256);
            let (path, sidecar) = (destination.zip(&name), self.small_file(&code_sha256)?);
            let beside = path.with_added_extension("sha256");
            let is_other = fs_err::read_to_string(&beside).is_ok_and(|before| before != code_sha256);
            ready.push(((path, file), (beside, sidecar), is_other));
        }
        let mut published = Published::default();
        for ((path, zip), (beside, sidecar), is_other) in ready {
            let place = destination.previous(&path).filter(|_| is_other);
            published.put(zip, path)?;
            if let (Some(place), Some(replaced)) = (place, published.replaced.pop()) {
                published.replaced.extend(keep(replaced, &place));
            }
            published.put(sidecar, beside)?;
        }
        published.put(report, destination.report())?;
        Ok(published)
    }
}

/// Removes what builds that were killed left: their locks are free.
fn sweep(folder: &Path) -> Result<(), Error> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(prune::UNFINISHED)
            || !entry.file_type()?.is_file()
        {
            continue;
        }
        // Another build may be faster at every step.
        let Ok(file) = fs_err::File::open(entry.path()) else { continue };
        if lbx_lock::is_left_behind(file.file()) {
            let _ = fs_err::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Keeps what was replaced, and returns what was kept until then. Nothing depends on it, so that it is no error when it cannot
/// be kept.
fn keep(replaced: NamedTempFile, place: &Path) -> Option<NamedTempFile> {
    let folder = place.parent()?;
    fs_err::create_dir_all(folder).ok()?;
    // A link may come with a checkout, and lead to what is no business of a build.
    fs_err::symlink_metadata(folder).ok().filter(std::fs::Metadata::is_dir)?;
    persist(replaced, place).ok()?.1
}

/// Puts a file into its place, and returns what was there.
fn persist(file: NamedTempFile, path: &Path) -> Result<(Stamp, Option<NamedTempFile>), Error> {
    // A rename over a file has ext4 write the new one to the disk first, which takes longer than making it. Here the two
    // change places in one moment, and the old one goes with its temporary name.
    let is_file = fs_err::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir());
    if is_file && renameat_with(CWD, file.path(), CWD, path, RenameFlags::EXCHANGE).is_ok() {
        return Ok((Stamp::of(&file.as_file().metadata()?), Some(file)));
    }
    // Where names cannot be exchanged, as on NFS, the old one has a second name before it loses the first.
    let replaced = if is_file { second_name(path) } else { None };
    let file = file.persist(path).map_err(|error| {
        let message = format!("cannot rename to `{}`: {}", path.display(), error.error);
        std::io::Error::new(error.error.kind(), message)
    })?;
    Ok((Stamp::of(&file.metadata()?), replaced))
}

/// A file under a temporary name beside its own, if the file system gives it one.
fn second_name(path: &Path) -> Option<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    let link = |name: &Path| {
        fs_err::hard_link(path, name)?;
        Ok(fs_err::File::open(name)?.into_file())
    };
    builder.prefix(prune::UNFINISHED).make_in(path.parent()?, link).ok()
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.zips.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Only empty folders go: after a publication they are not.
        let Some(made) = &self.made else { return };
        for folder in self.folder.ancestors().take_while(|folder| folder.starts_with(made)) {
            if fs_err::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Tail {
        Tail { written: Written { size: 0, sha256: [0; 32] }, entries: Vec::new() }
    }

    #[test]
    fn a_build_that_publishes_nothing_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/dist");
        let staging = Staging::new(&folder).unwrap();
        staging.write_zip("x", None, |_| Ok(nothing())).unwrap();
        assert_eq!(fs_err::read_dir(&folder).unwrap().count(), 1);
        drop(staging);
        assert!(!root.path().join("a").exists());
    }

    #[test]
    fn what_a_killed_build_left_goes_and_what_a_running_one_writes_stays() {
        let root = tempfile::tempdir().unwrap();
        fs_err::write(root.path().join(".lbx-dead"), "half").unwrap();
        let running = Staging::new(root.path()).unwrap();
        assert!(!root.path().join(".lbx-dead").exists());
        running.write_zip("x", None, |_| Ok(nothing())).unwrap();
        drop(Staging::new(root.path()).unwrap());
        assert_eq!(fs_err::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_was_there_stays_with_what_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        fs_err::write(root.path().join("old.zip"), "old").unwrap();
        let staging = Staging::new(root.path()).unwrap();
        staging.write_zip("old", None, |_| Ok(nothing())).unwrap();
        drop(staging);
        assert_eq!(fs_err::read_to_string(root.path().join("old.zip")).unwrap(), "old");
        assert_eq!(fs_err::read_dir(root.path()).unwrap().count(), 1);
    }
}
