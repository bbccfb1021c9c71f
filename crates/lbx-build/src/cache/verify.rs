//! Whether the store is what it was: everything that has a digest is read and held against it.

use std::path::{Path, PathBuf};

use lbx_image::Store;
use lbx_wheel::WheelStore;
use serde::Serialize;

use super::hold_alone;
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

/// How much was read, and what of it is damaged. What is damaged is moved away unless it is `kept`; builds make it anew.
pub fn verify(cache_dir: &Path, keep: bool, cancel: &Cancel) -> Result<(usize, Vec<Damage>), Error> {
    let store = Store::open(cache_dir).map_err(Error::store)?;
    let _alone = hold_alone(cache_dir)?;
    let scratch = store.scratch().map_err(Error::store)?;
    let (mut read, mut damaged) = (0, Vec::new());
    for folder in ["blobs/sha256", "index/files/sha256"] {
        for path in children(&cache_dir.join(folder)) {
            cancel.check()?;
            read += 1;
            if !has_its_name(&path, &path)? {
                damaged.push(path);
            }
        }
    }
    let wheels =
        WheelStore::open(&cache_dir.join("wheels")).map_err(|error| Error::WheelStore(error.into()))?;
    for folder in children(&cache_dir.join("wheels")).filter(|path| path.is_dir()) {
        let go_on = || !cancel.is_cancelled();
        let found = wheels.damaged(&folder, &go_on).map_err(|source| Error::wheel(name(&folder), source))?;
        cancel.check()?;
        read += 1;
        damaged.extend(found);
    }
    for folder in children(&cache_dir.join("parts/v1")).filter(|path| !name(path).starts_with('.')) {
        cancel.check()?;
        read += 1;
        if !dependencies::is_intact(&folder)? {
            damaged.push(folder);
        }
    }
    damaged.sort();
    for (number, path) in damaged.iter().enumerate().filter(|_| !keep) {
        fs_err::rename(path, scratch.path(&format!("damaged-{number}")))?;
    }
    Ok((read, damaged.into_iter().map(|path| Damage { path }).collect()))
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs_err::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a file has the SHA-256 that a path ends in.
fn has_its_name(file: &Path, named: &Path) -> Result<bool, Error> {
    Ok(hex::encode(digest::sha256(fs_err::File::open(file)?)?) == name(named))
}
