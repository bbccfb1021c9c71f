//! Machine code: for which CPU it is, and whether all that it asks for is there: in the artifact, its layers, or the system
//! that Lambda has.
//!
//! What Python loads by itself, and what that needs in turn, must work. The rest may be for other machines: some packages
//! ship code for several.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lbx_elf::VersionName;
use lbx_plan::{Runtime, SymbolVersions};

use super::{Check, ElfFacts, File, Finding, Lead, Severity, Subject, Target};

/// A library or program, where it is.
struct Code<'c> {
    file: &'c File<'c>,
    facts: &'c ElfFacts,
    /// By what others need it.
    names: Vec<&'c str>,
}

/// All code of an artifact and its layers, by the names that others need it by.
struct Names<'n> {
    by_name: BTreeMap<&'n str, Vec<&'n ElfFacts>>,
    libraries: BTreeSet<&'n str>,
    /// Whether there is no more.
    whole: bool,
}

pub(super) fn check(
    subject: &Subject<'_>,
    layers: Option<&[&Subject<'_>]>,
    target: &Target<'_>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in &subject.files {
        if let Some(Err(error)) = file.facts.and_then(|facts| facts.elf.as_ref()) {
            let message = format!("cannot be read as machine code: {error}");
            found.push(Finding::new(Severity::Warning, Check::Elf, message).about(file));
        }
    }
    let own: Vec<Code<'_>> = code(subject);
    if own.is_empty() {
        return found;
    }
    let others: Vec<Code<'_>> = layers.unwrap_or_default().iter().flat_map(|layer| code(layer)).collect();
    let names = Names::of(own.iter().chain(&others), layers.is_some(), target);
    let loaded = loaded(&own);
    for code in &own {
        let severity = if loaded.contains(code.file.path) { Severity::Error } else { Severity::Warning };
        found.extend(code.check(severity, &names, target).into_iter().map(|one| one.about(code.file)));
        found.extend(code.leaving().map(|one| one.about(code.file)));
    }
    found
}

fn code<'c>(subject: &'c Subject<'c>) -> Vec<Code<'c>> {
    let mut links: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (path, file) in &subject.names {
        links.entry(*file).or_default().push(name_of(path));
    }
    let code = |(at, file): (usize, &'c File<'c>)| {
        let Ok(facts) = file.facts?.elf.as_ref()? else { return None };
        let mut names = links.remove(&at).unwrap_or_default();
        names.extend([Some(name_of(file.path)), facts.soname.as_deref()].into_iter().flatten());
        Some(Code { file, facts, names })
    };
    subject.files.iter().enumerate().filter_map(code).collect()
}

impl<'n> Names<'n> {
    fn of(all: impl Iterator<Item = &'n Code<'n>>, whole: bool, target: &Target<'n>) -> Self {
        let mut by_name: BTreeMap<&str, Vec<&ElfFacts>> = BTreeMap::new();
        for code in all {
            for name in &code.names {
                by_name.entry(name).or_default().push(code.facts);
            }
        }
        let libraries = target.runtime.libraries.iter().map(String::as_str).collect();
        Self { by_name, libraries, whole }
    }

    fn has(&self, library: &str, machine: &str) -> bool {
        !self.whole
            || self.libraries.contains(library)
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
            other.names.iter().any(|name| code.facts.needed.iter().any(|needed| needed == name))
        };
        queue.extend(own.iter().filter(is_needed));
    }
    loaded
}

/// Whether Python would import a file: by its suffix, which says for which Python it is.
fn is_extension(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".so") else { return false };
    stem.strip_suffix(".abi3").is_some() || stem.contains(".cpython-")
}

impl Code<'_> {
    fn check(&self, severity: Severity, names: &Names<'_>, target: &Target<'_>) -> Vec<Finding> {
        let machine = target.arch.machine();
        if self.facts.machine != machine {
            let message =
                format!("is for {}, and the function runs on {}", self.facts.machine, target.arch.lambda());
            return vec![Finding::new(severity, Check::Elf, message).with_lead(Lead::Index)];
        }
        let mut found = Vec::new();
        for library in self.facts.needed.iter().filter(|library| !names.has(library, machine)) {
            found.extend(missing(library, severity, target));
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
                found
                    .push(Finding::new(severity, Check::Elf, message).with_hint(hint).with_lead(Lead::Index));
            }
        }
        found
    }

    /// Paths that lead to where nothing of the package can be.
    fn leaving(&self) -> impl Iterator<Item = Finding> {
        let folder = self.file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let leaves = |path: &&String| {
            let relative = path.strip_prefix("$ORIGIN").or_else(|| path.strip_prefix("${ORIGIN}"));
            match relative {
                Some(rest) => resolve(folder, rest).is_none(),
                None => !path.is_empty() && !SYSTEM.iter().any(|known| path.starts_with(known)),
            }
        };
        self.facts.paths.iter().filter(leaves).map(|path| {
            let message = format!("looks for libraries in `{path}`, which is outside of the artifact");
            Finding::new(Severity::Warning, Check::Elf, message)
        })
    }
}

/// A library that is not where functions look for it, unless the image has it. An image is asked about what would be an error
/// alone, so that what is said does not depend on whether one happens to be open.
fn missing(library: &str, severity: Severity, target: &Target<'_>) -> Option<Finding> {
    const ADD: &str = "add a package or a layer that has it, or put it into `lib/` of the artifact";
    let os = &target.runtime.os;
    let has = |image: &&super::ImageLibraries| severity == Severity::Error && image.names.contains(library);
    match target.image.filter(has) {
        Some(image) if image.is_runtimes => None,
        Some(image) => {
            let message =
                format!("needs {library}, which {} has, and {os} is not known to have", image.image);
            let hint = format!("where functions run in another image than that, {ADD}");
            Some(Finding::new(Severity::Warning, Check::Elf, message).with_hint(hint))
        }
        None => {
            let message = format!("needs {library}, which is not in the artifact, its layers or {os}");
            Some(Finding::new(severity, Check::Elf, message).with_hint(ADD).with_lead(Lead::Image))
        }
    }
}

/// Where Lambda has libraries.
const SYSTEM: [&str; 6] = ["/var/task", "/var/runtime", "/var/lang", "/opt", "/lib", "/usr/lib"];

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

#[cfg(test)]
mod tests {
    use super::super::{Facts, ImageLibraries};
    use super::*;

    fn facts(change: impl FnOnce(&mut ElfFacts)) -> Facts {
        let mut elf = ElfFacts { machine: "x86_64".to_owned(), is_shared: true, ..ElfFacts::default() };
        change(&mut elf);
        Facts { elf: Some(Ok(elf)), ..Facts::default() }
    }

    fn needs(library: &str) -> Facts {
        facts(|elf| elf.needed = vec![library.to_owned()])
    }

    fn subject<'s>(files: &'s [(&str, Facts)]) -> Subject<'s> {
        let file = |(path, facts): &'s (&str, Facts)| File { facts: Some(facts), ..File::of_package(path) };
        Subject {
            name: "f",
            zip_size: None,
            is_layer: false,
            files: files.iter().map(file).collect(),
            names: Vec::new(),
        }
    }

    fn found(own: &[(&str, Facts)], layer: Option<&[(&str, Facts)]>) -> Vec<(Severity, String)> {
        found_with(own, layer, None)
    }

    fn found_with(
        own: &[(&str, Facts)],
        layer: Option<&[(&str, Facts)]>,
        image: Option<&ImageLibraries>,
    ) -> Vec<(Severity, String)> {
        let runtime = Runtime::find("python3.11").unwrap();
        let target = Target { runtime: &runtime, arch: lbx_plan::Architecture::X86_64, image };
        let layer = subject(layer.unwrap_or_default());
        let found = check(&subject(own), Some(&[&layer]), &target);
        found.into_iter().map(|one| (one.severity, one.message)).collect()
    }

    const MODULE: &str = "a/b.cpython-311-x86_64-linux-gnu.so";

    #[test]
    fn a_library_of_the_system_the_artifact_or_a_layer_is_there() {
        assert_eq!(found(&[(MODULE, needs("libc.so.6"))], None), []);
        let bundled = facts(|elf| elf.soname = Some("libx-1.so.3".to_owned()));
        assert_eq!(found(&[(MODULE, needs("libx-1.so.3")), ("a.libs/libx.so", bundled.clone())], None), []);
        assert_eq!(found(&[(MODULE, needs("libx-1.so.3"))], Some(&[("lib/libx.so", bundled)])), []);
    }

    #[test]
    fn a_library_that_is_nowhere_is_an_error_where_python_would_load_it_and_else_a_warning() {
        let missing = found(&[(MODULE, needs("libpq.so.5"))], None);
        assert_eq!(missing[0].0, Severity::Error);
        assert!(
            missing[0].1.contains("libpq.so.5") && missing[0].1.contains("Amazon Linux 2"),
            "{missing:?}"
        );
        assert_eq!(found(&[("a/plugin.so", needs("libpq.so.5"))], None)[0].0, Severity::Warning);
        let through = [(MODULE, needs("liby.so")), ("a/liby.so", needs("libpq.so.5"))];
        assert_eq!(found(&through, None)[0].0, Severity::Error, "what is needed in turn");
    }

    #[test]
    fn a_library_of_the_image_is_there_where_functions_have_that_image() {
        let image = |is_runtimes| ImageLibraries {
            image: "registry.example.org/python:3".to_owned(),
            is_runtimes,
            names: ["libpq.so.5".to_owned()].into(),
        };
        let of = |path: &str, image: &ImageLibraries| {
            found_with(&[(path, needs("libpq.so.5"))], None, Some(image))
        };
        assert_eq!(of(MODULE, &image(true)), []);
        let other = of(MODULE, &image(false));
        assert!(other[0].0 == Severity::Warning && other[0].1.contains("registry.example.org"), "{other:?}");
        // What is a warning anyway is the same with an image and without.
        assert_eq!(of("a/plugin.so", &image(true)), found(&[("a/plugin.so", needs("libpq.so.5"))], None));
        let elsewhere = found_with(&[(MODULE, needs("libq.so"))], None, Some(&image(true)));
        assert_eq!(elsewhere[0].0, Severity::Error);
    }

    #[test]
    fn another_cpu_is_found() {
        let arm = || facts(|elf| elf.machine = "aarch64".to_owned());
        assert_eq!(found(&[(MODULE, arm())], None)[0].0, Severity::Error);
        assert_eq!(found(&[("a/attach_arm.so", arm())], None)[0].0, Severity::Warning);
        // A library for another CPU does not count.
        let both = [(MODULE, needs("liby.so")), ("a/liby.so", arm())];
        assert!(found(&both, None).iter().any(|(_, message)| message.contains("needs liby.so")));
    }

    #[test]
    fn versions_of_symbols_count_by_the_target_and_name_a_symbol() {
        let of = |library: &str, version: &str| {
            facts(|elf| {
                elf.needed = vec![library.to_owned()];
                elf.versions = vec![(library.to_owned(), version.to_owned(), Some("memcpy".to_owned()))];
            })
        };
        for (library, version) in [
            ("libc.so.6", "GLIBC_2.26"),
            ("libstdc++.so.6", "GLIBCXX_3.4.24"),
            ("libc.so.6", "GLIBC_PRIVATE"),
            ("libm.so.6", "GLIBC_2.2.5"),
        ] {
            assert_eq!(found(&[(MODULE, of(library, version))], None), [], "{version}");
        }
        for (library, version) in [
            ("libc.so.6", "GLIBC_2.28"),
            ("libstdc++.so.6", "GLIBCXX_3.4.29"),
            ("libstdc++.so.6", "CXXABI_1.3.13"),
        ] {
            let found = found(&[(MODULE, of(library, version))], None);
            assert!(found[0].1.contains(version) && found[0].1.contains("`memcpy`"), "{found:?}");
        }
        // Who brings a library brings its symbols.
        let bundled = facts(|elf| elf.soname = Some("libstdc++.so.6".to_owned()));
        let both = [(MODULE, of("libstdc++.so.6", "GLIBCXX_3.4.29")), ("a.libs/libstdc++.so.6", bundled)];
        assert_eq!(found(&both, None), []);
    }

    #[test]
    fn paths_that_lead_out_are_found() {
        let of = |path: &str| facts(|elf| elf.paths = vec![path.to_owned()]);
        for inside in
            ["$ORIGIN", "$ORIGIN/../a.libs", "${ORIGIN}/lib", "/opt/lib", "/var/task/lib", "/usr/lib64"]
        {
            assert_eq!(found(&[("a/b.so", of(inside))], None), [], "{inside}");
        }
        for outside in ["$ORIGIN/../../lib", "/home/me/lib", "lib", "/usr/local/cuda/lib64"] {
            assert_eq!(found(&[("a/b.so", of(outside))], None).len(), 1, "{outside}");
        }
    }
}
