//! What the dependencies of an artifact come to, as values: the files of its wheels in one list, sorted by path, each kept
//! or left out by a rule.
//!
//! In a zip, dependencies come first and own code last, because dependencies change least: every function over the same
//! set begins with the same bytes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::sync::Arc;

use lbx_plan::prune::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// One file of a wheel that is to be in the artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its path in the zip.
    pub(crate) path: String,
    /// Whose it is, in words for messages: `requests 2.32.3`.
    pub(crate) owner: Arc<str>,
    /// Whether it is executable.
    pub(crate) executable: bool,
    /// Size in bytes, uncompressed.
    pub(crate) size: u64,
    /// SHA-256 of its bytes.
    pub(crate) sha256: [u8; 32],
    /// Index of the wheel in the artifact's set.
    pub(crate) wheel: usize,
    /// Index of the file in the wheel.
    pub(crate) file: usize,
    /// Whether it is that file's bytecode.
    pub(crate) is_bytecode: bool,
}

/// Something that an artifact leaves out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// Its path in the zip, had it been kept; a folder that was not even read ends in `/`.
    pub path: String,
    /// Whose it is.
    pub owner: String,
    /// The rule that left it out.
    pub rule: Rule,
    /// Its size in bytes; zero for a folder that was not read.
    pub size: u64,
}

/// The files of wheels, and what is left out of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    items: BTreeMap<String, Item>,
    left_out: Vec<LeftOut>,
}

impl Listing {
    /// Leaves a file out, by a rule.
    pub(crate) fn leave_out(&mut self, item: Item, rule: Rule) {
        let (owner, size) = (item.owner.to_string(), item.size);
        self.left_out.push(LeftOut { path: item.path, owner, rule, size });
    }

    /// Adds a file.
    pub(crate) fn add(&mut self, item: Item) -> Result<(), Error> {
        match self.items.entry(item.path.clone()) {
            MapEntry::Vacant(vacant) => {
                vacant.insert(item);
                Ok(())
            }
            MapEntry::Occupied(mut occupied) => {
                let first = occupied.get();
                if first.sha256 != item.sha256 || first.size != item.size {
                    return Err(conflict(item.path, &first.owner, &item.owner));
                }
                // Equal bytes are no conflict: namespace packages ship one `__init__.py` each. The
                // first to come keeps the file, and either owner makes it executable.
                occupied.get_mut().executable |= item.executable;
                Ok(())
            }
        }
    }

    /// The items in the order of the zip, and what is left out, sorted. It is an error when one path is
    /// both a file and a folder.
    pub(crate) fn finish(mut self) -> Result<(Vec<Item>, Vec<LeftOut>), Error> {
        for item in self.items.values() {
            if let Some(file) = folders_of(&item.path).find_map(|folder| self.items.get(folder)) {
                return Err(folder_conflict(&file.path, &file.owner, &item.owner));
            }
        }
        self.left_out.sort();
        Ok((self.items.into_values().collect(), self.left_out))
    }
}

/// The folders that a path goes through, from the root down.
pub(crate) fn folders_of(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(index, _)| &path[..index])
}

/// Two owners of one path.
pub(crate) fn conflict(path: String, first: &str, second: &str) -> Error {
    Error::Conflict { path, first: first.to_owned(), second: second.to_owned() }
}

/// A path that is one owner's file and another one's folder.
pub(crate) fn folder_conflict(path: &str, first: &str, second: &str) -> Error {
    Error::FolderConflict { path: path.to_owned(), first: first.to_owned(), second: second.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str, owner: &str, bytes: u8) -> Item {
        Item {
            path: path.to_owned(),
            owner: owner.into(),
            executable: false,
            size: 1,
            sha256: [bytes; 32],
            wheel: 0,
            file: 0,
            is_bytecode: false,
        }
    }

    fn listing(items: &[Item]) -> Result<(Vec<Item>, Vec<LeftOut>), Error> {
        let mut listing = Listing::default();
        items.iter().try_for_each(|item| listing.add(item.clone()))?;
        listing.finish()
    }

    #[test]
    fn files_are_sorted_whatever_the_order_of_arrival() {
        let mut items = vec![item("z.py", "z 1", 2), item("m/x.py", "m 1", 4), item("a.py", "a 1", 1)];
        let paths = |items: &[Item]| -> Vec<String> {
            listing(items).unwrap().0.into_iter().map(|item| item.path).collect()
        };
        let expected = ["a.py", "m/x.py", "z.py"];
        assert_eq!(paths(&items), expected);
        items.reverse();
        assert_eq!(paths(&items), expected);
    }

    #[test]
    fn two_owners_of_one_path_are_an_error_that_names_both() {
        let error =
            listing(&[item("six.py", "six 1.16", 1), item("six.py", "mine 1", 2)]).unwrap_err().to_string();
        assert!(
            error.contains("six.py") && error.contains("six 1.16") && error.contains("mine 1"),
            "{error}"
        );
    }

    #[test]
    fn equal_bytes_are_no_conflict() {
        let (items, _) =
            listing(&[item("ns/__init__.py", "a 1", 1), item("ns/__init__.py", "b 1", 1)]).unwrap();
        assert_eq!(items.len(), 1);
        assert_eq!(&*items[0].owner, "a 1");
    }

    #[test]
    fn a_path_that_is_a_file_and_a_folder_is_an_error_that_names_both() {
        let error = listing(&[item("a", "a 1", 1), item("a/b.py", "b 1", 1)]).unwrap_err().to_string();
        assert!(error.contains("a 1") && error.contains("b 1"), "{error}");
    }

    #[test]
    fn what_is_left_out_is_listed_and_conflicts_with_nothing() {
        let mut listing = Listing::default();
        for owner in ["a 1", "b 1"] {
            let record = item("python/a-1.dist-info/RECORD", owner, owner.as_bytes()[0]);
            listing.leave_out(record, Rule::InstallerMetadata);
        }
        let (items, left_out) = listing.finish().unwrap();
        assert!(items.is_empty());
        assert_eq!(left_out.len(), 2);
        assert_eq!(left_out[0].rule, Rule::InstallerMetadata);
    }
}
