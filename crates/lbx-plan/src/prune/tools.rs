//! pip, setuptools and wheel: which of them nothing needs.

/// The distributions that [`super::Rule::PackagingTools`] is about.
pub const PACKAGING_TOOLS: [&str; 3] = ["pip", "setuptools", "wheel"];

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

/// Whether a line of requirements, such as a `Requires-Dist`, is about the distribution of this normalised name and does not
/// wait for an extra.
pub fn requires(line: &str, distribution: &str) -> bool {
    let name: String = line
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .map(|c| if matches!(c, '_' | '.') { '-' } else { c.to_ascii_lowercase() })
        .collect();
    name == distribution && !line.split_once(';').is_some_and(|(_, marker)| marker.contains("extra"))
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

    fn requirer<'a>(distribution: &'a str, requires: &'a [String]) -> Requirer<'a> {
        Requirer { distribution, requires }
    }

    #[test]
    fn packaging_tools_that_nothing_requires_are_dropped() {
        let set = [requirer("pip", &[]), requirer("setuptools", &[]), requirer("requests", &[])];
        assert_eq!(unrequired_tools(&set, &[]), ["pip", "setuptools"]);
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
