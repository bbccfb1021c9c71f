//! Wheels by digest in a directory: each complete or absent, whatever is killed when, and whoever else adds.
//!
//! `ROOT/SHA256/` holds the wheel under its own name, the index, and the sidecar if there is one. It is made under a
//! temporary name and renamed. An index that does not verify is made anew from the wheel, and a wheel that does not
//! have its digest any more counts as absent.
//!
//! How much is believed: [`WheelStore::get`] goes by sizes and times, which show every change but one that hides (a
//! failing disk, a program that sets times). [`WheelStore::add`] has the right bytes at hand, so it hashes what is
//! stored and replaces what differs, file by file, by rename: a name in the store never disappears under a reader,
//! and whatever version of a file a reader opens, its place in it is the same.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lbx_archive::{Archive, Limits};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::import::{Contents, import};
use crate::index::{Index, Stamp};
use crate::interrupt::GoOn;
use crate::{Digest, Wheel, WheelError, WheelFilename};

/// The index's and the sidecar's file names; another compressor or form has others, so that versions of lbx can
/// share a store.
const INDEX: &str = "index-2-libdeflate-1.26.1-6";
const SIDECAR: &str = "sidecar-2-libdeflate-1.26.1-6";
/// The start of the names of directories that are being made.
const TEMPORARY: &str = ".new-";
/// Locked shared while a directory is being made, exclusively while leftovers are removed.
const LOCK: &str = ".lock";
/// Locked exclusively while finished files are moved to where readers look for them, so that an index never comes to
/// stand beside another process's files. Not held while anything is hashed.
const PUBLISH_LOCK: &str = ".publish-lock";
/// The most bytes of a wheel. Lambda takes a tenth of it; the rest is for wheels that are pruned. Without a limit,
/// build code could leave a sparse file behind that takes hours to hash.
const LARGEST_WHEEL: u64 = 2 << 30;
/// Bytes read at a time when hashing.
const BUFFER: usize = 1 << 20;

/// A store of wheels.
#[derive(Debug)]
pub struct WheelStore {
    root: PathBuf,
    limits: Limits,
    loaded: Mutex<HashMap<Digest, Arc<Wheel>>>,
    taken_in: Mutex<BTreeSet<Digest>>,
}

impl WheelStore {
    /// Opens the store in `root`, makes it if it is not there, and removes what killed processes left behind.
    pub fn open(root: &Path) -> Result<Self, WheelError> {
        fs_err::create_dir_all(root)?;
        let (root, limits) = (root.to_owned(), Limits::default());
        let store = Self { root, limits, loaded: Mutex::default(), taken_in: Mutex::default() };
        store.remove_leftovers()?;
        Ok(store)
    }

    /// Adds the wheel at `path`, or finds it: verified, mapped and indexed.
    ///
    /// The file is copied, and may be gone afterwards. Several threads and processes may add at the same time, the
    /// same wheel as well. Nothing is left behind when the wheel is refused.
    ///
    /// When the wheel is in the store already, the stored files are hashed and, if they are not what they were,
    /// replaced; so what is returned has the right bytes whatever happened to the store.
    pub fn add(&self, path: &Path) -> Result<Arc<Wheel>, WheelError> {
        self.add_with(path, &|| true)
    }

    /// [`WheelStore::add`] that can be stopped: `go_on` is asked again and again while bytes are read, many times a
    /// second and from several threads. Once it returns `false`, so should it from then on, and the error is
    /// [`WheelError::Interrupted`] with nothing left behind.
    pub fn add_with(&self, path: &Path, go_on: &(dyn Fn() -> bool + Sync)) -> Result<Arc<Wheel>, WheelError> {
        let add = || {
            // Before it is opened: opening a pipe waits for someone to write to it.
            if !fs_err::metadata(path)?.is_file() {
                return Err(WheelError::NotAFile);
            }
            self.try_add(&Source { path, file: fs_err::File::open(path)?.into_file() }, GoOn(go_on))
        };
        add().map_err(|reason| refused(path, reason))
    }

    /// [`WheelStore::add_with`] of a file that is open, whatever its name leads to by now. Of `path`, only the name
    /// counts.
    pub fn add_open(
        &self,
        path: &Path,
        file: File,
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<Arc<Wheel>, WheelError> {
        self.try_add(&Source { path, file }, GoOn(go_on)).map_err(|reason| refused(path, reason))
    }

    fn try_add(&self, source: &Source<'_>, go_on: GoOn<'_>) -> Result<Arc<Wheel>, WheelError> {
        let path = source.path;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let filename: WheelFilename = name.parse()?;
        let size = source.file.metadata()?.len();
        if size > LARGEST_WHEEL {
            return Err(WheelError::TooLarge { size, limit: LARGEST_WHEEL });
        }
        // Cheap, and what it refuses is neither hashed nor copied: no byte may be outside the members, so a file of
        // holes needs headers that own up to them. The blocks that a file takes would not tell, because some file
        // systems compress, or count them later.
        Archive::open(&source.file, &self.limits)?;
        let digest = hash(&source.file, go_on)?;
        let wheel = match self.find(digest, go_on)? {
            Some(wheel) if is_intact(&wheel, go_on)? => wheel,
            Some(wheel) => {
                tracing::warn!(%digest, "replacing a stored wheel that was changed");
                // Under its old name, for those who have it open by that.
                self.insert(source, digest, &wheel.filename, Taken::Replace, go_on)?
            }
            None => self.insert(source, digest, &filename, Taken::Keep, go_on)?,
        };
        if wheel.filename == filename {
            return Ok(wheel);
        }
        // The same bytes under another name: the tags are the new name's, and the rest has to fit it.
        self.rename(&wheel, filename, go_on)
    }

    /// The wheel with this digest, if it is in the store.
    ///
    /// Fast: the stored files are known by size and time of modification, and hashed only when these differ. A change
    /// that keeps both is not seen here, but by the next [`WheelStore::add`].
    pub fn get(&self, digest: Digest) -> Result<Option<Arc<Wheel>>, WheelError> {
        self.find(digest, GoOn::ALWAYS)
    }

    /// The wheels that were not in the store, or not as they were, until they were added through this value.
    pub fn taken_in(&self) -> BTreeSet<Digest> {
        self.taken_in.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find(&self, digest: Digest, go_on: GoOn<'_>) -> Result<Option<Arc<Wheel>>, WheelError> {
        if let Some(wheel) = self.loaded().get(&digest) {
            return Ok(Some(Arc::clone(wheel)));
        }
        let directory = self.directory(digest);
        let wheel = match load(&directory, digest)? {
            Some(wheel) => wheel,
            None => match self.rebuild(&directory, digest, go_on)? {
                Some(wheel) => wheel,
                None => return Ok(None),
            },
        };
        Ok(Some(self.remember(wheel)))
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<Wheel>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, wheel: Wheel) -> Arc<Wheel> {
        let wheel = Arc::new(wheel);
        Arc::clone(self.loaded().entry(wheel.digest).or_insert(wheel))
    }

    fn directory(&self, digest: Digest) -> PathBuf {
        self.root.join(digest.to_string())
    }

    /// Copies, imports and publishes a wheel that is not in the store, or not as it was.
    fn insert(
        &self,
        source: &Source<'_>,
        digest: Digest,
        filename: &WheelFilename,
        taken: Taken,
        go_on: GoOn<'_>,
    ) -> Result<Arc<Wheel>, WheelError> {
        let (_lock, new) = self.new_directory()?;
        let copy = new.path().join(filename.to_string());
        if copy_hashed(&source.file, &copy, go_on)? != digest {
            return Err(WheelError::Changed { path: source.path.to_owned() });
        }
        let index = self.index(new.path(), filename, go_on)?;
        let wheel = Arc::new(self.publish(new, index, digest, taken)?);
        // In place of the one whose files were replaced, if there was one.
        self.loaded().insert(digest, Arc::clone(&wheel));
        self.taken_in.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        Ok(wheel)
    }

    /// Moves a finished directory to where readers look for it.
    fn publish(&self, new: TempDir, index: Index, digest: Digest, taken: Taken) -> Result<Wheel, WheelError> {
        let directory = self.directory(digest);
        let filename: WheelFilename = index.filename.parse()?;
        let _publishing = self.lock_publishing()?;
        match fs_err::rename(new.path(), &directory) {
            // It is no longer under its temporary name.
            Ok(()) => drop(new.keep()),
            Err(error) if is_taken(&error) => {
                if taken == Taken::Keep
                    && let Some(wheel) = load(&directory, digest)?
                {
                    // Someone else was faster; theirs is as good.
                    return Ok(wheel);
                }
                fs_err::rename(new.path().join(&index.filename), directory.join(&index.filename))?;
                publish_index(new.path(), &directory)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(index.into_wheel(&directory, digest, filename))
    }

    /// Makes sidecar and index beside the wheel in `directory`.
    fn index(
        &self,
        directory: &Path,
        filename: &WheelFilename,
        go_on: GoOn<'_>,
    ) -> Result<Index, WheelError> {
        let wheel = fs_err::File::open(directory.join(filename.to_string()))?;
        let sidecar_path = directory.join(SIDECAR);
        let mut sidecar = BufWriter::new(fs_err::File::create(&sidecar_path)?);
        let contents = import(wheel.file(), filename, &self.limits, &mut sidecar, go_on)?;
        let sidecar = sidecar.into_inner().map_err(io::IntoInnerError::into_error)?;
        let sidecar = if contents.sidecar_size > 0 {
            sidecar.sync_data()?;
            // Read back rather than hashed on the way: it is small, and this is what will be read.
            let digest = hash(fs_err::File::open(&sidecar_path)?.file(), go_on)?;
            Some((stamp(sidecar.file())?, digest))
        } else {
            fs_err::remove_file(&sidecar_path)?;
            None
        };
        let index = Index { filename: filename.to_string(), wheel: stamp(wheel.file())?, sidecar, contents };
        let mut file = fs_err::File::create(directory.join(INDEX))?;
        file.write_all(&index.to_bytes())?;
        file.sync_data()?;
        Ok(index)
    }

    /// Makes the index of a stored wheel anew, because it is missing, damaged or of another form. `None`, and no
    /// wheel any more, if the wheel itself is damaged.
    fn rebuild(
        &self,
        directory: &Path,
        digest: Digest,
        go_on: GoOn<'_>,
    ) -> Result<Option<Wheel>, WheelError> {
        // Every turn but the last is one in which another process published something.
        loop {
            let Some((path, filename)) = find_wheel(directory)? else { return Ok(None) };
            tracing::debug!(%digest, "making the index of a stored wheel anew");
            let (_lock, new) = self.new_directory()?;
            let copy = new.path().join(filename.to_string());
            // A hard link keeps size and times, which the index holds on to, and the file, if it is replaced.
            match fs_err::hard_link(&path, &copy) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                linked => linked?,
            }
            let file = fs_err::File::open(&copy)?;
            let intact = has_digest(file.file(), digest, go_on)?;
            let index = intact.then(|| self.index(new.path(), &filename, go_on)).transpose()?;
            let _publishing = self.lock_publishing()?;
            if let Some(wheel) = load(directory, digest)? {
                return Ok(Some(wheel));
            }
            if !is_same_file(file.file(), &path)? {
                continue;
            }
            let Some(index) = index else {
                tracing::warn!(%digest, "removing a stored wheel that was changed");
                // By rename, so that no one finds half of it.
                fs_err::rename(directory, new.path().join("damaged"))?;
                return Ok(None);
            };
            publish_index(new.path(), directory)?;
            return Ok(Some(index.into_wheel(directory, digest, filename)));
        }
    }

    /// The same wheel under another file name, not stored under it.
    fn rename(
        &self,
        wheel: &Wheel,
        filename: WheelFilename,
        go_on: GoOn<'_>,
    ) -> Result<Arc<Wheel>, WheelError> {
        let file = fs_err::File::open(&wheel.path)?;
        // What depends on the name is checked by doing it again; the sidecar comes out the same.
        let contents = import(file.file(), &filename, &self.limits, &mut io::sink(), go_on)?;
        let paths = (wheel.path.clone(), wheel.sidecar.clone());
        Ok(Arc::new(assemble(wheel.digest, filename, contents, paths)))
    }

    /// A directory to fill, and the lock that keeps others from taking it for a leftover.
    pub(crate) fn new_directory(&self) -> Result<(File, TempDir), WheelError> {
        let lock = self.lock_file(LOCK)?;
        lbx_lock::share(lock.file())?;
        let new = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&self.root)?;
        Ok((lock.into_file(), new))
    }

    pub(crate) fn lock_publishing(&self) -> Result<fs_err::File, WheelError> {
        let lock = self.lock_file(PUBLISH_LOCK)?;
        lbx_lock::take(lock.file())?;
        Ok(lock)
    }

    fn lock_file(&self, name: &str) -> Result<fs_err::File, WheelError> {
        Ok(fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(self.root.join(name))?)
    }

    /// Removes directories that no one is filling: if the lock can be had, all of them. What can't be removed takes
    /// room and does no other harm, so it must not keep anybody from using the store.
    fn remove_leftovers(&self) -> Result<(), WheelError> {
        let lock = match self.lock_file(LOCK) {
            // What can only be read has what it has.
            Err(WheelError::Io(error)) if is_closed(&error) => return Ok(()),
            lock => lock?,
        };
        if !lbx_lock::is_left_behind(lock.file()) {
            return Ok(());
        }
        for entry in fs_err::read_dir(&self.root)? {
            let entry = entry?;
            // The library's own removal is enough: no build code writes here, so nothing is deep or closed but what
            // somebody has made so by hand.
            if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
                && let Err(error) = fs_err::remove_dir_all(entry.path())
            {
                tracing::debug!(%error, "a leftover stays");
            }
        }
        Ok(())
    }
}

/// Loads what is in `directory` if its index verifies and still speaks of the files beside it.
fn load(directory: &Path, digest: Digest) -> Result<Option<Wheel>, WheelError> {
    let bytes = match fs_err::read(directory.join(INDEX)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(index) = Index::from_bytes(&bytes) else { return Ok(None) };
    let Ok(filename) = index.filename.parse::<WheelFilename>() else { return Ok(None) };
    let wheel_path = directory.join(&index.filename);
    let unchanged = |path: &Path, expected: Stamp| match fs_err::File::open(path) {
        Ok(file) => Ok(stamp(file.file())? == expected),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    if !unchanged(&wheel_path, index.wheel)? {
        return Ok(None);
    }
    if let Some((expected, _)) = index.sidecar
        && !unchanged(&directory.join(SIDECAR), expected)?
    {
        return Ok(None);
    }
    Ok(Some(index.into_wheel(directory, digest, filename)))
}

/// What to do with a stored wheel that is in the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// Keep it if its index speaks of it.
    Keep,
    /// Replace it: it was seen to be damaged.
    Replace,
}

impl Index {
    /// The wheel that this index describes, in its directory.
    fn into_wheel(self, directory: &Path, digest: Digest, filename: WheelFilename) -> Wheel {
        let path = directory.join(&self.filename);
        let sidecar = self.sidecar.map(|(_, digest)| (directory.join(SIDECAR), digest));
        assemble(digest, filename, self.contents, (path, sidecar))
    }
}

/// Whether a folder of the store has the wheel that it is named after, and what belongs to it, by reading them.
pub(crate) fn is_whole(folder: &Path, go_on: GoOn<'_>) -> Result<bool, WheelError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Ok(digest) = name.parse::<Digest>() else { return Ok(true) };
    match load(folder, digest)? {
        Some(wheel) => is_intact(&wheel, go_on),
        // Without its index, it is looked at again when it is wanted.
        None => match find_wheel(folder)? {
            Some((path, _)) => has_digest(fs_err::File::open(path)?.file(), digest, go_on),
            None => Ok(false),
        },
    }
}

/// Whether the stored files have their digests, by reading them.
fn is_intact(wheel: &Wheel, go_on: GoOn<'_>) -> Result<bool, WheelError> {
    let has = |path: &Path, digest: Digest| match fs_err::File::open(path) {
        Ok(file) => has_digest(file.file(), digest, go_on),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(WheelError::from(error)),
    };
    if !has(&wheel.path, wheel.digest)? {
        return Ok(false);
    }
    match &wheel.sidecar {
        Some((path, digest)) => has(path, *digest),
        None => Ok(true),
    }
}

/// Moves sidecar and index to where readers look for them. The publish lock is held.
fn publish_index(from: &Path, to: &Path) -> Result<(), WheelError> {
    // The index last: until it is there, no one looks at the sidecar.
    if from.join(SIDECAR).try_exists()? {
        fs_err::rename(from.join(SIDECAR), to.join(SIDECAR))?;
    }
    Ok(fs_err::rename(from.join(INDEX), to.join(INDEX))?)
}

fn assemble(
    digest: Digest,
    filename: WheelFilename,
    contents: Contents,
    (path, sidecar): (PathBuf, Option<(PathBuf, Digest)>),
) -> Wheel {
    let Contents {
        metadata, root_is_purelib, dist_info, console_scripts, gui_scripts, files, left_out, ..
    } = contents;
    Wheel {
        digest,
        filename,
        metadata,
        root_is_purelib,
        dist_info,
        console_scripts,
        gui_scripts,
        files,
        left_out,
        path,
        sidecar,
    }
}

/// The wheel in a directory of the store.
fn find_wheel(directory: &Path) -> Result<Option<(PathBuf, WheelFilename)>, WheelError> {
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let entry = entry?;
        if let Ok(filename) = entry.file_name().to_string_lossy().parse() {
            return Ok(Some((entry.path(), filename)));
        }
    }
    Ok(None)
}

/// Whether the store may only be read.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Whether a rename found a directory with something in it.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

pub(crate) fn stamp(file: &File) -> io::Result<Stamp> {
    let metadata = file.metadata()?;
    let nanoseconds = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    // A time before 1970 is nobody's; it only has to stay the same.
    Ok(Stamp { size: metadata.len(), modified: u64::try_from(nanoseconds).unwrap_or(0) })
}

/// Whether `path` is the name of this very file.
fn is_same_file(file: &File, path: &Path) -> Result<bool, WheelError> {
    let ours = file.metadata()?;
    match fs_err::metadata(path) {
        Ok(theirs) => Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a stored file is what it was.
fn has_digest(file: &File, digest: Digest, go_on: GoOn<'_>) -> Result<bool, WheelError> {
    match hash(file, go_on) {
        Ok(found) => Ok(found == digest),
        // It was not when it was stored.
        Err(WheelError::TooLarge { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A wheel that may be added, and what it is called.
struct Source<'a> {
    path: &'a Path,
    file: File,
}

fn refused(path: &Path, reason: WheelError) -> WheelError {
    match reason {
        WheelError::Interrupted => reason,
        _ => WheelError::Refused { path: path.to_owned(), reason: Box::new(reason) },
    }
}

/// SHA-256 of a file from its current position.
fn hash(file: &File, go_on: GoOn<'_>) -> Result<Digest, WheelError> {
    transfer(file, io::sink(), go_on)
}

/// Copies a file, and returns the SHA-256 of what was copied.
fn copy_hashed(mut source: &File, to: &Path, go_on: GoOn<'_>) -> Result<Digest, WheelError> {
    source.rewind()?;
    let mut target = fs_err::File::create_new(to)?;
    let digest = transfer(source, &mut target, go_on)?;
    target.sync_data()?;
    Ok(digest)
}

/// Copies all that is left to read, and returns its SHA-256.
fn transfer(mut source: impl Read, mut target: impl Write, go_on: GoOn<'_>) -> Result<Digest, WheelError> {
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        go_on.check()?;
        let count = source.read(&mut buffer)?;
        if count == 0 {
            return Ok(Digest(sha256.finalize().into()));
        }
        // The size was checked, but a file may grow while it is read.
        size += count as u64;
        if size > LARGEST_WHEEL {
            return Err(WheelError::TooLarge { size, limit: LARGEST_WHEEL });
        }
        sha256.update(&buffer[..count]);
        target.write_all(&buffer[..count])?;
    }
}
