//! Machine code: for which CPU it is, and whether all that it asks for is there: in the artifact, its layers, or the system
//! that Lambda has.
//!
//! What Python loads by itself, and what that needs in turn, must work. The rest may be for other machines: some packages
//! ship code for several.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lbx_elf::VersionName;
use lbx_plan::{Runtime, SymbolVersions};

use super::{Check, ElfFacts, File, Finding, Severity, Subject, Target};

/// A library or program, where it is.
struct Code<'c> {
    file: &'c File<'c>,
    facts: &'c ElfFacts,
}

/// All code of an artifact and its layers, by the names that others need it by.
struct Names<'n> {
    by_name: BTreeMap<&'n str, Vec<&'n ElfFacts>>,
    libraries: BTreeSet<&'n str>,
}

pub(super) fn check(subject: &Subject<'_>, layers: &[&Subject<'_>], target: &Target<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in &subject.files {
        if let Some(Err(error)) = file.facts.and_then(|facts| facts.elf.as_ref()) {
            let message = format!("cannot be read as machine code: {error}");
            found.push(Finding::new(Severity::Warning, Check::Elf, message).about(file));
        }
    }
    let own: Vec<Code<'_>> = subject.files.iter().filter_map(code).collect();
    if own.is_empty() {
        return found;
    }
    let others: Vec<Code<'_>> = layers.iter().flat_map(|layer| &layer.files).filter_map(code).collect();
    let names = Names::of(own.iter().chain(&others), target);
    let loaded = loaded(&own);
    let paths: BTreeSet<&str> = subject.files.iter().map(|file| file.path).collect();
    for code in &own {
        let severity = if loaded.contains(code.file.path) { Severity::Error } else { Severity::Warning };
        found.extend(code.check(severity, &names, target).into_iter().map(|one| one.about(code.file)));
        found.extend(code.leaving(subject.is_layer, &paths).map(|one| one.about(code.file)));
    }
    found
}

fn code<'c>(file: &'c File<'c>) -> Option<Code<'c>> {
    let Ok(facts) = file.facts?.elf.as_ref()? else { return None };
    Some(Code { file, facts })
}

impl<'n> Names<'n> {
    fn of(all: impl Iterator<Item = &'n Code<'n>>, target: &Target<'n>) -> Self {
        let mut by_name: BTreeMap<&str, Vec<&ElfFacts>> = BTreeMap::new();
        for code in all {
            let file_name = name_of(code.file.path);
            for name in [Some(file_name), code.facts.soname.as_deref()].into_iter().flatten() {
                by_name.entry(name).or_default().push(code.facts);
            }
        }
        let libraries = target.runtime.libraries.iter().chain(target.libraries);
        Self { by_name, libraries: libraries.map(String::as_str).collect() }
    }

    fn has(&self, library: &str, machine: &str) -> bool {
        self.libraries.contains(library)
            || self.by_name.get(library).is_some_and(|all| all.iter().any(|one| one.machine == machine))
    }
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The paths of what Python loads when it imports a module, and of what that needs.
fn loaded<'c>(own: &[Code<'c>]) -> BTreeSet<&'c str> {
    let mut loaded = BTreeSet::new();
    let mut queue: VecDeque<&Code<'_>> =
        own.iter().filter(|code| is_extension(name_of(code.file.path))).collect();
    while let Some(code) = queue.pop_front() {
        if !loaded.insert(code.file.path) {
            continue;
        }
        let is_needed = |other: &&Code<'_>| {
            let names = [Some(name_of(other.file.path)), other.facts.soname.as_deref()];
            names.into_iter().flatten().any(|name| code.facts.needed.iter().any(|needed| needed == name))
        };
        queue.extend(own.iter().filter(is_needed));
    }
    loaded
}

/// Whether Python would import a file: by its suffix, which says for which Python it is.
fn is_extension(name: &str) -> bool {
    name.ends_with(".abi3.so") || name.contains(".cpython-") && name.ends_with(".so")
}

impl Code<'_> {
    fn check(&self, severity: Severity, names: &Names<'_>, target: &Target<'_>) -> Vec<Finding> {
        let machine = target.arch.machine();
        if self.facts.machine != machine {
            let message =
                format!("is for {}, and the function runs on {}", self.facts.machine, target.arch.lambda());
            return vec![Finding::new(severity, Check::Elf, message)];
        }
        let mut found = Vec::new();
        for library in self.facts.needed.iter().filter(|library| !names.has(library, machine)) {
            let message = format!(
                "needs {library}, which is not in the artifact, its layers or {}",
                target.runtime.os
            );
            let hint = "add a package or a layer that has it, or put it into `lib/` of the artifact";
            found.push(Finding::new(severity, Check::Elf, message).with_hint(hint));
        }
        for (library, version, symbol) in &self.facts.versions {
            // Whoever brings the library brings its symbols.
            if !target.runtime.libraries.contains(library) || names.by_name.contains_key(library.as_str()) {
                continue;
            }
            if let Some(highest) = too_new(version, target.runtime) {
                let what = symbol.as_ref().map_or_else(String::new, |symbol| format!(" (for `{symbol}`)"));
                let message = format!(
                    "needs {version} of {library}{what}, and {} has {highest} at most",
                    target.runtime.runtime
                );
                let hint = "take a version of the package whose wheels fit, or build it from source in the runtime's image";
                found.push(Finding::new(severity, Check::Elf, message).with_hint(hint));
            }
        }
        found
    }

    /// Paths that lead to where nothing of the package can be.
    fn leaving(&self, is_layer: bool, paths: &BTreeSet<&str>) -> impl Iterator<Item = Finding> {
        let folder = self.file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let leaves = |path: &&String| match path.strip_prefix("$ORIGIN").or_else(|| path.strip_prefix("${ORIGIN}")) {
            Some(rest) => resolve(folder, rest).is_none(),
            None => {
                let known = ["/var/task", "/var/runtime", "/var/lang", "/opt", "/lib", "/usr/lib", "/lib64", "/usr/lib64"];
                !path.is_empty() && !known.iter().any(|known| path.starts_with(known))
            }
        };
        let all_there = self.facts.needed.iter().all(|library| {
            self.facts.paths.iter().all(|path| !path.starts_with('/')) || paths.contains(library.as_str())
        });
        let _ = (is_layer, all_there);
        self.facts.paths.iter().filter(leaves).map(|path| {
            let message = format!("looks for libraries in `{path}`, which is outside of the artifact");
            Finding::new(Severity::Warning, Check::Elf, message)
        })
    }
}

/// A path below the artifact's root, from a folder of it; none where it leads out.
fn resolve(folder: &str, rest: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in rest.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The highest version of its family that a runtime has, where that is below this one.
fn too_new(version: &str, runtime: &Runtime) -> Option<String> {
    let wanted = VersionName::parse(version)?;
    let SymbolVersions { glibcxx, cxxabi, gcc } = &runtime.symbols;
    let highest = match wanted.family.as_str() {
        "GLIBC" => &runtime.glibc,
        "GLIBCXX" => glibcxx,
        "CXXABI" => cxxabi,
        "GCC" => gcc,
        _ => return None,
    };
    let highest = format!("{}_{highest}", wanted.family);
    (VersionName::parse(&highest)? < wanted).then_some(highest)
}
