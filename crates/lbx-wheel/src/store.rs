//! Wheels by digest in a directory: each complete or absent, whatever is killed when, and whoever else adds.
//!
//! `ROOT/SHA256/` holds the wheel under its own name, the index, and the sidecar if there is one. It is made under a
//! temporary name and renamed. An index that does not verify is made anew from the wheel, and a wheel that does not
//! have its digest any more counts as absent.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lbx_archive::Limits;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::import::{Contents, import};
use crate::index::{Index, Stamp};
use crate::{Digest, Wheel, WheelError, WheelFilename};

/// The index's and the sidecar's file names; another compressor or form has others, so that versions of lbx can
/// share a store.
const INDEX: &str = "index-1-libdeflate-1.26.1-6";
const SIDECAR: &str = "sidecar-1-libdeflate-1.26.1-6";
/// The start of the names of directories that are being made.
const TEMPORARY: &str = ".new-";
/// Locked shared while a directory is being made, exclusively while leftovers are removed.
const LOCK: &str = ".lock";
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
}

impl WheelStore {
    /// Opens the store in `root`, makes it if it is not there, and removes what killed processes left behind.
    pub fn open(root: &Path) -> Result<Self, WheelError> {
        fs_err::create_dir_all(root)?;
        let store = Self { root: root.to_owned(), limits: Limits::default(), loaded: Mutex::default() };
        store.remove_leftovers()?;
        Ok(store)
    }

    /// Adds the wheel at `path`, or finds it: verified, mapped and indexed.
    ///
    /// The file is copied, and may be gone afterwards. Several threads and processes may add at the same time, the
    /// same wheel as well. Nothing is left behind when the wheel is refused.
    pub fn add(&self, path: &Path) -> Result<Arc<Wheel>, WheelError> {
        self.try_add(path)
            .map_err(|reason| WheelError::Refused { path: path.to_owned(), reason: Box::new(reason) })
    }

    fn try_add(&self, path: &Path) -> Result<Arc<Wheel>, WheelError> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let filename: WheelFilename = name.parse()?;
        let source = fs_err::File::open(path)?;
        let size = source.metadata()?.len();
        if size > LARGEST_WHEEL {
            return Err(WheelError::TooLarge { size, limit: LARGEST_WHEEL });
        }
        let digest = hash(source.file())?;
        let wheel = match self.get(digest)? {
            Some(wheel) => wheel,
            None => self.insert(path, digest, &filename)?,
        };
        if wheel.filename == filename {
            return Ok(wheel);
        }
        // The same bytes under another name: the tags are the new name's, and the rest has to fit it.
        self.rename(&wheel, filename)
    }

    /// The wheel with this digest, if it is in the store.
    pub fn get(&self, digest: Digest) -> Result<Option<Arc<Wheel>>, WheelError> {
        if let Some(wheel) = self.loaded().get(&digest) {
            return Ok(Some(Arc::clone(wheel)));
        }
        let directory = self.directory(digest);
        let wheel = match load(&directory, digest)? {
            Some(wheel) => wheel,
            None => match self.rebuild(&directory, digest)? {
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

    /// Copies, imports and publishes a wheel that is not in the store.
    fn insert(
        &self,
        path: &Path,
        digest: Digest,
        filename: &WheelFilename,
    ) -> Result<Arc<Wheel>, WheelError> {
        let (_lock, new) = self.new_directory()?;
        let copy = new.path().join(filename.to_string());
        if copy_hashed(path, &copy)? != digest {
            return Err(WheelError::Changed { path: path.to_owned() });
        }
        self.index(new.path(), filename)?;
        let directory = self.directory(digest);
        match fs_err::rename(new.path(), &directory) {
            // It is no longer under its temporary name.
            Ok(()) => drop(new.keep()),
            // Someone else was faster; theirs is as good.
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(error.into()),
        }
        self.get(digest)?.ok_or(WheelError::Changed { path: directory })
    }

    /// Makes sidecar and index beside the wheel in `directory`.
    fn index(&self, directory: &Path, filename: &WheelFilename) -> Result<(), WheelError> {
        let wheel = fs_err::File::open(directory.join(filename.to_string()))?;
        let sidecar_path = directory.join(SIDECAR);
        let mut sidecar = BufWriter::new(fs_err::File::create(&sidecar_path)?);
        let contents = import(wheel.file(), filename, &self.limits, &mut sidecar)?;
        let sidecar = sidecar.into_inner().map_err(io::IntoInnerError::into_error)?;
        let sidecar = if contents.sidecar_size > 0 {
            sidecar.sync_data()?;
            Some(stamp(sidecar.file())?)
        } else {
            fs_err::remove_file(&sidecar_path)?;
            None
        };
        let index = Index { filename: filename.to_string(), wheel: stamp(wheel.file())?, sidecar, contents };
        let mut file = fs_err::File::create(directory.join(INDEX))?;
        file.write_all(&index.to_bytes())?;
        file.sync_data()?;
        Ok(())
    }

    /// Makes the index of a stored wheel anew, because it is missing, damaged or of another form. `None`, and no
    /// wheel any more, if the wheel itself is damaged.
    fn rebuild(&self, directory: &Path, digest: Digest) -> Result<Option<Wheel>, WheelError> {
        let Some((path, filename)) = find_wheel(directory)? else { return Ok(None) };
        tracing::debug!(%digest, "making the index of a stored wheel anew");
        let (_lock, new) = self.new_directory()?;
        let copy = new.path().join(filename.to_string());
        // A hard link keeps size and times, which the index holds on to.
        fs_err::hard_link(&path, &copy)?;
        if hash(fs_err::File::open(&copy)?.file())? != digest {
            tracing::warn!(%digest, "removing a stored wheel that was changed");
            // By rename, so that no one finds half of it.
            fs_err::rename(directory, new.path().join("damaged"))?;
            return Ok(None);
        }
        self.index(new.path(), &filename)?;
        // The index last: until it is there, no one looks at the sidecar.
        if new.path().join(SIDECAR).try_exists()? {
            fs_err::rename(new.path().join(SIDECAR), directory.join(SIDECAR))?;
        }
        fs_err::rename(new.path().join(INDEX), directory.join(INDEX))?;
        load(directory, digest)
    }

    /// The same wheel under another file name, not stored under it.
    fn rename(&self, wheel: &Wheel, filename: WheelFilename) -> Result<Arc<Wheel>, WheelError> {
        let file = fs_err::File::open(&wheel.path)?;
        // What depends on the name is checked by doing it again; the sidecar comes out the same.
        let contents = import(file.file(), &filename, &self.limits, &mut io::sink())?;
        let paths = (wheel.path.clone(), wheel.sidecar.clone());
        Ok(Arc::new(assemble(wheel.digest, filename, contents, paths)))
    }

    /// A directory to fill, and the lock that keeps others from taking it for a leftover.
    fn new_directory(&self) -> Result<(File, TempDir), WheelError> {
        let lock = self.lock_file()?;
        lock.lock_shared()?;
        let new = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&self.root)?;
        Ok((lock.into_file(), new))
    }

    fn lock_file(&self) -> Result<fs_err::File, WheelError> {
        Ok(fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(self.root.join(LOCK))?)
    }

    /// Removes directories that no one is filling: if the lock can be had, all of them.
    fn remove_leftovers(&self) -> Result<(), WheelError> {
        let lock = self.lock_file()?;
        if lock.file().try_lock().is_err() {
            return Ok(());
        }
        for entry in fs_err::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
                fs_err::remove_dir_all(entry.path())?;
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
    let sidecar_path = index.sidecar.map(|_| directory.join(SIDECAR));
    let unchanged = |path: &Path, expected: Stamp| match fs_err::File::open(path) {
        Ok(file) => Ok(stamp(file.file())? == expected),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    if !unchanged(&wheel_path, index.wheel)? {
        return Ok(None);
    }
    if let (Some(path), Some(expected)) = (&sidecar_path, index.sidecar)
        && !unchanged(path, expected)?
    {
        return Ok(None);
    }
    Ok(Some(assemble(digest, filename, index.contents, (wheel_path, sidecar_path))))
}

fn assemble(
    digest: Digest,
    filename: WheelFilename,
    contents: Contents,
    (path, sidecar): (PathBuf, Option<PathBuf>),
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

/// Whether a rename found a directory with something in it.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let metadata = file.metadata()?;
    let nanoseconds = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    // A time before 1970 is nobody's; it only has to stay the same.
    Ok(Stamp { size: metadata.len(), modified: u64::try_from(nanoseconds).unwrap_or(0) })
}

/// SHA-256 of a file from its current position.
fn hash(mut file: &File) -> Result<Digest, WheelError> {
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest(sha256.finalize().into())),
            count => sha256.update(&buffer[..count]),
        }
    }
}

/// Copies a file, and returns the SHA-256 of what was copied.
fn copy_hashed(from: &Path, to: &Path) -> Result<Digest, WheelError> {
    let mut source = fs_err::File::open(from)?;
    let mut target = fs_err::File::create_new(to)?;
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        sha256.update(&buffer[..count]);
        target.write_all(&buffer[..count])?;
    }
    target.sync_data()?;
    Ok(Digest(sha256.finalize().into()))
}
