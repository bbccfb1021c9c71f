//! A file tree in memory: what packages and wheels contribute before it is cut into layers.
//! Owners, times and the host's file system have no place in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::recipe::{Content, Edit, Entry};
use crate::Result;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Directory {
        mode: u32,
    },
    /// Names with the same number share one file.
    File {
        mode: u32,
        data: Arc<[u8]>,
        number: u64,
    },
    Symlink(String),
}

/// Paths without a leading slash, in order, each with what is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
    next_number: u64,
}

impl Tree {
    /// Everything in the tree, sorted by path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// What is at the path.
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Adds a directory; one that is already there keeps its mode, as with dpkg.
    pub(crate) fn add_directory(&mut self, path: &str, mode: u32) {
        self.nodes.entry(path.to_owned()).or_insert(Node::Directory { mode });
    }

    /// Adds a file, in place of what was there.
    pub(crate) fn add_file(&mut self, path: &str, mode: u32, data: impl Into<Arc<[u8]>>) {
        self.next_number += 1;
        let node = Node::File { mode, data: data.into(), number: self.next_number };
        self.nodes.insert(path.to_owned(), node);
    }

    /// Adds a symbolic link, in place of what was there.
    pub(crate) fn add_symlink(&mut self, path: &str, target: &str) {
        self.nodes.insert(path.to_owned(), Node::Symlink(target.to_owned()));
    }

    /// Adds a second name for a file that is already there.
    pub(crate) fn add_hardlink(&mut self, path: &str, target: &str) -> Result<()> {
        match self.nodes.get(target) {
            Some(file @ Node::File { .. }) => {
                let file = file.clone();
                self.nodes.insert(path.to_owned(), file);
                Ok(())
            }
            _ => {
                Err(format!("{path}: a hard link to {target}, which is not a file in the same layer").into())
            }
        }
    }

    /// Adds what a recipe says, with whiteouts in the form that image layers have.
    pub(crate) fn add_entry(&mut self, entry: &Entry) -> Result<()> {
        let path = entry.path.as_str();
        let file_mode = entry.mode.unwrap_or(0o644);
        match &entry.content {
            Content::Text(text) => self.add_file(path, file_mode, text.as_bytes()),
            Content::Symlink(target) => self.add_symlink(path, target),
            Content::Hardlink(target) => self.add_hardlink(path, target)?,
            Content::Directory => self.add_directory(path, entry.mode.unwrap_or(0o755)),
            Content::Whiteout => {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                self.add_file(&join(parent, &format!(".wh.{name}")), 0o644, []);
            }
            Content::Opaque => self.add_file(&join(path, ".wh..wh..opq"), 0o644, []),
        }
        Ok(())
    }

    /// Removes every path for which the test holds.
    pub(crate) fn remove_where(&mut self, test: impl Fn(&str) -> bool) {
        self.nodes.retain(|path, _| !test(path));
    }

    /// Moves `from`, and what is below it, to `to`.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let paths: Vec<String> = self.nodes.keys().filter(|path| is_below(path, from)).cloned().collect();
        if paths.is_empty() {
            return Err(format!("{from}: not in the packages, so it can't become {to}").into());
        }
        for path in paths {
            if let Some(node) = self.nodes.remove(&path) {
                self.nodes.insert(format!("{to}{}", &path[from.len()..]), node);
            }
        }
        Ok(())
    }

    /// Takes out what is below `prefix`.
    pub(crate) fn split_off(&mut self, prefix: &str) -> Tree {
        let (taken, kept) =
            std::mem::take(&mut self.nodes).into_iter().partition(|(path, _)| is_below(path, prefix));
        self.nodes = kept;
        Tree { nodes: taken, next_number: self.next_number }
    }

    /// Changes the text of one file; a text that isn't found, or not once, is an error.
    pub(crate) fn edit(&mut self, edit: &Edit) -> Result<()> {
        let Some(Node::File { mode, data, .. }) = self.nodes.get(&edit.path) else {
            return Err(format!("{}: to be edited, but not a file of the image", edit.path).into());
        };
        let mode = *mode;
        let result = match std::str::from_utf8(data) {
            Ok(text) => edited(text, edit).map(String::into_bytes),
            Err(_) => patched(data, edit),
        };
        let data = result.map_err(|error| format!("{}: {error}", edit.path))?;
        self.add_file(&edit.path, mode, data);
        Ok(())
    }

    /// Adds the parents that are missing, so that no unpacker has to guess their mode.
    pub(crate) fn complete(&mut self) {
        let paths: Vec<String> = self.nodes.keys().cloned().collect();
        for path in paths {
            let mut rest = path.as_str();
            while let Some((parent, _)) = rest.rsplit_once('/') {
                self.add_directory(parent, 0o755);
                rest = parent;
            }
        }
    }
}

/// Whether `path` is `top` or below it.
pub(crate) fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

fn edited(text: &str, edit: &Edit) -> Result<String> {
    let found = text.matches(&edit.from).count();
    if edit.all && found > 0 {
        return Ok(text.replace(&edit.from, &edit.to));
    }
    let (Some(start), 1) = (text.find(&edit.from), found) else {
        return Err(format!("expected once, found {found} times: {:?}", edit.from).into());
    };
    let after = start + edit.from.len();
    let end = match &edit.until {
        None => after,
        Some(until) => {
            after + text[after..].find(until).ok_or_else(|| format!("not found after it: {until:?}"))?
        }
    };
    Ok(format!("{}{}{}", &text[..start], edit.to, &text[end..]))
}

/// The same for a program, in which nothing may change its place.
fn patched(data: &[u8], edit: &Edit) -> Result<Vec<u8>> {
    let (from, to) = (edit.from.as_bytes(), edit.to.as_bytes());
    if !edit.all || from.len() != to.len() || from.is_empty() {
        return Err("not a text, so only all of a word can be replaced, by one as long".into());
    }
    let (mut data, mut place, mut found) = (data.to_vec(), 0, 0);
    while place + from.len() <= data.len() {
        if data[place..].starts_with(from) {
            data[place..place + to.len()].copy_from_slice(to);
            found += 1;
        }
        place += 1;
    }
    if found == 0 { Err(format!("not found: {:?}", edit.from).into()) } else { Ok(data) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(from: &str, until: Option<&str>, to: &str, all: bool) -> Edit {
        Edit { path: "a".into(), from: from.into(), until: until.map(Into::into), to: to.into(), all }
    }

    #[test]
    fn a_rename_takes_what_is_below_and_not_what_only_begins_alike() {
        let mut tree = Tree::default();
        tree.add_file("usr/lib/python3/a", 0o644, *b"a");
        tree.add_file("usr/lib/python3.11/b", 0o644, *b"b");
        tree.rename("usr/lib/python3", "lang").unwrap();
        let paths: Vec<&str> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["lang/a", "usr/lib/python3.11/b"]);
        assert!(tree.rename("nowhere", "lang").is_err());
    }

    #[test]
    fn an_edit_replaces_up_to_its_end_and_refuses_doubt() {
        assert_eq!(edited("one two three", &edit("one", Some(" three"), "1", false)).unwrap(), "1 three");
        assert_eq!(edited("aba", &edit("a", None, "c", true)).unwrap(), "cbc");
        assert!(edited("aba", &edit("a", None, "c", false)).is_err());
        assert!(edited("b", &edit("a", None, "c", true)).is_err());
        assert!(edited("ab", &edit("a", Some("c"), "", false)).is_err());
    }

    #[test]
    fn a_program_keeps_its_length() {
        let program = b"\xff one one";
        assert_eq!(patched(program, &edit("one", None, "two", true)).unwrap(), b"\xff two two");
        assert!(patched(program, &edit("one", None, "three", true)).is_err());
        assert!(patched(program, &edit("four", None, "five", true)).is_err());
    }

    #[test]
    fn missing_parents_are_added_and_given_modes_are_kept() {
        let mut tree = Tree::default();
        tree.add_directory("root", 0o700);
        tree.add_file("root/a/b", 0o644, *b"");
        tree.complete();
        assert_eq!(tree.get("root"), Some(&Node::Directory { mode: 0o700 }));
        assert_eq!(tree.get("root/a"), Some(&Node::Directory { mode: 0o755 }));
    }
}
