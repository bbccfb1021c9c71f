//! The descriptions of AWS services in botocore and boto3, of which a client reads its own.

use std::collections::BTreeSet;

use super::matching::Match;
use super::policy::Reason;
use crate::config::{Config, ConfigError, distance};
use crate::plan::{Artifact, Kind};
use crate::position::At;

/// The services that botocore makes clients for by itself, to get credentials and tokens.
pub const ALWAYS_NEEDED: [&str; 4] = ["signin", "sso", "sso-oidc", "sts"];

/// A service that was named and that botocore does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// As it was written.
    pub name: String,
    /// Names that may have been meant, the nearest first.
    pub near: Vec<String>,
}

/// The service that a file of botocore or boto3 describes. Files beside the folders of services are for all of them.
fn service(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("botocore/data/").or_else(|| path.strip_prefix("boto3/data/"))?;
    rest.split_once('/').map(|(service, _)| service)
}

/// What becomes of a file where these services are to stay.
pub(super) fn data<'p>(path: &str, distribution: &str, services: &BTreeSet<String>) -> Match<'p> {
    match service(path) {
        Some(service) if matches!(distribution, "boto3" | "botocore") => {
            if services.contains(service) {
                Match::Spares(Reason::Service)
            } else {
                Match::Takes
            }
        }
        _ => Match::No,
    }
}

/// Which of these services are not in botocore, given the paths of its files. Empty where it has no services at all: then
/// it is not there, or is laid out as nobody knows yet.
pub fn unknown_services<'a>(
    services: &BTreeSet<String>,
    paths: impl IntoIterator<Item = &'a str>,
) -> Vec<Unknown> {
    let known: BTreeSet<&str> =
        paths.into_iter().filter(|path| path.starts_with("botocore/")).filter_map(service).collect();
    if known.is_empty() {
        return Vec::new();
    }
    let missing = services.iter().filter(|name| !known.contains(name.as_str()));
    missing.map(|name| Unknown { name: name.clone(), near: near(name, &known) }).collect()
}

/// Whether botocore, whose files these are, has all services that an artifact names; the error has the place of the first
/// that it has not got.
pub fn check_services<'a>(
    config: &Config,
    artifact: &Artifact,
    paths: impl IntoIterator<Item = &'a str>,
) -> Result<(), ConfigError> {
    let Some(services) = &artifact.prune.botocore else { return Ok(()) };
    let unknown = unknown_services(services, paths);
    let Some(first) = unknown.first() else { return Ok(()) };
    let near: Vec<String> = first.near.iter().map(|name| format!("`{name}`")).collect();
    let hint = match near.as_slice() {
        [] => "the names are those that `boto3.client` takes".to_owned(),
        _ => format!("did you mean {}?", near.join(" or ")),
    };
    let message = format!("botocore has no service `{}`", first.name);
    Err(config.error(place(config, artifact, &first.name), message, Some(hint)))
}

/// Where the configuration names a service for an artifact.
fn place(config: &Config, artifact: &Artifact, service: &str) -> usize {
    let name = At::nowhere(artifact.name.clone());
    let own = match artifact.kind {
        Kind::Function => config.functions.get(&name).map(|function| &function.prune),
        Kind::Layer => config.layers.get(&name).map(|layer| &layer.prune),
    };
    let names = own.and_then(|own| own.botocore.as_ref()).or(config.prune.botocore.as_ref());
    names.into_iter().flatten().find(|at| at.value == service).map_or(0, |at| at.offset)
}

/// Names that differ by a slip, or of which one is part of the other, as `cloudwatch-logs` and `logs` are. Three at most.
fn near(name: &str, known: &BTreeSet<&str>) -> Vec<String> {
    let part =
        |known: &str| known.len() > 2 && name.len() > 2 && (known.contains(name) || name.contains(known));
    let mut near: Vec<(usize, &str)> = known
        .iter()
        .map(|known| (distance(name, known), *known))
        .filter(|(distance, known)| *distance <= 2.min(name.len() / 2) || part(known))
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_data_of_named_services_and_what_all_clients_read_stay() {
        let services = set(&["s3"]);
        let of = |path: &str, distribution: &str| data(path, distribution, &services);
        assert_eq!(
            of("botocore/data/s3/2006-03-01/service-2.json.gz", "botocore"),
            Match::Spares(Reason::Service)
        );
        assert_eq!(of("botocore/data/sqs/2012-11-05/service-2.json.gz", "botocore"), Match::Takes);
        assert_eq!(of("boto3/data/sqs/2012-11-05/resources-1.json", "boto3"), Match::Takes);
        assert_eq!(of("botocore/data/endpoints.json", "botocore"), Match::No);
        assert_eq!(of("botocore/data/s3control/2018-08-20/x.json", "botocore"), Match::Takes);
        assert_eq!(of("botocore/data/sqs/x.json", "another"), Match::No);
    }

    #[test]
    fn a_service_that_botocore_has_not_got_is_told_with_what_may_be_meant() {
        let paths =
            ["botocore/data/s3/a/b.json", "botocore/data/logs/a/b.json", "botocore/data/dynamodb/a/b"];
        let unknown = unknown_services(&set(&["s3", "dynamdb", "cloudwatch-logs", "zzzzz"]), paths);
        let found: Vec<(&str, Vec<&str>)> = unknown
            .iter()
            .map(|one| (one.name.as_str(), one.near.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(
            found,
            [("cloudwatch-logs", vec!["logs"]), ("dynamdb", vec!["dynamodb"]), ("zzzzz", vec![])]
        );
    }

    #[test]
    fn the_error_has_the_place_where_the_service_is_named() {
        let text = "[project]\nruntime='python3.11'\n[prune]\nbotocore=['s3','dynamdb']\n[functions.a]\nsource='a'\n\
            [functions.b]\nsource='b'\n[functions.b.prune]\nbotocore=['dynamdb']\n";
        let config = Config::parse("lbx.toml", text).unwrap();
        let plan =
            crate::Plan::new(&config, &crate::RequirementFiles::default(), &crate::Overrides::default());
        let artifacts = plan.unwrap().artifacts;
        let paths = ["botocore/data/s3/a/b.json", "botocore/data/dynamodb/a/b.json"];
        let error = |index: usize| check_services(&config, &artifacts[index], paths).unwrap_err();
        assert_eq!(error(0).to_string(), "lbx.toml:4:16: botocore has no service `dynamdb`");
        assert_eq!(error(0).hint.as_deref(), Some("did you mean `dynamodb`?"));
        assert_eq!(error(1).position.line, 10);
        assert!(check_services(&config, &artifacts[1], ["x.py"]).is_ok());
    }

    #[test]
    fn without_botocore_no_service_is_unknown() {
        assert_eq!(unknown_services(&set(&["s3"]), ["boto3/data/s3/a/b.json", "x.py"]), []);
    }
}
