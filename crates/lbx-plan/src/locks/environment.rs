//! Markers (PEP 508), for the machine that an artifact is for.

use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{ExtraName, MarkerEnvironment, MarkerEnvironmentBuilder, MarkerTree};

use super::{Selection, normalized};
use crate::catalog::{Architecture, Runtime};

/// What markers see.
#[derive(Clone, Debug)]
pub struct Environment {
    markers: MarkerEnvironment,
    pub(super) python: String,
    pub(super) machine: &'static str,
}

impl Environment {
    /// Of a runtime on a CPU. The last part of Python's version is Lambda's to choose, which takes the newest: markers see
    /// one that is newer than all.
    pub fn new(runtime: &Runtime, arch: Architecture) -> Option<Self> {
        let full = format!("{}.99", runtime.python);
        let builder = MarkerEnvironmentBuilder {
            implementation_name: "cpython",
            implementation_version: &full,
            os_name: "posix",
            platform_machine: arch.machine(),
            platform_python_implementation: "CPython",
            platform_release: "",
            platform_system: "Linux",
            platform_version: "",
            python_full_version: &full,
            python_version: &runtime.python,
            sys_platform: "linux",
        };
        let markers = MarkerEnvironment::try_from(builder).ok()?;
        Some(Self { markers, python: runtime.python.clone(), machine: arch.machine() })
    }

    /// The version of Python, such as `3.11`.
    pub fn python(&self) -> &str {
        &self.python
    }

    /// A marker that holds here, and for no other runtime and no other CPU.
    pub fn marker(&self) -> String {
        format!(
            "python_version == \"{}\" and implementation_name == \"cpython\" and sys_platform == \"linux\" and \
             platform_machine == \"{}\"",
            self.python, self.machine
        )
    }

    /// Whether a marker holds.
    pub fn holds(&self, marker: &str, wanted: &Selection) -> Result<bool, String> {
        let tree = MarkerTree::from_str(&with_groups(marker, wanted)).map_err(|error| one_line(&error))?;
        Ok(self.tree_holds(&tree, &wanted.extras))
    }

    pub(super) fn tree_holds(&self, tree: &MarkerTree, extras: &[String]) -> bool {
        let extras: Vec<ExtraName> =
            extras.iter().filter_map(|name| ExtraName::from_str(name).ok()).collect();
        tree.evaluate(&self.markers, &extras)
    }

    /// Whether the runtime's Python is one of these versions; none where that is no list of versions. Any last part of the
    /// version will do.
    pub fn python_in(&self, specifiers: &str) -> Option<bool> {
        let specifiers = VersionSpecifiers::from_str(specifiers).ok()?;
        let any = [0, 99].iter().any(|micro| {
            let version = Version::from_str(&format!("{}.{micro}", self.python));
            version.is_ok_and(|version| specifiers.contains(&version))
        });
        Some(any)
    }
}

/// The first line of what a parser says.
pub(super) fn one_line(error: &impl ToString) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// PEP 751 has `"x" in extras` and `"x" in dependency_groups`, which are no markers of PEP 508. Of groups, the one that
/// is installed by default holds.
fn with_groups(marker: &str, wanted: &Selection) -> String {
    let mut text = marker.to_owned();
    for set in ["extras", "dependency_groups"] {
        while let Some(at) = find(&text, set) {
            let before = text[..at].trim_end();
            let (before, negated) = match before.strip_suffix("in") {
                Some(before) => match before.trim_end().strip_suffix("not") {
                    Some(before) => (before.trim_end(), true),
                    None => (before.trim_end(), false),
                },
                None => return text,
            };
            let Some(quote) = before.chars().last().filter(|c| matches!(c, '"' | '\'')) else { return text };
            let Some(start) = before[..before.len() - 1].rfind(quote) else { return text };
            let name = &before[start + 1..before.len() - 1];
            let name = normalized(name);
            let has = match set {
                "extras" => wanted.extras.contains(&name),
                _ => name == "default" || wanted.groups.contains(&name),
            };
            let word = if has == negated { "python_version < '0'" } else { "python_version >= '0'" };
            text = format!("{}{word}{}", &text[..start], &text[at + set.len()..]);
        }
    }
    text
}

/// Where a word stands by itself, outside of quotes.
fn find(text: &str, word: &str) -> Option<usize> {
    let mut quote = None;
    let bytes = text.as_bytes();
    for (at, character) in text.char_indices() {
        match quote {
            Some(open) if open == character => quote = None,
            None if matches!(character, '"' | '\'') => quote = Some(character),
            None if text[at..].starts_with(word) => {
                let is_part = |byte: Option<&u8>| {
                    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
                };
                let before = at.checked_sub(1).and_then(|before| bytes.get(before));
                if !is_part(before) && !is_part(bytes.get(at + word.len())) {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}
