//! Requirement files in which every line says exactly one version and its hashes, as `pip-compile --generate-hashes`
//! writes them.

use std::str::FromStr;

use pep508_rs::{Requirement, VerbatimUrl, VersionOrUrl};

use super::environment::one_line;
use super::{Environment, File, Locked, Package, Source, Text, normalized};
use crate::position::Position;
use crate::requirements::{LineKind, RequirementsError, scan};

/// One line: the requirement, and the hashes behind it.
struct Pin<'l> {
    requirement: &'l str,
    hashes: Vec<&'l str>,
}

fn pin(line: &str) -> Option<Pin<'_>> {
    let (requirement, options) = line.split_once(" --")?;
    let mut hashes = Vec::new();
    for option in options.split(" --") {
        let (name, value) = option.split_once(['=', ' '])?;
        let value = value.trim();
        if name != "hash" {
            return None;
        }
        // Others say nothing more.
        hashes.extend(value.strip_prefix("sha256:"));
    }
    (!hashes.is_empty()).then_some(Pin { requirement: requirement.trim(), hashes })
}

/// Whether a file is a lock: each of its lines says one version, and its hashes.
pub fn is_hashed(text: &str) -> bool {
    let mut any = false;
    let all = scan(text).into_iter().all(|line| match line.kind {
        LineKind::Requirement => {
            any = true;
            pin(line.text.expose()).is_some_and(|pin| {
                pin.requirement
                    .split(';')
                    .next()
                    .is_some_and(|spec| spec.contains("==") && !spec.contains('*'))
            })
        }
        // Where packages are, and that there must be hashes.
        LineKind::Options { rest, .. } => matches!(rest.trim(), "" | "--require-hashes"),
        _ => false,
    });
    any && all
}

pub(super) fn read(lock: &Text<'_>, environment: &Environment) -> Result<Locked, RequirementsError> {
    let mut packages = Vec::new();
    for line in scan(lock.text).iter().filter(|line| matches!(line.kind, LineKind::Requirement)) {
        let wrong = |message: String| RequirementsError {
            position: Position::line(lock.path, line.number),
            message,
            hint: None,
        };
        let Some(pin) = pin(line.text.expose()) else {
            return Err(wrong(format!("`{}` has no hash", line.text)));
        };
        let requirement = Requirement::<VerbatimUrl>::from_str(pin.requirement)
            .map_err(|error| wrong(format!("`{}`: {}", pin.requirement, one_line(&error.message))))?;
        if !environment.tree_holds(&requirement.marker, &[]) {
            continue;
        }
        let Some(VersionOrUrl::VersionSpecifier(specifiers)) = &requirement.version_or_url else {
            return Err(wrong(format!("`{}` says no version", pin.requirement)));
        };
        let version = specifiers.iter().next().map(|one| one.version().to_string());
        let files = pin.hashes.iter().map(|hash| File::new(None, None, None, Some(hash)));
        let source = Source::Files(files.collect::<Result<_, _>>().map_err(wrong)?);
        packages.push(Package { name: normalized(requirement.name.as_ref()), version, source });
    }
    lock.locked(packages)
}
