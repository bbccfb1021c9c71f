//! What the rules must know of a distribution beyond the path that they are asked about.

use std::collections::HashSet;

use super::matching::{FOLDERS, is_module, is_test_module, parents};

/// A distribution of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distribution<'a> {
    /// Its normalised name.
    pub name: &'a str,
    /// Its `Requires-Dist` lines.
    pub requires: &'a [String],
}

/// What its list of files tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Folders `tests` and `test` with test modules in them.
    suites: HashSet<String>,
    /// Folders that rules go by the name of, and that are packages.
    packages: HashSet<String>,
    /// Names of what it installs at the top: folders with Python modules in them, and modules.
    tops: HashSet<String>,
    /// Whether its stubs are read when it is imported.
    pub(super) reads_stubs: bool,
}

impl Shape {
    pub(super) fn new<'a>(distribution: Distribution<'_>, paths: impl IntoIterator<Item = &'a str>) -> Self {
        let mut shape = Self {
            reads_stubs: distribution.requires.iter().any(|line| is_about(line, "lazy-loader")),
            ..Self::default()
        };
        for path in paths {
            shape.add(path);
        }
        shape
    }

    fn add(&mut self, path: &str) {
        let name = path.rsplit('/').next().unwrap_or(path);
        if !is_module(name) {
            return;
        }
        let top = path.split('/').next().unwrap_or(path);
        if !self.tops.contains(top) {
            self.tops.insert(top.to_owned());
        }
        if is_test_module(name) {
            let suite = parents(path).filter(|(_, name)| FOLDERS.tests.contains(name)).last();
            self.suites.extend(suite.map(|(folder, _)| folder.to_owned()));
        }
        if name == "__init__.py" {
            let folder = parents(path).last().filter(|(_, name)| FOLDERS.others().contains(name));
            self.packages.extend(folder.map(|(folder, _)| folder.to_owned()));
        }
    }

    /// Whether a folder `tests` or `test` has test modules.
    pub(super) fn is_suite(&self, folder: &str) -> bool {
        self.suites.contains(folder)
    }

    /// Whether a folder that is documentation or examples by its name is a package.
    pub(super) fn is_package(&self, folder: &str) -> bool {
        self.packages.contains(folder)
    }

    /// Whether something is installed at the top that none of these names are for.
    pub(super) fn has_other_tops(&self) -> bool {
        self.tops.iter().any(|top| !FOLDERS.is_any(top))
    }
}

/// Whether a `Requires-Dist` line is about a distribution, whatever it says of it.
fn is_about(line: &str, distribution: &str) -> bool {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(line.len());
    crate::locks::normalized(&line[..end]) == distribution
}
