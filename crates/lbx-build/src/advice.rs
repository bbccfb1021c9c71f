//! What images and indexes know of what the checks have found: whether something is there after all, and what to take
//! instead. They are asked only where something is an error.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use lbx_index::{Offer, Server};
use lbx_plan::{Artifact, Runtime};
use lbx_wheel::{Target, WheelFilename};
use pep440_rs::Version;

use crate::cancel::Cancel;
use crate::check::{self, Finding, ImageLibraries, Lead, Severity, Subject};
use crate::error::Error;
use crate::resolve;
use crate::workshop::Workshop;

/// How long an index may think about what is only advice.
const PATIENCE: Duration = Duration::from_secs(10);

/// About how many packages an index is asked.
const MOST: usize = 20;

/// What is wrong with an artifact. Where it seems to lack a library, the image is asked, and opened for that; where a
/// package's code does not fit, its index is asked what would.
pub(crate) fn look_at(
    workshop: &Workshop,
    (artifact, subject): (&Artifact, &Subject<'_>),
    layers: Option<&[&Subject<'_>]>,
) -> Result<Vec<Finding>, Error> {
    let context = workshop.context();
    let plan = &context.plan;
    let look = |image: Option<&ImageLibraries>| {
        let target = check::Target { runtime: &plan.runtime, arch: plan.arch, image };
        let mut findings = check::check(subject, layers, &target);
        findings.retain(|one| one.path.as_ref().is_none_or(|path| plan.accept.matched(path).is_none()));
        findings
    };
    let mut findings = look(None);
    if !context.options.check {
        return Ok(findings);
    }
    if is_open(&findings, Lead::Image) {
        match workshop.builder() {
            Ok(builder) => findings = look(Some(&builder.base().libraries(&builder.site().choice))),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            // What was found stands, then.
            Err(error) => tracing::info!(%error, "the image could not be asked for a library"),
        }
    }
    let indexes = workshop.indexes();
    if let Some(set) = artifact.set.filter(|&set| indexes.is_known(set) && is_open(&findings, Lead::Index)) {
        let server = indexes.fetcher(set)?;
        let target = resolve::target(context, plan.arch);
        let offers = |name: &str| indexes.runtime().block_on(ask(server, name, &context.ground.cancel));
        suggest(&mut findings, &plan.runtime, &target, offers);
    }
    context.ground.cancel.check()?;
    Ok(findings)
}

/// Whether there is an error that somebody may know more of.
pub(crate) fn is_open(findings: &[Finding], lead: Lead) -> bool {
    findings.iter().any(|one| one.severity == Severity::Error && one.lead == Some(lead))
}

/// What an index has of a package; nothing where it cannot be asked.
pub(crate) async fn ask(server: &Server, name: &str, cancel: &Cancel) -> Vec<Offer> {
    tokio::select! {
        answer = tokio::time::timeout(PATIENCE, server.offers(name)) => match answer {
            Ok(Ok(offers)) => offers,
            Ok(Err(error)) => {
                tracing::info!(%error, name, "the index could not be asked for another version");
                Vec::new()
            }
            Err(_) => Vec::new(),
        },
        () = cancel.cancelled() => Vec::new(),
    }
}

/// Says with each finding about code that does not fit which version of the package has wheels that do.
pub(crate) fn suggest(
    findings: &mut [Finding],
    runtime: &Runtime,
    target: &Target,
    offers: impl Fn(&str) -> Vec<Offer>,
) {
    let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
    for finding in findings.iter_mut().filter(|one| one.lead == Some(Lead::Index)) {
        let owner = finding.owner.clone().unwrap_or_default();
        // In a stranger's artifact, a name may be anything, and it becomes a part of an address.
        let named = owner
            .rsplit_once(' ')
            .and_then(|(name, version)| Some((lbx_index::normalize(name)?, name, version)));
        let Some((normal, name, version)) = named else { continue };
        if known.len() >= MOST && !known.contains_key(&owner) {
            continue;
        }
        let newest = known.entry(owner.clone()).or_insert_with(|| newest(&offers(&normal), target, version));
        if let Some(newest) = newest {
            let what = format!("{} on {}", runtime.runtime, target.arch);
            finding.hint = Some(format!(
                "{name} {newest} is the newest version whose wheels fit {what}: require `{name}=={newest}`"
            ));
        }
    }
}

/// The newest version but this one of which there is a wheel that fits; pre-releases where there is nothing else.
fn newest(offers: &[Offer], target: &Target, version: &str) -> Option<String> {
    let this = Version::from_str(version).ok();
    let fits = |offer: &&Offer| !offer.yanked;
    let versions = offers.iter().filter(fits).filter_map(|offer| {
        let name: WheelFilename = offer.name.parse().ok()?;
        name.allowed_on(target).ok()?;
        Version::from_str(&name.version).ok()
    });
    let others = versions.filter(|one| Some(one) != this.as_ref());
    others.max_by_key(|one| (!one.any_prerelease(), one.clone())).map(|one| one.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(names: &[&str]) -> Vec<Offer> {
        let offer = |name: &&str| {
            let (name, yanked) = name.strip_suffix('!').map_or((*name, false), |name| (name, true));
            Offer { name: name.to_owned(), sha256: None, yanked }
        };
        names.iter().map(offer).collect()
    }

    fn target() -> Target {
        Target { python_minor: 11, glibc: (2, 26), arch: "x86_64".to_owned() }
    }

    #[test]
    fn the_newest_version_whose_wheels_fit_is_named() {
        let all = offers(&[
            "x-1.9-cp311-cp311-manylinux_2_17_x86_64.whl",
            "x-1.10-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "x-1.11-cp311-cp311-manylinux_2_17_aarch64.whl",
            "x-1.12-cp312-cp312-manylinux_2_17_x86_64.whl",
            "x-1.13-cp311-cp311-manylinux_2_17_x86_64.whl!",
            "x-1.14rc1-cp311-cp311-manylinux_2_17_x86_64.whl",
            "x-2.0-cp311-cp311-manylinux_2_28_x86_64.whl",
            "x-2.1.tar.gz",
            "another file",
        ]);
        let newest = |version: &str| newest(&all, &target(), version);
        assert_eq!(newest("2.0").as_deref(), Some("1.10"));
        assert_eq!(newest("1.10.0").as_deref(), Some("1.9"), "the one at fault is no way out of it");
        assert_eq!(super::newest(&all[5..], &target(), "2.0").as_deref(), Some("1.14rc1"));
        assert_eq!(super::newest(&all[6..], &target(), "2.0"), None);
    }

    #[test]
    fn an_index_is_asked_once_for_each_package_and_about_nothing_else() {
        let finding = |owner: &str, lead| {
            let mut one = Finding::new(Severity::Error, check::Check::Elf, "needs more".to_owned());
            one.owner = Some(owner.to_owned());
            one.lead = lead;
            one.with_hint("as it was")
        };
        let mut findings = [
            finding("Some.Name 2", Some(Lead::Index)),
            finding("Some.Name 2", Some(Lead::Index)),
            finding("other 1", Some(Lead::Image)),
            finding("src", Some(Lead::Index)),
            finding("%2e%2e/%2e%2e/admin 1", Some(Lead::Index)),
            finding("../x 1", Some(Lead::Index)),
        ];
        let asked = std::cell::RefCell::new(Vec::new());
        let runtime = Runtime::find("python3.11").unwrap();
        suggest(&mut findings, &runtime, &target(), |name| {
            asked.borrow_mut().push(name.to_owned());
            offers(&["some_name-1-py3-none-any.whl"])
        });
        assert_eq!(asked.into_inner(), ["some-name"]);
        let hints: Vec<&str> = findings.iter().filter_map(|one| one.hint.as_deref()).collect();
        let new =
            "Some.Name 1 is the newest version whose wheels fit python3.11 on x86_64: require `Some.Name==1`";
        assert_eq!(hints, [new, new, "as it was", "as it was", "as it was", "as it was"]);
    }
}
