//! What pip says when it fails, turned into advice. The words are pip's and those of the tools that it starts; where
//! none of them is known, there is no advice, and the words speak for themselves.

/// Where there are compilers.
const ELSEWHERE: &str = "pin a version that has one, or build in an image that has them (--image \
     public.ecr.aws/sam/build-python3.X)";

/// The advice that belongs to what pip said.
pub(crate) fn hint(output: &str) -> Option<String> {
    match compiler(output) {
        Some(Compiler::Missing) => {
            let who = without_wheel(output, "need");
            return Some(format!("{who} a compiler, which the image lacks: {ELSEWHERE}"));
        }
        Some(Compiler::Fails) => {
            let who = without_wheel(output, "do");
            return Some(format!(
                "{who} not compile in this image, which may lack a header or a library: {ELSEWHERE}"
            ));
        }
        None => {}
    }
    let known = ADVICE.iter().find(|(words, _)| words.iter().any(|words| output.contains(words)));
    known.map(|(_, advice)| (*advice).to_owned())
}

/// The advice that belongs to what the build of one source said.
pub(crate) fn build_hint(source: &str, build_image: &str, output: &str) -> Option<String> {
    let instead = format!(
        "pin a version that has a wheel, or let lbx.toml have `build-image = \"{build_image}\"` in [project], \
         and `system-packages` with what that lacks"
    );
    match compiler(output)? {
        Compiler::Missing => Some(format!(
            "{source} needs a compiler{}, which the image lacks: {instead}",
            tool(output).map(|tool| format!(" (`{tool}`)")).unwrap_or_default()
        )),
        Compiler::Fails => Some(format!(
            "{source} does not compile in this image, which may lack a header or a library: {instead}"
        )),
    }
}

/// The first compiler that is named.
fn tool(output: &str) -> Option<&str> {
    let words = output.lines().flat_map(|line| line.split(['\'', '"', '`']));
    let mut named = words.filter(|word| is_compiler(word));
    named.next().map(|word| word.rsplit('/').next().unwrap_or(word))
}

/// What pip says in so many words, and what to do about it.
const ADVICE: [(&[&str], &str); 4] = [
    (
        &["Temporary failure in name resolution", "Failed to establish a new connection"],
        "pip cannot reach the package index: check the network, or PIP_INDEX_URL",
    ),
    (
        &["CERTIFICATE_VERIFY_FAILED"],
        "pip does not trust the index's certificate: point SSL_CERT_FILE at your CA bundle",
    ),
    (
        &["DO NOT MATCH THE HASHES"],
        "the index has other bytes than the requirement file pins: find out why before you change the hash",
    ),
    (
        &["No matching distribution found"],
        "no version of that package fits this Python, CPU and C library; `lbx build -v` shows what pip looked at",
    ),
];

/// How a build that needs a compiler fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compiler {
    /// There is none.
    Missing,
    /// It says no.
    Fails,
}

/// What is told of a compiler. A line that says that there is none outweighs one that says that it failed, because
/// distutils says both when there is none.
fn compiler(output: &str) -> Option<Compiler> {
    const MISSING: [&str; 5] = [
        "autoconf error",
        "no acceptable C compiler",
        "can't find Rust compiler",
        "Unknown compiler(s)",
        "No CMAKE_C_COMPILER could be found",
    ];
    let found = |line: &str| {
        if MISSING.iter().any(|words| line.contains(words)) {
            return Some(Compiler::Missing);
        }
        if !line.split(['\'', '"', '`']).any(is_compiler) {
            return None;
        }
        let absent = line.contains("No such file or directory") || line.contains("unable to execute");
        let fails = line.contains("error: command ") && line.contains(" failed");
        if absent { Some(Compiler::Missing) } else { fails.then_some(Compiler::Fails) }
    };
    let all: Vec<Compiler> = output.lines().filter_map(found).collect();
    all.iter().find(|one| **one == Compiler::Missing).or(all.first()).copied()
}

/// Whether a word names a compiler: `gcc`, `/usr/bin/x86_64-linux-gnu-gcc-12`.
fn is_compiler(word: &str) -> bool {
    const COMPILERS: [&str; 10] =
        ["c++", "cargo", "cc", "clang", "clang++", "f77", "g++", "gcc", "gfortran", "rustc"];
    let name = word.rsplit('/').next().unwrap_or(word);
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let name = name.strip_suffix('-').unwrap_or(name);
    COMPILERS.iter().any(|compiler| {
        name.strip_suffix(compiler).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('-'))
    })
}

/// `` `a` has no wheel for this runtime and needs``: those that were not built, and a verb that fits their number.
fn without_wheel(output: &str, verb: &str) -> String {
    let failed = failed(output);
    let names: Vec<String> = failed.iter().map(|name| format!("`{name}`")).collect();
    let third = if verb.ends_with('o') { "es" } else { "s" };
    match names.as_slice() {
        [] => format!("a package has no wheel for this runtime and {verb}{third}"),
        [name] => format!("{name} has no wheel for this runtime and {verb}{third}"),
        [first @ .., last] => {
            format!("{} and {last} have no wheels for this runtime and {verb}", first.join(", "))
        }
    }
}

/// The packages that pip could not build, in the order of its words. Other lines are a stranger's, who may say
/// anything there: what is no name is not taken for one.
fn failed(output: &str) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for line in output.lines() {
        let line = line.trim_start_matches(|c: char| c.is_whitespace() || c == '×');
        let line = line.strip_prefix("ERROR: ").unwrap_or(line);
        let names = if let Some(name) = line.strip_prefix("Failed building wheel for ") {
            name
        } else if let Some((name, _)) = line
            .strip_prefix("Building wheel for ")
            .and_then(|line| line.split_once(" did not run successfully"))
        {
            name.split(' ').next().unwrap_or(name)
        } else if let Some(names) = line.strip_prefix("Failed to build ") {
            // `Failed to build 'a' when …` is one, `Failed to build a b` is two, and the rest is a sentence.
            names.split(" when ").next().unwrap_or(names)
        } else {
            continue;
        };
        let names: Vec<&str> = names.split_whitespace().map(|name| name.trim_matches('\'')).collect();
        let is_sentence = ["one or more wheels", "installable wheels"].iter().any(|text| line.contains(text));
        if !is_sentence && names.iter().all(|name| is_name(name)) {
            found.extend(names);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|name| seen.insert(*name));
    found
}

fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= 100 && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pip_said_leads_to_the_advice_that_fits() {
        let hint = |output: &str| hint(output).unwrap_or_default();
        assert!(hint("ERROR: No matching distribution found for nope").contains("no version"));
        assert!(hint("[Errno -3] Temporary failure in name resolution").contains("network"));
        assert!(hint("RuntimeError: autoconf error").contains("a compiler, which the image lacks"));
        assert!(hint("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES").contains("other bytes"));
        assert_eq!(super::hint("ERROR: ResolutionImpossible"), None);
    }

    #[test]
    fn a_compiler_that_is_missing_is_told_from_one_that_fails() {
        let missing = [
            "      error: command 'gcc' failed: No such file or directory",
            "error: command '/usr/bin/x86_64-linux-gnu-gcc' failed: No such file or directory",
            "FileNotFoundError: [Errno 2] No such file or directory: '/opt/bin/gcc-12'",
            "error: [Errno 2] No such file or directory: 'cc'",
            "unable to execute 'gcc': No such file or directory\nerror: command 'gcc' failed with exit status 1",
            "error: command 'gcc' failed with exit status 1\nunable to execute 'gcc': No such file or directory",
            "error: can't find Rust compiler",
        ];
        for words in missing {
            assert_eq!(compiler(words), Some(Compiler::Missing), "{words}");
        }
        for words in [
            "error: command 'gcc' failed with exit status 1",
            "error: command '/usr/bin/g++' failed with exit code 1",
        ] {
            assert_eq!(compiler(words), Some(Compiler::Fails), "{words}");
        }
        for words in ["No such file or directory: 'succ'", "error: command 'sass' failed", "using 'gcc'"] {
            assert_eq!(compiler(words), None, "{words}");
        }
    }

    #[test]
    fn the_packages_that_were_not_built_are_named_once_each() {
        let words = "  ERROR: Failed building wheel for netifaces\n\
             × Building wheel for fast-er (pyproject.toml) did not run successfully.\n\
             Failed to build netifaces fast-er\n\
             ERROR: Failed to build one or more wheels\n\
             ERROR: Failed to build 'third' when getting requirements to build wheel\n\
             Failed to build \u{1b}[2J\n\
             error: command 'gcc' failed: No such file or directory\n";
        assert_eq!(failed(words), ["netifaces", "fast-er", "third"]);
        let text = hint(words).unwrap();
        let start =
            "`netifaces`, `fast-er` and `third` have no wheels for this runtime and need a compiler, which";
        assert!(text.starts_with(start), "{text}");
        let text = hint("Failed to build a\nerror: command 'gcc' failed with exit status 1").unwrap();
        assert!(text.starts_with("`a` has no wheel for this runtime and does not compile"), "{text}");
    }
}
