//! What the configuration chooses of the rules, for one artifact.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GlobError, Globs, Set};
use crate::config::{Config, ConfigError, Prune};
use crate::position::At;

/// What becomes of the packages that the runtime has as well.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum RuntimeProvided {
    /// The artifact has its own.
    #[default]
    Keep,
    /// The AWS SDK is left out where the runtime's versions meet all requirements.
    Drop,
}

/// What an artifact has chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Choices {
    /// The sets that hold.
    pub sets: BTreeSet<Set>,
    /// What becomes of the packages that the runtime has as well.
    pub runtime_provided: RuntimeProvided,
    /// The AWS services whose descriptions stay, in botocore's words; all of them when none.
    pub botocore: Option<BTreeSet<String>>,
    /// Whether symbols are taken out of machine code.
    pub strip: bool,
    /// What is left out although no rule takes it.
    pub exclude: Globs,
    /// What is kept although a rule takes it.
    pub keep: Globs,
}

/// The word for all services.
const ALL_SERVICES: &str = "*";

impl Choices {
    /// What holds for an artifact: key by key, what it says itself, or else what the project says.
    pub(crate) fn new(config: &Config, own: &Prune) -> Result<Self, ConfigError> {
        let project = &config.prune;
        let sets = own.sets.as_ref().or(project.sets.as_ref());
        let botocore = own.botocore.as_ref().or(project.botocore.as_ref());
        Ok(Self {
            sets: sets.into_iter().flatten().map(|set| set.value).collect(),
            runtime_provided: own.runtime_provided.or(project.runtime_provided).unwrap_or_default(),
            botocore: botocore.map(|names| services(config, names)).transpose()?.flatten(),
            strip: own.strip.or(project.strip).unwrap_or_default(),
            exclude: globs(config, own.exclude.as_ref().or(project.exclude.as_ref()))?,
            keep: globs(config, own.keep.as_ref().or(project.keep.as_ref()))?,
        })
    }
}

fn services(config: &Config, names: &[At<String>]) -> Result<Option<BTreeSet<String>>, ConfigError> {
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if let Some(wrong) = names.iter().find(|name| name.value != ALL_SERVICES && !is_name(name)) {
        let message = format!("`{}` is no name of an AWS service", wrong.value);
        let hint = "the names are those of `boto3.client`: `botocore = [\"s3\", \"sqs\"]`; `\"*\"` means all";
        return Err(config.error(wrong.offset, message, Some(hint.to_owned())));
    }
    let all = names.iter().any(|name| name.value == ALL_SERVICES);
    Ok((!all).then(|| names.iter().map(|name| name.value.clone()).collect()))
}

/// The files of a project in which whatever the checks find is meant to be.
pub fn accepted(config: &Config) -> Result<Globs, ConfigError> {
    globs(config, Some(&config.check.accept))
}

pub(crate) fn globs(config: &Config, patterns: Option<&Vec<At<String>>>) -> Result<Globs, ConfigError> {
    let patterns = patterns.map_or(&[][..], Vec::as_slice);
    Globs::new(patterns.iter().map(|at| at.value.clone()).collect()).map_err(|error: GlobError| {
        let offset = patterns.get(error.index).map_or(0, |at| at.offset);
        let hint = "patterns are those of .gitignore: `*.csv`, `/data/`, `pkg/**/fixtures/`".to_owned();
        config.error(offset, error.to_string(), Some(hint))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Overrides, Plan, PlanError, RequirementFiles};

    fn plan(prune: &str) -> Result<Plan, PlanError> {
        let head = "[project]\nruntime='python3.11'\n[functions.a]\nsource='a'\n[layers.b]\nsource='b'\n";
        let config = Config::parse("lbx.toml", &format!("{head}{prune}"))?;
        Plan::new(&config, &RequirementFiles::default(), &Overrides::default())
    }

    #[test]
    fn an_artifact_says_key_by_key_what_holds_in_place_of_what_the_project_says() {
        let text = "[prune]\nsets=['tests','docs']\nexclude=['*.csv']\nstrip=true\n\
            [functions.a.prune]\nsets=['typing']\nstrip=false\n\
            [layers.b.prune]\nexclude=[]\nruntime-provided='drop'\n";
        let plan = plan(text).unwrap();
        let (a, b) = (&plan.artifacts[0].prune, &plan.artifacts[1].prune);
        assert_eq!(a.sets, [Set::Typing].into());
        assert_eq!((a.exclude.lines(), a.strip), (&["*.csv".to_owned()][..], false));
        assert_eq!(a.runtime_provided, RuntimeProvided::Keep);
        assert_eq!(b.sets, [Set::Tests, Set::Docs].into());
        assert_eq!((b.exclude.lines(), b.strip), (&[][..], true));
        assert_eq!(b.runtime_provided, RuntimeProvided::Drop);
    }

    #[test]
    fn a_project_that_says_nothing_has_chosen_nothing() {
        assert_eq!(plan("").unwrap().artifacts[0].prune, Choices::default());
    }

    #[test]
    fn an_artifact_can_have_all_services_where_the_project_names_some() {
        let plan =
            plan("[prune]\nbotocore=['s3','sqs','s3']\n[functions.a.prune]\nbotocore=['*']\n").unwrap();
        assert_eq!(plan.artifacts[0].prune.botocore, None);
        let named = Some(["s3".to_owned(), "sqs".to_owned()].into());
        assert_eq!(plan.artifacts[1].prune.botocore, named);
    }

    #[test]
    fn what_is_no_pattern_and_no_service_is_an_error_with_its_place() {
        let of = |text: &str| plan(text).unwrap_err().to_string();
        assert!(of("[prune]\nkeep=['a', 'b{']\n").starts_with("lbx.toml:8:12: `b{` is no pattern: "));
        assert_eq!(
            of("[functions.a.prune]\nbotocore=['s3', 'S3 Control']\n"),
            "lbx.toml:8:17: `S3 Control` is no name of an AWS service"
        );
        assert!(of("[prune]\nruntime-provided='dorp'\n").contains("unknown value `dorp`"));
    }
}
