//! A policy: what was chosen and what is known of an artifact's packages; and the verdict on a file by it.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::Serialize;

use super::matching::{self, Match};
use super::rules::{RULES, Rule, Set, Spare};
use super::shape::{Distribution, Shape};
use super::{ALWAYS_NEEDED, Choices, Origin, botocore, is_tool_file};

/// Counts up whenever a rule takes or spares something else than before, so that nothing is reused that an older set of
/// rules made.
const RULES_VERSION: u32 = 1;

/// What becomes of each file of an artifact. Without anything said, the rules of the first set hold.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    choices: Choices,
    unrequired: BTreeSet<String>,
    provided: BTreeSet<String>,
    /// What stays of botocore's data, with what is always needed.
    services: Option<BTreeSet<String>>,
    /// By the distribution's name.
    shapes: HashMap<String, Shape>,
}

/// What becomes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'p> {
    /// The artifact has it; perhaps although a rule is about it.
    Keep(Option<SparedBy<'p>>),
    /// The rule leaves it out.
    Drop(Rule),
}

/// Why a file is kept that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparedBy<'p> {
    /// The rule.
    pub rule: Rule,
    /// Why it did not take the file.
    pub reason: Reason<'p>,
}

/// Why a rule does not take a file that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason<'p> {
    /// The table of rules has it.
    Listed(&'static Spare),
    /// It is a module that is no test, so code may import it.
    Module,
    /// Its folder has the name of tests and none in it, so it is code.
    NoTests,
    /// Its folder is a package, so code may import it.
    Package,
    /// The distribution has nothing else at the top.
    AllThereIs,
    /// Stubs are read when the package is imported.
    StubsAreRead,
    /// It describes a service that the user names.
    Service,
    /// The distribution's files were not looked at.
    Unseen,
    /// This pattern of the user's keeps it.
    Pattern(&'p str),
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(spare) => write!(f, "{}: {}", spare.distribution, spare.why),
            Self::Module => f.write_str("it is a module that code may import"),
            Self::NoTests => f.write_str("its folder has no tests, so it is code"),
            Self::Package => f.write_str("its folder is a package that code may import"),
            Self::AllThereIs => f.write_str("its distribution has nothing else at the top"),
            Self::StubsAreRead => f.write_str("its package requires lazy-loader, which reads stubs"),
            Self::Service => f.write_str("`botocore` names the service"),
            Self::Unseen => f.write_str("the files of its distribution were not looked at"),
            Self::Pattern(pattern) => write!(f, "`keep` has `{pattern}`"),
        }
    }
}

impl Policy {
    /// A policy by what was chosen.
    pub fn new(choices: &Choices) -> Self {
        let services = choices
            .botocore
            .as_ref()
            .map(|named| named.iter().cloned().chain(ALWAYS_NEEDED.map(str::to_owned)).collect());
        Self { choices: choices.clone(), services, ..Self::default() }
    }

    /// Leaves these packaging tools out, which nothing requires, as [`super::unrequired_tools`] finds them.
    pub fn drop_tools(&mut self, names: impl IntoIterator<Item = String>) {
        self.unrequired.extend(names);
    }

    /// Leaves these distributions out, which the runtime has, as [`super::provided()`] finds them.
    pub fn drop_provided(&mut self, names: impl IntoIterator<Item = String>) {
        self.provided.extend(names);
    }

    /// Looks at the files of a distribution: all that it installs, whatever becomes of them, relative to where it is
    /// installed. Without that, sets spare what depends on it.
    pub fn prepare<'a>(&mut self, distribution: Distribution<'_>, paths: impl IntoIterator<Item = &'a str>) {
        self.shapes.insert(distribution.name.to_owned(), Shape::new(distribution, paths));
    }

    /// All that can change a verdict, but for the distributions themselves, as one line: two policies with the same key
    /// agree on every file of the same distributions.
    pub fn key(&self) -> String {
        #[derive(Serialize)]
        struct Key<'a> {
            rules: u32,
            sets: &'a BTreeSet<Set>,
            unrequired: &'a BTreeSet<String>,
            provided: &'a BTreeSet<String>,
            botocore: Option<&'a BTreeSet<String>>,
            exclude: &'a [String],
            keep: &'a [String],
        }
        let key = Key {
            rules: RULES_VERSION,
            sets: &self.choices.sets,
            unrequired: &self.unrequired,
            provided: &self.provided,
            botocore: self.services.as_ref(),
            exclude: self.choices.exclude.lines(),
            keep: self.choices.keep.lines(),
        };
        // Lists and strings alone: nothing that could fail.
        serde_json::to_string(&key).unwrap_or_default()
    }

    /// The pattern of the user's that leaves a file out, if one does.
    pub fn excluded_by(&self, path: &str) -> Option<&str> {
        self.choices.exclude.matched(path)
    }

    /// The pattern of the user's that keeps a file, if one does.
    pub fn kept_by(&self, path: &str) -> Option<&str> {
        self.choices.keep.matched(path)
    }

    /// The set that would leave a kept file out, were it chosen.
    pub fn offered(&self, path: &str, origin: Origin<'_>) -> Option<Set> {
        let others =
            RULES.iter().filter(|data| data.set.is_some_and(|set| !self.choices.sets.contains(&set)));
        let mut taken = others.filter(|data| self.asked(data.rule, path, origin) == Match::Takes);
        taken.find_map(|data| data.set)
    }

    /// What a rule says, chosen or not, before the user's own patterns.
    fn asked<'p>(&'p self, rule: Rule, path: &str, origin: Origin<'_>) -> Match<'p> {
        let takes = |takes: bool| if takes { Match::Takes } else { Match::No };
        let (distribution, script) = match origin {
            Origin::Source => {
                return match rule {
                    Rule::Bytecode => takes(matching::is_bytecode(path)),
                    Rule::ToolFiles => takes(is_tool_file(path)),
                    Rule::Excluded => takes(self.excluded_by(path).is_some()),
                    _ => Match::No,
                };
            }
            Origin::Wheel { distribution, script } => (distribution, script),
        };
        let shape = self.shapes.get(distribution);
        let found = match rule {
            Rule::Bytecode => takes(matching::is_bytecode(path)),
            // Whether it compiles, only who compiles it knows.
            Rule::ToolFiles | Rule::Compiled => Match::No,
            Rule::PackagingTools => takes(self.unrequired.contains(distribution)),
            Rule::RuntimeProvided => takes(self.provided.contains(distribution)),
            Rule::Scripts => takes(script),
            Rule::InstallerMetadata => takes(matching::is_installer_metadata(path)),
            Rule::Excluded => takes(self.excluded_by(path).is_some()),
            _ if matching::is_metadata(path) => Match::No,
            Rule::BotocoreData => self
                .services
                .as_ref()
                .map_or(Match::No, |services| botocore::data(path, distribution, services)),
            Rule::Tests => matching::tests(path, distribution, shape),
            Rule::Docs => matching::docs(path, distribution, shape),
            Rule::Examples => matching::examples(path, distribution, shape),
            Rule::Locales => matching::locales(path),
            Rule::Typing => matching::typing(path, shape),
            Rule::Sources => matching::sources(path),
        };
        match (found == Match::No, rule.spares(distribution, path)) {
            (false, Some(spare)) => Match::Spares(Reason::Listed(spare)),
            _ => found,
        }
    }
}

/// What becomes of a file.
///
/// `path` is where the file would be installed, relative to the root or to `python/`.
pub fn verdict<'p>(path: &str, origin: Origin<'_>, policy: &'p Policy) -> Verdict<'p> {
    let mut spared = None;
    for data in &RULES {
        if data.set.is_some_and(|set| !policy.choices.sets.contains(&set)) {
            continue;
        }
        let reason = match policy.asked(data.rule, path, origin) {
            Match::No => continue,
            Match::Spares(reason) => reason,
            Match::Takes => match kept_by(path, data.rule, policy) {
                None => return Verdict::Drop(data.rule),
                Some(pattern) => Reason::Pattern(pattern),
            },
        };
        spared.get_or_insert(SparedBy { rule: data.rule, reason });
    }
    Verdict::Keep(spared)
}

/// The pattern of the user's that keeps a file. Half of a package that the runtime has would hide the other half, so that
/// what the runtime provides is all or nothing.
fn kept_by<'p>(path: &str, rule: Rule, policy: &'p Policy) -> Option<&'p str> {
    if rule == Rule::RuntimeProvided { None } else { policy.kept_by(path) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prune::Globs;

    const WHEEL: Origin<'_> = Origin::Wheel { distribution: "x", script: false };
    const ALL: [Set; 6] = [Set::Tests, Set::Docs, Set::Typing, Set::Sources, Set::Locales, Set::Examples];

    fn globs(lines: &[&str]) -> Globs {
        Globs::new(lines.iter().map(|line| (*line).to_owned()).collect()).unwrap()
    }

    fn choices(sets: &[Set]) -> Choices {
        Choices { sets: sets.iter().copied().collect(), ..Choices::default() }
    }

    /// The policy for one distribution `x` with these files.
    fn policy(choices: &Choices, paths: &[&str]) -> Policy {
        let mut policy = Policy::new(choices);
        policy.prepare(Distribution { name: "x", requires: &[] }, paths.iter().copied());
        policy
    }

    fn dropped<'a>(policy: &Policy, paths: &[&'a str]) -> Vec<(&'a str, Rule)> {
        let rule = |path| match verdict(path, WHEEL, policy) {
            Verdict::Drop(rule) => Some(rule),
            Verdict::Keep(_) => None,
        };
        paths.iter().filter_map(|path| Some((*path, rule(path)?))).collect()
    }

    fn kept(path: &str, origin: Origin<'_>, policy: &Policy) -> String {
        match verdict(path, origin, policy) {
            Verdict::Keep(Some(spared)) => format!("{}: {}", spared.rule, spared.reason),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn what_the_runtime_never_reads_is_dropped() {
        let policy = Policy::default();
        let drops = |path: &str, origin, rule| {
            assert_eq!(verdict(path, origin, &policy), Verdict::Drop(rule), "{path}");
        };
        drops("a/__pycache__/b.cpython-311.pyc", WHEEL, Rule::Bytecode);
        drops("__pycache__/b.pyc", Origin::Source, Rule::Bytecode);
        for file in ["RECORD", "INSTALLER", "REQUESTED", "direct_url.json"] {
            drops(&format!("x-1.dist-info/{file}"), WHEEL, Rule::InstallerMetadata);
        }
        drops("bin/x", Origin::Wheel { distribution: "x", script: true }, Rule::Scripts);
        drops(".git/config", Origin::Source, Rule::ToolFiles);
        drops(".lbx-a.zip", Origin::Source, Rule::ToolFiles);
    }

    #[test]
    fn what_packages_read_at_run_time_is_kept() {
        let paths = [
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
        ];
        assert_eq!(dropped(&policy(&Choices::default(), &paths), &paths), []);
        for path in ["lib/.env", "__pycache__", "tests/test_a.py", "docs/a.rst"] {
            assert_eq!(verdict(path, Origin::Source, &Policy::new(&choices(&ALL))), Verdict::Keep(None));
        }
    }

    #[test]
    fn metadata_stays_whatever_is_chosen() {
        let paths = ["x/a.py", "x-1.dist-info/METADATA", "x-1.dist-info/licenses/docs/tests/a.c"];
        assert_eq!(dropped(&policy(&choices(&ALL), &paths), &paths), []);
    }

    #[test]
    fn whole_distributions_go_that_nothing_requires_or_that_the_runtime_has() {
        let mut policy = Policy::default();
        policy.drop_tools(["pip".to_owned()]);
        policy.drop_provided(["boto3".to_owned()]);
        let of = |distribution| Origin::Wheel { distribution, script: false };
        assert_eq!(verdict("pip/a.py", of("pip"), &policy), Verdict::Drop(Rule::PackagingTools));
        let metadata = verdict("boto3-1.dist-info/METADATA", of("boto3"), &policy);
        assert_eq!(metadata, Verdict::Drop(Rule::RuntimeProvided));
    }

    #[test]
    fn test_modules_and_their_data_go_and_other_modules_of_the_folder_stay() {
        let paths = [
            "x/__init__.py",
            "x/tests/__init__.py",
            "x/tests/_natype.py",
            "x/tests/test_a.py",
            "x/tests/conftest.py",
            "x/tests/data/a.csv",
            "x/sub/test/a_test.py",
            "x/sub/test/_fast.cpython-311-x86_64-linux-gnu.so",
            "x/test_utils.py",
            "x/testing/test_b.py",
        ];
        let policy = policy(&choices(&[Set::Tests]), &paths);
        let expected = [paths[3], paths[4], paths[5], paths[6]].map(|path| (path, Rule::Tests));
        assert_eq!(dropped(&policy, &paths), expected);
        assert_eq!(kept(paths[2], WHEEL, &policy), "tests: it is a module that code may import");
    }

    /// `django/test`, `ansible/plugins/test`.
    #[test]
    fn a_folder_with_the_name_of_tests_and_none_in_it_is_code() {
        let paths = ["x/test/client.py", "x/test/templates/a.html", "x/__init__.py"];
        let policy = policy(&choices(&[Set::Tests]), &paths);
        assert_eq!(dropped(&policy, &paths), []);
        assert_eq!(kept(paths[1], WHEEL, &policy), "tests: its folder has no tests, so it is code");
    }

    #[test]
    fn tests_of_a_folder_that_is_code_do_not_make_it_tests() {
        let paths = ["x/test/client.py", "x/test/a.html", "x/test/tests/test_client.py", "x/a.py"];
        let policy = policy(&choices(&[Set::Tests]), &paths);
        assert_eq!(dropped(&policy, &paths), [(paths[2], Rule::Tests)]);
    }

    #[test]
    fn a_folder_of_tests_beside_packages_goes_whole_unless_there_is_nothing_else() {
        let paths =
            ["tests/__init__.py", "tests/test_a.py", "docs/conf.py", "examples/a.py", "x/__init__.py"];
        let found = dropped(&policy(&choices(&ALL), &paths), &paths);
        let rules = [Rule::Tests, Rule::Tests, Rule::Examples];
        assert_eq!(found, [paths[0], paths[1], paths[3]].into_iter().zip(rules).collect::<Vec<_>>());
        let alone = &paths[..2];
        assert_eq!(dropped(&policy(&choices(&ALL), alone), alone), []);
        let mut named = Policy::new(&choices(&ALL));
        named.prepare(Distribution { name: "tests", requires: &[] }, paths);
        let origin = Origin::Wheel { distribution: "tests", script: false };
        assert_eq!(kept(paths[1], origin, &named), "tests: its distribution has nothing else at the top");
    }

    #[test]
    fn documentation_and_examples_go_unless_they_are_packages() {
        let paths = [
            "x/docs/index.rst",
            "x/docs/conf.py",
            "x/writer/docs/__init__.py",
            "x/writer/docs/template.rst",
            "x/examples/a.py",
            "x/examples/_a.so",
            "x/known/examples/__init__.py",
            "share/man/man1/x.1",
            "share/x/a",
        ];
        let policy = policy(&choices(&[Set::Docs, Set::Examples]), &paths);
        let expected = [(paths[0], Rule::Docs), (paths[4], Rule::Examples), (paths[7], Rule::Docs)];
        assert_eq!(dropped(&policy, &paths), expected);
        assert_eq!(kept(paths[3], WHEEL, &policy), "docs: its folder is a package that code may import");
    }

    #[test]
    fn catalogs_of_other_languages_go_and_what_is_no_catalog_stays() {
        let paths = [
            "x/locale/de/LC_MESSAGES/django.mo",
            "x/locale/en/LC_MESSAGES/django.mo",
            "x/locale/en_GB/LC_MESSAGES/django.mo",
            "x/locale/zh_Hans/LC_MESSAGES/a.po",
            "x/locale/de/formats.py",
            "x/locale/de/LC_MESSAGES/a.js",
            "x/locale-data/de.dat",
            "x/locales/de/__init__.py",
            "x/de.po",
        ];
        let policy = policy(&choices(&[Set::Locales]), &paths);
        let expected = [paths[0], paths[3]].map(|path| (path, Rule::Locales));
        assert_eq!(dropped(&policy, &paths), expected);
    }

    #[test]
    fn types_go_unless_the_package_reads_its_stubs() {
        let paths = ["x/a.pyi", "x/py.typed", "x-stubs/METADATA.toml", "x/a.py"];
        let chosen = choices(&[Set::Typing]);
        assert_eq!(dropped(&policy(&chosen, &paths), &paths).len(), 3);
        let requires = ["lazy_loader>=0.4".to_owned()];
        let mut reads = Policy::new(&chosen);
        reads.prepare(Distribution { name: "x", requires: &requires }, paths);
        assert_eq!(dropped(&reads, &paths), []);
        assert!(kept("x/a.pyi", WHEEL, &reads).contains("lazy-loader"));
    }

    #[test]
    fn sources_go_unless_the_package_compiles() {
        let paths = ["x/a.c", "x/include/a.h", "x/_a.pyx", "x/a.py", "x/.c", "x/a.so"];
        let policy = policy(&choices(&[Set::Sources]), &paths);
        assert_eq!(
            dropped(&policy, &paths),
            paths[..3].iter().map(|path| (*path, Rule::Sources)).collect::<Vec<_>>()
        );
        let cffi = Origin::Wheel { distribution: "cffi", script: false };
        assert!(kept("cffi/_cffi_include.h", cffi, &policy).starts_with("sources: cffi: "));
    }

    #[test]
    fn a_set_that_is_not_chosen_takes_nothing_and_is_offered() {
        let paths = ["x/__init__.py", "x/tests/test_a.py"];
        let policy = policy(&Choices::default(), &paths);
        assert_eq!(verdict(paths[1], WHEEL, &policy), Verdict::Keep(None));
        assert_eq!(policy.offered(paths[1], WHEEL), Some(Set::Tests));
        assert_eq!(policy.offered(paths[0], WHEEL), None);
    }

    #[test]
    fn a_distribution_that_was_not_looked_at_keeps_what_depends_on_it() {
        let policy = Policy::new(&choices(&ALL));
        for path in ["x/tests/test_a.py", "x/docs/a.rst", "x/examples/a.py", "x/a.pyi"] {
            assert!(kept(path, WHEEL, &policy).ends_with("were not looked at"), "{path}");
        }
    }

    #[test]
    fn the_users_own_patterns_come_after_the_rules_and_keep_comes_last() {
        let chosen = Choices {
            exclude: globs(&["*.csv", "/data/"]),
            keep: globs(&["keep.csv", "__pycache__/", "RECORD"]),
            ..Choices::default()
        };
        let policy = Policy::new(&chosen);
        for origin in [WHEEL, Origin::Source] {
            assert_eq!(verdict("x/a.csv", origin, &policy), Verdict::Drop(Rule::Excluded));
            assert_eq!(verdict("data/a.py", origin, &policy), Verdict::Drop(Rule::Excluded));
            assert_eq!(verdict("x/data/a.py", origin, &policy), Verdict::Keep(None));
            assert_eq!(kept("x/keep.csv", origin, &policy), "excluded: `keep` has `keep.csv`");
            assert_eq!(kept("x/__pycache__/a.pyc", origin, &policy), "bytecode: `keep` has `__pycache__/`");
        }
        assert_eq!(policy.excluded_by("data/a.py"), Some("/data/"));
    }

    #[test]
    fn what_the_runtime_has_is_left_out_whole_whatever_is_to_be_kept() {
        let mut policy = Policy::new(&Choices { keep: globs(&["*.json"]), ..Choices::default() });
        policy.drop_provided(["x".to_owned()]);
        assert_eq!(verdict("x/a.json", WHEEL, &policy), Verdict::Drop(Rule::RuntimeProvided));
    }

    #[test]
    fn services_that_are_not_named_go_and_those_for_credentials_stay() {
        let services = Some(["s3".to_owned()].into());
        let policy = Policy::new(&Choices { botocore: services, ..Choices::default() });
        let botocore = Origin::Wheel { distribution: "botocore", script: false };
        let of = |path| verdict(path, botocore, &policy);
        assert_eq!(of("botocore/data/sqs/2012-11-05/a.gz"), Verdict::Drop(Rule::BotocoreData));
        assert_eq!(of("botocore/data/partitions.json"), Verdict::Keep(None));
        assert!(kept("botocore/data/sts/1/a.gz", botocore, &policy).ends_with("credentials are asked of it"));
        assert!(kept("botocore/data/s3/1/a.gz", botocore, &policy).ends_with("names the service"));
    }

    #[test]
    fn every_service_for_credentials_is_in_the_table_of_rules() {
        for name in ALWAYS_NEEDED {
            let path = format!("botocore/data/{name}/1/a.json");
            assert!(Rule::BotocoreData.spares("botocore", &path).is_some(), "{name}");
        }
    }

    #[test]
    fn the_key_differs_with_all_that_changes_a_verdict() {
        let base = Choices::default();
        let mut keys = vec![Policy::new(&base).key()];
        let mut add = |choices: Choices| keys.push(Policy::new(&choices).key());
        add(choices(&[Set::Tests]));
        add(choices(&[Set::Docs]));
        add(Choices { botocore: Some(["s3".to_owned()].into()), ..base.clone() });
        add(Choices { exclude: globs(&["a", "!b"]), ..base.clone() });
        add(Choices { exclude: globs(&["!b", "a"]), ..base.clone() });
        add(Choices { exclude: globs(&["a\",\"!b"]), ..base.clone() });
        add(Choices { keep: globs(&["a", "!b"]), ..base.clone() });
        let mut policy = Policy::new(&base);
        policy.drop_tools(["pip".to_owned()]);
        keys.push(policy.key());
        policy.drop_provided(["six".to_owned()]);
        keys.push(policy.key());
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert!(!keys.iter().any(|key| key.contains('\n')));
    }

    #[test]
    fn the_key_says_nothing_of_the_order_in_which_things_were_learnt() {
        let (mut left, mut right) = (policy(&choices(&ALL), &["x/a.py"]), Policy::new(&choices(&ALL)));
        left.drop_tools(["pip".to_owned(), "wheel".to_owned()]);
        right.drop_tools(["wheel".to_owned(), "pip".to_owned()]);
        assert_eq!(left.key(), right.key());
    }

    proptest! {
        #[test]
        fn no_path_makes_a_rule_panic(
            paths in proptest::collection::vec("[./a-z_]{0,6}(tests/|docs/|LC_MESSAGES/|\\PC){0,5}(test_|__init__)?(.py|.so|.c|.mo)?", 0..6),
        ) {
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            let policy = policy(&choices(&ALL), &paths);
            dropped(&policy, &paths);
        }

        /// A module that is no test and in no folder of examples is code: no set may take it.
        #[test]
        fn no_set_takes_a_module_that_code_may_import(
            folders in proptest::collection::vec("(x|tests|test|docs|doc|de|LC_MESSAGES)", 1..5),
            name in "(__init__|a|client|_private)\\.(py|so)",
        ) {
            let path = format!("x/{}/{name}", folders.join("/"));
            let policy = policy(&choices(&ALL), &[&path, "x/tests/test_a.py", "x/x/test_a.py"]);
            prop_assert_eq!(dropped(&policy, &[&path]), []);
        }
    }
}
