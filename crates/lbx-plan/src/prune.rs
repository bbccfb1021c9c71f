//! What an artifact leaves out, by rule: a verdict per file, and never a change to a file.
//!
//! The rules drop only what the runtime never reads. Package metadata stays (`METADATA`,
//! `entry_points.txt`, `top_level.txt`, licences), because `importlib.metadata` reads it; so do tests,
//! documentation and type stubs, because some packages import theirs.

use serde::{Deserialize, Serialize};

/// Where a file comes from, as far as the rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A wheel, by its normalised distribution name.
    Wheel {
        /// Such as `setuptools`.
        distribution: &'a str,
        /// Whether the wheel installs the file as a command-line script.
        script: bool,
    },
    /// The user's own code.
    Source,
}

/// A rule of the first set, with its name in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Python's cache of byte code: stale once the zip has set its own times, so never used.
    Bytecode,
    /// What an installer notes for itself: `RECORD`, `INSTALLER`, `REQUESTED`, `direct_url.json`.
    InstallerMetadata,
    /// Command-line scripts: nothing calls them in a function.
    Scripts,
    /// pip, setuptools and wheel, when nothing requires them.
    PackagingTools,
    /// What tools leave in a source folder: version control, virtual environments, caches.
    ToolFiles,
}

impl Rule {
    /// Every rule, in the order of reports.
    pub const ALL: [Self; 5] =
        [Self::Bytecode, Self::InstallerMetadata, Self::Scripts, Self::PackagingTools, Self::ToolFiles];

    /// The rule's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytecode => "bytecode",
            Self::InstallerMetadata => "installer-metadata",
            Self::Scripts => "scripts",
            Self::PackagingTools => "packaging-tools",
            Self::ToolFiles => "tool-files",
        }
    }
}

/// The distributions that [`Rule::PackagingTools`] is about.
pub const PACKAGING_TOOLS: [&str; 3] = ["pip", "setuptools", "wheel"];

/// Names of files and folders in a source folder that are never code: matched at any depth.
const TOOL_NAMES: [&str; 19] = [
    ".aws-sam",
    ".DS_Store",
    ".git",
    ".gitattributes",
    ".gitignore",
    ".gitmodules",
    ".hg",
    ".idea",
    ".mypy_cache",
    ".nox",
    ".pytest_cache",
    ".ruff_cache",
    ".serverless",
    ".svn",
    ".tox",
    ".venv",
    ".vscode",
    "node_modules",
    "lbx.toml",
];

/// How lbx's own unfinished files begin, which a killed build leaves in its output folder.
pub const UNFINISHED: &str = ".lbx-";

/// The rule that leaves a file out of the artifact, if one does.
///
/// `path` is where the file would be installed, relative to the root or to `python/`, and
/// `unrequired` are the packaging tools that nothing requires, as [`unrequired_tools`] finds them.
pub fn verdict(path: &str, origin: Origin<'_>, unrequired: &[&str]) -> Option<Rule> {
    if path.split('/').rev().skip(1).any(|folder| folder == "__pycache__") {
        return Some(Rule::Bytecode);
    }
    match origin {
        Origin::Source => is_tool_file(path).then_some(Rule::ToolFiles),
        Origin::Wheel { distribution, .. } if unrequired.contains(&distribution) => {
            Some(Rule::PackagingTools)
        }
        Origin::Wheel { script: true, .. } => Some(Rule::Scripts),
        Origin::Wheel { .. } => is_installer_metadata(path).then_some(Rule::InstallerMetadata),
    }
}

fn is_tool_file(path: &str) -> bool {
    path.split('/').any(|part| TOOL_NAMES.contains(&part) || part.starts_with(UNFINISHED)) || is_lock(path)
}

/// Locks that lbx itself writes and reads (PEP 751).
fn is_lock(path: &str) -> bool {
    crate::locks::Format::of(path) == Some(crate::locks::Format::Pylock)
}

/// Whether a whole folder of a source tree is a tool's, so that it need not be read at all.
pub fn is_tool_folder(name: &str) -> bool {
    TOOL_NAMES.contains(&name)
}

fn is_installer_metadata(path: &str) -> bool {
    let Some((folder, file)) = path.split_once('/') else { return false };
    folder.ends_with(".dist-info") && matches!(file, "RECORD" | "INSTALLER" | "REQUESTED" | "direct_url.json")
}

/// What the rule for packaging tools must know of one distribution of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirer<'a> {
    /// Its normalised name.
    pub distribution: &'a str,
    /// Its `Requires-Dist` lines.
    pub requires: &'a [String],
}

/// Which of [`PACKAGING_TOOLS`] nothing requires: no other distribution of the set, tools that are
/// dropped themselves aside, and no line of `imports`, the modules that the user's own code imports.
pub fn unrequired_tools<'a>(set: &[Requirer<'a>], imports: &[String]) -> Vec<&'a str> {
    let mut dropped: Vec<&'a str> =
        set.iter().map(|one| one.distribution).filter(|name| PACKAGING_TOOLS.contains(name)).collect();
    dropped
        .retain(|tool| !modules_of(tool).iter().any(|module| imports.iter().any(|import| import == module)));
    // One that stays keeps what it requires, so go round until nothing changes.
    loop {
        let before = dropped.len();
        let kept: Vec<&Requirer<'_>> =
            set.iter().filter(|one| !dropped.contains(&one.distribution)).collect();
        dropped.retain(|tool| !kept.iter().any(|one| one.requires.iter().any(|line| requires(line, tool))));
        if dropped.len() == before {
            return dropped;
        }
    }
}

/// The top-level modules that a packaging tool provides.
fn modules_of(tool: &str) -> &'static [&'static str] {
    match tool {
        "setuptools" => &["setuptools", "pkg_resources", "distutils", "_distutils_hack"],
        "pip" => &["pip"],
        _ => &["wheel"],
    }
}

/// Whether a `Requires-Dist` line is about `tool` and does not wait for an extra.
fn requires(line: &str, tool: &str) -> bool {
    let name: String = line
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .map(|c| if matches!(c, '_' | '.') { '-' } else { c.to_ascii_lowercase() })
        .collect();
    name == tool && !line.split_once(';').is_some_and(|(_, marker)| marker.contains("extra"))
}

/// The top-level modules that a Python source imports, as far as its text shows.
pub fn imported_modules(text: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        let rest = match (line.strip_prefix("import "), line.strip_prefix("from ")) {
            (Some(rest), _) => rest,
            (None, Some(rest)) => rest.split(" import").next().unwrap_or(rest),
            (None, None) => continue,
        };
        for part in rest.split(',') {
            let name = part.trim().split(['.', ' ', ';', '#']).next().unwrap_or_default();
            if !name.is_empty() {
                modules.push(name.to_owned());
            }
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHEEL: Origin<'_> = Origin::Wheel { distribution: "x", script: false };

    #[test]
    fn what_the_runtime_never_reads_is_dropped() {
        assert_eq!(verdict("a/__pycache__/b.cpython-311.pyc", WHEEL, &[]), Some(Rule::Bytecode));
        assert_eq!(verdict("__pycache__/b.pyc", Origin::Source, &[]), Some(Rule::Bytecode));
        for file in ["RECORD", "INSTALLER", "REQUESTED", "direct_url.json"] {
            assert_eq!(verdict(&format!("x-1.dist-info/{file}"), WHEEL, &[]), Some(Rule::InstallerMetadata));
        }
        let script = Origin::Wheel { distribution: "x", script: true };
        assert_eq!(verdict("bin/x", script, &[]), Some(Rule::Scripts));
        assert_eq!(verdict(".git/config", Origin::Source, &[]), Some(Rule::ToolFiles));
        assert_eq!(verdict(".lbx-a.zip", Origin::Source, &[]), Some(Rule::ToolFiles));
    }

    #[test]
    fn what_packages_read_at_run_time_is_kept() {
        for path in [
            "x-1.dist-info/METADATA",
            "x-1.dist-info/entry_points.txt",
            "x-1.dist-info/top_level.txt",
            "x-1.dist-info/licenses/LICENSE",
            "x/tests/test_a.py",
            "x/py.typed",
            "x/a.pyi",
            "x/docs/a.rst",
            "x/legacy.pyc",
            "RECORD",
            "x/RECORD",
            "bin/__init__.py",
            "x-1.dist-info/sub/RECORD",
        ] {
            assert_eq!(verdict(path, WHEEL, &[]), None, "{path}");
        }
        assert_eq!(verdict("lib/.env", Origin::Source, &[]), None);
        assert_eq!(verdict("__pycache__", Origin::Source, &[]), None);
    }

    fn requirer<'a>(distribution: &'a str, requires: &'a [String]) -> Requirer<'a> {
        Requirer { distribution, requires }
    }

    #[test]
    fn packaging_tools_that_nothing_requires_are_dropped() {
        let set = [requirer("pip", &[]), requirer("setuptools", &[]), requirer("requests", &[])];
        assert_eq!(unrequired_tools(&set, &[]), ["pip", "setuptools"]);
        assert_eq!(
            verdict("pip/__init__.py", Origin::Wheel { distribution: "pip", script: false }, &["pip"]),
            Some(Rule::PackagingTools)
        );
    }

    #[test]
    fn packaging_tools_that_something_requires_are_kept() {
        let needs = ["Setuptools>=40 ; python_version > '3'".to_owned()];
        let set = [requirer("setuptools", &[]), requirer("old", &needs)];
        assert!(unrequired_tools(&set, &[]).is_empty());
        let imports = imported_modules("import os, pkg_resources as p\n");
        assert!(unrequired_tools(&[requirer("setuptools", &[])], &imports).is_empty());
        let optional = ["setuptools; extra == 'dev'".to_owned()];
        assert_eq!(
            unrequired_tools(&[requirer("setuptools", &[]), requirer("x", &optional)], &[]),
            ["setuptools"]
        );
    }

    #[test]
    fn a_tool_required_by_a_tool_goes_and_stays_with_it() {
        let needs_wheel = ["wheel".to_owned()];
        let set = [requirer("setuptools", &needs_wheel), requirer("wheel", &[])];
        assert_eq!(unrequired_tools(&set, &[]), ["setuptools", "wheel"]);
        assert!(unrequired_tools(&set, &["setuptools".to_owned()]).is_empty());
    }

    #[test]
    fn imports_are_read_from_source() {
        assert_eq!(
            imported_modules("from a.b import c\n    import d.e, f as g # h\nx = 1\n"),
            ["a", "d", "f"]
        );
    }
}
