//! Names: of projects, of files, and the version that a file's name has.

/// What pip takes from an index, by the end of its name.
const ARCHIVES: [&str; 12] = [
    ".whl",
    ".tar.gz",
    ".zip",
    ".tgz",
    ".tar",
    ".tar.bz2",
    ".tbz",
    ".tar.xz",
    ".txz",
    ".tlz",
    ".tar.lz",
    ".tar.lzma",
];
/// The longest name of a file, in bytes: what file systems allow.
const LONGEST: usize = 255;

/// A project's name in the one spelling that indexes are asked for (PEP 503); none when it is not a project's.
pub fn normalize(name: &str) -> Option<String> {
    let mut normal = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'-' | b'_' | b'.' if normal.is_empty() => return None,
            b'-' | b'_' | b'.' if normal.ends_with('-') => {}
            b'-' | b'_' | b'.' => normal.push('-'),
            byte if byte.is_ascii_alphanumeric() => normal.push(char::from(byte.to_ascii_lowercase())),
            _ => return None,
        }
    }
    (!normal.is_empty() && !normal.ends_with('-') && normal.len() <= LONGEST).then_some(normal)
}

/// The name without the ending that says it is a distribution; none when it is no distribution's, or no file's.
fn stem(file: &str) -> Option<&str> {
    let plain = file.len() <= LONGEST
        && !file.starts_with('.')
        && !file.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'));
    let stem = ARCHIVES.iter().find_map(|ending| file.strip_suffix(ending)).filter(|_| plain)?;
    (!stem.is_empty()).then_some(stem)
}

/// Whether a file's name is one of a distribution, and safe to use as a file's name.
pub(crate) fn is_distribution(file: &str) -> bool {
    stem(file).is_some()
}

/// The version in the name of one of a project's files; none where the name is not the project's.
pub fn version_of(project: &str, file: &str) -> Option<String> {
    let stem = stem(file)?;
    if file.strip_prefix(stem) == Some(".whl") {
        let mut parts = stem.split('-');
        let (name, version) = (parts.next()?, parts.next()?);
        return (normalize(name)? == project && parts.count() >= 3).then(|| version.to_owned());
    }
    // A source distribution's name may have dashes in it, and so may its version: the project decides.
    let dashes = stem.match_indices('-').map(|(position, _)| position);
    let ends = dashes.filter(|position| normalize(&stem[..*position]).as_deref() == Some(project));
    ends.map(|position| &stem[position + 1..]).find(|version| !version.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_name_is_one() {
        for spelling in ["Foo.Bar", "foo_bar", "FOO--BAR", "foo-_.bar"] {
            assert_eq!(normalize(spelling).as_deref(), Some("foo-bar"), "{spelling}");
        }
        for bad in ["", ".", "..", "-a", "a-", "a/b", "a b", "ä", "a%2f"] {
            assert_eq!(normalize(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_version_is_what_follows_the_projects_name() {
        let version = |project: &str, file: &str| version_of(project, file);
        assert_eq!(version("six", "six-1.17.0-py2.py3-none-any.whl").as_deref(), Some("1.17.0"));
        assert_eq!(version("foo-bar", "foo_bar-1!2.0+x-1-py3-none-any.whl").as_deref(), Some("1!2.0+x"));
        assert_eq!(version("foo-bar", "Foo-Bar-1.0.tar.gz").as_deref(), Some("1.0"));
        assert_eq!(version("foo", "foo-2-beta.zip").as_deref(), Some("2-beta"));
        assert_eq!(version("foo", "foo-bar.tar.gz").as_deref(), Some("bar"), "as pip reads it");
        for (project, file) in [("six", "seven-1.0.tar.gz"), ("six", "six.tar.gz"), ("six", "six-1.0.exe")] {
            assert_eq!(version(project, file), None, "{file}");
        }
    }

    #[test]
    fn a_distributions_name_is_a_safe_files_name() {
        assert!(is_distribution("six-1.0.tar.gz") && is_distribution("six-1.0-py3-none-any.whl"));
        let long = format!("{}.zip", "a".repeat(LONGEST));
        for bad in ["../a.whl", "a/b.whl", "a\\b.whl", "a\0.whl", "a\n.whl", ".whl", "..zip", "a.asc", &long]
        {
            assert!(!is_distribution(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_name_is_its_own_normal_name(name in ".{0,40}") {
            if let Some(normal) = normalize(&name) {
                prop_assert_eq!(normalize(&normal), Some(normal));
            }
            let _ = version_of("a", &name);
        }
    }
}
