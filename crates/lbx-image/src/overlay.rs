//! Whether overlayfs shows a stack of layers as it is meant: what a layer's tree alone doesn't tell.
//!
//! Merging what doesn't fit is left to [`crate::flatten()`].

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::Error;
use crate::store::StoredLayer;
use crate::unpack::{self, PathBytes};

/// Whether a layer can be stacked on those below it, lowest first.
pub(crate) fn fits(layer: &StoredLayer, below: &[StoredLayer]) -> Result<bool, Error> {
    Ok(!shows_made_up(layer, below)? && !shows_removals(layer, below)?)
}

/// A directory the layer has no entry for means the one below, whatever its mode, and be it behind a link; overlayfs
/// would show the one that was made up.
fn shows_made_up(layer: &StoredLayer, below: &[StoredLayer]) -> Result<bool, Error> {
    for path in &layer.record.implicit {
        for lower in below {
            if unpack::is_link(&lower.tree, path)? {
                return Ok(true);
            }
        }
        let own = look(&layer.tree, &path.0)?;
        for lower in below.iter().rev() {
            match look(&lower.tree, &path.0)? {
                Found::Nothing => continue,
                found if found == own => {}
                _ => return Ok(true),
            }
            break;
        }
    }
    Ok(false)
}

/// overlayfs lists a directory that comes from one layer alone as it is, removals included: names that nobody can
/// open. They are left out only where directories of several layers are merged.
fn shows_removals(layer: &StoredLayer, below: &[StoredLayer]) -> Result<bool, Error> {
    let parents: BTreeSet<&[u8]> =
        layer.record.whiteouts.iter().map(|PathBytes(path)| parent(path)).collect();
    for path in parents {
        // The roots of all layers are merged; the lowest layer has nothing to be merged with.
        let merged = !below.is_empty() && (path.is_empty() || is_merged(path, layer, below)?);
        if !merged {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_merged(path: &[u8], layer: &StoredLayer, below: &[StoredLayer]) -> Result<bool, Error> {
    if opaque_on(path, true, layer) {
        return Ok(false);
    }
    for lower in below.iter().rev() {
        match look(&lower.tree, path)? {
            Found::Directory { .. } => return Ok(true),
            Found::Other => return Ok(false),
            Found::Nothing if opaque_on(path, false, lower) => return Ok(false),
            Found::Nothing => {}
        }
    }
    Ok(false)
}

/// Whether a layer hides what is below one of a path's parents, or of the path itself.
fn opaque_on(path: &[u8], itself: bool, layer: &StoredLayer) -> bool {
    layer.record.opaque.iter().any(|PathBytes(opaque)| {
        let rest = path.strip_prefix(opaque.as_slice());
        rest.is_some_and(|rest| rest.first() == Some(&b'/') || (itself && rest.is_empty()))
    })
}

#[derive(PartialEq, Eq)]
enum Found {
    Directory {
        mode: u32,
    },
    /// A file, a link or a removal, on the path or at its end.
    Other,
    Nothing,
}

/// What a layer's tree has at a path. One name after the other, because a link on the way leads anywhere.
fn look(tree: &Path, path: &[u8]) -> Result<Found, Error> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
    let mut mode = 0;
    for end in ends.chain([path.len()]) {
        let part = PathBytes(path[..end].to_vec());
        match fs_err::symlink_metadata(tree.join(part.as_path())) {
            Ok(found) if found.is_dir() => mode = found.mode(),
            Ok(_) => return Ok(Found::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Found::Directory { mode })
}

fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    &path[..end]
}
