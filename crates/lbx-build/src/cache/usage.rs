//! How much is in the store.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::Serialize;

use super::Kind;
use super::entries::{entries, size};

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub entries: usize,
    /// Bytes on the disk. What has several names is counted once.
    pub bytes: u64,
}

/// How much the store has, by kind.
pub fn usage(cache_dir: &Path) -> BTreeMap<Kind, Amount> {
    let mut all: BTreeMap<Kind, Amount> = BTreeMap::new();
    let mut seen = HashSet::new();
    for entry in entries(cache_dir) {
        let amount = all.entry(entry.kind).or_default();
        amount.entries += 1;
        amount.bytes += entry.paths.iter().map(|path| size(path, &mut seen)).sum::<u64>();
    }
    let temporary = ["tmp", "index/tmp"].map(|folder| cache_dir.join(folder));
    let bytes: u64 = temporary.iter().map(|folder| size(folder, &mut seen)).sum();
    let count = |folder: &std::path::PathBuf| fs_err::read_dir(folder).map_or(0, Iterator::count);
    let under_way: usize = temporary.iter().map(count).sum();
    if under_way > 0 {
        let amount = all.entry(Kind::Temporary).or_default();
        amount.entries += under_way;
        amount.bytes += bytes;
    }
    all
}
