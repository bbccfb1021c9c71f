//! Wheels that were built, kept by all that can change them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use lbx_image::Store;
use lbx_wheel::{Digest, Wheel};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Made, Source};
use crate::cache;
use crate::engine::Context;
use crate::error::Error;

/// A wheel, and what it was built from and with.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    /// What people call the source.
    pub(crate) source: String,
    /// The same for a lock.
    pub(crate) made: Made,
    /// By what it is kept.
    pub(crate) keys: Vec<String>,
    /// What came of it.
    pub(crate) wheel: Arc<Wheel>,
    /// The wheels that the build had, by name, with their SHA-256.
    pub(crate) requires: BTreeMap<String, String>,
    /// The system packages that were installed for the build, names with versions.
    pub(crate) system_packages: BTreeMap<String, String>,
    /// What it asked for in vain.
    pub(crate) refused: BTreeSet<String>,
    /// What came of a second build.
    pub(crate) again: Again,
}

/// What came of a second build of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// There was none.
    Never,
    /// The same wheel.
    Same,
    /// Another one, and the first difference.
    Differs(String),
}

impl Again {
    /// Whether it was the same, if there was one.
    pub(crate) fn reproducible(&self) -> Option<bool> {
        (*self != Self::Never).then_some(*self == Self::Same)
    }

    /// The first difference, if there is one.
    pub(crate) fn difference(&self) -> Option<String> {
        if let Self::Differs(what) = self { Some(what.clone()) } else { None }
    }
}

/// What is kept of it.
#[derive(Serialize, Deserialize)]
struct Kept {
    sha256: String,
    requires: BTreeMap<String, String>,
    #[serde(default)]
    system_packages: BTreeMap<String, String>,
    refused: BTreeSet<String>,
    /// None where it was built once.
    #[serde(default)]
    reproducible: Option<bool>,
    #[serde(default)]
    difference: Option<String>,
}

/// One word for all that can change a wheel.
pub(crate) fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

fn path(store: &Store, key: &str) -> PathBuf {
    store.root().join("built").join(format!("{key}.json"))
}

/// Takes an entry of another store in. Returns whether it is one.
pub(crate) fn take_kept(store: &Store, key: &str, text: &[u8]) -> Result<bool, Error> {
    let Ok(kept) = serde_json::from_slice::<Kept>(text) else { return Ok(false) };
    write(store, key, &kept)?;
    Ok(true)
}

fn write(store: &Store, key: &str, kept: &Kept) -> Result<(), Error> {
    let path = path(store, key);
    let folder = path.parent().unwrap_or(store.root());
    fs_err::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut file, kept).map_err(std::io::Error::from)?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

/// What was kept. An entry that cannot be read, or whose wheel is gone, is none.
pub(super) fn find(context: &Context, key: &str, source: &Source) -> Result<Option<Built>, Error> {
    let text = match fs_err::read(path(&context.ground.store, key)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Ok(kept) = serde_json::from_slice::<Kept>(&text) else { return Ok(None) };
    let Ok(digest) = kept.sha256.parse::<Digest>() else { return Ok(None) };
    let wheel = context.wheels.get(digest).map_err(|error| Error::wheel(key, error))?;
    // What others were built with is in no set.
    for name in [format!("built-{key}.json"), format!("wheel-{digest}")] {
        cache::note(context.ground.store.root(), &name);
    }
    let Kept { requires, system_packages, refused, reproducible, difference, .. } = kept;
    let again = match (reproducible, difference) {
        (_, Some(what)) => Again::Differs(what),
        (Some(_), None) => Again::Same,
        (None, None) => Again::Never,
    };
    let (source, made) = (source.name.clone(), source.made.clone());
    Ok(wheel.map(|wheel| {
        let keys = Vec::new();
        Built { source, made, keys, wheel, requires, system_packages, refused, again }
    }))
}

/// Keeps what was built.
pub(super) fn keep(context: &Context, key: &str, built: &Built) -> Result<(), Error> {
    let (requires, refused) = (built.requires.clone(), built.refused.clone());
    let kept = Kept {
        sha256: built.wheel.digest.to_string(),
        requires,
        system_packages: built.system_packages.clone(),
        refused,
        reproducible: built.again.reproducible(),
        difference: built.again.difference(),
    };
    write(&context.ground.store, key, &kept)
}
