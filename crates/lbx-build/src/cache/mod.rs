//! The store as its owner sees it: how much is in it, what may go, and whether it is what it was.
//!
//! What builds have used is noted in `used/`, a file each, whose time is that of the last use.
//! Builds hold the file `lock` for as long as they run, all at the same time; whoever removes things has it alone.

mod entries;
mod gc;
mod usage;
mod verify;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use lbx_image::Image;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use serde::{Deserialize, Serialize};

pub use self::gc::{Collected, Wanted, collect};
pub use self::usage::{Amount, usage};
pub use self::verify::{Damage, Verified, verify};

use crate::error::Error;

/// The file that is held.
const LOCK: &str = "lock";
/// How often, and how long, whoever wants to have the store alone asks for it.
const PAUSE: Duration = Duration::from_millis(10);
const PATIENCE: u32 = 500;

/// What the store has, in the words of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Images: what registries gave, layers, and layers merged.
    Images,
    /// Wheels, with what was made of them.
    Wheels,
    /// What zips begin with.
    Parts,
    /// Pages and files of package indexes.
    Index,
    /// System packages above images.
    Packages,
    /// Repositories.
    Repositories,
    /// Records of builds.
    Records,
    /// The work of running processes.
    Temporary,
}

impl Kind {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Wheels => "wheels",
            Self::Parts => "zips' beginnings",
            Self::Index => "package indexes",
            Self::Packages => "system packages",
            Self::Repositories => "repositories",
            Self::Records => "records of builds",
            Self::Temporary => "work under way",
        }
    }
}

/// What belongs to an image: names in `blobs/sha256`, `layers/v1` and `flat/v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ImageNote {
    blobs: Vec<String>,
    layers: Vec<String>,
    flat: String,
}

impl ImageNote {
    /// Whether it names what can be in the store, and nothing else.
    fn is_sound(&self) -> bool {
        let mut names = self.blobs.iter().chain(&self.layers).chain([&self.flat]);
        names.all(|name| entries::is_digest(name.as_bytes()))
    }
}

/// Holds the store for as long as the file is open, so that nothing is removed from it. Nothing is held where the file
/// system does not let, or cannot.
pub(crate) fn hold(cache_dir: &Path) -> Option<File> {
    // Where the user may not write, another host may all the same.
    let file = lock_file(cache_dir)
        .or_else(|_| fs_err::File::open(cache_dir.join(LOCK)).map(fs_err::File::into_file));
    file.ok().filter(|file| file.lock_shared().is_ok())
}

fn lock_file(cache_dir: &Path) -> Result<File, Error> {
    let mut options = fs_err::OpenOptions::new();
    Ok(options.create(true).truncate(false).read(true).write(true).open(cache_dir.join(LOCK))?.into_file())
}

/// Has the store alone.
fn hold_alone(cache_dir: &Path) -> Result<File, Error> {
    let file = lock_file(cache_dir)?;
    for _ in 0..PATIENCE {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => {
                return Err(Error::StoreLock { path: cache_dir.to_owned(), source: error });
            }
        }
    }
    Err(Error::StoreInUse { path: cache_dir.to_owned() })
}

/// Notes that something is used. `name` is that of a file. It is no error when it cannot be noted: what is not noted counts
/// by the time when it was made.
pub(crate) fn note(cache_dir: &Path, name: &str) {
    note_with(cache_dir, name, b"");
}

/// Notes that an image is used.
pub(crate) fn note_image(cache_dir: &Path, image: &Image) {
    let layers: Vec<String> = image.layers.iter().map(|layer| layer.diff_id.hex().to_owned()).collect();
    let documents = [Some(&image.manifest_digest), image.index_digest.as_ref(), Some(&image.config_digest)];
    let blobs = documents.into_iter().flatten().chain(image.layers.iter().map(|layer| &layer.digest));
    let note = ImageNote {
        blobs: blobs.map(|digest| digest.hex().to_owned()).collect(),
        flat: lbx_image::flat_name(image),
        layers,
    };
    // Strings alone: nothing that could fail.
    let text = serde_json::to_vec(&note).unwrap_or_default();
    note_with(cache_dir, &format!("image-{}", image.manifest_digest.hex()), &text);
}

fn note_with(cache_dir: &Path, name: &str, text: &[u8]) {
    let folder = cache_dir.join("used");
    let path = folder.join(name);
    let write = || {
        if fs_err::read(&path).is_ok_and(|known| known == text) {
            return touch(&path);
        }
        fs_err::create_dir_all(&folder)?;
        // By rename: an image whose note was cut off would be none.
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        file.write_all(text)?;
        file.persist(&path).map(drop).map_err(|error| error.error)
    };
    if let Err(error) = write() {
        tracing::debug!(name, %error, "the use is not noted");
    }
}

/// Sets the time of a file to now, by the clock of the file system.
fn touch(path: &Path) -> io::Result<()> {
    let of = |nanoseconds| Timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: of(UTIME_OMIT), last_modification: of(UTIME_NOW) };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::empty())?)
}

/// When things were used last, by their notes' names.
fn notes(cache_dir: &Path) -> BTreeMap<String, SystemTime> {
    let entries = fs_err::read_dir(cache_dir.join("used")).into_iter().flatten().flatten();
    let note = |entry: fs_err::DirEntry| {
        Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.modified().ok()?))
    };
    entries.filter_map(note).collect()
}
