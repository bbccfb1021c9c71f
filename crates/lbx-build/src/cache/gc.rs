//! What goes: what nobody has used for longest, until there is little enough.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lbx_image::{Scratch, Store};

use super::entries::{Entry, children, entries, size};
use super::{Amount, Kind, hold_alone};
use crate::error::Error;

/// What is to be left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// The most bytes.
    pub size: Option<u64>,
    /// What was used no longer ago than this.
    pub age: Option<Duration>,
    /// Say what would go, and remove nothing.
    pub dry_run: bool,
}

/// What has gone, and what is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// What has gone, by kind.
    pub gone: BTreeMap<Kind, Amount>,
    /// Bytes that are left.
    pub left: u64,
}

/// Removes what was used longest ago, and what nobody will use any more. No build runs while it is moved away; one that
/// starts waits for no more than that.
pub fn collect(cache_dir: &Path, wanted: Wanted) -> Result<Collected, Error> {
    // What processes have left that are gone goes with it.
    let store = Store::open(cache_dir).map_err(Error::store)?;
    // Before the store is held: the trees of images have many files.
    let known = measured(cache_dir);
    let alone = if wanted.dry_run { None } else { Some(hold_alone(cache_dir)?) };
    let scratch = store.scratch().map_err(Error::store)?;
    let (mut collected, going) = choose(cache_dir, &known, wanted, &scratch)?;
    for (entry, bytes) in going {
        if alone.is_some() {
            remove(&entry, &scratch.path("gone"))?;
        }
        collected.left -= bytes;
        let amount = collected.gone.entry(entry.kind).or_default();
        amount.entries += 1;
        amount.bytes += bytes;
    }
    if alone.is_some() {
        remove_stale_notes(cache_dir);
    }
    drop(alone);
    // Only now, because it takes its time, is removed what was moved away.
    drop(scratch);
    Ok(collected)
}

/// The sizes of all paths.
fn measured(cache_dir: &Path) -> HashMap<PathBuf, u64> {
    let mut seen = HashSet::new();
    let paths = entries(cache_dir).into_iter().flat_map(|entry| entry.paths);
    paths
        .map(|path| {
            let bytes = size(&path, &mut seen);
            (path, bytes)
        })
        .collect()
}

/// What is to go, with its size, and how much there is in all.
fn choose(
    cache_dir: &Path,
    known: &HashMap<PathBuf, u64>,
    wanted: Wanted,
    scratch: &Scratch,
) -> Result<(Collected, Vec<(Entry, u64)>), Error> {
    // By the clock of the file system, which is the one that says when things were used.
    let now = scratch.path("now");
    fs_err::create_dir(&now)?;
    let now = fs_err::metadata(&now)?.modified()?;
    let mut seen = HashSet::new();
    let mut bytes_of = |path: &PathBuf| known.get(path).copied().unwrap_or_else(|| size(path, &mut seen));
    let mut sized: Vec<(Entry, u64)> = Vec::new();
    for entry in entries(cache_dir) {
        let bytes = entry.paths.iter().map(&mut bytes_of).sum();
        sized.push((entry, bytes));
    }
    sized.sort_by_key(|(entry, _)| (!entry.is_left, entry.used));
    let all: u64 = sized.iter().map(|(_, bytes)| bytes).sum();
    let mut left = all;
    sized.retain(|(entry, bytes)| {
        let is_old =
            wanted.age.is_some_and(|age| now.duration_since(entry.used).is_ok_and(|since| since > age));
        let is_too_much = wanted.size.is_some_and(|most| left > most);
        let goes = entry.is_left || is_old || is_too_much;
        left -= if goes { *bytes } else { 0 };
        goes
    });
    Ok((Collected { left: all, ..Collected::default() }, sized))
}

/// Moves everything away first, so that nobody finds half of it. It goes with the scratch folder, however deep and closed
/// it is.
fn remove(entry: &Entry, away: &Path) -> Result<(), Error> {
    fs_err::create_dir(away)?;
    for (number, path) in entry.paths.iter().enumerate() {
        match fs_err::rename(path, away.join(number.to_string())) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            moved => moved?,
        }
    }
    if let Some(note) = &entry.note {
        let _ = fs_err::remove_file(note);
    }
    Ok(())
}

/// Removes the notes of what is not there any more.
fn remove_stale_notes(cache_dir: &Path) {
    let known: HashSet<PathBuf> = entries(cache_dir).into_iter().filter_map(|entry| entry.note).collect();
    for note in children(&cache_dir.join("used")).filter(|note| !known.contains(note)) {
        let _ = fs_err::remove_file(note);
    }
}
