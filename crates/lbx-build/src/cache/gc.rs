//! What goes: what nobody has used for longest, until there is little enough.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use lbx_image::Store;

use super::entries::{Entry, entries, size};
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

/// Removes what was used longest ago. No build runs meanwhile; one that starts waits.
pub fn collect(cache_dir: &Path, wanted: Wanted) -> Result<Collected, Error> {
    // What processes have left that are gone goes with it.
    let store = Store::open(cache_dir).map_err(Error::store)?;
    let _alone = hold_alone(cache_dir)?;
    let scratch = store.scratch().map_err(Error::store)?;
    // By the clock of the file system, which is the one that says when things were used.
    let now = scratch.path("now");
    fs_err::create_dir(&now)?;
    let now = fs_err::metadata(&now)?.modified()?;
    let mut seen = HashSet::new();
    let mut sized: Vec<(Entry, u64)> = Vec::new();
    for entry in entries(cache_dir) {
        let bytes = entry.paths.iter().map(|path| size(path, &mut seen)).sum();
        sized.push((entry, bytes));
    }
    sized.sort_by_key(|(entry, _)| entry.used);
    let mut collected =
        Collected { left: sized.iter().map(|(_, bytes)| bytes).sum(), ..Collected::default() };
    for (number, (entry, bytes)) in sized.iter().enumerate() {
        let is_old =
            wanted.age.is_some_and(|age| now.duration_since(entry.used).is_ok_and(|since| since > age));
        let is_too_much = wanted.size.is_some_and(|most| collected.left > most);
        if !is_old && !is_too_much {
            continue;
        }
        if !wanted.dry_run {
            remove(entry, &scratch.path(&format!("gone-{number}")))?;
        }
        collected.left -= bytes;
        let amount = collected.gone.entry(entry.kind).or_default();
        amount.entries += 1;
        amount.bytes += bytes;
    }
    Ok(collected)
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
