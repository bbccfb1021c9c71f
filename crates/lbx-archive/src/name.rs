//! Which member names are safe and unambiguous, for reading and for writing. What a name means is the
//! caller's business.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The longest name, in bytes: Linux's `PATH_MAX` without the terminating NUL.
const MAX_NAME: usize = 4095;
/// The longest component, in bytes: Linux's `NAME_MAX`.
const MAX_COMPONENT: usize = 255;

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no bytes.
    #[error("it is empty")]
    Empty,
    /// The name or one of its components is longer than Linux takes.
    #[error("it is longer than a path can be")]
    TooLong,
    /// The name starts with `/`.
    #[error("it is absolute")]
    Absolute,
    /// The name starts with a letter and a colon, which is a drive for some unzippers.
    #[error("it starts with a drive letter")]
    Drive,
    /// The name contains `\`, which is a separator for some unzippers.
    #[error("it contains a backslash")]
    Backslash,
    /// The name contains a byte below 0x20 or 0x7f; NUL ends a name for some unzippers.
    #[error("it contains a control character")]
    Control,
    /// The name has a `..` component.
    #[error("it contains `..`")]
    Traversal,
    /// The name has an empty or a `.` component, so that another spelling names the same path.
    #[error("it contains an empty or `.` component")]
    NotNormal,
    /// The same name came before.
    #[error("it is a duplicate")]
    Duplicate,
    /// The name is a file here and a directory elsewhere in the same archive.
    #[error("it is both a file and a directory")]
    FileAndDirectory,
}

/// Checks one name by itself. A single trailing `/`, which marks a directory, is accepted.
///
/// A name that passes has exactly one spelling, so comparing bytes compares paths. Unicode normalisation and
/// letter case are not considered: to Linux, names that differ in them are different files.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let bytes = name.as_bytes();
    match bytes {
        [] => return Err(NameError::Empty),
        [b'/', ..] => return Err(NameError::Absolute),
        [letter, b':', ..] if letter.is_ascii_alphabetic() => return Err(NameError::Drive),
        _ => {}
    }
    if bytes.len() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    if bytes.contains(&b'\\') {
        return Err(NameError::Backslash);
    }
    if bytes.iter().any(u8::is_ascii_control) {
        return Err(NameError::Control);
    }
    for component in name.strip_suffix('/').unwrap_or(name).split('/') {
        match component {
            ".." => return Err(NameError::Traversal),
            "" | "." => return Err(NameError::NotNormal),
            _ if component.len() > MAX_COMPONENT => return Err(NameError::TooLong),
            _ => {}
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    File,
    Directory,
    /// A directory because a longer name goes through it; its own entry may still come.
    Implied,
}

/// The names seen so far in one archive or tree: finds duplicates, and files that are also directories.
#[derive(Default)]
pub struct NameSet<'n> {
    names: HashMap<&'n str, Use>,
}

impl<'n> NameSet<'n> {
    /// An empty set with room for `count` names.
    pub fn with_capacity(count: usize) -> Self {
        Self { names: HashMap::with_capacity(count) }
    }

    /// Adds a name that passed [`check_name`]; a trailing `/` makes it a directory.
    pub fn insert(&mut self, name: &'n str) -> Result<(), NameError> {
        let (path, own) = match name.strip_suffix('/') {
            Some(path) => (path, Use::Directory),
            None => (name, Use::File),
        };
        match self.names.entry(path) {
            Entry::Vacant(free) => {
                free.insert(own);
            }
            Entry::Occupied(mut taken) => match (*taken.get(), own) {
                (Use::Implied, Use::Directory) => {
                    taken.insert(own);
                }
                (before, _) if before == own => return Err(NameError::Duplicate),
                _ => return Err(NameError::FileAndDirectory),
            },
        }
        self.insert_parents(path)
    }

    /// Marks the directories above `path`, from the deepest up, until one is known as such.
    fn insert_parents(&mut self, path: &'n str) -> Result<(), NameError> {
        let mut path = path;
        while let Some((parent, _)) = path.rsplit_once('/') {
            match self.names.entry(parent) {
                Entry::Vacant(free) => {
                    free.insert(Use::Implied);
                }
                Entry::Occupied(taken) if *taken.get() == Use::File => {
                    return Err(NameError::FileAndDirectory);
                }
                // Its own parents were marked when it came.
                Entry::Occupied(_) => return Ok(()),
            }
            path = parent;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in ["a", "a/b.py", "a/", "a/b/", "..a", "a..", "ä/ö", "a b", "xx:y/z", ".hidden"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn each_bad_name_has_its_reason() {
        let long = "a".repeat(256);
        let deep = "a/".repeat(2100);
        let cases = [
            ("", NameError::Empty),
            ("/etc/passwd", NameError::Absolute),
            ("C:/x", NameError::Drive),
            ("c:", NameError::Drive),
            ("a\\b", NameError::Backslash),
            ("a\0b", NameError::Control),
            ("a\nb", NameError::Control),
            ("a\x7f", NameError::Control),
            ("..", NameError::Traversal),
            ("a/../b", NameError::Traversal),
            ("../", NameError::Traversal),
            ("a//b", NameError::NotNormal),
            ("a//", NameError::NotNormal),
            ("./a", NameError::NotNormal),
            ("a/.", NameError::NotNormal),
            (&long, NameError::TooLong),
            (&deep, NameError::TooLong),
        ];
        for (name, reason) in cases {
            assert_eq!(check_name(name), Err(reason), "{name:?}");
        }
    }

    #[test]
    fn a_path_has_one_use() {
        let accept = |names: &[&'static str]| {
            let mut set = NameSet::default();
            names.iter().try_for_each(|name| set.insert(name))
        };
        assert_eq!(accept(&["a/", "a/b", "a/c/d", "a/c/"]), Ok(()));
        assert_eq!(accept(&["a", "a"]), Err(NameError::Duplicate));
        assert_eq!(accept(&["a/", "a/"]), Err(NameError::Duplicate));
        assert_eq!(accept(&["a", "a/"]), Err(NameError::FileAndDirectory));
        assert_eq!(accept(&["a/", "a"]), Err(NameError::FileAndDirectory));
        assert_eq!(accept(&["a", "a/b/c"]), Err(NameError::FileAndDirectory));
        assert_eq!(accept(&["a/b/c", "a"]), Err(NameError::FileAndDirectory));
        assert_eq!(accept(&["a/b/c", "a/b"]), Err(NameError::FileAndDirectory));
    }
}
