//! What is installed in a zip, by the METADATA of its packages, and what became of it.

use std::collections::BTreeMap;
use std::io::Read;

use lbx_archive::Member;
use lbx_wheel::normalize_name;

use super::{ChangedPackage, PackageChanges, PackageVersion, Pair, Zip};
use crate::error::ZipError;
use crate::installed::{self, MAX_METADATA};

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
        let Some((_, folder)) = installed::metadata_folder(&member.name) else { continue };
        if let Some(PackageVersion { name, version }) = package(zip, member, folder)? {
            installed.entry(normalize_name(&name)).or_default().insert(version, name);
        }
    }
    Ok(installed)
}

/// What a METADATA says.
fn package(zip: &Zip, member: &Member, folder: &str) -> Result<Option<PackageVersion>, ZipError> {
    let mut text = Vec::new();
    let read = member.open(&zip.file).take(MAX_METADATA).read_to_end(&mut text);
    read.map_err(|source| zip.damaged(member, source))?;
    Ok(installed::package(&text, folder).map(|(name, version)| PackageVersion { name, version }))
}
