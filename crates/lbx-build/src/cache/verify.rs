//! Whether the store is what it was: everything that has a digest is read and held against it.

use std::io;
use std::path::{Path, PathBuf};

use lbx_image::Store;
use lbx_wheel::{WheelError, WheelStore};
use serde::Serialize;
use serde::de::IgnoredAny;

use super::entries::{children, is_digest};
use super::{hold, hold_alone};
use crate::cancel::Cancel;
use crate::dependencies;
use crate::digest;
use crate::error::Error;

/// Something that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// What.
    pub path: PathBuf,
}

/// What came of reading the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many entries were read.
    pub read: usize,
    /// What is damaged.
    pub damaged: Vec<Damage>,
    /// Whether that was moved away. It is not when nobody wants that, or while builds run.
    pub removed: bool,
}

/// Reads all that can be held against something. What is damaged is moved away unless it is to be kept; builds make it anew.
/// They can run meanwhile.
pub fn verify(cache_dir: &Path, keep: bool, cancel: &Cancel) -> Result<Verified, Error> {
    let store = Store::open(cache_dir).map_err(Error::store)?;
    let wheels =
        WheelStore::open(&cache_dir.join("wheels")).map_err(|error| Error::WheelStore(error.into()))?;
    let reader = Reader { wheels, cancel };
    let held = hold(cache_dir);
    let (mut read, mut suspects, mut damaged) = (0, Vec::new(), Vec::new());
    for (folder, kind) in PLACES {
        for path in children(&cache_dir.join(folder)).filter(|path| kind.is_one(path)) {
            read += 1;
            let found = reader.damage(kind, &path)?;
            if !found.is_empty() {
                suspects.push((kind, path));
                damaged.extend(found);
            }
        }
    }
    drop(held);
    let mut removed = false;
    if !keep && !suspects.is_empty() {
        match hold_alone(cache_dir) {
            Ok(_alone) => {
                damaged = reader.remove(&store, &suspects)?;
                removed = true;
            }
            Err(Error::StoreInUse { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    damaged.sort();
    Ok(Verified { read, damaged: damaged.into_iter().map(|path| Damage { path }).collect(), removed })
}

/// What there is to read.
const PLACES: [(&str, Read); 9] = [
    ("blobs/sha256", Read::File),
    ("index/files/sha256", Read::File),
    ("wheels", Read::Wheel),
    ("parts/v1", Read::Part),
    ("layers/v1", Read::Layer),
    ("refs", Read::Document),
    ("index/pages", Read::IndexDocument),
    ("index/known", Read::IndexDocument),
    ("built", Read::Document),
];

/// How something is read, and what it is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// A file, against its name.
    File,
    /// A wheel, against its folder's name, and what was made of it, against its indexes.
    Wheel,
    /// A part, against what is beside it.
    Part,
    /// A layer: whether there is a tree, with a record.
    Layer,
    /// A document: whether it can be read.
    Document,
    /// A document of an index, against its checksum.
    IndexDocument,
}

impl Read {
    /// Whether a path is one of these. Locks, and what is being made, are not.
    fn is_one(self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_document = matches!(self, Self::Document | Self::IndexDocument);
        let digest = if is_document { name.strip_suffix(".json").unwrap_or_default() } else { &name };
        is_digest(digest.as_bytes())
    }
}

struct Reader<'r> {
    wheels: WheelStore,
    cancel: &'r Cancel,
}

impl Reader<'_> {
    /// What of an entry is damaged. What the disk does not give back any more is, too; what has gone meanwhile is not.
    fn damage(&self, kind: Read, path: &Path) -> Result<Vec<PathBuf>, Error> {
        self.cancel.check()?;
        let all = |is_whole: bool| if is_whole { Vec::new() } else { vec![path.to_owned()] };
        let found = match kind {
            Read::File => has_its_name(path).map(all).map_err(Error::from),
            Read::Document => is_document(path).map(all).map_err(Error::from),
            Read::IndexDocument => {
                fs_err::read(path).map(|bytes| all(lbx_index::is_document(&bytes))).map_err(Error::from)
            }
            Read::Layer => is_document(&path.join("layer.json"))
                .map(|is| all(is && path.join("tree").is_dir()))
                .map_err(Error::from),
            Read::Part => dependencies::is_intact(path).map(all),
            Read::Wheel => {
                self.wheels.damaged(path, &|| !self.cancel.is_cancelled()).map_err(|source| match source {
                    WheelError::Interrupted => Error::Interrupted,
                    source => Error::wheel(path.display().to_string(), source),
                })
            }
        };
        let is_there = || fs_err::symlink_metadata(path).is_ok();
        match found {
            Err(Error::Interrupted) => Err(Error::Interrupted),
            Ok(found) => Ok(found.into_iter().filter(|path| path.exists()).collect()),
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "what cannot be read is damaged");
                Ok(if is_there() { vec![path.to_owned()] } else { Vec::new() })
            }
        }
    }

    /// Moves away what still is damaged, now that nobody uses the store.
    fn remove(&self, store: &Store, suspects: &[(Read, PathBuf)]) -> Result<Vec<PathBuf>, Error> {
        let scratch = store.scratch().map_err(Error::store)?;
        let mut damaged = Vec::new();
        for (kind, path) in suspects {
            for path in self.damage(*kind, path)? {
                fs_err::rename(&path, scratch.path("damaged"))?;
                damaged.push(path);
            }
        }
        Ok(damaged)
    }
}

/// Whether a file has the SHA-256 that it is named after.
fn has_its_name(path: &Path) -> io::Result<bool> {
    let digest = hex::encode(digest::sha256(fs_err::File::open(path)?)?);
    Ok(path.file_name().is_some_and(|name| name == digest.as_str()))
}

fn is_document(path: &Path) -> io::Result<bool> {
    Ok(serde_json::from_slice::<IgnoredAny>(&fs_err::read(path)?).is_ok())
}
