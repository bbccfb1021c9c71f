//! What is installed in a zip, by the METADATA of its packages, and what became of it.

use std::collections::BTreeMap;
use std::io::Read;

use lbx_archive::Member;
use lbx_wheel::{Metadata, normalize_name};

use super::{ChangedPackage, PackageChanges, PackageVersion, Pair, Zip};
use crate::error::ZipError;

/// Bytes of a METADATA that are read: the fields come first, and long descriptions after them.
const MAX_METADATA: u64 = 1 << 20;
/// Bytes of a name, and of a version, that is believed. No index has longer ones.
const MAX_FIELD: usize = 255;

/// By normalised name, each version with the name as it is written.
type Installed = BTreeMap<String, BTreeMap<String, String>>;

/// What is installed in one zip and not in the other.
pub(super) fn compare(before: &Zip, after: &Zip) -> Result<PackageChanges, ZipError> {
    let (mut before, mut after) = (installed(before)?, installed(after)?);
    // What both have in the same version is no change.
    for (name, versions) in &mut before {
        if let Some(others) = after.get_mut(name) {
            versions.retain(|version, _| others.remove(version).is_none());
        }
    }
    let mut changes = PackageChanges::default();
    for (name, versions) in before {
        let mut others = after.remove(&name).unwrap_or_default();
        for (version, written) in versions {
            match others.pop_first() {
                Some((new, name)) => {
                    changes
                        .changed
                        .push(ChangedPackage { name, version: Pair { before: version, after: new } });
                }
                None => changes.removed.push(PackageVersion { name: written, version }),
            }
        }
        changes.added.extend(others.into_iter().map(|(version, name)| PackageVersion { name, version }));
    }
    let added = after.into_values().flatten();
    changes.added.extend(added.map(|(version, name)| PackageVersion { name, version }));
    changes.added.sort_by_cached_key(|package| (normalize_name(&package.name), package.version.clone()));
    Ok(changes)
}

fn installed(zip: &Zip) -> Result<Installed, ZipError> {
    let mut installed = Installed::new();
    for member in zip.members(false) {
        let Some(folder) = metadata_folder(&member.name) else { continue };
        if let Some(PackageVersion { name, version }) = package(zip, member, folder)? {
            installed.entry(normalize_name(&name)).or_default().insert(version, name);
        }
    }
    Ok(installed)
}

/// `NAME-VERSION` of `NAME-VERSION.dist-info/METADATA` where Python looks for packages: at the root of a function, and in
/// a layer below `python`.
fn metadata_folder(path: &str) -> Option<&str> {
    let folder = path.strip_suffix("/METADATA")?.strip_suffix(".dist-info")?;
    let (parent, name) = folder.rsplit_once('/').unwrap_or(("", folder));
    (parent.is_empty() || parent == "python" || is_site(parent)).then_some(name)
}

/// `python/lib/python3.X/site-packages`.
fn is_site(folder: &str) -> bool {
    folder
        .strip_prefix("python/lib/python3.")
        .and_then(|rest| rest.strip_suffix("/site-packages"))
        .is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What a METADATA says; where it says nothing that can be believed, what the name of its folder says.
fn package(zip: &Zip, member: &Member, folder: &str) -> Result<Option<PackageVersion>, ZipError> {
    let mut text = Vec::new();
    let read = member.open(&zip.file).take(MAX_METADATA).read_to_end(&mut text);
    read.map_err(|source| zip.damaged(member, source))?;
    let is_short = |field: &String| field.len() <= MAX_FIELD;
    if let Ok(Metadata { name, version, .. }) = Metadata::parse(&text)
        && is_short(&name)
        && is_short(&version)
    {
        return Ok(Some(PackageVersion { name, version }));
    }
    let of_folder = folder.split_once('-');
    Ok(of_folder.map(|(name, version)| PackageVersion { name: name.to_owned(), version: version.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_found_where_python_looks_for_them() {
        let found = [
            "six-1.17.0.dist-info/METADATA",
            "python/six-1.17.0.dist-info/METADATA",
            "python/lib/python3.11/site-packages/six-1.17.0.dist-info/METADATA",
        ];
        assert!(found.iter().all(|path| metadata_folder(path) == Some("six-1.17.0")));
        let others = [
            "METADATA",
            "six-1.17.0.dist-info/RECORD",
            "six-1.17.0.dist-info/licenses/METADATA",
            "six-1.17.0/METADATA",
            "vendored/six-1.17.0.dist-info/METADATA",
            "python/vendored/six-1.17.0.dist-info/METADATA",
            "python/lib/python3./site-packages/six-1.17.0.dist-info/METADATA",
            "python/lib/python3.11/dist-packages/six-1.17.0.dist-info/METADATA",
        ];
        assert_eq!(others.map(metadata_folder), [None; 8]);
    }
}
