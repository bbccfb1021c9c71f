//! Paths as a layer writes them: split, checked, and printed so that they can't play with a terminal.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Limits, UnpackError};

/// A path's bytes. Serialised as text in which everything but printable ASCII is escaped, so any bytes survive.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathBytes(pub Vec<u8>);

impl PathBytes {
    /// The path below a layer's tree.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

impl fmt::Debug for PathBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl From<PathBytes> for String {
    fn from(path: PathBytes) -> Self {
        path.0.escape_ascii().to_string()
    }
}

impl TryFrom<String> for PathBytes {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        unescape(text.as_bytes()).map(Self).ok_or("a path with a broken escape")
    }
}

fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
                }
                quoted @ (b'\\' | b'\'' | b'"') => quoted,
                _ => return None,
            },
            plain => plain,
        });
    }
    Some(bytes)
}

/// A path for a message: as it is when it is harmless text, escaped otherwise, and never longer than a line or two.
pub(crate) fn printable(path: &[u8]) -> String {
    const LONGEST: usize = 300;
    let cut = &path[..path.len().min(LONGEST)];
    let more = if cut.len() < path.len() { "…" } else { "" };
    match str::from_utf8(cut) {
        // Bidirectional and other invisible characters are no control characters, but no better in a message.
        Ok(text) if text.chars().all(|letter| letter.is_alphanumeric() || letter.is_ascii_graphic()) => {
            format!("{text:?}{more}")
        }
        _ => format!("\"{}\"{more}", cut.escape_ascii()),
    }
}

/// Splits an entry's path into components: slashes and dots that mean nothing are dropped, `..` is refused.
///
/// A leading slash means the tree's root: some builders write one.
pub(crate) fn components<'a>(path: &'a [u8], limits: &Limits) -> Result<Vec<&'a [u8]>, UnpackError> {
    let problem =
        |problem: &str| Err(UnpackError::Entry { entry: printable(path), problem: problem.to_owned() });
    let limit =
        |what, limit: usize| Err(UnpackError::Limit { entry: printable(path), what, limit: limit as u64 });
    if path.is_empty() {
        return problem("its path is empty");
    }
    if path.len() > limits.path_length {
        return limit("bytes of a path", limits.path_length);
    }
    if path.contains(&0) {
        return problem("its path contains NUL");
    }
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !matches!(part, [] | [b'.'])).collect();
    if parts.contains(&&b".."[..]) {
        return problem("its path contains `..`");
    }
    if parts.len() > limits.depth {
        return limit("components of a path", limits.depth);
    }
    Ok(parts)
}

/// What an entry's last component means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Marker<'a> {
    /// A name like any other.
    None,
    /// The name is removed from the layers below.
    Whiteout(&'a [u8]),
    /// The directory hides the layers below.
    Opaque,
    /// Bookkeeping of the AUFS storage driver.
    Foreign,
}

/// Reads a whiteout's name; a malformed one is an error with the reason.
pub(crate) fn marker(name: &[u8]) -> Result<Marker<'_>, &'static str> {
    match name.strip_prefix(b".wh.") {
        None => Ok(Marker::None),
        Some(b".wh..opq") => Ok(Marker::Opaque),
        Some(b"" | b"." | b"..") => Err("a whiteout without a name"),
        Some(rest) if rest.starts_with(b".wh.") => Ok(Marker::Foreign),
        Some(rest) => Ok(Marker::Whiteout(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_and_climbing_is_refused() {
        let split =
            |path: &str| components(path.as_bytes(), &Limits::default()).map(|parts| parts.join(&b'/'));
        assert_eq!(split("./a//b/./c/").expect("a path"), b"a/b/c");
        assert_eq!(split("/etc/passwd").expect("a path"), b"etc/passwd");
        assert_eq!(split("a/..b/c..").expect("a path"), b"a/..b/c..");
        for bad in ["", "..", "a/../b", "./..//a", "a/..", "a\0b", &"x".repeat(5000), &"a/".repeat(300)] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn markers_are_read_and_malformed_ones_refused() {
        assert_eq!(marker(b"a"), Ok(Marker::None));
        assert_eq!(marker(b".wh.a"), Ok(Marker::Whiteout(b"a")));
        assert_eq!(marker(b".wh....a"), Ok(Marker::Whiteout(b"...a")));
        assert_eq!(marker(b".wh..wh..opq"), Ok(Marker::Opaque));
        assert_eq!(marker(b".wh..wh.plnk"), Ok(Marker::Foreign));
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(marker(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn any_bytes_survive_serialisation_and_none_reach_a_terminal_raw() {
        let all: Vec<u8> = (0..=255).collect();
        let text = serde_json::to_string(&PathBytes(all.clone())).expect("text");
        assert_eq!(serde_json::from_str::<PathBytes>(&text).expect("a path").0, all);
        assert!(serde_json::from_str::<PathBytes>(r#""\\q""#).is_err());
        assert_eq!(printable("grüße".as_bytes()), "\"grüße\"");
        assert_eq!(printable(b"a\x1b[2J\n"), r#""a\x1b[2J\n""#);
        assert!(!printable("a\u{202e}b".as_bytes()).contains('\u{202e}'));
    }
}
