//! Modules of machine code that Python passes over: their names say that they are for another Python, or another system.

use std::collections::{BTreeMap, BTreeSet};

use lbx_plan::Runtime;

use super::{Check, File, Finding, Lead, Severity, Subject};

/// What a module's name says of itself.
enum Suffix<'s> {
    /// The runtime loads it.
    Fits,
    /// It is for another Python or another system.
    Other(&'s str),
}

/// Says for each package whether Python would pass over a module of it of which nothing else is there. It may do without, as
/// many packages do that have the same in Python.
pub(super) fn check(subject: &Subject<'_>, runtime: &Runtime) -> Vec<Finding> {
    let own = format!("cpython-{}-", runtime.python.replace('.', ""));
    let mut fits: BTreeSet<&str> = BTreeSet::new();
    let mut others: Vec<(&str, &str, &File<'_>)> = Vec::new();
    for file in &subject.files {
        match suffix(file.path, &own) {
            Some((module, Suffix::Fits)) => drop(fits.insert(module)),
            Some((module, Suffix::Other(suffix))) => others.push((module, suffix, file)),
            None => {}
        }
    }
    others.retain(|(module, ..)| !fits.contains(module));
    let mut by_owner: BTreeMap<&str, Vec<(&str, &File<'_>)>> = BTreeMap::new();
    for (_, suffix, file) in others {
        by_owner.entry(file.owner).or_default().push((suffix, file));
    }
    let found = by_owner.into_values().filter_map(|all| {
        let (suffix, file) = all.first()?;
        let more =
            if all.len() > 1 { format!(", as {} more of it are", all.len() - 1) } else { String::new() };
        let message = format!("is for `{suffix}`{more}, which {} passes over", runtime.runtime);
        let hint = "install it with the runtime's Python, on Linux: `lbx build` does";
        let finding = Finding::new(Severity::Warning, Check::Elf, message).with_hint(hint);
        Some(finding.with_lead(Lead::Index).about(file))
    });
    found.collect()
}

/// The module that a file is, by its path without suffixes, and for what it is.
fn suffix<'p>(path: &'p str, own: &str) -> Option<(&'p str, Suffix<'p>)> {
    let start = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = start + path[start..].find('.')?;
    let (module, suffix) = (&path[..dot], &path[dot + 1..]);
    let stem = suffix.strip_suffix("so").or_else(|| suffix.strip_suffix("pyd"))?;
    let is_windows = suffix.ends_with("pyd");
    match stem {
        _ if is_windows => Some((module, Suffix::Other(suffix))),
        "" | "abi3." => Some((module, Suffix::Fits)),
        stem if stem.starts_with(own) && stem.contains("linux") => Some((module, Suffix::Fits)),
        stem if stem.starts_with("cpython-") || stem.starts_with("pypy") => {
            Some((module, Suffix::Other(suffix)))
        }
        // A library with a version in its name, and whatever else.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(paths: &[&'static str]) -> Vec<String> {
        let files = paths.iter().map(|path| File::of_package(path)).collect();
        let subject = Subject { name: "f", zip_size: None, is_layer: false, files, names: Vec::new() };
        check(&subject, &Runtime::find("python3.11").unwrap()).into_iter().map(|one| one.message).collect()
    }

    #[test]
    fn what_python_passes_over_is_found_unless_something_else_is_there() {
        for fits in [
            "a/b.cpython-311-x86_64-linux-gnu.so",
            "a/b.abi3.so",
            "a/b.so",
            "a/libx-1.so.3",
            "a/libx.1.2.so",
            "a/b.py",
            "a/so",
        ] {
            assert_eq!(found(&[fits]), [""; 0], "{fits}");
        }
        for other in
            ["a/b.cpython-312-x86_64-linux-gnu.so", "a/b.cpython-311-darwin.so", "a/b.cp311-win_amd64.pyd"]
        {
            assert_eq!(found(&[other]).len(), 1, "{other}");
            assert_eq!(found(&[other, "a/b.cpython-311-x86_64-linux-gnu.so"]), [""; 0]);
            assert_eq!(found(&[other, "a/c.abi3.so"]).len(), 1);
        }
        let two = found(&["a/b.cpython-312-x86_64-linux-gnu.so", "a/c.cpython-312-x86_64-linux-gnu.so"]);
        assert_eq!(
            two,
            ["is for `cpython-312-x86_64-linux-gnu.so`, as 1 more of it are, which python3.11 passes over"]
        );
    }
}
