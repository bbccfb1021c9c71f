//! Whether the AWS SDK can be left to the runtime: all of it or nothing, and never against a requirement.
//!
//! A function that has boto3 and takes botocore from the runtime, or the other way round, fails when it is imported, as soon
//! as their versions are too far apart. So the whole closure of boto3 goes, or all of it stays; and it stays where a
//! requirement that counts does not accept what the runtime has. A version that is merely another one is no conflict.

use std::str::FromStr;

use pep440_rs::Version;
use pep508_rs::{Requirement, VerbatimUrl, VersionOrUrl};
use schemars::JsonSchema;
use serde::Serialize;

use crate::locks::{Environment, Selection, normalized};

/// boto3 and all that it requires, by normalised names.
pub const CLOSURE: [&str; 7] =
    ["boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"];

/// Those of the closure that nobody has for anything else: without one of them there is no SDK to leave out.
const SDK: [&str; 2] = ["boto3", "botocore"];

/// A distribution that the image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed<'a> {
    /// Its normalised name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
}

/// A distribution of the artifact's set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its normalised name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its `Requires-Dist` lines.
    pub requires: &'a [String],
}

/// A distribution of the closure that the set has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Provided {
    /// Its normalised name.
    pub name: String,
    /// The version of the set.
    pub ours: String,
    /// The version of the image; none where it has none.
    pub theirs: Option<String>,
}

/// Whether the SDK is left to the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// These are left out.
    Dropped(Vec<Provided>),
    /// All stay.
    Kept {
        /// Why, with both versions where it is about versions.
        why: String,
        /// What the set has of the closure.
        versions: Vec<Provided>,
    },
}

/// Decides.
///
/// `asked` are the user's own requirement lines, constraints among them, as pip reads them; what is no requirement with a
/// name is passed over. Markers are those of `environment`. A requirement that comes with an extra counts if the set's
/// version meets it: then it may well be one of those that made the set.
pub fn provided<'a>(
    image: &[Installed<'_>],
    set: &[Member<'_>],
    asked: impl IntoIterator<Item = &'a str>,
    environment: &Environment,
) -> Decision {
    let mut versions: Vec<Provided> = set
        .iter()
        .filter(|member| CLOSURE.contains(&member.name))
        .map(|member| Provided {
            name: member.name.to_owned(),
            ours: member.version.to_owned(),
            theirs: image.iter().find(|one| one.name == member.name).map(|one| one.version.to_owned()),
        })
        .collect();
    versions.sort();
    let question = Question { image, set, environment };
    let asked = asked.into_iter().map(|line| ("the requirements".to_owned(), line));
    match question.objection(&versions, asked) {
        None => Decision::Dropped(versions),
        Some(why) => Decision::Kept { why, versions },
    }
}

struct Question<'a> {
    image: &'a [Installed<'a>],
    set: &'a [Member<'a>],
    environment: &'a Environment,
}

impl Question<'_> {
    /// Why the SDK has to stay, if it has to.
    fn objection<'l>(
        &'l self,
        ours: &[Provided],
        asked: impl Iterator<Item = (String, &'l str)>,
    ) -> Option<String> {
        if !ours.iter().any(|one| SDK.contains(&one.name.as_str())) {
            return Some("there is neither boto3 nor botocore to leave out".to_owned());
        }
        if let Some(missing) = ours.iter().find(|one| one.theirs.is_none()) {
            return Some(format!("the runtime has no {}, and the artifact {}", missing.name, missing.ours));
        }
        if let Some(missing) = SDK.iter().find(|name| self.theirs(name).is_none()) {
            return Some(format!("the runtime has no {missing}"));
        }
        let of_kept = self
            .set
            .iter()
            .filter(|member| !CLOSURE.contains(&member.name))
            .flat_map(|member| member.requires.iter().map(move |line| (member, line.as_str())))
            .map(|(member, line)| (format!("{} {}", member.name, member.version), line));
        of_kept.chain(asked).find_map(|(who, line)| self.refusal(&who, line))
    }

    fn theirs(&self, name: &str) -> Option<&str> {
        self.image.iter().find(|one| one.name == name).map(|one| one.version)
    }

    /// Why a requirement that stays does not accept what the image has, if it does not.
    fn refusal(&self, who: &str, line: &str) -> Option<String> {
        let text = line.split(" --").next().unwrap_or_default();
        let requirement = Requirement::<VerbatimUrl>::from_str(text).ok()?;
        let name = normalized(requirement.name.as_ref());
        if !CLOSURE.contains(&name.as_str()) {
            return None;
        }
        let ours = self.set.iter().find(|member| member.name == name)?.version;
        let theirs = self.theirs(&name)?;
        let specifiers = match &requirement.version_or_url {
            None => return None,
            Some(VersionOrUrl::VersionSpecifier(specifiers)) => specifiers,
            Some(VersionOrUrl::Url(_)) => {
                return self.counts(&requirement, true).then(|| {
                    format!("{who} name an address for {name}; the runtime has {theirs} of its own")
                });
            }
        };
        let accepts = |version: &str| {
            // What is built in an image may have a local version, which no requirement names.
            Version::from_str(version).is_ok_and(|version| specifiers.contains(&version.without_local()))
        };
        if accepts(theirs) || !self.counts(&requirement, accepts(ours)) {
            return None;
        }
        let need = if who.starts_with("the ") { "need" } else { "needs" };
        Some(format!("{who} {need} {name}{specifiers}: the runtime has {theirs}, the artifact {ours}"))
    }

    /// Whether a requirement is in force here; one of an extra only if the set's version `meets` it.
    fn counts(&self, requirement: &Requirement<VerbatimUrl>, meets: bool) -> bool {
        let holds = |marker: &pep508_rs::MarkerTree| match marker.try_to_string() {
            None => true,
            Some(text) => self.environment.holds(&text, &Selection::default()).unwrap_or(true),
        };
        let marker = &requirement.marker;
        holds(marker) || (meets && holds(&marker.clone().simplify_extras_with(|_| true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Architecture, Runtime};

    fn environment() -> Environment {
        Environment::new(&Runtime::find("python3.12").unwrap(), Architecture::X86_64).unwrap()
    }

    const IMAGE: [Installed<'_>; 8] = [
        Installed { name: "boto3", version: "1.40.4" },
        Installed { name: "botocore", version: "1.40.4" },
        Installed { name: "jmespath", version: "1.0.1" },
        Installed { name: "python-dateutil", version: "2.9.0.post0" },
        Installed { name: "s3transfer", version: "0.13.1" },
        Installed { name: "six", version: "1.17.0" },
        Installed { name: "urllib3", version: "1.26.19" },
        Installed { name: "simplejson", version: "3.20.1" },
    ];

    fn member<'a>(name: &'a str, version: &'a str, requires: &'a [String]) -> Member<'a> {
        Member { name, version, requires }
    }

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    /// boto3 with all that it requires, newer than the image's, and one package that requires `requires`.
    fn decide(requires: &[&str], asked: &[&str]) -> Decision {
        let (boto3, other) =
            (lines(&["botocore<1.41.0,>=1.40.61", "jmespath<2.0.0,>=0.7.1"]), lines(requires));
        let set = [
            member("boto3", "1.40.61", &boto3),
            member("botocore", "1.40.61", &[]),
            member("jmespath", "1.0.1", &[]),
            member("python-dateutil", "2.9.0.post0", &[]),
            member("s3transfer", "0.14.0", &[]),
            member("six", "1.17.0", &[]),
            member("urllib3", "2.5.0", &[]),
            member("other", "1.0", &other),
        ];
        provided(&IMAGE, &set, asked.iter().copied(), &environment())
    }

    fn why(decision: Decision) -> String {
        match decision {
            Decision::Kept { why, .. } => why,
            Decision::Dropped(_) => panic!("dropped"),
        }
    }

    #[test]
    fn the_whole_sdk_goes_where_no_requirement_objects_and_both_versions_are_told() {
        let Decision::Dropped(all) = decide(&["urllib3<3,>=1.21.1", "six"], &["boto3", "other>=1"]) else {
            panic!("kept")
        };
        assert_eq!(all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), CLOSURE);
        assert_eq!((all[0].ours.as_str(), all[0].theirs.as_deref()), ("1.40.61", Some("1.40.4")));
    }

    #[test]
    fn it_stays_where_a_package_that_stays_needs_another_version() {
        let why = why(decide(&["urllib3>=2"], &["boto3"]));
        assert_eq!(why, "other 1.0 needs urllib3>=2: the runtime has 1.26.19, the artifact 2.5.0");
    }

    #[test]
    fn it_stays_where_the_users_own_lines_need_another_version() {
        let of = |line: &str| why(decide(&[], &[line]));
        assert_eq!(
            of("boto3==1.40.61 --hash=sha256:00"),
            "the requirements need boto3==1.40.61: the runtime has 1.40.4, the artifact 1.40.61"
        );
        assert!(of("botocore @ https://h/botocore-1.40.61.whl").contains("name an address for botocore"));
        assert!(of("Boto3>=1.40.50").contains("1.40.4"));
    }

    #[test]
    fn markers_decide_whether_a_requirement_counts() {
        let dropped = |requires: &[&str]| matches!(decide(requires, &[]), Decision::Dropped(_));
        assert!(dropped(&["urllib3>=2; python_version < '3.10'"]));
        assert!(!dropped(&["urllib3>=2; python_version >= '3.10'"]));
        assert!(dropped(&["urllib3>=9; extra == 'new'"]), "the set itself does not meet it");
        assert!(!dropped(&["urllib3>=2; extra == 'new'"]), "it may be what made the set");
    }

    #[test]
    fn it_stays_where_the_runtime_lacks_one_of_them() {
        let set = [member("boto3", "1", &[]), member("botocore", "1", &[])];
        let image = [IMAGE[0]];
        let of = |set: &[Member<'_>]| why(provided(&image, set, [], &environment()));
        assert_eq!(of(&set), "the runtime has no botocore, and the artifact 1");
        assert_eq!(of(&set[..1]), "the runtime has no botocore");
    }

    #[test]
    fn without_an_sdk_in_the_set_nothing_goes() {
        let set = [member("urllib3", "2.5.0", &[]), member("six", "1.17.0", &[])];
        let why = why(provided(&IMAGE, &set, [], &environment()));
        assert_eq!(why, "there is neither boto3 nor botocore to leave out");
    }

    #[test]
    fn a_line_that_is_no_requirement_is_passed_over() {
        assert!(matches!(decide(&[">>>"], &["./lib", "-e .", "[end]", ""]), Decision::Dropped(_)));
    }
}
