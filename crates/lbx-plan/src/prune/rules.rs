//! The rules as data: what each takes, why, and which packages it spares. The documentation's table is made of it.

use std::fmt::{self, Write as _};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A rule, with its name in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
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
    /// The AWS SDK, where the runtime has it.
    RuntimeProvided,
    /// Descriptions of AWS services that the user does not name.
    BotocoreData,
    /// Tests of packages.
    Tests,
    /// Documentation of packages.
    Docs,
    /// Examples of packages.
    Examples,
    /// Translations into other languages than English.
    Locales,
    /// Types for checkers.
    Typing,
    /// C, C++, Fortran and Cython.
    Sources,
    /// What the user's own patterns name.
    Excluded,
    /// Sources whose bytecode is there in their place.
    Compiled,
}

/// A rule that holds only where the user asks for it, by its name in `sets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Set {
    /// Tests of packages.
    Tests,
    /// Documentation of packages.
    Docs,
    /// Types for checkers: `.pyi`, `py.typed`, packages of stubs.
    Typing,
    /// C, C++, Fortran and Cython.
    Sources,
    /// Translations into other languages than English.
    Locales,
    /// Examples of packages.
    Examples,
}

impl Set {
    /// The word for it in `lbx.toml`, which is that of its rule.
    pub fn name(self) -> &'static str {
        RULES.iter().find(|data| data.set == Some(self)).map_or("", |data| data.rule.name())
    }
}

/// Packages that a rule spares although it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spare {
    /// The normalised name of the distribution.
    pub distribution: &'static str,
    /// How the paths begin that are spared; all of the distribution's when empty.
    pub paths: &'static str,
    /// Why.
    pub why: &'static str,
}

/// What there is to know of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleData {
    /// The rule.
    pub rule: Rule,
    /// The set that turns it on; none for a rule that always holds, or that a key of its own turns on.
    pub set: Option<Set>,
    /// What it takes, in words.
    pub matches: &'static str,
    /// Why that can be left out, in words.
    pub why: &'static str,
    /// Packages that it spares. Whether something may be imported is seen without being listed here.
    pub spares: &'static [Spare],
}

const fn spare(distribution: &'static str, paths: &'static str, why: &'static str) -> Spare {
    Spare { distribution, paths, why }
}

const COMPILES: &str = "it compiles, and these are what it compiles with";

/// Every rule, in the order in which they are asked. The first that takes a file is the one that is named.
pub const RULES: [RuleData; 15] = [
    RuleData {
        rule: Rule::Bytecode,
        set: None,
        matches: "`__pycache__` folders",
        why: "a cache is used only with the times of the files that it was made of, and a zip has times of its own",
        spares: &[],
    },
    RuleData {
        rule: Rule::ToolFiles,
        set: None,
        matches: "in your own code: `.git` and other version control, virtual environments, caches of tools, \
                  `node_modules`, `lbx.toml`, `pylock.toml`, and the output folder",
        why: "tools leave them, and no code reads them",
        spares: &[],
    },
    RuleData {
        rule: Rule::PackagingTools,
        set: None,
        matches: "pip, setuptools and wheel, when no package requires them and no line of your own code imports them",
        why: "they install packages, and in a function there is nothing to install",
        spares: &[],
    },
    RuleData {
        rule: Rule::RuntimeProvided,
        set: None,
        matches: "with `runtime-provided = \"drop\"`: boto3, botocore, s3transfer, jmespath, python-dateutil, six and \
                  urllib3, all or none",
        why: "the runtime has them, in versions that all requirements accept",
        spares: &[],
    },
    RuleData {
        rule: Rule::Scripts,
        set: None,
        matches: "command-line scripts of packages, in `bin/`",
        why: "nothing calls them in a function",
        spares: &[],
    },
    RuleData {
        rule: Rule::InstallerMetadata,
        set: None,
        matches: "`RECORD`, `INSTALLER`, `REQUESTED` and `direct_url.json` of installed packages",
        why: "installers read them when they uninstall; names, versions and entry points are in other files, which stay",
        spares: &[],
    },
    RuleData {
        rule: Rule::BotocoreData,
        set: None,
        matches: "with `botocore = [\"s3\", …]`: the folders of all other services in `botocore/data` and `boto3/data`",
        why: "a client reads the folder of its own service",
        spares: &[
            spare("botocore", "botocore/data/sts/", "credentials are asked of it"),
            spare("botocore", "botocore/data/sso/", "credentials are asked of it"),
            spare("botocore", "botocore/data/sso-oidc/", "credentials are asked of it"),
            spare("botocore", "botocore/data/signin/", "credentials are asked of it"),
        ],
    },
    RuleData {
        rule: Rule::Tests,
        set: Some(Set::Tests),
        matches: "in a package, in a folder `tests` or `test` that has modules `test_*.py` or `*_test.py`: these, and \
                  all that is no Python module; a folder `tests` or `test` beside packages, whole",
        why: "a test module is imported by a test runner alone; other modules of such folders may be imported by code, \
              and stay",
        spares: TESTS,
    },
    RuleData {
        rule: Rule::Docs,
        set: Some(Set::Docs),
        matches: "in a package, folders `docs` and `doc` that are no packages, but for Python modules; `share/doc` and \
                  `share/man`",
        why: "people read it",
        spares: &[
            spare("botocore", "botocore/docs/", "every client's documentation strings are written by it"),
            spare("boto3", "boto3/docs/", "every resource's documentation strings are written by it"),
        ],
    },
    RuleData {
        rule: Rule::Examples,
        set: Some(Set::Examples),
        matches: "in a package, folders `examples` and `example` that are no packages",
        why: "people read them",
        spares: &[],
    },
    RuleData {
        rule: Rule::Locales,
        set: Some(Set::Locales),
        matches: "`LANGUAGE/LC_MESSAGES/*.mo` and `*.po` of other languages than English",
        why: "gettext takes the text as it is in the code where there is no translation; what is no gettext catalog, such \
              as the data of babel and the modules of Faker, is not looked at",
        spares: LOCALES,
    },
    RuleData {
        rule: Rule::Typing,
        set: Some(Set::Typing),
        matches: "`*.pyi`, `py.typed`, and packages of stubs (`NAME-stubs`)",
        why: "type checkers read them; packages that require lazy-loader are spared, because it reads their stubs",
        spares: TYPING,
    },
    RuleData {
        rule: Rule::Sources,
        set: Some(Set::Sources),
        matches: "`.c`, `.cc`, `.cpp`, `.cxx`, `.h`, `.hh`, `.hpp`, `.hxx`, `.pyx`, `.pxd`, `.pxi`, `.f`, `.f90`",
        why: "a compiler reads them, and Lambda has none",
        spares: SOURCES,
    },
    RuleData {
        rule: Rule::Excluded,
        set: None,
        matches: "what your own `exclude` names",
        why: "you say so",
        spares: &[],
    },
    RuleData {
        rule: Rule::Compiled,
        set: None,
        matches: "with `bytecode = \"only\"`: Python modules that were compiled, but for what your own `keep` names",
        why: "their bytecode is there in their place",
        spares: &[],
    },
];

const TESTS: &[Spare] = &[
    spare("numba", "numba/tests/test_runtests.py", "numba.misc.POST imports it"),
    spare("scipy", "scipy/special/tests/test_hyp2f1.py", "scipy.special._precompute imports it"),
];

const LOCALES: &[Spare] = &[];

const TYPING: &[Spare] = &[
    spare("jedi", "", "it reads stubs to complete code"),
    spare("mypy", "", "it reads stubs to check code"),
    spare("pyright", "", "it reads stubs to check code"),
    spare("basedpyright", "", "it reads stubs to check code"),
    spare("pytype", "", "it reads stubs to check code"),
    spare("typeshed-client", "", "it reads stubs to look names up"),
];

const SOURCES: &[Spare] = &[
    spare("aesara", "", COMPILES),
    spare("cffi", "", COMPILES),
    spare("clang", "", COMPILES),
    spare("cppyy-cling", "", COMPILES),
    spare("cupy", "", COMPILES),
    spare("cython", "", COMPILES),
    spare("libclang", "", COMPILES),
    spare("mypy", "", COMPILES),
    spare("nanobind", "", COMPILES),
    spare("numba", "", COMPILES),
    spare("numba-cuda", "", COMPILES),
    spare("numpy", "numpy/_core/include/numpy/random/", "numpy.random._examples reads it"),
    spare("pybind11", "", COMPILES),
    spare("pycparser-fake-libc", "", "it is nothing else"),
    spare("pycuda", "", COMPILES),
    spare("pytensor", "", COMPILES),
    spare("pythran", "", COMPILES),
    spare("taichi", "", COMPILES),
    spare("tensorflow", "", COMPILES),
    spare("theano", "", COMPILES),
    spare("torch", "", COMPILES),
    spare("triton", "", COMPILES),
    spare("warp-lang", "", COMPILES),
    spare("ziglang", "", COMPILES),
];

impl Rule {
    /// Every rule, in the order in which they are asked.
    pub const ALL: [Self; RULES.len()] = {
        let mut all = [Self::Excluded; RULES.len()];
        let mut index = 0;
        while index < RULES.len() {
            all[index] = RULES[index].rule;
            index += 1;
        }
        all
    };

    /// What there is to know of it.
    pub fn data(self) -> &'static RuleData {
        // A test sees to it that each is there.
        RULES.iter().find(|data| data.rule == self).unwrap_or(&RULES[RULES.len() - 1])
    }

    /// The rule's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytecode => "bytecode",
            Self::InstallerMetadata => "installer-metadata",
            Self::Scripts => "scripts",
            Self::PackagingTools => "packaging-tools",
            Self::ToolFiles => "tool-files",
            Self::RuntimeProvided => "runtime-provided",
            Self::BotocoreData => "botocore-data",
            Self::Tests => "tests",
            Self::Docs => "docs",
            Self::Examples => "examples",
            Self::Locales => "locales",
            Self::Typing => "typing",
            Self::Sources => "sources",
            Self::Excluded => "excluded",
            Self::Compiled => "compiled",
        }
    }

    /// Why it spares a file of a distribution, if its table has the file.
    pub(super) fn spares(self, distribution: &str, path: &str) -> Option<&'static Spare> {
        let spares = self.data().spares;
        spares.iter().find(|spare| spare.distribution == distribution && path.starts_with(spare.paths))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The table as Markdown: first the rules that always hold or have a key of their own, then the sets with what they spare.
pub fn markdown() -> String {
    let mut text = String::from("| rule | takes | because |\n|---|---|---|\n");
    for data in RULES.iter().filter(|data| data.set.is_none()) {
        let _ = writeln!(text, "| `{}` | {} | {} |", data.rule, data.matches, data.why);
    }
    text.push_str("\n| set | takes | because | spares |\n|---|---|---|---|\n");
    for data in RULES.iter().filter(|data| data.set.is_some()) {
        let _ =
            writeln!(text, "| `{}` | {} | {} | {} |", data.rule, data.matches, data.why, spared(data.spares));
    }
    text
}

/// Which packages are spared, those with the same reason together.
fn spared(spares: &[Spare]) -> String {
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for spare in spares {
        let paths = spare.paths.trim_end_matches('/');
        let name = if paths.is_empty() { spare.distribution.to_owned() } else { format!("`{paths}`") };
        match groups.iter_mut().find(|(why, _)| *why == spare.why) {
            Some((_, names)) => names.push(name),
            None => groups.push((spare.why, vec![name])),
        }
    }
    let groups: Vec<String> =
        groups.into_iter().map(|(why, names)| format!("{}: {why}", names.join(", "))).collect();
    groups.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_in_the_table_once_and_named_as_it_is_written() {
        for rule in Rule::ALL {
            assert_eq!(RULES.iter().filter(|data| data.rule == rule).count(), 1, "{rule}");
            assert_eq!(rule.data().rule, rule);
            assert_eq!(serde_json::to_string(&rule).unwrap(), format!("\"{rule}\""));
        }
        let mut all = Rule::ALL.to_vec();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), Rule::Compiled as usize + 1, "a rule has no data");
    }

    #[test]
    fn a_set_has_the_name_of_its_rule() {
        for data in RULES {
            let Some(set) = data.set else { continue };
            assert_eq!(serde_json::to_string(&set).unwrap(), format!("\"{}\"", data.rule));
        }
    }

    #[test]
    fn names_of_spared_distributions_are_normalised() {
        for spare in RULES.iter().flat_map(|data| data.spares) {
            assert_eq!(crate::locks::normalized(spare.distribution), spare.distribution);
        }
    }

    #[test]
    fn the_documentation_has_the_table() {
        let page = include_str!("../../../../docs/prune.md");
        assert!(page.contains(&markdown()), "docs/prune.md lacks this table:\n{}", markdown());
    }
}
