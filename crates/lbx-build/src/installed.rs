//! Packages that are installed in an artifact, found as Python finds them: by the METADATA of their dist-infos.

use lbx_wheel::Metadata;

/// Bytes of a METADATA that are read: the fields come first, and long descriptions after them.
pub(crate) const MAX_METADATA: u64 = 1 << 20;
/// Bytes of a name, and of a version, that is believed. No index has longer ones.
const MAX_FIELD: usize = 255;

/// Of `NAME-VERSION.dist-info/METADATA` where Python looks for packages, at the root of a function and in a layer below
/// `python`: the folder that the package is installed in, which is empty or ends in `/`, and `NAME-VERSION`.
pub(crate) fn metadata_folder(path: &str) -> Option<(&str, &str)> {
    installed_anywhere(path).filter(|(parent, _)| is_site(parent))
}

/// The same in any folder: some put packages where code of their own finds them.
pub(crate) fn installed_anywhere(path: &str) -> Option<(&str, &str)> {
    let folder = path.strip_suffix("/METADATA")?.strip_suffix(".dist-info")?;
    let start = folder.rfind('/').map_or(0, |slash| slash + 1);
    Some(folder.split_at(start))
}

/// Whether packages are found in a folder: `python/lib/python3.X/site-packages/`, `python/`, and the root.
fn is_site(folder: &str) -> bool {
    let long =
        folder.strip_prefix("python/lib/python3.").and_then(|rest| rest.strip_suffix("/site-packages/"));
    let is_minor = |minor: &str| !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit());
    matches!(folder, "" | "python/") || long.is_some_and(is_minor)
}

/// The name and the version in a METADATA; where it says nothing that can be believed, those in the name of its folder.
pub(crate) fn package(metadata: &[u8], folder: &str) -> Option<(String, String)> {
    let is_short = |field: &String| field.len() <= MAX_FIELD;
    if let Ok(Metadata { name, version, .. }) = Metadata::parse(metadata)
        && is_short(&name)
        && is_short(&version)
    {
        return Some((name, version));
    }
    folder.split_once('-').map(|(name, version)| (name.to_owned(), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_found_where_python_looks_for_them() {
        for parent in ["", "python/", "python/lib/python3.11/site-packages/"] {
            let path = format!("{parent}six-1.17.0.dist-info/METADATA");
            assert_eq!(metadata_folder(&path), Some((parent, "six-1.17.0")));
        }
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
