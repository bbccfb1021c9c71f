//! Names, modes and what is in the user's own files: what Lambda could not read, what hides the standard library, and what
//! should be known to nobody else.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use lbx_plan::Runtime;

use super::{Check, File, Finding, Severity, Subject};

/// Top-level modules of the standard library, of all supported versions.
static STANDARD: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("standard_library.txt").split_whitespace().collect());
/// Modules that the runtime's own client consists of.
const RUNTIME: [&str; 4] = ["awslambdaric", "bootstrap", "runtime_client", "snapshot_restore_py"];
/// The folder that a layer's modules are in.
const LAYER: &str = "python/";

pub(super) fn check(subject: &Subject<'_>, runtime: &Runtime) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in &subject.files {
        found.extend(mode(file));
        found.extend(secrets(file));
    }
    found.extend(shadows(subject, runtime));
    found.extend(cases(subject));
    found
}

/// What makes a mode right.
pub(crate) const MODES: &str =
    "give files the mode 0644, and folders and programs 0755, before they are packed";

/// Functions run as a user who owns nothing of it.
fn mode(file: &File<'_>) -> Option<Finding> {
    let mode = file.mode?;
    let what = match mode {
        _ if mode & 0o004 == 0 => format!("mode {:04o}, so Lambda's user cannot read it", mode & 0o7777),
        _ if mode & 0o6000 != 0 => format!("mode {:04o}, with a set-id bit", mode & 0o7777),
        _ => return None,
    };
    Some(Finding::new(Severity::Error, Check::Files, what).about(file).with_hint(MODES))
}

fn secrets(file: &File<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let name = file.path.rsplit('/').next().unwrap_or(file.path);
    let is_environment = name == ".env" || name.starts_with(".env.");
    let is_template = ["example", "sample", "template", "dist"].iter().any(|word| name.ends_with(word));
    let is_key =
        matches!(name, "id_rsa" | "id_dsa" | "id_ecdsa" | "id_ed25519" | ".netrc" | ".pypirc" | ".npmrc")
            || file.path.ends_with(".aws/credentials");
    if file.own && (is_environment && !is_template || is_key) {
        found.push(secret(file, "its name is one of files with credentials".to_owned()));
    }
    for (what, line) in file.facts.iter().flat_map(|facts| &facts.secrets) {
        found.push(secret(file, format!("line {line} looks like {what}")));
    }
    found
}

fn secret(file: &File<'_>, message: String) -> Finding {
    let hint = format!(
        "leave it out with `[prune] exclude = [\"{0}\"]`, or say that it is meant to be there with `[check] accept = [\"{0}\"]`",
        file.path
    );
    Finding::new(Severity::Error, Check::Secrets, message).about(file).with_hint(hint)
}

/// Modules at the root that come before those of the standard library and the runtime.
fn shadows(subject: &Subject<'_>, runtime: &Runtime) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for file in &subject.files {
        let path = if subject.is_layer { in_layer(file.path) } else { Some(file.path) };
        let Some(module) = path.and_then(module) else { continue };
        let whose = match module {
            _ if RUNTIME.contains(&module) => "Lambda's own runtime",
            _ if STANDARD.contains(module) => "Python's standard library",
            _ => continue,
        };
        if seen.insert(module) {
            let message =
                format!("`{module}` hides the module of that name of {whose} in {}", runtime.runtime);
            let hint = "every import of it gets this one: rename it, or drop the package";
            found.push(Finding::new(Severity::Warning, Check::Files, message).about(file).with_hint(hint));
        }
    }
    found
}

/// A path in one of the folders of a layer that modules may be in: `python/`, and `python/lib/python3.X/site-packages/`.
fn in_layer(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(LAYER)?;
    let below = rest.strip_prefix("lib/python3.").and_then(|rest| rest.split_once("/site-packages/"));
    Some(below.map_or(rest, |(_, path)| path))
}

/// The top-level module that a path is, or is the beginning of.
fn module(path: &str) -> Option<&str> {
    match path.split_once('/') {
        None => path.strip_suffix(".py"),
        Some((folder, "__init__.py")) => Some(folder),
        Some(_) => None,
    }
}

/// Names that some file systems take for one.
fn cases(subject: &Subject<'_>) -> Vec<Finding> {
    // Of two such names, one at least has a capital letter, and few have any.
    let is_low = |path: &str| path.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    let (low, others): (Vec<&File<'_>>, Vec<_>) = subject.files.iter().partition(|file| is_low(file.path));
    let mut names: HashMap<String, &File<'_>> = HashMap::new();
    let mut pairs = Vec::new();
    for file in others {
        pairs.extend(names.insert(file.path.to_lowercase(), file).map(|first| (file, first)));
    }
    pairs.extend(low.into_iter().filter_map(|file| names.get(file.path).map(|other| (*other, file))));
    let mut found = Vec::new();
    for (file, first) in pairs {
        let message = format!("differs from `{}` in letter case alone", first.path);
        let hint = "where case makes no difference, as on macOS, one of them is lost";
        found.push(Finding::new(Severity::Warning, Check::Files, message).about(file).with_hint(hint));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Facts;
    use super::*;

    fn found(paths: &[(&'static str, bool, Option<u32>)]) -> Vec<String> {
        let file = |&(path, own, mode): &(&'static str, bool, Option<u32>)| File {
            own,
            mode,
            ..File::of_package(path)
        };
        let files = paths.iter().map(file).collect();
        let subject = Subject { name: "f", zip_size: None, is_layer: false, files, names: Vec::new() };
        let runtime = Runtime::find("python3.11").unwrap();
        check(&subject, &runtime).into_iter().map(|one| one.message).collect()
    }

    #[test]
    fn files_that_hide_others_are_found() {
        let found = found(&[
            ("logging.py", true, None),
            ("types/__init__.py", false, None),
            ("awslambdaric/__init__.py", false, None),
            ("mine/logging.py", true, None),
            ("app.py", true, None),
        ]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("`logging` hides") && found[2].contains("runtime"), "{found:?}");
    }

    #[test]
    fn modes_that_lambda_cannot_use_are_found() {
        let found = found(&[
            ("a.py", true, Some(0o100_600)),
            ("c.py", true, Some(0o104_755)),
            ("d.py", true, Some(0o100_644)),
        ]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("0600") && found[1].contains("set-id"), "{found:?}");
    }

    #[test]
    fn names_of_files_with_credentials_are_found_in_own_code_alone() {
        let own = [(".env", true, None), ("a/.env.production", true, None), (".env.example", true, None)];
        assert_eq!(found(&own).len(), 2);
        assert_eq!(found(&[("x/.env", false, None)]), [""; 0]);
        assert_eq!(found(&[("environment.py", true, None)]), [""; 0]);
    }

    #[test]
    fn names_that_differ_in_case_alone_are_found() {
        let found = found(&[("a/B.py", true, None), ("a/b.py", true, None), ("A/c.py", true, None)]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn what_was_seen_in_a_file_is_said_with_its_line() {
        let facts = Facts { secrets: vec![("a private key".to_owned(), 3)], ..Facts::default() };
        let file = File {
            path: "k.py",
            owner: "src",
            own: true,
            size: 1,
            mode: None,
            offered: None,
            facts: Some(&facts),
        };
        let found = secrets(&file);
        assert_eq!(found[0].message, "line 3 looks like a private key");
        assert!(found[0].hint.as_ref().unwrap().contains("accept = [\"k.py\"]"));
    }
}
