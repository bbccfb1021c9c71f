//! What goes into an artifact, as values: wheels, own code and shared code in one list, with a verdict
//! for each file.
//!
//! The order is the zip's: dependencies first, own code last, each sorted by path. Dependencies change
//! least, so every function over the same set begins with the same bytes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::sync::Arc;

use lbx_archive::Packed;
use lbx_plan::prune::{self, Rule};
use serde::Serialize;

use crate::error::Error;

/// Where the bytes of an item are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A file of a wheel, by the indices of both.
    Wheel {
        /// Index of the wheel in the artifact's set.
        wheel: usize,
        /// Index of the file in the wheel.
        file: usize,
    },
    /// A file of the project, compressed.
    Own {
        /// Sizes and checksum.
        packed: Packed,
        /// The compressed bytes.
        bytes: Arc<[u8]>,
    },
}

/// One file that something wants in the artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its path in the zip.
    pub(crate) path: String,
    /// Whose it is, in words for messages: `requests 2.32.3`, `functions/a`.
    pub(crate) owner: Arc<str>,
    /// Whether it is executable.
    pub(crate) executable: bool,
    /// Size in bytes, uncompressed.
    pub(crate) size: u64,
    /// SHA-256 of its bytes.
    pub(crate) sha256: [u8; 32],
    /// Where the bytes are.
    pub(crate) content: Content,
}

impl Item {
    fn is_dependency(&self) -> bool {
        matches!(self.content, Content::Wheel { .. })
    }
}

/// Something that an artifact leaves out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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

/// What an artifact holds and what it leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    items: BTreeMap<String, Item>,
    left_out: Vec<LeftOut>,
}

impl Listing {
    /// Adds a file, unless a rule leaves it out. `origin` and `unrequired` are what the rules ask for,
    /// and `prefix` is the folder of the zip that rules do not see, such as `python/`.
    pub(crate) fn add(
        &mut self,
        item: Item,
        prefix: &str,
        origin: prune::Origin<'_>,
        unrequired: &[&str],
    ) -> Result<(), Error> {
        let installed = item.path.strip_prefix(prefix).unwrap_or(&item.path);
        if let Some(rule) = prune::verdict(installed, origin, unrequired) {
            self.leave_out(LeftOut { path: item.path, owner: item.owner.to_string(), rule, size: item.size });
            return Ok(());
        }
        match self.items.entry(item.path.clone()) {
            MapEntry::Vacant(vacant) => {
                vacant.insert(item);
                Ok(())
            }
            MapEntry::Occupied(mut occupied) => {
                let first = occupied.get();
                if first.sha256 != item.sha256 || first.size != item.size {
                    return Err(Error::Conflict {
                        path: item.path,
                        first: first.owner.to_string(),
                        second: item.owner.to_string(),
                    });
                }
                // Equal bytes are no conflict: namespace packages ship one `__init__.py` each. The
                // first to come keeps the file, and either owner makes it executable.
                occupied.get_mut().executable |= item.executable;
                Ok(())
            }
        }
    }

    /// Notes something that is left out without having been listed.
    pub(crate) fn leave_out(&mut self, left_out: LeftOut) {
        self.left_out.push(left_out);
    }

    /// The items in the order of the zip, and what is left out, sorted. It is an error when one path is
    /// both a file and a folder.
    pub(crate) fn finish(mut self) -> Result<(Vec<Item>, Vec<LeftOut>), Error> {
        self.check_folders()?;
        self.left_out.sort();
        let (mut items, own): (Vec<_>, Vec<_>) = self.items.into_values().partition(Item::is_dependency);
        items.extend(own);
        Ok((items, self.left_out))
    }

    fn check_folders(&self) -> Result<(), Error> {
        for item in self.items.values() {
            let slashes = item.path.match_indices('/').map(|(index, _)| index);
            for folder in slashes.map(|index| &item.path[..index]) {
                if let Some(file) = self.items.get(folder) {
                    let (first, second) = (file.owner.to_string(), item.owner.to_string());
                    return Err(Error::FolderConflict { path: folder.to_owned(), first, second });
                }
            }
        }
        Ok(())
    }
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
            content: Content::Wheel { wheel: 0, file: 0 },
        }
    }

    fn own(path: &str, owner: &str, bytes: u8) -> Item {
        let (packed, bytes_of) = lbx_archive::compress(&[bytes]);
        Item { content: Content::Own { packed, bytes: bytes_of.into() }, ..item(path, owner, bytes) }
    }

    const WHEEL: prune::Origin<'_> = prune::Origin::Wheel { distribution: "x", script: false };

    fn listing(items: &[Item]) -> Result<(Vec<Item>, Vec<LeftOut>), Error> {
        let mut listing = Listing::default();
        for item in items {
            listing.add(
                item.clone(),
                "",
                if item.is_dependency() { WHEEL } else { prune::Origin::Source },
                &[],
            )?;
        }
        listing.finish()
    }

    #[test]
    fn dependencies_come_first_and_each_part_is_sorted_whatever_the_order_of_arrival() {
        let mut items = vec![
            own("a.py", "src", 1),
            item("z.py", "z 1", 2),
            own("b.py", "src", 3),
            item("m/x.py", "m 1", 4),
        ];
        let paths = |items: &[Item]| -> Vec<String> {
            listing(items).unwrap().0.into_iter().map(|item| item.path).collect()
        };
        let expected = ["m/x.py", "z.py", "a.py", "b.py"];
        assert_eq!(paths(&items), expected);
        items.reverse();
        assert_eq!(paths(&items), expected);
    }

    #[test]
    fn two_owners_of_one_path_are_an_error_that_names_both() {
        let error =
            listing(&[item("six.py", "six 1.16", 1), own("six.py", "src", 2)]).unwrap_err().to_string();
        assert!(error.contains("six.py") && error.contains("six 1.16") && error.contains("src"), "{error}");
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
    fn what_a_rule_leaves_out_is_listed_and_conflicts_with_nothing() {
        let mut listing = Listing::default();
        for owner in ["a 1", "b 1"] {
            let record = item("python/a-1.dist-info/RECORD", owner, owner.as_bytes()[0]);
            listing.add(record, "python/", WHEEL, &[]).unwrap();
        }
        let (items, left_out) = listing.finish().unwrap();
        assert!(items.is_empty());
        assert_eq!(left_out.len(), 2);
        assert_eq!(left_out[0].rule, Rule::InstallerMetadata);
    }
}
