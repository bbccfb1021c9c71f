//! What two trees differ in, and why: the reasons that are accepted, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Serialize, Serializer};

use super::tree::{Node, Tree};

/// One difference.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    pub(super) path: String,
    pub(super) what: What,
    /// None if it is a fault, of lbx's or of this table of reasons.
    pub(super) reason: Option<Reason>,
}

/// In what two trees differ at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    /// pip installs it, and lbx does not pack it.
    OnlyPip,
    /// lbx packs it, and pip does not install it.
    OnlyLbx,
    /// One has a file, and the other a link or an empty folder; or the links point elsewhere.
    Kind,
    /// Other bytes.
    Content,
    /// Executable here and not there.
    Mode,
}

/// Why a difference is as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A rule left it out, and `report.json` says so.
    Rule(String),
    /// pip writes a script for each command that a distribution declares; lbx writes none.
    EntryPoint,
    /// pip notes how it installed a distribution, and brings RECORD up to date.
    InstallerNotes,
    /// pip puts the path of its own interpreter into the first line of a script.
    Shebang,
}

impl Reason {
    fn name(&self) -> &str {
        match self {
            Self::Rule(rule) => rule,
            Self::EntryPoint => "entry-point",
            Self::InstallerNotes => "installer-notes",
            Self::Shebang => "shebang",
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Difference {
    /// The reason's name, or that there is none.
    pub(super) fn reason(&self) -> &str {
        self.reason.as_ref().map_or("WITHOUT A REASON", Reason::name)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::OnlyPip => "only pip has it",
            What::OnlyLbx => "only lbx has it",
            What::Kind => "no file in one of the trees, or another link",
            What::Content => "another content",
            What::Mode => "executable in one of the trees",
        };
        write!(f, "{}: {what}: {}", self.path, self.reason())
    }
}

/// What is known of the two trees besides.
#[derive(Default)]
pub(super) struct Facts {
    /// What `report.json` says that lbx left out, with the rule.
    pub(super) left_out: BTreeMap<String, String>,
}

/// Compares the trees path by path.
pub(super) fn differences(pip: &Tree, lbx: &Tree, facts: &Facts) -> Vec<Difference> {
    let scripts = scripts(pip);
    let paths: BTreeSet<&String> = pip.keys().chain(lbx.keys()).collect();
    let mut found = Vec::new();
    for path in paths {
        let (theirs, ours) = (pip.get(path), lbx.get(path));
        for what in compare(theirs, ours) {
            let reason = match what {
                What::OnlyPip => missing(path, facts, &scripts),
                What::Content => changed(path, theirs, ours),
                // pip writes RECORD anew, with a mode of its own.
                What::Mode => is_note(path, &["RECORD"]).then_some(Reason::InstallerNotes),
                What::OnlyLbx | What::Kind => None,
            };
            found.push(Difference { path: path.clone(), what, reason });
        }
    }
    found
}

fn compare(pip: Option<&Node>, lbx: Option<&Node>) -> Vec<What> {
    match (pip, lbx) {
        (None, None) => Vec::new(),
        (Some(_), None) => vec![What::OnlyPip],
        (None, Some(_)) => vec![What::OnlyLbx],
        (Some(Node::File { bytes, executable }), Some(Node::File { bytes: ours, executable: our_mode })) => {
            let content = (bytes != ours).then_some(What::Content);
            content.into_iter().chain((executable != our_mode).then_some(What::Mode)).collect()
        }
        (Some(pip), Some(lbx)) if pip == lbx => Vec::new(),
        _ => vec![What::Kind],
    }
}

/// Why lbx may lack what pip has.
fn missing(path: &str, facts: &Facts, scripts: &BTreeSet<String>) -> Option<Reason> {
    if let Some(rule) = facts.left_out.get(path) {
        return Some(Reason::Rule(rule.clone()));
    }
    if scripts.contains(path) {
        return Some(Reason::EntryPoint);
    }
    // RECORD is not among them: a wheel has one, so the report has to name it.
    is_note(path, &["INSTALLER", "REQUESTED", "direct_url.json"]).then_some(Reason::InstallerNotes)
}

/// Why a file may have another content.
fn changed(path: &str, pip: Option<&Node>, lbx: Option<&Node>) -> Option<Reason> {
    if is_note(path, &["RECORD", "INSTALLER", "REQUESTED", "direct_url.json"]) {
        return Some(Reason::InstallerNotes);
    }
    let (Some(Node::File { bytes: theirs, .. }), Some(Node::File { bytes: ours, .. })) = (pip, lbx) else {
        return None;
    };
    let (theirs, ours) = (first_line(theirs), first_line(ours));
    let differs_by_it = path.starts_with("bin/")
        && ours.0.starts_with(b"#!python")
        && theirs.0.starts_with(b"#!/")
        && ours.1 == theirs.1;
    differs_by_it.then_some(Reason::Shebang)
}

fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1))
}

fn is_note(path: &str, names: &[&str]) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(parts[..], [folder, name] if folder.ends_with(".dist-info") && names.contains(&name))
}

/// The scripts that pip writes for the commands of the distributions in a tree.
fn scripts(pip: &Tree) -> BTreeSet<String> {
    let mut scripts = BTreeSet::new();
    for (path, node) in pip {
        let Node::File { bytes, .. } = node else { continue };
        if !is_note(path, &["entry_points.txt"]) {
            continue;
        }
        for command in commands(&String::from_utf8_lossy(bytes)) {
            // For itself, pip writes one that has the interpreter's version in its name, whatever the file says.
            if command == "pip" {
                let versioned = |path: &&String| {
                    path.strip_prefix("bin/pip3")
                        .is_some_and(|end| end.chars().all(|c| c == '.' || c.is_ascii_digit()))
                };
                scripts.extend(pip.keys().filter(versioned).cloned());
            }
            scripts.insert(format!("bin/{command}"));
        }
    }
    scripts
}

/// The names in the sections of an entry_points.txt that pip writes scripts for.
fn commands(text: &str) -> Vec<&str> {
    let mut section = "";
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if ["[console_scripts]", "[gui_scripts]"].contains(&section)
            && let Some((name, _)) = line.split_once('=')
            && !line.starts_with(['#', ';'])
        {
            names.push(name.trim());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files by path and content; executable if the path is in `bin/`.
    fn tree(files: &[(&str, &str)]) -> Tree {
        let node = |path: &str, bytes: &str| Node::File {
            bytes: bytes.into(),
            executable: path.starts_with("bin/"),
        };
        files.iter().map(|(path, bytes)| ((*path).to_owned(), node(path, bytes))).collect()
    }

    /// Each difference as a line.
    fn compared(pip: &Tree, lbx: &Tree, left_out: &[(&str, &str)]) -> Vec<String> {
        let left_out = left_out.iter().map(|(path, rule)| ((*path).to_owned(), (*rule).to_owned())).collect();
        differences(pip, lbx, &Facts { left_out }).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_trees_have_no_differences_and_one_broken_file_is_found() {
        let pip = tree(&[("a.py", "a"), ("b/c.py", "c")]);
        assert!(compared(&pip, &tree(&[("a.py", "a"), ("b/c.py", "c")]), &[]).is_empty());
        let broken = tree(&[("a.py", "a"), ("b/c.py", "d")]);
        assert_eq!(compared(&pip, &broken, &[]), ["b/c.py: another content: WITHOUT A REASON"]);
    }

    #[test]
    fn what_only_one_of_them_has_is_found() {
        let (pip, lbx) = (tree(&[("a", ""), ("b", "")]), tree(&[("b", ""), ("c", "")]));
        assert_eq!(
            compared(&pip, &lbx, &[]),
            ["a: only pip has it: WITHOUT A REASON", "c: only lbx has it: WITHOUT A REASON"]
        );
    }

    #[test]
    fn another_mode_is_found_beside_another_content() {
        let pip = tree(&[("a", "a")]);
        let node = Node::File { bytes: "b".into(), executable: true };
        let found = compared(&pip, &Tree::from([("a".to_owned(), node)]), &[]);
        assert_eq!(
            found,
            ["a: another content: WITHOUT A REASON", "a: executable in one of the trees: WITHOUT A REASON"]
        );
    }

    #[test]
    fn links_and_empty_folders_are_not_files() {
        let link = |to: &str| Tree::from([("a".to_owned(), Node::Symlink(to.to_owned()))]);
        let kind = ["a: no file in one of the trees, or another link: WITHOUT A REASON"];
        assert!(compared(&link("b"), &link("b"), &[]).is_empty());
        assert_eq!(compared(&link("b"), &link("c"), &[]), kind);
        assert_eq!(compared(&tree(&[("a", "b")]), &link("b"), &[]), kind);
        let empty = Tree::from([("a".to_owned(), Node::EmptyFolder)]);
        assert_eq!(compared(&empty, &Tree::new(), &[]), ["a: only pip has it: WITHOUT A REASON"]);
    }

    #[test]
    fn a_rule_is_a_reason_for_the_path_that_the_report_names_and_for_no_other() {
        let pip = tree(&[("bin/a", ""), ("bin/b", "")]);
        assert_eq!(
            compared(&pip, &Tree::new(), &[("bin/a", "scripts")]),
            ["bin/a: only pip has it: scripts", "bin/b: only pip has it: WITHOUT A REASON"]
        );
        // Nor for one that is there with another content.
        let found = compared(&tree(&[("a", "1")]), &tree(&[("a", "2")]), &[("a", "scripts")]);
        assert_eq!(found, ["a: another content: WITHOUT A REASON"]);
    }

    #[test]
    fn scripts_of_entry_points_are_pips_own() {
        let declared =
            "[console_scripts]\ntool = foo:main\n# gone = foo:main\n[gui_scripts]\nwin=foo:win\n[x]\ny = z\n";
        let pip = tree(&[
            ("bin/gone", ""),
            ("bin/tool", ""),
            ("bin/win", ""),
            ("bin/y", ""),
            ("foo-1.dist-info/entry_points.txt", declared),
        ]);
        let lbx = tree(&[("foo-1.dist-info/entry_points.txt", declared)]);
        assert_eq!(
            compared(&pip, &lbx, &[]),
            [
                "bin/gone: only pip has it: WITHOUT A REASON",
                "bin/tool: only pip has it: entry-point",
                "bin/win: only pip has it: entry-point",
                "bin/y: only pip has it: WITHOUT A REASON",
            ]
        );
        // lbx writes no such script, so that it has one is none.
        let found =
            compared(&pip, &tree(&[("bin/tool", "x"), ("foo-1.dist-info/entry_points.txt", declared)]), &[]);
        assert!(found.contains(&"bin/tool: another content: WITHOUT A REASON".to_owned()), "{found:?}");
    }

    #[test]
    fn pip_has_scripts_for_itself_that_nothing_declares() {
        let declared = "[console_scripts]\npip = pip:main\n";
        let lbx = tree(&[("pip-1.dist-info/entry_points.txt", declared)]);
        let pip = tree(&[
            ("bin/pip", ""),
            ("bin/pip3", ""),
            ("bin/pip3.11", ""),
            ("bin/pip3x", ""),
            ("pip-1.dist-info/entry_points.txt", declared),
        ]);
        let found = compared(&pip, &lbx, &[]);
        assert_eq!(found.len(), 4);
        assert_eq!(found[3], "bin/pip3x: only pip has it: WITHOUT A REASON");
        assert!(found[..3].iter().all(|line| line.ends_with("entry-point")), "{found:?}");
    }

    #[test]
    fn notes_of_installers_are_in_dist_info_and_nowhere_else() {
        let pip = tree(&[
            ("foo-1.dist-info/INSTALLER", "pip\n"),
            ("foo-1.dist-info/RECORD", "of pip"),
            ("foo-1.dist-info/REQUESTED", ""),
            ("foo-1.dist-info/direct_url.json", "{}"),
            ("foo/INSTALLER", ""),
        ]);
        let lbx = tree(&[("foo-1.dist-info/RECORD", "of the wheel")]);
        assert_eq!(
            compared(&pip, &lbx, &[]),
            [
                "foo-1.dist-info/INSTALLER: only pip has it: installer-notes",
                "foo-1.dist-info/RECORD: another content: installer-notes",
                "foo-1.dist-info/REQUESTED: only pip has it: installer-notes",
                "foo-1.dist-info/direct_url.json: only pip has it: installer-notes",
                "foo/INSTALLER: only pip has it: WITHOUT A REASON",
            ]
        );
        let record = compared(&pip, &Tree::new(), &[]).remove(1);
        assert_eq!(record, "foo-1.dist-info/RECORD: only pip has it: WITHOUT A REASON");
    }

    #[test]
    fn only_record_may_be_executable_in_one_of_the_trees() {
        let mode = |path: &str| {
            let node = |executable| Node::File { bytes: Vec::new(), executable };
            let [pip, lbx] = [false, true].map(|mode| Tree::from([(path.to_owned(), node(mode))]));
            compared(&pip, &lbx, &[]).remove(0)
        };
        let told = "executable in one of the trees";
        assert_eq!(mode("a-1.dist-info/RECORD"), format!("a-1.dist-info/RECORD: {told}: installer-notes"));
        for path in ["a-1.dist-info/METADATA", "a/RECORD"] {
            assert_eq!(mode(path), format!("{path}: {told}: WITHOUT A REASON"));
        }
    }

    #[test]
    fn the_first_line_of_a_script_may_name_pips_interpreter_and_nothing_else_may_differ() {
        let pip = tree(&[("bin/run", "#!/usr/bin/python3\nprint(1)\n")]);
        let with = |text: &str| compared(&pip, &tree(&[("bin/run", text)]), &[]);
        assert_eq!(with("#!python\nprint(1)\n"), ["bin/run: another content: shebang"]);
        let fault = ["bin/run: another content: WITHOUT A REASON"];
        assert_eq!(with("#!python\nprint(2)\n"), fault);
        assert_eq!(with("#!/bin/sh\nprint(1)\n"), fault);
        let module =
            compared(&tree(&[("a.py", "#!/usr/bin/python3\n")]), &tree(&[("a.py", "#!python\n")]), &[]);
        assert_eq!(module, ["a.py: another content: WITHOUT A REASON"]);
    }
}
