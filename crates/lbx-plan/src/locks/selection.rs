//! Which extras and groups of a project are wanted: `pyproject.toml[extra]`, `uv.lock:group`, or both.
//!
//! The notation is pip's: it takes extras of a lock in brackets, and groups of a project behind a colon.

use super::{Format, normalized};

/// What is wanted beside what a project always needs, by normalised names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Extras.
    pub extras: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
}

impl Selection {
    /// The file that is named, and what of it is wanted. Only locks and pyproject.toml have such things.
    pub fn split(named: &str) -> (&str, Self) {
        let start = named.rfind('/').map_or(0, |slash| slash + 1);
        let end = named[start..].find(['[', ':']).map_or(named.len(), |end| start + end);
        let (path, rest) = named.split_at(end);
        if rest.is_empty() || !(is_project(path) || Format::of_path(path).is_some()) {
            return (named, Self::default());
        }
        let (extras, groups) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((extras, groups)) => (extras, groups),
            None => ("", rest),
        };
        let names = |text: &str, separator: char| -> Vec<String> {
            let mut names: Vec<String> = text
                .split(separator)
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(normalized)
                .collect();
            names.sort();
            names.dedup();
            names
        };
        (path, Self { extras: names(extras, ','), groups: names(groups, ':') })
    }

    /// The names of both, for the name of a lock.
    pub(crate) fn words(&self) -> String {
        let all: Vec<&str> = self.extras.iter().chain(&self.groups).map(String::as_str).collect();
        all.join("-")
    }
}

/// Whether a file is that of a project.
pub(crate) fn is_project(path: &str) -> bool {
    path.rsplit('/').next() == Some("pyproject.toml")
}
