//! The things of the store that come and go as a whole, and when each was used last.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{ImageNote, Kind, notes};

/// One thing: paths that go together.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) paths: Vec<PathBuf>,
    pub(super) used: SystemTime,
    /// The note of its use, which goes with it.
    pub(super) note: Option<PathBuf>,
}

/// Everything but what is under way.
pub(super) fn entries(store: &Path) -> Vec<Entry> {
    let notes = notes(store);
    let mut all = images(store, &notes);
    let single = |kind, folder: &str, noted: &'static str| {
        let notes = &notes;
        let entry = move |path: PathBuf| {
            let name = format!("{noted}-{}", path.file_name()?.to_str()?);
            let known = (!noted.is_empty()).then(|| notes.get(&name)).flatten();
            let note = known.map(|_| store.join("used").join(&name));
            let made = time(&path)?;
            Some(Entry { kind, used: known.copied().unwrap_or(made).max(made), paths: vec![path], note })
        };
        children(&store.join(folder)).filter_map(entry).collect::<Vec<_>>()
    };
    all.extend(single(Kind::Wheels, "wheels", "wheel").into_iter().filter(is_named_by_digest));
    all.extend(single(Kind::Parts, "parts/v1", "part").into_iter().filter(is_named_by_digest));
    all.extend(single(Kind::Packages, "packages/v1", "packages"));
    all.extend(single(Kind::Repositories, "git", ""));
    for folder in ["index/files/sha256", "index/pages", "index/known"] {
        all.extend(single(Kind::Index, folder, ""));
    }
    for folder in ["built", "builds/v1"] {
        all.extend(single(Kind::Records, folder, ""));
    }
    all
}

/// Locks, and what is being made, have other names.
fn is_named_by_digest(entry: &Entry) -> bool {
    let name = entry.paths[0].file_name().unwrap_or_default().as_encoded_bytes();
    name.len() == 64 && name.iter().all(u8::is_ascii_hexdigit)
}

/// Images, each with what no image has that was used later; and what belongs to none.
fn images(store: &Path, notes: &BTreeMap<String, SystemTime>) -> Vec<Entry> {
    let mut noted: Vec<(SystemTime, PathBuf, ImageNote)> = Vec::new();
    for (name, used) in notes.iter().filter(|(name, _)| name.starts_with("image-")) {
        let path = store.join("used").join(name);
        if let Ok(note) = fs_err::read(&path)
            .map_err(drop)
            .and_then(|text| serde_json::from_slice::<ImageNote>(&text).map_err(drop))
        {
            noted.push((*used, path, note));
        }
    }
    noted.sort_by_key(|(used, ..)| Reverse(*used));
    let mut taken: HashSet<PathBuf> = HashSet::new();
    let mut all = Vec::new();
    for (used, path, note) in noted {
        let blobs = note.blobs.iter().map(|name| store.join("blobs/sha256").join(name));
        let layers = note.layers.iter().map(|name| store.join("layers/v1").join(name));
        let members = blobs.chain(layers).chain([store.join("flat/v1").join(&note.flat)]);
        let paths: Vec<PathBuf> = members.filter(|path| taken.insert(path.clone())).collect();
        all.push(Entry { kind: Kind::Images, paths, used, note: Some(path) });
    }
    for folder in ["blobs/sha256", "layers/v1", "flat/v1", "refs"] {
        let others = children(&store.join(folder)).filter(|path| !taken.contains(path));
        all.extend(others.filter_map(|path| {
            Some(Entry { kind: Kind::Images, used: time(&path)?, paths: vec![path], note: None })
        }));
    }
    all
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs_err::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn time(path: &Path) -> Option<SystemTime> {
    fs_err::symlink_metadata(path).ok()?.modified().ok()
}

/// Bytes on the disk of a path and all below it. `seen` has the files with several names that were counted already. What
/// cannot be read counts as nothing.
pub(super) fn size(path: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let Ok(metadata) = fs_err::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() && metadata.nlink() > 1 && !seen.insert((metadata.dev(), metadata.ino())) {
        return 0;
    }
    let below: u64 = if metadata.is_dir() { children(path).map(|path| size(&path, seen)).sum() } else { 0 };
    metadata.blocks() * 512 + below
}
