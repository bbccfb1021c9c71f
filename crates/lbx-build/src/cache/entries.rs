//! The things of the store that come and go as a whole, and when each was used last.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::{ImageNote, Kind, notes};
use crate::{record, system};

/// One thing: paths that go together.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) paths: Vec<PathBuf>,
    pub(super) used: SystemTime,
    /// The note of its use, which goes with it.
    pub(super) note: Option<PathBuf>,
    /// Whether nobody will use it any more: it was replaced, or whoever made it was killed.
    pub(super) is_left: bool,
}

/// Everything but what is under way.
pub(super) fn entries(store: &Path) -> Vec<Entry> {
    let notes = notes(store);
    let mut all = images(store, &notes);
    let single = |kind, folder: &str, noted: &'static str| {
        let notes = &notes;
        let entry = move |path: PathBuf| {
            let name = format!("{noted}-{}", path.file_name()?.to_str()?);
            let known = notes.get(&name);
            let note = known.map(|_| store.join("used").join(&name));
            let made = time(&path)?;
            let used = known.copied().unwrap_or(made).max(made);
            Some(Entry { kind, used, paths: vec![path], note, is_left: false })
        };
        children(&store.join(folder)).filter_map(entry).collect::<Vec<_>>()
    };
    for (kind, folder, noted) in [
        (Kind::Wheels, "wheels", "wheel"),
        (Kind::Parts, "parts/v1", "part"),
        (Kind::Repositories, "git", "git"),
    ] {
        all.extend(single(kind, folder, noted).into_iter().filter(is_named_by_digest));
    }
    for entry in single(Kind::Packages, "packages/v1", "packages") {
        all.extend(generations(entry));
    }
    // Whoever reads a file of an index sets its time.
    for folder in ["index/files/sha256", "index/pages", "index/known"] {
        all.extend(single(Kind::Index, folder, "index"));
    }
    all.extend(single(Kind::Records, "built", "built"));
    // By these, builds know folders as their own: without one, nothing may be put into its place any more.
    let is_needed = |entry: &Entry| entry.paths[0].extension().is_some_and(|kind| kind == record::TREE);
    all.extend(single(Kind::Records, "builds/v1", "build").into_iter().filter(|entry| !is_needed(entry)));
    all.extend(["wheels", "parts/v1"].iter().flat_map(|folder| unfinished(&store.join(folder))));
    all
}

/// Locks, and what is being made, have other names.
fn is_named_by_digest(entry: &Entry) -> bool {
    entry.paths[0].file_name().is_some_and(|name| is_digest(name.as_encoded_bytes()))
}

/// Whether a name is that of a digest, and no way to anywhere else.
pub(super) fn is_digest(name: &[u8]) -> bool {
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
            && note.is_sound()
        {
            noted.push((*used, path, note));
        }
    }
    noted.sort_by_key(|(used, ..)| Reverse(*used));
    let tags = tags(store);
    let mut taken: HashSet<PathBuf> = HashSet::new();
    let mut all = Vec::new();
    for (used, path, note) in noted {
        // Without a network, a tag is all that leads to an image.
        let tags = note.blobs.iter().filter_map(|name| tags.get(name)).flatten().cloned();
        let blobs = note.blobs.iter().map(|name| store.join("blobs/sha256").join(name));
        let layers = note.layers.iter().map(|name| store.join("layers/v1").join(name));
        let members = blobs.chain(layers).chain([store.join("flat/v1").join(&note.flat)]).chain(tags);
        let paths: Vec<PathBuf> = members.filter(|path| taken.insert(path.clone())).collect();
        all.push(Entry { kind: Kind::Images, paths, used, note: Some(path), is_left: false });
    }
    for folder in ["blobs/sha256", "layers/v1", "flat/v1", "refs"] {
        let others = children(&store.join(folder)).filter(|path| !taken.contains(path));
        all.extend(others.filter_map(|path| {
            let used = time(&path)?;
            Some(Entry { kind: Kind::Images, used, paths: vec![path], note: None, is_left: false })
        }));
    }
    all
}

/// What says which digest a tag had, by the digest.
fn tags(store: &Path) -> HashMap<String, Vec<PathBuf>> {
    let mut tags: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for path in children(&store.join("refs")) {
        let record = fs_err::read(&path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let digest = record.as_ref().and_then(|record| record["digest"].as_str()?.strip_prefix("sha256:"));
        if let Some(digest) = digest {
            tags.entry(digest.to_owned()).or_default().push(path);
        }
    }
    tags
}

/// The packages of one list above one image: those that builds take, and those that they took before.
fn generations(entry: Entry) -> Vec<Entry> {
    let newest = system::newest_of(&entry.paths[0]);
    let (kept, left): (Vec<PathBuf>, Vec<PathBuf>) =
        children(&entry.paths[0]).partition(|path| Some(path) == newest.as_ref());
    let left_over = |path| Entry { paths: vec![path], note: None, is_left: true, ..entry.clone() };
    let mut all: Vec<Entry> = left.into_iter().map(left_over).collect();
    if newest.is_some() {
        all.push(Entry { paths: kept, ..entry });
    } else if all.is_empty() {
        all.push(Entry { is_left: true, ..entry });
    }
    all
}

/// What is being made beside finished entries, or was by processes that are gone.
fn unfinished(folder: &Path) -> Vec<Entry> {
    let is_unfinished =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".new-"));
    let entry = |path: PathBuf| {
        let used = time(&path)?;
        Some(Entry { kind: Kind::Temporary, used, paths: vec![path], note: None, is_left: true })
    };
    children(folder).filter(is_unfinished).filter_map(entry).collect()
}

/// What is in a folder; nothing, where there is none.
pub(super) fn children(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
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
